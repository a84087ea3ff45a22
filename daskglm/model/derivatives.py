"""Derivatives of functions that are known only by their values: by a complex step, or by extrapolated differences.

Sources: Squire and Trapp (1998), SIAM Review 40, for the complex step f'(x) = Im f(x + i h) / h, which subtracts nothing
and so has all digits; Ridders (1982), Advances in Engineering Software 4, for differences extrapolated to step 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Function = Callable[[Vector], Vector]

EPS = float(np.finfo(np.float64).eps)
# Of the scale of x. Its square is nothing beside 1, and 1e-270 can still be multiplied by it.
COMPLEX_STEP = 1e-30
# Differences: the first step as a part of the distance to where the function ends, how often it is halved, by how much a
# new attempt is smaller, and how often a new attempt is made where the error is not yet this part of the value.
REACH = 0.25
HALVINGS = 6
SMALLER = 1.0 / 32.0
ATTEMPTS = 4
RELATIVE = 1e-11
# A complex step that is right agrees with differences to many more digits than this.
AGREEMENT = 1e-6


def scale(x: Vector, low: float, high: float) -> Vector:
    """How far x may move in either direction, at most its own size (or 1)."""
    room = np.minimum(x - low, high - x)
    return np.asarray(np.minimum(room, np.maximum(1.0, np.abs(x))))


def complex_step(function: Function, x: Vector, low: float = -np.inf, high: float = np.inf) -> Vector:
    """f'(x) of a function that is analytic as it is written."""
    step = COMPLEX_STEP * scale(x, low, high)
    value = np.asarray(function(x + 1j * step))  # type: ignore[arg-type]
    # the argument of a number that overflowed is an angle all the same
    return np.where(np.isfinite(value.real), value.imag / step, np.nan)


def takes_complex(function: Function, x: Vector, low: float = -np.inf, high: float = np.inf) -> bool:
    """Whether the complex step gives the derivative at each x where there is one: a function may refuse complex numbers,
    or drop their imaginary part (an absolute value does).
    """
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = complex_step(function, x, low, high)
        except Exception:  # it is the user's function: whatever it does with a complex number, it does not take it
            return False
        truth, error = differences(function, x, low, high)
    allowed = AGREEMENT * np.abs(truth) + 10.0 * error
    looked_at = np.isfinite(truth) & np.isfinite(allowed)
    return found.shape == x.shape and bool(np.all(np.abs(found - truth)[looked_at] <= allowed[looked_at]))


def differences(
    function: Function, x: Vector, low: float = -np.inf, high: float = np.inf, order: int = 1
) -> tuple[Vector, Vector]:
    """f'(x), or f''(x) where order is 2, and an estimate of its absolute error. f is not evaluated outside (low, high)."""
    step = REACH * scale(x, low, high)
    value, error = _extrapolated(function, x, step, order)
    for _ in range(ATTEMPTS):
        worse = np.flatnonzero(~(error <= RELATIVE * np.abs(value)))
        if worse.size == 0:
            break
        step = step * SMALLER
        again, its_error = _extrapolated(function, x[worse], step[worse], order)
        better = ~(its_error >= error[worse])
        if not better.any():
            break
        value[worse[better]], error[worse[better]] = again[better], its_error[better]
    return value, error


def _extrapolated(function: Function, x: Vector, step: Vector, order: int) -> tuple[Vector, Vector]:
    """Neville's table of central differences in the square of the step; of each row's entries the one that is most sure."""
    value, error = np.full(x.shape, np.nan), np.full(x.shape, np.inf)
    center = function(x) if order == 2 else x
    before: list[Vector] = []
    for k in range(HALVINGS):
        up, down = x + step * 0.5**k, x - step * 0.5**k
        above, below = function(up), function(down)
        # a difference of values that agree by chance, or to all digits, is not a sure one
        rounding = EPS * np.maximum(np.abs(above), np.abs(below)) / (up - x) ** order
        if order == 1:
            row = [np.asarray((above - below) / (up - down))]
        else:
            # steps are as exact as x + h - x, and need not be equal
            row = [2.0 * ((above - center) / (up - x) - (center - below) / (x - down)) / (up - down)]
        for j, earlier in enumerate(before, 1):
            row.append(row[-1] + (row[-1] - earlier) / (4.0**j - 1.0))
            doubt = np.maximum(rounding, np.maximum(np.abs(row[j] - row[j - 1]), np.abs(row[j] - earlier)))
            better = doubt < error
            value, error = np.where(better, row[j], value), np.where(better, doubt, error)
        before = row
    return value, error
