"""One tokenizer, one token file, and the stream of a variant as an index list."""
