"""The process in which a grammar is tried first: a hostile one may use it up, and nobody else notices.

Lines of JSON: first the vocabulary's control tokens, then {"kind", "value"} each answered by {"grammar"} or {"error"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.structured.grammar import Controls, to_grammar
from inferd.structured.trial import new_matcher, new_tokenizer

MAX_CPU_SECONDS = 2.0
MAX_MEMORY = 192 * 2**20  # bytes beyond what the process has at its start
_STACK_SIZE = 2**20  # bytes; less than any thread of the worker has


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of its input ends it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "w")
    hello = json.loads(sys.stdin.readline())
    controls = Controls(hello["controls"], frozenset(hello["eos_token_ids"]))
    tokenizer = new_tokenizer(_byte_vocabulary(controls, hello["vocab_size"]), controls)
    threading.stack_size(_STACK_SIZE)
    _limit_memory()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)  # of processor time: a busy machine kills no one
        answer: dict[str, str] = {}
        worker = threading.Thread(target=_answer, args=(json.loads(line), controls, tokenizer, answer))
        worker.start()
        worker.join()
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(job: dict[str, str], controls: Controls, tokenizer: Any, answer: dict[str, str]) -> None:
    try:
        grammar = to_grammar(job["kind"], job["value"], controls)
        new_matcher(tokenizer, grammar)
        answer["grammar"] = grammar
    except InvalidRequestError as error:
        answer["error"] = error.message
    except (RecursionError, MemoryError):
        answer["error"] = "structured_outputs: it is nested too deeply or too large"


def _byte_vocabulary(controls: Controls, vocab_size: int) -> list[bytes]:
    """(vocab_size + 256,): the control tokens at their ids, then one token per byte. Far faster to build than the
    real one, and a grammar that fails fails on it too."""
    tokens = [b""] * vocab_size + [bytes([byte]) for byte in range(256)]
    for text, token_id in controls.ids.items():
        tokens[token_id] = text.encode()
    return tokens


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    with contextlib.suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, size + MAX_MEMORY))


if __name__ == "__main__":
    main()
