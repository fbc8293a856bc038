"""The real ollama client. The mock engine answers with the prompt over and over."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import jsonschema
import ollama
import pytest

from support.models import local_model_path
from support.schemas import PERSON
from support.server import running
from support.waiting import until_running

MODEL = "mock/model"
HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(url: str) -> ollama.Client:
    return ollama.Client(host=url)


def test_a_chat(client):
    answer = client.chat(model=MODEL, messages=HELLO, options={"num_predict": 7})
    assert (answer.model, answer.message.role, answer.message.content) == (MODEL, "assistant", "hellohe")
    assert (answer.done, answer.done_reason) == (True, "length")
    assert (answer.prompt_eval_count, answer.eval_count) == (6, 7)
    assert 0 < answer.eval_duration <= answer.total_duration < 10e9
    assert 0 <= answer.load_duration <= answer.total_duration


def test_a_stream_is_the_whole(client):
    options = {"model": MODEL, "messages": [{"role": "user", "content": "aé€😀"}], "options": {"num_predict": 9}}
    whole = client.chat(**options)
    chunks = list(client.chat(**options, stream=True))
    assert "".join(chunk.message.content for chunk in chunks) == whole.message.content == "aé€\ufffd"
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    last = chunks[-1]
    assert (last.done_reason, last.eval_count) == (whole.done_reason, whole.eval_count)


def test_streams_are_lines_and_the_default(url):
    answer = httpx.post(url + "/api/chat", json={"model": MODEL, "messages": HELLO, "options": {"num_predict": 3}})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["message"]["content"] for line in lines] == ["h", "e", "l", ""]


def test_stop_and_seed_and_unknown_options(url):
    options = {"num_predict": 50, "stop": ["oh"], "seed": 7, "num_gpu": 1, "mirostat": 0, "colour": "red"}
    body = {"model": MODEL, "messages": HELLO, "options": options, "stream": False}
    answer = httpx.post(url + "/api/chat", json=body).json()
    assert (answer["message"]["content"], answer["done_reason"]) == ("hell", "stop")
    assert answer["warnings"] == ["unknown option 'colour' was ignored"]


def test_generate(client):
    answer = client.generate(model=MODEL, prompt="abc", system="xy", options={"num_predict": 5})
    assert (answer.response, answer.done_reason) == ("xyabc", "length")  # the mock's template joins the messages
    assert answer.context == [256, *b"xyabc", *b"xyabc"]
    again = client.generate(model=MODEL, prompt="d", context=[97, 98], raw=False, options={"num_predict": 4})
    assert again.prompt_eval_count == 2 + len(b"d") + 1
    assert again.context[:2] == [97, 98]


def test_raw_text_has_no_template(client):
    answer = client.generate(model=MODEL, prompt="ab", raw=True, options={"num_predict": 3})
    assert (answer.response, answer.prompt_eval_count, answer.context) == ("aba", 2, None)


def test_logprobs(client):
    answer = client.generate(
        model=MODEL, prompt="ab", raw=True, logprobs=True, top_logprobs=2, options={"num_predict": 2}
    )
    assert [(one.token, one.logprob) for one in answer.logprobs] == [("a", -0.5), ("b", -0.5)]
    assert [top.token for top in answer.logprobs[0].top_logprobs] == ["a", "b"]


def test_without_a_prompt_the_model_is_loaded_and_unloaded():
    with running() as (url, _):
        client = ollama.Client(host=url)
        assert client.generate(model=MODEL).done_reason == "load"
        assert client.chat(model=MODEL, messages=[]).done_reason == "load"
        assert [model.model for model in client.ps().models] == [MODEL]
        assert client.generate(model=MODEL, keep_alive=0).done_reason == "unload"
        assert client.ps().models == []
        answer = client.chat(model=MODEL, messages=HELLO, keep_alive="10m", options={"num_predict": 2})
        assert answer.message.content == "he"  # it was loaded again
        expires = client.ps().models[0].expires_at.timestamp()
        assert 500 < expires - time.time() < 700


def test_models(client):
    listed = client.list().models
    assert [model.model for model in listed] == [MODEL, "model"]
    assert len(listed[0].digest) == 64
    shown = client.show(MODEL)
    assert "completion" in shown.capabilities
    assert any(name.endswith(".context_length") for name in shown.modelinfo)
    assert "top_k" in shown.parameters
    assert client.ps().models[0].context_length == 4096
    assert client.chat(model="model:latest", messages=HELLO, options={"num_predict": 1}).message.content == "h"


def test_a_call_of_a_tool_has_an_object_of_arguments(agent_url):
    client = ollama.Client(host=agent_url)
    said = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    messages = [{"role": "user", "content": said}]
    options = {"num_predict": len(said.encode())}
    whole = client.chat(model=MODEL, messages=messages, tools=[WEATHER], options=options)
    chunks = list(client.chat(model=MODEL, messages=messages, tools=[WEATHER], options=options, stream=True))
    streamed = [call for chunk in chunks for call in chunk.message.tool_calls or ()]
    for calls in (whole.message.tool_calls, streamed):
        assert [(call.function.name, call.function.arguments) for call in calls] == [("get_weather", {"city": "Paris"})]
    assert "tool_call" not in whole.message.content
    assert "tools" in client.show(MODEL).capabilities


def test_thinking_is_apart(agent_url):
    client = ollama.Client(host=agent_url)
    said = "<think>two and two</think>four"
    options = {"num_predict": len(said)}
    answer = client.chat(model=MODEL, messages=[{"role": "user", "content": said}], think=True, options=options)
    assert (answer.message.thinking, answer.message.content) == ("two and two", "four")


def test_history_with_calls_is_read(agent_url):
    client = ollama.Client(host=agent_url)
    call = {"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    messages = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_weather", "content": "sunny"},
    ]
    answer = client.chat(model=MODEL, messages=messages, tools=[WEATHER], options={"num_predict": 5})
    assert answer.message.content == "sunny"


BAD = [
    ({"model": "none"}, 404, "none"),
    ({"options": {"temperature": -1}}, 400, "temperature"),
    ({"options": {"num_predict": 0}}, 400, "num_predict"),
    ({"options": {"repeat_penalty": 0}}, 400, "repeat_penalty"),
    ({"options": {"num_ctx": 5000}}, 400, "num_ctx"),
    ({"options": {"mirostat": 2}}, 400, "mirostat"),
    ({"options": {"stop": 3}}, 400, "stop"),
    ({"keep_alive": "5 minutes"}, 400, "keep_alive"),
    ({"format": "yaml"}, 400, "format"),
    ({"think": "hard"}, 400, "think"),
    ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, 400, "images"),
    ({"messages": [{"role": "robot", "content": "x"}]}, 400, "role"),
    ({"messages": [{"role": "user", "content": "x" * 5000}]}, 400, "4096"),
    ({"tools": [{"type": "function", "function": {}}]}, 400, "tools"),
    ({"shift": True}, 400, "shift"),
    ({"top_logprobs": 2}, 400, "logprobs"),
]


@pytest.mark.parametrize(("change", "status", "named"), BAD)
def test_errors_name_the_field(url, change, status, named):
    answer = httpx.post(url + "/api/chat", json={"model": MODEL, "messages": HELLO, **change})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert named in answer.json()["error"]


def test_errors_are_those_of_the_client(client):
    with pytest.raises(ollama.ResponseError, match="none") as caught:
        client.chat(model="none", messages=HELLO)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="makes text"):
        client.embed(model=MODEL, input="text")
    with pytest.raises(ollama.ResponseError, match="fill in the middle"):
        client.generate(model=MODEL, prompt="a", suffix="b")
    with pytest.raises(ollama.ResponseError) as caught:
        client.delete(MODEL)
    assert caught.value.status_code == 501


def test_an_error_inside_a_stream():
    with running() as (url, _):
        stream = ollama.Client(host=url).generate(model=MODEL, prompt="<raise>", raw=True, stream=True)
        with pytest.raises(ollama.ResponseError, match="engine stopped"):
            list(stream)


def test_a_prompt_is_cut_only_when_asked(url):
    body = {"model": MODEL, "stream": False, "prompt": "x" * 5000 + "yz", "raw": True, "options": {"num_predict": 2}}
    assert httpx.post(url + "/api/generate", json=body).status_code == 400
    cut = httpx.post(url + "/api/generate", json={**body, "truncate": True}).json()
    assert cut["prompt_eval_count"] == 4094
    assert "truncate" in cut["warnings"][0]


def test_a_client_that_leaves_frees_the_engine(url):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "<slow>"}]}
    with httpx.stream("POST", url + "/api/chat", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
    until_running(url, 0)


def test_the_root_tells_clients_and_shows_browsers_the_page(url):
    assert httpx.get(url).text == "Ollama is running"
    assert httpx.head(url).status_code == 200
    page = httpx.get(url, headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")


def test_pulling_nothing_known(client):
    with pytest.raises(ollama.ResponseError, match="no model 'nothing'"):
        list(client.pull("nothing", stream=True))
    for name in ("/etc/passwd", "--help", "../x", "org/name"):
        with pytest.raises(ollama.ResponseError, match="model must be"):
            client.pull(name)


def test_curl_needs_no_content_type_but_pages_do(url):
    body = json.dumps({"model": MODEL, "prompt": "a", "raw": True, "options": {"num_predict": 1}})
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert httpx.post(url + "/api/generate", content=body, headers=form).status_code == 200
    for page in ({"origin": "http://elsewhere.example"}, {"sec-fetch-site": "cross-site"}):
        assert httpx.post(url + "/api/generate", content=body, headers=form | page).status_code == 415


@pytest.fixture(scope="module")
def minilm() -> Iterator[ollama.Client]:
    path = local_model_path("minilm")
    with running(models=[str(path)], model_aliases=[("minilm", path.name)], worker_factory="") as (url, _):
        yield ollama.Client(host=url)


class TestVectors:
    def test_one_for_each_text(self, minilm):
        answer = minilm.embed(model="minilm", input=["a cat", "a dog"])
        assert [len(vector) for vector in answer.embeddings] == [384, 384]
        assert answer.prompt_eval_count == 8
        assert minilm.embeddings(model="minilm", prompt="a cat").embedding == answer.embeddings[0]
        assert minilm.embed(model="minilm", input=[]).embeddings == []
        assert minilm.show("minilm").capabilities == ["embedding"]

    def test_long_texts_are_cut_only_when_asked(self, minilm):
        with pytest.raises(ollama.ResponseError, match="256") as caught:
            minilm.embed(model="minilm", input="x " * 3000)
        assert caught.value.status_code == 400
        assert minilm.embed(model="minilm", input="x " * 3000, truncate=True).prompt_eval_count == 256

    def test_shorter_vectors(self, minilm):
        assert len(minilm.embed(model="minilm", input="x", dimensions=64).embeddings[0]) == 64


class TestRealModel:
    def test_chat_and_stream(self, smollm2_url):
        client = ollama.Client(host=smollm2_url)
        options = {"num_predict": 12, "temperature": 0}
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        whole = client.chat(model="smollm2", messages=messages, options=options)
        assert (whole.eval_count, whole.done_reason) == (12, "length")
        chunks = client.chat(model="smollm2", messages=messages, options=options, stream=True)
        assert "".join(chunk.message.content for chunk in chunks) == whole.message.content

    def test_a_conversation_goes_on_from_its_ids(self, smollm2_url):
        client = ollama.Client(host=smollm2_url)
        options = {"num_predict": 12, "temperature": 0}
        first = client.generate(model="smollm2", prompt="My name is Ada.", options=options)
        second = client.generate(model="smollm2", prompt="What is my name?", context=first.context, options=options)
        assert list(second.context[: len(first.context)]) == list(first.context)
        assert second.prompt_eval_count > len(first.context)

    def test_a_schema_holds(self, smollm2_url):
        client = ollama.Client(host=smollm2_url)
        messages = [{"role": "user", "content": "Ada is 36 years old. Tell me about her as JSON."}]
        answer = client.chat(model="smollm2", messages=messages, format=PERSON, options={"num_predict": 80, "seed": 1})
        assert answer.done_reason == "stop"
        jsonschema.validate(json.loads(answer.message.content), PERSON)

    def test_a_bad_schema_is_named(self, smollm2_url):
        with pytest.raises(ollama.ResponseError, match="format") as caught:
            ollama.Client(host=smollm2_url).chat(model="smollm2", messages=HELLO, format={"type": "nonsense"})
        assert caught.value.status_code == 400

    def test_facts_of_the_file(self, smollm2_url):
        shown = ollama.Client(host=smollm2_url).show("smollm2")
        assert (shown.details.family, shown.details.format) == ("llama", "gguf")
        assert shown.details.parameter_size.startswith("134.")
        assert shown.details.quantization_level == "Q4_1"
        assert shown.modelinfo["llama.context_length"] == 8192
        assert "insert" not in shown.capabilities
