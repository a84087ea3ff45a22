"""Infinite optima of responses of classes as users meet them: found as a linear program finds them, and fitted at the limit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_array

import daskglm as dg
from daskglm.cluster import lakes
from daskglm.cluster.engine import Engine
from daskglm.errors import DesignError, SeparationWarning, SolverError
from daskglm.solvers.separation import Watch
from tests.cluster.problem import KEEPS, bits, fitted
from tests.fronts.separated_classes import CALM, ORDINARY, PLANTED, Case, check

Codes = npt.NDArray[np.intp]

# The long form, with thousands of cases, is `python -m benchmarks separation`.
SEEDS = range(2)
# Sums of the same terms, and optima of the same likelihood by other sums.
SUMS = 1e-12
SAME = 1e-8
# Passes over a large lake whose levels often miss a class: a few more than a finite optimum takes.
FEW = 12


@pytest.mark.parametrize("make", [*PLANTED, *ORDINARY], ids=lambda make: make.__name__)
def test_what_is_found_is_what_the_linear_program_finds(make: Callable[[np.random.Generator], Case]) -> None:
    for seed in SEEDS:
        case = make(np.random.default_rng([seed, 7]))
        assert check(case)["wrong"] == [], (seed, case.formula, case.link, case.classes)


@pytest.mark.parametrize("make", CALM, ids=lambda make: make.__name__)
def test_a_finite_optimum_costs_no_pass_more(
    make: Callable[[np.random.Generator], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [make(np.random.default_rng([seed, 3])) for seed in range(6)]
    # that link's likelihood is not concave, and its steps are those of the expected information, which creep
    cases = [case for case in cases if case.link != "cauchit"]
    fits = [case.fit() for case in cases]
    monkeypatch.setattr(Watch, "look", lambda self, *arguments: None)
    blind = [case.fit() for case in cases]
    compared = 0
    for one, other in zip(fits, blind, strict=True):
        if not one.separated:
            assert one.n_passes == other.n_passes
            assert bits(one.record) == bits(other.record)
            compared += 1
    assert compared


def frame(n: int = 400) -> pd.DataFrame:
    """Three classes; r does not occur at level B, of 86 rows, nor p at level C."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"x": rng.normal(size=n), "a": rng.choice(list("ABCD"), n), "b": rng.choice(["no", "yes"], n)})
    y = rng.integers(0, 3, n)
    y[(data.a == "B") & (y == 2)] = 1
    y[(data.a == "C") & (y == 0)] = 2
    data["w"] = rng.integers(1, 4, n)
    return data.assign(y=pd.Categorical.from_codes(y, list("pqr")))


def graded(n: int = 400) -> pd.DataFrame:
    """Three ordered classes; every row of level B is of the lowest, every row of level D of the highest."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"x": rng.normal(size=n), "a": rng.choice(list("ABCD"), n)})
    y = np.searchsorted([-0.7, 0.8], 0.6 * data.x + rng.logistic(size=n))
    y = np.where(data.a == "B", 0, np.where(data.a == "D", 2, y))
    return data.assign(y=pd.Categorical.from_codes(y, ["low", "middle", "high"], ordered=True))


def quietly(formula: str, data: Any, **options: Any) -> dg.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeparationWarning)
        return dg.glm(formula, data, **options)


def only(data: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Rows of these classes, which are the only ones."""
    kept = data[data.y.isin(classes)]
    return kept.assign(y=kept.y.cat.remove_unused_categories())


# -- limit ---------------------------------------------------------------------------------------------------------------


def test_a_class_that_never_occurs_at_a_level() -> None:
    data = frame()
    data.loc[data.a == "C", "y"] = data.loc[data.a == "A", "y"].sample(int((data.a == "C").sum()), random_state=1).array
    with pytest.warns(
        SeparationWarning,
        match=r"for r:a\[T.B\]: .* classes become impossible in 104 row\(s\).*all else from the classes that stay possible",
    ):
        fit = dg.glm("y ~ a", data, family="multinomial")
    assert fit.separated == ("r:a[T.B]",)
    assert fit.aliased == ()
    assert fit.converged
    assert fit.params.loc["a[T.B]", "r"] == -np.inf
    assert np.isnan(fit.bse.loc["a[T.B]", "r"])
    assert np.isnan(fit.pvalues.loc["a[T.B]", "r"])
    assert fit.cov_params()["r:a[T.B]"].isna().all()
    # of a model of levels alone, probabilities are shares; p and q at level B are told apart by their own rows
    shares = pd.crosstab(data.a, data.y, normalize="index")
    np.testing.assert_allclose(fit.predict(pd.DataFrame({"a": list("ABCD")})), shares, rtol=SAME)
    counts = pd.crosstab(data.a, data.y)
    error = np.sqrt((1 / counts.loc[["A", "B"], ["p", "q"]]).to_numpy().sum())
    assert fit.bse.loc["a[T.B]", "q"] == pytest.approx(error, rel=SAME)
    logs = np.log(shares.to_numpy(), out=np.zeros(shares.shape), where=shares.to_numpy() > 0)
    assert fit.llf == pytest.approx(float((counts.to_numpy() * logs).sum()), rel=SUMS)
    assert fit.record.statistics.rank == 7
    assert (fit.nobs, fit.df_resid) == (len(data), 2 * len(data) - 7)


def test_a_reference_that_never_occurs_moves_all_others() -> None:
    fit = quietly("y ~ x + a", frame(), family="multinomial")
    assert fit.separated == ("q:a[T.C]", "r:a[T.B]", "r:a[T.C]")
    assert fit.params.loc["a[T.C]"].tolist() == [np.inf, np.inf]
    assert fit.params.loc["a[T.B]", "r"] == -np.inf
    new = pd.DataFrame({"x": [0.3, -1.0, 0.5], "a": ["C", "B", "A"]})
    chance = fit.predict(new)
    assert chance["p"].tolist()[0] == chance["r"].tolist()[1] == 0.0
    np.testing.assert_allclose(chance.sum(axis=1), 1.0, rtol=SUMS)
    link = fit.predict(new, "link")
    assert link["q"].tolist()[0] == link["r"].tolist()[0] == np.inf
    assert link["r"].tolist()[1] == -np.inf
    assert np.isfinite(link.to_numpy()[2]).all()


def test_a_baseline_without_a_class_says_so() -> None:
    data = frame().assign(a=lambda d: d.a.map({"A": "B", "B": "A", "C": "D", "D": "C"}))
    fit = quietly("y ~ a + x", data, family="multinomial")
    assert fit.params["r"].tolist()[:4] == [-np.inf, np.inf, np.inf, np.inf]
    assert "class r does not occur at the baseline a[A]" in str(fit.summary())
    # only sums are told, and predictions know them
    other = quietly("y ~ C(a, Treatment('B')) + x", data, family="multinomial")
    np.testing.assert_allclose(fit.predict(data), other.predict(data), rtol=SAME, atol=1e-300)
    assert fit.llf == pytest.approx(other.llf, rel=SUMS)
    assert fit.record.statistics.rank == other.record.statistics.rank
    np.testing.assert_allclose(
        fit.predict(data, se=True).filter(like="se["),
        other.predict(data, se=True).filter(like="se["),
        rtol=1e-6,
        atol=1e-12,
    )


def test_levels_with_one_class_alone_say_nothing_else() -> None:
    """All that is left is the fit without their rows, but for what counts rows."""
    data = frame()
    data.loc[data.a == "D", "y"] = "q"
    fit = quietly("y ~ x + a", data, family="multinomial")
    rest = quietly("y ~ x + a", data[data.a != "D"], family="multinomial")
    assert fit.params.loc["a[T.D]"].tolist() == [np.inf, -np.inf]
    names = list(rest.params.index)
    np.testing.assert_allclose(fit.params.loc[names], rest.params, rtol=SAME)
    np.testing.assert_allclose(fit.bse.loc[names], rest.bse, rtol=SAME)
    for name in ("deviance", "llf", "pearson_chi2"):
        assert getattr(fit, name) == pytest.approx(getattr(rest, name), rel=SUMS), name
    assert fit.nobs == len(data)


def test_ordered_levels_of_the_lowest_and_of_the_highest_class() -> None:
    data = graded()
    with pytest.warns(SeparationWarning, match=r"for a\[T.B\], a\[T.D\]: "):
        fit = dg.glm("y ~ x + a", data, family="ordinal")
    inside = data[data.a.isin(["A", "C"])]
    rest = dg.glm("y ~ x + a", inside, family="ordinal")
    assert fit.params[["a[T.B]", "a[T.D]"]].tolist() == [-np.inf, np.inf]
    names = list(rest.params.index)
    np.testing.assert_allclose(fit.params[names], rest.params, rtol=SAME)
    np.testing.assert_allclose(fit.bse[names], rest.bse, rtol=SAME)
    assert fit.llf == pytest.approx(rest.llf, rel=SUMS)
    chance = fit.predict(pd.DataFrame({"x": [0.0, 0.0], "a": ["B", "D"]}), se=True, interval="confidence")
    assert chance[["low", "middle", "high"]].to_numpy().tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert not chance.filter(like="se[").to_numpy().any()
    for end in ("lower", "upper"):
        assert chance.filter(like=f"{end}[").to_numpy().tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert fit.predict(pd.DataFrame({"x": [0.0, 0.0], "a": ["B", "D"]}), "link").tolist() == [-np.inf, np.inf]


def test_an_ordered_baseline_at_its_limit_says_so() -> None:
    data = graded().assign(a=lambda d: d.a.map({"A": "B", "B": "A", "C": "C", "D": "D"}))
    fit = quietly("y ~ a + x", data, family="ordinal")
    assert "every row of the baseline a[A] is of class low" in str(fit.summary())
    assert fit.params.tolist()[:3] == [np.inf] * 3
    assert fit.params.tolist()[-2:] == [np.inf] * 2
    other = quietly("y ~ C(a, Treatment('B')) + x", data, family="ordinal")
    np.testing.assert_allclose(fit.predict(data), other.predict(data), rtol=SAME, atol=1e-300)


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_classes_told_apart_completely(family: str) -> None:
    x = np.arange(-30.0, 30.0)
    codes = np.searchsorted([-10.0, 12.0], x, side="right")
    data = pd.DataFrame({"x": x, "y": pd.Categorical.from_codes(codes, list("pqr"), ordered=family == "ordinal")})
    fit = quietly("y ~ x", data, family=family)
    assert np.isinf(fit.params.to_numpy()).all()
    assert np.isnan(fit.bse.to_numpy()).all()
    assert (fit.deviance, fit.llf, fit.record.statistics.rank) == (0.0, 0.0, 0)
    assert fit.converged
    assert "every row is at its limit" in str(fit.summary())
    expected = np.eye(3)[codes]
    np.testing.assert_array_equal(fit.predict(data), expected)
    beyond = fit.predict(pd.DataFrame({"x": [-1e6, 0.0, 1e6]}))
    np.testing.assert_array_equal(beyond, np.eye(3))


def test_a_variable_that_tells_one_class_from_two_others() -> None:
    """What is left between the two is their own binomial model."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=300)
    y = np.where(x > 0.4, 2, rng.random(300) < 1.0 / (1.0 + np.exp(-x)))
    data = pd.DataFrame({"x": x, "y": pd.Categorical.from_codes(y.astype(int), list("pqr"))})
    fit = quietly("y ~ x", data, family="multinomial")
    two = only(data, ["p", "q"])
    rest = dg.glm("y ~ x", two.assign(y=two.y.astype(str)), family="binomial")
    assert fit.params["r"].tolist() == [-np.inf, np.inf]
    np.testing.assert_allclose(fit.params["q"], rest.params, rtol=SAME)
    np.testing.assert_allclose(fit.bse["q"], rest.bse, rtol=SAME)
    assert fit.llf == pytest.approx(rest.llf, rel=SUMS)
    low, high = x[x <= 0.4].max(), x[x > 0.4].min()
    chance = fit.predict(pd.DataFrame({"x": [low - 0.1, high + 0.1]}))
    assert chance["r"].tolist() == [0.0, 1.0]
    assert chance["p"].tolist()[0] == pytest.approx(
        1.0 - float(rest.predict(pd.DataFrame({"x": [low - 0.1]}))[0]), rel=SAME
    )


def test_two_classes_are_the_binomial_model() -> None:
    data = only(frame(), ["p", "q"])
    data.loc[data.a == "B", "y"] = "p"
    data.loc[data.a == "D", "y"] = "q"
    one = quietly("y ~ x + a", data, family="multinomial")
    other = quietly("y ~ x + a", data.assign(y=data.y.astype(str)), family="binomial")
    assert one.params["q"].tolist() == pytest.approx(other.params.tolist(), rel=SAME)
    np.testing.assert_allclose(one.bse["q"], other.bse, rtol=SAME)
    assert one.llf == pytest.approx(other.llf, rel=SUMS)
    np.testing.assert_allclose(one.predict(data)["q"], other.predict(data), rtol=SAME)
    ordered = quietly("y ~ x + a", data.assign(y=data.y.cat.as_ordered()), family="ordinal")
    np.testing.assert_allclose(ordered.predict(data)["q"], other.predict(data), rtol=SAME)


def test_frequencies_stand_for_rows_written_out() -> None:
    data = frame()
    long = data.loc[data.index.repeat(data.w)]
    one = quietly("y ~ x + a", data, family="multinomial", weights=dg.Frequency("w"))
    other = quietly("y ~ x + a", long, family="multinomial")
    np.testing.assert_allclose(one.params, other.params, rtol=SAME)
    np.testing.assert_allclose(one.bse, other.bse, rtol=SAME)
    assert one.llf == pytest.approx(other.llf, rel=SUMS)


@pytest.mark.parametrize("covariance", ["observed", "HC0", "HC1"])
def test_other_covariances_at_the_limit(covariance: str) -> None:
    """Those of the fit without the rows that have no choice left, where no other rows are limited."""
    data = graded()
    fit = quietly("y ~ x + a", data, family="ordinal", covariance=covariance)
    rest = dg.glm("y ~ x + a", data[data.a.isin(["A", "C"])], family="ordinal", covariance=covariance)
    factor = 1.0
    if covariance == "HC1":
        n, m, k = len(data), int(rest.nobs), rest.record.statistics.rank
        factor = np.sqrt(n / (n - k) / (m / (m - k)))
    names = list(rest.params.index)
    np.testing.assert_allclose(fit.bse[names], factor * rest.bse, rtol=SAME)


def test_sparse_columns_that_are_zero_for_a_class() -> None:
    data = frame()
    codes = data.y.cat.codes.to_numpy()
    columns = np.column_stack([data.a == level for level in "BCD"]).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeparationWarning)
        sparse = dg.glm(X=csr_array(columns), y=codes, family="multinomial")
    dense = quietly("y ~ a", data, family="multinomial")
    assert len(sparse.separated) == len(dense.separated) == 3
    np.testing.assert_allclose(sparse.params.to_numpy(), dense.params.to_numpy(), rtol=SAME)
    assert sparse.n_passes == dense.n_passes


def test_aliased_columns_stay_aliased() -> None:
    data = frame().assign(c=lambda d: d.a.map({"A": "u", "B": "u", "C": "v", "D": "w"}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = dg.glm("y ~ a + c + x", data, family="multinomial")
    rest = quietly("y ~ a + x", data, family="multinomial")
    assert fit.aliased == ("q:c[T.v]", "q:c[T.w]", "r:c[T.v]", "r:c[T.w]")
    assert fit.separated == rest.separated
    np.testing.assert_allclose(fit.params.loc[rest.params.index], rest.params, rtol=SAME)
    np.testing.assert_allclose(fit.predict(data), rest.predict(data), rtol=SAME, atol=1e-300)


# -- predictions, files, other faces -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_a_saved_model_predicts_the_same_bits(family: str, tmp_path: Path) -> None:
    data = frame() if family == "multinomial" else graded()
    fit = quietly("y ~ x + a", data, family=family)
    fit.save(tmp_path / "model")
    again = dg.load(tmp_path / "model")
    assert bits(again.record) == bits(fit.record)
    assert again.separated == fit.separated
    for options in ({"se": True, "interval": "confidence"}, {"type": "link"}):
        one, other = fit.predict(data, **options), again.predict(data, **options)
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other), check_exact=True)
    assert str(again.summary()) == str(fit.summary())


def test_errors_of_predictions_are_those_of_the_classes_that_are_left() -> None:
    """By the delta method from the covariance of what is estimated, with numerical derivatives."""
    data = frame()
    fit = quietly("y ~ x + a", data, family="multinomial")
    new = pd.DataFrame({"x": [0.4, -0.6], "a": ["B", "A"]})
    found = fit.predict(new, se=True, interval="confidence")
    record = fit.record
    finite, covariance = record.finite, record.scale.covariance(record.working.covariance)
    names = list(record.names)
    x = {0: {"Intercept": 1.0, "x": 0.4, "a[T.B]": 1.0}, 1: {"Intercept": 1.0, "x": -0.6}}
    for i, left in ((0, "pq"), (1, "pqr")):

        def chance(
            b: npt.NDArray[np.float64], row: dict[str, float] = x[i], left: str = left
        ) -> npt.NDArray[np.float64]:
            eta = {
                k: sum(b[names.index(f"{k}:{name}")] * v for name, v in row.items()) if k != "p" else 0.0 for k in "pqr"
            }
            up = np.array([np.exp(eta[k]) if k in left else 0.0 for k in "pqr"])
            return up / up.sum()

        np.testing.assert_allclose(found.loc[i, ["p", "q", "r"]].astype(float), chance(finite), rtol=SAME, atol=1e-300)
        steps = np.eye(finite.size) * 1e-5
        jacobian = np.array([(chance(finite + h) - chance(finite - h)) / 2e-5 for h in steps])
        error = np.sqrt(np.einsum("jk,jl,lk->k", jacobian, covariance, jacobian))
        np.testing.assert_allclose(
            found.loc[i, ["se[p]", "se[q]", "se[r]"]].astype(float), error, rtol=1e-6, atol=1e-12
        )
    assert found.loc[0, ["lower[r]", "upper[r]", "se[r]"]].tolist() == [0.0, 0.0, 0.0]
    assert found.loc[0, "lower[q]"] < found.loc[0, "q"] < found.loc[0, "upper[q]"]


def test_the_summary_prints_what_is_infinite() -> None:
    text = str(quietly("y ~ x + a", frame(), family="multinomial").summary())
    line = next(line for line in text.splitlines() if line.startswith("r:a[T.B]"))
    assert line.split()[1:] == ["-inf", "NA", "NA", "NA"]
    assert "No finite estimate: q:a[T.C], r:a[T.B], r:a[T.C]; 195 row(s) are fitted at the limit" in text


def write(path: Path, data: pd.DataFrame, files: int = 4) -> str:
    path.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(data)), files)):
        pq.write_table(pa.Table.from_pandas(data.iloc[part], preserve_index=False), path / f"{number}.parquet")
    return str(path)


@pytest.mark.filterwarnings("ignore::daskglm.errors.SeparationWarning", "ignore::daskglm.errors.AliasWarning")
@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
@pytest.mark.parametrize("keep", KEEPS)
def test_the_same_bits_however_the_work_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, keep: str
) -> None:
    """Counts, a certificate of steps and the limit."""
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    data = (frame() if family == "multinomial" else graded()).reset_index(drop=True)
    # a variable that tells classes apart, at one level alone
    inside, k = np.flatnonzero(data.a == "C"), data.y.cat.categories
    data.loc[inside, "y"] = np.where(data.x[inside] > 0.2, k[-1], k[0])
    lake = write(tmp_path / "lake", data.assign(y=data.y.astype(str)))
    classes = {"multinomial": dg.families.Multinomial, "ordinal": dg.families.Ordinal}[family](levels=list(k))
    options: dict[str, Any] = {"formula": "y ~ a*x", "family": classes}
    expected = fitted(lake, Engine(1, None, 1), **options)
    assert expected.separation is not None
    assert len(expected.separation.directions) > 1
    assert {"ordinal": "a[T.C]:x", "multinomial": "r:a[T.C]:x"}[family] in expected.separated
    for threads, leaves in ((1, 64), (2, 2), (3, None)):
        assert bits(fitted(lake, Engine(threads, None, leaves), keep, **options)) == bits(expected)


# -- what it costs -------------------------------------------------------------------------------------------------------


def test_a_rare_class_and_many_levels_take_few_passes() -> None:
    """Nearly every level misses the rare class; counts see it in the pass that is made anyway."""
    rng = np.random.default_rng(9)
    n = 20_000
    level = rng.choice(60, n, p=1.0 / np.arange(1, 61) / np.sum(1.0 / np.arange(1, 61)))
    x = rng.normal(size=(n, 2))
    eta = np.column_stack([np.zeros(n), -1.0 + 0.3 * x[:, 0], -2.0 - 0.2 * x[:, 1], np.full(n, -5.5)])
    y = np.argmax(eta + rng.gumbel(size=eta.shape), axis=1)
    data = pd.DataFrame({"x": x[:, 0], "z": x[:, 1], "level": [f"l{k:02d}" for k in level]})
    data["y"] = pd.Categorical.from_codes(y, ["none", "one", "two", "three"])
    fit = quietly("y ~ x + z + level", data, family="multinomial")
    empty = pd.crosstab(data.level, data.y) == 0
    expected = {
        f"{k}:level[T.{name}]" for k in ("one", "two", "three") for name in empty.index[1:] if empty.loc[name, k]
    }
    assert set(fit.separated) == expected
    assert len(expected) > 20
    assert fit.n_passes <= FEW
    assert fit.converged


# -- raise, drop, firth --------------------------------------------------------------------------------------------------


def test_raise_names_the_coefficients() -> None:
    with pytest.raises(
        SolverError, match=r"for q:a\[T.C\], r:a\[T.B\], r:a\[T.C\]: .* in 195 row\(s\).*join levels or classes"
    ):
        dg.glm("y ~ x + a", frame(), family="multinomial", separation="raise")
    x = np.arange(-30.0, 30.0)
    data = pd.DataFrame(
        {"x": x, "y": pd.Categorical.from_codes(np.searchsorted([-9.5, 12.5], x), list("pqr"), ordered=True)}
    )
    with pytest.raises(SolverError, match=r"for x, p\|q, q\|r: .* in 60 row\(s\)"):
        dg.glm("y ~ x", data, family="ordinal", separation="raise")


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
@pytest.mark.parametrize("separation", ["drop", "firth"])
def test_what_classes_have_not(family: str, separation: str) -> None:
    with pytest.raises(DesignError, match=f'separation="{separation}" .*use separation="limit"'):
        dg.glm("y ~ x", frame(), family=family, separation=separation)
