"""The canonical link of the negative binomial, log(mu / (mu + theta))."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.errors import DesignError
from daskglm.model.counts import CanonicalCount
from daskglm.model.links import Identity
from daskglm.model.pairs import resolve


@pytest.mark.parametrize("theta", [0.3, 1.0, 40.0])
def test_the_linear_predictor_is_the_natural_parameter(theta: float) -> None:
    family, link = resolve(f"negative_binomial(theta={theta})", "canonical")
    mu = np.geomspace(1e-6, 1e6, 25)
    eta = link.link(mu)
    np.testing.assert_allclose(eta, family.natural_parameter(mu), rtol=1e-9)
    assert (eta < 0.0).all()
    mean, slope, rest = link.inverse(eta)
    np.testing.assert_allclose(mean, mu, rtol=1e-9)
    np.testing.assert_allclose(slope, family.variance(mean, rest), rtol=1e-12)
    np.testing.assert_allclose(rest, 1.0 - mean, rtol=1e-12)
    eta = np.linspace(-3.0, -0.2, 30)
    step = 1e-5
    ahead, behind = link.inverse(eta + step), link.inverse(eta - step)
    np.testing.assert_allclose(link.inverse(eta)[1], (ahead[0] - behind[0]) / (2.0 * step), rtol=1e-7)
    np.testing.assert_allclose(link.curvature(eta), (ahead[1] - behind[1]) / (2.0 * step), rtol=1e-7)
    np.testing.assert_array_equal(link.valid(np.array([-1.0, 0.0, 1.0, -np.inf])), [True, False, False, False])


def data() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    x = rng.uniform(0.0, 1.0, 3_000)
    mean = 2.0 / np.expm1(0.9 - 0.5 * x)
    return pd.DataFrame({"x": x, "y": rng.negative_binomial(2.0, 2.0 / (2.0 + mean))})


def test_a_fit_solves_the_score_equations_and_round_trips(tmp_path: Path) -> None:
    fit = dg.glm("y ~ x", data(), family="negative_binomial(theta=2)", link="canonical")
    assert fit.converged
    mean = fit.predict(data())
    # of a canonical link the score is X'(y - mu)
    residual = data()["y"] - mean
    size = np.sqrt((mean + mean**2 / 2.0).sum())
    assert abs(residual.sum()) < 1e-8 * size
    assert abs(residual @ data()["x"]) < 1e-8 * size
    assert abs(fit.params["x"] - 0.5) < 4.0 * fit.bse["x"]
    assert "canonical" in str(fit.summary())
    fit.save(tmp_path / "model")
    np.testing.assert_array_equal(dg.load(tmp_path / "model").predict(data()), mean)


def test_theta_must_be_given() -> None:
    with pytest.raises(DesignError, match="needs a finite theta, not theta=None"):
        dg.plan("y ~ x", family="negative_binomial", link="canonical")
    with pytest.raises(DesignError, match="does not go with"):
        dg.plan("y ~ x", family="negative_binomial(theta=2)", link=CanonicalCount(3.0))
    assert "log(mu / (mu + 2))" in str(dg.describe("negative_binomial(theta=2)", "canonical"))
    assert resolve("geometric", "canonical")[1] == CanonicalCount(1.0)


def test_a_power_of_one_is_the_identity() -> None:
    assert dg.links.Power(1.0) == dg.links.Power(1) == Identity()
    assert dg.plan("y ~ x", family="gaussian", link="power(1)").link == Identity()
