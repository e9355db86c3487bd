"""Benchmarks that a user can repeat: ltm's training beside what else one would run, in turns, on this machine."""
