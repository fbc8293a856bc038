"""Pipelines: what is done to an input before a predictive model and to its outputs behind it, as a small file."""
