pagesift inspect --format ndjson --where 'name ~ "/tmp/*"' hostile-names/recording.txt
