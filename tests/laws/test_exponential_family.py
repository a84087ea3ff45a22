"""Every family is one: p(y) = h(y) exp(T(y) theta) / Z(theta), with what follows from that."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.model.families import log_density
from daskglm.model.likelihoods import GLM
from tests.laws.exact import (
    DISTRIBUTIONS,
    EPS,
    EXTREME_MEANS,
    FAMILIES,
    LINKS,
    MEANS,
    PAIRS,
    RESPONSES,
    WITH_DENSITY,
    exact_log_density,
    moderate_etas,
    responses_with_measure,
    tweedie,
)

# Log densities are sums of terms of up to about 2 000, with a handful of roundings each.
DENSITY = 1e-11
# Sums over the support: truncated where the tail is below 1e-15, and rounded.
SUMS = 1e-12
# A central difference of fourth order, see the step.
DIFFERENCES = 1e-9
STEP = 2.0**-10
ROUNDINGS = 8.0


def every_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Every response with every mean."""
    y, mu = np.meshgrid(RESPONSES[name], MEANS[name])
    return y.ravel(), mu.ravel()


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_log_density_is_scipys(name: str) -> None:
    y, mu = every_pair(name)
    found = log_density(FAMILIES[name](), y, mu)
    assert np.allclose(found, exact_log_density(name, y, mu), rtol=DENSITY, atol=DENSITY)


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_the_exponential_form_is_the_density(name: str) -> None:
    """log h + T theta - log Z, at phi = w = 1."""
    family = FAMILIES[name]()
    y, mu = every_pair(name)
    theta = family.natural_parameter(mu)
    form = family.log_base_measure(y) + family.sufficient_statistic(y) * theta - family.log_partition(theta)
    assert np.allclose(form, exact_log_density(name, y, mu), rtol=DENSITY, atol=DENSITY)
    assert np.allclose(form, log_density(family, y, mu), rtol=DENSITY, atol=DENSITY)


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_density_sums_to_one_with_the_stated_moments(name: str) -> None:
    family = FAMILIES[name]()
    for mu in MEANS[name]:
        y, dy = responses_with_measure(name, mu)
        chance = np.exp(log_density(family, y, np.full(y.size, mu))) * dy
        assert abs(chance.sum() - 1.0) <= SUMS
        assert abs((chance * y).sum() - mu) <= SUMS * (1.0 + abs(mu))
        spread = (chance * (y - mu) ** 2).sum()
        variance = family.variance(np.array([mu]), np.array([1.0 - mu]))[0]
        assert abs(spread - variance) <= SUMS * (1.0 + mu * mu + variance)


@pytest.mark.parametrize("mu", [0.3, 1.0, 4.0])
def test_density_of_a_negative_power_sums_to_one_with_the_stated_moments(mu: float) -> None:
    """Any response has one; below the mean it falls off as an exponential, above it faster than the normal one."""
    family = FAMILIES[tweedie(-0.5)]()
    spread = mu**-0.25
    y = mu + spread * np.arange(-400.0, 14.0, 0.01)
    chance = np.exp(log_density(family, y, np.full(y.size, mu))) * 0.01 * spread
    assert abs(chance.sum() - 1.0) <= SUMS
    assert abs((chance * y).sum() - mu) <= SUMS * (1.0 + mu)
    assert abs((chance * (y - mu) ** 2).sum() - spread**2) <= SUMS * (1.0 + spread**2)


@pytest.mark.parametrize("name", [name for name in WITH_DENSITY if FAMILIES[name]().in_support(np.zeros(1))[0]])
@pytest.mark.parametrize("phi", [0.3, 2.0])
def test_the_chance_of_nothing(name: str, phi: float) -> None:
    """Of a zero: exp(-mu), (1 + mu / theta)^-theta, exp(-mu^(2-p) / (phi (2-p))), however near 0 or 1 that is."""
    family = FAMILIES[name]()
    if family.dispersion_known or not name.startswith("tweedie") or family.power == 0:
        phi = 1.0
    for mu in (1e-9, 1e-3, 0.4, 7.0, 900.0)[: 3 if family.bounded else 5]:
        truth = {
            "gaussian": lambda m: -0.5 * m * m - 0.5 * np.log(2 * np.pi),
            "binomial": lambda m: np.log1p(-m),
            "poisson": lambda m: -m,
            "negative_binomial": lambda m: -family.theta * np.log1p(m / family.theta),
            "geometric": lambda m: -np.log1p(m),
            "tweedie": lambda m: -np.power(m, 2 - family.power) / (phi * (2 - family.power)),
        }["gaussian" if name == "tweedie(power=0)" else family.name](mu)
        found = log_density(family, np.zeros(1), np.array([mu]), phi)[0]
        assert found == pytest.approx(truth, rel=1e-13)


@pytest.mark.parametrize("name", FAMILIES)
def test_mean_undoes_the_natural_parameter(name: str) -> None:
    family = FAMILIES[name]()
    extreme = [mu for mu in EXTREME_MEANS[name] if mu < 1.0 or not family.bounded]
    mu = np.array([*MEANS[name], *extreme])
    theta = family.natural_parameter(mu)
    # exp(theta) inherits the rounding of theta
    assert np.all(np.abs(family.mean(theta) - mu) <= ROUNDINGS * EPS * (1.0 + np.abs(np.log(np.abs(mu)))) * np.abs(mu))


@pytest.mark.parametrize("name", FAMILIES)
def test_log_partition_generates_mean_and_variance(name: str) -> None:
    """d log Z / d theta = mean; d mean / d theta = variance."""
    family = FAMILIES[name]()
    mu = np.array(MEANS[name])
    theta = family.natural_parameter(mu)
    # canonical parameters that end somewhere end there with a pole or a branch point, from which a step keeps away
    with np.errstate(all="ignore"):
        ends = family.natural_parameter(np.array(family.mean_range))
    step = STEP * np.min([np.ones_like(theta), *(np.abs(theta - end) for end in ends)], axis=0)

    def derivative(function: object) -> np.ndarray:
        assert callable(function)
        values = [function(theta + k * step) for k in (-2, -1, 1, 2)]
        return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)

    size = np.abs(mu) + np.abs(family.log_partition(theta)) + 1e-3
    assert np.all(np.abs(derivative(family.log_partition) - mu) <= DIFFERENCES * size)
    distribution, _ = DISTRIBUTIONS[name](mu, 1.0, 1.0)
    assert np.all(np.abs(derivative(family.mean) - distribution.var()) <= DIFFERENCES * (distribution.var() + size))


@pytest.mark.parametrize("name", FAMILIES)
def test_deviance_is_zero_at_the_mean_and_positive_elsewhere(name: str) -> None:
    family = FAMILIES[name]()
    low, high = family.mean_range
    inside = np.array([y for y in RESPONSES[name] if low < y < high] or MEANS[name])
    assert np.all(family.unit_deviance(inside.copy(), inside, 1.0 - inside) == 0.0)
    y, mu = every_pair(name)
    deviance = family.unit_deviance(y.copy(), mu, 1.0 - mu)
    assert np.all(deviance[y != mu] > 0.0)
    # close by, rounding may take a few units in the last place of y
    near = inside * (1.0 + 2.0**-50)
    assert np.all(family.unit_deviance(inside.copy(), near, 1.0 - near) >= -ROUNDINGS * EPS * (1.0 + np.abs(inside)))


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_deviance_is_twice_the_gap_to_the_saturated_density(name: str) -> None:
    family = FAMILIES[name]()
    y, mu = every_pair(name)
    gap = 2.0 * (family.saturated(y, 1.0, 1.0) - exact_log_density(name, y, mu))
    assert np.allclose(family.unit_deviance(y.copy(), mu, 1.0 - mu), gap, rtol=DENSITY, atol=DENSITY)


@pytest.mark.parametrize("family, link", PAIRS)
def test_score_has_mean_zero_and_the_expected_weight_as_variance(family: str, link: str) -> None:
    """E[s] = 0, E[s^2] = expected weight, E[observed weight] = expected weight, under the family's own density, or any
    with the same mean and variance."""
    glm = GLM(FAMILIES[family](), LINKS[link]())
    for eta in moderate_etas(family, link):
        mu = float(glm.mean_of(np.array([eta]))[0])
        y, dy = responses_with_measure(family, mu)
        chance = np.exp(exact_log_density(family, y, np.full(y.size, mu))) * dy
        observed = glm.rows(y, np.full(y.size, eta))
        expected = glm.rows(y, np.full(y.size, eta), 2, "expected").weight[0]
        terms = np.abs(chance * observed.score).sum()
        assert abs((chance * observed.score).sum()) <= SUMS * (1.0 + terms)
        assert abs((chance * observed.score**2).sum() / expected - 1.0) <= 10 * SUMS
        size = np.abs(chance * observed.weight).sum() / expected
        assert abs((chance * observed.weight).sum() / expected - 1.0) <= 10 * SUMS * (1.0 + size)
