pagesift diff 1 6.18-x86_64-diff-before/recording.txt
