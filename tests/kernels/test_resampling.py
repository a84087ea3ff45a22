"""Bootstrap weights: their distribution, their dependence on nothing but key and replicate, and their sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from daskglm.kernels import reference
from daskglm.kernels.blocks import Block, Levels, Scaling, Sparse
from daskglm.kernels.products import Pieces
from daskglm.kernels.resampling import Draws, add_resampled, empty_sums, mixed, of_columns, poisson_thresholds

# Sums of some thousand products in another order.
ROUNDING = 1e-11


def keys(n: int, first: int = 0) -> Any:
    return mixed(np.arange(first, first + n, dtype=np.uint64))


def test_mixing_is_that_of_splitmix64() -> None:
    """The first numbers of the generator with seed 0, as its authors print them."""
    steps = np.array([1, 2, 3], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert [f"{value:016x}" for value in mixed(steps)] == ["e220a8397b1dcdaf", "6e789e6aa1b965f4", "06c45d188009454f"]


@pytest.mark.parametrize("mean", [1.0, 2.0, 7.0, 1000.0])
def test_thresholds_hold_every_probability_to_the_last_of_32_bits(mean: float) -> None:
    low, thresholds = poisson_thresholds(mean)
    counts = low + np.arange(thresholds.size)
    reached = (thresholds.astype(float) + 1.0) / 2.0**32
    assert np.max(np.abs(reached - stats.poisson.cdf(counts, mean))) <= 2.0**-32


@pytest.mark.parametrize("copies", [None, 1.0, 3.0, 50.0])
def test_weights_are_poisson_and_uncorrelated(copies: float | None) -> None:
    n, mean = 50_000, 1.0 if copies is None else copies
    draws = Draws(keys(n), None if copies is None else np.full(n, copies), 5, 130)
    found = draws.weights(0, n)
    assert found.shape == (n, 130)
    # five standard errors of a mean and of a variance of 6.5 million draws
    assert abs(found.mean() - mean) < 5 * np.sqrt(mean / found.size)
    assert abs(found.var() - mean) < 5 * np.sqrt((mean + 2 * mean**2) / found.size)
    between = np.corrcoef(found.T) - np.eye(130)
    assert np.abs(between).max() < 6 / np.sqrt(n)
    # neighbours among the rows
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 5 / np.sqrt(found.size)
    counts = np.bincount(found.astype(int).ravel())
    expected = stats.poisson.pmf(np.arange(counts.size), mean) * found.size
    common = expected > 20
    assert np.sum((counts - expected)[common] ** 2 / expected[common]) < stats.chi2.ppf(1 - 1e-6, common.sum())


def test_a_draw_depends_on_its_key_replicate_and_seed_alone() -> None:
    all_of_them = Draws(keys(1000), None, 3, 200).weights(0, 1000)
    order = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(Draws(keys(1000)[order], None, 3, 200).weights(0, 1000), all_of_them[order])
    np.testing.assert_array_equal(Draws(keys(10, 500), None, 3, 70).weights(2, 7), all_of_them[502:507, :70])
    assert np.mean(Draws(keys(1000), None, 4, 200).weights(0, 1000) == all_of_them) < 0.4
    # a row written once among others of several copies has the weight of a row without copies
    copies = np.where(np.arange(1000) % 2, 4.0, 1.0)
    np.testing.assert_array_equal(Draws(keys(1000), copies, 3, 200).weights(0, 1000)[::2], all_of_them[::2])


@pytest.mark.parametrize("d", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("rest", ["none", "levels", "sparse"])
def test_sums_are_those_of_columns_times_weights(d: int, rest: str) -> None:
    generator = np.random.default_rng(d)
    n = 3_000
    levels = (
        Levels(generator.integers(0, 5, n).astype(np.int8), 5),
        Levels(generator.integers(0, 300, n).astype(np.int16), 300, generator.normal(size=n)),
    )
    sparse = None
    if rest == "sparse":
        from scipy.sparse import random_array

        sparse = Sparse.of(random_array((n, 7), density=0.2, format="csr", rng=generator))
    block = Block(
        n,
        tuple(generator.normal(size=n) for _ in range(d)),
        levels if rest == "levels" else (),
        np.zeros(n),
        sparse=sparse,
    )
    k = len(block.levels)
    scaling = Scaling(
        generator.normal(size=d),
        generator.uniform(0.5, 2.0, d),
        np.array([1.0, 0.7])[:k],
        np.full(7 * (rest == "sparse"), 0.3),
    )
    pieces, score = Pieces.of(block, scaling), generator.normal(size=n)
    draws = Draws(keys(n), generator.integers(1, 40, n).astype(float), 1, 100)
    sums = empty_sums(pieces, draws)
    for start, stop in ((0, 1024), (1024, 1025), (1025, n)):
        add_resampled(pieces, draws, score[start:stop], start, stop, sums)
    x = reference.matrix(block, scaling)
    expected = x.T @ (score[:, None] * draws.weights(0, n))
    found = of_columns(pieces, draws, sums)
    np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING * np.abs(expected).max())


def test_without_columns_there_is_one_of_ones() -> None:
    score = np.random.default_rng(0).normal(size=500)
    draws = Draws(keys(500), None, 0, 10)
    sums = empty_sums(None, draws)
    add_resampled(None, draws, score, 0, 500, sums)
    np.testing.assert_allclose(of_columns(None, draws, sums), (score @ draws.weights(0, 500))[None], rtol=ROUNDING)
