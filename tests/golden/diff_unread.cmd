pagesift diff 6.18-x86_64-unprivileged/recording.txt 6.18-x86_64-unprivileged/recording.txt
