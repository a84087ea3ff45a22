"""Predictions against the design of formulaic times the coefficients, and the delta method written out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import formulaic
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

import daskglm as dg
from daskglm.cluster import lakes, tables
from daskglm.errors import DataError, DesignError

# x'b through shifted and scaled columns.
ROUNDING = 1e-10
# Quadratic forms of a covariance that was scaled there and back.
ERRORS = 1e-8

FORMULA = "y ~ x + log(z) + s + s:x"
MODELS: dict[str, dict[str, Any]] = {
    "gaussian": {"family": "gaussian"},
    "poisson": {"family": "poisson"},
    "gamma": {"family": "gamma", "link": "log"},
    "inverse": {"family": "gamma", "link": "inverse"},
    "binomial": {"family": "binomial"},
    "cloglog": {"family": "binomial", "link": "cloglog"},
    "cauchit": {"family": "binomial", "link": "cauchit"},
    "counts": {"family": "negative_binomial"},
    "tweedie": {"family": "tweedie(power=1.5)", "link": "power(0.5)"},
    "inverse square": {"family": "inverse_gaussian", "link": "inverse_square"},
}
# mean and derivative of the mean by the linear predictor, by hand
MEANS: dict[str, tuple[Any, Any]] = {
    "gaussian": (lambda e: e, lambda e: np.ones_like(e)),
    "poisson": (np.exp, np.exp),
    "gamma": (np.exp, np.exp),
    "inverse": (lambda e: 1 / e, lambda e: -1 / e**2),
    "binomial": (lambda e: 1 / (1 + np.exp(-e)), lambda e: np.exp(-e) / (1 + np.exp(-e)) ** 2),
    "cloglog": (lambda e: 1 - np.exp(-np.exp(e)), lambda e: np.exp(e - np.exp(e))),
    "cauchit": (lambda e: 0.5 + np.arctan(e) / np.pi, lambda e: 1 / (np.pi * (1 + e * e))),
    "counts": (np.exp, np.exp),
    "tweedie": (lambda e: e**2, lambda e: 2 * e),
    "inverse square": (lambda e: e**-0.5, lambda e: -0.5 * e**-1.5),
}
KNOWN = ("poisson", "binomial", "cloglog", "cauchit", "counts")


def frame(model: str, n: int = 500, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": generator.uniform(-1, 1, n),
            "z": generator.uniform(0.5, 2.0, n),
            "s": generator.choice(["a", "b", "c"], n),
            "o": generator.uniform(0.0, 0.3, n),
            "e": generator.uniform(0.5, 2.0, n),
        }
    )
    mean = np.exp(0.5 + 0.2 * data.x + 0.1 * (data.s == "b"))
    if model == "poisson":
        data["y"] = generator.poisson(mean).astype(float)
    elif model == "counts":
        data["y"] = generator.negative_binomial(2.0, 2.0 / (2.0 + mean)).astype(float)
    elif model == "tweedie":
        data["y"] = generator.standard_gamma(2.0 * generator.poisson(mean))
    elif model in ("gamma", "inverse", "inverse square"):
        data["y"] = generator.gamma(5.0, mean / 5.0)
    elif model in ("binomial", "cloglog", "cauchit"):
        data["y"] = (generator.random(n) < 0.3 * mean / mean.mean()).astype(float)
    else:
        data["y"] = generator.normal(mean)
    return data


def x_of(data: pd.DataFrame, formula: str = FORMULA) -> Any:
    return formulaic.model_matrix(formula.split("~")[1].strip(), data).to_numpy(float)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["mean", "link"])
def test_predictions_and_their_errors_are_those_of_the_delta_method(model: str, kind: str) -> None:
    fit = dg.glm(FORMULA, frame(model), **MODELS[model])
    new = frame(model, 200, 1).drop(columns="y")
    x = x_of(new)
    eta = x @ fit.params.to_numpy()
    error = np.sqrt(np.einsum("ij,jk,ik->i", x, fit.cov_params().to_numpy(), x))
    mean, slope = MEANS[model]
    alone = fit.predict(new, kind)
    assert isinstance(alone, pd.Series)
    assert alone.name == kind
    np.testing.assert_allclose(alone, mean(eta) if kind == "mean" else eta, rtol=ROUNDING, atol=ROUNDING)
    found = fit.predict(new, kind, se=True, interval="confidence", level=0.9)
    assert list(found.columns) == [kind, "se", "lower", "upper"]
    np.testing.assert_array_equal(found[kind], alone)
    np.testing.assert_allclose(found.se, error * (np.abs(slope(eta)) if kind == "mean" else 1.0), rtol=ERRORS)
    quantile = stats.norm.ppf(0.95) if model in KNOWN else stats.t.ppf(0.95, fit.df_resid)
    limits = np.sort([eta - quantile * error, eta + quantile * error], axis=0)
    if kind == "mean":
        limits = np.sort(mean(limits), axis=0)
    np.testing.assert_allclose(found.lower, limits[0], rtol=ERRORS, atol=ERRORS)
    np.testing.assert_allclose(found.upper, limits[1], rtol=ERRORS, atol=ERRORS)


# -- classes -----------------------------------------------------------------------------------------------------------

CLASSES: dict[str, dict[str, Any]] = {
    "multinomial": {"family": "multinomial"},
    "logit": {"family": "ordinal"},
    "loglog": {"family": "ordinal", "link": "loglog", "offset": "o"},
}
# A difference of fourth order with steps 2^-10 of a probability.
SLOPES = 1e-9


def classes(n: int = 500, seed: int = 0) -> pd.DataFrame:
    data = frame("gaussian", n, seed)
    cut = np.searchsorted([-0.3, 0.8, 2.0], data.y - 0.6)
    return data.assign(y=np.array(["low", "mid", "more", "top"])[cut])


def probabilities(model: str, params: np.ndarray, data: pd.DataFrame) -> np.ndarray:
    """(n, 4) of parameters in the order they are reported, by hand."""
    x = x_of(data)
    if model == "multinomial":
        eta = np.column_stack([np.zeros(len(data)), x @ params.reshape(3, -1).T])
        up = np.exp(eta)
        return up / up.sum(axis=1, keepdims=True)
    eta = x[:, 1:] @ params[:-3] + (data.o.to_numpy() if model == "loglog" else 0.0)
    at = params[-3:] - eta[:, None]
    below = 1 / (1 + np.exp(-at)) if model == "logit" else np.exp(-np.exp(-at))
    edges = np.ones((len(data), 1))
    return np.diff(np.hstack([0 * edges, below, edges]), axis=1)


@pytest.mark.parametrize("model", CLASSES)
def test_probabilities_of_classes_and_their_errors(model: str) -> None:
    """By hand, with the delta method by differences; intervals on the scale of the logit of each."""
    fit = dg.glm(FORMULA, classes(), **CLASSES[model])
    new = classes(60, 1).drop(columns="y")
    params = np.asarray(fit.params).T.ravel()
    alone = fit.predict(new)
    assert list(alone.columns) == ["low", "mid", "more", "top"]
    np.testing.assert_allclose(alone, probabilities(model, params, new), rtol=ROUNDING)
    np.testing.assert_allclose(alone.sum(axis=1), 1.0, rtol=ROUNDING)
    slopes = []
    for j in range(params.size):
        step = 2.0**-10 * np.eye(params.size)[j]
        at = [probabilities(model, params + k * step, new) for k in (-2, -1, 1, 2)]
        slopes.append((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * 2.0**-10))
    jacobian = np.stack(slopes)
    error = np.sqrt(np.einsum("jnk,jl,lnk->nk", jacobian, fit.cov_params().to_numpy(), jacobian))
    found = fit.predict(new, se=True, interval="confidence", level=0.9)
    np.testing.assert_array_equal(found[["low", "mid", "more", "top"]], alone)
    np.testing.assert_allclose(found[[f"se[{k}]" for k in alone.columns]], error, rtol=0, atol=SLOPES)
    logit = np.log(alone / (1 - alone))
    half = stats.norm.ppf(0.95) * error / (alone * (1 - alone)).to_numpy()
    for name, limit in (("lower", logit - half), ("upper", logit + half)):
        expected = 1 / (1 + np.exp(-limit))
        np.testing.assert_allclose(found[[f"{name}[{k}]" for k in alone.columns]], expected, rtol=0, atol=SLOPES * 10)


@pytest.mark.parametrize("model", CLASSES)
def test_linear_predictors_of_classes(model: str) -> None:
    """One for each class but the first; of ordered classes one, without its thresholds."""
    fit = dg.glm(FORMULA, classes(), **CLASSES[model])
    new = classes(60, 1).drop(columns="y")
    found = fit.predict(new, "link")
    x = x_of(new)
    if model == "multinomial":
        assert list(found.columns) == ["mid", "more", "top"]
        np.testing.assert_allclose(found, x @ fit.params.to_numpy(), rtol=ROUNDING, atol=ROUNDING)
        np.testing.assert_allclose(
            np.exp(found["top"]), fit.predict(new)["top"] / fit.predict(new)["low"], rtol=ROUNDING
        )
    else:
        eta = x[:, 1:] @ fit.params.to_numpy()[:-3] + (new.o if model == "loglog" else 0.0)
        assert found.name == "link"
        np.testing.assert_allclose(found, eta, rtol=ROUNDING, atol=ROUNDING)
    # without a term: its coefficients are nothing
    params = fit.params.copy()
    params.loc[["s[T.b]", "s[T.c]"]] = 0.0
    without = fit.predict(new, without="s")
    np.testing.assert_allclose(
        without, probabilities(model, np.asarray(params).T.ravel(), new), rtol=ROUNDING, atol=ROUNDING
    )


def test_a_row_of_classes_with_a_missing_value_is_missing_in_every_column() -> None:
    fit = dg.glm(FORMULA, classes(), family="multinomial")
    new = classes(20, 2)
    new.loc[[3, 7], "x"] = np.nan
    found = fit.predict(new, se=True)
    gone = np.isin(np.arange(20), [3, 7])
    assert found.shape == (20, 8)
    np.testing.assert_array_equal(np.isnan(found), np.repeat(gone[:, None], 8, axis=1))


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_what_classes_have_not_is_refused(family: str) -> None:
    fit = dg.glm("y ~ x", classes(), family=family)
    for options, message in (
        ({"type": "terms"}, "for one linear predictor"),
        ({"type": "link", "se": True}, "errors of a model of classes are those of its probabilities"),
        ({"interval": "prediction"}, "prediction"),
    ):
        with pytest.raises(DesignError, match=message):
            fit.predict(classes(5), **options)


def test_terms_add_up_to_the_linear_predictor_and_can_be_left_out() -> None:
    fit = dg.glm(FORMULA, frame("poisson"), family="poisson")
    new = frame("poisson", 100, 2)
    x = x_of(new)
    names = list(fit.params.index)
    columns = {
        "x": [names.index("x")],
        "log(z)": [names.index("log(z)")],
        "s": [names.index("s[T.b]"), names.index("s[T.c]")],
        "x:s": [names.index("x:s[T.b]"), names.index("x:s[T.c]")]
        if "x:s[T.b]" in names
        else [names.index("s[T.b]:x"), names.index("s[T.c]:x")],
    }
    terms = fit.predict(new, "terms")
    assert terms.shape == (100, 4)
    for (name, chosen), found in zip(columns.items(), terms.columns, strict=True):
        assert set(found.split(":")) == set(name.split(":"))
        np.testing.assert_allclose(
            terms[found], x[:, chosen] @ fit.params.to_numpy()[chosen], rtol=ROUNDING, atol=ROUNDING
        )
    kept = [j for j in range(len(names)) if j not in columns["s"]]
    without = fit.predict(new, "link", se=True, without="s")
    np.testing.assert_allclose(without.link, x[:, kept] @ fit.params.to_numpy()[kept], rtol=ROUNDING, atol=ROUNDING)
    inner = fit.cov_params().to_numpy()[np.ix_(kept, kept)]
    np.testing.assert_allclose(
        without.se, np.sqrt(np.einsum("ij,jk,ik->i", x[:, kept], inner, x[:, kept])), rtol=ERRORS
    )
    assert list(fit.predict(new, "terms", without=["s", "x"]).columns) == [terms.columns[1], terms.columns[3]]


def test_offset_and_exposure_come_from_the_data_or_are_given() -> None:
    data = frame("poisson")
    fit = dg.glm("y ~ x", data, family="poisson", exposure="e", offset="o")
    new = frame("poisson", 50, 3)
    eta = x_of(new, "y ~ x") @ fit.params.to_numpy()
    for options, expected in [
        ({}, eta + new.o + np.log(new.e)),
        ({"exposure": 1}, eta + new.o),
        ({"exposure": 2.5, "offset": 0}, eta + np.log(2.5)),
        ({"offset": 0.25, "exposure": 1.0}, eta + 0.25),
        ({"offset": "z", "exposure": "e * 2"}, eta + new.z + np.log(2 * new.e)),
    ]:
        np.testing.assert_allclose(fit.predict(new, "link", **options), expected, rtol=ROUNDING, atol=ROUNDING)
    inside = dg.glm("y ~ x + offset(log(e))", data, family="poisson")
    eta = x_of(new, "y ~ x") @ inside.params.to_numpy()
    np.testing.assert_allclose(inside.predict(new, "link"), eta + np.log(new.e), rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(
        inside.predict(new.drop(columns="e"), "link", offset=0), eta, rtol=ROUNDING, atol=ROUNDING
    )


@pytest.mark.parametrize("leaf_rows", [3, 10_000])
def test_one_row_out_for_every_row_in_with_nan_where_a_value_is_missing(
    monkeypatch: pytest.MonkeyPatch, leaf_rows: int
) -> None:
    fit = dg.glm(FORMULA, frame("poisson"), family="poisson")
    monkeypatch.setattr(tables, "LEAF_ROWS", leaf_rows)
    new = frame("poisson", 50, 4).set_index(np.arange(50) * 10 + 7)
    gone = np.zeros(50, bool)
    gone[[0, 1, 2, 17, 49]] = True
    holes = new.copy()
    holes.loc[holes.index[[0, 17]], "x"] = np.nan
    holes.loc[holes.index[[1, 17]], "s"] = None
    holes.loc[holes.index[[2]], "z"] = -1.0
    holes.loc[holes.index[[49]], "z"] = np.nan
    found = fit.predict(holes, se=True)
    assert found.index.equals(new.index)
    expected = np.exp(x_of(new) @ fit.params.to_numpy())
    np.testing.assert_array_equal(np.isnan(found["mean"]), gone)
    np.testing.assert_array_equal(np.isnan(found.se), gone)
    np.testing.assert_allclose(found["mean"][~gone], expected[~gone], rtol=ROUNDING)


def test_every_kind_of_data_is_scored_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    fit = dg.glm(FORMULA, frame("gaussian"))
    new = frame("gaussian", 300, 5)
    expected = x_of(new) @ fit.params.to_numpy()
    table = pa.Table.from_pandas(new, preserve_index=False)
    pq.write_table(table.slice(0, 120), tmp_path / "0.parquet", row_group_size=11)
    pq.write_table(table.slice(120, 0), tmp_path / "1.parquet")
    pq.write_table(table.slice(120), tmp_path / "2.parquet", row_group_size=50)
    for source in (tmp_path, table, pl.DataFrame(new), new, new.to_dict("list")):
        np.testing.assert_allclose(fit.predict(source), expected, rtol=ROUNDING, atol=ROUNDING)


def test_no_rows_in_no_rows_out() -> None:
    fit = dg.glm(FORMULA, frame("gaussian"))
    found = fit.predict(frame("gaussian").iloc[:0], se=True)
    assert found.shape == (0, 2)


def test_an_intercept_alone_is_the_mean_of_every_row() -> None:
    data = frame("gaussian")
    found = dg.glm("y ~ 1", data).predict(data[["s"]].iloc[:7])
    np.testing.assert_allclose(found, np.full(7, data.y.mean()), rtol=ROUNDING)


@pytest.mark.parametrize("unseen", ["raise", "baseline", "missing"])
def test_levels_that_were_not_seen(unseen: str) -> None:
    fit = dg.glm("y ~ x + s", frame("gaussian"), unseen=unseen)
    new = frame("gaussian", 30, 6)
    strange = new.assign(s=np.where(np.arange(30) % 7 == 0, "new", new.s))
    if unseen == "raise":
        with pytest.raises(DataError, match=r"s has levels .*new"):
            fit.predict(strange)
        return
    as_baseline = x_of(strange.assign(s=strange.s.replace("new", "a")), "y ~ x + s") @ fit.params.to_numpy()
    expected = np.where(strange.s == "new", np.nan, as_baseline) if unseen == "missing" else as_baseline
    np.testing.assert_allclose(fit.predict(strange), expected, rtol=ROUNDING)


def test_levels_of_new_data_may_be_few_and_in_another_order() -> None:
    fit = dg.glm("y ~ x + s", frame("gaussian"))
    new = frame("gaussian", 30, 7).query("s != 'b'").reset_index(drop=True)
    declared = new.assign(s=pd.Categorical(new.s, categories=["zzz", "c", "b", "a"]))
    b = fit.params
    expected = b["Intercept"] + b["x"] * new.x + b["s[T.c]"] * (new.s == "c")
    np.testing.assert_allclose(fit.predict(declared), expected, rtol=ROUNDING)
    # one row alone has one level, and the baseline is still the one that was learnt
    np.testing.assert_allclose(fit.predict(new.iloc[:1]), expected.iloc[:1], rtol=ROUNDING)


def test_an_aliased_column_adds_nothing() -> None:
    data = frame("gaussian").assign(twice=lambda d: 2 * d.x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.AliasWarning)
        fit = dg.glm("y ~ x + twice", data)
    line = np.linalg.lstsq(np.column_stack([np.ones(len(data)), data.x]), data.y, rcond=None)[0]
    np.testing.assert_allclose(fit.predict(data), line[0] + line[1] * data.x, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"type": "response"}, "response"),
        ({"interval": "prediction", "type": "link"}, "prediction"),
        ({"interval": "credible"}, "credible"),
        ({"level": 1.0}, "level"),
        ({"level": 0.0}, "level"),
        ({"type": "terms", "se": True}, "terms"),
        ({"without": "sx"}, "'sx'"),
        ({"exposure": 1.0}, "exposure"),
        ({"offset": "oo"}, '"oo".*did you mean "o"'),
    ],
)
def test_requests_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    data = frame("gaussian")
    fit = dg.glm("y ~ x + s", data)
    with pytest.raises(DesignError, match=message):
        fit.predict(data, **options)


def test_data_that_do_not_fit_the_model_are_refused_by_column() -> None:
    data = frame("poisson")
    fit = dg.glm("y ~ x + s", data, family="poisson", exposure="e")
    with pytest.raises(DesignError, match='"x"'):
        fit.predict(data.drop(columns="x"))
    with pytest.raises(DesignError, match=r'"s" was factor .* numeric now'):
        fit.predict(data.assign(s=1.0))
    with pytest.raises(DesignError, match="positive"):
        fit.predict(data, exposure=0)
    with pytest.raises(DataError, match='"e" is 0'):
        fit.predict(data.assign(e=0.0))
    assert fit.predict(data.assign(x=np.inf)).isna().all()


@pytest.mark.parametrize("model", [*MODELS, "canonical counts"])
def test_canonical_parameters(model: str) -> None:
    options = MODELS.get(model, {"family": "negative_binomial(theta=3)", "link": "canonical"})
    data = frame("counts" if model == "canonical counts" else model)
    fit = dg.glm("y ~ x + s", data, **options)
    found = fit.predict(data, type="canonical")
    assert found.name == "canonical"
    np.testing.assert_allclose(found, fit.natural_parameter(fit.predict(data)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit.mean_parameter(found), fit.predict(data), rtol=1e-9)
    with pytest.raises(DesignError, match='type="canonical" has no errors'):
        fit.predict(data, type="canonical", se=True)


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_canonical_parameters_of_classes(family: str) -> None:
    data = frame("gaussian")
    data["c"] = pd.Categorical(pd.cut(data["y"], 3, labels=["low", "middle", "high"]), ordered=family == "ordinal")
    fit = dg.glm("c ~ x", data, family=family)
    chance = fit.predict(data).to_numpy()
    found = fit.predict(data, type="canonical")
    assert list(found.columns) == ["middle", "high"]
    np.testing.assert_allclose(found, np.log(chance[:, 1:] / chance[:, :1]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found, fit.natural_parameter(chance), rtol=1e-9, atol=1e-12)


def test_a_type_that_is_none() -> None:
    fit = dg.glm("y ~ x", frame("gaussian"))
    with pytest.raises(DesignError, match=r'type=.canonic. is not one of .*did you mean "canonical"'):
        fit.predict(frame("gaussian"), type="canonic")


def kinds_of_table(data: pd.DataFrame) -> dict[str, Any]:
    table = pa.Table.from_pandas(data, preserve_index=False)
    return {"polars": pl.DataFrame(data), "pyarrow": table, "batch": table.combine_chunks().to_batches()[0]}


ROWWISE: dict[str, Any] = {
    "mean": lambda fit, data: fit.predict(data),
    "link": lambda fit, data: fit.predict(data, type="link"),
    "interval": lambda fit, data: fit.predict(data, se=True, interval="confidence"),
    "terms": lambda fit, data: fit.predict(data, type="terms"),
    "residuals": lambda fit, data: fit.residuals(data),
    "influence": lambda fit, data: fit.influence(data),
}


@pytest.mark.parametrize("method", ROWWISE)
def test_what_comes_back_is_of_the_library_that_was_given(method: str) -> None:
    data = frame("poisson")
    data.loc[3, "x"] = np.nan
    fit = dg.glm(FORMULA, data, family="poisson")
    expected = ROWWISE[method](fit, data)
    columns = expected.to_frame() if isinstance(expected, pd.Series) else expected
    for library, given in kinds_of_table(data).items():
        found = ROWWISE[method](fit, given)
        if library == "polars":
            assert type(found) is (pl.Series if isinstance(expected, pd.Series) else pl.DataFrame)
            table = found.to_frame() if isinstance(found, pl.Series) else found
            assert table.columns == list(columns.columns)
            assert table.null_count().row(0) == (1,) * table.width
        else:
            assert isinstance(found, pa.Array if isinstance(expected, pd.Series) else pa.Table)
            table = pa.table([found], names=list(columns)) if isinstance(found, pa.Array) else found
            assert table.column_names == list(columns.columns)
            assert table.column(0).null_count == 1
        np.testing.assert_array_equal(table.to_pandas().to_numpy(), columns.to_numpy())
    indexed = data.set_index(pd.Index([f"row {i}" for i in range(len(data))]))
    assert ROWWISE[method](fit, indexed).index.equals(indexed.index)


LABELS: dict[str, Any] = {"whole": [1, 2, 10], "truth": [False, True], "text": ["1", "2", "a"]}


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
@pytest.mark.parametrize("kind", LABELS)
def test_classes_keep_their_kind_in_the_columns(kind: str, family: str) -> None:
    generator = np.random.default_rng(6)
    labels = LABELS[kind]
    x = generator.normal(size=150)
    data = pd.DataFrame({"x": x, "y": [labels[i] for i in generator.integers(0, len(labels), 150)]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = dg.glm("y ~ x", data, family=family)
    for found in (fit.predict(data), fit.predict(dd.from_pandas(data, npartitions=2)).compute()):
        assert list(found.columns) == labels
        assert [type(label) for label in found.columns] == [type(label) for label in labels]
        assert data["y"].isin(found.columns).all()
    with_errors = fit.predict(data, se=True)
    assert list(with_errors.columns) == [*labels, *(f"se[{label}]" for label in labels)]
    assert fit.predict(pl.DataFrame(data)).columns == [str(label) for label in labels]
    assert fit.predict(pa.Table.from_pandas(data)).column_names == [str(label) for label in labels]
