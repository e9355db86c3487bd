"""ltm: find out, by brute force, what makes a good training set of books."""
