"""Adapters over HTTP, with a real engine in the worker: names, loading and unloading, load, restarts."""

from __future__ import annotations

import threading
import time

import httpx
import openai
import psutil
import pytest

from support.adapters import random_adapter, write_peft
from support.server import running
from support.tiny_models import tiny_checkpoint

BASE = "mock/model"  # the name the server of tests gives its model
SPEC = tiny_checkpoint("llama").spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two adapters, a broken one, and one outside."""
    root = tmp_path_factory.mktemp("lora")
    for i, name in enumerate(("allowed/a", "allowed/b", "outside")):
        write_peft(root / name, random_adapter(SPEC, 4, seed=i))
    write_peft(root / "allowed" / "broken", random_adapter(SPEC, 4, seed=9), use_dora=True)
    (root / "allowed" / "link").symlink_to(root / "outside")
    return root


def served(folder, **options):
    options = {"worker_factory": "support.tiny_worker:build", "lora_dirs": [str(folder / "allowed")], **options}
    return running(**options)


def worker_of(process):
    return next(child for child in psutil.Process(process.pid).children() if "inferd.worker.main" in child.cmdline())


def load(url, name, path, **more):
    body = {"lora_name": name, "lora_path": str(path), **more}
    return httpx.post(url + "/v1/load_lora_adapter", json=body, timeout=30)


def unload(url, name):
    return httpx.post(url + "/v1/unload_lora_adapter", json={"lora_name": name}, timeout=30)


def complete(url, model, **more):
    body = {"model": model, "prompt": "hello", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
    return httpx.post(url + "/v1/completions", json={**body, "return_token_ids": True, **more}, timeout=60)


def ids_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


def cards(url):
    return {card["id"]: card["parent"] for card in httpx.get(url + "/v1/models").json()["data"]}


def test_a_loaded_adapter_is_a_model(folder):
    with served(folder) as (url, _):
        plain = ids_of(complete(url, BASE))
        answer = load(url, "tuned", folder / "allowed" / "a")
        assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'tuned' added successfully.")
        assert load(url, "other", "b").status_code == 200  # relative to the allowed directory
        assert {name: cards(url)[name] for name in (BASE, "tuned", "other")} == {
            BASE: None,
            "tuned": BASE,
            "other": BASE,
        }
        assert httpx.get(url + "/v1/models/tuned").json()["parent"] == BASE
        client = openai.OpenAI(base_url=url + "/v1/", api_key="any", max_retries=0)
        answer = client.completions.create(model="tuned", prompt="hello", max_tokens=20, temperature=0,
                                           extra_body={"ignore_eos": True, "return_token_ids": True})  # fmt: skip
        tuned, other = answer.choices[0].model_extra["token_ids"], ids_of(complete(url, "other"))
        assert answer.model == "tuned"
        assert len({tuple(plain), tuple(tuned), tuple(other)}) == 3
        assert unload(url, "tuned").text == "Success: LoRA adapter 'tuned' removed successfully."
        assert complete(url, "tuned").status_code == 404
        assert unload(url, "tuned").status_code == 404
        assert load(url, "tuned", "b").status_code == 200
        assert ids_of(complete(url, "tuned")) == other


def test_what_cannot_be_loaded_is_named(folder):
    with served(folder) as (url, _):
        assert load(url, "a", "a").status_code == 200
        for name, path, param, words in (
            ("a", "a", "lora_name", "served already"), (BASE, "a", "lora_name", "served already"),
            ("", "a", "lora_name", "1 to 256"), ("c", folder / "outside", "lora_path", "below a directory"),
            ("c", "../outside", "lora_path", "below a directory"), ("c", "link", "lora_path", "below a directory"),
            ("c", "nowhere", "lora_path", "below a directory"), ("c", "/etc", "lora_path", "below a directory"),
            ("c", "", "lora_path", "below a directory"), ("c", "a\0b", "lora_path", "below a directory"),
            ("c", "broken", "lora_path", "use_dora"),
        ):  # fmt: skip
            answer = load(url, name, path)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), (name, path, answer.text)
            assert words in answer.json()["error"]["message"]
        assert load(url, "c", "b", load_inplace=True).json()["error"]["param"] == "load_inplace"
        assert load(url, "c", "b", model="a").json()["error"]["param"] == "model"
        assert load(url, "c", "b", model="nobody").status_code == 404
        assert load(url, "c", "b", is_3d_lora_weight=True).status_code == 400
        assert [name for name, parent in cards(url).items() if parent] == ["a"]
    with served(folder, lora_dirs=[]) as (url, _):
        assert load(url, "a", folder / "allowed" / "a").status_code == 403


def test_adapters_of_the_configuration_are_loaded_at_once_and_again_after_a_crash(folder):
    adapters = {"first": str(folder / "allowed" / "a")}
    with served(folder, adapters=adapters) as (url, process):
        assert load(url, "second", "b").status_code == 200
        want = {name: ids_of(complete(url, name)) for name in (BASE, "first", "second")}
        worker_of(process).kill()
        deadline = time.monotonic() + 20
        while complete(url, BASE).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert {name: ids_of(complete(url, name)) for name in want} == want
        assert cards(url)["second"] == BASE


def test_a_worker_that_restarts_without_an_adapters_files_serves_the_rest(folder, tmp_path):
    path = write_peft(tmp_path / "gone", random_adapter(SPEC, 4, seed=3))
    with served(folder, adapters={"gone": str(path), "first": str(folder / "allowed" / "a")}) as (url, process):
        want = ids_of(complete(url, "first"))
        (path / "adapter_config.json").unlink()
        worker_of(process).kill()
        deadline = time.monotonic() + 20
        while complete(url, "first").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ids_of(complete(url, "first")) == want
        assert complete(url, "gone").status_code == 404


def test_a_server_does_not_start_without_an_adapter_of_its_configuration(folder):
    with served(folder, adapters={"broken": str(folder / "allowed" / "broken")}) as (url, process):
        assert url == ""
        assert process.wait(20) != 0


def test_loading_and_unloading_under_load_changes_no_answer(folder):
    with served(folder) as (url, _):
        assert load(url, "a", "a").status_code == 200
        want = {name: ids_of(complete(url, name, max_tokens=100)) for name in (BASE, "a")}
        answers, stop = [], threading.Event()

        def ask(name):
            while not stop.is_set():
                answers.append((name, complete(url, name, max_tokens=100)))

        threads = [threading.Thread(target=ask, args=(name,)) for name in (BASE, "a", "a")]
        for thread in threads:
            thread.start()
        for _ in range(10):
            assert load(url, "b", "b").status_code == 200
            assert len(ids_of(complete(url, "b"))) == 20
            assert unload(url, "b").status_code == 200
        stop.set()
        for thread in threads:
            thread.join(60)
        assert len(answers) >= 3
        assert all(ids_of(answer) == want[name] for name, answer in answers)


def test_a_request_outlives_its_adapter(folder):
    with served(folder) as (url, _):
        assert load(url, "a", "a").status_code == 200
        want = ids_of(complete(url, "a", max_tokens=200))
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(complete(url, "a", max_tokens=200))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        assert unload(url, "a").status_code == 200
        for thread in threads:
            thread.join(60)
        outcomes = [ids_of(answer) if answer.status_code == 200 else answer.status_code for answer in answers]
        assert all(outcome in (want, 404, 400) for outcome in outcomes)
