pagesift advise --plan nowhere.json --apply
