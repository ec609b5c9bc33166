pagesift diff --mappings hostile-names/recording.txt hostile-names/recording.txt
