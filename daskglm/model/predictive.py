"""Distribution functions of the families, averaged over what is not known of the linear predictor, and their quantiles.

Sources: Johnson, Kotz and Balakrishnan (1994, 1995) and Johnson, Kemp and Kotz (2005) for the distribution functions;
Shuster (1968) for the inverse Gaussian; Jorgensen, The Theory of Dispersion Models (1997), section 4.2, for compound Poisson.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from daskglm.errors import DesignError
from daskglm.model.counts import NegativeBinomial
from daskglm.model.families import Binomial, Gamma, Gaussian, InverseGaussian, Poisson
from daskglm.model.power import Tweedie

Vector = npt.NDArray[np.float64]
# P(Y <= y) with mean mu and dispersion phi / w; all broadcast.
Distribution = Callable[[Any, Vector, Vector, Vector, float], Vector]

# Nodes of the Gauss-Hermite rule over the linear predictor: exact for polynomials of degree 17.
NODES = 9
# Probabilities left out of a sum over the number of jumps, on either side.
JUMP_TAIL = 1e-14
# Steps towards a quantile of amounts, at most; its probability, or itself in standard deviations, is right to this.
HALVINGS = 200
CLOSE = 1e-10


def _gaussian(family: Any, y: Vector, mu: Vector, w: Vector, phi: float) -> Vector:
    return np.asarray(special.ndtr((y - mu) * np.sqrt(w / phi)))


def _gamma(family: Any, y: Vector, mu: Vector, w: Vector, phi: float) -> Vector:
    shape = w / phi
    return np.asarray(special.gammainc(shape, np.maximum(shape * y / mu, 0.0)))


def _inverse_gaussian(family: Any, y: Vector, mu: Vector, w: Vector, phi: float) -> Vector:
    shape = w / phi
    root, ratio = np.sqrt(shape / y), y / mu
    # exp(2 shape / mu) alone overflows
    return np.asarray(
        special.ndtr(root * (ratio - 1.0)) + np.exp(2.0 * shape / mu + special.log_ndtr(-root * (ratio + 1.0)))
    )


def _poisson(family: Any, y: Vector, mu: Vector, w: Vector, phi: float) -> Vector:
    # the total w y of w observations is Poisson with mean w mu
    return np.asarray(special.pdtr(_count(w, y), w * mu))


def _negative_binomial(family: Any, y: Vector, mu: Vector, w: Vector, phi: float) -> Vector:
    if np.isinf(family.size):
        return _poisson(family, y, mu, w, phi)
    size = w * family.size
    count = _count(w, y)
    found = special.betainc(size, np.maximum(count, 0.0) + 1.0, size / (size + w * mu))
    return np.where(count < 0.0, 0.0, found)


def _binomial(family: Any, y: Vector, mu: Vector, w: Vector, phi: float) -> Vector:
    # w trials, of which y is the proportion of successes
    count = _count(w, y)
    inside = np.clip(count, 0.0, np.maximum(w - 1.0, 0.0))
    found = special.betaincc(inside + 1.0, np.maximum(w - inside, 1e-300), mu)
    return np.where(count < 0.0, 0.0, np.where(count >= w, 1.0, found))


def _count(w: Vector, y: Vector) -> Vector:
    """floor(w y), where rounding may have left a whole number just below itself."""
    return np.asarray(np.floor(w * y + 1e-9))


def _compound(family: Any, y: Vector, mu: Vector, w: Vector, phi: float) -> Vector:
    """A Poisson number of gamma amounts: sum_j P(j jumps) P(gamma of shape j a <= y)."""
    p = family.p
    y, mu, w = np.broadcast_arrays(y, mu, w)
    jumps = w * np.power(mu, 2.0 - p) / (phi * (2.0 - p))
    scale, shape = phi / w * (p - 1.0) * np.power(mu, p - 1.0), (2.0 - p) / (p - 1.0)
    total = np.where(y >= 0.0, np.exp(-jumps), 0.0)
    amount = np.maximum(y, 0.0) / scale
    low = np.maximum(np.floor(special.pdtrik(JUMP_TAIL, jumps)), 1.0) if jumps.size else jumps
    low = np.where(np.isfinite(low), low, 1.0)
    high = jumps + 8.5 * np.sqrt(jumps) + 40.0
    for j in np.arange(np.max(high - low, initial=0.0) + 1.0):
        count = low + j
        chance = np.exp(special.xlogy(count, jumps) - jumps - special.gammaln(count + 1.0))
        if not (chance > JUMP_TAIL * 1e-2).any() and bool((count > jumps).all()):
            break
        total = total + chance * special.gammainc(count * shape, amount)
    return np.asarray(total)


def _tweedie(family: Any, y: Vector, mu: Vector, w: Vector, phi: float) -> Vector:
    return TWEEDIE[family.p](family, y, mu, w, phi) if family.p in TWEEDIE else _compound(family, y, mu, w, phi)


TWEEDIE: dict[float, Distribution] = {0.0: _gaussian, 2.0: _gamma, 3.0: _inverse_gaussian}

DISTRIBUTIONS: dict[type, Distribution] = {
    Gaussian: _gaussian,
    Binomial: _binomial,
    Poisson: _poisson,
    NegativeBinomial: _negative_binomial,
    Gamma: _gamma,
    InverseGaussian: _inverse_gaussian,
    Tweedie: _tweedie,
}


def distribution(family: Any) -> Distribution:
    """P(Y <= y), or a DesignError where it is not known."""
    power = family.p if type(family) is Tweedie else 1.5
    if type(family) not in DISTRIBUTIONS or not (1.0 < power < 2.0 or power in TWEEDIE):
        raise DesignError(
            f"the distribution function of the {family.text} family is not computed, so there is no prediction interval; "
            'interval="confidence" is for its mean'
        )
    return DISTRIBUTIONS[type(family)]


def hermite() -> tuple[Vector, Vector]:
    """Nodes and weights of the average over a standard normal variable."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return nodes, weights / weights.sum()


def predictive_quantile(
    family: Any, probability: float, means: npt.NDArray[np.float64], chances: Vector, w: Vector, phi: float
) -> Vector:
    """The least y with sum_k c_k P(Y <= y; mu_k, phi / w) >= probability (n,).

    means (K, n), with chances c (K,): what the mean may be; w (n,); a proportion where the family is binomial.
    """
    function = distribution(family)

    def average(y: Vector) -> Vector:
        total = np.zeros(y.size)
        for mu, chance in zip(means, chances, strict=True):
            total += chance * function(family, y, mu, w, phi)
        return total

    with np.errstate(all="ignore"):
        if family.discrete:
            return _of_counts(average, probability, means, w)
        return _of_amounts(family, function, probability, means, chances, w, phi)


def _of_counts(
    average: Callable[[Vector], Vector], probability: float, means: npt.NDArray[np.float64], w: Vector
) -> Vector:
    """By halving between whole numbers, of which the lower falls short and the upper does not."""
    known = np.isfinite(means).all(axis=0) & np.isfinite(w)
    low = np.full(w.size, -1.0)
    high = np.where(known, np.ceil(w * means.max(axis=0)) + 1.0, 0.0)
    for _ in range(1100):
        short = known & (average(high / w) < probability)
        if not short.any():
            break
        low = np.where(short, high, low)
        high = np.where(short, 2.0 * high, high)
    while (wide := high - low > 1.0).any():
        middle = np.floor(0.5 * (low + high))
        enough = average(middle / w) >= probability
        high = np.where(wide & enough, middle, high)
        low = np.where(wide & ~enough, middle, low)
    return np.where(known, high / w, np.nan)


def _of_amounts(
    family: Any,
    function: Distribution,
    probability: float,
    means: npt.NDArray[np.float64],
    chances: Vector,
    w: Vector,
    phi: float,
) -> Vector:
    """By secants that keep a bracket (Illinois), on the scale of log y where y is positive."""
    positive = family.mean_range[0] == 0.0
    into: Any = np.exp if positive else (lambda x: x)
    middle = means[means.shape[0] // 2]
    variance = phi / w * family.variance(middle, 1.0 - middle)
    unit = np.sqrt(np.log1p(variance / middle**2)) if positive else np.sqrt(variance)
    start = np.log(middle) if positive else middle
    result = np.full(w.size, np.nan)
    rows = np.flatnonzero(np.isfinite(start) & np.isfinite(unit) & (unit > 0.0))

    def excess(x: Vector, at: npt.NDArray[np.intp]) -> Vector:
        total = np.full(at.size, -probability)
        for mu, chance in zip(means, chances, strict=True):
            total += chance * function(family, into(x), mu[at], w[at], phi)
        return total

    if positive and family.support == "zero or positive":
        # an atom at zero may hold the quantile
        at_zero = excess(np.full(rows.size, -np.inf), rows) >= 0.0
        result[rows[at_zero]] = 0.0
        rows = rows[~at_zero]
    low, high = start[rows] - unit[rows], start[rows] + unit[rows]
    below, above = excess(low, rows), excess(high, rows)
    for k in range(40):
        out, further = np.flatnonzero(below > 0.0), np.flatnonzero(above < 0.0)
        if not (out.size or further.size):
            break
        low[out] -= unit[rows[out]] * 2.0**k
        high[further] += unit[rows[further]] * 2.0**k
        below[out], above[further] = excess(low[out], rows[out]), excess(high[further], rows[further])
    side = np.zeros(rows.size)
    for k in range(HALVINGS):
        new = (low * above - high * below) / (above - below)
        # every fourth time the middle, so that the bracket shrinks whatever the curve
        half = (k % 4 == 3) | ~((new > low) & (new < high))
        new = np.where(half, 0.5 * (low + high), new)
        value = excess(new, rows)
        up = value >= 0.0
        below = np.where(up & (side == 1.0), 0.5 * below, below)
        above = np.where(~up & (side == -1.0), 0.5 * above, above)
        high, above = np.where(up, new, high), np.where(up, value, above)
        low, below = np.where(up, low, new), np.where(up, below, value)
        side = np.where(up, 1.0, -1.0)
        result[rows] = into(new)
        going = (np.abs(value) > CLOSE) & (high - low > CLOSE * np.maximum(np.abs(high), unit[rows]))
        if not going.any():
            break
        rows, low, high, below, above, side = (a[going] for a in (rows, low, high, below, above, side))
    return result
