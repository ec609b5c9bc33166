pagesift diff made-up.db@1
