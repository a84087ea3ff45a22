"""In how many rows of each class each column is not zero: where in none, the likelihood of classes has no maximum.

The commonest infinite optimum of such models is a level in which a class never occurs, or a column that is never negative
and zero for a whole class. It is seen in counts, which cost no pass of their own, and they are a certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block, Levels, Sparse

Integers = npt.NDArray[np.int64]


@final
@dataclass(frozen=True)
class Occurrences:
    """rows (K, width): rows of each class in which a raw column is not zero; up, down (width,): rows in which it is
    positive, and negative; factors: (first raw column, number of levels) of each factor that stands alone, of which every
    row has one level.
    """

    rows: Integers
    up: Integers
    down: Integers
    factors: tuple[tuple[int, int], ...]

    def __add__(self, other: Occurrences) -> Occurrences:
        return Occurrences(self.rows + other.rows, self.up + other.up, self.down + other.down, self.factors)

    @property
    def sign(self) -> npt.NDArray[np.float64]:
        """1 or -1 of a column that has but one sign and some rows (width,), 0 of the others."""
        return np.where(self.down == 0, 1.0, np.where(self.up == 0, -1.0, 0.0)) * (self.up + self.down > 0)


def occurrences(block: Block, classes: int) -> Occurrences:
    """The counts of one block."""
    y = block.y.astype(np.int64)
    every = np.bincount(y, minlength=classes)
    parts = [(every[:, None], np.array([block.n]), np.array([0]))]
    parts += [_of_column(column, y, every) for column in block.dense]
    factors, first = [], 1 + len(block.dense)
    for piece in block.levels:
        parts.append(_of_levels(piece, y, classes))
        if piece.value is None:
            factors.append((first, piece.n_levels))
        first += piece.n_levels
    if block.sparse is not None:
        parts.append(_of_sparse(block.sparse, y, classes))
    rows, up, down = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    return Occurrences(rows, up, down, tuple(factors))


def _of_column(column: Any, y: Integers, every: Integers) -> tuple[Integers, Integers, Integers]:
    there = column != 0
    count, up = np.count_nonzero(there), np.count_nonzero(column > 0)
    rows = every if count == y.size else np.bincount(y[there], minlength=every.size)
    return rows[:, None], np.array([up]), np.array([count - up])


def _of_levels(piece: Levels, y: Integers, classes: int) -> tuple[Integers, Integers, Integers]:
    codes = piece.codes.astype(np.int64)
    if piece.value is None:
        rows = _table(codes, y, piece.n_levels, classes)
        return rows, rows.sum(axis=0), np.zeros(piece.n_levels, np.int64)
    positive, negative = piece.value > 0, piece.value < 0
    there = positive | negative
    up, down = (np.bincount(codes[which], minlength=piece.n_levels) for which in (positive, negative))
    return _table(codes[there], y[there], piece.n_levels, classes), up, down


def _of_sparse(piece: Sparse, y: Integers, classes: int) -> tuple[Integers, Integers, Integers]:
    entries = np.flatnonzero(piece.data)
    columns, values = piece.indices[entries].astype(np.int64), piece.data[entries]
    up = np.bincount(columns[values > 0], minlength=piece.n_columns)
    rows = _table(columns, y[piece.row_of(entries)], piece.n_columns, classes)
    return rows, up, rows.sum(axis=0) - up


def _table(columns: Integers, y: Integers, width: int, classes: int) -> Integers:
    return np.bincount(columns * classes + y, minlength=width * classes).reshape(width, classes).T
