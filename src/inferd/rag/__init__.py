"""Answers from documents: texts cut into chunks, their vectors in SQLite, prompts with numbered sources."""
