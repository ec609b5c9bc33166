pagesift cold --where hot self
