"""Batch jobs: many requests from a file, answered in the background, each exactly once whatever dies meanwhile."""
