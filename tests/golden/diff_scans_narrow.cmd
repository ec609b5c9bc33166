pagesift diff --width 50 made-up.db@1 made-up.db@2
