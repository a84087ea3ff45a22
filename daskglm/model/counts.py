"""Counts whose variance exceeds their mean: negative binomial, and geometric, which is it with theta = 1.

Source: Hilbe, Negative Binomial Regression (2011), chapter 8; the second parametrisation, NB2, as in MASS::glm.nb.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np

from daskglm.errors import DesignError
from daskglm.model.family import Formulas, LikelihoodAt, Mask, Response, Vector, by_value, called, xlogy
from daskglm.model.links import Rates


@final
@dataclass(frozen=True)
class CanonicalCount:
    """eta = log(mu / (mu + theta)) < 0, the natural parameter of a negative binomial with this theta."""

    theta: float
    name: str = "canonical"
    restricts: bool = True
    mean_range: tuple[float, float] = (0.0, np.inf)

    @property
    def formula(self) -> str:
        return f"log(mu / (mu + {self.theta:g}))"

    def link(self, mu: Vector) -> Vector:
        with np.errstate(all="ignore"):
            return np.asarray(-np.log1p(self.theta / mu))

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        with np.errstate(all="ignore"):
            mu = np.asarray(self.theta / np.expm1(-eta))
            return mu, mu * (1.0 + mu / self.theta), 1.0 - mu if rest else mu

    def curvature(self, eta: Vector) -> Vector:
        mu, slope, _ = self.inverse(eta, False)
        with np.errstate(all="ignore"):
            return np.asarray(slope * (1.0 + 2.0 * mu / self.theta))

    def rates(self, eta: Vector) -> Rates:
        mu, slope, rest = self.inverse(eta)
        with np.errstate(all="ignore"):
            return Rates(np.log(mu), np.log(rest), slope / mu, slope / rest, self.curvature(eta) / slope)

    def valid(self, eta: Vector) -> Mask:
        return np.isfinite(eta) & (eta < 0.0)


@final
@dataclass(frozen=True)
class NegativeBinomial:
    """Counts with mean mu and variance mu + mu^2 / theta: a Poisson whose rate is gamma with shape theta.

    theta: given, or None to be estimated by maximum likelihood. With theta given it is an exponential family:
    Psi(mu) = log(mu / (mu + theta)), Z = (1 - exp(Psi))^-theta. Prior weights w: w y is negative binomial with w theta.
    """

    theta: float | None = None
    name: str = "negative_binomial"
    default_link: str = "log"
    canonical_link: str = ""
    support: str = "zero or positive"
    mean_range: tuple[float, float] = (0.0, np.inf)
    bounded: bool = False
    discrete: bool = True
    constant_variance: bool = False
    dispersion_known: bool = True
    canonical_scale: float = 1.0
    response: Response = "number"
    dispersion: float = 1.0
    likelihood_at: LikelihoodAt = "known"

    def __post_init__(self) -> None:
        if self.theta is not None and not (isinstance(self.theta, (int, float)) and self.theta > 0):
            raise DesignError(f"theta of a negative binomial family is a positive number, not {self.theta!r}")

    @property
    def text(self) -> str:
        return self.name if self.name == "geometric" else called(self.name, theta=self.theta)

    @property
    def shape_names(self) -> tuple[str, ...]:
        return ("theta",) if self.theta is None else ()

    @property
    def formulas(self) -> Formulas:
        if self.name == "geometric":
            return Formulas("1", "y", "log(mu / (mu + 1))", "1 / (1 - exp(theta))", "mu + mu^2")
        t = "r" if self.theta is None else f"{self.theta:g}"
        return Formulas(
            f"choose(y + {t} - 1, y)", "y", f"log(mu / (mu + {t}))", f"(1 - exp(theta))^-{t}", f"mu + mu^2 / {t}"
        )

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is positive"
        return {"log": "", "identity": care, "sqrt": care, "power": care}

    @property
    def size(self) -> float:
        """theta, which must be given by now; infinite: the Poisson limit."""
        if self.theta is None:
            raise DesignError("theta of this negative binomial family is not known yet: give theta=, or fit it to data")
        return float(self.theta)

    def with_theta(self, theta: float) -> NegativeBinomial:
        """The family with that theta."""
        return replace(self, theta=theta)

    def in_support(self, y: Vector) -> Mask:
        return (y >= 0) & np.isfinite(y)

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return y + 0.1

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return mu + mu * mu / self.size

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        return 1.0 + 2.0 * mu / self.size

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        ratio = y / mu
        ratio[y == 0] = 1.0
        excess = y - mu
        if np.isinf(self.size):
            return 2.0 * (y * np.log(ratio) - excess)
        return 2.0 * (y * np.log(ratio) - (y + self.size) * np.log1p(excess / (mu + self.size)))

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        if np.isinf(self.size):
            return mu - xlogy(y, mu)
        return (y + self.size) * np.log1p(mu / self.size) - xlogy(y, mu)

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y - mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return self.log_partition(theta) - y * theta

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        from scipy.special import betaln, gammaln

        def per_count(count: Vector, size: Vector | float) -> Vector:
            if np.isinf(self.size):
                return np.asarray(xlogy(count, count) - count - gammaln(count + 1.0))
            positive = np.where(count > 0, count, 1.0)
            # log choose(count + size - 1, count), without the cancellation of two large log-gammas
            ways = np.where(count > 0, -betaln(size, positive) - np.log(positive), 0.0)
            return np.asarray(ways - size * np.log1p(count / size) - count * np.log1p(size / positive))

        if isinstance(w, float) and w == 1.0:
            return by_value(lambda count: per_count(count, self.size), y)
        return per_count(w * y, w * self.size)

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        return self.saturated(y, w, phi), np.zeros(y.shape), np.zeros(y.shape)

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return 0.0

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
        return 1.0

    def log_base_measure(self, y: Vector) -> Vector:
        from scipy.special import betaln

        positive = np.where(y > 0, y, 1.0)
        return np.asarray(np.where(y > 0, -betaln(self.size, positive) - np.log(positive), 0.0))

    def sufficient_statistic(self, y: Vector) -> Vector:
        return y

    def log_partition(self, theta: Vector) -> Vector:
        return -self.size * np.log(-np.expm1(theta))

    def natural_parameter(self, mu: Vector) -> Vector:
        return -np.log1p(self.size / mu)

    def mean(self, theta: Vector) -> Vector:
        return self.size / np.expm1(-theta)


def Geometric() -> NegativeBinomial:  # noqa: N802 - users call it as they call the others
    """Failures before the first success: mean mu, variance mu + mu^2."""
    return NegativeBinomial(theta=1.0, name="geometric")
