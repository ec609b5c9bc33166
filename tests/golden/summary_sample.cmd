pagesift inspect --zero sample=10% --width 120 6.18-x86_64-zoo/recording.txt
