pagesift advise pt-reclaim --where anon 1
