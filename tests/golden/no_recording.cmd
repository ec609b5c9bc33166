pagesift inspect not-there.txt
