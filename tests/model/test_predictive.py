"""Quantiles of a new y against SciPy's distributions, and averages over the linear predictor against quadrature."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate, stats

import daskglm as dg
from daskglm.errors import DesignError
from daskglm.model.predictive import distribution, hermite, predictive_quantile

Vector = npt.NDArray[np.float64]
# Two evaluations of the same function; a quantile is right to 1e-10 of its probability.
FUNCTIONS = 1e-10
QUANTILES = 1e-8

MU = np.array([0.3, 1.0, 4.0, 30.0])
W = np.array([1.0, 2.0, 3.0, 0.5])
PHI = 0.7


def compound(mu: Vector, w: Vector, phi: float, p: float) -> list[Any]:
    """Compound Poisson variables by numerical convolution: a mixture of gammas with Poisson weights."""

    class Mixture:
        def __init__(self, mean: float, weight: float) -> None:
            self.jumps = weight * mean ** (2 - p) / (phi * (2 - p))
            self.shape, self.scale = (2 - p) / (p - 1), phi / weight * (p - 1) * mean ** (p - 1)

        def cdf(self, y: float) -> float:
            j = np.arange(1, 2000)
            inner = stats.gamma.cdf(y, j * self.shape, scale=self.scale)
            return float(np.exp(-self.jumps) + stats.poisson.pmf(j, self.jumps) @ inner) if y >= 0 else 0.0

    return [Mixture(m, v) for m, v in zip(mu, w, strict=True)]


AMOUNTS: dict[str, tuple[Any, list[Any]]] = {
    "gaussian": (dg.families.Gaussian(), [stats.norm(m, np.sqrt(PHI / w)) for m, w in zip(MU, W, strict=True)]),
    "gamma": (dg.families.Gamma(), [stats.gamma(w / PHI, scale=m * PHI / w) for m, w in zip(MU, W, strict=True)]),
    "inverse_gaussian": (
        dg.families.InverseGaussian(),
        [stats.invgauss(m * PHI / w, scale=w / PHI) for m, w in zip(MU, W, strict=True)],
    ),
    "tweedie 0": (dg.families.Tweedie(power=0), [stats.norm(m, np.sqrt(PHI / w)) for m, w in zip(MU, W, strict=True)]),
    "tweedie 2": (
        dg.families.Tweedie(power=2),
        [stats.gamma(w / PHI, scale=m * PHI / w) for m, w in zip(MU, W, strict=True)],
    ),
    "tweedie 1.5": (dg.families.Tweedie(power=1.5), compound(MU, W, PHI, 1.5)),
    "tweedie 1.2": (dg.families.Tweedie(power=1.2), compound(MU, W, PHI, 1.2)),
}
COUNTS: dict[str, tuple[Any, Vector, Vector, list[Any]]] = {
    "poisson": (dg.families.Poisson(), MU, np.array([1.0, 2.0, 3.0, 4.0]), [stats.poisson(m * w) for m, w in zip(MU, [1, 2, 3, 4], strict=True)]),
    "negative_binomial": (
        dg.families.NegativeBinomial(theta=1.7), MU, np.ones(4), [stats.nbinom(1.7, 1.7 / (1.7 + m)) for m in MU]
    ),
    "binomial": (
        dg.families.Binomial(), np.array([0.01, 0.3, 0.5, 0.99]), np.array([1.0, 7.0, 40.0, 12.0]),
        [stats.binom(n, m) for n, m in zip([1, 7, 40, 12], [0.01, 0.3, 0.5, 0.99], strict=True)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AMOUNTS)
def test_quantiles_of_amounts(name: str) -> None:
    family, truth = AMOUNTS[name]
    for y in (0.05, 0.7, 3.0, 60.0):
        found = distribution(family)(family, np.full(4, y), MU, W, PHI)
        np.testing.assert_allclose(found, [one.cdf(y) for one in truth], rtol=FUNCTIONS, atol=1e-13)
    for probability in (0.005, 0.2, 0.5, 0.975):
        found = predictive_quantile(family, probability, MU[None], np.ones(1), W, PHI)
        reached = np.array([one.cdf(y) for one, y in zip(truth, found, strict=True)])
        # an atom at zero may hold more
        np.testing.assert_allclose(np.where(found == 0.0, probability, reached), probability, atol=QUANTILES)
        assert (reached >= probability - QUANTILES).all()


@pytest.mark.parametrize("name", COUNTS)
def test_quantiles_of_counts_are_the_least_that_suffice(name: str) -> None:
    family, mu, w, truth = COUNTS[name]
    for probability in (0.001, 0.025, 0.5, 0.9, 0.999):
        found = predictive_quantile(family, probability, mu[None], np.ones(1), w, 1.0)
        np.testing.assert_allclose(found * w, [one.ppf(probability) for one in truth], atol=1e-9)


def test_an_average_over_the_linear_predictor_is_that_of_quadrature() -> None:
    eta, error = 1.0, 0.4
    nodes, chances = hermite()
    means = np.exp(eta + error * nodes)[:, None]
    family = dg.families.Gamma()
    y = float(predictive_quantile(family, 0.975, means, chances, np.ones(1), 0.3)[0])
    inside, _ = integrate.quad(
        lambda e: stats.norm.pdf(e, eta, error) * stats.gamma.cdf(y, 1 / 0.3, scale=np.exp(e) * 0.3), -3, 5
    )
    # nine nodes are exact for polynomials of degree 17 in eta
    assert inside == pytest.approx(0.975, abs=1e-4)


def test_a_mean_that_is_not_known_has_no_quantile() -> None:
    means = np.array([[np.nan, 2.0]])
    for family in (dg.families.Poisson(), dg.families.Gamma()):
        found = predictive_quantile(family, 0.5, means, np.ones(1), np.ones(2), 1.0)
        assert np.isnan(found[0])
        assert found[1] > 0


@pytest.mark.parametrize("family", [dg.families.Quasi(), dg.families.Tweedie(power=2.5), dg.families.Tweedie(power=-1)])
def test_families_without_a_distribution_function_are_refused(family: Any) -> None:
    with pytest.raises(DesignError, match="distribution function"):
        distribution(family)
