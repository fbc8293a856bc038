"""The clients of text-generation-inference: huggingface_hub's, and text-generation where it is installed.

The mock engine answers with the prompt over and over.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise

import httpx
import jsonschema
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import GenerationError, ValidationError

from support.schemas import PERSON
from support.server import running
from support.waiting import until_running


@pytest.fixture
def client(url: str) -> InferenceClient:
    return InferenceClient(url)


def post(url: str, path: str, **body: object) -> httpx.Response:
    return httpx.post(url + path, json=body)


def test_text(client):
    assert client.text_generation("abc", max_new_tokens=4) == "abca"
    assert client.text_generation("abc", max_new_tokens=4, return_full_text=True) == "abcabca"


def test_details(client):
    answer = client.text_generation(
        "abc", max_new_tokens=2, details=True, decoder_input_details=True, top_n_tokens=2, do_sample=True, seed=5
    )
    details = answer.details
    assert (details.finish_reason, details.generated_tokens, details.seed) == ("length", 2, 5)
    assert [(token.id, token.text, token.logprob) for token in details.prefill] == [
        (97, "a", None), (98, "b", -0.5), (99, "c", -0.5)]  # fmt: skip
    assert [(token.id, token.text, token.logprob, token.special) for token in details.tokens] == [
        (97, "a", -0.5, False), (98, "b", -0.5, False)]  # fmt: skip
    assert [[token["text"] for token in tokens] for tokens in details.top_tokens] == [["a", "b"], ["b", "c"]]


def test_a_stop_text_ends_the_text_and_stays_in_it(client):
    answer = client.text_generation("hello", max_new_tokens=50, stop=["oh"], details=True)
    assert (answer.generated_text, answer.details.finish_reason) == ("helloh", "stop_sequence")


def test_a_stream_has_every_token_and_in_the_end_the_text(client):
    options = {"max_new_tokens": 9, "details": True}
    events = list(client.text_generation("aé€😀", stream=True, **options))
    assert [event.index for event in events] == list(range(1, 10))
    assert [event.token.id for event in events] == list("aé€😀".encode()[:9])
    assert "".join(event.token.text for event in events) == "aé€"
    last = events[-1]
    assert last.generated_text == client.text_generation("aé€😀", **options).generated_text == "aé€\ufffd"
    assert (last.details.finish_reason, last.details.generated_tokens, last.details.input_length) == ("length", 9, 10)
    assert all(event.generated_text is None for event in events[:-1])


def test_greedy_has_no_seed_and_sampling_tells_its_own(url):
    def seed(**parameters: object) -> object:
        body = {"max_new_tokens": 1, "details": True, **parameters}
        return post(url, "/generate", inputs="a", parameters=body).json()["details"]["seed"]

    assert seed() is None
    assert seed(temperature=1.0) is None
    assert isinstance(seed(temperature=0.5), int)
    assert isinstance(seed(do_sample=True), int)


def test_headers_tell_times_and_counts(url):
    headers = post(url, "/generate", inputs="abc", parameters={"max_new_tokens": 3}).headers
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("3", "3")
    assert (headers["x-compute-characters"], headers["x-compute-type"]) == ("3", "cpu")
    for name in ("total-time", "validation-time", "queue-time", "inference-time", "time-per-token"):
        assert int(headers["x-" + name]) >= 0
    assert float(headers["x-compute-time"]) > 0


def test_chat(client):
    messages = [{"role": "user", "content": "hey"}]
    answer = client.chat_completion(messages, model="mock/model", max_tokens=3)
    assert answer.choices[0].message.content == "hey"


BAD = [
    ({"best_of": 2, "do_sample": True}, "best_of"),
    ({"watermark": True}, "watermark"),
    ({"stop": list("abcde")}, "stop"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"top_p": 2}, "top_p"),
    ({"truncate": 0}, "truncate"),
    ({"top_n_tokens": 1000, "details": True}, "top_n_tokens"),
    ({"grammar": {"type": "xml", "value": "a"}}, "grammar"),
    ({"adapter_id": "mock/model"}, "adapter_id"),
]


@pytest.mark.parametrize(("parameters", "named"), BAD)
def test_errors_name_the_parameter(url, parameters, named):
    answer = post(url, "/generate", inputs="abc", parameters=parameters)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")
    assert named in answer.json()["error"]


def test_errors_are_those_of_the_client(client, url):
    with pytest.raises(ValidationError, match="4096"):
        client.text_generation("x" * 5000, max_new_tokens=3)
    assert "4096" in post(url, "/generate", inputs="x" * 5000).json()["error"]
    assert post(url, "/generate", inputs="").status_code == 422
    assert post(url, "/generate", inputs="a", model="other").json()["error_type"] == "model_not_found"
    streamed = post(url, "/generate_stream", inputs="a", parameters={"decoder_input_details": True})
    assert (streamed.status_code, streamed.json()["error_type"]) == (422, "validation")


def test_an_error_inside_a_stream_and_a_full_queue():
    with running(max_queue_len=1) as (url, _):
        client = InferenceClient(url)
        with httpx.stream("POST", url + "/", json={"inputs": "<slow>", "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            busy = post(url, "/generate", inputs="a")
        assert (busy.status_code, busy.json()["error_type"]) == (429, "overloaded")
        time.sleep(0.3)
        with pytest.raises(GenerationError, match="engine stopped"):
            list(client.text_generation("<raise>", stream=True, max_new_tokens=2))


def test_a_prompt_is_cut_when_asked(url):
    body = {"max_new_tokens": 2, "truncate": 3, "details": True, "decoder_input_details": True}
    answer = post(url, "/generate", inputs="abcdef", parameters=body).json()
    assert (answer["generated_text"], len(answer["details"]["prefill"])) == ("de", 3)


def test_a_client_that_leaves_frees_the_engine(url):
    body = {"inputs": "<slow>", "parameters": {"max_new_tokens": 1000}}
    with httpx.stream("POST", url + "/generate_stream", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
    until_running(url, 0)


def test_info(url):
    info = httpx.get(url + "/info").json()
    assert (info["model_id"], info["max_total_tokens"], info["max_input_tokens"]) == ("mock/model", 4096, 4095)


def test_tokens_in_every_dialects_shape(url):
    tgi = post(url, "/tokenize", inputs="aé").json()
    assert [(token["id"], token["start"], token["stop"]) for token in tgi] == [(97, 0, 1), (195, 1, 1), (169, 1, 2)]
    assert post(url, "/tokenize", prompt="aé").json()["tokens"] == [97, 195, 169]
    chat = post(url, "/chat_tokenize", messages=[{"role": "user", "content": "ab"}]).json()
    assert chat["templated_text"] == "<bos>ab"
    assert [token["text"] for token in chat["tokenize_response"]] == ["<bos>", "a", "b"]


def test_sagemaker_goes_by_the_shape_of_the_body(url):
    chat = [{"role": "user", "content": "abc"}]
    assert post(url, "/invocations", inputs="abc", parameters={"max_new_tokens": 3}).json() == [
        {"generated_text": "abc"}
    ]
    assert post(url, "/invocations", messages=chat, max_tokens=3).json()["choices"][0]["message"]["content"] == "abc"
    assert post(url, "/invocations", prompt="abc", max_tokens=3).json()["choices"][0]["text"] == "abc"
    wrong = post(url, "/invocations", text="abc")
    assert (wrong.status_code, wrong.json()["error_type"]) == (422, "validation")


def test_vertex_predicts_every_instance(url):
    chat = {"messages": [{"role": "user", "content": "xyz"}], "max_tokens": 3}
    instances = [{"inputs": "abc"}, chat, {"inputs": "d", "parameters": {"max_new_tokens": 1}}]
    answer = post(url, "/vertex", instances=instances, parameters={"max_new_tokens": 4})
    assert answer.json() == {"predictions": ["abca", "xyz", "d"]}
    assert post(url, "/vertex", instances=[]).status_code == 422


def test_a_key_guards_the_route_of_the_root():
    with running(api_keys=["right"]) as (url, _):
        body = {"inputs": "ab", "parameters": {"max_new_tokens": 1}}
        assert httpx.post(url + "/", json=body).status_code == 401
        assert InferenceClient(url, token="right").text_generation("ab", max_new_tokens=1) == "a"


class TestTextGeneration:
    """The older client. It asks for a huggingface_hub of its own: pip install --no-deps text-generation."""

    def test_whole_and_stream(self, url):
        client = pytest.importorskip("text_generation").Client(url)
        whole = client.generate("abc", max_new_tokens=4, decoder_input_details=True, stop_sequences=["zz"])
        assert (whole.generated_text, whole.details.finish_reason.value) == ("abca", "length")
        events = list(client.generate_stream("abc", max_new_tokens=4))
        assert "".join(event.token.text for event in events) == events[-1].generated_text == "abca"

    def test_errors_are_typed(self, url):
        errors = pytest.importorskip("text_generation.errors")
        client = pytest.importorskip("text_generation").Client(url)
        with pytest.raises(errors.ValidationError, match="4096"):
            client.generate("x" * 5000)
        with pytest.raises(errors.ValidationError, match="best_of"):
            client.generate("x", best_of=2, do_sample=True)


class TestRealModel:
    def test_stream_is_whole_and_seeded(self, smollm2_url):
        client = InferenceClient(smollm2_url)
        options = {"max_new_tokens": 12, "do_sample": True, "temperature": 0.9, "seed": 3}
        whole = client.text_generation("The sea is", **options)
        assert "".join(client.text_generation("The sea is", stream=True, **options)) == whole
        events = list(client.text_generation("The sea is", stream=True, details=True, **options))
        assert events[-1].generated_text == whole

    @pytest.mark.parametrize(
        "grammar", [{"type": "json", "value": PERSON}, {"type": "json_schema", "value": {"schema": PERSON}}]
    )
    def test_a_schema_holds(self, smollm2_url, grammar):
        client = InferenceClient(smollm2_url)
        text = client.text_generation(
            "Ada is 36. As JSON: ", grammar=grammar, max_new_tokens=80, do_sample=True, seed=1
        )
        jsonschema.validate(json.loads(text), PERSON)

    def test_a_regex_holds(self, smollm2_url):
        answer = post(smollm2_url, "/generate", inputs="A year: ", parameters={
            "grammar": {"type": "regex", "value": "[0-9]{4}"}, "max_new_tokens": 20, "details": True})  # fmt: skip
        assert answer.json()["generated_text"].isdecimal()
        assert answer.json()["details"]["finish_reason"] == "eos_token"
        assert answer.json()["details"]["tokens"][-1]["special"]

    def test_a_bad_grammar_is_named(self, smollm2_url):
        parameters = {"grammar": {"type": "regex", "value": "("}}
        answer = post(smollm2_url, "/generate", inputs="a", parameters=parameters)
        assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")
        assert "grammar" in answer.json()["error"]

    def test_characters_of_tokens(self, smollm2_url):
        text = "Der Fluß fließt 😀 langsam."
        tokens = post(smollm2_url, "/tokenize", inputs=text).json()
        assert tokens[0]["start"] == 0
        assert tokens[-1]["stop"] == len(text)
        assert all(one["stop"] == after["start"] for one, after in pairwise(tokens))
