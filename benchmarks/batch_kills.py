"""kill -9 of gateway and worker at random moments while batches run: batch_kills.py [--kills 200] [--seed 1]

On the mock engine of the tests: what is tried is the journal. Every line must have one answer, the right one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import report

from support.batch_kills import Killing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = Killing(Path(folder), args.seed).run(args.kills)
    report("batch_kills", asdict(tally) | {"seconds": round(time.perf_counter() - begin)})
    if not tally.is_clean:
        raise SystemExit("failed: a line was lost, answered twice or answered wrongly")


if __name__ == "__main__":
    main()
