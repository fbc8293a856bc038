"""Model files: readers, one module per family, and the store that finds and fetches them."""
