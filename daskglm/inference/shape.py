"""Maximum likelihood of the parameters beside the coefficients, by Newton steps of which several lengths share a pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.model.shapes import Shape
from daskglm.partitions import Partitions
from daskglm.solvers.driver import Optimum
from daskglm.solvers.newton import curvature
from daskglm.solvers.objective import Objective
from daskglm.totals.moments import AnyModel
from daskglm.totals.shape import MixedSums, ShapeSums, mixed_sums, shape_sums

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Lengths of a step that are tried side by side.
LENGTHS = (1.0, 0.4, 0.1)
# The longest step on the scale of psi, a logarithm.
LONGEST = 2.0
MAX_STEPS = 60
# Decrements from which on Newton steps are taken at their word.
NEAR = 1e-5


@final
@dataclass(frozen=True)
class Estimate:
    """psi (s,) with the log-likelihood there, its gradient (s,) and Hessian (s, s); which of psi are held at the end of their
    range (s,); passes it took.
    """

    psi: Vector
    value: float
    gradient: Vector
    hessian: Matrix
    held: npt.NDArray[np.bool_]
    passes: int = 0
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
) -> Estimate:
    """The maximum over psi at fixed coefficients, from psi, until the decrement is below `enough`; where it begins below
    `unseen`, one Newton step that is not looked at, for who looks again after the coefficients have followed.
    """
    passes = 1
    beginnings = np.vstack([psi, *shape.ways_back(psi)])
    sums: ShapeSums = blocks.total(shape_sums, model, coef, shape, beginnings)
    best = int(np.argmax(sums.value))
    here = of_sums(shape, beginnings[best], sums, best)
    if enough < here.decrement <= unseen and not here.held.any():
        return replace(here, psi=shape.within(here.psi + here.step()), passes=1)
    shrink = 1.0
    for _ in range(MAX_STEPS):
        if not np.isfinite(here.value) or here.decrement <= enough or here.held.all():
            break
        lengths = here.psi + shrink * np.array(LENGTHS)[:, None] * here.step()
        candidates = shape.within(np.vstack([lengths, *shape.guesses(here.psi, here.gradient, here.hessian)]))
        sums = blocks.total(shape_sums, model, coef, shape, candidates)
        passes += 1
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
    return replace(here, passes=passes)


def with_coefficients(found: Estimate, objective: Objective, optimum: Optimum, shape: Shape) -> Estimate:
    """The estimate whose information is that of both sets together: I_psi - C' I_b^-1 C with the observed I_b (two passes)."""
    phi, coef = shape.phi(found.psi), optimum.point.coef
    point = objective.evaluate(coef, 2, "observed")
    model: Any = objective.model
    mixed: MixedSums = objective.blocks.total(mixed_sums, model, coef, shape, found.psi)
    objective.passes += 1
    cross = mixed.values[:, model.select].T
    inner = curvature(objective, point, optimum.aliased)
    lost = cross.T @ np.stack([inner.solve(column) for column in cross.T], axis=1) / phi
    return replace(found, lost=lost)
