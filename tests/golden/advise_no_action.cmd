pagesift advise
