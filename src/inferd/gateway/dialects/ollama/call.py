"""A body that was read and checked: a chat or a text, and how it is to be answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from inferd.gateway.calls import AnswerContext, Caller, StreamWriter, WholeWriter
from inferd.gateway.chat import ChatTurn, TurnReader
from inferd.gateway.dialects.ollama.answer import Answer, LineStream, WholeAnswer
from inferd.gateway.dialects.ollama.bodies import ChatBody, GenerateBody
from inferd.gateway.dialects.ollama.options import DEFAULTS, num_ctx_of
from inferd.gateway.error_styles import OLLAMA
from inferd.gateway.text import TextReader, TextTurn, below_defaults
from inferd.metrics.requests import Targets
from inferd.worker.protocol import Generate, Ready, TokenPrompt


@dataclass(frozen=True, slots=True)
class Call:
    """One POST: a chat, or a text to be answered or continued."""

    id: str
    body: ChatBody | GenerateBody
    turn: ChatTurn | TextTurn
    warnings: tuple[str, ...] = ()
    token_ids: tuple[int, ...] | None = None  # the prompt, where a conversation goes on from its ids

    @property
    def num_prompts(self) -> int:
        return 1

    @property
    def is_chat(self) -> bool:
        return isinstance(self.body, ChatBody)

    @property
    def tells_context(self) -> bool:
        """The ids of prompt and answer, which the next request may send back."""
        return isinstance(self.body, GenerateBody) and not (self.body.raw or self.body.suffix)

    @property
    def operation(self) -> str:
        return "chat" if self.is_chat else "text_completion"

    @property
    def is_streamed(self) -> bool:
        return self.body.stream

    def targets(self, usual: Targets) -> Targets:
        return usual

    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        sampling = below_defaults(ready, DEFAULTS, self.turn.sampling)
        if self.body.logprobs:
            sampling["logprobs"] = self.body.top_logprobs
        keep = self.num_kept(ready)
        turn = replace(self.turn, sampling=sampling, truncate_prompt_tokens=keep, fit_max_tokens=True)
        command = turn.command(self.id, ready, caller)
        if self.token_ids is not None:
            command = msgspec.structs.replace(command, prompt=TokenPrompt(token_ids=self.token_ids))
        return [command]

    def num_kept(self, ready: Ready) -> int | None:
        """Tokens a prompt may have before it is cut, where the client asked for that; the rest is for the answer."""
        num_ctx = num_ctx_of(self.body.options, ready.max_model_len)
        if not self.body.truncate:
            return None
        wanted = self.turn.sampling.get("max_tokens") or num_ctx // 4
        return max(1, num_ctx - wanted) if isinstance(wanted, int) else None

    def reader(self, ready: Ready) -> TurnReader | TextReader:
        return self.turn.reader(ready)

    def all_warnings(self, ready: Ready) -> list[str]:
        if not isinstance(self.turn, ChatTurn):
            return list(self.warnings)
        return [*self.warnings, *self.turn.warnings(ready, OLLAMA.names)]

    def stream_writer(self, context: AnswerContext) -> StreamWriter:
        return LineStream(Answer(self, context))

    def whole_writer(self, context: AnswerContext) -> WholeWriter:
        return WholeAnswer(Answer(self, context))
