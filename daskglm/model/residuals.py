"""What residuals need of a family beyond its mean and variance: Anscombe's transform, and its distribution function.

Both are tables by the name of a family. Sources: McCullagh and Nelder (1989), section 2.4.2; Pierce and Schafer (1986), JASA
81; Dunn and Smyth (1996), Randomized quantile residuals; Shuster (1968) for the inverse Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Half steps and reach of the double exponential rule: an integrand that is a power at its ends is right to rounding.
STEP, REACH = 1.0 / 16.0, 3.6
# w y is a count where it is this close to one.
WHOLE = 1e-9
# Terms of a sum over jumps are left out where a Poisson number, so many deviations and few off, is rarer than 1e-30.
DEVIATIONS, FEW = 12.0, 18.0
# Panels of an integral of a density, their nodes, their growth, and the part of the sum at which it is complete.
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(16)
GROWTH, COMPLETE, PANELS = 1.1, 1e-17, 400


# -- Anscombe ------------------------------------------------------------------------------------------------------------


def anscombe(family: Any, y: Vector, mu: Vector, rest: Vector) -> Vector:
    """(A(y) - A(mu)) / V(mu)^(1/6) (n,), A' = V^(-1/3): what is nearest to normal per unit weight; rest: 1 - mu.

    In closed form for variances that are a power of the mean, binomial and negative binomial ones, and by quadrature for
    any other.
    """
    find = ANSCOMBE.get(family.name, _by_quadrature)
    with np.errstate(all="ignore"):
        return np.where(y == mu, 0.0, find(family, y, mu, rest))


def _power(p: float, y: Vector, mu: Vector) -> Vector:
    """V = mu^p: with a = 1 - p / 3, (y^a - mu^a) / (a mu^(p/6)), log(y / mu) / sqrt(mu) for p = 3."""
    a = 1.0 - p / 3.0
    ratio = np.log(y / mu)
    # a response below zero, where the mean is positive, has no power: p < 0
    moved = ratio if a == 0.0 else np.where(y >= 0.0, np.expm1(a * ratio), -1.0 - np.abs(y / mu) ** a) / a
    return np.asarray(moved * mu ** (1.0 - p / 2.0))


def _binomial(family: Any, y: Vector, mu: Vector, rest: Vector) -> Vector:
    """B(2/3, 2/3) (I_y(2/3, 2/3) - I_mu(2/3, 2/3)) / (mu (1 - mu))^(1/6), from the nearer end."""
    from scipy.special import beta, betainc

    third = 2.0 / 3.0
    low = betainc(third, third, y) - betainc(third, third, mu)
    high = betainc(third, third, rest) - betainc(third, third, 1.0 - y)
    return np.asarray(beta(third, third) * np.where(mu < 0.5, low, high) / (mu * rest) ** (1.0 / 6.0))


def _negative_binomial(family: Any, y: Vector, mu: Vector, rest: Vector) -> Vector:
    """A(t) = 3/2 t^(2/3) F(1/3, 2/3; 5/3; -t / theta), with Gauss's hypergeometric F."""
    from scipy.special import hyp2f1

    def primitive(t: Vector) -> Vector:
        return np.asarray(1.5 * t ** (2.0 / 3.0) * hyp2f1(1.0 / 3.0, 2.0 / 3.0, 5.0 / 3.0, -t / family.size))

    if np.isinf(family.size):
        return _power(1.0, y, mu)
    return (primitive(y) - primitive(mu)) / family.variance(mu, rest) ** (1.0 / 6.0)


def _by_quadrature(family: Any, y: Vector, mu: Vector, rest: Vector) -> Vector:
    """The integral of V^(-1/3) from mu to y by the double exponential rule, which bears a power at either end."""
    u = np.arange(-REACH, REACH + 0.5 * STEP, STEP)
    near = 1.0 / (1.0 + np.exp(np.pi * np.sinh(u)))
    slope = np.pi * np.cosh(u) * near * (1.0 - near)
    total = np.zeros(y.size)
    for part, weight in zip(near, slope, strict=True):
        # from y, for it is there that V may be zero
        t = y + (mu - y) * part
        total += weight * family.variance(t, (1.0 - y) + (rest - (1.0 - y)) * part) ** (-1.0 / 3.0)
    return np.asarray(total * STEP * (y - mu) / family.variance(mu, rest) ** (1.0 / 6.0))


ANSCOMBE: dict[str, Callable[[Any, Vector, Vector, Vector], Vector]] = {
    "gaussian": lambda family, y, mu, rest: y - mu,
    "binomial": _binomial,
    "poisson": lambda family, y, mu, rest: _power(1.0, y, mu),
    "gamma": lambda family, y, mu, rest: _power(2.0, y, mu),
    "exponential": lambda family, y, mu, rest: _power(2.0, y, mu),
    "inverse_gaussian": lambda family, y, mu, rest: _power(3.0, y, mu),
    "negative_binomial": _negative_binomial,
    "geometric": _negative_binomial,
    "tweedie": lambda family, y, mu, rest: _power(family.p, y, mu),
}


# -- distribution functions ----------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Chances:
    """P(Y < y), P(Y = y) and P(Y > y) (n,) of each row's own y, each computed for itself so that none has lost its digits."""

    below: Vector
    at: Vector
    above: Vector

    def quantile_residual(self, uniform: Vector) -> Vector:
        """Phi^-1(P(Y < y) + u P(Y = y)) (n,), from the nearer tail."""
        from scipy.special import ndtri

        lower, upper = self.below + uniform * self.at, self.above + (1.0 - uniform) * self.at
        return np.asarray(np.where(lower < upper, ndtri(lower), -ndtri(upper)))


def chances(family: Any, y: Vector, mu: Vector, rest: Vector, size: Vector | float, phi: float) -> Chances:
    """Chances of responses y (n,) with mean mu and dispersion phi / size. NaN where a discrete family's size y is no count.

    DesignError: a family without a distribution function here.
    """
    refuse_without_distribution(family)
    w = np.broadcast_to(np.asarray(size, np.float64), y.shape)
    with np.errstate(all="ignore"):
        found = DISTRIBUTIONS[family.name](family, y, mu, rest, w, phi)
        if not family.discrete:
            return found
        total = w * y
        whole = np.abs(total - np.round(total)) <= WHOLE * np.maximum(1.0, np.abs(total))
    return Chances(*(np.where(whole, part, np.nan) for part in (found.below, found.at, found.above)))


def refuse_without_distribution(family: Any) -> None:
    """DesignError for a family whose distribution function is not known."""
    if family.likelihood_at == "never":
        raise DesignError(f"{family.text} has no distribution, so that there are no quantile residuals of it")
    if family.name not in DISTRIBUTIONS:
        known = ", ".join(DISTRIBUTIONS)
        raise DesignError(
            f"quantile residuals need a distribution function, which {family.text} does not have here; there are those of {known}"
        )


def _normal(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    from scipy.special import ndtr

    z = (y - mu) * np.sqrt(w / phi)
    return Chances(ndtr(z), np.zeros(y.size), ndtr(-z))


def _gamma(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    from scipy.special import gammainc, gammaincc

    shape = w / phi
    return Chances(gammainc(shape, shape * y / mu), np.zeros(y.size), gammaincc(shape, shape * y / mu))


def _inverse_gaussian(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    """Phi(a) + exp(2 w / (phi mu)) Phi(-b), written with Mills ratios, for exp(2 w / (phi mu)) pdf(b) = pdf(a)."""
    from scipy.special import erfcx, ndtr

    root = np.sqrt(w / (phi * y))
    a, b = root * (y / mu - 1.0), root * (y / mu + 1.0)
    density = np.exp(-0.5 * a * a) * 0.5
    ratio = erfcx(b / np.sqrt(2.0))
    below = np.where(a < 0.0, density * (erfcx(-a / np.sqrt(2.0)) + ratio), ndtr(a) + density * ratio)
    above = np.where(a > 0.0, density * (erfcx(a / np.sqrt(2.0)) - ratio), ndtr(-a) - density * ratio)
    return Chances(below, np.zeros(y.size), above)


def _mass(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Vector:
    """P(Y = y)."""
    return np.asarray(np.exp(family.saturated(y, w, phi) - 0.5 * w * family.unit_deviance(y, mu, rest) / phi))


def _poisson(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    from scipy.special import gammainc, gammaincc

    count = np.round(w * y)
    below = np.where(count > 0.0, gammaincc(np.maximum(count, 1.0), w * mu), 0.0)
    return Chances(below, _mass(family, y, mu, rest, w, 1.0), gammainc(count + 1.0, w * mu))


def _binomial_chances(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    from scipy.special import betainc

    n, count = np.round(w), np.round(w * y)
    below = np.where(count > 0.0, betainc(n - count + 1.0, np.maximum(count, 1.0), rest), 0.0)
    above = np.where(count < n, betainc(count + 1.0, np.maximum(n - count, 1.0), mu), 0.0)
    return Chances(below, _mass(family, y, mu, rest, w, 1.0), above)


def _negative_binomial_chances(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    from scipy.special import betainc

    if np.isinf(family.size):
        return _poisson(family, y, mu, rest, w, phi)
    count, size, total = np.round(w * y), w * family.size, mu + family.size
    below = np.where(count > 0.0, betainc(size, np.maximum(count, 1.0), family.size / total), 0.0)
    return Chances(below, _mass(family, y, mu, rest, w, 1.0), betainc(count + 1.0, size, mu / total))


def _tweedie(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    find = {0.0: _normal, 2.0: _gamma, 3.0: _inverse_gaussian}.get(family.p)
    if find is None:
        find = _compound if 1.0 < family.p < 2.0 else _stable
    return find(family, y, mu, rest, w, phi)


def _compound(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    """A Poisson number of gamma amounts: sum over j of P(j jumps) P(gamma of shape j alpha <= y)."""
    p = family.p
    rate = w * mu ** (2.0 - p) / (phi * (2.0 - p))
    nothing, positive = np.exp(-rate), np.flatnonzero(y > 0.0)
    below, at, above = np.zeros(y.size), nothing.copy(), -np.expm1(-rate)
    at[positive] = 0.0
    amount = y * w / (phi * (p - 1.0) * mu ** (p - 1.0))
    # the model whose mean is y has so many jumps, and so has the sum where it decides on a row far from its own mean
    there = rate * (y / mu) ** (2.0 - p)
    found = _jumps(rate[positive], there[positive], amount[positive], (2.0 - p) / (p - 1.0))
    below[positive], above[positive] = found[0] + nothing[positive], found[1]
    return Chances(below, at, above)


def _jumps(rate: Vector, there: Vector, amount: Vector, alpha: float) -> tuple[Vector, Vector]:
    """sum over j >= 1 of P(j jumps) times the lower and the upper tail of a gamma variable of shape j alpha at `amount`."""
    from scipy.special import gammainc, gammaincc, gammaln, xlogy

    high, low = np.maximum(rate, there), np.minimum(rate, there)
    first = np.maximum(np.floor(low - DEVIATIONS * np.sqrt(low) - FEW), 1.0)
    terms = high + DEVIATIONS * np.sqrt(high) + FEW - first
    order = np.argsort(-terms, kind="stable")
    rate, amount, first, terms = rate[order], amount[order], first[order], terms[order]
    below, above = np.zeros(rate.size), np.zeros(rate.size)
    for step in np.arange(np.max(terms, initial=-1.0) + 1.0):
        # rows are in the order of how many terms they need
        n = int(np.searchsorted(-terms, -step, side="right"))
        jumps = first[:n] + step
        chance = np.exp(xlogy(jumps, rate[:n]) - rate[:n] - gammaln(jumps + 1.0))
        below[:n] += chance * gammainc(jumps * alpha, amount[:n])
        above[:n] += chance * gammaincc(jumps * alpha, amount[:n])
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return below[back], above[back]


def _stable(family: Any, y: Vector, mu: Vector, rest: Vector, w: Vector, phi: float) -> Chances:
    """The density integrated from y on either side, in log y where y is positive (power > 2)."""
    below = _side(family, y, mu, w, phi, -1.0)
    above = _side(family, y, mu, w, phi, 1.0)
    total = below + above
    return Chances(below / total, np.zeros(y.size), above / total)


def _side(family: Any, y: Vector, mu: Vector, w: Vector, phi: float, sign: float) -> Vector:
    """The integral of the density from y to the end of that side, by panels that grow, until it is complete past the mean."""
    logarithmic = family.p > 2.0
    spread = np.sqrt(phi / w * mu**family.p)
    width = 0.5 * (np.minimum(spread / mu, 1.0) if logarithmic else spread)
    center = np.log(mu) if logarithmic else mu
    total, start = np.zeros(y.size), np.log(y) if logarithmic else y.copy()
    for _ in range(PANELS):
        part = np.zeros(y.size)
        for node, weight in zip(NODES, NODE_WEIGHTS, strict=True):
            at = start + sign * width * 0.5 * (1.0 + node)
            t = np.exp(at) if logarithmic else at
            value = _mass(family, t, mu, 1.0 - mu, w, phi) * (t if logarithmic else 1.0)
            part += 0.5 * width * weight * np.where(np.isfinite(value), value, 0.0)
        total += part
        start = start + sign * width
        past = (start - center) * sign > 0.0
        if bool((past & (part <= COMPLETE * total)).all()):
            break
        # from the mean on, tails are smooth; on the way to it steps stay as fine as the density is
        width = np.where(past, width * GROWTH, width)
    return total


Distribution = Callable[[Any, Vector, Vector, Vector, Vector, float], Chances]
DISTRIBUTIONS: dict[str, Distribution] = {
    "gaussian": _normal,
    "binomial": _binomial_chances,
    "poisson": _poisson,
    "gamma": _gamma,
    "exponential": _gamma,
    "inverse_gaussian": _inverse_gaussian,
    "negative_binomial": _negative_binomial_chances,
    "geometric": _negative_binomial_chances,
    "tweedie": _tweedie,
}


def chances_of_classes(codes: npt.NDArray[np.integer], probabilities: Matrix) -> Chances:
    """Chances of the classes that were seen, codes (n,), of ordered classes with probabilities (K, n)."""
    seen = np.arange(probabilities.shape[0])[:, None]
    below, at, above = (
        np.where(which, probabilities, 0.0).sum(axis=0) for which in (seen < codes, seen == codes, seen > codes)
    )
    return Chances(below, at, above)
