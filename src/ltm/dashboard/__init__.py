"""One offline HTML page from rows alone."""
