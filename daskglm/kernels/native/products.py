"""Compiled loops of the three products over dense columns and levels."""

from __future__ import annotations

import numpy as np
from numba import carray

from daskglm.kernels.native.compiled import kernel, part
from daskglm.kernels.native.lanes import (
    add,
    float32_at,
    float64_at,
    fma,
    fold,
    int8_at,
    int16_at,
    int32_at,
    int64_at,
    load,
    spread,
    store,
    zero,
)

# Loops index slices from zero: an index that might be negative costs a branch per element and the vector units.


@part
def standardised(address, kind, start, shift, scale, out):  # type: ignore[no-untyped-def]
    """out[i] = (column[start + i] - shift) * scale, whatever the column's width."""
    count = out.size
    if kind == 0:
        f8 = carray(float64_at(address + 8 * start), count)
        for i in range(count):
            out[i] = (f8[i] - shift) * scale
    elif kind == 1:
        f4 = carray(float32_at(address + 4 * start), count)
        for i in range(count):
            out[i] = (np.float64(f4[i]) - shift) * scale
    elif kind == 2:
        i1 = carray(int8_at(address + start), count)
        for i in range(count):
            out[i] = (np.float64(i1[i]) - shift) * scale
    elif kind == 3:
        i2 = carray(int16_at(address + 2 * start), count)
        for i in range(count):
            out[i] = (np.float64(i2[i]) - shift) * scale
    elif kind == 4:
        i4 = carray(int32_at(address + 4 * start), count)
        for i in range(count):
            out[i] = (np.float64(i4[i]) - shift) * scale
    else:
        i8 = carray(int64_at(address + 8 * start), count)
        for i in range(count):
            out[i] = (np.float64(i8[i]) - shift) * scale


@part
def codes_at(address, kind, start, first, out):  # type: ignore[no-untyped-def]
    """out[i] = first + code of row start + i."""
    count = out.size
    if kind == 2:
        i1 = carray(int8_at(address + start), count)
        for i in range(count):
            out[i] = np.uint32(first + i1[i])
    elif kind == 3:
        i2 = carray(int16_at(address + 2 * start), count)
        for i in range(count):
            out[i] = np.uint32(first + i2[i])
    else:
        i4 = carray(int32_at(address + 4 * start), count)
        for i in range(count):
            out[i] = np.uint32(first + i4[i])


@kernel(
    "void(int64[:,::1], float64[:,::1], int64[:,::1], float64[::1], float64[::1], int64, int64, int64,"
    " float64[::1], uint32[::1], float64[::1])"
)
def gather(dense, scaling, levels, level_scale, coef, start, stop, rows, tile, codes, eta):  # type: ignore[no-untyped-def]
    """eta[i] += coef[0] + sum_j coef[1 + j] z_ij + sum_k value_ik coef[position of the level of row i in factor k]."""
    d = dense.shape[0]
    for t in range(start, stop, rows):
        m = min(rows, stop - t)
        e = eta[t - start : t - start + m]
        x = tile[:m]
        c = codes[:m]
        for i in range(m):
            e[i] += coef[0]
        for j in range(d):
            standardised(dense[j, 0], dense[j, 1], t, scaling[j, 0], scaling[j, 1], x)
            b = coef[1 + j]
            for i in range(m):
                e[i] += x[i] * b
        for k in range(levels.shape[0]):
            codes_at(levels[k, 0], levels[k, 1], t, levels[k, 2], c)
            if levels[k, 3] == 0:
                for i in range(m):
                    e[i] += coef[c[i]]
            else:
                standardised(levels[k, 3], 0, t, 0.0, level_scale[k], x)
                for i in range(m):
                    e[i] += x[i] * coef[c[i]]


@part
def _dense_products(z, wz, rows, count, columns, gram):  # type: ignore[no-untyped-def]
    """gram[a, b] += sum_i z[a, i] wz[b, i] for b >= a - 3: four by two dot products at a time, eight lanes each.

    z and wz hold a tile column by column, padded with zero rows to whole lanes and zero columns to whole steps.
    """
    for a in range(0, columns, 4):
        p = a * rows
        for b in range(a, columns + 1, 2):
            q = b * rows
            s00 = zero()
            s10 = zero()
            s20 = zero()
            s30 = zero()
            s01 = zero()
            s11 = zero()
            s21 = zero()
            s31 = zero()
            for i in range(0, count, 8):
                z0 = load(z, p + i)
                z1 = load(z, p + rows + i)
                z2 = load(z, p + 2 * rows + i)
                z3 = load(z, p + 3 * rows + i)
                w0 = load(wz, q + i)
                w1 = load(wz, q + rows + i)
                s00 = fma(z0, w0, s00)
                s10 = fma(z1, w0, s10)
                s20 = fma(z2, w0, s20)
                s30 = fma(z3, w0, s30)
                s01 = fma(z0, w1, s01)
                s11 = fma(z1, w1, s11)
                s21 = fma(z2, w1, s21)
                s31 = fma(z3, w1, s31)
            gram[a, b] += fold(s00)
            gram[a + 1, b] += fold(s10)
            gram[a + 2, b] += fold(s20)
            gram[a + 3, b] += fold(s30)
            gram[a, b + 1] += fold(s01)
            gram[a + 1, b + 1] += fold(s11)
            gram[a + 2, b + 1] += fold(s21)
            gram[a + 3, b + 1] += fold(s31)


@part
def _cross(by_row, codes, n_factors, rows, count, stride, cross):  # type: ignore[no-untyped-def]
    """cross[level of row i in each factor, :] += by_row[i, :]; factors inside, so that equal levels do not queue up."""
    for i in range(count):
        for k in range(n_factors):
            at = np.int64(codes[np.uint64(k * rows + i)]) * stride
            for c in range(0, stride, 8):
                store(cross, at + c, add(load(cross, at + c), load(by_row, i * stride + c)))


@kernel(
    "void(int64[:,::1], float64[:,::1], int64[:,::1], float64[::1], int64[::1], float64[::1], float64[::1],"
    " int64, int64, int64, float64[::1], float64[::1], float64[::1], uint32[::1],"
    " float64[:,::1], float64[::1], float64[::1], float64[::1])"
)
def scatter(  # type: ignore[no-untyped-def]
    dense, scaling, levels, level_scale, pair_at, weight, score, start, stop, rows, z, wz, by_row, codes,
    gram, cross, square, pairs,
):  # fmt: skip
    """Add the rows start .. stop - 1 to the tables.

    gram (d + 1, d + 2): [1, z]' [w, wz, s]; cross: for each level a row of the same d + 2 sums over its rows (times the
    value), padded to whole lanes; square: for each level sum of w value^2; pairs: for k < l a (levels of k) x (levels of
    l) table of sums of w value_k value_l. The last column of gram and of cross is the gradient.
    """
    d = dense.shape[0]
    n_factors = levels.shape[0]
    stride = (d + 2 + 7) // 8 * 8
    for t in range(start, stop, rows):
        m = min(rows, stop - t)
        o = t - start
        whole = (m + 7) // 8 * 8
        w = weight[o : o + m]
        z[:m] = 1.0
        wz[:m] = w
        wz[(d + 1) * rows : (d + 1) * rows + m] = score[o : o + m]
        for j in range(1, d + 1):
            zj = z[j * rows : j * rows + m]
            wj = wz[j * rows : j * rows + m]
            standardised(dense[j - 1, 0], dense[j - 1, 1], t, scaling[j - 1, 0], scaling[j - 1, 1], zj)
            for i in range(m):
                wj[i] = zj[i] * w[i]
        if whole > m:
            for j in range(d + 2):
                wz[j * rows + m : j * rows + whole] = 0.0
            for j in range(d + 1):
                z[j * rows + m : j * rows + whole] = 0.0
        _dense_products(z, wz, rows, whole, d + 1, gram)
        if n_factors == 0:
            continue
        for j in range(d + 2):
            wj = wz[j * rows : j * rows + m]
            row = by_row[j : j + m * stride]
            for i in range(m):
                row[i * stride] = wj[i]
        valued = False
        for k in range(n_factors):
            codes_at(levels[k, 0], levels[k, 1], t, levels[k, 4], codes[k * rows : k * rows + m])
            if levels[k, 3] != 0:
                valued = True
        if not valued:
            _cross(by_row, codes, n_factors, rows, m, stride, cross)
            for k in range(n_factors):
                ck = codes[k * rows : k * rows + m]
                for l in range(k + 1, n_factors):
                    cl = codes[l * rows : l * rows + m]
                    width = levels[l, 5]
                    first = pair_at[k * n_factors + l] - levels[k, 4] * width - levels[l, 4]
                    for i in range(m):
                        pairs[np.uint64(first + np.int64(ck[i]) * width + np.int64(cl[i]))] += w[i]
            continue
        # the tile of dense columns is spent; the values take its place
        for k in range(n_factors):
            if levels[k, 3] == 0:
                z[k * rows : k * rows + m] = 1.0
            else:
                standardised(levels[k, 3], 0, t, 0.0, level_scale[k], z[k * rows : k * rows + m])
        for k in range(n_factors):
            ck = codes[k * rows : k * rows + m]
            vk = z[k * rows : k * rows + m]
            for i in range(m):
                v = spread(vk[i])
                square[ck[i]] += w[i] * vk[i] * vk[i]
                row_at = np.int64(ck[i]) * stride
                for c in range(0, stride, 8):
                    store(cross, row_at + c, fma(v, load(by_row, i * stride + c), load(cross, row_at + c)))
            for l in range(k + 1, n_factors):
                cl = codes[l * rows : l * rows + m]
                vl = z[l * rows : l * rows + m]
                width = levels[l, 5]
                first = pair_at[k * n_factors + l] - levels[k, 4] * width - levels[l, 4]
                for i in range(m):
                    pairs[np.uint64(first + np.int64(ck[i]) * width + np.int64(cl[i]))] += w[i] * vk[i] * vl[i]


@kernel(
    "void(int64[:,::1], float64[:,::1], int64[:,::1], float64[::1], float64[::1], int64, int64, int64,"
    " float64[::1], uint32[::1], float64[::1])"
)
def scatter_gradient(dense, scaling, levels, level_scale, score, start, stop, rows, tile, codes, gradient):  # type: ignore[no-untyped-def]
    """gradient += X's over the rows start .. stop - 1."""
    d = dense.shape[0]
    for t in range(start, stop, rows):
        m = min(rows, stop - t)
        whole = (m + 7) // 8 * 8
        o = t - start
        s = tile[:m]
        x = tile[rows : rows + m]
        c = codes[:m]
        s[:] = score[o : o + m]
        x[:] = 1.0
        tile[m:whole] = 0.0
        tile[rows + m : rows + whole] = 0.0
        for j in range(d + 1):
            if j > 0:
                standardised(dense[j - 1, 0], dense[j - 1, 1], t, scaling[j - 1, 0], scaling[j - 1, 1], x)
            total = zero()
            for i in range(0, whole, 8):
                total = fma(load(tile, i), load(tile, rows + i), total)
            gradient[j] += fold(total)
        for k in range(levels.shape[0]):
            codes_at(levels[k, 0], levels[k, 1], t, levels[k, 2], c)
            if levels[k, 3] == 0:
                for i in range(m):
                    gradient[c[i]] += s[i]
            else:
                standardised(levels[k, 3], 0, t, 0.0, level_scale[k], x)
                for i in range(m):
                    gradient[c[i]] += s[i] * x[i]


@kernel(
    "void(int64[:,::1], float64[:,::1], int64[:,::1], float64[::1], float64[:,::1], int64, int64, int64,"
    " float64[::1], float64[::1], float64[::1], uint32[::1], float64[::1])"
)
def quadratic_form(  # type: ignore[no-untyped-def]
    dense, scaling, levels, level_scale, matrix, start, stop, rows, z, values, line, codes, out
):  # fmt: skip
    """out[i] = x_i' C x_i, C (width, width) symmetric: twice the sum over a of x_a (C_aa x_a / 2 + sum_{b > a} C_ab x_b).

    A row has 1 + d + factors entries, so that is what its form costs squared, however many levels there are.
    """
    d = dense.shape[0]
    n_factors = levels.shape[0]
    for t in range(start, stop, rows):
        m = min(rows, stop - t)
        o = out[t - start : t - start + m]
        s = line[:m]
        z[:m] = 1.0
        for j in range(1, d + 1):
            zj = z[j * rows : j * rows + m]
            standardised(dense[j - 1, 0], dense[j - 1, 1], t, scaling[j - 1, 0], scaling[j - 1, 1], zj)
        for k in range(n_factors):
            codes_at(levels[k, 0], levels[k, 1], t, levels[k, 2], codes[k * rows : k * rows + m])
            vk = values[k * rows : k * rows + m]
            if levels[k, 3] == 0:
                vk[:] = 1.0
            else:
                standardised(levels[k, 3], 0, t, 0.0, level_scale[k], vk)
        o[:] = 0.0
        for a in range(d + 1):
            za = z[a * rows : a * rows + m]
            c = 0.5 * matrix[a, a]
            for i in range(m):
                s[i] = c * za[i]
            for b in range(a + 1, d + 1):
                zb = z[b * rows : b * rows + m]
                c = matrix[a, b]
                for i in range(m):
                    s[i] += c * zb[i]
            of_levels = matrix[a]
            for k in range(n_factors):
                ck = codes[k * rows : k * rows + m]
                vk = values[k * rows : k * rows + m]
                for i in range(m):
                    s[i] += vk[i] * of_levels[ck[i]]
            for i in range(m):
                o[i] += za[i] * s[i]
        for k in range(n_factors):
            ck = codes[k * rows : k * rows + m]
            vk = values[k * rows : k * rows + m]
            for i in range(m):
                s[i] = 0.5 * vk[i] * matrix[ck[i], ck[i]]
            for l in range(k + 1, n_factors):
                cl = codes[l * rows : l * rows + m]
                vl = values[l * rows : l * rows + m]
                for i in range(m):
                    s[i] += vl[i] * matrix[ck[i], cl[i]]
            for i in range(m):
                o[i] += vk[i] * s[i]
        for i in range(m):
            o[i] *= 2.0
