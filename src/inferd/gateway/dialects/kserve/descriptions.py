"""What the protocol tells of a server and its models: metadata, configuration, statistics, the index."""

from __future__ import annotations

from typing import Any

from inferd.errors import ModelNotFoundError, OverloadedError
from inferd.gateway.router import Model
from inferd.metrics.calls import CallMetrics
from inferd.worker.protocol import Ready

EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics", "generate")
_TEXT_IN = {"name": "text_input", "datatype": "BYTES", "shape": [1]}
_TEXT_OUT = {"name": "text_output", "datatype": "BYTES", "shape": [1]}
_TYPES = {"BYTES": "TYPE_STRING"}  # as the configuration spells them; else TYPE_ and the datatype


def server_metadata(version: str) -> dict[str, Any]:
    return {"name": "inferd", "version": version, "extensions": list(EXTENSIONS)}


def ready_of(model: Model) -> Ready:
    """What the model's worker said of it. Raises OverloadedError while it has not."""
    if model.worker.ready is None:
        raise OverloadedError(f"The model '{model.name}' is not loaded yet.", retry_after=2.0)
    return model.worker.ready


def versions_of(model: Model) -> list[str]:
    """Oldest first; "1" alone for a model that makes text or vectors, or that is not loaded."""
    ready = model.worker.ready
    return list(ready.details["versions"]) if ready is not None and ready.kind == "predict" else ["1"]


def check_version(model: Model, version: str) -> None:
    """Raises ModelNotFoundError; "" is the latest."""
    if version and model.worker.ready is not None and version not in versions_of(model):
        known = ", ".join(versions_of(model))
        raise ModelNotFoundError(f"The model '{model.name}' has no version '{version[:20]}', only {known}.")


def model_metadata(model: Model, name: str, version: str) -> dict[str, Any]:
    ready = ready_of(model)
    facts = {"name": name, "versions": versions_of(model)}
    if ready.kind != "predict":
        return {**facts, "platform": f"inferd_{ready.kind}", "inputs": [_TEXT_IN], "outputs": [_TEXT_OUT]}
    of = ready.details["versions"][version or facts["versions"][-1]]
    return {**facts, "platform": ready.details["platform"], "inputs": of["inputs"], "outputs": of["outputs"]}


def model_config(model: Model, name: str, version: str) -> dict[str, Any]:
    """In the terms of Triton's model configuration, as far as they mean something here."""
    ready, metadata = ready_of(model), model_metadata(model, name, version)
    config: dict[str, Any] = {"name": name, "platform": metadata["platform"], "max_batch_size": 0}
    batch = ready.kind == "predict" and ready.details["versions"][version or metadata["versions"][-1]]["is_batched"]
    if batch:
        batching = ready.details["batching"]
        config["max_batch_size"] = batching["max_batch_size"]
        config["dynamic_batching"] = {
            "max_queue_delay_microseconds": round(batching["max_delay"] * 1e6),
            "default_priority_level": batching["default_priority"],
        }
    for field in ("input", "output"):
        config[field] = [_config_tensor(entry, bool(batch)) for entry in metadata[f"{field}s"]]
    config["model_transaction_policy"] = {"decoupled": ready.kind == "generate"}
    if ready.kind == "predict":
        config["instance_group"] = [{"name": f"{name}_0", "kind": "KIND_CPU", "count": ready.details["instances"]}]
    return config


def _config_tensor(entry: dict[str, Any], is_batched: bool) -> dict[str, Any]:
    """dims are without that of the batch."""
    datatype = entry["datatype"]
    dims = entry["shape"][1:] if is_batched else entry["shape"]
    return {"name": entry["name"], "data_type": _TYPES.get(datatype, f"TYPE_{datatype}"), "dims": dims}


def model_statistics(model: Model, name: str) -> dict[str, Any]:
    """Of all versions together, under the latest: calls are counted by model."""
    calls = model.metrics.calls
    return {
        "name": name,
        "version": versions_of(model)[-1],
        "last_inference": round(calls.last_at * 1000),
        "inference_count": calls.num_inferences,
        "execution_count": round(calls.num_executions),
        "inference_stats": _durations(calls),
    }


def _durations(calls: CallMetrics) -> dict[str, Any]:
    def of(count: int, seconds: float) -> dict[str, int]:
        return {"count": count, "ns": round(seconds * 1e9)}

    seconds = calls.seconds
    return {
        "success": of(calls.num_success, seconds["request"]),
        "fail": of(calls.num_failed, calls.failed_seconds),
        **{name: of(calls.num_success, seconds[name]) for name in ("queue", "compute_infer", "compute_output")},
    }


def index_entry(model: Model, name: str) -> dict[str, Any]:
    entry = {"name": name, "version": versions_of(model)[-1]}
    if model.worker.is_ready:
        return {**entry, "state": "READY"}
    if model.worker.failure is not None:
        return {**entry, "state": "UNAVAILABLE", "reason": "it failed to load"}
    if model.place.phase == "asleep":
        return {**entry, "state": "UNAVAILABLE", "reason": "the next request loads it"}
    return {**entry, "state": "LOADING"}
