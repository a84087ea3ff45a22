"""Mean bias reduction of completely separated logistic models, against brglm2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "firth.json").read_text())["cases"]
# brglm2 stops where its adjusted score is 1e-13 of a unit, which leaves seven digits of coefficients near infinity.
BRGLM = 1e-6


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case {case['k']}")
def test_is_that_of_brglm2(case: dict[str, Any]) -> None:
    i, k = np.arange(1.0, case["n"] + 1.0), case["k"]
    frame = pd.DataFrame({"x": np.sin(k * i + i**2), "z": np.cos(k**2 * i + 0.5 * i**2)})
    frame["y"] = (frame.x + frame.z / 2 > k / 10) * 1.0
    fit = dg.glm("y ~ x + z", frame, family="binomial", separation="firth")
    assert fit.converged
    np.testing.assert_allclose(fit.params, case["coefficients"], rtol=BRGLM)
    np.testing.assert_allclose(fit.bse, case["standard_errors"], rtol=BRGLM)
