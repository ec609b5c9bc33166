pagesift inspect -- -5
