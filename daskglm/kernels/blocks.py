"""The rows of one leaf in the form the kernels read: columns side by side, factors as codes, nothing expanded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Column = npt.NDArray[Any]

# Partial sums that compiled reductions keep side by side; it decides the order of their sums.
LANES = 8
NUMERIC_KINDS: dict[str, int] = {"f8": 0, "f4": 1, "i1": 2, "i2": 3, "i4": 4, "i8": 5}
CODE_KINDS: dict[str, int] = {"i1": 2, "i2": 3, "i4": 4}


def code_dtype(n_levels: int) -> np.dtype[np.signedinteger]:
    """The narrowest signed integer that holds the codes 0 .. n_levels - 1."""
    for name in ("i1", "i2", "i4"):
        if n_levels - 1 <= np.iinfo(name).max:
            return np.dtype(name)
    raise OverflowError(f"{n_levels} levels do not fit 32-bit codes")


def as_column(values: npt.ArrayLike) -> Column:
    """An array in a form the kernels can read: one of the numeric kinds, contiguous, aligned, native byte order.

    An array that crossed a network or sits in the middle of a foreign buffer may be misaligned, which changes the last
    bits and runs many times slower.
    """
    array = np.asarray(values)
    if array.dtype == np.bool_:
        array = array.astype(np.int8)
    if array.dtype.kind == "u":
        wider = {1: np.int16, 2: np.int32, 4: np.int64}.get(array.dtype.itemsize, np.float64)
        array = array.astype(wider)
    if array.dtype.str[1:] not in NUMERIC_KINDS:
        array = array.astype(np.float64)
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])


def has_large(column: Column) -> bool:
    """Whether a column of whole numbers has one beyond 2^53, where float64 merges neighbours."""
    if column.dtype.kind not in "iu" or column.dtype.itemsize < 8 or not column.size:
        return False
    return max(-int(column.min()), int(column.max())) > 2**53


@final
@dataclass(frozen=True)
class Levels:
    """A factor, one small code per row; with `value` it is the factor times a numeric variable.

    Row i contributes value_i (1 without) to the column of level codes_i and nothing to the others.
    codes (n,), value (n,) or None.
    """

    codes: Column
    n_levels: int
    value: Vector | None = None


@final
@dataclass(frozen=True)
class Sparse:
    """Columns of which most entries are zero, row by row (CSR): row i holds data[q] in column indices[q] for
    indptr[i] <= q < indptr[i + 1], columns ascending and each at most once.

    indptr (n + 1,) int64, from zero; indices (nnz,) int32; data (nnz,) float64.
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    data: Vector
    n_columns: int

    @staticmethod
    def of(matrix: Any) -> Sparse:
        """The rows of a scipy CSR matrix or array, copied only where its numbers are of other kinds or out of order."""
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        data = np.require(matrix.data, np.float64, ["C", "A"])
        indices = np.require(matrix.indices, np.int32, ["C", "A"])
        indptr = np.require(matrix.indptr, np.int64, ["C", "A"])
        # scipy allows room behind the last entry
        return Sparse(indptr, indices[: indptr[-1]], data[: indptr[-1]], int(matrix.shape[1]))

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.indptr.size - 1

    @property
    def pairs(self) -> int:
        """Products of two entries of the same row: what a Gram costs, and a bound on its entries."""
        lengths = np.diff(self.indptr)
        return int((lengths * (lengths + 1) // 2).sum())

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.indptr.nbytes + self.indices.nbytes + self.data.nbytes

    def rows(self, start: int, stop: int) -> Sparse:
        """The rows start .. stop - 1; their entries are views."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        indptr = self.indptr[start : stop + 1] - first
        return Sparse(indptr, self.indices[first:last], self.data[first:last], self.n_columns)

    def take(self, index: npt.NDArray[np.intp]) -> Sparse:
        """The rows of an index, copied."""
        lengths = np.diff(self.indptr)[index]
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        entries = np.arange(indptr[-1]) + np.repeat(self.indptr[index] - indptr[:-1], lengths)
        return Sparse(indptr, self.indices[entries], self.data[entries], self.n_columns)

    def row_of(self, entries: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The row each stored entry belongs to."""
        return np.searchsorted(self.indptr, entries, side="right") - 1

    def square_sums(self) -> Vector:
        """sum_i x_ij^2 of each column (p_s,)."""
        with np.errstate(over="ignore"):
            return np.bincount(self.indices, self.data * self.data, self.n_columns).astype(np.float64, copy=False)


@final
@dataclass(frozen=True)
class Block:
    """Rows ready for arithmetic. X = [1 | dense | one column per level of each factor | sparse], the *raw* columns.

    y (n,) is the response on the scale of its mean (a proportion where there are trials); weight (n,) multiplies the
    log-likelihood of a row (None: 1) and includes the trials; offset (n,) is added to the linear predictor (None: 0);
    trials (n,) enters the log-likelihood's constant alone; others: further responses, each (n,); clusters: for each way of
    grouping rows the key of each one's cluster, (n,) int64.
    """

    n: int
    dense: tuple[Column, ...]
    levels: tuple[Levels, ...]
    y: Column
    weight: Column | None = None
    offset: Column | None = None
    trials: Column | None = None
    sparse: Sparse | None = None
    others: tuple[Column, ...] = ()
    clusters: tuple[Column, ...] = ()

    def of_response(self, k: int) -> Block:
        """The block with the k-th response alone."""
        return replace(self, y=(self.y, *self.others)[k], others=())

    @property
    def width(self) -> int:
        """Number of raw columns."""
        sparse = 0 if self.sparse is None else self.sparse.n_columns
        return 1 + len(self.dense) + sum(piece.n_levels for piece in self.levels) + sparse

    def rows(self, start: int, stop: int) -> Block:
        """The rows start .. stop - 1, as views."""

        def cut(column: Column | None) -> Column | None:
            return None if column is None else column[start:stop]

        return Block(
            n=stop - start,
            dense=tuple(column[start:stop] for column in self.dense),
            levels=tuple(
                Levels(
                    piece.codes[start:stop], piece.n_levels, None if piece.value is None else piece.value[start:stop]
                )
                for piece in self.levels
            ),
            y=self.y[start:stop],
            weight=cut(self.weight),
            offset=cut(self.offset),
            trials=cut(self.trials),
            sparse=None if self.sparse is None else self.sparse.rows(start, stop),
            others=tuple(column[start:stop] for column in self.others),
            clusters=tuple(column[start:stop] for column in self.clusters),
        )

    def take(self, index: npt.NDArray[np.intp]) -> Block:
        """The rows of an index, copied."""

        def pick(column: Column | None) -> Column | None:
            return None if column is None else column[index]

        return Block(
            n=len(index),
            dense=tuple(column[index] for column in self.dense),
            levels=tuple(
                Levels(piece.codes[index], piece.n_levels, None if piece.value is None else piece.value[index])
                for piece in self.levels
            ),
            y=self.y[index],
            weight=pick(self.weight),
            offset=pick(self.offset),
            trials=pick(self.trials),
            sparse=None if self.sparse is None else self.sparse.take(index),
            others=tuple(column[index] for column in self.others),
            clusters=tuple(column[index] for column in self.clusters),
        )

    def arrays(self) -> list[Column]:
        """Every array of the block, each once."""
        found: dict[int, Column] = {}
        columns = [*self.dense, *(p.codes for p in self.levels), *(p.value for p in self.levels), self.y]
        if self.sparse is not None:
            columns += [self.sparse.indptr, self.sparse.indices, self.sparse.data]
        for column in [*columns, *self.others, *self.clusters, self.weight, self.offset, self.trials]:
            if column is not None:
                found[id(column)] = column
        return list(found.values())

    @property
    def nbytes(self) -> int:
        """Bytes held, each buffer counted once."""
        return sum(column.nbytes for column in self.arrays())


@final
@dataclass(frozen=True)
class Scaling:
    """Columns enter the arithmetic as (x - shift) * scale, which costs nothing and spares half the digits.

    shift (d,), scale (d,) for the dense columns; level_scale (K,) for factors with a value (1 for the others): those
    are not shifted, for their level's own constant need not be among the columns. Nor are sparse columns, which would be
    sparse no more: sparse_scale (p_s,).
    """

    shift: Vector
    scale: Vector
    level_scale: Vector
    sparse_scale: Vector = field(default_factory=lambda: np.zeros(0))

    @staticmethod
    def none(n_dense: int, n_levels: int, n_sparse: int = 0) -> Scaling:
        """The identity."""
        return Scaling(np.zeros(n_dense), np.ones(n_dense), np.ones(n_levels), np.ones(n_sparse))
