"""The factor by a Schur complement on a diagonal block decides and solves as the dense factor does."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.kernels.bordered import Bordered, BorderedFactor, columns_of, diagonal_of, factor_any, plus_diagonal
from daskglm.kernels.cholesky import combination, factor

# Solutions of well-posed systems by two orders of elimination.
SOLUTION = 1e-10


def layout(levels: int, before: int, after: int, seed: int = 0, rows: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Columns (n, p), in formula order, with those of the factor in the middle; positions of the
    latter.
    """
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(levels + 1), rng.integers(0, levels + 1, rows - levels - 1)])
    indicators = (codes[:, None] == np.arange(1, levels + 1)).astype(float)
    front = np.column_stack([np.ones(rows), rng.normal(size=(rows, max(before - 1, 0)))])[:, :before]
    back = rng.normal(size=(rows, after))
    return np.column_stack([front, indicators, back]), np.arange(before, before + levels)


def bordered(gram: np.ndarray, inside: np.ndarray) -> Bordered:
    border = np.setdiff1d(np.arange(gram.shape[0]), inside)
    diagonal = gram[inside, inside]
    return Bordered(inside, border, diagonal, gram[np.ix_(inside, border)], gram[np.ix_(border, border)])


def agrees(
    x: np.ndarray, inside: np.ndarray, exclude: np.ndarray | None = None, weight: np.ndarray | None = None
) -> None:
    gram = x.T @ (x if weight is None else weight[:, None] * x)
    gram[np.ix_(inside, inside)] = np.diag(np.diag(gram)[inside])
    found, plain = factor_any(bordered(gram, inside), exclude), factor(gram, exclude)
    assert isinstance(found, BorderedFactor)
    np.testing.assert_array_equal(found.kept, plain.kept)
    assert (found.rank, found.definite) == (plain.rank, plain.definite)
    np.testing.assert_allclose(found.pivots, plain.pivots, rtol=SOLUTION, atol=1e-12)
    size = np.sqrt(np.where(np.diag(gram) > 0.0, np.diag(gram), 1.0))
    scale = size[:, None] * size
    np.testing.assert_allclose(found.inverse() * scale, plain.inverse() * scale, rtol=SOLUTION, atol=SOLUTION)
    np.testing.assert_array_equal(found.inverse(), found.inverse().T)
    np.testing.assert_allclose(found.variances(), np.diag(found.inverse()), rtol=1e-13)
    right = gram @ np.random.default_rng(1).normal(size=(gram.shape[0], 2))
    np.testing.assert_allclose(found.solve(right), plain.solve(right), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.solve(right[:, 0]), found.solve(right)[:, 0], rtol=1e-10, atol=1e-12)
    for column in np.flatnonzero(~found.kept & (np.diag(gram) > 0.0))[:3]:
        one = combination(gram, found, int(column))
        np.testing.assert_allclose(one, combination(gram, plain, int(column)), atol=1e-7)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (1, 3), (4, 0), (3, 5), (0, 2)])
def test_the_factor_is_the_dense_one(before: int, after: int) -> None:
    agrees(*layout(300, before, after))


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_level_that_is_a_combination_of_earlier_columns_is_set_aside(before: int) -> None:
    x, inside = layout(300, before, 2)
    # without its first rows the baseline does not occur
    keep = x[:, inside].any(axis=1)
    agrees(x[keep], inside)


def test_columns_nested_in_the_factor_are_set_aside() -> None:
    x, inside = layout(300, 1, 0)
    levels = np.arange(x.shape[1] - 1)
    group = x[:, inside] @ (levels % 3 == 0)
    noise = np.random.default_rng(3).normal(size=x.shape[0])
    agrees(np.column_stack([x, noise, group, noise - group]), inside)
    # in front of the factor the groups are kept, and a level of each is not
    agrees(np.column_stack([x[:, :1], group, x[:, inside]]), inside + 1)


def test_excluded_columns_and_empty_levels() -> None:
    x, inside = layout(300, 2, 3)
    x[:, inside[[4, 7]]] = 0.0
    exclude = np.zeros(x.shape[1], bool)
    exclude[[1, inside[0], inside[150], x.shape[1] - 2]] = True
    agrees(x, inside, exclude)


def test_weights_of_many_magnitudes() -> None:
    x, inside = layout(300, 3, 2)
    weight = 10.0 ** np.random.default_rng(5).uniform(-6, 6, x.shape[0])
    gram = x.T @ (weight[:, None] * x)
    gram[np.ix_(inside, inside)] = np.diag(np.diag(gram)[inside])
    found = factor_any(bordered(gram, inside))
    truth = np.random.default_rng(6).normal(size=x.shape[1])
    residual = gram @ (found.solve(gram @ truth) - truth)
    assert np.abs(residual / np.sqrt(np.diag(gram))).max() < 1e-9 * np.sqrt(np.diag(gram)).max()


def test_a_rare_baseline_keeps_the_digits_there_are() -> None:
    """The baseline holds one part in 1e12 of the weight, which is what the levels leave of the
    intercept.
    """
    x, inside = layout(200, 1, 0)
    baseline = ~x[:, inside].any(axis=1)
    weight = np.where(baseline, 1e-9, 1.0)
    gram = x.T @ (weight[:, None] * x)
    gram[np.ix_(inside, inside)] = np.diag(np.diag(gram)[inside])
    found = factor_any(bordered(gram, inside), None, 1e-14)
    left = weight[baseline].sum()
    assert found.kept.all()
    assert abs(found.variances()[0] * left - 1.0) < np.finfo(float).eps * weight.sum() / left


@pytest.mark.parametrize("place", ["front", "level", "back"])
def test_indefinite_grams_are_found(place: str) -> None:
    x, inside = layout(200, 2, 2)
    gram = x.T @ x
    gram[np.ix_(inside, inside)] = np.diag(np.diag(gram)[inside])
    at = {"front": 1, "level": int(inside[50]), "back": x.shape[1] - 1}[place]
    gram[at, at] = -1.0
    assert not factor_any(bordered(gram, inside)).definite
    assert not factor(gram).definite
    gram[at, at] = 1e-3
    assert not factor_any(bordered(gram, inside)).definite


def test_products_with_the_matrix() -> None:
    x, inside = layout(100, 2, 3)
    gram = x.T @ x
    gram[np.ix_(inside, inside)] = np.diag(np.diag(gram)[inside])
    table = bordered(gram, inside)
    right = np.random.default_rng(2).normal(size=(gram.shape[0], 3))
    np.testing.assert_array_equal(table.dense(), gram)
    np.testing.assert_allclose(table @ right, gram @ right, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(right[:, 0] @ table, right[:, 0] @ gram, rtol=1e-12, atol=1e-10)
    np.testing.assert_array_equal(diagonal_of(table), np.diag(gram))
    np.testing.assert_array_equal(columns_of(table, np.array([0, 5])), gram[:, [0, 5]])
    values = np.arange(float(gram.shape[0]))
    np.testing.assert_array_equal(plus_diagonal(table, values).dense(), gram + np.diag(values))
    assert table.is_finite
    table.square[0, 0] = np.inf
    assert not table.is_finite
