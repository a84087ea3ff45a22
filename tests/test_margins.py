"""Marginal effects against differences of predictions, errors against differences in the coefficients, and laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.cluster import lakes, tables
from daskglm.errors import DataError, DesignError
from daskglm.result import Fit
from tests.cluster.problem import write_lake
from tests.moved import with_coefficients

# Fourth differences of mean predictions.
EFFECTS = 1e-7
ERRORS = 1e-6
# Sums over the same rows in another order.
SUMS = 1e-11

MIXED = "~ a * z + log(x) + I(x**2) + b + C(yr):z + where(x > 2, z, 0)"


def rows(n: int = 240, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": rng.uniform(1, 4, n), "z": rng.normal(size=n), "a": rng.choice(list("ABC"), n),
            "b": rng.choice([True, False], n), "yr": rng.choice([2001, 2002], n), "e": rng.uniform(0.5, 2, n),
            "f": rng.integers(1, 4, n), "w": rng.uniform(0.5, 3, n), "t": rng.integers(1, 9, n),
        }
    )  # fmt: skip
    eta = 0.3 * data["z"] + 0.2 * data["x"] - 0.4 * (data["a"] == "B") - 0.5
    data["count"] = rng.poisson(data["e"] * np.exp(eta))
    data["size"] = rng.gamma(3.0, np.exp(eta) / 3.0) + 0.01
    data["number"] = eta + rng.normal(size=n)
    data["yes"] = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
    data["successes"] = rng.binomial(data["t"], 1.0 / (1.0 + np.exp(-eta)))
    score = eta + rng.logistic(size=n)
    data["k"] = pd.cut(score, [-np.inf, -0.5, 0.8, np.inf], labels=["low", "mid", "top"]).astype(str)
    return data


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "poisson": ("count " + MIXED, {"family": "poisson", "exposure": "e", "weights": dg.Frequency("f")}),
    "offset of a column": ("count ~ a + x + offset(log(x) * z)", {"family": "poisson", "weights": dg.Probability("w")}),
    "gamma": ("size " + MIXED, {"family": "gamma", "weights": dg.Variance("w")}),
    "gamma inverse": ("size ~ a + x", {"family": "gamma", "link": "inverse"}),
    "cloglog": ("yes ~ a * x + z", {"family": "binomial", "link": "cloglog", "covariance": "HC1"}),
    "trials": ("successes " + MIXED, {"family": "binomial", "trials": "t"}),
    "no intercept": ("number ~ a * z + sqrt(x) - 1", {"family": "gaussian", "offset": "e"}),
    "multinomial": ("k " + MIXED, {"family": "multinomial", "weights": dg.Frequency("f")}),
    "ordinal": ("k " + MIXED, {"family": "ordinal", "link": "probit", "offset": "0.1 * e"}),
    "cauchit": ("k ~ a * x + z", {"family": "ordinal", "link": "cauchit"}),
}


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return rows()


@pytest.fixture(scope="module")
def fits(data: pd.DataFrame) -> dict[str, Fit]:
    return {name: dg.glm(formula, data, **options) for name, (formula, options) in MODELS.items()}


def weight_of(fit: Fit, data: pd.DataFrame) -> np.ndarray:
    spec = fit.record.specification
    column = spec.weights[1] if spec.weights is not None else spec.trials
    weight = np.ones(len(data)) if column is None else data[column].to_numpy(float)
    return weight / weight.sum()


STEPS = (-2, -1, 1, 2)
# Fourth-order differences at those steps.
DIFFERENCE = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0
WIDTH = 1e-3


class ByDifferences:
    """The average effects of all lines (lines, K) at any coefficients, from predictions for the rows as they are moved."""

    def __init__(self, fit: Fit, data: pd.DataFrame, lines: list[tuple[Any, ...]], kind: str) -> None:
        self.fit, self.kind, self.weight = fit, kind, weight_of(fit, data)
        self.counts, frames, self.times = [], [], []
        for column, contrast, *_ in lines:
            if contrast == kind:
                moved = [data.assign(**{column: data[column] + s * WIDTH}) for s in STEPS]
                self.times.append(data[column].to_numpy(float) if kind.endswith("ex") else np.ones(len(data)))
            else:
                level, base = contrast.replace("log(", "").replace(")", "").split(" - ")
                kinds = {"yr": int, "b": lambda text: text == "True"}
                moved = [data.assign(**{column: kinds.get(column, str)(text)}) for text in (level, base)]
                self.times.append(np.ones(len(data)))
            frames += moved
            self.counts.append(len(moved))
        self.rows = pd.concat(frames, ignore_index=True)

    def at(self, coefficients: Any) -> np.ndarray:
        other = Fit(with_coefficients(self.fit.record, coefficients))
        found = np.asarray(other.predict(self.rows), float).reshape(sum(self.counts), self.weight.size, -1)
        found = np.log(found) if self.kind.startswith("ey") else found
        result, start = [], 0
        for count, times in zip(self.counts, self.times, strict=True):
            parts = found[start : start + count]
            change = np.einsum("s,snk->nk", DIFFERENCE / WIDTH, parts) if count == 4 else parts[0] - parts[1]
            result.append((self.weight * times) @ change)
            start += count
        return np.array(result)

    def errors(self, coefficients: Any, covariance: Any) -> np.ndarray:
        jacobian = []
        for j, error in enumerate(np.sqrt(np.diag(covariance))):
            step = np.zeros(coefficients.size)
            step[j] = WIDTH * error
            sides = [self.at(coefficients + s * step) for s in STEPS]
            jacobian.append(np.einsum("s,slk->lk", DIFFERENCE / step[j], np.array(sides)))
        return np.sqrt(np.einsum("jlk,ji,ilk->lk", np.array(jacobian), covariance, np.array(jacobian)))


def away_from_kinks(data: pd.DataFrame) -> pd.DataFrame:
    """Differences across the jump of where(x > 2, ...) are no derivatives."""
    near = (data["x"] - 2.0).abs() < 0.01
    return data.assign(x=data["x"].where(~near, 2.02))


@pytest.mark.parametrize("kind", ["dydx", "eydx", "dyex", "eyex"])
@pytest.mark.parametrize("name", MODELS)
def test_average_effects_are_differences(fits: dict[str, Fit], data: pd.DataFrame, name: str, kind: str) -> None:
    if kind.startswith("ey") and name == "no intercept":
        pytest.skip("a mean below zero has no logarithm")
    fit, data = fits[name], away_from_kinks(data)
    found = fit.margins(data, kind=kind)
    lines = list(dict.fromkeys(key[:2] for key in found.index))
    by_hand = ByDifferences(fit, data, lines, kind)
    reported = fit.record.coefficients
    np.testing.assert_allclose(found["effect"], by_hand.at(reported).ravel(), rtol=EFFECTS, atol=EFFECTS)
    if kind in ("dydx", "eyex"):
        expected = by_hand.errors(reported, fit.record.covariance)
        np.testing.assert_allclose(found["se"], expected.ravel(), rtol=ERRORS)


def test_columns_of_the_table(fits: dict[str, Fit], data: pd.DataFrame) -> None:
    from scipy import stats

    fit = fits["gamma"]
    found = fit.margins(data, level=0.9)
    np.testing.assert_allclose(found["stat"], found["effect"] / found["se"])
    np.testing.assert_allclose(found["pvalue"], 2.0 * stats.t.sf(np.abs(found["stat"]), fit.df_resid))
    half = stats.t.ppf(0.95, fit.df_resid) * found["se"]
    np.testing.assert_allclose(found["lower"], found["effect"] - half)
    np.testing.assert_allclose(found["upper"], found["effect"] + half)
    assert list(found.index.names) == ["variable", "contrast"]
    np.testing.assert_allclose(fits["multinomial"].margins(data)["effect"].groupby(level=[0, 1]).sum(), 0.0, atol=1e-14)


def test_effects_of_a_linear_model_are_its_coefficients(data: pd.DataFrame) -> None:
    fit = dg.glm("number ~ x + a + z", data, family="gaussian", weights=dg.Variance("w"))
    for at in ("overall", "mean"):
        found = fit.margins(data, at=at)
        names = ["x", "a[T.B]", "a[T.C]", "z"]
        np.testing.assert_allclose(found["effect"], fit.params[names], rtol=1e-12)
        np.testing.assert_allclose(found["se"], fit.bse[names], rtol=1e-12)
        np.testing.assert_allclose(found["pvalue"], fit.pvalues[names], rtol=1e-9)


def test_frequencies_are_rows_written_out(data: pd.DataFrame) -> None:
    formula = "count ~ a * z + log(x)"
    written = data.loc[data.index.repeat(data["f"])]
    one = dg.glm(formula, data, family="poisson", weights=dg.Frequency("f"))
    two = dg.glm(formula, written, family="poisson")
    for at in ("overall", "mean"):
        a, b = one.margins(data, at=at), two.margins(written, at=at)
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("at", ["overall", "mean"])
@pytest.mark.parametrize("name", ["poisson", "trials", "multinomial", "ordinal"])
def test_partitions_and_order_change_rounding_only(
    fits: dict[str, Fit], data: pd.DataFrame, name: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fits[name].margins(data, at=at)
    monkeypatch.setattr(tables, "LEAF_ROWS", 37)
    shuffled = data.sample(frac=1.0, random_state=3)
    for other in (data, shuffled):
        np.testing.assert_allclose(fits[name].margins(other, at=at), whole, rtol=1e-9, atol=SUMS)


# -- at the means ------------------------------------------------------------------------------------------------------


def test_at_the_means_of_numbers_is_the_effect_on_that_row(data: pd.DataFrame) -> None:
    formula, options = "count ~ x * z + log(x)", {"family": "poisson", "offset": "e", "weights": dg.Frequency("f")}
    fit = dg.glm(formula, data, **options)
    mean = {name: np.average(data[name], weights=data["f"]) for name in ("x", "z", "e")}
    row = pd.DataFrame({name: [value] for name, value in mean.items()}).assign(f=1, count=0)
    expected = fit.margins(row)
    np.testing.assert_allclose(fit.margins(data, at="mean"), expected, rtol=1e-10, atol=1e-14)
    elasticity = fit.margins(row, kind="eyex")
    np.testing.assert_allclose(fit.margins(data, at="mean", kind="eyex"), elasticity, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["yes", "k"])
def test_at_the_means_factors_are_in_their_shares(data: pd.DataFrame, name: str) -> None:
    """The linear predictor is averaged over levels: as a model whose factors are columns of shares."""
    family = "binomial" if name == "yes" else "multinomial"
    fit = dg.glm(f"{name} ~ a * yr2 + z", data.assign(yr2=data["yr"].astype(str)), family=family)
    whole = data.assign(yr2=data["yr"].astype(str))
    found = fit.margins(whole, at="mean", variables=["z", "a"])
    written = pd.DataFrame({"z": data["z"], "one": (data["yr"] == 2002) * 1.0, name: data[name]})
    for level in "BC":
        written[level] = (data["a"] == level) * 1.0
        written["x" + level] = written[level] * written["one"]
    by_hand = dg.glm(f"{name} ~ B + C + one + xB + xC + z", written, family=family)
    share = written.drop(columns=name).mean()
    row = pd.DataFrame([share.to_dict()]).assign(xB=share["B"] * share["one"], xC=share["C"] * share["one"])
    row[name] = data[name].iloc[0]
    # multinomial responses need their classes only to be known
    expected = by_hand.margins(row, variables="z")
    np.testing.assert_allclose(found.loc["z"], expected.loc["z"], rtol=1e-6, atol=1e-9)
    base, level = (
        np.asarray(by_hand.predict(row.assign(B=b, C=0.0, xB=b * share["one"], xC=0.0))).ravel() for b in (0.0, 1.0)
    )
    np.testing.assert_allclose(
        found.loc["a"].loc["B - A", "effect"], (level - base)[0] if name == "yes" else level - base, rtol=1e-6
    )


# -- infinite estimates ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::daskglm.errors.SeparationWarning")
def test_a_level_without_events_has_mean_zero(data: pd.DataFrame) -> None:
    data = data.assign(count=data["count"].where(data["a"] != "C", 0))
    fit = dg.glm("count ~ a + x", data, family="poisson")
    assert fit.separated == ("a[T.C]",)
    found = fit.margins(data)
    base = np.asarray(fit.predict(data.assign(a="A")))
    assert found.loc[("a", "C - A"), "effect"] == pytest.approx(-base.mean(), rel=1e-12)
    # its error is that of the baseline's mean, in which C has no part
    without = data[data["a"] != "C"]
    other = dg.glm("count ~ a + x", without, family="poisson")
    gradient = np.array([base.mean(), 0.0, (base * data["x"]).mean()])
    variance = gradient @ other.cov_params().to_numpy() @ gradient
    assert found.loc[("a", "C - A"), "se"] == pytest.approx(np.sqrt(variance), rel=1e-8)
    # rows at the limit count, and do not move
    share = len(without) / len(data)
    assert found.loc[("x", "dydx"), "effect"] == pytest.approx(
        other.margins(without).loc[("x", "dydx"), "effect"] * share, rel=1e-8
    )


@pytest.mark.filterwarnings("ignore::daskglm.errors.SeparationWarning")
def test_a_class_that_never_occurs_in_a_level(data: pd.DataFrame) -> None:
    data = data.assign(k=data["k"].where((data["a"] != "C") | (data["k"] != "top"), "mid"))
    for family in ("multinomial", "ordinal"):
        fit = dg.glm("k ~ a + x", data, family=family)
        assert fit.separated or family == "ordinal"
        found = fit.margins(data)
        up, down = (np.asarray(fit.predict(data.assign(a=level))).mean(axis=0) for level in "CA")
        np.testing.assert_allclose(found.loc["a"].loc["C - A", "effect"], up - down, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore::daskglm.errors.SeparationWarning", "ignore::daskglm.errors.AliasWarning")
def test_rows_that_were_dropped_are_not_spoken_of(data: pd.DataFrame) -> None:
    data = data.assign(count=data["count"].where(data["a"] != "C", 0))
    fit = dg.glm("count ~ a + x", data, family="poisson", separation="drop")
    found = fit.margins(data)
    assert np.isnan(found.loc[("a", "C - A"), "effect"])
    other = dg.glm("count ~ a + x", data[data["a"] != "C"], family="poisson").margins(data[data["a"] != "C"])
    np.testing.assert_allclose(found.loc[("x", "dydx")], other.loc[("x", "dydx")], rtol=1e-8)


# -- other sources -----------------------------------------------------------------------------------------------------


def test_effects_of_arrays_and_of_a_sparse_matrix() -> None:
    from scipy import sparse

    rng = np.random.default_rng(5)
    x = rng.normal(size=(150, 3)) * (rng.uniform(size=(150, 3)) < 0.5)
    y = rng.poisson(np.exp(0.3 * x[:, 0] - 0.2))
    dense = dg.glm(X=x, y=y, family="poisson")
    thin = dg.glm(X=sparse.csr_array(x), y=y, family="poisson")
    for kind in ("dydx", "eydx"):
        one = dense.margins({"X": x, "y": y}, kind=kind)
        two = thin.margins({"X": sparse.csr_array(x), "y": y}, kind=kind)
        np.testing.assert_allclose(two, one, rtol=1e-8, atol=1e-12)
    with pytest.raises(DesignError, match="sparse matrix"):
        thin.margins({"X": sparse.csr_array(x), "y": y}, at="mean")


@pytest.mark.usefixtures("small")
def test_a_cluster_has_the_same_bits(client: Any, tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "lake", 4_000)
    fit = dg.glm("y ~ s * x + C(year)", lake, family="poisson")
    expected = [fit.margins(lake), fit.margins(lake, at="mean"), fit.emmeans("s", lake).table]
    expected.append(fit.relativities(data=lake, bands={"x": [0.0, 1.0]}))
    with client.as_current():
        found = [fit.margins(lake), fit.margins(lake, at="mean"), fit.emmeans("s", lake).table]
        found.append(fit.relativities(data=lake, bands={"x": [0.0, 1.0]}))
    for one, two in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert lakes.LEAF_BYTES == 1


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "means"}, 'did you mean "mean"'),
        ({"kind": "dxdy"}, "not one of"),
        ({"variables": "y"}, "not a column whose effect"),
        ({"variables": ["a"], "kind": "eyex"}, "has levels"),
        ({"level": 95}, "between 0 and 1"),
        ({"dummy": True}, "no option 'dummy'"),
    ],
)
def test_refusals(fits: dict[str, Fit], data: pd.DataFrame, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DesignError, match=message):
        fits["poisson"].margins(data, **options)


def test_a_derivative_that_is_infinite_is_named(data: pd.DataFrame) -> None:
    data = data.assign(x=data["x"].where(data["x"] > 1.2, 0.0))
    fit = dg.glm("number ~ sqrt(x)", data)
    with pytest.raises(DataError, match=r"sqrt\(x\) has no finite derivative in x"):
        fit.margins(data)


def test_a_condition_has_no_derivative(data: pd.DataFrame) -> None:
    fit = dg.glm("number ~ C(x > 2) + z", data)
    assert list(fit.margins(data).index.get_level_values(0)) == ["z"]
    with pytest.raises(DesignError, match="not a column whose effect"):
        fit.margins(data, variables="x")


@pytest.mark.parametrize("at", ["overall", "mean"])
def test_no_rows_have_no_average(fits: dict[str, Fit], data: pd.DataFrame, at: str) -> None:
    with pytest.raises(DataError, match="no rows that the model uses"):
        fits["cloglog"].margins(data.assign(z=np.nan), at=at)


def test_a_condition_on_text_has_no_mean(data: pd.DataFrame) -> None:
    fit = dg.glm('number ~ I(a == "B") + z', data)
    assert list(fit.margins(data).index.get_level_values(0)) == ["z"]
    with pytest.raises(DesignError, match='use at="overall"'):
        fit.margins(data, at="mean")
