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
from daskglm.totals.moments import CHUNK_ROWS
from daskglm.totals.occurrences import Occurrences
from daskglm.totals.separation import BINS, BINS_PER_POWER, LEAST_POWER, Move, Movements, Parts, Split
from daskglm.totals.vector import Limit, ParallelModel, Rows, SeparateModel, choices

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
ClassModel = SeparateModel | ParallelModel

# What a column that is zero for a class adds to a direction, and one that is zero for the reference; the same of a level
# without a column, for which the intercept and all other levels stand. No sum of some of these is zero, so that every
# coefficient that goes to infinity shows; they are multiples of 1/8.
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


def split(block: Block, model: ClassModel, moves: tuple[Move, ...], parts: Parts = "both") -> Split:
    """The unit Grams of the pairs that all moves take the allowed way, and of the rest, as far as they are asked for."""
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
    return Split(None if parts == "moving" else rest.result(), None if parts == "rest" else moving.result(), count)


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


# -- what counts alone prove ---------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Emptied:
    """Directions of recession that counts prove; silent (r,): coefficients that no row informs at their end, as far as counts
    tell; baselines: (raw column, class) of levels that have no column of their own.
    """

    limits: tuple[Limit, ...]
    silent: Mask
    baselines: tuple[tuple[int, int], ...]


def emptied(counts: Occurrences, model: ClassModel) -> Emptied | None:
    """All columns of one sign that are zero for a whole class, levels among them, at once: along each of them the class
    becomes impossible where it is not zero. Of ordered classes, those that are zero for all but the lowest or the highest.
    """
    whole, baselines = _whole_levels(counts, model)
    sign = counts.sign[model.select]
    sign[model.select == 0] = 0.0
    rows = counts.rows[:, model.select]
    apart = sign * (_apart_of_ordered(rows) if model.likelihood.parallel else _apart(rows))
    levels = np.isin(model.select, _columns(counts))
    numbers = _with_constants(model, np.where(levels, 0.0, apart))
    whole = whole + _with_constants(model, np.where(levels, apart, 0.0))
    limits = [Limit(d, exact) for d, exact in ((whole, True), (numbers, False)) if d.any()]
    silent = _silent_of_ordered(rows) if model.likelihood.parallel else _silent(rows)
    constants = np.zeros(model.likelihood.q if model.likelihood.parallel else 0, bool)
    silent = np.concatenate([constants, (silent & (sign != 0.0)).ravel()])
    return Emptied(tuple(limits), silent, baselines) if limits else None


def _apart(rows: Integers) -> Matrix:
    """How each predictor goes along each column (q, p) that is zero for its class, or for the reference."""
    empty = rows == 0
    return REFERENCE * empty[0] - OWN * empty[1:]


def _silent(rows: Integers) -> Mask:
    """Coefficients (q, p) of classes for which a column is zero; all of them where there is but one for which it is not."""
    empty = rows == 0
    return np.asarray(empty[1:] | ((~empty).sum(axis=0) == 1))


def _apart_of_ordered(rows: Integers) -> Vector:
    """How the predictor goes along each column (p,) that is zero for all but the highest or the lowest class."""
    return OWN * (1.0 * (rows[:-1].sum(axis=0) == 0) - (rows[1:].sum(axis=0) == 0))


def _silent_of_ordered(rows: Integers) -> Mask:
    return np.asarray((rows[:-1].sum(axis=0) == 0) | (rows[1:].sum(axis=0) == 0))


def _columns(counts: Occurrences) -> Integers:
    """The raw columns of factors that stand alone."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(first, first + n) for first, n in counts.factors)])


def _with_constants(model: ClassModel, slopes: Matrix) -> Vector:
    """A direction (r,) of scaled columns (q, p) or (p,) that goes with the columns as they are: intercepts, or thresholds,
    make up for what those are shifted by.
    """
    shifts = np.zeros(model.width)
    shifts[1 : 1 + model.scaling.shift.size] = model.scaling.shift * model.scaling.scale
    shifted = slopes @ shifts[model.select]
    if model.likelihood.parallel:
        return np.concatenate([np.full(model.likelihood.q, -shifted), slopes])
    result = slopes.copy()
    result[:, model.select == 0] += shifted[:, None]
    return np.asarray(result.ravel())


def _whole_levels(counts: Occurrences, model: ClassModel) -> tuple[Vector, tuple[tuple[int, int], ...]]:
    """The same of levels without a column, for which the constant less all other levels stands: a direction (r,), and which
    (raw column, class).
    """
    q, parallel = model.likelihood.q, model.likelihood.parallel
    place = np.full(model.width, -1)
    place[model.select] = np.arange(model.select.size)
    slopes = np.zeros((1 if parallel else q, model.select.size))
    constants, baselines = np.zeros(q), []
    for first, n in counts.factors if parallel or place[0] >= 0 else ():
        columns = place[first : first + n]
        missing = np.flatnonzero(columns < 0)
        if missing.size != 1:
            continue
        at = first + missing
        rows = counts.rows[:, at]
        if not rows.any():
            continue
        if parallel:
            pull = BASELINE / OWN * _apart_of_ordered(rows)
            constants -= pull
            slopes[:, columns[columns >= 0]] -= pull
            baselines += [(int(at[0]), q if pull[0] > 0 else 0)] if pull.any() else []
        else:
            empty = rows == 0
            pull = BASELINE_REFERENCE * empty[0] - BASELINE * empty[1:]
            constants += pull[:, 0]
            slopes[:, columns[columns >= 0]] -= pull
            baselines += [(int(at[0]), int(k)) for k in np.flatnonzero(empty[:, 0])]
    if parallel:
        return np.concatenate([constants, slopes[0]]), tuple(baselines)
    if place[0] >= 0:
        slopes[:, place[0]] += constants
    return slopes.ravel(), tuple(baselines)
