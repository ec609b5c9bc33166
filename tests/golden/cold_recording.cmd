pagesift cold some.psr
