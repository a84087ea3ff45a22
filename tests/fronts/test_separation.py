"""Infinite optima as users meet them: found as a linear program finds them, and treated as they ask."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import daskglm as dg
from daskglm.cli import main
from daskglm.errors import DesignError, SeparationWarning, SolverError
from tests.fronts.separated import ORDINARY, PLANTED, SAME, Case, check

# The long form, with thousands of cases, is `python -m benchmarks separation`.
SEEDS = range(4)
# Sums of the same terms.
SUMS = 1e-12


@pytest.mark.parametrize("make", [*PLANTED, *ORDINARY], ids=lambda make: make.__name__)
def test_what_is_found_is_what_the_linear_program_finds(make: Callable[[np.random.Generator], Case]) -> None:
    for seed in SEEDS:
        case = make(np.random.default_rng([seed, 7]))
        assert check(case)["wrong"] == [], (seed, case.formula, case.family, case.link)


def frame(level: str = "C", end: float = 0.0, n: int = 300) -> pd.DataFrame:
    """Counts and outcomes, at one end for a level of a; 66 rows of 300 are of level C."""
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"x": rng.normal(size=n), "a": rng.choice(list("ABCD"), n), "b": rng.choice(["no", "yes"], n)})
    data["y"] = (rng.random(n) < 0.4).astype(float)
    data["count"] = rng.poisson(1.2, n).astype(float)
    data.loc[data.a == level, ["y", "count"]] = [end, 0.0]
    data["w"] = rng.integers(1, 4, n)
    return data


def fitted(formula: str, data: pd.DataFrame, **options: Any) -> dg.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeparationWarning)
        return dg.glm(formula, data, **options)


# -- limit ---------------------------------------------------------------------------------------------------------------


def test_a_separated_level_is_infinite_and_all_else_is_the_fit_without_it() -> None:
    data = frame()
    with pytest.warns(SeparationWarning, match=r"for a\[T.C\].* 66 row\(s\).*all else is that of the other rows"):
        fit = dg.glm("count ~ x + a", data, family="poisson")
    rest = dg.glm("count ~ x + a", data[data.a != "C"], family="poisson")
    assert fit.separated == ("a[T.C]",)
    assert fit.aliased == ()
    assert fit.converged
    assert fit.params["a[T.C]"] == -np.inf
    assert np.isnan(fit.bse["a[T.C]"])
    assert np.isnan(fit.pvalues["a[T.C]"])
    assert fit.cov_params()["a[T.C]"].isna().all()
    others = list(rest.params.index)
    np.testing.assert_allclose(fit.params[others], rest.params, rtol=SAME)
    np.testing.assert_allclose(fit.cov_params().loc[others, others], rest.cov_params(), rtol=SAME)
    for name in ("deviance", "null_deviance", "llf", "aic", "bic", "scale", "df_resid", "df_null", "nobs"):
        assert getattr(fit, name) == pytest.approx(getattr(rest, name), rel=SUMS), name


def test_the_first_level_with_rows_becomes_baseline() -> None:
    data = frame("A", 1.0)
    data.loc[data.a == "B", "y"] = 1.0
    fit = fitted("y ~ a + x", data, family="binomial")
    assert list(fit.params.index) == ["Intercept", "a[T.A]", "a[T.B]", "a[T.D]", "x"]
    assert fit.separated == ("a[T.A]", "a[T.B]")
    assert fit.params["a[T.A]"] == fit.params["a[T.B]"] == np.inf
    assert "a: the baseline is C, for A has no row" in str(fit.summary())
    rest = dg.glm("y ~ a + x", data[data.a > "B"], family="binomial")
    np.testing.assert_allclose(fit.params[rest.params.index], rest.params, rtol=SAME)
    # the old baseline is scored as the level that it is
    assert fit.predict(pd.DataFrame({"a": ["A", "C"], "x": 0.0})).tolist()[0] == 1.0


def test_a_named_baseline_gives_way_as_well() -> None:
    fit = fitted("y ~ C(a, Treatment('C')) + x", frame(), family="binomial")
    assert fit.separated == ("C(a, Treatment('C'))[T.C]",)
    assert fit.record.design.baselines == {"C(a, Treatment('C'))": 0}


def test_every_row_at_its_limit() -> None:
    data = pd.DataFrame({"x": np.arange(-20.0, 20.0)})
    data["y"] = (data.x >= 0).astype(float)
    fit = fitted("y ~ x", data, family="binomial")
    assert fit.separated == ("Intercept", "x")
    assert fit.params["x"] == np.inf
    assert fit.bse.isna().all()
    assert (fit.deviance, fit.llf, fit.nobs, fit.df_resid, fit.record.statistics.rank) == (0.0, 0.0, 0.0, 0.0, 0)
    assert fit.converged
    np.testing.assert_array_equal(fit.predict(data), data.y)
    assert fit.record.statistics.n_used == len(data)
    assert "every row is at its limit" in str(fit.summary())


@pytest.mark.parametrize("y, family", [(0.0, "poisson"), (0.0, "binomial"), (1.0, "binomial")])
def test_responses_that_are_all_alike(y: float, family: str) -> None:
    data = frame().assign(y=y)
    for formula in ("y ~ 1", "y ~ x + a"):
        with warnings.catch_warnings():
            # nothing tells the slopes
            warnings.simplefilter("ignore", dg.errors.AliasWarning)
            fit = fitted(formula, data, family=family)
        assert fit.aliased == tuple(fit.params.index[1:])
        np.testing.assert_array_equal(fit.predict(data), data.y)
        assert fit.params["Intercept"] == (np.inf if y else -np.inf)
        assert fit.deviance == fit.llf == 0.0


def test_a_gaussian_model_with_log_link_keeps_the_squares_at_the_limit() -> None:
    """The likelihood is its supremum over all rows; errors, scale and degrees of freedom are those of the other rows."""
    data = frame()
    rng = np.random.default_rng(9)
    data["y"] = np.exp(0.5 + 0.2 * data.x) + rng.normal(scale=0.3, size=len(data))
    gone = data.a == "C"
    data.loc[gone, "y"] = -rng.random(int(gone.sum()))
    fit = fitted("y ~ x + a", data, family="gaussian", link="log")
    rest = dg.glm("y ~ x + a", data[~gone], family="gaussian", link="log")
    squares = float((data.y[gone] ** 2).sum())
    assert fit.deviance == pytest.approx(rest.deviance + squares, rel=SAME)
    n = len(data)
    assert fit.llf == pytest.approx(-0.5 * n * (np.log(2.0 * np.pi * fit.deviance / n) + 1.0), rel=SAME)
    np.testing.assert_allclose(fit.bse[rest.bse.index], rest.bse, rtol=SAME)
    assert (fit.scale, fit.df_resid) == (pytest.approx(rest.scale, rel=SAME), rest.df_resid)


@pytest.mark.parametrize(
    "options",
    [
        {"covariance": "HC1"},
        {"covariance": "observed", "link": "probit"},
        {"dispersion": "pearson"},
        {"weights": dg.Frequency("w")},
        {"weights": dg.Probability("w")},
        {"where": "x > -1"},
    ],
    ids=str,
)
def test_every_option_is_that_of_the_other_rows(options: dict[str, Any]) -> None:
    data = frame()
    fit = fitted("y ~ x + a", data, family="binomial", **options)
    rest = dg.glm("y ~ x + a", data[data.a != "C"], family="binomial", **options)
    assert fit.separated == ("a[T.C]",)
    np.testing.assert_allclose(fit.params[rest.params.index], rest.params, rtol=SAME)
    np.testing.assert_allclose(fit.bse[rest.bse.index], rest.bse, rtol=SAME)
    assert (fit.nobs, fit.df_resid) == (rest.nobs, rest.df_resid)
    assert fit.scale == pytest.approx(rest.scale, rel=SAME)


def test_sparse_columns() -> None:
    from scipy.sparse import csr_array

    data = frame()
    x = np.column_stack([(data.a == level).astype(float) for level in "BCD"] + [data.x])
    with pytest.warns(SeparationWarning, match="x1"):
        fit = dg.glm(X=csr_array(x), y=data.y.to_numpy(), family="binomial")
    dense = fitted("y ~ a + x", data, family="binomial")
    assert fit.separated == ("x1",)
    np.testing.assert_allclose(fit.params, dense.params, rtol=SAME)
    np.testing.assert_allclose(fit.predict(csr_array(x), se=True), dense.predict(data, se=True), rtol=SAME)


# -- predictions -----------------------------------------------------------------------------------------------------------


def test_predictions_at_the_limit_and_off_it() -> None:
    fit = fitted("y ~ x + a", frame(), family="binomial")
    new = pd.DataFrame({"x": [0.3, 0.3, np.nan], "a": ["C", "B", "C"]})
    link = fit.predict(new, "link", se=True, interval="confidence")
    assert link.link[0] == -np.inf
    assert link.loc[0, ["se", "lower", "upper"]].isna().all()
    mean = fit.predict(new, se=True, interval="confidence")
    assert (mean["mean"][0], mean.se[0]) == (0.0, 0.0)
    assert mean.loc[0, ["lower", "upper"]].isna().all()
    assert mean.loc[2].isna().all()
    b, c = fit.params[["Intercept", "x", "a[T.B]"]], fit.cov_params()
    at = np.array([1.0, 0.3, 1.0])
    assert link.link[1] == pytest.approx(at @ b, rel=SUMS)
    assert link.se[1] == pytest.approx(np.sqrt(at @ c.loc[b.index, b.index] @ at), rel=SAME)
    assert np.isfinite(mean.loc[1]).all()
    # without the term, the row is like any other
    assert fit.predict(new, "link", without="a")[0] == pytest.approx(b["Intercept"] + 0.3 * b["x"], rel=SUMS)
    terms = fit.predict(new, "terms")
    assert terms["a"].tolist()[:2] == [-np.inf, pytest.approx(b["a[T.B]"], rel=SUMS)]
    assert terms["x"][0] == pytest.approx(0.3 * b["x"], rel=SUMS)


def test_infinite_columns_that_cancel_leave_a_finite_row() -> None:
    """In a cell of two factors the intercept and every other column are infinite; all other cells have a mean."""
    data = frame()
    gone = (data.a == "A") & (data.b == "no")
    data.loc[gone, "count"] = 0.0
    data.loc[data.a == "C", "count"] = np.random.default_rng(10).poisson(1.0, int((data.a == "C").sum()))
    fit = fitted("count ~ a*b", data, family="poisson")
    assert set(fit.separated) == set(fit.params.index)
    cells = data[~gone].groupby(["a", "b"])["count"].agg(["mean", "sum"]).reset_index()
    found = fit.predict(cells[["a", "b"]], se=True)
    np.testing.assert_allclose(found["mean"], cells["mean"], rtol=1e-9)
    # the mean of a Poisson cell with s events has the error mean / sqrt(s)
    np.testing.assert_allclose(found.se, cells["mean"] / np.sqrt(cells["sum"]), rtol=1e-8)
    assert fit.predict(pd.DataFrame({"a": ["A"], "b": ["no"]})).tolist() == [0.0]


def test_tests_of_what_is_infinite_are_refused() -> None:
    fit = fitted("y ~ x + a", frame(), family="binomial")
    with pytest.raises(DesignError, match="infinite coefficient"):
        fit.wald_test("a[T.C] = a[T.B]")
    assert fit.wald_test("x = 0").statistic == pytest.approx(float(fit.tvalues["x"] ** 2), rel=SUMS)
    assert fit.relativities().loc["a[T.C]", "relativity"] == 0.0


def test_the_summary_says_it() -> None:
    text = str(fitted("y ~ x + a", frame(), family="binomial").summary())
    row = next(line for line in text.splitlines() if line.startswith("a[T.C]"))
    assert row.split() == ["a[T.C]", "-inf", "NA", "NA", "NA"]
    assert "No finite estimate: a[T.C]; 66 row(s) are fitted at the limit" in text


# -- saved ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", ["y ~ x + a", "y ~ a*b"])
def test_a_model_read_back_scores_alike(tmp_path: Path, formula: str) -> None:
    data = frame()
    if formula == "y ~ a*b":
        inside = (data.a == "C").to_numpy()
        data.loc[inside, "y"] = np.random.default_rng(11).integers(0, 2, inside.sum()).astype(float)
        data.loc[(data.a == "A") & (data.b == "no"), "y"] = 0.0
    fit = fitted(formula, data, family="binomial")
    fit.save(tmp_path / "model")
    back = dg.load(tmp_path / "model")
    assert fit.separated == back.separated != ()
    pd.testing.assert_series_equal(back.params, fit.params, check_exact=True)
    pd.testing.assert_frame_equal(back.cov_params(), fit.cov_params(), check_exact=True)
    for kind in ("mean", "link"):
        options = {"type": kind, "se": True, "interval": "confidence"}
        pd.testing.assert_frame_equal(back.predict(data, **options), fit.predict(data, **options), check_exact=True)
    assert str(back.summary()) == str(fit.summary())


def test_a_model_of_before_is_read(tmp_path: Path) -> None:
    fit = fitted("y ~ x + a", frame(), family="binomial")
    fit.save(tmp_path / "model")
    (path,) = (tmp_path / "model").glob("runs/*/model.json")
    document = json.loads(path.read_text())
    del document["separation"]
    del document["ledger"]["separated"]
    path.write_text(json.dumps(document))
    back = dg.load(tmp_path / "model")
    assert back.separated == fit.separated
    assert back.record.separation is None
    assert back.ledger.separated == 0


# -- drop, raise, firth ---------------------------------------------------------------------------------------------------


def test_dropped_rows_are_counted_and_their_columns_aliased() -> None:
    data = frame()
    left_out = pytest.warns(dg.errors.SeparationWarning, match=r"66 row\(s\) are left out")
    with left_out, pytest.warns(dg.errors.AliasWarning, match=r"a\[T.C\] is not estimated: its column is zero"):
        fit = dg.glm("y ~ x + a", data, family="binomial", separation="drop")
    rest = dg.glm("y ~ x + a", data[data.a != "C"], family="binomial")
    assert fit.separated == ()
    assert fit.aliased == ("a[T.C]",)
    assert np.isnan(fit.params["a[T.C]"])
    np.testing.assert_allclose(fit.params[rest.params.index], rest.params, rtol=SAME)
    assert (fit.ledger.read, fit.ledger.used, fit.ledger.separated) == (300, 234, 66)
    assert fit.nobs == 234
    # of rows like those left out nothing is known
    predicted = fit.predict(data)
    np.testing.assert_array_equal(np.isnan(predicted), data.a == "C")
    np.testing.assert_allclose(predicted[data.a != "C"], rest.predict(data[data.a != "C"]), rtol=SAME)
    assert "300 read, 66 separated, without a finite estimate; 234 used" in str(fit.summary())


def test_a_dropped_baseline_aliases_the_last_level() -> None:
    data = frame("A")
    left_out = pytest.warns(dg.errors.SeparationWarning, match="are left out")
    with left_out, pytest.warns(dg.errors.AliasWarning, match=r"a\[T.D\] is not estimated: its column is 1 Intercept"):
        fit = dg.glm("y ~ a", data, family="binomial", separation="drop")
    np.testing.assert_allclose(
        fit.predict(pd.DataFrame({"a": ["B", "C", "D"]})), data[data.a > "A"].groupby("a").y.mean(), rtol=SAME
    )


def test_dropping_every_row_is_an_error() -> None:
    with pytest.raises(SolverError, match="leaves no row"):
        dg.glm("y ~ x", frame().assign(y=0.0), family="binomial", separation="drop")


def test_raising_names_the_parameters() -> None:
    with pytest.raises(SolverError, match=r"no finite estimate exists for a\[T.C\]: .*; leave the term out") as caught:
        dg.glm("y ~ x + a", frame(), family="binomial", separation="raise")
    assert caught.value.exit_code == 4
    assert dg.glm("y ~ x + b", frame(), family="binomial", separation="raise").converged


@pytest.mark.parametrize("separation", ["limit", "raise"])
def test_the_command_line_writes_the_model_and_says_so(tmp_path: Path, separation: str) -> None:
    lake, model = tmp_path / "lake.parquet", tmp_path / "model"
    frame().to_parquet(lake)
    arguments = ["fit", "y ~ x + a", str(lake), "--family", "binomial", "--separation", separation, "--out", str(model)]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == (0 if separation == "limit" else 4)
    assert ("error: no finite estimate exists for a[T.C]" in result.stderr) == (separation == "raise")
    document = json.loads(result.stdout.strip().splitlines()[-1])
    assert document["separated"] == ["a[T.C]"]
    assert document["published"] == (separation == "limit")
    assert dg.load(*document["runs"]).separated == ("a[T.C]",)


def test_mean_bias_reduction() -> None:
    """Half a success and half a failure in every level: the root in closed form."""
    data = frame()
    fit = dg.glm("y ~ a - 1", data, family="binomial", separation="firth")
    groups = data.groupby("a").y
    mean = (groups.sum() + 0.5) / (groups.count() + 1.0)
    np.testing.assert_allclose(fit.params, np.log(mean / (1.0 - mean)), rtol=SAME)
    np.testing.assert_allclose(fit.bse, 1.0 / np.sqrt(groups.count() * mean * (1.0 - mean)), rtol=SAME)
    assert fit.separated == ()
    assert fit.converged
    assert fit.certificate.gradient < SAME


def test_bias_reduction_takes_a_frequency_for_so_many_rows() -> None:
    data = frame()
    one = dg.glm("count ~ x + a", data, family="poisson", separation="firth", weights=dg.Frequency("w"))
    other = dg.glm("count ~ x + a", data.loc[data.index.repeat(data.w)], family="poisson", separation="firth")
    np.testing.assert_allclose(one.params, other.params, rtol=SAME)
    np.testing.assert_allclose(one.bse, other.bse, rtol=SAME)
    assert one.llf == pytest.approx(other.llf, rel=SAME)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"family": "gaussian"}, "not for gaussian"),
        ({"family": "poisson", "dispersion": "pearson"}, "with dispersion='pearson'"),
        ({"family": "poisson", "covariance": "HC0"}, "not 'HC0'"),
        ({"family": "poisson", "weights": dg.Probability("w")}, "probability weights"),
    ],
)
def test_bias_reduction_says_what_it_is_not_for(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DesignError, match=said):
        dg.glm("count ~ x", frame(), separation="firth", **options)
    with pytest.raises(DesignError, match=r'"limit", "drop", "raise", "firth" \(did you mean "firth"\?\)'):
        dg.glm("count ~ x", frame(), separation="first", **options)
