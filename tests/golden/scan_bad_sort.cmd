pagesift scan --sort beauty
