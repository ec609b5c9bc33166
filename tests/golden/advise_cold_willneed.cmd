pagesift advise willneed --cold 10s 1
