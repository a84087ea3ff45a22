"""Against 60-digit arithmetic where columns are nearly collinear, uncentred, or of very different size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from tests.laws.digits import digits

from .cases import ILL_CONDITIONED, frame, options, vector

# Columns are shifted and scaled as they are read and doubtful ones recomputed from their residuals, so that what is left of
# sixteen digits is lost to the rounding of the data's own linear predictor: in standard errors,
DISTANCE = 1e-9
# and of the errors themselves.
ERRORS = 1e-10
# An exact fit has no error to measure by: the coefficients to the digits that float64 leaves of a polynomial of degree five.
EXACT_FIT = 1e-9


@pytest.mark.parametrize("case", ILL_CONDITIONED, ids=lambda case: case["name"])
def test_digits(case: dict[str, Any]) -> None:
    fit = dg.glm(case["formula"], frame(case), **options(case))
    assert fit.converged
    assert not fit.aliased
    expected, errors = vector(case["coefficients"]), vector(case["standard_errors"])
    difference = np.abs(fit.params.to_numpy() - expected)
    if case["score"] is None:
        assert np.max(difference / np.abs(expected)) < EXACT_FIT
        return
    assert np.max(difference / errors) < DISTANCE
    assert np.max(np.abs(fit.bse.to_numpy() / errors - 1.0)) < ERRORS
    assert fit.deviance == pytest.approx(case["deviance"], rel=1e-10)


@pytest.mark.parametrize("case", ILL_CONDITIONED, ids=lambda case: case["name"])
def test_no_certificate_claims_too_much(case: dict[str, Any]) -> None:
    fit = dg.glm(case["formula"], frame(case), **options(case))
    found = digits(fit.params.to_numpy(), vector(case["coefficients"]))
    assert found >= fit.certificate.digits >= 11.0
    if not case["name"].startswith("wampler1"):
        assert digits(fit.bse.to_numpy(), vector(case["standard_errors"])) >= fit.certificate.error_digits >= 8.0


@pytest.mark.parametrize("left", [0.0, 2.0**-30])
@pytest.mark.parametrize("center", [0.0, 1e6])
def test_what_cannot_be_told_apart_is_named(left: float, center: float) -> None:
    """Of the second column the first leaves less than 1e-7 of its length: by definition it is a combination."""
    rng = np.random.default_rng(6)
    a = center + rng.normal(size=200)
    table = {"a": a, "b": a + left * rng.normal(size=200), "y": a - center + rng.normal(size=200)}
    with pytest.warns(dg.errors.AliasWarning, match="b is not estimated: its column is .*1 a"):
        fit = dg.glm("y ~ a + b", table)
    assert fit.aliased == ("b",)
    assert np.isfinite(fit.params.to_numpy()[:-1]).all()


def test_combinations_are_named_beside_nearly_collinear_columns() -> None:
    """Of columns whose Gram has lost ten digits, and to the rounding of the columns themselves."""
    rng = np.random.default_rng(7)
    a = rng.normal(size=300)
    table = pd.DataFrame({"a": a, "b": a + 1e-5 * rng.normal(size=300), "c": rng.normal(size=300)})
    table["d"], table["e"], table["g"] = table.a + table.c, table.b - 2.0 * table.c + 1.0, table.b - table.a
    table["y"] = a + rng.normal(size=300)
    with pytest.warns(dg.errors.AliasWarning):
        fit = dg.glm("y ~ a + b + c + d + e + g", table)
    expected = {"d": {"a": 1, "c": 1}, "e": {"Intercept": 1, "b": 1, "c": -2}, "g": {"a": -1, "b": 1}}
    assert set(fit.record.aliased) == set(expected)
    for name, parts in expected.items():
        assert dict(fit.record.aliased[name]) == pytest.approx(parts, rel=1e-10)


def test_residual_passes_are_reported() -> None:
    case = next(case for case in ILL_CONDITIONED if case["name"] == "women_quartic")
    fit = dg.glm(case["formula"], frame(case), **options(case))
    assert fit.certificate.residual_columns == ("I(height ** 4)",)
