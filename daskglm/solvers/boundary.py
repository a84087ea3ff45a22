"""An optimum that may lie on the boundary of the possible means, sought from inside.

Where a link leaves some linear predictors without a mean, the likelihood can rise all the way to the boundary of those that
have one. Newton's steps end there anywhere: halved until every mean is possible, they run up against the first rows in
their way. The central path does not. It minimises loss + tau times a logarithmic barrier at the boundary, and follows the
minimum as tau falls to 0. The Hessian at one tau, taken for the gradient of a smaller one, leads along the path: a row whose
mean is held by the boundary with the multiplier m keeps the distance tau / m to it, and goes down with tau in one step.

Sources: Fiacco and McCormick (1968), Nonlinear Programming; Boyd and Vandenberghe (2004), sections 11.3 and 11.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from daskglm.model.likelihoods import Information
from daskglm.solvers.objective import Objective
from daskglm.totals.boundary import Guarded, Reach, Slack, guarded, reach, slack
from daskglm.totals.moments import Request

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# tau in units of the dispersion at the end: the loss is within this of the least for every row that is at the boundary.
LEAST = 1e-9
# Near enough to the path to go on along it: half the decrement per unit of tau, of which a self-concordant function leaves
# a step within its domain below 1.
CENTRED = 0.25
# tau falls by this factor at first, and by its square where whole steps succeed.
FALL, FASTEST = 0.1, 1e-2
# The path is entered where its decrement per unit of tau is less than this, or else at a tau of this many dispersions.
CLOSE, ENTRY = 2.0, 1e-3
# Of a step across the boundary, this part of what is inside is gone.
INSIDE = 0.9
# A step this short that gains nothing is rounding.
SHORT = 0.05
# Steps without a barrier are left to themselves within this decrement of the optimum, in units of the dispersion, where so
# many of them would not reach the boundary.
NEAR, FAR_FROM = 0.1, 2.0
MAX_STEPS = 80
MAX_HALVINGS = 40
# Sums of rows carry about this relative rounding error.
NOISE = 1e-12
# Nearer to the boundary than this part of the mean distance, the rounding of eta may go across.
CLOSEST = 1e-12
# A row at rest inside keeps a larger part of the mean distance.
AT_REST = 1e-9
# Eigenvalues of a Hessian scaled to a unit diagonal are known to this.
ROUNDED = 1e-14
# A row is at the boundary where its distance is below this part of the mean distance.
AT_END = 1e-4


@final
@dataclass(frozen=True)
class Inside:
    """Where the path ended, or was left because Newton's steps lead on: coef (p,), its last step (p,), and how many rows are
    at the lower and the upper end of eta; ended: whether it ended, and arrived: at a minimum, as far as digits tell.
    """

    coef: Vector
    step: Vector
    at_ends: tuple[int, int]
    ended: bool
    arrived: bool


@final
@dataclass(frozen=True)
class _Place:
    """Loss and barrier at coef (p,), each with its gradient (of minus it) and Gram."""

    coef: Vector
    loss: float
    barrier: float
    gradients: tuple[Vector, Vector]
    grams: tuple[Matrix, Matrix]
    sums: Guarded

    def value(self, tau: float) -> float:
        """What the path minimises."""
        return self.loss + tau * self.barrier

    def gradient(self, tau: float) -> Vector:
        """Of minus that."""
        return self.gradients[0] + tau * self.gradients[1]

    def gram(self, tau: float) -> Matrix:
        """Its Hessian."""
        return self.grams[0] + tau * self.grams[1]


def along_path(objective: Objective, coef: Vector, aliased: Mask, phi: float, to_the_end: bool) -> Inside:
    """From coefficients at which every mean is possible to the end of the central path, or, unless it is gone to_the_end, to
    where the optimum is seen to be inside. phi: the dispersion, in units of which loss counts. Some twenty passes with two
    Grams each.
    """
    with np.errstate(all="ignore"):
        return _along_path(objective, coef, aliased, phi, to_the_end)


def _along_path(objective: Objective, coef: Vector, aliased: Mask, phi: float, to_the_end: bool) -> Inside:
    here = _evaluate(objective, coef, "observed", 0.0)
    step = np.zeros_like(coef)
    tau, fall, arrived = _entry(here, aliased, phi), FALL, False
    for _ in range(MAX_STEPS):
        solve, bends_down = _factored(here.gram(tau), aliased)
        gradient = here.gradient(tau)
        centred = bends_down and float(gradient @ solve(gradient)) <= 2.0 * CENTRED * tau
        if centred and (tau <= LEAST * phi or _closest(here.sums.slack) <= CLOSEST):
            arrived = True
            break
        if centred and not to_the_end and _leads_on(objective, here, aliased, phi):
            return _inside(here, step, False, True)
        target = max(tau * fall, LEAST * phi) if centred else tau
        step = solve(here.gradient(target))
        if not np.isfinite(step).all():
            break
        there, size = _search(objective, here, step, target)
        if there is None or _is_rounding(here, there, target, size):
            arrived = centred
            break
        # a part of the step has gone that part of the way to the target
        here, tau = there, tau + size * (target - tau)
        if centred:
            fall = max(fall * fall, FASTEST) if size == 1.0 else FALL
    return _inside(here, step, True, arrived)


def _inside(here: _Place, step: Vector, ended: bool, arrived: bool) -> Inside:
    ends = int(here.sums.at_ends[0]), int(here.sums.at_ends[1])
    return Inside(here.coef, step, ends, ended, arrived)


def _leads_on(objective: Objective, here: _Place, aliased: Mask, phi: float) -> bool:
    """Whether the optimum without a barrier is near, and its step does not come near the boundary."""
    solve, bends_down = _factored(here.grams[0], aliased)
    if not bends_down:
        return False
    step = solve(here.gradients[0])
    if not np.isfinite(step).all() or not 0.0 <= float(step @ here.gradients[0]) <= NEAR * phi:
        return False
    return _reach(objective, here.coef, step) >= FAR_FROM


def _is_rounding(here: _Place, there: _Place, tau: float, size: float) -> bool:
    """Whether a step had to be shortened until nothing was left of it."""
    return size < SHORT and here.value(tau) - there.value(tau) <= 10.0 * _noise(here, tau)


def _noise(here: _Place, tau: float) -> float:
    return NOISE * (abs(here.loss) + abs(tau * here.barrier) + 1.0)


def _closest(found: Slack) -> float:
    """The least distance from the boundary in units of the mean distance."""
    return found.least * found.n / found.total if found.total > 0.0 else np.inf


def is_at_boundary(objective: Objective, coef: Vector) -> bool:
    """Whether some row is so near to the boundary that it is there. One that is held there by its loss has all the weight
    that a mean can have, beside which its score is nothing: the decrement does not tell it from one at rest.
    """
    return _closest(objective.blocks.total(slack, objective.model, coef)) <= AT_REST


def _reach(objective: Objective, coef: Vector, step: Vector) -> float:
    found: Reach = objective.blocks.total(reach, objective.model, coef, step)
    return found.times


def _entry(here: _Place, aliased: Mask, phi: float) -> float:
    """tau at which the path is nearest, if it is near at all, as it is from the boundary of a model close by; else ENTRY."""
    best, entry = CLOSE, ENTRY * phi
    for tau in phi * np.logspace(np.log10(LEAST), 0.0, 19):
        solve, bends_down = _factored(here.gram(tau), aliased)
        left = here.gradient(tau)
        off = float(left @ solve(left)) / tau if bends_down else np.inf
        if off < best:
            best, entry = off, float(tau)
    return entry


def _search(objective: Objective, here: _Place, step: Vector, tau: float) -> tuple[_Place | None, float]:
    """The step, shortened until every mean is possible and the value at tau does not rise; and the part of it that was."""
    size = 1.0
    noise = _noise(here, tau)
    for _ in range(MAX_HALVINGS):
        there = _evaluate(objective, here.coef + size * step, "observed", _near(here))
        if np.isfinite(there.loss) and there.value(tau) <= here.value(tau) + noise:
            return there, size
        if size < 1.0 or np.isfinite(there.loss):
            size *= 0.5
            continue
        size = min(0.5, INSIDE * _reach(objective, here.coef, step))
    return None, 0.0


def _near(here: _Place) -> float:
    return AT_END * here.sums.slack.total / max(here.sums.slack.n, 1)


def _evaluate(objective: Objective, coef: Vector, information: Information, near: float) -> _Place:
    """Loss and barrier in one pass."""
    sums: Guarded = objective.blocks.total(guarded, objective.model, Request(coef, 2, information), near)
    model: Any = objective.model
    gram, bars = model.gram(sums.moments.tables), model.gram(sums.tables)
    assert gram is not None
    assert bars is not None
    finite = np.isfinite(gram).all() and np.isfinite(bars).all() and np.isfinite(sums.value)
    loss = sums.moments.loss if finite else np.inf
    if objective.on_pass is not None:
        objective.on_pass(2.0 * (loss - (objective.reference or 0.0)))
    gradients = model.gradient(sums.moments), sums.tables.gradient()[model.select]
    return _Place(coef, loss, sums.value, gradients, (gram, bars), sums)


def _factored(gram: Matrix, aliased: Mask) -> tuple[Any, bool]:
    """Solves with a Hessian, and whether it is positive definite. Rows near the boundary outweigh the others by
    as many powers of ten as there are, which a Cholesky factor that sets no column aside bears well (Wright 1998).
    Where it is not, each of its eigenvalues counts by its size: a step goes down along directions in which the loss bends
    away, too, and leaves a saddle behind (Dauphin et al. 2014).
    """
    index = np.flatnonzero(~aliased)
    inner = gram[np.ix_(index, index)]
    diagonal = np.diag(inner)
    scale = 1.0 / np.sqrt(np.maximum(np.abs(diagonal), np.finfo(float).tiny))
    scaled = inner * scale[:, None] * scale
    if (diagonal > 0.0).all():
        try:
            lower = cho_factor(scaled, lower=True)
            return (lambda right: _spread(index, right, scale * cho_solve(lower, scale * right[index]))), True
        except LinAlgError:
            pass
    values, vectors = np.linalg.eigh(scaled)
    largest = float(np.abs(values).max(initial=0.0))
    inverse = (vectors / np.maximum(np.abs(values), ROUNDED * largest)) @ vectors.T
    # what is below 0 by no more is rounding: as short a step there as the digits allow
    definite = bool(values.size and largest > 0.0 and values[0] >= -ROUNDED * largest)
    return (lambda right: _spread(index, right, scale * (inverse @ (scale * right[index])))), definite


def _spread(index: npt.NDArray[np.intp], like: Vector, values: Vector) -> Vector:
    result = np.zeros_like(like)
    result[index] = values
    return result
