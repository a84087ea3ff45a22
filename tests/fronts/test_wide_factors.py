"""A factor of many levels: the diagonal block of its Gram costs what it is, and changes no number."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.totals import moments

LEVELS = 700
# Two orders of elimination, and what iterations make of their rounding.
SAME = 1e-9


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n = 14_000
    policy = rng.permutation(np.arange(n) % LEVELS)
    region = policy % 5
    x, z = rng.normal(3.0, 1.0, n), rng.normal(size=n)
    mean = np.exp(0.4 + 0.3 * rng.normal(size=LEVELS)[policy] + 0.2 * z)
    return pd.DataFrame(
        {
            "policy": pd.Categorical(policy),
            "region": pd.Categorical(region),
            "x": x,
            "z": z,
            "claims": rng.poisson(mean),
            "amount": rng.gamma(2.0, mean / 2.0) + 1e-3,
            "paid": mean + rng.normal(size=n),
            "late": (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-0.5 * z - rng.normal(size=LEVELS)[policy]))).astype(
                int
            ),
            "w": rng.uniform(0.5, 2.0, n),
        }
    )


def fitted(*arguments: Any, **options: Any) -> dg.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = dg.glm(*arguments, **options)
    assert isinstance(fit, dg.Fit)
    return fit


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("paid ~ x + policy", {}),
        ("paid ~ policy + x + z", {"weights": "w"}),
        ("paid ~ 0 + policy + x", {}),
        ("paid ~ policy + region + z", {}),
        ("paid ~ region + policy + z", {}),
        ("paid ~ z + policy:x", {}),
        ("claims ~ policy + x + z", {"family": "poisson"}),
        ("claims ~ region:z + policy", {"family": "negative_binomial"}),
        ("amount ~ policy + z", {"family": "gamma"}),
        ("late ~ z + policy", {"family": "binomial"}),
        ("late ~ z + policy", {"family": "binomial", "link": "probit", "covariance": "observed"}),
        ("claims ~ policy + x", {"family": "poisson", "covariance": "HC1"}),
    ],
)
def test_the_numbers_are_those_of_the_dense_gram(
    data: pd.DataFrame, formula: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fitted(formula, data, **options)
    monkeypatch.setattr(moments, "MIN_DIAGONAL_LEVELS", 10**9)
    dense = fitted(formula, data, **options)
    assert (fit.converged, list(fit.aliased), fit.separated) == (dense.converged, list(dense.aliased), dense.separated)
    assert fit.n_iter == dense.n_iter
    for name, parts in dense.record.aliased.items():
        assert fit.record.aliased[name] == pytest.approx(parts, rel=1e-6)
    errors = dense.bse
    np.testing.assert_allclose((fit.params - dense.params) / errors, np.where(errors.isna(), np.nan, 0.0), atol=SAME)
    np.testing.assert_array_equal(np.isinf(fit.params), np.isinf(dense.params))
    np.testing.assert_allclose(fit.bse, errors, rtol=SAME)
    np.testing.assert_allclose(fit.cov_params(), dense.cov_params(), rtol=1e-7, atol=SAME * np.nanmin(errors) ** 2)
    np.testing.assert_allclose(fit.deviance, dense.deviance, rtol=1e-12)
    assert abs(fit.certificate.digits - dense.certificate.digits) <= 0.5
    assert abs(fit.certificate.error_digits - dense.certificate.error_digits) <= 0.5
    assert fit.certificate.condition == pytest.approx(dense.certificate.condition, rel=1e-6)
