"""Against R for the families and links beside the classical ones, each as one file and as seven, of which some are empty."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskglm as dg

from .cases import FAMILIES, Case, frame, lake, of_kind, options, vector

# R's solutions are polished until the scaled score is below 1e-12, and a fit stops within 1e-6 standard errors of the
# optimum (decrement 1e-12), where off the canonical link the next step is not yet rounding.
COEFFICIENTS = 1e-7
# A standard error moves with the coefficients to first order, and is taken from an inverse.
ERRORS = 1e-6
# Flat at the optimum: what is left is the sum over rows in another order.
LIKELIHOOD = 1e-9
# The Pearson statistic is not flat at the optimum.
PEARSON = 1e-7
# theta and shape: as coefficients, of a likelihood whose digamma differences cancel.
SHAPE, SHAPE_ERRORS = 1e-7, 1e-6

FILES = pytest.mark.parametrize("files", [1, 7])


def cases(kind: str) -> Any:
    return pytest.mark.parametrize("case", of_kind(kind), ids=lambda case: case["name"])


def fit_of(case: Case, data: Any, **extra: Any) -> Any:
    """The case's fit, converged, with R's coefficients and errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.AliasWarning)
        fit = dg.glm(case["formula"], data, **options(case), **extra)
    assert fit.converged
    expected, errors = vector(case["coefficients"]), vector(case["standard_errors"])
    found = fit.params.to_numpy()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    kept = ~np.isnan(expected)
    # a coefficient that is zero but for rounding is measured by its error
    size = np.maximum(np.abs(expected), errors)[kept]
    assert np.max(np.abs(found - expected)[kept] / size) < COEFFICIENTS
    assert np.max(np.abs(fit.bse.to_numpy() / errors - 1.0)[kept]) < ERRORS
    return fit


def check_sums(case: Case, fit: Any) -> None:
    """Deviance, Pearson statistic, dispersion, degrees of freedom."""
    assert fit.deviance == pytest.approx(case["deviance"], rel=LIKELIHOOD, abs=LIKELIHOOD)
    assert fit.scale == pytest.approx(case["dispersion"], rel=PEARSON)
    assert fit.pearson_chi2 == pytest.approx(case["pearson_chi2"], rel=PEARSON)
    assert (fit.df_resid, fit.nobs) == (case["df_residual"], case["nobs"])


@FILES
@cases("glm")
def test_fit_is_that_of_r(case: Case, files: int, tmp_path: Path) -> None:
    fit = fit_of(case, lake(case, tmp_path, files))
    check_sums(case, fit)
    assert fit.df_null == case["df_null"]
    if case["null_deviance"] is not None:
        assert fit.null_deviance == pytest.approx(case["null_deviance"], rel=LIKELIHOOD)
    if case["log_likelihood"] is not None:
        assert fit.llf == pytest.approx(case["log_likelihood"], rel=LIKELIHOOD)
        assert fit.aic == pytest.approx(case["aic"], rel=LIKELIHOOD)
    if case["family"].startswith("quasi"):
        assert np.isnan(fit.llf)
        assert np.isnan(fit.aic)


@FILES
@cases("glm.nb")
def test_theta_is_that_of_glm_nb(case: Case, files: int, tmp_path: Path) -> None:
    fit = fit_of({**case, "family_arguments": {"theta": None}}, lake(case, tmp_path, files))
    assert fit.shape_params["theta"] == pytest.approx(case["theta"], rel=SHAPE)
    assert fit.shape_bse["theta"] == pytest.approx(case["theta_error"], rel=SHAPE_ERRORS)
    # at the estimated theta, with which the deviance moves to first order
    assert fit.deviance == pytest.approx(case["deviance"], rel=SHAPE)
    assert fit.null_deviance == pytest.approx(case["null_deviance"], rel=SHAPE)
    assert fit.pearson_chi2 == pytest.approx(case["pearson_chi2"], rel=PEARSON)
    assert fit.llf == pytest.approx(case["log_likelihood"], rel=LIKELIHOOD)
    assert fit.aic == pytest.approx(case["aic"], rel=LIKELIHOOD)
    assert fit.scale == 1.0
    assert (fit.df_resid, fit.df_null, fit.nobs) == (case["df_residual"], case["df_null"], case["nobs"])


@FILES
@cases("gamma.shape")
def test_shape_is_that_of_gamma_shape(case: Case, files: int, tmp_path: Path) -> None:
    fit = fit_of(case, lake(case, tmp_path, files), dispersion="ml")
    assert fit.shape_params["shape"] == pytest.approx(case["shape"], rel=SHAPE)
    assert fit.shape_bse["shape"] == pytest.approx(case["shape_error"], rel=SHAPE_ERRORS)
    check_sums(case, fit)


@FILES
@cases("firth")
def test_reduced_bias_is_that_of_brglm2(case: Case, files: int, tmp_path: Path) -> None:
    fit = fit_of(case, lake(case, tmp_path, files), separation="firth")
    check_sums(case, fit)
    assert fit.llf == pytest.approx(case["log_likelihood"], rel=LIKELIHOOD)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("negative_binomial(theta=2)", "quine_negative_binomial_empty_cell"),
        ("tweedie(power=1.5)", "policies_tweedie_1_5"),
        ('quasi(variance="mu^2")', "airquality_quasi_mu_squared_log"),
    ],
)
def test_a_family_written_as_text_is_the_object(text: str, name: str) -> None:
    case = next(case for case in FAMILIES if case["name"] == name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.AliasWarning)
        one = dg.glm(case["formula"], frame(case), **options(case))
        other = dg.glm(case["formula"], frame(case), **{**options(case), "family": text})
    assert one.params.equals(other.params)
    assert one.cov_params().equals(other.cov_params())


def test_each_family_has_three_data_sets() -> None:
    families = {case["family"] for case in of_kind("glm")}
    expected = {
        "binomial", "exponential", "gamma", "gaussian", "geometric", "inverse_gaussian", "negative_binomial", "poisson",
        "quasi", "quasibinomial", "quasipoisson", "tweedie",
    }  # fmt: skip
    assert families == expected
    for family in families - {"gamma", "gaussian", "poisson"}:
        assert len({case["data"] for case in of_kind("glm") if case["family"] == family}) >= 3
