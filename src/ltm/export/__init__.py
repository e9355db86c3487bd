"""Trained models as folders that other programs read, and such folders as models."""
