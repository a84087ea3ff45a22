"""What is learnt of the columns before the first step: levels and how often, moments, and what was dropped. It adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from daskglm.design.columns import Coded, Columns, Ledger
from daskglm.kernels.blocks import Vector


@final
@dataclass(frozen=True)
class Profile:
    """levels: weight of each level of each factor (rows, or exposure where asked for), in order of first appearance;
    moments: (n, mean, sum of squared deviations) of each numeric product; y_levels: rows per level of a text response.
    squares (p_s,): sum of squares of each column of a sparse matrix; pairs: most products of two entries of one row that
    a leaf has, by which a Gram's size is foreseen. weight: sum of the weights column, n without one.
    learnt: of each numeric variable with a transform, the record that its state is made of.
    """

    n: int
    levels: Mapping[str, Mapping[Any, float]]
    moments: Mapping[tuple[str, ...], tuple[int, float, float]]
    y_levels: Mapping[Any, float] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    squares: Vector | None = None
    pairs: int = 0
    weight: float = 0.0
    learnt: Mapping[str, Any] = field(default_factory=dict)

    def __add__(self, other: Profile) -> Profile:
        return Profile(
            self.n + other.n,
            {name: _merged(counts, other.levels[name]) for name, counts in self.levels.items()},
            {key: _combined(moments, other.moments[key]) for key, moments in self.moments.items()},
            _merged(self.y_levels, other.y_levels),
            self.ledger + other.ledger,
            None if self.squares is None or other.squares is None else self.squares + other.squares,
            max(self.pairs, other.pairs),
            self.weight + other.weight,
            {name: record + other.learnt[name] for name, record in self.learnt.items()},
        )


def profile_of(columns: Columns) -> Profile:
    """The profile of one leaf; its levels are counted in rows, or in weight or exposure where the largest is asked for."""
    importance = None if columns.importance is None else np.asarray(columns.importance, np.float64)
    return Profile(
        columns.n,
        {name: _counts(coded, importance) for name, coded in columns.factors.items()},
        {key: (columns.n, mean, squares) for key, (mean, squares) in columns.moments.items()},
        _counts(columns.y, None) if isinstance(columns.y, Coded) else {},
        columns.ledger,
        columns.squares,
        0 if columns.sparse is None else columns.sparse.pairs,
        float(columns.n if columns.weight is None else columns.weight.sum(dtype=np.float64)),
        columns.learnt,
    )


def _counts(coded: Coded, weight: Any) -> dict[Any, float]:
    counts = np.bincount(coded.codes, minlength=len(coded.levels))
    amount = counts if weight is None else np.bincount(coded.codes, weight, minlength=len(coded.levels))
    # a level that is declared but holds no row is kept at zero, so that declared orders survive
    return {level: float(amount[i]) if counts[i] else 0.0 for i, level in enumerate(coded.levels)}


def _merged(one: Mapping[Any, float], other: Mapping[Any, float]) -> dict[Any, float]:
    result = dict(one)
    for level, count in other.items():
        result[level] = result.get(level, 0.0) + count
    return result


def _combined(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    """Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance, equation 2.1."""
    if not one[0] or not other[0]:
        return other if not one[0] else one
    n = one[0] + other[0]
    step = other[1] - one[1]
    return n, one[1] + step * other[0] / n, one[2] + other[2] + step * step * one[0] * other[0] / n
