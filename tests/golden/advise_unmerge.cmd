pagesift advise unmerge 6.18-x86_64-zoo/recording.txt
