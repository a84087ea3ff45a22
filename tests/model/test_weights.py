"""What each kind of weight means, on fits with and without it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import daskglm
from daskglm.model.weights import WEIGHTS, Frequency, Probability, Trials, Variance
from tests.laws.exact import DISTRIBUTIONS, FAMILIES
from tests.totals.problems import likelihood

# Both fits stop within a millionth of a standard error of the same optimum.
COEFFICIENTS = 1e-8
STATISTICS = 1e-9
SCORES = 1e-7

RNG = np.random.default_rng(11)
N = 90


def frame(family: str) -> pd.DataFrame:
    x = RNG.normal(size=N)
    mu = np.exp(0.3 * x)
    y = (
        DISTRIBUTIONS[family](mu, 0.5, 1.0)[0].rvs(random_state=RNG)
        if family.startswith("tweedie")
        else {
            "gaussian": RNG.normal(mu),
            "binomial": (RNG.random(N) < 0.5 + 0.1 * np.tanh(x)) * 1.0,
            "poisson": RNG.poisson(mu),
            "gamma": RNG.gamma(2.0, mu / 2.0),
            "exponential": RNG.exponential(mu),
            "inverse_gaussian": RNG.wald(mu, 2.0),
            "negative_binomial(theta=1.75)": RNG.negative_binomial(1.75, 1.75 / (1.75 + mu)),
            "geometric": RNG.geometric(1.0 / (1.0 + mu)) - 1,
            "gamma(shape=2)": RNG.gamma(2.0, mu / 2.0),
        }[family]
    )
    return pd.DataFrame({"x": x, "y": np.asarray(y, float), "w": RNG.integers(1, 5, N), "v": RNG.uniform(0.3, 2.0, N)})


@pytest.mark.parametrize("family", FAMILIES)
def test_frequency_is_the_rows_written_out(family: str) -> None:
    data = frame(family)
    short = daskglm.glm("y ~ x", data, family=family, weights=Frequency("w"))
    long = daskglm.glm("y ~ x", data.loc[data.index.repeat(data["w"])], family=family)
    assert np.allclose(short.params, long.params, rtol=0, atol=COEFFICIENTS)
    assert np.allclose(short.bse, long.bse, rtol=SCORES)
    for name in ("nobs", "df_resid", "deviance", "null_deviance", "pearson_chi2", "llf", "aic", "bic"):
        one, other = (getattr(fit, name) for fit in (short, long))
        assert one == pytest.approx(other, rel=STATISTICS), name


@pytest.mark.parametrize("family", [name for name in FAMILIES if not FAMILIES[name]().dispersion_known])
def test_variance_weights_are_of_averages(family: str) -> None:
    """Averages of w observations have variance phi V / w, and lead to the estimate of the observations themselves."""
    data = frame(family)
    averages = daskglm.glm("y ~ x", data, family=family, link="log", weights=Variance("w"), start=[0.1, 0.2])
    plain = daskglm.glm("y ~ x", data, family=family, link="log", weights="w", start=[0.1, 0.2])
    long = daskglm.glm("y ~ x", data.loc[data.index.repeat(data["w"])], family=family, link="log", start=[0.1, 0.2])
    assert np.allclose(averages.params, long.params, rtol=0, atol=COEFFICIENTS)
    assert np.array_equal(plain.params, averages.params)
    # but there are only as many observations as rows
    assert averages.nobs == N
    assert averages.pearson_chi2 == pytest.approx(long.pearson_chi2, rel=SCORES)
    assert averages.scale == pytest.approx(averages.pearson_chi2 / (N - 2))


def test_trials_are_bernoulli_rows() -> None:
    trials = RNG.integers(1, 6, N)
    x = RNG.normal(size=N)
    successes = RNG.binomial(trials, 0.5)
    short = daskglm.glm("y ~ x", pd.DataFrame({"x": x, "y": successes, "m": trials}), family="binomial", trials="m")
    rows = [(a, float(k < s)) for a, s, m in zip(x, successes, trials, strict=True) for k in range(m)]
    long = daskglm.glm("y ~ x", pd.DataFrame(rows, columns=["x", "y"]), family="binomial")
    assert np.allclose(short.params, long.params, rtol=0, atol=COEFFICIENTS)
    assert np.allclose(short.bse, long.bse, rtol=SCORES)


def test_probability_weights_have_linearised_errors() -> None:
    """Binder (1983): n / (n - 1) H^-1 (sum of squared weighted scores) H^-1."""
    data = frame("poisson")
    fit = daskglm.glm("y ~ x", data, family="poisson", weights=Probability("v"))
    x = np.column_stack([np.ones(N), data["x"]])
    w = data["v"].to_numpy()
    terms = likelihood("poisson", "log").rows(data["y"].to_numpy(), x @ np.asarray(fit.params))
    bread = np.linalg.inv(x.T @ ((w * terms.weight)[:, None] * x))
    scores = x * (w * terms.score)[:, None]
    assert np.allclose(scores.sum(axis=0), 0.0, atol=SCORES)
    covariance = N / (N - 1) * bread @ scores.T @ scores @ bread
    assert np.allclose(fit.bse, np.sqrt(np.diag(covariance)), rtol=SCORES)


def test_kinds_are_named() -> None:
    assert {name: kind.__name__.lower() for name, kind in WEIGHTS.items()} == {name: name for name in WEIGHTS}
    assert set(WEIGHTS.values()) == {Frequency, Variance, Probability, Trials}
