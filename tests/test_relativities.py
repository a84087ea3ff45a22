"""Tables by level against sums written out, relativities against Wald contrasts, and laws."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.cluster import tables
from daskglm.errors import DataError, DesignError
from daskglm.result import Fit
from tests.test_margins import rows

EXACT = 1e-10


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return rows(300, 9)


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> Fit:
    return dg.glm(
        'count ~ C(a, Treatment("B")) + log(x) + I(x**2) + b + z:C(yr) + C(yr)', data, family="poisson", exposure="e"
    )


def by_hand(data: pd.DataFrame, keys: Any, weight: Any, size: Any, response: Any, mean: Any) -> pd.DataFrame:
    parts = pd.DataFrame({"w": weight * size, "y": weight * response, "m": weight * mean})
    sums = parts.groupby(keys, observed=True).sum()
    return pd.DataFrame({"exposure": sums["w"], "observed": sums["y"] / sums["w"], "fitted": sums["m"] / sums["w"]})


def test_sums_by_level(fit: Fit, data: pd.DataFrame) -> None:
    found = fit.relativities(data=data, bands={"x": [1.5, 2.5]})
    mean = fit.predict(data)
    keys = {"a": data["a"], "b": data["b"], "yr": data["yr"], "x": pd.cut(data["x"], [0, 1.5, 2.5, 9], right=False)}
    assert set(found.index.get_level_values("variable")) == set(keys)
    for name, key in keys.items():
        expected = by_hand(data, key, 1.0, data["e"], data["count"], mean)
        part = found.loc[name]
        np.testing.assert_allclose(part[["exposure", "observed", "fitted"]], expected, rtol=EXACT)
        np.testing.assert_array_equal(part["rows"], key.value_counts().sort_index())
    # a main effect's levels are fitted as they are observed
    np.testing.assert_allclose(found.loc["a"]["fitted"], found.loc["a"]["observed"], rtol=1e-9)


def test_relativities_of_levels(fit: Fit, data: pd.DataFrame) -> None:
    found = fit.relativities(data=data, level=0.9)
    plain = fit.relativities(level=0.9)
    names = {level: f"C(a, Treatment('B'))[T.{level}]" for level in "AC"}
    for level, name in names.items():
        np.testing.assert_allclose(found.loc[("a", level)].iloc[:3], plain.loc[name], rtol=EXACT)
    assert list(found.loc[("a", "B")].iloc[:3]) == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(found.loc["b"].loc["True"].iloc[:3], plain.loc["b"], rtol=EXACT)
    np.testing.assert_allclose(found.loc["yr"].loc["2002"].iloc[:3], plain.loc["C(yr)[T.2002]"], rtol=EXACT)


def test_relativities_of_bands(fit: Fit, data: pd.DataFrame) -> None:
    """A band's are those of the mean of the number's terms in it."""
    found = fit.relativities(data=data, bands={"x": [0.5, 1.5, 2.5]}).loc["x"]
    terms = pd.DataFrame({"log(x)": np.log(data["x"]), "I(x ** 2)": data["x"] ** 2})
    means = terms.groupby(np.searchsorted([1.5, 2.5], data["x"], side="right")).mean()
    names = list(terms)
    difference = (means - means.iloc[0]).to_numpy()
    eta = difference @ fit.params[names].to_numpy()
    error = np.sqrt(np.einsum("ij,jk,ik->i", difference, fit.cov_params().loc[names, names].to_numpy(), difference))
    assert list(found.index) == ["< 0.5", "[0.5, 1.5)", "[1.5, 2.5)", ">= 2.5"]
    np.testing.assert_allclose(found["relativity"].iloc[1:], np.exp(eta), rtol=1e-9)
    np.testing.assert_allclose(found["upper"].iloc[1:], np.exp(eta + 1.959963984540054 * error), rtol=1e-9)
    assert found["rows"].iloc[0] == 0.0
    assert np.isnan(found["observed"].iloc[0])


def test_weights_and_trials_are_the_size_of_rows(data: pd.DataFrame) -> None:
    cases = [
        dg.glm("size ~ a + x", data, family="gamma", weights=dg.Variance("w")),
        dg.glm("count ~ a + x", data, family="poisson", weights=dg.Probability("w")),
        dg.glm("successes ~ a + x", data, family="binomial", trials="t"),
    ]
    responses = [("size", "w"), ("count", "w"), ("successes", "t")]
    for fit, (response, weight) in zip(cases, responses, strict=True):
        y = data[response] / (data["t"] if response == "successes" else 1.0)
        found = fit.relativities(data=data).loc["a"]
        expected = by_hand(data, data["a"], data[weight], 1.0, y, fit.predict(data))
        np.testing.assert_allclose(found[["exposure", "observed", "fitted"]], expected, rtol=EXACT)


def test_frequencies_are_rows_written_out(data: pd.DataFrame) -> None:
    written = data.loc[data.index.repeat(data["f"])]
    one = dg.glm("count ~ a + x", data, family="poisson", exposure="e", weights=dg.Frequency("f"))
    two = dg.glm("count ~ a + x", written, family="poisson", exposure="e")
    a, b = (f.relativities(data=d, bands={"x": [2]}) for f, d in ((one, data), (two, written)))
    np.testing.assert_allclose(a, b, rtol=1e-8)


def test_partitions_change_rounding_only(fit: Fit, data: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fit.relativities(data=data, bands={"x": [2]})
    monkeypatch.setattr(tables, "LEAF_ROWS", 41)
    for other in (data, data.sample(frac=1.0, random_state=1)):
        np.testing.assert_allclose(fit.relativities(data=other, bands={"x": [2]}), expected, rtol=1e-11)


def test_an_offset_that_is_an_exposure(data: pd.DataFrame) -> None:
    one = dg.glm("count ~ a", data, family="poisson", exposure="e")
    two = dg.glm("count ~ a", data.assign(le=np.log(data["e"])), family="poisson", offset="le")
    found = two.relativities(data=data.assign(le=np.log(data["e"])), exposure="e")
    np.testing.assert_allclose(found, one.relativities(data=data), rtol=1e-9)


@pytest.mark.filterwarnings("ignore::daskglm.errors.SeparationWarning")
def test_a_level_without_claims(data: pd.DataFrame) -> None:
    data = data.assign(count=data["count"].where(data["a"] != "C", 0))
    fit = dg.glm("count ~ a + x", data, family="poisson", exposure="e")
    found = fit.relativities(data=data).loc[("a", "C")]
    assert (found["relativity"], found["observed"], found["fitted"]) == (0.0, 0.0, 0.0)
    assert found["exposure"] == pytest.approx(data.loc[data["a"] == "C", "e"].sum())


def test_a_factor_of_interactions_alone_has_sums_and_no_relativity(data: pd.DataFrame) -> None:
    fit = dg.glm("count ~ x:a", data, family="poisson")
    found = fit.relativities(data=data).loc["a"]
    assert found[["relativity", "lower", "upper"]].isna().all(axis=None)
    assert found["rows"].sum() == len(data)


@pytest.mark.parametrize("formula", ["count ~ a * C(yr) + x", "count ~ a:C(yr) + x", "count ~ C(yr) + a:C(yr)"])
def test_an_interaction_of_factors_has_a_row_for_each_cell(data: pd.DataFrame, formula: str) -> None:
    fit = dg.glm(formula, data, family="poisson", exposure="e")
    found = fit.relativities(data)
    part = found.loc["a:yr"]
    cells = [(a, yr) for a in sorted(data["a"].unique()) for yr in sorted(data["yr"].unique())]
    means = fit.predict(pd.DataFrame(cells, columns=["a", "yr"]).assign(x=1.0, e=1.0))
    assert list(part.index) == [f"{a}:{yr}" for a, yr in cells]
    baseline = cells.index((fit.record.design.levels["a"][0], 2001))
    np.testing.assert_allclose(part["relativity"], means / means.iloc[baseline], rtol=1e-9)
    assert part["rows"].sum() == len(data)
    for (a, yr), own in data.groupby(["a", "yr"]):
        expected = own["count"].sum() / own["e"].sum()
        assert part.loc[f"{a}:{yr}", "observed"] == pytest.approx(expected)
    first, rows_of = fit.record.design.levels["a"][0], "; see the rows a:yr for every combination"
    alone = "a *" in formula
    held = "at C(yr) = 2001, since the model has a:C(yr)"
    unknown = "no relativity (NaN), since the model has a:C(yr) and no term of a alone"
    assert set(found.attrs["notes"]) == {
        f"a: {held if alone else unknown}{rows_of}",
        f"yr: at a = {first}, since the model has a:C(yr){rows_of}",
    }
    assert found.loc["a", "relativity"].notna().all() == alone
    assert found.loc["yr", "relativity"].notna().all()


def test_an_interaction_with_a_number_is_noted(fit: Fit, data: pd.DataFrame) -> None:
    notes = fit.relativities(data).attrs["notes"]
    assert notes == ("yr: at z = 0, since the model has z:C(yr)",)
    assert dg.glm("count ~ a + x", data, family="poisson").relativities(data).attrs["notes"] == ()


def test_bands_and_columns_of_truth_in_interactions_are_noted(data: pd.DataFrame) -> None:
    fit = dg.glm("count ~ a*x + b*a + b*z", data, family="poisson", exposure="e")
    found = fit.relativities(data, bands={"x": [1.5]})
    first = fit.record.design.levels["a"][0]
    assert set(found.attrs["notes"]) == {
        "a: at x = 0 and b = False, since the model has a:x and b:a",
        f"x: at a = {first}, since the model has a:x",
        f"b: at a = {first} and z = 0, since the model has b:a and b:z",
    }
    alone = dg.glm("count ~ a + a:x + b:z", data, family="poisson").relativities(data, bands={"x": [1.5]})
    assert alone.loc["x", "relativity"].isna().all()
    assert alone.loc["b", "relativity"].isna().all()
    assert set(alone.attrs["notes"]) == {
        "a: at x = 0, since the model has a:x",
        "x: no relativity (NaN), since the model has a:x and no term of x alone",
        "b: no relativity (NaN), since the model has b:z and no term of b alone",
    }


def test_an_interaction_within_a_larger_one_is_noted(data: pd.DataFrame) -> None:
    found = dg.glm("count ~ a*C(yr)*b", data, family="poisson").relativities(data)
    notes = {note.split(": ")[0]: note for note in found.attrs["notes"]}
    assert notes["a:yr"] == "a:yr: at b = False, since the model has a:b, C(yr):b and a:C(yr):b"
    assert set(notes) == {"a", "yr", "b", "a:yr"}


DAY = pd.Timestamp("2024-06-01")
EDGES: list[Any] = [
    "2024-06-01", "2024-06-01T00:00:00", datetime.date(2024, 6, 1), datetime.datetime(2024, 6, 1), DAY, DAY.to_datetime64(),
]  # fmt: skip


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", ["timestamp", "zone", "date"])
def test_bands_of_times_are_cut_at_dates(data: pd.DataFrame, edge: Any, kind: str) -> None:
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(data)), unit="D")
    column = {"timestamp": days, "zone": days.tz_localize("America/New_York"), "date": days.date}[kind]
    frame = data.assign(d=column)
    fit = dg.glm("count ~ a + d", frame, family="poisson")
    found = fit.relativities(frame, bands={"d": [edge, "2024-09-01"]}).loc["d"]
    label = "2024-06-01" if kind == "date" else "2024-06-01 00:00:00" + ("-04:00" if kind == "zone" else "")
    assert found.index[0] == f"< {label}"
    expected = [152, 92, 300 - 244]
    assert list(found["rows"]) == expected
    checked = fit.calibration(frame, {"d": [edge, "2024-09-01"]}).loc["d"]
    assert list(checked["observations"]) == expected
    assert list(checked.index) == list(found.index)


def test_edges_that_are_no_times_are_refused(data: pd.DataFrame) -> None:
    frame = data.assign(d=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(data)), unit="D"))
    fit = dg.glm("count ~ a + d", frame, family="poisson")
    for edge in ("June", DAY.tz_localize("UTC"), None):
        message = 'bands of "d": .* is no edge; .* of the kind timestamp, such as "2024-06-01"'
        with pytest.raises(DesignError, match=message):
            fit.relativities(frame, bands={"d": [edge]})
        with pytest.raises(DesignError, match=message):
            fit.calibration(frame, {"d": [edge]})
    with pytest.raises(DesignError, match="ascending"):
        fit.relativities(frame, bands={"d": ["2024-06-01", "2024-05-01"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": {"x": [2]}}, "give data="),
        ({"data": True, "bands": {"a": [2]}}, "bands= is for numbers"),
        ({"data": True, "bands": {"x": [2, 1]}}, "ascending numbers"),
        ({"data": True, "bands": {"x": ["young"]}}, "bands of \"x\": 'young' is no edge; .* ascending numbers"),
        ({"data": True, "bands": {"x": [1.0, np.inf]}}, "must be finite"),
        ({"data": True, "exposure": "w"}, 'fitted with exposure="e"'),
        ({"levels": 0.9}, 'did you mean "level"'),
        ({"level": 2}, "between 0 and 1"),
    ],
)
def test_refusals(fit: Fit, data: pd.DataFrame, options: dict[str, Any], message: str) -> None:
    given = {**options, "data": data} if "data" in options else options
    with pytest.raises(DesignError, match=message):
        fit.relativities(**given)


def test_more_refusals(data: pd.DataFrame) -> None:
    with pytest.raises(DesignError, match="identity"):
        dg.glm("number ~ a", data).relativities(data=data)
    with pytest.raises(DesignError, match="leave exposure= out"):
        dg.glm("size ~ a", data, family="gamma", weights=dg.Variance("w")).relativities(data=data, exposure="w")
    with pytest.raises(DesignError, match="no levels"):
        dg.glm("count ~ x", data, family="poisson").relativities(data=data)
    fit = dg.glm("count ~ a", data, family="poisson")
    with pytest.raises(DataError, match="missing or negative"):
        fit.relativities(data=data.assign(e=data["e"].where(data["e"] < 1.9)), exposure="e")
    with pytest.raises(DataError, match="no rows that the model uses"):
        fit.relativities(data=data.assign(count=np.nan))
    with pytest.raises(DesignError, match="one linear predictor"):
        dg.glm("k ~ a", data, family="ordinal").relativities(data=data)
