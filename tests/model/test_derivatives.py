"""Numerical derivatives against those of mpmath."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from daskglm.model.derivatives import complex_step, differences, takes_complex

EPS = float(np.finfo(np.float64).eps)
# A complex step subtracts nothing.
EXACT = 16 * EPS
# Differences lose the rounding of f over the step, and of f over its square.
FIRST = 1e-12
SECOND = 1e-9

LINE = (-np.inf, np.inf)
# A function, the same for mpmath, where it is defined, points.
FUNCTIONS: list[tuple[Callable[[Any], Any], Callable[[Any], Any], tuple[float, float], tuple[float, ...]]] = [
    (np.exp, mp.exp, LINE, (-40.0, -1.0, 0.0, 3.0, 40.0)),
    (lambda x: np.exp(1000.0 * x), lambda x: mp.exp(1000 * x), LINE, (-0.01, 0.0, 0.02)),
    (lambda x: x**3 + x, lambda x: x**3 + x, LINE, (-1e6, 0.5, 3.0)),
    (lambda x: -np.log(-x), lambda x: -mp.log(-x), (-np.inf, 0.0), (-1e9, -1.0, -1e-9)),
    (lambda x: np.sqrt(x * (1.0 - x)), lambda x: mp.sqrt(x * (1 - x)), (0.0, 1.0), (1e-3, 0.3, 0.9)),
    (lambda x: np.log1p(np.exp(x)), lambda x: mp.log1p(mp.exp(x)), LINE, (-30.0, -1.0, 0.0, 8.0)),
]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """As callers compute."""
    with np.errstate(all="ignore"):
        yield


def truth(exact: Callable[[Any], Any], points: tuple[float, ...], order: int) -> np.ndarray:
    with mp.workdps(50):
        return np.array([float(mp.diff(exact, mpf(x), order, h=mpf(10) ** -16)) for x in points])


@pytest.mark.parametrize("case", FUNCTIONS)
def test_complex_step(case: Any) -> None:
    function, exact, ends, points = case
    x = np.array(points)
    assert takes_complex(function, x, *ends)
    assert np.allclose(complex_step(function, x, *ends), truth(exact, points, 1), rtol=EXACT)


@pytest.mark.parametrize("order, relative", [(1, FIRST), (2, SECOND)])
@pytest.mark.parametrize("case", FUNCTIONS)
def test_differences(case: Any, order: int, relative: float) -> None:
    """And the error they own up to, but for its last digit."""
    function, exact, ends, points = case
    x = np.array(points)
    value, error = differences(function, x, *ends, order=order)
    expected = truth(exact, points, order)
    # a scale of 1 / 1000 is found by smaller attempts; the roundings of a sum count by its terms
    size = np.abs(expected) + (np.abs(function(x)) * 1e-3 if order == 1 else np.abs(truth(exact, points, 1)) * 1e-3)
    assert np.all(np.abs(value - expected) <= 100 * relative * size)
    assert np.all(np.abs(value - expected) <= 100 * error + relative * size)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.abs(x) ** 3,
        lambda x: np.logaddexp(0.0, x),
        lambda x: x.real**2,
        lambda x: np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))),
        lambda x: np.array([float(v) for v in x]) ** 2,
    ],
)
def test_functions_that_take_no_complex_numbers(function: Callable[[Any], Any]) -> None:
    assert not takes_complex(function, np.array([-1.5, 0.7, 3.0]))


def test_nothing_is_asked_outside_the_ends() -> None:
    seen: list[float] = []

    def function(x: np.ndarray) -> np.ndarray:
        seen.extend(np.real(x))
        return x * x

    x = np.array([1e-12, 0.5, 1.0 - 1e-12])
    differences(function, x, 0.0, 1.0)
    differences(function, x, 0.0, 1.0, order=2)
    complex_step(function, x, 0.0, 1.0)
    assert min(seen) > 0.0
    assert max(seen) < 1.0


def test_a_number_that_overflowed_has_no_derivative() -> None:
    """Its argument is an angle all the same."""
    assert np.isnan(complex_step(lambda x: np.log(np.expm1(np.exp(x))), np.array([7.0]))[0])
    assert complex_step(np.exp, np.array([1e-3, 700.0]))[1] == pytest.approx(np.exp(700.0), rel=EXACT)
