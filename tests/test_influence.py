"""Influence: laws of leverage, rows deleted one by one, classes by brute force, and the rows on top of a lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import formulaic
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.cluster import lakes
from daskglm.cluster.dask import DistributedPartitions
from daskglm.errors import DesignError
from daskglm.postestimation.revisit import Visit

# Quadratic forms of an inverse that was scaled there and back.
ROUNDING = 1e-9
# Newton steps and Grams of classes written out in NumPy.
BRUTE = 1e-8
# Bins of a sketch.
SKETCH = 1.0 / 256.0
ROWS = 400
FORMULA = "y ~ x + s + x:s"


def frame(family: str, n: int = ROWS, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": rng.normal(3.0, 1.0, n),
            "s": rng.choice(["a", "b", "c"], n),
            "w": rng.integers(1, 5, n),
            "t": rng.integers(1, 9, n),
            "o": rng.uniform(0.0, 0.3, n),
            "policy": [f"P{i:05d}" for i in rng.permutation(n)],
            "year": rng.integers(2020, 2024, n),
        }
    )
    mean = np.exp(0.1 + 0.2 * data.x + 0.1 * (data.s == "b"))
    if family == "poisson":
        data["y"] = rng.poisson(mean)
    elif family == "gamma":
        data["y"] = rng.gamma(3.0, mean / 3.0)
    elif family == "binomial":
        data["y"] = rng.binomial(data.t, mean / (1.0 + mean))
    elif family in ("multinomial", "ordinal"):
        data["y"] = pd.Categorical.from_codes(np.digitize(data.x + rng.logistic(size=n), [2.0, 3.0, 4.0]), list("klmn"))
    else:
        data["y"] = rng.normal(mean)
    return data


def options(family: str) -> dict[str, Any]:
    return {"family": family, **({"trials": "t"} if family == "binomial" else {})}


def write_lake(data: pd.DataFrame, folder: Path, files: int = 5) -> Path:
    folder.mkdir()
    for i, index in enumerate(np.array_split(np.arange(len(data)), files)):
        table = pa.Table.from_pandas(data.iloc[index], preserve_index=False)
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=30)
    return folder


@pytest.fixture(autouse=True)
def every_row_group_a_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)


@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma", "binomial", "multinomial", "ordinal"])
def test_leverages_add_up_to_the_rank(family: str) -> None:
    data = frame(family)
    offset = None if family == "multinomial" else "o"
    fit = dg.glm(FORMULA, data, offset=offset, **options(family))
    found = fit.influence(data, dfbetas=False)
    assert found.leverage.sum() == pytest.approx(fit.record.statistics.rank, rel=ROUNDING)
    assert (found.leverage > 0.0).all()


@pytest.mark.parametrize("family", ["poisson", "gamma", "binomial", "multinomial", "ordinal"])
def test_a_frequency_is_so_many_rows(family: str) -> None:
    data = frame(family)
    written = data.loc[np.repeat(data.index, data.w)]
    one = dg.glm(FORMULA, data, weights=dg.Frequency("w"), **options(family))
    other = dg.glm(FORMULA, written, **options(family))
    found = one.influence(data).loc[np.repeat(data.index, data.w)]
    expected = other.influence(written)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=ROUNDING)
    spread, truth = one.influential(data, 3), other.influential(written, 3)
    np.testing.assert_allclose(spread.quantiles, truth.quantiles, rtol=2.0 * SKETCH)
    assert spread.above["rows"].tolist() == truth.above["rows"].tolist()


@pytest.mark.parametrize("family", ["poisson", "multinomial", "ordinal"])
def test_partitions_and_order_do_not_matter(family: str, tmp_path: Path) -> None:
    data = frame(family)
    data["y"] = data.y.astype(str) if family != "poisson" else data.y
    fit = dg.glm(FORMULA, data, **options(family))
    whole = fit.influence(data)
    lake = write_lake(data, tmp_path / "lake")
    np.testing.assert_allclose(fit.influence(lake), whole, rtol=ROUNDING, atol=ROUNDING)
    mixed = data.sample(frac=1.0, random_state=1)
    found = fit.influence(mixed)
    assert found.index.equals(mixed.index)
    np.testing.assert_allclose(found.loc[data.index], whole, rtol=ROUNDING, atol=ROUNDING)


def test_gaussian_measures_are_those_of_deleting_each_row() -> None:
    data = frame("gaussian", 60)
    fit = dg.glm("y ~ x + s", data, weights="w")
    found = fit.influence(data)
    x = np.asarray(formulaic.model_matrix("x + s", data), float)
    weight, b = data.w.to_numpy(float), fit.params.to_numpy()
    bread = np.linalg.inv(x.T @ (weight[:, None] * x))
    for i in range(len(data)):
        rest = data.drop(index=i)
        other = dg.glm("y ~ x + s", rest, weights="w")
        change = b - other.params.to_numpy()
        deviation = np.sqrt(other.scale)
        h = found.leverage[i]
        assert h == pytest.approx(weight[i] * x[i] @ bread @ x[i], rel=ROUNDING)
        expected = np.sqrt(weight[i]) * (x[i] @ change) / (deviation * np.sqrt(h))
        assert found.dffits[i] == pytest.approx(expected, rel=1e-7, abs=ROUNDING)
        assert found.cooks_distance[i] == pytest.approx(
            change @ np.linalg.solve(bread, change) / (fit.scale * b.size), rel=1e-7, abs=ROUNDING
        )
        np.testing.assert_allclose(
            found.iloc[i, 3:].to_numpy(float), change / (deviation * np.sqrt(np.diag(bread))), rtol=1e-6, atol=ROUNDING
        )


def test_classes_are_one_step_of_newton_without_the_row() -> None:
    data = frame("multinomial", 80)
    fit = dg.glm("y ~ x + s", data, family="multinomial")
    found = fit.influence(data)
    x = np.asarray(formulaic.model_matrix("x + s", data), float)
    beta = fit.params.to_numpy()
    mu = np.exp(np.column_stack([np.zeros(len(x)), x @ beta]))
    mu /= mu.sum(axis=1, keepdims=True)
    y = (data.y.cat.codes.to_numpy()[:, None] == np.arange(1, 4)).astype(float)
    mu = mu[:, 1:]
    w = np.stack([np.diag(m) - np.outer(m, m) for m in mu])
    j = np.stack([np.kron(np.eye(3), row) for row in x])
    information = np.einsum("iar,iab,ibs->irs", j, w, j)
    score = np.einsum("iar,ia->ir", j, y - mu)
    total = information.sum(axis=0)
    deviations = np.sqrt(np.diag(np.linalg.inv(total)))
    for i in range(len(x)):
        assert found.leverage[i] == pytest.approx(np.trace(information[i] @ np.linalg.inv(total)), rel=BRUTE)
        change = np.linalg.solve(total - information[i], score[i])
        assert found.cooks_distance[i] == pytest.approx(change @ total @ change / total.shape[0], rel=1e-6, abs=BRUTE)
        np.testing.assert_allclose(found.iloc[i, 2:].to_numpy(float), change / deviations, rtol=1e-5, atol=BRUTE)
    assert list(found.columns[2:]) == [f"dfbetas[{name}]" for name in fit.record.names]


def test_ordered_classes_are_one_step_of_newton_without_the_row() -> None:
    data = frame("ordinal", 80)
    fit = dg.glm("y ~ x + s", data, family="ordinal")
    found = fit.influence(data)
    x = np.asarray(formulaic.model_matrix("x + s", data), float)[:, 1:]
    codes, start = data.y.cat.codes.to_numpy(), fit.params.to_numpy()
    p = x.shape[1]

    def log_likelihoods(b: np.ndarray) -> np.ndarray:
        ends = np.concatenate([[-np.inf], b[p:], [np.inf]])
        with np.errstate(over="ignore"):
            below = 1.0 / (1.0 + np.exp(-(ends[None, :] - (x @ b[:p])[:, None])))
        return np.log(below[np.arange(len(x)), codes + 1] - below[np.arange(len(x)), codes])

    r, step = start.size, 1e-4
    score = np.empty((len(x), r))
    hessian = np.empty((len(x), r, r))
    unit = np.eye(r) * step
    for a in range(r):
        score[:, a] = (log_likelihoods(start + unit[a]) - log_likelihoods(start - unit[a])) / (2 * step)
        for b in range(r):
            corners = [log_likelihoods(start + s * unit[a] + t * unit[b]) * s * t for s in (1, -1) for t in (1, -1)]
            hessian[:, a, b] = sum(corners) / (4 * step**2)
    information = -hessian
    total = information.sum(axis=0)
    # central differences of 1e-4 leave about 1e-7
    for i in range(len(x)):
        assert found.leverage[i] == pytest.approx(np.trace(information[i] @ np.linalg.inv(total)), rel=1e-4, abs=1e-6)
        change = np.linalg.solve(total - information[i], score[i])
        assert found.cooks_distance[i] == pytest.approx(change @ total @ change / r, rel=1e-3, abs=1e-6)
        expected = change / np.sqrt(np.diag(np.linalg.inv(total)))
        np.testing.assert_allclose(found.iloc[i, 2:].to_numpy(float), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["gamma", "multinomial"])
def test_a_robust_covariance_does_not_change_the_leverage(family: str) -> None:
    data = frame(family)
    data["x"] += 1e4
    plain = dg.glm("y ~ x + s", data, **options(family))
    robust = dg.glm("y ~ x + s", data, covariance="HC0", **options(family))
    # uncentred columns: a covariance of the reported coefficients has lost digits that the rows still have
    np.testing.assert_allclose(robust.influence(data), plain.influence(data), rtol=1e-6, atol=1e-8)
    assert plain.influence(data).leverage.sum() == pytest.approx(plain.record.statistics.rank, rel=ROUNDING)


def test_rows_that_are_not_used_and_parameters_that_are_not_estimated() -> None:
    data = frame("gaussian")
    data["twice"] = 2.0 * data.x
    data.loc[3, "x"] = np.nan
    data.loc[5, "y"] = np.nan
    data["w"] = data.w.astype(float)
    data.loc[7, "w"] = 0.0
    with pytest.warns(dg.errors.AliasWarning):
        fit = dg.glm("y ~ x + twice", data, weights="w", where="year > 2020")
    found = fit.influence(data, where="year > 2020")
    gone = data.x.isna() | data.y.isna() | (data.w == 0.0) | (data.year == 2020)
    assert found.leverage.isna().equals(gone)
    assert found["dfbetas[twice]"].isna().all()
    alone = dg.glm("y ~ x", data[~gone], weights="w").influence(data[~gone])
    np.testing.assert_allclose(found.loc[~gone].drop(columns="dfbetas[twice]"), alone, rtol=ROUNDING, atol=ROUNDING)


def test_rows_at_their_limit_have_no_measure_and_the_others_those_of_a_fit_without_them() -> None:
    data = frame("poisson")
    data.loc[data.s == "c", "y"] = 0
    with pytest.warns(dg.errors.SeparationWarning):
        fit = dg.glm("y ~ x + s", data, family="poisson")
    found = fit.influence(data)
    inside = data.s != "c"
    assert found.leverage.isna().equals(~inside)
    alone = dg.glm("y ~ x + s", data[inside], family="poisson").influence(data[inside])
    np.testing.assert_allclose(found.loc[inside].drop(columns="dfbetas[s[T.c]]"), alone, rtol=1e-7, atol=ROUNDING)
    assert found["dfbetas[s[T.c]]"].isna().all()


def test_the_same_after_a_robust_fit() -> None:
    data = frame("poisson")
    data.loc[data.s == "c", "y"] = 0
    fits = []
    for kind in ("model", "HC0"):
        with pytest.warns(dg.errors.SeparationWarning):
            fits.append(dg.glm("y ~ x + s", data, family="poisson", covariance=kind))
    np.testing.assert_allclose(fits[1].influence(data), fits[0].influence(data), rtol=1e-7, atol=ROUNDING)


def test_columns_too_close_for_a_gram() -> None:
    data = frame("poisson")
    data["z"] = data.x + 1e-4 * data.o
    plain = dg.glm("y ~ x + z", data, family="poisson")
    assert plain.certificate.residual_columns == ("z",)
    assert plain.influence(data).leverage.sum() == pytest.approx(3.0, rel=1e-12)
    robust = dg.glm("y ~ x + z", data, family="poisson", covariance="HC0")
    np.testing.assert_allclose(robust.influence(data), plain.influence(data), rtol=1e-9)


@pytest.mark.parametrize("by", ["cooks_distance", "leverage", "dffits"])
def test_the_rows_on_top_are_those_of_all_rows(by: str, tmp_path: Path) -> None:
    data = frame("poisson")
    fit = dg.glm(FORMULA, data, family="poisson", offset="o")
    lake = write_lake(data, tmp_path / "lake")
    found = fit.influential(lake, k=12, by=by, keys=["policy", "year"])
    every = pd.concat([data[["policy", "year"]], fit.influence(data)], axis=1)
    expected = every.loc[every[by].abs().sort_values(ascending=False, kind="stable").index[:12]]
    assert found.rows.policy.tolist() == expected.policy.tolist()
    assert found.rows.year.tolist() == expected.year.tolist()
    assert list(found.rows.columns) == list(expected.columns)
    np.testing.assert_allclose(found.rows.iloc[:, 2:].astype(float), expected.iloc[:, 2:].astype(float), rtol=ROUNDING)
    for name in ("leverage", "cooks_distance"):
        for share, value in found.quantiles[name].items():
            truth = np.quantile(every[name], float(share), method="inverted_cdf")
            assert value == pytest.approx(truth, rel=SKETCH)
    n, p = len(data), fit.record.statistics.rank
    assert found.above.cutoff.tolist() == pytest.approx([2 * p / n, 4 / n])
    assert found.above["rows"].tolist() == [
        int((every.leverage > 2 * p / n).sum()), int((every.cooks_distance > 4 / n).sum())
    ]  # fmt: skip
    assert "Rows of largest influence" in str(found)


def test_one_key_and_classes(tmp_path: Path) -> None:
    data = frame("ordinal")
    fit = dg.glm("y ~ x", data, family="ordinal")
    found = fit.influential(data, 5, keys="policy")
    every = fit.influence(data)
    top = every.cooks_distance.sort_values(ascending=False).index[:5]
    assert found.rows.policy.tolist() == data.policy[top].tolist()
    assert list(found.rows.columns[1:]) == list(every.columns)


def test_keys_are_as_the_data_have_them() -> None:
    data = frame("poisson", 50)
    data["day"] = pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(50) * 1.25, "D")
    data["date"] = data.day.dt.date
    data["new"] = data.year > 2021
    data["plate"] = data.policy.where(data.year > 2021)
    data["number"] = 2**53 + np.arange(50)
    fit = dg.glm("y ~ x", data, family="poisson")
    keys = ["day", "date", "new", "plate", "number"]
    found = fit.influential(data, 50, keys=keys).rows
    expected = data.loc[fit.influence(data).cooks_distance.sort_values(ascending=False, kind="stable").index, keys]
    assert found.day.tolist() == expected.day.tolist()
    assert found.date.tolist() == pd.to_datetime(expected.date).tolist()
    assert found.new.tolist() == expected.new.tolist()
    assert found.plate.fillna("-").tolist() == expected.plate.fillna("-").tolist()
    assert found.number.tolist() == expected.number.tolist()


def test_a_column_of_parquet_and_a_lazy_frame(tmp_path: Path) -> None:
    data = frame("gamma")
    data.loc[4, "x"] = np.nan
    fit = dg.glm(FORMULA, data, family="gamma")
    whole = fit.influence(data)
    lake = write_lake(data, tmp_path / "lake")
    assert fit.influence(lake, out=tmp_path / "out") == len(data)
    written = pd.read_parquet(tmp_path / "out")
    assert list(written.columns) == list(whole.columns)
    np.testing.assert_allclose(written, whole, rtol=ROUNDING, atol=ROUNDING)
    lazy = fit.influence(dd.from_pandas(data, npartitions=3))
    assert isinstance(lazy, dd.DataFrame)
    found = lazy.compute(scheduler="synchronous")
    assert found.index.equals(data.index)
    np.testing.assert_allclose(found, whole, rtol=ROUNDING, atol=ROUNDING)


def test_the_same_bits_on_a_cluster(tmp_path: Path, client: Any) -> None:
    data = frame("gamma")
    lake = write_lake(data, tmp_path / "lake")
    fit = dg.glm(FORMULA, lake, family="gamma", covariance="HC0")
    here, top = fit.influence(lake), fit.influential(lake, 6, keys=("policy",))
    with client.as_current():
        with Visit(fit.record, lake) as visit:
            assert isinstance(visit.rows, DistributedPartitions)
        assert fit.influence(lake).equals(here)
        there = fit.influential(lake, 6, keys=("policy",))
    assert there.rows.equals(top.rows)
    assert there.quantiles.equals(top.quantiles)
    assert there.above.equals(top.above)


def test_what_is_refused(tmp_path: Path) -> None:
    data = frame("poisson")
    fit = dg.glm("y ~ x", data, family="poisson")
    with pytest.raises(DesignError, match="cooks_distance"):
        fit.influential(data, by="cook_distance")
    with pytest.raises(DesignError, match="1 or more"):
        fit.influential(data, k=0)
    with pytest.raises(DesignError, match="polcy"):
        fit.influential(data, keys="polcy")
    with pytest.raises(DesignError, match="dfbeta"):
        fit.influence(data, dfbeta=True)
    sampled = dg.glm("y ~ x", data, family="poisson", weights=dg.Probability("w"))
    with pytest.raises(DesignError, match="probability weights"):
        sampled.influence(data)
    classes = frame("multinomial")
    several = dg.glm("y ~ x", classes, family="multinomial")
    with pytest.raises(DesignError, match="one linear predictor"):
        several.influential(classes, by="dffits")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(DesignError, match="not an empty folder"):
        fit.influence(data, out=tmp_path / "full")
