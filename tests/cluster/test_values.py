"""Columns of objects, categories and intervals are what their values are, on every source."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import daskglm as dg
from daskglm.cluster.values import arrow_of
from daskglm.errors import DesignError

D = decimal.Decimal
DAY = datetime.date(2024, 1, 2)
MOMENT = datetime.datetime(2024, 1, 2, 3)

ALIKE: dict[str, tuple[list[Any], pa.DataType, list[Any]]] = {
    "floats": ([1.5, None, 2.0], pa.float64(), [1.5, None, 2.0]),
    "whole numbers": ([1, None, 3], pa.int64(), [1, None, 3]),
    "whole numbers and floats": ([1, 2.5, np.nan], pa.float64(), [1.0, 2.5, None]),
    "numbers of NumPy": ([np.float32(0.5), np.int8(3)], pa.float64(), [0.5, 3.0]),
    "NA": ([1, pd.NA, 3], pa.int64(), [1, None, 3]),
    "beyond 64 bits": ([2**70, -(2**65), 1], pa.float64(), [2.0**70, -(2.0**65), 1.0]),
    "beyond signed": ([2**63, 1], pa.uint64(), [2**63, 1]),
    "decimals": ([D("1.25"), D("2.5")], pa.decimal128(3, 2), [D("1.25"), D("2.50")]),
    "decimals and floats": ([D("1.25"), 2.5], pa.float64(), [1.25, 2.5]),
    "truth values": ([True, None, False], pa.bool_(), [True, None, False]),
    "text": (["a", None, "b", np.nan, pd.NaT], pa.string(), ["a", None, "b", None, None]),
    "dates": ([DAY, None], pa.date32(), [DAY, None]),
    "timestamps": ([MOMENT, None], pa.timestamp("us"), [MOMENT, None]),
    "nothing": ([None, np.nan], pa.null(), [None, None]),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_values_of_one_kind(kind: str) -> None:
    values, wanted, expected = ALIKE[kind]
    found = arrow_of(pd.Series(values, dtype=object))
    assert found.to_pylist() == expected
    assert found.type == wanted


MIXTURES: dict[str, tuple[list[Any], str]] = {
    "numbers and text": ([None, 1.5, 2, "b"], r"a mixture of numbers and text: 1.5 in row 1, 'b' in row 3"),
    "text and numbers": (["b", np.int64(2)], "a mixture of text and numbers: 'b' in row 0, 2 in row 1"),
    "truth values and numbers": ([True, 1], "a mixture of truth values and numbers: True in row 0, 1 in row 1"),
    "dates and timestamps": ([DAY, MOMENT], "a mixture of dates and timestamps"),
    "text and bytes": (["a", b"a"], "a mixture of text and bytes"),
    "lists and numbers": ([[1], 1], "a mixture of list objects and numbers"),
    "complex numbers": ([1j, 2j], "complex|Could not convert"),
}


@pytest.mark.parametrize("source", ["pandas", "dict", "categories"])
@pytest.mark.parametrize("kind", MIXTURES)
def test_mixtures_are_refused_where_they_are_used(kind: str, source: str) -> None:
    values, message = MIXTURES[kind]
    if source == "categories" and kind in ("lists and numbers", "truth values and numbers", "dates and timestamps"):
        pytest.skip("no categories of such values")
    series = pd.Series(values, dtype=object)
    column = pd.Series(pd.Categorical(series)) if source == "categories" else series
    data: Any = {"y": np.arange(float(len(values))), "c": column}
    data = data if source == "dict" else pd.DataFrame(data)
    with pytest.raises(DesignError, match='column "c" .* cannot be used here' if source == "categories" else message):
        dg.glm("y ~ c", data)
    assert dg.glm("y ~ 1", data).nobs == len(values)


ROWS = 60
X = np.random.default_rng(8).normal(size=ROWS)
Y = np.random.default_rng(9).normal(size=ROWS)
CUTS: dict[str, Callable[[], Any]] = {
    "cut": lambda: pd.cut(pd.Series(X), [-9.0, -0.5, 0.5, 9.0]),
    "qcut": lambda: pd.qcut(pd.Series(X), 4),
    "times": lambda: pd.cut(pd.Timestamp("2024-01-01") + pd.to_timedelta(pd.Series(X), unit="D"), 3),
    "missing": lambda: pd.cut(pd.Series(X), [-0.5, 0.5, 9.0]),
}


@pytest.mark.parametrize("kind", CUTS)
def test_intervals_are_levels(kind: str, tmp_path: Path) -> None:
    cut = CUTS[kind]()
    data = pd.DataFrame({"y": Y, "c": cut})
    labels = [str(interval) for interval in cut.cat.categories]
    truth = dg.glm("y ~ c", pd.DataFrame({"y": Y, "c": cut.cat.rename_categories(labels)}))
    assert list(truth.params.index[1:]) == [f"c[T.{label}]" for label in labels[1:]]
    table = pa.Table.from_pandas(data)
    for source in (data, table, {"y": Y, "c": cut}):
        fit = dg.glm("y ~ c", source)
        pd.testing.assert_series_equal(fit.params, truth.params)
        np.testing.assert_array_equal(fit.predict(source), truth.predict(data))
    fit.save(tmp_path / "model")
    np.testing.assert_array_equal(dg.load(tmp_path / "model").predict(data), truth.predict(data))
    collection = dd.from_pandas(data, npartitions=2)
    pd.testing.assert_series_equal(dg.glm("y ~ c", collection).params, truth.params)
    # intervals that are no categories are text, sorted as such
    as_text = dg.glm("y ~ c", pd.DataFrame({"y": Y, "c": cut.astype(str).where(cut.notna(), None)}))
    for column in (pd.Series(pd.arrays.IntervalArray(cut)), pd.Series(list(cut), dtype=object)):
        plain = pd.DataFrame({"y": Y, "c": column})
        pd.testing.assert_series_equal(dg.glm("y ~ c", plain).params, as_text.params)
        pd.testing.assert_series_equal(dg.glm("y ~ c", dd.from_pandas(plain, npartitions=2)).params, as_text.params)
    if kind != "missing":
        pd.DataFrame({"y": Y, "c": pd.arrays.IntervalArray(cut)}).to_parquet(tmp_path / "intervals.parquet")
        with pytest.raises(DesignError, match="it is of intervals, which are no labels: make it text"):
            dg.glm("y ~ c", str(tmp_path / "intervals.parquet"))


def test_large_whole_numbers() -> None:
    large = pd.Series([2**70 + int(1000 * x) * 2**60 for x in X], dtype=object)
    expected = dg.glm("y ~ x", {"y": Y, "x": large.astype(float)})
    for data in (pd.DataFrame({"y": Y, "x": large}), {"y": Y, "x": list(large)}, {"y": Y, "x": large.to_numpy()}):
        np.testing.assert_array_equal(dg.glm("y ~ x", data).params, expected.params)
    unsigned = (2**63 + np.arange(ROWS).astype(np.uint64) * np.uint64(2**50)).astype(np.uint64)
    expected = dg.glm("y ~ x", {"y": Y, "x": unsigned.astype(float)})
    for data in (pd.DataFrame({"y": Y, "x": unsigned}), pl.DataFrame({"y": Y, "x": unsigned})):
        np.testing.assert_array_equal(dg.glm("y ~ x", data).params, expected.params)


LEVELS: dict[str, tuple[list[Any], list[str]]] = {
    "dates": ([DAY, datetime.date(2024, 1, 5)], ["2024-01-02", "2024-01-05"]),
    "timestamps": ([pd.Timestamp(MOMENT), pd.Timestamp("2024-01-05")], ["2024-01-02 03:00:00", "2024-01-05 00:00:00"]),
    "decimals": ([D("1.5"), D("2.5")], ["1.5", "2.5"]),
    "whole numbers": ([10, 9], ["10", "9"]),
    "truth values": ([True, False], ["True", "False"]),
}


@pytest.mark.parametrize("kind", LEVELS)
def test_categories_of_any_kind_can_be_saved(kind: str, tmp_path: Path) -> None:
    categories, labels = LEVELS[kind]
    values = pd.Categorical([categories[i % 2] for i in range(ROWS)], categories=categories)
    data = pd.DataFrame({"y": Y, "c": values})
    fit = dg.glm("y ~ c", data)
    assert fit.params.index[1] == f"c[T.{labels[1]}]"
    fit.save(tmp_path / "model")
    np.testing.assert_array_equal(dg.load(tmp_path / "model").predict(data), fit.predict(data))


def test_columns_of_a_dict_are_of_one_length_and_dimension() -> None:
    with pytest.raises(DesignError, match='the column "x" has 3 rows, "y" has 2'):
        dg.glm("y ~ x", {"y": [1.0, 2.0], "x": [1.0, 2.0, 3.0]})
    with pytest.raises(DesignError, match='the column "x" has 2 dimensions'):
        dg.glm("y ~ x", {"y": [1.0, 2.0], "x": np.ones((2, 1))})
    with pytest.raises(DesignError, match='the column "x" has 0 dimensions: a column has one'):
        dg.glm("y ~ x", {"y": Y, "x": X}).predict({"x": 1.0})
    moved = {"y": pd.Series(Y), "x": pd.Series(X).sample(frac=1.0, random_state=1)}
    np.testing.assert_array_equal(dg.glm("y ~ x", moved).params, dg.glm("y ~ x", {"y": Y, "x": X}).params)
