"""Leverages taken out of scores, against powers of matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import fractional_matrix_power

from daskglm.model.vector import pairs_of
from daskglm.totals.scores import without_leverage

# Eigenvalues of small matrices, twice.
ROUNDING = 1e-11


def symmetric(pairs: npt.NDArray[np.float64], q: int) -> npt.NDArray[np.float64]:
    result = np.zeros((q, q))
    for value, (a, b) in zip(pairs, pairs_of(q), strict=True):
        result[a, b] = result[b, a] = value
    return result


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("rank", [1, 3])
def test_leverages_of_several_predictors(power: float, rank: int) -> None:
    rng = np.random.default_rng(3)
    q, n = 3, 20
    half, other = rng.normal(size=(n, q, rank)), rng.normal(size=(n, q, rank))
    w, form = half @ np.swapaxes(half, 1, 2), other @ np.swapaxes(other, 1, 2)
    form *= 0.9 / np.abs(np.linalg.eigvals(w @ form)).max(axis=1)[:, None, None] * rng.uniform(1e-6, 1.0, (n, 1, 1))
    score = rng.normal(size=(q, n))
    pairs = np.array(pairs_of(q)).T
    found, alone, left = without_leverage(score, w[:, pairs[0], pairs[1]].T, form[:, pairs[0], pairs[1]].T, power)
    assert alone == 0
    largest = max(np.abs(np.linalg.eigvals(one @ two)).max() for one, two in zip(w, form, strict=True))
    assert left == pytest.approx(1.0 - largest, rel=1e-9)
    for i in range(n):
        expected = fractional_matrix_power(np.eye(q) - w[i] @ form[i], -power) @ score[:, i]
        assert np.abs(found[:, i] - expected).max() < ROUNDING * np.abs(expected).max()


def test_a_row_by_itself_is_counted() -> None:
    _, alone, left = without_leverage(np.ones((1, 3)), np.ones((1, 3)), np.array([[0.5, 1.0 - 1e-13, 0.0]]), 0.5)
    assert alone == 1
    assert left == pytest.approx(1e-13, rel=1e-2)
