"""Maximum likelihood of the parameters beside the coefficients, by Newton steps of which several lengths share a pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.model.shapes import THETA_LIMIT, Shape, Theta
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
# log theta from which the way back from infinity is tried.
BACK = tuple(np.array([value]) for value in np.log([1.0, 10.0, 1e2, 1e3, 1e4, 1e5]))


@final
@dataclass(frozen=True)
class Estimate:
    """psi (s,) with the log-likelihood there, its gradient (s,) and Hessian (s, s); passes it took."""

    psi: Vector
    value: float
    gradient: Vector
    hessian: Matrix
    passes: int = 0
    # what the information loses because the coefficients are estimated, too (s, s)
    lost: Matrix | None = None

    @property
    def decrement(self) -> float:
        """Squared distance to the maximum in standard errors."""
        return float(self.gradient @ step(self.gradient, self.hessian))

    def covariance(self) -> Matrix:
        """Inverse of the observed information in psi; NaN where it is not positive definite."""
        information = -self.hessian if self.lost is None else -self.hessian - self.lost
        values = np.linalg.eigvalsh(information)
        if not np.isfinite(values).all() or values.min() <= 0:
            return np.full(information.shape, np.nan)
        return np.asarray(np.linalg.inv(information), np.float64)


def step(gradient: Vector, hessian: Matrix) -> Vector:
    """The Newton step uphill; along directions that bend upwards, the same length as if they bent down."""
    if not (np.isfinite(gradient).all() and np.isfinite(hessian).all()):
        return np.zeros_like(gradient)
    values, vectors = np.linalg.eigh(-hessian)
    size = np.maximum(np.abs(values), 1e-12 * max(float(np.abs(values).max(initial=0.0)), 1e-300))
    result = vectors @ ((vectors.T @ gradient) / size)
    return np.asarray(result * min(1.0, LONGEST / max(float(np.abs(result).max(initial=0.0)), LONGEST)))


def of_sums(psi: Vector, sums: ShapeSums, at: int = 0, passes: int = 0) -> Estimate:
    """One candidate of a total."""
    return Estimate(psi, float(sums.value[at]), sums.gradient[at], sums.hessian[at], passes)


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
    # a limit that a sample, or other coefficients, ran to is left again where something nearer is likelier
    beginnings = np.vstack([psi, *(BACK if at_limit(shape, psi) else ())])
    sums: ShapeSums = blocks.total(shape_sums, model, coef, shape, beginnings)
    best = int(np.argmax(sums.value))
    here = of_sums(beginnings[best], sums, best)
    if enough < here.decrement <= unseen and not at_limit(shape, here.psi):
        return replace(here, psi=here.psi + step(here.gradient, here.hessian), passes=1)
    shrink = 1.0
    for _ in range(MAX_STEPS):
        ahead = step(here.gradient, here.hessian)
        if not np.isfinite(here.value) or here.decrement <= enough or at_limit(shape, here.psi):
            break
        lengths = here.psi + shrink * np.array(LENGTHS)[:, None] * ahead
        candidates = np.vstack([lengths, *shape.guesses(here.psi, here.gradient, here.hessian)])
        sums = blocks.total(shape_sums, model, coef, shape, candidates)
        passes += 1
        if here.decrement <= NEAR:
            # a rise too small to be seen: the Newton step is right where its gradient is smaller
            there = of_sums(candidates[0], sums)
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
        here = of_sums(candidates[best], sums, best)
    return Estimate(here.psi, here.value, here.gradient, here.hessian, passes)


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


def at_limit(shape: Shape, psi: Vector) -> bool:
    """Whether theta has run away to infinity, where the negative binomial is Poisson."""
    return isinstance(shape, Theta) and float(psi[0]) >= np.log(THETA_LIMIT)
