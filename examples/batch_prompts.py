"""Many prompts at once: they share each step of the engine. batch_prompts.py [MODEL]"""

import sys
import time

from inferd import LLM, SamplingParams

llm = LLM(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
prompts = [f"A short story about the number {number}:" for number in range(32)]
begin = time.perf_counter()
outputs = llm.generate(prompts, SamplingParams(temperature=0.8, seed=7, max_tokens=32))
seconds = time.perf_counter() - begin

for output in outputs[:3]:
    print(output.prompt + output.outputs[0].text.replace("\n", " "))
num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
print(f"{len(outputs)} answers, {num_tokens} tokens, {num_tokens / seconds:.0f} tokens per second")
