"""Whether an optimum is infinite, decided by a certificate: a direction along which no row loses and some gain.

Where the likelihood has no maximum, Newton's steps go on for ever: the linear predictors of the separated rows grow by
about the same amount each time while all others stay where they are, so that the last step is a direction of recession
but for what vanishes. That raises a suspicion, and no more: a rare event or a far optimum begins alike. What decides is
exact but for rounding:

    S   rows that the step moves the allowed way, all of them or those beyond a gap in the distances they go;
    N   the null space of X over all other rows, from their unit Gram in formula order;
    d   a vector of N: it moves no row outside S. If it moves none the wrong way and some the allowed way, it is a
        certificate, and the separated rows are those it moves.

Rows of S that d moves the wrong way leave S, and N gets smaller, until a certificate is found or N is empty. The first
round is mostly the last: rows that are not separated, moved by what vanishes, go either way, and those that go the wrong
way leave no direction of theirs to N.
Where the response is one of several classes, what is said here of rows holds for pairs of a row and a class that it has
not; and levels at which a class never occurs are known from counts alone, which are a certificate as they are.
Sources: Albert and Anderson (1984), Biometrika 71, 1-10; Konis (2007), section 4; Correia, Guimaraes and Zylkin (2019),
arXiv:1903.01633, for models of counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from daskglm.kernels.bordered import (
    AnyFactor,
    AnyGram,
    between,
    columns_of,
    diagonal_of,
    factor_any,
)
from daskglm.kernels.cholesky import factor
from daskglm.solvers.objective import Curvature, Objective, Point
from daskglm.totals import alternatives
from daskglm.totals.moments import Model
from daskglm.totals.residuals import residual_products
from daskglm.totals.separation import (
    BINS_PER_POWER,
    LEAST_POWER,
    Move,
    Movements,
    Parts,
    Separated,
    Split,
    movements,
    of_rest,
    separated,
    split,
)
from daskglm.totals.vector import Limit, ParallelModel, SeparateModel

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
# A direction (r,) without what is rounding on the scale of the user, given the squares (r,) of what it multiplies, summed.
Tidy = Callable[[Vector, Vector], Vector]

# A Newton step near a finite optimum takes the decrement down by orders of magnitude, one on the way to infinity by a
# factor between e^-2 and nearly 1 that stays the same.
SLOW = 0.1
# So many slow steps in a row make a suspicion; where it is not confirmed, twice as many make the next.
SUSPICIOUS = 5
# Where one direction has been found, there is often another.
AGAIN = 2
# At the end, a step this long in scaled coefficients: at a finite optimum it is as small as the decrement allows.
LONG_STEP = 1e-5
# A row that must not move and goes more than this part of the way of the farthest one: no direction of recession is near.
NEAR = 0.1
# So many powers of ten between the rows that move and those that hardly do make a gap.
WIDE = 2.0
# Each round takes one dimension off the null space at least.
ROUNDS = 8
# Columns up to which the Grams of both parts are summed in one pass: of more, two at a time take much memory, and the second
# is asked for only where there is a null space.
TOGETHER = 2_000
# A step of the model before its limit is one of the model at it, too, and taken unseen where it is no longer than this in
# every scaled coefficient: it cannot go far wrong.
SHORT = 1.0


@final
@dataclass(frozen=True)
class Separation:
    """A certificate: direction (p,) of the scaled coefficients, along which `rows` rows move, all to where they may; of
    classes, so many pairs.

    rest, moving: unit Grams of what stays, and of what moves, in tables of the raw columns. silent (p,): coefficients of
    which nothing that stays knows; start (p,): where to go on at the limit.
    """

    direction: Vector
    rows: int
    rest: Any
    moving: Any
    silent: Mask
    start: Vector


@final
@dataclass(frozen=True)
class Counted:
    """A certificate of counts alone: directions in the order in which they decide; silent and start as in `Separation`, as
    far as that is clear; baselines as in `daskglm.totals.alternatives.Emptied`.
    """

    limits: tuple[Limit, ...]
    silent: Mask
    start: Vector
    baselines: tuple[tuple[int, int], ...]


@final
class Watch:
    """Looks on while a minimiser steps, and asks the data when its steps are those of an infinite optimum."""

    def __init__(self, objective: Objective, tidy: Tidy | None = None, patience: int = SUSPICIOUS) -> None:
        self.objective, self.tidy = objective, tidy
        model: Any = objective.model
        self._counted = not objective.counting or bool(model.limits)
        self._slow = 0
        self._patience = self._due = patience
        self._before: float | None = None

    def look(
        self, point: Point, found: Curvature, aliased: Mask, direction: Vector, decrement: float, ending: bool
    ) -> Separation | Counted | None:
        """A certificate, where this step raises a suspicion and the data confirm it, or counts are one."""
        counted = self._of_counts(point.coef, aliased, direction)
        if counted is not None:
            return counted
        slow = self._before is not None and decrement > SLOW * self._before
        self._slow = self._slow + 1 if slow else 0
        self._due = self._due if slow else self._patience
        self._before = decrement
        toward = direction + _lost(found, aliased, point.coef)
        if not np.isfinite(toward).all():
            return None
        suspicious = self._slow >= self._due
        if ending:
            suspicious = bool(np.abs(toward).max(initial=0.0) > LONG_STEP)
        if not suspicious:
            return None
        self._due = max(self._due, 2 * self._slow)
        return certificate(self.objective, toward, point.coef, aliased, self.tidy)

    def _of_counts(self, coef: Vector, aliased: Mask, step: Vector) -> Separation | Counted | None:
        """What counts say, once."""
        objective = self.objective
        if self._counted or objective.occurrences is None:
            return None
        self._counted = True
        model: Any = objective.model
        found = alternatives.emptied(objective.occurrences, model)
        if found is None:
            return None
        together = np.sum([limit.direction for limit in found.limits], axis=0)
        if (aliased & (together != 0.0)).any():
            # other columns may say the same of these rows, but counts do not tell
            return certificate(objective, np.where(aliased, 0.0, together), coef, aliased, self.tidy)
        silent = found.silent | aliased
        short = np.abs(step[~silent]).max(initial=0.0) <= SHORT
        start = coef + step if short else coef
        return Counted(found.limits, silent, np.where(silent, 0.0, start), found.baselines)


def _lost(found: Curvature, aliased: Mask, coef: Vector) -> Vector:
    """Where the weights leave nothing of a column, the way its coefficient has gone without changing what they see."""
    result = np.zeros_like(coef)
    for j in np.flatnonzero(~found.kept & ~aliased):
        if found.basis is None:
            null = -found.factor.solve(np.where(found.kept, columns_of(found.gram, np.array([j]))[:, 0], 0.0))
            null[j] = 1.0
        else:
            null = found.basis[:, j]
        result += coef[j] * null
    return result


def certificate(
    objective: Objective, direction: Vector, coef: Vector, aliased: Mask, tidy: Tidy | None = None
) -> Separation | None:
    """A direction of recession near this one (p,), or None; coef (p,) is where the optimum has been sought.

    One pass looks at the direction, and each round takes one to split the rows and one to look at what comes of it.
    """
    size = float(np.abs(direction).max(initial=0.0))
    if not size > 0.0:
        return None
    seen = _movements(objective, direction[None] / size)
    if not seen.allowed[0] or seen.obstacle[0] > NEAR * seen.largest[0]:
        return None
    for floor in _floors(seen):
        found = _within(objective, (Move(direction / size, floor),), coef, aliased, tidy)
        if found is not None:
            return found
    return None


def _movements(objective: Objective, directions: Matrix) -> Movements:
    result: Movements = objective.blocks.total(_SUMS[type(objective.model)].movements, objective.model, directions)
    return result


def farthest(objective: Objective, direction: Vector) -> float:
    """How far a direction moves a linear predictor at most, in one pass."""
    return float(_movements(objective, direction[None]).largest[0])


def _split(objective: Objective, moves: tuple[Move, ...], parts: Parts) -> Split:
    result: Split = objective.blocks.total(_SUMS[type(objective.model)].split, objective.model, moves, parts)
    return result


def _completed(objective: Objective, moves: tuple[Move, ...], parts: Split) -> Split:
    """With the Gram of the rows that move, in a pass of its own where it is missing."""
    return parts if parts.moving is not None else replace(_split(objective, moves, "moving"), rest=parts.rest)


def _floors(seen: Movements) -> list[float]:
    """How far a row must move to be a candidate: at all, or to beyond the widest gap above the rows that must not move."""
    obstacle = float(seen.obstacle[0])
    if obstacle == 0.0:
        return [0.0]
    lower = np.floor((np.log10(obstacle) - LEAST_POWER) * BINS_PER_POWER)
    occupied = np.flatnonzero(seen.histogram[0])
    above = occupied[occupied > lower]
    if not above.size:
        return [0.0]
    steps = np.diff(np.concatenate([[lower], above]))
    beyond = above[int(np.argmax(steps))]
    gap = max(10.0 ** (LEAST_POWER + (beyond - 0.5) / BINS_PER_POWER), obstacle)
    return [gap, 0.0] if steps.max() > WIDE * BINS_PER_POWER else [0.0, gap]


def _within(
    objective: Objective, moves: tuple[Move, ...], coef: Vector, aliased: Mask, tidy: Tidy | None
) -> Separation | None:
    """A certificate that moves none but rows that all these moves take the allowed way."""
    model: Any = objective.model
    together = model.width <= TOGETHER
    for _ in range(ROUNDS):
        parts = _split(objective, moves, "both" if together else "rest")
        rest = model.information(parts.rest)
        assert rest is not None
        kept = factor_any(rest, aliased)
        basis = null_space(rest, kept, aliased)
        if not basis.shape[1]:
            return None
        free = np.flatnonzero(~kept.kept & ~aliased)
        parts = _completed(objective, moves, parts)
        moving = model.information(parts.moving)
        assert moving is not None
        candidates = [
            basis @ _fitted(basis, moving, model.scores(parts.moving)),
            basis @ moves[0].direction[free],
            basis @ coef[free],
        ]
        if tidy is not None:
            # the plainest come first, and need no pass of their own
            candidates = [tidy(c, diagonal_of(rest) + diagonal_of(moving)) for c in candidates] + candidates
        scaled = [c / np.abs(c).max() for c in candidates if np.abs(c).max(initial=0.0) > 0.0]
        if not scaled:
            return None
        directions = np.array(scaled)
        seen = _movements(objective, directions)
        if not _certified(seen).any():
            # a null space that comes out of a Gram is not exact where columns are nearly collinear
            directions = np.array([_refined(objective, moves, kept, d) for d in directions])
            seen = _movements(objective, directions)
        good = np.flatnonzero(_certified(seen))
        if good.size:
            best = good[int(np.argmax(seen.allowed[good]))]
            rows = int(seen.allowed[best])
            if rows < parts.rows:
                # it leaves some of the candidates where they are
                chosen = (Move(directions[best]),)
                parts = _completed(objective, chosen, _split(objective, chosen, "both" if together else "rest"))
                rest = model.information(parts.rest)
                assert rest is not None
                kept = factor_any(rest, aliased)
                basis = null_space(rest, kept, aliased)
                free = np.flatnonzero(~kept.kept & ~aliased)
            start = np.where(kept.kept, coef - basis @ coef[free], 0.0)
            return Separation(directions[best], rows, parts.rest, parts.moving, ~kept.kept, start)
        # rows that go the wrong way are no candidates any more, those of the direction that has fewest
        best = int(np.argmin(np.where(seen.allowed > 0, seen.forbidden, np.iinfo(np.int64).max)))
        if not seen.allowed[best]:
            return None
        moves = (*moves, Move(directions[best]))
    return None


def _certified(seen: Movements) -> Mask:
    return np.asarray((seen.forbidden == 0) & (seen.allowed > 0))


def null_space(gram: AnyGram, kept: AnyFactor, aliased: Mask) -> csc_array:
    """Directions (p, k) that move no row of this unit Gram: one for each column that is a combination of earlier ones,
    and was none over all rows. Mostly those are columns of zeros, each a direction by itself.
    """
    free = np.flatnonzero(~kept.kept & ~aliased)
    bound = np.flatnonzero(diagonal_of(gram)[free] != 0.0)
    combined = -kept.solve(np.where(kept.kept[:, None], columns_of(gram, free[bound]), 0.0))
    rows, columns = np.nonzero(combined)
    entries = np.concatenate([np.ones(free.size), combined[rows, columns]])
    places = np.concatenate([free, rows]), np.concatenate([np.arange(free.size), bound[columns]])
    return csc_array((entries, places), shape=(gram.shape[0], free.size))


def _fitted(basis: csc_array, moving: AnyGram, pull: Vector) -> Vector:
    """Least squares within the null space: every row of S moved by 1, the way it may go. Where that is a certificate it is
    the plainest, and knows nothing of the way the steps took.
    """
    inner = between(moving, basis)
    return factor(inner).solve(basis.T @ pull)


def _refined(objective: Objective, moves: tuple[Move, ...], kept: AnyFactor, direction: Vector) -> Vector:
    """Take from a direction what still moves the rows that must not: one step of iterative refinement, one pass."""
    left = _SUMS[type(objective.model)].leftover(objective, moves, direction)
    return direction - kept.solve(np.where(kept.kept, left, 0.0))


def _of_rows(objective: Objective, moves: tuple[Move, ...], direction: Vector) -> Vector:
    """X'X d of the rows that not all moves take the allowed way."""
    arguments: tuple[Any, ...] = (residual_products, np.zeros_like(direction), direction[:, None], "unit")
    left = objective.blocks.total(of_rest, objective.model, moves, *arguments)
    return np.asarray(left.cross[:, 0])


def _of_pairs(objective: Objective, moves: tuple[Move, ...], direction: Vector) -> Vector:
    """The same of pairs."""
    model: Any = objective.model
    return np.asarray(model.of_raw(objective.blocks.total(alternatives.leftover, model, moves, direction)))


@final
@dataclass(frozen=True)
class _Sums:
    """How a model's rows, or pairs, are summed up."""

    movements: Callable[..., Movements]
    split: Callable[..., Split]
    leftover: Callable[[Objective, tuple[Move, ...], Vector], Vector]


_PAIRS = _Sums(alternatives.movements, alternatives.split, _of_pairs)
_SUMS: Mapping[type, _Sums] = {
    Model: _Sums(movements, split, _of_rows),
    SeparateModel: _PAIRS,
    ParallelModel: _PAIRS,
}


def confirmed(objective: Objective, direction: Vector) -> Separated:
    """What a direction does to the rows, and the statistics of those it moves, in one pass."""
    result: Separated = objective.blocks.total(separated, objective.model, Move(direction))
    return result


def limited(objective: Objective, coef: Vector) -> int:
    """In how many rows some class is impossible, in one pass."""
    statistics = objective.evaluate(coef, 0, statistics=True).sums.statistics
    assert statistics is not None
    return statistics.limited
