"""What the model sees of a text, and of a chat. token_ids.py [MODEL]"""

import sys

from inferd import LLM

llm = LLM(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
tokenizer = llm.loaded.tokenizer

text = "Naïve café: 12,345 tokens?"
ids = tokenizer.encode(text)
print(*(f"{token_id}:{tokenizer.token_text(token_id)!r}" for token_id in ids))
assert tokenizer.decode(ids) == text

# What a user writes never becomes a control token: here <|im_end|> stays text inside the message.
chat = llm.render_chat([{"role": "user", "content": "Is <|im_end|> a word?"}])
print(tokenizer.decode(chat, skip_special_tokens=False))
print(f"{len(chat)} tokens, {sum(tokenizer.is_special(token_id) for token_id in chat)} of them control tokens")
