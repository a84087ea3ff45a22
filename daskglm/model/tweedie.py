"""Densities of the Tweedie family, V(mu) = mu^p, to full precision and at the cost of a polynomial per row.

The exponential dispersion model has theta = mu^(1-p) / (1-p), kappa = mu^(2-p) / (2-p) and the density
a(y, phi) exp((y theta - kappa) / phi), with no closed form of a but for p = 2 and 3. By scaling, for y > 0,

    log p(y; mean y, phi) = -0.5 log(2 pi phi y^p) + B_p(log xi),    xi = phi y^(p-2):

the saddlepoint approximation and its correction B_p, a smooth function of one variable, p (p-3) / 24 xi as xi -> 0 and
a straight line in log xi as xi -> infinity. Each p has a table of B_p: a polynomial on each piece of a fixed grid, made
when first asked for. Values at the nodes of the polynomials have rounding errors only:

1 < p < 2  The compound Poisson-gamma series (Dunn and Smyth 2005), its terms written as deviances so that nothing cancels.
           Where they change slowly their sum is an integral, by Poisson's summation formula, and few nodes give it.
p = 2      gamma: B = -S(1 / xi), S the error of Stirling's formula.       p = 3  inverse Gaussian: B = 0.
p > 2      The inversion integral along the path of steepest descent, where it is Zolotarev's (1986) integral for stable
           laws and its integrand is positive. Its logarithm is written as a sum of positive terms.
p < 0      y > 0: B_p = B_(3-p), the duality of stable laws. y < 0: a second function of one variable, by the same path.

Sources: Jorgensen, The Theory of Dispersion Models (1997), chapter 4; Dunn and Smyth, Statistics and Computing 15 (2005)
267-280; Zolotarev, One-dimensional Stable Distributions (1986), section 2.2; Loader, Fast and Accurate Computation of
Binomial Probabilities (2000), for deviances and Stirling's formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError

Vector = npt.NDArray[np.float64]

LOG_2PI = math.log(2.0 * math.pi)
# The nearest singularities of B_p lie about pi / 2 off the real axis, (p - 1) pi where p < 1.5: on pieces of length 1/4
# interpolation of degree 10 leaves 25^-11, which is below rounding, and keeps nine digits of the second derivative.
DEGREE = 10
PIECES = 4
# Terms below exp(-REACH) times the largest are left out.
REACH = 44.0
# Below, B_p is less than rounding.
LOWEST = -40
# Rows at a time: all temporaries stay in cache.
CHUNK = 16384
# As p -> 1 the density has a peak near each multiple of phi and B_p a turn for each: cells need pieces of length p - 1.
LEAST_POWER = 1.0001
# Within so little of a whole log xi, rounding decides to which cell a row belongs.
MARGIN = 1e-9


@final
@dataclass(frozen=True)
class Curve:
    """A smooth function of log xi: what to tabulate, where, how finely, and the straight lines beyond."""

    power: float
    nodes: Callable[[float, Vector], Vector]
    low: int
    high: int
    low_slope: float
    high_slope: float
    pieces: int = PIECES
    fine_low: int = 0
    fine_high: int = 0
    fine_pieces: int = PIECES

    def pieces_in(self, cell: int) -> int:
        """Pieces of [cell, cell + 1), a power of two."""
        return self.fine_pieces if self.fine_low <= cell < self.fine_high else self.pieces


@final
@dataclass(frozen=True)
class Table:
    """Consecutive cells of a curve: cell first + i has pieces[i] (c,) polynomials, in columns from starts[i] (c,)."""

    first: int
    starts: npt.NDArray[np.intp]
    pieces: Vector
    coefficients: Vector


def saturated(y: Vector, w: Vector | float, phi: float, power: float) -> Vector:
    """log p(y; mean y, phi / w) (n,): the largest log density each row can have.

    A row y = 0 with 1 < p < 2 has 0: its mass exp(-w mu^(2-p) / (phi (2-p))) is all deviance. A row y <= 0 with p < 0 has
    log a(y, phi / w), for the deviance there is 2 (mu^(2-p) / (2-p) - y mu^(1-p) / (1-p)). Rows outside the support have
    nan. DesignError where no such family exists. Error: about 1e-14 of the largest of 1, |B_p| and |log(phi y^p)|.
    """
    return _rows(y, w, phi, power, 0)[0]


def saturated_derivatives(y: Vector, w: Vector | float, phi: float, power: float) -> tuple[Vector, Vector, Vector]:
    """log p(y; mean y, phi / w), its first and its second derivative in log phi, each (n,); as `saturated`.

    Errors: about 1e-12 of the first and 1e-10 of the second, relative to the largest of 1, |B_p| and themselves; a hundred
    times that at p = 1.01, where pieces are short.
    """
    value, slope, curvature = _rows(y, w, phi, power, 2)
    return value, slope, curvature


def check_power(power: float) -> None:
    """DesignError where there is no Tweedie density with variance mu^power, or none that can be tabulated."""
    if power == 0.0 or power == 1.0:
        name = "gaussian" if power == 0.0 else "poisson"
        raise DesignError(f"a Tweedie power of {power:g} is the {name} family: name that family.")
    if not (power < 0.0 or power > 1.0) or not math.isfinite(power):
        raise DesignError(f"there is no Tweedie distribution of power {power}: take one below 0 or above 1.")
    if 1.0 < power < LEAST_POWER:
        raise DesignError(f"Tweedie power {power}: take {LEAST_POWER} or more, or the poisson family.")


def _rows(y: Vector, w: Vector | float, phi: float, power: float, order: int) -> Vector:
    """The saturated log density and `order` derivatives in log phi, (order + 1, n)."""
    check_power(power)
    positive = y > 0
    if positive.all():
        return _positive(y, w, phi, power, order)
    found = np.full((order + 1, y.size), 0.0 if 1.0 < power < 2.0 else np.nan)
    above = np.flatnonzero(positive)
    found[:, above] = _positive(y[above], _at(w, above), phi, power, order)
    if 1.0 < power < 2.0:
        found[:, ~(y >= 0)] = np.nan
    if power < 0.0:
        below, zero = np.flatnonzero(y < 0), np.flatnonzero(y == 0)
        found[:, below] = _negative(-y[below], _at(w, below), phi, power, order)
        found[:, zero] = _at_zero(np.log(phi) - np.log(_at(w, zero)), power, order)
    return found


def _at(w: Vector | float, rows: npt.NDArray[np.intp]) -> Vector | float:
    return w[rows] if isinstance(w, np.ndarray) else w


def _positive(y: Vector, w: Vector | float, phi: float, power: float, order: int) -> Vector:
    """-0.5 log(2 pi phi y^p / w) + B_p and derivatives, y > 0."""
    curve = correction_curve(power)

    def add(found: Vector, log_y: Vector, log_phi: Vector | float) -> None:
        found[0] -= 0.5 * (LOG_2PI + log_phi + power * log_y)
        found[1:2] -= 0.5

    return _by_chunk(curve, y, w, phi, power, order, add)


def _negative(size: Vector, w: Vector | float, phi: float, power: float, order: int) -> Vector:
    """log a(-size, phi / w) and derivatives, p < 0: see `negative_tail`."""
    curve = tail_curve(power)

    def add(found: Vector, log_y: Vector, log_phi: Vector | float) -> None:
        found[0] -= log_y

    return _by_chunk(curve, size, w, phi, power, order, add)


def _at_zero(log_phi: Vector | float, power: float, order: int) -> Vector:
    """log a(0, phi) and derivatives, p < 0, as (order + 1, n) or (order + 1, 1). Hankel's integral of the gamma function."""
    index = (2.0 - power) / (1.0 - power)
    constant = -math.log(2.0 - power) - math.lgamma(1.0 / (2.0 - power)) + math.log(2.0 - power) / index
    # log((alpha - 1) / phi) - log b / alpha - log alpha - lgamma(1 - 1 / alpha), with b = 1 / ((2 - p) phi)
    value = np.atleast_1d(constant - log_phi / (2.0 - power))
    return np.stack([value, np.full_like(value, -1.0 / (2.0 - power)), np.zeros_like(value)][: order + 1])


def _by_chunk(
    curve: Curve,
    y: Vector,
    w: Vector | float,
    phi: float,
    power: float,
    order: int,
    add: Callable[[Vector, Vector, Vector | float], None],
) -> Vector:
    """The curve at log(phi / w) + (p - 2) log y and derivatives, (order + 1, n), to which `add` adds what has closed form."""
    found = np.empty((order + 1, y.size))
    if y.size == 0:
        return found
    log_phi = float(np.log(phi))
    sizes = (power - 2.0) * np.log(np.array([y.min(), y.max()]))
    weights = np.log(np.array([np.min(w), np.max(w)]))
    table = table_over(curve, log_phi + sizes.min() - weights[1], log_phi + sizes.max() - weights[0])
    for start in range(0, y.size, CHUNK):
        rows = slice(start, start + CHUNK)
        log_y = np.log(y[rows])
        row_phi = log_phi - np.log(w[rows] if isinstance(w, np.ndarray) else w)
        evaluate(curve, table, row_phi + (power - 2.0) * log_y, found[:, rows])
        add(found[:, rows], log_y, row_phi)
    return found


def table_over(curve: Curve, lowest: float, highest: float) -> Table:
    """The cells that hold every log xi from lowest to highest, as far as they are tabulated."""
    ends = np.fmin(np.fmax([lowest - MARGIN, highest + MARGIN], curve.low), curve.high - MARGIN)
    return _table(curve, math.floor(ends[0]), math.floor(ends[1]))


@lru_cache(maxsize=64)
def _table(curve: Curve, first: int, last: int) -> Table:
    cells = [cell_coefficients(curve, cell) for cell in range(first, last + 1)]
    pieces = [cell.shape[1] for cell in cells]
    starts = np.cumsum([0, *pieces[:-1]], dtype=np.intp)
    return Table(first, starts, np.array(pieces, float), np.concatenate(cells, axis=1))


@lru_cache(maxsize=1024)
def cell_coefficients(curve: Curve, cell: int) -> Vector:
    """Polynomials of the curve on the pieces of [cell, cell + 1), each over t in [-1, 1]: (DEGREE + 1, pieces).

    Coefficients of t^0, t^1, .... A cell is made in batches of one size and on its own, so that its values do not depend on
    what else was asked for.
    """
    nodes, chebyshev, powers = interpolation()
    pieces = curve.pieces_in(cell)
    found = np.empty((DEGREE + 1, pieces))
    with np.errstate(all="ignore"):
        for start in range(0, pieces, 256):
            centres = np.arange(start, min(start + 256, pieces)) + 0.5
            log_xi = cell + (centres[:, None] + 0.5 * nodes) / pieces
            values = curve.nodes(curve.power, log_xi.ravel()).reshape(log_xi.shape)
            found[:, start : start + 256] = powers @ (chebyshev @ values.T)
    return found


@lru_cache(maxsize=1)
def interpolation() -> tuple[Vector, Vector, Vector]:
    """Chebyshev's nodes, the matrix from values there to Chebyshev coefficients, and from these to those of t^0, t^1, ....

    In two steps, because the second matrix has exact entries: roundings of the first stay as small as they are.
    """
    size = DEGREE + 1
    angles = math.pi * (np.arange(size) + 0.5) / size
    chebyshev = np.cos(np.outer(np.arange(size), angles)) * (2.0 / size)
    chebyshev[0] *= 0.5
    powers = np.zeros((size, size))
    for k in range(size):
        powers[: k + 1, k] = np.polynomial.chebyshev.cheb2poly(np.eye(size)[k, : k + 1])
    return np.cos(angles), chebyshev, powers


def evaluate(curve: Curve, table: Table, log_xi: Vector, found: Vector) -> None:
    """The curve (n,) and derivatives in log xi, into the rows of found (1 to 3, n)."""
    inside = np.fmin(np.fmax(log_xi, curve.low), curve.high - MARGIN)
    floor = np.floor(inside)
    cell = floor.astype(np.intp) - table.first
    pieces = table.pieces.take(cell, mode="clip")
    position = (inside - floor) * pieces
    piece = position.astype(np.intp)
    t = 2.0 * (position - piece) - 1.0
    piece += table.starts.take(cell, mode="clip")
    found[:] = 0.0
    for coefficients in table.coefficients[::-1]:
        # Horner's rule, for the derivatives over their factorials too
        for row in range(len(found) - 1, 0, -1):
            found[row] *= t
            found[row] += found[row - 1]
        found[0] *= t
        found[0] += coefficients.take(piece, mode="clip")
    if len(found) > 1:
        # dt / d log xi
        pieces *= 2.0
        found[1] *= pieces
        found[2] *= 2.0 * pieces * pieces
    beyond = log_xi - inside
    if beyond.any():
        line = np.where(beyond > 0, curve.high_slope, curve.low_slope)
        found[0] += line * beyond
        if len(found) > 1:
            found[1] = np.where(beyond != 0, line, found[1])
            found[2] = np.where(beyond != 0, 0.0, found[2])


@lru_cache(maxsize=256)
def correction_curve(power: float) -> Curve:
    """B_p, what log p(y; mean y, phi) is above its saddlepoint approximation, as a function of log xi.

    Its line at large xi is a single jump where 1 < p < 2 and the power tail of a stable law where p > 2.
    """
    if power < 0.0:
        return correction_curve(3.0 - power)
    slope = 0.5 - 1.0 / (power - 1.0)
    if power == 2.0:
        return Curve(power, gamma_correction, LOWEST, 48, 0.0, slope)
    if power == 3.0:
        return Curve(power, inverse_gaussian_correction, LOWEST, 1, 0.0, 0.0)
    if power > 2.0:
        # relative to the line, the next term is xi^(-1 / (p-1)) / alpha, alpha = (p-2) / (p-1)
        high = (power - 1.0) * (REACH + math.log(power - 1.0) - math.log(power - 2.0))
        return Curve(power, stable_correction, LOWEST, math.ceil(high), 0.0, slope)
    high = REACH - math.log((power - 1.0) * (2.0 - power))
    # Where single jumps stand out, log f turns sharply from each number of jumps to the next, over p - 1 in log xi.
    halvings = max(0, math.ceil(-math.log2(2.0 * (power - 1.0))))
    fine_low = math.floor(math.log(power - 1.0)) - 2
    return Curve(power, jump_correction, LOWEST, math.ceil(high), 0.0, slope, PIECES, fine_low, 1, PIECES * 2**halvings)


@lru_cache(maxsize=64)
def tail_curve(power: float) -> Curve:
    """log(|y| a(y, phi)) at y < 0, p < 0, as a function of log xi, xi = phi |y|^(p-2).

    Both lines are of a stable law of index alpha: its power tail at small xi, its density at 0 at large xi. As p -> 0 the
    curve turns sharply where the power tail takes over from the normal one; hence more pieces.
    """
    reach = REACH + abs(math.log(-power))
    low, high = -(1.0 - power) * reach, (2.0 - power) * reach
    return Curve(
        power,
        negative_tail,
        math.floor(low),
        math.ceil(high),
        1.0 / (1.0 - power),
        -1.0 / (2.0 - power),
        pieces=4 * PIECES,
    )


def gamma_correction(power: float, log_xi: Vector) -> Vector:
    """-S(1 / xi): shape^shape exp(-shape) / Gamma(shape) over sqrt(shape / (2 pi))."""
    return -stirling_error(np.exp(-log_xi))


def inverse_gaussian_correction(power: float, log_xi: Vector) -> Vector:
    """0: its density is its saddlepoint approximation."""
    return np.zeros_like(log_xi)


def jump_correction(power: float, log_xi: Vector) -> Vector:
    """B_p (n,) for 1 < p < 2, from the series over the number j of jumps.

    With lambda = 1 / ((2-p) xi) expected jumps, each gamma of shape gamma = (2-p) / (p-1), and d = j / lambda - 1,

        f(1; 1, xi) = sqrt(gamma) / (2 pi) sum_j exp(-S(j) - S(gamma j) - lambda / (p-1) h(d)),  h = (1+d) log(1+d) - d:

    a Poisson probability times a gamma density, each as Stirling error and deviance. Where the terms are many (deviation
    sqrt((p-1) lambda) >= 2) and the term at j = 0 is nothing (lambda / (p-1) >= REACH), steps of half a deviation give the
    same sum: by Poisson's formula the two differ by exp(-8 pi^2).
    """
    jumps = np.exp(-log_xi) / (2.0 - power)
    few = ((power - 1.0) * jumps < 4.0) | (jumps < (power - 1.0) * REACH)
    found = np.empty_like(log_xi)
    found[few] = _sum_of_jumps(power, log_xi[few], jumps[few, None])
    found[~few] = _integral_of_jumps(power, jumps[~few, None])
    return found


def _sum_of_jumps(power: float, log_xi: Vector, jumps: Vector) -> Vector:
    """B_p by the sum over every j that matters: Bernstein's bounds on where h <= REACH (p-1) / lambda."""
    from scipy.special import logsumexp

    if log_xi.size == 0:
        return log_xi
    shape = (2.0 - power) / (power - 1.0)
    bound = REACH * (power - 1.0) / jumps
    low = np.maximum(1.0, np.floor(jumps * (1.0 - np.sqrt(2.0 * bound))))
    high = np.ceil(jumps * (1.0 + bound / 3.0 + np.sqrt(bound * bound / 9.0 + 2.0 * bound)))
    j = low + np.arange(1.0 + float((high - low).max()))
    deviance = np.where(jumps < 0.5, j * np.log(j / jumps) - j + jumps, jumps * half_deviance((j - jumps) / jumps))
    terms = -stirling_error(j) - stirling_error(shape * j) - deviance / (power - 1.0)
    return np.asarray(0.5 * (log_xi - LOG_2PI + math.log(shape)) + logsumexp(terms, axis=1))


def _integral_of_jumps(power: float, jumps: Vector) -> Vector:
    """B_p by steps of half a deviation. Deviations of j / lambda reach from -9 to 12, for h <= REACH (p-1) / lambda."""
    shape = (2.0 - power) / (power - 1.0)
    total = jumps / (power - 1.0)
    d = np.arange(-18, 25) * 0.5 / np.sqrt(total)
    possible = d > -1.0
    d = np.where(possible, d, 0.0)
    j = jumps * (1.0 + d)
    terms = np.exp(-stirling_error(j) - stirling_error(shape * j) - total * half_deviance(d))
    return np.asarray(np.log(0.5 * np.sum(terms, axis=1, where=possible)) - 0.5 * LOG_2PI)


def stable_correction(power: float, log_xi: Vector) -> Vector:
    """B_p (n,) for p > 2, from the inversion integral along the path of steepest descent.

    With alpha = (p-2) / (p-1), s = (alpha-1) z, the exponent (kappa(s) - s) / xi is real along |z|^(1-alpha) =
    sin(alpha u) / (alpha sin u), u = arg z, and the integral over the path becomes

        f(1; 1, xi) = 1 / ((p-1) xi) int_0^1 a(t) exp(-tau (a(t) - 1)) dt,   u = pi t,  tau = 1 / ((p-1) (p-2) xi),

    log a = (p-1) (alpha log sinc(alpha u) + (1-alpha) log sinc((1-alpha) u) - log sinc u), a >= 1. The substitution
    t = tanh(x / 2) makes the integrand smooth and its ends fall off doubly exponentially or as a Gaussian: the trapezoidal
    rule converges geometrically. Its step follows the narrowest node and its range the widest.
    """
    rate = power - 1.0
    smaller = min(1.0, power - 2.0) / rate
    # logarithms, as xi may be larger than any float
    log_tau = -log_xi[:, None] - math.log(rate) - math.log(power - 2.0)
    deviation = 2.0 / math.pi * rate * math.exp(0.5 * min(0.0, float(log_xi.min())))
    step = min(0.6 * deviation, 0.25 / rate)
    # log a >= (p-1) log1p(m (2-m) sinh^2(x / 2)), so that tau (a - 1) >= REACH beyond the end
    log_end = float(np.logaddexp(0.0, math.log(REACH) - log_tau.min())) / rate
    end = 2.0 * math.asinh(math.sqrt(math.expm1(log_end) / (smaller * (2.0 - smaller))))
    x = np.arange(math.ceil(end / step) + 1) * step
    squared = np.sinh(0.5 * x) ** 2
    log_a = rate * log_path(smaller, squared)
    log_weight = math.log(0.5 * step) - np.log1p(squared)
    log_weight[0] -= math.log(2.0)
    tau_excess = np.where(log_a < 1.0, np.exp(log_tau) * np.expm1(log_a), np.exp(log_tau + log_a) - np.exp(log_tau))
    terms = log_a + log_weight - tau_excess
    largest = terms.max(axis=1, keepdims=True)
    total = np.exp(terms - largest).sum(axis=1) * (math.sqrt(2.0 * math.pi) / rate)
    return np.asarray(np.log(total) + largest[:, 0] - 0.5 * log_xi)


def log_path(m: float, squared: Vector) -> Vector:
    """m log sinc(m u) + (1-m) log sinc((1-m) u) - log sinc(u), 0 < m <= 1/2, u = pi tanh(x / 2), squared = sinh^2(x / 2).

    sinc u = prod_n (1 - (u / (n pi))^2): its first factor by log1p, the others by their power series in q = tanh^2(x / 2).
    All terms are positive, so that every digit holds as u -> 0 or pi and as m -> 0.
    """
    from scipy.special import zetac

    q = squared / (1.0 + squared)
    k = np.arange(1.0, 28.0)
    series = zetac(2.0 * k) / k * (-np.expm1((2.0 * k + 1.0) * math.log1p(-m)) - m ** (2.0 * k + 1.0))
    others = np.zeros_like(q)
    for coefficient in series[::-1]:
        others += coefficient
        others *= q
    first = np.log1p(m * (2.0 - m) * squared) - m * np.log1p(-q * (1.0 - 2.0 * m) / (1.0 - m * m * q))
    return np.asarray(first + others)


def negative_tail(power: float, log_xi: Vector) -> Vector:
    """log(|y| a(y, phi)) (n,) at y < 0, p < 0, xi = phi |y|^(p-2): the side of a stable law with the power tail.

    With alpha = (2-p) / (1-p) and beta = 1 / ((1-p) xi), along the path where the exponent is real,

        |y| a = (2-p) beta / pi int_0^E A exp(-beta A) de,   E = pi / (2-p),

    A = (alpha sin e / sin v)^(1-p) sin(alpha E - (alpha-1) e) / sin v, v = alpha (E - e), rising from 0 to infinity. The
    substitution e = E / (1 + exp(-x)) suits the trapezoidal rule as in `stable_correction`.
    """
    from scipy.special import logsumexp

    rate = 2.0 - power
    alpha = rate / (1.0 - power)
    width = math.pi / rate
    log_beta = -log_xi[:, None] - math.log(1.0 - power)
    step = 0.25 / rate
    # log A rises by 1 - p per x on the left and by 2 - p on the right; the terms fall by 2 - p per x to the left
    start = min(0.0, -float(log_beta.max()) / (1.0 - power)) - 1.5 * REACH / rate
    end = max(0.0, -float(log_beta.min()) / rate) + 30.0 / rate
    x = np.arange(math.floor(start / step), math.ceil(end / step) + 1) * step
    left, right = width / (1.0 + np.exp(-x)), width / (1.0 + np.exp(x))
    log_sine = np.log(np.sin(alpha * right))
    log_a = (1.0 - power) * (math.log(alpha) + np.log(np.sin(left)) - log_sine)
    log_a += np.log(np.sin(alpha * width - (alpha - 1.0) * left)) - log_sine
    terms = log_a + np.log(left * right / width) - np.exp(log_a + log_beta)
    return np.asarray(logsumexp(terms, axis=1) + log_beta[:, 0] + math.log(rate / math.pi * step))


def half_deviance(d: Vector) -> Vector:
    """(1+d) log(1+d) - d for d > -1, without cancellation near 0: the series of Loader (2000)."""
    v = d / (2.0 + d)
    square = v * v
    series = np.zeros_like(v)
    for j in range(14, 0, -1):
        series += 2.0 / (2 * j + 1)
        series *= square
    return np.where(np.abs(v) < 0.2, (d + (1.0 + d) * series) * v, (1.0 + d) * np.log1p(d) - d)


def stirling_error(x: Vector) -> Vector:
    """S(x) = log Gamma(x + 1) - ((x + 1/2) log x - x + log(2 pi) / 2), x > 0."""
    from scipy.special import gammaln

    large = np.maximum(x, 10.0)
    square = 1.0 / (large * large)
    series = np.zeros_like(large)
    for coefficient in STIRLING[::-1]:
        series *= square
        series += coefficient
    series /= large
    small = x < 10.0
    low = x[small]
    series[small] = gammaln(low + 1.0) - (low + 0.5) * np.log(low) + low - 0.5 * LOG_2PI
    return series


# B_2k / (2k (2k-1)), Abramowitz and Stegun 6.1.41
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
