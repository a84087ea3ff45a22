"""Against nnet's multinom and MASS's polr, polished: responses of three to six classes, as one file and as seven."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskglm as dg

from .cases import Case, frame, lake, of_family, options

# R's solutions are polished until the scaled score is below 1e-14, and a fit stops within 1e-6 standard errors of the
# optimum (decrement 1e-12); multinomial logit and the log-concave cumulative links converge quadratically there.
COEFFICIENTS = 1e-7
# A standard error moves with the coefficients to first order, and is taken from an inverse.
ERRORS = 1e-6
# Flat at the optimum: what is left is the sum over rows in another order.
LIKELIHOOD = 1e-9
# The Pearson statistic is not flat at the optimum, and 1 / p is large for a class that was not to be expected.
PEARSON = 1e-6

FILES = pytest.mark.parametrize("files", [1, 7])


def cases(family: str) -> Any:
    return pytest.mark.parametrize("case", of_family(family), ids=lambda case: case["name"])


def check(case: Case, fit: Any) -> None:
    assert fit.converged
    expected, errors = np.array(case["coefficients"]), np.array(case["standard_errors"])
    found, found_errors = fit.params.to_numpy(), fit.bse.to_numpy()
    assert found.shape == found_errors.shape == expected.shape
    size = np.maximum(np.abs(expected), errors)
    assert np.max(np.abs(found - expected) / size) < COEFFICIENTS
    assert np.max(np.abs(found_errors / errors - 1.0)) < ERRORS
    assert fit.llf == pytest.approx(case["log_likelihood"], rel=LIKELIHOOD)
    assert fit.deviance == pytest.approx(case["deviance"], rel=LIKELIHOOD)
    assert fit.null_deviance == pytest.approx(case["null_deviance"], rel=LIKELIHOOD)
    assert fit.aic == pytest.approx(case["aic"], rel=LIKELIHOOD)
    assert fit.pearson_chi2 == pytest.approx(case["pearson_chi2"], rel=PEARSON)
    assert fit.scale == 1.0
    assert (fit.df_resid, fit.nobs) == (case["df_residual"], case["nobs"])


def check_names(case: Case, fit: Any) -> None:
    levels, names = case["levels"], list(fit.params.index)
    assert len(names) == len(case["names"])
    if case["family"] == "multinomial":
        assert list(fit.params.columns) == list(fit.bse.columns) == levels[1:]
        assert ("Intercept" in names) == ("(Intercept)" in case["names"])
    else:
        thresholds = [f"{low}|{high}" for low, high in itertools.pairwise(levels)]
        assert names[-len(thresholds) :] == thresholds == case["names"][-len(thresholds) :]
        assert "Intercept" not in names


def keywords(case: Case) -> dict[str, Any]:
    """The multinomial has its one link, which needs no name."""
    given = options(case)
    return {**given, "link": None} if case["family"] == "multinomial" else given


@FILES
@cases("multinomial")
def test_multinomial_is_that_of_multinom(case: Case, files: int, tmp_path: Path) -> None:
    fit = dg.glm(case["formula"], lake(case, tmp_path, files), **keywords(case))
    check(case, fit)
    check_names(case, fit)


@FILES
@cases("ordinal")
def test_ordinal_is_that_of_polr(case: Case, files: int, tmp_path: Path) -> None:
    fit = dg.glm(case["formula"], lake(case, tmp_path, files), **keywords(case))
    check(case, fit)
    check_names(case, fit)
    thresholds = fit.params.to_numpy()[-(len(case["levels"]) - 1) :]
    assert np.all(np.diff(thresholds) > 0)


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_pandas_gives_the_same_bits_as_a_file(family: str, tmp_path: Path) -> None:
    case = of_family(family)[0]
    one = dg.glm(case["formula"], lake(case, tmp_path, 1), **keywords(case))
    other = dg.glm(case["formula"], frame(case), **keywords(case))
    assert one.params.equals(other.params)
    assert one.bse.equals(other.bse)


def test_another_reference_is_another_difference() -> None:
    """Coefficients against another first level are differences of those against the old one."""
    case, other = (
        next(c for c in of_family("multinomial") if c["name"] == name)
        for name in ("iris_multinomial", "iris_multinomial_other_reference")
    )
    B = dg.glm(case["formula"], frame(case), **keywords(case)).params
    D = dg.glm(other["formula"], frame(other), **keywords(other)).params
    np.testing.assert_allclose(D["versicolor"], B["versicolor"] - B["virginica"], rtol=COEFFICIENTS)
    np.testing.assert_allclose(D["setosa"], -B["virginica"], rtol=COEFFICIENTS)


def test_every_link_and_number_of_classes_is_covered() -> None:
    assert {case["link"] for case in of_family("ordinal")} == {"logit", "probit", "cloglog", "loglog", "cauchit"}
    for family in ("multinomial", "ordinal"):
        assert {3, 4, 6} <= {len(case["levels"]) for case in of_family(family)}
        assert len({case["data"] for case in of_family(family)}) >= 5
        assert any(case["weights"] is None for case in of_family(family))
