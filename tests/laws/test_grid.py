"""Some shapes of data for every family with every link it accepts; `python -m benchmarks grid` goes through all of them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import daskglm as dg
from tests.laws import grid
from tests.laws.grid import Case, held_against, judge
from tests.moved import with_coefficients

PAIRS = grid.pairs()
CASES = grid.sample(2)


def test_the_grid_knows_every_family() -> None:
    assert not grid.missing()


@pytest.mark.parametrize("family, link", PAIRS)
def test_what_a_fit_says_is_true(family: str, link: str) -> None:
    chosen = [case for case in CASES if (case.family, case.link) == (family, link)]
    assert chosen
    for case in chosen:
        verdict = judge(case)
        assert verdict.right, f"{case}: {verdict.detail}"


@pytest.mark.parametrize(
    "case, outcome",
    [
        (Case("gamma", "inverse", "strong", 0), "optimum"),
        (Case("poisson", "log", "silent", 0), "separated"),
        (Case("tweedie(power=1.2)", "inverse", "silent", 0), "separated"),
        (Case("ordinal", "cauchit", "silent", 0), "separated"),
        (Case("poisson", "identity", "silent", 0), "boundary"),
        (Case("binomial", "log", "tiny", 0), "boundary"),
        (Case("gamma", "log", "collinear", 0), "optimum"),
    ],
    ids=str,
)
def test_shapes_are_what_they_are_meant_to_be(case: Case, outcome: str) -> None:
    verdict = judge(case)
    assert verdict.outcome == outcome, verdict.detail


# -- the judge -------------------------------------------------------------------------------------------------------------


def _moved(case: Case, by: float) -> tuple[dg.Fit, set[type[Warning]]]:
    """A fit whose first coefficient is off by so many standard errors, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = case.fit()
    record, coefficients = fit.record, fit.record.coefficients.copy()
    coefficients[0] += by * np.sqrt(record.covariance[0, 0])
    return dg.Fit(with_coefficients(record, coefficients)), {warning.category for warning in caught}


@pytest.mark.parametrize("family, link", [("poisson", "log"), ("gamma", "inverse"), ("binomial", "cauchit")])
def test_the_judge_sees_a_ten_thousandth_of_a_standard_error(family: str, link: str) -> None:
    case = Case(family, link, "plain", 0)
    assert held_against(case, *_moved(case, 0.0))[0] == "optimum"
    outcome, detail = held_against(case, *_moved(case, 1e-4))
    assert outcome == "wrong"
    assert "decrement" in detail


@pytest.mark.parametrize("family, link", [("multinomial", "logit"), ("ordinal", "probit")])
def test_the_judge_sees_it_in_models_of_classes(family: str, link: str) -> None:
    case = Case(family, link, "plain", 0)
    assert held_against(case, *_moved(case, 0.0))[0] == "optimum"
    assert held_against(case, *_moved(case, 1e-4))[0] == "wrong"


def test_the_judge_sees_a_boundary_that_is_no_optimum() -> None:
    case = Case("poisson", "identity", "silent", 0)
    fit, warned = _moved(case, 0.0)
    assert held_against(case, fit, warned)[0] == "boundary"
    coefficients = fit.record.coefficients.copy()
    # still possible, and too high a mean everywhere
    coefficients[0] += 0.5
    outcome, detail = held_against(case, dg.Fit(with_coefficients(fit.record, coefficients)), warned)
    assert outcome == "wrong"
    assert "lowers the loss" in detail


def test_the_judge_wants_to_be_told() -> None:
    case = Case("poisson", "log", "silent", 0)
    fit, warned = _moved(case, 0.0)
    assert held_against(case, fit, warned)[0] == "separated"
    assert held_against(case, fit, set())[0] == "wrong"
    finite = replace(
        fit.record, separated=(), separation=None, coefficients=np.nan_to_num(fit.record.coefficients, neginf=-30.0)
    )
    outcome, detail = held_against(case, dg.Fit(finite), set())
    assert outcome == "wrong"
    assert "infinite" in detail
