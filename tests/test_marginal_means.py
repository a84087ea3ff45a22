"""Marginal means against grids written out, contrasts against Wald tests, and laws."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.cluster import tables
from daskglm.errors import DesignError
from daskglm.result import Fit
from tests.test_margins import rows

# The same linear combination in another order.
EXACT = 1e-10


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return rows(300, 4).assign(r=lambda frame: np.where(frame["yr"] == 2001, "u", "v"))


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> Fit:
    return dg.glm(
        "count ~ a * r + log(x) + a:z + C(yr2)", data.assign(yr2=data["t"] % 3), family="poisson", exposure="e"
    )


@pytest.fixture(scope="module")
def whole(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(yr2=data["t"] % 3)


def grid(data: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Every combination of levels, numbers at their means."""
    levels = {"a": list("ABC"), "r": ["u", "v"], "yr2": [0, 1, 2], "x": [data["x"].mean()], "z": [data["z"].mean()]}
    levels |= values
    found = pd.DataFrame(list(itertools.product(*levels.values())), columns=list(levels))
    return found.assign(e=np.exp(np.log(data["e"]).mean()))


def test_means_are_averages_over_the_grid(fit: Fit, whole: pd.DataFrame) -> None:
    for values in ({}, {"x": [1.5, 3.0]}, {"r": ["v"]}, {"z": [0.5], "yr2": [0, 2]}):
        written = grid(whole, **values)
        expected = fit.predict(written, type="link").groupby(written["a"]).mean()
        found = fit.emmeans("a", whole, at=values)
        np.testing.assert_allclose(found.table["estimate"], expected, rtol=EXACT)
    written = grid(whole)
    expected = fit.predict(written, type="link").groupby([written["r"], written["a"]]).mean()
    found = fit.emmeans("a", whole, by="r")
    np.testing.assert_allclose(found.table["estimate"], expected, rtol=EXACT)
    assert list(found.table.index) == list(expected.index)


def test_proportional_means_weigh_the_combinations_that_occur(fit: Fit, whole: pd.DataFrame) -> None:
    written = grid(whole)
    counts = whole.groupby(["r", "yr2"]).size().rename("n").reset_index()
    written = written.merge(counts, on=["r", "yr2"])
    eta = fit.predict(written, type="link") * written["n"]
    expected = eta.groupby(written["a"]).sum() / written["n"].groupby(written["a"]).sum()
    found = fit.emmeans("a", whole, weights="proportional")
    np.testing.assert_allclose(found.table["estimate"], expected, rtol=EXACT)


def test_means_of_one_factor_are_predictions(whole: pd.DataFrame) -> None:
    for family, response in (("poisson", "count"), ("binomial", "yes"), ("gaussian", "number"), ("gamma", "size")):
        fit = dg.glm(f"{response} ~ a", whole, family=family)
        new = pd.DataFrame({"a": list("ABC")})
        for type in ("link", "response"):
            expected = fit.predict(new, type=type.replace("response", "mean"), se=True, interval="confidence")
            np.testing.assert_allclose(fit.emmeans("a", type=type).table, expected, rtol=1e-9)


def test_without_data_means_are_those_of_the_columns(whole: pd.DataFrame) -> None:
    fit = dg.glm("number ~ a * z + x + b", whole)
    one, two = fit.emmeans("a"), fit.emmeans("a", whole)
    pd.testing.assert_frame_equal(one.table, two.table, rtol=1e-9)
    assert "at z = " in repr(one)


def test_frequencies_are_rows_written_out(whole: pd.DataFrame) -> None:
    formula = "count ~ a * r + log(x)"
    written = whole.loc[whole.index.repeat(whole["f"])]
    one = dg.glm(formula, whole, family="poisson", exposure="e", weights=dg.Frequency("f"))
    two = dg.glm(formula, written, family="poisson", exposure="e")
    for weights in ("equal", "proportional"):
        a, b = (f.emmeans("a", d, weights=weights) for f, d in ((one, whole), (two, written)))
        np.testing.assert_allclose(a.table, b.table, rtol=1e-8)


def test_partitions_change_rounding_only(fit: Fit, whole: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fit.emmeans("a", whole, weights="proportional").table
    monkeypatch.setattr(tables, "LEAF_ROWS", 41)
    for other in (whole, whole.sample(frac=1.0, random_state=1)):
        found = fit.emmeans("a", other, weights="proportional").table
        np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_contrasts_are_wald_tests(whole: pd.DataFrame) -> None:
    fit = dg.glm("yes ~ a + z", whole, family="binomial")
    means = fit.emmeans("a")
    found = means.contrasts()
    for name, hypothesis in (("A - B", "a[T.B]"), ("B - C", "a[T.B] = a[T.C]")):
        test = fit.wald_test(hypothesis)
        assert found.loc[name, "stat"] ** 2 == pytest.approx(test.statistic, rel=EXACT)
        assert found.loc[name, "pvalue"] == pytest.approx(test.pvalue, rel=1e-9)
    pd.testing.assert_frame_equal(
        means.contrasts({"A - B": [1, -1, 0], "A - C": [1, 0, -1], "B - C": [0, 1, -1]}).rename_axis("contrast"),
        found,
        rtol=EXACT,
    )
    reference = means.contrasts("reference")
    np.testing.assert_allclose(reference["estimate"], fit.params[["a[T.B]", "a[T.C]"]], rtol=EXACT)
    ratios = fit.emmeans("a", type="response").contrasts("reference")
    np.testing.assert_allclose(
        ratios[["estimate", "lower", "upper"]], fit.relativities().loc[["a[T.B]", "a[T.C]"]], rtol=EXACT
    )
    assert list(ratios.index) == ["B / A", "C / A"]
    bonferroni = means.contrasts(adjust="bonferroni")
    np.testing.assert_allclose(bonferroni["pvalue"], np.minimum(found["pvalue"] * 3, 1.0))
    np.testing.assert_allclose(bonferroni["lower"], means.contrasts(level=1 - 0.05 / 3)["lower"])


@pytest.mark.parametrize(
    "options", [{}, {"covariance": dg.Cluster("t")}, {"family": "poisson", "covariance": dg.Cluster("t")}]
)
def test_two_means_have_one_contrast_and_nothing_to_adjust(whole: pd.DataFrame, options: dict[str, Any]) -> None:
    """The studentised range of two means is |t| sqrt(2), with the degrees of freedom of the fit's own tests."""
    fit = dg.glm("count ~ r + z", whole, **options)
    means = fit.emmeans("r")
    # quadrature of the studentised range
    np.testing.assert_allclose(means.contrasts(adjust="tukey"), means.contrasts(), rtol=1e-6)
    assert means.contrasts("reference")["pvalue"].iloc[0] == pytest.approx(fit.pvalues["r[T.v]"], rel=1e-9)


def test_no_rows_have_no_means(fit: Fit, whole: pd.DataFrame) -> None:
    with pytest.raises(dg.errors.DataError, match="no rows that the model uses"):
        fit.emmeans("a", whole.assign(z=np.nan))


def test_an_empty_cell_is_not_told(whole: pd.DataFrame) -> None:
    part = whole[(whole["a"] != "C") | (whole["r"] != "v")]
    with pytest.warns(dg.errors.AliasWarning):
        fit = dg.glm("number ~ a * r", part)
    found = fit.emmeans(["a", "r"]).table["estimate"]
    cells = part.groupby(["a", "r"])["number"].mean()
    assert np.isnan(found[("C", "v")])
    for cell in cells.index:
        assert found[cell] == pytest.approx(cells[cell], rel=1e-10)
    assert np.isnan(fit.emmeans("a").table.loc["C"]).all()
    assert np.isfinite(fit.emmeans("a").table.loc["B"]).all()


@pytest.mark.filterwarnings("ignore::daskglm.errors.SeparationWarning")
def test_an_infinite_estimate_is_at_its_limit(whole: pd.DataFrame) -> None:
    part = whole.assign(count=whole["count"].where(whole["a"] != "C", 0))
    fit = dg.glm("count ~ a + x", part, family="poisson")
    found = fit.emmeans("a", part, type="response").table
    assert found.loc["C", "estimate"] == 0.0
    assert np.isnan(found.loc["C", "se"])
    other = dg.glm("count ~ a + x", part[part["a"] != "C"], family="poisson")
    expected = other.emmeans("a", at={"x": part["x"].mean()}, type="response").table
    np.testing.assert_allclose(found.loc[["A", "B"]], expected, rtol=1e-8)


def test_a_combination_that_is_aliased_and_still_told(whole: pd.DataFrame) -> None:
    with pytest.warns(dg.errors.AliasWarning):
        fit = dg.glm("number ~ a + z + z2", whole.assign(z2=1.0 + 2.0 * whole["z"]))
    plain = dg.glm("number ~ a + z", whole)
    np.testing.assert_allclose(fit.emmeans("a").table, plain.emmeans("a").table, rtol=1e-9)
    assert fit.emmeans("a", at={"z": 1.0}).table.isna().all(axis=None)


def test_it_prints(fit: Fit, whole: pd.DataFrame) -> None:
    found = fit.emmeans("a", whole)
    assert "averaged over the levels of: r, yr2" in repr(found)
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"specs": "A"}, 'no column "A"'),
        ({"specs": "x"}, "is a number to the model"),
        ({"specs": "a", "at": {"r": "w"}}, "no level 'w'"),
        ({"specs": "a", "by": "a"}, "both asked for and in by="),
        ({"specs": "a", "weights": "cells"}, "not one of"),
        ({"specs": "a", "type": "mean"}, "not one of"),
        ({"specs": "a"}, "the offset is held at its mean"),
        ({"specs": "a", "offset": 0}, 'the mean of "x" itself'),
        ({"specs": "a", "offset": 0, "weights": "proportional"}, "give data="),
        ({"specs": "a", "offset": 0, "at": {"x": -1, "z": 0}}, "not a number at the chosen values"),
        ({"specs": "a", "mode": "latent"}, "no option 'mode'"),
        ({"specs": ["a", "x"], "at": {"x": np.arange(1.0, 50_000.0), "z": 0}, "offset": 0}, "the grid would have"),
    ],
)
def test_refusals(fit: Fit, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DesignError, match=message):
        fit.emmeans(**options)


def test_more_refusals(whole: pd.DataFrame) -> None:
    with pytest.raises(DesignError, match="one linear predictor"):
        dg.glm("k ~ a", whole, family="multinomial").emmeans("a")
    weighted = dg.glm("number ~ a + x", whole, weights=dg.Frequency("f"))
    with pytest.raises(DesignError, match="weighted as the fit is"):
        weighted.emmeans("a")
    with pytest.raises(DesignError, match="no offset"):
        weighted.emmeans("a", whole, offset=0)
    means = weighted.emmeans("a", whole)
    with pytest.raises(DesignError, match="pairwise"):
        means.contrasts("reference", adjust="tukey")
    with pytest.raises(DesignError, match='did you mean "pairwise"'):
        means.contrasts("pairwis")
    with pytest.raises(DesignError, match="3 here"):
        means.contrasts([[1, -1]])
    with pytest.raises(DesignError, match='did you mean "tukey"'):
        means.contrasts(adjust="tuckey")
