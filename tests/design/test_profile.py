"""Profiles of parts add up to that of the whole, as pandas and NumPy compute it."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskglm.design.columns import Coded, Columns, Ledger
from daskglm.design.profile import Profile, profile_of
from daskglm.kernels.moments import column_moments

# Sums of a few hundred terms of one magnitude, in either order.
ROUNDING = 1e-12


def frame(n: int = 300) -> pd.DataFrame:
    generator = np.random.default_rng(6)
    return pd.DataFrame(
        {
            "x": generator.normal(1e3, 1.0, n),
            "s": pd.Categorical(generator.choice(["b", "a", "d"], n), categories=["d", "c", "b", "a"]),
            "w": generator.uniform(0.5, 2.0, n),
            "won": generator.choice(["no", "yes"], n),
        }
    )


def columns(data: pd.DataFrame, weighted: bool = False, text: bool = False) -> Columns:
    x = data.x.to_numpy()
    y: Any = data.x.to_numpy()
    if text:
        codes, levels = pd.factorize(data.won)
        y = Coded(codes, tuple(levels))
    return Columns(
        len(data), {"x": x}, {"s": Coded(data.s.cat.codes.to_numpy(), tuple(data.s.cat.categories))},
        {("x",): column_moments(x)}, y, None, None, None,
        Ledger(read=len(data), used=len(data)), None, data.w.to_numpy() if weighted else None,
    )  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
def test_levels_are_counted_or_weighed_and_absent_ones_kept_at_zero(weighted: bool) -> None:
    data = frame()
    profile = profile_of(columns(data, weighted))
    expected = data.w.groupby(data.s, observed=False).agg("sum" if weighted else "count")
    assert list(profile.levels["s"]) == ["d", "c", "b", "a"]
    np.testing.assert_allclose(list(profile.levels["s"].values()), expected.to_numpy(float), rtol=ROUNDING)
    assert profile.levels["s"]["c"] == 0.0
    assert profile.y_levels == {}


def test_levels_of_a_text_response_are_counted() -> None:
    data = frame()
    assert profile_of(columns(data, text=True)).y_levels == data.won.value_counts().to_dict()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 300), max_size=12))
def test_profiles_of_any_parts_add_up_to_the_whole(cuts: list[int]) -> None:
    data = frame()
    edges = [0, *sorted(cuts), len(data)]
    parts = [profile_of(columns(data.iloc[one:other], text=True)) for one, other in itertools.pairwise(edges)]
    total: Profile = functools.reduce(operator.add, parts)
    assert total.n == len(data)
    assert total.ledger == Ledger(read=len(data), used=len(data))
    assert total.levels["s"] == data.s.value_counts().to_dict()
    assert total.y_levels == data.won.value_counts().to_dict()
    n, mean, squares = total.moments[("x",)]
    assert n == len(data)
    np.testing.assert_allclose(mean, data.x.mean(), rtol=ROUNDING)
    np.testing.assert_allclose(squares, data.x.var(ddof=0) * len(data), rtol=1e3 * ROUNDING)


def test_levels_of_both_parts_are_kept_in_order_of_appearance() -> None:
    one = Profile(2, {"s": {"b": 1.0, "z": 0.0, "a": 1.0}}, {}, {"no": 2.0}, Ledger(read=2))
    other = Profile(3, {"s": {"a": 2.0, "c": 1.0}}, {}, {"yes": 3.0}, Ledger(read=4))
    total = one + other
    assert list(total.levels["s"].items()) == [("b", 1.0), ("z", 0.0), ("a", 3.0), ("c", 1.0)]
    assert total.y_levels == {"no": 2.0, "yes": 3.0}
    assert (total.n, total.ledger.read) == (5, 6)


def test_an_empty_part_changes_no_moment() -> None:
    full = Profile(3, {}, {("x",): (3, 2.0, 5.0)})
    empty = Profile(0, {}, {("x",): (0, 0.0, 0.0)})
    assert (full + empty).moments == (empty + full).moments == full.moments


def test_profiles_of_a_matrix_add() -> None:
    one, other = (
        Profile(n, {}, {}, squares=np.array(s), pairs=p) for n, s, p in ((2, [1.0, 0.0], 7), (3, [4.0, 2.0], 5))
    )
    total = one + other
    assert total.squares is not None
    assert total.squares.tolist() == [5.0, 2.0]
    assert total.pairs == 7
    assert (Profile(1, {}, {}) + Profile(2, {}, {})).squares is None
