"""Sums of rows by a number or a label that nobody knew before they were read, in bounded memory; both add.

Numbers are binned by the bits of their doubles, which stand in the order of the numbers. The bins are the distinct values
themselves while there are few; where there are more than a limit, as many trailing bits are dropped as it takes. That level is
the least at which all the data fit, whatever the parts were: bins and counts do not depend on how rows are divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import has_large

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]

# Bins at most, of predictions: over a factor of 16 each is 1 part in 1 000 wide or less; and of a column that is cut into few.
LIMIT = 4_096
COLUMN_LIMIT = 2_048
# Labels of a column at most.
LABELS = 10_000
# Bins looked up in a table rather than searched for.
TABLE = 1 << 20
SIGN = np.uint64(1 << 63)
# Quantile residuals are counted in bins of this many to the unit, as far as this on either side.
FINE, FAR = 512, 38


def ordered(values: npt.NDArray[Any]) -> Keys:
    """Whole numbers (n,) in the order of the doubles; minus zero is zero."""
    bits = (values.astype(np.float64) + 0.0).view(np.uint64)
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def numbers(keys: Keys) -> Vector:
    """The doubles of such numbers."""
    return np.where(keys & SIGN, keys ^ SIGN, ~keys).view(np.float64)


@final
@dataclass(frozen=True)
class Sketch:
    """Sums of rows by the value of a number.

    level: trailing bits dropped, 0 where each bin is one value; keys (m,): bins, ascending; sums (m, k); missing (k,): of
    rows without the number; limit: bins at most. whole: the values (m,) of the bins where each is one whole number and
    some are beyond 2^53, where keys of neighbours are equal; None otherwise.
    """

    level: int
    keys: Keys
    sums: Matrix
    missing: Vector
    limit: int = LIMIT
    whole: tuple[int, ...] | None = None

    @staticmethod
    def of(values: npt.NDArray[Any], channels: Matrix, limit: int = LIMIT) -> Sketch:
        """Of values (n,), NaN where missing, and what each row adds (k, n)."""
        there = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.size, bool)
        missing = np.zeros(len(channels))
        if not there.all():
            missing, channels = channels[:, ~there].sum(axis=1), channels[:, there]
            values = values[there]
        keys = ordered(values)
        found = np.sort(keys)
        level = _level(found, limit)
        if has_large(values):
            distinct, codes = np.unique(values, return_inverse=True)
            if distinct.size <= limit:
                whole = tuple(distinct.tolist())
                return Sketch(0, ordered(distinct), by_code(codes, channels, distinct.size), missing, limit, whole)
            level = max(level, 1)
        shifted = found >> np.uint64(level)
        bins = shifted[_firsts(shifted)]
        return Sketch(
            level, bins, by_code(_places(bins, keys >> np.uint64(level)), channels, bins.size), missing, limit
        )

    def __add__(self, other: Sketch) -> Sketch:
        if (self.whole or other.whole) and self.exact and other.exact:
            return self._with_whole(other)
        level = max(self.level, other.level)
        one, two = self.coarsened(level), other.coarsened(level)
        # two ascending runs, which a stable sort merges; what is alike is added in their order
        keys = np.concatenate([one.keys, two.keys])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        drop = np.uint64(_level(keys, self.limit))
        keys = keys >> drop
        first = _firsts(keys)
        sums = np.concatenate([one.sums, two.sums])[order]
        if keys.size:
            sums = np.add.reduceat(sums, np.flatnonzero(first), axis=0)
        return Sketch(level + int(drop), keys[first], sums, self.missing + other.missing, self.limit)

    def _with_whole(self, other: Sketch) -> Sketch:
        """The sum of sketches of whole numbers, by their values while these are few."""
        labels = [*self._values(), *other._values()]
        distinct = sorted(set(labels))
        place = {value: i for i, value in enumerate(distinct)}
        codes = np.array([place[value] for value in labels], np.intp)
        sums = by_code(codes, np.concatenate([self.sums, other.sums]).T, len(distinct))
        keys = ordered(np.array([float(value) for value in distinct]))
        missing = self.missing + other.missing
        found = Sketch(0, keys, sums, missing, self.limit, tuple(distinct))
        return found if len(distinct) <= self.limit else found.coarsened(max(_level(keys, self.limit), 1))

    def _values(self) -> Sequence[int]:
        return [int(value) for value in numbers(self.keys)] if self.whole is None else self.whole

    def coarsened(self, level: int) -> Sketch:
        """With more bits dropped."""
        if level == self.level:
            return self
        keys = self.keys >> np.uint64(level - self.level)
        first = _firsts(keys)
        sums = np.add.reduceat(self.sums, np.flatnonzero(first), axis=0) if keys.size else self.sums
        return Sketch(level, keys[first], sums, self.missing, self.limit)

    @property
    def exact(self) -> bool:
        """Whether each bin is one value."""
        return self.level == 0

    @property
    def ends(self) -> tuple[Vector, Vector]:
        """The least and the largest number of each bin (m,)."""
        shift = np.uint64(self.level)
        with np.errstate(over="ignore"):
            return numbers(self.keys << shift), numbers(((self.keys + np.uint64(1)) << shift) - np.uint64(1))


def _firsts(ascending: Keys) -> npt.NDArray[np.bool_]:
    """Where a value stands for the first time."""
    return np.concatenate([np.ones(min(ascending.size, 1), bool), ascending[1:] != ascending[:-1]])


def _level(ascending: Keys, limit: int) -> int:
    """The fewest trailing bits to drop so that no more values than that remain."""
    steps = ascending[1:] ^ ascending[:-1]
    low, high = 0, 64
    while low < high:
        middle = (low + high) // 2
        if 1 + np.count_nonzero(steps >> np.uint64(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return low


def _places(bins: Keys, keys: Keys) -> npt.NDArray[Any]:
    """The bin of each key (n,)."""
    if not bins.size or int(bins[-1] - bins[0]) >= TABLE:
        return np.searchsorted(bins, keys)
    # only the places of bins are ever written or read
    table = np.empty(int(bins[-1] - bins[0]) + 1, np.int32)
    table[(bins - bins[0]).astype(np.intp)] = np.arange(bins.size)
    return table[(keys - bins[0]).astype(np.intp)]


def by_code(codes: npt.NDArray[Any], channels: Matrix, n: int) -> Matrix:
    """Sums (n, k) of channels (k, rows) by code."""
    places = codes.astype(np.intp, copy=False)
    return np.stack([np.bincount(places, channel, n) for channel in channels], axis=1)


@final
@dataclass(frozen=True)
class LabelSums:
    """Sums of rows by label: labels (m,), None where missing; sums (m, k). crowded: more than LABELS, and so none are kept."""

    labels: tuple[Any, ...]
    sums: Matrix
    crowded: bool = False

    @staticmethod
    def of(codes: npt.NDArray[Any], levels: tuple[Any, ...], channels: Matrix) -> LabelSums:
        """Of codes (n,) into levels, and what each row adds (k, n), the first of which is not zero."""
        sums = by_code(codes, channels, len(levels))
        return LabelSums((), sums[:0])._with(levels, sums)

    def __add__(self, other: LabelSums) -> LabelSums:
        if self.crowded or other.crowded:
            return LabelSums((), self.sums[:0], True)
        return self._with(other.labels, other.sums)

    def _with(self, labels: tuple[Any, ...], sums: Matrix) -> LabelSums:
        """And these, those that occur."""
        kept = [i for i in range(len(labels)) if sums[i, 0] != 0.0]
        place = {label: i for i, label in enumerate(self.labels)}
        for i in kept:
            place.setdefault(labels[i], len(place))
        if len(place) > LABELS:
            return LabelSums((), self.sums[:0], True)
        result = np.zeros((len(place), sums.shape[1]))
        result[: len(self.labels)] = self.sums
        result[[place[labels[i]] for i in kept]] += sums[kept]
        return LabelSums(tuple(place), result)

    def sorted(self) -> LabelSums:
        """In the order of their labels, the missing one last."""

        def rank(i: int) -> tuple[bool, str, Any]:
            label = self.labels[i]
            return label is None, type(label).__name__, 0 if label is None else label

        order = sorted(range(len(self.labels)), key=rank)
        return LabelSums(tuple(self.labels[i] for i in order), self.sums[order], self.crowded)


def residual_counts(residuals: Vector, copies: Vector) -> Vector:
    """Copies by fixed bins of a residual (2 FAR FINE,), those beyond in the last."""
    place = np.clip(np.floor((residuals + FAR) * FINE), 0, 2 * FAR * FINE - 1)
    return np.asarray(np.bincount(place.astype(np.intp), copies, 2 * FAR * FINE), np.float64)
