"""Compiled loops over sparse columns."""

from __future__ import annotations

import numpy as np
from numba import carray

from daskglm.kernels.native.compiled import kernel
from daskglm.kernels.native.lanes import float64_at, int32_at, int64_at


@kernel("void(int64[::1], float64[::1], float64[::1], int64, int64, float64[::1])")
def gather(places, scale, coef, start, stop, eta):  # type: ignore[no-untyped-def]
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
def scatter(places, scale, by_row, columns, start, stop, table):  # type: ignore[no-untyped-def]
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
def scaled(places, scale, n, out):  # type: ignore[no-untyped-def]
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
def products(left, right, weight, n, n_left, n_right, ahead, height):  # type: ignore[no-untyped-def]
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
def quadratic(places, scale, base, matrix, start, stop, out):  # type: ignore[no-untyped-def]
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
