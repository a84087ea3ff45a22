"""Against 40-digit arithmetic: Tweedie densities, and dispersion and power by maximum likelihood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskglm as dg
from daskglm.model.families import log_density

from .cases import TWEEDIE, Case, lake, options, vector
from .test_values import rows_of

# Sums of a few hundred log densities, each to full precision.
LIKELIHOOD = 1e-9
# A fit stops within 1e-6 standard errors of the optimum (decrement 1e-12).
COEFFICIENTS = 1e-7
# Errors move with the coefficients to first order.
ERRORS = 1e-6
# The root in (p, phi) of a score whose density is known to 13 digits or so.
POWER, DISPERSION = 1e-6, 1e-6
# Second derivatives of the same in p.
POWER_ERRORS = 1e-4

FILES = pytest.mark.parametrize("files", [1, 7])


def cases(kind: str) -> Any:
    return pytest.mark.parametrize("case", TWEEDIE[kind], ids=lambda case: case["name"])


@cases("densities")
def test_log_density(case: Case) -> None:
    rows = rows_of(case)
    mu = np.exp(rows.X @ vector(case["coefficients"]) + rows.offset)
    family = dg.families.Tweedie(power=case["power"])
    for phi, expected in zip(case["dispersions"], case["log_likelihoods"], strict=True):
        with np.errstate(all="ignore"):
            found = float(np.sum(rows.f * log_density(family, rows.y, mu, phi, rows.w)))
        assert found == pytest.approx(expected, rel=LIKELIHOOD)
    with np.errstate(all="ignore"):
        deviance = float(np.sum(rows.f * rows.w * family.unit_deviance(rows.y, mu, 1.0 - mu)))
    assert deviance == pytest.approx(case["deviance"], rel=LIKELIHOOD)


def fit_of(case: Case, data: Any, power: float | None) -> Any:
    """The fit with both by maximum likelihood, its coefficients checked; errors are those at its own dispersion."""
    given = options({**case, "family_arguments": {"power": power}})
    fit = dg.glm(case["formula"], data, **given, dispersion="ml")
    assert fit.converged
    expected, unit = vector(case["coefficients"]), vector(case["unit_errors"])
    size = np.maximum(np.abs(expected), unit)
    # with the power estimated the coefficients move with it
    assert np.max(np.abs(fit.params.to_numpy() - expected) / size) < (COEFFICIENTS if power is not None else POWER)
    np.testing.assert_allclose(fit.bse.to_numpy(), unit * np.sqrt(fit.scale), rtol=ERRORS)
    assert fit.scale == fit.shape_params["dispersion"] == pytest.approx(case["dispersion"], rel=DISPERSION)
    assert fit.llf == pytest.approx(case["log_likelihood"], rel=LIKELIHOOD)
    return fit


@FILES
@cases("dispersions")
def test_dispersion(case: Case, files: int, tmp_path: Path) -> None:
    fit = fit_of(case, lake(case, tmp_path, files), case["power"])
    assert fit.shape_bse["dispersion"] == pytest.approx(case["dispersion_error"], rel=POWER_ERRORS)
    assert fit.deviance == pytest.approx(case["deviance"], rel=LIKELIHOOD)
    assert fit.pearson_chi2 == pytest.approx(case["pearson_chi2"], rel=ERRORS)


@FILES
@cases("powers")
def test_power(case: Case, files: int, tmp_path: Path) -> None:
    fit = fit_of(case, lake(case, tmp_path, files), None)
    assert fit.shape_params["power"] == pytest.approx(case["power"], rel=POWER)
    # of all parameters together, not at fixed coefficients
    assert fit.shape_bse["power"] == pytest.approx(case["power_error_joint"], rel=POWER_ERRORS)
    assert fit.shape_bse["dispersion"] == pytest.approx(case["dispersion_error_joint"], rel=POWER_ERRORS)
    # the deviance moves with the power to first order
    assert fit.deviance == pytest.approx(case["deviance"], rel=10 * POWER)


def test_the_two_errors_of_the_power_differ() -> None:
    """So that the test above can tell which one it is."""
    for case in TWEEDIE["powers"]:
        assert abs(case["power_error_joint"] / case["power_error_at_fixed_coefficients"] - 1.0) > POWER_ERRORS
