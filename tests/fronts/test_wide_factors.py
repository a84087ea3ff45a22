"""A factor of many levels: the diagonal block of its Gram costs what it is, and changes no number."""

from __future__ import annotations

import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.kernels.bordered import Bordered, LowRank
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
            # what the levels leave of this column is 1e-5 of it
            "near": policy % 11 + 1e-5 * rng.normal(size=n),
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


def test_a_covariance_of_low_rank_is_the_dense_one(data: pd.DataFrame, tmp_path: Path) -> None:
    """Errors, tests and predictions are made of it without writing it out, and it is saved as it is held."""
    for formula in ("claims ~ x + policy + z", "claims ~ policy + policy:z", "claims ~ z + x:policy"):
        fit = fitted(formula, data, family="poisson")
        held = fit.record.working.held
        assert isinstance(held, LowRank)
        record = replace(fit.record, working=replace(fit.record.working, held=held.dense()))
        dense = dg.Fit(record)
        np.testing.assert_allclose(fit.bse, dense.bse, rtol=1e-11)
        scale = np.outer(dense.bse, dense.bse)
        np.testing.assert_allclose(fit.cov_params() / scale, dense.cov_params() / scale, atol=1e-11)
        np.testing.assert_array_equal(fit.cov_params(), fit.cov_params().T)
        rows = data.head(50)
        found, expected = (one.predict(rows, se=True, interval="confidence") for one in (fit, dense))
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        left_out = (
            [one.predict(rows, se=True, without=["z"]) for one in (fit, dense)] if "+ z" in formula else [0.0, 0.0]
        )
        np.testing.assert_allclose(*left_out, rtol=1e-8)
        name = fit.record.names[5]
        assert fit.wald_test(name).statistic == pytest.approx(dense.wald_test(name).statistic, rel=1e-9)
        fit.save(tmp_path / "model")
        again = dg.load(tmp_path / "model")
        np.testing.assert_array_equal(again.bse, fit.bse)
        np.testing.assert_array_equal(again.predict(rows, se=True), fit.predict(rows, se=True))


def test_a_factor_of_many_levels_takes_little_memory() -> None:
    levels, n = 8_000, 24_000
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"g": pd.Categorical(rng.permutation(np.arange(n) % levels)), "x": rng.normal(size=n)})
    table["y"] = table["x"] + rng.normal(size=n)
    tracemalloc.start()
    try:
        fit = dg.glm("y ~ x + g", table)
        fit.summary()
        fit.predict(table.head(100), se=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * 8 * levels**2
    assert fit.certificate.error_digits > 6


@pytest.mark.parametrize("formula", ["y ~ r + g + x", "y ~ g + r + x", "y ~ x + r:x + g"])
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_groups_of_the_levels_are_told_apart_without_a_dense_gram(
    formula: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every group before the factor one level is a combination, which rounding must not hide."""

    def refuse(self: Bordered) -> None:
        raise AssertionError("the Gram was written out")

    monkeypatch.setattr(Bordered, "dense", refuse)
    rng = np.random.default_rng(0)
    levels, n = 4_000, 24_000
    codes = rng.permutation(np.arange(n) % levels)
    x = rng.normal(size=n)
    mean = np.exp(0.2 * x)
    table = pd.DataFrame({"g": pd.Categorical(codes), "r": pd.Categorical(codes % 7), "x": x})
    table["y"] = rng.poisson(2.0 * mean) + 1 if family == "poisson" else mean + rng.normal(size=n)
    fit = fitted(formula, table, family=family)
    assert fit.converged
    if "r:x" not in formula:
        first = {"y ~ r + g + x": "g", "y ~ g + r + x": "r"}[formula]
        assert len(fit.aliased) == 6
        assert all(name.startswith(f"{first}[") for name in fit.aliased)


@pytest.mark.parametrize(
    ("formula", "family"),
    [("paid ~ z + policy + near + x", "gaussian"), ("claims ~ policy + x + near", "poisson")],
)
def test_a_column_that_the_levels_nearly_make_keeps_its_digits(
    data: pd.DataFrame, formula: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fitted(formula, data, family=family)
    monkeypatch.setattr(moments, "MIN_DIAGONAL_LEVELS", 10**9)
    dense = fitted(formula, data, family=family)
    assert fit.converged
    assert not fit.aliased
    assert fit.certificate.residual_columns == dense.certificate.residual_columns == ("near",)
    np.testing.assert_allclose((fit.params - dense.params) / dense.bse, 0.0, atol=1e-7)
    np.testing.assert_allclose(fit.bse, dense.bse, rtol=1e-7)
