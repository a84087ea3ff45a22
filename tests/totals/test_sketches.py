"""Bins by the bits of numbers, and sums by label: the same whatever the parts, exact where there are few values."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.partitions import tree_sum
from daskglm.totals import sketches
from daskglm.totals.sketches import LabelSums, Sketch, numbers, ordered, residual_counts

# Sums of the same numbers in another order.
ROUNDING = 1e-12


def test_keys_stand_in_the_order_of_the_numbers() -> None:
    values = np.array([-np.inf, -1e300, -1.5, -5e-324, -0.0, 0.0, 5e-324, 1.0, np.nextafter(1.0, 2.0), 1e300, np.inf])
    keys = ordered(values)
    assert keys[4] == keys[5]
    assert (np.diff(keys.astype(object)) >= 0).all()
    np.testing.assert_array_equal(numbers(keys), values)


@pytest.mark.parametrize("kind", ["few", "normal", "shifted", "wide", "counts"])
def test_a_sketch_does_not_depend_on_the_parts(kind: str) -> None:
    rng = np.random.default_rng(3)
    n = 60_000
    values = {
        "few": rng.choice(np.array([-2.5, 0.0, 1.0, 7.25]), n),
        "normal": rng.normal(size=n),
        "shifted": 1e6 + rng.normal(size=n),
        "wide": np.exp(40.0 * rng.normal(size=n)),
        "counts": rng.integers(0, 20_000, n),
    }[kind]
    channels = np.stack([np.ones(n), rng.normal(size=n)])
    whole = Sketch.of(values, channels)
    for parts in (2, 7, 64):
        index = rng.permutation(n)
        found = tree_sum(Sketch.of(values[i], channels[:, i]) for i in np.array_split(index, parts))
        assert found.level == whole.level
        np.testing.assert_array_equal(found.keys, whole.keys)
        np.testing.assert_array_equal(found.sums[:, 0], whole.sums[:, 0])
        np.testing.assert_allclose(found.sums[:, 1], whole.sums[:, 1], rtol=ROUNDING, atol=n * np.finfo(float).eps)
    low, high = whole.ends
    assert whole.keys.size <= whole.limit
    assert (low[1:] > high[:-1]).all()
    counted = [np.count_nonzero((values >= a) & (values <= b)) for a, b in zip(low[:50], high[:50], strict=True)]
    np.testing.assert_array_equal(counted, whole.sums[:50, 0])
    # it is as fine as it may be
    finer = np.unique(ordered(values) >> np.uint64(max(whole.level - 1, 0)))
    assert whole.exact or finer.size > whole.limit
    if kind == "few":
        np.testing.assert_array_equal(low, [-2.5, 0.0, 1.0, 7.25])
        np.testing.assert_array_equal(low, high)


def test_missing_numbers_are_counted_apart() -> None:
    found = Sketch.of(np.array([1.0, np.nan, 2.0, np.nan]), np.array([[1.0, 2.0, 3.0, 4.0]]))
    assert found.missing.tolist() == [6.0]
    assert found.sums.tolist() == [[1.0], [3.0]]
    empty = Sketch.of(np.full(2, np.nan), np.ones((1, 2)))
    both = empty + found
    assert both.sums.tolist() == found.sums.tolist()
    assert both.missing.tolist() == [8.0]


def test_labels_are_united(monkeypatch: pytest.MonkeyPatch) -> None:
    one = LabelSums.of(np.array([0, 1, 1], np.int8), ("b", "a", "unused"), np.array([[1.0, 2.0, 3.0]]))
    two = LabelSums.of(np.array([0, 1], np.int8), ("a", None), np.array([[10.0, 20.0]]))
    found = (one + two).sorted()
    assert found.labels == ("a", "b", None)
    assert found.sums.ravel().tolist() == [15.0, 1.0, 20.0]
    monkeypatch.setattr(sketches, "LABELS", 2)
    assert (one + two).crowded
    assert (one + two + one).crowded


def test_residuals_beyond_every_bin_are_in_the_last() -> None:
    counts = residual_counts(
        np.array([-np.inf, -40.0, 0.0, 0.001, 40.0, np.inf]), np.array([1.0, 1.0, 1.0, 1.0, 2.0, 3.0])
    )
    assert (counts[0], counts[-1], counts.sum()) == (2.0, 5.0, 9.0)
    assert counts[sketches.FAR * sketches.FINE] == 2.0
