"""Data in memory of every kind, against the values that were put in."""

from __future__ import annotations

import datetime
import decimal
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.sparse import csr_array

from daskglm.cluster import tables
from daskglm.cluster.sources import kinds
from daskglm.cluster.tables import (
    ArraySource,
    TableSource,
    chunk_leaf,
    from_arrays,
    from_pandas,
    from_stream,
    leaf_rows,
)
from daskglm.errors import DataError, DesignError


def values(source: Any, columns: list[str], condition: Any = None) -> dict[str, list[Any]]:
    source.select(columns, condition)
    found: dict[str, list[Any]] = {name: [] for name in columns}
    for leaf in source.leaves:
        loaded = source.load(leaf)
        assert loaded.resident
        assert loaded.rows == leaf.rows
        for name in columns:
            found[name] += loaded.table.column(name).to_pylist()
    return found


@pytest.mark.parametrize("rows", [1, 7, 100, 1_000])
def test_leaves_are_all_rows_once_in_order(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", rows)
    source = TableSource(pa.table({"i": range(300)}))
    assert values(source, ["i"])["i"] == list(range(300))
    assert len(source.leaves) == -(-300 // rows)
    assert source.n_rows == 300


def test_a_table_of_many_chunks_and_a_slice_with_an_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 7)
    strings = [None if i % 5 == 0 else "abc"[i % 3] for i in range(100)]
    chunks = [pa.array(strings[at : at + 9]).dictionary_encode() for at in range(0, 100, 9)]
    table = pa.table({"s": pa.chunked_array(chunks), "b": pa.array([i % 3 == 0 for i in range(100)])}).slice(13, 50)
    found = values(TableSource(table), ["s", "b"])
    assert found["s"] == strings[13:63]
    assert found["b"] == [i % 3 == 0 for i in range(13, 63)]


def test_a_filter_is_applied_to_every_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 10)
    source = TableSource(pa.table({"i": range(95), "s": ["ab"[i % 2] for i in range(95)]}))
    condition = (pc.field("i") > 42) & (pc.field("s") == "a")
    assert values(source, ["i", "s"], condition)["i"] == list(range(44, 95, 2))


def test_an_empty_table_is_one_leaf_without_rows() -> None:
    source = TableSource(pa.table({"x": pa.array([], pa.float64())}))
    assert values(source, ["x"]) == {"x": []}
    assert [leaf.rows for leaf in source.leaves] == [0]


def test_two_columns_of_one_name_are_refused() -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(DesignError, match="'x'"):
        TableSource(twice)
    with pytest.raises(DesignError, match="same name"):
        from_pandas(pd.DataFrame([[1, 2]], columns=["x", "x"]))


FRAME = pd.DataFrame(
    {
        "i8": np.array([1, 2, 3], np.int8),
        "u16": np.array([1, 2, 65535], np.uint16),
        "f32": np.array([0.5, np.nan, 2.0], np.float32),
        "Int64": pd.array([1, None, 3], dtype="Int64"),
        "Float64": pd.array([1.5, None, 3.5], dtype="Float64"),
        "boolean": pd.array([True, None, False], dtype="boolean"),
        "bool": [True, False, True],
        "object": ["a", None, "c"],
        "string": pd.array(["a", None, "c"], dtype="string"),
        "arrow": pd.array(["a", None, "c"], dtype="string[pyarrow]"),
        "time": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
        "date": [datetime.date(2024, 1, 1), None, datetime.date(2024, 1, 3)],
        "decimal": [decimal.Decimal("1.5"), None, decimal.Decimal("2.25")],
        "sparse": pd.arrays.SparseArray([0.0, 0.0, 1.0]),
    }
)


@pytest.mark.parametrize("name", list(FRAME.columns))
def test_pandas_columns_come_with_their_values_and_missing_ones_as_nulls(name: str) -> None:
    expected = [None if pd.isna(value) else value for value in FRAME[name].tolist()]
    assert values(from_pandas(FRAME), [name])[name] == expected


def test_the_index_of_a_frame_plays_no_part() -> None:
    shuffled = pd.DataFrame({"x": [1.0, 2.0, 3.0]}, index=[7, 7, 0])
    assert values(from_pandas(shuffled), ["x"])["x"] == [1.0, 2.0, 3.0]


def test_every_categorical_keeps_its_order_and_arrow_only_a_declared_one() -> None:
    frame = pd.DataFrame(
        {
            "c": pd.Categorical(["lo", "hi"], categories=["lo", "hi", "top"]),
            "o": pd.Categorical(["lo", "hi"], categories=["lo", "hi"], ordered=True),
            "s": ["lo", "hi"],
        }
    )
    source = from_pandas(frame)
    assert source.ordered == {"c", "o"}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    assert TableSource(table).ordered == {"o"}
    assert values(source, ["c", "o", "s"]) == {name: ["lo", "hi"] for name in "cos"}


def test_names_that_are_not_text_become_text() -> None:
    assert values(from_pandas(pd.DataFrame({0: [1, 2]})), ["0"])["0"] == [1, 2]


def test_a_column_arrow_cannot_hold_is_no_column_but_no_obstacle() -> None:
    from daskglm.cluster import sources

    frame = pd.DataFrame({"x": [1.0, 2.0], "odd": [1, "a"], "object": [object(), object()]})
    source = from_pandas(frame)
    assert values(source, ["x"])["x"] == [1.0, 2.0]
    kinds = sources.kinds(source)
    assert {name for name, kind in kinds.items() if not kind.startswith("unusable")} == {"x"}


def test_text_views_and_run_ends_are_read() -> None:
    table = pa.table(
        {
            "view": pa.array(["u", None, "v"], pa.string_view()),
            "runs": pc.run_end_encode(pa.array([1, 1, 2], pa.int64())),
        }
    )
    source = TableSource(table)
    assert source.types == {"view": pa.string(), "runs": pa.int64()}
    assert values(source, ["view"])["view"] == ["u", None, "v"]


def test_anything_with_the_arrow_stream_interface() -> None:
    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.table({"x": [1, 2, 3]}).__arrow_c_stream__(requested_schema)

    assert values(from_stream(Stream()), ["x"])["x"] == [1, 2, 3]

    class Broken:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise ValueError("no stream today")

    with pytest.raises(DataError, match="Broken"):
        from_stream(Broken())


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_kind_and_order(monkeypatch: pytest.MonkeyPatch, kind: str, order: str) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 4)
    x = np.asarray(np.arange(22).reshape(11, 2) % 3, dtype=kind, order=order)
    y = np.arange(11.0)
    source, names = from_arrays(x, {"y": y})
    assert isinstance(source, ArraySource)
    assert names == ["x0", "x1"]
    found = values(source, ["x1", "y"])
    assert found == {"x1": x[:, 1].tolist(), "y": y.tolist()}
    assert source.n_rows == 11


def test_arrays_with_steps_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 3)
    x = np.arange(40.0).reshape(20, 2)[::2]
    source, names = from_arrays(x, {"y": np.arange(20)[::-2]}, names=["a", "b"])
    assert names == ["a", "b"]
    condition = pc.field("a") > 10.0
    found = values(source, ["a", "y"], condition)
    keep = x[:, 0] > 10.0
    assert found == {"a": x[keep, 0].tolist(), "y": np.arange(20)[::-2][keep].tolist()}


def test_arrays_that_do_not_fit_each_other_are_named() -> None:
    x = np.zeros((5, 2))
    with pytest.raises(DesignError, match="y has 4 rows, X has 5"):
        from_arrays(x, {"y": np.zeros(4)})
    with pytest.raises(DesignError, match='"y"'):
        from_arrays(x, {"y": np.zeros(5)}, names=["x", "y"])


# -- sparse matrices, and chunks ---------------------------------------------------------------------------------------


def sparse(n: int = 50, p: int = 4) -> csr_array:
    generator = np.random.default_rng(0)
    return csr_array(generator.integers(1, 9, (n, p)) * (generator.random((n, p)) < 0.4))


@pytest.mark.parametrize("rows", [1, 8, 128])
def test_a_sparse_matrix_goes_beside_the_table_leaf_by_leaf(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", rows)
    x = sparse()
    source, names = from_arrays(x, {"y": np.arange(50.0)})
    assert names == ["x0", "x1", "x2", "x3"]
    assert source.matrix_names == tuple(names)
    assert list(source.types) == ["y"]
    assert kinds(source) == {"y": "numeric", "X": "matrix"}
    source.select(["X", "y"])
    leaves = [source.load(leaf) for leaf in source.leaves]
    assert len(leaves) == -(-50 // rows)
    assert all(leaf.resident and leaf.rows == leaf.table.num_rows == leaf.matrix.shape[0] for leaf in leaves)
    np.testing.assert_array_equal(np.vstack([leaf.matrix.toarray() for leaf in leaves]), x.toarray())
    assert [v for leaf in leaves for v in leaf.table.column("y").to_pylist()] == list(range(50))
    # entries are those of the user's matrix, not copies
    assert all(np.shares_memory(leaf.matrix.data, x.data) for leaf in leaves if leaf.matrix.nnz)


def test_a_matrix_alone_still_has_rows() -> None:
    source, _ = from_arrays(sparse(), {})
    source.select(["X"])
    (leaf,) = (source.load(leaf) for leaf in source.leaves)
    assert leaf.table.num_columns == 0
    assert leaf.table.num_rows == leaf.rows == 50


def test_a_filter_takes_the_same_rows_of_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 8)
    x, y = sparse(), np.arange(50.0)
    source, _ = from_arrays(x, {"y": y})
    source.select(["X"], (pc.field("y") > 30.0) | (pc.field("y") < 3.0), ["y"])
    leaves = [source.load(leaf) for leaf in source.leaves]
    found = np.vstack([leaf.matrix.toarray() for leaf in leaves])
    np.testing.assert_array_equal(found, x.toarray()[(y > 30.0) | (y < 3.0)])
    assert [leaf.rows for leaf in leaves] == [8] * 6 + [2]
    assert [leaf.table.num_rows for leaf in leaves] == [3, 0, 0, 1, 8, 8, 2]
    assert leaves[0].table.column_names == ["y"]


def test_the_bytes_of_a_row_are_those_of_its_entries() -> None:
    x = csr_array(np.eye(64))
    source, _ = from_arrays(x, {"y": np.ones(64)})
    assert source.row_bytes(["y"]) == 8
    assert source.row_bytes(["y", "X"]) == 8 + 8 + 12


@pytest.mark.parametrize(
    "row_bytes, rows", [(1, 131_072), (512, 131_072), (513, 65_536), (16_000, 4_096), (1e9, 4_096)]
)
def test_leaves_of_wide_rows_are_shorter(row_bytes: float, rows: int) -> None:
    assert leaf_rows(row_bytes) == rows


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["f8", "f4", "i2", "?"])
def test_a_dense_chunk_becomes_columns(order: str, kind: str) -> None:
    x = np.asarray(np.arange(21).reshape(7, 3) % 2, dtype=kind, order=order)  # type: ignore[call-overload]
    leaf = chunk_leaf(x, {"y": np.arange(7.0)[::-1]}, ["a", "b", "c"], "chunk 3")
    assert (leaf.label, leaf.rows, leaf.matrix) == ("chunk 3", 7, None)
    assert leaf.table.column_names == ["a", "b", "c", "y"]
    for j, name in enumerate("abc"):
        assert leaf.table.column(name).to_pylist() == x[:, j].tolist()
    assert leaf.table.column("y").to_pylist() == [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_a_sparse_chunk_goes_beside_the_table_and_travels(form: str) -> None:
    x = sparse()
    leaf = chunk_leaf(x.asformat(form), {"y": np.ones(50)}, ["a", "b", "c", "d"], "chunk 0")
    assert leaf.table.column_names == ["y"]
    assert leaf.matrix.format == "csr"
    np.testing.assert_array_equal(leaf.matrix.toarray(), x.toarray())
    there = pickle.loads(pickle.dumps(leaf))
    np.testing.assert_array_equal(there.matrix.toarray(), x.toarray())
    assert there.table.equals(leaf.table)


def test_a_chunk_without_x_is_its_other_columns() -> None:
    leaf = chunk_leaf(None, {"y": np.ones(3)}, (), "chunk 1")
    assert (leaf.rows, leaf.table.column_names, leaf.matrix) == (3, ["y"], None)


def test_what_is_called_as_the_matrix_is_refused() -> None:
    with pytest.raises(DesignError, match='X has a column named "X"'):
        from_arrays(sparse(), {"X": np.zeros(50)})
