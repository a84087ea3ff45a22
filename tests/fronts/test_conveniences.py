"""Tables of a fit, limits in its summary, and arrays beside a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import daskglm as dg
from daskglm.errors import DesignError


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    n = 120
    frame = pd.DataFrame({"x": rng.normal(size=n), "g": rng.choice(list("abc"), n)}, index=rng.permutation(n) + 10)
    frame["e"], frame["w"], frame["o"] = rng.uniform(1, 2, n), rng.uniform(0.5, 2, n), rng.normal(size=n) / 10
    frame["k"] = np.arange(n) % 12
    return frame.assign(y=rng.poisson(frame["e"] * np.exp(0.3 * frame["x"])), z=rng.poisson(2.0, n))


@pytest.mark.parametrize("family", ["poisson", "gaussian", "multinomial"])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_a_fit_as_a_table(data: pd.DataFrame, family: str, level: float) -> None:
    fit = dg.glm("y ~ x + g" if family != "multinomial" else "g ~ x", data, family=family)
    found = fit.to_frame(level)
    assert list(found.columns) == ["estimate", "std_error", "statistic", "p_value", "lower", "upper"]
    assert list(found.index) == list(fit.record.names)
    np.testing.assert_array_equal(found["std_error"], fit.record.errors)
    pd.testing.assert_frame_equal(found[["lower", "upper"]], fit.conf_int(level=level))
    if family != "multinomial":
        for column, expected in (("estimate", fit.params), ("statistic", fit.tvalues), ("p_value", fit.pvalues)):
            pd.testing.assert_series_equal(found[column], expected, check_names=False)
    with pytest.raises(DesignError, match="between 0 and 1"):
        fit.to_frame(95)


def test_aliased_and_infinite_estimates_in_the_table() -> None:
    data = pd.DataFrame({"x": [1.0, 2, 3, 4, 5, 6], "g": list("aabbcc"), "y": [1, 2, 1, 3, 0, 0]})
    data["twice"] = 2 * data["x"]
    with pytest.warns((dg.errors.AliasWarning, dg.errors.SeparationWarning)):
        fit = dg.glm("y ~ x + twice + g", data, family="poisson")
    found = fit.to_frame()
    assert found.loc["twice"].isna().all()
    assert found.loc["g[T.c]", "estimate"] == -np.inf
    assert np.isnan(found.loc["g[T.c]", "std_error"])


def test_limits_in_the_summary(data: pd.DataFrame) -> None:
    fit = dg.glm("y ~ x", data, family="poisson")
    assert "%" not in str(fit.summary()).split("---")[0]
    text = str(fit.summary(conf_int=True))
    assert "2.5 %" in text
    assert "97.5 %" in text
    low, high = fit.conf_int().loc["x"]
    line = next(line for line in text.splitlines() if line.startswith("x "))
    assert f"{low:.5f}"[:6] in line
    assert f"{high:.5f}"[:6] in line
    assert "5 %" in fit.summary(True, level=0.9).as_html()
    with pytest.raises(DesignError, match="level is level="):
        fit.summary(conf_int=0.9)


def test_several_responses(data: pd.DataFrame) -> None:
    fits = dg.glm("responses(y, z) ~ x", data, family="poisson")
    found = fits.to_frame()
    pd.testing.assert_frame_equal(found.loc["z"], fits["z"].to_frame(), check_names=False)
    assert str(fits.summary(conf_int=True)).count("97.5 %") == 2


def test_family_and_link(data: pd.DataFrame) -> None:
    fit = dg.glm("y ~ x", data, family="negative_binomial")
    assert fit.family.theta == fit.shape_params["theta"]
    assert fit.link == dg.links.Log()


def kinds(data: pd.DataFrame) -> dict[str, Any]:
    return {"pandas": data, "polars": pl.from_pandas(data), "pyarrow": pa.Table.from_pandas(data, preserve_index=False)}


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("array", [np.asarray, list, pl.Series, pa.array, pd.Series])
def test_arrays_beside_a_table_are_its_columns(data: pd.DataFrame, kind: str, array: Any) -> None:
    expected = dg.glm("y ~ x + g", data, family="poisson", exposure="e", weights=dg.Variance("w"), offset="o")
    if array is pd.Series and kind != "pandas":
        return
    given = {name: array(data[name].to_numpy()) if array is not pd.Series else data[name] for name in "ewo"}
    fit = dg.glm(
        "y ~ x + g", kinds(data)[kind], family="poisson", exposure=given["e"], weights=dg.Variance(given["w"]),
        offset=given["o"],
    )  # fmt: skip
    np.testing.assert_array_equal(fit.params, expected.params)
    np.testing.assert_array_equal(fit.bse, expected.bse)


def test_series_are_paired_by_their_index(data: pd.DataFrame) -> None:
    expected = dg.glm("y ~ x", data, family="poisson", exposure="e", covariance=dg.Cluster("k"))
    turned = data["e"].sort_index()
    clusters = data["k"].sort_index(ascending=False)
    fit = dg.glm("y ~ x", data, family="poisson", exposure=turned, covariance=dg.Cluster(clusters))
    np.testing.assert_array_equal(fit.params, expected.params)
    np.testing.assert_allclose(fit.bse, expected.bse, rtol=1e-12)
    with pytest.raises(DesignError, match="index"):
        dg.glm("y ~ x", data, family="poisson", exposure=turned.rename(lambda label: label + 1))


def test_names_of_columns_that_are_there_stay_theirs(data: pd.DataFrame) -> None:
    named = data.assign(weights=1.0, exposure="no")
    fit = dg.glm("y ~ x", named, family="poisson", weights=data["w"], exposure=data["e"], where="weights = 1")
    expected = dg.glm("y ~ x", data, family="poisson", weights="w", exposure="e")
    np.testing.assert_array_equal(fit.params, expected.params)
    assert fit.record.specification.weights == ("variance", "weights_")


def test_new_data_need_the_column(data: pd.DataFrame) -> None:
    fit = dg.glm("y ~ x", data, family="poisson", exposure=data["e"])
    with pytest.raises(DesignError, match="exposure"):
        fit.predict(data)
    expected = dg.glm("y ~ x", data, family="poisson", exposure="e").predict(data)
    np.testing.assert_array_equal(fit.predict(data.assign(exposure=data["e"])), expected)
    np.testing.assert_array_equal(fit.predict(data, exposure="e"), expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(3), "exposure= has 3 values for 120 rows"),
        (np.ones((120, 2)), "must have one dimension"),
        (3.0, "takes the name of a column"),
    ],
)
def test_arrays_that_do_not_fit(data: pd.DataFrame, value: Any, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        dg.glm("y ~ x", data, family="poisson", exposure=value)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_predictions_take_arrays_beside_a_table(data: pd.DataFrame, kind: str) -> None:
    fit = dg.glm("y ~ x", data, family="poisson", exposure="e", offset="o")
    expected = np.asarray(fit.predict(data))
    plain = data.drop(columns=["e", "o"]).assign(exposure="no")
    exposure, offset = data["e"], data["o"]
    if kind == "pandas":
        exposure, offset = exposure.sort_index(), offset.sort_index(ascending=False)
    else:
        exposure, offset = exposure.to_numpy(), offset.to_numpy()
    found = fit.predict(kinds(plain)[kind], exposure=exposure, offset=offset)
    np.testing.assert_array_equal(np.asarray(found).ravel(), expected)
    with pytest.raises(DesignError, match="exposure= has 2 values for 120 rows"):
        fit.predict(plain, exposure=[1.0, 2.0], offset=0)
