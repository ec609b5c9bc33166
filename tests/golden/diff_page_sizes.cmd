pagesift diff 6.18-x86_64-ksm-and-zeros/recording.txt 6.12-aarch64-64k-pages/recording.txt
