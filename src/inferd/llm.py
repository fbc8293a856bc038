"""LLM: offline generation, the shortest way through the engine. Names and shapes are vLLM's, so that scripts port."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from inferd.config import EngineConfig
from inferd.engine.build import LoadedEngine, build_engine
from inferd.errors import EngineError, InvalidRequestError
from inferd.models.store import is_local, pull
from inferd.structured.compiler import GrammarCompiler
from inferd.types import FinishReason, GenerateRequest, PositionLogprobs, SamplingParams, TokenEvent

Message = Mapping[str, Any]


class TokensPrompt(TypedDict):
    prompt_token_ids: Sequence[int]


Prompt = str | TokensPrompt


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[PositionLogprobs] | None = None  # one per token id, when asked
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True)
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[PositionLogprobs | None] | None = None
    num_cached_tokens: int = 0

    def add(self, event: TokenEvent) -> None:
        output = self.outputs[event.index]
        output.text += event.text
        output.token_ids += event.token_ids
        if event.logprobs is not None:
            output.logprobs = [*(output.logprobs or []), *event.logprobs]
        output.finish_reason, output.stop_reason = event.finish_reason, event.stop_reason
        self.num_cached_tokens = max(self.num_cached_tokens, event.num_cached_tokens)
        if event.prompt_logprobs is not None:
            self.prompt_logprobs = list(event.prompt_logprobs)


class LLM:
    """One model in this process. Arguments: EngineConfig; None is auto. A known alias that is not in the store yet
    is fetched. Raises ModelNotFoundError, ModelLoadError or ConfigError. Not thread-safe."""

    def __init__(
        self,
        model: str,
        *,
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int | None = None,
        kv_cache_memory: int | None = None,
        enable_prefix_caching: bool = True,
        kv_cache_dtype: str = "auto",
        executor: str = "native",
        num_threads: int | None = None,
        seed: int = 0,
        speculative: str = "ngram",
    ) -> None:
        config = EngineConfig(
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            kv_cache_memory=kv_cache_memory,
            enable_prefix_caching=enable_prefix_caching,
            kv_cache_dtype=kv_cache_dtype,  # type: ignore[arg-type]  # EngineConfig checks the value
            executor=executor,  # type: ignore[arg-type]
            num_threads=num_threads,
            seed=seed,
            speculative=speculative,  # type: ignore[arg-type]
            max_queue_len=2**31,
        )
        if not Path(model).exists() and not is_local(model):
            pull(model, lambda what, done, total: None)
        self._loaded: LoadedEngine = build_engine(model, config)
        self._grammars = GrammarCompiler(self._loaded.tokenizer)
        self._request_ids = map(str, itertools.count())

    @property
    def loaded(self) -> LoadedEngine:
        """Engine, tokenizer, chat template and checkpoint."""
        return self._loaded

    def default_sampling_params(self) -> SamplingParams:
        """The model's own defaults over those of SamplingParams."""
        defaults = self._loaded.checkpoint.generation_defaults
        known = SamplingParams.__dataclass_fields__
        return SamplingParams(**{name: value for name, value in defaults.items() if name in known})

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        adapter: str = "",
    ) -> list[RequestOutput]:
        """Outputs in the order of the prompts; strings, or {"prompt_token_ids": [...]}. use_tqdm: a progress bar.
        adapter: one that load_adapter has loaded."""
        several = [prompts] if isinstance(prompts, str | dict) else list(prompts)
        params = self._params_for(len(several), sampling_params)
        requests = [self._request(*pair, adapter) for pair in zip(several, params, strict=True)]
        return self._run(requests, use_tqdm)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        add_generation_prompt: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        adapter: str = "",
    ) -> list[RequestOutput]:
        """One conversation, or a list of them. Raises InvalidRequestError when the model has no chat template."""
        is_one = bool(messages) and isinstance(messages[0], Mapping)
        conversations: Any = [messages] if is_one else messages
        prompts: list[Prompt] = []
        for conversation in conversations:
            ids = self.render_chat(
                conversation, add_generation_prompt=add_generation_prompt, kwargs=chat_template_kwargs
            )
            prompts.append(TokensPrompt(prompt_token_ids=ids))
        return self.generate(prompts, sampling_params, use_tqdm, adapter=adapter)

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None, *, adapter: str = ""
    ) -> Iterator[TokenEvent]:
        """The events of one request as they come. Closing the iterator aborts it."""
        request = self._request(prompt, sampling_params or self.default_sampling_params(), adapter)[0]
        engine, num_open = self._loaded.engine, request.sampling.n
        engine.add(request)
        try:
            while num_open:
                for event in engine.step():
                    num_open -= event.finish_reason is not None
                    yield event
        finally:
            engine.abort(request.request_id)

    def load_adapter(self, name: str, path: str | Path) -> None:
        """A LoRA adapter for generate, chat and stream: a PEFT directory or a GGUF file made for this model.

        Raises InvalidRequestError for a name that is taken, ModelNotFoundError or ModelLoadError.
        """
        self._loaded.engine.load_adapter(name, Path(path))

    def unload_adapter(self, name: str) -> None:
        """Frees it. Raises InvalidRequestError for an unknown name."""
        self._loaded.engine.unload_adapter(name)

    def render_chat(self, messages: Sequence[Message], **options: Any) -> list[int]:
        """Token ids of a conversation, through the model's chat template (options: ChatTemplate.render)."""
        template, tokenizer = self._loaded.chat_template, self._loaded.tokenizer
        if template is None:
            raise InvalidRequestError("this model has no chat template", param="messages")
        rendered = template.render(messages, **options)
        return tokenizer.encode_guarded(rendered.text, rendered.guard, add_special_tokens=True)

    def close(self) -> None:
        """Frees the model; the object cannot be used afterwards."""
        self._grammars.close()
        self._loaded.engine.close()

    def _params_for(
        self, count: int, given: SamplingParams | Sequence[SamplingParams] | None
    ) -> Sequence[SamplingParams]:
        if given is None or isinstance(given, SamplingParams):
            return [given or self.default_sampling_params()] * count
        if len(given) != count:
            raise InvalidRequestError(
                f"sampling_params must be one, or one per prompt ({count}), got {len(given)}", param="sampling_params"
            )
        return given

    def _request(self, prompt: Prompt, sampling: SamplingParams, adapter: str) -> tuple[GenerateRequest, str | None]:
        text = prompt if isinstance(prompt, str) else None
        ids = self._loaded.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt["prompt_token_ids"]
        if sampling.structured_outputs is not None:
            sampling = replace(sampling, structured_outputs=self._grammars.compile(sampling.structured_outputs))
        request = GenerateRequest(
            request_id=next(self._request_ids), prompt_token_ids=tuple(ids), sampling=sampling, adapter=adapter
        )
        return request, text

    def _run(self, requests: list[tuple[GenerateRequest, str | None]], show_progress: bool) -> list[RequestOutput]:
        engine = self._loaded.engine
        results = {r.request_id: _empty_output(r, text) for r, text in requests}
        try:
            for request, _ in requests:
                engine.add(request)
            with _progress(len(requests), show_progress) as advance:
                while engine.has_work:
                    for event in engine.step():
                        results[event.request_id].add(event)
                        if event.finish_reason == "error":
                            raise EngineError(event.error or "the engine failed")
                        if all(output.finish_reason for output in results[event.request_id].outputs):
                            advance()
        finally:
            for request, _ in requests:
                engine.abort(request.request_id)
        return list(results.values())


def _empty_output(request: GenerateRequest, prompt: str | None) -> RequestOutput:
    outputs = [CompletionOutput(index) for index in range(request.sampling.n)]
    return RequestOutput(request.request_id, prompt, list(request.prompt_token_ids), outputs)


@contextmanager
def _progress(total: int, show: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr that counts finished requests."""
    if not show:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("generating", total=total)
        yield lambda: bar.advance(task)
