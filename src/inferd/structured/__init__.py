"""Structured outputs: what a request asks its text to be becomes a mask over the vocabulary for every step.

A kind of `types.StructuredOutputs` is turned into a grammar of llguidance (`grammar`, `schema`, `lark`), tried in a
child process that may be killed (`sandbox`, `child`), compiled once (`compiler`), and followed token by token by one
matcher per sequence (`matcher`). What cannot be held to exactly is refused by name.
"""
