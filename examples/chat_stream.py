"""A streamed answer through the openai client: chat_stream.py [URL] [MODEL], with `inferd serve` running."""

import os
import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
model = sys.argv[2] if len(sys.argv) > 2 else "smollm2"
client = OpenAI(base_url=url, api_key=os.environ.get("INFERD_API_KEY", "none"))

stream = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Tell me about the sea in two sentences."}],
    max_tokens=60,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    elif chunk.usage:
        print(f"\n[{chunk.usage.completion_tokens} tokens]")
