"""The same three products for columns of which most entries are zero, at the price of the entries that are stored.

Rows are read in order, and every sum has the order of the rows, whatever the panel or the thread: the bits depend on the
block alone. No entry of a product is formed that no row asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
from numba import carray

from daskglm.kernels.blocks import Levels, Sparse, Vector
from daskglm.kernels.compiled import kernel
from daskglm.kernels.lanes import float64_at, int32_at, int64_at

Matrix = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Rows of the product are summed a panel at a time in a table that stays in the second-level cache, or nearly; a panel of
# few rows would have every row of the block visited for next to nothing.
PANEL_BYTES = 4 << 20
PANEL_ROWS = 64


@kernel("void(int64[::1], float64[::1], float64[::1], int64, int64, float64[::1])")
def _gather(places, scale, coef, start, stop, eta):  # type: ignore[no-untyped-def]
    """eta[i] += sum_j x_ij scale_j coef_j."""
    indptr = carray(int64_at(places[0]), stop + 1)
    indices = carray(int32_at(places[1]), indptr[stop])
    data = carray(float64_at(places[2]), indptr[stop])
    for i in range(start, stop):
        total = 0.0
        for q in range(indptr[i], indptr[i + 1]):
            j = np.uint32(indices[q])
            total += data[q] * scale[j] * coef[j]
        eta[i - start] += total


@kernel("void(int64[::1], float64[::1], float64[::1], int64, int64, int64, float64[::1])")
def _scatter(places, scale, by_row, columns, start, stop, table):  # type: ignore[no-untyped-def]
    """table[j, c] += x_ij scale_j by_row[i - start, c], both tables flat with `columns` numbers per row."""
    indptr = carray(int64_at(places[0]), stop + 1)
    indices = carray(int32_at(places[1]), indptr[stop])
    data = carray(float64_at(places[2]), indptr[stop])
    for i in range(start, stop):
        row = by_row[(i - start) * columns : (i - start + 1) * columns]
        for q in range(indptr[i], indptr[i + 1]):
            j = np.uint32(indices[q])
            x = data[q] * scale[j]
            sums = table[np.int64(j) * columns : (np.int64(j) + 1) * columns]
            for c in range(columns):
                sums[c] += x * row[c]


@kernel("void(int64[::1], float64[::1], int64, float64[::1])")
def _scaled(places, scale, n, out):  # type: ignore[no-untyped-def]
    """out[q] = x_ij scale_j of each stored entry."""
    count = carray(int64_at(places[0]), n + 1)[n]
    indices = carray(int32_at(places[1]), count)
    data = carray(float64_at(places[2]), count)
    for q in range(count):
        out[q] = data[q] * scale[np.uint32(indices[q])]


@kernel(
    "Tuple((int64[::1], int32[::1], float64[::1]))"
    "(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, int64)"
)
def _products(left, right, weight, n, n_left, n_right, ahead, height):  # type: ignore[no-untyped-def]
    """L' diag(weight) R by rows, columns ascending, zeros left out; of L's columns that R has too, the upper triangle.

    L (n, n_left) and R (n, n_right) by rows, columns ascending. A row of L is `ahead` entries of its own, and then the
    row of R: entry ahead + t of it meets the entries t, t + 1, ... of R's. The product's rows are summed `height` at a
    time in a table; `marks` tells which runs of 64 of its numbers were touched.
    """
    left_start = carray(int64_at(left[0]), n + 1)
    left_column = carray(int32_at(left[1]), left_start[n])
    left_value = carray(float64_at(left[2]), left_start[n])
    right_start = carray(int64_at(right[0]), n + 1)
    right_column = carray(int32_at(right[1]), right_start[n])
    right_value = carray(float64_at(right[2]), right_start[n])
    runs = (n_right + 63) // 64
    table = np.zeros((height, runs * 64))
    marks = np.zeros((height, runs), np.uint8)
    following = left_start[:n].copy()
    room = max(4096, n_right)
    columns = np.empty(room, np.int32)
    values = np.empty(room)
    starts = np.zeros(n_left + 1, np.int64)
    count = 0
    for first in range(0, n_left, height):
        last = min(first + height, n_left)
        for i in range(n):
            q = following[i]
            end = left_start[i + 1]
            while q < end and left_column[q] < last:
                row = table[left_column[q] - first]
                mark = marks[left_column[q] - first]
                factor = weight[i] * left_value[q]
                for r in range(right_start[i] + max(q - left_start[i] - ahead, 0), right_start[i + 1]):
                    b = np.uint32(right_column[r])
                    row[b] += factor * right_value[r]
                    mark[b >> np.uint32(6)] = 1
                q += 1
            following[i] = q
        for a in range(last - first):
            if count + n_right > room:
                room = 2 * room + n_right
                more_columns = np.empty(room, np.int32)
                more_columns[:count] = columns[:count]
                columns = more_columns
                more_values = np.empty(room)
                more_values[:count] = values[:count]
                values = more_values
            row = table[a]
            for g in range(runs):
                if marks[a, g]:
                    marks[a, g] = 0
                    for c in range(64 * g, 64 * g + 64):
                        if row[c] != 0.0:
                            columns[count] = c
                            values[count] = row[c]
                            row[c] = 0.0
                            count += 1
            starts[first + a + 1] = count
    return starts, columns[:count].copy(), values[:count].copy()


@kernel("void(int64[::1], float64[::1], float64[:,::1], float64[:,::1], int64, int64, float64[::1])")
def _quadratic(places, scale, base, matrix, start, stop, out):  # type: ignore[no-untyped-def]
    """out[i] = x_i' C x_i of rows x = [base | sparse], C symmetric."""
    indptr = carray(int64_at(places[0]), stop + 1)
    indices = carray(int32_at(places[1]), indptr[stop])
    data = carray(float64_at(places[2]), indptr[stop])
    width = base.shape[1]
    for i in range(start, stop):
        z = base[i - start]
        total = 0.0
        for a in range(width):
            for b in range(width):
                total += z[a] * matrix[a, b] * z[b]
        for q in range(indptr[i], indptr[i + 1]):
            row = matrix[width + indices[q]]
            inner = 0.0
            for b in range(width):
                inner += 2.0 * row[b] * z[b]
            for r in range(indptr[i], indptr[i + 1]):
                inner += row[width + indices[r]] * (data[r] * scale[indices[r]])
            total += data[q] * scale[indices[q]] * inner
        out[i - start] = total


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
    _gather(places, scale, coef, start, stop, eta)


def scatter(places: Integers, scale: Vector, by_row: Matrix, start: int, stop: int, table: Matrix) -> None:
    """table (p_s, c) += S' by_row over the rows start .. stop - 1, by_row (stop - start, c)."""
    _scatter(places, scale, by_row.reshape(-1), by_row.shape[1], start, stop, table.reshape(-1))


def quadratic(sparse: Sparse, scale: Vector, base: Matrix, matrix: Matrix) -> Vector:
    """x_i' C x_i (n,) of rows [base | sparse], base (n, w), C (w + p_s, w + p_s) symmetric."""
    out = np.empty(sparse.n)
    contiguous = np.ascontiguousarray(matrix, np.float64)
    _quadratic(places_of(sparse), scale, np.ascontiguousarray(base), contiguous, 0, sparse.n, out)
    return out


def products(sparse: Sparse, scale: Vector, levels: tuple[Levels, ...], level_scale: Vector, weight: Vector) -> Any:
    """[levels | S]' diag(weight) S as a scipy CSR array (L + p_s, p_s), of S'WS the upper triangle.

    levels: one row per level of each factor, its value scaled by level_scale (K,); S is scaled by scale (p_s,).
    """
    from scipy.sparse import csr_array

    n, count = sparse.n, sparse.n_columns
    values = np.empty(sparse.data.size)
    _scaled(places_of(sparse), scale, n, values)
    right = Sparse(sparse.indptr, sparse.indices, values, count)
    left = _beside(levels, level_scale, right) if levels else right
    height = min(max(PANEL_ROWS, PANEL_BYTES // (8 * max(count, 1))), max(left.n_columns, 1))
    starts, columns, sums = _products(
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
