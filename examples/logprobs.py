"""How sure the model was: each token of an answer with its likeliest rivals. logprobs.py [MODEL]"""

import math
import sys

from inferd import LLM, SamplingParams

llm = LLM(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
tokenizer = llm.loaded.tokenizer
[output] = llm.generate("Two plus two is", SamplingParams(temperature=0, max_tokens=8, logprobs=3))

for position in output.outputs[0].logprobs:
    rivals = ", ".join(f"{tokenizer.token_text(t.token_id)!r} {math.exp(t.logprob):.1%}" for t in position.top)
    print(f"{tokenizer.token_text(position.chosen.token_id)!r:12} rank {position.chosen.rank}: {rivals}")
