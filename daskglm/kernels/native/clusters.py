"""Compiled sums of scores by cluster."""

from __future__ import annotations

import numpy as np
from numba import carray

from daskglm.kernels.native.compiled import kernel
from daskglm.kernels.native.lanes import add, float64_at, fma, int32_at, int64_at, load, spread, store
from daskglm.kernels.native.products import codes_at, standardised


@kernel(
    "void(int64[:,::1], float64[:,::1], int64[:,::1], float64[::1], int64[::1], float64[::1], int64[::1],"
    " float64[:,::1], float64[:,::1], int64, int64, float64[::1], float64[::1], uint32[::1],"
    " float64[::1], float64[::1], float64[::1], int64[::1], int64[::1], float64[::1],"
    " float64[::1], float64[::1], float64[::1], float64[::1], float64[::1])"
)
def products(  # type: ignore[no-untyped-def]
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
