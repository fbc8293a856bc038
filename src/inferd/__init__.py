"""inferd: on-premises AI inference with its own engine."""

__version__ = "0.1.0"
