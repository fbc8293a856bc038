"""A1 to A10: KV cache, weights, how many GPUs."""

from __future__ import annotations

from inferd.planner.article.tools import KV_TOKEN, LLAMA, Computed, Rule, chosen, judged
from inferd.planner.hardware import device_named
from inferd.planner.memory import weights_of
from inferd.planner.precision import precision_named
from inferd.planner.shapes import ModelShape, preset

CONTEXT, USERS = 4096, 1000
CLAIMED_REQUEST, CLAIMED_USERS, CLAIMED_INT8 = 42e6, 42e9, 21e9  # bytes


def gigabytes(shape: ModelShape, precision: str) -> float:
    return weights_of(shape, precision_named(precision)).total / 1e9


def kv_of_a_request() -> Computed:
    actual = KV_TOKEN * CONTEXT
    bought = 2 ** round(CLAIMED_REQUEST / KV_TOKEN - 1).bit_length()  # the power of two that the claim pays for
    is_exact = bought < CONTEXT == round(actual / CLAIMED_REQUEST) * bought
    note = f" (exactly {CONTEXT}/{bought})" if is_exact else ""
    numbers = f"{actual:,.0f} B for {CONTEXT:,} tokens, {KV_TOKEN:,.0f} B each; 42 MB is what {bought} tokens cost"
    return Computed(numbers, judged(CLAIMED_REQUEST, actual) + note)


def kv_of_users() -> Computed:
    actual = USERS * KV_TOKEN * CONTEXT
    return Computed(f"{actual / 1e9:,.0f} GB; 8x H100 have 640 GB in all", judged(CLAIMED_USERS, actual))


def kv_in_int8() -> Computed:
    actual = USERS * KV_TOKEN * CONTEXT / 2
    is_half = CLAIMED_USERS / CLAIMED_INT8 == 2
    absolute = judged(CLAIMED_INT8, actual).replace("WRONG by", "WRONG")
    verdict = f"Ratio {'HOLDS' if is_half else 'WRONG'}, absolute {absolute}"
    return Computed(f"{actual / 1e9:,.0f} GB: half of the 16-bit cache", verdict)


def kv_formula() -> Computed:
    literal = 2 * LLAMA.attention_layers * LLAMA.heads * LLAMA.head_dim * CONTEXT * 2
    off, used = literal / (KV_TOKEN * CONTEXT), 8  # "8 heads, 128 head_dim", says the article beside the formula
    then = f"; text then uses {used}" if used == LLAMA.kv_heads else ""
    verdict = f"Formula AMBIGUOUS (x{off:.0f} off if read literally){then}" if off > 1 else "HOLDS"
    return Computed(
        f"with {LLAMA.heads} query heads {literal / 1e9:.2f} GB, with {LLAMA.kv_heads} KV heads an eighth", verdict
    )


def weights_bf16() -> Computed:
    actual = gigabytes(LLAMA, "bf16")
    return Computed(
        f"{LLAMA.total_params:,} parameters x 2 B = {actual:.1f} GB = {actual / 1.073741824:.2f} GiB",
        judged(140, actual),
    )


def weights_fp8() -> Computed:
    actual = gigabytes(LLAMA, "fp8")
    return Computed(f"{actual:.2f} GB with embeddings and head in 16 bits", judged(70, actual))


def weights_int4() -> Computed:
    actual, bare = gigabytes(LLAMA, "int4"), LLAMA.total_params / 2e9
    exception = (
        f" ({bare:.1f} GB only if embeddings are 4-bit too and scales free)" if abs(bare / 35 - 1) < 0.02 else ""
    )
    return Computed(f"{actual:.1f} GB with scales, zeros and 16-bit embeddings", judged(35, actual, 2) + exception)


def weights_nvfp4() -> Computed:
    actual, bits = gigabytes(LLAMA, "nvfp4"), 25e9 * 8 / LLAMA.total_params
    return Computed(f"{actual:.1f} GB; 25 GB would be {bits:.2f} bits per parameter", judged(25, actual, 1))


def one_node_for_70b() -> Computed:
    node = 8 * device_named("h100-sxm").mem_gb
    is_true, is_vacuous = node > gigabytes(LLAMA, "fp8"), node > gigabytes(LLAMA, "bf16")
    times = node / gigabytes(LLAMA, "bf16")
    verdict = "MISLEADING (true but vacuous)" if is_true and is_vacuous else "HOLDS" if is_true else "WRONG"
    return Computed(f"{node:.0f} GB already hold the 16-bit weights {times:.1f} times", verdict)


def devices_for_405b() -> Computed:
    """The smallest power of two of each card whose memory, nine tenths used, holds the weights."""
    shape, pairs = preset("llama-3-405b"), (
        ("H100", "h100-sxm", "bf16"), ("H200", "h200-sxm", "bf16"), ("H100", "h100-sxm", "fp8"),
        ("B200", "b200-sxm", "fp8"), ("B200", "b200-sxm", "nvfp4"),
    )  # fmt: skip
    counts = {(card, p): _smallest(gigabytes(shape, p) / (0.9 * device_named(d).mem_gb)) for card, d, p in pairs}
    inside = [pair for pair, count in counts.items() if 8 <= count <= 16]
    cards = "/".join(sorted({card for card, _ in inside}))
    formats = "-".join(p.upper() for p in dict.fromkeys(p for _, p in inside))
    verdict = chosen(((len(inside) < len(counts), f"HOLDS for {cards} {formats} only"),))
    return Computed(", ".join(f"{card} {p}: {count}" for (card, p), count in counts.items()), verdict)


def _smallest(needed: float) -> int:
    count = 1
    while count < needed:
        count *= 2
    return count


RULES: dict[str, Rule] = {
    "A1": kv_of_a_request, "A2": kv_of_users, "A3": kv_in_int8, "A4": kv_formula, "A5": weights_bf16,
    "A6": weights_fp8, "A7": weights_int4, "A8": weights_nvfp4, "A9": one_node_for_70b, "A10": devices_for_405b,
}  # fmt: skip
