"""The sketch of a spread and the rows on top: exact counts, whatever the order in which they are added."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.totals.influence import Spread, Top, largest

# Two ends of a bin are 1 part in 128 apart at most.
SKETCH = 1.0 / 256.0


def values(n: int = 5_000) -> np.ndarray:
    rng = np.random.default_rng(3)
    found = np.exp(rng.normal(-6.0, 3.0, n))
    found[:10] = 0.0
    found[10:20] = np.nan
    return found


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_a_spread_is_the_same_however_it_is_added_up(parts: int) -> None:
    numbers = values()
    copies = np.ones(numbers.size)
    whole = Spread.of(numbers, copies)
    order = np.random.default_rng(0).permutation(numbers.size)
    found = Spread(np.zeros(0, np.int64), np.zeros(0, np.int64))
    for index in np.array_split(order, parts):
        found = Spread.of(numbers[index], copies[index]) + found
    assert np.array_equal(found.bins, whole.bins)
    assert np.array_equal(found.counts, whole.counts)
    assert found.n == numbers.size - 10


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.9, 0.999, 1.0])
def test_quantiles_are_within_the_stated_error(share: float) -> None:
    numbers = values()
    known = numbers[~np.isnan(numbers)]
    truth = float(np.quantile(known, share, method="inverted_cdf"))
    assert Spread.of(numbers, np.ones(numbers.size)).quantile(share) == pytest.approx(truth, rel=SKETCH)


def test_copies_count() -> None:
    numbers, copies = np.array([0.1, 0.2, 0.3]), np.array([1.0, 5.0, 2.0])
    written_out = Spread.of(np.repeat(numbers, copies.astype(int)), np.ones(8))
    found = Spread.of(numbers, copies)
    assert np.array_equal(found.counts, written_out.counts)
    assert found.n == 8


def test_of_nothing_there_is_no_quantile() -> None:
    assert np.isnan(Spread.of(np.zeros(0), np.zeros(0)).quantile(0.5))


@pytest.mark.parametrize("at", [1, 17, 40])
def test_the_top_of_two_parts_is_the_top_of_the_whole(at: int) -> None:
    rng = np.random.default_rng(1)
    # equal ones among them: the earlier comes first
    size = rng.integers(0, 20, 60).astype(float)

    def top(rows: slice) -> Top:
        index = np.argsort(-size[rows], kind="stable")[:9]
        place = np.arange(60)[rows][index]
        return Top(9, size[rows][index], place[:, None].astype(float), (place.astype(object),))

    found = top(slice(0, at)) + top(slice(at, 60))
    expected = np.argsort(-size, kind="stable")[:9]
    assert found.values[:, 0].astype(int).tolist() == expected.tolist()
    assert found.keys[0].tolist() == expected.tolist()


@pytest.mark.parametrize("k", [1, 5, 60, 100])
def test_the_largest_are_found_without_sorting_all(k: int) -> None:
    size = np.random.default_rng(2).integers(0, 12, 60).astype(float)
    size[[3, 30]] = np.nan
    order = [place for place in np.argsort(-size, kind="stable") if not np.isnan(size[place])]
    assert largest(size, k).tolist() == order[:k]
