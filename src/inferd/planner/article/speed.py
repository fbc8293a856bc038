"""A25 to A29 and A52 to A57: throughput, latency, prefill, batching, speculation, CPUs."""

from __future__ import annotations

import re

from inferd.planner.article.tools import KV_TOKEN, LLAMA, ROUNDING, Computed, Rule, chosen, factors, point, rate
from inferd.planner.hardware import device_named
from inferd.planner.memory import weights_of
from inferd.planner.precision import precision_named
from inferd.planner.roofline import ALLREDUCE_S
from inferd.planner.speculation import speedup

H100, H200 = device_named("h100-sxm"), device_named("h200-sxm")


def _against(claimed: float, ids: tuple[str, ...], suffix: str = "") -> tuple[str, str]:
    """(numbers, LOW by x..) of measured points."""
    rates = [rate(name) for name in ids]
    ratios = sorted(value / claimed for value in rates)
    numbers = ", ".join(f"{name}: {value:,.0f}" for name, value in zip(ids, rates, strict=True))
    return f"{numbers} tok/s", f"LOW by {factors(ratios[0], ratios[-1])}{suffix}" if ratios[0] > 1.5 else "HOLDS"


def h100_rate() -> Computed:
    numbers, low = _against(2800, ("MLP-001", "MLP-002", "TRT-085"), " against the best of the same year")
    vllm = 2 * rate("MLP-021")  # four GPUs, vLLM 0.5.2
    old = abs(2800 / vllm - 1) <= ROUNDING
    version = re.sub(r"\.\d+$", "", point("MLP-021")["framework"])
    verdict = chosen(((True, low), (old, f"CONSISTENT with {version} of mid-2024")))
    return Computed(f"{numbers}; {point('MLP-021')['framework']} on 8: {vllm:,.0f}", verdict)


def h200_rate() -> Computed:
    return Computed(*_against(3600, ("MLP-003", "MLP-043", "TRT-087")))


def b200_rate() -> Computed:
    return Computed(*_against(7200, ("MLP-026", "MLP-027", "TRT-091")))


def mi300x_rate() -> Computed:
    return Computed(*_against(3200, ("MLP-015", "MLP-016", "MLP-054")))


def rate_with_itl() -> Computed:
    batch, context, tp = 2800 * 0.030, 2048, 8
    weights = weights_of(LLAMA, precision_named("fp8")).total / tp
    cache = batch * context * KV_TOKEN / tp
    overhead = 2 * LLAMA.layers * ALLREDUCE_S + 1e-3
    step = (weights + cache) / (0.8 * H100.bandwidth) + overhead
    share = 2800 / (batch / step)
    numbers = f"{batch:.0f} sequences, {step * 1e3:.1f} ms a step, {batch / step:,.0f} tok/s"
    verdict = f"Measured figure is {share:.0%} of an 80%-of-peak roofline: possible, but software-bound"
    return Computed(numbers, verdict if share < 0.5 else "HOLDS")


def _attention_share(tokens: int) -> float:
    """Of a prompt's FLOPs."""
    attention = LLAMA.prefill_flops(tokens) - 2 * LLAMA.dense_params * tokens
    return attention / LLAMA.prefill_flops(tokens)


def prefill_is_linear() -> Computed:
    ratio = LLAMA.prefill_flops(2048) / LLAMA.prefill_flops(1024)
    linear_to = max(n for n in (2**k for k in range(10, 18)) if _attention_share(n) < 0.1)
    shares = ", ".join(f"{_attention_share(n * 1024):.0%} at {n}k" for n in (8, 32, 128))
    verdict = f"HOLDS below ~{linear_to // 1024}k" if abs(ratio / 2 - 1) < 0.02 else "WRONG"
    return Computed(f"2,048 over 1,024 tokens: {ratio:.3f}; attention is {shares} tokens", verdict)


def latency_drivers() -> Computed:
    """FLOPs per byte of weights against what the card needs: prompts are above, small decode batches below."""
    balance = H100.peak_flops("fp8").value / H100.bandwidth
    prompt, decode = 2 * 1024.0, 2 * 16.0
    is_swapped = prompt > balance > decode
    numbers = f"FLOPs per byte: a 1,024-token prompt {prompt:.0f}, decode at batch 16 {decode:.0f}, H100 {balance:.0f}"
    return Computed(numbers, "SELF-CONTRADICTORY" if is_swapped else "HOLDS")


def continuous_batching() -> Computed:
    orca, vllm = 2022, 2023  # OSDI, SOSP
    claimed, measured = "GPU utilization", "throughput"  # the quantity that is 2 to 4 times
    verdict = chosen(((orca < vllm, "WRONG attribution"), (claimed != measured, "quantity misquoted")))
    return Computed(f"iteration-level scheduling: Orca {orca}, vLLM {vllm}; vLLM's 2-4x is of {measured}", verdict)


def speculation() -> Computed:
    low, claimed = 1.5, 2.8
    paper = (2.7, 3.5)  # EAGLE at batch 1
    one, full = speedup(0.8, 5, 0.05, 1.0), speedup(0.8, 5, 0.05, 3.0)
    holds_at_one = paper[0] <= claimed <= paper[1] and one > low
    verdict = "HOLDS at batch 1 only" if holds_at_one and full < low else "HOLDS" if holds_at_one else "WRONG"
    return Computed(f"acceptance 0.8, 5 guesses: {one:.2f}x alone, {full:.2f}x when a verify step costs 3", verdict)


def cpu_rate() -> Computed:
    size = re.search(r"([\d.]+) GiB", point("LCP-001Q")["precision"])
    assert size is not None
    gigabytes = float(size[1]) * 1.073741824
    socket = device_named("xeon-8592p").mem_bw_gbps
    shares = [rate * gigabytes / socket for rate in (25, 35)]
    reached = 0.56  # of its bandwidth: EPYC 9554, same format
    verdict = "HOLDS (plausible)" if shares[1] <= reached else "WRONG"
    return Computed(f"{shares[0]:.0%} to {shares[1]:.0%} of one socket's {socket:g} GB/s", verdict)


def tail_latency() -> Computed:
    h100, busy = point("MLP-002"), point("MLP-060")
    tpot = float(h100["tpot_p99_ms"]) / float(h100["tpot_p50_ms"])
    ttft = [float(row["ttft_p99_ms"]) / float(row["ttft_p50_ms"]) for row in (h100, busy)]
    verdict = chosen(((tpot < 2, "HOLDS for TPOT"), (ttft[1] > 2, "not for TTFT near saturation")))
    return Computed(f"p99/p50: TPOT {tpot:.2f}, TTFT {ttft[0]:.2f} and, near saturation, {ttft[1]:.1f}", verdict)


RULES: dict[str, Rule] = {
    "A25": h100_rate, "A26": h200_rate, "A27": b200_rate, "A28": mi300x_rate, "A29": rate_with_itl,
    "A52": prefill_is_linear, "A53": latency_drivers, "A54": continuous_batching, "A55": speculation,
    "A56": cpu_rate, "A57": tail_latency,
}  # fmt: skip
