"""The chance of each of the counts 0, 1, 2, ... of rows of a distribution of counts, by its recursion."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.model.residuals import Chances, chances

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

COUNTED = ("poisson", "binomial", "negative_binomial", "geometric")
# Below it the chance of nothing has lost digits from which the recursion starts.
FAINT = 1e-280


@final
@dataclass(frozen=True)
class Counting:
    """count (n,): what was seen; chance (most + 1, n): of each of the counts up to most; chances (n,): of what was seen."""

    count: Vector
    chance: Matrix
    chances: Chances

    @staticmethod
    def of(family: Any, y: Vector, mu: Vector, rest: Vector, size: Vector, most: int) -> Counting:
        """Rows y (n,) with mean mu; size: trials of a binomial response."""
        count = np.round(size * y)
        chance = np.stack(list(_chances(family, mu, rest, size, most)))
        running = np.stack(list(itertools.accumulate(chance)))
        rows, place = np.arange(y.size), np.clip(count, 0, most).astype(np.intp)
        at = chance[place, rows]
        upto = running[place, rows]
        found = [upto - at, at, np.maximum(1.0 - upto, 0.0)]
        # beyond, and where the other tail has no digits left, from the distribution function
        far = np.flatnonzero(
            (count > most) | (upto > 0.999) | ~(at > 0.0) | (np.abs(size * y - count) > 1e-9 * np.maximum(count, 1.0))
        )
        if far.size:
            exact = chances(family, y[far], mu[far], rest[far], size[far], 1.0)
            for one, part in zip(found, (exact.below, exact.at, exact.above), strict=True):
                one[far] = part
        return Counting(count, chance, Chances(*found))

    def table(self, copies: Vector) -> Matrix:
        """Copies seen and expected (2, most + 2), the last of every larger count."""
        most = len(self.chance) - 1
        seen = np.bincount(np.minimum(self.count, most + 1).astype(np.intp), copies, most + 2)
        expected = (self.chance * copies).sum(axis=1)
        beyond = float((np.maximum(1.0 - self.chance.sum(axis=0), 0.0) * copies).sum())
        return np.stack([seen, np.append(expected, beyond)])


def _chances(family: Any, mu: Vector, rest: Vector, size: Vector, most: int) -> Iterator[Vector]:
    """P(Y = k) (n,), k = 0 .. most."""
    if family.name == "binomial":
        logarithm = size * np.log(rest)
        odds = mu / rest
    elif family.name == "poisson" or np.isinf(family.size):
        logarithm = -mu
    else:
        logarithm = family.size * -np.log1p(mu / family.size)
    chance = np.exp(logarithm)
    faint = np.flatnonzero(chance < FAINT)
    for k in range(most + 1):
        if faint.size:
            chance = chance.copy()
            chance[faint] = _directly(family, k, mu[faint], rest[faint], size[faint])
        yield chance
        if family.name == "binomial":
            chance = chance * np.maximum(size - k, 0.0) / (k + 1.0) * odds
        elif family.name == "poisson" or np.isinf(family.size):
            chance = chance * mu / (k + 1.0)
        else:
            chance = chance * (family.size + k) / (k + 1.0) * (mu / (mu + family.size))


def _directly(family: Any, k: int, mu: Vector, rest: Vector, size: Vector) -> Vector:
    """P(Y = k) by logarithms."""
    from scipy.special import gammaln, xlog1py, xlogy

    if family.name == "binomial":
        choose = gammaln(size + 1.0) - gammaln(k + 1.0) - gammaln(size - k + 1.0)
        found = np.exp(choose + xlogy(k, mu) + xlogy(size - k, rest))
        return np.where(k <= size, found, 0.0)
    if family.name == "poisson" or np.isinf(family.size):
        return np.exp(xlogy(k, mu) - mu - gammaln(k + 1.0))
    theta = family.size
    choose = gammaln(theta + k) - gammaln(theta) - gammaln(k + 1.0)
    return np.asarray(np.exp(choose + xlogy(k, mu / (mu + theta)) - xlog1py(theta, mu / theta)))
