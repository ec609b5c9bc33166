pagesift diff made-up.db@7
