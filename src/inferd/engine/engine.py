"""The engine: requests in, token events out, one executor step at a time. One thread owns it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from inferd.config import EngineConfig
from inferd.engine.adapters import Adapters, PreparedAdapter
from inferd.engine.batch import BatchBuilder, Rows
from inferd.engine.clock import StepClock
from inferd.engine.constraints import constraints_of
from inferd.engine.drafting import with_drafts
from inferd.engine.kv_cache import KVCache
from inferd.engine.kv_map import KVMap
from inferd.engine.outputs import StepOutputs, accept, take_prompt_logprobs
from inferd.engine.scheduler import Scheduled, Scheduler
from inferd.engine.sequence import RequestState, Sequence, TokenCounts, request_seed
from inferd.engine.text import SequenceText
from inferd.errors import ContextLengthError, EngineError, InvalidRequestError, OverloadedError
from inferd.executors.base import Executor
from inferd.metrics.steps import RequestMeter, StepRecorder
from inferd.speculative.speculator import Speculator
from inferd.tokenizer.tokenizer import Tokenizer
from inferd.types import EngineStats, GenerateRequest, RequestTimings, TokenEvent

_MIN_CHUNK = 16  # prompt tokens a step computes whatever the inter-token target: a prefill must end


class Engine:
    """max_model_len: prompt and output of one sequence, at most what the executor's blocks hold."""

    def __init__(self, executor: Executor, tokenizer: Tokenizer, config: EngineConfig, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.block_size = executor.block_size
        self._executor = executor
        self._tokenizer = tokenizer
        self._config = config
        self._vocab_size = executor.spec.vocab_size
        self._eos_token_ids = tokenizer.eos_token_ids
        self._kv_cache = KVCache(
            executor.num_blocks, executor.block_size, enable_prefix_caching=config.enable_prefix_caching
        )
        self._clock = StepClock()
        self._scheduler = Scheduler(
            self._kv_cache,
            max_num_seqs=config.max_num_seqs,
            token_budget=executor.max_num_batched_tokens,
            clock=self._clock,
        )
        self._batches = BatchBuilder(
            vocab_size=self._vocab_size,
            max_num_seqs=config.max_num_seqs,
            max_blocks_per_seq=self._kv_cache.blocks_for(max_model_len),
        )
        self._adapters = Adapters(executor)
        self._requests: dict[str, RequestState] = {}
        self._speculator: Speculator | None = None
        if config.speculative == "ngram":
            self._speculator = Speculator(self._clock, executor.max_num_batched_tokens)
        self._recorder = StepRecorder(config.resolved_num_threads)
        self._kv_map = KVMap(self._kv_cache)
        self._num_arrivals = self._num_generated_tokens = 0

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    def step(self) -> list[TokenEvent]:
        """One executor step over whatever the scheduler lets run; [] when there is nothing to do."""
        plan = self._scheduler.plan(self._prefill_budget)
        if not plan:
            if self._requests:
                raise EngineError("requests wait, but none of them can run")
            return []
        if self._speculator is not None:
            plan = with_drafts(plan, self._scheduler, self._speculator)
        batch, rows = self._batches.build(plan, self._scheduler.take_copies())
        begin = time.perf_counter()
        outputs = StepOutputs(self._executor.step(batch))
        self._observe(plan, begin, time.perf_counter())
        events: list[TokenEvent] = []
        for scheduled, own in zip(plan, rows, strict=True):
            self._scheduler.advance(scheduled.sequence, scheduled.num_tokens)
            take_prompt_logprobs(outputs, scheduled, own)
            events += self._accept_draws(scheduled, own, outputs)
        return events

    def add(self, request: GenerateRequest) -> None:
        """Queues a request, whose structured_outputs are compiled (structured.compiler.Grammar).

        Raises InvalidRequestError or ContextLengthError naming what cannot be served, and OverloadedError when the
        queue is full."""
        max_tokens = self._check(request)
        adapter = self._adapters.find(request.adapter) if request.adapter else None
        adapter_id = -1 if adapter is None else adapter.adapter_id
        sampling, now = request.sampling, time.perf_counter()
        constraints = constraints_of(
            sampling, self._tokenizer, self._vocab_size, self._eos_token_ids, request.thinking
        )
        if not self._requests:
            self._recorder.wake(now)
        state = RequestState(
            request=request,
            arrival=self._num_arrivals,
            seed=request_seed(self._config.seed, request),
            max_tokens=max_tokens,
            root_key=self._kv_cache.root_key(request.tenant, request.cache_salt, adapter_id),
            constraints=constraints,
            num_unfinished=sampling.n,
            meter=RequestMeter(now),
            prompt_logprobs=None if sampling.prompt_logprobs is None else [],
            adapter=adapter,
        )
        if adapter is not None:
            self._adapters.enter(adapter)
        self._num_arrivals += 1
        self._requests[request.request_id] = state
        prompt = list(request.prompt_token_ids)
        self._scheduler.add(
            Sequence(
                state=state,
                index=0,
                token_ids=prompt,
                num_prompt_tokens=len(prompt),
                text=SequenceText(self._tokenizer, sampling),
                counts=TokenCounts(prompt) if constraints.has_penalties else None,
                matcher=constraints.grammar.matcher() if constraints.grammar is not None else None,
                pending_forks=sampling.n - 1,
            )
        )

    def abort(self, request_id: str) -> RequestTimings | None:
        """Ends a request without a further event; None for an unknown or finished one."""
        state = self._requests.get(request_id)
        if state is None:
            return None
        self._scheduler.remove(state)
        self._forget(state)
        return state.timings(time.perf_counter())

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters, for GenerateRequest.adapter."""
        return self._adapters.names

    def load_adapter(self, name: str, path: Path) -> None:
        """A PEFT directory or a GGUF file. Raises InvalidRequestError for a name that is taken, ModelNotFoundError,
        ModelLoadError or MemoryError."""
        self._adapters.check_name(name)
        self._adapters.install(name, self._adapters.prepare(path))

    def prepare_adapter(self, path: Path) -> PreparedAdapter:
        """The slow part of load_adapter, and the only method that another thread may call."""
        return self._adapters.prepare(path)

    def install_adapter(self, name: str, prepared: PreparedAdapter) -> None:
        """The rest of load_adapter, between two steps."""
        self._adapters.install(name, prepared)

    def unload_adapter(self, name: str) -> None:
        """New requests cannot use it; those that run keep it. Raises InvalidRequestError for an unknown name."""
        self._adapters.unload(name)

    def stats(self) -> EngineStats:
        totals = self._scheduler.totals
        return EngineStats(
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting,
            num_blocks=self._kv_cache.num_blocks,
            num_used_blocks=self._kv_cache.num_used_blocks,
            num_prompt_tokens=totals.num_prompt_tokens,
            num_generated_tokens=self._num_generated_tokens,
            num_prefix_queried_tokens=totals.num_prefix_queried_tokens,
            num_prefix_hit_tokens=totals.num_prefix_hit_tokens,
            num_preemptions=totals.num_preemptions,
            **self._recorder.figures(),
            **self._kv_map.figures(is_idle=not self._requests),
        )

    def check(self) -> None:
        """Raises AssertionError when an invariant of scheduler or KV cache is broken: for tests."""
        self._scheduler.check()

    def close(self) -> None:
        """Frees the executor; the engine cannot be used afterwards."""
        self._executor.close()

    def _accept_draws(self, scheduled: Scheduled, rows: Rows, outputs: StepOutputs) -> list[TokenEvent]:
        """The drawn tokens of one sequence: its own, and the first of every sibling born at this moment."""
        if scheduled.drafts:
            return self._accept_drafts(scheduled, rows, outputs)
        parent = scheduled.sequence
        siblings = [self._fork(parent) for _ in rows.draws[1:]]
        return [self._accept(s, row, outputs) for s, row in zip([parent, *siblings], rows.draws, strict=False)]

    def _accept_drafts(self, scheduled: Scheduled, rows: Rows, outputs: StepOutputs) -> list[TokenEvent]:
        """Draws count as long as the guess before them was the token drawn there."""
        sequence, events = scheduled.sequence, []
        for row, draft in zip(rows.draws, (*scheduled.drafts, -1), strict=True):
            events.append(self._accept(sequence, row, outputs))
            if sequence.is_finished or outputs.token_ids[row] != draft:
                break
            self._scheduler.advance(sequence, 1)  # the guess is known now, and its K and V are computed
        sequence.draft_state.learn(len(scheduled.drafts), len(events) - 1)
        self._recorder.record_drafts(len(scheduled.drafts), len(events) - 1)
        return events

    def _accept(self, sequence: Sequence, row: int, outputs: StepOutputs) -> TokenEvent:
        token_id, count = outputs.token_ids[row], sequence.state.sampling.logprobs
        self._scheduler.append(sequence, token_id)
        self._num_generated_tokens += 1
        sequence.state.meter.num_output_tokens += 1
        logprobs = None if count is None else outputs.logprobs(row, count)
        event = accept(sequence, token_id, logprobs, self._eos_token_ids)
        if event.finish_reason is not None and self._finish(sequence):
            return replace(event, timings=sequence.state.timings(time.perf_counter()))
        return event

    def _observe(self, plan: list[Scheduled], begin: float, end: float) -> None:
        """What the executor took for the plan; before its results are known to the sequences."""
        shares = [(s.sequence.state.meter, s.num_tokens + len(s.drafts), s.samples) for s in plan]
        self._recorder.record(shares, begin, end)
        num_rows = sum(scheduled.num_tokens + len(scheduled.drafts) for scheduled in plan)
        num_prefill_rows = sum(scheduled.num_tokens for scheduled in plan if scheduled.num_tokens > 1)
        self._clock.observe(num_rows - num_prefill_rows, num_prefill_rows, end - begin)

    def _prefill_budget(self, num_decodes: int) -> int:
        """Prompt tokens beside num_decodes decodes: what the inter-token target leaves room for."""
        target = self._config.itl_target
        rows = self._clock.prefill_rows_within(target, num_decodes) if target is not None and num_decodes else None
        return self._executor.max_num_batched_tokens if rows is None else max(rows, _MIN_CHUNK)

    def _fork(self, parent: Sequence) -> Sequence:
        return self._scheduler.fork(parent, SequenceText(self._tokenizer, parent.state.sampling))

    def _finish(self, sequence: Sequence) -> bool:
        """Whether it was the last one of its request."""
        self._scheduler.finish(sequence)
        state = sequence.state
        state.meter.num_preemptions += sequence.num_preemptions
        state.num_unfinished -= 1
        if state.num_unfinished == 0:
            self._forget(state)
        return state.num_unfinished == 0

    def _forget(self, state: RequestState) -> None:
        del self._requests[state.request.request_id]
        if state.adapter is not None:
            self._adapters.leave(state.adapter)

    def _check(self, request: GenerateRequest) -> int:
        """How many tokens the output may have."""
        sampling, num_prompt = request.sampling, len(request.prompt_token_ids)
        if self._scheduler.num_waiting >= self._config.max_queue_len:
            raise OverloadedError(f"{self._config.max_queue_len} requests are waiting already.", retry_after=1.0)
        if request.request_id in self._requests:
            raise InvalidRequestError(f"request_id {request.request_id[:80]!r} is running already", param="request_id")
        if num_prompt == 0:
            raise InvalidRequestError("prompt must have at least one token", param="prompt")
        top = self._vocab_size - 1
        if not 0 <= min(request.prompt_token_ids) <= max(request.prompt_token_ids) <= top:
            raise InvalidRequestError(f"prompt must hold token ids from 0 to {top}", param="prompt")
        sampling.check_token_ids(self._vocab_size)
        if sampling.n > self._config.max_num_seqs:
            raise InvalidRequestError(f"n must be from 1 to {self._config.max_num_seqs}, got {sampling.n}", param="n")
        room = self.max_model_len - num_prompt
        if room < (sampling.max_tokens or 1):
            raise ContextLengthError(num_prompt, sampling.max_tokens or 1, self.max_model_len)
        return sampling.max_tokens or room
