"""Numbers as unevaluated sums of two float64, high + low: about 32 digits, vectorised.

Error-free transformations after Dekker (1971) and Ogita, Rump and Oishi (2005), sums after Rump's extraction of leading
parts (2008). They need plain IEEE arithmetic, which NumPy's is; nothing here may be compiled with reassociation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Twofold = tuple[Vector, Vector]

# 2^27 + 1 splits the 53 bits of a float64 in halves whose products are exact.
_SPLITTER = 134_217_729.0


def two_sum(a: Any, b: Any) -> Twofold:
    """(a + b rounded, what rounding left out), without error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Any, b: Any) -> Twofold:
    """(a b rounded, what rounding left out), without error below 1e300."""
    product = a * b
    first = _SPLITTER * a
    a_high = first - (first - a)
    a_low = a - a_high
    second = _SPLITTER * b
    b_high = second - (second - b)
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def add(one: Twofold, other: Twofold) -> Twofold:
    """The sum of two twofold numbers."""
    high, left = two_sum(one[0], other[0])
    low, rest = two_sum(one[1], other[1])
    high, left = two_sum(high, left + low)
    return two_sum(high, left + rest)


def times(one: Twofold, factor: Any) -> Twofold:
    """A twofold number times a float64."""
    high, left = two_product(one[0], factor)
    return two_sum(high, left + one[1] * factor)


def leading(values: Vector) -> Twofold:
    """(leading parts whose sum has no rounding error in any order, the rest of each)."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return values, np.zeros_like(values)
    exponent = int(np.frexp(largest)[1]) + int(np.ceil(np.log2(max(values.size, 2)))) + 1
    ruler = float(np.ldexp(1.0, min(exponent, 1023)))
    high = (ruler + values) - ruler
    return high, values - high


def total(values: Vector, low: Vector | None = None) -> Twofold:
    """The sum of values (n,), and of what else there is of each."""
    high, rest = leading(values)
    more = rest.sum() if low is None else rest.sum() + low.sum()
    return two_sum(high.sum(), more)


def totals_by(codes: npt.NDArray[Any], values: Vector, low: Vector, size: int) -> Twofold:
    """The sums of values (n,) and of what else there is of each, by code (size,)."""
    high, rest = leading(values)
    return two_sum(np.bincount(codes, high, size).astype(np.float64, copy=False), np.bincount(codes, rest + low, size))
