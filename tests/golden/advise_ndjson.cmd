pagesift advise pageout --format ndjson 6.18-x86_64-markers/recording.txt
