"""Rows that a direction moves: the sums from which infinite optima are found, and the rows that are left without them.

A direction d of the coefficients is one of recession where it moves no linear predictor but those that may go its way
without loss (`GLM.recession`). If it moves any, the likelihood has no maximum: it rises along d for ever (Albert and
Anderson 1984; Haberman 1974). What is said here of d is said row by row, of x'd itself, never of a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels import sparse as sparse_kernels
from daskglm.kernels.blocks import Block, Scaling
from daskglm.kernels.products import Pieces, Scatter, Workspace, gather
from daskglm.model.likelihoods import GLM
from daskglm.totals.moments import CHUNK_ROWS, FitStats, Model, sizes

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Parts = Literal["both", "rest", "moving"]

# x'd below this part of the sum of its terms' sizes is rounding: of the terms themselves, some 1e-16, and of a direction
# that comes out of a Gram, some thousand times that. NOISE is the part of the largest coefficient that each of them may
# be off by, over ROUNDING: one that should be zero is so to the digits of the largest.
ROUNDING = 1e-9
NOISE = 1e-4
# Movements by size: a bin for each quarter of a power of ten, the first and the last open.
LEAST_POWER, BINS_PER_POWER, BINS = -30, 4, 160


@final
@dataclass(frozen=True)
class Move:
    """A direction (p,) of the scaled coefficients, and how far it must move a row to count beyond rounding."""

    direction: Vector
    floor: float = 0.0


@final
@dataclass(frozen=True)
class Movements:
    """What m directions do, each array (m,) but one: rows they move the allowed way, and rows they move although those
    must not; the largest movement there is, and the largest that must not be; histogram (m, BINS) of allowed ones by size.
    """

    allowed: Counts
    forbidden: Counts
    largest: Vector
    obstacle: Vector
    histogram: Counts

    def __add__(self, other: Movements) -> Movements:
        return Movements(
            self.allowed + other.allowed,
            self.forbidden + other.forbidden,
            np.maximum(self.largest, other.largest),
            np.maximum(self.obstacle, other.obstacle),
            self.histogram + other.histogram,
        )


@final
@dataclass(frozen=True)
class Split:
    """X'X of the rows that do not move, and of those that do, with the sum of X' (+1 up, -1 down) of the latter, each where
    it was asked for; how many rows move. Of classes, the same of pairs, in their own tables.
    """

    rest: Any
    moving: Any
    rows: int

    def __add__(self, other: Split) -> Split:
        return Split(_sum(self.rest, other.rest), _sum(self.moving, other.moving), self.rows + other.rows)


def _sum(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other


@final
@dataclass(frozen=True)
class Separated:
    """Rows that go to the end of their range, and rows that may not although they move; statistics of the former there."""

    allowed: int
    forbidden: int
    statistics: FitStats

    def __add__(self, other: Separated) -> Separated:
        return Separated(
            self.allowed + other.allowed, self.forbidden + other.forbidden, self.statistics + other.statistics
        )


# -- rows ----------------------------------------------------------------------------------------------------------------


def extents(block: Block, scaling: Scaling, raw: Vector) -> Vector:
    """sum_j |x_ij| |d_j| (n,) for a direction of the raw columns (width,), none taken for smaller than its noise."""
    size = np.abs(raw)
    size += NOISE * size.max(initial=0.0)
    total = np.full(block.n, size[0])
    place = 1
    for column, shift, scale in zip(block.dense, scaling.shift, scaling.scale, strict=True):
        total += np.abs((column.astype(np.float64) - shift) * scale) * size[place]
        place += 1
    for piece, scale in zip(block.levels, scaling.level_scale, strict=True):
        part = size[place : place + piece.n_levels][piece.codes]
        total += part if piece.value is None else part * np.abs(piece.value * scale)
        place += piece.n_levels
    if block.sparse is not None:
        absolute = replace(block.sparse, data=np.abs(block.sparse.data))
        places = sparse_kernels.places_of(absolute)
        sparse_kernels.gather(places, np.abs(scaling.sparse_scale), size[place:].copy(), 0, block.n, total)
    return total


def movement(block: Block, scaling: Scaling, raw: Vector, floor: float = 0.0) -> Vector:
    """x'd (n,) of every row for a direction of the raw columns, 0 where that is no more than `floor` or rounding."""
    pieces = Pieces.of(block, scaling)
    moved = np.zeros(block.n)
    gather(pieces, Workspace(pieces), raw, 0, block.n, moved)
    size = np.abs(moved)
    return np.where((size > floor) & (size > ROUNDING * extents(block, scaling, raw)), moved, 0.0)


def may_move(likelihood: GLM, y: Vector, moved: Vector) -> Mask:
    """Rows (n,) that move to where they may go without loss."""
    up, down = likelihood.recession(y)
    return np.asarray(((moved > 0) & up) | ((moved < 0) & down))


def _chunks(block: Block) -> Iterator[Block]:
    for start in range(0, block.n, CHUNK_ROWS):
        yield block.rows(start, min(start + CHUNK_ROWS, block.n))


def _candidates(rows: Block, model: Model, moves: Sequence[Move]) -> tuple[Mask, Vector]:
    """Rows that every move takes the allowed way, and where the first of them takes them."""
    y = rows.y.astype(np.float64)
    found = np.ones(rows.n, bool)
    first = np.zeros(rows.n)
    for number, move in enumerate(moves):
        moved = movement(rows, model.scaling, model.raw(move.direction), move.floor)
        found &= may_move(model.likelihood, y, moved)
        if number == 0:
            first = moved
    return found, first


# -- totals --------------------------------------------------------------------------------------------------------------


def movements(block: Block, model: Model, directions: Matrix) -> Movements:
    """What directions (m, p) of the scaled coefficients do to the rows of a block."""
    m = len(directions)
    allowed, forbidden = np.zeros(m, np.int64), np.zeros(m, np.int64)
    largest, obstacle = np.zeros(m), np.zeros(m)
    histogram = np.zeros((m, BINS), np.int64)
    for rows in _chunks(block):
        y = rows.y.astype(np.float64)
        for k, direction in enumerate(directions):
            moved = movement(rows, model.scaling, model.raw(direction))
            right = may_move(model.likelihood, y, moved)
            wrong = ~right & (moved != 0.0)
            size = np.abs(moved)
            allowed[k] += right.sum()
            forbidden[k] += wrong.sum()
            largest[k] = max(largest[k], size.max(initial=0.0))
            obstacle[k] = max(obstacle[k], size[wrong].max(initial=0.0))
            power = np.floor((np.log10(size[right]) - LEAST_POWER) * BINS_PER_POWER)
            histogram[k] += np.bincount(np.clip(power, 0, BINS - 1).astype(np.int64), minlength=BINS)
    return Movements(allowed, forbidden, largest, obstacle, histogram)


def split(block: Block, model: Model, moves: tuple[Move, ...], parts: Parts = "both") -> Split:
    """The unit Grams of the rows that all moves take the allowed way, and of the rest, or one of the two."""
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    rest = None if parts == "moving" else Scatter(pieces, workspace)
    moving = None if parts == "rest" else Scatter(pieces, workspace)
    start = count = 0
    for rows in _chunks(block):
        inside, first = _candidates(rows, model, moves)
        stop = start + rows.n
        if rest is not None:
            rest.take((~inside).astype(np.float64), np.zeros(rows.n), start, stop)
        if moving is not None:
            moving.take(inside.astype(np.float64), np.where(inside, np.sign(first), 0.0), start, stop)
        start, count = stop, count + int(inside.sum())
    return Split(None if rest is None else rest.result(), None if moving is None else moving.result(), count)


def of_rest(block: Block, model: Model, moves: tuple[Move, ...], function: Callable[..., Any], *args: Any) -> Any:
    """function(rows, model, *args) of the rows that not all moves take the allowed way."""
    inside = [_candidates(rows, model, moves)[0] for rows in _chunks(block)]
    index = np.flatnonzero(~np.concatenate([np.zeros(0, bool), *inside]))
    return function(block.take(index), model, *args)


def separated(block: Block, model: Model, move: Move) -> Separated:
    """The rows that a direction moves, each with the mean that lies at the end of its way."""
    family, limits = model.likelihood.family, model.likelihood.limits
    allowed = forbidden = 0
    statistics = FitStats(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0)
    for rows in _chunks(block):
        moved = movement(rows, model.scaling, model.raw(move.direction), move.floor)
        right = may_move(model.likelihood, rows.y.astype(np.float64), moved)
        allowed += int(right.sum())
        forbidden += int((~right & (moved != 0.0)).sum())
        gone = rows.take(np.flatnonzero(right))
        y = gone.y.astype(np.float64)
        weight = None if gone.weight is None else gone.weight.astype(np.float64)
        frequency, size = sizes(gone, model.frequency, 0, gone.n)
        mu = np.where(moved[right] > 0, limits[1], limits[0])
        with np.errstate(all="ignore"):
            deviance = family.unit_deviance(y, mu, 1.0 - mu)
            saturated = frequency * family.saturated(y, size, family.dispersion)
        total = size * y if family.discrete else np.zeros(gone.n)
        statistics += FitStats(
            gone.n,
            float(np.sum(frequency * np.ones(gone.n))),
            float(np.sum(deviance if weight is None else deviance * weight)),
            float(np.sum(saturated)),
            float(gone.n if weight is None else weight.sum()),
            int((np.abs(total - np.round(total)) > 1e-9 * np.maximum(1.0, np.abs(total))).sum()),
            0.0,
        )
    return Separated(allowed, forbidden, statistics)


@final
class Remaining:
    """A block without the rows that a direction moves."""

    def __init__(self, model: Model, move: Move) -> None:
        self.model, self.move = model, move

    def __call__(self, block: Block) -> Block:
        raw = self.model.raw(self.move.direction)
        parts = [movement(rows, self.model.scaling, raw, self.move.floor) for rows in _chunks(block)]
        moved = np.concatenate([np.zeros(0), *parts]) != 0.0
        return block.take(np.flatnonzero(~moved)) if moved.any() else block

    def __reduce__(self) -> Any:
        return Remaining, (self.model, self.move)
