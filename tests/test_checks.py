"""Checks of fit against brute force on the rows, and the laws that they must obey whatever the parts and the engine."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import isotonic_regression

import daskglm as dg
from daskglm.cluster.engine import Engine
from daskglm.totals import sketches

# Sums over the same rows in another order, of means that agree to the last digits.
SAME = 1e-9
# Totals agree where the score vanishes, which it does to the root of the decrement in standard errors.
BALANCE = 1e-6
ROWS = 3_000


def data(n: int = ROWS, seed: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "area": rng.choice(["n", "e", "s"], n, p=[0.5, 0.3, 0.2]),
            "colour": rng.choice(["red", "blue", None], n),
            "age": rng.integers(18, 90, n),
            "score": np.where(rng.uniform(size=n) < 0.1, np.nan, rng.normal(size=n)),
            "e": rng.uniform(0.2, 1.0, n),
            "w": rng.uniform(0.5, 3.0, n),
            "f": rng.integers(1, 4, n),
            "m": rng.integers(1, 9, n),
        }
    )
    mean = np.exp(0.3 + 0.5 * frame.x + 0.3 * (frame.area == "s"))
    chance = 1.0 / (1.0 + np.exp(-0.4 - frame.x))
    frame["count"] = rng.poisson(frame.e * mean)
    frame["many"] = rng.negative_binomial(2.0, 2.0 / (2.0 + mean))
    frame["cost"] = rng.gamma(2.0, mean / 2.0)
    frame["won"] = (rng.uniform(size=n) < chance).astype(int)
    frame["wins"] = rng.binomial(frame.m, chance)
    frame["big"] = 1e6 + frame.x + rng.normal(size=n)
    frame["kind"] = rng.choice(["a", "b", "c"], n)
    return frame


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "poisson": ("count ~ x + area", {"family": "poisson", "exposure": "e"}),
    "frequency": ("count ~ x + area", {"family": "poisson", "exposure": "e", "weights": dg.Frequency("f")}),
    "negative_binomial": ("many ~ x", {"family": "negative_binomial"}),
    "gamma": ("cost ~ x + area", {"family": "gamma", "weights": dg.Variance("w")}),
    "inverse_gaussian": ("cost ~ x", {"family": "inverse_gaussian"}),
    "tweedie": ("cost ~ x", {"family": dg.families.Tweedie(power=1.5), "offset": "0.1 * x"}),
    "logistic": ("won ~ x + area", {"family": "binomial"}),
    "trials": ("wins ~ x + area", {"family": "binomial", "trials": "m"}),
    "gaussian": ("big ~ x + area", {"family": "gaussian"}),
    "sampled": ("count ~ x + area", {"family": "poisson", "exposure": "e", "weights": dg.Probability("w")}),
}


def fitted(name: str, frame: Any) -> Any:
    formula, options = MODELS[name]
    return dg.glm(formula, frame, progress=False, **options)


class Rows:
    """What a model says of each row, from its predictions."""

    def __init__(self, name: str, fit: Any, frame: pd.DataFrame) -> None:
        formula, options = MODELS[name]
        self.family = fit.record.family
        self.mu = fit.predict(frame).to_numpy()
        response = frame[formula.split(" ~ ")[0]].to_numpy(float)
        weights = options.get("weights")
        mass = np.ones(len(frame)) if weights is None else frame[weights.column].to_numpy(float)
        if "trials" in options:
            mass, response = frame["m"].to_numpy(float), response / frame["m"].to_numpy(float)
        self.y, self.mass = response, mass
        self.e = frame["e"].to_numpy() if "exposure" in options else np.ones(len(frame))
        squares = mass**2 if isinstance(weights, dg.Probability) else mass
        self.variance = fit.scale * squares * self.family.variance(self.mu, 1.0 - self.mu)
        self.copies = mass if isinstance(weights, (dg.Frequency, dg.Probability)) else np.ones(len(frame))
        self.rate, self.observed, self.weight = self.mu / self.e, self.y / self.e, mass * self.e

    def table(self, by: Any) -> pd.DataFrame:
        columns = {
            "observations": self.copies, "exposure": self.weight, "actual": self.mass * self.y,
            "expected": self.mass * self.mu, "variance": self.variance,
        }  # fmt: skip
        return pd.DataFrame(columns).groupby(by, dropna=False, sort=True).sum()


@pytest.mark.parametrize("name", MODELS)
def test_calibration_is_that_of_the_rows(name: str) -> None:
    frame = data()
    fit = fitted(name, frame)
    rows = Rows(name, fit, frame)
    bands = [30.0, 50.0]
    found = fit.calibration(frame, {"area": None, "colour": None, "age": bands, "m": None, "score": None}, bins=12)
    cut = np.searchsorted(bands, frame["age"].to_numpy(), side="right")
    for column, by in (
        ("area", frame["area"].to_numpy()),
        ("colour", frame["colour"].to_numpy()),
        ("age", cut),
        ("m", frame["m"].to_numpy()),
    ):
        expected, part = rows.table(by), found.loc[column]
        for sums in ("observations", "exposure", "actual", "expected"):
            np.testing.assert_allclose(part[sums], expected[sums], rtol=SAME)
        ratio = expected["actual"] / expected["expected"]
        half = stats.norm.ppf(0.975) * np.sqrt(expected["variance"]) / expected["expected"]
        np.testing.assert_allclose(part["lower"], ratio - half, rtol=1e-6)
        np.testing.assert_allclose(part["upper"], ratio + half, rtol=1e-6)
        chi2 = (expected["actual"] - expected["expected"]) ** 2 / expected["variance"]
        np.testing.assert_allclose(part["chi2"], chi2, rtol=1e-5, atol=1e-5)
    assert found.loc["age"].index.tolist() == ["< 30", "[30, 50)", ">= 50"]
    assert found.loc["m"].index.tolist() == sorted(set(frame["m"]))
    # twelve bins of a number, and the rows without it
    score = found.loc["score"]
    assert len(score) == 13
    np.testing.assert_allclose(score["exposure"].sum(), rows.weight.sum(), rtol=SAME)
    missing = np.isnan(frame["score"].to_numpy())
    np.testing.assert_allclose(score["exposure"].iloc[-1], rows.weight[missing].sum(), rtol=SAME)
    even = rows.weight[~missing].sum() / 12
    assert np.abs(score["exposure"].iloc[:-1] / even - 1.0).max() < 0.02


@pytest.mark.parametrize("name", ["poisson", "frequency", "logistic", "trials", "gaussian", "sampled"])
def test_a_canonical_model_is_calibrated_by_its_own_factors(name: str) -> None:
    frame = data()
    found = fitted(name, frame).check(frame, "area")
    np.testing.assert_allclose(found.calibration["ratio"], 1.0, rtol=BALANCE)
    assert found.tests.loc["calibration by area", "pvalue"] > 0.999
    total = found.lift[["actual", "expected"]].sum()
    assert total["actual"] == pytest.approx(total["expected"], rel=BALANCE)


@pytest.mark.parametrize("name", ["poisson", "frequency", "gamma", "logistic", "trials", "tweedie"])
@pytest.mark.parametrize("limit", [100, 4096])
def test_gini_is_that_of_the_sorted_rows(name: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = data()
    fit = fitted(name, frame)
    rows = Rows(name, fit, frame)

    def gini(key: np.ndarray) -> float:
        # neighbours in the order of the predictions that differ by rounding alone are ties
        group = pd.Series(np.round(key, 12))
        sums = pd.DataFrame({"x": rows.weight, "a": rows.mass * rows.y}).groupby(group).sum().to_numpy()
        x, a = (np.concatenate([[0.0], np.cumsum(c) / c.sum()]) for c in sums.T)
        return float(1.0 - (np.diff(x) * (a[1:] + a[:-1])).sum())

    monkeypatch.setattr(sketches.Sketch.of, "__defaults__", (limit,))
    found = fit.gini(frame)
    exact, best = gini(rows.rate), gini(rows.observed)
    assert abs(found["gini"] - exact) <= found["gini_error"] + SAME
    assert abs(found["perfect"] - best) <= found["perfect_error"] + SAME
    assert abs(found["normalised"] - exact / best) <= found["normalised_error"] + SAME
    if limit == 100 and name != "trials":
        assert 0.0 < found["gini_error"] < 0.05
    if limit == 4096 and name == "logistic":
        assert found["gini_error"] == 0.0
        ones, zeros = rows.mu[rows.y == 1.0], rows.mu[rows.y == 0.0]
        auc = stats.mannwhitneyu(ones, zeros).statistic / (ones.size * zeros.size)
        assert found["normalised"] == pytest.approx(2.0 * auc - 1.0, rel=SAME)


@pytest.mark.parametrize("name", ["poisson", "gamma", "logistic"])
def test_lift_is_of_equal_exposure_in_order(name: str) -> None:
    frame = data()
    fit = fitted(name, frame)
    rows, found = Rows(name, fit, frame), fit.lift(frame, bins=8)
    assert np.abs(found["exposure"] / (rows.weight.sum() / 8) - 1.0).max() < 0.01
    for _, one in found.iterrows():
        inside = (rows.rate >= one["from"] * (1 - 1e-12)) & (rows.rate <= one["to"] * (1 + 1e-12))
        assert one["actual"] == pytest.approx((rows.mass * rows.y)[inside].sum(), rel=SAME)
        assert one["mean_expected"] == pytest.approx(
            (rows.mass * rows.mu)[inside].sum() / rows.weight[inside].sum(), rel=SAME
        )
    lorenz = fit.lorenz(frame, bins=50)
    order = np.argsort(rows.rate)
    x = np.cumsum(rows.weight[order]) / rows.weight.sum()
    a = np.cumsum((rows.mass * rows.y)[order]) / (rows.mass * rows.y).sum()
    np.testing.assert_allclose(np.interp(lorenz["exposure"], x, a), lorenz["actual"], atol=1e-3)


@pytest.mark.parametrize("name", ["logistic", "trials"])
def test_scores_of_probabilities(name: str) -> None:
    frame = data()
    fit = fitted(name, frame)
    rows, found = Rows(name, fit, frame), fit.reliability(frame)
    order = np.argsort(rows.mu, kind="stable")
    y, mu, w = rows.y[order], np.round(rows.mu[order], 12), rows.mass[order]
    tied = pd.DataFrame({"w": w, "a": w * y}).groupby(mu).sum()
    pooled = isotonic_regression(tied["a"] / tied["w"], weights=tied["w"]).x
    c = pd.Series(pooled, index=tied.index)[mu].to_numpy()
    mean = np.full_like(y, (w * y).sum() / w.sum())

    def brier(p: np.ndarray) -> float:
        return float((w * (y * (1 - p) ** 2 + (1 - y) * p**2)).sum() / w.sum())

    def logarithmic(p: np.ndarray) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(y > 0, -y * np.log(p), 0.0) + np.where(y < 1, -(1 - y) * np.log1p(-p), 0.0)
        return float((w * terms).sum() / w.sum())

    for kind, score in (("brier", brier), ("logarithmic", logarithmic)):
        parts = found.loc[kind]
        assert parts["score"] == pytest.approx(score(mu), rel=SAME)
        assert parts["miscalibration"] == pytest.approx(score(mu) - score(c), abs=SAME)
        assert parts["discrimination"] == pytest.approx(score(mean) - score(c), abs=SAME)
        assert parts["uncertainty"] == pytest.approx(score(mean), rel=SAME)


@pytest.mark.parametrize(
    "name", ["poisson", "frequency", "gamma", "inverse_gaussian", "tweedie", "negative_binomial", "gaussian"]
)
def test_scores_of_means(name: str) -> None:
    frame = data()
    fit = fitted(name, frame)
    rows, found = Rows(name, fit, frame), fit.reliability(frame)
    order = np.argsort(rows.rate, kind="stable")
    z, r, w = rows.observed[order], rows.rate[order], rows.weight[order]
    c, mean = isotonic_regression(z, weights=w).x, np.full_like(z, (w * z).sum() / w.sum())

    def squared(p: np.ndarray) -> float:
        return float((w * (z - p) ** 2).sum() / w.sum())

    def deviance(p: np.ndarray) -> float:
        found = np.where(z == p, 0.0, rows.family.unit_deviance(z, np.where(p > 0, p, 1e-300), 1.0 - p))
        return float((w * np.where((z == 0) & (p == 0), 0.0, found)).sum() / w.sum())

    for kind, score in (("squared_error", squared), ("deviance", deviance)):
        parts = found.loc[kind]
        size = score(mean) * SAME
        assert parts["score"] == pytest.approx(score(r), abs=size)
        assert parts["miscalibration"] == pytest.approx(score(r) - score(c), abs=size)
        assert parts["discrimination"] == pytest.approx(score(mean) - score(c), abs=size)
        assert parts["uncertainty"] == pytest.approx(score(mean), abs=size)
        assert parts["score"] == pytest.approx(
            parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"], abs=size
        )


def test_double_lift_sorts_by_the_ratio_of_two_models() -> None:
    frame = data()
    frame.loc[::50, "score"] = np.nan
    one = fitted("poisson", frame)
    two = dg.glm("count ~ score", frame, family="poisson", exposure="e", progress=False)
    found = one.double_lift(frame, two, bins=5)
    used = frame[frame["score"].notna()]
    mine, other = one.predict(used).to_numpy(), two.predict(used).to_numpy()
    assert found["observations"].sum() == len(used)
    for _, bin_ in found.iterrows():
        inside = (mine / other >= bin_["from"] * (1 - 1e-12)) & (mine / other <= bin_["to"] * (1 + 1e-12))
        exposure = used["e"].to_numpy()[inside].sum()
        assert bin_["exposure"] == pytest.approx(exposure, rel=SAME)
        for name, values in (("actual", used["count"].to_numpy()), ("expected", mine), ("expected_other", other)):
            assert bin_[name] == pytest.approx(values[inside].sum() / exposure, rel=SAME)
    assert one.check(frame, against=two).double_lift is not None
    with pytest.raises(dg.errors.DesignError, match="same response"):
        one.double_lift(frame, fitted("logistic", frame))
    with pytest.raises(dg.errors.DesignError, match="another fit is wanted"):
        one.double_lift(frame, "model")


@pytest.mark.parametrize("name", ["poisson", "gamma", "trials", "inverse_gaussian", "tweedie", "negative_binomial"])
def test_quantiles_are_those_of_the_residuals(name: str) -> None:
    frame = data()
    frame["id"] = np.arange(len(frame))
    fit = fitted(name, frame)
    found = fit.qq(frame, seed=3, key="id")
    residuals = np.sort(fit.residuals(frame, "quantile", seed=3, key="id").to_numpy())
    # the order statistic at each probability, or, where n p is whole, one beside it, to the width of a bin
    place = np.ceil(found["probability"].to_numpy() * len(residuals)).astype(int) - 1
    np.testing.assert_allclose(found["observed"], residuals[place], atol=2.0 / sketches.FINE)
    np.testing.assert_allclose(found["theoretical"], stats.norm.ppf(found["probability"]))
    exact = stats.kstest(residuals, "norm").statistic
    distance = fit.check(frame, seed=3, key="id").tests.loc["quantile residuals, largest distance", "stat"]
    assert abs(distance - exact) < 0.4 / sketches.FINE + 1.0 / len(frame)


def parts(frame: pd.DataFrame, folder: Path, n: int) -> Path:
    folder.mkdir()
    for i, index in enumerate(np.array_split(np.arange(len(frame)), n)):
        frame.iloc[index].to_parquet(folder / f"part-{i:03d}.parquet")
    return folder


def same(one: Any, two: Any, skipped: tuple[str, ...] = (), rtol: float = SAME) -> None:
    assert set(one.parts) == set(two.parts)
    for name, part in one.parts.items():
        if name in skipped:
            continue
        other = two.parts[name]
        assert list(part.index) == list(other.index) or name == "calibration"
        for column in part.columns if part.ndim == 2 else [slice(None)]:
            left, right = part[column].to_numpy(), other[column].to_numpy()
            if left.dtype.kind == "f":
                np.testing.assert_allclose(left, right, rtol=rtol, atol=1e-7, err_msg=f"{name} {column}")


@pytest.mark.parametrize("name", MODELS)
def test_nothing_depends_on_parts_and_order(name: str, tmp_path: Path, small: None) -> None:
    frame = data()
    frame["id"] = np.arange(len(frame))
    fit = fitted(name, frame)
    by, options = ["area", "colour", "age", "score"], {"key": "id", "bins": 7}
    whole = fit.check(parts(frame, tmp_path / "one", 1), by, **options)
    shuffled = frame.sample(frac=1.0, random_state=1)
    again = fit.check(parts(shuffled, tmp_path / "many", 13), by, **options)
    same(whole, again)
    assert whole.passes == 1
    assert whole.notes == again.notes


@pytest.mark.parametrize("family", ["poisson", "binomial"])
def test_frequencies_are_rows_written_out(family: str, tmp_path: Path, small: None) -> None:
    frame = data()
    formula = {"poisson": "many ~ x + area", "binomial": "won ~ x + area"}[family]
    fit = dg.glm(formula, frame, family=family, weights=dg.Frequency("f"), progress=False)
    long = frame.loc[frame.index.repeat(frame["f"])].reset_index(drop=True)
    twin = dg.glm(formula, long, family=family, progress=False)
    # two fits, each to its own tolerance; copies of a row share the number that its residual is drawn with
    same(
        fit.check(frame, ["area", "age"]),
        twin.check(parts(long, tmp_path / "long", 5), ["area", "age"]),
        ("qq", "tests"),
        rtol=BALANCE,
    )
    one, two = fit.check(frame, ["area", "age"]).tests, twin.check(long, ["area", "age"]).tests
    np.testing.assert_allclose(one["stat"].iloc[:-1], two["stat"].iloc[:-1], rtol=1e-6, atol=1e-9)


def test_trials_are_successes_and_failures_written_out() -> None:
    frame = data(400)
    fit = dg.glm("wins ~ x + area", frame, family="binomial", trials="m", progress=False)
    long = frame.loc[frame.index.repeat(frame["m"])].reset_index(drop=True)
    long["won"] = (long.groupby(frame.index.repeat(frame["m"])).cumcount() < long["wins"]).astype(int)
    twin = dg.glm("won ~ x + area", long, family="binomial", progress=False)
    one, two = fit.check(frame, ["area", "age"]), twin.check(long, ["area", "age"])
    np.testing.assert_allclose(one.hosmer_lemeshow, two.hosmer_lemeshow, rtol=BALANCE)
    np.testing.assert_allclose(one.reliability, two.reliability, rtol=BALANCE, atol=SAME)
    assert one.gini["gini"] == pytest.approx(two.gini["gini"], rel=BALANCE)
    columns = ["exposure", "actual", "expected", "lower", "upper"]
    np.testing.assert_allclose(one.calibration.loc["area", columns], two.calibration.loc["area", columns], rtol=BALANCE)


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_classes_do_not_depend_on_parts_and_order(family: str, tmp_path: Path, small: None) -> None:
    frame = data(1_000)
    frame["id"] = np.arange(len(frame))
    frame["kind"] = pd.Categorical(frame["kind"], ["a", "b", "c"], ordered=family == "ordinal")
    fit = dg.glm("kind ~ x + area", frame, family=family, weights=dg.Frequency("f"), progress=False)
    shuffled = parts(frame.sample(frac=1.0, random_state=2), tmp_path / "many", 7)
    same(fit.check(frame, ["colour", "score"], key="id"), fit.check(shuffled, ["colour", "score"], key="id"))
    long = frame.loc[frame.index.repeat(frame["f"])].reset_index(drop=True)
    twin = dg.glm("kind ~ x + area", long, family=family, progress=False)
    same(fit.check(frame, "colour"), twin.check(long, "colour"), ("qq", "tests"), rtol=BALANCE)


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_classes_are_are_checked_one_by_one(family: str, tmp_path: Path, small: None) -> None:
    frame = data()
    frame["kind"] = pd.Categorical(frame["kind"], ["a", "b", "c"], ordered=family == "ordinal")
    fit = dg.glm("kind ~ x + area", frame, family=family, weights=dg.Variance("w"), progress=False)
    found = fit.check(parts(frame, tmp_path / "kinds", 6), "area")
    mu = fit.predict(frame)
    for label in "abc":
        part = found.calibration.loc["area", label]
        seen = (frame["w"] * (frame["kind"] == label)).groupby(frame["area"]).sum()
        chance = mu[label].to_numpy()
        np.testing.assert_allclose(part["actual"], seen, rtol=SAME)
        np.testing.assert_allclose(part["expected"], (frame["w"] * chance).groupby(frame["area"]).sum(), rtol=SAME)
        brier = (frame["w"] * ((frame["kind"] == label) - chance) ** 2).sum() / frame["w"].sum()
        assert found.reliability.loc[(label, "brier"), "score"] == pytest.approx(brier, rel=SAME)
    assert set(found.lift.index.get_level_values("class")) == {"a", "b", "c"}
    assert (found.qq is not None) == (family == "ordinal")
    with pytest.raises(dg.errors.DesignError, match="hosmer_lemeshow is of a response that is a number"):
        fit.hosmer_lemeshow(frame)


def test_rows_at_their_limit_are_counted() -> None:
    frame = data()
    frame.loc[frame["area"] == "s", "count"] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.SeparationWarning)
        fit = fitted("poisson", frame)
    found = fit.check(frame, "area")
    assert found.calibration.loc[("area", "s"), ["actual", "expected", "chi2"]].tolist() == [0.0, 0.0, 0.0]
    assert found.observations == len(frame)
    assert found.lift["from"].iloc[0] == 0.0
    np.testing.assert_allclose(found.rootogram["expected"].sum(), len(frame), rtol=SAME)


def test_the_same_bits_on_a_cluster(client: Any, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = data()
    fit = fitted("poisson", frame)
    other = dg.glm("count ~ 1", frame, family="poisson", exposure="e", progress=False)
    lake = parts(frame, tmp_path / "lake", 9)
    by = ["area", "age", "score"]
    local = fit.check(lake, by, against=other)
    from daskglm.postestimation import revisit

    monkeypatch.setattr(revisit, "Engine", lambda client=None, found=client: Engine(client=found))
    remote = fit.check(lake, by, against=other)
    assert repr(local) == repr(remote)
    for name, part in local.parts.items():
        assert part.equals(remote.parts[name]), name


def test_what_does_not_exist_is_refused() -> None:
    frame = data()
    fit, error = fitted("poisson", frame), dg.errors.DesignError
    with pytest.raises(error, match="Hosmer-Lemeshow test is of binomial models, not of poisson"):
        fit.hosmer_lemeshow(frame)
    with pytest.raises(error, match="there is no check 'lifft' \\(did you mean"):
        fit.check(frame, parts="lifft")
    assert set(fit.check(frame, parts=("lift", "gini")).parts) == {"lift", "gini"}
    with pytest.raises(error, match="needs columns"):
        fit.calibration(frame, None)
    with pytest.raises(error, match="ascending"):
        fit.calibration(frame, {"age": [3, 2]})
    with pytest.raises(error, match="ascending numbers"):
        fit.calibration(frame, {"age": ["young", "old"]})
    with pytest.raises(error, match="did you mean"):
        fit.lift(frame, bin=3)
    with pytest.raises(error, match="bins must be"):
        fit.lift(frame, bins=0)
    with pytest.raises(error, match="level must be"):
        fit.lift(frame, level=95)
    with pytest.raises(error, match="agee"):
        fit.calibration(frame, "agee")
    with pytest.raises(error, match="never negative"):
        fitted("gaussian", frame).gini(frame)
    with pytest.raises(error, match="0 and 1 has two bars"):
        fitted("logistic", frame).rootogram(frame)
    with pytest.raises(error, match="needs 3 groups"):
        dg.glm("won ~ 1", frame, family="binomial", progress=False).hosmer_lemeshow(frame)
    with pytest.raises(dg.errors.DataError, match="not positive"):
        fit.lift(frame.assign(e2=-1.0), exposure="e2")
    frame["name"] = [f"n{i}" for i in range(len(frame))]
    assert len(fit.calibration(frame, "name")) == len(frame)
    with pytest.raises(AttributeError, match="did you mean"):
        fit.check(frame).lyft  # noqa: B018


def test_days_and_times_are_written_as_such() -> None:
    frame = data(100)
    frame["time"] = pd.date_range("2024-01-30", periods=100, freq="h")
    frame["day"] = frame["time"].dt.date
    found = dg.glm("count ~ x", frame, family="poisson", progress=False).calibration(frame, ["day", "time"], bins=5)
    assert found.loc["day"].index.tolist() == [f"2024-{day}" for day in ("01-30", "01-31", "02-01", "02-02", "02-03")]
    assert found.loc["time"].index[0] == "[2024-01-30T00:00:00, 2024-01-30T19:00:00]"


def test_too_many_labels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "LABELS", 2)
    frame = data()
    with pytest.raises(dg.errors.DesignError, match="levels"):
        fitted("poisson", frame).calibration(frame, "area")


def test_a_record_prints(tmp_path: Path) -> None:
    frame = data()
    found = fitted("poisson", frame).check(frame, "area")
    assert "Calibration" in str(found)
    assert "Hosmer-Lemeshow test is of binomial" in str(found)
    assert "<table" in found._repr_html_()
    assert np.isclose(found.observations, ROWS)


def test_a_row_or_two(tmp_path: Path) -> None:
    frame = data()
    fit = fitted("poisson", frame)
    assert fit.check(frame.head(1), "area").observations == 1.0
    with pytest.raises(dg.errors.DataError, match="no rows"):
        fit.check(frame.head(0), "area")
    fit.save(tmp_path / "model")
    assert str(dg.load(tmp_path / "model").check(frame, "area")) == str(fit.check(frame, "area"))


def test_another_data_set_is_judged_without_its_coefficients() -> None:
    frame, fresh = data(), data(500, 9)
    found = fitted("poisson", frame).check(fresh)
    pearson = found.overdispersion.loc["Pearson"]
    assert pearson["estimate"] == pytest.approx(pearson["stat"] / 500)
    assert any("not the rows of the fit" in note for note in found.notes)


def tied(seed: int, n: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"b": rng.choice(["p", "q"], n), "c": rng.choice(["u", "v"], n)})
    frame["ex"] = rng.uniform(0.3, 1.0, n)
    frame["k"] = rng.poisson(frame.ex * np.where(frame.b == "q", 0.8, 0.5))
    return frame


def gini_of_groups(frame: pd.DataFrame, rate: pd.Series) -> float:
    """1 - 2 times the area below the Lorenz curve of groups of rows, in the order of their rates."""
    sums = frame.groupby("b")[["ex", "k"]].sum().loc[rate.sort_values().index]
    x, share = (np.append(0.0, column.cumsum() / column.sum()) for _, column in sums.items())
    return float(1.0 - (np.diff(x) * (share[1:] + share[:-1])).sum())


@pytest.mark.parametrize("seed", range(1, 7))
@pytest.mark.parametrize(
    "options", [{"exposure": "ex"}, {"offset": "log(ex)"}, {"exposure": "ex", "offset": "0.3 + 0 * ex"}]
)
def test_rows_of_one_rate_stay_together_whatever_their_exposure(seed: int, options: dict[str, Any]) -> None:
    frame = tied(seed)
    fit = dg.glm("k ~ b", frame, family="poisson", **options)
    rate = (fit.predict(frame) / frame.ex).groupby(frame.b).mean()
    found = fit.gini(frame, exposure="ex")
    assert found["gini"] == pytest.approx(gini_of_groups(frame, rate), abs=1e-12)
    assert found["gini_error"] == 0.0
    assert len(fit.lorenz(frame, exposure="ex")) == 3
    lift = fit.lift(frame, exposure="ex")
    np.testing.assert_allclose(lift["from"], rate.sort_values(), rtol=1e-12)
    np.testing.assert_allclose(lift["observations"], frame.b.value_counts().loc[rate.sort_values().index])
    # the isotonic regression of two rates in their order is their observed means, which the fit has
    assert fit.reliability(frame, exposure="ex").loc["deviance", "miscalibration"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("options", [{"exposure": "ex"}, {"offset": "log(ex)"}])
def test_a_double_lift_keeps_rows_of_one_ratio_together(options: dict[str, Any]) -> None:
    for seed in range(1, 7):
        frame = tied(seed)
        one, two = (dg.glm(f"k ~ {right}", frame, family="poisson", **options) for right in ("b", "c"))
        found = one.double_lift(frame, two)
        sizes = frame.groupby(["b", "c"]).size()
        ratio = (one.predict(frame) / two.predict(frame)).groupby([frame.b, frame.c]).mean().sort_values()
        np.testing.assert_allclose(found["from"], ratio, rtol=1e-12)
        np.testing.assert_allclose(found["observations"], sizes.loc[ratio.index])


@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_whole_numbers_beyond_doubles_are_bins_of_their_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (2**53 + np.arange(200) % 3).astype(kind)
    values[:50] = np.arange(50) % 2
    frame = pd.DataFrame({"u": values, "y": np.arange(200.0)})
    fit = dg.glm("y ~ 1", frame, progress=False)
    expected = frame.groupby("u").size()
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    for i in range(4):
        frame[i * 50 : (i + 1) * 50].to_parquet(pieces / f"{i}.parquet")
    for source in (frame, pieces):
        found = fit.calibration(source, "u").loc["u"]
        assert found.index.tolist() == expected.index.tolist()
        assert found["observations"].tolist() == expected.tolist()
    missing = frame.astype({"u": kind.replace("u", "U").replace("i", "I")})
    missing.loc[199, "u"] = pd.NA
    with pytest.raises(dg.errors.DataError, match=r"missing values and whole numbers beyond 2\^53"):
        fit.calibration(missing, "u")
    monkeypatch.setattr("daskglm.totals.checks.COLUMN_LIMIT", 3)
    found = fit.calibration(pieces, "u", bins=10).loc["u"]
    assert found["observations"].sum() == 200
