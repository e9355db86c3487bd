"""Time, disk and memory before they are spent."""
