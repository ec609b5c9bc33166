pagesift advise pageout --format json 6.18-x86_64-shmem-swapped/recording.txt
