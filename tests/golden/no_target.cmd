pagesift inspect
