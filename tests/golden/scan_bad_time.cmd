pagesift scan --max-time soon
