"""The OpenAPI document drives the server: what it promises must hold for every answer, to good data and bad."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.server import running

# good data may be refused here: token ids beyond the mock's vocabulary, lengths beyond its context
CHECKS = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
# "not ready" is an answer of these, and it comes when the run has unloaded the model
CONFIG = r"""
[[operations]]
include-path-regex = "/ready$"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
"""
# GET /v1/models/{id} is left out of the random phase: hypothesis 6.170 fails in its own optimiser on its one string
RUNS = {
    "coverage": [[], "--phases", "coverage"],
    "fuzzing": [[], "--phases", "fuzzing", "--include-method", "POST", "-n", "40", "--max-time", "20"],
    "keys": [["secret"], "--phases", "coverage", "--include-path", "/v1/models", "--include-path", "/tokenize"],
}


@pytest.mark.parametrize("run", RUNS)
def test_the_document_holds(tmp_path: Path, run: str):
    keys, *phase = RUNS[run]
    headers = ["-H", "Authorization: Bearer secret"] if keys else []
    with running(api_keys=keys) as (url, process):
        location = f"{url}/openapi.json"
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        command = [Path(sys.executable).with_name("schemathesis"), "run", location, *CHECKS, *phase, *headers]
        done = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert done.returncode == 0, done.stdout.partition("= WARNINGS =")[0][:8000] + done.stderr
        assert process.poll() is None
        metrics = httpx.get(url + "/metrics", headers={"x-api-key": "secret"}).text
    assert re.search(r"^vllm:worker_restarts_total\S* 0.0$", metrics, re.MULTILINE)
