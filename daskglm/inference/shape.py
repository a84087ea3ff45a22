"""Maximum likelihood of the parameters beside the coefficients, by Newton steps of which several lengths share a pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.bordered import factor_any
from daskglm.model.shapes import Shape
from daskglm.partitions import Partitions
from daskglm.solvers.driver import Optimum
from daskglm.solvers.newton import curvature
from daskglm.solvers.objective import Curvature, Objective
from daskglm.totals.moments import AnyModel
from daskglm.totals.shape import JointSums, MixedSums, ShapeSums, joint_sums, mixed_sums, shape_sums

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Lengths of a step that are tried side by side.
LENGTHS = (1.0, 0.4, 0.1)
# The longest step on the scale of psi, a logarithm.
LONGEST = 2.0
MAX_STEPS = 60
# Newton steps in the coefficients and the parameters beside them together, from where a sample has its optimum.
JOINT_STEPS = 6
# Where so much of the decrement is left, the steps have not met the quadratic part, or an optimum is infinite.
SLOW = 0.1
# Decrements from which on Newton steps are taken at their word.
NEAR = 1e-5


@final
@dataclass(frozen=True)
class Estimate:
    """psi (s,) with the log-likelihood there, its gradient (s,) and Hessian (s, s); which of psi are held at the end of their
    range (s,).
    """

    psi: Vector
    value: float
    gradient: Vector
    hessian: Matrix
    held: npt.NDArray[np.bool_]
    # what the information loses because the coefficients are estimated, too (s, s)
    lost: Matrix | None = None

    @property
    def decrement(self) -> float:
        """Squared distance to the maximum in standard errors."""
        return float(self.gradient @ self.step())

    def step(self) -> Vector:
        """The Newton step of those that are not held."""
        free = np.flatnonzero(~self.held)
        result = np.zeros_like(self.gradient)
        result[free] = step(self.gradient[free], self.hessian[np.ix_(free, free)])
        return result

    def covariance(self) -> Matrix:
        """Inverse of the observed information in psi; NaN where it is not positive definite, and for those that are held."""
        information = -self.hessian if self.lost is None else -self.hessian - self.lost
        free = np.flatnonzero(~self.held)
        inner = information[np.ix_(free, free)]
        result = np.full(information.shape, np.nan)
        if np.isfinite(inner).all() and np.linalg.eigvalsh(inner).min(initial=np.inf) > 0:
            result[np.ix_(free, free)] = np.linalg.inv(inner)
        return result


def step(gradient: Vector, hessian: Matrix) -> Vector:
    """The Newton step uphill; along directions that bend upwards, the same length as if they bent down."""
    if not (np.isfinite(gradient).all() and np.isfinite(hessian).all()):
        return np.zeros_like(gradient)
    if not gradient.size:
        return gradient
    values, vectors = np.linalg.eigh(-hessian)
    size = np.maximum(np.abs(values), 1e-12 * max(float(np.abs(values).max(initial=0.0)), 1e-300))
    result = vectors @ ((vectors.T @ gradient) / size)
    return np.asarray(result * min(1.0, LONGEST / max(float(np.abs(result).max(initial=0.0)), LONGEST)))


def of_sums(shape: Shape, psi: Vector, sums: ShapeSums, at: int = 0) -> Estimate:
    """One candidate of a total."""
    gradient = sums.gradient[at]
    return Estimate(psi, float(sums.value[at]), gradient, sums.hessian[at], shape.held(psi, gradient))


def estimate(
    blocks: Partitions[Any],
    model: AnyModel,
    coef: Vector,
    shape: Shape,
    psi: Vector,
    enough: float,
    unseen: float = 0.0,
    fraction: float = 1.0,
) -> Estimate:
    """The maximum over psi at fixed coefficients, from psi, until the decrement is below `enough`; where it begins below
    `unseen`, one Newton step that is not looked at, for who looks again after the coefficients have followed. fraction: of
    each block's rows.
    """
    beginnings = np.vstack([psi, *shape.ways_back(psi)])
    sums: ShapeSums = blocks.total(shape_sums, model, coef, shape, beginnings, fraction)
    best = int(np.argmax(sums.value))
    here = of_sums(shape, beginnings[best], sums, best)
    if enough < here.decrement <= unseen and not here.held.any():
        return replace(here, psi=shape.within(here.psi + here.step()))
    shrink = 1.0
    for _ in range(MAX_STEPS):
        if not np.isfinite(here.value) or here.decrement <= enough or here.held.all():
            break
        lengths = here.psi + shrink * np.array(LENGTHS)[:, None] * here.step()
        candidates = shape.within(np.vstack([lengths, *shape.guesses(here.psi, here.gradient, here.hessian)]))
        sums = blocks.total(shape_sums, model, coef, shape, candidates, fraction)
        if here.decrement <= NEAR:
            # a rise too small to be seen: the Newton step is right where its gradient is smaller
            there = of_sums(shape, candidates[0], sums)
            if not there.decrement < here.decrement:
                break
            here = there
            continue
        best = int(np.argmax(np.where(np.isfinite(sums.value), sums.value, -np.inf)))
        if not sums.value[best] > here.value:
            if shrink < 1e-3:
                break
            shrink *= 0.1
            continue
        shrink = 1.0
        here = of_sums(shape, candidates[best], sums, best)
    return here


@final
@dataclass(frozen=True)
class Approach:
    """Where Newton steps in both sets of parameters together have led: coef (p,), psi (s,), the factored Gram of the last
    pass, the joint decrement that the last step leaves, as far as it can be foreseen; and what psi was found to be at the
    first pass, with the coefficients as they were.
    """

    coef: Vector
    psi: Vector
    curvature: Curvature | None
    decrement: float
    begun: Estimate | None = None


def approach(
    objective: Objective,
    coef: Vector,
    psi: Vector,
    shape: Shape,
    enough: float,
    aliased: npt.NDArray[np.bool_] | None = None,
) -> Approach:
    """Newton steps in (coefficients, psi) from a place near the optimum, one pass each, for as long as each does what it
    promises. With G the observed information of the coefficients at phi = 1, C the mixed derivatives, g and u the scores:

    (-H - C' G^-1 C / phi) dpsi = u + C' G^-1 g / phi;  db = G^-1 (g + C dpsi).

    enough: a decrement, of psi alone at the first pass or of both later on, at which there is nothing left to do.
    """
    with np.errstate(all="ignore"):
        return _approach(objective, coef, psi, shape, enough, aliased)


def _approach(
    objective: Objective,
    coef: Vector,
    psi: Vector,
    shape: Shape,
    enough: float,
    aliased: npt.NDArray[np.bool_] | None,
) -> Approach:
    result = Approach(coef, psi, None, np.inf)
    highest, decrement = -np.inf, np.inf
    for _ in range(JOINT_STEPS):
        model: Any = objective.model
        model = replace(model, likelihood=replace(model.likelihood, family=shape.family(psi)))
        sums: JointSums = objective.blocks.total(joint_sums, model, coef, shape, psi, objective.fraction)
        here, point = of_sums(shape, psi, sums.shape), objective.point(coef, sums.moments, "observed")
        phi, gram = shape.phi(psi), point.gram
        value = here.value - (point.loss - sums.moments.loss) / phi
        if gram is None or not np.isfinite(point.loss) or not value > highest or here.held.any():
            return result if result.begun is not None else replace(result, begun=here)
        found = factor_any(gram) if aliased is None else factor_any(gram, aliased)
        cross = sums.mixed.values[:, model.select].T
        solved = np.stack([found.solve(column) for column in cross.T], axis=1)
        towards = found.solve(point.gradient)
        lost = cross.T @ solved / phi
        information = -here.hessian - lost
        if result.begun is None:
            result = replace(result, begun=replace(here, lost=lost if shape.joint else None))
            if here.decrement <= enough:
                return result
        if not (found.definite and np.isfinite(information).all() and np.linalg.eigvalsh(information).min() > 0.0):
            return result
        uphill = here.gradient + cross.T @ towards / phi
        change = np.linalg.solve(information, uphill)
        highest, last = value, decrement
        decrement = float(point.gradient @ towards) / phi + float(uphill @ change)
        if decrement > SLOW * last or float(np.abs(change).max()) > LONGEST:
            return result
        # quadratic convergence, once there are two to tell it from
        left = decrement**3 / last**2 if np.isfinite(last) else np.inf
        coef, psi = coef + towards + solved @ change, shape.within(psi + change)
        result = replace(
            result, coef=coef, psi=psi, curvature=Curvature(found, None, gram, ~found.kept), decrement=left
        )
        if left <= enough:
            return result
    return result


def with_coefficients(found: Estimate, objective: Objective, optimum: Optimum, shape: Shape) -> Estimate:
    """The estimate whose information is that of both sets together: I_psi - C' I_b^-1 C with the observed I_b (two passes)."""
    phi, coef = shape.phi(found.psi), optimum.point.coef
    point = objective.evaluate(coef, 2, "observed")
    model: Any = objective.model
    mixed: MixedSums = objective.blocks.total(mixed_sums, model, coef, shape, found.psi)
    cross = mixed.values[:, model.select].T
    inner = curvature(objective, point, optimum.aliased)
    lost = cross.T @ np.stack([inner.solve(column) for column in cross.T], axis=1) / phi
    return replace(found, lost=lost)
