pagesift diff --colour always 6.18-x86_64-diff-before/recording.txt 6.18-x86_64-diff-after/recording.txt
