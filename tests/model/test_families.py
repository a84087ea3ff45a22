"""Families against scipy.stats and mpmath. What ties densities, partition functions and means is in tests/laws."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy import special

from daskglm.errors import DesignError
from daskglm.model.counts import NegativeBinomial
from daskglm.model.families import Gamma, by_value, log_density, xlogy
from daskglm.model.pairs import ALIASES
from daskglm.model.pairs import FAMILIES as TABLE
from daskglm.model.power import Tweedie
from tests.laws.exact import (
    DISTRIBUTIONS,
    EPS,
    FAMILIES,
    LINKS,
    LOSSES,
    MEANS,
    RESPONSES,
    VARIANCES,
    WITH_DENSITY,
    exact_log_density,
)

# scipy's log densities and ours differ by roundings of log-gamma, whose terms reach about 2 000 here.
DENSITY_RELATIVE = 1e-12
DENSITY_ABSOLUTE = 1e-11
# A deviance is a difference of terms as large as y log(y / mu) and y - mu: roundings of those.
ROUNDINGS = 8.0
# A difference of fourth order with steps h of an analytic function of log phi: h^4 times a derivative of up to 100 times
# the function, where single jumps show, and roundings over h or h^2.
DIFFERENCE = 2.0**-7
SLOPES = 1e-8
BENDS = 1e-7
# A formula in other words has other roundings, and log Z of up to 80 is inside an exponential.
FORMULAS = 1e-11

DISPERSIONS = (0.2, 1.0, 3.5)
SIZES = (1.0, 3.0, 10.0)


def every_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Every response with every mean."""
    y, mu = np.meshgrid(RESPONSES[name], MEANS[name])
    return y.ravel(), mu.ravel()


def test_every_family_of_a_number_is_held_to_the_laws() -> None:
    """Those below and in tests/laws run over FAMILIES of tests/laws/exact.py; quasi families have none but their own."""
    numbers = {name: make() for name, make in TABLE.items() if make().response == "number"}
    ours = {name for name, family in numbers.items() if family.likelihood_at != "never"}
    assert {make().text.partition("(")[0] for make in FAMILIES.values()} == ours
    assert all(make().text == text for text, make in FAMILIES.items())


@pytest.mark.parametrize("name", WITH_DENSITY)
@pytest.mark.parametrize("w", SIZES)
@pytest.mark.parametrize("phi", DISPERSIONS)
def test_log_density_with_weight_and_dispersion(name: str, w: float, phi: float) -> None:
    """Continuous: variance phi / w. Discrete: w y is the total of w observations, or the successes in w trials."""
    family = FAMILIES[name]()
    if family.dispersion_known:
        phi = family.dispersion
    y, mu = every_pair(name)
    if family.discrete:
        y = y / w if not family.bounded else np.round(y * w / 2) / w
    expected = exact_log_density(name, y, mu, phi, w)
    assert np.allclose(log_density(family, y, mu, phi, w), expected, DENSITY_RELATIVE, DENSITY_ABSOLUTE)
    by_row = log_density(family, y, mu, phi, np.full(y.size, w))
    assert np.allclose(by_row, expected, DENSITY_RELATIVE, DENSITY_ABSOLUTE)


@pytest.mark.parametrize("name", WITH_DENSITY)
@pytest.mark.parametrize("w", [1.0, 2.5])
@pytest.mark.parametrize("phi", DISPERSIONS)
def test_derivatives_of_the_saturated_density_in_log_phi(name: str, w: float, phi: float) -> None:
    """By central differences of the exact density at mean y."""
    family = FAMILIES[name]()
    y = np.array(RESPONSES[name])
    value, first, second = family.saturated_derivatives(y, w, phi)
    assert np.array_equal(value, family.saturated(y, w, phi))
    if family.discrete:
        assert not first.any()
        assert not second.any()
        return
    at = [exact_log_density(name, y, y, phi * np.exp(k * DIFFERENCE), w) for k in (-2, -1, 0, 1, 2)]
    slope = (at[0] - 8 * at[1] + 8 * at[3] - at[4]) / (12 * DIFFERENCE)
    bend = (-at[0] + 16 * at[1] - 30 * at[2] + 16 * at[3] - at[4]) / (12 * DIFFERENCE**2)
    assert np.allclose(first, slope, rtol=0, atol=SLOPES * (1 + np.abs(value).max()))
    assert np.allclose(second, bend, rtol=0, atol=BENDS * (1 + np.abs(value).max()))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("deviance", [0.03, 0.8, 2.5])
def test_ml_dispersion_is_where_the_likelihood_is_greatest(name: str, deviance: float) -> None:
    """sum saturated - deviance / (2 phi) has slope zero there, whatever the responses."""
    family = FAMILIES[name]()
    found = family.ml_dispersion(deviance, False)
    if family.dispersion_known:
        assert found == family.dispersion
        return
    if found is None:
        # it needs the rows, one by one
        assert family.saturated_shift(1.0, 1.0, False) is None
        return
    _, slope, _ = family.saturated_derivatives(np.array(RESPONSES[name]), 1.0, found)
    assert np.allclose(slope + 0.5 * deviance / found, 0.0, atol=DENSITY_ABSOLUTE * (1 + deviance / found))


@pytest.mark.parametrize("name", FAMILIES)
def test_variance_is_that_of_the_distribution(name: str) -> None:
    mu = np.array(MEANS[name])
    distribution, _ = DISTRIBUTIONS[name](mu, 1.0, 1.0)
    # scipy makes the variance of an inverse gaussian by a few roundings, a power of the mean by one more
    assert np.allclose(FAMILIES[name]().variance(mu, 1.0 - mu), distribution.var(), rtol=8 * EPS)
    assert np.allclose(mu, distribution.mean(), rtol=4 * EPS)


@pytest.mark.parametrize("name", FAMILIES)
def test_variance_and_its_slope_in_exact_arithmetic(name: str) -> None:
    family = FAMILIES[name]()
    with mp.workdps(40):
        for mu in MEANS[name]:
            at, rest = np.array([mu]), np.array([1.0 - mu])
            variance, slope = VARIANCES[name](mpf(mu)), mp.diff(VARIANCES[name], mpf(mu))
            assert abs(mpf(float(family.variance(at, rest)[0])) - variance) <= ROUNDINGS * EPS * abs(variance)
            found = mpf(float(family.variance_slope(at, rest)[0]))
            assert abs(found - slope) <= ROUNDINGS * EPS * (abs(slope) + family.bounded)


@pytest.mark.parametrize("name", FAMILIES)
def test_unit_deviance(name: str) -> None:
    """2 (loss at mu - loss at y), in exact arithmetic."""
    y, mu = every_pair(name)
    found = FAMILIES[name]().unit_deviance(y.copy(), mu, 1.0 - mu)
    with mp.workdps(40):
        for value, one_y, one_mu in zip(found, y, mu, strict=True):
            # where y is below every mean, the best is the least mean
            least = mpf(max(one_y, FAMILIES[name]().mean_range[0]))
            here, best = LOSSES[name](mpf(one_y), mpf(one_mu)), LOSSES[name](mpf(one_y), least)
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
    theta = family.natural_parameter(mu)
    found = family.canonical_loss(y, theta, mu).reshape(len(MEANS[name]), -1)
    with mp.workdps(40):
        exact = [float(LOSSES[name](mpf(a), mpf(b))) for a, b in zip(y, mu, strict=True)]
    truth = np.reshape(exact, found.shape)
    size = np.abs(truth).max() + np.abs(found).max() + np.abs(y * theta).max()
    assert np.allclose(found - found[0], truth - truth[0], rtol=0, atol=ROUNDINGS * EPS * size)


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name]().canonical_link])
def test_canonical_parameter_is_a_multiple_of_eta(name: str) -> None:
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
        # weights may need the rows; so do families whose likelihood is summed over them anyway
        assert weighted or family.likelihood_at == "reported"
        return
    if family.discrete:
        assert shift == 0.0
        return

    def largest(scale: float) -> float:
        return float(np.sum(exact_log_density(name, y, y, scale, w)))

    assert np.isclose(shift, largest(phi) - largest(1.0), DENSITY_RELATIVE, DENSITY_ABSOLUTE)


@pytest.mark.parametrize("name", FAMILIES)
def test_support_is_where_the_density_is(name: str) -> None:
    """Proportions aside, which have a density only together with their number of trials."""
    family = FAMILIES[name]()
    y = np.array([-np.inf, -2.0, -1e-300, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6, np.inf, np.nan])
    distribution, _ = DISTRIBUTIONS[name](MEANS[name][1], 1.0, 1.0)
    low, high = distribution.support()
    inside = np.isfinite(y) & (y >= low) & (y <= high)
    if family.support == "positive":
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
    # a start is a pseudo-observation away, not more; of a power of the mean, whose unit may be anything, a tenth of the mean
    far = 0.1 * np.mean(np.abs(y)) if name.startswith("tweedie") else 0.1 * (not family.bounded)
    allowed = 0.5 / w * family.bounded + far + 4 * EPS * np.abs(y)
    assert np.all(np.abs(start - np.maximum(y, low)) <= allowed)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_range_of_means_is_that_of_the_distribution(name: str) -> None:
    family = FAMILIES[name]()
    low, high = family.mean_range
    assert family.bounded == (high == 1.0)
    for end, outside in ((low, low - 0.5), (high, high + 0.5)):
        if np.isfinite(end):
            with np.errstate(all="ignore"):
                distribution, _ = DISTRIBUTIONS[name](outside, 1.0, 1.0)
                assert np.isnan(distribution.mean())
    for mu in MEANS[name]:
        assert low < mu < high


def test_links_named_by_families_exist() -> None:
    names = {link.partition("(")[0] for link in LINKS}
    for name, make in TABLE.items():
        family = make()
        assert family.name == name
        assert set(family.links) <= names
        assert family.default_link in family.links
        assert family.canonical_link in (*family.links, "")
    assert set(ALIASES.values()) <= set(TABLE)
    assert not set(ALIASES) & set(TABLE)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_link_needs_care_exactly_where_it_can_miss_the_range(name: str) -> None:
    family = FAMILIES[name]()
    low, high = family.mean_range
    for text, make in LINKS.items():
        link = make()
        if text.partition("(")[0] in family.links:
            misses = link.restricts or link.mean_range[0] < low or link.mean_range[1] > high
            assert bool(family.links[text.partition("(")[0]]) == misses, text


@pytest.mark.parametrize("name", FAMILIES)
def test_formulas_are_those_of_the_code(name: str) -> None:
    """V, Psi, log Z and log h as they are written for a reader, evaluated."""
    family = FAMILIES[name]()
    for mu in MEANS[name]:
        at = np.array([mu])
        theta = family.natural_parameter(at)
        assert evaluated(family.formulas.variance, mu=mu) == pytest.approx(family.variance(at, 1 - at)[0], rel=FORMULAS)
        assert evaluated(family.formulas.natural_parameter, mu=mu) == pytest.approx(theta[0], rel=FORMULAS)
        log_partition = family.log_partition(theta)[0]
        assert abs(log_partition) > 600 or np.log(
            evaluated(family.formulas.partition, theta=theta[0])
        ) == pytest.approx(log_partition, rel=FORMULAS, abs=FORMULAS)
    assert family.formulas.sufficient_statistic == "y"
    for y in RESPONSES[name]:
        if y < 35 and not family.formulas.base_measure.startswith("an infinite series"):
            found = np.log(evaluated(family.formulas.base_measure, y=y))
            assert family.log_base_measure(np.array([y]))[0] == pytest.approx(found, rel=FORMULAS, abs=FORMULAS)


def evaluated(formula: str, **values: float) -> float:
    """A formula of a textbook: a product has no sign."""
    words = {
        "log": np.log, "exp": np.exp, "sqrt": np.sqrt, "pi": np.pi, "choose": special.binom, "factorial": special.factorial,
    }  # fmt: skip
    formula = formula.replace("^", "**").replace("y!", "factorial(y)")
    return float(eval(re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", formula), {**words, **values}))


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: Gamma(shape=-1.0), "the shape of a gamma family is a positive number, not -1.0"),
        (lambda: Gamma(shape=np.inf), "the shape of a gamma family is a positive number, not inf"),
        (lambda: Gamma(shape="2"), "the shape of a gamma family is a positive number, not '2'"),  # type: ignore[arg-type]
        (lambda: NegativeBinomial(0.0), "theta of a negative binomial family is a positive number, not 0.0"),
        (lambda: NegativeBinomial([1]), r"theta of a negative binomial family is a positive number, not \[1\]"),  # type: ignore[arg-type]
        (lambda: Tweedie(1), 'Tweedie with power 1 is the Poisson family: use "poisson", or "quasipoisson"'),
        (lambda: Tweedie(0.5), "no distribution has a variance mu.0.5: the power is <= 0, between 1 and 2, or >= 2"),
        (lambda: Tweedie(np.nan), "the power of a Tweedie family is a number, not nan"),
        (lambda: NegativeBinomial().size, "theta of this negative binomial family is not known yet"),
        (lambda: Tweedie().p, "the power of this Tweedie family is not known yet"),
    ],
)
def test_parameters_that_make_no_family(make: Any, sentence: str) -> None:
    with pytest.raises(DesignError, match=sentence):
        make()


def test_a_negative_binomial_of_infinite_theta_is_poisson() -> None:
    limit, poisson = NegativeBinomial(np.inf), FAMILIES["poisson"]()
    y, mu = every_pair("poisson")
    for name in ("unit_deviance", "unit_loss"):
        found, truth = (getattr(family, name)(y.copy(), mu, 1.0 - mu) for family in (limit, poisson))
        assert np.array_equal(found, truth), name
    assert np.array_equal(limit.variance(mu, mu), mu)
    assert np.array_equal(limit.variance_slope(mu, mu), np.ones_like(mu))
    assert np.array_equal(limit.saturated(y, 2.0, 1.0), poisson.saturated(y, 2.0, 1.0))
    # and far from infinity, near it: the difference is of the order of (y - mu)^2 / theta
    close = NegativeBinomial(1e9)
    size = 1.0 + (y - mu) ** 2 + mu
    assert np.all(np.abs(log_density(close, y, mu) - log_density(poisson, y, mu)) <= 1e-9 * size + DENSITY_ABSOLUTE)


@pytest.mark.parametrize("power, name", [(0, "gaussian"), (2, "gamma"), (3, "inverse_gaussian")])
def test_powers_with_families_of_their_own(power: float, name: str) -> None:
    one, other = Tweedie(power), FAMILIES[name]()
    y, mu = every_pair(name)
    assert np.allclose(one.unit_deviance(y, mu, mu), other.unit_deviance(y.copy(), mu, mu), rtol=1e-9, atol=1e-13)
    found, truth = (log_density(family, y, mu, 0.7, 1.5) for family in (one, other))
    assert np.allclose(found, truth, DENSITY_RELATIVE, DENSITY_ABSOLUTE)


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
