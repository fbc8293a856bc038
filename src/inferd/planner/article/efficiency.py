"""A47 to A51 and A58 to A61: quantization, quality, market figures, versions and people."""

from __future__ import annotations

from datetime import date

from inferd.planner.article.tools import EXACT, ROUNDING, Computed, Rule, chosen, rate
from inferd.planner.hardware import device_named
from inferd.planner.precision import precision_named
from inferd.planner.tables import read_table

H100, B200 = device_named("h100-sxm"), device_named("b200-sxm")


def _bytes_gain(name: str) -> float:
    return 16 / precision_named(name).linear_bits


def fp8_gain() -> Computed:
    arithmetic = H100.peak_flops("fp8").value / H100.peak_flops("bf16").value
    bound = round(max(arithmetic, _bytes_gain("fp8")), 1)
    claimed = (1.8, 2.2)
    verdict = f"FP8 HOLDS to {bound:.1f}"
    if claimed[1] > bound:
        verdict += f"; >{bound:.1f} needs a capacity argument"
    return Computed(f"arithmetic {arithmetic:.2f}, bytes {_bytes_gain('fp8'):.2f}", verdict)


def int4_gain() -> Computed:
    claimed, alone = (3.5, 4.2), _bytes_gain("int4")
    served = rate("MLP-023") / rate("MLP-021")  # GPTQ over FP8, same GPUs, same flags
    wrong = served < 1 and alone >= claimed[0]  # true for one sequence, not for a served batch
    numbers = f"bytes {alone:.2f} at batch 1; measured under load, GPTQ over FP8: {served:.2f}"
    return Computed(numbers, "WRONG at serving batch sizes" if wrong else "HOLDS")


def fp4_gain() -> Computed:
    arithmetic = B200.peak_flops("fp4").value / B200.peak_flops("bf16").value
    bound = max(arithmetic, _bytes_gain("nvfp4"))
    verdict = f">{bound:.0f} IMPOSSIBLE from the format alone" if bound < 5 else "HOLDS"
    return Computed(f"arithmetic {arithmetic:.2f}, bytes {_bytes_gain('nvfp4'):.2f}", verdict)


def quality() -> Computed:
    """Against the model card (recalled)."""
    claimed = {"MMLU": 82.0, "HumanEval": 80.5, "GSM8K": 88.1}
    card = {"MMLU": 82.0, "HumanEval": 81.7, "GSM8K": 93.0}
    same = [name for name in claimed if abs(claimed[name] - card[name]) < 0.5]
    off = [f"{name} {claimed[name] - card[name]:+.1f}" for name in claimed if name not in same]
    verdict = chosen(((bool(same), f"{', '.join(same)} HOLDS"), (bool(off), f"{', '.join(off)}: UNVERIFIABLE harness")))
    return Computed(f"model card: {', '.join(f'{name} {value}' for name, value in card.items())}", verdict)


def fp8_quality() -> Computed:
    recovery = 79.16 / 79.51  # OpenLLM average of an FP8 checkpoint over its original
    return Computed(f"{recovery:.1%} of the original's score", "HOLDS" if recovery > 1 - EXACT else "WRONG")


def spend_share() -> Computed:
    cited, origin = "Stanford AI Index 2025", "Deloitte"
    verdict = "MISATTRIBUTED" if origin not in cited else "HOLDS"
    return Computed(f"a projection of {origin}: a third in 2023, half in 2025, two thirds by the end of 2026", verdict)


def price_fall() -> Computed:
    factor = 20.00 / 0.07
    claimed_end, end = 2025, 2024
    claimed_quantity, quantity = "cost of running", "price"
    wrong = [text for holds, text in (
        (claimed_end != end, "dates"), (claimed_quantity != quantity, f'"{claimed_quantity}"')
    ) if holds]  # fmt: skip
    holds = abs(280 / factor - 1) <= ROUNDING
    verdict = chosen(((holds, "Factor HOLDS"), (bool(wrong), f"{' and '.join(wrong)} wrong")))
    return Computed(f"$20.00 (2022-11) to $0.07 (2024-10): {factor:.0f}, the price of a fixed MMLU score", verdict)


def contributor() -> Computed:
    submitters = {row["submitter"] for row in read_table("validation_mlperf_llm_full")}
    absent = not any("atal" in name.lower() for name in submitters)
    verdict = chosen(((absent, "No submission exists"), (True, "personal contribution UNVERIFIABLE")))
    return Computed(
        f"{len(submitters)} submitters of language-model results in v4.1 and v5.1, none of that name", verdict
    )


def engine_version() -> Computed:
    years = (date(2026, 4, 1) - date(2024, 6, 1)).days / 365.25
    verdict = f"STALE by ~{years:.0f} years" if years > 1 else "HOLDS"
    return Computed(f"0.5 is of 2024-06; MLPerf v5.1 ran 0.10; the article is of 2026-04: {years:.1f} years", verdict)


RULES: dict[str, Rule] = {
    "A47": fp8_gain, "A48": int4_gain, "A49": fp4_gain, "A50": quality, "A51": fp8_quality,
    "A58": spend_share, "A59": price_fall, "A60": contributor, "A61": engine_version,
}  # fmt: skip
