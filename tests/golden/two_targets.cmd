pagesift inspect --top 2 6.18-x86_64-unprivileged/recording.txt hostile-names/recording.txt
