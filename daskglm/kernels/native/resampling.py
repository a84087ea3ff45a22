"""Compiled draws of bootstrap weights, and sums under them."""

from __future__ import annotations

import numpy as np

from daskglm.kernels.native.compiled import kernel, part
from daskglm.kernels.native.lanes import fma, load, spread, store
from daskglm.kernels.native.products import codes_at, standardised
from daskglm.kernels.resampling import FEW, HALF, PANEL


@part
def _mix(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@kernel("void(uint64[::1])")
def mixed(values):  # type: ignore[no-untyped-def]
    """values[i] = mix(values[i])."""
    for i in range(values.size):
        values[i] = _mix(values[i])


@part
def _draw(key, streams, first, starts, thresholds, tables, table, uniform, counts, factor, out):  # type: ignore[no-untyped-def]
    """out[r] = factor times the weight of a row in replicates first .. first + PANEL - 1; thresholds of its table begin at starts."""
    for q in range(HALF):
        h = _mix(key ^ streams[np.uint64(first // 2 + q)])
        uniform[q] = np.uint32(h)
        uniform[HALF + q] = np.uint32(h >> np.uint64(32))
    begin, end = starts[table], starts[table + 1]
    lowest = tables[table]
    if end - begin == FEW:
        # written out, so that sixteen numbers meet all thresholds without leaving the registers
        t = thresholds[begin:end]
        t0, t1, t2, t3, t4, t5, t6, t7 = t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]
        t8, t9, t10, t11 = t[8], t[9], t[10], t[11]
        for r in range(PANEL):
            u, count = uniform[r], np.int32(0)
            if u > t0:
                count = np.int32(1)
            if u > t1:
                count = np.int32(2)
            if u > t2:
                count = np.int32(3)
            if u > t3:
                count = np.int32(4)
            if u > t4:
                count = np.int32(5)
            if u > t5:
                count = np.int32(6)
            if u > t6:
                count = np.int32(7)
            if u > t7:
                count = np.int32(8)
            if u > t8:
                count = np.int32(9)
            if u > t9:
                count = np.int32(10)
            if u > t10:
                count = np.int32(11)
            if u > t11:
                count = np.int32(12)
            counts[r] = count
    else:
        for r in range(PANEL):
            low, high = begin, end
            while low < high:
                middle = (low + high) // 2
                if uniform[r] > thresholds[middle]:
                    low = middle + 1
                else:
                    high = middle
            counts[r] = low - begin
    for r in range(PANEL):
        out[r] = factor * (lowest + np.float64(counts[r]))


@kernel(
    "void(uint64[::1], int64[::1], uint64[::1], int64, int64[::1], uint32[::1], float64[::1], int64, int64,"
    " float64[:,::1])"
)
def draws(keys, which, streams, columns, starts, thresholds, tables, start, stop, out):  # type: ignore[no-untyped-def]
    """out[i, r]: the weights of rows start .. stop - 1, of the tables `which`, in replicates 0 .. columns - 1."""
    uniform, counts = np.empty(PANEL, np.uint32), np.empty(PANEL, np.int32)
    for i in range(start, stop):
        for first in range(0, columns, PANEL):
            line = out[i - start, first : first + PANEL]
            _draw(keys[i], streams, first, starts, thresholds, tables, which[i], uniform, counts, 1.0, line)


@kernel(
    "void(int64[:,::1], float64[:,::1], int64[:,::1], float64[::1], uint64[::1], int64[::1], float64[::1],"
    " uint64[::1], int64[::1], uint32[::1], float64[::1], int64, int64, int64, int64, float64[::1], uint32[::1],"
    " float64[::1], int64)"
)
def resample(  # type: ignore[no-untyped-def]
    dense, scaling, levels, level_scale, keys, which, score, streams, starts, thresholds, tables,
    origin, start, stop, rows, z, codes, sums, stride,
):  # fmt: skip
    """sums[j, r] += sum_i x_ij score_i W_ir over the rows start .. stop - 1; keys, which and score are of rows from origin."""
    d = dense.shape[0]
    columns = (d + 1 + 3) // 4 * 4
    uniform, counts = np.empty(PANEL, np.uint32), np.empty(PANEL, np.int32)
    panel = np.empty(rows * PANEL)
    for t in range(start, stop, rows):
        m = min(rows, stop - t)
        o = t - origin
        for j in range(columns):
            zj = z[j * rows : j * rows + m]
            if j == 0:
                zj[:] = 1.0
            elif j <= d:
                standardised(dense[j - 1, 0], dense[j - 1, 1], t, scaling[j - 1, 0], scaling[j - 1, 1], zj)
            else:
                zj[:] = 0.0
        for first in range(0, stride, PANEL):
            for i in range(m):
                line = panel[i * PANEL : (i + 1) * PANEL]
                s = score[o + i]
                _draw(keys[o + i], streams, first, starts, thresholds, tables, which[o + i], uniform, counts, s, line)
            for j in range(0, columns, 4):
                p = j * rows
                for c in range(0, PANEL, 16):
                    at = j * stride + first + c
                    s00 = load(sums, at)
                    s01 = load(sums, at + 8)
                    s10 = load(sums, at + stride)
                    s11 = load(sums, at + stride + 8)
                    s20 = load(sums, at + 2 * stride)
                    s21 = load(sums, at + 2 * stride + 8)
                    s30 = load(sums, at + 3 * stride)
                    s31 = load(sums, at + 3 * stride + 8)
                    for i in range(m):
                        w0 = load(panel, i * PANEL + c)
                        w1 = load(panel, i * PANEL + c + 8)
                        z0 = spread(z[p + i])
                        z1 = spread(z[p + rows + i])
                        z2 = spread(z[p + 2 * rows + i])
                        z3 = spread(z[p + 3 * rows + i])
                        s00 = fma(z0, w0, s00)
                        s01 = fma(z0, w1, s01)
                        s10 = fma(z1, w0, s10)
                        s11 = fma(z1, w1, s11)
                        s20 = fma(z2, w0, s20)
                        s21 = fma(z2, w1, s21)
                        s30 = fma(z3, w0, s30)
                        s31 = fma(z3, w1, s31)
                    store(sums, at, s00)
                    store(sums, at + 8, s01)
                    store(sums, at + stride, s10)
                    store(sums, at + stride + 8, s11)
                    store(sums, at + 2 * stride, s20)
                    store(sums, at + 2 * stride + 8, s21)
                    store(sums, at + 3 * stride, s30)
                    store(sums, at + 3 * stride + 8, s31)
            for k in range(levels.shape[0]):
                # places of levels, moved behind the padded dense columns
                codes_at(levels[k, 0], levels[k, 1], t, levels[k, 4] + columns, codes[:m])
                if levels[k, 3] == 0:
                    for i in range(m):
                        at = np.int64(codes[i]) * stride + first
                        for r in range(PANEL):
                            sums[np.uint64(at + r)] += panel[np.uint64(i * PANEL + r)]
                else:
                    value = z[columns * rows : columns * rows + m]
                    standardised(levels[k, 3], 0, t, 0.0, level_scale[k], value)
                    for i in range(m):
                        at = np.int64(codes[i]) * stride + first
                        v = value[i]
                        for r in range(PANEL):
                            sums[np.uint64(at + r)] += v * panel[np.uint64(i * PANEL + r)]
