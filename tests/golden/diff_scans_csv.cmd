pagesift diff --format csv made-up.db@1 made-up.db@2
