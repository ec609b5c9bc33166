pagesift inspect --where 'colour = red' 6.18-x86_64-zoo/recording.txt
