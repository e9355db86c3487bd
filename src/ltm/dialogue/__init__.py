"""The dialogue layer: find conversations in books, tune the best models on them, and say what that changed."""
