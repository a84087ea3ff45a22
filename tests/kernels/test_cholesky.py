"""Factors in formula order, against NumPy and against exact arithmetic on whole numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from daskglm.kernels.cholesky import ALIASED, DOUBTFUL, combination, factor, mirror

EPS = float(np.finfo(np.float64).eps)
# Backward stable: errors are a few roundings per column times the condition number, here below 1e4.
SOLUTION = 1e-10
# Entries of the product L L' are sums of at most p = 40 terms no larger than the diagonal.
PRODUCT = 200 * EPS

RNG = np.random.default_rng(8)


def design(n: int = 60, p: int = 6, seed: int = 0) -> np.ndarray:
    """Whole numbers, so that a Gram and combinations of columns are exact."""
    return np.random.default_rng(seed).integers(-5, 6, (n, p)).astype(float)


def exact_pivots(gram: np.ndarray) -> list[Fraction]:
    """What earlier columns leave of each diagonal, by Gaussian elimination with columns of which nothing is left out."""
    rows = [[Fraction(int(v)) for v in row] for row in gram]
    p = len(rows)
    pivots = []
    for j in range(p):
        pivot = rows[j][j]
        pivots.append(pivot)
        if pivot:
            for i in range(j + 1, p):
                share = rows[i][j] / pivot
                rows[i] = [a - share * b for a, b in zip(rows[i], rows[j], strict=True)]
    return pivots


@pytest.mark.parametrize("p", [0, 1, 2, 7, 40])
def test_a_regular_gram(p: int) -> None:
    x = design(3 * p + 5, p)
    gram = x.T @ x
    found = factor(gram)
    assert found.kept.tolist() == [True] * p
    assert found.rank == p
    assert found.definite
    assert np.array_equal(found.lower, np.tril(found.lower))
    assert np.allclose(found.lower @ found.lower.T, gram, rtol=0, atol=PRODUCT * np.diag(gram).max(initial=1.0))
    right = np.arange(1.0, p + 1)
    assert np.allclose(found.solve(right), np.linalg.solve(gram, right), rtol=SOLUTION, atol=SOLUTION)
    many = design(p, 3)
    assert np.allclose(found.solve(many), np.linalg.solve(gram, many), rtol=SOLUTION, atol=SOLUTION)
    inverse = found.inverse()
    assert np.allclose(inverse, np.linalg.inv(gram), rtol=SOLUTION, atol=SOLUTION * np.abs(inverse).max(initial=0.0))
    assert np.array_equal(inverse, inverse.T)


def test_pivots_are_the_shares_left_by_earlier_columns() -> None:
    x = design(30, 6)
    gram = x.T @ x
    exact = [float(pivot) / gram[j, j] for j, pivot in enumerate(exact_pivots(gram))]
    assert np.allclose(factor(gram).pivots, exact, rtol=SOLUTION)


@pytest.mark.parametrize("scales", [[1.0] * 4, [1e-120, 1.0, 1e120, 1e-9]])
def test_the_scale_of_a_column_does_not_matter(scales: list[float]) -> None:
    x = design(30, 4)
    scale = np.array(scales)
    plain, scaled = factor(x.T @ x), factor((x.T @ x) * scale[:, None] * scale)
    assert scaled.kept.all()
    assert np.allclose(scaled.pivots, plain.pivots, rtol=SOLUTION)
    assert np.allclose(scaled.inverse() * scale[:, None] * scale, plain.inverse(), rtol=SOLUTION)


# Which columns are combinations of which: R keeps the first of equal ones, and so on along the formula.
ALIASES: list[tuple[dict[int, dict[int, float]], int]] = [
    ({3: {1: 1.0}}, 6),
    ({1: {0: 1.0}, 2: {0: -2.0}}, 5),
    ({5: {0: 1.0, 2: -1.0, 4: 3.0}}, 6),
    ({2: {0: 1.0, 1: 1.0}, 6: {3: 2.0, 5: -1.0}}, 8),
    ({4: {0: 0.5}}, 5),
]


@pytest.mark.parametrize("aliases, p", ALIASES)
def test_later_columns_are_set_aside_and_say_of_what_they_are_made(
    aliases: dict[int, dict[int, float]], p: int
) -> None:
    x = design(50, p)
    for column, parts in aliases.items():
        x[:, column] = sum(share * x[:, k] for k, share in parts.items())
    gram = x.T @ x
    found = factor(gram)
    independent = [j for j, pivot in enumerate(exact_pivots(4 * gram)) if pivot]
    assert np.flatnonzero(found.kept).tolist() == independent == [j for j in range(p) if j not in aliases]
    assert found.definite
    assert np.all(np.abs(found.pivots[list(aliases)]) < ALIASED)
    for column, parts in aliases.items():
        made = combination(gram, found, column)
        assert set(np.flatnonzero(made)) == set(parts)
        assert np.allclose(x @ made, x[:, column], rtol=SOLUTION, atol=SOLUTION)
    # zeros for what is set aside, the regular solution for the rest
    inner = gram[np.ix_(independent, independent)]
    right = x.T @ RNG.normal(size=50)
    solution = found.solve(right)
    assert np.allclose(solution[independent], np.linalg.solve(inner, right[independent]), rtol=SOLUTION, atol=SOLUTION)
    assert not solution[list(aliases)].any()
    inverse = found.inverse()
    assert np.allclose(inverse[np.ix_(independent, independent)], np.linalg.inv(inner), rtol=SOLUTION, atol=SOLUTION)
    assert not inverse[list(aliases)].any()
    assert not inverse[:, list(aliases)].any()


def test_fitted_values_do_not_depend_on_which_column_is_set_aside() -> None:
    x = design(40, 5)
    x[:, 3] = x[:, 0] - x[:, 1]
    y = RNG.normal(size=40)
    order = [3, 1, 4, 0, 2]
    one = x @ factor(x.T @ x).solve(x.T @ y)
    turned = x[:, order]
    other = turned @ factor(turned.T @ turned).solve(turned.T @ y)
    truth = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.allclose(one, truth, rtol=0, atol=SOLUTION)
    assert np.allclose(other, truth, rtol=0, atol=SOLUTION)


@pytest.mark.parametrize("zero", [0, 2, 5])
def test_zero_columns_are_set_aside(zero: int) -> None:
    x = design(30, 6)
    x[:, zero] = 0.0
    found = factor(x.T @ x)
    assert np.flatnonzero(~found.kept).tolist() == [zero]
    assert found.pivots[zero] == 0.0
    assert found.definite
    assert not combination(x.T @ x, found, zero).any()


def test_nothing_but_zeros() -> None:
    found = factor(np.zeros((3, 3)))
    assert found.rank == 0
    assert found.definite
    assert found.solve(np.ones(3)).tolist() == [0.0] * 3
    assert not found.inverse().any()


@pytest.mark.parametrize(
    "gram, definite",
    [
        ([[1.0, 2.0], [2.0, 1.0]], False),
        ([[-1.0, 0.0], [0.0, 1.0]], False),
        ([[2.0, 1.0], [1.0, 2.0]], True),
        ([[1.0, 1.0], [1.0, 1.0]], True),
        ([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, -3.0]], False),
        ([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.9]], False),
    ],
)
def test_indefinite_grams_are_told(gram: list[list[float]], definite: bool) -> None:
    matrix = np.array(gram)
    assert factor(matrix).definite == definite == bool(np.linalg.eigvalsh(matrix).min() > -1e-12)


@pytest.mark.parametrize("excluded", [[0], [2, 4], [0, 1, 2, 3, 4], []])
def test_excluded_columns_are_not_looked_at(excluded: list[int]) -> None:
    x = design(30, 5)
    gram = x.T @ x
    mask = np.isin(np.arange(5), excluded)
    kept = np.flatnonzero(~mask)
    # an excluded column would be the first of two equal ones
    if excluded == [0]:
        x[:, 3] = x[:, 0]
        gram = x.T @ x
    found = factor(gram, mask)
    assert np.flatnonzero(found.kept).tolist() == kept.tolist()
    expected = np.zeros((5, 5))
    if kept.size:
        expected[np.ix_(kept, kept)] = np.linalg.inv(gram[np.ix_(kept, kept)])
    assert np.allclose(found.inverse(), expected, rtol=SOLUTION, atol=SOLUTION)


@pytest.mark.parametrize("left", [1e-3, 1e-6, 1e-8, 1e-10])
def test_nearly_collinear_columns_are_kept_with_their_pivot(left: float) -> None:
    """Down to ALIASED a column counts; both ways of factoring agree above and below DOUBTFUL."""
    gram = np.array([[1.0, 1.0, 0.5], [1.0, 1.0 + left, 0.5], [0.5, 0.5, 2.0]])
    found = factor(gram)
    exact = (Fraction(gram[1, 1]) - 1) / Fraction(gram[1, 1])
    assert found.kept.all()
    assert abs(found.pivots[1] - float(exact)) <= 4 * EPS
    assert (found.pivots[1] < DOUBTFUL) == (left < DOUBTFUL)


def test_a_column_with_a_rounding_left_is_set_aside() -> None:
    gram = np.array([[1.0, 1.0, 0.5], [1.0, 1.0 + 1e-13, 0.5], [0.5, 0.5, 2.0]])
    assert factor(gram).kept.tolist() == [True, False, True]


@pytest.mark.parametrize("p", [0, 1, 2, 127, 128, 129, 300])
def test_mirror(p: int) -> None:
    table = np.random.default_rng(0).normal(size=(p, p))
    expected = np.triu(table) + np.triu(table, 1).T
    beside = np.zeros((p + 2, p + 1))
    beside[1 : p + 1, 1:] = table
    mirror(beside[1 : p + 1, 1:])
    np.testing.assert_array_equal(beside[1 : p + 1, 1:], expected)
    assert not beside[0].any()
    assert not beside[:, 0].any()


def test_columns_of_zeros_are_set_aside_and_the_others_factored_as_ever() -> None:
    x = design(60, 5)
    wide = np.zeros((60, 8))
    wide[:, [0, 2, 3, 5, 7]] = x
    found, plain = factor(wide.T @ wide), factor(x.T @ x)
    assert np.flatnonzero(~found.kept).tolist() == [1, 4, 6]
    assert found.definite
    np.testing.assert_array_equal(found.lower, plain.lower)
    np.testing.assert_array_equal(found.pivots[found.kept], plain.pivots)
    np.testing.assert_array_equal(found.inverse()[np.ix_(found.kept, found.kept)], plain.inverse())
    assert not found.inverse()[:, ~found.kept].any()
    assert factor(np.zeros((3, 3))).rank == 0
