pagesift advise pageout --ranges --where "anon or thp" --min-run 16K 6.18-x86_64-zoo/recording.txt
