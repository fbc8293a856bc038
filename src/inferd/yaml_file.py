"""Files that operators write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inferd.errors import ConfigError


def read_yaml(path: Path, max_bytes: int) -> Any:
    """What the file holds. Raises ConfigError when it is larger, or no YAML."""
    if path.stat().st_size > max_bytes:
        raise ConfigError(f"{path.name} is larger than {max_bytes} bytes")
    try:
        return msgspec.yaml.decode(path.read_bytes())
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"{path.name}: {str(error).splitlines()[0]}") from None
