"""Links g(mu) = eta: the inverse, its derivatives, and where eta may lie.

After JuliaStats/GLM.jl, `inverse` returns mu, dmu/deta and 1 - mu together, so that nothing cancels.
Source of the formulas: McCullagh and Nelder, Generalized Linear Models (1989), sections 2.2.4 and 4.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LARGEST = float(np.finfo(np.float64).max)
LOG_2 = float(np.log(2.0))
SQRT_HALF = float(np.sqrt(0.5))
SQRT_2PI = float(np.sqrt(2.0 * np.pi))


@final
@dataclass(slots=True)
class Rates:
    """log mu, log(1 - mu), up = mu'/mu, down = mu'/(1 - mu) and bend = mu''/mu', all (n,).

    A likelihood of probabilities needs nothing else, and these stay finite where mu and mu' have long underflowed.
    up and down have the sign of mu': their product is positive whichever way the link runs.
    """

    log_mu: Vector
    log_rest: Vector
    up: Vector
    down: Vector
    bend: Vector


def _log_beside(part: Vector, rest: Vector) -> Vector:
    """log part, where rest = 1 - part: by the one of the two that is small."""
    return np.where(part < 0.5, np.log(part), np.log1p(-rest))


def _log_one_minus_exp(x: Vector) -> Vector:
    """log(1 - exp(x)) for x < 0, exact at both ends (Maechler 2012, Accurately computing log(1 - exp(-|a|)))."""
    return np.where(x > -LOG_2, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))


def _divided(mu: Vector, slope: Vector, rest: Vector, curvature: Vector) -> Rates:
    """Rates of a link whose inverse does not saturate."""
    return Rates(_log_beside(mu, rest), _log_beside(rest, mu), slope / mu, slope / rest, curvature / slope)


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
        odds = np.exp(eta) / -np.expm1(eta)
        return Rates(eta, _log_one_minus_exp(eta), np.ones_like(eta), odds, np.ones_like(eta))

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

    def _tails(self, eta: Vector) -> tuple[Vector, Vector, Vector]:
        """exp(-eta^2 / 2), 1 - Phi(|eta|), and how often the first goes into twice the second: that has all its digits
        where the tail has underflowed."""
        from scipy.special import erfcx

        kernel = np.exp(-0.5 * eta * eta)
        scaled = np.asarray(erfcx(np.abs(eta) * SQRT_HALF))
        return kernel, 0.5 * scaled * kernel, scaled

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        kernel, tail, _ = self._tails(eta)
        body = 1.0 - tail
        positive = eta >= 0
        return np.where(positive, body, tail), kernel / SQRT_2PI, np.where(positive, tail, body)

    def curvature(self, eta: Vector) -> Vector:
        return -eta * np.exp(-0.5 * eta * eta) / SQRT_2PI

    def rates(self, eta: Vector) -> Rates:
        kernel, tail, scaled = self._tails(eta)
        log_tail, log_body = np.log(0.5 * scaled) - 0.5 * eta * eta, np.log1p(-tail)
        by_tail, by_body = 2.0 / (SQRT_2PI * scaled), kernel / (SQRT_2PI * (1.0 - tail))
        positive = eta >= 0
        return Rates(
            np.where(positive, log_body, log_tail),
            np.where(positive, log_tail, log_body),
            np.where(positive, by_body, by_tail),
            np.where(positive, by_tail, by_body),
            -eta,
        )

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
            return np.where(np.isinf(hazard), 0.0, -np.expm1(eta) * np.exp(eta - hazard))

    def rates(self, eta: Vector) -> Rates:
        log_rest = -np.exp(eta)
        # not infinite, for up is 0 there, and so must be up * down
        hazard = np.minimum(-log_rest, LARGEST)
        # h / (exp(h) - 1) tends to 1 where h underflows and to 0 where exp(h) overflows
        up = np.where(hazard > 0.0, hazard / np.expm1(hazard), 1.0)
        # mu is the hazard where that is small, and has no digits where it is subnormal
        log_mu = np.where(hazard > 1e-20, _log_one_minus_exp(log_rest), eta)
        return Rates(log_mu, log_rest, up, hazard, 1.0 - hazard)

    def valid(self, eta: Vector) -> Mask:
        return _everywhere(eta)


@final
@dataclass(frozen=True)
class LogLog:
    """mu = exp(-exp(-eta)): cloglog with the two outcomes exchanged, 1 - mu(eta) being cloglog's mu(-eta)."""

    name: str = "loglog"
    formula: str = "-log(-log(mu))"
    restricts: bool = False
    mean_range: tuple[float, float] = (0.0, 1.0)

    def link(self, mu: Vector) -> Vector:
        with np.errstate(divide="ignore"):
            return -np.log(-np.log(mu))

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        other, slope, mu = CLogLog().inverse(-eta)
        return mu, slope, other

    def curvature(self, eta: Vector) -> Vector:
        return -CLogLog().curvature(-eta)

    def rates(self, eta: Vector) -> Rates:
        mirrored = CLogLog().rates(-eta)
        return Rates(mirrored.log_rest, mirrored.log_mu, mirrored.down, mirrored.up, -mirrored.bend)

    def valid(self, eta: Vector) -> Mask:
        return _everywhere(eta)


@final
@dataclass(frozen=True)
class Cauchit:
    """mu = 1/2 + atan(eta) / pi, the distribution function of Cauchy: far out, outcomes against the odds stay likely."""

    name: str = "cauchit"
    formula: str = "tan(pi (mu - 1/2))"
    restricts: bool = False
    mean_range: tuple[float, float] = (0.0, 1.0)

    def link(self, mu: Vector) -> Vector:
        # each tangent where its argument is small; mu - 1/2 and 1 - mu are exact there
        beside = np.where(mu < 0.5, mu, 1.0 - mu)
        with np.errstate(divide="ignore"):
            outer = np.where(mu < 0.5, -1.0, 1.0) / np.tan(np.pi * beside)
        return np.where(np.abs(mu - 0.5) < 0.25, np.tan(np.pi * (mu - 0.5)), outer)

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        with np.errstate(over="ignore"):
            slope = 1.0 / (np.pi * (1.0 + eta * eta))
        # the angle of (-eta, 1) and of (eta, 1): no tail is a difference
        return np.arctan2(1.0, -eta) / np.pi, slope, np.arctan2(1.0, eta) / np.pi

    def curvature(self, eta: Vector) -> Vector:
        _, slope, _ = self.inverse(eta)
        return slope * self._bend(eta)

    def rates(self, eta: Vector) -> Rates:
        mu, slope, rest = self.inverse(eta)
        return Rates(_log_beside(mu, rest), _log_beside(rest, mu), slope / mu, slope / rest, self._bend(eta))

    def _bend(self, eta: Vector) -> Vector:
        with np.errstate(over="ignore"):
            return -2.0 * eta / (1.0 + eta * eta)

    def valid(self, eta: Vector) -> Mask:
        return _everywhere(eta)


@final
@dataclass(frozen=True)
class LogComplement:
    """mu = 1 - exp(eta): log with the two outcomes exchanged, so that exp(coefficient) multiplies the chance of failure
    and the mean falls as eta rises. A probability has eta < 0."""

    name: str = "log_complement"
    formula: str = "log(1 - mu)"
    restricts: bool = False
    mean_range: tuple[float, float] = (-np.inf, 1.0)

    def link(self, mu: Vector) -> Vector:
        with np.errstate(divide="ignore"):
            return np.log1p(-mu)

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        other, slope, mu = Log().inverse(eta)
        return mu, -slope, other

    def curvature(self, eta: Vector) -> Vector:
        return -Log().curvature(eta)

    def rates(self, eta: Vector) -> Rates:
        mirrored = Log().rates(eta)
        return Rates(mirrored.log_rest, mirrored.log_mu, -mirrored.down, -mirrored.up, mirrored.bend)

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
            return mu, -mu * mu, (eta - 1.0) / eta if rest else mu

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


@final
@dataclass(frozen=True)
class InverseSquare:
    """mu = 1 / sqrt(eta) for eta > 0."""

    name: str = "inverse_square"
    formula: str = "1 / mu^2"
    restricts: bool = True
    mean_range: tuple[float, float] = (0.0, np.inf)

    def link(self, mu: Vector) -> Vector:
        with np.errstate(divide="ignore", over="ignore"):
            # mu * mu would have no digits where it is subnormal
            return (1.0 / mu) ** 2

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(eta)
            mu = 1.0 / root
            return mu, -0.5 * mu / eta, (eta - 1.0) / (root * (root + 1.0)) if rest else mu

    def curvature(self, eta: Vector) -> Vector:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 0.75 / (np.sqrt(eta) * eta * eta)

    def rates(self, eta: Vector) -> Rates:
        mu, slope, rest = self.inverse(eta)
        return _divided(mu, slope, rest, self.curvature(eta))

    def valid(self, eta: Vector) -> Mask:
        return np.isfinite(eta) & (eta > 0)


@final
@dataclass(frozen=True)
class Power:
    """mu = eta^(1 / exponent) for eta > 0; `power` makes them."""

    exponent: float
    restricts: bool = True
    mean_range: tuple[float, float] = (0.0, np.inf)

    @property
    def name(self) -> str:
        return f"power({self.exponent!r})"

    @property
    def formula(self) -> str:
        return f"mu^{self.exponent!r}"

    def link(self, mu: Vector) -> Vector:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            return np.asarray(mu**self.exponent)

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            mu = np.asarray(eta ** (1.0 / self.exponent))
            return mu, mu / (self.exponent * eta), -np.expm1(np.log(eta) / self.exponent) if rest else mu

    def curvature(self, eta: Vector) -> Vector:
        slope = self.inverse(eta, False)[1]
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            return slope * ((1.0 - self.exponent) / (self.exponent * eta))

    def rates(self, eta: Vector) -> Rates:
        mu, slope, rest = self.inverse(eta)
        return _divided(mu, slope, rest, self.curvature(eta))

    def valid(self, eta: Vector) -> Mask:
        return np.isfinite(eta) & (eta > 0)


def power(exponent: float) -> Link:
    """The link g(mu) = mu^exponent of positive means; exponent 0 is the log link, its limit up to scale and shift, and 1 the
    identity.

    -1 is not the inverse, which has negative means, too. For a family of positive means it is the same model, as are 0.5
    and sqrt, -2 and inverse_square. DesignError where the exponent is no finite number.
    Source: McCullagh and Nelder (1989), section 2.2.4 (the power family of links).
    """
    if isinstance(exponent, bool) or not isinstance(exponent, (int, float, np.integer, np.floating)):
        raise DesignError(f"the exponent of a power link is a number, such as power(0.5), not {exponent!r}")
    if not np.isfinite(exponent):
        raise DesignError(f"the exponent of a power link is a finite number, such as power(0.5), not {exponent!r}")
    if exponent == 1:
        return Identity()
    return Log() if exponent == 0 else Power(float(exponent))


LINKS: dict[str, Any] = {
    "identity": Identity,
    "log": Log,
    "logit": Logit,
    "probit": Probit,
    "cloglog": CLogLog,
    "loglog": LogLog,
    "cauchit": Cauchit,
    "log_complement": LogComplement,
    "inverse": Inverse,
    "inverse_square": InverseSquare,
    "sqrt": Sqrt,
}
# Links of a number, written with it: power(0.5).
MAKERS: dict[str, Callable[[float], Link]] = {"power": power}
