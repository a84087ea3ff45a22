"""Where a response may lie, and sums or integrals over it: what a density is checked against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError, closest

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Function = Callable[[Vector], Vector]

# Beyond this in log units below the mode there is nothing a sum to 1e-12 would see, however far it goes.
DEPTH = 60.0
# The transformed variable of an integral: exp(345) is 10^150, and its square is still a number.
FARTHEST = 345.0
GRID = 6901
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(24)
# Panels of an integral are halved until it no longer changes by more than this, so often at most.
SETTLED = 1e-10
REFINEMENTS = 5
# Counts are summed in blocks that double up to so many; what follows then goes on as a power of the count.
MOST_COUNTS = 2**21


@final
@dataclass(frozen=True)
class Sums:
    """The total of a density and the mean and variance of a statistic under it; settled: whether they are known."""

    total: float
    mean: float
    variance: float
    settled: bool


UNSETTLED = Sums(np.nan, np.nan, np.nan, False)


class Support(Protocol):
    """The set of possible responses."""

    @property
    def words(self) -> str:
        """The set, in words."""

    @property
    def discrete(self) -> bool:
        """Whether it has a sum rather than an integral."""

    @property
    def landmarks(self) -> Vector:
        """Members from one end to the other, infinite ends included: T of them shows between what its means lie."""

    def contains(self, y: Vector) -> Mask:
        """Where y is a member."""

    def sums(self, log_density: Function, statistic: Function, center: float, spread: float) -> Sums:
        """Sums of exp(log_density) (1, T, (T - E T)^2); center and spread: where y is to be looked for."""


@final
@dataclass(frozen=True)
class Finite:
    """A finite set of numbers."""

    values: tuple[float, ...]
    discrete: bool = True

    @property
    def words(self) -> str:
        if len(self.values) == 2:
            return f"{self.values[0]:g} or {self.values[1]:g}"
        shown = ", ".join(f"{value:g}" for value in self.values[:6])
        return f"one of {shown}" + (f", ... ({len(self.values)} values)" if len(self.values) > 6 else "")

    @property
    def landmarks(self) -> Vector:
        return np.array(self.values)

    def contains(self, y: Vector) -> Mask:
        return np.isin(y, self.values)

    def sums(self, log_density: Function, statistic: Function, center: float, spread: float) -> Sums:
        y = np.array(self.values)
        return _summed(np.exp(log_density(y)), statistic(y))


@final
@dataclass(frozen=True)
class Counts:
    """0, 1, 2, ..."""

    words: str = "a count: 0, 1, 2, ..."
    discrete: bool = True

    @property
    def landmarks(self) -> Vector:
        return np.append(np.arange(1024.0), np.inf)

    def contains(self, y: Vector) -> Mask:
        return (y >= 0) & np.isfinite(y) & (y == np.floor(y))

    def sums(self, log_density: Function, statistic: Function, center: float, spread: float) -> Sums:
        chances, statistics, least = [], [], max(1024.0, center + 20.0 * spread)
        start, stop = 0, 1024
        least = least if np.isfinite(least) else 1024.0
        while start < MOST_COUNTS:
            y = np.arange(start, stop, dtype=np.float64)
            chance, value = np.exp(log_density(y)), statistic(y)
            chances.append(chance)
            statistics.append(value)
            largest = float(np.max(np.where(chance == 0.0, 0.0, chance * (1.0 + value * value))))
            if not np.isfinite(largest) or (stop > least and largest * stop < 1e-14):
                return _summed(np.concatenate(chances), np.concatenate(statistics))
            start, stop = stop, 2 * stop
        return UNSETTLED


@final
@dataclass(frozen=True)
class Interval:
    """A line, a half-line or an interval, with or without its ends."""

    low: float
    high: float
    words: str
    closed: bool = False
    discrete: bool = False

    @property
    def landmarks(self) -> Vector:
        inner, _ = self._at(np.linspace(-40.0, 40.0, 1025), np.nan, 1.0)
        return np.unique(np.concatenate([[self.low], inner, [self.high]]))

    def contains(self, y: Vector) -> Mask:
        inside = (y >= self.low) & (y <= self.high) if self.closed else (y > self.low) & (y < self.high)
        return inside & np.isfinite(y)

    def sums(self, log_density: Function, statistic: Function, center: float, spread: float) -> Sums:
        """Panels of Gauss-Legendre nodes in t, y = y(t) the line, the half-line or the interval: they double in width
        with their distance from the mode, and are halved until nothing changes.
        """

        def integrand(t: Vector) -> tuple[Vector, Vector]:
            y, log_rate = self._at(t, center, spread)
            inside = (y > self.low) & (y < self.high) & np.isfinite(log_rate)
            inner = y[inside]
            value, result = np.zeros_like(t), np.full_like(t, -np.inf)
            value[inside] = statistic(inner)
            result[inside] = log_density(inner) + log_rate[inside]
            return result, value

        edges = self._panels(lambda t: integrand(t)[0])
        if edges is None:
            return UNSETTLED
        before: Sums | None = None
        for _ in range(REFINEMENTS):
            half = 0.5 * np.diff(edges)[:, None]
            t = (edges[:-1, None] + half + half * NODES).ravel()
            height, value = integrand(t)
            found = _summed(np.exp(height) * (half * NODE_WEIGHTS).ravel(), value)
            if found.total == np.inf or (before is not None and _same(found, before)):
                return found
            before = found
            edges = np.sort(np.concatenate([edges, 0.5 * (edges[:-1] + edges[1:])]))
        return UNSETTLED

    def _at(self, t: Vector, center: float, spread: float) -> tuple[Vector, Vector]:
        """y(t) and log dy/dt."""
        if np.isfinite(self.low) and np.isfinite(self.high):
            tail = np.exp(-np.abs(t))
            part = (self.high - self.low) * tail / (1.0 + tail)
            y = np.where(t < 0, self.low + part, self.high - part)
            return y, np.log(self.high - self.low) - np.abs(t) - 2.0 * np.log1p(tail)
        if np.isfinite(self.low) or np.isfinite(self.high):
            # an unknown center is a distance of 1
            distance = center - self.low if np.isfinite(self.low) else self.high - center
            distance = distance if distance > 0 and np.isfinite(distance) else 1.0
            step = distance * np.exp(t)
            return (self.low + step if np.isfinite(self.low) else self.high - step), t + np.log(distance)
        center = center if np.isfinite(center) else 0.0
        return center + spread * np.sinh(t), np.log(spread) + np.log(np.cosh(t))

    def _panels(self, height: Function) -> Vector | None:
        """Edges of panels from where the integrand begins to where it ends; None where there is no mode."""
        t = np.linspace(-FARTHEST, FARTHEST, GRID)
        for _ in range(4):
            values = height(t)
            if not np.isfinite(values).any():
                return None
            k = int(np.nanargmax(values))
            if values[k] == np.inf:
                # beyond all numbers: any panels say so
                return np.array([-FARTHEST, 0.0, FARTHEST])
            mode, top = float(t[k]), float(values[k])
            t = np.linspace(t[max(k - 1, 0)], t[min(k + 1, t.size - 1)], 201)
        steps = 2.0 ** np.arange(-40.0, 10.0)
        drop = top - np.fmin(height(mode + steps), height(mode - steps))
        width = float(steps[np.argmax(~(drop < 1.0))])
        offsets = width * np.concatenate([[0.0], 2.0 ** np.arange(-2.0, 2.0 + np.log2(FARTHEST / width))])
        edges = np.unique(np.clip(np.concatenate([mode - offsets, mode + offsets]), -FARTHEST, FARTHEST))
        # panels whose ends both are deep below the mode, and all beyond them, hold nothing
        alive = np.flatnonzero(height(edges) >= top - DEPTH)
        first, last = max(int(alive.min()) - 1, 0), min(int(alive.max()) + 1, edges.size - 1)
        return edges[first : last + 1]


def _summed(chance: Vector, statistic: Vector) -> Sums:
    # where h is 0, T need not be a number
    statistic = np.where(chance == 0.0, 0.0, statistic)
    total = float(chance.sum())
    mean = float((chance * statistic).sum()) / total
    variance = float((chance * (statistic - mean) ** 2).sum()) / total
    # that a density has no finite sum is known, too
    return Sums(total, mean, variance, total == np.inf or bool(np.isfinite([total, mean, variance]).all()))


def _same(one: Sums, other: Sums) -> bool:
    spread = np.sqrt(abs(one.variance))
    return bool(
        abs(one.total - other.total) <= SETTLED * abs(one.total)
        and abs(one.mean - other.mean) <= SETTLED * (abs(one.mean) + spread)
        and abs(one.variance - other.variance) <= SETTLED * abs(one.variance)
    )


SUPPORTS: dict[str, Support] = {
    "real": Interval(-np.inf, np.inf, "any finite number"),
    "positive": Interval(0.0, np.inf, "positive"),
    "unit interval": Interval(0.0, 1.0, "between 0 and 1", closed=True),
    "counts": Counts(),
    "binary": Finite((0.0, 1.0)),
}


def support_of(value: object) -> Support:
    """The support meant by a name, by two ends, or by a list of more than two numbers."""
    if isinstance(value, str):
        if value not in SUPPORTS:
            known = ", ".join(SUPPORTS)
            raise DesignError(f'there is no support "{value}"{closest(value, SUPPORTS)}; there are: {known}')
        return SUPPORTS[value]
    try:
        numbers = np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.size < 2 or np.isnan(numbers).any():
        raise DesignError(
            f"support={value!r} is neither a name ({', '.join(SUPPORTS)}) nor (lower, upper) nor a list of more than two "
            "numbers"
        )
    if numbers.size > 2:
        return Finite(tuple(float(v) for v in np.unique(numbers)))
    low, high = float(numbers[0]), float(numbers[1])
    if not low < high:
        raise DesignError(f"support=({low:g}, {high:g}): the lower end must be below the upper one")
    words = (
        f"at least {low:g}"
        if high == np.inf
        else f"at most {high:g}"
        if low == -np.inf
        else f"between {low:g} and {high:g}"
    )
    return Interval(low, high, words, closed=True)
