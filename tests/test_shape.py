"""Fits with parameters beside the coefficients, against direct maximisation of a likelihood written down a second time.

Its gradient comes from a complex step, which has no error to speak of, so that its root is the maximum to the last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import optimize
from scipy.special import loggamma

import daskglm as dg
from daskglm import estimation as fitting
from daskglm.errors import DesignError, SolverError

Vector = npt.NDArray[np.float64]
LogLikelihood = Callable[[Any], Any]

# Both are at a maximum to about 1e-7 of a standard error or better.
ESTIMATES = 1e-7
# Second derivatives by differences of complex-step gradients, and an inverse.
ERRORS = 1e-5
# Sums of a thousand log densities.
LIKELIHOOD = 1e-9
STEP = 1e-30

N = 600


def frame(seed: int = 0, n: int = N) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": generator.normal(size=n),
            "z": generator.uniform(0.0, 2.0, n),
            "w": generator.uniform(0.5, 3.0, n),
            "f": generator.integers(0, 4, n),
            "e": generator.uniform(0.5, 2.0, n),
        }
    )
    mean = np.exp(0.5 + 0.3 * data.x - 0.2 * data.z)
    data["count"] = generator.negative_binomial(1.6, 1.6 / (1.6 + mean)).astype(float)
    data["size"] = generator.gamma(3.0, mean / 3.0)
    data["time"] = generator.wald(mean, 2.0)
    data["claim"] = generator.standard_gamma(1.8 * generator.poisson(0.7 * mean)) / 1.3
    # seven trials scatter less than their mean
    data["few"] = generator.binomial(7, np.clip(mean / 8.0, 0.0, 0.9)).astype(float)
    return data


def columns(data: pd.DataFrame) -> Vector:
    return np.column_stack([np.ones(len(data)), data.x, data.z])


# -- log-likelihoods of (coefficients, parameters beside), for complex arguments ------------------------------------------


def negative_binomial(data: pd.DataFrame, w: Any = 1.0, inverse: Any = np.exp, offset: Any = 0.0) -> LogLikelihood:
    """The last argument is log theta; w y is the total of w observations."""
    x, y = columns(data), data["count"].to_numpy()

    def value(v: Any) -> Any:
        m, a, c = w * inverse(x @ v[:3] + offset), w * np.exp(v[3]), w * y
        return (
            loggamma(c + a) - loggamma(a) - loggamma(c + 1.0 + 0j) + a * np.log(a / (a + m)) + c * np.log(m / (a + m))
        )

    return value


def gamma(data: pd.DataFrame, w: Any = 1.0, inverse: Any = np.exp) -> LogLikelihood:
    """The last argument is the log of the shape."""
    x, y = columns(data), data["size"].to_numpy()

    def value(v: Any) -> Any:
        mu, k = inverse(x @ v[:3]), w * np.exp(v[3])
        return k * np.log(k * y / mu) - k * y / mu - np.log(y) - loggamma(k + 0j)

    return value


def inverse_gaussian(data: pd.DataFrame, w: Any = 1.0) -> LogLikelihood:
    """The last argument is the log of the dispersion."""
    x, y = columns(data), data["time"].to_numpy()

    def value(v: Any) -> Any:
        mu, phi = np.exp(x @ v[:3]), np.exp(v[3]) / w
        return -0.5 * np.log(2.0 * np.pi * phi * y**3) - (y - mu) ** 2 / (2.0 * phi * mu**2 * y)

    return value


def tweedie(data: pd.DataFrame, w: Any = 1.0, offset: Any = 0.0) -> LogLikelihood:
    """The last arguments are the power and the log of the dispersion; a Poisson number of gamma amounts."""
    x, y = columns(data), data["claim"].to_numpy()
    j = np.arange(1.0, 120.0)[:, None]
    positive = y > 0

    def value(v: Any) -> Any:
        mu, p, phi = np.exp(x @ v[:3] + offset), v[3], np.exp(v[4]) / w
        rate, shape, scale = mu ** (2 - p) / (phi * (2 - p)), (2 - p) / (p - 1), phi * (p - 1) * mu ** (p - 1)
        ratio = np.where(positive, y, 1.0) / scale
        terms = j * np.log(rate) - loggamma(j + 1.0) - loggamma(j * shape + 0j) + j * shape * np.log(ratio)
        top = terms.real.max(axis=0)
        series = top + np.log(np.exp(terms - top).sum(axis=0)) - ratio - np.log(np.where(positive, y, 1.0))
        return np.where(positive, series, 0.0) - rate

    return value


def total(value: LogLikelihood, weights: Any = 1.0) -> LogLikelihood:
    """The sum over rows, of which each stands for so many."""
    return lambda v: np.sum(weights * value(v))


def gradient(value: LogLikelihood, v: Vector) -> Vector:
    """By complex steps."""
    return np.array([value(v + 1j * STEP * unit).imag / STEP for unit in np.eye(v.size)])


def maximum(value: LogLikelihood, start: Vector) -> Vector:
    found = optimize.root(lambda v: gradient(value, v), start, method="hybr", tol=1e-14)
    assert np.max(np.abs(found.fun)) < 1e-7
    return np.asarray(found.x)


def information(value: LogLikelihood, v: Vector) -> Vector:
    """Minus the second derivatives (r, r), by differences of fourth order of the gradient."""
    result, h = np.empty((v.size, v.size)), 2.0**-9
    for j, unit in enumerate(np.eye(v.size)):
        at = [gradient(value, v + k * h * unit) for k in (-2, -1, 1, 2)]
        result[j] = -(at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
    return result


# -- theta -------------------------------------------------------------------------------------------------------------

COUNTS = "count ~ x + z"
THETAS: dict[str, tuple[dict[str, Any], Callable[[pd.DataFrame], LogLikelihood]]] = {
    "plain": ({}, lambda d: total(negative_binomial(d))),
    "sqrt": ({"link": "sqrt"}, lambda d: total(negative_binomial(d, inverse=lambda eta: eta**2))),
    "offset": ({"exposure": "e"}, lambda d: total(negative_binomial(d, offset=np.log(d.e.to_numpy())))),
    "frequencies": ({"weights": dg.Frequency("f")}, lambda d: total(negative_binomial(d), d.f.to_numpy())),
    "averages": ({"weights": "w"}, lambda d: total(negative_binomial(d, d.w.to_numpy()))),
}


@pytest.mark.parametrize("name", THETAS)
def test_theta_maximises_the_likelihood(name: str) -> None:
    data = frame()
    options, make = THETAS[name]
    value = make(data)
    fit = dg.glm(COUNTS, data, family="negative_binomial", **options)
    assert fit.converged
    v = maximum(value, np.array([*fit.params + 0.01, np.log(fit.shape_params["theta"]) - 0.02]))
    np.testing.assert_allclose(fit.params, v[:3], rtol=0, atol=ESTIMATES * fit.bse.max())
    theta = np.exp(v[3])
    assert fit.shape_params == {"theta": pytest.approx(theta, rel=ESTIMATES)}
    # its error at the coefficients, as MASS's
    error = theta / np.sqrt(information(value, v)[3, 3])
    assert fit.shape_bse == {"theta": pytest.approx(error, rel=ERRORS)}
    if name != "averages":
        assert fit.llf == pytest.approx(value(v).real, rel=LIKELIHOOD)
        # three coefficients and theta
        assert fit.aic == pytest.approx(8.0 - 2.0 * value(v).real, rel=LIKELIHOOD)


def test_errors_of_coefficients_are_those_at_theta() -> None:
    """X'WX with W = mu / (1 + mu / theta) under the log link."""
    data = frame()
    fit = dg.glm(COUNTS, data, family="negative_binomial")
    x, mu = columns(data), fit.predict(data).to_numpy()
    covariance = np.linalg.inv(x.T @ ((mu / (1.0 + mu / fit.shape_params["theta"]))[:, None] * x))
    np.testing.assert_allclose(fit.bse, np.sqrt(np.diag(covariance)), rtol=ERRORS)
    assert fit.scale == 1.0
    given = dg.glm(COUNTS, data, family=dg.families.NegativeBinomial(fit.shape_params["theta"]))
    np.testing.assert_allclose(given.params, fit.params, rtol=0, atol=ESTIMATES * fit.bse.max())
    assert given.shape_params == {}
    # one parameter fewer was estimated
    assert given.aic == pytest.approx(fit.aic - 2.0, rel=LIKELIHOOD)


@pytest.mark.parametrize("options", [{}, {"weights": "part"}, {"weights": dg.Frequency("f"), "offset": "z / 20"}])
def test_counts_that_scatter_too_little_are_poisson(options: dict[str, Any]) -> None:
    """Theta is infinite, without an error, and the model the Poisson one."""
    data = frame().assign(part=lambda d: d.w / 3.0)
    fit = dg.glm("few ~ x + z", data, family="negative_binomial", **options)
    poisson = dg.glm("few ~ x + z", data, family="poisson", **options)
    assert fit.converged
    assert fit.shape_params == {"theta": np.inf}
    assert np.isnan(fit.shape_bse["theta"])
    np.testing.assert_allclose(fit.params, poisson.params, rtol=0, atol=ESTIMATES * poisson.bse.max())
    np.testing.assert_allclose(fit.bse, poisson.bse, rtol=ESTIMATES)
    for name in ("deviance", "null_deviance", "pearson_chi2", "llf", "nobs", "df_resid"):
        assert getattr(fit, name) == pytest.approx(getattr(poisson, name), rel=LIKELIHOOD, nan_ok=True), name
    if options.get("weights") != "part":
        assert fit.aic == pytest.approx(poisson.aic + 2.0, rel=LIKELIHOOD)


@pytest.mark.parametrize("theta", [0.05, 40.0, 5_000.0])
def test_theta_small_and_large(theta: float) -> None:
    """Nearly all counts zero with a few huge ones; or hardly told from Poisson."""
    generator = np.random.default_rng(5)
    data = frame(7, 4_000)
    mean = np.exp(1.5 + 0.3 * data.x)
    data["count"] = generator.negative_binomial(theta, theta / (theta + mean)).astype(float)
    fit = dg.glm(COUNTS, data, family="negative_binomial")
    value = total(negative_binomial(data))
    found = fit.shape_params["theta"]
    assert fit.converged
    if np.isinf(found):
        # no finite theta is likelier
        assert all(value(np.array([*fit.params, t])).real < fit.llf for t in np.log([1e2, 1e3, 1e4, 1e6]))
        return
    v = np.array([*fit.params, np.log(found)])
    slope, curvature = gradient(value, v), information(value, v)
    # how far the maximum is, in standard errors
    assert np.sqrt(slope @ np.linalg.solve(curvature, slope)) < 1e-6
    assert fit.shape_bse["theta"] == pytest.approx(found / np.sqrt(curvature[3, 3]), rel=ERRORS)


def test_a_pilot_leads_to_the_same_theta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = frame(1, 6_000)
    for i in range(6):
        part = data.iloc[i * 1_000 : (i + 1) * 1_000]
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), tmp_path / f"{i}.parquet")
    plain = dg.glm(COUNTS, data, family="negative_binomial", exposure="e")
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1)
    piloted = dg.glm(COUNTS, tmp_path, family="negative_binomial", exposure="e")
    assert piloted.converged
    assert piloted.shape_params["theta"] == pytest.approx(plain.shape_params["theta"], rel=ESTIMATES)
    assert piloted.shape_bse["theta"] == pytest.approx(plain.shape_bse["theta"], rel=ERRORS)
    assert np.max(np.abs(piloted.params - plain.params) / plain.bse) < 1e-6
    assert piloted.null_deviance == pytest.approx(plain.null_deviance, rel=LIKELIHOOD * 100)


# -- the dispersion ----------------------------------------------------------------------------------------------------

DISPERSIONS: dict[str, tuple[str, dict[str, Any], Callable[[pd.DataFrame], LogLikelihood], str]] = {
    "gamma": ("size", {"family": "gamma"}, lambda d: total(gamma(d)), "shape"),
    "gamma of averages": (
        "size",
        {"family": "gamma", "weights": "w"},
        lambda d: total(gamma(d, d.w.to_numpy())),
        "shape",
    ),
    "gamma in frequencies": (
        "size",
        {"family": "gamma", "weights": dg.Frequency("f")},
        lambda d: total(gamma(d), d.f.to_numpy()),
        "shape",
    ),
    "gamma sqrt": (
        "size",
        {"family": "gamma", "link": "sqrt"},
        lambda d: total(gamma(d, inverse=lambda eta: eta**2)),
        "shape",
    ),
    "inverse gaussian": (
        "time",
        {"family": "inverse_gaussian"},
        lambda d: total(inverse_gaussian(d)),
        "dispersion",
    ),
    "inverse gaussian of averages": (
        "time",
        {"family": "inverse_gaussian", "weights": "w"},
        lambda d: total(inverse_gaussian(d, d.w.to_numpy())),
        "dispersion",
    ),
}


@pytest.mark.parametrize("name", DISPERSIONS)
def test_the_dispersion_of_greatest_likelihood(name: str) -> None:
    data = frame()
    response, options, make, called = DISPERSIONS[name]
    value = make(data)
    fit = dg.glm(f"{response} ~ x + z", data, dispersion="ml", **options)
    sign = 1.0 if called == "dispersion" else -1.0
    v = maximum(value, np.array([*fit.params, sign * np.log(fit.scale)]))
    np.testing.assert_allclose(fit.params, v[:3], rtol=0, atol=ESTIMATES * fit.bse.max())
    assert fit.shape_params == {called: pytest.approx(np.exp(v[3]), rel=ESTIMATES)}
    assert fit.scale == pytest.approx(np.exp(sign * v[3]), rel=ESTIMATES)
    matrix = information(value, v)
    # at the maximum the coefficients do not depend on the dispersion: its error is its own
    assert fit.shape_bse == {called: pytest.approx(np.exp(v[3]) / np.sqrt(matrix[3, 3]), rel=ERRORS)}
    # the log-likelihood is R's all the same, at deviance / n
    there = np.array([*v[:3], sign * np.log(fit.deviance / fit.nobs)])
    assert fit.llf == pytest.approx(value(there).real, rel=LIKELIHOOD)
    assert fit.aic == pytest.approx(8.0 - 2.0 * value(there).real, rel=LIKELIHOOD)


def test_the_dispersion_of_a_gaussian_is_the_mean_square() -> None:
    data = frame()
    fit = dg.glm("x ~ z", data, dispersion="ml", weights="w")
    assert fit.scale == pytest.approx(fit.deviance / N, rel=LIKELIHOOD)
    # log of a mean of n squares: its variance is 2 / n
    assert fit.shape_bse["dispersion"] == pytest.approx(fit.scale * np.sqrt(2.0 / N), rel=ERRORS)


def test_a_shape_that_is_given_is_the_dispersion() -> None:
    data = frame()
    fit = dg.glm("size ~ x + z", data, family="gamma(shape=3)")
    free = dg.glm("size ~ x + z", data, family="gamma")
    assert fit.scale == pytest.approx(1.0 / 3.0)
    np.testing.assert_allclose(fit.params, free.params, rtol=0, atol=ESTIMATES * free.bse.max())
    np.testing.assert_allclose(fit.bse, free.bse * np.sqrt(fit.scale / free.scale), rtol=ESTIMATES)
    value = total(gamma(data))
    assert fit.llf == pytest.approx(value(np.array([*fit.params, np.log(3.0)])).real, rel=LIKELIHOOD)
    assert fit.aic == pytest.approx(6.0 - 2.0 * fit.llf, rel=LIKELIHOOD)


# -- power -------------------------------------------------------------------------------------------------------------

POWERS: dict[str, tuple[dict[str, Any], Callable[[pd.DataFrame], LogLikelihood]]] = {
    "plain": ({}, lambda d: total(tweedie(d))),
    "exposure": ({"exposure": "e"}, lambda d: total(tweedie(d, offset=np.log(d.e.to_numpy())))),
    "averages": ({"weights": "w"}, lambda d: total(tweedie(d, d.w.to_numpy()))),
    "frequencies": ({"weights": dg.Frequency("f")}, lambda d: total(tweedie(d), d.f.to_numpy())),
}


@pytest.mark.parametrize("name", POWERS)
def test_power_and_dispersion_maximise_the_likelihood(name: str) -> None:
    """With errors from the whole information, of the coefficients, too."""
    data = frame()
    options, make = POWERS[name]
    value = make(data)
    fit = dg.glm("claim ~ x + z", data, family="tweedie", **options)
    power, phi = fit.shape_params["power"], fit.shape_params["dispersion"]
    v = maximum(value, np.array([*fit.params, power, np.log(phi)]))
    np.testing.assert_allclose(fit.params, v[:3], rtol=0, atol=10 * ESTIMATES * fit.bse.max())
    assert power == pytest.approx(v[3], rel=10 * ESTIMATES)
    assert phi == pytest.approx(np.exp(v[4]), rel=10 * ESTIMATES)
    # errors of the coefficients go by Pearson's dispersion, unless that of greatest likelihood is asked for
    assert fit.scale == pytest.approx(fit.pearson_chi2 / fit.df_resid)
    other = dg.glm("claim ~ x + z", data, family="tweedie", dispersion="ml", **options)
    assert other.scale == pytest.approx(phi, rel=ESTIMATES)
    np.testing.assert_allclose(other.bse, fit.bse * np.sqrt(other.scale / fit.scale), rtol=ERRORS)
    errors = np.sqrt(np.diag(np.linalg.inv(information(value, v))))
    assert fit.shape_bse["power"] == pytest.approx(errors[3], rel=ERRORS)
    assert fit.shape_bse["dispersion"] == pytest.approx(errors[4] * np.exp(v[4]), rel=ERRORS)
    assert fit.llf == pytest.approx(value(v).real, rel=LIKELIHOOD)
    assert fit.aic == pytest.approx(10.0 - 2.0 * value(v).real, rel=LIKELIHOOD)


def test_a_power_that_is_given_takes_the_pearson_dispersion() -> None:
    data = frame()
    fit = dg.glm("claim ~ x + z", data, family="tweedie(power=1.5)")
    assert fit.shape_params == {}
    assert fit.scale == pytest.approx(fit.pearson_chi2 / fit.df_resid)
    # the likelihood is that at the reported dispersion
    value = total(tweedie(data))
    assert fit.llf == pytest.approx(value(np.array([*fit.params, 1.5, np.log(fit.scale)])).real, rel=LIKELIHOOD)
    best = dg.glm("claim ~ x + z", data, family="tweedie(power=1.5)", dispersion="ml")

    def slope(log_phi: float) -> float:
        return float(gradient(value, np.array([*best.params, 1.5, log_phi]))[4])

    assert best.scale == pytest.approx(np.exp(optimize.brentq(slope, -3.0, 3.0, xtol=1e-12)), rel=ESTIMATES)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_perfect_fit_has_no_dispersion() -> None:
    data = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(SolverError, match="the fit is perfect"):
        dg.glm("y ~ x", data, dispersion="ml")


def test_a_dispersion_that_is_known_is_not_estimated() -> None:
    with pytest.raises(DesignError, match='dispersion="ml" estimates what is 1 by definition for the poisson family'):
        dg.glm("count ~ x", frame(), family="poisson", dispersion="ml")
