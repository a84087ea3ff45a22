"""What directions do to the classes of rows: the sums from which infinite optima of responses of classes are found.

What goes to its limit is no row but a pair of a row and a class that it has not: the row stays, and tells the other classes
apart. A direction d of the coefficients is one of recession where in no pair the class that was seen falls behind; pairs in
which it gains go to their limit. Ordered classes have two pairs to a row, with the classes below and those above.
As in `daskglm.totals.separation`, which says the same of responses that are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Workspace, add_gradient
from daskglm.totals.levels import LevelCounts
from daskglm.totals.moments import CHUNK_ROWS
from daskglm.totals.separation import BINS, BINS_PER_POWER, LEAST_POWER, Move, Movements, Split
from daskglm.totals.vector import ParallelModel, Rows, SeparateModel, choices

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
ClassModel = SeparateModel | ParallelModel

# A direction of whole levels takes each level at which a class is never seen, and each at which the reference is not; the
# same of the level without a column, for which the intercept and all other levels stand. No sum of some of these is zero,
# so that every coefficient that goes to infinity shows. They are multiples of 1/8.
OWN, REFERENCE, BASELINE, BASELINE_REFERENCE = 1.0, 0.75, 0.5, 0.375


# -- pairs ---------------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class _Chunk:
    """Some rows, and which of their pairs (A, n) there are."""

    rows: Rows
    model: ClassModel
    y: Any
    possible: Mask | None

    def gains(self, move: Move) -> tuple[Matrix, Mask, Vector]:
        """How the class that was seen gains in each pair (A, n), which pairs there are, and what of it is rounding (n,)."""
        courses = self.model.courses(self.rows, move.direction)
        gains, there = self.model.likelihood.alternatives(self.y, self.possible, courses)
        return gains, there, np.maximum(self.rows.noise(self.model.size(move.direction)), move.floor)

    def candidates(self, moves: Sequence[Move]) -> tuple[Mask, Mask]:
        """Pairs that every move takes the allowed way, and those that are left (A, n)."""
        parts = [self.gains(move) for move in moves]
        there = parts[0][1]
        inside = there & np.logical_and.reduce([gains > floor for gains, _, floor in parts])
        return inside, there & ~inside


def _chunks(block: Block, model: ClassModel) -> Iterator[_Chunk]:
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    for start in range(0, block.n, CHUNK_ROWS):
        rows = Rows(pieces, workspace, model.scaling, start, min(start + CHUNK_ROWS, block.n))
        yield _Chunk(rows, model, block.y[start : rows.stop], choices(rows, model, model.limits))


# -- totals --------------------------------------------------------------------------------------------------------------


def movements(block: Block, model: ClassModel, directions: Matrix) -> Movements:
    """What directions (m, r) of the scaled coefficients do to the pairs of a block."""
    m = len(directions)
    allowed, forbidden = np.zeros(m, np.int64), np.zeros(m, np.int64)
    largest, obstacle = np.zeros(m), np.zeros(m)
    histogram = np.zeros((m, BINS), np.int64)
    for chunk in _chunks(block, model):
        for k, direction in enumerate(directions):
            gains, there, floor = chunk.gains(Move(direction))
            right, wrong = gains[there & (gains > floor)], -gains[there & (gains < -floor)]
            allowed[k] += right.size
            forbidden[k] += wrong.size
            obstacle[k] = max(obstacle[k], wrong.max(initial=0.0))
            largest[k] = max(largest[k], obstacle[k], right.max(initial=0.0))
            power = np.floor((np.log10(right) - LEAST_POWER) * BINS_PER_POWER)
            histogram[k] += np.bincount(np.clip(power, 0, BINS - 1).astype(np.int64), minlength=BINS)
    return Movements(allowed, forbidden, largest, obstacle, histogram)


def split(block: Block, model: ClassModel, moves: tuple[Move, ...]) -> Split:
    """The unit Grams of the pairs that all moves take the allowed way, and of the rest."""
    likelihood: Any = model.likelihood
    rest = model.scatter(block)
    numbers, pairs = [np.zeros(0, np.intp)], []
    count = 0
    for chunk in _chunks(block, model):
        inside, outside = chunk.candidates(moves)
        start, stop = chunk.rows.start, chunk.rows.stop
        rest.take(likelihood.unit(chunk.y, 1.0 * outside), np.zeros((likelihood.q, stop - start)), start, stop)
        some = np.flatnonzero(inside.any(axis=0))
        numbers.append(start + some)
        pairs.append(inside[:, some])
        count += int(inside.sum())
    # they are few, mostly
    moved = block.take(np.concatenate(numbers))
    moving = model.scatter(moved)
    among = np.concatenate(pairs, axis=1) if pairs else np.zeros((0, 0), bool)
    for start in range(0, moved.n, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, moved.n)
        y, each = moved.y[start:stop], 1.0 * among[:, start:stop]
        moving.take(likelihood.unit(y, each), likelihood.pull(y, each), start, stop)
    return Split(rest.result(), moving.result(), count)


def leftover(block: Block, model: ClassModel, moves: tuple[Move, ...], direction: Vector) -> Vector:
    """Z'Z d of the pairs that not all moves take the allowed way, Z their differences of predictors: as a gradient of the
    raw columns.
    """
    likelihood: Any = model.likelihood
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    parallel = bool(likelihood.parallel)
    slopes = np.zeros((1 if parallel else likelihood.q, model.width))
    thresholds = np.zeros(likelihood.q if parallel else 0)
    for chunk in _chunks(block, model):
        _, outside = chunk.candidates(moves)
        gains, _, _ = chunk.gains(Move(direction))
        pull = likelihood.pull(chunk.y, np.where(outside, gains, 0.0))
        if parallel:
            thresholds += pull.sum(axis=1)
            pull = -pull.sum(axis=0, keepdims=True)
        for one, gradient in zip(pull, slopes, strict=True):
            add_gradient(pieces, workspace, np.ascontiguousarray(one), chunk.rows.start, chunk.rows.stop, gradient)
    return np.concatenate([thresholds, slopes.ravel()])


@final
@dataclass(frozen=True)
class Moved:
    """Rows in which a direction moves some pair, all of them the allowed way."""

    rows: int

    def __add__(self, other: Moved) -> Moved:
        return Moved(self.rows + other.rows)


def moved_rows(block: Block, model: ClassModel, direction: Vector) -> Moved:
    """How many rows a direction moves."""
    return Moved(sum(int(chunk.candidates((Move(direction),))[0].any(axis=0).sum()) for chunk in _chunks(block, model)))


# -- what counts alone prove ---------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Emptied:
    """A direction of recession (r,) that empty cells prove; silent (r,): coefficients that no row informs at its end, as far
    as counts tell; baselines: (raw column, class) of levels that have no column of their own.
    """

    direction: Vector
    silent: Mask
    baselines: tuple[tuple[int, int], ...]


def emptied(counts: LevelCounts, model: ClassModel) -> Emptied | None:
    """All levels at which a class never occurs, in one direction; of ordered classes, those with only the lowest or only
    the highest class.
    """
    place = np.full(model.width, -1)
    place[model.select] = np.arange(model.select.size)
    found = (_of_ordered if model.likelihood.parallel else _of_classes)(counts, model, place)
    return found if found.direction.any() else None


def _of_classes(counts: LevelCounts, model: ClassModel, place: Integers) -> Emptied:
    q, p = model.likelihood.q, model.select.size
    direction, silent, baselines = np.zeros((q, p)), np.zeros((q, p), bool), []
    for first, rows in counts.each():
        columns = place[first : first + rows.shape[1]]
        own = columns >= 0
        empty = (rows == 0) & (rows.sum(axis=0) > 0)
        direction[:, columns[own]] += REFERENCE * empty[0, own] - OWN * empty[1:, own]
        silent[:, columns[own]] |= empty[1:, own] | (np.sum(rows[:, own] > 0, axis=0) == 1)
        if place[0] >= 0 and np.sum(~own) == 1:
            pull = BASELINE * empty[1:, ~own] - BASELINE_REFERENCE * empty[0, ~own]
            direction[:, place[:1]] -= pull
            direction[:, columns[own]] += pull
            missing = int(np.flatnonzero(~own)[0])
            baselines += [(first + missing, int(k)) for k in np.flatnonzero(empty[:, missing])]
    return Emptied(direction.ravel(), silent.ravel(), tuple(baselines))


def _of_ordered(counts: LevelCounts, model: ClassModel, place: Integers) -> Emptied:
    q = model.likelihood.q
    direction, silent, baselines = np.zeros(q + model.select.size), np.zeros(q + model.select.size, bool), []
    for first, rows in counts.each():
        columns = place[first : first + rows.shape[1]]
        own, there = columns >= 0, rows.sum(axis=0) > 0
        highest = there & (rows[:-1].sum(axis=0) == 0)
        lowest = there & (rows[1:].sum(axis=0) == 0)
        end = 1.0 * highest - 1.0 * lowest
        direction[q + columns[own]] += OWN * end[own]
        silent[q + columns[own]] |= end[own] != 0.0
        if np.sum(~own) == 1:
            missing = int(np.flatnonzero(~own)[0])
            direction[:q] -= BASELINE * end[missing]
            direction[q + columns[own]] -= BASELINE * end[missing]
            baselines += [(first + missing, q if end[missing] > 0 else 0)] if end[missing] else []
    return Emptied(direction, silent, tuple(baselines))
