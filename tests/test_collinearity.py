"""Collinearity from the covariance: what it names, what it leaves out, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.errors import AliasWarning, DesignError

# From a covariance of some columns, rounding and the condition of it.
SUMS = 1e-8


def table(n: int = 400, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 3)), columns=["a", "b", "c"])
    frame["d"] = 2.0 * frame.a - 3.0 * frame.b + 1e-3 * rng.normal(size=n)
    frame["area"] = rng.choice(["A", "B", "C"], n)
    frame["w"] = rng.uniform(0.5, 2.0, n)
    frame["y"] = frame.a + frame.c + rng.normal(size=n)
    frame["n"] = rng.poisson(np.exp(0.2 + 0.3 * frame.a))
    frame["rating"] = pd.cut(frame.y, [-np.inf, -0.5, 0.8, np.inf], labels=["low", "middle", "high"])
    return frame


def test_a_combination_is_named() -> None:
    found = dg.glm("y ~ a + b + c + d", table()).collinearity()
    assert len(found.combinations) == 1
    only = found.combinations[0]
    assert only.name == "d"
    assert set(only.parts) == {"a", "b"}
    assert only.parts["a"] == pytest.approx(2.0, abs=1e-3)
    assert only.parts["b"] == pytest.approx(-3.0, abs=1e-3)
    assert set(only.involved) == {"a", "b", "d"}
    assert only.condition_index == found.condition_number > 30.0
    assert str(only).startswith("d is nearly ")
    assert str(only) in str(found)
    assert list(found.table.columns) == ["condition_index", *found.names]


def test_orthogonal_columns_have_nothing_to_say() -> None:
    rows = [(1.0, s, t, s * t) for s in (-1.0, 1.0) for t in (-1.0, 1.0)] * 10
    frame = pd.DataFrame(rows, columns=["one", "a", "b", "c"]).assign(y=np.arange(40.0) ** 1.5)
    fit = dg.glm("y ~ a + b + c", frame)
    assert np.allclose(fit.vif()["vif"], 1.0, rtol=0, atol=SUMS)
    found = fit.collinearity()
    assert np.allclose(found.indices, 1.0, rtol=0, atol=SUMS)
    assert not found.combinations
    assert "No combination" in str(found)


def test_a_factor_of_inflation_is_that_of_a_regression_on_the_others() -> None:
    """1 / (1 - R^2) of least squares, the definition for one column."""
    frame = table()
    fit = dg.glm("y ~ a + b + c + d", frame)
    for name in "abcd":
        others = [other for other in "abcd" if other != name]
        again = dg.glm(f"{name} ~ {' + '.join(others)}", frame)
        expected = again.null_deviance / again.deviance
        assert fit.vif().loc[name, "vif"] == pytest.approx(expected, rel=SUMS * expected)


def test_scaling_a_column_or_recoding_a_factor_changes_nothing() -> None:
    frame = table()
    frame["larger"] = 1e5 * frame.d
    one = dg.glm("y ~ a + b + area + d", frame).vif()
    other = dg.glm('y ~ a + b + C(area, Treatment("C")) + larger', frame).vif()
    # the covariance of nearly collinear columns has lost as many digits as the factor has
    accuracy = 1e-14 * one["vif"].max() * 100
    assert np.allclose(other["gvif"], one["gvif"], rtol=max(accuracy, SUMS))
    assert one.loc["area[T.B]", "df"] == 2


@pytest.mark.parametrize("covariance", ["HC0", "HC1"])
def test_a_robust_covariance_is_no_information(covariance: str) -> None:
    fit = dg.glm("y ~ a + b", table(), covariance=covariance)
    with pytest.raises(DesignError, match=r"vif\(data\) reads the rows"):
        fit.vif()
    with pytest.raises(DesignError, match=r"collinearity\(data\) reads the rows"):
        fit.collinearity()


def test_data_that_are_not_needed_are_refused() -> None:
    fit = dg.glm("y ~ a + b", table())
    with pytest.raises(DesignError, match="needs no data"):
        fit.vif(table())


def test_weights_of_samples_have_a_covariance_of_their_own() -> None:
    fit = dg.glm("y ~ a + b", table(), weights=dg.Probability("w"))
    with pytest.raises(DesignError, match="linearised for probability weights"):
        fit.vif()


def test_aliased_columns_have_no_factor() -> None:
    frame = table().assign(e=lambda rows: rows.a + rows.c)
    with pytest.warns(AliasWarning):
        fit = dg.glm("y ~ a + b + c + e", frame)
    found = fit.vif()
    assert np.isnan(found.loc["e", "vif"])
    assert np.isfinite(found.loc[["a", "b", "c"], "vif"]).all()
    assert "e" not in fit.collinearity().names


def test_ordered_classes_are_judged_by_their_slopes() -> None:
    fit = dg.glm("rating ~ a + b + c + d", table(), family="ordinal")
    assert list(fit.vif().index) == ["a", "b", "c", "d"]
    assert fit.vif().loc["d", "vif"] > 100.0
    assert fit.collinearity().combinations[0].name == "d"


def test_classes_have_no_factors_and_a_collinearity() -> None:
    fit = dg.glm("rating ~ a + b + d", table(), family="multinomial")
    with pytest.raises(DesignError, match="linear predictor for each class"):
        fit.vif()
    assert fit.collinearity().condition_number > 30.0


def test_one_term_alone() -> None:
    assert dg.glm("n ~ a", table(), family="poisson").vif().loc["a", "vif"] == pytest.approx(1.0, rel=1e-12)
    assert dg.glm("n ~ 1", table(), family="poisson").vif().empty


def test_saved_and_loaded(tmp_path) -> None:  # type: ignore[no-untyped-def]
    fit = dg.glm("n ~ a + b + d + area", table(), family="poisson")
    fit.save(tmp_path / "model")
    back = dg.load(tmp_path / "model")
    pd.testing.assert_frame_equal(back.vif(), fit.vif(), check_exact=True)
    assert str(back.collinearity()) == str(fit.collinearity())
