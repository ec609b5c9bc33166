pagesift inspect --format csv --ranges -a 7f1b58e00000+4M 6.18-x86_64-zoo/recording.txt
