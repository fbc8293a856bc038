"""Every field of a request is honoured, refused by its name, harmless, or named in the warnings."""

from __future__ import annotations

import json

import httpx
import pytest

from inferd.gateway.dialects.openai.fields import HARMLESS, REFUSED

HI = [{"role": "user", "content": "hi"}]


def complete(url, **body):
    return httpx.post(url + "/v1/completions", json={"prompt": "ab", "max_tokens": 2, **body}, timeout=20)


def chat(url, **body):
    return httpx.post(url + "/v1/chat/completions", json={"messages": HI, "max_tokens": 2, **body}, timeout=20)


def events(url, path, **body):
    answer = httpx.post(url + path, json={**body, "stream": True}, timeout=20)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


BAD_SAMPLING = [
    ("max_tokens", -1), ("max_tokens", 0), ("max_tokens", 2**31), ("max_tokens", 1.5), ("n", 0), ("n", 65), ("n", True),
    ("temperature", -0.1), ("temperature", 1e308), ("temperature", "hot"), ("top_p", 1.1), ("top_k", -2), ("min_p", 2),
    ("typical_p", -1), ("seed", 2**70), ("seed", 0.5), ("stop", ""), ("stop", ["a"] * 17), ("stop", [1]),
    ("stop_token_ids", [258]), ("stop_token_ids", [-1]), ("min_tokens", 3), ("presence_penalty", 3),
    ("frequency_penalty", -3), ("repetition_penalty", 0), ("logit_bias", {"1": 101}), ("logit_bias", {"x": 1}),
    ("logit_bias", {"300": 1}), ("allowed_token_ids", []), ("allowed_token_ids", [999]), ("bad_words", [""]),
    ("skip_special_tokens", "no"), ("priority", 2**63), ("cache_salt", "x" * 1025), ("truncate_prompt_tokens", 0),
    ("truncate_prompt_tokens", 5000), ("stream", "yes"), ("stream_options", {"include_usage": True}),
    ("prompt_logprobs", 101), ("return_token_ids", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_SAMPLING)
@pytest.mark.parametrize("ask", [complete, chat])
def test_a_bad_value_is_refused_by_name(url, ask, name, value):
    answer = ask(url, **{name: value})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == name
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("body", "param"), [
    ({"logprobs": True}, "logprobs"), ({"logprobs": 101}, "logprobs"), ({"best_of": 2}, "best_of"),
    ({"suffix": "end"}, "suffix"), ({"prompt": None}, "prompt"), ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"), ({"prompt": ["a", 1]}, "prompt"), ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [258]}, "prompt"), ({"prompt": [2**40]}, "prompt"), ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": ""}, "prompt"), ({"prompt": ["a"] * 1025}, "prompt"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
])  # fmt: skip
def test_bad_completions(url, body, param):
    answer = complete(url, **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(("body", "param"), [
    ({"messages": None}, "messages"), ({"messages": []}, "messages"), ({"messages": [{"role": "king"}]}, "messages"),
    ({"messages": [{"content": "a"}]}, "messages"), ({"messages": [{"role": "user", "content": 1}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"), ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 101}, "top_logprobs"),
    ({"echo": True}, "echo"), ({"chat_template": "{{ 1 }}"}, "chat_template"), ({"tools": [{}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"), ({"response_format": {"type": "json"}}, "response_format"),
    ({"modalities": ["audio"]}, "modalities"), ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    ({"continue_final_message": True, "messages": [{"role": "user", "content": ""}]}, "messages"),
])  # fmt: skip
def test_bad_chats(url, body, param):
    answer = chat(url, **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_fields_pass_only_with_a_value_that_changes_nothing(url, name):
    neutral, _ = REFUSED[name]
    for value in (*neutral, None):
        assert chat(url, **{name: value}).status_code == 200, value
    answer = chat(url, **{name: {"some": "thing"}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_harmless_fields_pass_without_a_warning(url):
    answer = chat(url, **{name: {"any": ["thing"]} for name in HARMLESS}, response_format={"type": "text"})
    assert answer.status_code == 200
    assert "warnings" not in answer.json()


def test_unknown_fields_are_named(url):
    expected = ["unknown field 'temprature' was ignored"]
    assert chat(url, temprature=0).json()["warnings"] == expected
    assert events(url, "/v1/completions", prompt="ab", n=2, temprature=0)[-1]["warnings"] == expected
    with_usage = events(url, "/v1/completions", prompt="ab", temprature=0, stream_options={"include_usage": True})
    assert (with_usage[-1]["warnings"], with_usage[-1]["choices"]) == (expected, [])
    assert sum("warnings" in event for event in with_usage) == 1
    assert len(chat(url, **{f"x{i}": 1 for i in range(1000)}).json()["warnings"]) == 17


def test_numbers_may_be_written_either_way(url):
    answer = complete(url, max_tokens=3.0, temperature=0, seed=5.0, top_k=1.0, logit_bias={"97": 1, "98": -1.5})
    assert answer.json()["choices"][0]["text"] == "aba"


def test_prompts_in_every_form(url):
    for prompt in ("ab", [97, 98], ["ab"], [[97, 98]]):
        assert [choice["text"] for choice in complete(url, prompt=prompt).json()["choices"]] == ["ab"]
    for prompt in (["ab", "cd"], [[97, 98], [99, 100]], ["ab", [99, 100]]):
        answer = complete(url, prompt=prompt, n=2).json()
        assert [(c["index"], c["text"]) for c in answer["choices"]] == [(0, "ab"), (1, "ab"), (2, "cd"), (3, "cd")]
        assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (4, 8)


def test_streamed_batch(url):
    texts = ["", "", ""]
    for event in events(url, "/v1/completions", prompt=["ab", "cd", "ef"], max_tokens=3):
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == ["aba", "cdc", "efe"]


def test_completion_logprobs(url):
    logprobs = complete(url, prompt="é", max_tokens=4, logprobs=2).json()["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["bytes:\\xc3", "bytes:\\xa9"] * 2
    assert logprobs["token_logprobs"] == [-0.5] * 4
    assert logprobs["top_logprobs"][0] == {"bytes:\\xc3": -0.5, "bytes:\\xc4": -1.5}
    assert logprobs["text_offset"] == [0, 0, 1, 1]
    assert complete(url, logprobs=0).json()["choices"][0]["logprobs"]["top_logprobs"] == [{"a": -0.5}, {"b": -0.5}]
    ids = complete(url, logprobs=0, return_tokens_as_token_ids=True).json()["choices"][0]["logprobs"]
    assert ids["tokens"] == ["token_id:97", "token_id:98"]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_with_logprobs_scores_the_prompt(url, max_tokens):
    """The shape that evaluation harnesses read."""
    answer = complete(url, prompt=[[97, 98, 99], [100, 101]], echo=True, logprobs=1, max_tokens=max_tokens).json()
    first, second = answer["choices"]
    end = ["abca", "ded"] if max_tokens else ["abc", "de"]
    assert [first["text"], second["text"]] == end
    assert first["logprobs"]["tokens"] == list(end[0])
    assert first["logprobs"]["token_logprobs"] == [None, *[-0.5] * (len(end[0]) - 1)]
    assert first["logprobs"]["top_logprobs"][:2] == [None, {"b": -0.5}]
    assert second["logprobs"]["text_offset"] == list(range(len(end[1])))
    assert answer["usage"]["completion_tokens"] == 2 * max_tokens
    assert first["finish_reason"] == "length"


def test_streamed_echo_with_logprobs_is_that_of_the_whole(url):
    body = {"prompt": "abc", "echo": True, "logprobs": 1, "n": 2, "max_tokens": 3}
    whole = complete(url, **body).json()["choices"]
    streamed = [event["choices"][0] for event in events(url, "/v1/completions", **body)]
    for choice in whole:
        own = [part for part in streamed if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"] == "abcabc"
        for name, values in choice["logprobs"].items():
            assert [value for part in own if part["logprobs"] for value in part["logprobs"][name]] == values


def test_prompt_logprobs(url):
    expected = [None, {"98": {"logprob": -0.5, "rank": 1, "decoded_token": "b"}}]
    assert complete(url, prompt_logprobs=1).json()["choices"][0]["prompt_logprobs"] == expected
    of_chat = chat(url, prompt_logprobs=1).json()["prompt_logprobs"]
    assert of_chat[0] is None
    assert list(of_chat[1]) == ["104"]


def test_token_ids(url):
    answer = complete(url, return_token_ids=True, return_prompt_text=True).json()["choices"][0]
    assert (answer["prompt_token_ids"], answer["token_ids"], answer["prompt_text"]) == ([97, 98], [97, 98], "ab")
    streamed = events(url, "/v1/chat/completions", messages=HI, max_tokens=3, return_token_ids=True)
    assert streamed[0]["prompt_token_ids"] == [256, 104, 105]
    assert [i for e in streamed for i in e["choices"][0].get("token_ids", [])] == [104, 105, 104]


def test_stops(url):
    answer = complete(url, prompt="abcd", max_tokens=20, stop=["cda"]).json()["choices"][0]
    assert (answer["text"], answer["finish_reason"], answer["stop_reason"]) == ("ab", "stop", "cda")
    answer = complete(url, prompt="abcd", max_tokens=20, stop="cd", include_stop_str_in_output=True)
    assert answer.json()["choices"][0]["text"] == "abcd"
    answer = complete(url, prompt="abcd", max_tokens=20, stop_token_ids=[99]).json()["choices"][0]
    assert (answer["finish_reason"], answer["stop_reason"]) == ("stop", 99)


def test_usage_in_every_chunk(url):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events(url, "/v1/completions", prompt="ab", max_tokens=3, stream_options=options)
    assert [c["usage"]["completion_tokens"] for c in chunks] == [1, 2, 3, 3, 3]


def test_the_template_writes_the_begin_of_text_once(url):
    for special in (False, True):
        answer = chat(url, return_token_ids=True, add_special_tokens=special).json()
        assert answer["prompt_token_ids"] == [256, 104, 105]


def test_text_of_a_user_is_no_control_token(url):
    answer = chat(url, messages=[{"role": "user", "content": "<eos>"}], return_token_ids=True).json()
    assert answer["prompt_token_ids"] == [256, *b"<eos>"]


def test_messages_in_every_form(url):
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    messages = [{"role": "developer", "content": "a"}, {"role": "assistant", "content": None}]
    messages.append({"role": "user", "content": parts})
    assert chat(url, messages=messages, max_tokens=3).json()["choices"][0]["message"]["content"] == "abc"


def test_truncation(url):
    answer = complete(url, prompt="x" * 5000, truncate_prompt_tokens=3, return_token_ids=True)
    assert answer.json()["choices"][0]["prompt_token_ids"] == [120] * 3
    assert complete(url, prompt="x" * 5000, truncate_prompt_tokens=-1).json()["usage"]["prompt_tokens"] == 4094


def test_tokenize_and_back(url):
    for prefix in ("", "/v1"):
        answer = httpx.post(url + prefix + "/tokenize", json={"prompt": "aé", "return_token_strs": True}).json()
        assert answer == {"count": 3, "max_model_len": 4096, "tokens": [97, 195, 169], "token_strs": ["a", "�", "�"]}
        back = httpx.post(url + prefix + "/detokenize", json={"tokens": answer["tokens"]}).json()
        assert back == {"prompt": "aé", "content": "aé"}
    assert httpx.post(url + "/tokenize", json={"messages": HI}).json()["tokens"] == [256, 104, 105]
    assert httpx.post(url + "/tokenize", json={}).status_code == 400
    assert httpx.post(url + "/tokenize", json={"prompt": "a", "messages": HI}).status_code == 400
    answer = httpx.post(url + "/detokenize", json={"tokens": [258]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tokens")
    for body in ({"prompt": "a" * (2**20 + 1)}, {"messages": [{"role": "user", "content": "a" * (2**20 + 1)}]}):
        assert httpx.post(url + "/tokenize", json=body).status_code == 400
    assert complete(url, prompt="a" * (2**20 + 1), truncate_prompt_tokens=3).status_code == 400
