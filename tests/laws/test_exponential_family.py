"""Every family is one: p(y) = h(y) exp(T(y) theta) / Z(theta), with what follows from that."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.model.families import log_density
from daskglm.model.likelihoods import GLM
from daskglm.model.links import LINKS
from tests.laws.exact import (
    DISTRIBUTIONS,
    EPS,
    EXTREME_MEANS,
    FAMILIES,
    MEANS,
    PAIRS,
    RESPONSES,
    moderate_etas,
    responses_with_measure,
)

# Log densities are sums of terms of up to about 2 000, with a handful of roundings each.
DENSITY = 1e-11
# Sums over the support: truncated where the tail is below 1e-15, and rounded.
SUMS = 1e-12
# A central difference of fourth order, see the step.
DIFFERENCES = 1e-9
STEP = 2.0**-8
ROUNDINGS = 8.0


def every_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Every response with every mean."""
    y, mu = np.meshgrid(RESPONSES[name], MEANS[name])
    return y.ravel(), mu.ravel()


def scipy_density(name: str, y: np.ndarray, mu: np.ndarray) -> np.ndarray:
    distribution, _ = DISTRIBUTIONS[name](mu, 1.0, 1.0)
    return distribution.logpmf(y) if hasattr(distribution.dist, "_pmf") else distribution.logpdf(y)


@pytest.mark.parametrize("name", FAMILIES)
def test_log_density_is_scipys(name: str) -> None:
    y, mu = every_pair(name)
    found = log_density(FAMILIES[name](), y, mu)
    assert np.allclose(found, scipy_density(name, y, mu), rtol=DENSITY, atol=DENSITY)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_exponential_form_is_the_density(name: str) -> None:
    """log h + T theta - log Z, at phi = w = 1."""
    family = FAMILIES[name]()
    y, mu = every_pair(name)
    theta = family.natural_parameter(mu)
    form = family.log_base_measure(y) + family.sufficient_statistic(y) * theta - family.log_partition(theta)
    assert np.allclose(form, scipy_density(name, y, mu), rtol=DENSITY, atol=DENSITY)
    assert np.allclose(form, log_density(family, y, mu), rtol=DENSITY, atol=DENSITY)


@pytest.mark.parametrize("name", FAMILIES)
def test_density_sums_to_one_with_the_stated_moments(name: str) -> None:
    family = FAMILIES[name]()
    for mu in MEANS[name]:
        y, dy = responses_with_measure(name, mu)
        chance = np.exp(log_density(family, y, np.full(y.size, mu))) * dy
        assert abs(chance.sum() - 1.0) <= SUMS
        assert abs((chance * y).sum() - mu) <= SUMS * (1.0 + abs(mu))
        spread = (chance * (y - mu) ** 2).sum()
        variance = family.variance(np.array([mu]), np.array([1.0 - mu]))[0]
        assert abs(spread - variance) <= SUMS * (1.0 + mu * mu)


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
    step = STEP * np.minimum(1.0, np.abs(theta) + (family.canonical_scale > 0))

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


@pytest.mark.parametrize("name", FAMILIES)
def test_deviance_is_twice_the_gap_to_the_saturated_density(name: str) -> None:
    family = FAMILIES[name]()
    y, mu = every_pair(name)
    gap = 2.0 * (family.saturated(y, 1.0, 1.0) - scipy_density(name, y, mu))
    assert np.allclose(family.unit_deviance(y.copy(), mu, 1.0 - mu), gap, rtol=DENSITY, atol=DENSITY)


@pytest.mark.parametrize("family, link", PAIRS)
def test_score_has_mean_zero_and_the_expected_weight_as_variance(family: str, link: str) -> None:
    """E[s] = 0, E[s^2] = expected weight, E[observed weight] = expected weight, under the family's own density."""
    glm = GLM(FAMILIES[family](), LINKS[link]())
    for eta in moderate_etas(family, link):
        mu = float(glm.mean_of(np.array([eta]))[0])
        y, dy = responses_with_measure(family, mu)
        chance = np.exp(scipy_density(family, y, np.full(y.size, mu))) * dy
        observed = glm.rows(y, np.full(y.size, eta))
        expected = glm.rows(y, np.full(y.size, eta), 2, "expected").weight[0]
        terms = np.abs(chance * observed.score).sum()
        assert abs((chance * observed.score).sum()) <= SUMS * (1.0 + terms)
        assert abs((chance * observed.score**2).sum() / expected - 1.0) <= 10 * SUMS
        size = np.abs(chance * observed.weight).sum() / expected
        assert abs((chance * observed.weight).sum() / expected - 1.0) <= 10 * SUMS * (1.0 + size)
