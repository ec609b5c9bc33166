pagesift scan --depth totals --sort empty_tables
