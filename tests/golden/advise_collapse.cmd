pagesift advise collapse --force-fill 6.18-x86_64-zoo/recording.txt
