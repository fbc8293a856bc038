"""Findings: one for each audited claim, in the order of the audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from inferd.planner.article import efficiency, hardware, memory, money, ownership, speed
from inferd.planner.article.tools import Computed, Rule
from inferd.planner.tables import choose, read_table

RULES: dict[str, Rule] = {
    **memory.RULES, **hardware.RULES, **speed.RULES, **money.RULES, **ownership.RULES, **efficiency.RULES,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim of the article, the numbers that bear on it, and the verdict these give."""

    id: str
    group: str
    claim: str
    computed: str
    verdict: str

    def facts(self) -> dict[str, str]:
        return asdict(self)

    def cells(self) -> tuple[str, str, str, str]:
        return self.id, self.claim, self.computed, self.verdict


def recompute(ids: Sequence[str] = ()) -> list[Finding]:
    """All claims, or these. Of the audit file only id, group and claim are read. Raises ConfigError on another id."""
    rows = {row["id"]: row for row in read_table("article_audit")}
    wanted = [choose("id", name.upper(), rows) for name in ids] or list(rows.values())
    return [_finding(row["id"], row["group"], row["claim"]) for row in wanted]


def _finding(claim_id: str, group: str, claim: str) -> Finding:
    result: Computed = RULES[claim_id]()
    return Finding(claim_id, group, claim, result.numbers, result.verdict)
