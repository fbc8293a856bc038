"""Evaluation: how good a model's answers are, and what a variant of it gains and loses."""
