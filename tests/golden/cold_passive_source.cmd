pagesift cold --passive --source exact --window 1s 1
