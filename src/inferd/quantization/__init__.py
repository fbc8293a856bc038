"""Weight formats of model files: sizes, exact dequantization."""
