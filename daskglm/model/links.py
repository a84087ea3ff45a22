"""Links g(mu) = eta: the inverse, its derivatives, and where eta may lie.

After JuliaStats/GLM.jl, `inverse` returns mu, dmu/deta and 1 - mu together, so that nothing cancels.
Source of the formulas: McCullagh and Nelder, Generalized Linear Models (1989), sections 2.2.4 and 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@final
@dataclass(slots=True)
class Rates:
    """log mu, log(1 - mu), up = mu'/mu, down = mu'/(1 - mu) and bend = mu''/mu', all (n,).

    A likelihood of probabilities needs nothing else, and these stay finite where mu and mu' have long underflowed.
    """

    log_mu: Vector
    log_rest: Vector
    up: Vector
    down: Vector
    bend: Vector


def _divided(mu: Vector, slope: Vector, rest: Vector, curvature: Vector) -> Rates:
    """Rates of a link whose inverse does not saturate."""
    return Rates(np.log(mu), np.log(rest), slope / mu, slope / rest, curvature / slope)


class Link(Protocol):
    """A monotone map of the mean onto the scale of the linear predictor. All arrays are (n,)."""

    @property
    def name(self) -> str:
        """The name users type."""

    @property
    def formula(self) -> str:
        """g(mu) in symbols."""

    @property
    def restricts(self) -> bool:
        """Whether some finite eta has no mean."""

    @property
    def mean_range(self) -> tuple[float, float]:
        """The open interval of means it can give."""

    def link(self, mu: Vector) -> Vector:
        """eta = g(mu)."""

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        """mu = g^-1(eta), dmu/deta, and 1 - mu without cancellation (or, with rest=False, anything: a family whose mean
        is not bounded above has no use for it, and it can cost as much as the mean)."""

    def curvature(self, eta: Vector) -> Vector:
        """d2mu/deta2."""

    def rates(self, eta: Vector) -> Rates:
        """The inverse as the log of a probability and of its complement, for means between 0 and 1."""

    def valid(self, eta: Vector) -> Mask:
        """Where eta has a mean."""


def _everywhere(eta: Vector) -> Mask:
    return np.isfinite(eta)


@final
@dataclass(frozen=True)
class Identity:
    """mu = eta."""

    name: str = "identity"
    formula: str = "mu"
    restricts: bool = False
    mean_range: tuple[float, float] = (-np.inf, np.inf)

    def link(self, mu: Vector) -> Vector:
        return mu

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        return eta, np.ones_like(eta), 1.0 - eta if rest else eta

    def curvature(self, eta: Vector) -> Vector:
        return np.zeros_like(eta)

    def rates(self, eta: Vector) -> Rates:
        return Rates(np.log(eta), np.log1p(-eta), 1.0 / eta, 1.0 / (1.0 - eta), np.zeros_like(eta))

    def valid(self, eta: Vector) -> Mask:
        return _everywhere(eta)


@final
@dataclass(frozen=True)
class Log:
    """mu = exp(eta)."""

    name: str = "log"
    formula: str = "log(mu)"
    restricts: bool = False
    mean_range: tuple[float, float] = (0.0, np.inf)

    def link(self, mu: Vector) -> Vector:
        with np.errstate(divide="ignore"):
            return np.log(mu)

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        with np.errstate(over="ignore"):
            mu = np.exp(eta)
            return mu, mu, -np.expm1(eta) if rest else mu

    def curvature(self, eta: Vector) -> Vector:
        with np.errstate(over="ignore"):
            return np.exp(eta)

    def rates(self, eta: Vector) -> Rates:
        rest = -np.expm1(eta)
        return Rates(eta, np.log(rest), np.ones_like(eta), np.exp(eta) / rest, np.ones_like(eta))

    def valid(self, eta: Vector) -> Mask:
        return _everywhere(eta)


@final
@dataclass(frozen=True)
class Logit:
    """mu = 1 / (1 + exp(-eta))."""

    name: str = "logit"
    formula: str = "log(mu / (1 - mu))"
    restricts: bool = False
    mean_range: tuple[float, float] = (0.0, 1.0)

    def link(self, mu: Vector) -> Vector:
        with np.errstate(divide="ignore"):
            return np.log(mu) - np.log1p(-mu)

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        small = np.exp(-np.abs(eta))
        larger = 1.0 / (1.0 + small)
        smaller = small * larger
        positive = eta >= 0
        return np.where(positive, larger, smaller), larger * smaller, np.where(positive, smaller, larger)

    def curvature(self, eta: Vector) -> Vector:
        mu, slope, rest = self.inverse(eta)
        return slope * (rest - mu)

    def rates(self, eta: Vector) -> Rates:
        mu, _, rest = self.inverse(eta)
        tail = np.log1p(np.exp(-np.abs(eta)))
        return Rates(np.minimum(eta, 0.0) - tail, -np.maximum(eta, 0.0) - tail, rest, mu, rest - mu)

    def valid(self, eta: Vector) -> Mask:
        return _everywhere(eta)


@final
@dataclass(frozen=True)
class Probit:
    """mu = Phi(eta), the standard normal distribution function."""

    name: str = "probit"
    formula: str = "Phi^-1(mu)"
    restricts: bool = False
    mean_range: tuple[float, float] = (0.0, 1.0)

    def link(self, mu: Vector) -> Vector:
        from scipy.special import ndtri

        return np.asarray(ndtri(mu))

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        from scipy.special import ndtr

        return np.asarray(ndtr(eta)), np.exp(-0.5 * eta * eta) / np.sqrt(2 * np.pi), np.asarray(ndtr(-eta))

    def curvature(self, eta: Vector) -> Vector:
        return -eta * np.exp(-0.5 * eta * eta) / np.sqrt(2 * np.pi)

    def rates(self, eta: Vector) -> Rates:
        from scipy.special import log_ndtr

        density = -0.5 * eta * eta - 0.5 * np.log(2 * np.pi)
        log_mu, log_rest = np.asarray(log_ndtr(eta)), np.asarray(log_ndtr(-eta))
        return Rates(log_mu, log_rest, np.exp(density - log_mu), np.exp(density - log_rest), -eta)

    def valid(self, eta: Vector) -> Mask:
        return _everywhere(eta)


@final
@dataclass(frozen=True)
class CLogLog:
    """mu = 1 - exp(-exp(eta)): the chance of at least one event of a Poisson process."""

    name: str = "cloglog"
    formula: str = "log(-log(1 - mu))"
    restricts: bool = False
    mean_range: tuple[float, float] = (0.0, 1.0)

    def link(self, mu: Vector) -> Vector:
        with np.errstate(divide="ignore"):
            return np.log(-np.log1p(-mu))

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        with np.errstate(over="ignore"):
            hazard = np.exp(eta)
            return -np.expm1(-hazard), np.exp(eta - hazard), np.exp(-hazard)

    def curvature(self, eta: Vector) -> Vector:
        with np.errstate(over="ignore", invalid="ignore"):
            hazard = np.exp(eta)
            return np.where(np.isinf(hazard), 0.0, (1.0 - hazard) * np.exp(eta - hazard))

    def rates(self, eta: Vector) -> Rates:
        hazard = np.exp(eta)
        # h / (exp(h) - 1) tends to 1 where h underflows and to 0 where exp(h) overflows
        up = np.where(hazard > 0.0, hazard / np.expm1(hazard), 1.0)
        # mu is the hazard where that is small, and has no digits where it is subnormal
        log_mu = np.where(hazard > 1e-20, np.log(-np.expm1(-hazard)), eta)
        return Rates(log_mu, -hazard, up, hazard, 1.0 - hazard)

    def valid(self, eta: Vector) -> Mask:
        return _everywhere(eta)


@final
@dataclass(frozen=True)
class Inverse:
    """mu = 1 / eta."""

    name: str = "inverse"
    formula: str = "1 / mu"
    restricts: bool = True
    mean_range: tuple[float, float] = (-np.inf, np.inf)

    def link(self, mu: Vector) -> Vector:
        with np.errstate(divide="ignore"):
            return 1.0 / mu

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        with np.errstate(divide="ignore"):
            mu = 1.0 / eta
            return mu, -mu * mu, 1.0 - mu if rest else mu

    def curvature(self, eta: Vector) -> Vector:
        with np.errstate(divide="ignore"):
            return 2.0 / eta**3

    def rates(self, eta: Vector) -> Rates:
        mu, slope, rest = self.inverse(eta)
        return _divided(mu, slope, rest, self.curvature(eta))

    def valid(self, eta: Vector) -> Mask:
        return np.isfinite(eta) & (eta != 0)


@final
@dataclass(frozen=True)
class Sqrt:
    """mu = eta^2 for eta > 0."""

    name: str = "sqrt"
    formula: str = "sqrt(mu)"
    restricts: bool = True
    mean_range: tuple[float, float] = (0.0, np.inf)

    def link(self, mu: Vector) -> Vector:
        return np.sqrt(mu)

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        return eta * eta, 2.0 * eta, (1.0 - eta) * (1.0 + eta) if rest else eta

    def curvature(self, eta: Vector) -> Vector:
        return np.full_like(eta, 2.0)

    def rates(self, eta: Vector) -> Rates:
        mu, slope, rest = self.inverse(eta)
        return _divided(mu, slope, rest, self.curvature(eta))

    def valid(self, eta: Vector) -> Mask:
        return np.isfinite(eta) & (eta > 0)


LINKS: dict[str, Any] = {
    "identity": Identity,
    "log": Log,
    "logit": Logit,
    "probit": Probit,
    "cloglog": CLogLog,
    "inverse": Inverse,
    "sqrt": Sqrt,
}
