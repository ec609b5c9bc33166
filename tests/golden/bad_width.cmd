pagesift inspect --width 3 6.18-x86_64-zoo/recording.txt
