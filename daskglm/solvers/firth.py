"""Mean bias reduction: the root of an adjusted score, which is finite where the maximum of the likelihood is not.

The score U loses its part of first order in the bias by A = X' (h mu'' / (2 mu')), with h the leverages (Firth 1993,
Biometrika 80, 27-38; Kosmidis and Firth 2009, Biometrika 96, 793-804). The root of U + A is found by quasi-Newton steps
(I + K)^-1 (U + A), with I the expected information and K what A adds to it while the leverages stand still, where that is
positive.

Leverages need the inverse of I, which a pass gives at its end. So those of the point before are taken as long as that
will do, and a step is one pass: in large data they hardly move. Where steps get smaller too slowly, a second pass at the
same point brings them up to date, and what (I + K)^-1 leaves out of the true slope the steps learn from each other.

Under the canonical link U + A is the gradient of the penalised likelihood log L + log det I / 2 (Firth 1993, section 3),
whose value every pass gives. Steps are shortened until it rises, and learn by L-BFGS with (I + K)^-1 as its first matrix
(Nocedal and Wright 2006, algorithm 7.4), which always leads uphill: separated data, in which I falls exponentially on the
way, are reached from anywhere. Other links have no such function: their steps are judged by the length of the adjusted
score, and learn as in Anderson (1965, J. ACM 12, 547-560).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import SolverError
from daskglm.kernels.bordered import dense, diagonal_of
from daskglm.kernels.cholesky import Factor, factor
from daskglm.solvers.driver import FLOOR, Optimum, Step, Stopping, without_aliased
from daskglm.solvers.newton import curvature
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Curvature, Objective, Point
from daskglm.totals.bias import Adjusted, adjusted
from daskglm.totals.moments import Request

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# A step that makes the adjusted score this much longer, in the norm of the information, went too far.
TOO_LONG = 2.0
MAX_HALVINGS, MAX_HALVINGS_UPHILL = 10, 60
# A decrement that a step leaves this part of: leverages of the point before will not do.
SLOW = 0.01
# Decrements from which on steps of Anderson's kind are nearly linear in each other.
NEAR = 0.1
# Steps that the next one learns from, of Anderson's kind and of L-BFGS.
MEMORY = 4
PAIRS = 8
# The part of the slope by which the penalised likelihood has to rise (Nocedal and Wright 2006, equation 3.4).
ENOUGH_RISE = 1e-4
# Its value, a sum over the rows and over the logarithms of the pivots, carries about this relative rounding error.
NOISE = 1e-12
# Curvature along a step, relative to the sizes of the step and of the change of the gradient, that is more than rounding.
CURVED = 1e-10
# So many decrements without a new lowest are rounding.
PATIENCE = 4


@final
@dataclass(frozen=True)
class _State:
    """A point whose gradient is the adjusted score, its expected information and that of the step, both factored; exact:
    whether its leverages are those of this point.
    """

    point: Point
    found: Curvature
    steps_by: Curvature | Factor
    exact: bool = False

    @property
    def decrement(self) -> float:
        """(U + A)' I^-1 (U + A): the squared distance to the root in standard errors."""
        return float(self.point.gradient @ self.found.solve(self.point.gradient))

    @property
    def direction(self) -> Vector:
        """The quasi-Newton step."""
        return self.steps_by.solve(self.point.gradient)

    @property
    def gradient(self) -> Vector:
        """The adjusted score, 0 for columns that are not estimated."""
        return np.where(self.found.kept, self.point.gradient, 0.0)

    @cached_property
    def penalty(self) -> float:
        """-log det I / 2 of the columns that are estimated."""
        kept = self.found.kept
        with np.errstate(all="ignore"):
            return -0.5 * float(np.log(self.found.factor.pivots[kept] * diagonal_of(self.found.gram)[kept]).sum())

    @property
    def value(self) -> float:
        """Minus the penalised log-likelihood at phi = 1."""
        return self.point.loss + self.penalty

    @property
    def noise(self) -> float:
        """What rounding may do to the value."""
        return NOISE * (abs(self.point.loss) + abs(self.penalty) + 1.0)


class _Search:
    """State of one search."""

    def __init__(self, objective: Objective, null: Null | None) -> None:
        self.objective, self.null = objective, null
        self.aliased: Mask | None = None
        # whether leverages are brought up to date, and the states since, to learn from
        self.exact = False
        self.way: list[_State] = []
        self.canonical = bool(objective.model.likelihood.canonical)
        self.pairs: list[tuple[Vector, Vector]] = []
        self.steps: list[Step] = []
        self.decrements: list[float] = []

    def begin(self, start: Vector) -> _State:
        """The score itself, for leverages are not known yet."""
        waiting = self.null is not None and self.null.waiting
        point = self.objective.evaluate(start, 2, "expected", means=waiting)
        if self.null is not None:
            self.null.start(point.sums)
        if not np.isfinite(point.loss):
            raise SolverError("the start gives means that the family does not allow: give start=")
        found = curvature(self.objective, point, None)
        self.aliased = found.aliased
        return _State(without_aliased(point, found), found, found)

    def step(self, before: _State, closing: bool) -> _State:
        """To a point at which the penalised likelihood is higher, where there is one, or the adjusted score shorter."""
        state, halvings = self._uphill(before, closing) if self.canonical else self._shorter(before, closing)
        self.steps.append(Step(before.point.loss, before.decrement, halvings, True))
        self.decrements.append(state.decrement)
        return state

    def _uphill(self, before: _State, closing: bool) -> tuple[_State, int]:
        """A full step, halved until the penalised likelihood rises as much as the slope promises."""
        direction = _by_pairs(before, self.pairs) if before.exact else before.direction
        slope = float(before.gradient @ direction)
        size = 1.0
        for halvings in range(MAX_HALVINGS_UPHILL):  # noqa: B007 - returned where a step is found
            state = self._adjusted(before.point.coef + size * direction, before, closing)
            rise = ENOUGH_RISE * size * slope if before.exact else 0.0
            least = before.value - rise + before.noise
            possible = state is not None and self._complete(state)
            if state is not None and possible and (state.value <= least or size * slope <= before.noise):
                break
            if not before.exact:
                # the gradient at leverages of another point may not lead uphill
                return self._uphill(self._brought_up_to_date(before, closing), closing)
            size *= 0.5
        else:
            raise SolverError("no step leads to a possible mean: give start=, or another link")
        slow = bool(self.steps) and state.decrement > SLOW * before.decrement
        if slow or self.exact:
            state = self._brought_up_to_date(state, closing)
        if before.exact and state.exact:
            self._learn(before, state)
        return state, halvings

    def _complete(self, state: _State) -> bool:
        """Whether the information there still tells all columns apart that it did at the start."""
        assert self.aliased is not None
        return bool((state.found.kept | self.aliased).all())

    def _brought_up_to_date(self, state: _State, closing: bool) -> _State:
        """With its own leverages, from here on."""
        self.exact = True
        found = self._refreshed(state, closing)
        return state if found is None else replace(found, exact=True)

    def _learn(self, before: _State, state: _State) -> None:
        """What a step says of the curvature, where that is positive."""
        step, turn = state.point.coef - before.point.coef, before.gradient - state.gradient
        if float(step @ turn) > CURVED * float(np.sqrt((step @ step) * (turn @ turn))):
            self.pairs = [*self.pairs[1 - PAIRS :], (step, turn)]

    def _shorter(self, before: _State, closing: bool) -> tuple[_State, int]:
        """A full step, halved where it goes to a mean that is not possible, or away from the root."""
        # far from the root, where the information falls exponentially, steps have nothing to learn from each other
        near = before.decrement <= NEAR
        size, direction = 1.0, _learnt(self.way) if self.way and near else before.direction
        for halvings in range(MAX_HALVINGS + 1):
            state = self._evaluate(before, size * direction, closing)
            last = halvings == MAX_HALVINGS
            if state is not None and (last or _length(before, state) <= max(TOO_LONG * before.decrement, FLOOR)):
                break
            size *= 0.5
        if state is None:
            raise SolverError("no step leads to a possible mean: give start=, or another link")
        slow = bool(self.steps) and state.decrement > SLOW * before.decrement
        if slow and not self.exact:
            self.exact = True
            up_to_date = self._refreshed(state, closing)
            state = state if up_to_date is None else up_to_date
        if halvings:
            self.way = []
        if self.exact:
            self.way = [*self.way[-MEMORY:], state]
        return state, halvings

    @property
    def stuck(self) -> bool:
        """Whether decrements are small and no longer fall."""
        recent = self.decrements[-PATIENCE:]
        return len(recent) == PATIENCE and max(recent) <= FLOOR and min(recent) > min(self.decrements)

    def _evaluate(self, before: _State, step: Vector, closing: bool) -> _State | None:
        state = self._adjusted(before.point.coef + step, before, closing)
        return self._refreshed(state, closing) if self.exact and state is not None else state

    def _refreshed(self, state: _State, closing: bool) -> _State | None:
        """The same point with its own leverages."""
        return self._adjusted(state.point.coef, state, closing)

    def _adjusted(self, coef: Vector, before: _State, closing: bool) -> _State | None:
        """The adjusted score beside the expected information in one pass, with the leverages of `before`; None where a mean
        is not possible.
        """
        objective, null = self.objective, self.null
        candidate = None if null is None else null.candidate(closing)
        request = Request(coef, 2, "expected", candidate, closing)
        sums: Adjusted = objective.blocks.total(
            adjusted, objective.model, request, before.point.coef, before.found.inverse()
        )
        if null is not None and candidate is not None:
            null.learn(sums.moments)
        gram, added = objective.model.gram(sums.moments.tables), objective.model.gram(sums.tables)
        assert gram is not None
        assert added is not None
        loss = sums.moments.loss
        if objective.on_pass is not None:
            objective.on_pass(2.0 * (loss - (objective.reference or 0.0)))
        if not (np.isfinite(loss) and np.isfinite(gram).all() and np.isfinite(added).all()):
            return None
        model: Any = objective.model
        gradient = model.gradient(sums.moments) + sums.tables.gradient()[model.select]
        point = Point(coef, sums.moments, loss, gradient, gram, "expected")
        found = curvature(objective, point, self.aliased)
        return _State(point, found, factor(gram + added, ~found.kept) if found.basis is None else found)


def _length(before: _State, state: _State) -> float:
    """The square of the adjusted score in the norm of the information at the point before, which may be much larger."""
    return float(state.gradient @ before.found.solve(state.gradient))


def _by_pairs(state: _State, pairs: list[tuple[Vector, Vector]]) -> Vector:
    """The L-BFGS step: the inverse Hessian that steps and turns of the gradient say, from (I + K)^-1 of this point."""
    step, shares = state.gradient, []
    for moved, turn in reversed(pairs):
        share = float(moved @ step) / float(moved @ turn)
        step = step - share * turn
        shares.append(share)
    step = state.steps_by.solve(step)
    for (moved, turn), share in zip(pairs, reversed(shares), strict=True):
        step = step + (share - float(turn @ step) / float(moved @ turn)) * moved
    return np.asarray(step)


def _learnt(way: list[_State]) -> Vector:
    """The step from the last state, less what the steps before say that it leaves out.

    Of steps f at points b the combination g of their differences that comes nearest to the last f, in the norm of the
    information, is taken from it and from b: f - (B + F) g with g = argmin |f - F g|, which ends at the root where f is
    linear and the differences span it.
    """
    steps = np.array([state.direction for state in way])
    if len(way) == 1:
        return np.asarray(steps[0])
    gram = way[-1].point.gram
    assert gram is not None
    turns = np.diff(steps, axis=0).T
    moves = np.diff(np.array([state.point.coef for state in way]), axis=0).T
    weighted = turns.T @ dense(gram)
    share = factor(weighted @ turns).solve(weighted @ steps[-1])
    return np.asarray(steps[-1] - (moves + turns) @ share)


def minimise_bias(objective: Objective, start: Vector, stopping: Stopping, null: Null | None = None) -> Optimum:
    """The root of the adjusted score from a start at which every mean is possible, with the sums and statistics there."""
    search = _Search(objective, null)
    state = search.begin(start)
    closing = over = False
    while True:
        state = search.step(state, closing)
        over = over or search.stuck or len(search.steps) >= stopping.max_iter
        if closing and (state.decrement <= stopping.aim or over):
            break
        closing = over or state.decrement <= stopping.aim
    assert search.aliased is not None
    status = "max_iter"
    if state.decrement <= FLOOR:
        status = "converged" if state.decrement <= stopping.tol else "floor" if search.stuck else status
    reason = "" if status != "max_iter" else (
        f"the root of the adjusted score was not reached in {len(search.steps)} steps (decrement {state.decrement:.3g}, "
        f"tolerance {stopping.tol:.3g}): raise max_iter"
    )  # fmt: skip
    return Optimum(
        state.point, state.found, search.aliased, state.decrement, 1.0, status, reason, tuple(search.steps),
        aim=stopping.aim,
    )  # fmt: skip
