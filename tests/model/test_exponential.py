"""Families made from log Z alone: against the families that are built in, scipy and mpmath; and what verification says."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy import stats

from daskglm.errors import DesignError
from daskglm.model import own
from daskglm.model.exponential import Canonical, ExponentialFamily, inside_of, links_for, looked_up, verify
from daskglm.model.families import log_density
from daskglm.model.likelihoods import GLM
from daskglm.model.links import LINKS, power
from daskglm.model.pairs import FAMILIES
from tests.model import home_made

EPS = float(np.finfo(np.float64).eps)
# What the docstring of ExponentialFamily promises, relative to the mean, to the variance, and to standard errors of theta.
MEAN = 1e-13
VARIANCE = 1e-10
PARAMETER = 1e-12
# The same where log Z takes no complex numbers.
REAL_MEAN = 1e-11
REAL_VARIANCE = 1e-8
# Third cumulants are second differences of the mean.
THIRD = 1e-7
# Losses and deviances are differences of terms of at most a few hundred, at a theta that is good to rounding.
LOSS = 1e-11
DENSITY = 1e-11
# A central difference of fourth order with a step of 2^-8 of the scale of eta, of sums of a few terms.
STEP = 2.0**-8
DIFFERENCES = 1e-7


def bernoulli(**options: Any) -> ExponentialFamily:
    return ExponentialFamily(home_made.bernoulli_log_partition, support="binary", **options)


def poisson(**options: Any) -> ExponentialFamily:
    settings = {"log_base_measure": home_made.one_over_factorial, "support": "counts", **options}
    return ExponentialFamily(home_made.poisson_log_partition, **settings)


def exponential(**options: Any) -> ExponentialFamily:
    settings = {"support": "positive", "natural_space": (-np.inf, 0.0), **options}
    return ExponentialFamily(home_made.exponential_log_partition, **settings)


def truncated(**options: Any) -> ExponentialFamily:
    return ExponentialFamily(
        home_made.truncated_log_partition, log_base_measure=home_made.truncated_base, support="counts", **options
    )


def logarithmic(**options: Any) -> ExponentialFamily:
    return ExponentialFamily(
        home_made.logarithmic_log_partition, log_base_measure=home_made.logarithmic_base, support="counts",
        natural_space=(-np.inf, 0.0), **options,
    )  # fmt: skip


def pareto(**options: Any) -> ExponentialFamily:
    """Density (-theta - 1) y^theta on y >= 1: the mean is that of log y."""
    return ExponentialFamily(
        home_made.pareto_log_partition, sufficient_statistic=np.log, support=(1.0, np.inf),
        natural_space=(-np.inf, -1.0), **options,
    )  # fmt: skip


def five_coins(**options: Any) -> ExponentialFamily:
    return ExponentialFamily(
        home_made.five_coins_log_partition, log_base_measure=home_made.five_coins_base, support=range(6), **options
    )


def uniform(**options: Any) -> ExponentialFamily:
    return ExponentialFamily(home_made.uniform_log_partition, support="unit interval", **options)


def three(**options: Any) -> ExponentialFamily:
    return ExponentialFamily(home_made.three_log_partition, support=[-1.0, 1.0, 2.5], **options)


Make = Callable[..., ExponentialFamily]

# log Z once more, in mpmath; theta to look at; responses; the range of the mean.
EXACT: dict[Make, tuple[Callable[[Any], Any], tuple[float, ...], tuple[float, ...], tuple[float, float]]] = {
    bernoulli: (lambda t: mp.log(1 + mp.exp(t)), (-6.0, -1.0, 0.0, 0.3, 5.0), (0.0, 1.0), (0.0, 1.0)),
    poisson: (mp.exp, (-20.0, -6.0, -1.0, 0.0, 0.3, 5.0), (0.0, 1.0, 7.0, 150.0), (0.0, np.inf)),
    exponential: (lambda t: -mp.log(-t), (-1e4, -7.0, -1.0, -0.3, -1e-4), (1e-3, 0.5, 20.0), (0.0, np.inf)),
    truncated: (lambda t: mp.log(mp.expm1(mp.exp(t))), (-6.0, -1.0, 0.0, 0.3, 5.0), (1.0, 2.0, 40.0), (1.0, np.inf)),
    logarithmic: (
        lambda t: mp.log(-mp.log(1 - mp.exp(t))), (-5.0, -1.0, -0.3, -1e-3), (1.0, 2.0, 40.0), (1.0, np.inf),
    ),
    pareto: (lambda t: -mp.log(-t - 1), (-9.0, -2.0, -1.3, -1.01), (1.01, 3.0, 1e4), (0.0, np.inf)),
    five_coins: (lambda t: 5 * mp.log(1 + mp.exp(t)), (-6.0, -1.0, 0.0, 0.3, 5.0), (0.0, 1.0, 4.0, 5.0), (0.0, 5.0)),
    uniform: (
        lambda t: mp.log(mp.expm1(t) / t) if t else mpf(0), (-30.0, -1.0, -0.011, 0.013, 3.0, 40.0), (0.01, 0.5, 0.99),
        (0.0, 1.0),
    ),
    three: (
        lambda t: mp.log(mp.exp(-t) + mp.exp(t) + mp.exp(mpf(5) / 2 * t)), (-4.0, -1.0, 0.0, 0.3, 5.0), (-1.0, 1.0, 2.5),
        (-1.0, 2.5),
    ),
}  # fmt: skip
# Those whose log Z takes no complex numbers.
REAL = (five_coins,)
MAKES = pytest.mark.parametrize("make", EXACT, ids=lambda make: make.__name__)


def cumulants_of(make: Make, order: int) -> np.ndarray:
    """Derivatives of log Z in 40 digits."""
    exact, thetas, _, _ = EXACT[make]
    with mp.workdps(60):
        return np.array([float(mp.diff(exact, mpf(theta), order, h=mpf(10) ** -15)) for theta in thetas])


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """As callers compute."""
    with np.errstate(all="ignore"):
        yield


# -- what is derived ---------------------------------------------------------------------------------------------------


@MAKES
def test_the_family_passes_its_verification(make: Make) -> None:
    verify(make())


@MAKES
def test_log_partition_mean_and_variance(make: Make) -> None:
    family, (exact, thetas, _, _) = make(), EXACT[make]
    theta = np.array(thetas)
    mean, variance = cumulants_of(make, 1), cumulants_of(make, 2)
    assert np.allclose(family.log_partition(theta), [float(exact(mpf(t))) for t in thetas], rtol=LOSS, atol=LOSS)
    allowed = REAL_MEAN if make in REAL else MEAN
    assert np.all(np.abs(family.mean(theta) - mean) <= allowed * (np.abs(mean) + np.sqrt(variance)))
    # variances are differences of means, and inherit their rounding
    allowed = REAL_VARIANCE if make in REAL else VARIANCE
    found = family.cumulants.variance(theta)
    assert np.all(np.abs(found - variance) <= allowed * variance + 10 * MEAN * np.abs(mean))
    found = family.variance(mean, 1.0 - mean)
    assert np.all(np.abs(found - variance) <= allowed * variance + 10 * MEAN * np.abs(mean))


@MAKES
def test_the_slope_of_the_variance(make: Make) -> None:
    """dV/dmu = K''' / K''."""
    family = make()
    mean, variance, third = (cumulants_of(make, order) for order in (1, 2, 3))
    slope = family.variance_slope(mean, 1.0 - mean)
    size = np.abs(third) / variance + np.sqrt(variance) + np.abs(mean)
    assert np.all(np.abs(slope - third / variance) <= THIRD * (10.0 if make in REAL else 1.0) * size)


@MAKES
def test_the_natural_parameter_undoes_the_mean(make: Make) -> None:
    """Up to what the rounding of the mean does to it."""
    family, theta = make(), np.array(EXACT[make][1])
    mean, variance = cumulants_of(make, 1), cumulants_of(make, 2)
    found = family.natural_parameter(mean)
    noise = 4 * EPS * np.abs(mean) / variance
    allowed = REAL_MEAN if make in REAL else PARAMETER
    assert np.all(np.abs(found - theta) <= allowed * (1.0 + np.abs(theta) + 1.0 / np.sqrt(variance)) + noise)


def test_psi_of_many_rows_is_that_of_each() -> None:
    mu = np.random.default_rng(1).gamma(0.3, 30.0, 5_000) + 1.0 + 1e-9
    family = truncated()
    theta = family.natural_parameter(mu)
    assert np.array_equal(theta[::500], [family.natural_parameter(np.array([m]))[0] for m in mu[::500]])
    # exp(theta) / (1 - exp(-exp(theta))) = mu
    rate = np.exp(theta)
    assert np.allclose(rate / -np.expm1(-rate), mu, rtol=8 * EPS)


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, -3.0, np.nan, np.inf])
def test_what_is_no_mean_has_no_parameter(mu: float) -> None:
    assert not np.isfinite(truncated().natural_parameter(np.array([mu])))[0]


@MAKES
def test_range_of_the_mean(make: Make) -> None:
    family, expected = make(), EXACT[make][3]
    assert family.mean_range == expected
    # only of a Bernoulli variable is the likelihood that of a probability
    assert family.bounded == (make is bernoulli)


def test_range_of_the_mean_on_part_of_a_natural_space() -> None:
    """At a finite theta the mean stops where it is; a rising mean has no end, however slowly it rises."""
    from scipy.special import loggamma

    part = poisson(natural_space=(-np.inf, np.log(3.0)))
    assert part.mean_range == (0.0, pytest.approx(3.0, rel=1e-12))
    shape = ExponentialFamily(
        loggamma, np.log, lambda y: -y - np.log(y), support="positive", natural_space=(0.0, np.inf)
    )
    assert shape.mean_range == (-np.inf, np.inf)
    line = ExponentialFamily(lambda t: 0.5 * t * t, log_base_measure=lambda y: -0.5 * (y * y + np.log(2 * np.pi)))
    assert line.mean_range == (-np.inf, np.inf)
    negative = ExponentialFamily(lambda t: -np.log(t), lambda y: -y, support="positive", natural_space=(0.0, np.inf))
    assert negative.mean_range == (-np.inf, 0.0)
    for family in (shape, line, negative):
        verify(family)


def test_nothing_outside_the_natural_space() -> None:
    theta = np.array([-1.0, 0.0, 1.0, np.nan])
    family = exponential()
    assert np.array_equal(family.log_partition(theta)[:3], [0.0, np.inf, np.inf])
    assert np.isnan(family.mean(theta)[1:]).all()
    assert Canonical(family).valid(theta).tolist() == [True, False, False, False]


# -- deviances and densities -------------------------------------------------------------------------------------------


def density_of(make: Make, y: float, theta: float) -> float:
    """By scipy."""
    distributions: dict[Make, Callable[[float], Any]] = {
        bernoulli: lambda t: stats.bernoulli(1 / (1 + np.exp(-t))),
        poisson: lambda t: stats.poisson(np.exp(t)),
        exponential: lambda t: stats.expon(scale=-1 / t),
        logarithmic: lambda t: stats.logser(np.exp(t)),
        pareto: lambda t: stats.pareto(-t - 1),
        five_coins: lambda t: stats.binom(5, 1 / (1 + np.exp(-t))),
    }
    found = distributions[make](theta)
    return float(found.logpmf(y) if hasattr(found.dist, "_pmf") else found.logpdf(y))


@pytest.mark.parametrize("make", [bernoulli, poisson, exponential, logarithmic, pareto, five_coins])
def test_log_density_is_scipys(make: Make) -> None:
    family, (_, thetas, responses, _) = make(), EXACT[make]
    mean = cumulants_of(make, 1)
    for y in responses:
        found = log_density(family, np.full(mean.size, y), mean)
        truth = np.array([density_of(make, y, theta) for theta in thetas])
        # a rounding of the mean moves theta by that much over the variance
        noise = 8 * EPS * np.abs(mean) / np.sqrt(cumulants_of(make, 2))
        assert np.all(np.abs(found - truth) <= DENSITY * (1.0 + np.abs(truth) + np.abs(y)) + noise * np.abs(truth))


@MAKES
def test_deviance_is_counted_from_the_largest_density(make: Make) -> None:
    """Which mpmath finds by Newton steps from ours, or as the limit at the end of the natural space."""
    family, (exact, thetas, responses, mean_range) = make(), EXACT[make]
    mean = cumulants_of(make, 1)
    for y in responses:
        t = float(family.sufficient_statistic(np.array([y]))[0])
        with mp.workdps(40):
            if mean_range[0] < t < mean_range[1]:
                best = mpf(float(family.natural_parameter(np.array([t]))[0]))
                for _ in range(3):
                    best -= (mp.diff(exact, best) - mpf(t)) / mp.diff(exact, best, 2)
            else:
                best = mpf(-60 if t <= mean_range[0] else 60)
            truth = [float(2 * (mpf(t) * (best - mpf(at)) - exact(best) + exact(mpf(at)))) for at in thetas]
        found = family.unit_deviance(np.full(mean.size, y), mean, 1.0 - mean)
        size = 1.0 + np.abs(truth) + np.abs(t * np.array(thetas)) + abs(t * float(best))
        assert np.all(np.abs(found - truth) <= LOSS * size), y
        loss = family.unit_loss(np.full(mean.size, y), mean, 1.0 - mean)
        assert np.all(np.abs(2 * (loss - loss[0]) - (np.array(truth) - truth[0])) <= LOSS * (size + size[0])), y


def test_deviance_where_no_density_is_the_largest() -> None:
    """A continuous response at the end of its range: -2 log density."""
    family, mu = uniform(), np.array([0.2, 0.5, 0.9])
    for y in (0.0, 1.0):
        at = np.full(3, y)
        density = y * family.natural_parameter(mu) - family.log_partition(family.natural_parameter(mu))
        assert np.allclose(family.unit_deviance(at, mu, 1.0 - mu), -2.0 * density, rtol=LOSS)
        assert np.array_equal(family.saturated(at, 1.0, 1.0), np.zeros(3))
        assert np.allclose(log_density(family, at, mu), density, rtol=LOSS)


def test_deviance_beyond_the_means_there_are() -> None:
    """A natural space that ends where the mean is 3: of y = 5 the largest density is at that end."""
    family, mu, y = poisson(natural_space=(-np.inf, np.log(3.0))), np.array([0.5, 2.9]), np.array([5.0, 5.0])
    gap = stats.poisson.logpmf(5, 3.0) - stats.poisson.logpmf(5, mu)
    assert np.allclose(family.unit_deviance(y, mu, 1.0 - mu), 2.0 * gap, rtol=1e-9)


def test_unit_loss_at_the_end_of_the_means() -> None:
    """The mean is 0: certain for a count of 0, impossible for another."""
    zero = np.zeros(2)
    assert poisson().unit_loss(np.array([0.0, 2.0]), zero, 1.0 - zero).tolist() == [0.0, np.inf]


@MAKES
def test_weights_multiply_the_log_density(make: Make) -> None:
    family, (_, _, responses, _) = make(), EXACT[make]
    y, w = np.array(responses), np.arange(1.0, len(responses) + 1)
    mu = np.full(y.size, cumulants_of(make, 1)[1])
    once = log_density(family, y, mu)
    assert np.allclose(log_density(family, y, mu, 1.0, w), w * once, rtol=LOSS)
    assert family.saturated_shift(5.0, 1.0, True) == 0.0
    assert family.ml_dispersion(3.0, True) == 1.0


# -- against what is built in ------------------------------------------------------------------------------------------

BUILT_IN = ((bernoulli, "binomial"), (poisson, "poisson"), (exponential, "gamma"))


@pytest.mark.parametrize("make, name", BUILT_IN)
def test_as_the_family_that_is_built_in(make: Make, name: str) -> None:
    family, model = make(), FAMILIES[name]()
    mean = cumulants_of(make, 1)
    theta = np.array(EXACT[make][1])
    y, mu = (part.ravel() for part in np.meshgrid(EXACT[make][2], mean))
    rest = 1.0 - mu
    assert np.allclose(family.variance(mu, rest), model.variance(mu, rest), rtol=VARIANCE)
    # near 0 the slope is a small difference for the Bernoulli variance
    assert np.allclose(family.variance_slope(mu, rest), model.variance_slope(mu, rest), rtol=THIRD, atol=THIRD)
    assert np.allclose(family.natural_parameter(mean), model.natural_parameter(mean), rtol=PARAMETER, atol=PARAMETER)
    assert np.allclose(family.mean(theta), model.mean(theta), rtol=MEAN)
    assert np.allclose(family.log_partition(theta), model.log_partition(theta), rtol=MEAN)
    ours, theirs = family.unit_deviance(y, mu, rest), model.unit_deviance(y.copy(), mu, rest)
    assert np.allclose(ours, theirs, rtol=LOSS, atol=LOSS * (1.0 + y.max()))
    assert np.array_equal(family.residual(y, mu, rest), model.residual(y, mu, rest))
    assert np.allclose(log_density(family, y, mu), log_density(model, y.copy(), mu), rtol=LOSS, atol=LOSS)
    assert family.mean_range == model.mean_range
    assert family.bounded == model.bounded


@pytest.mark.parametrize("make, name", BUILT_IN)
def test_rows_as_those_of_the_model_that_is_built_in(make: Make, name: str) -> None:
    """Under the canonical link, and under another."""
    family, model = make(), FAMILIES[name]()
    theta = np.array(EXACT[make][1])
    for y in EXACT[make][2]:
        at = np.full(theta.size, y)
        ours = GLM(family, Canonical(family)).rows(at, theta)
        theirs = GLM(model, LINKS[model.canonical_link]()).rows(at, model.canonical_scale * theta)
        assert ours.valid
        assert np.allclose(ours.loss, theirs.loss, rtol=MEAN)
        size = (np.abs(y) + theirs.mu) * 4 * MEAN
        assert np.all(np.abs(ours.score - model.canonical_scale * theirs.score) <= size)
        assert np.allclose(ours.weight, theirs.weight, rtol=VARIANCE)
        link = LINKS["cloglog" if family.bounded else "log"]()
        eta = link.link(ours.mu)
        ours, theirs = (GLM(one, link).rows(at, eta) for one in (family, model))
        assert np.allclose(ours.loss - ours.loss[0], theirs.loss - theirs.loss[0], rtol=LOSS, atol=LOSS * (1 + y))
        assert np.allclose(ours.score, theirs.score, rtol=VARIANCE, atol=VARIANCE)
        assert np.allclose(ours.weight, theirs.weight, rtol=THIRD, atol=THIRD * (1 + y))


def pairs() -> list[tuple[Make, str]]:
    """Every family with every link that can give its means."""
    return [(make, link) for make in EXACT for link in make().links]


@pytest.mark.parametrize("make, link", pairs(), ids=lambda value: getattr(value, "__name__", value))
def test_rows_by_finite_differences(make: Make, link: str) -> None:
    family = make()
    bridge = Canonical(family) if link == "canonical" else power(0.3) if link == "power" else LINKS[link]()
    glm = GLM(family, bridge)
    low, high = family.mean_range
    mean = np.array([m for m in cumulants_of(make, 1) if max(low, bridge.mean_range[0]) < m < bridge.mean_range[1]])
    eta = bridge.link(mean)
    # a step keeps within the means there are, and away from poles of the link
    reach = np.minimum(mean - low, high - mean)
    slope = np.abs(bridge.inverse(eta)[1])
    step = STEP * np.minimum(np.minimum(1.0, np.abs(eta) + (not bridge.restricts)), reach / slope)
    for y in EXACT[make][2]:
        at = np.full(eta.size, y)
        here = glm.rows(at, eta)
        expected = glm.rows(at, eta, 2, "expected").weight
        rows = [glm.rows(at, eta + k * step) for k in (-2, -1, 1, 2)]
        assert here.valid
        for values, truth, size in (
            ([row.loss for row in rows], -here.score, np.abs(here.score) + np.sqrt(expected)),
            ([row.score for row in rows], -here.weight, np.abs(here.weight) + expected),
        ):
            slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
            # roundings of the terms of a loss, and of a score the noise of a derived variance
            noise = max(np.abs(v).max() for v in values) * 1e-14 / step
            noise = noise + (np.abs(here.score) * REAL_VARIANCE / step if make in REAL else 0.0)
            noise = noise + np.abs(here.score) * VARIANCE / step
            assert np.all(np.abs(slope - truth) <= DIFFERENCES * size + noise), (y, link)


def test_a_fit_by_newton_steps() -> None:
    """Zero-truncated counts: at the end the score equations hold, and the optimum is that of scipy."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(7)
    x = np.column_stack([np.ones(400), rng.normal(size=400)])
    y = rng.poisson(np.exp(x @ [0.4, 0.3])).astype(float)
    x, y = x[y > 0], y[y > 0]
    family = truncated()
    glm = GLM(family, Canonical(family))
    start = family.natural_parameter(family.start_mean(y, 1.0))
    coef = np.linalg.lstsq(x, start, rcond=None)[0]
    for _ in range(20):
        rows = glm.rows(y, x @ coef)
        coef = coef + np.linalg.solve((x * rows.weight[:, None]).T @ x, x.T @ rows.score)
    assert np.all(np.abs(x.T @ glm.rows(y, x @ coef).score) <= 1e-9)

    def loss(b: np.ndarray) -> float:
        rate = np.exp(x @ b)
        return float(np.sum(np.log(np.expm1(rate)) - y * np.log(rate)))

    assert np.allclose(coef, minimize(loss, coef + 0.1, method="BFGS", options={"gtol": 1e-9}).x, atol=1e-6)


# -- responses and links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "support, possible, impossible",
    [
        ("real", (-1e9, 0.0, 3.5), (np.inf, np.nan)),
        ("positive", (1e-300, 3.5), (0.0, -1.0, np.inf, np.nan)),
        ("unit interval", (0.0, 0.5, 1.0), (-0.1, 1.1, np.nan)),
        ("counts", (0.0, 1.0, 1e6), (-1.0, 0.5, np.inf, np.nan)),
        ("binary", (0.0, 1.0), (0.5, 2.0, np.nan)),
        ((-2, 3), (-2.0, 0.0, 3.0), (-2.1, 3.1)),
        ((1, np.inf), (1.0, 7.0), (0.9, np.inf)),
        ([4, 1, 2.5], (1.0, 2.5, 4.0), (0.0, 1.5)),
        (np.arange(3.0), (0.0, 1.0, 2.0), (0.5, 3.0)),
    ],
)
def test_supports(support: Any, possible: tuple[float, ...], impossible: tuple[float, ...]) -> None:
    family = ExponentialFamily(lambda theta: 0.5 * theta * theta, support=support)
    y = np.array([*possible, *impossible])
    assert family.in_support(y).tolist() == [True] * len(possible) + [False] * len(impossible)
    assert family.support


def test_a_response_without_a_chance_is_not_possible() -> None:
    assert truncated().in_support(np.array([0.0, 1.0, 2.0])).tolist() == [False, True, True]
    assert pareto().in_support(np.array([0.5, 1.0])).tolist() == [False, True]
    assert truncated().support == "a count: 0, 1, 2, ... that log_base_measure gives a chance (not 0)"
    assert poisson().support == "a count: 0, 1, 2, ..."
    assert three().support == "one of -1, 1, 2.5"


@MAKES
@pytest.mark.parametrize("w", [1.0, 5.0])
def test_start_mean_is_possible(make: Make, w: float) -> None:
    family, (_, _, responses, (low, high)) = make(), EXACT[make]
    start = family.start_mean(np.array(responses), w)
    assert np.all((low < start) & (start < high))
    assert np.all(np.isfinite(family.natural_parameter(start)))


@pytest.mark.parametrize(
    "low, high, t, expected",
    [
        (-np.inf, np.inf, 3.0, 3.0),
        (0.0, np.inf, 3.0, 3.0),
        (0.0, np.inf, 0.0, 0.1),
        (-np.inf, 1.0, 1.0, 0.8),
        (-np.inf, 1.0, -2.0, -2.0),
        (-1.0, 1.0, 1.0, 0.5),
        (-1.0, 1.0, 4.0, 0.5),
    ],
)
def test_inside_of(low: float, high: float, t: float, expected: float) -> None:
    assert inside_of(np.array([t]), 1.0, low, high, False)[0] == pytest.approx(expected)


@pytest.mark.parametrize("low, high, t, expected", [(1.0, np.inf, 1.0, 1.1), (-np.inf, 0.0, 0.0, -0.1)])
def test_inside_of_counts(low: float, high: float, t: float, expected: float) -> None:
    assert inside_of(np.array([t]), 1.0, low, high, True)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "low, high, some, never",
    [
        (0.0, 1.0, {"logit", "probit", "cloglog", "log", "identity"}, set()),
        (0.0, np.inf, {"log", "identity", "inverse", "sqrt"}, {"logit", "probit"}),
        (1.0, np.inf, {"log", "identity"}, {"logit"}),
        (-np.inf, np.inf, {"identity", "log", "inverse"}, {"logit", "cloglog"}),
        (-np.inf, 0.0, {"identity"}, {"log", "sqrt", "logit"}),
    ],
)
def test_links_that_go_with_a_range_of_means(low: float, high: float, some: set[str], never: set[str]) -> None:
    found = links_for(low, high)
    assert some <= set(found)
    assert not never & set(found)
    for name, care in found.items():
        link = (LINKS | {"power": lambda: power(0.3)})[name]()
        assert bool(care) == (link.restricts or link.mean_range[0] < low or link.mean_range[1] > high)


def test_the_canonical_link_needs_care_where_theta_has_ends() -> None:
    assert poisson().links["canonical"] == ""
    assert "between -inf and 0" in exponential().links["canonical"]
    assert poisson().default_link == poisson().canonical_link == Canonical(poisson()).name == "canonical"


@MAKES
def test_the_canonical_link(make: Make) -> None:
    family, theta = make(), np.array(EXACT[make][1])
    link = Canonical(family)
    mean, variance, third = (cumulants_of(make, order) for order in (1, 2, 3))
    mu, slope, rest = link.inverse(theta)
    relative = REAL_VARIANCE if make in REAL else VARIANCE
    assert np.allclose(mu, mean, rtol=REAL_MEAN)
    assert np.all(np.abs(slope - variance) <= relative * variance + 10 * MEAN * np.abs(mean))
    assert np.allclose(rest, 1.0 - mean, rtol=REAL_MEAN, atol=REAL_MEAN)
    size = np.abs(third) + variance * (np.sqrt(variance) + np.abs(mean))
    assert np.all(np.abs(link.curvature(theta) - third) <= 10 * THIRD * size)
    assert link.mean_range == family.mean_range
    assert link.restricts == (family.natural_space != (-np.inf, np.inf))
    if family.mean_range == (0.0, 1.0):
        rates = link.rates(theta)
        assert np.allclose(np.exp(rates.log_mu), mean, rtol=VARIANCE)
        assert np.allclose(rates.up * mean, variance, rtol=THIRD)
        assert np.allclose(rates.down * (1.0 - mean), variance, rtol=THIRD)
        assert np.allclose(rates.bend * variance, third, rtol=THIRD, atol=THIRD * variance.max())


def test_a_shifted_bernoulli_variable() -> None:
    """h(1) = 3 h(0): theta is the logit less log 3, and nothing cancels where the mean is 1 to the last bit."""
    family = ExponentialFamily(
        lambda theta: np.log1p(3.0 * np.exp(theta)), log_base_measure=lambda y: y * np.log(3.0), support="binary"
    )
    verify(family)
    theta = np.array([-50.0, -1.0, 0.0, 2.0, 50.0])
    mu, _, rest = Canonical(family).inverse(theta)
    assert np.allclose(mu, 3 * np.exp(theta) / (1 + 3 * np.exp(theta)), rtol=8 * EPS)
    # exp(theta + log 3) inherits the rounding of theta
    assert np.allclose(rest, 1 / (1 + 3 * np.exp(theta)), rtol=64 * EPS)
    assert np.allclose(family.natural_parameter(mu[:4]), theta[:4], rtol=64 * EPS, atol=8 * EPS)


def test_looked_up_is_the_function_itself() -> None:
    seen: list[int] = []

    def function(x: np.ndarray) -> np.ndarray:
        seen.append(x.size)
        return np.cos(x)

    for y in (np.tile([3.0, 1.0, 2.0], 100), np.arange(10.0), np.zeros(0)):
        assert np.array_equal(looked_up(function, y), np.cos(y))
    assert seen == [3, 10, 0]


# -- what is given -----------------------------------------------------------------------------------------------------


def test_what_is_given_is_used() -> None:
    theta, mu = np.array([-2.0, 0.5]), np.array([0.3, 4.0])
    family = poisson(mean=np.exp, variance=lambda mu: mu, natural_parameter=np.log)
    verify(family)
    assert np.array_equal(family.mean(theta), np.exp(theta))
    assert np.array_equal(family.variance(mu, 1 - mu), mu)
    assert np.array_equal(family.natural_parameter(mu), np.log(mu))
    assert np.allclose(family.variance_slope(mu, 1 - mu), 1.0, rtol=MEAN)
    # the variance of a mean that is given, and a third cumulant from either
    for given in ({"mean": np.exp}, {"mean": lambda t: np.exp(np.abs(t) * np.sign(t))}, {"variance": lambda mu: mu}):
        partly = poisson(**given)
        verify(partly)
        assert np.allclose(partly.variance(mu, 1 - mu), mu, rtol=VARIANCE)
        assert np.allclose(partly.cumulants.third(theta), np.exp(theta), rtol=THIRD)
    # a variance that takes no complex numbers
    steep = poisson(variance=lambda mu: np.abs(mu))
    assert np.allclose(steep.variance_slope(mu, 1 - mu), 1.0, rtol=VARIANCE)


REFUSED: list[tuple[Callable[[], ExponentialFamily], str]] = [
    # log Z too small, and too large
    (
        lambda: exponential(log_base_measure=lambda y: np.full(y.shape, 1.0)),
        r"the density at theta = -8 integrates to 2.71828, not to 1: log_partition \(or log_base_measure\) is off by 1.0000",
    ),
    (
        lambda: poisson(log_base_measure=lambda y: home_made.one_over_factorial(y) - 1.0),
        r"the density at theta = -4 sums to 0.367879, not to 1: log_partition \(or log_base_measure\) is off by -1.0000",
    ),
    (
        lambda: bernoulli(log_base_measure=lambda y: y * 0.5),
        r"the density at theta = -4 sums to 1.01",
    ),
    (lambda: poisson(log_base_measure=None, natural_space=(-np.inf, 0.0)), r"theta = -8 sums to 1.00000005628, not to 1: .* off by 0.0000000563"),
    (lambda: ExponentialFamily(lambda theta: theta * theta), "the density at theta = -4 integrates to infinity: log_base"),
    (
        lambda: poisson(log_base_measure=lambda y: y * y),
        "the density at theta = -4 sums to infinity: log_base_measure or sufficient_statistic is not as meant, or natural",
    ),
    # a wrong mean, variance or Psi
    (
        lambda: poisson(mean=lambda theta: 2.0 * np.exp(theta)),
        r"mean\(theta = -4\) is 0.0366313, but the derivative of log_partition is 0.0183156: mean or log_partition is wrong",
    ),
    (
        lambda: poisson(variance=lambda mu: mu + mu**2),
        r"variance\(mu = 0.0183156\) is 0.0186511, but the second derivative of log_partition there is 0.0183156: variance",
    ),
    (
        lambda: poisson(natural_parameter=lambda mu: np.log(mu) + 0.25),
        r"natural_parameter\(mu = 0.0183156\) is -3.75, but that is the mean at theta = -4: natural_parameter",
    ),
    # not convex
    (
        lambda: ExponentialFamily(lambda theta: -0.5 * theta * theta),
        "log_partition is not strictly convex: its second derivative at theta = -4 is -1, which is the variance of T",
    ),
    (lambda: ExponentialFamily(lambda theta: 2.0 * theta), "not strictly convex: its second derivative"),
    (lambda: poisson(mean=lambda theta: -np.exp(theta)), "mean is not increasing: its derivative at theta = -4 is -0.018"),
    # not a number
    (
        lambda: exponential(natural_space=(-np.inf, np.inf)),
        r"log_partition is inf at theta = 0, inside natural_space \(-inf, inf\): it must be finite there, or",
    ),
    # not vectorised
    (lambda: ExponentialFamily(lambda theta: float(np.sum(theta**2))), "log_partition must return one number for each"),
    (lambda: ExponentialFamily(lambda theta: theta**2 if theta > 0 else 0.0), "log_partition fails for an array of 9"),
    (lambda: poisson(log_base_measure=lambda y: 0.0), "log_base_measure must return one number for each"),
    (lambda: poisson(variance=lambda mu: mu[:1]), r"variance must return one number .* returns float64 of shape \(1,\)"),
    # nothing possible
    (lambda: poisson(log_base_measure=lambda y: np.full(y.shape, -np.inf)), "no response is possible in the exponential"),
    # tails that are too heavy everywhere
    (
        lambda: ExponentialFamily(
            lambda theta: -np.log(-theta), lambda y: np.log1p(np.log1p(y)), support="counts", natural_space=(-np.inf, 0.0)
        ),
        "could not be summed at any theta from -8 to -0.125",
    ),
]  # fmt: skip


@pytest.mark.parametrize("make, sentence", REFUSED)
def test_verification_refuses(make: Callable[[], ExponentialFamily], sentence: str) -> None:
    with pytest.raises(DesignError, match=sentence):
        verify(make())


def test_a_statistic_that_is_not_meant() -> None:
    """The density of the counts sums to 1 only with T(y) = y."""
    with pytest.raises(DesignError, match="the density at theta = -4 sums to"):
        verify(poisson(sufficient_statistic=lambda y: 2.0 * y))


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"log_partition": 3}, "log_partition must be a function, not 3"),
        ({"log_partition": np.exp, "mean": "exp"}, "mean must be a function, not 'exp'"),
        ({"log_partition": np.exp, "natural_space": (0, 0)}, r"natural_space=\(0, 0\) must be \(lower, upper\)"),
        ({"log_partition": np.exp, "natural_space": 3}, r"natural_space=3 must be \(lower, upper\)"),
        ({"log_partition": np.exp, "support": "count"}, r'there is no support "count" \(did you mean "counts"\?\)'),
        ({"log_partition": np.exp, "support": (3, 1)}, r"support=\(3, 1\): the lower end must be below the upper one"),
        ({"log_partition": np.exp, "support": 3}, "support=3 is neither a name"),
        ({"log_partition": np.exp, "support": ["a", "b"]}, "is neither a name"),
        ({"log_partition": np.exp, "support": (0.0, np.nan)}, "is neither a name"),
    ],
)
def test_settings_that_mean_nothing(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DesignError, match=sentence):
        ExponentialFamily(**options)


def test_heavy_tails_are_summed_where_they_can_be() -> None:
    """The zeta distribution, T(y) = log y: near theta = -1 no sum ends, and at -5 it does."""
    from scipy.special import zeta

    family = ExponentialFamily(
        lambda theta: np.log(zeta(-theta)),
        lambda y: np.log(np.maximum(y, 1.0)),
        lambda y: np.where(y > 0, 0.0, -np.inf),
        support="counts",
        natural_space=(-np.inf, -1.0),
    )
    verify(family)
    theta = np.array([-4.0, -2.5])
    with mp.workdps(30):
        truth = [float(mp.diff(lambda t: mp.log(mp.zeta(-t)), mpf(t))) for t in theta]
    assert np.allclose(family.mean(theta), truth, rtol=REAL_MEAN)
    assert family.mean_range == (0.0, np.inf)


# -- by import path ----------------------------------------------------------------------------------------------------


@MAKES
def test_document_and_back(make: Make) -> None:
    family = make(name="mine", default_link="log")
    document = json.loads(json.dumps(family.document()))
    assert document["log_partition"].startswith("tests.model.home_made:")
    assert ExponentialFamily.from_document(document) == family
    assert pickle.loads(pickle.dumps(family)) == family
    assert pickle.loads(pickle.dumps(Canonical(family))) == Canonical(family)


def test_a_pickle_holds_paths_and_no_state() -> None:
    family = truncated()
    before = pickle.dumps(family)
    verify(family)
    assert family.mean_range == (1.0, np.inf)
    assert pickle.dumps(family) == before
    assert b"tests.model.home_made:truncated_log_partition" in before


def test_another_process_imports_the_functions() -> None:
    program = (
        "import pickle, sys, numpy; family = pickle.load(sys.stdin.buffer);"
        "print(repr(float(family.mean(numpy.array([0.3]))[0])))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(truncated()), capture_output=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert float(found.stdout) == truncated().mean(np.array([0.3]))[0]


def test_a_function_without_an_import_path_is_refused() -> None:
    family = ExponentialFamily(lambda theta: 0.5 * theta * theta, name="mine")
    for send in (family.document, lambda: pickle.dumps(family)):
        with pytest.raises(
            DesignError, match=r"log_partition of the mine family cannot be found .* put the function into"
        ):
            send()


def test_a_document_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    document = truncated().document()
    monkeypatch.delitem(sys.modules, "tests.model.home_made")
    with pytest.raises(
        DesignError, match=r"the model uses tests.model.home_made:truncated_log_partition: import tests"
    ):
        ExponentialFamily.from_document(document)
    assert own.path_of(home_made.truncated_log_partition) is None
