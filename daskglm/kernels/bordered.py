"""Grams with one large diagonal block, and their factor by a Schur complement on that block.

Every row has one level of a factor, so that the products of its level columns among themselves are
diagonal: with m levels and r other columns the Gram holds m (r + 1) + r^2 numbers in place of (m +
r)^2, and its inverse is diagonal plus low rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from daskglm.kernels.cholesky import ALIASED, DOUBTFUL, Factor, Matrix, Vector, factor, tidied

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

# Levels whose pivots are found together, while none is in doubt.
_LEVELS_AT_ONCE = 128
# Rows of an inverse that are written out at a time.
_ROWS_AT_ONCE = 512


@final
@dataclass(frozen=True)
class Bordered:
    """A symmetric matrix (p, p) whose rows and columns `inside` (m,) form a diagonal block.

    inside (m,) and border (r,): positions, ascending, p = m + r; diagonal (m,): the block; cross
    (m, r): its rows in the columns of the border; square (r, r): the border alone.
    """

    inside: Index
    border: Index
    diagonal: Vector
    cross: Matrix
    square: Matrix

    # NumPy hands products from the left over to this class
    __array_ufunc__ = None

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        p = self.inside.size + self.border.size
        return p, p

    @property
    def is_finite(self) -> bool:
        """Whether every number is finite."""
        return all(bool(np.isfinite(part).all()) for part in (self.diagonal, self.cross, self.square))

    @property
    def is_ordered(self) -> bool:
        """Whether the block is a run of neighbouring columns."""
        return bool(self.inside.size) and int(self.inside[-1] - self.inside[0]) + 1 == self.inside.size

    def diagonals(self) -> Vector:
        """The diagonal (p,) of the whole matrix."""
        result = np.empty(self.shape[0])
        result[self.inside], result[self.border] = self.diagonal, np.diag(self.square)
        return result

    def plus_diagonal(self, values: Vector) -> Bordered:
        """The matrix plus diag(values), values (p,)."""
        square = self.square + np.diag(values[self.border])
        return Bordered(self.inside, self.border, self.diagonal + values[self.inside], self.cross, square)

    def __matmul__(self, right: Matrix) -> Matrix:
        result = np.empty(right.shape)
        inside, border = right[self.inside], right[self.border]
        diagonal = self.diagonal if right.ndim == 1 else self.diagonal[:, None]
        result[self.inside] = diagonal * inside + self.cross @ border
        result[self.border] = self.cross.T @ inside + self.square @ border
        return result

    def __rmatmul__(self, left: Matrix) -> Matrix:
        return np.asarray((self @ left.T).T)

    def by_size(self) -> Bordered:
        """The absolute values."""
        parts = (np.abs(part) for part in (self.diagonal, self.cross, self.square))
        return Bordered(self.inside, self.border, *parts)

    def columns(self, index: Index) -> Matrix:
        """The columns (p, k) at these positions."""
        chosen = np.zeros((self.shape[0], index.size))
        chosen[index, np.arange(index.size)] = 1.0
        return self @ chosen

    def dense(self) -> Matrix:
        """The whole matrix (p, p)."""
        result = np.zeros(self.shape)
        result[self.inside, self.inside] = self.diagonal
        result[np.ix_(self.inside, self.border)] = self.cross
        result[np.ix_(self.border, self.inside)] = self.cross.T
        result[np.ix_(self.border, self.border)] = self.square
        return result


AnyGram = Matrix | Bordered


def dense(gram: AnyGram) -> Matrix:
    """The matrix written out."""
    return gram.dense() if isinstance(gram, Bordered) else gram


def diagonal_of(gram: AnyGram) -> Vector:
    """The diagonal (p,)."""
    return gram.diagonals() if isinstance(gram, Bordered) else np.diag(gram)


def columns_of(gram: AnyGram, index: Index) -> Matrix:
    """The columns (p, k) at these positions."""
    return gram.columns(index) if isinstance(gram, Bordered) else gram[:, index]


def between(gram: AnyGram, basis: csc_array) -> Matrix:
    """B' G B (k, k), with B (p, k) sparse."""
    if not isinstance(gram, Bordered):
        return np.asarray(basis.T @ (gram @ basis))
    rows = basis.tocsr()
    inside, border = rows[gram.inside], rows[gram.border].toarray()
    mixed = (inside.T @ gram.cross) @ border
    own = (inside.T @ inside.multiply(gram.diagonal[:, None])).toarray()
    return np.asarray(own + mixed + mixed.T + border.T @ gram.square @ border)


def plus_diagonal(gram: AnyGram, values: Vector) -> AnyGram:
    """The matrix plus diag(values)."""
    return gram.plus_diagonal(values) if isinstance(gram, Bordered) else gram + np.diag(values)


def combination_of(gram: AnyGram, found: AnyFactor, column: int) -> Vector:
    """How an aliased column is made of kept ones; see `daskglm.kernels.cholesky.combination`."""
    right = columns_of(gram, np.array([column]))[:, 0]
    return tidied(found.solve(np.where(found.kept, right, 0.0)), diagonal_of(gram), float(right[column]))


def is_finite(gram: AnyGram) -> bool:
    """Whether every number is finite."""
    return gram.is_finite if isinstance(gram, Bordered) else bool(np.isfinite(gram).all())


@final
@dataclass(frozen=True)
class LowRank:
    """The matrix diag(diagonal) + half half' (p, p), with diagonal (p,) and half (p, r)."""

    diagonal: Vector
    half: Matrix

    def variances(self) -> Vector:
        """Its diagonal (p,)."""
        return np.asarray(self.diagonal + np.einsum("ij,ij->i", self.half, self.half))

    def dense(self) -> Matrix:
        """The matrix written out, symmetric to the last bit."""
        result = self.half @ self.half.T
        result[np.diag_indices_from(result)] += self.diagonal
        return np.asarray(result)

    def times(self, scale: float) -> LowRank:
        """The matrix times a number that is not negative."""
        return LowRank(scale * self.diagonal, np.sqrt(scale) * self.half)

    def form(self, rows: Matrix) -> Matrix:
        """L C L' (m, m) of combinations L (m, p)."""
        half = rows @ self.half
        return np.asarray((rows * self.diagonal) @ rows.T + half @ half.T)


@final
@dataclass(frozen=True)
class BorderedFactor:
    """G^-1 = diag(diagonal) + half half', with diagonal (p,) and half (p, r') for r' kept columns
    of the border.

    kept, pivots and definite: as those of `Factor`, in formula order.
    """

    kept: Mask
    pivots: Vector
    definite: bool
    diagonal: Vector
    half: Matrix

    @property
    def rank(self) -> int:
        """Number of kept columns."""
        return int(self.kept.sum())

    def solve(self, right: Matrix) -> Matrix:
        """G^-1 right (p,) or (p, m), with zeros for columns set aside."""
        diagonal = self.diagonal if right.ndim == 1 else self.diagonal[:, None]
        return np.asarray(diagonal * right + self.half @ (self.half.T @ right))

    @property
    def low_rank(self) -> LowRank:
        """G^-1."""
        return LowRank(self.diagonal, self.half)

    def variances(self) -> Vector:
        """The diagonal (p,) of G^-1."""
        return self.low_rank.variances()

    def by_size(self, right: Matrix) -> Matrix:
        """|G^-1| right (p,) or (p, m), without G^-1 written out."""
        result = np.empty(right.shape)
        for start in range(0, self.kept.size, _ROWS_AT_ONCE):
            at = np.arange(start, min(start + _ROWS_AT_ONCE, self.kept.size))
            rows = self.half[at] @ self.half.T
            rows[at - start, at] += self.diagonal[at]
            result[at] = np.abs(rows) @ right
        return result

    def inverse(self) -> Matrix:
        """G^-1 (p, p), symmetric, with zeros for columns set aside; computed once, not to be
        written to.
        """
        return self._inverse

    @cached_property
    def _inverse(self) -> Matrix:
        result = self.low_rank.dense()
        result.flags.writeable = False
        return result


AnyFactor = Factor | BorderedFactor


def factor_any(gram: AnyGram, exclude: Mask | None = None, least: float = ALIASED, precise: bool = False) -> AnyFactor:
    """The factor of a Gram, by its structure where it has one; see
    `daskglm.kernels.cholesky.factor`. precise: whether pivots of levels are computed in extended
    precision, which tells a combination from rounding.
    """
    if not isinstance(gram, Bordered):
        return factor(gram, exclude, least)
    if not gram.is_ordered or not gram.is_finite:
        return factor(gram.dense(), exclude, least)
    return _Elimination(gram, exclude, least, precise).run()


def _forward(square: Matrix, right: Matrix) -> Any:
    """L^-1 B (r, m) in extended precision, with L L' a positive definite matrix (r, r) and B (r, m)."""
    lower, result = square.astype(np.longdouble), right.astype(np.longdouble)
    for j in range(len(lower)):
        lower[j, j] = np.sqrt(lower[j, j] - lower[j, :j] @ lower[j, :j])
        lower[j + 1 :, j] = (lower[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
        result[j] = (result[j] - lower[j, :j] @ result[:j]) / lower[j, j]
    return result


class _Elimination:
    """Limited pivoting in formula order: columns before the block, the block level by level,
    columns after it.

    With L1 L1' the Gram of the kept columns before the block and V = C1 L1^-T the pivot of level j
    is t_j = d_j - v_j' M_j v_j, where M_1 = I and M_{j+1} = M_j + M_j v_j v_j' M_j / t_j over kept
    levels (Gill, Golub, Murray and Saunders 1974). Their inverse Gram is diag(1 / d) + F1 F1' with
    F1 = [Z; -D^-1 C1 Z], Z Z' = L1^-T M L1^-1, whose sums have no cancellation.
    """

    def __init__(self, gram: Bordered, exclude: Mask | None, least: float, precise: bool) -> None:
        self.gram, self.least, self.precise = gram, least, precise
        diagonal = gram.diagonals()
        self.candidates = (diagonal != 0.0) if exclude is None else ~exclude & (diagonal != 0.0)
        self.pivots = np.zeros(diagonal.size)
        self.kept = np.zeros(diagonal.size, bool)
        self.definite = True
        first = int(gram.inside[0])
        self.before = np.flatnonzero(gram.border < first)
        self.after = np.flatnonzero(gram.border > first)

    def run(self) -> BorderedFactor:
        gram, p = self.gram, self.gram.shape[0]
        own, m = self._columns_before()
        levels = self.kept[gram.inside]
        inverse = np.zeros(gram.inside.size)
        inverse[levels] = 1.0 / gram.diagonal[levels]
        half = np.zeros((p, own.size))
        root = self._root(own, m)
        half[gram.border[own]] = root
        half[gram.inside] = -inverse[:, None] * (gram.cross[:, own] @ root)
        half = np.concatenate([half, self._columns_after(inverse, half)], axis=1)
        whole = np.zeros(p)
        whole[gram.inside] = inverse
        return BorderedFactor(self.kept, self.pivots, self.definite, whole, half)

    def _columns_before(self) -> tuple[Index, Matrix]:
        """Kept columns of the border before the block, as places in the border; M after the last
        level.
        """
        gram, at = self.gram, self.gram.border[self.before]
        found = factor(gram.square[np.ix_(self.before, self.before)], ~self.candidates[at], self.least)
        self.definite = self.definite and found.definite
        self.pivots[at], self.kept[at] = found.pivots, found.kept
        self.leading = found
        own = self.before[found.kept]
        return own, self._levels(own)

    def _levels(self, own: Index) -> Matrix:
        """Pivots of the levels in their order; M."""
        from scipy.linalg import solve_triangular

        gram, m = self.gram, np.eye(own.size)
        index = np.flatnonzero(self.candidates[gram.inside])
        if not own.size:
            for j in index:
                self._decide(gram.inside[j], gram.diagonal[j], gram.diagonal[j])
            return m
        if self.precise:
            wide = _forward(gram.square[np.ix_(own, own)], gram.cross[:, own].T).T
            return self._one_by_one(index, wide, m.astype(np.longdouble)).astype(np.float64)
        v = solve_triangular(self.leading.lower, gram.cross[:, own].T, lower=True, check_finite=False).T
        for start in range(0, index.size, _LEVELS_AT_ONCE):
            some = index[start : start + _LEVELS_AT_ONCE]
            m = self._together(some, v, m)
        return m

    def _together(self, some: Index, v: Matrix, m: Matrix) -> Matrix:
        """M after these levels: at once where none of their pivots is in doubt, one by one
        otherwise.
        """
        from scipy.linalg import solve_triangular

        diagonal = self.gram.diagonal[some]
        if (diagonal > 0.0).all():
            scale = 1.0 / np.sqrt(diagonal)
            rows = v[some] * scale[:, None]
            half = rows @ m
            left = np.eye(some.size) - half @ rows.T
            try:
                lower = np.linalg.cholesky(left)
            except np.linalg.LinAlgError:
                return self._one_by_one(some, v, m)
            pivots = np.diag(lower) ** 2
            if pivots.min() >= DOUBTFUL:
                self.pivots[self.gram.inside[some]], self.kept[self.gram.inside[some]] = pivots, True
                added = solve_triangular(lower, half, lower=True, check_finite=False)
                return np.asarray(m + added.T @ added)
        return self._one_by_one(some, v, m)

    def _one_by_one(self, some: Index, v: Any, m: Any) -> Any:
        """M after these levels, in the precision of V and M."""
        m = m.copy()
        for j in some:
            turned = m @ v[j]
            left = self.gram.diagonal[j] - v[j] @ turned
            if self._decide(self.gram.inside[j], float(left), self.gram.diagonal[j]):
                m += np.outer(turned, turned) / left
        return m

    def _decide(self, column: int, left: float, diagonal: float) -> bool:
        """Whether a column of which `left` remains is kept."""
        if not diagonal > 0.0:
            self.definite = self.definite and diagonal > -ALIASED
            return False
        self.pivots[column] = left / diagonal
        if left < self.least * diagonal:
            self.definite = self.definite and left > -ALIASED * diagonal
            return False
        self.kept[column] = True
        return True

    def _root(self, own: Index, m: Matrix) -> Matrix:
        """Z."""
        from scipy.linalg import solve_triangular

        if not own.size:
            return np.zeros((0, 0))
        root = np.linalg.cholesky(m)
        return np.asarray(solve_triangular(self.leading.lower, root, trans="T", lower=True, check_finite=False))

    def _columns_after(self, inverse: Vector, half: Matrix) -> Matrix:
        """F2 (p, k): of the columns after the block, by what all earlier ones leave of them."""
        from scipy.linalg import solve_triangular

        gram, at = self.gram, self.gram.border[self.after]
        if not at.size:
            return np.zeros((gram.shape[0], 0))
        cross = gram.columns(at)
        shares = half.T @ cross
        level = cross[gram.inside]
        square = gram.square[np.ix_(self.after, self.after)]
        left = square - level.T @ (inverse[:, None] * level) - shares.T @ shares
        lower = self._chosen(left, np.diag(square), at)
        kept = np.flatnonzero(self.kept[at])
        if not kept.size:
            return np.zeros((gram.shape[0], 0))
        fitted = half @ shares
        fitted[gram.inside] += inverse[:, None] * level
        whole = -fitted[:, kept]
        whole[at[kept], np.arange(kept.size)] = 1.0
        return np.asarray(solve_triangular(lower, whole.T, lower=True, check_finite=False).T)

    def _chosen(self, left: Matrix, diagonal: Vector, at: Index) -> Matrix:
        """The triangular factor (k, k) of the kept ones of these columns; what is left of each is
        measured by its own length.
        """
        size = at.size
        lower = np.zeros((size, size))
        kept: list[int] = []
        for j in range(size):
            if not self.candidates[at[j]]:
                continue
            k = len(kept)
            row = lower[j, :k]
            rest = float(left[j, j] - row @ row)
            if self._decide(int(at[j]), rest, float(diagonal[j])):
                below = slice(j + 1, size)
                lower[below, k] = (left[below, j] - lower[below, :k] @ row) / np.sqrt(rest)
                lower[j, k] = np.sqrt(rest)
                kept.append(j)
        return np.asarray(lower[np.ix_(kept, range(len(kept)))])
