pagesift diff made-up.db@1 made-up.db@4
