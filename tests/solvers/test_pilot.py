"""Starts: a possible mean for every row, and the sample's penalised optimum to its own sampling error."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.errors import SolverError
from daskglm.kernels.blocks import Block, Scaling
from daskglm.solvers.null import Null
from daskglm.solvers.pilot import ENOUGH, STAGES, first_guess, pilot
from daskglm.totals.moments import Model
from tests.laws.exact import PAIRS, possible
from tests.solvers.problems import Leaves, objective
from tests.totals.problems import likelihood, problem

# Sums of a few thousand rows in another order.
SUMS = 1e-10
SEEDS = {
    ("negative_binomial(theta=1.75)", "identity"): 3,
    ("geometric", "identity"): 1,
    ("tweedie(power=1.5)", "identity"): 3,
}


@pytest.mark.parametrize("family, link", PAIRS)
@pytest.mark.parametrize("form", [{}, {"weight": "real", "offset": True}])
def test_every_mean_of_the_first_guess_is_possible(family: str, link: str, form: dict) -> None:
    one = problem(family, link, **form)
    guess = first_guess(objective(one.block, one.model), Null(one.model.likelihood, True, False))
    eta = one.x @ guess + (0.0 if one.block.offset is None else one.block.offset)
    assert all(possible(family, link, float(value)) for value in eta)


def test_the_first_guess_of_least_squares_is_least_squares() -> None:
    one = problem("gaussian", "identity", weight="real", offset=True)
    guess = first_guess(objective(one.block, one.model), Null(one.model.likelihood, True, False))
    root = np.sqrt(one.weight)
    assert one.block.offset is not None
    truth = np.linalg.lstsq(root[:, None] * one.x, root * (one.block.y - one.block.offset), rcond=None)[0]
    # a ridge of 1e-12 keeps it solvable
    assert np.allclose(guess, truth, rtol=1e-9, atol=1e-9)


def steep(intercept: bool) -> tuple[Block, Model]:
    """Least squares gives the smallest counts a negative mean."""
    x = np.linspace(0.0, 1.0, 200) ** 8
    y = np.round(60.0 * np.linspace(0.0, 1.0, 200) ** 30)
    block = Block(200, (x,), (), y)
    select = np.array([0, 1]) if intercept else np.array([1])
    return block, Model(likelihood("poisson", "identity"), select, 2, Scaling.none(1, 0))


def test_where_least_squares_leaves_the_domain_the_mean_does_not() -> None:
    block, model = steep(True)
    x = np.column_stack([np.ones(200), block.dense[0]])
    w = 1.0 / (block.y + 0.1)
    squares = np.linalg.lstsq(np.sqrt(w)[:, None] * x, np.sqrt(w) * block.y, rcond=None)[0]
    guess = first_guess(objective(block, model), Null(model.likelihood, True, False))
    assert (x @ squares).min() < 0.0
    assert (x @ guess).min() > 0.0


def test_no_possible_mean_is_an_error() -> None:
    """Without an intercept, a column of both signs makes means of both signs."""
    x = np.linspace(-1.0, 1.0, 100)
    model = Model(likelihood("poisson", "identity"), np.array([1]), 2, Scaling.none(1, 0))
    block = Block(100, (x,), (), np.round(3.0 + x))
    null = Null(model.likelihood, False, False)
    with pytest.raises(SolverError, match="no start was found"):
        first_guess(objective(block, model, intercept=False), null)
    assert pilot(Leaves(block), model, False, null, 1000) is None


@pytest.mark.parametrize("family, link", PAIRS)
def test_the_pilot_is_near_the_penalised_optimum_of_its_sample(family: str, link: str) -> None:
    # a sample of whose first tenth the optimum is possible for all its rows; others are of no help
    one = problem(family, link, 400, seed=SEEDS.get((family, link), 2))
    glm = one.model.likelihood
    found = pilot(Leaves(one.block), one.model, True, Null(glm, True, False), 4_000)
    assert found is not None
    assert STAGES[-1][0] == 1.0
    penalty = np.diag([0.0, *[STAGES[-1][1]] * 4])
    terms = glm.rows(one.block.y, one.x @ found.coef)
    gradient = one.x.T @ terms.score - penalty @ found.coef
    information = one.x.T @ (terms.weight[:, None] * one.x) + penalty
    assert gradient @ np.linalg.solve(information, gradient) <= ENOUGH
    # the Gram it hands over is that of the sample, to be multiplied by how many times as many rows there are
    assert found.held is not None
    assert found.held.scale == 10.0
    assert np.allclose(found.held.curvature.gram, information, rtol=0, atol=SUMS * np.abs(information).max())


@pytest.mark.parametrize("n, held", [(99, False), (100, True)])
def test_a_small_sample_lends_no_gram(n: int, held: bool) -> None:
    """Twenty rows per column."""
    one = problem("poisson", "log", n)
    found = pilot(Leaves(one.block), one.model, True, Null(one.model.likelihood, True, False), 10_000)
    assert found is not None
    assert (found.held is not None) == held


def test_a_rare_level_does_not_run_away() -> None:
    """No events in a level: without a penalty its coefficient would fall for ever."""
    one = problem("poisson", "log", 300)
    codes = one.block.levels[0].codes
    y = np.where(codes == 2, 0.0, one.block.y)
    block = Block(300, one.block.dense, one.block.levels, y)
    found = pilot(Leaves(block), one.model, True, Null(one.model.likelihood, True, False), 3_000)
    assert found is not None
    mu = np.exp(one.x @ found.coef)
    # where the pull of the ridge is the pull of the rows, up to what is left at a decrement of ENOUGH
    score = -mu[codes == 2].sum() - STAGES[-1][1] * found.coef[4]
    deviation = np.sqrt(ENOUGH * (mu[codes == 2].sum() + STAGES[-1][1]))
    assert abs(score) <= deviation
    assert -8.0 < found.coef[4] < -1.0
