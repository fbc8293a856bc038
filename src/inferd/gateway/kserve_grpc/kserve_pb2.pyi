"""The messages of kserve.proto are made at run time: their names and fields are checked by the tests."""

from typing import Any

def __getattr__(name: str) -> Any: ...
