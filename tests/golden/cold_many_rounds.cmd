pagesift cold --window 1h --interval 1ms self
