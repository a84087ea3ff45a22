"""Scores summed by cluster, and the products of those sums: sum_g u_g u_g' with u_g = sum over its rows of X_i' s_i.

A cluster of few rows touches few levels, so that its sum is kept as a dense part and the levels and sparse columns that its
rows name; the price of a cluster is the square of that, however wide X is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import carray

from daskglm.kernels.blocks import Block, Scaling
from daskglm.kernels.compiled import kernel
from daskglm.kernels.lanes import LANES, add, float64_at, fma, int32_at, int64_at, load, spread, store
from daskglm.kernels.products import Pieces, codes_at, standardised

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_TILE_BYTES = 96 * 1024


@kernel(
    "void(int64[:,::1], float64[:,::1], int64[:,::1], float64[::1], int64[::1], float64[::1], int64[::1],"
    " float64[:,::1], float64[:,::1], int64, int64, float64[::1], float64[::1], uint32[::1],"
    " float64[::1], float64[::1], float64[::1], int64[::1], int64[::1], float64[::1],"
    " float64[::1], float64[::1], float64[::1], float64[::1], float64[::1])"
)
def _products(  # type: ignore[no-untyped-def]
    dense, scaling, levels, level_scale, sparse, sparse_scale, starts, score, extra, rows, stride, by_row, x, codes,
    values, u, v, mark, touched, compact, gram, cross, pairs, all_u, all_v,
):  # fmt: skip
    """Add the clusters of rows starts[g] .. starts[g + 1] - 1 to the tables.

    score (q, n) and extra (r, n); `u` is a cluster's dense part [sum extra | for each predictor sum s [1, z]] padded to
    `stride`, and `v` its q sums for each level and sparse column. gram (stride, stride): u u', lower triangle and some more;
    cross: for each number of `v` a row u; pairs: v v', each pair once, on either side of the diagonal. all_u, all_v: the sums
    of u and v themselves.
    """
    d = dense.shape[0]
    n_factors = levels.shape[0]
    q = score.shape[0]
    r = extra.shape[0]
    n = score.shape[1]
    entries = r + q * (1 + d)
    first_sparse = mark.size - sparse_scale.size
    size = v.size
    has_sparse = sparse_scale.size > 0
    indptr = carray(int64_at(sparse[0]), n + 1 if has_sparse else 0)
    indices = carray(int32_at(sparse[1]), indptr[n] if has_sparse else 0)
    data = carray(float64_at(sparse[2]), indptr[n] if has_sparse else 0)
    g = 0
    count = 0
    u[:] = 0.0
    for t in range(0, n, rows):
        m = min(rows, n - t)
        for e in range(r):
            for i in range(m):
                by_row[i * stride + e] = extra[e, t + i]
        for j in range(d + 1):
            if j == 0:
                x[:m] = 1.0
            else:
                standardised(dense[j - 1, 0], dense[j - 1, 1], t, scaling[j - 1, 0], scaling[j - 1, 1], x[:m])
            for a in range(q):
                at = r + a * (1 + d) + j
                for i in range(m):
                    by_row[i * stride + at] = score[a, t + i] * x[i]
        for k in range(n_factors):
            codes_at(levels[k, 0], levels[k, 1], t, levels[k, 4], codes[k * rows : k * rows + m])
            vk = values[k * rows : k * rows + m]
            if levels[k, 3] == 0:
                vk[:] = 1.0
            else:
                standardised(levels[k, 3], 0, t, 0.0, level_scale[k], vk)
        for i in range(m):
            for e in range(0, stride, 8):
                store(u, e, add(load(u, e), load(by_row, i * stride + e)))
            for k in range(n_factors):
                c = np.uint64(codes[np.uint64(k * rows + i)])
                value = values[np.uint64(k * rows + i)]
                if mark[c] != g:
                    mark[c] = g
                    touched[np.uint64(count)] = c
                    count += 1
                    for a in range(q):
                        v[np.uint64(c * q + a)] = score[a, t + i] * value
                else:
                    for a in range(q):
                        v[np.uint64(c * q + a)] += score[a, t + i] * value
            if has_sparse:
                for p in range(indptr[t + i], indptr[t + i + 1]):
                    column = np.int64(indices[p])
                    c = np.uint64(first_sparse + column)
                    if mark[c] != g:
                        mark[c] = g
                        touched[np.uint64(count)] = c
                        count += 1
                        for a in range(q):
                            v[np.uint64(c * q + a)] = 0.0
                    for a in range(q):
                        v[np.uint64(c * q + a)] += score[a, t + i] * (data[p] * sparse_scale[column])
            if t + i + 1 < starts[g + 1]:
                continue
            # the cluster is complete
            for e in range(0, stride, 8):
                store(all_u, e, add(load(all_u, e), load(u, e)))
            for e in range(entries):
                one = spread(u[e])
                for f in range(0, e + 1, 8):
                    store(gram, e * stride + f, fma(one, load(u, f), load(gram, e * stride + f)))
            for h in range(count):
                for a in range(q):
                    at = touched[h] * q + a
                    compact[h * q + a] = v[at]
                    all_v[at] += v[at]
                    one = spread(v[at])
                    for f in range(0, stride, 8):
                        store(cross, at * stride + f, fma(one, load(u, f), load(cross, at * stride + f)))
            for h in range(count):
                first = touched[h] * q
                for a in range(q):
                    amount = compact[h * q + a]
                    line = (first + a) * size
                    for b in range(a, q):
                        pairs[np.uint64(line + first + b)] += amount * compact[h * q + b]
                    if q == 1:
                        for l in range(h + 1, count):
                            pairs[np.uint64(line + touched[np.uint64(l)])] += amount * compact[np.uint64(l)]
                    else:
                        for l in range(h + 1, count):
                            at = line + touched[np.uint64(l)] * q
                            for b in range(q):
                                pairs[np.uint64(at + b)] += amount * compact[np.uint64(l * q + b)]
            g += 1
            count = 0
            u[:] = 0.0


def cluster_products(
    block: Block, scaling: Scaling, starts: Integers, score: Matrix, extra: Matrix
) -> tuple[Matrix, Vector]:
    """sum_g u_g u_g' and sum_g u_g of the clusters of rows starts[g] .. starts[g + 1] - 1 of a block whose rows are in their order.

    score (q, n) are the scores of q linear predictors, extra (r, n) those of parameters that stand by themselves. The
    results are (r + q width) square, symmetric to the last bit, and as long: the extra ones, then the raw columns of each
    predictor.
    """
    pieces = Pieces.of(block, scaling)
    d, k, q, r = len(pieces.dense), len(pieces.levels), score.shape[0], extra.shape[0]
    entries, others = r + q * (1 + d), block.width - 1 - d
    stride = -(-entries // LANES) * LANES
    rows = int(min(1024, max(16, _TILE_BYTES // (8 * (stride + 2 * k + 1)))))
    gram, cross = np.zeros(stride * stride), np.zeros(others * q * stride)
    pairs, all_u, all_v = np.zeros((others * q) ** 2), np.zeros(stride), np.zeros(others * q)
    _products(
        pieces.dense, pieces.scaling, pieces.levels, pieces.level_scale, pieces.sparse, pieces.sparse_scale,
        starts, score, extra, rows, stride, np.zeros(rows * stride), np.zeros(rows),
        np.zeros(max(k, 1) * rows, np.uint32), np.zeros(max(k, 1) * rows), np.zeros(stride), np.zeros(others * q),
        np.full(others, -1), np.zeros(others, np.int64), np.zeros(others * q), gram, cross, pairs,
        all_u, all_v,
    )  # fmt: skip
    whole = _assembled(
        gram.reshape(stride, stride), cross.reshape(-1, stride), pairs.reshape(others * q, others * q), entries
    )
    sums = np.concatenate([all_u[:entries], all_v])
    if q == 1:
        return whole, sums
    # of each predictor its dense columns, then its share of the levels
    order = [np.arange(r)]
    for a in range(q):
        order += [r + a * (1 + d) + np.arange(1 + d), entries + a + q * np.arange(others)]
    at = np.concatenate(order)
    return np.ascontiguousarray(whole[np.ix_(at, at)]), sums[at]


def _assembled(gram: Matrix, cross: Matrix, pairs: Matrix, entries: int) -> Matrix:
    """The tables as one symmetric matrix, in their own order."""
    size = pairs.shape[0]
    whole = np.empty((entries + size, entries + size))
    lower = np.tril(gram[:entries, :entries])
    whole[:entries, :entries] = lower + np.tril(lower, -1).T
    whole[entries:, :entries] = cross[:, :entries]
    whole[:entries, entries:] = cross[:, :entries].T
    square = pairs + pairs.T
    np.fill_diagonal(square, np.diag(pairs))
    whole[entries:, entries:] = square
    return whole
