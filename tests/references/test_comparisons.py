"""Analysis of deviance, deletions, score tests, likelihood ratios and stepwise paths against R, car, lmtest and MASS."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg

from .cases import EXACT

HERE = Path(__file__).parent
R: dict[str, Any] = json.loads((HERE / "comparisons.json").read_text())
# R refits to 1e-15 in deviance, of which differences lose some digits; MASS's theta is good to about 1e-8.
CLOSE = 1e-7
# polr and multinom stop at a relative change of 1e-15, which leaves 1e-7 of a deviance's difference.
STOPPED = 1e-5
SMALL = 1e-9


def data_of(case: dict[str, Any]) -> pd.DataFrame:
    return pd.read_csv(HERE / "data" / case["data"], **EXACT)


def fitted(case: dict[str, Any], formula: str) -> dg.Fit:
    weights = None if case["weights"] is None else dg.Variance(case["weights"]["column"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.AliasWarning)
        return dg.glm(formula, data_of(case), family=case["family"], link=case["link"], weights=weights)


def same(found: pd.DataFrame, expected: dict[str, Any], tolerance: float = CLOSE) -> None:
    """Row by row, whatever the order of the variables in a term's name."""
    by_term = {frozenset(name.split(":")): number for number, name in enumerate(found.index)}
    order = [by_term[frozenset(name.replace(" ", "").split(":"))] for name in expected["terms"]]
    assert len(order) == len(found)
    rows = found.iloc[order]
    for column in set(expected) - {"terms"}:
        values = np.array(expected[column], float)
        np.testing.assert_allclose(rows[column].to_numpy(), values, rtol=tolerance, atol=SMALL, err_msg=column)


CASES = pytest.mark.parametrize("case", R["cases"], ids=lambda case: case["name"])


@CASES
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_anova(case: dict[str, Any], kind: int) -> None:
    table = fitted(case, case["formula"]).anova(data_of(case), kind)
    assert list(table.columns) == ["df", "deviance", "resid_df", "resid_dev", "stat", "pvalue"]
    same(table, case[f"anova{kind}"])


@CASES
def test_drop1(case: dict[str, Any]) -> None:
    table = fitted(case, case["formula"]).drop1(data_of(case))
    assert list(table.columns) == ["df", "deviance", "aic", "stat", "pvalue"]
    expected = case["drop1"]
    if case["family"] == "negative_binomial":
        # extractAIC.negbin leaves theta out of the count that AIC has it in
        expected = expected | {"aic": [value + 2.0 for value in expected["aic"]]}
    same(table, expected)


@pytest.mark.parametrize("case", [c for c in R["cases"] if c["base"]], ids=lambda case: case["name"])
def test_add1(case: dict[str, Any]) -> None:
    data = data_of(case)
    base = fitted(case, case["base"])
    table = base.add1(data, f"~ . + {case['scope']}")
    assert table.attrs["passes"] == 1
    # R leaves out interactions whose margins are not in the model yet
    tested = table[
        [frozenset(n.split(":")) in {frozenset(t.split(":")) for t in case["add1"]["terms"]} for n in table.index]
    ]
    same(tested, case["add1"])
    pd.testing.assert_frame_equal(base.score_test(list(table.index), data), table)


def test_classes() -> None:
    data = pd.read_csv(HERE / "data" / "housing.csv", **EXACT)
    data["Sat"] = pd.Categorical(data["Sat"], ["Low", "Medium", "High"], ordered=True)
    for kind in (2, 3):
        fit = dg.glm("Sat ~ Infl*Type + Cont", data, family="ordinal", weights=dg.Frequency("Freq"))
        same(fit.anova(data, kind), R["classes"][f"ordinal{kind}"], STOPPED)
    fit = dg.glm("Sat ~ Infl*Type + Cont", data, family="multinomial", weights=dg.Frequency("Freq"))
    np.testing.assert_allclose(fit.anova(data)["deviance"], R["classes"]["multinomial1"], rtol=STOPPED)


def days() -> pd.DataFrame:
    table = pd.read_csv(HERE / "data" / "quine.csv", **EXACT)
    return table.assign(More=lambda d: d["Days"] + 1)


@pytest.mark.parametrize(
    ("name", "family", "response"),
    [("negbin", "negative_binomial", "Days"), ("poisson", "poisson", "Days"), ("gamma", "gamma", "More")],
)
def test_likelihood_ratio(name: str, family: str, response: str) -> None:
    data = days()
    one = dg.glm(f"{response} ~ Eth + Sex", data, family=family)
    two = dg.glm(f"{response} ~ Eth*Sex + Lrn", data, family=family)
    expected = R["pairs"][name]
    for found in (one.lr_test(two), two.lr_test(one)):
        assert found.statistic == pytest.approx(expected["stat"], rel=CLOSE)
        assert found.df == expected["df"]
        assert found.pvalue == pytest.approx(expected["pvalue"], rel=CLOSE)


@pytest.mark.parametrize("family", ["poisson", "gamma", "gaussian", "inverse_gaussian"])
def test_log_likelihood_of_the_null_model(family: str) -> None:
    from daskglm.postestimation.criteria import null_llf

    response = "More" if family in ("gamma", "inverse_gaussian") else "Days"
    fit = dg.glm(f"{response} ~ Eth*Sex + Lrn", days(), family=family)
    assert null_llf(fit.record) == pytest.approx(R["nulls"][family], rel=1e-12)
    share = 1.0 - np.exp(2.0 * (R["nulls"][family] - fit.llf) / fit.nobs)
    assert fit.r2("cox_snell") == pytest.approx(share, rel=1e-10)


@pytest.mark.parametrize("name", R["paths"])
def test_step(name: str) -> None:
    low = "low ~ age + lwt + smoke + ht + ui + smoke:lwt"
    swiss = "Fertility ~ Agriculture + Examination + Education + Catholic + Infant_Mortality"
    formula, scope, options = {
        "swiss_backward": (swiss, None, {}),
        "swiss_forward": ("Fertility ~ 1", swiss, {"direction": "forward"}),
        "low_backward": (low, None, {}),
        "low_both": ("low ~ 1", low, {}),
        "low_bic": (low, None, {"criterion": "bic"}),
    }[name]
    data = pd.read_csv(HERE / "data" / ("swiss.csv" if "swiss" in name else "birthwt.csv"), **EXACT)
    family = "gaussian" if "swiss" in name else "binomial"
    found = dg.glm(formula, data, family=family).step(data, scope=scope, **options)
    expected = R["paths"][name]
    assert [text.replace("smoke:lwt", "lwt:smoke") for text in found.path["step"]] == expected["steps"]
    np.testing.assert_allclose(found.path["resid_dev"], expected["resid_dev"], rtol=1e-10)
    # R leaves constants out of the criterion of a gaussian model
    value = found.path["bic" if name == "low_bic" else "aic"].to_numpy()
    np.testing.assert_allclose(np.diff(value), np.diff(expected["aic"]), rtol=CLOSE, atol=SMALL)
    assert found.fit.deviance == pytest.approx(expected["resid_dev"][-1], rel=1e-10)
