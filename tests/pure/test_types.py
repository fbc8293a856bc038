"""SamplingParams: every number out of its range is refused by name, whatever its size."""

from __future__ import annotations

import pytest

from inferd.errors import InvalidRequestError
from inferd.types import SamplingParams

NUMBERS = ("temperature", "top_p", "min_p", "typical_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
INTEGERS = ("n", "top_k", "seed", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs")


@pytest.mark.parametrize("name", NUMBERS + INTEGERS)
@pytest.mark.parametrize(
    "value", [10**400, pytest.param(-(10**5000), id="huge"), float("nan"), float("inf"), 1e300, -1e300, "1", True, [1]]
)
def test_extremes_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{name} must be ") as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name


@pytest.mark.parametrize("value", [10**400, float("nan"), 101, "1", None])
def test_a_bias_out_of_range_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"^logit_bias must be numbers from -100 to 100"):
        SamplingParams(logit_bias={5: value})  # type: ignore[dict-item]
