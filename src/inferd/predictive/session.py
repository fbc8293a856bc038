"""One version of a model in ONNX Runtime: what it declares, and a run of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inferd.errors import ConfigError, EngineError, InvalidRequestError, ModelLoadError, UnsupportedModelError
from inferd.predictive.tensors import DTYPES, Array, TensorSpec

log = logging.getLogger("inferd.predictive")
_FOLDERS = re.compile(r"""(?<![^\s"'(=])/(?:[^/\s"']+/)*""")  # of an absolute path
_DATATYPES = {
    **{f"tensor({sign.lower()}int{size})": f"{sign}INT{size}" for size in (8, 16, 32, 64) for sign in ("", "U")},
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}


class Session:
    """Any number of threads may call `run` at the same time. inputs and outputs in the order of the model."""

    def __init__(self, path: Path, num_threads: int) -> None:
        """num_threads: of one run. Raises ModelLoadError; ConfigError where ONNX Runtime is not installed."""
        self._runtime = _runtime()
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; they are raised too
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other models share the cores
        try:
            self._session = self._runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise ModelLoadError(f"{path.name}: {_first_line(error)}") from error
        self.inputs = tuple(_spec(path, "input", node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(path, "output", node) for node in self._session.get_outputs())

    @property
    def has_rows(self) -> bool:
        """Whether every tensor has a first dimension of any size: that of rows, in all likelihood."""
        return all(spec.shape is not None and spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Of these names. Raises InvalidRequestError for inputs that the model refuses, or EngineError."""
        try:
            return list(self._session.run(list(outputs), dict(inputs)))
        except self._runtime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            message = f"the model refuses these inputs: {_first_line(error)}"
            raise InvalidRequestError(message, param="inputs") from error
        except Exception as error:
            log.warning("the model failed: %s", _first_line(error))
            raise EngineError("The model failed on these inputs.") from error

    def sample(self, seed: int) -> dict[str, Array]:
        """Inputs of one row, random ones that are small: a guess at what the model takes."""
        rng = np.random.default_rng(seed)
        return {spec.name: _random(spec, rng) for spec in self.inputs}


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("a predictive model needs the extra onnx: pip install 'inferd[onnx]'") from None
    return onnxruntime


def _spec(path: Path, what: str, node: Any) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        hint = "; export it without ZipMap" if node.type.startswith("seq(map") else ""
        raise UnsupportedModelError(f"{path.name}: {what} '{node.name}' is {node.type}, not a tensor served here{hint}")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(node.name, datatype, shape or None)  # () also stands for a rank that the model leaves open


def _random(spec: TensorSpec, rng: np.random.Generator) -> Array:
    shape = [1 if size == -1 else size for size in spec.shape or ()]
    dtype = DTYPES[spec.datatype]
    if spec.datatype == "BYTES":
        return np.full(shape, "a", object)
    if dtype.kind == "f":
        return np.asarray(rng.normal(size=shape), dtype)
    return np.asarray(rng.integers(0, 2, shape), dtype)


def _first_line(error: Exception) -> str:
    """Of ONNX Runtime's message, without its prefix of codes and without folders."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[0].removeprefix("[ONNXRuntimeError] : ")
    return " ".join(_FOLDERS.sub("", text).split())[:300]
