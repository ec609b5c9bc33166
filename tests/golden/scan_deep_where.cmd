pagesift scan --where 'zero_filled_bytes > 1M'
