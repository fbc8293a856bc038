"""A body that was read and checked: prompts to complete, and how each is to be answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inferd.gateway.calls import AnswerContext, Caller, StreamWriter, WholeWriter, sampling_of
from inferd.gateway.dialects.llamacpp.answer import Answer, EventStream, WholeAnswer
from inferd.gateway.dialects.llamacpp.bodies import DEFAULTS, CompletionBody, drops_output, structured_of
from inferd.gateway.text import TextTurn, below_defaults
from inferd.metrics.requests import Targets
from inferd.types import SamplingParams
from inferd.worker.protocol import Generate, Ready, TextPrompt, TokenPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One POST. prompts: (num_prompts,); sampling: fields of SamplingParams that were set."""

    id: str
    body: CompletionBody
    prompts: tuple[TextPrompt | TokenPrompt, ...]
    sampling: dict[str, Any]
    warnings: tuple[str, ...] = ()

    operation = "text_completion"

    @property
    def num_prompts(self) -> int:
        return len(self.prompts)

    @property
    def is_streamed(self) -> bool:
        return self.body.stream

    @property
    def drops_output(self) -> bool:
        return drops_output(self.body)

    def targets(self, usual: Targets) -> Targets:
        return usual

    def settings(self, ready: Ready) -> SamplingParams:
        """What the engine samples with, but for the structure."""
        return sampling_of(ready, below_defaults(ready, DEFAULTS, self.sampling))

    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        structured = structured_of(self.body)
        turns = [
            TextTurn(
                prompt=prompt,
                sampling=below_defaults(ready, DEFAULTS, self.sampling),
                structured=structured,
                cache_salt="" if self.body.cache_prompt else self.id,
                fit_max_tokens=True,
                want_prompt_text=True,
            )
            for prompt in self.prompts
        ]
        return [turn.command(f"{self.id}-{number}", ready, caller) for number, turn in enumerate(turns)]

    def stream_writer(self, context: AnswerContext) -> StreamWriter:
        return EventStream(Answer(self, context))

    def whole_writer(self, context: AnswerContext) -> WholeWriter:
        return WholeAnswer(Answer(self, context))
