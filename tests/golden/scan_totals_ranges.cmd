pagesift scan --depth totals --per mapping
