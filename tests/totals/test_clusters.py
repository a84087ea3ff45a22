"""Keys, buckets, and packets of rows, each against what it stands for."""

from __future__ import annotations

import numpy as np
from scipy.sparse import random as random_sparse

from daskglm.kernels.blocks import Block, Levels, Sparse
from daskglm.totals.clusters import MOST_BUCKETS, Packet, buckets_for, combined, joined, mixed, together


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
