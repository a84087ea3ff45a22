"""Numbers drawn from who a row is: uniform, different for different rows and seeds, and the same in every type and order."""

from __future__ import annotations

import numpy as np
from scipy import stats

from daskglm.design.columns import Coded
from daskglm.totals.identity import mixed, of_columns, of_places, uniforms

# Of a fixed seed, so that it is no chance whether this holds.
LIKELY = 0.01


def test_the_mixer_is_that_of_splitmix64() -> None:
    # the first outputs of the generator with seed 0, as published with it
    state = np.array([0], np.uint64)
    first = mixed(state)
    second = mixed(state + np.uint64(0x9E3779B97F4A7C15))
    assert [int(first[0]), int(second[0])] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_places_give_uniform_numbers_that_do_not_know_each_other() -> None:
    n = 20_000
    one = uniforms(of_places("a", np.arange(n)), 0)
    other = uniforms(of_places("a", np.arange(n)), 1)
    beside = uniforms(of_places("b", np.arange(n)), 0)
    for drawn in (one, other, beside):
        assert stats.kstest(drawn, "uniform").pvalue > LIKELY
        assert drawn.min() > 0.0
        assert drawn.max() < 1.0
    assert stats.pearsonr(one, other).pvalue > LIKELY
    assert stats.pearsonr(one, beside).pvalue > LIKELY
    assert stats.pearsonr(one[1:], one[:-1]).pvalue > LIKELY
    assert np.unique(one).size == n


def test_values_are_the_same_in_every_type() -> None:
    whole = np.array([0, 3, -7, 100])
    found = of_columns([whole.astype(np.int8)])
    for kind in (np.int16, np.int64, np.float32, np.float64):
        assert np.array_equal(of_columns([whole.astype(kind)]), found)
    assert np.array_equal(of_columns([np.array([-0.0])]), of_columns([np.array([0])]))
    # neighbours that no double tells apart
    large = np.array([2**53 + 1, 2**53 + 2, 2**53 + 3])
    assert np.unique(of_columns([large])).size == 3


def test_text_is_known_by_its_level_and_not_by_its_code() -> None:
    one = Coded(np.array([0, 1, 2], np.int8), ("a", "b", None))
    other = Coded(np.array([2, 0, 1], np.int8), ("b", None, "a"))
    assert np.array_equal(of_columns([one]), of_columns([other]))
    assert np.unique(of_columns([one])).size == 3


def test_columns_have_an_order() -> None:
    a, b = np.arange(5), np.arange(5)[::-1].copy()
    assert not np.array_equal(of_columns([a, b]), of_columns([b, a]))
    assert np.unique(of_columns([np.repeat(a, 5), np.tile(b, 5)])).size == 25
