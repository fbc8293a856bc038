"""docs/reference is what the code says."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools" / "reference_docs.py"
SOURCE = '''
class A:
    """What A is."""

    x: int | None = 3  # of y; more
    z: str
    u: list = field(default_factory=list)
'''


def test_the_reference_is_not_stale() -> None:
    result = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_comments_become_meanings(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(SOURCE)
    doc, rows = runpy.run_path(str(SCRIPT))["read_class"](path, "A")
    assert doc == "What A is."
    assert rows == [
        ("`x`", "`int | None`", "`3`", "of y; more"),
        ("`z`", "`str`", "`required`", ""),
        ("`u`", "`list`", "`list()`", ""),
    ]
