"""Twofold arithmetic against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from daskglm.kernels.twofold import add, leading, times, total, totals_by, two_product, two_sum

# Of numbers with 106 bits, the last few are lost in an addition of two.
TWOFOLD = Fraction(1, 2**102)
# Of a sum, those below 2^-38 of its largest term are added in plain arithmetic.
SUM = Fraction(1, 2**72)


def values(n: int, seed: int, spread: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) * 2.0 ** rng.integers(-spread, spread, n)


def exact(pair: tuple[np.ndarray, np.ndarray], i: int) -> Fraction:
    return Fraction(float(pair[0][i])) + Fraction(float(pair[1][i]))


def test_sums_and_products_lose_nothing() -> None:
    a, b = values(500, 1), values(500, 2)
    both = two_sum(a, b), two_product(a, b)
    for i in range(500):
        x, y = Fraction(a[i]), Fraction(b[i])
        assert exact(both[0], i) == x + y
        assert exact(both[1], i) == x * y
    assert np.array_equal(both[0][0], a + b)
    assert np.array_equal(both[1][0], a * b)


def test_twofold_numbers_add_and_are_multiplied() -> None:
    one, other = two_product(values(300, 3), values(300, 4)), two_product(values(300, 5), values(300, 6))
    other = two_sum(other[0], other[1])
    factor = values(300, 7)
    summed, product = add(one, other), times(one, factor)
    for i in range(300):
        x, y, f = exact(one, i), exact(other, i), Fraction(factor[i])
        assert abs(exact(summed, i) - x - y) <= TWOFOLD * (abs(x) + abs(y))
        assert abs(exact(product, i) - x * f) <= TWOFOLD * abs(x * f)


def test_twofold_numbers_that_cancel() -> None:
    """Leading parts that are equal leave what is behind them."""
    high, low = np.full(3, 1.0e8), np.array([1e-9, 2.0**-40, -3e-10])
    found = add((high, low), (-high, np.array([0.0, 2.0**-60, 1e-10])))
    for i, expected in enumerate(low):
        assert exact(found, i) == Fraction(expected) + Fraction([0.0, 2.0**-60, 1e-10][i])


@pytest.mark.parametrize("n", [1, 2, 100, 16_384])
def test_a_sum_of_terms_that_cancel(n: int) -> None:
    terms = values(n, 8, 10)
    terms = np.concatenate([terms, -terms[::-1], [1.0]])
    high, rest = leading(terms)
    assert float(high.sum()) == float(high[::-1].cumsum()[-1])
    assert np.array_equal(high + rest, terms)
    found = total(terms)
    largest = Fraction(float(np.abs(terms).max()))
    assert abs(Fraction(float(found[0])) + Fraction(float(found[1])) - 1) <= SUM * largest


def test_sums_by_code() -> None:
    terms, low = two_product(values(2_000, 9, 8), values(2_000, 10, 8))
    codes = np.random.default_rng(11).integers(0, 5, 2_000).astype(np.int8)
    found = totals_by(codes, terms, low, 7)
    for level in range(7):
        here = codes == level
        expected = sum((Fraction(a) + Fraction(b) for a, b in zip(terms[here], low[here], strict=True)), Fraction(0))
        assert abs(exact(found, level) - expected) <= SUM * Fraction(float(np.abs(terms).max()))


def test_nothing_and_what_is_not_finite() -> None:
    assert total(np.zeros(0))[0] == 0.0
    assert total(np.zeros(4))[0] == 0.0
    with np.errstate(all="ignore"):
        assert not np.isfinite(total(np.array([1.0, np.inf]))[0])
        assert np.isnan(total(np.array([1.0, np.nan]))[0])
