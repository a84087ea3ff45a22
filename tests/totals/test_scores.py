"""Leverages taken out of scores, keys, and packets of rows, each against what it stands for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import fractional_matrix_power
from scipy.sparse import random as random_sparse

from daskglm.kernels.blocks import Block, Levels, Sparse
from daskglm.model.vector import pairs_of
from daskglm.totals.scores import MOST_BUCKETS, Packet, buckets_for, combined, joined, mixed, together, without_leverage

# Eigenvalues of small matrices, twice.
ROUNDING = 1e-11


def symmetric(pairs: npt.NDArray[np.float64], q: int) -> npt.NDArray[np.float64]:
    result = np.zeros((q, q))
    for value, (a, b) in zip(pairs, pairs_of(q), strict=True):
        result[a, b] = result[b, a] = value
    return result


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("rank", [1, 3])
def test_leverages_of_several_predictors(power: float, rank: int) -> None:
    rng = np.random.default_rng(3)
    q, n = 3, 20
    half, other = rng.normal(size=(n, q, rank)), rng.normal(size=(n, q, rank))
    w, form = half @ np.swapaxes(half, 1, 2), other @ np.swapaxes(other, 1, 2)
    form *= 0.9 / np.abs(np.linalg.eigvals(w @ form)).max(axis=1)[:, None, None] * rng.uniform(1e-6, 1.0, (n, 1, 1))
    score = rng.normal(size=(q, n))
    pairs = np.array(pairs_of(q)).T
    found, alone = without_leverage(score, w[:, pairs[0], pairs[1]].T, form[:, pairs[0], pairs[1]].T, power)
    assert alone == 0
    for i in range(n):
        expected = fractional_matrix_power(np.eye(q) - w[i] @ form[i], -power) @ score[:, i]
        assert np.abs(found[:, i] - expected).max() < ROUNDING * np.abs(expected).max()


def test_a_row_by_itself_is_counted() -> None:
    _, alone = without_leverage(np.ones((1, 3)), np.ones((1, 3)), np.array([[0.5, 1.0 - 1e-13, 0.0]]), 0.5)
    assert alone == 1


def test_equal_keys_stand_together() -> None:
    rng = np.random.default_rng(1)
    keys = mixed(rng.integers(0, 50, 1_000))
    order = together(keys)
    runs = np.flatnonzero(np.diff(keys[order]) != 0).size + 1
    assert runs == np.unique(keys).size
    # each in the order it came in
    for key in np.unique(keys):
        assert (np.diff(order[keys[order] == key]) > 0).all()


def test_keys_that_differ_in_high_bits_alone() -> None:
    keys = np.array([1, 1 + (1 << 50), 1, 1 + (1 << 50)], np.int64)
    assert keys[together(keys)].tolist() == sorted(keys.tolist())


def test_mixing_loses_no_key() -> None:
    keys = np.concatenate([np.arange(-5_000, 5_000), np.arange(5_000) << 40, [2**63 - 1, -(2**63)]])
    assert np.unique(mixed(keys)).size == np.unique(keys).size
    one, two = (found.ravel() for found in np.meshgrid(np.arange(100), np.arange(100)))
    assert np.unique(combined([one, two])).size == 10_000
    assert (combined([one, two]) != combined([two, one])).any()


def test_buckets_are_bounded() -> None:
    assert [buckets_for(n) for n in (0, 1, 1 << 16, (1 << 16) + 1, 10**12)] == [1, 1, 1, 2, MOST_BUCKETS]


def test_packets_survive_packing_and_joining() -> None:
    rng = np.random.default_rng(2)

    def block(n: int, kind: str) -> Block:
        sparse = Sparse.of(random_sparse(n, 4, 0.5, "csr", rng=rng))
        levels = (Levels(rng.integers(0, 3, n).astype(np.int8), 3), Levels(np.zeros(n, np.int8), 1, rng.normal(size=n)))
        return Block(
            n, (np.arange(n).astype(kind),), levels, mixed(np.arange(n)), sparse=sparse, others=(rng.normal(size=n),)
        )

    parts = [block(5, "i1"), block(0, "f8"), block(3, "i4")]
    for part in parts:
        header, arrays = Packet(part).pack()
        again = Packet.unpack(header, arrays).rows
        assert [a.tobytes() for a in again.arrays()] == [a.tobytes() for a in part.arrays()]
    whole = joined(parts)
    assert whole.n == 8
    assert whole.dense[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert whole.sparse is not None
    rows = [whole.sparse.rows(i, i + 1) for i in range(8)]
    singly = [part.sparse.rows(i, i + 1) for part in parts if part.sparse for i in range(part.n)]
    assert [r.data.tolist() for r in rows] == [r.data.tolist() for r in singly]
    assert whole.others[0].tolist() == [value for part in parts for value in part.others[0]]
