pagesift advise collapse 6.12-aarch64-64k-pages/recording.txt
