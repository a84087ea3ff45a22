"""Chances of counts by their recursion, also where it starts from nothing, against SciPy's distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from daskglm.model.families import Binomial, Poisson
from daskglm.model.pairs import FAMILIES
from daskglm.totals.counting import Counting

# Each step of the recursion rounds; log-gammas of some hundred, where it is by logarithms, have lost three digits.
ROUNDING = 1e-11
MOST = 60


def problem(name: str) -> tuple[Any, np.ndarray, np.ndarray, Any]:
    if name == "poisson":
        mu = np.array([1e-9, 0.3, 4.0, 55.0, 700.0, 900.0])
        return Poisson(), mu, np.ones(6), stats.poisson(mu)
    if name == "binomial":
        mu, size = np.array([1e-8, 0.2, 0.5, 0.97, 1.0 - 1e-13, 0.4]), np.array([1.0, 7.0, 30.0, 50.0, 55.0, 2_000.0])
        return Binomial(), mu, size, stats.binom(size, mu)
    # SciPy's probability theta / (theta + mu) leaves few digits of its complement for a mean near 0
    mu = np.array([1e-2, 0.3, 4.0, 55.0, 700.0, 9e5])
    return FAMILIES["negative_binomial"](theta=1.7), mu, np.ones(6), stats.nbinom(1.7, 1.7 / (1.7 + mu))


@pytest.mark.parametrize("name", ["poisson", "binomial", "negative_binomial"])
def test_chances_of_counts(name: str) -> None:
    family, mu, size, exact = problem(name)
    for count in (0.0, 1.0, 3.0, 55.0, 70.0):
        seen = np.minimum(count, size) if name == "binomial" else np.full(6, count)
        with np.errstate(all="ignore"):
            found = Counting.of(family, seen / size, mu, 1.0 - mu, size, MOST)
        expected = np.stack([exact.pmf(k) for k in range(MOST + 1)])
        np.testing.assert_allclose(found.chance, expected, rtol=ROUNDING * 100, atol=1e-290)
        np.testing.assert_allclose(found.chances.at, exact.pmf(seen), rtol=ROUNDING * 100, atol=1e-290)
        # a residual is read from the nearer tail
        below, above = exact.cdf(seen - 1.0), exact.sf(seen)
        np.testing.assert_allclose(found.chances.below, below, rtol=ROUNDING * 100, atol=1e-15)
        np.testing.assert_allclose(found.chances.above, above, rtol=1e-9, atol=1e-12)
    table = found.table(np.arange(1.0, 7.0))
    assert table.sum(axis=1) == pytest.approx([21.0, 21.0], rel=ROUNDING)


def test_what_is_no_count_has_no_residual() -> None:
    with np.errstate(all="ignore"):
        found = Counting.of(Poisson(), np.array([0.5, 1.0]), np.ones(2), np.zeros(2), np.ones(2), 5)
    assert np.isnan(found.chances.at).tolist() == [True, False]
