pagesift inspect --width 50 6.18-x86_64-zoo/recording.txt
