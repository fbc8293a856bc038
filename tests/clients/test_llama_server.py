"""llama-server's own API, as raw HTTP: whole transcripts where times are left out.

The mock engine answers with the prompt over and over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from support.models import local_model_path
from support.schemas import PERSON
from support.server import running
from support.waiting import until

SETTINGS = {
    "n_ctx": 4096, "seed": 7, "temperature": 0.0, "dynatemp_range": 0.0, "top_k": 7, "top_p": 0.95, "min_p": 0.05,
    "xtc_probability": 0.0, "typical_p": 1.0, "repeat_last_n": -1, "repeat_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "dry_multiplier": 0.0, "mirostat": 0, "stop": ["ca"], "max_tokens": 8, "n_predict": 8,
    "ignore_eos": False, "stream": False, "logit_bias": [], "n_probs": 0, "grammar": "", "timings_per_token": False,
    "lora": [],
}  # fmt: skip
COUNTS = {"cache_n": 1, "prompt_n": 2, "predicted_n": 4}
TIMES = {f"{phase}_{what}" for phase in ("prompt", "predicted") for what in ("ms", "per_token_ms", "per_second")}


def post(url: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(url + path, json=body, timeout=60)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]


def without_times(body: dict[str, Any]) -> dict[str, Any]:
    assert body["timings"].keys() == COUNTS.keys() | TIMES
    assert all(body["timings"][name] >= 0 for name in TIMES)
    return {**body, "timings": {name: body["timings"][name] for name in COUNTS}}


def test_a_whole_completion(url):
    body = {"prompt": "abc", "n_predict": 8, "stop": ["ca"], "seed": 7, "temperature": -1, "return_tokens": True}
    assert without_times(post(url, "/completion", **body).json()) == {
        "index": 0, "content": "ab", "tokens": [97, 98, 99, 97], "id_slot": -1, "stop": True, "model": "mock/model",
        "tokens_predicted": 4, "tokens_evaluated": 3, "generation_settings": SETTINGS, "prompt": "abc",
        "has_new_line": False, "truncated": False, "stop_type": "word", "stopping_word": "ca", "tokens_cached": 1,
        "timings": COUNTS,
    }  # fmt: skip
    assert post(url, "/completions", **body).json()["content"] == "ab"


def test_a_streamed_completion(url):
    body = {"prompt": "abc", "n_predict": 8, "stop": ["ca"], "seed": 7, "temperature": 0, "stream": True}
    found = events(post(url, "/completion", **body))
    piece = {"index": 0, "stop": False, "id_slot": -1, "tokens_evaluated": 3}
    assert found[:-1] == [
        {**piece, "content": "a", "tokens": [97], "tokens_predicted": 1},
        {**piece, "content": "b", "tokens": [98], "tokens_predicted": 2},
    ]
    assert without_times(found[-1]) == {
        "index": 0, "content": "", "tokens": [], "id_slot": -1, "stop": True, "model": "mock/model",
        "tokens_predicted": 4, "tokens_evaluated": 3, "generation_settings": {**SETTINGS, "stream": True},
        "prompt": "abc", "has_new_line": False, "truncated": False, "stop_type": "word", "stopping_word": "ca",
        "tokens_cached": 1, "timings": COUNTS,
    }  # fmt: skip


def test_no_character_is_split_and_no_token_is_lost(url):
    found = events(post(url, "/completion", prompt="aé😀", n_predict=7, stream=True))
    assert "".join(event["content"] for event in found) == "aé😀"
    assert [token for event in found for token in event["tokens"]] == list("aé😀".encode())


def test_probabilities_and_timings_of_each_token(url):
    first, second, last = events(
        post(url, "/completion", prompt="ab", n_predict=2, n_probs=2, stream=True, timings_per_token=True)
    )
    entry = {"id": 97, "token": "a", "bytes": [97], "logprob": -0.5}
    assert first["completion_probabilities"] == [
        {**entry, "top_logprobs": [entry, {"id": 98, "token": "b", "bytes": [98], "logprob": -1.5}]}
    ]
    assert (first["timings"]["predicted_n"], second["timings"]["predicted_n"]) == (1, 2)
    whole = post(url, "/completion", prompt="ab", n_predict=2, n_probs=2).json()
    assert whole["completion_probabilities"] == first["completion_probabilities"] + second["completion_probabilities"]
    assert "completion_probabilities" not in last


def picked(url: str, fields: list[str], **body: Any) -> Any:
    return post(url, "/completion", response_fields=fields, **body).json()


def test_only_the_fields_that_were_asked_for(url):
    paths = ["content", "generation_settings/n_predict", "timings/cache_n", "nothing/here"]
    assert picked(url, paths, prompt="ab", n_predict=3) == {
        "content": "aba", "generation_settings/n_predict": 3, "timings/cache_n": 1}  # fmt: skip


PROMPTS = [
    ("ab", ["ab"]),
    ([97, 98], ["ab"]),
    (["ab"], ["ab"]),
    ([97, "b", 99], ["ab"]),
    (["ab", "cd"], ["ab", "cd"]),
    ([[97, "b"], "cd", [99, 100], {"prompt_string": "ef"}], ["ab", "cd", "cd", "ef"]),
]


@pytest.mark.parametrize(("prompt", "contents"), PROMPTS)
def test_shapes_of_prompts(url, prompt, contents):
    found = picked(url, ["content"], prompt=prompt, n_predict=2)
    assert [one["content"] for one in (found if isinstance(found, list) else [found])] == contents


def test_several_completions_of_a_prompt(url):
    found = picked(url, ["index", "content"], prompt=["ab", "cd"], n_predict=2, n_cmpl=2)
    assert [(one["index"], one["content"]) for one in found] == [(0, "ab"), (1, "ab"), (2, "cd"), (3, "cd")]


BIASES = [
    ([[97, 1.5]], [(97, 1.5)]),
    ([[97, False]], [(97, -100.0)]),
    ([["ab", -0.5]], [(97, -0.5), (98, -0.5)]),
    ({"97": 2, "b": -1}, [(97, 2.0), (98, -1.0)]),
]


@pytest.mark.parametrize(("bias", "ids"), BIASES)
def test_shapes_of_biases(url, bias, ids):
    found = picked(url, ["generation_settings/logit_bias"], prompt="ab", n_predict=1, logit_bias=bias)
    assert [(one["token"], one["bias"]) for one in found["generation_settings/logit_bias"]] == ids


def test_reading_a_prompt_only(url):
    found = picked(url, ["content", "tokens_predicted", "tokens_evaluated", "stop_type"], prompt="abc", n_predict=0)
    assert found == {"content": "", "tokens_predicted": 0, "tokens_evaluated": 3, "stop_type": "limit"}


def test_the_end_of_the_context_ends_the_text(url):
    found = picked(url, ["tokens_predicted", "stop_type"], prompt="x" * 4090, n_predict=100)
    assert found == {"tokens_predicted": 6, "stop_type": "limit"}


def test_switched_off_samplers_are_let_through_and_unknown_fields_named(url):
    off = {"mirostat": 0, "mirostat_tau": 5.0, "dry_multiplier": 0.0, "dry_base": 1.75, "xtc_probability": 0,
           "xtc_threshold": 0.1, "dynatemp_range": 0, "id_slot": -1, "n_keep": 0,
           "samplers": "penalties dry top_n_sigma top_k typ_p top_p min_p xtc temperature".split()}  # fmt: skip
    assert picked(url, ["content", "warnings"], prompt="a", n_predict=1, **off) == {"content": "a"}
    found = picked(url, ["warnings"], prompt="a", n_predict=1, colour=1, repeat_penalty=1.1, repeat_last_n=64)
    assert ["colour" in found["warnings"][0], "repeat_last_n" in found["warnings"][1]] == [True, True]


BAD = [
    ({"mirostat": 2}, 400, "mirostat"),
    ({"dry_multiplier": 0.8}, 400, "dry_multiplier"),
    ({"xtc_probability": 0.5}, 400, "xtc_probability"),
    ({"dynatemp_range": 0.5}, 400, "dynatemp_range"),
    ({"samplers": ["top_k"]}, 400, "samplers"),
    ({"n_predict": -5}, 400, "n_predict"),
    ({"repeat_penalty": 0}, 400, "repeat_penalty"),
    ({"n_probs": 1000}, 400, "n_probs"),
    ({"logit_bias": [[97, True]]}, 400, "logit_bias"),
    ({"logit_bias": [[999, 1]]}, 400, "logit_bias"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": {"prompt_string": "a", "multimodal_data": ["aGk="]}}, 400, "multimodal_data"),
    ({"grammar": 'root ::= "a"', "json_schema": {}}, 400, "grammar"),
    ({"model": "other"}, 404, "other"),
]


@pytest.mark.parametrize(("change", "status", "named"), BAD)
def test_errors_name_the_field(url, change, status, named):
    answer = post(url, "/completion", **{"prompt": "a", **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status)
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert named in error["message"]


def test_a_prompt_that_is_too_long(url):
    answer = post(url, "/completion", prompt="x" * 5000)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "exceed_context_size_error")
    assert "4096" in answer.json()["error"]["message"]


def test_an_error_inside_a_stream():
    with running() as (url, _):
        last = events(post(url, "/completion", prompt="<raise>", stream=True))[-1]
    assert (last["error"]["code"], last["error"]["type"]) == (500, "server_error")


def test_a_client_that_leaves_frees_the_engine(url):
    with httpx.stream("POST", url + "/completion", json={"prompt": "<slow>", "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        slots = httpx.get(url + "/slots").json()
    assert [slot["is_processing"] for slot in slots].count(True) == 1
    until(lambda: not any(slot["is_processing"] for slot in httpx.get(url + "/slots").json()))


def test_properties_and_slots(url):
    props = httpx.get(url + "/props").json()
    assert props["total_slots"] == len(httpx.get(url + "/slots").json()) == 64
    assert props["default_generation_settings"]["n_ctx"] == 4096
    assert props["default_generation_settings"]["params"]["top_k"] == 7  # the mock's file asks for it
    assert props["default_generation_settings"]["params"]["temperature"] == 0.8
    assert props["chat_template"].startswith("<bos>")
    assert props["modalities"] == {"vision": False, "audio": False}
    assert httpx.get(url + "/health").json() == {"status": "ok"}
    for path, status in (("/props", 405), ("/slots/0?action=save", 501)):
        answer = post(url, path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, "not_supported_error")


def test_no_slot_is_free():
    with running(engine={"max_num_seqs": 1}) as (url, _):
        assert httpx.get(url + "/slots?fail_on_no_slot=1").status_code == 200
        with httpx.stream("POST", url + "/completion", json={"prompt": "<slow>", "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            time.sleep(0.2)
            assert httpx.get(url + "/slots?fail_on_no_slot=1").status_code == 503


def test_models_are_loaded_and_unloaded():
    def status(url: str) -> str:
        return httpx.get(url + "/models").json()["data"][0]["status"]["value"]

    with running() as (url, _):
        assert status(url) == "loaded"
        assert post(url, "/models/unload", model="mock/model").json() == {"success": True}
        assert status(url) == "unloaded"
        assert post(url, "/models/load", model="mock/model").json() == {"success": True}
        assert status(url) == "loaded"
        assert post(url, "/models/load", model="other").status_code == 404


def test_templates_and_tokens(url):
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "ab"}]
    assert post(url, "/apply-template", messages=messages).json() == {"prompt": "<bos>xab"}
    assert post(url, "/tokenize", content="ab").json() == {"tokens": [97, 98]}
    assert post(url, "/tokenize", content="aá", with_pieces=True).json() == {
        "tokens": [{"id": 97, "piece": "a"}, {"id": 195, "piece": [195]}, {"id": 161, "piece": [161]}]}  # fmt: skip
    assert post(url, "/tokenize", content="<bos>").json() == {"tokens": [256]}
    assert len(post(url, "/tokenize", content="<bos>", parse_special=False).json()["tokens"]) == 5
    assert post(url, "/detokenize", tokens=[97, 98]).json()["content"] == "ab"


@pytest.fixture(scope="module")
def coder_url() -> Iterator[str]:
    path = local_model_path("qwen2.5-coder:1.5b")
    with running(models=[str(path)], worker_factory="") as (base, _):
        yield base


class TestRealModel:
    def test_stream_is_whole(self, smollm2_url):
        body = {"prompt": "The sea is", "n_predict": 12, "seed": 3}
        whole = post(smollm2_url, "/completion", **body).json()
        streamed = events(post(smollm2_url, "/completion", **body, stream=True))
        assert "".join(event["content"] for event in streamed) == whole["content"]
        assert (whole["stop_type"], whole["timings"]["predicted_n"]) == ("limit", 12)
        assert whole["timings"]["predicted_ms"] > 0

    def test_a_grammar_holds(self, smollm2_url):
        answer = post(
            smollm2_url, "/completion", prompt="Is it? ", grammar='root ::= "yes" | "no"', n_predict=10, seed=1
        )
        assert answer.json()["content"] in ("yes", "no")
        assert answer.json()["stop_type"] == "eos"

    def test_a_schema_holds(self, smollm2_url):
        body = {"prompt": "Ada is 36. As JSON: ", "json_schema": PERSON, "n_predict": 80, "seed": 1}
        jsonschema.validate(json.loads(post(smollm2_url, "/completion", **body).json()["content"]), PERSON)

    @pytest.mark.parametrize(("field", "value"), [("grammar", "root ::= ("), ("json_schema", {"type": "nonsense"})])
    def test_a_bad_structure_is_named(self, smollm2_url, field, value):
        answer = post(smollm2_url, "/completion", prompt="a", **{field: value})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert field in answer.json()["error"]["message"]

    def test_the_prompt_cache_can_be_left_out(self, smollm2_url):
        body = {"prompt": "word " * 200, "n_predict": 1}
        post(smollm2_url, "/completion", **body)
        assert post(smollm2_url, "/completion", **body).json()["timings"]["cache_n"] > 0
        assert post(smollm2_url, "/completion", **body, cache_prompt=False).json()["timings"]["cache_n"] == 0

    def test_a_model_without_markers_does_not_infill(self, smollm2_url):
        answer = post(smollm2_url, "/infill", input_prefix="a", input_suffix="b")
        assert answer.status_code == 400
        assert "input_suffix" in answer.json()["error"]["message"]

    def test_infill(self, coder_url):
        body = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n\nprint(add(1, 2))\n", "n_predict": 8}
        answer = post(coder_url, "/infill", **body, temperature=0).json()
        assert answer["content"].strip().startswith("a + b")
        assert answer["prompt"].startswith("<|fim_prefix|>def add(a, b):")
        extra = [{"filename": "names.py", "text": "def add(first, second): ..."}]
        answer = post(coder_url, "/infill", **body, temperature=0, input_extra=extra).json()
        assert answer["prompt"].startswith("<|repo_name|>")
        assert "<|file_sep|>names.py\ndef add(first, second)" in answer["prompt"]

    def test_a_marker_in_a_text_marks_nothing(self, coder_url):
        body = {"input_prefix": "x = '<|fim_middle|>'\n", "input_suffix": "", "n_predict": 1}
        answer = post(coder_url, "/infill", **body).json()
        ids = post(coder_url, "/tokenize", content="<|fim_prefix|>x = '", parse_special=True).json()["tokens"]
        plain = post(coder_url, "/tokenize", content="<|fim_middle|>", parse_special=False).json()["tokens"]
        assert len(plain) > 1
        assert answer["tokens_evaluated"] > len(ids) + len(plain)

    def test_ollama_infills_too(self, coder_url):
        name = httpx.get(coder_url + "/api/tags").json()["models"][0]["name"]
        body = {"model": name, "prompt": "def add(a, b):\n    return ", "suffix": "\n", "stream": False}
        answer = post(coder_url, "/api/generate", **body, options={"num_predict": 8, "temperature": 0}).json()
        assert answer["response"].strip().startswith("a + b")
        assert "insert" in post(coder_url, "/api/show", model=name).json()["capabilities"]
