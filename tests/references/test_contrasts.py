"""Contrasts and scaled columns against R's glm and scale, and MASS's contr.sdif."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskglm as dg
from daskglm.design.contrasts import Contrast

from .cases import HERE, lake, options, vector

ALL: list[dict[str, Any]] = json.loads((HERE / "contrasts.json").read_text())["cases"]
CASES = [case for case in ALL if "name" in case]
MATRICES = [case for case in ALL if "matrix" in case]
# As in test_glm.py: R's solutions are polished to rounding.
COEFFICIENTS = 1e-8
ERRORS = 1e-7
SUMS = 1e-10
# R makes polynomials of a QR factorisation of powers, which loses digits: at 20 levels, seven.
MATRIX = 1e-13
POWERS = 1e-8


@pytest.mark.parametrize("files", [1, 7])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_fit_is_that_of_r(case: dict[str, Any], files: int, tmp_path: Path) -> None:
    data = lake(case, tmp_path, files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.AliasWarning)
        fit = dg.glm(case["formula"], data, **options(case))
    expected, errors = vector(case["coefficients"]), vector(case["standard_errors"])
    found, kept = fit.params.to_numpy(), ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~kept)
    size = np.maximum(np.abs(expected), errors)[kept]
    assert np.max(np.abs(found - expected)[kept] / size) < COEFFICIENTS
    assert np.max(np.abs(fit.bse.to_numpy() / errors - 1.0)[kept]) < ERRORS
    assert fit.deviance == pytest.approx(case["deviance"], rel=SUMS, abs=SUMS)
    assert fit.llf == pytest.approx(case["log_likelihood"], rel=SUMS)
    assert (fit.df_resid, fit.nobs) == (case["df_residual"], case["nobs"])


@pytest.mark.parametrize("case", MATRICES, ids=lambda case: f"{case['kind']}-{case['levels']}")
def test_matrix_is_that_of_r(case: dict[str, Any]) -> None:
    scores = (("scores", tuple(case["scores"])),) if "scores" in case else ()
    state = Contrast(case["kind"].lower(), scores).learn("a", tuple(range(case["levels"])))
    assert state is not None
    tolerance = POWERS if case["kind"] == "Poly" and case["levels"] > 7 else MATRIX
    expected = np.array(case["matrix"], float)
    np.testing.assert_allclose(state.matrix, expected, rtol=0.0, atol=tolerance)


def test_a_cell_without_rows_is_aliased_under_every_contrast() -> None:
    assert sum(None in case["coefficients"] for case in CASES) >= 4
