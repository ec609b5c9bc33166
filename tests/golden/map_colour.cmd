pagesift inspect --map --color always --width 120 6.18-x86_64-zoo/recording.txt
