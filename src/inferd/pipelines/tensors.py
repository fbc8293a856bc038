"""Between the values of a pipeline and the tensors of a predictive model's worker."""

from __future__ import annotations

from typing import Any

import numpy as np

from inferd.errors import ConfigError, InvalidRequestError
from inferd.pipelines.spec import Infer
from inferd.predictive import tensors
from inferd.predictive.tensors import DTYPES, TensorSpec
from inferd.worker.protocol import Tensor


def declared(details: dict[str, Any], settings: Infer) -> TensorSpec:
    """The input that the step feeds. details: what a predictive model says of itself."""
    versions = details["versions"]
    version = versions.get(settings.version) if settings.version else versions[next(reversed(versions))]
    if version is None:
        raise ConfigError(f"the step infer names version {settings.version!r}; there are {', '.join(versions)}")
    inputs = {one["name"]: one for one in version["inputs"]}
    if not settings.input and len(inputs) > 1:
        raise ConfigError(f"the step infer must name its input; {settings.model} has {', '.join(inputs)}")
    one = inputs.get(settings.input) if settings.input else next(iter(inputs.values()))
    if one is None:
        raise ConfigError(f"the step infer names input {settings.input!r}; {settings.model} has {', '.join(inputs)}")
    return TensorSpec(one["name"], one["datatype"], tuple(one["shape"]) or None)


def to_tensor(spec: TensorSpec, value: Any) -> Tensor:
    """In the type that the model reads. Raises InvalidRequestError for what cannot be it."""
    try:  # texts as objects: an array of texts takes the longest one's memory for each
        array = value if isinstance(value, np.ndarray) else np.asarray(value, object)
        if spec.datatype == "BYTES" and not all(isinstance(text, str) for text in array.reshape(-1).tolist()):
            raise InvalidRequestError(f"input must be texts for '{spec.name}'", param="input")
        array = array if spec.datatype == "BYTES" else array.astype(DTYPES[spec.datatype])
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequestError(
            f"input must be numbers for '{spec.name}' of {spec.datatype}", param="input"
        ) from None
    spec.check(spec.datatype, array.shape)
    return Tensor(name=spec.name, datatype=spec.datatype, shape=array.shape, data=tensors.to_bytes(array))


def to_array(tensor: Tensor) -> Any:
    """(*shape)"""
    return tensors.to_array(TensorSpec(tensor.name, tensor.datatype, None), tensor.datatype, tensor.shape, tensor.data)
