"""HTTP in front of the workers: dialects, authentication, streams. Imports no engine and no NumPy."""
