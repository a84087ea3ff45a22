"""Scores summed by cluster, and the products of those sums: sum_g u_g u_g' with u_g = sum over its rows of X_i' s_i.

A cluster of few rows touches few levels, so that its sum is kept as a dense part and the levels and sparse columns that its
rows name; the price of a cluster is the square of that, however wide X is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from daskglm.kernels import native
from daskglm.kernels.blocks import LANES, Block, Scaling
from daskglm.kernels.products import Pieces

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_TILE_BYTES = 96 * 1024


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
    native.clusters.products(
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
