pagesift advise cold
