pagesift inspect --width 160 6.18-x86_64-zoo/recording.txt
