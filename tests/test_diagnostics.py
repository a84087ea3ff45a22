"""Residuals: their sums are the fit's statistics, one per row wherever it lies, and drawn by who the row is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from scipy.sparse import csr_array

import daskglm as dg
from daskglm.cluster import lakes
from daskglm.errors import DataError, DesignError
from daskglm.model.residuals import DISTRIBUTIONS
from daskglm.postestimation.diagnostics import KINDS
from tests.test_influence import write_lake

# The same sums in another order.
ROUNDING = 1e-10
# Of a fixed seed, so that it is no chance whether this holds.
LIKELY = 0.01
FORMULA = "y ~ x + s"
FAMILIES: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "poisson": {"exposure": "e"},
    "binomial": {"trials": "t"},
    "gamma": {"offset": "o"},
    "exponential": {},
    "inverse_gaussian": {},
    "negative_binomial": {},
    "geometric": {},
    "tweedie": {},
    "quasipoisson": {},
    "quasibinomial": {},
    "quasi(variance='mu^2')": {"link": "log"},
}


def frame(family: str, n: int = 600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "s": rng.choice(["a", "b", "c"], n),
            "e": rng.uniform(0.5, 2.0, n),
            "o": rng.uniform(0.0, 0.3, n),
            "t": rng.integers(1, 9, n),
            "w": rng.integers(1, 5, n),
            "policy": rng.permutation(n) + 10**6,
        }
    )
    mean = np.exp(0.8 + 0.3 * data.x + 0.2 * (data.s == "b"))
    if family == "poisson":
        data["y"] = rng.poisson(mean * data.e)
    elif family in ("negative_binomial", "quasipoisson"):
        data["y"] = rng.negative_binomial(2.0, 2.0 / (2.0 + mean))
    elif family == "geometric":
        data["y"] = rng.geometric(1.0 / (1.0 + mean)) - 1
    elif family in ("binomial", "quasibinomial"):
        data["y"] = rng.binomial(data.t if family == "binomial" else 1, mean / (2.0 + mean))
    elif family == "exponential":
        data["y"] = rng.exponential(mean)
    elif family == "inverse_gaussian":
        data["y"] = rng.wald(mean, 2.0)
    elif family == "tweedie":
        data["y"] = [rng.gamma(1.0, 0.7, k).sum() for k in rng.poisson(mean)]
    elif family == "multinomial":
        data["y"] = rng.choice(["k", "l", "m"], n)
    elif family == "ordinal":
        data["y"] = pd.Categorical.from_codes(
            np.digitize(data.x + rng.logistic(size=n), [-1.0, 1.0]), list("klm"), True
        )
    elif family == "gaussian":
        data["y"] = rng.normal(mean)
    else:
        data["y"] = rng.gamma(3.0, mean * np.exp(data.o) / 3.0)
    return data


def fitted(family: str, data: Any, **more: Any) -> dg.Fit:
    return dg.glm(FORMULA, data, family=family, **FAMILIES.get(family, {}), **more)


@pytest.fixture(autouse=True)
def every_row_group_a_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_squares_add_up_to_the_statistics_of_the_fit(family: str) -> None:
    data = frame(family)
    data.loc[9, "x"] = np.nan
    fit = fitted(family, data)
    assert (fit.residuals(data) ** 2).sum() == pytest.approx(fit.deviance, rel=ROUNDING)
    assert (fit.residuals(data, "pearson") ** 2).sum() == pytest.approx(fit.pearson_chi2, rel=1e-8)
    response = fit.residuals(data, "response")
    seen = data.y / data.t if family == "binomial" else data.y
    np.testing.assert_allclose(response, seen - fit.predict(data), rtol=1e-8, atol=ROUNDING)
    # the working residual is what Fisher scoring regresses: its weighted sum with each column is the score, zero
    working = fit.residuals(data, "working")
    assert np.sign(working).equals(np.sign(response))
    assert np.isnan(working[9])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_lake_of_any_partitions_has_the_residuals_of_a_table(family: str, kind: str, tmp_path: Path) -> None:
    data = frame(family, 200)
    fit = fitted(family, data)
    key = {"key": "policy"} if kind == "quantile" else {}
    if kind == "quantile" and fit.record.family.name not in DISTRIBUTIONS:
        with pytest.raises(DesignError, match="has no distribution"):
            fit.residuals(data, kind, **key)
        return
    table = fit.residuals(data, kind, **key)
    found = fit.residuals(write_lake(data, tmp_path / "lake"), kind, **key)
    np.testing.assert_allclose(found, table, rtol=1e-9, atol=ROUNDING)
    assert isinstance(found.index, pd.RangeIndex)
    assert np.isfinite(table).all()


@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith("quasi")])
def test_quantile_residuals_are_standard_normal_under_the_model(family: str) -> None:
    data = frame(family, 4_000, seed=7)
    found = fitted(family, data).residuals(data, "quantile", seed=3)
    assert stats.kstest(found, "norm").pvalue > LIKELY


def test_those_of_ordered_classes_too() -> None:
    data = frame("ordinal", 4_000, seed=7)
    found = dg.glm(FORMULA, data, family="ordinal").residuals(data, "quantile")
    assert stats.kstest(found, "norm").pvalue > LIKELY


def test_draws_are_those_of_the_row_whatever_its_place(tmp_path: Path) -> None:
    data = frame("poisson")
    fit = fitted("poisson", data)
    found = fit.residuals(data, "quantile", key="policy", seed=5)
    mixed = data.sample(frac=1.0, random_state=2)
    np.testing.assert_allclose(fit.residuals(mixed, "quantile", key="policy", seed=5).loc[data.index], found, rtol=1e-9)
    other = fit.residuals(data, "quantile", key="policy", seed=6)
    assert not np.allclose(found, other)
    # two columns identify a row as well, text or not
    data["branch"], data["number"] = data.policy.astype(str).str[:4], data.policy % 1000
    fit.residuals(data, "quantile", key=["branch", "number"])
    # without a key, the same data give the same numbers
    lake = write_lake(data, tmp_path / "lake")
    assert fit.residuals(lake, "quantile").equals(fit.residuals(lake, "quantile"))
    assert not np.allclose(fit.residuals(lake, "quantile"), fit.residuals(lake, "quantile", seed=1))


@pytest.mark.parametrize("family", ["poisson", "gamma", "multinomial", "ordinal"])
def test_a_frequency_row_has_the_residual_of_one_copy(family: str) -> None:
    data = frame(family)
    written = data.loc[np.repeat(data.index, data.w)]
    one = fitted(family, data, weights=dg.Frequency("w"))
    other = fitted(family, written)
    kinds = KINDS if family in FAMILIES else ("response", "pearson", "deviance")
    for kind in kinds:
        key = {"key": "policy"} if kind == "quantile" else {}
        found = one.residuals(data, kind, **key).loc[np.repeat(data.index, data.w)]
        np.testing.assert_allclose(found, other.residuals(written, kind, **key), rtol=1e-6, atol=1e-8)


def test_a_row_that_stands_for_others_has_its_own() -> None:
    data = frame("poisson")
    one = fitted("poisson", data, weights=dg.Probability("w"))
    other = fitted("poisson", data, weights=dg.Frequency("w"))
    for kind in ("pearson", "deviance", "working", "anscombe"):
        np.testing.assert_allclose(one.residuals(data, kind), other.residuals(data, kind), rtol=1e-8, atol=1e-9)
    with pytest.raises(DesignError, match="probability weights"):
        one.residuals(data, "studentized")


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_classes(family: str) -> None:
    data = frame(family)
    data.loc[4, "x"] = np.nan
    fit = fitted(family, data)
    response, pearson = fit.residuals(data, "response"), fit.residuals(data, "pearson")
    assert list(response.columns) == ["k", "l", "m"]
    chance = fit.predict(data)
    seen = pd.get_dummies(data.y).astype(float)
    np.testing.assert_allclose(response, (seen - chance).where(data.x.notna()), rtol=1e-9, atol=ROUNDING)
    np.testing.assert_allclose(pearson, response / np.sqrt(chance), rtol=1e-9, atol=ROUNDING)
    assert (pearson**2).sum().sum() == pytest.approx(fit.pearson_chi2, rel=1e-9)
    deviance = fit.residuals(data)
    assert deviance.name == "deviance"
    assert (deviance**2).sum() == pytest.approx(fit.deviance, rel=ROUNDING)
    assert response.loc[4].isna().all()
    with pytest.raises(DesignError, match="not defined for a"):
        fit.residuals(data, "working")
    if family == "multinomial":
        with pytest.raises(DesignError, match="not defined for a multinomial"):
            fit.residuals(data, "quantile")


def test_rows_that_are_not_used(tmp_path: Path) -> None:
    data = frame("gamma")
    data["year"] = np.arange(len(data)) % 4 + 2020
    data["w"] = data.w.astype(float)
    data.loc[3, "x"] = np.nan
    data.loc[5, "y"] = np.nan
    data.loc[7, "w"] = 0.0
    # a response that no gamma model can have, in a row that is filtered out
    data.loc[8, "y"] = -1.0
    fit = fitted("gamma", data, weights="w", where="year > 2020")
    gone = data.x.isna() | data.y.isna() | (data.w == 0.0) | (data.year == 2020)
    found = fit.residuals(data, where="year > 2020")
    assert found.isna().equals(gone)
    assert (found**2).sum() == pytest.approx(fit.deviance, rel=ROUNDING)
    lake = write_lake(data, tmp_path / "lake")
    np.testing.assert_allclose(fit.residuals(lake, where="year > 2020"), found, rtol=1e-9, atol=ROUNDING)
    lazy = fit.residuals(dd.from_pandas(data, npartitions=4), where="year > 2020")
    np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), found, rtol=1e-9, atol=ROUNDING)


def test_levels_that_were_not_learnt() -> None:
    data = frame("gamma")
    new = data.copy()
    new.loc[2, "s"] = "z"
    with pytest.raises(DataError, match="z"):
        fitted("gamma", data).residuals(new)
    missing = fitted("gamma", data, unseen="missing").residuals(new)
    assert missing.isna().to_numpy().nonzero()[0].tolist() == [2]
    baseline = fitted("gamma", data, unseen="baseline").residuals(new)
    as_baseline = new.assign(s=new.s.replace("z", "a"))
    np.testing.assert_allclose(baseline, fitted("gamma", data).residuals(as_baseline), rtol=1e-9)


def test_rows_at_their_limit_are_fitted_without_error() -> None:
    data = frame("poisson")
    data.loc[data.s == "c", "y"] = 0
    with pytest.warns(dg.errors.SeparationWarning):
        fit = fitted("poisson", data)
    inside = data.s != "c"
    alone = fitted("poisson", data[inside])
    for kind in ("response", "pearson", "deviance", "anscombe"):
        found = fit.residuals(data, kind)
        assert (found[~inside] == 0.0).all()
        np.testing.assert_allclose(found[inside], alone.residuals(data[inside], kind), rtol=1e-6, atol=1e-9)
    assert fit.residuals(data, "studentized").isna().equals(~inside)
    assert np.isfinite(fit.residuals(data, "quantile")[inside]).all()
    with pytest.warns(dg.errors.SeparationWarning), pytest.warns(dg.errors.AliasWarning):
        dropped = fitted("poisson", data, separation="drop")
    assert dropped.residuals(data).isna().equals(~inside)


@pytest.mark.parametrize("kind", ["deviance", "studentized", "quantile"])
def test_a_lazy_series_of_a_dask_frame(kind: str) -> None:
    data = frame("poisson")
    data.index = pd.Index(np.arange(len(data)) * 2, name="id")
    fit = fitted("poisson", data)
    key = {"key": "policy"} if kind == "quantile" else {}
    lazy = fit.residuals(dd.from_pandas(data, npartitions=3), kind, **key)
    assert isinstance(lazy, dd.Series)
    assert lazy.name == kind
    found = lazy.compute(scheduler="synchronous")
    expected = fit.residuals(data, kind, **key)
    assert found.index.equals(data.index)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=ROUNDING)


def test_lazy_columns_of_classes() -> None:
    data = frame("multinomial")
    fit = fitted("multinomial", data)
    lazy = fit.residuals(dd.from_pandas(data, npartitions=3), "response")
    found = lazy.compute(scheduler="synchronous")
    np.testing.assert_allclose(found, fit.residuals(data, "response"), rtol=1e-9, atol=ROUNDING)
    assert list(found.columns) == ["k", "l", "m"]


def test_a_column_written_to_parquet(tmp_path: Path) -> None:
    data = frame("gamma")
    data.loc[4, "x"] = np.nan
    fit = fitted("gamma", data)
    lake = write_lake(data, tmp_path / "lake")
    assert fit.residuals(lake, "studentized", out=tmp_path / "out") == len(data)
    leaves = sum(pq.ParquetFile(path).num_row_groups for path in lake.glob("*.parquet"))
    assert len(list((tmp_path / "out").glob("*.parquet"))) == leaves
    written = pd.read_parquet(tmp_path / "out")
    assert list(written.columns) == ["studentized"]
    np.testing.assert_array_equal(written.studentized, fit.residuals(lake, "studentized"))
    with pytest.raises(DesignError, match="lazy"):
        fit.residuals(dd.from_pandas(data, npartitions=2), out=tmp_path / "other")


def test_every_kind_of_table() -> None:
    data = frame("poisson").drop(columns=["w"])
    fit = fitted("poisson", data)
    expected = fit.residuals(data, "studentized").to_numpy()
    for table in (pl.from_pandas(data), pa.Table.from_pandas(data), {name: data[name].to_numpy() for name in data}):
        np.testing.assert_allclose(fit.residuals(table, "studentized"), expected, rtol=1e-10)


def test_arrays_and_sparse_matrices() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 3)) * (rng.random((300, 3)) < 0.5)
    y = rng.poisson(np.exp(0.3 + 0.2 * x[:, 0]))
    dense = dg.glm(X=x, y=y, family="poisson")
    sparse = dg.glm(X=csr_array(x), y=y, family="poisson")
    for kind in ("deviance", "studentized"):
        found = dense.residuals({"X": x, "y": y}, kind)
        np.testing.assert_allclose(sparse.residuals({"X": csr_array(x), "y": y}, kind), found, rtol=1e-8, atol=1e-9)
    measures = dense.influence({"X": x, "y": y})
    np.testing.assert_allclose(sparse.influence({"X": csr_array(x), "y": y}), measures, rtol=1e-7, atol=1e-9)


def test_dask_arrays() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 3))
    y = rng.poisson(np.exp(0.3 + 0.2 * x[:, 0])).astype(float)
    w = rng.uniform(0.5, 2.0, 300)
    fit = dg.glm(X=x, y=y, weights=w, family="poisson", covariance="HC0")
    chunked = {
        name: da.from_array(value, chunks=(70, 3)[: value.ndim]) for name, value in (("X", x), ("y", y), ("weights", w))
    }
    for kind in ("deviance", "studentized"):
        lazy = fit.residuals(chunked, kind)
        assert isinstance(lazy, da.Array)
        found = lazy.compute(scheduler="synchronous")
        np.testing.assert_allclose(found, fit.residuals({"X": x, "y": y, "weights": w}, kind), rtol=1e-9, atol=ROUNDING)
    measures = fit.influence(chunked)
    assert measures.shape == (300, 7)
    whole = fit.influence({"X": x, "y": y, "weights": w})
    np.testing.assert_allclose(measures.compute(scheduler="synchronous"), whole, rtol=1e-8, atol=ROUNDING)
    np.testing.assert_allclose(
        fit.influential(chunked, 4).rows, fit.influential({"X": x, "y": y, "weights": w}, 4).rows, rtol=1e-8
    )
    with pytest.raises(DesignError, match="no response"):
        fit.residuals(chunked["X"])


def test_leverage_is_of_the_rows_of_the_fit() -> None:
    data = frame("poisson")
    fit = fitted("poisson", data, covariance="HC0")
    with pytest.raises(DataError, match="of these data it would use 599"):
        fit.residuals(data[1:], "studentized")
    np.testing.assert_allclose(fit.residuals(data[1:]), fit.residuals(data)[1:], rtol=1e-9)


def test_one_of_several_responses() -> None:
    data = frame("gaussian")
    data["z"] = data.y + data.x**2
    fits = dg.glm("responses(y, z) ~ x + s", data, family="gaussian")
    alone = dg.glm("z ~ x + s", data, family="gaussian")
    np.testing.assert_allclose(fits["z"].residuals(data), alone.residuals(data), rtol=1e-9, atol=ROUNDING)


def test_a_saved_model_has_the_same(tmp_path: Path) -> None:
    data = frame("tweedie")
    fit = fitted("tweedie", data)
    fit.save(tmp_path / "model")
    again = dg.load(tmp_path / "model")
    for kind in ("deviance", "studentized", "quantile"):
        assert again.residuals(data, kind).equals(fit.residuals(data, kind))


def test_the_same_bits_on_a_cluster(tmp_path: Path, client: Any) -> None:
    data = frame("poisson")
    lake = write_lake(data, tmp_path / "lake")
    fit = fitted("poisson", lake)
    here = {kind: fit.residuals(lake, kind) for kind in ("studentized", "quantile")}
    with client.as_current():
        for kind, expected in here.items():
            assert fit.residuals(lake, kind).equals(expected)
        lazy = fit.residuals(dd.from_pandas(data, npartitions=3), "studentized").compute()
    np.testing.assert_allclose(lazy, here["studentized"], rtol=1e-9, atol=ROUNDING)


def test_what_is_refused() -> None:
    data = frame("poisson")
    fit = fitted("poisson", data)
    with pytest.raises(DesignError, match="pearson"):
        fit.residuals(data, "pearsn")
    with pytest.raises(DesignError, match="drawn"):
        fit.residuals(data, "pearson", seed=1)
    with pytest.raises(DesignError, match="drawn"):
        fit.residuals(data, "pearson", key="policy")
    with pytest.raises(DesignError, match="whole number"):
        fit.residuals(data, "quantile", seed=0.5)
    with pytest.raises(DesignError, match="key="):
        fit.residuals(dd.from_pandas(data, npartitions=2), "quantile")
    with pytest.raises(DesignError, match="kind"):
        fit.residuals(data, knd="pearson")
    with pytest.raises(DesignError, match='"y"'):
        fit.residuals(data.drop(columns="y"))
