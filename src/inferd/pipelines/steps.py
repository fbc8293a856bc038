"""What the steps do that need no model: pure functions of values. What a client sent wrong is InvalidRequestError."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from inferd.errors import ConfigError, InvalidRequestError
from inferd.pipelines import spec

MAX_PIXELS = 2**24  # of an image file: a few hundred bytes can hold any number of them
MAX_VALUES = 2**24  # 128 MiB as float64
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # others start programs or have many ways to be read


def apply(settings: spec.Settings, value: Any, labels: list[str]) -> Any:
    """value: of the step before, or the input. labels: of the last model, for a step that names none."""
    if isinstance(settings, spec.Labels):
        return _labels(settings, _array(value), labels)
    return _FUNCTIONS[type(settings)](settings, value)


def to_json(value: Any) -> Any:
    """As JSON has it: an array becomes nested lists."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _array(value: Any) -> Any:
    """Of numbers, float64 unless it is one already."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequestError("input must be numbers in nested lists of equal lengths", param="input") from None
    if array.size > MAX_VALUES:
        raise InvalidRequestError(f"input must hold at most {MAX_VALUES} numbers", param="input")
    return array


def _image(settings: spec.Image, value: Any) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError('the step "image" needs the extra vision: pip install "inferd[vision]"') from None
    if not isinstance(value, str):
        raise InvalidRequestError("input must be an image file as base64", param="input")
    try:
        with Image.open(io.BytesIO(base64.b64decode(value, validate=True)), formats=IMAGE_FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise InvalidRequestError(f"input: an image has at most {MAX_PIXELS} pixels", param="input")
            image = file.convert(settings.mode)
            if settings.size is not None:
                image = image.resize(settings.size, Image.Resampling.BILINEAR)
            if image.width * image.height * len(image.getbands()) > MAX_VALUES:
                raise InvalidRequestError(f"input: an image has at most {MAX_VALUES} values", param="input")
            return np.asarray(image, np.float64)
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InvalidRequestError("input is no image that can be read", param="input") from None


def _columns(settings: spec.Columns, value: Any) -> Any:
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InvalidRequestError("input must be an object, or a list of objects", param="input")
    for at, row in enumerate(rows):
        for name in settings.names:
            if not isinstance(row.get(name), int | float) or isinstance(row[name], bool):
                raise InvalidRequestError(f"input[{at}].{name} must be a number", param="input")
        if unknown := sorted(row.keys() - set(settings.names)):
            known = ", ".join(settings.names)
            raise InvalidRequestError(
                f"input[{at}]: there is no column {unknown[0][:80]!r}, but {known}", param="input"
            )
    try:
        return np.array([[row[name] for name in settings.names] for row in rows], np.float64)
    except OverflowError:
        raise InvalidRequestError("input must be numbers from -1.8e308 to 1.8e308", param="input") from None


def _scale(settings: spec.Scale, value: Any) -> Any:
    return _fitting(lambda: (_array(value) - np.asarray(settings.subtract)) / np.asarray(settings.divide))


def _reshape(settings: spec.Reshape, value: Any) -> Any:
    return _fitting(lambda: _array(value).reshape(settings.shape))


def _transpose(settings: spec.Transpose, value: Any) -> Any:
    return _fitting(lambda: _array(value).transpose(settings.axes))


def _column(settings: spec.Column, value: Any) -> Any:
    array = _array(value)
    if array.ndim < 1 or not -array.shape[-1] <= settings.index < array.shape[-1]:
        raise InvalidRequestError(f"input: there is no column {settings.index} in {list(array.shape)}", param="input")
    return array[..., settings.index]


def _fitting(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except ValueError as error:
        raise InvalidRequestError(
            f"input has not the shape that the pipeline is made for: {error}", param="input"
        ) from None


def _softmax(settings: spec.Settings, value: Any) -> Any:
    array = _array(value)
    powers = np.exp(array - array.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _sigmoid(settings: spec.Settings, value: Any) -> Any:
    return 1 / (1 + np.exp(-_array(value)))


def _argmax(settings: spec.Settings, value: Any) -> Any:
    return _array(value).argmax(axis=-1)


def _labels(settings: spec.Labels, scores: Any, labels: list[str]) -> Any:
    names = settings.names or labels
    if scores.ndim < 1 or len(names) != scores.shape[-1]:
        raise ConfigError(f"the step labels has {len(names)} names for {list(scores.shape)} scores")
    rows = scores.reshape(-1, len(names))
    best = [[{"label": names[i], "score": float(row[i])} for i in np.argsort(-row, kind="stable")[: settings.top]]
            for row in rows]  # fmt: skip
    return best[0] if scores.ndim == 1 else best


def _threshold(settings: spec.Threshold, value: Any) -> Any:
    return np.where(_array(value) >= settings.at, settings.above, settings.below)


_FUNCTIONS: dict[type[spec.Settings], Callable[[Any, Any], Any]] = {
    spec.Image: _image,
    spec.Columns: _columns,
    spec.Array: lambda settings, value: _array(value),
    spec.Scale: _scale,
    spec.Reshape: _reshape,
    spec.Transpose: _transpose,
    spec.Column: _column,
    spec.Softmax: _softmax,
    spec.Sigmoid: _sigmoid,
    spec.Argmax: _argmax,
    spec.Threshold: _threshold,
}
