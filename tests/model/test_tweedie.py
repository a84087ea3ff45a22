"""Tweedie densities against mpmath: the series of jumps, the series of stable laws, and the inversion integral on rays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf
from scipy import stats
from scipy.integrate import quad

from daskglm.errors import DesignError
from daskglm.model import tweedie
from daskglm.model.tweedie import check_power, saturated, saturated_derivatives

# Roundings of a few terms and of log xi, on the scale of the value or of 1.
VALUE = 2e-14
# Interpolation of degree n on pieces of half-length h multiplies roundings by n^2 / h and n^4 / (3 h^2).
SLOPE = 1e-11
CURVATURE = 1e-8
# As p -> 1 pieces have length p - 1, and log xi is multiplied by the number of jumps.
NEAR_POISSON = 1e-12
# Truth of derivatives is a central difference of step 1e-8 in 30 digits: 1e-16 of the next two derivatives.
STEP = mpf(10) ** -8
# What adaptive quadrature is asked for.
QUADRATURE = 1e-10
DIGITS = 30


def log_jumps(power: mpf, xi: mpf) -> mpf:
    """log f(1; 1, xi), 1 < p < 2: Poisson probabilities times gamma densities, from the largest term both ways."""
    jumps, shape, rate = 1 / ((2 - power) * xi), (2 - power) / (power - 1), 1 / ((power - 1) * xi)

    def term(j: int) -> mpf:
        logarithm = j * mpmath.log(jumps) - jumps - mpmath.loggamma(j + 1)
        return mpmath.exp(logarithm + shape * j * mpmath.log(rate) - rate - mpmath.loggamma(shape * j))

    middle = max(1, int(jumps))
    total = term(middle)
    for step in (1, -1):
        j = middle + step
        while j > 0:
            more = term(j)
            total += more
            if more < total * mpf(10) ** (-DIGITS):
                break
            j += step
    return mpmath.log(total)


def log_inversion(power: mpf, xi: mpf) -> mpf:
    """log f(1; 1, xi): the inversion integral from its saddle along two straight rays into the left half plane."""
    alpha = (2 - power) / (1 - power)
    scale = abs(alpha - 1) / xi
    sign = -1 if power < 0 else 1
    angle = 2 * mpmath.pi / 3 if power > 1 else mpf("0.65") * mpmath.pi / alpha
    ray = mpmath.expj(angle)

    def exponent(r: mpf) -> mpf:
        z = 1 + r * ray
        return scale * sign * ((z - 1) - (z**alpha - 1) / alpha)

    ends = [mpf(0), 1 / mpmath.sqrt(scale * abs(1 - alpha))]
    while mpmath.re(exponent(ends[-1])) > -75:
        ends.append(2 * ends[-1])
    integral = mpmath.quad(lambda r: mpmath.im(mpmath.exp(exponent(r)) * ray), ends)
    return mpmath.log(scale / mpmath.pi * integral)


def log_stable(power: mpf, xi: mpf) -> mpf:
    """log f(1; 1, xi), p > 2, xi not small: the power series of a one-sided stable density, which alternates."""
    with mp.workdps(120):
        alpha = (2 - power) / (1 - power)
        scale = 1 / ((power - 1) * xi)
        argument = -(scale ** (1 - alpha)) / alpha
        # zero where -k alpha is a pole of gamma, hence a fixed number of terms
        total = sum(argument**k / mpmath.factorial(k) * mpmath.rgamma(-k * alpha) for k in range(1, 150))
        return mpmath.log(total) + scale * (1 - alpha) / alpha


def log_tail(power: mpf, xi: mpf) -> mpf:
    """log a(-1, xi), p < 0: the inversion integral along two rays from the branch point."""
    alpha = (2 - power) / (1 - power)
    scale = 1 / ((1 - power) * xi)
    ray = mpmath.expj(mpf("0.65") * mpmath.pi)

    def exponent(r: mpf) -> mpf:
        z = r * ray
        return scale * (z**alpha / alpha + z)

    ends = [mpf(0), 1 / (16 * max(scale, scale ** (1 / alpha)))]
    while mpmath.re(exponent(ends[-1])) > -75:
        ends.append(4 * ends[-1])
    integral = mpmath.quad(lambda r: mpmath.im(mpmath.exp(exponent(r)) * ray), ends)
    return mpmath.log(scale / mpmath.pi * integral)


def truth(y: float, phi: float | mpf, power: float | mpf) -> mpf:
    """log p(y; mean y, phi), by a way that is exact there; log a(y, phi) at y < 0."""
    y, phi, power = mpf(y), mpf(phi), mpf(power)
    xi = phi * abs(y) ** (power - 2)
    if y < 0:
        return log_tail(power, xi) - mpmath.log(-y)
    if 1 < power < 2 and xi > mpf(1) / 2000:
        return log_jumps(power, xi) - mpmath.log(y)
    if mpf("2.15") < power < 11 and xi > mpf(1) / 2:
        return log_stable(power, xi) - mpmath.log(y)
    return log_inversion(power, xi) - mpmath.log(y)


def error(found: float, exact: mpf) -> float:
    """Of the value or of 1, whichever is larger."""
    return float(abs(mpf(float(found)) - exact) / max(1, abs(exact)))


@pytest.fixture(autouse=True)
def enough_digits():
    with mp.workdps(DIGITS):
        yield


@pytest.mark.parametrize("power", [1.01, 1.1, 1.5, 1.9, 1.99, 1.9999])
def test_jumps(power: float) -> None:
    """Few jumps and many, the change from the sum over jumps to the integral, and the line beyond the table."""
    dispersions = np.array([0.004, 0.033, 0.3, 0.66, 0.9, 1.7, 12.0, 1e4, 1e12, 1e25])
    # not where the truth has a sum of thousands of terms
    dispersions = dispersions[dispersions * (2.0 - power) > 1e-4]
    found = saturated(np.ones(dispersions.size), 1.0 / dispersions, 1.0, power)
    for value, phi in zip(found, dispersions, strict=True):
        # the dispersion the function saw
        assert error(value, truth(1.0, 1 / mpf(1.0 / phi), power)) < VALUE


def test_jumps_seen_one_by_one() -> None:
    """p = 1.001: the density has a peak for each number of jumps, 100 of them in this range."""
    dispersions = np.geomspace(0.01, 3.0, 15)
    found = saturated(np.ones(dispersions.size), dispersions, 1.0, 1.001)
    for value, w in zip(found, dispersions, strict=True):
        assert error(value, truth(1.0, 1 / mpf(w), 1.001)) < NEAR_POISSON


@pytest.mark.parametrize("power", [1.01, 1.5, 1.99, 2.01, 2.5, 10.0, 40.0, -0.01, -6.0])
def test_small_dispersion(power: float) -> None:
    """Where the correction is itself below rounding, and where it begins to matter."""
    for phi in (1e-12, 3e-4):
        assert error(saturated(np.ones(1), 1.0, phi, power)[0], truth(1.0, phi, power)) < VALUE


@pytest.mark.parametrize("power", [2.01, 2.2, 2.5, 3.0, 5.0, 10.0, 40.0])
def test_stable(power: float) -> None:
    dispersions = [0.04, 3.0] if power < 2.15 or power > 11 else [0.04, 0.7, 3.0, 100.0, 1e6, 1e12]
    for phi in dispersions:
        assert error(saturated(np.ones(1), 1.0, phi, power)[0], truth(1.0, phi, power)) < VALUE


@pytest.mark.parametrize("power", [-0.01, -3.0])
def test_any_real_response(power: float) -> None:
    """p < 0, y on both sides of 0."""
    y = np.array([1.7, -0.1, -2.5, -40.0])
    for value, at in zip(saturated(y, 1.0, 0.8, power), y, strict=True):
        assert error(value, truth(at, 0.8, power)) < VALUE


@pytest.mark.parametrize("power", [1.3, 1.7, 2.6, 4.5])
def test_scales(power: float) -> None:
    """Responses far from 1 and weights by row, several chunks of them."""
    y = np.array([1e-5, 0.03, 2.0, 700.0, 3e6])
    w = np.array([0.5, 1.0, 3.0, 20.0, 0.01])
    phi = 0.3
    repeats = tweedie.CHUNK // 2
    found = saturated(np.repeat(y, repeats), np.repeat(w, repeats), phi, power).reshape(-1, repeats)
    assert np.all(found == found[:, :1])
    for i in range(y.size):
        xi = float(phi / w[i] * y[i] ** (power - 2.0))
        if xi > 1e-6:
            assert error(found[i, 0], truth(y[i], mpf(phi) / mpf(w[i]), power)) < VALUE
        else:
            # the correction p (p-3) / 24 xi is exact to xi^2
            normal = -0.5 * np.log(2 * np.pi * phi / w[i] * y[i] ** power)
            assert abs(found[i, 0] - normal - power * (power - 3) / 24 * xi) < VALUE * abs(normal)


def test_gamma_and_inverse_gaussian() -> None:
    """p = 2 and 3 against scipy, whose log-gamma rounds at its own size."""
    rng = np.random.default_rng(3)
    y, w = np.exp(rng.normal(size=200)), rng.uniform(0.1, 9.0, 200)
    phi = 0.7
    shape = w / phi
    assert np.allclose(saturated(y, w, phi, 2.0), stats.gamma.logpdf(y, shape, scale=y / shape), rtol=1e-13, atol=1e-13)
    expected = stats.invgauss.logpdf(y, y * phi / w, scale=w / phi)
    assert np.allclose(saturated(y, w, phi, 3.0), expected, rtol=1e-13, atol=1e-13)
    for extreme in (1e-14, 1e13, 1e30):
        k = 1 / mpf(extreme)
        exact = k * mpmath.log(k) - k - mpmath.loggamma(k)
        assert error(saturated(np.ones(1), 1.0, extreme, 2.0)[0], exact) < VALUE


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_other_powers_approach_the_closed_forms(power: float) -> None:
    """The curves of p - e and p + e are a line in p about the closed form, up to e^2."""
    e = 1e-6
    y = np.geomspace(1e-3, 1e3, 40)
    below, at, above = (saturated(y, 1.0, 0.9, power + sign * e) for sign in (-1, 0, 1))
    assert np.allclose((below + above) / 2, at, rtol=1e-10, atol=1e-10)
    assert np.abs(above - below).max() > e / 10


@pytest.mark.parametrize("power", [1.02, 1.5, 1.95, 2.7, 8.0])
def test_derivatives_in_dispersion(power: float) -> None:
    for phi in (0.02, 1.6):
        value, slope, curvature = (d[0] for d in saturated_derivatives(np.ones(1), 1.0, phi, power))
        at, after, before = (truth(1.0, mpf(phi) * mpmath.exp(step), power) for step in (0, STEP, -STEP))
        scale = max(1.0, abs(value))
        assert value == saturated(np.ones(1), 1.0, phi, power)[0]
        assert error(slope / scale, (after - before) / (2 * STEP) / scale) < SLOPE
        assert error(curvature / scale, (after - 2 * at + before) / STEP**2 / scale) < CURVATURE


@pytest.mark.parametrize("power", [-0.4, -2.0])
def test_derivatives_of_the_tail(power: float) -> None:
    y = np.array([-0.8])
    value, slope, curvature = (d[0] for d in saturated_derivatives(y, 1.0, 0.5, power))
    at, after, before = (truth(-0.8, mpf(0.5) * mpmath.exp(step), power) for step in (0, STEP, -STEP))
    assert error(value, at) < VALUE
    assert error(slope, (after - before) / (2 * STEP)) < SLOPE
    assert error(curvature, (after - 2 * at + before) / STEP**2) < CURVATURE


@pytest.mark.parametrize("power", [1.4, 1.9, 2.5])
def test_five_powers_give_derivatives_in_the_power(power: float) -> None:
    """(f(-2) - 8 f(-1) + 8 f(1) - f(2)) / 12: the error of the formula is step^4 f^(5) / 30, that of values over the step."""
    step, y, phi = 1e-3, np.array([4.0]), 0.8
    powers = [power + k * step for k in (-2, -1, 1, 2)]
    before, near, after, far = (saturated(y, 1.0, phi, p)[0] for p in powers)
    found = (before - 8 * near + 8 * after - far) / (12 * step)
    exact = (truth(4.0, phi, power + STEP) - truth(4.0, phi, power - STEP)) / (2 * STEP)
    assert error(found, exact) < 1e-10


@pytest.mark.parametrize("power", [1.05, 1.3, 1.6, 1.95, 2.3, 6.0])
def test_density_integrates_to_one(power: float) -> None:
    """With the point mass at zero where 1 < p < 2; and the mean is mu."""
    mu, phi = 1.3, 0.9
    mass = np.exp(-(mu ** (2 - power)) / (phi * (2 - power))) if power < 2 else 0.0

    def density(log_y: float) -> float:
        y = np.exp(log_y)
        theta = (y ** (1 - power) - mu ** (1 - power)) / (1 - power)
        kappa = (y ** (2 - power) - mu ** (2 - power)) / (2 - power)
        return float(y * np.exp(saturated(np.array([y]), 1.0, phi, power)[0] - (y * theta - kappa) / phi))

    lowest = -700.0 if 1.5 < power < 2 else -60.0
    ends = [lowest, -60.0, -12.0, -3.0, *np.linspace(-1.5, 2.5, 9), 5.0, 9.0, 30.0]
    pieces = [(a, b) for a, b in pairwise(ends) if a < b]
    total = sum(quad(density, a, b, epsabs=1e-13, epsrel=1e-11, limit=200)[0] for a, b in pieces)
    assert abs(total + mass - 1.0) < QUADRATURE
    mean = sum(quad(lambda x: np.exp(x) * density(x), a, b, epsabs=1e-13, epsrel=1e-11)[0] for a, b in pieces)
    assert abs(mean - mu) < QUADRATURE


@pytest.mark.parametrize("power, phi, mu", [(-0.5, 1.3, 2.0), (-2.0, 0.3, 1.0)])
def test_density_on_the_whole_line_integrates_to_one(power: float, phi: float, mu: float) -> None:
    def density(y: float) -> float:
        theta, kappa = mu ** (1 - power) / (1 - power), mu ** (2 - power) / (2 - power)
        half = max(y, 0.0) ** (2 - power) / ((1 - power) * (2 - power)) - y * theta + kappa
        return float(np.exp(saturated(np.array([y]), 1.0, phi, power)[0] - half / phi))

    ends = (-60.0, -3.0, 0.0, 2.0, 8.0)
    pieces = list(pairwise(ends))
    assert abs(sum(quad(density, a, b, epsabs=1e-13)[0] for a, b in pieces) - 1.0) < QUADRATURE
    assert abs(sum(quad(lambda y: y * density(y), a, b, epsabs=1e-13)[0] for a, b in pieces) - mu) < QUADRATURE


@pytest.mark.parametrize("power", [1.3, 2.5, 60.0])
def test_far_beyond_the_tables(power: float) -> None:
    """The line at large xi: one jump of gamma shape (2-p) / (p-1), or the first term of the stable series."""
    p, phi = mpf(power), 0.7
    y = mpf(10) ** (-300 if power < 2 else 300)
    xi = phi * y ** (p - 2)
    alpha, scale = (2 - p) / (1 - p), 1 / ((p - 1) * xi)
    if power < 2:
        exact = -mpmath.log((2 - p) * xi) - alpha * mpmath.log(scale) - mpmath.loggamma(-alpha)
    else:
        exact = (1 - alpha) * mpmath.log(scale) - mpmath.loggamma(1 - alpha)
    assert error(saturated(np.array([float(y)]), 1.0, phi, power)[0], exact - mpmath.log(y)) < VALUE


@pytest.mark.parametrize("power", [-0.001, -0.5, -5.0])
def test_both_sides_meet_at_zero(power: float) -> None:
    """a(y, phi) is smooth at 0, where it is 1 over a gamma function; both curves are lines there."""
    y = np.array([-1e-40, 0.0, 1e-40, -1e-300, 1e-300])
    value, slope, curvature = saturated_derivatives(y, np.full(5, 0.5), 0.7, power)
    p, phi = mpf(power), mpf(0.7) / mpf(0.5)
    exact = -mpmath.log(phi) - mpmath.loggamma(1 / (2 - p)) - mpmath.log(2 - p)
    exact += (1 - p) / (2 - p) * mpmath.log((2 - p) * phi)
    # log y is about 700, and its logarithm in xi larger by 2 - p
    scale = 1000.0 * (2.0 - power)
    assert np.abs(value - float(exact)).max() < 1e-15 * scale
    assert np.abs(slope + 1.0 / (2.0 - power)).max() < SLOPE
    assert np.abs(curvature).max() < CURVATURE


@pytest.mark.parametrize("power", [-0.01, -1.0, -5.0])
def test_power_tail(power: float) -> None:
    """log a(y, phi) as y -> -infinity: beta^(1-alpha) / (alpha Gamma(-alpha) |y|)."""
    p, size = mpf(power), mpf(10) ** 40
    alpha = (2 - p) / (1 - p)
    scale = size ** (2 - p) / ((1 - p) * mpf(0.7))
    exact = (1 - alpha) * mpmath.log(scale) - mpmath.log(alpha * mpmath.gamma(-alpha)) - mpmath.log(size)
    assert error(saturated(np.array([-1e40]), 1.0, 0.7, power)[0], exact) < VALUE


@pytest.mark.parametrize("power", [1.03, 1.6, 2.4, -0.7])
def test_values_do_not_depend_on_what_was_asked_before(power: float) -> None:
    """The same bits from one wide request, from many narrow ones in any order, and from several threads."""
    y = np.exp(np.random.default_rng(1).uniform(-8.0, 8.0, 600))
    y[::3] *= -1.0 if power < 0 else 1.0

    def forget() -> None:
        for cached in (tweedie._table, tweedie.cell_coefficients, tweedie.correction_curve, tweedie.tail_curve):
            cached.cache_clear()

    def alone(value: float) -> np.ndarray:
        return np.array(saturated_derivatives(np.array([value]), 1.0, 0.4, power))[:, 0]

    forget()
    together = np.array(saturated_derivatives(y, 1.0, 0.4, power))
    forget()
    one_by_one = np.array([alone(value) for value in y[::-1]])[::-1].T
    forget()
    with ThreadPoolExecutor(4) as pool:
        in_threads = np.array(list(pool.map(alone, y))).T
    assert together.tobytes() == np.ascontiguousarray(one_by_one).tobytes()
    assert together.tobytes() == np.ascontiguousarray(in_threads).tobytes()


def test_zeros_and_what_is_outside_the_support() -> None:
    y = np.array([0.0, 2.0, 0.0, np.nan, -1.0])
    w = np.array([1.0, 2.0, 3.0, 1.0, 1.0])
    found = np.array(saturated_derivatives(y, w, 0.5, 1.5))
    assert np.all(found[:, [0, 2]] == 0.0)
    assert np.all(np.isnan(found[:, 3:]))
    assert np.all(found[:, 1] == np.array(saturated_derivatives(np.array([2.0]), 2.0, 0.5, 1.5))[:, 0])
    assert found[0, 1] == saturated(y, w, 0.5, 1.5)[1]
    assert np.all(np.isnan(saturated(y, w, 0.5, 2.5)) == [True, False, True, True, True])
    assert np.all(np.isnan(saturated(y, w, 0.5, -0.5)) == [False, False, False, True, False])
    assert np.all(saturated(np.zeros(3), 1.0, 0.5, 1.5) == 0.0)
    assert saturated(np.zeros(0), 1.0, 0.5, 1.5).shape == (0,)


@pytest.mark.parametrize(
    "power, words",
    [(0.5, "no Tweedie"), (np.nan, "no Tweedie"), (1.0, "poisson"), (0.0, "gaussian"), (1.00001, "poisson")],
)
def test_powers_without_a_density(power: float, words: str) -> None:
    with pytest.raises(DesignError, match=words):
        check_power(power)
    with pytest.raises(DesignError, match=words):
        saturated(np.ones(2), 1.0, 1.0, power)
