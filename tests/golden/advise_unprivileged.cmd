pagesift advise pageout 6.18-x86_64-unprivileged/recording.txt
