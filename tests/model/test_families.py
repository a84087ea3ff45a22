"""Families against scipy.stats and mpmath. What ties densities, partition functions and means is in tests/laws."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy import stats

from daskglm.model.families import ALIASES, by_value, log_density, xlogy
from daskglm.model.links import LINKS
from tests.laws.exact import DISTRIBUTIONS, EPS, FAMILIES, LOSSES, MEANS, RESPONSES

# scipy's log densities and ours differ by roundings of log-gamma, whose terms reach about 2 000 here.
DENSITY_RELATIVE = 1e-12
DENSITY_ABSOLUTE = 1e-11
# A deviance is a difference of terms as large as y log(y / mu) and y - mu: roundings of those.
ROUNDINGS = 8.0

DISPERSIONS = (0.2, 1.0, 3.5)
SIZES = (1.0, 3.0, 10.0)


def every_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Every response with every mean."""
    y, mu = np.meshgrid(RESPONSES[name], MEANS[name])
    return y.ravel(), mu.ravel()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("w", SIZES)
@pytest.mark.parametrize("phi", DISPERSIONS)
def test_log_density_with_weight_and_dispersion(name: str, w: float, phi: float) -> None:
    """Continuous: variance phi / w. Discrete: w y is the total of w observations, or the successes in w trials."""
    family = FAMILIES[name]()
    if family.dispersion_known:
        phi = 1.0
    y, mu = every_pair(name)
    if family.dispersion_known:
        y = y / w if not family.bounded else np.round(y * w / 2) / w
    distribution, multiple = DISTRIBUTIONS[name](mu, phi, w)
    truth = getattr(distribution, "logpmf", getattr(distribution, "logpdf", None))
    if isinstance(distribution.dist, stats.rv_continuous):
        truth = distribution.logpdf
    assert truth is not None
    # the product w y is a count up to rounding
    point = np.round(multiple * y) if family.dispersion_known else y
    expected = truth(point)
    assert np.allclose(log_density(family, y, mu, phi, w), expected, DENSITY_RELATIVE, DENSITY_ABSOLUTE)
    by_row = log_density(family, y, mu, phi, np.full(y.size, w))
    assert np.allclose(by_row, expected, DENSITY_RELATIVE, DENSITY_ABSOLUTE)


@pytest.mark.parametrize("name", FAMILIES)
def test_variance_is_that_of_the_distribution(name: str) -> None:
    mu = np.array(MEANS[name])
    distribution, _ = DISTRIBUTIONS[name](mu, 1.0, 1.0)
    assert np.allclose(FAMILIES[name]().variance(mu, 1.0 - mu), distribution.var(), rtol=4 * EPS)
    assert np.allclose(mu, distribution.mean(), rtol=4 * EPS)


@pytest.mark.parametrize("name", FAMILIES)
def test_variance_slope_is_the_derivative_of_the_variance(name: str) -> None:
    family = FAMILIES[name]()
    for mu in MEANS[name]:

        def variance(at: float) -> float:
            distribution, _ = DISTRIBUTIONS[name](at, 1.0, 1.0)
            return float(distribution.var())

        # variances are polynomials of degree two at most, of which a central difference is exact up to roundings
        step = 2.0**-7
        slope = (variance(mu + step) - variance(mu - step)) / (2 * step)
        found = family.variance_slope(np.array([mu]), np.array([1.0 - mu]))[0]
        assert abs(found - slope) <= ROUNDINGS * EPS * (1 + abs(mu)) ** 2 / step


@pytest.mark.parametrize("name", FAMILIES)
def test_unit_deviance(name: str) -> None:
    """2 (loss at mu - loss at y), in exact arithmetic."""
    y, mu = every_pair(name)
    found = FAMILIES[name]().unit_deviance(y.copy(), mu, 1.0 - mu)
    with mp.workdps(40):
        for value, one_y, one_mu in zip(found, y, mu, strict=True):
            here, best = LOSSES[name](mpf(one_y), mpf(one_mu)), LOSSES[name](mpf(one_y), mpf(one_y))
            size = abs(float(here)) + abs(float(best)) + abs(one_y) + abs(one_mu)
            assert abs(value - float(2 * (here - best))) <= ROUNDINGS * EPS * size


@pytest.mark.parametrize("name", FAMILIES)
def test_unit_loss_is_half_the_deviance_up_to_a_function_of_y(name: str) -> None:
    y, mu = every_pair(name)
    found = FAMILIES[name]().unit_loss(y, mu, 1.0 - mu).reshape(len(MEANS[name]), -1)
    with mp.workdps(40):
        exact = [float(LOSSES[name](mpf(a), mpf(b))) for a, b in zip(y, mu, strict=True)]
    truth = np.reshape(exact, found.shape)
    size = np.abs(truth).max() + np.abs(found).max()
    assert np.allclose(found - found[0], truth - truth[0], rtol=0, atol=ROUNDINGS * EPS * size)


@pytest.mark.parametrize("name", FAMILIES)
def test_residual_does_not_cancel(name: str) -> None:
    """Against exact arithmetic on y, mu and 1 - mu as given; where the mean is 1 - 2^-70, mu alone would say 0."""
    family = FAMILIES[name]()
    rest = 2.0**-70 if family.bounded else -0.5
    mu = 1.0 - rest
    for y in RESPONSES[name]:
        found = family.residual(np.array([y]), np.array([mu]), np.array([rest]))[0]
        with mp.workdps(40):
            exact = mpf(y) - (1 - mpf(rest))
            assert abs(mpf(float(found)) - exact) <= 4 * EPS * abs(exact)


@pytest.mark.parametrize("name", FAMILIES)
def test_canonical_loss_is_the_unit_loss_up_to_a_function_of_y(name: str) -> None:
    family = FAMILIES[name]()
    y, mu = every_pair(name)
    link = LINKS[family.canonical_link]()
    theta = family.canonical_scale * link.link(mu)
    found = family.canonical_loss(y, theta, mu).reshape(len(MEANS[name]), -1)
    with mp.workdps(40):
        exact = [float(LOSSES[name](mpf(a), mpf(b))) for a, b in zip(y, mu, strict=True)]
    truth = np.reshape(exact, found.shape)
    size = np.abs(truth).max() + np.abs(found).max() + np.abs(y * theta).max()
    assert np.allclose(found - found[0], truth - truth[0], rtol=0, atol=ROUNDINGS * EPS * size)


@pytest.mark.parametrize("name", FAMILIES)
def test_canonical_parameter_is_plus_or_minus_eta(name: str) -> None:
    family = FAMILIES[name]()
    mu = np.array(MEANS[name])
    eta = LINKS[family.canonical_link]().link(mu)
    assert np.allclose(family.natural_parameter(mu), family.canonical_scale * eta, rtol=4 * EPS, atol=4 * EPS)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("phi", DISPERSIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_saturated_shift_is_the_difference_of_the_sums(name: str, phi: float, weighted: bool) -> None:
    family = FAMILIES[name]()
    y = np.array(RESPONSES[name])
    w: np.ndarray | float = np.arange(1.0, y.size + 1) if weighted else 1.0
    shift = family.saturated_shift(float(y.size), phi, weighted)
    if shift is None:
        # only weights may need the rows, and only where the dispersion is estimated
        assert weighted
        assert not family.dispersion_known
        return
    if family.dispersion_known:
        assert shift == 0.0
        return

    def largest(scale: float) -> float:
        distribution, _ = DISTRIBUTIONS[name](y, scale, w)
        return float(np.sum(distribution.logpdf(y)))

    assert np.isclose(shift, largest(phi) - largest(1.0), DENSITY_RELATIVE, DENSITY_ABSOLUTE)


@pytest.mark.parametrize("name", FAMILIES)
def test_support_is_where_the_density_is(name: str) -> None:
    """Proportions aside, which have a density only together with their number of trials."""
    family = FAMILIES[name]()
    y = np.array([-np.inf, -2.0, -1e-300, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6, np.inf, np.nan])
    distribution, _ = DISTRIBUTIONS[name](MEANS[name][1], 1.0, 1.0)
    low, high = distribution.support()
    inside = np.isfinite(y) & (y >= low) & (y <= high)
    if name == "gamma":
        inside &= y > 0
    assert family.in_support(y).tolist() == inside.tolist()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("w", [1.0, 7.0])
def test_start_mean_is_possible_and_near(name: str, w: float) -> None:
    family = FAMILIES[name]()
    low, high = family.mean_range
    y = np.array(RESPONSES[name])
    start = family.start_mean(y, w)
    assert np.all((low < start) & (start < high))
    # a start is a pseudo-observation away, not more
    assert np.all(np.abs(start - y) <= 0.5 / w + 0.1 * (not family.bounded))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_range_of_means_is_that_of_the_distribution(name: str) -> None:
    family = FAMILIES[name]()
    low, high = family.mean_range
    assert family.bounded == (high == 1.0)
    for end, outside in ((low, low - 0.5), (high, high + 0.5)):
        if np.isfinite(end):
            distribution, _ = DISTRIBUTIONS[name](outside, 1.0, 1.0)
            assert np.isnan(distribution.mean())
    for mu in MEANS[name]:
        assert low < mu < high


def test_links_named_by_families_exist() -> None:
    for name, family in FAMILIES.items():
        assert family().name == name
        assert set(family().links) <= set(LINKS)
        assert {family().default_link, family().canonical_link} <= set(family().links)
    assert set(ALIASES.values()) <= set(FAMILIES)
    assert not set(ALIASES) & set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_link_needs_care_exactly_where_it_can_miss_the_range(name: str) -> None:
    family = FAMILIES[name]()
    low, high = family.mean_range
    for link_name, care in family.links.items():
        link = LINKS[link_name]()
        misses = link.restricts or link.mean_range[0] < low or link.mean_range[1] > high
        assert bool(care) == misses, link_name


@pytest.mark.parametrize(
    "y",
    [
        np.tile([0.0, 3.0, 999.0, 1.0], 400),
        np.tile([0.0, 1000.0], 700),
        np.tile([-1.0, 5.0], 700),
        np.tile([0.5, 5.0], 700),
        np.array([3.0, 1.0]),
        np.array([]),
    ],
)
def test_by_value_is_the_function_itself(y: np.ndarray) -> None:
    assert np.array_equal(by_value(lambda x: np.cos(x) * 3.0, y), np.cos(y) * 3.0)


def test_xlogy() -> None:
    x = np.array([0.0, 0.0, 2.0, 0.5])
    y = np.array([0.0, np.inf, 3.0, 1e-300])
    assert np.allclose(xlogy(x, y), [0.0, 0.0, 2.0 * np.log(3.0), 0.5 * np.log(1e-300)], rtol=4 * EPS)
    assert xlogy(np.array([1.0]), np.array([0.0]))[0] == -np.inf
