pagesift inspect --ranges --width 120 --where 'swapped or marker' 6.18-x86_64-zoo/recording.txt
