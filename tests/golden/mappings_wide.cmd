pagesift inspect --mappings --width 140 --unit pages 6.18-x86_64-unprivileged/recording.txt
