"""Scores summed by cluster against the sums written out in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import random as random_sparse

from daskglm.kernels import reference
from daskglm.kernels.blocks import Block, Levels, Scaling, Sparse
from daskglm.kernels.clusters import cluster_products

ROWS = 700
# Sums of a few hundred products in another order.
ROUNDING = 1e-14


def problem(
    d: int, counts: tuple[int, ...], valued: bool, sparse: int
) -> tuple[Block, Scaling, npt.NDArray[np.int64], np.random.Generator]:
    rng = np.random.default_rng(d + 7 * len(counts) + sparse)
    dense = tuple(rng.normal(size=ROWS) if j % 2 else rng.integers(-5, 5, ROWS).astype(np.int8) for j in range(d))
    levels = tuple(
        Levels(
            rng.integers(0, count, ROWS).astype(np.int16), count, rng.normal(size=ROWS) if valued and not k else None
        )
        for k, count in enumerate(counts)
    )
    matrix = Sparse.of(random_sparse(ROWS, sparse, 0.2, "csr", rng=rng)) if sparse else None
    block = Block(ROWS, dense, levels, np.zeros(ROWS), sparse=matrix)
    scaling = Scaling(
        rng.normal(size=d), rng.uniform(0.5, 2.0, d), rng.uniform(0.5, 2.0, len(counts)), rng.uniform(0.5, 2.0, sparse)
    )
    inner = rng.choice(np.arange(1, ROWS), 150, replace=False)
    starts = np.concatenate([[0], np.sort(inner), [ROWS]]).astype(np.int64)
    return block, scaling, starts, rng


@pytest.mark.parametrize(("q", "r"), [(1, 0), (3, 0), (1, 2)])
@pytest.mark.parametrize(
    "shape",
    [
        (3, (4, 6), False, 0),
        (0, (4,), True, 0),
        (4, (), False, 0),
        (2, (3, 5), True, 7),
        (0, (), False, 5),
        (0, (), False, 0),
    ],
    ids=str,
)
def test_products_of_sums(q: int, r: int, shape: Any) -> None:
    block, scaling, starts, rng = problem(*shape)
    score, extra = rng.normal(size=(q, ROWS)), rng.normal(size=(r, ROWS))
    found, gradient = cluster_products(block, scaling, starts, score, extra)
    x = reference.matrix(block, scaling)
    rows = np.concatenate([extra.T, *(x * one[:, None] for one in score)], axis=1)
    sums = np.add.reduceat(rows, starts[:-1], axis=0)
    expected = sums.T @ sums
    assert np.abs(found - expected).max() < ROUNDING * np.abs(expected).max()
    assert (found == found.T).all()
    assert np.abs(gradient - rows.sum(axis=0)).max() < ROUNDING * np.abs(rows).sum(axis=0).max()


def test_one_cluster_and_one_each() -> None:
    block, scaling, _, rng = problem(2, (3, 5), False, 0)
    score, nothing = rng.normal(size=(1, ROWS)), np.zeros((0, ROWS))
    x = reference.matrix(block, scaling)
    for starts in (np.array([0, ROWS]), np.arange(ROWS + 1)):
        found, _ = cluster_products(block, scaling, starts.astype(np.int64), score, nothing)
        sums = np.add.reduceat(x * score[0][:, None], starts[:-1], axis=0)
        assert np.abs(found - sums.T @ sums).max() < ROUNDING * np.abs(found).max()
