"""Train one model per variant and seed, many at once, nothing lost."""
