pagesift advise pageout --apply 6.18-x86_64-zoo/recording.txt
