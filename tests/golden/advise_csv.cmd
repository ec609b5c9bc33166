pagesift advise pageout --format csv 6.18-x86_64-markers/recording.txt
