"""Files and batches with the real openai client, on the mock engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from support.server import running

MODEL = "mock/model"
CHAT = "/v1/chat/completions"


def line(custom_id: str, content: str = "ab", url: str = CHAT, **fields: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 4, **fields}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(lines: list[Any]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


def client_of(url: str, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1/", api_key=key, max_retries=0)


def create(client: openai.OpenAI, data: bytes, endpoint: str = CHAT, **fields: Any) -> Any:
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    return client.batches.create(
        **{"input_file_id": file.id, "endpoint": endpoint, "completion_window": "24h", **fields}
    )


def ended(client: openai.OpenAI, batch: Any, seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < deadline, f"still {batch.status}"
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def results(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    """By custom_id, each once."""
    if file_id is None:
        return {}
    lines = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    found = {one["custom_id"]: one for one in lines}
    assert len(found) == len(lines)
    return found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(batch_dir=str(tmp_path_factory.mktemp("batches")), max_body_size=20_000) as (url, _):
        yield url


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return client_of(url)


def test_a_batch_is_answered_line_by_line(client):
    texts = {f"id-{i}": f"text {i}" for i in range(300)}
    batch = create(client, jsonl([line(name, text) for name, text in texts.items()]), metadata={"what": "test"})
    assert batch.status in ("validating", "in_progress")
    assert batch.expires_at == batch.created_at + 86400
    batch = ended(client, batch)
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    assert batch.metadata == {"what": "test"}
    assert batch.request_counts.model_dump() == {"total": 300, "completed": 300, "failed": 0}
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    output = results(client, batch.output_file_id)
    assert output.keys() == texts.keys()
    for name, one in output.items():
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
        assert one["response"]["body"]["choices"][0]["message"]["content"] == texts[name][:4]
    file = client.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert file.bytes == len(client.files.content(file.id).content)


def test_other_endpoints(client):
    body = {"model": MODEL, "prompt": "xy", "max_tokens": 3}
    lines = [{"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}]
    batch = ended(client, create(client, jsonl(lines), "/v1/completions"))
    assert results(client, batch.output_file_id)["1"]["response"]["body"]["choices"][0]["text"] == "xyx"
    body = {"model": MODEL, "input": "xy", "max_output_tokens": 3}
    lines = [{"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": body}]
    batch = ended(client, create(client, jsonl(lines), "/v1/responses"))
    assert results(client, batch.output_file_id)["1"]["response"]["body"]["object"] == "response"


def test_what_a_line_asks_for_wrongly_is_in_the_error_file(client):
    lines = [
        line("good"),
        line("no such model", model="other"),
        line("bad value", temperature=-1),
        line("streamed", stream=True),
        line("large", content="x" * 30_000),
        line("long", content="x" * 5_000),
    ]
    batch = ended(client, create(client, jsonl(lines)))
    assert batch.request_counts.model_dump() == {"total": 6, "completed": 1, "failed": 5}
    assert results(client, batch.output_file_id).keys() == {"good"}
    told = {
        name: (one["response"]["status_code"], one["response"]["body"]["error"]["param"])
        for name, one in results(client, batch.error_file_id).items()
    }
    assert told == {
        "no such model": (404, "model"),
        "bad value": (400, "temperature"),
        "streamed": (400, "stream"),
        "large": (413, None),
        "long": (400, "messages"),
    }


def test_lines_that_are_no_requests_fail_the_batch_with_their_numbers(client):
    good = json.dumps(line("a")).encode()
    data = b"\n".join([
        good, b"", b"{", b"[1]", good, json.dumps(line("b", url="/v1/completions")).encode(),
        json.dumps({**line("c"), "method": "GET"}).encode(), json.dumps({**line("d"), "body": 3}).encode(),
        json.dumps({**line("e"), "custom_id": ""}).encode(), json.dumps({**line("f"), "extra": 1}).encode(), b"\xff",
    ])  # fmt: skip
    batch = ended(client, create(client, data))
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert batch.failed_at
    assert [(error.line, error.code, error.param) for error in batch.errors.data] == [
        (3, "invalid_json_line", None), (4, "invalid_json_line", None), (5, "duplicate_custom_id", "custom_id"),
        (6, "mismatched_endpoint", "url"), (7, "invalid_method", "method"), (8, "missing_required_parameter", "body"),
        (9, "missing_required_parameter", "custom_id"), (10, "unknown_parameter", "extra"),
        (11, "invalid_json_line", None),
    ]  # fmt: skip
    assert "line 1" in batch.errors.data[2].message
    empty = ended(client, create(client, b"\n\n"))
    assert [error.code for error in empty.errors.data] == ["empty_file"]
    many = ended(client, create(client, b"{\n" * 150))
    assert len(many.errors.data) == 101
    assert many.errors.data[-1].message == "50 more lines have errors."


def test_cancel(client):
    batch = create(client, jsonl([line(f"{i}", "<slow>", max_tokens=1 if i < 3 else 4000) for i in range(200)]))
    while client.batches.retrieve(batch.id).request_counts.completed < 3:
        time.sleep(0.05)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = ended(client, batch)
    assert batch.status == "cancelled"
    assert batch.cancelling_at <= batch.cancelled_at
    done, lost = results(client, batch.output_file_id), results(client, batch.error_file_id)
    assert done.keys() == {"0", "1", "2"}
    assert done.keys() | lost.keys() == {f"{i}" for i in range(200)}
    assert lost["7"]["error"]["code"] == "batch_cancelled"
    assert lost["7"]["response"] is None
    assert client.batches.cancel(batch.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(ended(client, create(client, jsonl([line("a")]))).id)


def test_expiry(client):
    batch = create(client, jsonl([line(f"{i}", "<slow>", max_tokens=4000) for i in range(5)]), completion_window="1s")
    batch = ended(client, batch)
    assert batch.status == "expired"
    assert batch.expired_at >= batch.expires_at
    lost = results(client, batch.error_file_id)
    assert {one["error"]["code"] for one in lost.values()} == {"batch_expired"}
    assert len(lost) == 5


def test_files_and_lists(client, url):
    batches = [create(client, jsonl([line(f"{i}")])) for i in range(5)]
    files = [batch.input_file_id for batch in batches]
    for batch in batches:
        ended(client, batch)
    assert {batch.id for batch in batches} <= {batch.id for batch in client.batches.list(limit=2)}  # page by page
    assert set(files) <= {file.id for file in client.files.list(purpose="batch")}
    assert client.files.list(purpose="batch", limit=1).has_more
    assert client.files.retrieve(files[0]).filename == "in.jsonl"
    assert client.files.delete(files[0]).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(files[0])
    running_batch = create(client, jsonl([line("1", "<slow>", max_tokens=4000)]))
    with pytest.raises(openai.BadRequestError, match="has not ended"):
        client.files.delete(running_batch.input_file_id)
    client.batches.cancel(running_batch.id)
    ended(client, running_batch)
    assert httpx.get(url + "/v1/files/file-none/content").status_code == 404


def test_what_is_refused(client, url):
    def message(call: Any, **fields: Any) -> str:
        with pytest.raises(openai.APIStatusError) as caught:
            call(**fields)
        return str(caught.value)

    assert "purpose must be" in message(client.files.create, file=b"{}", purpose="fine-tune")
    assert "expires_after" in message(
        client.files.create, file=b"{}", purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    file = client.files.create(file=b"{}", purpose="batch")
    good = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    for name, value in (
        ("endpoint", "/v1/models"), ("completion_window", "31d"), ("completion_window", "soon"),
        ("metadata", {str(i): "" for i in range(17)}), ("input_file_id", "file-none"),
        ("output_expires_after", {"anchor": "created_at", "seconds": 3600}),
    ):  # fmt: skip
        assert name.split("_")[-1].removesuffix("id") in message(client.batches.create, **{**good, name: value})
    assert httpx.post(url + "/v1/files", json={}).status_code == 415
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert httpx.post(url + "/v1/files", content=b"nonsense", headers=form).status_code == 400
    assert httpx.post(url + "/v1/files", data={"purpose": "batch"}, files={"other": b""}).status_code == 400
    assert httpx.get(url + "/v1/batches?limit=1000").status_code == 400


def test_a_key_sees_only_its_own(tmp_path):
    with running(batch_dir=str(tmp_path), api_keys=["a", "b"]) as (url, _):
        one, other = client_of(url, "a"), client_of(url, "b")
        batch = ended(one, create(one, jsonl([line("1")])))
        for file_id in (batch.input_file_id, batch.output_file_id):
            for call in (other.files.retrieve, other.files.content, other.files.delete):
                with pytest.raises(openai.NotFoundError):
                    call(file_id)
        for call in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                call(batch.id)
        with pytest.raises(openai.NotFoundError):
            other.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")
        assert list(other.batches.list()) == list(other.files.list()) == []


def test_a_restart_goes_on_and_a_second_server_keeps_out(tmp_path):
    with running(batch_dir=str(tmp_path)) as (url, process):
        client = client_of(url)
        batch = create(client, jsonl([line(f"{i}", "<pace>", max_tokens=200) for i in range(200)]))
        while client.batches.retrieve(batch.id).request_counts.completed < 64:
            time.sleep(0.05)
        with running(batch_dir=str(tmp_path)) as (second, _):
            assert httpx.get(second + "/v1/batches").status_code == 503
        process.terminate()  # does not wait for the batch
        assert process.wait(5) == 0
    with running(batch_dir=str(tmp_path)) as (url, _):
        batch = ended(client_of(url), batch)
        assert len(results(client_of(url), batch.output_file_id)) == 200
