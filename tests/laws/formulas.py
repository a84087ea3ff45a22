"""Losses and their derivatives in the linear predictor, written down anew from densities and quasi-scores, in plain NumPy.

Nothing here knows of the package: what is right is decided by these lines and a dense design matrix. A loss is minus the
log density at phi = w = 1 up to a function of the response alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# -- links -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inverse:
    """mu, dmu/deta and 1 - mu as functions of eta, and the open interval of eta on which the link is one to one."""

    mu: Callable[[Vector], Vector]
    slope: Callable[[Vector], Vector]
    rest: Callable[[Vector], Vector]
    low: float = -np.inf


def power(k: float) -> Inverse:
    """g(mu) = mu^k for positive means."""
    return Inverse(
        lambda e: e ** (1.0 / k), lambda e: e ** (1.0 / k - 1.0) / k, lambda e: -special.expm1(np.log(e) / k), 0.0
    )


def _density(e: Vector) -> Vector:
    return np.exp(-0.5 * e * e) / np.sqrt(2.0 * np.pi)


def _cauchy(e: Vector) -> Vector:
    """1/2 + atan(e) / pi, by the small angle where e is far below 0."""
    return np.where(e < -1.0, np.arctan(-1.0 / np.minimum(e, -1.0)), 0.5 * np.pi + np.arctan(e)) / np.pi


INVERSES: dict[str, Inverse] = {
    "identity": Inverse(lambda e: e, np.ones_like, lambda e: 1.0 - e),
    "log": Inverse(np.exp, np.exp, lambda e: -np.expm1(e)),
    "logit": Inverse(special.expit, lambda e: special.expit(e) * special.expit(-e), lambda e: special.expit(-e)),
    "probit": Inverse(special.ndtr, _density, lambda e: special.ndtr(-e)),
    "cloglog": Inverse(lambda e: -np.expm1(-np.exp(e)), lambda e: np.exp(e - np.exp(e)), lambda e: np.exp(-np.exp(e))),
    "loglog": Inverse(
        lambda e: np.exp(-np.exp(-e)), lambda e: np.exp(-e - np.exp(-e)), lambda e: -np.expm1(-np.exp(-e))
    ),
    "cauchit": Inverse(_cauchy, lambda e: 1.0 / (np.pi * (1.0 + e * e)), lambda e: _cauchy(-e)),
    "log_complement": Inverse(lambda e: -np.expm1(e), lambda e: -np.exp(e), np.exp),
    "inverse": Inverse(lambda e: 1.0 / e, lambda e: -1.0 / e**2, lambda e: 1.0 - 1.0 / e),
    "inverse_square": power(-2.0),
    "sqrt": power(0.5),
}


def inverse_of(link: str) -> Inverse:
    """The inverse of a link by its text, "power(0.3)" among them."""
    return power(float(link[6:-1])) if link.startswith("power(") else INVERSES[link]


# -- distributions of a number -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """variance(mu, 1 - mu), loss(y, mu, 1 - mu) with dloss/dmu = -(y - mu) / V, the range of means; known: the dispersion
    is 1.
    """

    variance: Callable[[Vector, Vector], Vector]
    loss: Callable[[Vector, Vector, Vector], Vector]
    low: float = 0.0
    high: float = np.inf
    known: bool = False


def _to_the(p: float, low: float = 0.0, known: bool = False) -> Law:
    """V(mu) = mu^p."""
    if p == 0:
        return Law(lambda mu, _: np.ones_like(mu), lambda y, mu, _: 0.5 * (y - mu) ** 2, low, np.inf, known)
    if p == 1:
        return Law(lambda mu, _: mu, lambda y, mu, _: mu - special.xlogy(y, mu), low, np.inf, known)
    if p == 2:
        return Law(lambda mu, _: mu * mu, lambda y, mu, _: y / mu + np.log(mu), low, np.inf, known)
    return Law(
        lambda mu, _: mu**p,
        lambda y, mu, _: mu ** (2.0 - p) / (2.0 - p) - y * mu ** (1.0 - p) / (1.0 - p),
        low, np.inf, known,
    )  # fmt: skip


def counts(theta: float) -> Law:
    """V(mu) = mu + mu^2 / theta."""
    if np.isinf(theta):
        return _to_the(1, known=True)
    return Law(
        lambda mu, _: mu + mu * mu / theta,
        lambda y, mu, _: (y + theta) * np.log1p(mu / theta) - special.xlogy(y, mu),
        known=True,
    )


def tweedie(p: float) -> Law:
    """V(mu) = mu^p, with means of any sign for p = 0."""
    return _to_the(p, -np.inf if p == 0 else 0.0)


def _chance(known: bool) -> Law:
    return Law(
        lambda mu, rest: mu * rest,
        lambda y, mu, rest: -special.xlogy(y, mu) - special.xlogy(1.0 - y, rest),
        0.0, 1.0, known,
    )  # fmt: skip


def overdispersed_variance(mu: Vector) -> Vector:
    """V(mu) = mu + mu^2 / 2, whose quasi-likelihood is the negative binomial's of theta = 2."""
    return mu + 0.5 * mu * mu


def secant_variance(mu: Vector) -> Vector:
    """V(mu) = 1 + mu^2, for means of any sign."""
    return 1.0 + mu * mu


LAWS: dict[str, Law] = {
    "gaussian": _to_the(0, -np.inf),
    "binomial": _chance(True),
    "poisson": _to_the(1, known=True),
    "gamma": _to_the(2),
    "gamma(shape=2)": _to_the(2, known=True),
    "exponential": _to_the(2, known=True),
    "inverse_gaussian": _to_the(3),
    "geometric": counts(1.0),
    "quasipoisson": _to_the(1),
    "quasibinomial": _chance(False),
    'quasi(variance="constant")': _to_the(0, -np.inf),
    'quasi(variance="mu")': _to_the(1),
    'quasi(variance="mu^2")': _to_the(2),
    'quasi(variance="mu^3")': _to_the(3),
    'quasi(variance="mu(1-mu)")': _chance(False),
    "overdispersed": Law(lambda mu, _: overdispersed_variance(mu), counts(2.0).loss),
    "secant": Law(
        lambda mu, _: secant_variance(mu), lambda y, mu, _: 0.5 * np.log1p(mu * mu) - y * np.arctan(mu), -np.inf
    ),
}


@dataclass(frozen=True)
class Rows:
    """Per row at eta: loss, score = -dloss/deta, expected weight, mean and variance; whether eta has a mean."""

    loss: Vector
    score: Vector
    weight: Vector
    mu: Vector
    variance: Vector
    possible: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """A law and an inverse link: score = (y - mu) mu' / V, weight = mu'^2 / V."""

    law: Law
    inverse: Inverse
    link: str

    @property
    def known(self) -> bool:
        """Whether the dispersion is 1."""
        return self.law.known

    def rows(self, y: Vector, eta: Vector) -> Rows:
        """Each row's terms."""
        with np.errstate(all="ignore"):
            mu, slope, rest = self.inverse.mu(eta), self.inverse.slope(eta), self.inverse.rest(eta)
            variance = self.law.variance(mu, rest)
            low, high = self.domain()
            possible = np.isfinite(eta) & (eta > low) & (eta < high)
            if self.law.high == 1.0:
                # by both tails, so that neither a mean of 0 nor one of 1 to the last bit is divided by
                up, down = np.where(y == 0.0, 0.0, y * slope / mu), np.where(y == 1.0, 0.0, (1.0 - y) * slope / rest)
                return Rows(self.law.loss(y, mu, rest), up - down, slope * slope / variance, mu, variance, possible)
            score = (y - mu) * slope / variance
            return Rows(self.law.loss(y, mu, rest), score, slope * slope / variance, mu, variance, possible)

    def limits(self) -> tuple[float, float]:
        """The mean as eta -> -infinity and eta -> infinity; NaN where eta does not go there or the mean has no limit."""
        down, up = {
            "log": (0.0, np.nan), "log_complement": (1.0, np.nan), "inverse_square": (np.nan, 0.0),
            "inverse": (0.0 if self.law.low < 0.0 else np.nan, 0.0),
            **dict.fromkeys(("logit", "probit", "cloglog", "loglog", "cauchit"), (0.0, 1.0)),
        }.get(self.link, (np.nan, 0.0 if self.link.startswith("power(-") else np.nan))  # fmt: skip
        return down, up

    def recession(self, y: Vector) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Rows whose loss never rises as eta -> infinity, and as eta -> -infinity."""
        positive = self.link in ("log", "inverse_square") or self.link.startswith("power(")
        low, high = (
            max(self.law.low, 0.0) if positive else self.law.low,
            1.0 if "complement" in self.link else self.law.high,
        )
        below, above = (y <= low if end == low else y >= high if end == high else y == end for end in self.limits())
        return above, below

    def domain(self) -> tuple[float, float]:
        """The open interval of eta that has means."""
        low, high = self.law.low, self.law.high
        falls = self.link in ("inverse", "inverse_square") or self.link.startswith("power(-")
        return {
            "identity": (low, high),
            "log": (-np.inf, 0.0 if high == 1.0 else np.inf),
            "log_complement": (-np.inf, 0.0 if low == 0.0 else np.inf),
            "inverse": (-np.inf if low < 0.0 else 1.0 if high == 1.0 else 0.0, np.inf),
        }.get(self.link, (max(self.inverse.low, 1.0 if falls and high == 1.0 else -np.inf), self._last(falls)))

    def _last(self, falls: bool) -> float:
        """The upper end of eta where it is that of a power of a mean below 1."""
        return 1.0 if self.law.high == 1.0 and not falls and self.inverse.low == 0.0 else np.inf


@dataclass(frozen=True)
class Natural:
    """An exponential family at its natural parameter: loss = log Z(eta) - T(y) eta, score = T - mean, weight = variance."""

    log_partition: Callable[[Vector], Vector]
    mean: Callable[[Vector], Vector]
    variance: Callable[[Vector], Vector]
    high: float = np.inf
    ends: tuple[float, float] = (np.nan, np.nan)
    known: bool = True

    def rows(self, y: Vector, eta: Vector) -> Rows:
        """Each row's terms."""
        with np.errstate(all="ignore"):
            mu, variance = self.mean(eta), self.variance(eta)
            possible = np.isfinite(eta) & (eta < self.high)
            return Rows(self.log_partition(eta) - y * eta, y - mu, variance, mu, variance, possible)

    def recession(self, y: Vector) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Rows whose response is the least or the greatest there is."""
        down, up = self.ends
        return y >= up, y <= down

    def domain(self) -> tuple[float, float]:
        """The natural space."""
        return -np.inf, self.high


def _truncated_mean(t: Vector) -> Vector:
    rate = np.exp(t)
    return rate / -np.expm1(-rate)


def _truncated_variance(t: Vector) -> Vector:
    mu = _truncated_mean(t)
    rate = np.exp(t)
    # mu (1 + rate - mu), by its series where rate is small
    return np.where(rate < 1e-4, 0.5 * rate + rate * rate / 6.0, mu * (1.0 + rate - mu))


NATURAL: dict[str, Natural] = {
    "own bernoulli": Natural(
        lambda t: np.logaddexp(0.0, t), special.expit, lambda t: special.expit(t) * special.expit(-t), ends=(0.0, 1.0)
    ),
    "own poisson": Natural(np.exp, np.exp, np.exp, ends=(0.0, np.nan)),
    "own exponential": Natural(lambda t: -np.log(-t), lambda t: -1.0 / t, lambda t: 1.0 / t**2, high=0.0),
    "own truncated poisson": Natural(
        lambda t: np.exp(t) + np.log(-np.expm1(-np.exp(t))), _truncated_mean, _truncated_variance, ends=(1.0, np.nan)
    ),
}


# -- several classes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassRows:
    """Per row: loss (n,), score (n, q) in the predictors, expected weight (n, q, q)."""

    loss: Vector
    score: Matrix
    weight: npt.NDArray[np.float64]


def baseline(codes: npt.NDArray[np.intp], eta: Matrix) -> ClassRows:
    """log(mu_k / mu_0) = eta_k (n, q)."""
    full = np.hstack([np.zeros((len(eta), 1)), eta])
    log_mu = full - special.logsumexp(full, axis=1, keepdims=True)
    mu = np.exp(log_mu)
    seen = np.eye(full.shape[1])[codes]
    weight = np.einsum("ni,ij->nij", mu, np.eye(full.shape[1])) - mu[:, :, None] * mu[:, None, :]
    return ClassRows(-(seen * log_mu).sum(axis=1), (seen - mu)[:, 1:], weight[:, 1:, 1:])


def cumulative(link: str, codes: npt.NDArray[np.intp], eta: Matrix) -> ClassRows:
    """P(y <= k) = F(eta_k), eta (n, q) rising in k; every chance is a difference in the tail where it is small."""
    inverse = INVERSES[link]
    n, q = eta.shape
    with np.errstate(all="ignore"):
        below = np.hstack([np.zeros((n, 1)), inverse.mu(eta), np.ones((n, 1))])
        above = np.hstack([np.ones((n, 1)), inverse.rest(eta), np.zeros((n, 1))])
        chance = np.where(below[:, 1:] < 0.5, np.diff(below, axis=1), -np.diff(above, axis=1))
        slope = inverse.slope(eta)
        jacobian = np.zeros((n, q + 1, q))
        for k in range(q):
            jacobian[:, k, k], jacobian[:, k + 1, k] = slope[:, k], -slope[:, k]
        each = jacobian / chance[:, :, None]
        rows = np.arange(n)
        weight = np.einsum("nji,njk->nik", jacobian, np.where(jacobian == 0.0, 0.0, each))
        return ClassRows(-np.log(chance[rows, codes]), each[rows, codes], weight)
