pagesift advise dontneed 1
