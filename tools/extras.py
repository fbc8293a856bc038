"""Prints the requirements of extras in pyproject.toml, to install them without the package: extras.py NAME..."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for name in sys.argv[1:]:
        print("\n".join(project["optional-dependencies"][name]))


if __name__ == "__main__":
    main()
