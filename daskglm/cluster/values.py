"""Columns of Python objects, categories and intervals as Arrow arrays: what they are is decided by their values.

Numbers are numbers, text is text, and a mixture is refused with the first two kinds in it. The rule is the same for
pandas, dictionaries of arrays and the partitions of Dask DataFrames.
"""

from __future__ import annotations

import datetime
import decimal
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

# What pandas infers of objects that are numbers, and of those that Arrow takes as they are.
_NUMBERS = ("integer", "floating", "mixed-integer-float")
_OF_ARROW = ("string", "bytes", "boolean", "decimal", "timedelta", "timedelta64", "time", "datetime64", "empty")
# Kinds of values by their classes; the first that fits counts.
_KINDS: tuple[tuple[Any, str], ...] = (
    ((bool, np.bool_), "truth values"), (numbers.Real, "numbers"), (decimal.Decimal, "numbers"), (str, "text"),
    (bytes, "bytes"), (datetime.datetime, "timestamps"), (datetime.date, "dates"),
    (datetime.timedelta, "durations"), (datetime.time, "times of day"), (pd.Interval, "intervals"),
)  # fmt: skip


def arrow_of(series: Any) -> pa.Array:
    """A pandas Series as an Arrow array; a column of `unusable` type where it cannot be one."""
    if isinstance(series.dtype, pd.SparseDtype):
        series = series.sparse.to_dense()
    if series.dtype.kind == "c":
        return unusable("of complex numbers", len(series))
    series = with_labels(series)
    try:
        if isinstance(series.dtype, pd.CategoricalDtype):
            return _of_categories(series)
        return _of_objects(series) if series.dtype == object else pa.Array.from_pandas(series)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        return unusable(str(error), len(series))


def unusable(reason: str, n: int) -> pa.Array:
    """A column that no formula can use: it is refused with the reason when it is used, not when it is merely there."""
    return pa.StructArray.from_arrays([pa.nulls(n)], names=[" ".join(reason.split())[:200] or "unusable"])


def reason_of(kind: pa.DataType) -> str | None:
    """Why a column of `unusable` type cannot be used; None for other types."""
    if pa.types.is_struct(kind) and kind.num_fields == 1 and pa.types.is_null(kind.field(0).type):
        return str(kind.field(0).name)
    return None


def is_interval(kind: Any) -> bool:
    """Whether an Arrow type, or that of a dictionary's values, is pandas' of intervals."""
    if pa.types.is_dictionary(kind):
        return is_interval(kind.value_type)
    return getattr(kind, "extension_name", "") == "pandas.interval"


def of_intervals(column: pa.ChunkedArray) -> Any:
    """A column of pandas' intervals, or of categories of them, as categories of text."""
    kind = column.type
    if not pa.types.is_dictionary(kind):
        return arrow_of(column.to_pandas())
    chunks = []
    for chunk in column.chunks:
        ends = chunk.dictionary.storage.to_pylist()
        labels = [str(pd.Interval(end["left"], end["right"], kind.value_type.closed)) for end in ends]
        chunks.append(
            pa.DictionaryArray.from_arrays(chunk.indices, pa.array(labels, pa.string()), ordered=kind.ordered)
        )
    return pa.chunked_array(chunks, pa.dictionary(kind.index_type, pa.string(), kind.ordered))


def with_labels(series: Any) -> Any:
    """Intervals as text, "(0, 1]", whose categories keep their order; other Series as they are."""
    if isinstance(series.dtype, pd.IntervalDtype):
        series = series.astype("category")
    if isinstance(series.dtype, pd.CategoricalDtype) and isinstance(series.cat.categories, pd.IntervalIndex):
        return series.cat.rename_categories([str(interval) for interval in series.cat.categories])
    return series


def _of_categories(series: Any) -> pa.Array:
    categories = series.cat.categories
    if categories.dtype == object:
        values = _of_objects(pd.Series(categories))
        if reason_of(values.type) is not None:
            return unusable(str(reason_of(values.type)), len(series))
    try:
        return pa.Array.from_pandas(series)
    except pa.ArrowNotImplementedError:
        # pyarrow 18 does not take categories that are Arrow's own text
        return pa.Array.from_pandas(series.cat.rename_categories(categories.astype(object)))


def _of_objects(series: Any) -> pa.Array:
    """Python objects by what they are."""
    found = pd.api.types.infer_dtype(series, skipna=True)
    if found in _NUMBERS:
        return _of_numbers(series, found == "integer")
    if found in _OF_ARROW:
        return pa.Array.from_pandas(series)
    if found == "interval":
        return pa.Array.from_pandas(with_labels(pd.Series(pd.arrays.IntervalArray(series))))
    kinds = first_kinds(series)
    if len(kinds) > 1:
        (one, (row, value)), (other, (place, second)) = list(kinds.items())[:2]
        reason = f"a mixture of {one} and {other}: {value!r} in row {row}, {second!r} in row {place}"
        return unusable(reason, len(series))
    if "numbers" in kinds:
        return _of_numbers(series, False)
    return pa.Array.from_pandas(series.where(series.notna(), None))


def _of_numbers(series: Any, whole: bool) -> pa.Array:
    """Whole numbers that fit into 64 bits as such, all others in float64."""
    for kind in (pa.int64(), pa.uint64()) if whole else ():
        try:
            return pa.Array.from_pandas(series.where(series.notna(), None), type=kind)
        except (pa.ArrowException, OverflowError):
            continue
    return pa.Array.from_pandas(series.where(series.notna(), np.nan).astype(np.float64))


def first_kinds(series: Any) -> Mapping[str, tuple[int, Any]]:
    """The first two kinds of values of a Series, each with the row and the value it was seen in."""
    found: dict[str, tuple[int, Any]] = {}
    for row in np.flatnonzero(series.notna()):
        value = series.iloc[row]
        kind = next((name for classes, name in _KINDS if isinstance(value, classes)), f"{type(value).__name__} objects")
        found.setdefault(kind, (int(row), value.item() if isinstance(value, np.generic) else value))
        if len(found) > 1:
            break
    return found


def words_of(kind: pa.DataType) -> str:
    """What a column of an Arrow type holds, in words."""
    if pa.types.is_dictionary(kind):
        return words_of(kind.value_type)
    tests: tuple[tuple[Any, str], ...] = (
        (pa.types.is_boolean, "truth values"), (pa.types.is_integer, "numbers"), (pa.types.is_floating, "numbers"),
        (pa.types.is_decimal, "numbers"), (pa.types.is_date, "dates"), (pa.types.is_timestamp, "timestamps"),
        (pa.types.is_duration, "durations"), (pa.types.is_time, "times of day"), (pa.types.is_string, "text"),
        (pa.types.is_large_string, "text"), (pa.types.is_binary, "text"), (pa.types.is_large_binary, "text"),
    )  # fmt: skip
    return next((words for is_kind, words in tests if is_kind(kind)), str(kind))
