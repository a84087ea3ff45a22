"""Residuals and influence against R's, on published data as one table and as a lake of several leaves."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg

from .cases import HERE, Case, frame, lake, options

CASES: list[Case] = json.loads((HERE / "residuals.json").read_text())["cases"]
# Both fits are at scores near 1e-13, through the conditioning of published data; a row fitted without error has a deviance that
# is rounding, and a residual that is the root of it.
CLOSE = 3e-8
# R's own qresid takes logarithms of probabilities; ours, the nearer tail.
QUANTILE = 1e-8
MEASURES = ("leverage", "cooks_distance", "dffits")


def fitted(case: Case, data: Any) -> dg.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.AliasWarning)
        return dg.glm(case["formula"], data, **options(case))


def agree(found: Any, expected: Any, tolerance: float = CLOSE) -> None:
    truth = np.array(expected, np.float64)
    numbers = np.asarray(found, np.float64)
    np.testing.assert_array_equal(np.isnan(numbers), np.isnan(truth))
    there = ~np.isnan(truth)
    assert np.max(np.abs(numbers - truth)[there] / np.maximum(np.abs(truth[there]), 1.0)) < tolerance


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_residuals_are_those_of_r(case: Case) -> None:
    data = frame(case)
    data.index = pd.Index([f"row {i}" for i in range(len(data))])
    fit = fitted(case, data)
    for kind, expected in case["residuals"].items():
        found = fit.residuals(data, kind=kind)
        assert found.name == kind
        assert found.index.equals(data.index)
        agree(found, expected)
    if case["quantile"] is not None:
        agree(fit.residuals(data, kind="quantile"), case["quantile"], QUANTILE)


@pytest.mark.parametrize("files", [1, 5])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_influence_is_that_of_r(case: Case, files: int, tmp_path: Path) -> None:
    data = lake(case, tmp_path, files)
    found = fitted(case, data).influence(data)
    assert list(found.columns[:3]) == list(MEASURES)
    for name in MEASURES:
        agree(found[name], case[name])
    agree(found.iloc[:, 3:], case["dfbetas"])
