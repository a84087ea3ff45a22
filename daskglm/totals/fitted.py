"""What each row has at the reported coefficients: mean, residual and weight, or the probabilities of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block, Column
from daskglm.kernels.products import Pieces, Workspace, gather
from daskglm.totals.moments import Model, sizes
from daskglm.totals.separation import movement
from daskglm.totals.vector import ParallelModel, Rows, SeparateModel, choices

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Fitted:
    """Rows of a response that is a number, each array (n,).

    y: T(y), the response on the scale of its mean; mu, rest = 1 - mu, slope = dmu/deta; variance V(mu); residual y - mu
    without cancellation; size: what the density of one copy is weighted by; copies: rows that it stands for.
    """

    y: Vector
    mu: Vector
    rest: Vector
    slope: Vector
    variance: Vector
    residual: Vector
    size: Vector
    copies: Vector
    deviance: Vector

    @property
    def pearson(self) -> Vector:
        """sqrt(size / V) (y - mu), 0 where y is mu whatever V."""
        return np.where(self.residual == 0.0, 0.0, np.sqrt(self.size / self.variance) * self.residual)

    @property
    def weight(self) -> Vector:
        """The expected information of one copy in its linear predictor, size mu'^2 / V."""
        return np.where(self.slope == 0.0, 0.0, self.size * self.slope * (self.slope / self.variance))

    @property
    def signed_deviance(self) -> Vector:
        """sign(y - mu) sqrt(size d(y, mu))."""
        return np.copysign(np.sqrt(self.deviance), self.residual)


def linear_predictor(
    block: Block, model: Model, coef: Vector, directions: tuple[Vector, ...], offset: Column | None
) -> Vector:
    """X b + offset (n,) at coef (p,) of the scaled columns, with the offset that is given (None: 0) instead of the block's.

    directions: as in `fitted`. Without an offset, rows of equal columns are equal to the bit.
    """
    pieces = Pieces.of(block, model.scaling)
    eta = np.zeros(block.n) if offset is None else np.array(offset, np.float64)
    gather(pieces, Workspace(pieces), model.raw(coef), 0, block.n, eta)
    for direction in directions[::-1]:
        moved = movement(block, model.scaling, direction)
        eta[moved != 0.0] = np.sign(moved[moved != 0.0]) * np.inf
    return eta


def fitted(block: Block, model: Model, coef: Vector, directions: tuple[Vector, ...] = ()) -> Fitted:
    """Rows at coef (p,) of the scaled columns; directions: of an infinite optimum, of the raw columns, the first that moves a
    row takes its linear predictor to infinity.
    """
    family, link = model.likelihood.family, model.likelihood.link
    eta = linear_predictor(block, model, coef, directions, block.offset)
    copies, size = (
        np.broadcast_to(np.asarray(part, np.float64), (block.n,))
        for part in sizes(block, model.frequency or model.sampling, 0, block.n)
    )
    with np.errstate(all="ignore"):
        response = block.y.astype(np.float64)
        mu, slope, rest = link.inverse(eta, family.bounded)
        y = np.asarray(family.sufficient_statistic(response))
        variance, residual = family.variance(mu, rest), np.asarray(family.residual(response, mu, rest))
        there = y == mu
        residual = np.where(there, 0.0, residual)
        deviance = np.where(there, 0.0, size * np.maximum(family.unit_deviance(response, mu, rest), 0.0))
    return Fitted(y, mu, rest, slope, variance, residual, size, copies, deviance)


@final
@dataclass(frozen=True)
class FittedClasses:
    """Rows of a response of K classes with q = K - 1 predictors.

    codes (n,); chance (K, n): probabilities; loss (n,) = -log of the one that was seen; score (q, n) and information
    (q, q, n) of one copy in its predictors, thresholds counted up where they are ordered; size, copies (n,): as in `Fitted`.
    """

    codes: npt.NDArray[np.integer]
    chance: Matrix
    loss: Vector
    score: Matrix
    information: Matrix
    size: Vector
    copies: Vector


def fitted_classes(
    block: Block, model: SeparateModel | ParallelModel, coef: Vector, sampling: bool = False
) -> FittedClasses:
    """Rows at coef (r,) of the model's own coefficients, with the classes that its limits leave; sampling: whether weights
    say for how many others a row stands.
    """
    likelihood, q = model.likelihood, model.likelihood.q
    pieces = Pieces.of(block, model.scaling)
    space = Workspace(pieces)
    raws: Any = np.atleast_2d(model.raw(coef))
    eta = np.zeros((len(raws), block.n))
    for one, raw in zip(eta, raws, strict=True):
        if block.offset is not None:
            one += block.offset
        gather(pieces, space, np.ascontiguousarray(raw), 0, block.n, one)
    possible = choices(Rows(pieces, space, model.scaling, 0, block.n), model, model.limits)
    weight = np.ones(block.n) if block.weight is None else block.weight.astype(np.float64)
    ones = np.ones(block.n)
    information = np.zeros((q, q, block.n))
    with np.errstate(all="ignore"):
        if isinstance(model, ParallelModel):
            thresholds = coef[:q]
            order: Any = model.likelihood.rows(block.y, eta[0], thresholds, 2, likelihood.reported, possible)
            chance, loss, score = (
                model.likelihood.probabilities(eta[0], thresholds, possible),
                order.loss,
                order.threshold_score,
            )
            for a in range(q):
                information[a, a] = order.threshold_weight[a]
            for a in range(q - 1):
                information[a, a + 1] = information[a + 1, a] = order.beside[a]
        else:
            terms = model.likelihood.rows(block.y, eta, 2, "expected", possible)
            chance, loss, score = model.likelihood.probabilities(eta, possible), terms.loss, terms.score
            pairs = [(a, b) for a in range(q) for b in range(a, q)]
            for (a, b), one in zip(pairs, terms.weight, strict=True):
                information[a, b] = information[b, a] = one
    size, copies = (ones, weight) if model.frequency or sampling else (weight, ones)
    return FittedClasses(block.y, chance, loss, score * size, information * size, size, copies)
