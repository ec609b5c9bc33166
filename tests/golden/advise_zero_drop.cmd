pagesift advise zero-drop 6.18-x86_64-ksm-and-zeros/recording.txt
