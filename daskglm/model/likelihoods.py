"""What a solver may know of a model: per row, the loss, its first derivative and its second, in the linear predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt

from daskglm.model.families import Family
from daskglm.model.links import Link

Vector = npt.NDArray[np.float64]
Information = Literal["expected", "observed"]


@final
@dataclass(frozen=True)
class RowTerms:
    """Per row and per unit weight, at phi = 1: loss (n,), score = -dloss/deta (n,), weight = d2loss/deta2 (n,).

    valid says whether every row's mean is possible; where it is not, the loss is +inf and the rest is meaningless.
    """

    loss: Vector
    score: Vector
    weight: Vector
    mu: Vector
    rest: Vector
    variance: Vector
    valid: bool


@final
@dataclass(frozen=True)
class GLM:
    """A scalar response with E[y] = mu, g(mu) = eta and Var[y] = phi V(mu) / w.

    score = (y - mu) mu' / V; expected weight = mu'^2 / V; observed weight = expected - (y - mu) (mu'' V - mu'^2 V') / V^2
    (McCullagh and Nelder 1989, section 2.5; the two agree under the canonical link).
    """

    family: Family
    link: Link

    @property
    def canonical(self) -> bool:
        """Whether eta is the natural parameter (up to sign)."""
        return self.link.name == self.family.canonical_link

    def rows(self, y: Vector, eta: Vector, order: int = 2, information: Information = "observed") -> RowTerms:
        """Terms of each row at eta, up to derivatives of that order."""
        family, link = self.family, self.link
        with np.errstate(all="ignore"):
            mu, slope, rest = link.inverse(eta)
            valid = self._valid(eta, mu, rest)
            if self.canonical:
                theta = eta if family.canonical_sign > 0 else -eta
                variance = family.variance(mu, rest)
                residual = family.residual(y, mu, rest)
                score = residual if family.canonical_sign > 0 else -residual
                return RowTerms(family.canonical_loss(y, theta), score, variance, mu, rest, variance, valid)
            loss = family.unit_loss(y, mu, rest)
            variance = family.variance(mu, rest)
            residual = family.residual(y, mu, rest)
            ratio = slope / variance
            score = residual * ratio
            weight = slope * ratio
            if order > 1 and information == "observed":
                bend = link.curvature(eta) / variance - ratio * ratio * family.variance_slope(mu, rest)
                weight = weight - residual * bend
            return RowTerms(loss, score, weight, mu, rest, variance, valid)

    def _valid(self, eta: Vector, mu: Vector, rest: Vector) -> bool:
        """Whether every mean is possible. NaN is not; a mean that underflows to its bound is kept out, too."""
        if eta.size == 0:
            return True
        low, high = self.family.mean_range
        if not bool(self.link.valid(eta).all()):
            return False
        if low == 0.0 and not bool(mu.min() > 0.0):
            return False
        if high == 1.0 and not bool(rest.min() > 0.0):
            return False
        return bool(np.isfinite(mu.sum()))

    def mean_of(self, eta: Vector) -> Vector:
        """mu = g^-1(eta)."""
        with np.errstate(all="ignore"):
            return self.link.inverse(eta)[0]
