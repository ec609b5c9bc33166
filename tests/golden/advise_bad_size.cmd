pagesift advise pageout --max-bytes much 1
