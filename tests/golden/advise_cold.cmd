pagesift advise cold --max-bytes 64K --unit pages 6.18-x86_64-zoo/recording.txt
