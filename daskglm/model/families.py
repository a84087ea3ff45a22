"""Distributions of the exponential family, p(y) = h(y) exp(T(y) theta) / Z(theta), and their dispersion models.

A family's density with mean mu, dispersion phi and prior weight w is written in two ways that agree:
exponential family, at phi = w = 1:  log p = log h(y) + T(y) theta - log Z(theta), theta = Psi(mu);
dispersion model:                    log p = saturated(y, w, phi) - w d(y, mu) / (2 phi), d the unit deviance.

Sources: McCullagh and Nelder (1989), chapter 2; Jorgensen, The Theory of Dispersion Models (1997), chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LOG_2PI = float(np.log(2.0 * np.pi))


class Family(Protocol):
    """A distribution of the response given its mean. All arrays are (n,); rest is 1 - mu without cancellation."""

    @property
    def name(self) -> str:
        """The name users type."""

    @property
    def default_link(self) -> str:
        """The link where none is named."""

    @property
    def canonical_link(self) -> str:
        """The link for which eta = theta."""

    @property
    def links(self) -> dict[str, str]:
        """Links that make sense with it, each with "" or the care it needs."""

    @property
    def support(self) -> str:
        """Where y may lie, in words."""

    @property
    def mean_range(self) -> tuple[float, float]:
        """The open interval of possible means."""

    @property
    def bounded(self) -> bool:
        """Whether means are bounded above by 1, so that 1 - mu is needed to full precision."""

    @property
    def constant_variance(self) -> bool:
        """Whether V is 1 whatever the mean."""

    @property
    def dispersion_known(self) -> bool:
        """Whether phi is 1 by definition."""

    @property
    def canonical_sign(self) -> float:
        """theta = canonical_sign * eta under the canonical link."""

    def in_support(self, y: Vector) -> Mask:
        """Where y is a possible response."""

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        """A possible mean near y, from which iteration starts."""

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        """V(mu), the variance at phi = w = 1."""

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        """dV/dmu."""

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        """d(y, mu) = 2 (log p(y; mean y) - log p(y; mean mu)) at phi = w = 1."""

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        """d / 2 up to a function of y alone: what a solver compares."""

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        """y - mu without cancellation."""

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        """log Z(theta) - y theta up to a function of y alone: unit_loss under the canonical link, mu at hand."""

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        """log p(y; mean y): the largest log density the row can have."""

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        """sum saturated(phi) - sum saturated(1) over n rows; None where it needs the rows."""

    def ml_dispersion(self, deviance: float) -> float:
        """The maximum likelihood estimate of phi where the mean unit deviance is `deviance`; 1 where phi is known."""

    def log_base_measure(self, y: Vector) -> Vector:
        """log h(y)."""

    def sufficient_statistic(self, y: Vector) -> Vector:
        """T(y)."""

    def log_partition(self, theta: Vector) -> Vector:
        """log Z(theta)."""

    def natural_parameter(self, mu: Vector) -> Vector:
        """theta = Psi(mu)."""

    def mean(self, theta: Vector) -> Vector:
        """mu = Psi^-1(theta) = d log Z / d theta."""


def log_density(family: Family, y: Vector, mu: Vector, phi: float = 1.0, w: Vector | float = 1.0) -> Vector:
    """log p(y; mu, phi / w) (n,), every constant included."""
    return family.saturated(y, w, phi) - 0.5 * w * family.unit_deviance(y, mu, 1.0 - mu) / phi


def by_value(function: Callable[[Vector], Vector], y: Vector) -> Vector:
    """function(y), looked up where y is made of small counts: a table of 1 000 entries spares a log per row."""
    if y.size < 1000:
        return function(y)
    counts = y.astype(np.int64)
    if counts.min() < 0 or counts.max() >= 1000 or not np.array_equal(counts, y):
        return function(y)
    return np.asarray(function(np.arange(counts.max() + 1, dtype=np.float64))[counts])


def xlogy(x: Vector, y: Vector) -> Vector:
    """x log y, 0 where x = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, 0.0, x * np.log(y))


@final
@dataclass(frozen=True)
class Gaussian:
    """Normal with mean mu and variance phi / w. theta = mu, Z = exp(theta^2 / 2)."""

    name: str = "gaussian"
    default_link: str = "identity"
    canonical_link: str = "identity"
    support: str = "any finite number"
    mean_range: tuple[float, float] = (-np.inf, np.inf)
    bounded: bool = False
    constant_variance: bool = True
    dispersion_known: bool = False
    canonical_sign: float = 1.0

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is in the link's range"
        return {"identity": "", "log": "", "inverse": care, "sqrt": care}

    def in_support(self, y: Vector) -> Mask:
        return np.isfinite(y)

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return y

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return np.ones_like(mu)

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        return np.zeros_like(mu)

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return (y - mu) ** 2

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return 0.5 * (y - mu) ** 2

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y - mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return 0.5 * (y - theta) ** 2

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        return np.broadcast_to(-0.5 * (LOG_2PI + np.log(phi) - np.log(w)), y.shape)

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return -0.5 * n * float(np.log(phi))

    def ml_dispersion(self, deviance: float) -> float:
        return deviance

    def log_base_measure(self, y: Vector) -> Vector:
        return -0.5 * (y * y + LOG_2PI)

    def sufficient_statistic(self, y: Vector) -> Vector:
        return y

    def log_partition(self, theta: Vector) -> Vector:
        return 0.5 * theta * theta

    def natural_parameter(self, mu: Vector) -> Vector:
        return mu

    def mean(self, theta: Vector) -> Vector:
        return theta


@final
@dataclass(frozen=True)
class Binomial:
    """Proportion y of successes in w trials (one trial: Bernoulli). theta = log(mu / (1 - mu)), Z = 1 + exp(theta)."""

    name: str = "binomial"
    default_link: str = "logit"
    canonical_link: str = "logit"
    support: str = "0 or 1, or a proportion between them"
    mean_range: tuple[float, float] = (0.0, 1.0)
    bounded: bool = True
    constant_variance: bool = False
    dispersion_known: bool = True
    canonical_sign: float = 1.0

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is between 0 and 1"
        return {"logit": "", "probit": "", "cloglog": "", "log": care, "identity": care}

    def in_support(self, y: Vector) -> Mask:
        return (y >= 0) & (y <= 1)

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return (w * y + 0.5) / (w + 1.0)

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return mu * rest

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        return rest - mu

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return 2.0 * (self.unit_loss(y, mu, rest) - self.unit_loss(y, y, 1.0 - y))

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return -xlogy(y, mu) - xlogy(1.0 - y, rest)

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y * rest - (1.0 - y) * mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return self.log_partition(theta) - y * theta

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        if isinstance(w, float) and w == 1.0 and bool(np.all((y == 0) | (y == 1))):
            return np.zeros_like(y)
        from scipy.special import gammaln

        ways = gammaln(w + 1.0) - gammaln(w * y + 1.0) - gammaln(w * (1.0 - y) + 1.0)
        return np.asarray(ways - w * self.unit_loss(y, y, 1.0 - y))

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return 0.0

    def ml_dispersion(self, deviance: float) -> float:
        return 1.0

    def log_base_measure(self, y: Vector) -> Vector:
        return np.zeros_like(y)

    def sufficient_statistic(self, y: Vector) -> Vector:
        return y

    def log_partition(self, theta: Vector) -> Vector:
        return np.maximum(theta, 0.0) + np.log1p(np.exp(-np.abs(theta)))

    def natural_parameter(self, mu: Vector) -> Vector:
        return np.log(mu) - np.log1p(-mu)

    def mean(self, theta: Vector) -> Vector:
        return 1.0 / (1.0 + np.exp(-theta))


@final
@dataclass(frozen=True)
class Poisson:
    """Counts with mean and variance mu. theta = log mu, Z = exp(exp(theta)), h = 1 / y!."""

    name: str = "poisson"
    default_link: str = "log"
    canonical_link: str = "log"
    support: str = "zero or positive"
    mean_range: tuple[float, float] = (0.0, np.inf)
    bounded: bool = False
    constant_variance: bool = False
    dispersion_known: bool = True
    canonical_sign: float = 1.0

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is positive"
        return {"log": "", "identity": care, "sqrt": care}

    def in_support(self, y: Vector) -> Mask:
        return (y >= 0) & np.isfinite(y)

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return y + 0.1

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return mu

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        return np.ones_like(mu)

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        ratio = y / mu
        ratio[y == 0] = 1.0
        return 2.0 * (y * np.log(ratio) - (y - mu))

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return mu - xlogy(y, mu)

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y - mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return mu - y * theta

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        from scipy.special import gammaln

        def per_count(count: Vector) -> Vector:
            return np.asarray(xlogy(count, count) - count - gammaln(count + 1.0))

        if isinstance(w, float) and w == 1.0:
            return by_value(per_count, y)
        # the total w y of w observations is Poisson with mean w mu
        return per_count(w * y)

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return 0.0

    def ml_dispersion(self, deviance: float) -> float:
        return 1.0

    def log_base_measure(self, y: Vector) -> Vector:
        from scipy.special import gammaln

        return -np.asarray(gammaln(y + 1.0))

    def sufficient_statistic(self, y: Vector) -> Vector:
        return y

    def log_partition(self, theta: Vector) -> Vector:
        return np.exp(theta)

    def natural_parameter(self, mu: Vector) -> Vector:
        return np.log(mu)

    def mean(self, theta: Vector) -> Vector:
        return np.exp(theta)


@final
@dataclass(frozen=True)
class Gamma:
    """Positive, with mean mu and variance phi mu^2 / w (shape w / phi). At phi = 1: theta = -1 / mu, Z = -1 / theta."""

    name: str = "gamma"
    default_link: str = "log"
    canonical_link: str = "inverse"
    support: str = "positive"
    mean_range: tuple[float, float] = (0.0, np.inf)
    bounded: bool = False
    constant_variance: bool = False
    dispersion_known: bool = False
    canonical_sign: float = -1.0

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is positive"
        return {"log": "", "inverse": care, "identity": care, "sqrt": care}

    def in_support(self, y: Vector) -> Mask:
        return (y > 0) & np.isfinite(y)

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return y

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return mu * mu

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        return 2.0 * mu

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        excess = (y - mu) / mu
        with np.errstate(divide="ignore"):
            # each keeps its digits where the other loses them: near y = mu, and near y = 0
            logarithm = np.where(excess > -0.5, np.log1p(excess), np.log(y / mu))
        return np.asarray(2.0 * (excess - logarithm))

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y / mu + np.log(mu)

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y - mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return self.log_partition(theta) - y * theta

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        from scipy.special import gammaln

        shape = w / phi
        return np.asarray(shape * np.log(shape) - shape - gammaln(shape) - np.log(y))

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        if weighted:
            return None
        from scipy.special import gammaln

        shape = 1.0 / phi
        return n * float(shape * np.log(shape) - shape - gammaln(shape) + 1.0)

    def ml_dispersion(self, deviance: float) -> float:
        # with k = 1 / phi the root of 2 (log k - digamma(k)) = deviance (McCullagh and Nelder 1989, equation 8.1)
        if not deviance > 0:
            return 0.0
        from scipy.optimize import brentq
        from scipy.special import digamma

        log_shape = brentq(lambda u: 2.0 * (u - digamma(np.exp(u))) - deviance, -40.0, 40.0, xtol=1e-14, rtol=1e-14)
        return float(np.exp(-log_shape))

    def log_base_measure(self, y: Vector) -> Vector:
        return np.zeros_like(y)

    def sufficient_statistic(self, y: Vector) -> Vector:
        return y

    def log_partition(self, theta: Vector) -> Vector:
        return -np.log(-theta)

    def natural_parameter(self, mu: Vector) -> Vector:
        return -1.0 / mu

    def mean(self, theta: Vector) -> Vector:
        return -1.0 / theta


FAMILIES: dict[str, Any] = {
    "gaussian": Gaussian,
    "binomial": Binomial,
    "poisson": Poisson,
    "gamma": Gamma,
}
ALIASES = {"bernoulli": "binomial", "normal": "gaussian"}
