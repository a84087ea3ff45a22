"""Wald tests against the formula written out, and against refits for a single restriction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import daskglm as dg
from daskglm.errors import DesignError

EXACT = 1e-10


@pytest.fixture(scope="module")
def fits() -> dict[str, dg.Fit]:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": rng.normal(size=300), "z": rng.normal(size=300), "a": rng.choice(list("pqr"), size=300)})
    data["y"] = rng.poisson(np.exp(0.2 * data["x"] + 0.3 * (data["a"] == "q")))
    return {family: dg.glm("y ~ x + z + a", data, family=family) for family in ("poisson", "gaussian")}


@pytest.mark.parametrize(
    ("hypothesis", "matrix", "value"),
    [
        ("x = 0", [[0, 1, 0, 0, 0]], [0]),
        (["x", "z"], [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], [0, 0]),
        ("a[T.q] = a[T.r], x = 0.5", [[0, 0, 0, 1, -1], [0, 1, 0, 0, 0]], [0, 0.5]),
        ("2*x - z/2 + 1 = a[T.q]", [[0, 2, -0.5, -1, 0]], [-1]),
        ("a", [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]], [0, 0]),
        ("a, x = 1", [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]], [0, 0, 1]),
        (["a", "z"], [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 1, 0, 0]], [0, 0, 0]),
        (np.eye(5)[1:3], [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], [0, 0]),
    ],
)
@pytest.mark.parametrize("family", ["poisson", "gaussian"])
def test_wald(
    fits: dict[str, dg.Fit], family: str, hypothesis: object, matrix: list[list[float]], value: list[float]
) -> None:
    fit = fits[family]
    left = np.array(matrix, float)
    difference = left @ fit.params.to_numpy() - np.array(value)
    amount = difference @ np.linalg.inv(left @ fit.cov_params().to_numpy() @ left.T) @ difference
    found = fit.wald_test(hypothesis)
    if family == "poisson":
        assert found.statistic == pytest.approx(amount, rel=EXACT)
        assert found.pvalue == pytest.approx(stats.chi2.sf(amount, len(left)), rel=EXACT)
    else:
        assert found.statistic == pytest.approx(amount / len(left), rel=EXACT)
        assert found.pvalue == pytest.approx(stats.f.sf(amount / len(left), len(left), fit.df_resid), rel=EXACT)


def test_a_single_coefficient_is_the_square_of_its_own_test(fits: dict[str, dg.Fit]) -> None:
    fit = fits["gaussian"]
    assert fit.wald_test("x").statistic == pytest.approx(fit.tvalues["x"] ** 2, rel=EXACT)
    assert fit.wald_test("x").pvalue == pytest.approx(fit.pvalues["x"], rel=1e-8)


def test_a_term_is_tested_by_its_estimated_coefficients() -> None:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"a": rng.choice(list("pqrs"), size=200), "x": rng.normal(size=200)})
    data["b"] = np.where(data["a"] == "s", "v", "u")
    data["y"] = data["x"] + rng.normal(size=200)
    with pytest.warns(dg.errors.AliasWarning):
        fit = dg.glm("y ~ b + a + a:x", data)
    found = fit.wald_test("a")
    assert found.df == 2
    assert found.statistic == pytest.approx(fit.wald_test(["a[T.q]", "a[T.r]"]).statistic)
    term = fit.record.parameters.term_of[-1]
    assert fit.wald_test(term).df == 4
    with pytest.raises(DesignError, match="not a parameter or term"):
        fit.wald_test("A")


@pytest.mark.parametrize(
    ("hypothesis", "said"),
    [
        ("w = 0", "not a parameter"),
        ("x*z = 0", "not linear"),
        ("x = 0, 2*x = 0", "not independent"),
        ("x == ", "cannot read"),
    ],
)
def test_refusals(fits: dict[str, dg.Fit], hypothesis: str, said: str) -> None:
    with pytest.raises(dg.errors.DesignError, match=said):
        fits["poisson"].wald_test(hypothesis)


def test_what_cannot_be_tested_is_named() -> None:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"x": rng.normal(size=200), "a": rng.choice(list("pqr"), 200)})
    data["y"] = np.where(data["a"] == "r", 0, rng.poisson(2.0, 200))
    with pytest.warns(dg.errors.SeparationWarning):
        separated = dg.glm("y ~ x + a", data, family="poisson")
    with pytest.raises(DesignError, match=r"infinite coefficient \(separated\), .*: a\[T.r\]"):
        separated.wald_test("a[T.r] = 0")
    with pytest.warns(dg.errors.AliasWarning):
        aliased = dg.glm("y ~ x + I(2*x)", data, family="poisson")
    with pytest.raises(DesignError, match=r"\(aliased\): I\(2 \* x\)|\(aliased\): I\(2\*x\)"):
        aliased.wald_test(np.eye(3)[2:])
    with pytest.raises(DesignError, match="not independent"):
        separated.wald_test("x = 0, 2*x = 0")
    with pytest.raises(DesignError, match="empty"):
        separated.wald_test("")


def test_scales_of_columns_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"x": rng.normal(size=200), "z": rng.normal(size=200)})
    data["y"] = rng.poisson(np.exp(0.2 * data["x"]))
    data["far"] = data["x"] * 1e11
    plain = dg.glm("y ~ x + z", data, family="poisson").wald_test("x, z")
    scaled = dg.glm("y ~ far + z", data, family="poisson").wald_test("far, z")
    assert scaled.statistic == pytest.approx(plain.statistic, rel=1e-9)


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_responses_of_classes(family: str) -> None:
    rng = np.random.default_rng(7)
    data = pd.DataFrame({"x": rng.normal(size=300), "y": rng.choice(["high", "low", "mid"], 300)})
    fit = dg.glm("y ~ x", data, family=family)
    names = [name for name in fit.cov_params().index if name.endswith("x")]
    covariance = fit.cov_params().loc[names, names].to_numpy()
    values = np.asarray(fit.params.loc["x"], float).ravel()
    found = fit.wald_test(", ".join(f"{name} = 0" for name in names))
    assert found.statistic == pytest.approx(values @ np.linalg.solve(covariance, values), rel=EXACT)
    assert fit.wald_test(names).pvalue == found.pvalue
