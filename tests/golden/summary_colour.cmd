pagesift inspect --color always --width 100 6.18-x86_64-zoo/recording.txt
