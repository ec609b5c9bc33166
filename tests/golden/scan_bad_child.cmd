pagesift scan --children-of init
