pagesift advise pageout --plan plan.json 1
