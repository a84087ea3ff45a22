"""What directions do to rows, against X written out; and the rows that are left."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import gammaln

from daskglm.kernels import reference
from daskglm.kernels.blocks import Block, Levels, Scaling
from daskglm.totals.moments import CHUNK_ROWS, Model
from daskglm.totals.residuals import residual_products
from daskglm.totals.separation import (
    BINS_PER_POWER,
    LEAST_POWER,
    NOISE,
    ROUNDING,
    Move,
    Remaining,
    extents,
    movement,
    movements,
    of_rest,
    separated,
    split,
)
from tests.totals.problems import Problem, likelihood, problem

# Sums of some thousand terms in two orders.
SUMS = 1e-12


def counts(n: int = 300, **options: object) -> Problem:
    """Counts of which many are 0."""
    one = problem("poisson", "log", n, **options)  # type: ignore[arg-type]
    return replace(one, block=replace(one.block, y=np.minimum(one.block.y, 2.0)))


DIRECTION = np.array([0.3, -1.0, 0.5, 0.2, 0.0])


@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize("sparse", [0, 4])
def test_extents_and_movement_are_those_of_x_written_out(valued: bool, sparse: int) -> None:
    one = counts(valued=valued, sparse=sparse)
    rng = np.random.default_rng(1)
    raw = one.model.raw(rng.normal(size=one.coef.size))
    x = reference.matrix(one.block, one.model.scaling)
    size = np.abs(raw) + NOISE * np.abs(raw).max()
    assert np.allclose(extents(one.block, one.model.scaling, raw), np.abs(x) @ size, rtol=SUMS, atol=0)
    moved = movement(one.block, one.model.scaling, raw, 0.5)
    expected = x @ raw
    assert np.allclose(moved, np.where(np.abs(expected) > 0.5, expected, 0.0), rtol=0, atol=SUMS)
    assert 0 < np.sum(moved != 0.0) < one.block.n


def test_what_cancels_is_rounding_and_what_does_not_is_a_movement() -> None:
    """A column that is constant but for one row, less that constant: of the size of rounding, or a thousand times that."""
    for left, expected in ((ROUNDING / 10.0, 0), (ROUNDING * 1000.0, 1)):
        x = np.full(50, 7.0)
        x[3] += left * 14.0
        block = Block(50, (x,), (), np.zeros(50))
        moved = movement(block, Scaling(np.zeros(1), np.ones(1), np.zeros(0)), np.array([-7.0, 1.0]))
        assert np.count_nonzero(moved) == expected


@pytest.mark.parametrize("n", [300, CHUNK_ROWS + 5])
def test_movements(n: int) -> None:
    one = counts(n)
    directions = np.array([DIRECTION, -DIRECTION, [0.0, 0.0, 0.0, 1.0, 0.0]])
    found = movements(one.block, one.model, directions)
    moved = one.x @ directions.T
    right = (moved < 0) & (one.block.y == 0.0)[:, None]
    wrong = (moved != 0) & ~right
    assert found.allowed.tolist() == right.sum(axis=0).tolist()
    assert found.forbidden.tolist() == wrong.sum(axis=0).tolist()
    assert np.allclose(found.largest, np.abs(moved).max(axis=0), rtol=SUMS)
    assert np.allclose(found.obstacle, np.where(wrong, np.abs(moved), 0.0).max(axis=0), rtol=SUMS)
    for k in range(3):
        powers = np.log10(np.abs(moved[right[:, k], k]))
        edges = LEAST_POWER + np.arange(found.histogram.shape[1] + 1) / BINS_PER_POWER
        assert found.histogram[k].tolist() == np.histogram(powers, edges)[0].tolist()


def test_movements_add() -> None:
    one = counts()
    directions = np.array([DIRECTION, -DIRECTION])
    parts = [movements(one.block.rows(*cut), one.model, directions) for cut in ((0, 90), (90, 90), (90, 300))]
    whole, total = movements(one.block, one.model, directions), parts[0] + parts[1] + parts[2]
    for name, value in vars(whole).items():
        assert np.array_equal(value, getattr(total, name)), name


@pytest.mark.parametrize("sparse", [0, 4])
@pytest.mark.parametrize("n", [300, CHUNK_ROWS + 5])
def test_split_and_the_sums_of_the_rest(n: int, sparse: int) -> None:
    one = counts(n, sparse=sparse)
    direction = np.concatenate([DIRECTION, np.zeros(one.coef.size - 5)])
    second = np.zeros(one.coef.size)
    second[0] = -1.0
    moves = (Move(direction, 0.4), Move(second))
    moved = one.x @ direction
    inside = (moved < -0.4) & (one.block.y == 0.0)
    found = split(one.block, one.model, moves)
    assert found.rows == inside.sum() > 0
    rest, moving = one.model.gram(found.rest), one.model.gram(found.moving)
    assert np.allclose(rest, one.x[~inside].T @ one.x[~inside], rtol=SUMS, atol=SUMS * n)
    assert np.allclose(moving, one.x[inside].T @ one.x[inside], rtol=SUMS, atol=SUMS * n)
    pull = found.moving.gradient()[one.model.select]
    assert np.allclose(pull, one.x[inside].T @ np.sign(moved[inside]), rtol=SUMS, atol=SUMS * n)
    left = of_rest(one.block, one.model, moves, residual_products, second, direction[:, None], "unit")
    assert np.allclose(left.cross[:, 0], one.x[~inside].T @ moved[~inside], rtol=SUMS, atol=SUMS * n)


@pytest.mark.parametrize("weight", [None, "real", "counts"])
@pytest.mark.parametrize("trials", [False, True])
def test_statistics_at_the_limit(weight: str | None, trials: bool) -> None:
    one = problem("binomial", "logit", 400, weight=weight, trials=trials, frequency=weight == "counts")
    y = np.round(one.block.y)
    one = replace(one, block=replace(one.block, y=y))
    moved = one.x @ DIRECTION
    right = ((moved > 0) & (y == 1.0)) | ((moved < 0) & (y == 0.0))
    found = separated(one.block, one.model, Move(DIRECTION))
    assert (found.allowed, found.forbidden) == (right.sum(), (~right & (moved != 0.0)).sum())
    size = one.block.trials if trials else 1.0
    frequency = one.weight / size if weight == "counts" else np.ones(400)
    assert found.statistics.n == right.sum()
    assert found.statistics.observations == pytest.approx(frequency[right].sum(), rel=SUMS)
    assert found.statistics.weight == pytest.approx(one.weight[right].sum(), rel=SUMS)
    # a proportion that is 0 or 1 for sure
    assert found.statistics.deviance == 0.0
    assert found.statistics.saturated == pytest.approx(0.0, abs=SUMS)


def test_a_gaussian_row_keeps_its_square_at_the_limit() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(size=100)
    block = Block(100, (), (Levels(rng.integers(0, 2, 100).astype("i1"), 2),), y)
    model = Model(likelihood("gaussian", "log"), np.array([0, 2]), 3, Scaling.none(0, 1))
    found = separated(block, model, Move(np.array([0.0, -1.0])))
    inside = (block.levels[0].codes == 1) & (y <= 0)
    assert found.allowed == inside.sum()
    assert found.statistics.deviance == pytest.approx(np.sum(y[inside] ** 2), rel=SUMS)
    assert found.statistics.saturated == pytest.approx(-0.5 * inside.sum() * np.log(2 * np.pi), rel=SUMS)


def test_a_count_of_nothing_is_certain_at_the_limit() -> None:
    one = counts()
    found = separated(one.block, one.model, Move(DIRECTION))
    assert found.statistics.deviance == 0.0
    assert found.statistics.saturated == -float(gammaln(1.0)) * found.allowed == 0.0


def test_the_remaining_rows_are_those_that_do_not_move() -> None:
    one = counts(sparse=3, weight="real", offset=True)
    direction = np.zeros(one.coef.size)
    direction[4] = 1.0
    take = pickle.loads(pickle.dumps(Remaining(one.model, Move(direction))))
    left = take(one.block)
    stay = one.x @ direction == 0.0
    assert 0 < stay.sum() < one.block.n
    assert np.array_equal(
        reference.matrix(left, one.model.scaling), reference.matrix(one.block, one.model.scaling)[stay]
    )
    for name in ("y", "weight", "offset"):
        assert np.array_equal(getattr(left, name), getattr(one.block, name)[stay])
    assert take(left) is left
    assert take(one.block.rows(0, 0)).n == 0
