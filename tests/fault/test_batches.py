"""Ten kills of the two hundred of `make batch-kills`: no line lost, none answered twice."""

from __future__ import annotations

from support.batch_kills import Killing


def test_every_line_has_one_answer_though_processes_are_killed(tmp_path):
    tally = Killing(tmp_path, seed=7).run(10)
    assert tally.is_clean, tally
    assert tally.gateway_kills >= 2
    assert tally.worker_kills >= 2
    assert tally.lines > 100
