"""Cost and capacity planner: plan(...) -> Report. Pure: it imports neither engine nor models."""

from inferd.planner.calibrate import Calibration
from inferd.planner.cost import CostInputs
from inferd.planner.figure import Figure
from inferd.planner.hardware import Device, Node
from inferd.planner.planning import compare, plan
from inferd.planner.report import Report
from inferd.planner.shapes import ModelShape
from inferd.planner.workload import Workload

__all__ = [
    "Calibration",
    "CostInputs",
    "Device",
    "Figure",
    "ModelShape",
    "Node",
    "Report",
    "Workload",
    "compare",
    "plan",
]
