"""A request for inference on tensors and its answer, between the wire and the worker's messages."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.kserve.values import DATATYPES, MAX_DIMS, from_bytes, to_bytes
from inferd.worker.protocol import Infer, Inferred, Tensor

_AS = re.compile(r" - at `\$\.?(.*)`$")


class _Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class InputTensor(_Wire, frozen=True):
    """data, or parameters.binary_data_size bytes behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class OutputTensor(_Wire, frozen=True):
    name: str
    parameters: dict[str, Any] = {}


class InferBody(_Wire, frozen=True):
    inputs: list[InputTensor]
    id: str = ""
    outputs: list[OutputTensor] = []
    parameters: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(InferBody)


class InferRequest:
    """Raises InvalidRequestError, naming the field, for everything that cannot be honoured."""

    def __init__(self, head: bytes, binary: bytes, version: str) -> None:
        """head: the JSON; binary: what follows it. version: of the model, "" for the latest."""
        self.body = _decoded(head)
        self._version = version
        self._inputs = _tensors(self.body.inputs, binary)
        _check_parameters("parameters", self.body.parameters, _REQUEST_PARAMETERS)
        for output in self.body.outputs:
            _check_parameters(f"outputs '{output.name[:80]}': parameters", output.parameters, _OUTPUT_PARAMETERS)

    @property
    def num_rows(self) -> int:
        """The first dimension, which counts as that of rows; 1 where there is none."""
        shape = self._inputs[0].shape if self._inputs else ()
        return shape[0] if shape else 1

    def command(self, call_id: str) -> Infer:
        parameters = self.body.parameters
        timeout = _integer(parameters, "timeout", 1, 3600 * 10**6)
        return Infer(
            call_id=call_id,
            inputs=self._inputs,
            outputs=[output.name for output in self.body.outputs],
            version=self._version,
            priority=_integer(parameters, "priority", 0, 2**31 - 1) or 0,
            timeout=None if timeout is None else timeout / 1e6,
        )

    def answer(self, model: str, reply: Inferred) -> tuple[bytes, list[bytes]]:
        """The JSON, and the binary tensors behind it in the order of its outputs."""
        usual = bool(self.body.parameters.get("binary_data_output", False))
        is_binary = {output.name: bool(output.parameters.get("binary_data", usual)) for output in self.body.outputs}
        outputs, binary = [], []
        for tensor in reply.outputs:
            entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
            if is_binary.get(tensor.name, usual):
                entry["parameters"] = {"binary_data_size": len(tensor.data)}
                binary.append(tensor.data)
            else:
                entry["data"] = from_bytes(tensor.name, tensor.datatype, tensor.data)
            outputs.append(entry)
        answer: dict[str, Any] = {"model_name": model, "model_version": reply.version, "outputs": outputs}
        if self.body.id:
            answer["id"] = self.body.id
        return msgspec.json.encode(answer), binary


def _decoded(head: bytes) -> InferBody:
    try:
        return _decoder.decode(head)
    except msgspec.ValidationError as error:
        where = _AS.search(str(error))
        what = str(error)[: where.start()] if where else str(error)
        field = where[1] if where else ""
        raise InvalidRequestError(f"{field}: {what}" if field else what, param=field or None) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequestError("the body is not valid JSON") from error


def _tensors(inputs: list[InputTensor], binary: bytes) -> list[Tensor]:
    tensors, at = [], 0
    for entry in inputs:
        where = f"input '{entry.name[:80]}'"
        _check_input(entry, where)
        size = _integer(entry.parameters, "binary_data_size", 0, 2**31 - 1, where)
        if (size is None) == (entry.data is None):
            raise InvalidRequestError(f"{where} must have either data or parameters.binary_data_size", param=entry.name)
        if size is not None:
            data, at = binary[at : at + size], at + size
            if at > len(binary):
                raise InvalidRequestError(f"{where} says {size} bytes, fewer are there", param=entry.name)
        else:
            data = to_bytes(entry.name, entry.datatype, entry.shape, entry.data or [])
        tensors.append(Tensor(name=entry.name, datatype=entry.datatype, shape=tuple(entry.shape), data=data))
    if at != len(binary):
        raise InvalidRequestError(f"the body holds {len(binary) - at} bytes behind its last tensor", param="inputs")
    return tensors


def _check_input(entry: InputTensor, where: str) -> None:
    _check_parameters(where, entry.parameters, {"binary_data_size"})
    if entry.datatype not in DATATYPES:
        allowed = ", ".join(sorted(DATATYPES))
        raise InvalidRequestError(
            f"{where}: datatype must be one of {allowed}, got {entry.datatype[:16]}", param="datatype"
        )
    if len(entry.shape) > MAX_DIMS or not all(0 <= size < 2**31 for size in entry.shape):
        raise InvalidRequestError(f"{where}: shape must hold up to {MAX_DIMS} sizes from 0 to 2**31-1", param="shape")


_REQUEST_PARAMETERS = {"binary_data_output", "priority", "timeout", "sequence_id", "sequence_start", "sequence_end"}
_OUTPUT_PARAMETERS = {"binary_data"}
_UNSUPPORTED = {
    "shared_memory_region": "shared memory is not supported: send tensors in the body",
    "shared_memory_byte_size": "shared memory is not supported: send tensors in the body",
    "shared_memory_offset": "shared memory is not supported: send tensors in the body",
    "classification": "classification is not supported: ask for the output itself",
}


def _check_parameters(where: str, parameters: dict[str, Any], known: set[str]) -> None:
    for name, value in parameters.items():
        if name in _UNSUPPORTED:
            if value not in (0, None):  # clients send a zero for "not asked for"
                raise InvalidRequestError(f"{where}: {_UNSUPPORTED[name]}", param=name)
        elif name not in known:
            raise InvalidRequestError(f"{where}: '{name[:80]}' is not a parameter known here", param=name[:80])
    for name in ("binary_data", "binary_data_output"):
        if not isinstance(parameters.get(name, False), bool):
            raise InvalidRequestError(f"{where}: {name} must be true or false", param=name)
    if parameters.get("sequence_id") not in (None, 0, "") or parameters.get("sequence_start"):
        raise InvalidRequestError(f"{where}: sequence_id is not supported: models keep no state", param="sequence_id")


def _integer(parameters: dict[str, Any], name: str, low: int, high: int, where: str = "parameters") -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        told = str(value)[:40]
        raise InvalidRequestError(f"{where}: {name} must be an integer from {low} to {high}, got {told}", param=name)
    return value
