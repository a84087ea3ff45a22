"""Scores summed by cluster, of clusters whose rows lie anywhere: rows go to buckets by a key, and each bucket is summed up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block, Column, Levels, Sparse
from daskglm.kernels.clusters import cluster_products
from daskglm.totals.moments import CHUNK_ROWS, AnyModel
from daskglm.totals.scores import predictors_of
from daskglm.totals.vector import ParallelModel

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Keys = npt.NDArray[np.int64]

# Rows per bucket: a few megabytes, which stay in a cache of the second or third level; more where there would be too many.
BUCKET_ROWS = 1 << 16
MOST_BUCKETS = 256


@final
@dataclass(frozen=True)
class Packet:
    """Rows on their way to the bucket of their clusters: columns of X as narrow as they are in the block, the key of each
    row's cluster in place of a response, and its scores beside.
    """

    rows: Block

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.rows.nbytes

    def pack(self) -> tuple[Any, list[Any]]:
        """A plain header, and the arrays."""
        block = self.rows
        values = [piece.value for piece in block.levels]
        header = (
            block.n, len(block.dense), [piece.n_levels for piece in block.levels], [v is not None for v in values],
            None if block.sparse is None else block.sparse.n_columns, len(block.others),
        )  # fmt: skip
        arrays: list[Any] = [*block.dense, *(piece.codes for piece in block.levels)]
        arrays += [value for value in values if value is not None]
        if block.sparse is not None:
            arrays += [block.sparse.indptr, block.sparse.indices, block.sparse.data]
        return header, [*arrays, *block.others, block.y]

    @staticmethod
    def unpack(header: Any, arrays: list[Any]) -> Packet:
        """The packet of a header and its arrays."""
        n, n_dense, counts, valued, columns, n_scores = header
        rest = iter(arrays)
        dense = tuple(next(rest) for _ in range(n_dense))
        codes = [next(rest) for _ in counts]
        values = [next(rest) if has else None for has in valued]
        sparse = None if columns is None else Sparse(next(rest), next(rest), next(rest), columns)
        scores = tuple(next(rest) for _ in range(n_scores))
        levels = tuple(Levels(c, k, v) for c, k, v in zip(codes, counts, values, strict=True))
        return Packet(Block(n, dense, levels, next(rest), sparse=sparse, others=scores))


def buckets_for(rows: int) -> int:
    """How many buckets so many rows go to: a function of the data alone, for it decides the order of the sums."""
    return min(max(-(-rows // BUCKET_ROWS), 1), MOST_BUCKETS)


@final
@dataclass(frozen=True)
class ScoresByCluster:
    """Block -> a packet of rows for each bucket, None where it has none; every cluster goes to one bucket.

    ways: which of the block's keys say the cluster, together.
    """

    model: Any
    coef: Vector
    ways: tuple[int, ...]
    buckets: int

    def __call__(self, block: Block) -> list[Packet | None]:
        if not block.n:
            return [None] * self.buckets
        keys = combined([block.clusters[way] for way in self.ways])
        scores = weighted_scores(block, self.model, self.coef)
        # the high half of a key says the bucket, so that within one the low half still tells clusters apart
        bucket = ((keys.view(np.uint64) >> np.uint64(32)) % np.uint64(self.buckets)).astype(np.uint16)
        order = np.argsort(bucket, kind="stable")
        bare = Block(block.n, block.dense, block.levels, keys, sparse=block.sparse, others=tuple(scores))
        rows = bare if self.buckets == 1 else bare.take(order)
        ends = np.cumsum(np.bincount(bucket, minlength=self.buckets))
        return [
            Packet(rows.rows(int(end - count), int(end))) if count else None
            for end, count in zip(ends, np.diff(ends, prepend=0), strict=True)
        ]


def weighted_scores(block: Block, model: AnyModel, coef: Vector) -> Matrix:
    """w s of each row: of its predictors (q, n); of ordered classes of the slopes, then of the thresholds (1 + q, n)."""
    rows = predictors_of(block, model, coef)
    ordered = isinstance(model, ParallelModel)
    result = np.empty((rows.q + ordered, block.n))
    for start in range(0, block.n, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, block.n)
        with np.errstate(all="ignore"):
            score = rows.terms(start, stop, 1).score
        if block.weight is not None:
            score = score * block.weight[start:stop]
        result[int(ordered) :, start:stop] = score
        if ordered:
            result[0, start:stop] = -score.sum(axis=0)
    return result


def mixed(keys: npt.NDArray[Any]) -> Keys:
    """A permutation of the 64-bit integers that leaves no pattern (Steele, Lea and Flood 2014, splitmix64)."""
    z = np.ascontiguousarray(keys).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z ^ (z >> np.uint64(31))).view(np.int64))


def combined(ways: list[Keys]) -> Keys:
    """One key for each combination of keys."""
    result = mixed(ways[0])
    for way in ways[1:]:
        with np.errstate(over="ignore"):
            result = mixed(result + way)
    return result


@final
@dataclass(frozen=True)
class ClusterProducts:
    """sum_g u_g u_g' (p, p) and sum_g u_g (p,) of the coefficients, and the number of clusters."""

    products: Matrix
    gradient: Vector
    clusters: int

    def __add__(self, other: ClusterProducts) -> ClusterProducts:
        return ClusterProducts(
            self.products + other.products, self.gradient + other.gradient, self.clusters + other.clusters
        )


@final
@dataclass(frozen=True)
class ClustersOfBucket:
    """All packets of a bucket, in the order of their leaves -> ClusterProducts."""

    model: Any

    def __call__(self, packets: list[Packet]) -> ClusterProducts:
        model = self.model
        if not packets:
            return ClusterProducts(np.zeros((model.n_coefficients,) * 2), np.zeros(model.n_coefficients), 0)
        rows = joined([packet.rows for packet in packets])
        rows = rows.take(together(rows.y))
        starts = np.flatnonzero(np.concatenate([[True], rows.y[1:] != rows.y[:-1], [True]])).astype(np.int64)
        scores = np.stack(rows.others)
        apart = model.likelihood.q if isinstance(model, ParallelModel) else 0
        q = scores.shape[0] - apart
        found, gradient = cluster_products(
            replace(rows, others=()), model.scaling, starts, np.ascontiguousarray(scores[:q]),
            np.ascontiguousarray(scores[q:]),
        )  # fmt: skip
        places = [np.arange(apart), *(apart + a * model.width + model.select for a in range(q))]
        at = np.concatenate(places).astype(np.intp)
        return ClusterProducts(found[np.ix_(at, at)], gradient[at], starts.size - 1)


def together(keys: Keys) -> npt.NDArray[np.intp]:
    """An order in which equal keys stand side by side, each in the order they came in.

    By 48 bits of them, in three passes of 16, which is several times faster than sorting; that two keys of one bucket have
    those in common happens once in millions of buckets.
    """
    bits = keys.view(np.uint64)
    order = np.argsort((bits & np.uint64(0xFFFF)).astype(np.uint16), kind="stable")
    for shift in (16, 32):
        digit = ((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    found = bits[order]
    change = found[1:] ^ found[:-1]
    if bool(((change != 0) & (change << np.uint64(16) == 0)).any()):
        return np.argsort(keys, kind="stable")
    return order


def joined(blocks: list[Block]) -> Block:
    """Rows of several blocks one after the other, in types that hold all of them."""
    if len(blocks) == 1:
        return blocks[0]

    def stacked(columns: list[Column]) -> Column:
        return np.concatenate(columns)

    first = blocks[0]
    levels = []
    for k, piece in enumerate(first.levels):
        values = [block.levels[k].value for block in blocks]
        value = None if piece.value is None else stacked([v for v in values if v is not None])
        levels.append(Levels(stacked([block.levels[k].codes for block in blocks]), piece.n_levels, value))
    sparse = None
    if first.sparse is not None:
        pieces = [block.sparse for block in blocks if block.sparse is not None]
        starts = np.cumsum([0, *(int(piece.indptr[-1]) for piece in pieces)])
        indptr = [piece.indptr[1:] + start for piece, start in zip(pieces, starts[:-1], strict=True)]
        sparse = Sparse(
            np.concatenate([np.zeros(1, np.int64), *indptr]), stacked([piece.indices for piece in pieces]),
            stacked([piece.data for piece in pieces]), first.sparse.n_columns,
        )  # fmt: skip
    return Block(
        sum(block.n for block in blocks),
        tuple(stacked([block.dense[j] for block in blocks]) for j in range(len(first.dense))),
        tuple(levels),
        stacked([block.y for block in blocks]),
        sparse=sparse,
        others=tuple(stacked([block.others[j] for block in blocks]) for j in range(len(first.others))),
    )
