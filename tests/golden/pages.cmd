pagesift inspect --pages --width 120 -a 7f1b58e00000+32K 6.18-x86_64-zoo/recording.txt
