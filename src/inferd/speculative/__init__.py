"""Speculation: guesses at the next tokens that one step checks together. Guesses never change what comes out: every
accepted token is the one its own row draws."""
