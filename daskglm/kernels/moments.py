"""Mean and sum of squared deviations of a column in one reading, by which the arithmetic is later shifted and scaled."""

from __future__ import annotations

import numpy as np

from daskglm.kernels import native
from daskglm.kernels.blocks import NUMERIC_KINDS, Column

TILE = 1024


def column_moments(column: Column) -> tuple[float, float]:
    """(mean, sum of squared deviations from it) of a column; not finite where any value is not."""
    n = column.shape[0]
    if n == 0:
        return 0.0, 0.0
    shift = float(column[0])
    if not np.isfinite(shift):
        return shift, np.nan
    out = np.zeros(2)
    native.moments.sums(column.ctypes.data, NUMERIC_KINDS[column.dtype.str[1:]], n, shift, np.zeros(2 * TILE), out)
    with np.errstate(over="ignore", invalid="ignore"):
        return shift + float(out[0]) / n, max(float(out[1] - out[0] * out[0] / n), 0.0) if np.isfinite(
            out[1]
        ) else np.nan
