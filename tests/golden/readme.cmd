pagesift inspect --zero all --top 5 6.18-x86_64-zoo/recording.txt
