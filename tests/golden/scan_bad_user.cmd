pagesift scan --user 'no such user'
