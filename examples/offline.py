"""Text from a prompt, in this process: offline.py [MODEL]"""

import sys

from inferd import LLM, SamplingParams

llm = LLM(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
[output] = llm.generate("The capital of France is", SamplingParams(temperature=0, max_tokens=16))
print(output.prompt + output.outputs[0].text)

messages = [{"role": "user", "content": "Name one use of a lighthouse."}]
[answer] = llm.chat(messages, SamplingParams(temperature=0.7, seed=1, max_tokens=40))
print(answer.outputs[0].text)
