pagesift diff --format ndjson made-up.db@4 made-up.db@5
