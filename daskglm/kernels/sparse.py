"""The same three products for columns of which most entries are zero, at the price of the entries that are stored.

Rows are read in order, and every sum has the order of the rows, whatever the panel or the thread: the bits depend on the
block alone. No entry of a product is formed that no row asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels import native
from daskglm.kernels.blocks import Levels, Sparse, Vector

Matrix = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Rows of the product are summed a panel at a time in a table that stays in the second-level cache, or nearly; a panel of
# few rows would have every row of the block visited for next to nothing.
PANEL_BYTES = 4 << 20
PANEL_ROWS = 64


def places_of(sparse: Sparse) -> Integers:
    """Where the arrays of a sparse piece lie: they are handed over as addresses, for they may be read-only."""
    for name, kind in (("indptr", np.int64), ("indices", np.int32), ("data", np.float64)):
        array = getattr(sparse, name)
        if array.dtype != kind or not (array.flags.c_contiguous and array.flags.aligned and array.ndim == 1):
            raise ValueError(f"{name} of a sparse piece must be a contiguous, aligned vector of {np.dtype(kind)}")
    if sparse.indices.size != sparse.indptr[-1] or sparse.data.size != sparse.indptr[-1]:
        raise ValueError("a sparse piece must hold as many indices and data as its indptr says")
    return np.array([sparse.indptr.ctypes.data, sparse.indices.ctypes.data, sparse.data.ctypes.data])


def gather(places: Integers, scale: Vector, coef: Vector, start: int, stop: int, eta: Vector) -> None:
    """eta (stop - start,) += the rows' S b, with b (p_s,) the coefficients of the scaled columns."""
    native.sparse.gather(places, scale, coef, start, stop, eta)


def scatter(places: Integers, scale: Vector, by_row: Matrix, start: int, stop: int, table: Matrix) -> None:
    """table (p_s, c) += S' by_row over the rows start .. stop - 1, by_row (stop - start, c)."""
    native.sparse.scatter(places, scale, by_row.reshape(-1), by_row.shape[1], start, stop, table.reshape(-1))


def quadratic(sparse: Sparse, scale: Vector, base: Matrix, matrix: Matrix) -> Vector:
    """x_i' C x_i (n,) of rows [base | sparse], base (n, w), C (w + p_s, w + p_s) symmetric."""
    out = np.empty(sparse.n)
    contiguous = np.ascontiguousarray(matrix, np.float64)
    native.sparse.quadratic(places_of(sparse), scale, np.ascontiguousarray(base), contiguous, 0, sparse.n, out)
    return out


def products(sparse: Sparse, scale: Vector, levels: tuple[Levels, ...], level_scale: Vector, weight: Vector) -> Any:
    """[levels | S]' diag(weight) S as a scipy CSR array (L + p_s, p_s), of S'WS the upper triangle.

    levels: one row per level of each factor, its value scaled by level_scale (K,); S is scaled by scale (p_s,).
    """
    from scipy.sparse import csr_array

    n, count = sparse.n, sparse.n_columns
    values = np.empty(sparse.data.size)
    native.sparse.scaled(places_of(sparse), scale, n, values)
    right = Sparse(sparse.indptr, sparse.indices, values, count)
    left = _beside(levels, level_scale, right) if levels else right
    height = min(max(PANEL_ROWS, PANEL_BYTES // (8 * max(count, 1))), max(left.n_columns, 1))
    starts, columns, sums = native.sparse.products(
        places_of(left), places_of(right), weight, n, left.n_columns, count, len(levels), height
    )
    if sums.size <= np.iinfo(np.int32).max:
        # scipy keeps both kinds of index in the wider of the two
        starts = starts.astype(np.int32)
    result = csr_array((sums, columns, starts), shape=(left.n_columns, count), copy=False)
    result.has_canonical_format = True
    return result


def write(products: Any, table: Matrix) -> None:
    """The entries of a CSR array into a table of its shape, in which the others are zero."""
    width = table.shape[1]
    for first in range(0, table.shape[0], PANEL_ROWS):
        rows = products.indptr[first : first + PANEL_ROWS + 1]
        entries = slice(int(rows[0]), int(rows[-1]))
        panel = np.zeros((rows.size - 1, width))
        at = np.repeat(np.arange(rows.size - 1) * width, np.diff(rows)) + products.indices[entries]
        panel.reshape(-1)[at] = products.data[entries]
        table[first : first + PANEL_ROWS] = panel


def _beside(levels: tuple[Levels, ...], level_scale: Vector, sparse: Sparse) -> Sparse:
    """[levels | sparse] by rows: every factor is an entry in the column of its level."""
    k = len(levels)
    lengths = np.diff(sparse.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths + k)])
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1])
    place = 0
    for position, (piece, scale) in enumerate(zip(levels, level_scale, strict=True)):
        at = indptr[:-1] + position
        indices[at] = place + piece.codes.astype(np.int32)
        data[at] = 1.0 if piece.value is None else piece.value * scale
        place += piece.n_levels
    rest = np.ones(indptr[-1], bool)
    rest[(indptr[:-1, None] + np.arange(k)).ravel()] = False
    indices[rest] = sparse.indices + place
    data[rest] = sparse.data
    return Sparse(indptr, indices, data, place + sparse.n_columns)


@final
@dataclass(frozen=True)
class SparseTables:
    """The part of a Gram that belongs to the sparse columns.

    cross (p_s, d + 2): S' [w, w z, s]; products: as `products` gives them.
    """

    cross: Matrix
    products: Any

    def __add__(self, other: SparseTables) -> SparseTables:
        return SparseTables(self.cross + other.cross, self.products + other.products)
