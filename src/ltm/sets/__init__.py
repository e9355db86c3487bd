"""Draw training sets: which books, in which order, how sparse."""
