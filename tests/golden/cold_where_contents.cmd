pagesift cold --where zero-filled self
