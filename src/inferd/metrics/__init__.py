"""The figures of engine and gateway: recorded, judged, priced, and told to whoever listens."""
