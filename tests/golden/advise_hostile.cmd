pagesift advise cold --ranges hostile-names/recording.txt
