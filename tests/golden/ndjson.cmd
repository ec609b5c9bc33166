pagesift inspect --format ndjson --ranges -a 7f1b58e00000+64K 6.18-x86_64-zoo/recording.txt
