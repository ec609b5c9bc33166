pagesift scan --where 'colour = red'
