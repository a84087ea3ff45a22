"""The order of the additions and the single rounding of fused products, which the bits rest on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from daskglm.kernels.native.compiled import kernel
from daskglm.kernels.native.lanes import LANES, add, fma, fold, load, spread, store, zero


@kernel("float64(float64[::1])")
def _folded(x):  # type: ignore[no-untyped-def]
    return fold(load(x, 0))


@kernel("void(float64[::1], float64[::1], float64[::1], float64[::1])")
def _fused(a, b, c, out):  # type: ignore[no-untyped-def]
    store(out, 1, fma(load(a, 0), load(b, 0), load(c, 0)))


@kernel("void(float64[::1], float64, float64[::1])")
def _added(a, value, out):  # type: ignore[no-untyped-def]
    store(out, 0, add(load(a, 3), spread(value)))
    store(out, 8, zero())


def test_fold_adds_in_the_stated_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        x = rng.normal(size=LANES) * 10.0 ** rng.integers(-8, 9, LANES)
        assert _folded(x) == ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))


def test_fma_rounds_once() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, b = rng.normal(size=LANES), rng.normal(size=LANES)
        # the sum cancels all but the rounding of the product, which two roundings would lose
        c = -(a * b)
        out = np.full(LANES + 2, np.nan)
        _fused(a, b, c, out)
        exact = [float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in zip(a, b, c, strict=True)]
        assert out[1:-1].tolist() == exact
        assert np.any(out[1:-1] != 0.0)
        assert np.isnan(out[[0, -1]]).all()


@pytest.mark.parametrize("value", [0.1, -3.0])
def test_add_spread_and_zero_at_any_place(value: float) -> None:
    a = np.random.default_rng(2).normal(size=20)
    out = np.full(20, np.nan)
    _added(a, value, out)
    assert np.array_equal(out[:8], a[3:11] + value)
    assert np.array_equal(out[8:16], np.zeros(8))
    assert np.isnan(out[16:]).all()
