"""What a solver may know of a model: per row, the loss, its first derivative and its second, in the linear predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt

from daskglm.model.family import Family
from daskglm.model.links import Link

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
# "unit" weighs every row alike: the Gram is then X'X, which says which columns are combinations of others.
Information = Literal["expected", "observed", "unit"]


# A linear predictor that is as good as infinite, and has a mean of its own where the way to infinity leads through means.
FAR = 1e300


@final
@dataclass(slots=True)
class RowTerms:
    """Per row and per unit weight, at phi = 1: loss (n,), score = -dloss/deta (n,), weight = d2loss/deta2 (n,).

    valid says whether every row's mean is in the family's range; where it is not, the loss counts as infinite and the
    rest is meaningless. Where the link can give no other mean that is not looked at, and a linear predictor that is not
    finite shows in the loss.
    """

    loss: Vector
    score: Vector
    weight: Vector
    mu: Vector
    rest: Vector
    variance: Vector
    valid: bool


def _product(part: Vector, value: Vector) -> Vector:
    """part * value, 0 where part is 0 whatever the value."""
    return np.where(part == 0.0, 0.0, part * value)


@final
@dataclass(frozen=True)
class GLM:
    """A scalar response with E[y] = mu, g(mu) = eta and Var[y] = phi V(mu) / w.

    score = (y - mu) mu' / V; expected weight = mu'^2 / V; observed weight = expected - (y - mu) (mu'' V - mu'^2 V') / V^2
    (McCullagh and Nelder 1989, section 2.5; the two agree under the canonical link).
    """

    family: Family
    link: Link
    parallel: bool = False
    # which information the reported errors come from
    reported: Information = "expected"

    @property
    def q(self) -> int:
        """Number of linear predictors."""
        return 1

    @property
    def canonical(self) -> bool:
        """Whether eta is the natural parameter (up to sign)."""
        return bool(self.family.canonical_link) and self.link.name == self.family.canonical_link

    @property
    def quadratic(self) -> bool:
        """Whether the loss is a quadratic in the coefficients, so that one Newton step is exact."""
        return self.canonical and self.family.constant_variance

    @property
    def mean_range(self) -> tuple[float, float]:
        """The open interval of means that the link gives and the family allows."""
        (low, high), (least, most) = self.link.mean_range, self.family.mean_range
        return max(low, least), min(high, most)

    @property
    def domain(self) -> tuple[float, float]:
        """The open interval of linear predictors that have a mean; all of them where they are no interval."""
        with np.errstate(all="ignore"):
            first, last = (float(end) for end in self.link.link(np.array(self.mean_range)))
        low, high = min(first, last), max(first, last)
        return (low, high) if low < high else (-np.inf, np.inf)

    @property
    def bordered(self) -> bool:
        """Whether means are possible up to a finite linear predictor only."""
        return bool(np.isfinite(self.domain).any())

    @property
    def limits(self) -> tuple[float, float]:
        """The means as eta -> -infinity and as eta -> +infinity, NaN where eta does not go there or they are not finite."""
        low, high = self.mean_range
        far = np.array([-FAR, FAR])
        with np.errstate(all="ignore"):
            means, on_the_way = self.link.inverse(np.array([-np.inf, np.inf]))[0], self.link.inverse(far)[0]
            outside = (on_the_way < low) | (on_the_way > high)
            goes = self.link.valid(far) & ~outside & np.isfinite(means)
        ends = np.where(goes, means, np.nan)
        return float(ends[0]), float(ends[1])

    @property
    def separable(self) -> bool:
        """Whether some response is fitted best at an infinite linear predictor."""
        ends = np.array([end for end in self.limits if np.isfinite(end)])
        return bool(self.family.in_support(ends).any())

    def recession(self, y: Vector) -> tuple[Mask, Mask]:
        """Rows (n,) whose loss never rises as eta -> +infinity, and as eta -> -infinity.

        A unit deviance falls from either side towards mu = y. So a row may follow its mean all the way to its limit at an
        infinite eta where its response is that limit, or lies beyond it where means do not: up and down in binomial models
        of 1 and 0, down for a count of 0 under the log link, or for a gaussian y <= 0.
        """
        low, high = self.mean_range
        below, above = ((y <= low) if end == low else (y >= high) if end == high else (y == end) for end in self.limits)
        return np.asarray(above), np.asarray(below)

    def rows(self, y: Vector, eta: Vector, order: int = 2, information: Information = "observed") -> RowTerms:
        """Terms of each row at eta, up to derivatives of that order. NaN and infinity come out as they are: callers
        compute under np.errstate(all="ignore") and look at the sum of the loss.
        """
        family, link = self.family, self.link
        mu, slope, rest = link.inverse(eta, family.bounded)
        valid = self._valid(eta, mu, rest)
        variance = family.variance(mu, rest)
        if self.canonical:
            residual, scale = family.residual(y, mu, rest), family.canonical_scale
            if scale == 1.0:
                return RowTerms(family.canonical_loss(y, eta, mu), residual, variance, mu, rest, variance, valid)
            loss, weight = family.canonical_loss(y, scale * eta, mu), scale * scale * variance
            return RowTerms(loss, scale * residual, weight, mu, rest, variance, valid)
        if family.bounded:
            return self._probabilities(y, eta, order, information, RowTerms(mu, mu, mu, mu, rest, variance, valid))
        loss = family.unit_loss(y, mu, rest)
        residual = family.residual(y, mu, rest)
        ratio = slope / variance
        score = residual * ratio
        weight = slope * ratio
        if order > 1 and information == "observed":
            bend = link.curvature(eta) / variance - ratio * ratio * family.variance_slope(mu, rest)
            weight = weight - residual * bend
        return RowTerms(loss, score, weight, mu, rest, variance, valid)

    def _probabilities(self, y: Vector, eta: Vector, order: int, information: Information, terms: RowTerms) -> RowTerms:
        """Means between 0 and 1, by their logarithms: exact where the mean itself is 0 or 1 to the last bit."""
        rates = self.link.rates(eta)
        success, failure = y, 1.0 - y
        terms.loss = -_product(success, rates.log_mu) - _product(failure, rates.log_rest)
        terms.score = _product(success, rates.up) - _product(failure, rates.down)
        terms.weight = rates.up * rates.down
        if order > 1 and information == "observed":
            terms.weight = _product(success, rates.up * (rates.up - rates.bend)) + _product(
                failure, rates.down * (rates.down + rates.bend)
            )
        return terms

    def _valid(self, eta: Vector, mu: Vector, rest: Vector) -> bool:
        """Whether every mean is in the family's range, looked at only where the link does not see to it."""
        low, high = self.family.mean_range
        if eta.size == 0:
            return True
        if self.link.restricts and not bool(self.link.valid(eta).all()):
            return False
        if self.link.mean_range[0] >= low and self.link.mean_range[1] <= high:
            return True
        if low == 0.0 and not bool(mu.min() > 0.0):
            return False
        return not (high == 1.0 and not bool(rest.min() > 0.0))

    def mean_range_of(self, low: Vector, high: Vector) -> tuple[Vector, Vector]:
        """The means between two linear predictors, as far as the family and the link have any: an interval for eta ends
        where its means do. Under the square root and the inverse of a positive mean, one that begins below 0 begins at 0.
        """
        least, most = self.family.mean_range
        with np.errstate(all="ignore"):
            first, last = np.sort(self.link.link(np.array(self.mean_range)))
        # both are 0 for the inverse of any number, which has a mean on either side of 0
        if first < last:
            low, high = np.clip(low, first, last), np.clip(high, first, last)
        return np.clip(self.mean_of(low), least, most), np.clip(self.mean_of(high), least, most)

    def mean_of(self, eta: Vector) -> Vector:
        """mu = g^-1(eta)."""
        with np.errstate(all="ignore"):
            return self.link.inverse(eta, False)[0]
