"""Tests and tables of fit against R's definitions: Hosmer-Lemeshow, Dean, Cameron and Trivedi, rootograms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg

from .cases import HERE, lake

CASES: dict[str, list[dict[str, Any]]] = json.loads((Path(HERE) / "checks.json").read_text())
# Both fits are exact to a squared distance of 1e-12 standard errors or better; sums of squares follow to its root.
SAME = 1e-7


def written(case: dict[str, Any], folder: Path, files: int) -> Path:
    return lake({**case, "data": f"{case['data']}.csv"}, folder, files)


@pytest.mark.parametrize("files", [1, 7])
@pytest.mark.parametrize("case", CASES["hosmer_lemeshow"], ids=lambda case: f"{case['data']}{case['groups']}")
def test_hosmer_lemeshow(case: dict[str, Any], files: int, tmp_path: Path) -> None:
    data = written(case, tmp_path, files)
    fit = dg.glm(case["formula"], data, family="binomial", progress=False)
    found = fit.hosmer_lemeshow(data, groups=case["groups"])
    assert found["stat"] == pytest.approx(case["stat"], rel=SAME)
    assert found["df"] == case["df"]
    assert found["pvalue"] == pytest.approx(case["pvalue"], rel=SAME)
    groups = fit.check(data, groups=case["groups"]).hosmer_lemeshow
    np.testing.assert_array_equal(groups["actual"], case["observed"])
    np.testing.assert_allclose(groups["expected"], case["expected"], rtol=SAME)


@pytest.mark.parametrize("files", [1, 7])
@pytest.mark.parametrize("case", CASES["overdispersion"], ids=lambda case: case["data"])
def test_overdispersion(case: dict[str, Any], files: int, tmp_path: Path) -> None:
    data = written(case, tmp_path, files)
    found = dg.glm(case["formula"], data, family="poisson", progress=False).overdispersion(data)
    np.testing.assert_allclose(found["stat"].iloc[2:], case["stat"], rtol=SAME)
    np.testing.assert_allclose(found["estimate"].iloc[4:], case["estimate"], rtol=SAME)
    # a relative error of a tail grows with the square of its statistic
    np.testing.assert_allclose(found["pvalue"].iloc[2:], case["pvalue"], rtol=1e3 * SAME)
    np.testing.assert_allclose(found["estimate"].iloc[:2], [case["pearson"], case["deviance"]], rtol=SAME)


@pytest.mark.parametrize("files", [1, 7])
@pytest.mark.parametrize("case", CASES["rootogram"], ids=lambda case: case["data"])
def test_rootogram(case: dict[str, Any], files: int, tmp_path: Path) -> None:
    data = written(case, tmp_path, files)
    family: Any = case["family"]
    if case["theta"] is not None:
        family = dg.families.NegativeBinomial(theta=case["theta"])
    found = dg.glm(case["formula"], data, family=family, progress=False).rootogram(data, most=case["most"])
    np.testing.assert_array_equal(found["observed"], case["observed"])
    # what is beyond is a difference of numbers near the number of rows
    np.testing.assert_allclose(found["expected"], case["expected"], rtol=SAME, atol=1e-12 * sum(case["observed"]))
    assert list(found.index) == [*range(case["most"] + 1), f"{case['most'] + 1}+"]
    np.testing.assert_allclose(found["hanging"], np.sqrt(found["expected"]) - np.sqrt(found["observed"]))
    assert isinstance(found, pd.DataFrame)
