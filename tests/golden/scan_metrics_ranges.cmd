pagesift scan --format openmetrics --per range
