pagesift diff --top 1 --unit bytes --where 'comm != "new"' made-up.db@1 made-up.db@2
