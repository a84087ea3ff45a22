"""Means and sums of squares of a column, against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from daskglm.kernels.blocks import NUMERIC_KINDS
from daskglm.kernels.moments import column_moments

EPS = float(np.finfo(np.float64).eps)
# Eight lanes of 128 additions per tile, then one addition per tile: roundings of the sums of absolute values.
ROUNDINGS = 160.0

SIZES = [1, 2, 7, 8, 9, 1023, 1024, 1025, 3000]


def exact(values: np.ndarray) -> tuple[Fraction, Fraction]:
    fractions = [Fraction(v.item()) for v in values]
    mean = sum(fractions, Fraction(0)) / len(fractions)
    return mean, sum(((v - mean) ** 2 for v in fractions), Fraction(0))


def assert_close(values: np.ndarray) -> None:
    """To roundings of the deviations from the first value, by which the sums are shifted."""
    mean, squares = column_moments(values)
    true_mean, true_squares = exact(values)
    shifted = [abs(float(Fraction(v.item()) - Fraction(values[0].item()))) for v in values]
    size = sum(shifted) / len(shifted)
    assert abs(Fraction(mean) - true_mean) <= EPS * (abs(float(true_mean)) + ROUNDINGS * size)
    assert abs(Fraction(squares) - true_squares) <= EPS * ROUNDINGS * sum(v * v for v in shifted)


@pytest.mark.parametrize("kind", NUMERIC_KINDS)
@pytest.mark.parametrize("n", SIZES)
def test_every_width(kind: str, n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(3.0, 40.0, n).clip(-128, 127).astype(kind)
    assert_close(values)


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8"])
def test_whole_numbers_are_exact(kind: str) -> None:
    values = np.random.default_rng(1).integers(-100, 100, 1024).astype(kind)
    mean, squares = column_moments(values)
    true_mean, true_squares = exact(values)
    assert Fraction(mean) == true_mean
    assert Fraction(squares) == true_squares


@pytest.mark.parametrize("where", [1e6, 1e12, -1e15])
def test_far_from_zero(where: float) -> None:
    """A deviation keeps its digits beside a mean many times its size."""
    assert_close(where + np.random.default_rng(2).integers(-8, 9, 2000).astype(float))


def test_an_unusual_first_value() -> None:
    values = np.random.default_rng(3).normal(size=2000)
    values[0] = 1e8
    assert_close(values)


@pytest.mark.parametrize("value", [0.0, 0.1, -7e300, 5e-324])
@pytest.mark.parametrize("n", [1, 1000, 5000])
def test_constant_columns_have_no_deviation(value: float, n: int) -> None:
    assert column_moments(np.full(n, value)) == (value, 0.0)


def test_no_rows() -> None:
    assert column_moments(np.zeros(0)) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 1500, 2999])
@pytest.mark.parametrize("kind", ["f8", "f4"])
def test_a_value_that_is_not_finite_shows(bad: float, place: int, kind: str) -> None:
    values = np.random.default_rng(4).normal(size=3000).astype(kind)
    values[place] = bad
    mean, squares = column_moments(values)
    assert not (np.isfinite(mean) and np.isfinite(squares))
