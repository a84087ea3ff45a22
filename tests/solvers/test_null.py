"""The intercept-only model: in closed form without an offset, by root finding with one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from daskglm.solvers.null import Null
from daskglm.totals.moments import Request, moments
from tests.laws.exact import PAIRS
from tests.solvers.problems import Leaves
from tests.totals.problems import Problem, problem

# g at a mean that was summed in another order.
LINKED = 1e-12
# Its tolerance is on the decrement: a millionth of a standard error, which is below one here.
SOLUTION = 2e-6


def mean(one: Problem) -> np.ndarray:
    return np.array([np.average(one.block.y, weights=one.weight)])


@pytest.mark.parametrize("family, link", PAIRS)
@pytest.mark.parametrize("weight", [None, "real"])
def test_without_an_offset_it_is_the_link_of_the_mean(family: str, link: str, weight: str | None) -> None:
    one = problem(family, link, weight=weight)
    null = Null(one.model.likelihood, True, False)
    assert null.settled
    assert null.candidate(False) is None
    null.start(moments(one.block, one.model, Request(None, order=0, means=True)))
    truth = one.model.likelihood.link.link(mean(one))[0]
    assert null.candidate(False) is None
    assert null.candidate(True) == pytest.approx(truth, rel=LINKED, abs=LINKED)
    # the score vanishes there
    terms = one.model.likelihood.rows(one.block.y, np.full(300, null.value), 1)
    assert abs(np.sum(one.weight * terms.score)) <= LINKED * np.sum(one.weight * np.abs(terms.score))


@pytest.mark.parametrize("family, link", PAIRS)
@pytest.mark.parametrize("weight", [None, "real"])
def test_with_an_offset_the_score_vanishes(family: str, link: str, weight: str | None) -> None:
    one = problem(family, link, weight=weight, offset=True)
    glm = one.model.likelihood
    null = Null(glm, True, True)
    leaves = Leaves(one.block)
    null.start(leaves.total(moments, one.model, Request(None, order=0, means=True)))
    null.fit(leaves, one.model)
    assert null.settled

    def score(value: float) -> float:
        return float(np.sum(one.weight * glm.rows(one.block.y, value + one.block.offset, 1).score))  # type: ignore[operator]

    center = float(glm.link.link(mean(one))[0])
    truth = brentq(score, center - 0.15, center + 0.15, xtol=1e-13)
    assert null.value == pytest.approx(truth, abs=SOLUTION)
    # settled: only the closing pass asks again
    assert null.candidate(False) is None
    assert null.candidate(True) == null.value


def test_a_poor_beginning_is_halved() -> None:
    """From far below, a Newton step of the log link goes far above, where the loss is larger."""
    one = problem("poisson", "log", offset=True)
    null = Null(one.model.likelihood, True, True)
    null.value = -6.0
    for _ in range(10):
        null.fit(Leaves(one.block), one.model)
    assert null.settled
    assert one.block.offset is not None
    truth = np.log(one.block.y.sum() / np.exp(one.block.offset).sum())
    assert null.value == pytest.approx(truth, abs=SOLUTION)


@pytest.mark.parametrize("offset", [False, True])
def test_without_an_intercept_it_is_the_offset_alone(offset: bool) -> None:
    one = problem("poisson", "log", offset=offset)
    null = Null(one.model.likelihood, False, offset)
    leaves = Leaves(one.block)
    null.start(leaves.total(moments, one.model, Request(None, order=0, means=True)))
    null.fit(leaves, one.model)
    assert null.value == 0.0
    assert null.candidate(True) == 0.0
    assert null.candidate(False) is None
    assert leaves.passes == 1


def test_other_rows_are_a_new_beginning() -> None:
    one = problem("gamma", "log", offset=True)
    null = Null(one.model.likelihood, True, True)
    sample, whole = Leaves(one.block.rows(0, 60)), Leaves(one.block)
    null.start(sample.total(moments, one.model, Request(None, order=0, means=True)))
    null.fit(sample, one.model)
    before = null.value
    null.begin_again()
    assert null.candidate(False) == before
    null.fit(whole, one.model)
    assert one.block.offset is not None
    # for the gamma family with a log link: the mean of y / exp(offset)
    truth = np.log(np.mean(one.block.y / np.exp(one.block.offset)))
    assert null.value == pytest.approx(truth, abs=SOLUTION)


def test_no_rows_have_no_mean() -> None:
    one = problem("poisson", "log")
    null = Null(one.model.likelihood, True, False)
    null.start(moments(one.block.rows(0, 0), one.model, Request(None, order=0, means=True)))
    assert null.value is not None
    assert np.isnan(null.value)
