"""Suspicions and certificates: found where a direction of recession exists, and nowhere else."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from daskglm.kernels.blocks import Block, Levels, Scaling
from daskglm.kernels.cholesky import factor
from daskglm.solvers import separation
from daskglm.solvers.driver import Optimum, Stopping, minimise
from daskglm.solvers.objective import Objective
from daskglm.solvers.separation import Watch, certificate, confirmed, null_space
from daskglm.totals.moments import Model
from tests.solvers.problems import objective
from tests.totals.problems import likelihood, problem

# Null vectors of a Gram of small whole numbers.
EXACT = 1e-12


def target(y: Any, *columns: Any, family: str = "binomial", link: str = "logit", levels: Any = None) -> Objective:
    """[1 | columns | levels but the first] over leaves of 100 rows."""
    y = np.asarray(y, float)
    factors = () if levels is None else (Levels(np.asarray(levels, "i1"), int(np.max(levels)) + 1),)
    block = Block(y.size, tuple(np.asarray(c, float) for c in columns), factors, y)
    d = len(columns)
    select = np.concatenate([np.arange(1 + d), np.arange(2 + d, block.width)])
    scaling = Scaling(np.zeros(d), np.ones(d), np.ones(len(factors)))
    return objective(block, Model(likelihood(family, link), select, block.width, scaling))


def watched(one: Objective, start: Any = None, **options: Any) -> Optimum:
    begin = np.zeros(one.n_coefficients) if start is None else np.asarray(start, float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return minimise(one, begin, Stopping(goal=1e-20), watch=Watch(one), **options)


CODES = np.repeat([0, 1, 2], 40)
MIXED = np.tile([0.0, 1.0, 1.0, 0.0, 1.0], 24)


@pytest.mark.parametrize("family, link", [("binomial", "logit"), ("binomial", "probit"), ("binomial", "cloglog"), ("poisson", "log")])  # fmt: skip
def test_a_level_that_is_all_zero_has_a_certificate(family: str, link: str) -> None:
    y = np.where(CODES == 1, 0.0, MIXED)
    one = target(y, levels=CODES, family=family, link=link)
    found = watched(one)
    assert found.status == "separated"
    assert not found.converged
    assert found.separation is not None
    # the plainest direction of all: the level itself
    assert np.allclose(found.separation.direction, [0.0, -1.0, 0.0], rtol=0, atol=EXACT)
    assert found.separation.rows == 40
    indicator = (CODES[:, None] == np.arange(3)).astype(float)
    x = np.column_stack([np.ones(120), indicator])
    assert np.allclose(found.separation.moving.matrix(), x[CODES == 1].T @ x[CODES == 1])
    assert np.allclose(found.separation.rest.matrix(), x[CODES != 1].T @ x[CODES != 1])
    # far fewer steps than to where the decrement has vanished, which is some 40
    assert len(found.steps) <= 12
    gone = confirmed(one, found.separation.direction)
    assert (gone.allowed, gone.forbidden, gone.statistics.deviance) == (40, 0, 0.0)


def test_an_ordinary_optimum_costs_no_pass() -> None:
    for one in (problem("poisson", "log"), problem("binomial", "cloglog"), problem("binomial", "log")):
        plain, looked = objective(one.block, one.model), objective(one.block, one.model)
        begin = np.array([one.coef[0], 0.0, 0.0, 0.0, 0.0])
        expected = minimise(plain, begin, Stopping())
        found = minimise(looked, begin, Stopping(), watch=Watch(looked))
        assert found.point.coef.tobytes() == expected.point.coef.tobytes()
        assert looked.passes == plain.passes
        assert found.separation is None


def test_a_far_optimum_is_suspected_and_acquitted() -> None:
    """Newton's steps from 20 above creep down by 1 each, just as if they went on for ever."""
    y = np.zeros(120)
    y[[3, 50, 100]] = 1.0
    one = target(y, levels=CODES, family="poisson", link="log")
    found = watched(one, [20.0, 0.0, 0.0])
    assert found.converged
    assert len(found.steps) > 20
    assert np.allclose(found.point.coef, [np.log(1.0 / 40.0), 0.0, 0.0], rtol=0, atol=1e-9)
    # looked at after 5, 10 and 20 slow steps, each by one pass
    assert one.passes <= len(found.steps) + 1 + 3


def test_complete_separation_by_two_variables() -> None:
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(2, 300))
    found = watched(target(x + 2.0 * z > 0.3, x, z))
    assert found.separation is not None
    assert found.separation.rows == 300
    assert not found.separation.rest.matrix().any()
    moved = np.column_stack([np.ones(300), x, z]) @ found.separation.direction
    assert np.array_equal(moved > 0, x + 2.0 * z > 0.3)


def test_one_row_in_the_wrong_place_is_no_separation() -> None:
    x = np.arange(-50.0, 50.0)
    y = (x > 0).astype(float)
    y[40] = 1.0
    found = watched(target(y, x / 30.0))
    assert found.converged
    assert found.separation is None


@pytest.mark.parametrize("distance", [1.0, 1e-3, 1e-6])
def test_rows_that_hardly_move_are_separated_all_the_same(distance: float) -> None:
    """u is 0 where the response is mixed, and elsewhere of any size, down to where float64 sees it no more."""
    u = np.concatenate([np.zeros(60), distance * np.arange(1.0, 31.0), np.ones(30)])
    y = np.concatenate([MIXED[:60], np.ones(60)])
    found = watched(target(y, u))
    assert found.separation is not None
    assert found.separation.rows == 60
    assert np.allclose(found.separation.direction, [0.0, 1.0], rtol=0, atol=EXACT)


def test_nearly_collinear_columns_raise_no_alarm() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=120)
    for apart in (1e-3, 1e-5, 1e-6):
        found = watched(target(MIXED, x, x + apart * rng.normal(size=120)))
        assert found.separation is None


def test_separation_is_found_beside_nearly_collinear_columns() -> None:
    """Their combinations come out of a Gram with few digits; a refinement of one pass restores them."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=120)
    y = np.where(CODES == 1, 0.0, MIXED)
    for apart in (1e-3, 1e-4):
        found = watched(target(y, x, x + apart * rng.normal(size=120), levels=CODES))
        assert found.separation is not None
        assert found.separation.rows == 40


def test_a_direction_that_is_none_has_no_certificate() -> None:
    one = target(MIXED, np.arange(120.0))
    nobody = np.zeros(2, bool)
    assert certificate(one, np.zeros(2), np.zeros(2), nobody) is None
    assert one.passes == 0
    assert certificate(one, np.array([0.0, 1.0]), np.zeros(2), nobody) is None
    assert certificate(one, np.array([-1.0, 0.0]), np.zeros(2), nobody) is None
    assert one.passes == 2


def test_columns_that_are_aliased_anyway_are_no_directions() -> None:
    y = np.where(CODES == 1, 0.0, MIXED)
    one = target(y, 2.0 * np.ones(120), levels=CODES)
    found = watched(one)
    assert found.separation is not None
    assert np.allclose(found.separation.direction, [0.0, 0.0, -1.0, 0.0], rtol=0, atol=EXACT)


def test_null_space_in_formula_order() -> None:
    """Each direction ends in a column that is a combination of earlier ones; zero columns and aliased ones apart."""
    rng = np.random.default_rng(4)
    x = rng.integers(-3, 4, (30, 6)).astype(float)
    x[:, 2] = x[:, 0] - 2.0 * x[:, 1]
    x[:, 4] = 0.0
    x[:, 5] = x[:, 3]
    gram = x.T @ x
    aliased = np.array([False] * 5 + [True])
    basis = null_space(gram, factor(gram, aliased), aliased)
    assert np.allclose(basis.toarray(), [[-1, 0], [2, 0], [1, 0], [0, 0], [0, 1], [0, 0]], rtol=0, atol=EXACT)


def test_a_start_beyond_all_information_is_seen_through() -> None:
    """So far out that the weights are zero, nothing is left of the column: the way it has gone is the direction."""
    y = np.where(CODES == 1, 0.0, MIXED)
    one = target(y, levels=CODES)
    found = watched(one, [0.4, -800.0, 0.0])
    assert found.separation is not None
    assert found.separation.rows == 40


def test_a_loose_tolerance_does_not_hide_it() -> None:
    """The last step is long however small the decrement has become."""
    y = np.where(CODES == 1, 0.0, MIXED)
    one = target(y, levels=CODES)
    # two slow steps, and the tolerance is met
    found = minimise(one, np.array([0.4, -9.0, 0.0]), Stopping(tol=1e-2), watch=Watch(one))
    assert found.separation is not None


def test_wide_designs_are_split_in_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.where(CODES == 1, 0.0, MIXED)
    expected = watched(target(y, levels=CODES))
    monkeypatch.setattr(separation, "TOGETHER", 1)
    one = target(y, levels=CODES)
    found = watched(one)
    assert found.separation is not None
    assert expected.separation is not None
    for name, value in vars(expected.separation).items():
        mine, theirs = (
            v.matrix() if name in ("rest", "moving") else v for v in (getattr(found.separation, name), value)
        )
        assert np.array_equal(mine, theirs), name
    names = [(name, args[-1]) for name, args in one.blocks.calls if name == "split"]  # type: ignore[attr-defined]
    assert names == [("split", "rest"), ("split", "moving")]
