"""What trains a run besides ltm's own loop; every engine reads the same stream and writes the same row."""
