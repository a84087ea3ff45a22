"""The three products a GLM needs of a block: eta = X b, gradient X's and Gram X'WX, without ever forming X.

`gather` reads the columns once and writes the linear predictor; `scatter` reads them again and adds to a small table per
pair of pieces: (dense x dense), (levels x dense) and (levels x levels). Each is one compiled call without the GIL per
chunk of rows, and walks the rows in tiles that stay in the processor's cache. Sparse columns have kernels of their own,
in `daskglm.kernels.sparse`.
`daskglm.kernels.reference` states the same in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.kernels import native, reference
from daskglm.kernels import sparse as sparse_products
from daskglm.kernels.blocks import CODE_KINDS, LANES, NUMERIC_KINDS, Block, Column, Scaling, Vector
from daskglm.kernels.cholesky import mirror
from daskglm.kernels.sparse import SparseTables

Integers = npt.NDArray[np.int64]
_TILE_BYTES = 96 * 1024
# Gathering comes first, when the columns still lie in memory: longer runs of each suit the processor's prefetching.
_GATHER_ROWS = 4096
# Rows of X, but for its sparse columns, written out at a time.
_ROWS_IN_FULL = 2_048


def tile_rows(n_dense: int, n_factors: int) -> int:
    """Rows per tile: a fixed function of the width, never of the machine, for it decides the order of the sums."""
    per_row = 8 * (2 * (n_dense + 2) + (n_dense + 2 if n_factors else 0)) + 4 * n_factors
    return int(min(1024, max(64, _TILE_BYTES // per_row // LANES * LANES)))


def _aligned(count: int) -> Vector:
    """Zeros that begin on a cache line: a vector that straddles two costs twice."""
    buffer = np.zeros(count + LANES)
    first = (-buffer.ctypes.data // 8) % LANES
    return buffer[first : first + count]


@final
@dataclass(frozen=True)
class Pieces:
    """A block as the kernels take it: addresses, widths and places of its columns. Keeps the block alive."""

    block: Block
    dense: Integers
    scaling: npt.NDArray[np.float64]
    levels: Integers
    level_scale: Vector
    rows: int
    sparse: Integers
    sparse_scale: Vector

    @staticmethod
    def of(block: Block, scaling: Scaling) -> Pieces:
        """Check every column and note where it lies. Columns of levels: address, kind, place, value, row, levels."""
        d = len(block.dense)
        dense = np.zeros((d, 2), np.int64)
        for j, column in enumerate(block.dense):
            dense[j] = _address(column, block.n), NUMERIC_KINDS[column.dtype.str[1:]]
        levels = np.zeros((len(block.levels), 6), np.int64)
        place = 1 + d
        for k, piece in enumerate(block.levels):
            if piece.value is not None and piece.value.dtype != np.float64:
                # a converted copy would be gone by the time its address is read
                raise ValueError(f"a factor's value must be float64, not {piece.value.dtype}")
            value = 0 if piece.value is None else _address(piece.value, block.n)
            kind = CODE_KINDS[piece.codes.dtype.str[1:]]
            levels[k] = _address(piece.codes, block.n), kind, place, value, place - 1 - d, piece.n_levels
            place += piece.n_levels
        if block.sparse is not None and (block.sparse.n, block.sparse.n_columns) != (
            block.n,
            scaling.sparse_scale.size,
        ):
            raise ValueError(f"a sparse piece must have {block.n} rows and {scaling.sparse_scale.size} columns")
        return Pieces(
            block,
            dense,
            np.ascontiguousarray(np.column_stack([scaling.shift, scaling.scale])),
            levels,
            scaling.level_scale,
            tile_rows(d, len(block.levels)),
            np.zeros(3, np.int64) if block.sparse is None else sparse_products.places_of(block.sparse),
            scaling.sparse_scale,
        )

    @property
    def width(self) -> int:
        """Number of raw columns."""
        return self.block.width

    @property
    def n_sparse(self) -> int:
        """Number of sparse columns."""
        return 0 if self.block.sparse is None else self.block.sparse.n_columns


def _address(column: Column, n: int) -> int:
    if column.shape != (n,) or not (column.flags.c_contiguous and column.flags.aligned):
        raise ValueError(f"a block's column must be contiguous, aligned and of length {n}, not {column.shape}")
    if not column.dtype.isnative:
        raise ValueError(f"a block's column must be in native byte order, not {column.dtype.str}")
    return int(column.ctypes.data)


@final
class Workspace:
    """The tiles of one thread, for blocks of one layout; reused from chunk to chunk."""

    def __init__(self, pieces: Pieces) -> None:
        d, k, rows = len(pieces.dense), len(pieces.levels), pieces.rows
        self.z = _aligned(max(-(-(d + 1) // 4) * 4, k, 2) * rows)
        self.wz = _aligned(-(-(d + 3) // 2) * 2 * rows)
        self.by_row = _aligned((-(-(d + 2) // LANES) * LANES) * rows if k else LANES)
        self.codes = np.zeros(max(k, 1) * rows, np.uint32)
        self.line = _aligned(_GATHER_ROWS)
        self.line_codes = np.zeros(_GATHER_ROWS, np.uint32)
        self.pair_at = Layout.of(pieces).pair_starts()


def gather(pieces: Pieces, workspace: Workspace, coef: Vector, start: int, stop: int, eta: Vector) -> None:
    """eta (stop - start,) += the rows' X b, with b (width,) the coefficients of the scaled raw columns."""
    native.products.gather(
        pieces.dense, pieces.scaling, pieces.levels, pieces.level_scale, coef, start, stop, _GATHER_ROWS,
        workspace.line, workspace.line_codes, eta,
    )  # fmt: skip
    if pieces.n_sparse:
        last = coef[coef.size - pieces.n_sparse :]
        sparse_products.gather(pieces.sparse, pieces.sparse_scale, last, start, stop, eta)


def quadratic_form(block: Block, scaling: Scaling, matrix: npt.NDArray[np.float64]) -> Vector:
    """x_i' C x_i (n,) of every row, C (width, width) symmetric, of the scaled raw columns."""
    out = np.empty(block.n)
    if block.sparse is not None:
        for start in range(0, block.n, _ROWS_IN_FULL):
            rows = block.rows(start, min(start + _ROWS_IN_FULL, block.n))
            assert rows.sparse is not None
            # sparse columns are never written out
            beside = reference.matrix(replace(rows, sparse=None), scaling)
            form = sparse_products.quadratic(rows.sparse, scaling.sparse_scale, beside, matrix)
            out[start : start + rows.n] = form
        return out
    pieces = Pieces.of(block, scaling)
    d, k, rows_at_once = len(pieces.dense), len(pieces.levels), pieces.rows
    z, values, line = _aligned((d + 1) * rows_at_once), _aligned(k * rows_at_once), _aligned(rows_at_once)
    native.products.quadratic_form(
        pieces.dense, pieces.scaling, pieces.levels, pieces.level_scale, np.ascontiguousarray(matrix, np.float64),
        0, block.n, rows_at_once, z, values, line, np.zeros(max(k, 1) * rows_at_once, np.uint32), out,
    )  # fmt: skip
    return out


@final
@dataclass(frozen=True)
class Layout:
    """Which tables a Gram has: d dense columns, the number of levels of each factor, and p_s sparse columns."""

    n_dense: int
    counts: tuple[int, ...]
    n_sparse: int = 0

    @staticmethod
    def of(pieces: Pieces) -> Layout:
        """The layout of a block."""
        return Layout(len(pieces.dense), tuple(int(count) for count in pieces.levels[:, 5]), pieces.n_sparse)

    @property
    def stride(self) -> int:
        """Numbers per row of the (levels x dense) table: d + 2, padded to whole lanes."""
        return -(-(self.n_dense + 2) // LANES) * LANES

    @property
    def width(self) -> int:
        """Number of raw columns."""
        return 1 + self.n_dense + sum(self.counts) + self.n_sparse

    def nbytes(self, pairs: int | None = None) -> int:
        """About the bytes of a Gram's tables; pairs bounds the entries of its sparse products by `Sparse.pairs`."""
        d, levels, p = self.n_dense, sum(self.counts), self.n_sparse
        tables = (d + 1) * (d + 2) + levels * (self.stride + 1) + int(self.pair_starts()[-1]) + p * (d + 2)
        entries = p * (p + 1) // 2 + levels * p
        if pairs is not None:
            # a row has one level of each factor, and at most as many entries as pairs
            entries = min(entries, pairs * (1 + len(self.counts)))
        return 8 * tables + 12 * entries

    def pair_starts(self) -> Integers:
        """Where the (levels of k) x (levels of l) table of each pair k < l begins, at k * factors + l; then the end."""
        k = len(self.counts)
        starts = np.zeros(k * k + 1, np.int64)
        total = 0
        for a in range(k):
            for b in range(a + 1, k):
                starts[a * k + b] = total
                total += self.counts[a] * self.counts[b]
        starts[-1] = total
        return starts


@final
@dataclass(frozen=True)
class Gram:
    """X's and X'WX as the tables they are summed in, which are smaller than the matrix and add leaf by leaf.

    dense, cross, square and pairs as `_scatter` fills them; valued: whether a factor has a value per row; sparse: the
    tables of the sparse columns, where there are any.
    """

    layout: Layout
    valued: bool
    dense: npt.NDArray[np.float64]
    cross: Vector
    square: Vector
    pairs: Vector
    sparse: SparseTables | None = None

    @staticmethod
    def zeros(pieces: Pieces) -> Gram:
        """Empty tables for blocks of one layout."""
        layout = Layout.of(pieces)
        steps = -(-(layout.n_dense + 1) // 4) * 4
        levels = sum(layout.counts)
        return Gram(
            layout,
            bool(pieces.levels[:, 3].any()),
            np.zeros((steps, steps + 4)),
            _aligned(levels * layout.stride),
            np.zeros(levels),
            np.zeros(int(layout.pair_starts()[-1])),
        )

    def __add__(self, other: Gram) -> Gram:
        return Gram(
            self.layout, self.valued or other.valued, self.dense + other.dense, self.cross + other.cross,
            self.square + other.square, self.pairs + other.pairs,
            None if self.sparse is None or other.sparse is None else self.sparse + other.sparse,
        )  # fmt: skip

    def take(self, pieces: Pieces, workspace: Workspace, weight: Vector, score: Vector, start: int, stop: int) -> None:
        """Add, in place, rows start .. stop - 1 with their weights and scores, both (stop - start,), to all tables but
        those of sparse columns: see `Scatter`.
        """
        native.products.scatter(
            pieces.dense, pieces.scaling, pieces.levels, pieces.level_scale, workspace.pair_at, weight, score,
            start, stop, pieces.rows, workspace.z, workspace.wz, workspace.by_row, workspace.codes,
            self.dense, self.cross, self.square, self.pairs,
        )  # fmt: skip

    def gradient(self) -> Vector:
        """X's (width,)."""
        d = self.layout.n_dense
        table = self.cross.reshape(-1, self.layout.stride)
        rest = [] if self.sparse is None else [self.sparse.cross[:, d + 1]]
        return np.concatenate([self.dense[: d + 1, d + 1], table[:, d + 1], *rest])

    def matrix(self) -> npt.NDArray[np.float64]:
        """X'WX (width, width), symmetric to the last bit."""
        d, counts = self.layout.n_dense, self.layout.counts
        end = d + 1 + sum(counts)
        result = np.zeros((self.layout.width, self.layout.width))
        self._write(result, range(len(counts)))
        if self.sparse is not None:
            result[: d + 1, end:] = self.sparse.cross[:, : d + 1].T
            result[end:, : d + 1] = self.sparse.cross[:, : d + 1]
            # [levels | S]'W S, upper triangle, stands at the very place
            sparse_products.write(self.sparse.products, result[d + 1 :, end:])
            result[end:, d + 1 : end] = result[d + 1 : end, end:].T
            mirror(result[end:, end:])
        return result

    def squares(self) -> Vector:
        """The diagonal (width,) of X'WX."""
        if self.sparse is not None:
            return np.diag(self.matrix()).copy()
        d = self.layout.n_dense
        levels = self.square if self.valued else self.cross.reshape(-1, self.layout.stride)[:, 0]
        return np.concatenate([np.diag(self.dense)[: d + 1], levels])

    def around(self, factor: int) -> tuple[Vector, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """X'WX by the levels of one factor, of tables without sparse columns: their squares (m,),
        their products with the other raw columns (m, width - m), and those of the others among
        themselves.
        """
        assert self.sparse is None
        counts = self.layout.counts
        others = [k for k in range(len(counts)) if k != factor]
        table = self._of_levels(factor)
        square = np.zeros((self.layout.width - counts[factor],) * 2)
        self._write(square, others)
        cross = np.concatenate([table, *(self._pair(factor, other) for other in others)], axis=1)
        first = sum(counts[:factor])
        diagonal = self.square[first : first + counts[factor]] if self.valued else table[:, 0]
        return diagonal.copy(), cross, square

    def _of_levels(self, factor: int) -> npt.NDArray[np.float64]:
        """Products of the levels of one factor with [1 | dense]."""
        first = sum(self.layout.counts[:factor])
        table = self.cross.reshape(-1, self.layout.stride)[:, : self.layout.n_dense + 1]
        return table[first : first + self.layout.counts[factor]]

    def _pair(self, a: int, b: int) -> npt.NDArray[np.float64]:
        """Products of the levels of two factors."""
        if a > b:
            return self._pair(b, a).T
        counts = self.layout.counts
        first = int(self.layout.pair_starts()[a * len(counts) + b])
        return self.pairs[first : first + counts[a] * counts[b]].reshape(counts[a], counts[b])

    def _write(self, result: npt.NDArray[np.float64], factors: Sequence[int]) -> None:
        """X'WX of [1 | dense | levels of these factors] to the upper left corner of zeros."""
        d, counts = self.layout.n_dense, self.layout.counts
        result[: d + 1, : d + 1] = self.dense[: d + 1, : d + 1]
        mirror(result[: d + 1, : d + 1])
        places = d + 1 + np.concatenate([[0], np.cumsum([counts[k] for k in factors])]).astype(int)
        for i, a in enumerate(factors):
            table, own = self._of_levels(a), slice(places[i], places[i + 1])
            result[own, : d + 1] = table
            result[: d + 1, own] = table.T
            at, first = np.arange(places[i], places[i + 1]), sum(counts[:a])
            result[at, at] = self.square[first : first + counts[a]] if self.valued else table[:, 0]
            for j in range(i + 1, len(factors)):
                pair, other = self._pair(a, factors[j]), slice(places[j], places[j + 1])
                result[own, other] = pair
                result[other, own] = pair.T


@final
class Scatter:
    """X's and X'WX of one block while its chunks go by.

    The products of sparse columns among each other wait until the weights of all rows are known: one table that is
    filled once is cheaper than one per chunk that is added.
    """

    def __init__(self, pieces: Pieces, workspace: Workspace) -> None:
        self.pieces, self.workspace = pieces, workspace
        self.gram = Gram.zeros(pieces)
        sparse = pieces.block.sparse is not None
        self.weight = np.zeros(pieces.block.n if sparse else 0)
        self.cross = np.zeros((pieces.n_sparse, len(pieces.dense) + 2))

    def take(self, weight: Vector, score: Vector, start: int, stop: int) -> None:
        """Add rows start .. stop - 1 with their weights and scores, both (stop - start,)."""
        pieces = self.pieces
        self.gram.take(pieces, self.workspace, weight, score, start, stop)
        if pieces.block.sparse is None:
            return
        self.weight[start:stop] = weight
        by_row = np.empty((stop - start, len(pieces.dense) + 2))
        by_row[:, 0] = weight
        for j, column in enumerate(pieces.block.dense):
            by_row[:, 1 + j] = (column[start:stop] - pieces.scaling[j, 0]) * pieces.scaling[j, 1] * weight
        by_row[:, -1] = score
        sparse_products.scatter(pieces.sparse, pieces.sparse_scale, by_row, start, stop, self.cross)

    def result(self) -> Gram:
        """The tables, complete."""
        block = self.pieces.block
        if block.sparse is None:
            return self.gram
        products = sparse_products.products(
            block.sparse, self.pieces.sparse_scale, block.levels, self.pieces.level_scale, self.weight
        )
        return replace(self.gram, sparse=SparseTables(self.cross, products))


def add_gradient(pieces: Pieces, workspace: Workspace, score: Vector, start: int, stop: int, gradient: Vector) -> None:
    """gradient (width,) += X's over the rows start .. stop - 1."""
    native.products.scatter_gradient(
        pieces.dense, pieces.scaling, pieces.levels, pieces.level_scale, score, start, stop, pieces.rows,
        workspace.z, workspace.codes, gradient,
    )  # fmt: skip
    if pieces.n_sparse:
        last = gradient[gradient.size - pieces.n_sparse :]
        sparse_products.scatter(pieces.sparse, pieces.sparse_scale, score[:, None], start, stop, last[:, None])
