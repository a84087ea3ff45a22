"""The loop, against optimality in exact arithmetic and optima in closed form."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from daskglm.errors import SolverError
from daskglm.kernels.blocks import Block, Levels, Scaling
from daskglm.solvers.driver import LOSS_NOISE, Held, Optimum, Stopping, descend, minimise
from daskglm.solvers.newton import curvature
from daskglm.solvers.null import Null
from daskglm.totals.moments import Model
from tests.laws.exact import FAMILIES, PAIRS
from tests.solvers.problems import Leaves, exact_decrement, exact_terms, numbers, objective
from tests.totals.problems import Problem, likelihood, problem

# Sums of float64 leave a gradient of roundings, whose decrement is far below the tolerance asked for.
FLOOR = 1e-20
# An information matrix summed in float64, at coefficients that are the same.
INFORMATION = 1e-11
# Half a standard error's millionth: sqrt(tol), in standard errors, which are at most 1 here.
SOLUTION = 2e-6
# Rows whose likelihood is not largest at the edge of the possible means, where rows of 0 pull a mean of the identity link.
SEEDS = {
    ("negative_binomial(theta=1.75)", "identity"): 6,
    ("geometric", "identity"): 3,
    ("geometric", "sqrt"): 3,
    ("tweedie(power=-0.5)", "identity"): 3,
}


def solve(one: Problem, start: np.ndarray | None = None, **options: object) -> tuple[Optimum, Leaves]:
    target = objective(one.block, one.model)
    family = one.model.likelihood.family
    stopping = Stopping(**{key: options.pop(key) for key in ("tol", "max_iter") if key in options})  # type: ignore[arg-type]
    found = minimise(
        target,
        one.coef * 0.9 if start is None else start,
        stopping,
        dispersion=family.dispersion if family.dispersion_known else None,
        **options,  # type: ignore[arg-type]
    )
    assert isinstance(target.blocks, Leaves)
    return found, target.blocks


@pytest.mark.parametrize("form", [{}, {"weight": "real", "offset": True}])
@pytest.mark.parametrize("family, link", PAIRS)
def test_the_optimum_in_exact_arithmetic(family: str, link: str, form: dict) -> None:
    """The decrement at the reported coefficients, and the information beside them."""
    one = problem(family, link, 60, seed=SEEDS.get((family, link), 2), **form)
    found, _ = solve(one)
    assert found.status == "converged"
    assert found.reason == ""
    assert found.decrement <= Stopping().tol
    assert exact_decrement(one, found.point.coef) <= Stopping().tol + FLOOR
    assert found.point.information == "expected"
    assert found.point.sums.statistics is not None
    _, information, pearson = exact_terms(one, found.point.coef)
    exact = numbers(information)
    assert found.point.gram is not None
    assert np.allclose(found.point.gram, exact, rtol=0, atol=INFORMATION * np.abs(exact).max())
    assert np.allclose(found.curvature.inverse() @ exact, np.eye(one.coef.size), rtol=0, atol=1e-8)
    family_itself = one.model.likelihood.family
    phi = family_itself.dispersion
    if not family_itself.dispersion_known:
        phi = float(pearson) / (one.block.n - one.coef.size)
    assert abs(found.dispersion - phi) <= INFORMATION * phi
    assert not found.aliased.any()


@pytest.mark.parametrize("family, link", PAIRS)
def test_the_trace_goes_downhill(family: str, link: str) -> None:
    found, leaves = solve(problem(family, link, 250))
    losses = [step.loss for step in found.steps] + [found.point.loss]
    for before, after in itertools.pairwise(losses):
        assert after <= before + LOSS_NOISE * (abs(before) + 1.0)
    # a pass to begin with, and one for each step and each halving; where a step went too far, a look at the boundary
    looks = sum(name == "slack" for name, _ in leaves.calls)
    assert looks <= 1
    assert leaves.passes - looks == 1 + sum(1 + step.halvings for step in found.steps)


@pytest.mark.parametrize("tol", [1e-2, 1e-6, 1e-14])
@pytest.mark.parametrize("family, link", [("poisson", "log"), ("gamma", "log"), ("binomial", "probit")])
def test_the_tolerance_bounds_the_exact_decrement(family: str, link: str, tol: float) -> None:
    one = problem(family, link, 80)
    found, _ = solve(one, tol=tol)
    assert found.converged
    assert exact_decrement(one, found.point.coef) <= tol * 1.001 + FLOOR


@pytest.mark.parametrize("form", [{}, {"weight": "real", "offset": True}])
def test_a_quadratic_takes_one_step(form: dict) -> None:
    one = problem("gaussian", "identity", 200, **form)
    found, leaves = solve(one, np.zeros(5), quadratic=True)
    target = one.block.y if one.block.offset is None else one.block.y - one.block.offset
    root = np.sqrt(one.weight)
    truth = np.linalg.lstsq(root[:, None] * one.x, root * target, rcond=None)[0]
    assert np.allclose(found.point.coef, truth, rtol=1e-12, atol=1e-13)
    assert len(found.steps) == 1
    assert leaves.passes == 2


def groups(family: str, link: str, y: np.ndarray, codes: np.ndarray, select: list[int]) -> Problem:
    """A factor alone: the fitted mean of a level is the mean of its responses, whatever family and link."""
    n_levels = int(codes.max()) + 1
    block = Block(y.size, (), (Levels(codes.astype("i1"), n_levels),), y)
    model = Model(likelihood(family, link), np.array(select), 1 + n_levels, Scaling.none(0, 1))
    x = np.column_stack([np.ones(y.size), codes[:, None] == np.arange(n_levels)])[:, select]
    return Problem(block, model, np.zeros(len(select)), x)


@pytest.mark.parametrize("family, link", PAIRS)
def test_means_of_groups(family: str, link: str) -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 4, 150)
    y = (rng.random(150) < 0.2 + 0.15 * codes) * 1.0
    if family != "binomial":
        y = y + 0.5 + 0.25 * codes if FAMILIES[family]().support == "positive" else y + codes
    one = groups(family, link, y, codes, [0, 2, 3, 4])
    means = np.array([y[codes == k].mean() for k in range(4)])
    eta = one.model.likelihood.link.link(means)
    overall = one.model.likelihood.link.link(np.array([y.mean()]))[0]
    found, _ = solve(one, np.array([overall, 0.0, 0.0, 0.0]))
    assert found.converged
    assert np.allclose(found.point.coef, [eta[0], *(eta[1:] - eta[0])], rtol=0, atol=SOLUTION)


def test_aliased_columns_are_the_last_in_order_and_zero() -> None:
    """Intercept and every level: the last level is a combination of what stands before it."""
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 3, 120)
    y = rng.poisson(1.0 + codes).astype(float)
    one = groups("poisson", "log", y, codes, [0, 1, 2, 3])
    # the start has something for the aliased column, which the others take over
    found, _ = solve(one, np.array([0.5, -0.2, 0.1, 0.3]))
    logs = np.log([y[codes == k].mean() for k in range(3)])
    assert found.aliased.tolist() == [False, False, False, True]
    assert found.point.coef[3] == 0.0
    assert np.allclose(found.point.coef[:3], [logs[2], logs[0] - logs[2], logs[1] - logs[2]], rtol=0, atol=SOLUTION)
    assert found.curvature.inverse()[3].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "family, link, start",
    [("poisson", "log", [-9.0, 0.0]), ("binomial", "cloglog", [-6.0, 0.0]), ("gamma", "inverse", [5.0, 0.0])],
)
def test_steps_that_overshoot_are_halved(family: str, link: str, start: list[float]) -> None:
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 2, 100)
    y = {
        "poisson": rng.poisson(30.0 + 400.0 * codes),
        "binomial": rng.random(100) < 0.4 + 0.5 * codes,
        "gamma": rng.gamma(3.0, 1.0 + 9.0 * codes),
    }[family].astype(float)
    one = groups(family, link, y, codes, [0, 2])
    found, _ = solve(one, np.array(start))
    assert any(step.halvings for step in found.steps)
    assert found.converged
    eta = one.model.likelihood.link.link(np.array([y[codes == k].mean() for k in range(2)]))
    assert np.allclose(found.point.coef, [eta[0], eta[1] - eta[0]], rtol=0, atol=SOLUTION)


def test_too_few_steps_are_reported_at_the_point_reached() -> None:
    one = problem("poisson", "log", 200)
    found, _ = solve(one, np.array([1.0, 0.0, 0.0, 0.0, 0.0]), max_iter=1)
    assert found.status == "max_iter"
    assert not found.converged
    assert "raise max_iter" in found.reason
    assert len(found.steps) == 1
    # what is reported belongs together
    exact = exact_decrement(one, found.point.coef)
    assert exact > Stopping().tol
    assert abs(found.decrement - exact) <= 1e-6 * exact
    assert found.point.sums.statistics is not None


def test_separated_rows_come_to_an_end() -> None:
    """The supremum of the likelihood, 1, is approached, not reached."""
    codes = np.repeat([0, 1], 50)
    one = groups("binomial", "logit", codes.astype(float), codes, [0, 2])
    found, _ = solve(one, np.zeros(2))
    # a hundred rows whose losses are e^-|eta|: at |eta| = 18 they come to 1.5e-6
    assert 0.0 < found.point.loss < 1.5e-6
    assert found.point.coef[0] < -18.0
    assert found.point.coef[1] > 36.0


@pytest.mark.parametrize("family, link", [("poisson", "identity"), ("gamma", "inverse"), ("binomial", "log")])
def test_an_impossible_start_is_an_error(family: str, link: str) -> None:
    one = problem(family, link)
    start = np.array([1.0 if link == "log" else -1.0, 0.0, 0.0, 0.0, 0.0])
    with pytest.raises(SolverError, match="give start="):
        solve(one, start)
    assert descend(objective(one.block, one.model), start, 0.5, 10) is None


def test_a_held_gram_makes_the_first_step() -> None:
    """With half the information and scale 2 the step is the Newton step; its evaluation is spared the Gram."""
    one = problem("poisson", "log", 200)
    target = objective(one.block, one.model)
    point = target.evaluate(one.coef)
    half = replace(point, gram=None if point.gram is None else point.gram / 2)
    held = Held(curvature(target, half, None), 2.0)
    found, leaves = solve(one, held=held)
    assert leaves.calls[0][1][1].order == 1
    assert not found.steps[0].newton
    assert found.converged
    assert exact_decrement(one, found.point.coef) <= Stopping().tol


def test_the_null_model_is_fitted_in_the_same_passes() -> None:
    one = problem("poisson", "log", 200, weight="real", offset=True)
    null = Null(one.model.likelihood, True, True)
    null.value = 0.0
    found, leaves = solve(one, null=null)

    def score(value: float) -> float:
        return float(np.sum(one.weight * (one.block.y - np.exp(value + one.block.offset))))  # type: ignore[operator]

    assert null.value == pytest.approx(brentq(score, -5.0, 5.0, xtol=1e-14), abs=SOLUTION)
    assert leaves.passes == 1 + sum(1 + step.halvings for step in found.steps)


@pytest.mark.parametrize("enough", [10.0, 0.5, 1e-3])
def test_descend_stops_early_enough(enough: float) -> None:
    one = problem("gamma", "log", 100)
    found = descend(objective(one.block, one.model), np.array([2.0, 0.0, 0.0, 0.0, 0.0]), enough, 30)
    assert found is not None
    gradient, information, _ = exact_terms(one, found[0].coef)
    g, h = numbers(gradient)[:, 0], numbers(information)
    # by the observed information, which is near the expected one where it stops
    assert g @ np.linalg.solve(h, g) <= 1.5 * enough


def test_descend_gives_up_after_max_iter_with_what_it_has() -> None:
    one = problem("gamma", "log", 100)
    start = np.array([2.0, 0.0, 0.0, 0.0, 0.0])
    target = objective(one.block, one.model)
    found = descend(target, start, 1e-12, 1)
    assert found is not None
    assert found[0].loss < target.evaluate(start).loss
