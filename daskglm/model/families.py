"""The classical distributions of the response, each a row of formulas that can be checked against a textbook.

What a family answers is written down in `daskglm.model.family`. Sources: McCullagh and Nelder (1989), chapter 2;
Jorgensen, The Theory of Dispersion Models (1997), chapters 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from daskglm.errors import DesignError
from daskglm.model.family import (
    LOG_2PI,
    Family,
    Formulas,
    LikelihoodAt,
    Mask,
    Response,
    Vector,
    by_value,
    called,
    log_density,
    xlogy,
)

__all__ = [
    "Binomial",
    "Family",
    "Gamma",
    "Gaussian",
    "InverseGaussian",
    "Mask",
    "Poisson",
    "Vector",
    "by_value",
    "log_density",
    "xlogy",
]


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
    discrete: bool = False
    constant_variance: bool = True
    dispersion_known: bool = False
    canonical_scale: float = 1.0
    response: Response = "number"
    shape_names: tuple[str, ...] = ()
    dispersion: float = 1.0
    likelihood_at: LikelihoodAt = "deviance"
    formulas: Formulas = Formulas("exp(-y^2 / 2) / sqrt(2 pi)", "y", "mu", "exp(theta^2 / 2)", "1")

    @property
    def text(self) -> str:
        return self.name

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is in the link's range"
        return {"identity": "", "log": "", "inverse": care, "sqrt": care, "power": care}

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

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        return self.saturated(y, w, phi), np.full(y.shape, -0.5), np.zeros(y.shape)

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return -0.5 * n * float(np.log(phi))

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
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
    discrete: bool = True
    constant_variance: bool = False
    dispersion_known: bool = True
    canonical_scale: float = 1.0
    response: Response = "number"
    shape_names: tuple[str, ...] = ()
    dispersion: float = 1.0
    likelihood_at: LikelihoodAt = "known"
    formulas: Formulas = Formulas("1", "y", "log(mu / (1 - mu))", "1 + exp(theta)", "mu (1 - mu)")

    @property
    def text(self) -> str:
        return self.name

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is between 0 and 1"
        whole = dict.fromkeys(("logit", "probit", "cloglog", "loglog", "cauchit"), "")
        return {**whole, **dict.fromkeys(("log", "log_complement", "identity"), care)}

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

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        return self.saturated(y, w, phi), np.zeros(y.shape), np.zeros(y.shape)

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return 0.0

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
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
    discrete: bool = True
    constant_variance: bool = False
    dispersion_known: bool = True
    canonical_scale: float = 1.0
    response: Response = "number"
    shape_names: tuple[str, ...] = ()
    dispersion: float = 1.0
    likelihood_at: LikelihoodAt = "known"
    formulas: Formulas = Formulas("1 / y!", "y", "log(mu)", "exp(exp(theta))", "mu")

    @property
    def text(self) -> str:
        return self.name

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is positive"
        return {"log": "", "identity": care, "sqrt": care, "power": care}

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

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        return self.saturated(y, w, phi), np.zeros(y.shape), np.zeros(y.shape)

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return 0.0

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
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
    """Positive, with mean mu and variance phi mu^2 / w (shape w / phi). At phi = 1: theta = -1 / mu, Z = -1 / theta.

    shape: 1 / phi where it is given; None: phi is estimated, after the coefficients, which do not depend on it.
    """

    shape: float | None = None
    name: str = "gamma"
    default_link: str = "log"
    canonical_link: str = "inverse"
    support: str = "positive"
    mean_range: tuple[float, float] = (0.0, np.inf)
    bounded: bool = False
    discrete: bool = False
    constant_variance: bool = False
    canonical_scale: float = -1.0
    response: Response = "number"
    shape_names: tuple[str, ...] = ()
    formulas: Formulas = Formulas("1", "y", "-1 / mu", "-1 / theta", "mu^2")

    def __post_init__(self) -> None:
        if self.shape is not None and not (isinstance(self.shape, (int, float)) and 0 < self.shape < np.inf):
            raise DesignError(f"the shape of a gamma family is a positive number, not {self.shape!r}")

    @property
    def text(self) -> str:
        return called(self.name, shape=self.shape) if self.name == "gamma" else self.name

    @property
    def dispersion_known(self) -> bool:
        return self.shape is not None

    @property
    def dispersion(self) -> float:
        return 1.0 if self.shape is None else 1.0 / self.shape

    @property
    def likelihood_at(self) -> LikelihoodAt:
        return "deviance" if self.shape is None else "known"

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is positive"
        return {"log": "", "inverse": care, "identity": care, "inverse_square": care, "sqrt": care, "power": care}

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

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        # with k = w / phi: s = k log k - k - log Gamma(k) - log y, and d / dlog phi = -k d / dk
        from scipy.special import digamma, polygamma

        shape = np.broadcast_to(np.asarray(w / phi, np.float64), y.shape)
        first = np.log(shape) - digamma(shape)
        second = 1.0 / shape - polygamma(1, shape)
        return self.saturated(y, w, phi), -shape * first, shape * first + shape * shape * second

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        if weighted:
            return None
        from scipy.special import gammaln

        shape = 1.0 / phi
        return n * float(shape * np.log(shape) - shape - gammaln(shape) + 1.0)

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
        if self.shape is not None:
            return 1.0 / self.shape
        if weighted:
            return None
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


@final
@dataclass(frozen=True)
class InverseGaussian:
    """Positive, with mean mu and variance phi mu^3 / w. At phi = 1: theta = -1 / (2 mu^2), Z = exp(-sqrt(-2 theta))."""

    name: str = "inverse_gaussian"
    default_link: str = "log"
    canonical_link: str = "inverse_square"
    support: str = "positive"
    mean_range: tuple[float, float] = (0.0, np.inf)
    bounded: bool = False
    discrete: bool = False
    constant_variance: bool = False
    dispersion_known: bool = False
    canonical_scale: float = -0.5
    response: Response = "number"
    shape_names: tuple[str, ...] = ()
    dispersion: float = 1.0
    likelihood_at: LikelihoodAt = "deviance"
    formulas: Formulas = Formulas(
        "exp(-1 / (2 y)) / sqrt(2 pi y^3)", "y", "-1 / (2 mu^2)", "exp(-sqrt(-2 theta))", "mu^3"
    )

    @property
    def text(self) -> str:
        return self.name

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is positive"
        return {"log": "", "inverse": care, "identity": care, "inverse_square": care, "sqrt": care, "power": care}

    def in_support(self, y: Vector) -> Mask:
        return (y > 0) & np.isfinite(y)

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return y

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return mu * mu * mu

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        return 3.0 * mu * mu

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        excess = (y - mu) / mu
        return np.asarray(excess * excess / y)

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        # NaN, and not 0, where mu is infinite: no mean is
        return (0.5 * y - mu) / (mu * mu)

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y - mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return self.log_partition(theta) - y * theta

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        return np.asarray(-0.5 * (LOG_2PI + np.log(phi) - np.log(w) + 3.0 * np.log(y)))

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        return self.saturated(y, w, phi), np.full(y.shape, -0.5), np.zeros(y.shape)

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return -0.5 * n * float(np.log(phi))

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
        return deviance

    def log_base_measure(self, y: Vector) -> Vector:
        return np.asarray(-0.5 * (1.0 / y + LOG_2PI + 3.0 * np.log(y)))

    def sufficient_statistic(self, y: Vector) -> Vector:
        return y

    def log_partition(self, theta: Vector) -> Vector:
        return -np.sqrt(-2.0 * theta)

    def natural_parameter(self, mu: Vector) -> Vector:
        return -0.5 / (mu * mu)

    def mean(self, theta: Vector) -> Vector:
        return 1.0 / np.sqrt(-2.0 * theta)


def Exponential() -> Gamma:  # noqa: N802 - users call it as they call the others
    """The gamma family of shape 1: positive, with mean mu and variance mu^2."""
    return Gamma(shape=1.0, name="exponential")
