"""Every message between gateway and worker: a closed tagged union in length-prefixed msgpack frames.

A frame is a 4-byte little-endian length and that many bytes. The gateway sends Command, the worker sends Event.
"""

from __future__ import annotations

import struct
from typing import Any, Literal

import msgspec

from inferd.config import EngineConfig
from inferd.errors import (
    ConfigError,
    EngineError,
    InferdError,
    InvalidRequestError,
    OverloadedError,
    TemplateError,
)
from inferd.types import EngineStats, RequestTimings, SamplingParams, ThinkingBudget, TokenEvent

MAX_FRAME_SIZE = 256 * 2**20
HEARTBEAT_SECONDS = 1.0
HEADER = struct.Struct("<I")


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all messages; the tag is the class name."""


class TextPrompt(Message, frozen=True):
    text: str
    add_special_tokens: bool = True
    parse_special: bool = True  # texts of control tokens become those tokens


class TokenPrompt(Message, frozen=True):
    token_ids: tuple[int, ...]


class ChatPrompt(Message, frozen=True):
    messages: list[dict[str, Any]]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_kwargs: dict[str, Any] = {}
    add_special_tokens: bool = False
    tools: list[dict[str, Any]] | None = None


Prompt = TextPrompt | TokenPrompt | ChatPrompt


class Configure(Message, frozen=True):
    """The first command: what to load. factory is "module:function", called as function(model, engine); "" takes the
    one for the kind of the model's file. adapters: name -> path, loaded with the model; one that cannot be is named in
    Ready.details["adapter_errors"], {name: why}."""

    factory: str
    model: str
    engine: EngineConfig
    adapters: dict[str, str] = {}


class Generate(Message, frozen=True):
    request_id: str
    prompt: Prompt
    sampling: SamplingParams
    priority: int = 0
    tenant: str = ""
    cache_salt: str = ""
    truncate_prompt_tokens: int | None = None  # keep the last k
    fit_max_tokens: bool = False  # max_tokens is lowered to what the context leaves; else a longer one is refused
    want_prompt_text: bool = False
    want_prompt_pieces: bool = False
    adapter: str = ""
    weight: float = 1.0
    is_background: bool = False
    thinking: ThinkingBudget | None = None


class Abort(Message, frozen=True):
    request_id: str


class Tokenize(Message, frozen=True):
    call_id: str
    prompt: Prompt
    want_pieces: bool = False
    want_text: bool = False  # as the template rendered it, or as it came


class Detokenize(Message, frozen=True):
    call_id: str
    token_ids: tuple[int, ...]


class LoadAdapter(Message, frozen=True):
    """path: a PEFT directory or a .gguf file. Answered by Done."""

    call_id: str
    name: str
    path: str


class UnloadAdapter(Message, frozen=True):
    call_id: str
    name: str


class PairPrompt(Message, frozen=True):
    """Two texts that a cross-encoder reads together."""

    text: str
    text_pair: str


class Encode(Message, frozen=True):
    """To a model of kind "encode": one row for each input. Answered by Encoded.

    task "embed": rows are vectors, pooled as the model says or as `pooling`, cut to `dimensions`, then normalized;
    pooling "none" has a row for each token. task "classify": rows are the scores of the labels, raw or as the model
    says.
    """

    call_id: str
    inputs: list[TextPrompt | TokenPrompt | PairPrompt]
    task: Literal["embed", "classify"] = "embed"
    pooling: Literal["model", "mean", "cls", "last", "none"] = "model"
    normalize: bool = True
    dimensions: int | None = None
    raw_scores: bool = False
    truncate: bool = False  # cut what is longer than the model reads; else that is an error
    truncate_left: bool = False  # cut at the begin instead of the end
    first_input: int = 0  # number of inputs[0] among the client's, for errors
    priority: int = 0  # lower runs first


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """datatype: KServe's. data: little-endian values in C order; for BYTES each behind its length in 4 bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


class Infer(Message, frozen=True):
    """To a model of kind "predict". Answered by Inferred. outputs: their names, all when empty."""

    call_id: str
    inputs: list[Tensor]
    outputs: list[str] = []
    version: str = ""  # of the model; "": the latest
    priority: int = 0  # lower runs first; 0: as the model's settings say
    timeout: float | None = None  # seconds it may wait in the queue


class Cancel(Message, frozen=True):
    """Nobody waits for this call any more; not answered."""

    call_id: str


Call = Tokenize | Detokenize | LoadAdapter | UnloadAdapter | Encode | Infer
Command = Configure | Generate | Abort | Cancel | Call


class WireError(Message, frozen=True):
    """An error of the tree in errors.py, by kind: invalid, template, overloaded, config or engine."""

    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: float = 1.0


class Loading(Message, frozen=True):
    """share: of the weights, 0 to 1."""

    share: float


class LoadFailed(Message, frozen=True):
    error: WireError


Kind = Literal["generate", "encode", "predict"]


class Ready(Message, frozen=True):
    """What a loaded model is. details, by kind, are plain JSON values: what the model's file says of itself."""

    kind: Kind = "generate"
    max_model_len: int = 0  # tokens; 0 for a predictive model
    vocab_size: int = 0
    num_blocks: int = 0
    block_size: int = 0
    generation_defaults: dict[str, Any] = {}
    details: dict[str, Any] = {}


class Accepted(Message, frozen=True):
    """The request is in the engine's queue."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    prompt_text: str | None = None
    prompt_pieces: tuple[bytes, ...] | None = None  # the bytes of each prompt token


class Aborted(Message, frozen=True):
    """The answer to every Abort. timings: what the engine measured until then; None when it knew no such request."""

    request_id: str
    timings: RequestTimings | None


class Failed(Message, frozen=True):
    request_id: str
    error: WireError


class Tokenized(Message, frozen=True):
    call_id: str
    token_ids: tuple[int, ...] = ()
    pieces: tuple[bytes, ...] | None = None
    text: str = ""


class Done(Message, frozen=True):
    call_id: str


class Encoded(Message, frozen=True):
    """rows: float32, little-endian, (num_inputs, width), or a row for each token of each input with pooling "none".
    num_tokens: of each input, as the model read it."""

    call_id: str
    width: int
    rows: bytes
    num_tokens: tuple[int, ...]
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0  # of the whole batch
    batch_size: int = 1  # inputs that were computed together


class Inferred(Message, frozen=True):
    call_id: str
    outputs: list[Tensor]
    version: str = ""  # of the model that computed them
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0  # of the whole batch
    output_seconds: float = 0.0  # in which the outputs of the batch became bytes
    batch_size: int = 1  # rows that were computed together


class Step(Message, frozen=True):
    """All that one engine step produced. pieces: the bytes of every token id that a logprob of `events` names."""

    events: tuple[TokenEvent, ...]
    pieces: dict[int, bytes] = {}
    stats: EngineStats | None = None


class Heartbeat(Message, frozen=True):
    """From a thread beside the engine: how often the loop turned, and whether it has something to do."""

    num_turns: int
    has_work: bool
    stats: EngineStats | None = None


Reply = Tokenized | Done | Encoded | Inferred
Event = Loading | LoadFailed | Ready | Accepted | Aborted | Failed | Step | Heartbeat | Reply

_encoder = msgspec.msgpack.Encoder()
command_decoder = msgspec.msgpack.Decoder(Command)
event_decoder = msgspec.msgpack.Decoder(Event)


def to_frame(message: Message) -> bytes:
    """Raises InvalidRequestError for a value no frame can hold (an integer beyond 64 bits, too many bytes)."""
    try:
        body = _encoder.encode(message)
    except (OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidRequestError("the request holds a number or a text that cannot be processed") from error
    if len(body) > MAX_FRAME_SIZE:
        raise InvalidRequestError(f"the request is larger than {MAX_FRAME_SIZE} bytes")
    return HEADER.pack(len(body)) + body


def frame_size(header: bytes) -> int:
    """Bytes that follow `header`; raises EngineError beyond the cap."""
    size: int = HEADER.unpack(header)[0]
    if size > MAX_FRAME_SIZE:
        raise EngineError("a frame exceeds the size cap")
    return size


def to_wire_error(error: Exception) -> WireError:
    """What the client may know: nothing of an exception outside the tree but that it happened."""
    if isinstance(error, InvalidRequestError):
        return WireError(kind="invalid", message=error.message, param=error.param, code=error.code)
    if isinstance(error, TemplateError):
        return WireError(kind="template", message=str(error), param="messages")
    if isinstance(error, OverloadedError):
        return WireError(kind="overloaded", message=str(error), retry_after=error.retry_after)
    if isinstance(error, ConfigError):
        return WireError(kind="config", message=str(error))
    return WireError(kind="engine", message="The engine failed on this request.")


def from_wire_error(error: WireError) -> InferdError:
    if error.kind in ("invalid", "template"):
        return InvalidRequestError(error.message, param=error.param, code=error.code)
    if error.kind == "overloaded":
        return OverloadedError(error.message, retry_after=error.retry_after)
    if error.kind == "config":
        return ConfigError(error.message)
    return EngineError(error.message)
