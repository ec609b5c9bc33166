pagesift advise pageout --rate 0 1
