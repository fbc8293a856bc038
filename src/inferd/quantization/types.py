"""The element types of model files and the weight that carries one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class TensorType(IntEnum):
    """GGUF's numbers, so that a file's type field is the enum's value."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    BF16 = 30


# type -> (values per block, bytes per block)
BLOCK_SIZES: dict[TensorType, tuple[int, int]] = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.Q2_K: (256, 84),
    TensorType.Q3_K: (256, 110),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
}


def row_bytes(kind: TensorType, num_cols: int) -> int:
    """Bytes of one row; raises ValueError when the row is not whole blocks."""
    values, size = BLOCK_SIZES[kind]
    if num_cols % values:
        raise ValueError(f"a row of {num_cols} values is not whole {kind.name} blocks of {values}")
    return num_cols // values * size


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor as the file has it, row by row.

    data: uint8, (num_rows, row_bytes(kind, num_cols)); often a read-only view of the mapped file. A vector has one row.
    """

    name: str
    kind: TensorType
    num_rows: int
    num_cols: int
    data: npt.NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)
