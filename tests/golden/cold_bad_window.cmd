pagesift cold --window soon 1
