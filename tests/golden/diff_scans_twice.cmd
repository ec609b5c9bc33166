pagesift diff made-up.db@2 made-up.db@-5
