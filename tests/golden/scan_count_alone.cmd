pagesift scan --count 3
