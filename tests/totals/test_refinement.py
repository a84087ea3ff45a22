"""The score in twofold arithmetic, against exact fractions and against the score in plain arithmetic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.sparse import csr_array

from daskglm.kernels.blocks import Block, Levels, Scaling, Sparse
from daskglm.totals.moments import CHUNK_ROWS, Model, Request, moments
from daskglm.totals.refinement import linear_predictor, twofold_score, unscaled
from daskglm.totals.residuals import residual_products
from tests.laws.exact import PAIRS
from tests.totals.problems import likelihood, problem

# Of exact scores, what is left of some thousand products beyond 2^-72 of the largest.
EXACT = Fraction(1, 2**70)
# Of scores by a family's formulas, some roundings each.
PLAIN = 1e-12
# A linear predictor of five terms in 106 bits.
PREDICTOR = Fraction(1, 2**98)


def raw_matrix(block: Block) -> list[list[Fraction]]:
    """The raw columns as fractions, row by row."""
    sparse = None if block.sparse is None else np.zeros((block.n, block.sparse.n_columns))
    if block.sparse is not None and sparse is not None:
        for i in range(block.n):
            first, last = block.sparse.indptr[i : i + 2]
            sparse[i, block.sparse.indices[first:last]] = block.sparse.data[first:last]
    rows = []
    for i in range(block.n):
        row = [Fraction(1), *(Fraction(float(column[i])) for column in block.dense)]
        for piece in block.levels:
            value = Fraction(1) if piece.value is None else Fraction(float(piece.value[i]))
            row += [value if piece.codes[i] == level else Fraction(0) for level in range(piece.n_levels)]
        if sparse is not None:
            row += [Fraction(v) for v in sparse[i]]
        rows.append(row)
    return rows


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("valued", [False, True])
def test_of_least_squares_it_is_exact(weighted: bool, valued: bool) -> None:
    one = problem(
        "gaussian", "identity", 200, offset=True, weight="real" if weighted else None, valued=valued, sparse=4
    )
    rng = np.random.default_rng(1)
    high, low = rng.normal(size=one.model.width) * 1e6, rng.normal(size=one.model.width) * 1e-11
    found = twofold_score(one.block, one.model, high, low)
    rows = raw_matrix(one.block)
    offset = np.zeros(200) if one.block.offset is None else one.block.offset
    expected = [Fraction(0)] * one.model.width
    squares, largest = Fraction(0), Fraction(0)
    for i, row in enumerate(rows):
        eta = sum(x * (Fraction(h) + Fraction(l)) for x, h, l in zip(row, high, low, strict=True))
        left = Fraction(float(one.block.y[i])) - eta - Fraction(float(offset[i]))
        squares += left * left * Fraction(float(one.weight[i]))
        for j, x in enumerate(row):
            part = x * left * Fraction(float(one.weight[i]))
            expected[j] += part
            largest = max(largest, abs(part))
    for h, l, value in zip(found.high, found.low, expected, strict=True):
        assert abs(Fraction(float(h)) + Fraction(float(l)) - value) <= EXACT * largest
    assert found.squares == pytest.approx(float(squares), rel=1e-14)
    assert found.noise == 0.0


@pytest.mark.parametrize("family, link", PAIRS)
def test_of_other_models_it_is_the_score(family: str, link: str) -> None:
    one = problem(family, link, 150, weight="real", offset=True)
    sizes = tuple(piece.n_levels for piece in one.block.levels)
    user = unscaled(one.model.scaling, sizes, one.model.raw(one.coef))
    found = twofold_score(one.block, one.model, *user)
    raw = replace(one.model, scaling=Scaling.none(2, 1))
    coef = user[0][one.model.select]
    with np.errstate(all="ignore"):
        plain = moments(one.block, raw, Request(coef, 1))
    expected = raw.gradient(plain)
    size = np.abs(np.array([[float(v) for v in row] for row in raw_matrix(one.block)]))[:, raw.select]
    # a row's score is at most its residual's size
    scores = np.sqrt(found.noise) * np.linalg.norm(size, axis=0) * 50.0
    assert np.all(np.abs(found.high[raw.select] - expected) <= PLAIN * (np.abs(expected) + scores))
    assert np.isfinite(found.noise)
    if not one.model.likelihood.quadratic:
        assert found.noise > 0.0


def test_a_small_change_of_the_coefficients_shows_in_the_second_part() -> None:
    """It moves a score by minus the information times it, to the rounding of means (1e-16 of 1e-9)."""
    one = problem("poisson", "log", 200)
    sizes = tuple(piece.n_levels for piece in one.block.levels)
    high, low = unscaled(one.model.scaling, sizes, one.model.raw(one.coef))
    raw = replace(one.model, scaling=Scaling.none(2, 1))
    with np.errstate(all="ignore"):
        gram = raw.gram(moments(one.block, raw, Request(high[raw.select], 2)).tables)
    assert gram is not None
    change = np.zeros(one.model.width)
    change[raw.select] = 1e-9 * np.arange(1.0, 6.0)
    before, after = (twofold_score(one.block, one.model, high, low + part) for part in (0.0, change))
    moved = (after.high - before.high) + (after.low - before.low)
    expected = -gram @ change[raw.select]
    assert np.allclose(moved[raw.select], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_leaves_add_to_the_whole() -> None:
    one = problem("gaussian", "identity", 300, sparse=3)
    rng = np.random.default_rng(2)
    high, low = rng.normal(size=one.model.width), np.zeros(one.model.width)
    whole = twofold_score(one.block, one.model, high, low)
    parts = [twofold_score(one.block.rows(a, b), one.model, high, low) for a, b in ((0, 70), (70, 71), (71, 300))]
    found = (parts[0] + parts[1]) + parts[2]
    assert np.allclose(found.high, whole.high, rtol=1e-15, atol=0)
    assert np.all(np.abs((found.high - whole.high) + (found.low - whole.low)) <= 1e-28 * np.abs(whole.high).max())
    assert np.array_equal(found.broken, whole.broken)


def test_whole_numbers_are_counted() -> None:
    block = Block(4, (np.array([1.0, 2.5, -3.0, 2.0**60]), np.arange(4)), (), np.zeros(4))
    model = Model(likelihood("gaussian", "identity"), np.arange(3), 3, Scaling.none(2, 0))
    assert twofold_score(block, model, np.zeros(3), np.zeros(3)).broken.tolist() == [2, 0]


def test_impossible_means_are_not_a_number() -> None:
    block = Block(2, (np.array([1.0, 2.0]),), (), np.ones(2))
    model = Model(likelihood("poisson", "identity"), np.arange(2), 2, Scaling.none(1, 0))
    assert np.isnan(twofold_score(block, model, np.array([-5.0, 0.0]), np.zeros(2)).high).all()


def test_a_predictor_without_the_rounding_of_shifts() -> None:
    rng = np.random.default_rng(3)
    n = CHUNK_ROWS // 100
    columns = (1e6 + rng.normal(size=n), rng.normal(size=n))
    levels = Levels(rng.integers(0, 3, n).astype("i1"), 3, rng.normal(size=n))
    sparse = Sparse.of(csr_array(np.eye(n, 2) * 0.3))
    block = Block(n, columns, (levels,), np.zeros(n), sparse=sparse)
    scaling = Scaling(np.array([1e6 + 0.1, 0.2]), np.array([1.1, 0.7]), np.array([0.9]), np.array([1.3, 0.6]))
    coef = rng.normal(size=block.width)
    found = linear_predictor(block, list(columns), unscaled(scaling, (3,), coef))
    scale = [1.0, 1.1, 0.7, 0.9, 0.9, 0.9, 1.3, 0.6]
    shift = [0.0, 1e6 + 0.1, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0]
    for i, row in enumerate(raw_matrix(block)):
        parts = [
            (x - Fraction(m)) * Fraction(s) * Fraction(c) if x or j in (1, 2) else Fraction(0)
            for j, (x, m, s, c) in enumerate(zip(row, shift, scale, coef, strict=True))
        ]
        size = sum(abs(Fraction(m) * Fraction(s) * Fraction(c)) for m, s, c in zip(shift, scale, coef, strict=True))
        assert abs(Fraction(float(found[0][i])) + Fraction(float(found[1][i])) - sum(parts)) <= PREDICTOR * (size + 10)


@pytest.mark.parametrize("left", [1e-4, 1e-7])
def test_residuals_of_columns_far_from_zero(left: float) -> None:
    """x2 - x1 is of the size `left`, and both about a million: formed from shifted columns it is rounding, but not here."""
    rng = np.random.default_rng(4)
    n = 80
    first = 1e6 + rng.normal(size=n)
    second = first + left * 1e6 * rng.normal(size=n)
    scaling = Scaling(np.array([1e6 + 0.3, 1e6 - 0.7]), np.array([0.9, 1.1]), np.zeros(0))
    block = Block(n, (first, second), (), np.zeros(n))
    model = Model(likelihood("gaussian", "identity"), np.arange(3), 3, scaling)
    basis = np.array([[0.2], [-1.0], [0.8]])
    found = residual_products(block, model, np.zeros(3), basis, "expected", True)
    exact = Fraction(0)
    for a, b in zip(first, second, strict=True):
        z1 = (Fraction(a) - Fraction(1e6 + 0.3)) * Fraction(0.9)
        z2 = (Fraction(b) - Fraction(1e6 - 0.7)) * Fraction(1.1)
        exact += (Fraction(0.2) - z1 + Fraction(0.8) * z2) ** 2
    assert float(found.inner[0, 0]) == pytest.approx(float(exact), rel=1e-14)
