"""Features two by two on chats: each pair in one request, whole and streamed, alone and beside others.

"yes": the answers of all ways are equal, and each feature's own check holds. "refused": the server names a field.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any

import httpx

from compat.probes import CHAT, FUNCTION, SCHEMA, is_schema_json

BASE: dict[str, Any] = {"messages": CHAT, "max_tokens": 48, "seed": 5, "temperature": 0.7}
Choice = dict[str, Any]
FEATURES: dict[str, tuple[dict[str, Any], Callable[[Choice], bool]]] = {
    "greedy": ({"temperature": 0}, lambda c: True),
    "several choices": ({"n": 2}, lambda c: True),
    "logprobs": ({"logprobs": True, "top_logprobs": 2}, lambda c: len(c["logprobs"]) > 0),
    "stop strings": ({"stop": ["\n\n", "%%"]}, lambda c: "\n\n" not in c["content"]),
    "penalties": ({"presence_penalty": 0.5, "repetition_penalty": 1.1}, lambda c: True),
    "logit bias": ({"logit_bias": {"100": -50}}, lambda c: True),
    "min_p, top_k": ({"min_p": 0.05, "top_k": 40}, lambda c: True),
    "JSON schema": ({"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}},
                    lambda c: bool(c["tool_calls"]) or is_schema_json(c["content"])),
    "regex": ({"structured_outputs": {"regex": "(red|blue)( and (red|blue))?"}},
              lambda c: bool(c["tool_calls"]) or c["content"].startswith(("red", "blue"))),
    "tools": ({"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"},
              lambda c: all(is_schema_json(call["arguments"]) for call in c["tool_calls"]) and bool(c["tool_calls"])),
    "min_tokens": ({"min_tokens": 4}, lambda c: True),
}  # fmt: skip
NUM_BESIDE = 6


def choice_of(message: dict[str, Any], choice: dict[str, Any]) -> Choice:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    logprobs = [(entry["token"], entry["logprob"]) for entry in (choice.get("logprobs") or {}).get("content") or ()]
    calls = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
    return {"content": message.get("content") or "", "tool_calls": calls, "logprobs": logprobs,
            "finish_reason": choice["finish_reason"]}  # fmt: skip


def streamed_choices(text: str) -> list[Choice]:
    found: dict[int, Choice] = {}
    for line in text.splitlines():
        if not line.startswith("data: {"):
            continue
        chunk = json.loads(line[6:])
        assert "error" not in chunk, chunk
        for part in chunk["choices"]:
            empty: Choice = {"content": "", "tool_calls": [], "logprobs": [], "finish_reason": None}
            own, delta = found.setdefault(part["index"], empty), part["delta"]
            own["content"] += delta.get("content") or ""
            own["finish_reason"] = part["finish_reason"] or own["finish_reason"]
            own["logprobs"] += [(e["token"], e["logprob"]) for e in (part.get("logprobs") or {}).get("content") or ()]
            for call in delta.get("tool_calls") or ():
                if call["index"] == len(own["tool_calls"]):
                    own["tool_calls"].append({"name": call["function"]["name"], "arguments": ""})
                own["tool_calls"][call["index"]]["arguments"] += call["function"].get("arguments") or ""
    return [found[index] for index in sorted(found)]


async def whole(client: httpx.AsyncClient, body: dict[str, Any]) -> list[Choice] | str:
    reply = await client.post("/v1/chat/completions", json=body)
    if reply.status_code != 200:
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["param"], reply.text
        return "refused"
    return [choice_of(choice["message"], choice) for choice in reply.json()["choices"]]


async def pair(client: httpx.AsyncClient, one: str, two: str) -> str:
    body = {**BASE, **FEATURES[one][0], **FEATURES[two][0]}
    first = await whole(client, body)
    if first == "refused":
        return "refused"
    beside = [client.post("/v1/chat/completions", json={**BASE, "seed": i}) for i in range(NUM_BESIDE)]
    busy = [asyncio.ensure_future(request) for request in beside]
    again = await whole(client, body)
    await asyncio.gather(*busy)
    assert again == first, f"{one}, {two}: beside others {again} instead of {first}"
    stream = await client.post("/v1/chat/completions", json={**body, "stream": True})
    assert stream.status_code == 200, stream.text
    streamed = streamed_choices(stream.text)
    assert streamed == first, f"{one}, {two}: streamed {streamed} instead of {first}"
    assert len(first) == body.get("n", 1)
    for name in {one, two}:
        for choice in first:
            if choice["finish_reason"] != "length":
                assert FEATURES[name][1](choice), f"{one}, {two}: {name} does not hold in {choice}"
    return "yes"


async def table(url: str) -> dict[tuple[str, str], str]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        pairs = list(combinations_with_replacement(FEATURES, 2))
        return {(one, two): await pair(client, one, two) for one, two in pairs}
