"""Bootstrap weights drawn from what a row is, and the gradients of all replicates of one reading.

Row i of replicate r has the uniform number u = half of mix(key_i xor stream): of each 64 replicates the first 32 take the lower
halves of 32 streams, the others the upper ones, with the finaliser of splitmix64 (Steele, Lea and Flood 2014; variant 13 of Stafford). Its weight is the number
of thresholds that u has passed: 2^32 P(count <= k), rounded, less 1, so that every probability is right to 2^-32. Nothing is
remembered from one row to the next: a draw depends on key and replicate alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from daskglm.kernels import native
from daskglm.kernels import sparse as sparse_products
from daskglm.kernels.blocks import Vector
from daskglm.kernels.products import Pieces

Keys = npt.NDArray[np.uint64]

# Replicates that are drawn side by side; a multiple of both lanes and halves.
PANEL = 64
HALF = PANEL // 2
# Thresholds of the shortest tables, filled up with some that no number passes.
FEW = 12
# Rows of a panel that is written out for sparse columns.
SPARSE_ROWS = 2_048
_NOBODY = np.zeros((0, 2), np.int64), np.zeros((0, 2)), np.zeros((0, 6), np.int64), np.zeros(0)


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
        native.resampling.draws(
            self.keys, self.which, self.streams, self.padded, self.starts, self.thresholds, self.lowest, start, stop, out
        )  # fmt: skip
        return out[:, : self.replicates]


def mixed(values: Keys) -> Keys:
    """The finaliser of splitmix64 of each (n,)."""
    result = np.array(values, np.uint64)
    native.resampling.mixed(result)
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
    native.resampling.resample(
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
