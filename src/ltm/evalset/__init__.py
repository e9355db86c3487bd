"""Build the items that every model is tested on."""
