"""Anscombe's transform against integrals with 30 digits; distribution functions against sums and integrals of densities."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

import daskglm as dg
from daskglm.errors import DesignError
from daskglm.model.family import log_density
from daskglm.model.pairs import resolve
from daskglm.model.residuals import ANSCOMBE, DISTRIBUTIONS, Chances, anscombe, chances, chances_of_classes

# Differences of transforms that are close to each other, and values of special functions.
TRANSFORM = 1e-12
# Special functions, and sums of densities that are known to 1e-14.
CHANCE = 1e-12
# scipy's quadrature of densities with a heavy tail.
QUADRATURE = 1e-8

VARIANCES: dict[str, Any] = {
    "gaussian": lambda t: mpmath.mpf(1),
    "binomial": lambda t: t * (1 - t),
    "poisson": lambda t: t,
    "gamma": lambda t: t**2,
    "exponential": lambda t: t**2,
    "inverse_gaussian": lambda t: t**3,
    "negative_binomial(theta=2.5)": lambda t: t + t**2 / mpmath.mpf("2.5"),
    "geometric": lambda t: t + t**2,
    "tweedie(power=1.6)": lambda t: t ** mpmath.mpf("1.6"),
    "tweedie(power=3)": lambda t: t**3,
    "quasi(variance='mu^2')": lambda t: t**2,
    "quasipoisson": lambda t: t,
    "quasibinomial": lambda t: t * (1 - t),
}


@pytest.mark.parametrize("text", VARIANCES)
def test_anscombe_is_the_integral(text: str) -> None:
    family, _ = resolve(text)
    variance = VARIANCES[text]
    if family.bounded:
        pairs = [(0.0, 0.3), (1.0, 0.3), (0.25, 0.7), (0.4, 0.4001), (1.0, 0.999), (0.0, 0.001), (0.5, 0.5)]
    else:
        pairs = [(0.0, 0.3), (3.0, 0.7), (1.0, 1.0001), (0.01, 40.0), (250.0, 200.0), (2.0, 2.0)]
        pairs = [pair for pair in pairs if family.in_support(np.array([pair[0]]))[0]]
    y, mu = np.array(pairs).T
    found = anscombe(family, y, mu, 1.0 - mu)
    with mpmath.workdps(30):
        for value, one, mean in zip(found, y, mu, strict=True):
            whole = mpmath.quad(lambda t: variance(t) ** (-mpmath.mpf(1) / 3), [mean, one])
            truth = float(whole / variance(mpmath.mpf(mean)) ** (mpmath.mpf(1) / 6))
            assert value == pytest.approx(truth, rel=1e-10, abs=TRANSFORM)


def test_a_response_below_zero_has_a_transform_too() -> None:
    # V(t) = |t|^p is even, so its integral from mu > 0 to y < 0 is that to 0 and that of |y| beyond
    family, _ = resolve("tweedie(power=-1)")
    found = anscombe(family, np.array([-2.0]), np.array([1.5]), np.array([-0.5]))
    a = 4.0 / 3.0
    assert found[0] == pytest.approx(-(1.5**a + 2.0**a) / a / 1.5 ** (-1.0 / 6.0), rel=TRANSFORM)


def test_own_variance_by_quadrature() -> None:
    family = dg.families.Quasi(variance=cube_root, mean_range=(0.0, np.inf))
    y, mu = np.array([0.0, 2.0, 5.0]), np.array([0.4, 2.5, 1.0])
    found = anscombe(family, y, mu, 1.0 - mu)
    for value, one, mean in zip(found, y, mu, strict=True):
        truth = mpmath.quad(lambda t: (t + t**1.5) ** (-1.0 / 3.0), [mean, one]) / (mean + mean**1.5) ** (1.0 / 6.0)
        assert value == pytest.approx(float(truth), rel=1e-10)


def cube_root(mu: Any) -> Any:
    return mu + mu**1.5


def test_every_named_family_has_both() -> None:
    assert set(ANSCOMBE) == set(DISTRIBUTIONS)


COUNTS = {
    "poisson": (1.0, 3.7),
    "poisson weighted": (2.0, 3.7),
    "negative_binomial(theta=1.7)": (1.0, 3.7),
    "negative_binomial(theta=1.7) weighted": (3.0, 3.7),
    "geometric": (1.0, 0.4),
    "binomial": (1.0, 0.37),
    "binomial trials": (9.0, 0.37),
}


@pytest.mark.parametrize("text", COUNTS)
def test_counts_are_sums_of_the_density(text: str) -> None:
    family, _ = resolve(text.split()[0])
    size, mean = COUNTS[text]
    most = size + 1 if family.bounded else 400
    y = np.arange(most) / size
    mu = np.full(y.size, mean)
    found = chances(family, y, mu, 1.0 - mu, size, 1.0)
    mass = np.exp(log_density(family, y, mu, 1.0, np.full(y.size, size)))
    assert np.max(np.abs(found.at - mass)) < CHANCE
    assert np.max(np.abs(found.below - (np.cumsum(mass) - mass))) < CHANCE
    assert np.max(np.abs(found.below + found.at + found.above - 1.0)) < CHANCE
    # the integral of F(y-) + u P(Y = y) over u and y is that of a uniform number, and so are those of its square
    assert np.sum(mass * (found.below + 0.5 * mass)) == pytest.approx(0.5, abs=CHANCE)
    square = found.below**2 + found.below * mass + mass**2 / 3.0
    assert np.sum(mass * square) == pytest.approx(1.0 / 3.0, abs=CHANCE)


def test_what_is_no_count_has_no_residual() -> None:
    family, _ = resolve("poisson")
    found = chances(family, np.array([1.5, 2.0]), np.full(2, 1.0), np.zeros(2), 1.0, 1.0)
    assert np.isnan(found.quantile_residual(np.full(2, 0.5))).tolist() == [True, False]


AMOUNTS: dict[str, Any] = {
    "gaussian": lambda mu, phi: stats.norm(mu, np.sqrt(phi)),
    "gamma": lambda mu, phi: stats.gamma(1.0 / phi, scale=mu * phi),
    "tweedie(power=2)": lambda mu, phi: stats.gamma(1.0 / phi, scale=mu * phi),
    "exponential": lambda mu, phi: stats.expon(scale=mu),
    "inverse_gaussian": lambda mu, phi: stats.invgauss(mu * phi, scale=1.0 / phi),
}


@pytest.mark.parametrize("text", AMOUNTS)
@pytest.mark.parametrize("phi", [0.05, 1.0])
def test_amounts_are_those_of_scipy(text: str, phi: float) -> None:
    family, _ = resolve(text)
    truth = AMOUNTS[text](1.3, phi)
    y = truth.ppf(np.array([1e-6, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0 - 1e-9]))
    mu = np.full(y.size, 1.3)
    # variance weights divide the dispersion
    found = chances(family, y, mu, 1.0 - mu, 2.0, 2.0 * phi) if text != "exponential" else None
    found = found or chances(family, y, mu, 1.0 - mu, 1.0, 1.0)
    np.testing.assert_allclose(found.below, truth.cdf(y), rtol=1e-9, atol=CHANCE)
    np.testing.assert_allclose(found.above, truth.sf(y), rtol=1e-6, atol=CHANCE)
    assert not found.at.any()


@pytest.mark.parametrize("power", [-1.0, 1.05, 1.5, 1.95, 2.5, 5.0])
@pytest.mark.parametrize("phi", [0.1, 2.0])
def test_tweedie_is_the_integral_of_its_density(power: float, phi: float) -> None:
    family, _ = resolve(f"tweedie(power={power})")
    y = np.array([0.05, 0.7, 1.3, 2.0, 4.0])
    mu = np.full(y.size, 1.3)
    found = chances(family, y, mu, 1.0 - mu, 1.0, phi)
    assert np.max(np.abs(found.below + found.at + found.above - 1.0)) < CHANCE

    def density(t: float) -> float:
        return float(np.exp(log_density(family, np.array([t]), np.array([1.3]), phi))[0])

    # what lies between two responses, where the density has no end
    for k in range(y.size - 1):
        between = integrate.quad(density, y[k], y[k + 1], epsabs=1e-13, epsrel=1e-11, limit=400)[0]
        assert found.below[k + 1] - found.below[k] == pytest.approx(between, abs=QUADRATURE)
    whole = integrate.quad(density, 4.0, np.inf, epsabs=1e-13, limit=400)[0]
    assert found.above[-1] == pytest.approx(whole, abs=QUADRATURE)


def test_a_tweedie_zero_has_its_mass() -> None:
    family, _ = resolve("tweedie(power=1.5)")
    found = chances(family, np.zeros(1), np.array([1.3]), np.zeros(1), 2.0, 0.8)
    rate = 2.0 * 1.3**0.5 / (0.8 * 0.5)
    assert found.below[0] == 0.0
    assert found.at[0] == pytest.approx(np.exp(-rate), rel=CHANCE)
    assert found.above[0] == pytest.approx(-np.expm1(-rate), rel=CHANCE)


def test_an_amount_far_beyond_its_mean_has_a_tail_of_its_own() -> None:
    family, _ = resolve("tweedie(power=1.5)")
    y, mu, phi = np.array([150.0]), np.ones(1), 1.0
    found = chances(family, y, mu, 1.0 - mu, 1.0, phi)
    with mpmath.workdps(40):
        rate, alpha, scale = mpmath.mpf(2), mpmath.mpf(1), mpmath.mpf("0.5")
        truth = mpmath.nsum(
            lambda j: (
                mpmath.exp(-rate)
                * rate**j
                / mpmath.factorial(j)
                * mpmath.gammainc(j * alpha, 150 / scale, regularized=True)
            ),
            [1, 400],
        )
    assert found.above[0] == pytest.approx(float(truth), rel=1e-10)


def test_tails_keep_their_digits() -> None:
    far = np.array([1e-290, 1e-30, 0.2])
    found = Chances(far, np.zeros(3), 1.0 - far)
    mirrored = Chances(1.0 - far, np.zeros(3), far)
    uniform = np.full(3, 0.5)
    expected = stats.norm.ppf(far)
    np.testing.assert_allclose(found.quantile_residual(uniform), expected, rtol=CHANCE)
    np.testing.assert_allclose(mirrored.quantile_residual(uniform), -expected, rtol=CHANCE)
    # a mean a million standard deviations away is a number all the same
    family, _ = resolve("gaussian")
    one = chances(family, np.array([30.0]), np.zeros(1), np.ones(1), 1.0, 1.0)
    assert one.quantile_residual(np.array([0.5]))[0] == pytest.approx(30.0, rel=CHANCE)


def test_ordered_classes_by_their_probabilities() -> None:
    probabilities = np.array([[0.2, 0.5], [0.3, 0.1], [0.5, 0.4]])
    found = chances_of_classes(np.array([1, 2]), probabilities)
    np.testing.assert_allclose(found.below, [0.2, 0.6])
    np.testing.assert_allclose(found.at, [0.3, 0.4])
    np.testing.assert_allclose(found.above, [0.5, 0.0])


def test_families_without_a_distribution_are_refused() -> None:
    nothing = np.ones(1)
    with pytest.raises(DesignError, match="has no distribution"):
        chances(resolve("quasipoisson")[0], nothing, nothing, nothing, 1.0, 1.0)
    own = dg.families.ExponentialFamily(np.exp, support="counts", name="mine")
    with pytest.raises(DesignError, match="mine does not have here"):
        chances(own, nothing, nothing, nothing, 1.0, 1.0)
