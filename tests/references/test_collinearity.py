"""Variance inflation factors against car, condition indices and proportions against the singular values of sqrt(W) X."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg

from .cases import EXACT, HERE

CASES: list[dict[str, Any]] = json.loads((HERE / "collinearity.json").read_text())["cases"]
# car takes determinants, and R's fits are converged to about 1e-8 in the weights.
FACTORS = 1e-6
# A condition index is the root of a ratio of eigenvalues of which the covariance has lost as many digits as the index has.
ROUNDING = 1e-14


def fitted(case: dict[str, Any], **options: Any) -> Any:
    table = pd.read_csv(HERE / "data" / case["data"], **EXACT)
    return dg.glm(case["formula"], table, family=case["family"].lower(), link=case["link"], **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_factors(case: dict[str, Any]) -> None:
    found = fitted(case).vif()
    of_term = found.drop_duplicates("term").set_index("term")
    names = [name.replace("factor(", "C(") for name in case["terms"]]
    assert list(of_term.index) == names
    assert of_term["df"].tolist() == case["df"]
    assert np.allclose(of_term["gvif"], case["gvif"], rtol=FACTORS, atol=0)
    assert np.allclose(of_term["gvif_root"], case["gvif_root"], rtol=FACTORS, atol=0)
    single = found[found["df"] == 1]
    assert np.allclose(single["vif"], single["gvif"], rtol=1e-10)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_indices_and_proportions(case: dict[str, Any]) -> None:
    found = fitted(case).collinearity()
    assert len(found.names) == len(case["columns"])
    condition = case["indices"][-1]
    accuracy = max(FACTORS, ROUNDING * condition**2)
    assert np.allclose(found.indices, case["indices"], rtol=accuracy)
    assert np.allclose(found.proportions, case["proportions"], rtol=0, atol=max(FACTORS, ROUNDING * condition**2))
    assert found.condition_number == pytest.approx(condition, rel=accuracy)
