"""The recomputed article: every verdict out of the planner's arithmetic equals the audit's."""

from __future__ import annotations

import pytest

from inferd.errors import ConfigError
from inferd.planner.article import findings, recompute
from inferd.planner.article.tools import Computed, judged
from inferd.planner.tables import Row, read_table

AUDIT = {row["id"]: row for row in read_table("article_audit")}


@pytest.mark.parametrize("claim", AUDIT)
def test_verdict(claim: str) -> None:
    (finding,) = recompute([claim])
    assert finding.verdict == AUDIT[claim]["verdict"]
    assert finding.claim == AUDIT[claim]["claim"]
    assert finding.computed


def test_all_claims_in_order() -> None:
    assert [finding.id for finding in recompute()] == [f"A{n}" for n in range(1, 62)]
    assert set(findings.RULES) == set(AUDIT)


def test_no_verdict_is_read_from_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_answers(name: str) -> tuple[Row, ...]:
        hidden = ("recomputed", "verdict", "correct_value_and_source")
        return tuple({key: "" if key in hidden else value for key, value in row.items()} for row in read_table(name))

    monkeypatch.setattr(findings, "read_table", without_answers)
    assert [finding.verdict for finding in recompute()] == [row["verdict"] for row in AUDIT.values()]


def test_verdicts_follow_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With other inputs the same rules say something else."""
    from inferd.planner.article import memory, money

    monkeypatch.setattr(memory, "CLAIMED_REQUEST", 1.342e9)
    assert memory.kv_of_a_request().verdict == "HOLDS"
    monkeypatch.setattr(money, "RATE", 40_000.0)
    assert money.tco_price().verdict == "HOLDS"
    monkeypatch.setattr(money, "TABLE_OUTPUT", 0.2)
    assert money.two_prices().verdict == "HOLDS"


def test_judged() -> None:
    assert judged(100, 100.5) == "HOLDS"
    assert judged(100, 104) == "HOLDS within rounding (-4%)"
    assert judged(50, 100) == judged(200, 100) == "WRONG by x2"
    assert isinstance(findings.RULES["A1"](), Computed)


def test_an_unknown_claim_is_refused() -> None:
    with pytest.raises(ConfigError, match="A6"):
        recompute(["A62"])
