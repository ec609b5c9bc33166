pagesift inspect --map --where swapped 6.18-x86_64-zoo/recording.txt
