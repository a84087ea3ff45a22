"""Laws of tests between models: identities, invariance to how rows are divided, the sentences of what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.cluster import lakes
from daskglm.errors import DaskglmError, DesignError
from daskglm.postestimation.candidates import score_tests
from daskglm.postestimation.comparisons import anova

# Refits stop at a decrement of 1e-12: deviances are exact to that, and their sums to rounding.
EXACT = 1e-9
ROUNDING = 1e-11


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 400
    frame = pd.DataFrame({name: rng.normal(size=n) for name in ("x", "z", "v")})
    frame["a"], frame["b"] = rng.choice(list("pqr"), n), rng.choice(list("st"), n)
    eta = 0.3 + 0.2 * frame["x"] + 0.4 * (frame["a"] == "q")
    frame["count"] = rng.poisson(np.exp(eta))
    frame["amount"] = rng.gamma(2.0, np.exp(eta) / 2.0)
    frame["value"] = eta + rng.normal(size=n)
    frame["won"] = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
    frame["class"] = rng.choice(["high", "low", "mid"], n)
    frame["f"], frame["w"] = rng.integers(1, 4, n), rng.uniform(0.5, 2.0, n)
    return frame


FAMILIES = [
    ("poisson", "count"), ("gamma", "amount"), ("gaussian", "value"), ("binomial", "won"), ("multinomial", "class"),
    ("ordinal", "class"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "response"), FAMILIES)
def test_rows_of_type_1_add_up_and_the_last_is_a_deletion(data: pd.DataFrame, family: str, response: str) -> None:
    fit = dg.glm(f"{response} ~ x + z + a*b", data, family=family)
    table = fit.anova(data)
    assert table["deviance"].sum() == pytest.approx(fit.null_deviance - fit.deviance, rel=EXACT)
    assert table["df"].sum() == fit.df_model
    last = fit.drop1(data).loc["a:b"]
    assert last["df"] == table["df"].iloc[-1]
    assert last["deviance"] - fit.deviance == pytest.approx(table["deviance"].iloc[-1], rel=1e-7)
    # without interactions above them, types 2 and 3 are deletions, too
    for kind in (2, 3):
        assert fit.anova(data, kind).loc["a:b", "deviance"] == pytest.approx(table["deviance"].iloc[-1], rel=1e-7)
    # by hand: two fits
    smaller = dg.glm(f"{response} ~ x + z + a + b", data, family=family)
    assert smaller.deviance == pytest.approx(last["deviance"], rel=1e-11)


def test_the_score_test_of_a_gaussian_model_is_the_change_of_deviance(data: pd.DataFrame) -> None:
    base = dg.glm("value ~ x + a", data)
    table = base.add1(data, ["z", "b", "a:x", "b:z", "I(z**2)"])
    for name, row in table.iterrows():
        larger = dg.glm(f"value ~ x + a + {name}", data)
        assert row["stat"] == pytest.approx((base.deviance - larger.deviance) / base.scale, rel=1e-8)
        assert row["df"] == base.df_resid - larger.df_resid


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_two_classes_are_a_binomial_response(data: pd.DataFrame, family: str) -> None:
    two = data.assign(word=np.where(data["won"] == 1, "yes", "no"))
    expected = dg.glm("won ~ x", two, family="binomial").add1(two, ["z", "a:b", "v"])
    found = dg.glm("word ~ x", two, family=family).add1(two, ["z", "a:b", "v"])
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_score_tests_of_three_classes_by_hand(data: pd.DataFrame) -> None:
    base = dg.glm("class ~ x", data, family="multinomial")
    p = base.predict(data).to_numpy()
    y = pd.get_dummies(data["class"])[["high", "low", "mid"]].to_numpy(float)
    columns = np.column_stack([np.ones(len(data)), data["x"], data["z"]])
    score = np.concatenate([columns.T @ (y - p)[:, k] for k in (1, 2)])
    blocks = [[columns.T @ (columns * (p[:, [j]] * ((j == k) - p[:, [k]]))) for k in (1, 2)] for j in (1, 2)]
    expected = score @ np.linalg.solve(np.block(blocks), score)
    found = base.score_test("z", data)
    assert found.loc["z", "stat"] == pytest.approx(expected, rel=1e-8)
    assert found.loc["z", "df"] == 2


def test_many_candidates_take_one_pass(data: pd.DataFrame) -> None:
    rng = np.random.default_rng(2)
    wide = data.assign(**{f"c{k}": rng.normal(size=len(data)) for k in range(60)})
    names = [f"c{k}" for k in range(60)]
    base = dg.glm("count ~ x + a", wide, family="poisson")
    table = base.add1(wide, names)
    assert table.attrs["passes"] == 1
    assert list(table.index) == names
    alone = pd.concat([base.score_test(name, wide) for name in names[:60:17]])
    np.testing.assert_allclose(table.loc[alone.index], alone, rtol=ROUNDING)


def test_frequencies_are_duplicated_rows(data: pd.DataFrame) -> None:
    long = data.loc[data.index.repeat(data["f"])]
    one = dg.glm("count ~ x*a + z", data, family="poisson", weights=dg.Frequency("f"))
    two = dg.glm("count ~ x*a + z", long, family="poisson")
    for kind in (1, 2, 3):
        np.testing.assert_allclose(one.anova(data, kind), two.anova(long, kind), rtol=1e-7)
    np.testing.assert_allclose(one.drop1(data), two.drop1(long), rtol=1e-7)
    np.testing.assert_allclose(one.add1(data, ["v", "b"]), two.add1(long, ["v", "b"]), rtol=1e-8)
    gaussian = dg.glm("value ~ x", data, weights=dg.Frequency("f")), dg.glm("value ~ x", long)
    assert gaussian[0].aicc == pytest.approx(gaussian[1].aicc, rel=EXACT)
    assert gaussian[0].r2("cox_snell") == pytest.approx(gaussian[1].r2("cox_snell"), rel=EXACT)
    assert gaussian[0].r2("cox_snell") == pytest.approx(gaussian[0].deviance_explained, rel=EXACT)


def test_rows_may_be_divided_and_ordered_otherwise(data: pd.DataFrame, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    shuffled = data.sample(frac=1.0, random_state=3)
    for k in range(5):
        table = pa.Table.from_pandas(shuffled.iloc[k::5], preserve_index=False)
        pq.write_table(table, tmp_path / f"{k}.parquet", row_group_size=17)
    lake = str(tmp_path)
    fit = dg.glm("amount ~ x*a + z", data, family="gamma", weights=dg.Variance("w"))
    for kind in (1, 2, 3):
        np.testing.assert_allclose(fit.anova(lake, kind), fit.anova(data, kind), rtol=1e-8)
    np.testing.assert_allclose(fit.drop1(lake), fit.drop1(data), rtol=1e-8)
    np.testing.assert_allclose(fit.add1(lake, ["v", "b"]), fit.add1(data, ["v", "b"]), rtol=1e-8)
    steps = fit.step(lake), fit.step(data)
    assert list(steps[0].path["step"]) == list(steps[1].path["step"])
    assert steps[0].fit.deviance == pytest.approx(steps[1].fit.deviance, rel=EXACT)


def test_a_cluster_gives_the_same_bits(data: pd.DataFrame, tmp_path: Path, small: None, client: Any) -> None:
    table = pa.Table.from_pandas(data, preserve_index=False)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=61)
    lake = str(tmp_path)
    record = dg.glm("count ~ x*a + z", lake, family="poisson").record
    pd.testing.assert_frame_equal(anova(record, lake, 3), anova(record, lake, 3, client=client), check_exact=True)
    terms = ["v", "a:b"]
    here, there = score_tests(record, terms, lake), score_tests(record, terms, lake, client=client)
    pd.testing.assert_frame_equal(here, there, check_exact=True)


def test_a_walk_ends_at_the_fit_of_its_formula(data: pd.DataFrame) -> None:
    start = dg.glm("count ~ x*a + z + v + b", data, family="poisson")
    found = start.step(data)
    again = dg.glm(found.fit.formula, data, family="poisson")
    pd.testing.assert_series_equal(found.fit.params, again.params, check_exact=True)
    assert found.path["aic"].iloc[-1] == pytest.approx(found.fit.aic, rel=EXACT)
    assert (np.diff(found.path["aic"]) < 0).all()
    kept = start.step(data, scope={"lower": "~ v"}, criterion="bic").fit
    assert "v" in kept.params.index
    by_test = start.step(data, direction="backward", criterion="test")
    assert (by_test.path["pvalue"].dropna() > 0.1).all()
    assert (by_test.fit.drop1(data)["pvalue"] <= 0.1).all()


CONTINUOUS = ["gaussian", "gamma", "inverse_gaussian", "tweedie"]


@pytest.mark.parametrize(
    ("family", "weights"),
    [(f, w) for f in CONTINUOUS for w in (None, "w")] + [("poisson", None), ("negative_binomial", None)],
)
def test_a_walk_begins_at_the_criterion_of_the_fit(data: pd.DataFrame, family: str, weights: str | None) -> None:
    rng = np.random.default_rng(8)
    counts = rng.negative_binomial(1.5, 0.4, len(data))
    y = {"tweedie": rng.gamma(1.0 + counts, 1.0) * (counts > 0), "negative_binomial": counts, "poisson": counts}
    rows = data.assign(y=y.get(family, data["amount"]))
    fit = dg.glm("y ~ x", rows, family=dg.families.Tweedie() if family == "tweedie" else family, weights=weights)
    for criterion in ("aic", "bic"):
        path = fit.step(rows, scope="~ z", criterion=criterion).path
        assert path[criterion].iloc[0] == pytest.approx(getattr(fit, criterion), rel=1e-8)


def test_theta_is_estimated_again_at_the_end(data: pd.DataFrame) -> None:
    rng = np.random.default_rng(4)
    spread = data.assign(count=rng.negative_binomial(1.5, 0.4, len(data)))
    found = dg.glm("count ~ x + a", spread, family="negative_binomial").step(spread)
    again = dg.glm(found.fit.formula, spread, family="negative_binomial")
    assert found.fit.shape_params == again.shape_params
    assert found.fit.aic == again.aic


def test_infinite_coefficients_count(data: pd.DataFrame) -> None:
    zero = data.assign(count=np.where(data["a"] == "r", 0, data["count"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.SeparationWarning)
        fit = dg.glm("count ~ x + a + z", zero, family="poisson")
        smaller = dg.glm("count ~ x + z", zero, family="poisson")
        test = fit.lr_test(smaller)
        row = fit.drop1(zero).loc["a"]
        assert fit.anova(zero).loc["a", "df"] == 2
    assert row["df"] == test.df == 2
    assert row["stat"] == pytest.approx(test.statistic, rel=EXACT)
    # the supremum is approached by a coefficient that is merely large
    eta = fit.params["Intercept"] + fit.params["x"] * zero["x"] + fit.params["z"] * zero["z"]
    eta = eta + np.where(zero["a"] == "q", fit.params["a[T.q]"], 0.0)
    mu = np.where(zero["a"] == "r", 1e-12, np.exp(eta))
    y = zero["count"].to_numpy(float)
    deviance = 2.0 * np.sum(np.where(y > 0, y * np.log(np.maximum(y, 1.0) / mu), 0.0) - y + mu)
    assert row["deviance"] - deviance == pytest.approx(test.statistic, rel=1e-8)


def test_arrays(data: pd.DataFrame) -> None:
    x, y = data[["x", "z", "v"]].to_numpy(), data["count"].to_numpy()
    fit = dg.glm(X=x, y=y, family="poisson")
    table = fit.drop1({"X": x, "y": y})
    expected = dg.glm("count ~ x + z + v", data, family="poisson").drop1(data)
    np.testing.assert_allclose(table, expected, rtol=1e-8)


def test_several_responses(data: pd.DataFrame) -> None:
    fits = dg.glm("responses(count, won) ~ x + a", data, family="poisson")
    alone = dg.glm("won ~ x + a", data, family="poisson")
    np.testing.assert_allclose(fits["won"].anova(data), alone.anova(data), rtol=1e-8)
    np.testing.assert_allclose(fits["won"].add1(data, "z"), alone.add1(data, "z"), rtol=1e-8)


def test_nesting_is_of_column_spaces(data: pd.DataFrame) -> None:
    fits = {
        right: dg.glm(f"count ~ {right}", data, family="poisson")
        for right in ("1", "a", "a - 1", "x", "a:x", "a*x", "a:b", "a + b", 'C(a, Treatment("q")) + x', "I(2*x)", "a/x")
    }
    nested = [
        ("1", "a - 1"), ("a", "a*x"), ("a - 1", "a*x"), ("a + b", "a:b"), ("x", "a:x"), ("x", "a*x"), ("1", "I(2*x)"),
        ("a", 'C(a, Treatment("q")) + x'), ('C(a, Treatment("q")) + x', "a/x"),
    ]  # fmt: skip
    for small, large in nested:
        found = fits[small].lr_test(fits[large])
        assert found.statistic == pytest.approx(fits[small].deviance - fits[large].deviance, rel=EXACT)
    for one, other in (("x", "a"), ("I(2*x)", "a*x"), ("a + b", "a*x")):
        with pytest.raises(DesignError, match="nested"):
            fits[one].lr_test(fits[other])
    with pytest.raises(DesignError, match="as many parameters"):
        fits["a"].lr_test(fits["a - 1"])


def test_what_is_refused_says_why(data: pd.DataFrame) -> None:
    fit = dg.glm("count ~ x + a", data, family="poisson")

    def refused(match: str, act: Any) -> None:
        with pytest.raises(DaskglmError, match=match):
            act()

    def other(formula: str = "count ~ x", rows: pd.DataFrame = data, **options: Any) -> dg.Fit:
        return dg.glm(formula, rows, **{"family": "poisson"} | options)

    refused("responses differ", lambda: fit.lr_test(other("won ~ x")))
    refused("families differ", lambda: fit.lr_test(other(family="negative_binomial")))
    refused("links differ", lambda: fit.lr_test(other(link="sqrt")))
    refused("weights differ", lambda: fit.lr_test(other(weights="w")))
    refused("offsets differ", lambda: fit.lr_test(other("count ~ x + offset(z)")))
    refused("rows used differ", lambda: fit.lr_test(other(rows=data.iloc[:-1])))
    refused("null deviances differ|values of", lambda: fit.lr_test(other(rows=data.assign(count=data["count"] + 1))))
    last = data.assign(count=np.roll(data["count"], 1) + (data.index == 3))
    refused("saturated", lambda: other("count ~ 1").lr_test(other("count ~ a - 1", rows=last)))
    refused("where= differs", lambda: fit.lr_test(other(where="x > -10")))
    quasi = dg.glm("count ~ x + a", data, family="quasipoisson")
    refused("no likelihood", lambda: quasi.lr_test(dg.glm("count ~ x", data, family="quasipoisson")))
    sampled = other("count ~ x + a", weights=dg.Probability("w"))
    for act in (sampled.anova, sampled.drop1, sampled.step, lambda d: sampled.add1(d, "z")):
        refused("probability weights", lambda act=act: act(data))
    refused("probability weights", lambda: sampled.lr_test(sampled))
    firth = other("count ~ x + a", separation="firth")
    refused("firth", lambda: firth.anova(data))
    refused("firth", lambda: firth.lr_test(fit))
    refused("takes another fit", lambda: fit.lr_test("x"))  # type: ignore[arg-type]
    refused("same rows|takes the same|takes the rows", lambda: fit.anova(data.iloc[:-1]))
    refused("takes the rows", lambda: fit.drop1(data.assign(count=data["count"] + 1)))
    refused("takes the rows", lambda: fit.add1(data.assign(count=data["count"] + 1), "z"))
    refused("is missing in 3 row", lambda: fit.add1(data.assign(z=data["z"].where(data.index > 2)), "z"))
    refused("in the model already", lambda: fit.add1(data, "a"))
    refused("did you mean", lambda: fit.add1(data, "zz"))
    refused("type=4", lambda: fit.anova(data, 4))
    refused("dispersion is known", lambda: fit.anova(data, test="F"))
    refused("not one of", lambda: fit.step(data, direction="sideways"))
    refused("for ever", lambda: fit.step(data, criterion="test", enter=0.2, leave=0.1))
    refused('criterion="test"', lambda: quasi.step(data))
    refused("is to stay", lambda: fit.step(data, scope={"lower": "~ z"}))
    refused("estimated", lambda: dg.glm("value ~ x", data).qaic())
    refused("did you mean", lambda: fit.r2("mcfaden"))
    negative = dg.glm("count ~ x", data, family="negative_binomial")
    if np.isfinite(negative.shape_params["theta"]):
        refused("its own theta", lambda: negative.r2())


def test_criteria(data: pd.DataFrame) -> None:
    fit = dg.glm("won ~ x + a", data, family="binomial")
    null = dg.glm("won ~ 1", data, family="binomial")
    assert fit.r2() == pytest.approx(1.0 - fit.llf / null.llf, rel=EXACT)
    share = 1.0 - np.exp(2.0 * (null.llf - fit.llf) / fit.nobs)
    assert fit.r2("nagelkerke") == pytest.approx(share / (1.0 - np.exp(2.0 * null.llf / fit.nobs)), rel=EXACT)
    assert fit.aicc == pytest.approx(fit.aic + 2 * 4 * 5 / (400 - 5), rel=EXACT)
    assert fit.qaic() == pytest.approx(-2.0 * fit.llf * fit.df_resid / fit.pearson_chi2 + 8.0, rel=EXACT)
    assert fit.qaic(2.0) == pytest.approx(-fit.llf + 8.0, rel=EXACT)
    assert fit.deviance_explained == pytest.approx(1.0 - fit.deviance / null.deviance, rel=EXACT)
    gaussian = dg.glm("value ~ x", data)
    assert gaussian.aicc == pytest.approx(gaussian.aic + 2 * 3 * 4 / (400 - 4), rel=EXACT)


def test_fits_side_by_side(data: pd.DataFrame) -> None:
    one, two = (dg.glm(f"count ~ {right}", data, family="poisson") for right in ("x", "x + a"))
    table = dg.compare(one, two, names=["small & <simple>", "50%_model"])
    assert list(table.frame.index) == ["Intercept", "x", "a[T.q]", "a[T.r]"]
    pd.testing.assert_series_equal(table.frame["50%_model", "estimate"], two.params, check_names=False)
    pd.testing.assert_series_equal(table.frame["50%_model", "error"], two.bse, check_names=False)
    assert np.isnan(table.frame.loc["a[T.q]", ("small & <simple>", "estimate")])
    assert table.criteria.loc["aic", "50%_model"] == two.aic
    assert table.notes == ()
    assert f"{two.aic:.6g}" in str(table)
    assert r"small \& \textless{}simple\textgreater{} & 50\%\_model \\" in table.as_latex()
    assert "<th>small &amp; &lt;simple&gt;</th>" in table.as_html()
    for other, note in (
        (dg.glm("won ~ x", data, family="poisson"), "response"),
        (dg.glm("count ~ x", data[:-3]), "rows"),
    ):
        found = dg.compare(one, other)
        assert note in found.notes[0]
        assert "aic" not in found.criteria.index
        assert found.notes[0] in found.as_text()
    with pytest.raises(DesignError, match="compare takes fits"):
        dg.compare(one, 3)  # type: ignore[arg-type]
    with pytest.raises(DesignError, match="names="):
        dg.compare(one, two, names=["one"])
