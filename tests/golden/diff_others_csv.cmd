pagesift diff --format csv 6.18-x86_64-diff-before/recording.txt hostile-names/recording.txt
