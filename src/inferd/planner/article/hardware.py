"""A11 to A24: the hardware table, links, and what a machine is bought for."""

from __future__ import annotations

import re

from inferd.planner.article.memory import gigabytes
from inferd.planner.article.tools import LLAMA, ROUNDING, Computed, Rule, chosen, factors, judged
from inferd.planner.hardware import device_named
from inferd.planner.precision import precision_named
from inferd.planner.roofline import Deployment, ridge_batch
from inferd.planner.shapes import preset
from inferd.planner.tables import Row, read_table

SPARSE = 2.0  # a 2:4-sparse rate over the dense one
H100, H200, B200 = device_named("h100-sxm"), device_named("h200-sxm"), device_named("b200-sxm")


def _raw(device: str) -> Row:
    return next(row for row in read_table("hardware_catalogue") if row["id"] == device)


def _dense(device: str, column: str) -> float:
    return float(_raw(device)[column])


def _is_close(a: float, b: float) -> bool:
    return abs(a / b - 1) <= ROUNDING


def h100_memory() -> Computed:
    claimed, actual = "HBM2e", _raw("h100-sxm")["mem_type"]
    other = f"{_raw('h100-pcie')['mem_type']} is the PCIe card at {device_named('h100-pcie').mem_bw_gbps:,.0f} GB/s"
    verdict = "HOLDS" if claimed == actual else "WRONG"
    return Computed(f"SXM5 has {actual} at {H100.mem_bw_gbps:,.0f} GB/s; {other}", verdict)


def h100_fp8() -> Computed:
    dense = _dense("h100-sxm", "fp8_dense_tflops")
    is_sparse = _is_close(3958, SPARSE * dense)
    return Computed(f"dense {dense:,.0f}", judged(3958, dense) + (" for LLM use" if is_sparse else ""))


def b200_column() -> Computed:
    fp8, fp4 = _dense("b200-sxm", "fp8_dense_tflops"), _dense("b200-sxm", "fp4_dense_tflops")
    value = "Value right" if _is_close(9000, fp4) else "Value wrong"
    column = "COLUMN wrong" if not _is_close(9000, fp8) else "COLUMN right"
    return Computed(f"dense FP8 {fp8:,.0f}, FP4 {fp4:,.0f}", f"{value}, {column}")


def b200_memory() -> Computed:
    missing = 1 - B200.mem_gb / 192
    verdict = f"WRONG by {missing:.0%} for planning" if missing > ROUNDING else "HOLDS"
    return Computed(f"{B200.mem_gb:g} GB can be used", verdict)


def mi300x_fp8() -> Computed:
    dense = _dense("mi300x", "fp8_dense_tflops")
    return Computed(f"dense {dense:,.0f}", judged(5220, dense))


def mi355x() -> Computed:
    published = [_dense("mi355x", column) for column in ("fp8_dense_tflops", "fp4_dense_tflops")]
    published.append(SPARSE * published[0])
    watts = _dense("mi355x", "tdp_w")
    matches = any(_is_close(8000, figure) for figure in published)
    power = judged(750, watts, 2)
    verdict = chosen(((not matches, "FLOPs match NO published figure"), (power != "HOLDS", f"TDP {power}")))
    return Computed(f"FP8 {published[0]:,.0f} dense, {published[2]:,.0f} sparse; {watts:,.0f} W", verdict)


def gaudi3() -> Computed:
    row = _raw("gaudi3-oam")
    claimed = {"mem_gb": 128, "mem_bw_gbps": 3700, "bf16_dense_tflops": 1835, "tdp_w": 900}
    same = row["mem_type"] == "HBM2e" and all(float(row[column]) == value for column, value in claimed.items())
    return Computed(
        f"{row['mem_gb']} GB {row['mem_type']}, BF16 {row['bf16_dense_tflops']}", "HOLDS" if same else "WRONG"
    )


def tpu_v5e() -> Computed:
    row = _raw("tpu-v5e")
    is_int8 = row["fp8_dense_tflops"] == "" and _is_close(393, float(row["int8_dense_tops"]))
    verdict = chosen(((is_int8, "Precision WRONG"), (row["tdp_w"] == "", "TDP UNVERIFIABLE")))
    return Computed(
        f"INT8 {row['int8_dense_tops']}, BF16 {row['bf16_dense_tflops']}, no FP8, no published TDP", verdict
    )


def l40s_fp8() -> Computed:
    dense = _dense("l40s", "fp8_dense_tflops")
    off_sparse = SPARSE * dense / 1457 - 1
    verdict = f"{judged(1457, dense)} (and by {off_sparse:.1%} against the sparse figure)"
    return Computed(f"dense {dense:,.0f}, sparse {SPARSE * dense:,.0f}", verdict)


def nvlink() -> Computed:
    pcie = 2 * float(_raw("h100-sxm")["pcie_gbps_per_dir"])
    ratio = 900 / pcie
    return Computed(f"900 / {pcie:.0f} GB/s both ways = {ratio:.1f}", judged(18, ratio, 1))


def network_of_405b() -> Computed:
    needed, node = gigabytes(preset("llama-3-405b"), "fp8"), 8 * H100.mem_gb
    fits_one_node = needed < node
    verdict = chosen(((fits_one_node, "CONTRADICTORY as stated"), (True, "UNVERIFIABLE")))
    return Computed(f"{needed:.0f} GB in FP8 fit the {node:.0f} GB of one node, whose traffic runs on NVLink", verdict)


def bandwidth_not_flops() -> Computed:
    cards = ((H100, "fp8"), (H200, "fp8"), (B200, "nvfp4"))
    ridges = [ridge_batch(Deployment(LLAMA, precision_named(name), 2.0, card)) for card, name in cards]
    served = [
        int(m[1]) for row in read_table("validation_points") if (m := re.search(r"max batch (\d+)", row["parallelism"]))
    ]
    is_half = all(ridge > 1 for ridge in ridges) and max(served) > max(ridges)
    numbers = (
        f"arithmetic-bound from batch {', '.join(f'{r:.0f}' for r in ridges)}; MLPerf configs run up to {max(served)}"
    )
    return Computed(numbers, "HALF TRUE (only at small batch)" if is_half else "HOLDS")


def h200_training() -> Computed:
    """No training run is among the points; what the vendor claimed is recalled, not re-checked."""
    lora, gnn = 0.14, 0.47
    training = [row for row in read_table("validation_points") if "training" in row["source"].lower()]
    verdict = f"UNVERIFIABLE here (recalled: {lora:+.0%} Llama-2-70B LoRA, up to {gnn:+.0%} GNN)"
    numbers = f"{len(training)} training runs in the data; {H200.mem_gb / H100.mem_gb:.2f} times the memory of H100"
    return Computed(numbers, verdict if not training else "WRONG")


def edge_power() -> Computed:
    limit, least = 5.0, 15.0  # W: of the class, and of an AGX Orin in its lowest mode
    most = _dense("jetson-agx-orin-64", "tdp_w")
    verdict = f"SELF-CONTRADICTORY ({factors(least / limit, most / limit)})" if least > limit else "HOLDS"
    return Computed(f"AGX Orin draws {least:.0f} to {most:.0f} W", verdict)


RULES: dict[str, Rule] = {
    "A11": h100_memory, "A12": h100_fp8, "A13": b200_column, "A14": b200_memory, "A15": mi300x_fp8, "A16": mi355x,
    "A17": gaudi3, "A18": tpu_v5e, "A19": l40s_fp8, "A20": nvlink, "A21": network_of_405b,
    "A22": bandwidth_not_flops, "A23": h200_training, "A24": edge_power,
}  # fmt: skip
