"""The formulas of the model written a second time: in mpmath, and as distributions of scipy.stats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf
from scipy import stats

from daskglm.model import links
from daskglm.model.counts import Geometric, NegativeBinomial
from daskglm.model.families import Binomial, Exponential, Gamma, Gaussian, InverseGaussian, Poisson
from daskglm.model.pairs import written
from daskglm.model.power import Tweedie
from tests.laws.densities import CompoundPoisson, TiltedStable

Vector = npt.NDArray[np.float64]

# Powers of Tweedie families; those between 1 and 2 have a mass at 0, and below 0 there is none whose density is used.
POWERS = (1.2, 1.5, 1.9, 2.5, 3, 2, 0, -0.5)
COMPOUND = (1.2, 1.5, 1.9)


def tweedie(power: float) -> str:
    """Its text."""
    return f"tweedie(power={power})"


def of_powers(value: Callable[[float], Any], powers: tuple[float, ...] = POWERS) -> dict[str, Any]:
    """Something of each Tweedie family, by its text."""
    return {tweedie(power): value(power) for power in powers}


# Families of a number whose formulas are written down a second time below; by their text, ready to be made.
FAMILIES: dict[str, Callable[[], Any]] = {
    "gaussian": Gaussian,
    "binomial": Binomial,
    "poisson": Poisson,
    "gamma": Gamma,
    "exponential": Exponential,
    "inverse_gaussian": InverseGaussian,
    "negative_binomial(theta=1.75)": lambda: NegativeBinomial(1.75),
    "geometric": Geometric,
    "gamma(shape=2)": lambda: Gamma(2),
    **of_powers(lambda p: lambda: Tweedie(p)),
}
# Links by their text, ready to be made.
LINKS: dict[str, Callable[[], Any]] = {**links.LINKS, "power(0.3)": lambda: links.power(0.3)}

EPS = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)

# Larger means overflow in (y - mu)^2.
SQUARABLE = 1e150

# Digits: exp(-800) is 10^-348, and 1 - mu must still be seen beside 1.
DIGITS = 420
# Where a mean stands beside no constant, relative accuracy is enough.
FEWER_DIGITS = 80
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
    "power(0.3)": lambda eta: eta ** (1 / mpf(0.3)),
}


def xlogy(x: Any, y: Any) -> Any:
    """x log y, 0 where x = 0."""
    return mpf(0) if x == 0 else x * mp.log(y)


def _power_loss(power: float) -> Callable[[Any, Any], Any]:
    p = mpf(power)
    if power == 2:
        return lambda y, mu: y / mu + mp.log(mu)
    return lambda y, mu: mu ** (2 - p) / (2 - p) - (y * mu ** (1 - p) / (1 - p) if y != 0 else 0)


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
    "gamma(shape=2)": lambda y, mu: y / mu + mp.log(mu),
    **of_powers(_power_loss),
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
    "gamma(shape=2)": lambda mu: mu**2,
    **of_powers(lambda p: lambda mu: mu ** mpf(p)),
}


def _of_power(power: float) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    if power in COMPOUND:
        return lambda mu, phi, w: (CompoundPoisson(mu, phi / w, power), 1.0)
    if power == 2.5:
        return lambda mu, phi, w: (TiltedStable(mu, phi / w), 1.0)
    return {
        0: lambda mu, phi, w: (stats.norm(mu, np.sqrt(phi / w)), 1.0),
        2: lambda mu, phi, w: (stats.gamma(w / phi, scale=mu * phi / w), 1.0),
        3: lambda mu, phi, w: (stats.invgauss(mu * phi / w, scale=w / phi), 1.0),
        -0.5: lambda mu, phi, w: (stats.norm(mu, np.sqrt(phi / w / np.sqrt(np.maximum(mu, 0.0)))), 1.0),
    }[power]


# The distribution of (multiple of y) where y has mean mu, dispersion phi and weight w, and the multiple. Of tweedie(-0.5)
# another one with the same mean and variance: its own density is held in tests/model/test_tweedie.py.
DISTRIBUTIONS: dict[str, Callable[[Any, float, Any], tuple[Any, Any]]] = {
    "gaussian": lambda mu, phi, w: (stats.norm(mu, np.sqrt(phi / w)), 1.0),
    "binomial": lambda mu, phi, w: (stats.binom(w, mu), w),
    "poisson": lambda mu, phi, w: (stats.poisson(w * mu), w),
    "gamma": lambda mu, phi, w: (stats.gamma(w / phi, scale=mu * phi / w), 1.0),
    "exponential": lambda mu, phi, w: (stats.gamma(w / phi, scale=mu * phi / w), 1.0),
    "inverse_gaussian": lambda mu, phi, w: (stats.invgauss(mu * phi / w, scale=w / phi), 1.0),
    "negative_binomial(theta=1.75)": lambda mu, phi, w: (stats.nbinom(w * 1.75, 1.75 / (1.75 + mu)), w),
    "geometric": lambda mu, phi, w: (stats.nbinom(w, 1.0 / (1.0 + mu)), w),
    "gamma(shape=2)": lambda mu, phi, w: (stats.gamma(w / phi, scale=mu * phi / w), 1.0),
    **of_powers(_of_power),
}
WITH_DENSITY = [name for name in FAMILIES if name != tweedie(-0.5)]


def exact_log_density(family: str, y: Vector, mu: Any, phi: float = 1.0, w: Any = 1.0) -> Vector:
    """log p(y; mu, phi / w), of counts that of their total w y."""
    distribution, multiple = DISTRIBUTIONS[family](mu, phi, w)
    if FAMILIES[family]().discrete:
        # the product is a count up to rounding
        return np.asarray(distribution.logpmf(np.round(multiple * y)))
    return np.asarray(distribution.logpdf(y))


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
    "gamma(shape=2)": (1e-3, 0.5, 1.0, 30.0),
    **of_powers(lambda p: (0.0, 1e-3, 0.5, 1.0, 30.0), COMPOUND),
    **of_powers(lambda p: (0.02, 0.5, 1.0, 30.0), (2.5, 3, 2)),
    **of_powers(lambda p: (-3.5, 0.0, 0.25, 40.0), (0, -0.5)),
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
    "gamma(shape=2)": (0.05, 1.0, 3.3, 80.0),
    **of_powers(lambda p: (0.05, 1.0, 3.3, 80.0), (*COMPOUND, 2)),
    **of_powers(lambda p: (0.25, 1.0, 3.3, 20.0), (2.5, 3, -0.5)),
    **of_powers(lambda p: (-2.5, 0.125, 1.0, 7.0), (0,)),
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
    "gamma(shape=2)": (1e-12, 1e9),
    **of_powers(lambda p: (1e-9, 1e9)),
}
EXTREME_ETAS = (-800.0, -700.0, -40.0, -36.0, -20.0, -1e-3, 1e-3, 3.0, 6.75, 20.0, 36.0, 40.0, 700.0, 800.0)

PAIRS = [(family, link) for family in FAMILIES for link in LINKS if written(link)[0] in FAMILIES[family]().links]


def mean_of(link: str, eta: float) -> Any:
    """The mean at eta, or None where there is none."""
    # they are the branch of eta > 0
    if link in ("sqrt", "inverse_square", "power(0.3)") and eta <= 0:
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
            # a variance that grows towards 0 has a slope that grows faster
            ordinary = ordinary and (family != tweedie(-0.5) or abs(mean) > TINY**0.5)
        if ordinary:
            found.append(eta)
    return found


def responses_with_measure(family: str, mu: float) -> tuple[Vector, Vector]:
    """Points y and weights dy with sum f(y) dy = the integral of f against counting or Lebesgue measure.

    Counts far into the tail; a mass at 0; for densities the trapezoidal rule on the whole line, of y or of log y, whose error falls
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
    if family in NEAR_NORMAL:
        points = mu + NEAR_NORMAL[family](mu) * np.linspace(-14.0, 14.0, 561)
        return points, np.full_like(points, 0.05 * NEAR_NORMAL[family](mu))
    low, high, step = LOG_RANGES[family]
    points = mu * np.exp(np.arange(low, high, step))
    measure = points * step
    if FAMILIES[family]().in_support(np.zeros(1))[0]:
        # the mass at 0
        return np.append(0.0, points), np.append(1.0, measure)
    return points, measure


# Standard deviations of densities that fall off as the normal one.
NEAR_NORMAL: dict[str, Callable[[float], float]] = {
    "gaussian": lambda mu: 1.0,
    tweedie(0): lambda mu: 1.0,
    tweedie(-0.5): lambda mu: mu**-0.25,
}
# Range and step of log(y / mu): near 0 densities fall as a power of y, or doubly exponentially.
LOG_RANGES: dict[str, tuple[float, float, float]] = {
    **dict.fromkeys(("gamma", "exponential", "gamma(shape=2)", tweedie(2)), (-45.0, 6.0, 0.025)),
    **dict.fromkeys(("inverse_gaussian", tweedie(3)), (-9.0, 9.0, 0.005)),
    tweedie(1.2): (-12.0, 5.0, 0.0125),
    tweedie(1.5): (-40.0, 6.0, 0.025),
    tweedie(1.9): (-330.0, 6.0, 0.05),
    tweedie(2.5): (-14.0, 8.0, 0.005),
}
