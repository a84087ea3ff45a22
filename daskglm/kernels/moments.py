"""Mean and sum of squared deviations of a column in one reading, by which the arithmetic is later shifted and scaled."""

from __future__ import annotations

import numpy as np

from daskglm.kernels.blocks import NUMERIC_KINDS, Column
from daskglm.kernels.compiled import kernel
from daskglm.kernels.lanes import fma, fold, load, zero
from daskglm.kernels.products import standardised

_TILE = 1024


@kernel("void(int64, int64, int64, float64, float64[::1], float64[::1])")
def _sums(address, kind, n, shift, tile, out):  # type: ignore[no-untyped-def]
    """out += sum (x - shift), sum (x - shift)^2."""
    ones = tile[_TILE:]
    ones[:] = 1.0
    first = 0.0
    second = 0.0
    for t in range(0, n, _TILE):
        m = min(_TILE, n - t)
        tile[m:_TILE] = 0.0
        standardised(address, kind, t, shift, 1.0, tile[:m])
        s1 = zero()
        s2 = zero()
        for i in range(0, _TILE, 8):
            x = load(tile, i)
            s1 = fma(x, load(ones, i), s1)
            s2 = fma(x, x, s2)
        first += fold(s1)
        second += fold(s2)
    out[0] = first
    out[1] = second


def column_moments(column: Column) -> tuple[float, float]:
    """(mean, sum of squared deviations from it) of a column; not finite where any value is not."""
    n = column.shape[0]
    if n == 0:
        return 0.0, 0.0
    shift = float(column[0])
    if not np.isfinite(shift):
        return shift, np.nan
    out = np.zeros(2)
    _sums(column.ctypes.data, NUMERIC_KINDS[column.dtype.str[1:]], n, shift, np.zeros(2 * _TILE), out)
    with np.errstate(over="ignore", invalid="ignore"):
        return shift + float(out[0]) / n, max(float(out[1] - out[0] * out[0] / n), 0.0) if np.isfinite(
            out[1]
        ) else np.nan
