"""What a model writes, taken apart: content, reasoning, calls of tools. Pure text; knows neither models nor HTTP."""
