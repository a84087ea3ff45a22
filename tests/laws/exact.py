"""The formulas of the model written a second time: in mpmath, and as distributions of scipy.stats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf
from scipy import stats

from daskglm.model.counts import Geometric, NegativeBinomial
from daskglm.model.families import Binomial, Exponential, Gamma, Gaussian, InverseGaussian, Poisson
from daskglm.model.links import LINKS

Vector = npt.NDArray[np.float64]

# Families of a number whose density is written down a second time below; by their text, ready to be made.
FAMILIES: dict[str, Callable[[], Any]] = {
    "gaussian": Gaussian,
    "binomial": Binomial,
    "poisson": Poisson,
    "gamma": Gamma,
    "exponential": Exponential,
    "inverse_gaussian": InverseGaussian,
    "negative_binomial(theta=1.75)": lambda: NegativeBinomial(1.75),
    "geometric": Geometric,
}

EPS = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)

# Larger means overflow in (y - mu)^2.
SQUARABLE = 1e150

# Digits: exp(-800) is 10^-348, and 1 - mu must still be seen beside 1.
DIGITS = 420
LEAST = mpf(10) ** -390

INVERSES: dict[str, Callable[[Any], Any]] = {
    "identity": lambda eta: eta,
    "log": mp.exp,
    "logit": lambda eta: 1 / (1 + mp.exp(-eta)),
    "probit": mp.ncdf,
    "cloglog": lambda eta: 1 - mp.exp(-mp.exp(eta)),
    "loglog": lambda eta: mp.exp(-mp.exp(-eta)),
    "cauchit": lambda eta: mpf(1) / 2 + mp.atan(eta) / mp.pi,
    "log_complement": lambda eta: 1 - mp.exp(eta),
    "inverse": lambda eta: 1 / eta,
    "inverse_square": lambda eta: 1 / mp.sqrt(eta),
    "sqrt": lambda eta: eta**2,
}


def xlogy(x: Any, y: Any) -> Any:
    """x log y, 0 where x = 0."""
    return mpf(0) if x == 0 else x * mp.log(y)


# Minus the log density at phi = w = 1 up to a function of y, as a function of (y, mu).
LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "gaussian": lambda y, mu: (y - mu) ** 2 / 2,
    "binomial": lambda y, mu: -xlogy(y, mu) - xlogy(1 - y, 1 - mu),
    "poisson": lambda y, mu: mu - xlogy(y, mu),
    "gamma": lambda y, mu: y / mu + mp.log(mu),
    "exponential": lambda y, mu: y / mu + mp.log(mu),
    "inverse_gaussian": lambda y, mu: y / (2 * mu**2) - 1 / mu,
    "negative_binomial(theta=1.75)": lambda y, mu: (y + mpf("1.75")) * mp.log(mu + mpf("1.75")) - xlogy(y, mu),
    "geometric": lambda y, mu: (y + 1) * mp.log(mu + 1) - xlogy(y, mu),
}

VARIANCES: dict[str, Callable[[Any], Any]] = {
    "gaussian": lambda mu: mpf(1),
    "binomial": lambda mu: mu * (1 - mu),
    "poisson": lambda mu: mu,
    "gamma": lambda mu: mu**2,
    "exponential": lambda mu: mu**2,
    "inverse_gaussian": lambda mu: mu**3,
    "negative_binomial(theta=1.75)": lambda mu: mu + mu**2 / mpf("1.75"),
    "geometric": lambda mu: mu + mu**2,
}

# The distribution of (multiple of y) where y has mean mu, dispersion phi and weight w, and the multiple.
DISTRIBUTIONS: dict[str, Callable[[Any, float, Any], tuple[Any, Any]]] = {
    "gaussian": lambda mu, phi, w: (stats.norm(mu, np.sqrt(phi / w)), 1.0),
    "binomial": lambda mu, phi, w: (stats.binom(w, mu), w),
    "poisson": lambda mu, phi, w: (stats.poisson(w * mu), w),
    "gamma": lambda mu, phi, w: (stats.gamma(w / phi, scale=mu * phi / w), 1.0),
    "exponential": lambda mu, phi, w: (stats.gamma(w, scale=mu / w), 1.0),
    "inverse_gaussian": lambda mu, phi, w: (stats.invgauss(mu * phi / w, scale=w / phi), 1.0),
    "negative_binomial(theta=1.75)": lambda mu, phi, w: (stats.nbinom(w * 1.75, 1.75 / (1.75 + mu)), w),
    "geometric": lambda mu, phi, w: (stats.nbinom(w, 1.0 / (1.0 + mu)), w),
}

# Responses, possible means of moderate size, and means near the ends of their range.
RESPONSES: dict[str, tuple[float, ...]] = {
    "gaussian": (-3.5, 0.0, 0.25, 40.0),
    "binomial": (0.0, 1.0),
    "poisson": (0.0, 1.0, 2.0, 17.0, 400.0),
    "gamma": (1e-3, 0.5, 1.0, 30.0),
    "exponential": (1e-3, 0.5, 1.0, 30.0),
    "inverse_gaussian": (0.02, 0.5, 1.0, 30.0),
    "negative_binomial(theta=1.75)": (0.0, 1.0, 2.0, 17.0, 400.0),
    "geometric": (0.0, 1.0, 2.0, 17.0, 400.0),
}
MEANS: dict[str, tuple[float, ...]] = {
    "gaussian": (-2.5, 0.125, 1.0, 7.0),
    "binomial": (0.02, 0.3, 0.5, 0.97),
    "poisson": (0.05, 1.0, 3.3, 80.0),
    "gamma": (0.05, 1.0, 3.3, 80.0),
    "exponential": (0.05, 1.0, 3.3, 80.0),
    "inverse_gaussian": (0.25, 1.0, 3.3, 20.0),
    "negative_binomial(theta=1.75)": (0.05, 1.0, 3.3, 80.0),
    "geometric": (0.05, 1.0, 3.3, 80.0),
}
EXTREME_MEANS: dict[str, tuple[float, ...]] = {
    "gaussian": (-1e9, 1e-9, 1e9),
    "binomial": (1e-120, 1e-12, 1.0 - 2.0**-40),
    "poisson": (1e-12, 1e9),
    "gamma": (1e-12, 1e9),
    "exponential": (1e-12, 1e9),
    "inverse_gaussian": (1e-9, 1e9),
    "negative_binomial(theta=1.75)": (1e-12, 1e9),
    "geometric": (1e-12, 1e9),
}
EXTREME_ETAS = (-800.0, -700.0, -40.0, -36.0, -20.0, -1e-3, 1e-3, 3.0, 6.75, 20.0, 36.0, 40.0, 700.0, 800.0)

PAIRS = [(family, link) for family in FAMILIES for link in FAMILIES[family]().links if link in LINKS]


def mean_of(link: str, eta: float) -> Any:
    """The mean at eta, or None where there is none."""
    # they are the branch of eta > 0
    if link in ("sqrt", "inverse_square") and eta <= 0:
        return None
    try:
        return INVERSES[link](mpf(eta))
    except ZeroDivisionError:
        return None


def possible(family: str, link: str, eta: float) -> bool:
    """Whether eta gives a mean that the family can have."""
    mean = mean_of(link, eta)
    low, high = FAMILIES[family]().mean_range
    return mean is not None and low < mean < high


def etas_of(family: str, link: str, means: tuple[float, ...]) -> list[float]:
    """Linear predictors near which a pair has those means, as far as the link can give them."""
    low, high = LINKS[link]().mean_range
    eta = LINKS[link]().link(np.array([mean for mean in means if low < mean < high]))
    return [float(v) for v in eta if np.isfinite(v) and possible(family, link, float(v))]


def moderate_etas(family: str, link: str) -> list[float]:
    """Linear predictors of means of moderate size."""
    return etas_of(family, link, MEANS[family])


def extreme_etas(family: str, link: str) -> list[float]:
    """Linear predictors of means near the ends of their range: of probabilities as far as DIGITS tell them from 0 and 1,
    of other means as long as they and their variance are ordinary float64."""
    found = etas_of(family, link, EXTREME_MEANS[family])
    for eta in EXTREME_ETAS:
        if not possible(family, link, eta):
            continue
        mean = mean_of(link, eta)
        if FAMILIES[family]().bounded:
            ordinary = min(mean, 1 - mean) > LEAST
        else:
            ordinary = abs(mean) < SQUARABLE and TINY < VARIANCES[family](mean) < 1 / TINY
        if ordinary:
            found.append(eta)
    return found


def responses_with_measure(family: str, mu: float) -> tuple[Vector, Vector]:
    """Points y and weights dy with sum f(y) dy = the integral of f against counting or Lebesgue measure.

    Counts far into the tail; for densities the trapezoidal rule on the whole line, of y or of log y, whose error falls
    faster than any power of the step for analytic integrands.
    """
    if family == "binomial":
        return np.array([0.0, 1.0]), np.ones(2)
    if family in ("negative_binomial(theta=1.75)", "geometric"):
        counts = np.arange(np.ceil(60.0 * (mu + 1.0)))
        return counts, np.ones_like(counts)
    if family == "poisson":
        counts = np.arange(np.ceil(mu + 20.0 * np.sqrt(mu) + 50.0))
        return counts, np.ones_like(counts)
    if family == "gaussian":
        points = mu + np.linspace(-14.0, 14.0, 561)
        return points, np.full_like(points, 0.05)
    if family in ("gamma", "exponential"):
        points = mu * np.exp(np.linspace(-45.0, 6.0, 2041))
        return points, points * 0.025
    if family == "inverse_gaussian":
        # both tails of log y fall doubly exponentially
        points = mu * np.exp(np.linspace(-9.0, 9.0, 3601))
        return points, points * 0.005
    raise KeyError(f"write down where the density of {family} lives")
