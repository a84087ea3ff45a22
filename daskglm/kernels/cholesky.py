"""Factor a Gram in formula order, leaving out columns that are combinations of earlier ones.

Limited pivoting as in LINPACK's dqrdc2 (R's `lm.fit`), on G = L L' instead of X = QR: a column whose remaining pivot
falls below a fraction of its diagonal is set aside; the others keep their order, so that the first of two equal columns
is the one that is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Below ALIASED of its diagonal a pivot is rounding: products of float64 columns, shifted and scaled, leave about 1e-15
# times the growth of elimination. Between that and DOUBTFUL it has lost so many digits that rows must be looked at again,
# and where they can be, columns are told apart down to FAINT: 1e-7 of a column's length, the tolerance of R's lm.
ALIASED = 1e-11
DOUBTFUL = 1e-7
FAINT = 1e-14


# Squares that a transposition reads by rows and writes by columns while both stay in the cache.
_SQUARE = 128


def mirror(table: Matrix) -> None:
    """Write the upper triangle of a square table over the lower one, in place."""
    p = table.shape[0]
    for a in range(0, p, _SQUARE):
        inner = table[a : a + _SQUARE, a : a + _SQUARE]
        upper = np.triu(inner)
        inner[:] = upper + np.triu(upper, 1).T
        for b in range(a + _SQUARE, p, _SQUARE):
            table[b : b + _SQUARE, a : a + _SQUARE] = table[a : a + _SQUARE, b : b + _SQUARE].T


@final
@dataclass(frozen=True)
class Factor:
    """L L' of the kept rows and columns of G.

    kept (p,); lower (k, k) with k kept columns; pivots (p,): what earlier columns leave of each diagonal, as a fraction;
    definite: whether no pivot was negative beyond rounding.
    """

    kept: npt.NDArray[np.bool_]
    lower: Matrix
    pivots: Vector
    definite: bool

    @property
    def rank(self) -> int:
        """Number of kept columns."""
        return int(self.kept.sum())

    def solve(self, right: Matrix) -> Matrix:
        """G^-1 right (p,) or (p, m), with zeros for columns set aside."""
        from scipy.linalg import cho_solve

        result = np.zeros_like(right, dtype=np.float64)
        if self.rank:
            result[self.kept] = cho_solve((self.lower, True), right[self.kept], check_finite=False)
        return result

    def inverse(self) -> Matrix:
        """G^-1 (p, p), symmetric, with zeros for columns set aside; computed once, not to be written to."""
        return self._inverse

    @cached_property
    def _inverse(self) -> Matrix:
        from scipy.linalg.lapack import dpotri

        p = self.kept.size
        result = np.zeros((p, p))
        if self.rank:
            # the lower triangle in Fortran's order is the upper one in C's
            inner = dpotri(self.lower, lower=1)[0].T
            mirror(inner)
            result[np.ix_(self.kept, self.kept)] = inner
        result.flags.writeable = False
        return result


def factor(gram: Matrix, exclude: npt.NDArray[np.bool_] | None = None, least: float = ALIASED) -> Factor:
    """Factor a symmetric Gram (p, p) in its own order; columns of `exclude` (p,) are set aside unseen, and those of which
    earlier ones leave less than `least`.
    """
    diagonal = np.diag(gram).copy()
    # a column of zeros has nothing to go through one by one for
    candidates = (diagonal != 0.0) if exclude is None else ~exclude & (diagonal != 0.0)
    if np.all(diagonal[candidates] > 0) and np.all(np.isfinite(diagonal)):
        found = _all_kept(gram, diagonal, candidates)
        if found is not None:
            return found
    return _one_by_one(gram, diagonal, candidates, least)


def _all_kept(gram: Matrix, diagonal: Vector, candidates: npt.NDArray[np.bool_]) -> Factor | None:
    """The ordinary factor, where no pivot is in doubt."""
    index = np.flatnonzero(candidates)
    scale = 1.0 / np.sqrt(diagonal[index])
    inner = gram if candidates.all() else gram[np.ix_(index, index)]
    try:
        lower = np.linalg.cholesky(inner * scale[:, None] * scale)
    except np.linalg.LinAlgError:
        return None
    left = np.diag(lower) ** 2
    if left.size and left.min() < DOUBTFUL:
        return None
    pivots = np.zeros(gram.shape[0])
    pivots[index] = left
    return Factor(candidates.copy(), lower / scale[:, None], pivots, True)


def _one_by_one(gram: Matrix, diagonal: Vector, candidates: npt.NDArray[np.bool_], least: float) -> Factor:
    """Column by column, setting aside those with nothing left."""
    p = gram.shape[0]
    kept: list[int] = []
    pivots = np.zeros(p)
    lower = np.zeros((p, p))
    definite = True
    for j in np.flatnonzero(candidates):
        k = len(kept)
        row = lower[j, :k]
        left = diagonal[j] - row @ row
        pivots[j] = left / diagonal[j] if diagonal[j] > 0 else 0.0
        if not diagonal[j] > 0:
            definite = definite and diagonal[j] > -ALIASED
            continue
        if left < least * diagonal[j]:
            # as far as ALIASED below zero may be rounding
            definite = definite and left > -ALIASED * diagonal[j]
            continue
        root = np.sqrt(left)
        rest = slice(j + 1, p)
        lower[rest, k] = (gram[rest, j] - lower[rest, :k] @ row) / root
        lower[j, k] = root
        kept.append(int(j))
    mask = np.zeros(p, bool)
    mask[kept] = True
    return Factor(mask, lower[np.ix_(kept, range(len(kept)))], pivots, definite)


def combination(gram: Matrix, found: Factor, column: int, tolerance: float = 1e-7) -> Vector:
    """How an aliased column is made of kept ones: c (p,) with x_column = X c, small entries set to zero."""
    return tidied(
        found.solve(np.where(found.kept, gram[:, column], 0.0)), np.diag(gram), float(gram[column, column]), tolerance
    )


def tidied(shares: Vector, diagonal: Vector, own: float, tolerance: float = 1e-7) -> Vector:
    """Shares (p,) of columns in another one, those set to zero that are small by the columns'
    lengths; diagonal (p,): their squares, and own: that of the other.
    """
    size = np.abs(shares) * np.sqrt(np.maximum(diagonal, 0.0))
    return np.where(size < tolerance * np.sqrt(max(own, 0.0)), 0.0, shares)
