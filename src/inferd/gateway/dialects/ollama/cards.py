"""What Ollama's routes say of models."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import Any

from inferd.gateway.calls import SAMPLING
from inferd.gateway.residency import FOREVER, Place
from inferd.gateway.router import Model
from inferd.worker.protocol import Ready

# the name of SamplingParams -> Ollama's
_NAMES = {"repetition_penalty": "repeat_penalty", "max_tokens": "num_predict"}
_NEVER = "9999-12-31T23:59:59Z"  # for a model that is not unloaded


def listed(model: Model, name: str) -> dict[str, Any]:
    """For /api/tags. A model that is not loaded is listed without what only its file says."""
    facts = _facts(model.worker.ready)
    return {
        "name": name,
        "model": name,
        "modified_at": _moment(model.created),
        "size": facts.get("num_weight_bytes", 0),
        "digest": _digest(model, facts),
        "details": details(model.worker.ready),
    }


def running(model: Model, place: Place) -> dict[str, Any]:
    """For /api/ps. size_vram is 0: everything runs in the memory of the host."""
    card = listed(model, model.name)
    del card["modified_at"]
    ready = model.worker.ready
    expires = _NEVER
    if place.idle_timeout != FOREVER:
        idle_for = 0.0 if place.num_users else time.monotonic() - place.used_at
        expires = _moment(time.time() + place.idle_timeout - idle_for)
    return {**card, "expires_at": expires, "size_vram": 0, "context_length": ready.max_model_len if ready else 0}


def shown(model: Model, ready: Ready, capabilities: list[str]) -> dict[str, Any]:
    """For /api/show."""
    facts = _facts(ready)
    architecture = facts.get("architecture", "")
    info = {
        "general.architecture": architecture,
        "general.basename": model.name,
        "general.parameter_count": facts.get("num_parameters"),
        f"{architecture or 'model'}.context_length": facts.get("context_length") or ready.max_model_len,
        f"{architecture or 'model'}.vocab_size": ready.vocab_size,
        f"{architecture or 'model'}.embedding_length": facts.get("embedding_length"),
        f"{architecture or 'model'}.block_count": facts.get("num_layers"),
    }
    return {
        "modelfile": f"# served by inferd\nFROM {model.name}\n",
        "parameters": _parameters(ready),
        "template": facts.get("chat_template") or "",
        "details": details(ready),
        "model_info": {name: value for name, value in info.items() if value not in (None, "")},
        "capabilities": capabilities,
        "modified_at": _moment(model.created),
    }


def details(ready: Ready | None) -> dict[str, Any]:
    facts = _facts(ready)
    architecture = facts.get("architecture", "")
    return {
        "parent_model": "",
        "format": "gguf",
        "family": architecture,
        "families": [architecture] if architecture else [],
        "parameter_size": _shortened(facts.get("num_parameters", 0)),
        "quantization_level": facts.get("quantization") or "unknown",
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _facts(ready: Ready | None) -> dict[str, Any]:
    return {} if ready is None else ready.details


def _digest(model: Model, facts: dict[str, Any]) -> str:
    """Clients show its first digits and compare it: it names the served model, it is not a checksum of its file."""
    what = f"{model.name}\0{facts.get('architecture')}\0{facts.get('num_weight_bytes')}"
    return hashlib.sha256(what.encode()).hexdigest()


def _shortened(count: int) -> str:
    for limit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= limit:
            return f"{count / limit:.1f}{letter}" if letter == "B" else f"{count / limit:.2f}{letter}"
    return str(count) if count else ""


def _parameters(ready: Ready) -> str:
    """The model's own sampling values, a line each."""
    own = ((_NAMES.get(name, name), value) for name, value in ready.generation_defaults.items() if name in SAMPLING)
    return "\n".join(f"{name:<30} {value}" for name, value in own)
