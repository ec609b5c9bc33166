pagesift inspect --mappings --width 200 hostile-names/recording.txt
