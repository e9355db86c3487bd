"""Fetch books from public libraries and datasets into a folder, politely and so that it can go on later."""
