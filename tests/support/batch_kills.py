"""kill -9 of gateway and worker at random moments while batches run. Every line must have one answer, the right one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from support.server import running

MAX_OPEN = 3  # batches that run at once
_GONE = (httpx.HTTPError, psutil.Error, AssertionError)


@dataclass
class Tally:
    """What came of it."""

    gateway_kills: int = 0
    worker_kills: int = 0
    batches: int = 0
    lines: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    failed: int = 0
    statuses_at_kills: Counter[str] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong or self.failed)


class Killing:
    """One journal, many lives of its server."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._rng = folder, random.Random(seed)
        self.tally = Tally()

    def run(self, num_kills: int) -> Tally:
        while self._num_kills < num_kills:
            with running(batch_dir=str(self._folder), drain_timeout=1.0) as (url, process), self._client(url) as client:
                while process.poll() is None and self._num_kills < num_kills:
                    with contextlib.suppress(*_GONE):
                        self._fill(client)
                    time.sleep(self._rng.choice((0.0, 0.02, 0.3)) * self._rng.random())
                    with contextlib.suppress(*_GONE):
                        self._kill(client, psutil.Process(process.pid))
        with running(batch_dir=str(self._folder)) as (url, _), self._client(url) as client:
            self._check(client)
        return self.tally

    @property
    def _num_kills(self) -> int:
        return self.tally.gateway_kills + self.tally.worker_kills

    @contextlib.contextmanager
    def _client(self, url: str) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=url, timeout=20) as client:
            yield client

    def _fill(self, client: httpx.Client) -> None:
        """Batches of all sizes, so that kills meet every status."""
        batches = client.get("/v1/batches?limit=100").json()["data"]
        num_open = sum(batch["status"] in ("validating", "in_progress", "finalizing") for batch in batches)
        for _ in range(MAX_OPEN - num_open):
            count = self._rng.choice((1, 3, 20, 150))
            data = "".join(json.dumps(_line(i, self._rng)) + "\n" for i in range(count))
            file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": data.encode()}).json()
            fields = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
            fields["metadata"] = {"count": f"{count}"}
            client.post("/v1/batches", json=fields).raise_for_status()

    def _kill(self, client: httpx.Client, gateway: psutil.Process) -> None:
        for batch in client.get("/v1/batches?limit=3").json()["data"]:
            self.tally.statuses_at_kills[batch["status"]] += 1
        if self._rng.random() < 0.5:
            workers = [child for child in gateway.children() if "inferd.worker" in " ".join(child.cmdline())]
            if workers:
                os.kill(workers[0].pid, signal.SIGKILL)
                self.tally.worker_kills += 1
        else:
            os.kill(gateway.pid, signal.SIGKILL)
            gateway.wait(5)
            self.tally.gateway_kills += 1

    def _check(self, client: httpx.Client) -> None:
        for batch in _all(client, "/v1/batches"):
            deadline = time.monotonic() + 120
            while batch["status"] not in ("completed", "failed", "expired", "cancelled"):
                assert time.monotonic() < deadline, f"{batch['id']} is still {batch['status']}"
                time.sleep(0.05)
                batch = client.get(f"/v1/batches/{batch['id']}").json()
            self._check_one(client, batch)

    def _check_one(self, client: httpx.Client, batch: dict[str, Any]) -> None:
        tally, count = self.tally, int(batch["metadata"]["count"])
        output, errors = (_lines(client, batch[name]) for name in ("output_file_id", "error_file_id"))
        seen = Counter(one["custom_id"] for one in (*output, *errors))
        tally.batches += 1
        tally.lines += count
        tally.lost += sum(f"{i}" not in seen for i in range(count))
        tally.doubled += sum(times - 1 for times in seen.values())
        tally.failed += len(errors) + (batch["status"] != "completed")
        for one in output:
            text = one["response"]["body"]["choices"][0]["text"]
            tally.wrong += not (text and f"<pace>{one['custom_id']}.".startswith(text[:6]) and one["custom_id"] in text)
        tally.wrong += batch["request_counts"] != {"total": count, "completed": count, "failed": 0}


def _line(number: int, rng: random.Random) -> dict[str, Any]:
    prompt = f"<pace>{number}."  # a step of 5 ms
    body = {"model": "mock/model", "prompt": prompt, "max_tokens": rng.choice((12, 20, 60))}
    return {"custom_id": f"{number}", "method": "POST", "url": "/v1/completions", "body": body}


def _lines(client: httpx.Client, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    text = client.get(f"/v1/files/{file_id}/content").raise_for_status().text
    return [json.loads(line) for line in text.splitlines()]


def _all(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        after = f"&after={found[-1]['id']}" if found else ""
        page = client.get(f"{path}?limit=100{after}").json()
        found += page["data"]
        if not page["has_more"]:
            return found
