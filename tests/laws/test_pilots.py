"""A start found on a sample must leave no trace: not in the estimates, not in the null model, not in errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special

import daskglm as dg
from daskglm import estimation as fitting

# Two ways to the same optimum, each with a decrement below 1e-12 per unit dispersion, in standard errors.
DISTANCE = 1e-6
SUMS = 1e-11
ROWS = 20_000


@pytest.mark.parametrize("exposure", [None, "e"])
@pytest.mark.parametrize("family", ["poisson", "gamma"])
def test_the_pilot_leaves_no_trace(family: str, exposure: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"x": rng.normal(size=ROWS), "e": rng.uniform(0.5, 2.0, size=ROWS)})
    # sorted, so that no part of the rows stands for the others
    data = data.sort_values("x", ignore_index=True)
    mean = np.exp(0.5 + 0.4 * data["x"]) * (data["e"] if exposure else 1.0)
    data["y"] = rng.poisson(mean) if family == "poisson" else rng.gamma(2.0, mean / 2.0)
    plain = dg.glm("y ~ x", data, family=family, exposure=exposure)
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1)
    piloted = dg.glm("y ~ x", data, family=family, exposure=exposure)
    assert piloted.converged
    assert np.max(np.abs(piloted.params - plain.params) / plain.bse) < DISTANCE
    y, e = data["y"], data["e"] if exposure else np.ones(ROWS)
    if family == "poisson":
        center = y.sum() / e.sum() * e
        null = 2.0 * np.sum(special.xlogy(y, y / center) - (y - center))
    else:
        center = np.mean(y / e) * e
        null = 2.0 * np.sum(y / center - 1.0 - np.log(y / center))
    assert plain.null_deviance == pytest.approx(null, rel=SUMS)
    assert piloted.null_deviance == pytest.approx(null, rel=SUMS)
    assert piloted.deviance == pytest.approx(plain.deviance, rel=SUMS)
