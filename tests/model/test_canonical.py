"""Canonical parameters that are vectors: densities against scipy, moments of T by quadrature, and both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats

import daskglm as dg
from daskglm.errors import DesignError
from daskglm.model.canonical import (
    GAMMA,
    INVERSE_GAUSSIAN,
    NORMAL,
    VECTOR_FAMILIES,
    VectorFamily,
    categorical,
    mean_parameter,
    natural_parameter,
)
from tests.laws.exact import EPS, FAMILIES, MEANS

Vector = npt.NDArray[np.float64]

# A few roundings of numbers of the size of the log density.
DENSITY = 1e-12
# The trapezoidal rule on integrands that fall off faster than any power, in y or in log y.
QUADRATURE = 1e-11
# A difference of fourth order with steps of 2^-9 of theta: its error, and its rounding over the step.
STEP = 2.0**-9
DIFFERENCES = 1e-8
BENDS = 1e-6
BACK = 1e-13

# Ordinary parameters, the distribution of scipy, and where its density lives: as y itself, or as log y.
CASES: dict[
    str, tuple[VectorFamily, list[list[float]], Callable[[Any, Any], Any], Callable[[Any, Any], Vector], bool]
] = {
    "normal": (
        NORMAL,
        [[0.3, 2.0], [-4.0, 0.1], [10.0, 30.0]],
        lambda mean, variance: stats.norm(mean, np.sqrt(variance)),
        lambda mean, variance: mean + np.sqrt(variance) * np.linspace(-14.0, 14.0, 561),
        False,
    ),
    "gamma": (
        GAMMA,
        [[1.0, 1.0], [0.2, 3.5], [40.0, 0.7]],
        lambda mean, shape: stats.gamma(shape, scale=mean / shape),
        lambda mean, shape: np.log(mean) + np.linspace(-45.0 / shape, 6.0, 4001),
        True,
    ),
    "inverse_gaussian": (
        INVERSE_GAUSSIAN,
        [[1.0, 1.0], [0.3, 2.0], [5.0, 20.0]],
        lambda mean, shape: stats.invgauss(mean / shape, scale=shape),
        lambda mean, shape: np.log(mean) + np.linspace(-9.0, 9.0, 3601),
        True,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_log_density_is_scipys(name: str) -> None:
    family, ordinary, distribution, *_ = CASES[name]
    for given in ordinary:
        y = distribution(*given).ppf([1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
        theta = np.repeat(family.natural_parameter(np.array([given])), 5, axis=0)
        assert np.allclose(family.log_density(y, theta), distribution(*given).logpdf(y), rtol=DENSITY, atol=DENSITY)


@pytest.mark.parametrize("name", CASES)
def test_ordinary_and_canonical_parameters_lead_back(name: str) -> None:
    family, ordinary, *_ = CASES[name]
    given = np.array(ordinary)
    theta = family.natural_parameter(given)
    assert theta.shape == given.shape == (3, len(family.parameters))
    assert np.allclose(family.ordinary(theta), given, rtol=BACK)
    assert np.allclose(family.natural_parameter(family.ordinary(theta)), theta, rtol=BACK)


def gradient(function: Callable[[Any], Any], theta: Vector) -> Vector:
    """d function / d theta at one theta (k,), by differences; a function of (n, k)."""
    columns = []
    for j in range(theta.size):
        step = STEP * (abs(theta[j]) if theta[j] else 1.0)
        values = [function((theta + k * step * np.eye(theta.size)[j])[None])[0] for k in (-2, -1, 1, 2)]
        columns.append((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("name", CASES)
def test_log_partition_generates_the_moments_of_t(name: str) -> None:
    """grad log Z = E[T], Hessian = Cov[T], both integrated under scipy's density; and it integrates to 1."""
    family, ordinary, distribution, grid, logarithmic = CASES[name]
    for given in ordinary:
        points = grid(*given)
        y = np.exp(points) if logarithmic else points
        chance = distribution(*given).pdf(y) * (y if logarithmic else 1.0) * (points[1] - points[0])
        assert abs(chance.sum() - 1.0) <= QUADRATURE
        t = family.sufficient_statistic(y)
        mean = chance @ t
        covariance = (t - mean).T @ (chance[:, None] * (t - mean))
        theta = family.natural_parameter(np.array([given]))[0]
        size = np.sqrt(np.diag(covariance))
        assert np.all(np.abs(gradient(family.log_partition, theta) - mean) <= DIFFERENCES * (size + np.abs(mean)))
        hessian = gradient(lambda at: np.stack([gradient(family.log_partition, row) for row in at]), theta)
        assert np.all(np.abs(hessian - covariance) <= BENDS * np.outer(size, size) + BENDS * np.abs(covariance).max())


@pytest.mark.parametrize(
    "name, gaussian", [("normal", "gaussian"), ("gamma", "gamma"), ("inverse_gaussian", "inverse_gaussian")]
)
def test_they_are_the_dispersion_models_of_the_families(name: str, gaussian: str) -> None:
    """Variance, or 1 / shape, is phi."""
    from daskglm.model.families import log_density

    family, ordinary, *_ = CASES[name]
    assert VECTOR_FAMILIES[gaussian] is family
    y = np.array([0.2, 1.0, 7.0])
    for mean, second in ordinary:
        theta = np.repeat(family.natural_parameter(np.array([[mean, second]])), 3, axis=0)
        phi = second if name == "normal" else 1.0 / second
        scalar = log_density(FAMILIES[gaussian](), y, np.full(3, mean), phi)
        assert np.allclose(family.log_density(y, theta), scalar, rtol=DENSITY, atol=DENSITY)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_categorical(classes: int) -> None:
    """Sums over the classes instead of integrals."""
    family = categorical(classes)
    rng = np.random.default_rng(classes)
    mu = rng.dirichlet(np.ones(classes), 5)
    theta = family.natural_parameter(mu)
    assert theta.shape == (5, classes - 1)
    assert len(family.parameters) == classes
    assert np.allclose(family.ordinary(theta), mu, rtol=1e-12)
    for row, chance in zip(theta, mu, strict=True):
        y = np.arange(classes).astype(float)
        assert np.allclose(np.exp(family.log_density(y, np.repeat(row[None], classes, axis=0))), chance, rtol=DENSITY)
        t = family.sufficient_statistic(y)
        mean = chance @ t
        covariance = (t - mean).T @ (chance[:, None] * (t - mean))
        assert np.allclose(gradient(family.log_partition, row), mean, rtol=0, atol=DIFFERENCES)
        hessian = gradient(lambda at: np.stack([gradient(family.log_partition, one) for one in at]), row)
        assert np.allclose(hessian, covariance, rtol=0, atol=BENDS)


def test_log_partition_of_far_parameters_does_not_overflow() -> None:
    found = categorical(3).log_partition(np.array([[800.0, -800.0], [-800.0, -900.0], [1e5, 1e5]]))
    assert np.allclose(found, [800.0, 0.0, 1e5 + np.log(2.0)], rtol=DENSITY)


# -- of a family by its name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_means_and_canonical_parameters_of_a_family(name: str) -> None:
    mu = np.array(MEANS[name])
    theta = natural_parameter(name, mu)
    assert np.array_equal(theta, FAMILIES[name]().natural_parameter(mu))
    # a power of the mean magnifies the rounding of theta by 1 / |1 - p|
    assert np.allclose(mean_parameter(name, theta), mu, rtol=64 * EPS)


@pytest.mark.parametrize("name", ["multinomial", "ordinal"])
def test_probabilities_and_canonical_parameters_of_classes(name: str) -> None:
    mu = np.array([[0.2, 0.5, 0.3], [1e-12, 1e-300, 1.0], [1 / 3, 1 / 3, 1 / 3]])
    theta = natural_parameter(name, mu)
    assert theta.shape == (3, 2)
    assert np.allclose(theta, np.log(mu[:, 1:] / mu[:, :1]))
    assert np.allclose(mean_parameter(name, theta), mu, rtol=1e-12)
    assert np.allclose(mean_parameter(name, np.array([[800.0, -800.0], [-800.0, -800.0]])), [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("function", [natural_parameter, mean_parameter])
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_classes_have_a_column_each(function: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(DesignError, match=f"have two dimensions, not {len(shape)}: a column for"):
        function("multinomial", np.full(shape, 0.5))


def test_a_fit_knows_those_of_its_family() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": rng.normal(size=80), "n": rng.poisson(2.0, 80), "k": rng.choice(["a", "b", "c"], 80)})
    counts = dg.glm("n ~ x", data, family="negative_binomial(theta=2)")
    mu = counts.predict(data).to_numpy()
    assert np.allclose(counts.natural_parameter(mu), np.log(mu / (mu + 2.0)))
    assert np.allclose(counts.mean_parameter(counts.natural_parameter(mu)), mu)
    classes = dg.glm("k ~ x", data, family="multinomial")
    theta = classes.natural_parameter(classes.predict(data))
    assert np.allclose(theta, classes.predict(data, "link"))
