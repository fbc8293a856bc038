"""What a JSON schema costs: structured.py [--model smollm2] [--batch 8] [--max-tokens 128] [--rounds 5]

Decode steps of a batch with the schema and without, in turn, speculation off; the time of the masks alone; the same
outputs with forced tokens as guesses; compiling; and masks on a pool of threads against one after the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
from common import report

from inferd import LLM, SamplingParams, StructuredOutputs
from inferd.structured.compiler import GrammarCompiler
from inferd.structured.matcher import Matcher
from inferd.types import GenerateRequest

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "email_address": {"type": "string", "pattern": "^[a-z]{1,12}@[a-z]{1,12}\\.com$"},
        "occupation": {"enum": ["nurse", "carpenter", "engineer", "teacher"]},
    },
    "required": ["name", "age", "email_address", "occupation"],
    "additionalProperties": False,
}
PEOPLE = {"type": "array", "items": PERSON, "minItems": 100}  # more than fits: no output ends early
PROMPT = "Write a JSON list of people with name, age, email_address and occupation.\n"


def asked(schema: Any) -> StructuredOutputs:
    return StructuredOutputs(kind="json_schema", value=json.dumps(schema))


def decode(llm: LLM, batch: int, max_tokens: int, schema: Any | None) -> tuple[float, int, list[list[int]]]:
    """(seconds from the first token to the last, steps, token ids of every output)"""
    compiler, engine, outputs = GrammarCompiler(llm.loaded.tokenizer), llm.loaded.engine, {}
    extra: dict[str, Any] = {"ignore_eos": True}
    if schema is not None:
        extra = {"structured_outputs": compiler.compile(asked(schema))}
        compiler.close()
    ids = llm.loaded.tokenizer.encode(PROMPT)
    for seed in range(batch):
        params = SamplingParams(temperature=0.8, seed=seed, max_tokens=max_tokens, **extra)
        outputs[str(seed)] = []
        engine.add(GenerateRequest(request_id=str(seed), prompt_token_ids=tuple(ids), sampling=params))
    begin, num_steps = 0.0, 0
    while engine.has_work:
        for event in engine.step():
            outputs[event.request_id] += event.token_ids
        begin, num_steps = (begin or time.perf_counter()), num_steps + 1
    return time.perf_counter() - begin, num_steps - 1, list(outputs.values())


class Timed:
    """Adds up what Matcher.masks and Matcher.advance take."""

    def __init__(self) -> None:
        self.seconds, self._methods = 0.0, {name: getattr(Matcher, name) for name in ("masks", "advance")}
        for name, method in self._methods.items():
            setattr(Matcher, name, self._wrap(method))

    def _wrap(self, method: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            begin = time.perf_counter()
            result = method(*arguments)
            self.seconds += time.perf_counter() - begin
            return result

        return timed

    def stop(self) -> float:
        for name, method in self._methods.items():
            setattr(Matcher, name, method)
        return self.seconds


def step_times(model: str, batch: int, max_tokens: int, rounds: int) -> dict[str, Any]:
    llm = LLM(model, speculative="off", max_model_len=1024)
    times: dict[str, list[float]] = {"free": [], "schema": []}
    for schema in (None, PEOPLE):
        decode(llm, batch, 8, schema)  # compiles, warms up
    for _ in range(rounds):
        for name, schema in (("free", None), ("schema", PEOPLE)):
            seconds, num_steps, _ = decode(llm, batch, max_tokens, schema)
            times[name].append(1000 * seconds / num_steps)
    timed = Timed()
    seconds, num_steps, _ = decode(llm, batch, max_tokens, PEOPLE)
    masks = timed.stop()
    llm.close()
    free, schema_ms = (statistics.median(times[name]) for name in ("free", "schema"))
    added = [100 * (one / other - 1) for one, other in zip(times["schema"], times["free"], strict=True)]
    return {
        "free_step_ms": round(free, 2),
        "schema_step_ms": round(schema_ms, 2),
        "added_percent": round(statistics.median(added), 1),
        "masks_ms_per_step": round(1000 * masks / num_steps, 3),
        "masks_percent_of_step": round(100 * masks / seconds, 1),
    }


def forced_tokens(model: str, max_tokens: int) -> dict[str, Any]:
    figures, outputs = {}, {}
    for mode in ("off", "ngram"):
        llm = LLM(model, speculative=mode, max_model_len=1024)
        decode(llm, 1, 64, PEOPLE)
        seconds, num_steps, outputs[mode] = decode(llm, 1, max_tokens, PEOPLE)
        figures[mode] = {"steps": num_steps, "tok_s": round((len(outputs[mode][0]) - 1) / seconds, 1)}
        llm.close()
    if outputs["off"] != outputs["ngram"]:
        raise SystemExit("outputs differ")
    return figures


def compiling(model: str, batch: int) -> dict[str, Any]:
    llm = LLM(model, max_model_len=256)
    compiler = GrammarCompiler(llm.loaded.tokenizer)
    times = []
    for number in range(21):
        begin = time.perf_counter()
        grammar = compiler.compile(asked({**PEOPLE, "maxItems": 200 + number}))
        times.append(1000 * (time.perf_counter() - begin))
    figures = {"first_compile_ms": round(times[0], 1), "compile_ms": round(statistics.median(times[1:]), 2)}
    figures |= threads(grammar.matcher(), llm.loaded.tokenizer.encode('[{"name": "', add_special_tokens=False), batch)
    compiler.close()
    llm.close()
    return figures


def threads(start: Matcher, ids: list[int], batch: int) -> dict[str, Any]:
    """Masks of a batch within a name, filled by llguidance's pool and one after the other."""
    from llguidance import LLExecutor, LLMatcher

    matchers: list[LLMatcher] = [start.copy()._inner for _ in range(batch)]
    masks = np.zeros((batch, start._width), np.uint32)
    pool, times = LLExecutor(2), {"pool": [], "one_by_one": []}
    for _ in range(50):
        for matcher in matchers:
            matcher.reset()
            matcher.try_consume_tokens(ids)
        begin = time.perf_counter()
        pairs = [(matcher, row) for row, matcher in enumerate(matchers)]
        pool.unsafe_compute_mask_ptr(pairs, masks.ctypes.data, masks.strides[0], batch)
        times["pool"].append(time.perf_counter() - begin)
        for matcher in matchers:
            matcher.reset()
            matcher.try_consume_tokens(ids)
        begin = time.perf_counter()
        for matcher, row in zip(matchers, masks, strict=True):
            matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        times["one_by_one"].append(time.perf_counter() - begin)
    return {f"masks_{name}_us": round(1e6 * statistics.median(values), 1) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    figures = {
        "model": args.model,
        "batch": args.batch,
        **step_times(args.model, args.batch, args.max_tokens, args.rounds),
        "one_sequence": forced_tokens(args.model, args.max_tokens),
        **compiling(args.model, args.batch),
    }
    report("structured", figures)


if __name__ == "__main__":
    main()
