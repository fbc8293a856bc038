"""The public JSON Schema Test Suite (MIT licence, (c) 2012 Julian Berman) as one file.

    python tests/oracle/make_schema_suite.py CHECKOUT      (a git checkout of json-schema-org/JSON-Schema-Test-Suite)

Writes tests/golden/schema_suite.json: [file, schema, [[instance, whether it is valid], ...]] of draft 2020-12.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "schema_suite.json"
FOLDER = "tests/draft2020-12/"
OPTIONAL = "bignum ecmascript-regex non-bmp-regex unknownKeyword refOfUnknownKeyword float-overflow no-schema".split()
FORMATS = "date-time time date duration email hostname ipv4 ipv6 uuid uri unknown".split()


def git(checkout: str, *arguments: str) -> str:
    return subprocess.run(["git", "-C", checkout, *arguments], check=True, capture_output=True, text=True).stdout


def main(checkout: str) -> None:
    wanted = {f"optional/{name}" for name in OPTIONAL} | {f"optional/format/{name}" for name in FORMATS}
    cases = []
    for path in git(checkout, "ls-tree", "-r", "--name-only", "HEAD", FOLDER).split():
        name = path.removeprefix(FOLDER).removesuffix(".json")
        if "/" in name and name not in wanted:
            continue
        cases += [
            [name, case["schema"], [[test["data"], test["valid"]] for test in case["tests"]]]
            for case in json.loads(git(checkout, "show", f"HEAD:{path}"))
        ]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    GOLDEN.write_text(f"[\n{lines}\n]\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
