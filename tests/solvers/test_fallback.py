"""A start from a sample that some row outside the sample makes impossible."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm import estimation as fitting

DISTANCE = 1e-6


def test_an_impossible_pilot_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Identity link: the sample says that the mean is 10 x, and one row outside it has x < 0."""
    rng = np.random.default_rng(0)
    n = 20_000
    data = pd.DataFrame({"x": rng.uniform(0.0, 2.0, size=n)})
    data["y"] = rng.poisson(0.05 + 10.0 * data["x"])
    data.loc[n - 1, ["x", "y"]] = [-0.05, 1]
    plain = dg.glm("y ~ x", data, family="poisson", link="identity")
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1)
    piloted = dg.glm("y ~ x", data, family="poisson", link="identity")
    assert piloted.converged
    assert np.max(np.abs(piloted.params - plain.params) / plain.bse) < DISTANCE
    assert float(data["x"].min() * piloted.params["x"] + piloted.params["Intercept"]) > 0.0
