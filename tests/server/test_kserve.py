"""KServe's protocol with Triton's own client, over HTTP: tensors both ways, metadata, errors, text."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from onnx import TensorProto
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from support import onnx_models
from support.server import running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    types = {"texts": TensorProto.STRING, "half": TensorProto.FLOAT16, "flags": TensorProto.BOOL}
    onnx_models.repository(folder, **types, floats=TensorProto.FLOAT)
    onnx_models.lookup(folder / "look up.onnx")
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def base(models: list[str]) -> Iterator[str]:
    with running(models=models, worker_factory="", max_body_size=2**20) as (url, _):
        yield url


@pytest.fixture
def client(base: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(base.removeprefix("http://"), concurrency=4) as client:
        yield client


def given(name: str, values: Any, datatype: str, *, binary: bool = True) -> triton.InferInput:
    array = np.asarray(values, triton_to_np_dtype(datatype))
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


X = np.float32([[1, 2, 3], [4, 5, 6]])
Y = X @ (np.arange(6, dtype=np.float32).reshape(3, 2) - 2) + np.float32([0.5, -0.5])


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tensors_go_as_json_or_binary_both_ways(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    outputs = None if binary_out is None else [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer("linear", [given("x", X, "FP32", binary=binary_in)], outputs=outputs, request_id="r 1")
    np.testing.assert_allclose(result.as_numpy("y"), Y)
    assert result.get_response()["id"] == "r 1"
    assert (result.as_numpy("best") is None) == (binary_out is not None)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(client: triton.InferenceServerClient, algorithm: str) -> None:
    x = np.repeat(X, 200, axis=0)
    result = client.infer(
        "linear", [given("x", x, "FP32")], request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )  # fmt: skip
    np.testing.assert_allclose(result.as_numpy("y"), np.repeat(Y, 200, axis=0))


def test_a_large_answer_is_compressed_where_the_client_takes_it(base: str) -> None:
    body = {"inputs": [{"name": "x", "shape": [100, 3], "datatype": "FP32", "data": [1.5] * 300}]}
    answer = httpx.post(f"{base}/v2/models/linear/infer", json=body, headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.json()["outputs"][0]["data"]) == 200
    plain = httpx.post(f"{base}/v2/models/linear/infer", json=body, headers={"accept-encoding": "gzip;q=0"})
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize("binary", [True, False])
def test_texts(client: triton.InferenceServerClient, binary: bool) -> None:
    texts = np.array([["a", "é"], ["", "long" * 100]], object)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer("texts", [given("x", texts, "BYTES", binary=binary)], outputs=outputs)
    decoded = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("y").reshape(-1)]
    assert decoded == texts.reshape(-1).tolist()


def test_half_floats_are_binary_only(client: triton.InferenceServerClient, base: str) -> None:
    x = np.float16([[1, 2]])
    np.testing.assert_array_equal(client.infer("half", [given("x", x, "FP16")]).as_numpy("y"), x)
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP16", "data": [1, 2]}]}
    assert "binary" in httpx.post(f"{base}/v2/models/half/infer", json=body).json()["error"]
    with pytest.raises(InferenceServerException, match="binary_data"):
        client.infer("half", [given("x", x, "FP16")], outputs=[triton.InferRequestedOutput("y", binary_data=False)])


def test_flags_and_what_json_cannot_say(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("y", binary_data=False)]
    flags = [[True, False]]
    assert (
        client.infer("flags", [given("x", flags, "BOOL", binary=False)], outputs=outputs).as_numpy("y").tolist()
        == flags
    )
    nan = given("x", [[np.nan, 1]], "FP32")
    assert np.isnan(client.infer("floats", [nan]).as_numpy("y")[0, 0])
    with pytest.raises(InferenceServerException, match="NaN or infinity"):
        client.infer("floats", [nan], outputs=outputs)


def test_versions(client: triton.InferenceServerClient) -> None:
    x = [given("x", [[1, 0, 0]], "FP32")]
    values = {v: client.infer("scaled", x, model_version=v).as_numpy("y")[0, 0] for v in ("", "1", "2")}
    assert values == {"": -3.5, "1": -1.5, "2": -3.5}
    assert client.infer("scaled", x).get_response()["model_version"] == "2"
    with pytest.raises(InferenceServerException, match="no version '3', only 1, 2") as caught:
        client.infer("scaled", x, model_version="3")
    assert caught.value.status() == "404"


def test_health_and_metadata(client: triton.InferenceServerClient, base: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("scaled", "1")
    assert not client.is_model_ready("scaled", "9")
    assert not client.is_model_ready("nothing")
    assert httpx.get(f"{base}/v2/health/live").content == b""
    server = client.get_server_metadata()
    assert server["name"] == "inferd"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("scaled")
    assert model["versions"] == ["1", "2"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    config = client.get_model_config("linear")
    assert config["max_batch_size"] == 32
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]


def test_names_are_quoted(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("look up")
    result = client.infer("look up", [given("i", [3, 4], "INT64")])
    assert result.as_numpy("y").tolist() == [9, 16]


def test_one_bad_call_fails_alone(client: triton.InferenceServerClient) -> None:
    calls = [client.async_infer("look up", [given("i", [i], "INT64")]) for i in (1, 99, 3, 4)]
    results: list[Any] = []
    for call in calls:
        try:
            results.append(call.get_result().as_numpy("y")[0])
        except InferenceServerException as error:
            results.append(error.status())
    assert results == [1, "400", 9, 16]


def test_statistics_and_metrics_count_calls(client: triton.InferenceServerClient, base: str) -> None:
    def stats() -> dict[str, Any]:
        return client.get_inference_statistics("floats")["model_stats"][0]

    def metric(name: str) -> float:
        lines = httpx.get(f"{base}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and '"floats"' in line)

    client.infer("floats", [given("x", [[1, 2]] * 3, "FP32")])
    before, count, failures = stats(), metric("nv_inference_count"), metric("nv_inference_request_failure")
    client.infer("floats", [given("x", [[1, 2]] * 3, "FP32")])
    with pytest.raises(InferenceServerException):
        client.infer("floats", [given("x", [[1, 2, 3]], "FP32")])
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    success = after["inference_stats"]["success"]
    assert success["count"] - before["inference_stats"]["success"]["count"] == 1
    assert success["ns"] > after["inference_stats"]["compute_infer"]["ns"] > 0
    assert metric("nv_inference_count") - count == 3
    assert metric("nv_inference_request_failure") - failures == 1
    assert metric('inferd:calls_total{model_name="floats",outcome="success"') == success["count"]
    assert metric("inferd:call_request_seconds_count") == success["count"]
    assert len(client.get_inference_statistics()["model_stats"]) > 1
    floats = next(m for m in httpx.get(f"{base}/inferd/state").json()["models"] if m["name"] == "floats")
    assert floats["kind"] == "predict"
    assert floats["calls"]["num_success"] == success["count"]
    assert floats["calls"]["latency"]["request"]["p99"] > 0


def test_the_index_lists_all_models(client: triton.InferenceServerClient, base: str) -> None:
    entries = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert entries["scaled"] == {"name": "scaled", "version": "2", "state": "READY"}
    ready = httpx.post(f"{base}/v2/repository/index", json={"ready": True}).json()
    assert {entry["state"] for entry in ready} == {"READY"}
    assert httpx.post(f"{base}/v2/repository/index", json={"redy": True}).status_code == 400


def test_models_are_unloaded_and_loaded(client: triton.InferenceServerClient) -> None:
    client.unload_model("flags")
    assert not client.is_model_ready("flags")
    entry = next(entry for entry in client.get_model_repository_index() if entry["name"] == "flags")
    assert entry["state"] == "UNAVAILABLE"
    client.load_model("flags")
    assert client.is_model_ready("flags")
    with pytest.raises(InferenceServerException, match="cannot be honoured"):
        client.load_model("flags", config="{}")
    with pytest.raises(InferenceServerException, match="does not exist"):
        client.load_model("nothing")


X_JSON = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": [{**X_JSON, "data": [1, 2]}]}, "input 'x' must hold 3 values"),
        ({"inputs": [{**X_JSON, "data": [[1, 2, 3], [4]]}]}, "input 'x' must hold 3 values"),
        ({"inputs": [{**X_JSON, "data": [[[1], [2], [3]]]}]}, "input 'x' must hold 3 values"),
        ({"inputs": [{**X_JSON, "data": [1, "a", None]}]}, "must hold values of FP32, got NoneType, str"),
        ({"inputs": [{**X_JSON, "data": [1, 2, True]}]}, "got bool"),
        ({"inputs": [{**X_JSON, "data": [1, 2, 1e39]}]}, "beyond the range of FP32"),
        ({"inputs": [{**X_JSON, "datatype": "FP64"}]}, "input 'x' must be FP32, got FP64"),
        ({"inputs": [{**X_JSON, "datatype": "INT8", "data": [1, 2, 300]}]}, "beyond the range of INT8"),
        ({"inputs": [{**X_JSON, "datatype": "INT8", "data": [1, 2, 3.0]}]}, "got float"),
        ({"inputs": [{**X_JSON, "datatype": "FLOAT"}]}, "datatype must be one of"),
        ({"inputs": [{**X_JSON, "shape": [-1, 3]}]}, "sizes from 0"),
        ({"inputs": [{**X_JSON, "shape": [3, 1]}]}, r"must have the shape [-1, 3], got [3, 1]"),
        ({"inputs": [{**X_JSON, "shape": [2**31 - 1] * 16, "data": []}]}, "must hold"),
        ({"inputs": [{**X_JSON, "data": None}]}, "either data or parameters.binary_data_size"),
        ({"inputs": [{**X_JSON, "data": None, "parameters": {"binary_data_size": 12}}]}, "says 12 bytes, fewer"),
        ({"inputs": [{**X_JSON, "parameters": {"shared_memory_region": "r"}}]}, "shared memory is not supported"),
        ({"inputs": [{**X_JSON, "parameters": {"colour": 1}}]}, "'colour' is not a parameter"),
        ({"inputs": [{**X_JSON, "nam": "x"}]}, "inputs[0]: Object contains unknown field `nam`"),
        ({"inputs": [X_JSON, X_JSON]}, "each tensor once"),
        ({"inputs": []}, "input 'x' is missing"),
        ({"inputs": [X_JSON], "outputs": [{"name": "z"}]}, "outputs must be among y, best"),
        ({"inputs": [X_JSON], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "classification"),
        ({"inputs": [X_JSON], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, "true or false"),
        ({"inputs": [X_JSON], "parameters": {"sequence_id": 5}}, "models keep no state"),
        ({"inputs": [X_JSON], "parameters": {"timeout": -1}}, "timeout must be an integer from 1"),
        ({"inputs": [X_JSON], "parameters": {"priority": 1.5}}, "priority must be an integer"),
        ({"inputs": [X_JSON], "parameters": {"other": 1}}, "'other' is not a parameter"),
        ({"input": [X_JSON]}, "unknown field `input`"),
        ({"inputs": 3}, "inputs: Expected `array`"),
        ({}, "missing required field `inputs`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_a_plain_text(base: str, change: dict[str, Any], message: str) -> None:
    answer = httpx.post(f"{base}/v2/models/linear/infer", json=change)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_body_that_is_no_json_or_too_large(base: str) -> None:
    url = f"{base}/v2/models/linear/infer"
    assert httpx.post(url, content=b"{").json()["error"] == "the body is not valid JSON"
    assert httpx.post(url, content=b"[" * 100_000).status_code == 400
    assert httpx.post(url, content=bytes(2**20 + 1)).status_code == 413
    bomb = gzip.compress(bytes(2**21))
    assert httpx.post(url, content=bomb, headers={"content-encoding": "gzip"}).status_code == 413
    for data in (b"no gzip", gzip.compress(b"{}")[:-4], gzip.compress(b"{}") + b"more"):
        assert httpx.post(url, content=data, headers={"content-encoding": "gzip"}).status_code == 400
    assert httpx.post(url, content=zlib.compress(b"{}"), headers={"content-encoding": "br"}).status_code == 415
    for length in ("-1", "999", "x", "2" * 50):
        assert httpx.post(url, content=b"{}", headers={"inference-header-content-length": length}).status_code == 400


def test_other_errors_are_plain_texts_too(base: str, client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="does not exist") as caught:
        client.get_model_metadata("nothing")
    assert caught.value.status() == "404"
    for path in ("/v2/nothing", "/v2/models/linear/nothing"):
        answer = httpx.get(base + path)
        assert answer.status_code == 404
        assert isinstance(answer.json()["error"], str)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.register_system_shared_memory("r", "/r", 8)
    body = {"model": "linear", "messages": [{"role": "user", "content": "hi"}]}
    refused = httpx.post(f"{base}/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert "predictive" in refused.json()["error"]["message"]


def test_a_key_is_needed_where_there_is_one(models: list[str]) -> None:
    with running(models=models[:1], worker_factory="", api_keys=["secret"]) as (url, _):
        name = Path(models[0]).stem
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            with pytest.raises(InferenceServerException, match="key"):
                client.get_model_metadata(name)
            assert client.get_model_metadata(name, headers={"authorization": "Bearer secret"})["name"] == name


def test_text_generation(url: str) -> None:
    route = f"{url}/v2/models/mock%2Fmodel"
    body = {"id": "7", "text_input": "abc", "parameters": {"max_tokens": 5, "temperature": 0}}
    answer = httpx.post(f"{route}/generate", json=body).json()
    assert answer == {"id": "7", "model_name": "mock/model", "model_version": "1", "text_output": "abcab"}
    beside = {"text_input": "abc", "max_tokens": 4, "stop_words": ["b"], "exclude_input_in_output": False}
    assert httpx.post(f"{route}/generate", json=beside).json()["text_output"] == "abca"
    with httpx.stream("POST", f"{route}/generate_stream", json={**body, "stream": True}) as stream:
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert "".join(event["text_output"] for event in events) == "abcab"
    assert {event["id"] for event in events} == {"7"}
    assert httpx.get(route).json()["platform"] == "inferd_generate"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text_input": 3}, "text_input must be a text"),
        ({}, "text_input must be a text"),
        ({"text_input": "a", "parameters": []}, "parameters must be an object"),
        ({"text_input": "a", "temprature": 1}, "'temprature' is not a parameter"),
        ({"text_input": "a", "stream": True}, "ask /generate_stream"),
        ({"text_input": "a", "temperature": -1}, "temperature must be"),
        ({"text_input": "a", "n": 2}, "'n' is not a parameter"),
    ],
)
def test_text_generation_refuses_by_name(url: str, body: dict[str, Any], message: str) -> None:
    answer = httpx.post(f"{url}/v2/models/mock%2Fmodel/generate", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
