"""The engine: scheduler, paged KV cache, sampling rows, and the loop that ties them to an executor."""
