"""KServe's protocol over gRPC with Triton's own client: the same calls, keys and limits as over HTTP."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from support import onnx_models
from support.server import free_port, running

X = np.float32([[1, 2, 3], [4, 5, 6]])
CLASSES = triton.InferRequestedOutput("y", class_count=1)
Y = X @ (np.arange(6, dtype=np.float32).reshape(3, 2) - 2) + np.float32([0.5, -0.5])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.repository(folder, texts=TensorProto.STRING, small=TensorProto.INT8)
    onnx_models.slow(folder / "slow.onnx")
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def address(models: list[str]) -> Iterator[str]:
    port = free_port()
    with running(models=models, worker_factory="", grpc_port=port, max_body_size=2**20):
        yield f"127.0.0.1:{port}"


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def given(name: str, values: Any, datatype: str) -> triton.InferInput:
    array = np.asarray(values, triton_to_np_dtype(datatype))
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def test_inference(client: triton.InferenceServerClient) -> None:
    result = client.infer("linear", [given("x", X, "FP32")], request_id="7")
    np.testing.assert_allclose(result.as_numpy("y"), Y)
    assert result.as_numpy("best").dtype == np.int64
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", "linear", "1")
    only = client.infer("linear", [given("x", X, "FP32")], outputs=[triton.InferRequestedOutput("best")])
    assert only.as_numpy("y") is None
    texts = client.infer("texts", [given("x", [[b"a", b"\xc3\xa9"]], "BYTES")]).as_numpy("y")
    assert texts.tolist() == [[b"a", b"\xc3\xa9"]]
    assert client.infer("scaled", [given("x", [[1, 0, 0]], "FP32")], model_version="1").as_numpy("y")[0, 0] == -1.5


def test_values_may_come_one_by_one(address: str) -> None:
    """Not every client packs tensors: the messages have a field for values of each type."""
    import grpc

    request = service_pb2.ModelInferRequest(model_name="small")
    tensor = request.inputs.add(name="x", datatype="INT8", shape=[1, 2])
    tensor.contents.int_contents.extend([-3, 4])
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        assert ask(request).raw_output_contents[0] == b"\xfd\x04"
        tensor.contents.int_contents[0] = 300
        with pytest.raises(grpc.RpcError, match="beyond the range of INT8"):
            ask(request)
        tensor.ClearField("contents")
        tensor.contents.fp32_contents.extend([1, 2])
        with pytest.raises(grpc.RpcError, match="must be in int_contents, got fp32_contents"):
            ask(request)
        request.raw_input_contents.extend([b"ab", b"cd"])
        with pytest.raises(grpc.RpcError, match="must hold 1 tensors, got 2"):
            ask(request)


def test_health_metadata_and_statistics(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata().name == "inferd"
    metadata = client.get_model_metadata("scaled")
    assert list(metadata.versions) == ["1", "2"]
    assert list(metadata.inputs[0].shape) == [-1, 3]
    config = client.get_model_config("linear").config
    assert (config.max_batch_size, config.input[0].data_type, list(config.input[0].dims)) == (32, 11, [3])
    client.infer("linear", [given("x", X, "FP32")])
    statistics = client.get_inference_statistics("linear").model_stats[0]
    assert statistics.inference_count >= 2
    assert statistics.inference_stats.success.ns > 0
    assert len(client.get_inference_statistics().model_stats) == 5
    assert {entry.state for entry in client.get_model_repository_index().models} == {"READY"}


def test_models_are_unloaded_and_loaded(client: triton.InferenceServerClient) -> None:
    client.unload_model("texts")
    assert not client.is_model_ready("texts")
    client.load_model("texts")
    assert client.is_model_ready("texts")
    with pytest.raises(InferenceServerException, match="cannot be honoured"):
        client.load_model("texts", config="{}")


def test_a_stream_answers_each_request_in_order(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error if error is not None else result))
    for number in range(5):
        client.async_stream_infer("linear", [given("x", np.full((1, 3), number), "FP32")], request_id=str(number))
    client.async_stream_infer("linear", [given("x", [[1, 2]], "FP32")])
    client.async_stream_infer("linear", [given("x", X, "FP32")], request_id="last")
    got = [answers.get(timeout=20) for _ in range(7)]
    client.stop_stream()
    ids = [one.get_response().id if hasattr(one, "get_response") else str(one) for one in got]
    assert [*ids[:5], ids[6]] == ["0", "1", "2", "3", "4", "last"]
    assert "must have the shape" in ids[5]


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (lambda c: c.infer("nothing", [given("x", X, "FP32")]), "NOT_FOUND", "does not exist"),
        (lambda c: c.infer("linear", [given("x", X, "FP32")], model_version="9"), "NOT_FOUND", "no version '9'"),
        (lambda c: c.infer("linear", [given("x", [[1]], "FP32")]), "INVALID_ARGUMENT", "must have the shape"),
        (lambda c: c.infer("linear", [given("x", X, "FP32")], sequence_id=3), "INVALID_ARGUMENT", "keep no state"),
        (lambda c: c.infer("linear", [given("x", X, "FP32")], outputs=[CLASSES]), "INVALID_ARGUMENT", "classification"),
        (lambda c: c.infer("linear", [given("x", np.zeros((10**5, 3)), "FP32")]), "RESOURCE_EXHAUSTED", ""),
        (lambda c: c.register_system_shared_memory("r", "/r", 8), "UNIMPLEMENTED", ""),
    ],
)  # fmt: skip
def test_errors_have_their_codes(client: triton.InferenceServerClient, call: Any, code: str, message: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        call(client)
    assert caught.value.status() == f"StatusCode.{code}"
    assert message in caught.value.message()


def test_a_deadline_ends_the_call_and_takes_it_out_of_the_queue(client: triton.InferenceServerClient) -> None:
    slow = [given("x", np.ones((200, 1100)), "FP32")]
    with pytest.raises(InferenceServerException) as caught:
        client.infer("slow", slow, client_timeout=0.01)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert client.infer("slow", [given("x", np.ones((1, 1100)), "FP32")]).as_numpy("y").shape == (1, 1100)


def test_a_key_is_needed_where_there_is_one(models: list[str]) -> None:
    port, name = free_port(), Path(models[0]).stem
    server = running(models=models[:1], worker_factory="", grpc_port=port, api_keys=["secret"])
    with server, triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(InferenceServerException, match="key") as caught:
            client.get_model_metadata(name)
        assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        with pytest.raises(InferenceServerException, match="key"):
            client.is_server_live()
        headers = {"authorization": "Bearer secret"}
        assert client.get_model_metadata(name, headers=headers).name == name


FIELDS = """
def fields(message, path):
    for field in message.fields:
        print(path, message.name, field.name, field.number, field.type, field.is_repeated)
    for nested in message.nested_types:
        fields(nested, path + message.name + ".")
for module in modules:
    for message in module.DESCRIPTOR.message_types_by_name.values():
        fields(message, "")
"""


def fields_of(imports: str) -> set[str]:
    """In a process of its own: the same message cannot be defined twice in one."""
    code = imports + FIELDS
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines())


def test_numbers_of_the_messages_are_those_of_the_protocol() -> None:
    ours = fields_of("from inferd.gateway.kserve_grpc import kserve_pb2\nmodules = [kserve_pb2]\n")
    theirs = fields_of("from tritonclient.grpc import model_config_pb2 as a, service_pb2 as b\nmodules = [a, b]\n")
    assert len(ours) > 100
    assert ours - theirs == set()
