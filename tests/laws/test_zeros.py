"""Responses that are mostly nothing: counts and amounts of which one row in thirty is not zero."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.errors import SeparationWarning
from daskglm.model.families import log_density
from daskglm.model.likelihoods import GLM
from daskglm.model.links import LINKS
from tests.laws.exact import COMPOUND, FAMILIES, tweedie

# Both are at their optimum to the last digits.
ROUNDING = 1e-9
ERRORS = 1e-8

N = 6_000
# What may be zero, with its variance function and whether its dispersion is 1.
FAMILIES_WITH_ZEROS: dict[str, tuple[Any, bool]] = {
    "poisson": (lambda mu: mu, True),
    "negative_binomial(theta=0.5)": (lambda mu: mu + 2.0 * mu**2, True),
    "geometric": (lambda mu: mu + mu**2, True),
    "quasipoisson": (lambda mu: mu, False),
    **{tweedie(p): (lambda mu, p=p: mu**p, False) for p in COMPOUND},
}


def frame(seed: int = 0, n: int = N) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "s": generator.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]),
            "x": generator.normal(size=n),
            "e": generator.uniform(0.2, 1.0, n),
        }
    )
    rate = 0.04 * data.e * np.exp(0.4 * data.x + 0.3 * (data.s == "b"))
    data["count"] = generator.poisson(rate * generator.gamma(2.0, 0.5, n)).astype(float)
    data["amount"] = generator.standard_gamma(1.5 * data["count"]) * 700.0
    return data


def response(family: str) -> str:
    return "amount" if family.startswith("tweedie") else "count"


@pytest.mark.parametrize("family", FAMILIES_WITH_ZEROS)
def test_rates_of_groups_in_closed_form(family: str) -> None:
    """With a factor and an exposure: sum w (y - mu) mu / V = 0 in each group; of a Poisson, claims over exposure."""
    data = frame()
    y, (variance, known) = response(family), FAMILIES_WITH_ZEROS[family]
    assert (data[y] == 0).mean() > 0.96
    fit = dg.glm(f"{y} ~ s", data, family=family, exposure="e")
    mu = fit.predict(data).to_numpy()
    information = []
    for level in "abc":
        rows = (data.s == level).to_numpy()
        score = ((data[y] - mu) * mu / variance(mu))[rows]
        assert abs(score.sum()) <= ROUNDING * np.abs(score).sum()
        information.append(np.sum((mu**2 / variance(mu))[rows]))
    if family in ("poisson", "quasipoisson"):
        sums = data.groupby("s")[[y, "e"]].sum()
        np.testing.assert_allclose(np.log(sums[y] / sums.e).iloc[0], fit.params["Intercept"], rtol=ROUNDING)
    pearson = np.sum((data[y] - mu) ** 2 / variance(mu))
    phi = 1.0 if known else pearson / (N - 3)
    assert fit.pearson_chi2 == pytest.approx(pearson, rel=ERRORS)
    assert fit.scale == pytest.approx(phi, rel=ERRORS)
    # the baseline's own information; that of a difference is of both groups
    expected = phi * np.array([1.0 / information[0], *(1.0 / information[0] + 1.0 / i for i in information[1:])])
    np.testing.assert_allclose(fit.bse**2, expected, rtol=ERRORS)


@pytest.mark.parametrize("family", [*FAMILIES_WITH_ZEROS, "negative_binomial", "tweedie"])
def test_a_level_with_zeros_alone_goes_to_nothing(family: str) -> None:
    """Its rate is 0; the others are those of the fit without its rows, and so is what is estimated beside them."""
    data = frame()
    y = response(family)
    data.loc[data.s == "c", y] = 0.0
    with pytest.warns(SeparationWarning, match=r"s\[T.c\]"):
        fit = dg.glm(f"{y} ~ s + x", data, family=family, exposure="e")
    rest = dg.glm(f"{y} ~ s + x", data[data.s != "c"], family=family, exposure="e")
    assert fit.params["s[T.c]"] == -np.inf
    assert fit.separated == ("s[T.c]",)
    assert np.isnan(fit.bse["s[T.c]"])
    kept = ["Intercept", "s[T.b]", "x"]
    np.testing.assert_allclose(fit.params[kept], rest.params[kept], rtol=0, atol=1e-7 * rest.bse.max())
    assert fit.deviance == pytest.approx(rest.deviance, rel=ERRORS)
    for name, value in rest.shape_params.items():
        assert fit.shape_params[name] == pytest.approx(value, rel=1e-6)
    if family != "quasipoisson":
        assert fit.llf == pytest.approx(rest.llf, rel=ERRORS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (fit.predict(data)[data.s == "c"] == 0.0).all()


@pytest.mark.parametrize("family", [tweedie(p) for p in COMPOUND])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_amounts(family: str, scale: float) -> None:
    """phi goes with scale^(2 - p), the intercept takes up the rest; the likelihood of amounts above 0 their density."""
    data = frame(1)
    one = dg.glm("amount ~ s + x", data, family=family)
    other = dg.glm("amount ~ s + x", data.assign(amount=scale * data.amount), family=family)
    moved = one.params.copy()
    moved["Intercept"] += np.log(scale)
    np.testing.assert_allclose(other.params, moved, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(other.bse, one.bse, rtol=ERRORS)
    power = FAMILIES[family]().power
    assert other.scale == pytest.approx(one.scale * scale ** (2.0 - power), rel=ERRORS)
    assert other.llf == pytest.approx(one.llf - (data.amount > 0).sum() * np.log(scale), rel=ERRORS)


@pytest.mark.parametrize("scale", [1e-5, 1e4])
def test_the_unit_of_amounts_leaves_the_estimated_power(scale: float) -> None:
    data = frame(2)
    one = dg.glm("amount ~ s + x", data, family="tweedie")
    other = dg.glm("amount ~ s + x", data.assign(amount=scale * data.amount), family="tweedie")
    assert other.shape_params["power"] == pytest.approx(one.shape_params["power"], rel=1e-6)
    assert other.shape_bse["power"] == pytest.approx(one.shape_bse["power"], rel=1e-5)


@pytest.mark.parametrize(
    "name", [*(tweedie(p) for p in COMPOUND), "poisson", "negative_binomial(theta=1.75)", "geometric"]
)
def test_rows_of_nothing_at_any_mean(name: str) -> None:
    """Loss, score and weights of y = 0 under the log link are those of the expected number, or of its like: all numbers."""
    family, eta = FAMILIES[name](), np.array([-200.0, -40.0, -3.0, 0.0, 3.0, 40.0])
    if not name.startswith("tweedie"):
        eta = eta[:-1]
    mu, zero = np.exp(eta), np.zeros(eta.size)
    glm = GLM(family, LINKS["log"]())
    for information in ("observed", "expected"):
        terms = glm.rows(zero, eta, 2, information)  # type: ignore[arg-type]
        assert terms.valid
        for part in (terms.loss, terms.score, terms.weight):
            assert np.isfinite(part).all()
        assert np.all(terms.score < 0.0)
        assert np.all(terms.weight > 0.0)
    # the loss is minus the log of the chance of nothing, up to a constant: their differences agree
    chance = log_density(family, zero, mu)
    loss = glm.rows(zero, eta).loss
    size = np.abs(chance).max() + np.abs(loss).max()
    np.testing.assert_allclose(loss - loss[0], chance[0] - chance, rtol=0, atol=1e-13 * size)
