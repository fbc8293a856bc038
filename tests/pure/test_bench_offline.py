"""The engine alone, by a stand-in with known steps; curves and pages; cold starts of a program of this test."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from inferd.bench import coldstart, plots
from inferd.bench.coldstart import ColdStartConfig, ColdStartError
from inferd.bench.machine import machine, provenance
from inferd.bench.offline import OfflineConfig, measure
from inferd.bench.svg import render, ticks
from inferd.errors import ConfigError, EngineError
from inferd.types import GenerateRequest, TokenEvent


class StepEngine:
    """Prefills one request a step, then gives every request a token a step, as slowly as a clock of its own says."""

    def __init__(self, *, fails: bool = False) -> None:
        self.live: dict[str, tuple[GenerateRequest, int]] = {}
        self.seen: list[GenerateRequest] = []
        self.fails = fails

    @property
    def has_work(self) -> bool:
        return bool(self.live)

    def add(self, request: GenerateRequest) -> None:
        assert request.request_id not in self.live
        self.seen.append(request)
        self.live[request.request_id] = (request, 0)

    def step(self) -> list[TokenEvent]:
        events = []
        for request_id, (request, done) in list(self.live.items()):
            if self.fails:
                return [
                    TokenEvent(request_id=request_id, index=0, token_ids=(), text="", finish_reason="error", error="x")
                ]
            is_last = done + 1 == request.sampling.max_tokens
            reason: Any = "length" if is_last else None
            events.append(TokenEvent(request_id=request_id, index=0, token_ids=(1,), text="a", finish_reason=reason))
            if is_last:
                del self.live[request_id]
            else:
                self.live[request_id] = (request, done + 1)
        return events

    def abort(self, request_id: str) -> None:
        self.live.pop(request_id, None)


def test_every_batch_size_has_its_row() -> None:
    engine = StepEngine()
    config = OfflineConfig(batch_sizes=(1, 4), input_len=30, output_len=5, repeat=2)
    rows = list(measure(engine, 1000, config))
    assert [row["batch_size"] for row in rows] == [1, 4]
    for row in rows:
        seconds = row["elapsed_time"]
        assert row["output_throughput"] * seconds == pytest.approx(5 * row["batch_size"])
        assert row["tokens_per_second"] * seconds == pytest.approx(35 * row["batch_size"])
        assert len(row["latencies"]) == 2
        assert row["median_ttft_ms"] <= row["median_e2el_ms"]
        assert row["decode_throughput"] > 0
    json.dumps(rows, allow_nan=False)
    prompts = [request.prompt_token_ids for request in engine.seen]
    assert len(set(prompts)) == len(prompts) == 1 + 2 * 1 + 2 * 4
    assert all(100 <= token < 900 for prompt in prompts for token in prompt)
    assert not engine.live


def test_a_single_token_has_no_decode() -> None:
    row = next(measure(StepEngine(), 300, OfflineConfig(batch_sizes=(2,), input_len=4, output_len=1, repeat=1)))
    assert row["decode_throughput"] is None


def test_an_engine_that_fails_is_left_empty() -> None:
    engine = StepEngine(fails=True)
    with pytest.raises(EngineError, match="x"):
        list(measure(engine, 1000, OfflineConfig(batch_sizes=(1,))))
    assert not engine.live


@pytest.mark.parametrize("options", [{"batch_sizes": (0,)}, {"batch_sizes": ()}, {"repeat": 0}, {"output_len": 0}])
def test_offline_ranges(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        OfflineConfig(**options)


def run_of(rate: float | str, throughput: float, *, goodput: float | None = None, loop: str = "open") -> dict[str, Any]:
    latencies = {f"{key}_{name}_ms": throughput / 2 for name in ("ttft", "itl", "e2el") for key in ("median", "p99")}
    return {
        "request_rate": rate, "max_concurrency": 4, "loop": loop, "output_throughput": throughput, "completed": 3,
        "failed": 0, "request_throughput": 1.0, "request_goodput": goodput, "p99_lag_ms": 0.1, **latencies,
    }  # fmt: skip


SWEEP = {"url": "http://a", "runs": [run_of(1.0, 50.0, goodput=1.0), run_of(2.0, 90.0, goodput=1.5)]}


def test_a_sweep_becomes_its_panels() -> None:
    made = {panel.title: panel for panel in plots.panels([("a", SWEEP)])}
    assert len(made) == 5
    ttft = made["Time to first token against throughput"]
    assert [series.name for series in ttft.series] == ["a p50", "a p99"]
    assert ttft.series[0].points == ((50.0, 25.0), (90.0, 45.0))
    goodput = made["Goodput against load"]
    assert [series.points for series in goodput.series] == [((1.0, 1.0), (2.0, 1.5)), ((0.0, 0.0), (2.0, 2.0))]


def test_closed_loops_are_drawn_against_clients_and_goodput_only_with_limits() -> None:
    document = run_of("inf", 50.0, loop="closed")
    made = {panel.title: panel for panel in plots.panels([("", document)])}
    assert made["Throughput against load"].x_label == "clients"
    assert made["Throughput against load"].series[0].points == ((4.0, 50.0),)
    assert "Goodput against load" not in made


def test_every_panel_is_well_formed_and_escaped() -> None:
    for panel in plots.panels([("<b>&", SWEEP), ("other", SWEEP)]):
        root = ElementTree.fromstring(render(panel))
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert panel.title in texts
        assert any(text is not None and text.startswith("<b>&") for text in texts)
    assert "<b>" not in plots.page([("<b>", SWEEP)])


@pytest.mark.parametrize(
    ("most", "expected"), [(0.0, [0, 1]), (9.0, [0, 2, 4, 6, 8, 10]), (0.04, [0, 0.01, 0.02, 0.03, 0.04])]
)
def test_ticks_are_round(most: float, expected: list[float]) -> None:
    assert ticks(most) == pytest.approx(expected)


def test_plots_by_the_ending_of_the_file(tmp_path: Path) -> None:
    plots.write(tmp_path / "a.html", [("a", SWEEP)])
    assert (tmp_path / "a.html").read_text().count("<svg") == 5
    with pytest.raises(ConfigError, match=r"\.html or \.png"):
        plots.check(tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match="folder that exists"):
        plots.check(tmp_path / "none" / "a.html")


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_png(tmp_path: Path) -> None:
    plots.write(tmp_path / "a.png", [("a", SWEEP)])
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.skipif(find_spec("matplotlib") is not None, reason="matplotlib is installed")
def test_png_without_matplotlib_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs matplotlib"):
        plots.check(tmp_path / "a.png")


def test_a_report_knows_the_machine_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "bench",
        "serve",
        "--api-key",
        "secret",
        "--header=x-key:secret",
        "--header",
        "a:secret",
        "--seed",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["inferd", *arguments])
    facts = provenance()
    assert facts["command"] == "inferd bench serve --api-key *** --header=*** --header *** --seed 1"
    assert facts["machine"]["cores"] >= 1
    assert machine()["cpu"]


PROGRAM = """
import http.server, json, sys
if sys.argv[1] == "run":
    print(sys.argv[2] and "token")
else:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"
        def log_message(self, *args): pass
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200); self.end_headers()
            for text in ("", "a"):
                self.wfile.write(b"data: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\\n\\n")
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x" * 100_000)
    return path


def cold_start(model: Path, text: str = PROGRAM, **options: Any) -> dict[str, Any]:
    """With a program in the place of inferd."""
    return coldstart.measure(ColdStartConfig(model=model, program=(sys.executable, "-c", text), **options))


def test_cold_starts_of_both_kinds(model: Path) -> None:
    figures = cold_start(model, repeat=2)
    assert figures["file_bytes"] == 100_000
    for kind in ("run", "serve"):
        starts = figures[f"{kind}_first_token_all_s"]
        assert len(starts) == 2
        assert all(0 < seconds < 60 for seconds in starts)
        assert min(starts) <= figures[f"{kind}_first_token_s"] <= max(starts)


def test_a_cold_start_without_the_page_cache(model: Path) -> None:
    figures = cold_start(model, repeat=1, kinds=("run",), is_cold=True)
    assert 0 <= figures["resident_share_before"] <= 1
    assert len(figures["run_first_token_all_s"]) == 1


def test_a_server_that_ends_tells_its_last_words(model: Path) -> None:
    with pytest.raises(ColdStartError, match="serve ended with 1: no such model"):
        cold_start(model, "import sys; sys.exit('no such model')", repeat=1, kinds=("serve",))
    with pytest.raises(ColdStartError, match="run ended with 0: it said nothing"):
        cold_start(model, "", repeat=1, kinds=("run",))
    for kind in ("run", "serve"):
        with pytest.raises(ColdStartError, match=f"{kind} brought no token within 0.2 s"):
            cold_start(model, "import time; time.sleep(30)", repeat=1, kinds=(kind,), timeout=0.2)


def test_cold_start_ranges(model: Path) -> None:
    with pytest.raises(ConfigError, match="repeat"):
        ColdStartConfig(model=model, repeat=0)
