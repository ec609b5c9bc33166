pagesift diff --format json made-up.db@1 made-up.db@2
