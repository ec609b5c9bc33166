pagesift advise pt-reclaim --max-stop 0 1
