pagesift advise pageout --idle 10s 1
