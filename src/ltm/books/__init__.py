"""Find, read, clean and know books: the library and its catalogue."""
