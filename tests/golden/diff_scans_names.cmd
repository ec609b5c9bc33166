pagesift diff made-up.db@-2
