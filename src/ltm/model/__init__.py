"""One compact decoder and its sizes: pure PyTorch, knows no books."""
