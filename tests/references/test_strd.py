"""Least squares as NIST tests it, against exact fractions and the certified values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from tests.laws.digits import digits

from .cases import EXACT, HERE

CASES: list[dict[str, Any]] = json.loads((HERE / "strd.json").read_text())["cases"]
# Twofold arithmetic settles every bit but the last, of coefficients whose certificate asks for it; the others keep what the
# shifted and scaled columns leave them.
COEFFICIENTS = 11.0
# Errors come from the Gram, whose condition is the square of the columns'.
ERRORS = 11.0
# Certified values are of the decimals as NIST has them, not of the doubles nearest to them, and printed with 15 digits.
CERTIFIED = 12.0
# An exact fit has errors of rounding alone.
PERFECT = {"wampler1", "wampler2"}
NOTHING = 1e-9


def table(case: dict[str, Any]) -> pd.DataFrame:
    return pd.read_csv(HERE / "data" / case["data"], **EXACT)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_digits(case: dict[str, Any]) -> None:
    fit = dg.glm(case["formula"], table(case))
    assert not fit.aliased
    found = digits(fit.params.to_numpy(), np.array(case["coefficients"]))
    assert found >= COEFFICIENTS
    assert found >= fit.certificate.digits >= 9.0
    assert digits(fit.params.to_numpy(), np.array(case["certified"])) >= COEFFICIENTS
    if case["name"] in PERFECT:
        assert np.abs(fit.bse.to_numpy()).max() <= NOTHING
        return
    errors = digits(fit.bse.to_numpy(), np.array(case["standard_errors"]))
    assert errors >= ERRORS
    assert errors >= fit.certificate.error_digits >= 8.0
    assert digits(fit.bse.to_numpy(), np.array(case["certified_errors"])) >= ERRORS
    assert np.sqrt(fit.scale) == pytest.approx(case["residual_sd"], rel=10.0**-CERTIFIED)


@pytest.mark.parametrize("name", ["longley", "wampler4"])
def test_digits_of_a_lake_of_small_files(name: str, tmp_path: Path) -> None:
    """Sums over leaves of three rows each."""
    case = next(case for case in CASES if case["name"] == name)
    rows = table(case)
    for start in range(0, len(rows), 3):
        rows.iloc[start : start + 3].to_parquet(tmp_path / f"{start:03d}.parquet", index=False)
    fit = dg.glm(case["formula"], str(tmp_path))
    assert digits(fit.params.to_numpy(), np.array(case["coefficients"])) >= max(COEFFICIENTS, fit.certificate.digits)
    assert digits(fit.bse.to_numpy(), np.array(case["standard_errors"])) >= max(ERRORS, fit.certificate.error_digits)
