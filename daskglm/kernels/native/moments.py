"""A compiled reading of one column."""

from __future__ import annotations

from daskglm.kernels.moments import TILE
from daskglm.kernels.native.compiled import kernel
from daskglm.kernels.native.lanes import fma, fold, load, zero
from daskglm.kernels.native.products import standardised


@kernel("void(int64, int64, int64, float64, float64[::1], float64[::1])")
def sums(address, kind, n, shift, tile, out):  # type: ignore[no-untyped-def]
    """out += sum (x - shift), sum (x - shift)^2."""
    ones = tile[TILE:]
    ones[:] = 1.0
    first = 0.0
    second = 0.0
    for t in range(0, n, TILE):
        m = min(TILE, n - t)
        tile[m:TILE] = 0.0
        standardised(address, kind, t, shift, 1.0, tile[:m])
        s1 = zero()
        s2 = zero()
        for i in range(0, TILE, 8):
            x = load(tile, i)
            s1 = fma(x, load(ones, i), s1)
            s2 = fma(x, x, s2)
        first += fold(s1)
        second += fold(s2)
    out[0] = first
    out[1] = second
