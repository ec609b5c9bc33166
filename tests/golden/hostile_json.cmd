pagesift inspect --format json hostile-names/recording.txt
