"""What Ollama's own notations mean."""

from __future__ import annotations

import pytest

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.ollama.bodies import messages_of, seconds_of, structured_of
from inferd.gateway.dialects.ollama.options import DEFAULTS, num_ctx_of, sampling_of_options
from inferd.gateway.residency import FOREVER

DURATIONS = [
    (None, None), (0, 0), ("0", 0), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("300ms", 0.3), ("90", 90),
    (-1, FOREVER), ("-1", FOREVER), ("-1m", FOREVER), (1e300, FOREVER), ("999999999999h", FOREVER),
]  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5 m", "5x", "five", "1h-30m", "1e3"])
def test_what_is_no_duration(text):
    with pytest.raises(InvalidRequestError, match="keep_alive"):
        seconds_of(text)


def test_options_become_fields_of_the_engine():
    options = {"num_predict": 9.0, "repeat_penalty": 1.1, "seed": -1, "stop": "x", "num_gpu": 99, "top_k": None}
    values, warnings = sampling_of_options(options)
    assert values == {"repetition_penalty": 1.1, "max_tokens": 9, "stop": ["x"]}
    assert warnings == ()
    assert sampling_of_options({"num_predict": -2})[0] == {"max_tokens": None, "stop": []}
    assert not set(DEFAULTS) & set(values)


def test_the_window_of_penalties_is_off_or_named():
    off, warnings = sampling_of_options({"repeat_last_n": 0, "repeat_penalty": 1.3, "presence_penalty": 1})
    assert (off["repetition_penalty"], off["presence_penalty"], warnings) == (1, 0, ())
    assert sampling_of_options({"repeat_last_n": 64})[1] == ()  # without a penalty it means nothing
    assert "repeat_last_n" in sampling_of_options({"repeat_last_n": 64, "repeat_penalty": 1.1})[1][0]
    assert sampling_of_options({"repeat_last_n": -1, "repeat_penalty": 1.1})[1] == ()


@pytest.mark.parametrize("num_ctx", [0, -1, 4097, 1.5, True, "4096"])
def test_a_context_the_model_has_not(num_ctx):
    with pytest.raises(InvalidRequestError, match="num_ctx"):
        num_ctx_of({"num_ctx": num_ctx}, 4096)


def test_formats():
    assert structured_of("") is None
    assert structured_of("json").kind == "json_object"
    assert structured_of({"type": "object"}).value == '{"type":"object"}'


def test_messages_in_openais_shape():
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    message = {"role": "Assistant", "thinking": "hm", "tool_calls": [call, {**call, "id": "own"}]}
    (turned,) = messages_of([message])
    assert (turned["role"], turned["content"], turned["reasoning_content"]) == ("assistant", "", "hm")
    assert [one["id"] for one in turned["tool_calls"]] == ["call_0", "own"]
    assert turned["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}


@pytest.mark.parametrize(
    "wrong",
    [
        {"tool_calls": [{}]},
        {"tool_calls": 3},
        {"content": 5},
        {"tool_calls": [{"function": {"name": "f", "arguments": "x"}}]},
    ],
)
def test_what_is_no_message(wrong):
    with pytest.raises(InvalidRequestError, match="messages"):
        messages_of([{"role": "assistant", **wrong}])
