"""Requests for inference as gRPC has them, to the body that the HTTP route reads; and its answer back."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.kserve_grpc import kserve_pb2 as pb

_LENGTH = struct.Struct("<I")
# datatype -> the field of its values, and the letter that array.array knows it by
_CONTENTS = {"INT8": ("int_contents", "b"), "INT16": ("int_contents", "h"), "INT32": ("int_contents", "i"),
             "INT64": ("int64_contents", "q"), "UINT8": ("uint_contents", "B"), "UINT16": ("uint_contents", "H"),
             "UINT32": ("uint_contents", "I"), "UINT64": ("uint64_contents", "Q"), "FP32": ("fp32_contents", "f"),
             "FP64": ("fp64_contents", "d"), "BOOL": ("bool_contents", "B"), "BYTES": ("bytes_contents", "")}  # fmt: skip


def to_body(request: Any) -> tuple[bytes, int]:
    """request: a ModelInferRequest. (the body, the length of its JSON). Raises InvalidRequestError."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(f"raw_input_contents must hold {len(request.inputs)} tensors, got {len(raw)}")
    if raw and any(tensor.HasField("contents") for tensor in request.inputs):
        raise InvalidRequestError("an input must not have contents beside raw_input_contents")
    tensors = raw or [_packed(tensor) for tensor in request.inputs]
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {**values_of(tensor.parameters), "binary_data_size": len(data)},
        }
        for tensor, data in zip(request.inputs, tensors, strict=True)
    ]
    head: dict[str, Any] = {"inputs": inputs, "id": request.id}
    head["parameters"] = {**values_of(request.parameters), "binary_data_output": True}
    head["outputs"] = [{"name": one.name, "parameters": values_of(one.parameters)} for one in request.outputs]
    encoded = msgspec.json.encode(head)
    return b"".join([encoded, *tensors]), len(encoded)


def values_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        values[name] = None if kind is None else getattr(parameter, kind)
    return values


def _packed(tensor: Any) -> bytes:
    """The bytes of an input whose values came one by one."""
    field, letter = _CONTENTS.get(tensor.datatype, ("", ""))
    given = [name.name for name, _ in tensor.contents.ListFields()]
    if given and given != [field]:
        wanted = field or "raw_input_contents"
        raise InvalidRequestError(
            f"input '{tensor.name[:80]}' of {tensor.datatype[:16]} must be in {wanted}, got {', '.join(given)}"
        )
    values = getattr(tensor.contents, field) if field else ()
    if tensor.datatype == "BYTES":
        return b"".join(_LENGTH.pack(len(value)) + value for value in values)
    try:
        return array(letter, values).tobytes() if letter else b""
    except OverflowError:
        message = f"input '{tensor.name[:80]}' holds a number beyond the range of {tensor.datatype}"
        raise InvalidRequestError(message) from None


def from_body(body: bytes, head_len: int) -> Any:
    """A ModelInferResponse."""
    fields, at = msgspec.json.decode(body[:head_len]), head_len
    response = pb.ModelInferResponse(
        model_name=fields["model_name"], model_version=fields["model_version"], id=fields.get("id", "")
    )
    for output in fields["outputs"]:
        response.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        size = output["parameters"]["binary_data_size"]
        response.raw_output_contents.append(body[at : at + size])
        at += size
    return response
