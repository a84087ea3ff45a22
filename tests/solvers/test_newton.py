"""Newton directions where the Gram alone has lost the digits, against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from daskglm.kernels.blocks import Block, Scaling
from daskglm.kernels.cholesky import ALIASED, DOUBTFUL
from daskglm.solvers.newton import RESIDUAL_PASSES, curvature
from daskglm.solvers.objective import Objective
from daskglm.totals.moments import Model
from tests.laws.exact import PAIRS
from tests.solvers.problems import Leaves, exact_terms, numbers, objective
from tests.totals.problems import likelihood, problem

# A direction of a well conditioned Gram: some hundred roundings times a condition below 1e4.
SOLUTION = 1e-10
# With a column of which the share `left` is its own, the gradient in that direction has lost 1 / left of its digits, and
# no more; a Gram alone has lost 1 / left^2.
GRADIENT = 1e-13


def fractions_solve(x: np.ndarray, right: list[Fraction]) -> list[Fraction]:
    """(X'X)^-1 right by elimination."""
    p = x.shape[1]
    columns = [[Fraction(float(v)) for v in x[:, j]] for j in range(p)]
    rows = [
        [sum((a * b for a, b in zip(columns[j], columns[k], strict=True)), Fraction(0)) for k in range(p)] + [right[j]]
        for j in range(p)
    ]
    for j in range(p):
        rows[j] = [v / rows[j][j] for v in rows[j]]
        for i in range(p):
            if i != j:
                rows[i] = [a - rows[i][j] * b for a, b in zip(rows[i], rows[j], strict=True)]
    return [row[p] for row in rows]


def gaussian(columns: list[np.ndarray], y: np.ndarray, ridge: float = 0.0) -> tuple[Objective, np.ndarray]:
    block = Block(y.size, tuple(columns), (), y)
    p = 1 + len(columns)
    model = Model(likelihood("gaussian", "identity"), np.arange(p), p, Scaling.none(p - 1, 0))
    return objective(block, model, ridge), np.column_stack([np.ones(y.size), *columns])


def residual_passes(target: Objective) -> int:
    assert isinstance(target.blocks, Leaves)
    return sum(name == "residual_products" for name, _ in target.blocks.calls)


@pytest.mark.parametrize("family, link", PAIRS)
def test_the_direction_is_newtons(family: str, link: str) -> None:
    """Scoring and Newton's method in exact arithmetic are the same with the expected information."""
    one = problem(family, link, 60)
    target = objective(one.block, one.model)
    point = target.evaluate(one.coef, information="expected")
    found = curvature(target, point, None)
    gradient, information, _ = exact_terms(one, one.coef)
    truth = np.linalg.solve(numbers(information), numbers(gradient)[:, 0])
    assert found.kept.all()
    assert found.definite
    assert found.basis is None
    assert residual_passes(target) == 0
    # the expected information of the canonical link is the observed one; others were asked for it
    assert np.allclose(found.solve(point.gradient), truth, rtol=SOLUTION, atol=SOLUTION * np.abs(truth).max())
    assert np.allclose(found.inverse() @ numbers(information), np.eye(5), rtol=0, atol=SOLUTION * 100)


@pytest.mark.parametrize("left", [2.0**-12, 2.0**-14, 2.0**-16])
@pytest.mark.parametrize("place", [1, 2])
def test_a_nearly_collinear_column(left: float, place: int) -> None:
    """Its residual is summed in a pass of its own, and the direction keeps the digits that the gradient has."""
    rng = np.random.default_rng(1)
    n = 150
    first = rng.integers(-8, 9, n).astype(float)
    second = first + left * rng.integers(-4, 5, n)
    third = rng.integers(-5, 6, n).astype(float)
    y = rng.integers(-9, 10, n).astype(float)
    columns = [first, second, third] if place == 1 else [third, first, second]
    target, x = gaussian(columns, y)
    point = target.evaluate(np.zeros(4))
    found = curvature(target, point, None)
    share = left**2 * 10 / 25
    assert ALIASED < share < DOUBTFUL
    assert found.kept.all()
    assert found.doubtful == (place + 1,)
    assert 1 <= residual_passes(target) <= RESIDUAL_PASSES
    right = [sum((Fraction(float(a)) * int(b) for a, b in zip(x[:, j], y, strict=True)), Fraction(0)) for j in range(4)]
    truth = np.array([float(v) for v in fractions_solve(x, right)])
    assert np.all(np.abs(found.solve(point.gradient) - truth) <= GRADIENT / left * np.abs(truth).max() * 10)
    unit = [[float(v) for v in fractions_solve(x, [Fraction(int(j == k)) for k in range(4)])] for j in range(4)]
    assert np.allclose(found.inverse(), unit, rtol=GRADIENT / left * 10, atol=GRADIENT / left * np.abs(unit).max())


def test_a_chain_of_nearly_collinear_columns() -> None:
    """Each is close to the one before."""
    rng = np.random.default_rng(2)
    n, left = 200, 2.0**-13
    columns = [rng.integers(-8, 9, n).astype(float)]
    for _ in range(3):
        columns.append(columns[-1] + left * rng.integers(-4, 5, n))
    y = rng.integers(-9, 10, n).astype(float)
    target, x = gaussian(columns, y)
    point = target.evaluate(np.zeros(5))
    found = curvature(target, point, None)
    assert found.kept.all()
    assert found.doubtful == (2, 3, 4)
    right = [sum((Fraction(float(a)) * int(b) for a, b in zip(x[:, j], y, strict=True)), Fraction(0)) for j in range(5)]
    truth = np.array([float(v) for v in fractions_solve(x, right)])
    assert np.all(np.abs(found.solve(point.gradient) - truth) <= GRADIENT / left * np.abs(truth).max() * 10)


def test_combinations_are_set_aside_without_a_pass() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=100), rng.normal(size=100)
    target, _ = gaussian([first, second, 0.3 * first - 0.7 * second + 0.1, first**2], rng.normal(size=100))
    found = curvature(target, target.evaluate(np.zeros(5)), None)
    assert found.kept.tolist() == [True, True, True, False, True]
    assert residual_passes(target) == 0


def test_columns_known_to_be_aliased_stay_so() -> None:
    rng = np.random.default_rng(4)
    columns = [rng.integers(-5, 6, 80).astype(float) for _ in range(3)]
    y = rng.integers(-9, 10, 80).astype(float)
    target, x = gaussian(columns, y)
    point = target.evaluate(np.zeros(4))
    found = curvature(target, point, np.array([False, True, False, False]))
    assert found.kept.tolist() == [True, False, True, True]
    truth = np.linalg.lstsq(x[:, [0, 2, 3]], y, rcond=None)[0]
    assert np.allclose(found.solve(point.gradient)[[0, 2, 3]], truth, rtol=SOLUTION, atol=SOLUTION)
    assert found.solve(point.gradient)[1] == 0.0


def test_a_ridge_needs_no_second_look() -> None:
    rng = np.random.default_rng(5)
    first = rng.integers(-8, 9, 100).astype(float)
    y = rng.integers(-9, 10, 100).astype(float)
    target, x = gaussian([first, first + 2.0**-14 * rng.integers(-4, 5, 100)], y, ridge=1.0)
    point = target.evaluate(np.zeros(3))
    found = curvature(target, point, None)
    assert residual_passes(target) == 0
    truth = np.linalg.solve(x.T @ x + np.diag([0.0, 1.0, 1.0]), x.T @ y)
    assert np.allclose(found.solve(point.gradient), truth, rtol=1e-8, atol=1e-8)
