"""Prediction intervals for a new y."""

from __future__ import annotations

import warnings
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import daskglm as dg
from daskglm.errors import DesignError

# x'b and its error through scaled columns.
ROUNDING = 1e-9


def frame(n: int = 400, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    data = pd.DataFrame({"x": generator.normal(size=n), "w": generator.uniform(0.5, 3.0, n)})
    data["n"] = generator.integers(1, 12, n)
    data["y"] = 1.0 + 0.5 * data.x + generator.normal(size=n) / np.sqrt(data.w)
    data["count"] = generator.poisson(np.exp(0.3 + 0.4 * data.x))
    data["hits"] = generator.binomial(data.n, 1 / (1 + np.exp(-data.x)))
    return data


def test_gaussian_limits_are_those_of_predict_lm() -> None:
    data, new = frame(30), frame(20, 1)
    for weights in (None, "w"):
        fit = dg.glm("y ~ x", data, weights=weights)
        w = np.ones(30) if weights is None else data.w.to_numpy()
        x, z = np.column_stack([np.ones(30), data.x]), np.column_stack([np.ones(20), new.x])
        inverse = np.linalg.inv((x.T * w) @ x)
        b = inverse @ (x.T * w) @ data.y.to_numpy()
        phi = float(w @ (data.y - x @ b) ** 2) / 28
        variance = phi / (1.0 if weights is None else new.w) + phi * np.einsum("ij,jk,ik->i", z, inverse, z)
        half = stats.t.ppf(0.95, 28) * np.sqrt(variance)
        found = fit.predict(new, interval="prediction", level=0.9)
        assert list(found.columns) == ["mean", "lower", "upper"]
        np.testing.assert_allclose(found.lower, z @ b - half, rtol=ROUNDING)
        np.testing.assert_allclose(found.upper, z @ b + half, rtol=ROUNDING)
    assert list(fit.predict(new, se=True, interval="prediction").columns) == ["mean", "se", "lower", "upper"]


@pytest.mark.parametrize(
    "formula, options",
    [
        ("count ~ x", {"family": "poisson"}),
        ("hits ~ x", {"family": "binomial", "trials": "n"}),
        ("I(exp(y)) ~ x", {"family": "gamma"}),
        ("I(exp(y)) ~ x", {"family": "inverse_gaussian"}),
        ("count ~ x", {"family": "negative_binomial(theta=3)"}),
        ("count ~ x", {"family": "tweedie(power=1.4)"}),
    ],
)
def test_a_parameter_that_is_nearly_known_leaves_quantiles_of_the_family(formula: str, options: dict[str, Any]) -> None:
    """And one that is not makes them wider."""
    few = frame(25)
    new = few.head(8)
    fit = dg.glm(formula, few, **options)
    found = fit.predict(new, interval="prediction")
    # the same estimates from data a million times as many
    many = dg.glm(formula, few.assign(f=10**6), **options, weights=dg.Frequency("f"))
    sure = many.predict(new, interval="prediction")
    assert ((found.upper - found.lower) >= (sure.upper - sure.lower) - 1e-3 * (1 + sure.upper)).all()
    mu, phi = many.predict(new).to_numpy(), many.scale
    name = many.record.family.name
    tails = [0.025, 0.975]
    truth: dict[str, Any] = {
        "poisson": lambda p: stats.poisson.ppf(p, mu),
        "binomial": lambda p: stats.binom.ppf(p, new.n, mu) / new.n,
        "negative_binomial": lambda p: stats.nbinom.ppf(p, 3, 3 / (3 + mu)),
        "gamma": lambda p: stats.gamma.ppf(p, 1 / phi, scale=mu * phi),
        "inverse_gaussian": lambda p: stats.invgauss.ppf(p, mu * phi, scale=1 / phi),
    }
    if name in truth:
        np.testing.assert_allclose(sure.lower, truth[name](tails[0]), rtol=1e-4)
        np.testing.assert_allclose(sure.upper, truth[name](tails[1]), rtol=1e-4)


def test_coverage_over_many_models_is_what_was_asked_for() -> None:
    """Of 4 000 new counts and amounts from 100 models of 30 rows each."""
    inside = {"poisson": 0, "gamma": 0}
    for seed in range(100):
        generator = np.random.default_rng(seed)
        data = pd.DataFrame({"x": generator.normal(size=70)})
        mean = np.exp(2.0 + 0.4 * data.x)
        data["poisson"], data["gamma"] = generator.poisson(mean), generator.gamma(2.0, mean / 2.0)
        old, new = data.head(30), data.tail(40)
        for family in inside:
            limits = dg.glm(f"{family} ~ x", old, family=family).predict(new, interval="prediction", level=0.8)
            inside[family] += int(((new[family] >= limits.lower) & (new[family] <= limits.upper)).sum())
    # a binomial error of 0.0063, and for amounts a dispersion that is taken as known; counts cover a little more
    assert 0.78 < inside["gamma"] / 4000 < 0.82
    assert 0.79 < inside["poisson"] / 4000 < 0.87


def test_rows_at_a_limit_have_no_other_response() -> None:
    data = frame().assign(s=lambda d: np.where(d.x > 0.5, "none", "some"))
    data.loc[data.s == "none", "count"] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.SeparationWarning)
        fit = dg.glm("count ~ s", data, family="poisson")
    found = fit.predict(data, interval="prediction")
    assert (found[data.s == "none"] == 0.0).all(axis=None)
    assert (found[data.s == "some"].upper > 0.0).all()


def test_missing_values_and_lazy_collections() -> None:
    data = frame()
    fit = dg.glm("count ~ x", data, family="poisson")
    holes = data.copy()
    holes.loc[3, "x"] = np.nan
    found = fit.predict(holes, interval="prediction")
    assert found.loc[3].isna().all()
    lazy = fit.predict(dd.from_pandas(holes, npartitions=3), interval="prediction")
    pd.testing.assert_frame_equal(lazy.compute(scheduler="synchronous"), found)


def test_what_has_no_distribution_is_refused() -> None:
    data = frame()
    poisson = dg.glm("count ~ x", data, family="poisson")
    with pytest.raises(DesignError, match="leave type= out"):
        poisson.predict(data, type="link", interval="prediction")
    with pytest.raises(DesignError, match="confidence"):
        dg.glm("count ~ x", data, family="quasipoisson").predict(data, interval="prediction")
    with pytest.raises(DesignError, match="negative_binomial"):
        dg.glm("count ~ x", data, family="poisson", dispersion="pearson").predict(data, interval="prediction")
    with pytest.raises(DesignError, match="trials"):
        dg.glm("cbind(hits, n) ~ x", data, family="binomial").predict(data, interval="prediction")
    trials = dg.glm("hits ~ x", data, family="binomial", trials="n")
    with pytest.raises(DesignError, match='"n"'):
        trials.predict(data.drop(columns="n"), interval="prediction")
