"""Bootstrap weights drawn from what a row is, and the gradients of all replicates of one reading.

Row i of replicate r has the uniform number u = half of mix(key_i xor stream): of each 64 replicates the first 32 take the lower
halves of 32 streams, the others the upper ones, with the finaliser of splitmix64 (Steele, Lea and Flood 2014; variant 13 of Stafford). Its weight is the number
of thresholds that u has passed: 2^32 P(count <= k), rounded, less 1, so that every probability is right to 2^-32. Nothing is
remembered from one row to the next: a draw depends on key and replicate alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from daskglm.kernels import sparse as sparse_products
from daskglm.kernels.blocks import Vector
from daskglm.kernels.compiled import kernel, part
from daskglm.kernels.lanes import fma, load, spread, store
from daskglm.kernels.products import Pieces, codes_at, standardised

Keys = npt.NDArray[np.uint64]

# Replicates that are drawn side by side; a multiple of both lanes and halves.
PANEL = 64
HALF = PANEL // 2
# Thresholds of the shortest tables, filled up with some that no number passes.
FEW = 12
# Rows of a panel that is written out for sparse columns.
SPARSE_ROWS = 2_048
_NOBODY = np.zeros((0, 2), np.int64), np.zeros((0, 2)), np.zeros((0, 6), np.int64), np.zeros(0)


@part
def _mix(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@kernel("void(uint64[::1])")
def _mixed(values):  # type: ignore[no-untyped-def]
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
def _draws(keys, which, streams, columns, starts, thresholds, tables, start, stop, out):  # type: ignore[no-untyped-def]
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
def _resample(  # type: ignore[no-untyped-def]
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


class Draws:
    """Weights of R replicates for rows of given keys.

    keys (n,); copies (n,): whole numbers of copies that rows stand for, whose weights are Poisson with that mean; None: 1.
    """

    def __init__(self, keys: Keys, copies: Vector | None, seed: int, replicates: int) -> None:
        self.keys, self.replicates = np.ascontiguousarray(keys, np.uint64), replicates
        self.padded = -(-replicates // PANEL) * PANEL
        steps = np.arange(1, self.padded // 2 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self.streams = mixed(steps + mixed(np.array([seed], np.uint64)))
        means, which = (np.ones(1), np.zeros(keys.size)) if copies is None else np.unique(copies, return_inverse=True)
        self.which = np.ascontiguousarray(which, np.int64)
        found = [poisson_thresholds(float(mean)) for mean in means]
        self.starts = np.concatenate([[0], np.cumsum([thresholds.size for _, thresholds in found])]).astype(np.int64)
        self.thresholds = np.concatenate([thresholds for _, thresholds in found])
        self.lowest = np.array([low for low, _ in found])

    def weights(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """(stop - start, R), of rows start .. stop - 1."""
        out = np.empty((stop - start, self.padded))
        _draws(
            self.keys, self.which, self.streams, self.padded, self.starts, self.thresholds, self.lowest, start, stop, out
        )  # fmt: skip
        return out[:, : self.replicates]


def mixed(values: Keys) -> Keys:
    """The finaliser of splitmix64 of each (n,)."""
    result = np.array(values, np.uint64)
    _mixed(result)
    return result


def poisson_thresholds(mean: float) -> tuple[float, npt.NDArray[np.uint32]]:
    """(k_0, thresholds): a uniform 32-bit number stands for k_0 and one more for each threshold that it has passed."""
    from scipy.special import pdtr

    about = 8.0 * np.sqrt(mean) + 40.0
    counts = np.arange(max(np.floor(mean - about), 0.0), np.ceil(mean + about))
    reached = np.rint(pdtr(counts, mean) * 2.0**32)
    low = int(np.searchsorted(reached, 0.0, side="right"))
    high = int(np.searchsorted(reached, 2.0**32, side="left"))
    thresholds = (reached[low:high] - 1.0).astype(np.uint32)
    never = np.full(max(FEW - thresholds.size, 0), np.iinfo(np.uint32).max, np.uint32)
    return float(counts[low]), np.concatenate([thresholds, never])


def add_resampled(
    pieces: Pieces | None,
    draws: Draws,
    score: Vector,
    start: int,
    stop: int,
    sums: npt.NDArray[np.float64],
) -> None:
    """sums (padded width, padded R) += X' diag(score) W over the rows start .. stop - 1; without pieces X is a column of ones.

    score (stop - start,). `of_columns` takes the padding off.
    """
    dense, scaling, levels, level_scale = (
        _NOBODY if pieces is None else (pieces.dense, pieces.scaling, pieces.levels, pieces.level_scale)
    )
    rows = 256
    z = np.empty((_padded(len(dense)) + 1) * rows)
    _resample(
        dense, scaling, levels, level_scale, draws.keys[start:stop], draws.which[start:stop], score,
        draws.streams, draws.starts, draws.thresholds, draws.lowest, start, start, stop, rows, z,
        np.empty(rows, np.uint32), sums.reshape(-1), draws.padded,
    )  # fmt: skip
    if pieces is None or not pieces.n_sparse:
        return
    last = sums[sums.shape[0] - pieces.n_sparse :]
    for first in range(start, stop, SPARSE_ROWS):
        end = min(first + SPARSE_ROWS, stop)
        by_row = np.zeros((end - first, draws.padded))
        by_row[:, : draws.replicates] = draws.weights(first, end) * score[first - start : end - start, None]
        sparse_products.scatter(pieces.sparse, pieces.sparse_scale, by_row, first, end, last)


def _padded(d: int) -> int:
    """1 + d in whole steps of four columns."""
    return -(-(d + 1) // 4) * 4


def empty_sums(pieces: Pieces | None, draws: Draws) -> npt.NDArray[np.float64]:
    """Where `add_resampled` adds."""
    rest = 0 if pieces is None else pieces.width - 1 - len(pieces.dense)
    return np.zeros((_padded(0 if pieces is None else len(pieces.dense)) + rest, draws.padded))


def of_columns(pieces: Pieces | None, draws: Draws, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(width, R): of the raw columns, in their order."""
    d = 0 if pieces is None else len(pieces.dense)
    return np.concatenate([sums[: d + 1], sums[_padded(d) :]])[:, : draws.replicates]
