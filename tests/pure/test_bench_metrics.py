"""From bytes of a stream to figures: what is a token, when it came, and which arithmetic follows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from inferd.bench.config import LoadConfig
from inferd.bench.datasets import TextScale
from inferd.bench.http import RequestFailedError
from inferd.bench.load import Run
from inferd.bench.metrics import best_rate, failures, latencies, per_request, request_latencies, summarize
from inferd.bench.report import warnings
from inferd.bench.stream import PromptDetails, Record, StreamReader, Usage, error_text
from inferd.bench.target import Facts

CONFIG = LoadConfig(url="http://127.0.0.1:1")


def event(text: str | None = None, *, finish: str | None = None, usage: int | None = None, **more: Any) -> bytes:
    facts: dict[str, Any] = {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    if usage is not None:
        facts["usage"] = {"prompt_tokens": 9, "completion_tokens": usage, "total_tokens": 9 + usage}
    return b"data: " + json.dumps(facts | more).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def read(*pieces: tuple[float, bytes], output_len: int = 4) -> Record:
    record = Record(0, 9, output_len)
    reader = StreamReader(record)
    for now, data in pieces:
        reader.receive(data, now)
    reader.check()
    record.ended = pieces[-1][0]
    return record


def usage_chunk(count: int) -> bytes:
    return event(choices=[], usage=count)


def test_the_role_and_the_end_are_no_tokens() -> None:
    record = read((1.0, event("")), (2.0, event("a")), (3.0, event("b")), (4.0, event(finish="length") + DONE))
    assert list(record.arrivals) == [2.0, 3.0]
    assert (record.num_tokens, record.finish_reason, record.counts_by_usage) == (2, "length", False)


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_events_may_be_cut_anywhere(size: int) -> None:
    data = event("a") + event("ü") + event(finish="stop") + usage_chunk(2) + DONE
    record = read(*((float(start), data[start : start + size]) for start in range(0, len(data), size)))
    assert record.num_tokens == record.num_chunks == 2
    assert record.prompt_tokens == 9


def test_usage_counts_before_chunks() -> None:
    record = read((1.0, event("ab")), (2.0, event("cd")), (3.0, usage_chunk(5) + DONE))
    assert (record.num_tokens, record.num_chunks) == (5, 2)
    assert record.tokens_of_arrivals() == [2, 3]  # nobody counted each: spread evenly
    assert not record.has_running_counts


def test_running_counts_tell_the_tokens_of_each_chunk() -> None:
    record = read(
        (1.0, event("", usage=0)), (2.0, event("a", usage=1)), (3.0, event("bcd", usage=4)),
        (4.0, event("", usage=5)), (5.0, event(finish="length", usage=5) + usage_chunk(5) + DONE),
    )  # fmt: skip
    assert list(record.arrivals) == [2.0, 3.0, 4.0]  # the fifth token is half a character: it came without text
    assert record.tokens_of_arrivals() == [1, 3, 1]


def test_a_last_chunk_with_the_whole_usage_is_no_token() -> None:
    record = read((1.0, event("a")), (2.0, event("b")), (3.0, event("", finish="length", usage=2) + DONE))
    assert list(record.arrivals) == [1.0, 2.0]


def test_chunks_of_one_read_are_one_arrival() -> None:
    record = read((1.0, event("a")), (2.0, event("b") + event("c")), (3.0, event("d") + usage_chunk(4) + DONE))
    assert list(record.arrivals) == [1.0, 2.0, 3.0]
    assert record.tokens_of_arrivals() == [1, 2, 1]


@pytest.mark.parametrize("delta", [{"reasoning_content": "x"}, {"reasoning": "x"}, {"tool_calls": [{"index": 0}]}])
def test_thoughts_and_calls_are_tokens(delta: dict[str, Any]) -> None:
    data = event(choices=[{"index": 0, "delta": delta}])
    assert read((1.0, data), (2.0, DONE)).num_tokens == 1


def test_completions_have_text_at_the_top() -> None:
    data = event(choices=[{"index": 0, "text": "x", "finish_reason": None}])
    assert read((1.0, data), (2.0, DONE)).num_tokens == 1


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (event("a"), "stream ended early"), (event(finish="stop") + DONE, "no token in the answer"),
        (b"data: {broken\n\n" + DONE, "malformed chunk"),
        (event("a") + b'data: {"error": {"message": "out of memory"}}\n\n' + DONE, "error in the stream"),
    ],
)  # fmt: skip
def test_what_is_no_whole_answer(data: bytes, cause: str) -> None:
    with pytest.raises(RequestFailedError) as caught:
        read((1.0, data))
    assert caught.value.cause == cause


def test_messages_of_errors_in_every_shape() -> None:
    shapes: list[Any] = [
        {"error": {"message": "no", "type": "x"}}, {"message": "no"}, {"detail": [{"msg": "no", "loc": []}]},
        {"detail": "no"}, {"error": "no"}, "no",
    ]  # fmt: skip
    assert {error_text(shape) for shape in shapes} == {"no"}


def record_of(arrivals: list[float], totals: list[int], *, intended: float = 0.0, sent: float = 0.0) -> Record:
    record = Record(0, 9, totals[-1], intended=intended, sent=sent, ended=arrivals[-1])
    record.arrivals.extend(arrivals)
    record.chunks_so_far.extend(range(1, len(arrivals) + 1))
    record.tokens_so_far.extend(totals)
    record.usage = Usage(prompt_tokens=9, completion_tokens=totals[-1])
    return record


def test_latencies_count_from_the_intended_time() -> None:
    late = record_of([5.0, 6.0, 8.0], [1, 2, 3], intended=1.0, sent=4.0)
    assert request_latencies(late) == {"ttft": 4000.0, "e2el": 7000.0, "tpot": 1500.0}


def test_tokens_of_one_chunk_share_the_gap_before_it() -> None:
    record = record_of([1.0, 2.0, 5.0], [2, 3, 6])
    samples = latencies([record])
    assert samples["itl"].tolist() == [0.0, 1000.0, 1000.0, 1000.0, 1000.0]
    assert samples["icl"].tolist() == [1000.0, 3000.0]


def test_time_between_tokens_sums_to_the_time_of_decoding() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        arrivals = np.cumsum(rng.random(int(rng.integers(1, 30)))).tolist()
        totals = np.cumsum(rng.integers(1, 5, len(arrivals))).tolist()
        record = record_of(arrivals, totals)
        samples = latencies([record])
        assert len(samples["itl"]) == record.num_tokens - 1
        assert samples["itl"].sum() == pytest.approx(1000 * (arrivals[-1] - arrivals[0]))
        if record.num_tokens > 1:
            assert samples["itl"].mean() == pytest.approx(samples["tpot"][0])


def run_of(records: list[Record], seconds: float = 10.0) -> Run:
    return Run(1.0, None, False, begin=0.0, end=seconds, records=records, most_in_flight=len(records))


def failed(cause: str, detail: str = "") -> Record:
    return Record(0, 9, 3, cause=cause, detail=detail, sent=0.5, ended=1.0)


def test_figures_of_a_run() -> None:
    records = [record_of([1.0, 2.0], [1, 2]), record_of([2.0, 5.0], [1, 4]), failed("timeout")]
    figures = summarize(run_of(records), LoadConfig(url="http://127.0.0.1:1", goodput={"ttft": 1500.0, "tpot": 1000.0}))
    assert (figures["completed"], figures["failed"]) == (2, 1)
    assert (figures["total_input_tokens"], figures["total_output_tokens"]) == (18, 6)
    assert (figures["request_throughput"], figures["output_throughput"]) == (0.2, 0.6)
    assert figures["total_token_throughput"] == pytest.approx(2.4)
    assert figures["request_goodput"] == 0.1
    assert figures["goodput_share"] == pytest.approx(1 / 3)  # a failed request is not good
    assert figures["mean_ttft_ms"] == figures["median_ttft_ms"] == 1500.0
    assert figures["p99_ttft_ms"] == pytest.approx(np.percentile([1000.0, 2000.0], 99))
    assert figures["std_ttft_ms"] == 500.0
    assert figures["failures"] == [{"cause": "timeout", "count": 1, "example": ""}]


def test_a_run_without_answers_has_no_latencies() -> None:
    figures = summarize(run_of([failed("timeout")]), CONFIG)
    assert figures["mean_ttft_ms"] is None
    assert figures["p99_itl_ms"] is None
    assert figures["output_throughput"] == 0.0
    json.dumps(figures, allow_nan=False)


def test_lag_is_apart_from_the_wait_for_a_slot() -> None:
    record = record_of([5.0, 6.0], [1, 2], intended=1.0, sent=3.0)
    record.slot_wait = 1.5
    figures = summarize(run_of([record]), CONFIG)
    assert (figures["mean_lag_ms"], figures["max_slot_wait_ms"]) == (500.0, 1500.0)
    assert figures["mean_ttft_ms"] == 4000.0


def test_short_outputs_are_counted_where_full_length_was_asked() -> None:
    record = record_of([1.0, 2.0], [1, 2])
    record.output_len = 64
    assert summarize(run_of([record]), CONFIG)["short_outputs"] == 1
    any_length = LoadConfig(url="http://127.0.0.1:1", ignore_eos=False)
    assert summarize(run_of([record]), any_length)["short_outputs"] is None


def test_failures_by_cause() -> None:
    records = [failed("HTTP 503", "full"), failed("timeout"), failed("HTTP 503", "later"), record_of([1.0], [1])]
    assert failures(records) == [
        {"cause": "HTTP 503", "count": 2, "example": "full"},
        {"cause": "timeout", "count": 1, "example": ""},
    ]


def test_the_best_rate_has_only_good_rates_below_it() -> None:
    shares = {4.0: 1.0, 1.0: 1.0, 2.0: 0.995, 8.0: 0.5, 16.0: 1.0}
    parts = [{"request_rate": rate, "goodput_share": share} for rate, share in shares.items()]
    assert best_rate(parts, 0.99) == 4.0
    assert best_rate([{"request_rate": 1.0, "goodput_share": 0.5}], 0.99) is None


def test_the_lists_of_every_request() -> None:
    lists = per_request(run_of([record_of([1.0, 2.0], [1, 2], intended=0.5), failed("HTTP 500", "why")]))
    assert lists["ttfts"] == [0.5, None]
    assert lists["itls"] == [[1.0], []]
    assert lists["errors"] == ["", "HTTP 500: why"]
    assert lists["start_times"] == [0.5, 0.0]


def figures_of(record: Record) -> dict[str, Any]:
    return summarize(run_of([record]), CONFIG)


def test_what_makes_figures_less_than_they_seem_is_said() -> None:
    good = record_of([1.0, 2.0], [1, 2])
    good.usage = Usage(100, 2, PromptDetails(30))
    measured = Facts("m", TextScale(1.0, 30.0, is_measured=True), None, None)
    assert warnings(figures_of(good), CONFIG, measured) == []  # the template is in every prompt
    good.usage = Usage(100, 2, PromptDetails(90))
    assert "60 % of the prompt tokens came from a cache" in warnings(figures_of(good), CONFIG, measured)[0]
    late = record_of([1.0, 2.0], [1, 2], sent=0.5)
    assert "the generator itself was late" in warnings(figures_of(late), CONFIG, measured)[0]
    uncounted = record_of([1.0, 2.0], [0, 0])
    uncounted.usage, uncounted.output_len = None, 64
    said = warnings(figures_of(uncounted), CONFIG, Facts("m", TextScale(), None, None))
    assert [line.partition(":")[0] for line in said] == [
        "the server sends no usage", "the server does not count prompt tokens",
        "1 answers ended before the length asked for",
    ]  # fmt: skip
    assert warnings(figures_of(failed("timeout", "x")), CONFIG, measured)[0] == "1 failed: timeout: x"
