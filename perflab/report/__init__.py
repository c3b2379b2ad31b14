"""Reports: a notebook template in, one offline HTML file out."""
