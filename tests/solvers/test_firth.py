"""Mean bias reduction: its root by closed forms, as a mode of the penalised likelihood, and by the score written out."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from daskglm.errors import SolverError
from daskglm.kernels.blocks import Block, Levels, Scaling
from daskglm.solvers.driver import Optimum, Stopping
from daskglm.solvers.firth import minimise_bias
from daskglm.solvers.null import Null
from daskglm.totals.moments import Model
from tests.solvers.problems import objective
from tests.totals.problems import Problem, likelihood, problem
from tests.totals.test_bias import KNOWN, bend, leverages

# The root is reached until rounding stops the decrement, to 1e-20 and less, which is the square of what is left.
ROOT = 1e-9
# Finite differences of a function known to 1e-15 times its size, a few hundred.
FLAT = 1e-5


def solve(one: Problem, start: Any = None, **options: Any) -> tuple[Optimum, Any]:
    target = objective(one.block, one.model)
    begin = one.coef if start is None else np.asarray(start, float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return minimise_bias(target, begin, Stopping(goal=1e-20), **options), target.blocks


def adjusted_score(one: Problem, coef: np.ndarray) -> np.ndarray:
    """U + A by its definition."""
    at = replace(one, coef=coef)
    score = one.model.likelihood.rows(one.block.y, at.eta, 1, "expected").score * one.weight
    return one.x.T @ (score + leverages(one, coef) * bend(one, at.eta) / 2.0)


def groups(family: str, link: str, successes: list[int], sizes: list[int]) -> Problem:
    """One coefficient per group, and nothing else."""
    codes = np.repeat(np.arange(len(sizes)), sizes).astype("i1")
    y = np.concatenate([np.repeat([1.0, 0.0], [s, m - s]) for s, m in zip(successes, sizes, strict=True)])
    block = Block(y.size, (), (Levels(codes, len(sizes)),), y)
    model = Model(likelihood(family, link), 1 + np.arange(len(sizes)), block.width, Scaling.none(0, 1))
    return Problem(block, model, np.zeros(len(sizes)), (codes[:, None] == np.arange(len(sizes))).astype(float))


def test_proportions_get_half_a_success_and_half_a_failure() -> None:
    """Firth (1993), section 3.1: (s + 1/2) / (m + 1) in a saturated logistic model, also where s is 0 or m, or m is 1."""
    successes, sizes = [0, 5, 3, 0, 1, 40], [4, 5, 7, 1, 1, 90]
    found, _ = solve(groups("binomial", "logit", successes, sizes))
    assert found.converged
    expected = (np.array(successes) + 0.5) / (np.array(sizes) + 1.0)
    assert np.allclose(1.0 / (1.0 + np.exp(-found.point.coef)), expected, rtol=ROOT)


def test_counts_get_half_an_event() -> None:
    successes, sizes = [0, 2, 9], [4, 5, 30]
    found, _ = solve(groups("poisson", "log", successes, sizes))
    assert np.allclose(np.exp(found.point.coef), (np.array(successes) + 0.5) / np.array(sizes), rtol=ROOT)


# Pairs whose data here have the root outside the domain of the link, where the search ends with a sentence.
OUTSIDE = {
    ("exponential", "inverse_square"), ("gamma(shape=2)", "inverse_square"), ("geometric", "identity"),
    ("negative_binomial(theta=1.75)", "identity"),
}  # fmt: skip


@pytest.mark.parametrize("family, link", [pair for pair in KNOWN if pair not in OUTSIDE])
@pytest.mark.parametrize("extras", [{}, {"weight": "real", "offset": True}])
def test_the_adjusted_score_vanishes(family: str, link: str, extras: dict[str, Any]) -> None:
    one = problem(family, link, 120, **extras)
    found, leaves = solve(one)
    assert found.converged
    information = np.linalg.inv(found.curvature.inverse())
    root = np.linalg.cholesky(information)
    assert np.linalg.norm(np.linalg.solve(root, adjusted_score(one, found.point.coef))) < ROOT
    at = replace(one, coef=found.point.coef)
    weight = one.model.likelihood.rows(one.block.y, at.eta, 2, "expected").weight * one.weight
    assert np.allclose(information, one.x.T @ (weight[:, None] * one.x), rtol=1e-9, atol=1e-9)
    # one pass to begin with, one for every step, and another where leverages are brought up to date
    assert 1 + len(found.steps) <= leaves.passes <= 2 + 2 * len(found.steps)
    assert found.point.sums.statistics is not None


def test_a_logistic_root_is_the_mode_under_jeffreys_prior() -> None:
    """Firth (1993), section 3: log L + log det I / 2 is flat there."""
    one = problem("binomial", "logit", 60)
    found, _ = solve(one)

    def penalised(coef: np.ndarray) -> float:
        at = replace(one, coef=coef)
        terms = one.model.likelihood.rows(one.block.y, at.eta, 2)
        information = one.x.T @ (terms.weight[:, None] * one.x)
        return float(-terms.loss.sum() + 0.5 * np.linalg.slogdet(information)[1])

    for j in range(one.coef.size):
        step = np.eye(one.coef.size)[j] * 1e-5
        slope = (penalised(found.point.coef + step) - penalised(found.point.coef - step)) / 2e-5
        assert abs(slope) < FLAT


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_separated_data_have_a_finite_root(link: str) -> None:
    x = np.arange(-10.0, 11.0)
    y = (x > 0.5).astype(float)
    block = Block(x.size, (x,), (), y)
    model = Model(likelihood("binomial", link), np.arange(2), 2, Scaling(np.zeros(1), np.full(1, 0.1), np.zeros(0)))
    one = Problem(block, model, np.zeros(2), np.column_stack([np.ones(x.size), x * 0.1]))
    found, _ = solve(one)
    assert found.converged
    assert np.abs(found.point.coef).max() < 50.0
    assert np.abs(adjusted_score(one, found.point.coef)).max() < 1e-8


def separated_problem(seed: int, link: str = "logit") -> Problem:
    """Rows whose response a plane tells apart: as few as 10, as many as 200, of one to three columns."""
    rng = np.random.default_rng(seed)
    n, p = (10, 20, 50, 100, 200)[seed % 5], 1 + seed % 3
    x = rng.normal(size=(n, p))
    y = (x @ rng.normal(size=p) > 0.3) * 1.0
    block = Block(n, tuple(np.ascontiguousarray(column) for column in x.T), (), y)
    model = Model(likelihood("binomial", link), np.arange(p + 1), p + 1, Scaling(np.zeros(p), np.ones(p), np.zeros(0)))
    return Problem(block, model, np.zeros(p + 1), np.column_stack([np.ones(n), x]))


def penalised(one: Problem, coef: np.ndarray) -> tuple[float, np.ndarray]:
    """-log L - log det I / 2 of a logistic model and its gradient, by the definitions."""
    eta = one.x @ coef
    weight = np.exp(-np.abs(eta)) / (1.0 + np.exp(-np.abs(eta))) ** 2
    information = one.x.T @ (weight[:, None] * one.x)
    leverage = weight * np.einsum("ij,ij->i", one.x @ np.linalg.inv(information), one.x)
    mu = 0.5 * (1.0 + np.tanh(0.5 * eta))
    value = np.logaddexp(0.0, eta).sum() - one.block.y @ eta - 0.5 * np.linalg.slogdet(information)[1]
    return float(value), -(one.x.T @ (one.block.y - mu + leverage * (0.5 - mu)))


@pytest.mark.parametrize("seed", range(20))
def test_completely_separated_rows_end_at_the_maximum_of_the_penalised_likelihood(seed: int) -> None:
    one = separated_problem(seed)
    found, leaves = solve(one)
    assert found.status in ("converged", "floor")
    assert len(found.steps) <= 30
    assert leaves.passes <= 3 + 2 * len(found.steps) + sum(step.halvings for step in found.steps)
    assert np.abs(adjusted_score(one, found.point.coef)).max() < 1e-9
    # a direct maximisation, from three places, ends no higher
    value = penalised(one, found.point.coef)[0]
    for start in (found.point.coef, 0.5 * found.point.coef, np.zeros(one.coef.size)):
        other = minimize(lambda coef: penalised(one, coef), start, jac=True, method="BFGS", options={"gtol": 1e-9})
        assert value <= other.fun + 1e-9
        assert np.allclose(found.point.coef, other.x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_completely_separated_rows_have_a_root_under_the_probit_link(seed: int) -> None:
    one = separated_problem(seed, "probit")
    found, _ = solve(one)
    assert found.status in ("converged", "floor")
    assert found.decrement <= 1e-12
    # the formulas of the test lose a row whose probability is 0 or 1 to rounding
    with np.errstate(all="ignore"):
        score = adjusted_score(one, found.point.coef)
    assert np.isnan(score).all() or np.abs(score).max() < 1e-8


@pytest.mark.parametrize("start", [0.0, 3.0, -3.0])
def test_the_penalised_likelihood_rises_with_every_step(start: float) -> None:
    one = separated_problem(4)
    found, _ = solve(one, np.full(one.coef.size, start))
    assert found.converged
    best, _ = solve(one)
    assert np.allclose(found.point.coef, best.point.coef, rtol=ROOT, atol=ROOT)


def test_large_data_need_one_pass_for_a_step() -> None:
    """The bias is a hundredth of a standard error there, and leverages hardly move."""
    found, leaves = solve(problem("binomial", "logit", 30_000))
    assert leaves.passes == 1 + len(found.steps) <= 8


def test_aliased_columns_stay_out() -> None:
    one = groups("binomial", "logit", [1, 4], [6, 9])
    model = replace(one.model, select=np.array([0, 1, 2]))
    found, _ = solve(replace(one, model=model), np.array([0.3, -0.4, 0.9]))
    assert found.aliased.tolist() == [False, False, True]
    eta = np.log((np.array([1, 4]) + 0.5) / (np.array([6, 9]) - np.array([1, 4]) + 0.5))
    assert np.allclose(found.point.coef, [eta[1], eta[0] - eta[1], 0.0], rtol=0, atol=ROOT)


def test_the_null_model_is_fitted_in_the_same_passes() -> None:
    one = problem("poisson", "log", 200, offset=True)
    null = Null(one.model.likelihood, True, True)
    null.value = 0.0
    solve(one, null=null)
    assert null.settled
    total = float(np.sum(one.block.y - np.exp((null.value or 0.0) + one.block.offset)))  # type: ignore[operator]
    assert abs(total) < 1e-5


def test_too_few_steps_are_reported() -> None:
    one = problem("binomial", "logit", 60)
    found = minimise_bias(objective(one.block, one.model), np.zeros(5), Stopping(max_iter=1))
    assert (found.status, found.converged) == ("max_iter", False)
    assert "raise max_iter" in found.reason
    assert found.point.sums.statistics is not None


def test_an_impossible_start_is_an_error() -> None:
    one = problem("poisson", "identity", 60)
    with pytest.raises(SolverError, match="give start="):
        minimise_bias(objective(one.block, one.model), np.array([-1.0, 0.0, 0.0, 0.0, 0.0]), Stopping())
