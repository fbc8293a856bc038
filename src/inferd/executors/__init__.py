"""Executors run one step of a model over a ragged batch: `reference` (NumPy) and `native` (C++)."""
