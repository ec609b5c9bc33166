pagesift scan --format sqlite
