"""Mean bias reduction: the root of an adjusted score, which is finite where the maximum of the likelihood is not.

The score U loses its part of first order in the bias by A = X' (h mu'' / (2 mu')), with h the leverages (Firth 1993,
Biometrika 80, 27-38; Kosmidis and Firth 2009, Biometrika 96, 793-804). The root of U + A is found by quasi-Newton steps
(I + K)^-1 (U + A), with I the expected information and K what A adds to it while the leverages stand still, where that is
positive. Leverages are those of the point before, so that a step is one pass: they move little, and at the root they are
the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import SolverError
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
MAX_HALVINGS = 10
# So many decrements that end no lower than they began are rounding.
LAST = 3


@final
@dataclass(frozen=True)
class _State:
    """A point whose gradient is the adjusted score, its expected information and that of the step, both factored."""

    point: Point
    found: Curvature
    steps_by: Curvature | Factor

    @property
    def decrement(self) -> float:
        """(U + A)' I^-1 (U + A): the squared distance to the root in standard errors."""
        return float(self.point.gradient @ self.found.solve(self.point.gradient))

    @property
    def direction(self) -> Vector:
        """The quasi-Newton step."""
        return self.steps_by.solve(self.point.gradient)


def minimise_bias(objective: Objective, start: Vector, stopping: Stopping, null: Null | None = None) -> Optimum:
    """The root of the adjusted score from a start at which every mean is possible. Convergence is linear, at the rate at
    which leverages move with the coefficients.
    """
    first = objective.evaluate(start, 2, "expected", means=null is not None and null.waiting)
    if null is not None:
        null.start(first.sums)
    if not np.isfinite(first.loss):
        raise SolverError("the start gives means that the family does not allow: give start=")
    found = curvature(objective, first, None)
    aliased = found.aliased
    state = _State(without_aliased(first, found), found, found)
    decrements: list[float] = []
    steps: list[Step] = []
    closing = over = stuck = False
    while True:
        before = state
        state, halvings = _step(objective, before, aliased, null, closing)
        steps.append(Step(before.point.loss, before.decrement, halvings, True))
        decrements.append(state.decrement)
        recent = decrements[-LAST:]
        stuck = len(recent) == LAST and max(recent) <= FLOOR and recent[-1] >= recent[0]
        over = over or stuck or len(steps) >= stopping.max_iter or not np.isfinite(state.decrement)
        if closing and (state.decrement <= stopping.aim or over):
            break
        closing = over or state.decrement <= stopping.aim
    converged = state.decrement <= stopping.tol or (stuck and state.decrement <= FLOOR)
    status = "converged" if state.decrement <= stopping.tol else "floor" if converged else "max_iter"
    reason = "" if converged else (
        f"the root of the adjusted score was not reached in {len(steps)} steps (decrement {state.decrement:.3g}, "
        f"tolerance {stopping.tol:.3g}): raise max_iter"
    )  # fmt: skip
    return Optimum(state.point, state.found, aliased, state.decrement, 1.0, status, reason, tuple(steps))


def _step(objective: Objective, before: _State, aliased: Mask, null: Null | None, closing: bool) -> tuple[_State, int]:
    """A full step, halved where it goes to a mean that is not possible, or away from the root."""
    size, direction = 1.0, before.direction
    inverse = before.found.inverse()
    for halvings in range(MAX_HALVINGS + 1):
        point, added = _evaluate(objective, before.point.coef, inverse, size * direction, null, closing)
        if np.isfinite(point.loss):
            assert point.gram is not None
            found = curvature(objective, point, aliased)
            steps_by = factor(point.gram + added, ~found.kept) if found.basis is None else found
            state = _State(point, found, steps_by)
            if halvings == MAX_HALVINGS or state.decrement <= max(TOO_LONG * before.decrement, FLOOR):
                return state, halvings
        size *= 0.5
    raise SolverError("no step leads to a possible mean: give start=, or another link")


def _evaluate(
    objective: Objective, before: Vector, inverse: Matrix, step: Vector, null: Null | None, closing: bool
) -> tuple[Point, Matrix]:
    """The adjusted score beside the expected information, and what the adjustment adds to that, in one pass."""
    candidate = None if null is None else null.candidate(closing)
    request = Request(before + step, 2, "expected", candidate, closing)
    objective.passes += 1
    sums: Adjusted = objective.blocks.total(adjusted, objective.model, request, before, inverse)
    if null is not None and candidate is not None:
        null.learn(sums.moments)
    model: Any = objective.model
    gram, added = model.gram(sums.moments.tables), model.gram(sums.tables)
    assert added is not None
    finite = gram is not None and np.isfinite(gram).all() and np.isfinite(added).all()
    loss = sums.moments.loss if finite else np.inf
    if objective.on_pass is not None:
        objective.on_pass(2.0 * (loss - (objective.reference or 0.0)))
    gradient = model.gradient(sums.moments) + sums.tables.gradient()[model.select]
    return Point(before + step, sums.moments, loss, gradient, gram, "expected"), added
