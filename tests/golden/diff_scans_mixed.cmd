pagesift diff made-up.db@2 a-recording
