"""What files of one lake may disagree on, against the table of types written out by hand."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from daskglm.cluster import schemas
from daskglm.errors import DataError, DesignError

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize(
    "stored, values",
    [
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.dictionary(pa.int32(), pa.large_string()), pa.string()),
        (pa.dictionary(pa.int16(), pa.int64()), pa.int64()),
        (pa.run_end_encoded(pa.int32(), pa.float64()), pa.float64()),
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.binary(), pa.string()),
        (pa.large_binary(), pa.string()),
        (pa.float32(), pa.float32()),
        (pa.date32(), pa.date32()),
    ],
)
def test_the_values_type_is_what_is_left_without_the_storage(stored: pa.DataType, values: pa.DataType) -> None:
    assert schemas.plain(stored) == values


@pytest.mark.parametrize("one, other", list(itertools.combinations(INTEGERS, 2)))
def test_two_integer_widths_meet_in_a_type_that_holds_every_value_of_both(one: pa.DataType, other: pa.DataType) -> None:
    joined = schemas.unified([(one, "a"), (other, "b")], "x")
    assert joined == schemas.unified([(other, "b"), (one, "a")], "x")
    signed = {kind for kind in (one, other) if pa.types.is_signed_integer(kind)}
    if pa.uint64() in (one, other):
        assert joined == (pa.float64() if signed else pa.uint64())
    else:
        assert joined == (pa.int64() if signed else pa.uint64())


@pytest.mark.parametrize(
    "kinds, joined",
    [
        ([pa.int32(), pa.float32()], pa.float64()),
        ([pa.int64(), pa.float64()], pa.float64()),
        ([pa.float16(), pa.float32()], pa.float32()),
        ([pa.float32(), pa.float64()], pa.float64()),
        ([pa.decimal128(9, 2), pa.int16()], pa.float64()),
        ([pa.decimal128(9, 2), pa.decimal128(12, 3)], pa.float64()),
        ([pa.null(), pa.int8(), pa.null()], pa.int8()),
        ([pa.string(), pa.null()], pa.string()),
        ([pa.null(), pa.null()], pa.null()),
        ([pa.dictionary(pa.int8(), pa.string()), pa.large_string()], pa.string()),
        ([pa.timestamp("s"), pa.timestamp("us")], pa.timestamp("ns")),
        ([pa.timestamp("s", "UTC"), pa.timestamp("ms", "UTC")], pa.timestamp("ns", "UTC")),
        ([pa.date32(), pa.date64()], pa.date32()),
        ([pa.int8(), pa.int16(), pa.float32()], pa.float64()),
    ],
)
def test_kinds_that_may_differ_are_joined(kinds: list[pa.DataType], joined: pa.DataType) -> None:
    assert schemas.unified([(kind, f"file {i}") for i, kind in enumerate(kinds)], "x") == joined


@pytest.mark.parametrize(
    "one, other",
    [
        (pa.int64(), pa.string()),
        (pa.bool_(), pa.int8()),
        (pa.date32(), pa.timestamp("us")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.date32(), pa.string()),
        (pa.float64(), pa.duration("s")),
    ],
)
def test_kinds_that_mean_different_things_are_refused_with_column_and_both_files(
    one: pa.DataType, other: pa.DataType
) -> None:
    with pytest.raises(DataError, match=r'"price".*first\.parquet.*second\.parquet'):
        schemas.unified([(one, "first.parquet"), (other, "second.parquet")], "price")


@pytest.mark.parametrize(
    "kind, seen",
    [
        *((kind, "numeric") for kind in [*INTEGERS, pa.float16(), pa.float32(), pa.float64(), pa.decimal256(40, 3)]),
        (pa.bool_(), "numeric"),
        (pa.null(), "numeric"),
        (pa.date32(), "date"),
        (pa.date64(), "date"),
        (pa.timestamp("ns", "UTC"), "timestamp[UTC]"),
        (pa.timestamp("s"), "timestamp"),
        (pa.duration("ms"), "duration"),
        (pa.time32("s"), "time"),
        (pa.time64("us"), "time"),
        *((kind, "factor") for kind in [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]),
        *(
            (kind, None)
            for kind in [pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.map_(pa.string(), pa.int8())]
        ),
    ],
)
def test_how_a_formula_sees_a_type(kind: pa.DataType, seen: str | None) -> None:
    assert schemas.kind_of(kind) == seen


def test_a_cast_keeps_values_and_leaves_text_in_its_dictionary() -> None:
    integers = pa.chunked_array([pa.array([1, None, 3], pa.int8())])
    assert schemas.cast(integers, pa.float64(), "f", "x").to_pylist() == [1.0, None, 3.0]
    coded = pa.chunked_array([pa.array(["b", "a"]).dictionary_encode()])
    assert pa.types.is_dictionary(schemas.cast(coded, pa.string(), "f", "x").type)
    days = pa.chunked_array([pa.array([datetime.datetime(2024, 1, 2)], pa.timestamp("s"))])
    assert schemas.cast(days, pa.timestamp("ns"), "f", "x").to_pylist()[0].year == 2024


def test_a_cast_that_would_lose_values_names_column_and_file() -> None:
    column = pa.chunked_array([pa.array([1.5], pa.float64())])
    with pytest.raises(DataError, match=r'a\.parquet: the column "x" cannot be read as int64'):
        schemas.cast(column, pa.int64(), "a.parquet", "x")


@pytest.mark.parametrize(
    "kind, width",
    [(pa.int8(), 1), (pa.int32(), 4), (pa.float64(), 8), (pa.bool_(), 1), (pa.decimal128(20, 2), 8), (pa.float16(), 2)],
)
def test_a_kept_number_takes_its_width(kind: pa.DataType, width: int) -> None:
    assert schemas.kept_bytes(kind) == width


@pytest.mark.parametrize("condition", [pc.field("x") > pc.scalar("a"), pc.field("x") + 1, pc.field("t")])
def test_a_filter_that_cannot_be_computed_is_a_wrong_request(condition: Any) -> None:
    with pytest.raises(DesignError, match="part 3: where="):
        schemas.filtered(pa.table({"x": [1, 2], "t": ["u", "v"]}), condition, "part 3")
