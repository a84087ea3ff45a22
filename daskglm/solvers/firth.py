"""Mean bias reduction: the root of an adjusted score, which is finite where the maximum of the likelihood is not.

The score U loses its part of first order in the bias by A = X' (h mu'' / (2 mu')), with h the leverages (Firth 1993,
Biometrika 80, 27-38; Kosmidis and Firth 2009, Biometrika 96, 793-804). The root of U + A is found by quasi-Newton steps
C (U + A) with C the inverse of the expected information. Leverages take C from the step before, so that a step is one
pass: both are the same at the root, and off it differ by less than the next step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import SolverError
from daskglm.solvers.driver import FLOOR, Optimum, Step, Stopping, without_aliased
from daskglm.solvers.newton import curvature
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Curvature, Objective, Point
from daskglm.totals.bias import Adjusted, adjusted
from daskglm.totals.moments import Request

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# A step that makes the adjusted score this much longer, in the norm of the information, went too far.
TOO_LONG = 2.0
MAX_HALVINGS = 10
# Decrements that end no lower than they began are rounding.
LAST = 3


@final
@dataclass(frozen=True)
class _State:
    """A point whose gradient is the adjusted score, its factored expected information, and the decrement of the two."""

    point: Point
    found: Curvature
    inverse: Matrix
    decrement: float

    @property
    def direction(self) -> Vector:
        return self.found.solve(self.point.gradient)


def minimise_bias(objective: Objective, start: Vector, stopping: Stopping, null: Null | None = None) -> Optimum:
    """The root of the adjusted score from a start at which every mean is possible.

    The decrement is (U + A)' C (U + A): the squared distance to the root in standard errors. Its convergence is linear.
    """
    first = objective.evaluate(start, 2, "expected", means=null is not None and null.waiting)
    if null is not None:
        null.start(first.sums)
    if not np.isfinite(first.loss):
        raise SolverError("the start gives means that the family does not allow: give start=")
    found = curvature(objective, first, None)
    aliased = found.aliased
    before = _state(without_aliased(first, found), found)
    decrements: list[float] = []
    steps: list[Step] = []
    closing = False
    while True:
        state, halvings = _step(objective, before, aliased, null, closing)
        steps.append(Step(before.point.loss, before.decrement, halvings, True))
        decrements.append(state.decrement)
        recent = decrements[-LAST:]
        stuck = len(recent) == LAST and max(recent) <= FLOOR and recent[-1] >= recent[0]
        over = stuck or len(steps) >= stopping.max_iter or not np.isfinite(state.decrement)
        if closing and (state.decrement <= stopping.aim or over):
            break
        closing = over or state.decrement <= stopping.aim
        before = state
    converged = state.decrement <= stopping.tol
    status = ("floor" if stuck else "converged") if converged else "max_iter"
    reason = "" if converged else (
        f"the root of the adjusted score was not reached in {len(steps)} steps (decrement {state.decrement:.3g}, "
        f"tolerance {stopping.tol:.3g}): raise max_iter"
    )  # fmt: skip
    return Optimum(state.point, state.found, aliased, state.decrement, 1.0, status, reason, tuple(steps))


def _state(point: Point, found: Curvature) -> _State:
    return _State(point, found, found.inverse(), float(point.gradient @ found.solve(point.gradient)))


def _step(
    objective: Objective, before: _State, aliased: npt.NDArray[np.bool_], null: Null | None, closing: bool
) -> tuple[_State, int]:
    """A full step, halved where it goes to a mean that is not possible or away from the root."""
    size = 1.0
    for halvings in range(MAX_HALVINGS + 1):
        coef = before.point.coef + size * before.direction
        point = _evaluate(objective, coef, before.inverse, null, closing)
        if np.isfinite(point.loss):
            state = _state(point, curvature(objective, point, aliased))
            if state.decrement <= TOO_LONG * before.decrement or state.decrement <= FLOOR:
                return state, halvings
        size *= 0.5
    if not np.isfinite(point.loss):
        raise SolverError("no step leads to a possible mean: give start=, or another link")
    return state, MAX_HALVINGS


def _evaluate(objective: Objective, coef: Vector, inverse: Matrix, null: Null | None, closing: bool) -> Point:
    """Moments and the adjusted score in one pass."""
    candidate = None if null is None else null.candidate(closing)
    request = Request(coef, 2, "expected", candidate, closing)
    objective.passes += 1
    sums: Adjusted = objective.blocks.total(adjusted, objective.model, request, inverse)
    if null is not None and candidate is not None:
        null.learn(sums.moments)
    model: Any = objective.model
    gram = model.gram(sums.moments.tables)
    loss = sums.moments.loss if gram is not None and np.isfinite(gram).all() else np.inf
    if objective.on_pass is not None:
        objective.on_pass(2.0 * (loss - (objective.reference or 0.0)))
    gradient = model.gradient(sums.moments) + sums.raw[model.select]
    return Point(coef, sums.moments, loss, gradient, gram, "expected")
