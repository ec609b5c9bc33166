pagesift diff made-up.db@3 made-up.db
