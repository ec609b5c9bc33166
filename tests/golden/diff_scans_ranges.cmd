pagesift diff --ranges made-up.db
