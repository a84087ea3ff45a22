"""How many rows of each class have each level: where there is none, the likelihood of classes has no maximum.

The commonest infinite optimum of such models is a level in which a class never occurs. It is seen in the counts alone,
which cost no pass of their own, and they are a certificate: every row has one level of each factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block

Integers = npt.NDArray[np.int64]


@final
@dataclass(frozen=True)
class LevelCounts:
    """rows (K, L): rows of each class at each level of the factors that stand alone, one factor after the other;
    factors: (first raw column, number of levels) of each.
    """

    rows: Integers
    factors: tuple[tuple[int, int], ...]

    def __add__(self, other: LevelCounts) -> LevelCounts:
        return LevelCounts(self.rows + other.rows, self.factors)

    def each(self) -> Iterator[tuple[int, Integers]]:
        """The first raw column of each factor, and its counts (K, levels)."""
        at = 0
        for first, count in self.factors:
            yield first, self.rows[:, at : at + count]
            at += count


def level_counts(block: Block, classes: int) -> LevelCounts:
    """The counts of one block; factors with a value per row are no levels that a row has or has not."""
    factors, tables = [], [np.zeros((classes, 0), np.int64)]
    first = 1 + len(block.dense)
    for piece in block.levels:
        if piece.value is None:
            cells = piece.codes.astype(np.int64) * classes + block.y
            table = np.bincount(cells, minlength=classes * piece.n_levels).reshape(piece.n_levels, classes)
            factors.append((first, piece.n_levels))
            tables.append(table.T)
        first += piece.n_levels
    return LevelCounts(np.concatenate(tables, axis=1), tuple(factors))
