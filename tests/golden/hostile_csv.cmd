pagesift inspect --format csv hostile-names/recording.txt
