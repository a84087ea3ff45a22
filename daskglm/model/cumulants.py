"""Cumulants of a sufficient statistic from the log-partition function: K(theta) = log Z(theta), mu = K', V = K'', Psi = K'^-1.

What is not given is derived: the mean by a complex step where log Z takes complex numbers, by extrapolated differences
where it does not; higher derivatives by differences of that; Psi by a search in a table and secants within a bracket.
Source: Barndorff-Nielsen, Information and Exponential Families (1978), chapter 9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError
from daskglm.model.derivatives import complex_step, differences, takes_complex

Vector = npt.NDArray[np.float64]
Function = Callable[[Vector], Vector]

EPS = float(np.finfo(np.float64).eps)
# A limit of the mean this near to a landmark is meant to be it, and one beyond the other number is infinite.
NEAR = 1e-7
BEYOND = 1e8
# So many cells of the table from its end, over which a mean that has a limit nearly stands still.
STRETCH = 20
# Secants need about five steps, and bisection of a cell of the table 50.
MOST_STEPS = 100
# A supremum is reached where it no longer rises by more than its rounding, if that is below this.
CERTAIN = 1e-9


def spread_over(low: float, high: float) -> Vector:
    """Nine points of an interval, none extreme: about 0 on the line, by distance from the end on a half-line."""
    if np.isfinite(low) and np.isfinite(high):
        return low + (high - low) * np.array([0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98])
    distances = np.array([0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0])
    if np.isfinite(low):
        return low + distances
    if np.isfinite(high):
        return high - distances[::-1]
    return np.array([-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0])


def _nodes(low: float, high: float) -> Vector:
    """Points of an interval from one end to the other, dense where a cumulant may turn."""
    tail = np.geomspace(1e-300, 1e300, 6001)
    if np.isfinite(low) and np.isfinite(high):
        part = (high - low) * tail[tail < 0.5]
        points = np.concatenate([low + part, high - part])
    elif np.isfinite(low) or np.isfinite(high):
        points = low + tail if np.isfinite(low) else high - tail
    else:
        far = tail[tail > 32.0]
        points = np.concatenate([-far, np.linspace(-32.0, 32.0, 2049), far])
    points = np.unique(points)
    return np.asarray(points[(points > low) & (points < high)])


@final
@dataclass(frozen=True)
class Cumulants:
    """K, its derivatives and their inverse on an open interval of theta; what is None is derived. variance is a function
    of the mean. All arrays are (n,); outside the interval K is infinite and everything else is NaN.
    """

    log_partition: Function
    natural_space: tuple[float, float] = (-np.inf, np.inf)
    given_mean: Function | None = None
    given_variance: Function | None = None
    given_parameter: Function | None = None

    # -- at theta --------------------------------------------------------------------------------------------------

    def value(self, theta: Vector) -> Vector:
        """K(theta)."""
        return self._inside(self.log_partition, theta, np.inf)

    def mean(self, theta: Vector) -> Vector:
        """K'(theta)."""
        return self._inside(self.derived_mean if self.given_mean is None else self.given_mean, theta)

    def variance(self, theta: Vector) -> Vector:
        """K''(theta)."""
        if self.given_variance is not None:
            return self.given_variance(self.mean(theta))
        return self._inside(self.derived_variance, theta)

    def third(self, theta: Vector) -> Vector:
        """K'''(theta)."""
        if self.given_variance is not None or not (self.analytic or self.given_mean is not None):
            return self._inside(lambda at: differences(self.variance, at, *self.natural_space)[0], theta)
        return self._inside(lambda at: differences(self.mean, at, *self.natural_space, order=2)[0], theta)

    def derived_mean(self, theta: Vector) -> Vector:
        """K' from K, whatever is given."""
        if self.analytic:
            return complex_step(self.log_partition, theta, *self.natural_space)
        return differences(self.log_partition, theta, *self.natural_space)[0]

    def derived_variance(self, theta: Vector) -> Vector:
        """K'' from K or from the mean that is given."""
        if self.given_mean is not None:
            if self._mean_analytic:
                return complex_step(self.given_mean, theta, *self.natural_space)
            return differences(self.given_mean, theta, *self.natural_space)[0]
        if self.analytic:
            return differences(self.derived_mean, theta, *self.natural_space)[0]
        return differences(self.log_partition, theta, *self.natural_space, order=2)[0]

    def _inside(self, function: Function, theta: Vector, outside: float = np.nan) -> Vector:
        """function(theta), which is never asked for anything outside the natural space."""
        low, high = self.natural_space
        inside = (theta > low) & (theta < high)
        if bool(inside.all()):
            return np.asarray(function(theta))
        result = np.full(theta.shape, outside)
        if inside.any():
            result[inside] = function(theta[inside])
        return result

    @cached_property
    def analytic(self) -> bool:
        """Whether log_partition takes a complex step."""
        return takes_complex(self.log_partition, spread_over(*self.natural_space), *self.natural_space)

    @cached_property
    def _mean_analytic(self) -> bool:
        assert self.given_mean is not None
        return takes_complex(self.given_mean, spread_over(*self.natural_space), *self.natural_space)

    # -- at mu -----------------------------------------------------------------------------------------------------

    def parameter(self, mu: Vector) -> Vector:
        """Psi(mu): theta with K'(theta) = mu; NaN for what is no mean."""
        if self.given_parameter is not None:
            return np.asarray(self.given_parameter(mu))
        return self.derived_parameter(mu)

    def derived_parameter(self, mu: Vector) -> Vector:
        """Psi by search and secants, whatever is given."""
        theta, means = self._table
        cell = np.searchsorted(means, mu)
        result = np.full(mu.shape, np.nan)
        found = (cell > 0) & (cell < means.size)
        upper = cell[found]
        result[found] = self._solved(mu[found], np.interp(mu[found], means, theta), theta[upper - 1], theta[upper])
        exact = np.minimum(cell, means.size - 1)
        return np.where(means[exact] == mu, theta[exact], result)

    def _solved(self, mu: Vector, start: Vector, low: Vector, high: Vector) -> Vector:
        """theta between low and high: secants, and bisection where one leaves the bracket or does not help."""
        theta = np.where((start > low) & (start < high), start, 0.5 * (low + high))
        low, high = low.copy(), high.copy()
        # the first secant is to an end of the cell
        before = np.where(theta - low > high - theta, low, high)
        gap_before = self.mean(before) - mu
        rows = np.arange(mu.size)
        for _ in range(MOST_STEPS):
            here = theta[rows]
            gap = self.mean(here) - mu[rows]
            above = gap > 0
            high[rows], low[rows] = np.where(above, here, high[rows]), np.where(above, low[rows], here)
            step = here - gap * ((here - before) / (gap - gap_before))
            helpful = (step > low[rows]) & (step < high[rows]) & (np.abs(gap) < 0.5 * np.abs(gap_before))
            done = (np.abs(gap) <= EPS * np.abs(mu[rows])) | (np.abs(step - here) <= EPS * np.abs(here))
            step = np.where(helpful, step, 0.5 * (low[rows] + high[rows]))
            done |= (step <= low[rows]) | (step >= high[rows])
            open_ = ~done
            theta[rows[open_]] = step[open_]
            rows, before, gap_before = rows[open_], here[open_], gap[open_]
            if rows.size == 0:
                break
        return theta

    @cached_property
    def _table(self) -> tuple[Vector, Vector]:
        """theta and its mean, both increasing."""
        with np.errstate(all="ignore"):
            inner = spread_over(*self.natural_space)
            usable = np.isfinite(self.mean(inner))
            if not usable.any():
                low, high = self.natural_space
                raise DesignError(
                    f"log_partition has no finite derivative at theta = {inner[4]:g}, inside natural_space "
                    f"({low:g}, {high:g})"
                )
            theta = _nodes(*self.natural_space)
            means = self.mean(theta)
            rises = np.diff(means) > 0
            # the stretch about an ordinary theta over which the mean is a number and rises
            center = int(np.searchsorted(theta, inner[usable][usable.sum() // 2]))
            falls = np.flatnonzero(~rises)
            first = int(falls[falls < center].max(initial=-1)) + 1
            last = int(falls[falls >= center].min(initial=theta.size - 1))
            theta, means = theta[first : last + 1], means[first : last + 1]
            finite = np.isfinite(means)
            theta, means = theta[finite], means[finite]
            if theta.size < 8:
                raise DesignError(
                    f"log_partition is not strictly convex about theta = {inner[4]:g}: its derivative, the mean of T(y), "
                    "must rise with theta"
                )
            return theta, means

    def range_of_mean(self, hull: tuple[float, float]) -> tuple[float, float]:
        """The limits of the mean at the ends of the natural space; hull: between what values T lies as far as is known.

        Towards an infinite theta the mean goes to the end of the hull (Barndorff-Nielsen 1978, theorem 9.2), and towards a
        finite one to wherever it does.
        """
        theta, means = self._table
        low = _limit_of(-means[::-1], self._reached(theta[0], self.natural_space[0]), -hull[0])
        # a limit of -0.0 is 0.0
        return 0.0 - low, 0.0 + _limit_of(means, self._reached(theta[-1], self.natural_space[1]), hull[1])

    def _reached(self, theta: float, end: float) -> bool:
        """Whether the table goes to an end of the natural space, and was not stopped by what log Z cannot compute."""
        if np.isfinite(end):
            return abs(theta - end) <= NEAR * max(1.0, abs(end))
        return theta in _nodes(*self.natural_space)[[0, -1]]

    # -- the supremum ----------------------------------------------------------------------------------------------

    def supremum(self, t: Vector, mean_range: tuple[float, float]) -> Vector:
        """sup over theta of t theta - K(theta) (n,): at Psi(t), or towards an end of the natural space where t is no
        mean; infinite where it has no bound.
        """
        low, high = mean_range
        theta = self.parameter(t)
        result = t * theta - self.value(theta)
        for outside, end in ((t <= low, 0), (t >= high, 1)):
            if outside.any():
                values, which = np.unique(t[outside], return_inverse=True)
                result[outside] = self._limit(values, self.natural_space[end], end)[which]
        return result

    def _limit(self, t: Vector, end: float, side: int) -> Vector:
        """lim t theta - K(theta) towards an end of the natural space, along which it rises."""
        center = float(spread_over(*self.natural_space)[4])
        powers = 2.0 ** np.arange(-4.0, 60.0)
        if np.isfinite(end):
            theta = end + (center - end) / powers[4:]
        else:
            theta = center + powers if side else center - powers
        k = self.value(theta)
        linear = t[:, None] * theta
        height = linear - k
        rounding = 4.0 * EPS * (np.abs(linear) + np.abs(k))
        certain = np.isfinite(height) & (rounding <= CERTAIN * (1.0 + np.abs(height)))
        reached = (np.abs(np.diff(height)) <= rounding[:, 1:]) & certain[:, 1:]
        first = np.argmax(reached, axis=1)
        return np.where(reached.any(axis=1), height[np.arange(t.size), first + 1], np.inf)


def _limit_of(means: Vector, complete: bool, hull: float) -> float:
    """The upper limit of rising means; complete: whether they could be followed to the end of the natural space."""
    limit = float(means[-1])
    for candidate in (hull, float(np.round(limit)) if abs(limit) < BEYOND else np.inf):
        if np.isfinite(candidate) and abs(limit - candidate) <= NEAR * (1.0 + abs(candidate)):
            return candidate
    stretch = min(STRETCH, means.size // 3)
    recent, earlier = means[-1] - means[-stretch], means[-stretch] - means[-2 * stretch]
    endless = limit > BEYOND or (complete and recent > 0.5 * earlier)
    if complete or hull <= limit:
        return np.inf if endless else limit
    return hull
