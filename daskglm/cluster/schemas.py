"""One schema for files that do not quite agree: what may differ is said here, and everything else is refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from daskglm.errors import DataError, DesignError

# What the number of a row is called in a table that is filtered: a name that no column has.
NUMBER = "\0number"


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, without how they are stored."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary(kind):
        return pa.string()
    return kind


def unified(kinds: Iterable[tuple[pa.DataType, str]], column: str) -> pa.DataType:
    """The type all files' columns can be read as: integers widen, integers and floats are floats, dictionaries text."""
    result: pa.DataType | None = None
    first = ""
    for kind, label in kinds:
        value = plain(kind)
        if result is None or pa.types.is_null(result):
            result, first = value, label
            continue
        if value == result or pa.types.is_null(value):
            continue
        joined = _joined(result, value)
        if joined is None:
            raise DataError(
                f'the column "{column}" is {result} in {first} but {value} in {label}: files of one lake must agree'
            )
        result = joined
    assert result is not None
    return result


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _joined(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        signed = pa.types.is_signed_integer(one) or pa.types.is_signed_integer(other)
        if signed and one != pa.uint64() and other != pa.uint64():
            return pa.int64()
        return pa.uint64() if not signed else pa.float64()
    if _is_number(one) and _is_number(other):
        if one in (pa.float32(), pa.float16()) and other in (pa.float32(), pa.float16()):
            return pa.float32()
        return pa.float64()
    if pa.types.is_timestamp(one) and pa.types.is_timestamp(other) and one.tz == other.tz:
        return pa.timestamp("ns", one.tz)
    if pa.types.is_date(one) and pa.types.is_date(other):
        return pa.date32()
    return None


def cast(column: Any, kind: pa.DataType, label: str, name: str) -> Any:
    """A column as the lake's type; text stays in its dictionary."""
    if plain(column.type) == kind:
        return column
    if pa.types.is_dictionary(column.type) and not pa.types.is_string(kind):
        column = column.cast(column.type.value_type)
    try:
        result = column.cast(kind)
        if (
            pa.types.is_date(kind)
            and pa.types.is_timestamp(column.type)
            and not result.cast(column.type).equals(column)
        ):
            raise DataError(
                f'{label}: the column "{name}" has times of day, and dates are needed: cut them off, as '
                f"{name}.dt.normalize() does in pandas"
            )
        return result
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f'{label}: the column "{name}" cannot be read as {kind}: {error}') from None


def filtered(table: pa.Table, condition: Any, label: str) -> pa.Table:
    """The rows of a table that pass an Arrow expression; DesignError where it compares what cannot be compared."""
    try:
        return table.filter(condition)
    except pa.ArrowException as error:
        raise DesignError(f"{label}: where= cannot be computed: {' '.join(str(error).split())[:200]}") from None


def filtered_rows(table: pa.Table, condition: Any, label: str, numbers: Any) -> tuple[pa.Table, Any]:
    """The rows that pass, and which of the numbers (n,) of all rows are theirs."""
    passed = filtered(table.append_column(NUMBER, pa.array(numbers)), condition, label)
    return passed.drop_columns([NUMBER]), passed.column(NUMBER).to_numpy()


def kind_of(kind: pa.DataType) -> str | None:
    """How a formula sees a column of this type, or None (nested and other types).

    "numeric", "factor", and for times, whose units differ, "date", "timestamp", "timestamp[ZONE]", "duration", "time".
    """
    kind = plain(kind)
    if pa.types.is_string(kind):
        return "factor"
    if pa.types.is_boolean(kind) or _is_number(kind) or pa.types.is_null(kind):
        return "numeric"
    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.tz}]" if kind.tz else "timestamp"
    for name, is_kind in (("date", pa.types.is_date), ("duration", pa.types.is_duration), ("time", pa.types.is_time)):
        if is_kind(kind):
            return name
    return None


def kept_bytes(kind: pa.DataType) -> int:
    """Bytes a value of this type takes once decoded and encoded, generously."""
    kind = plain(kind)
    if pa.types.is_string(kind):
        return 2
    if pa.types.is_boolean(kind):
        return 1
    return 8 if pa.types.is_null(kind) else min(kind.bit_width // 8, 8)
