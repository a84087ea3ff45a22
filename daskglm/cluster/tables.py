"""Data that are in memory already: Arrow tables, pandas, anything with the Arrow stream interface, NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa

from daskglm.cluster import schemas
from daskglm.cluster.lakes import LeafTable
from daskglm.errors import DataError, DesignError

LEAF_ROWS = 131_072


@final
@dataclass(frozen=True)
class RowLeaf:
    """Rows start .. stop - 1."""

    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.start


@final
@dataclass(frozen=True)
class Ready:
    """Leaves that are decoded already, on their way to another process."""

    tables: Mapping[RowLeaf, LeafTable]

    ahead = 0

    def part(self, leaves: Sequence[RowLeaf]) -> Ready:
        """Some of them."""
        return Ready({leaf: self.tables[leaf] for leaf in leaves})

    def announce(self, leaf: RowLeaf) -> None:
        """Nothing to prepare."""

    def load(self, leaf: RowLeaf) -> LeafTable:
        """As it is."""
        return self.tables[leaf]

    def __reduce__(self) -> Any:
        # a slice of a table carries the whole table when it is pickled; a stream carries the rows
        parts = {leaf: (_stream(t.table), t.label, t.rows) for leaf, t in self.tables.items()}
        return _arrived, (parts,)


def _stream(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _arrived(parts: Mapping[RowLeaf, Any]) -> Ready:
    """What `Ready.__reduce__` sent."""
    read = {leaf: pa.ipc.open_stream(stream).read_all() for leaf, (stream, _, _) in parts.items()}
    return Ready({leaf: LeafTable(read[leaf], label, rows) for leaf, (_, label, rows) in parts.items()})


class TableSource:
    """An Arrow table, cut into leaves of a fixed number of rows."""

    in_memory = True
    local = True
    ahead = 0
    pruned_rows = 0

    def __init__(self, table: pa.Table, ordered: frozenset[str] = frozenset()) -> None:
        names = table.column_names
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DesignError(f"the table has two columns named {sorted(twice)[0]!r}")
        self._table = table
        self.types: dict[str, pa.DataType] = {f.name: schemas.plain(f.type) for f in table.schema}
        flagged = {f.name for f in table.schema if pa.types.is_dictionary(f.type) and f.type.ordered}
        self.ordered = ordered | frozenset(flagged)
        self.categories = frozenset(f.name for f in table.schema if pa.types.is_dictionary(f.type))
        self.leaves: list[RowLeaf] = []
        self._columns: tuple[str, ...] = ()
        self._filter: Any = None

    @property
    def n_rows(self) -> int:
        """Rows before any filter."""
        return int(self._table.num_rows)

    def row_bytes(self, columns: Sequence[str]) -> int:
        """About what a row takes once decoded."""
        return sum(schemas.kept_bytes(self.types[name]) for name in columns)

    def select(self, columns: Sequence[str], row_filter: Any = None, filter_columns: Sequence[str] = ()) -> None:
        """Settle what is read: these columns, of rows that pass an Arrow expression."""
        self._columns = tuple(dict.fromkeys((*columns, *filter_columns)))
        self._filter = row_filter
        # an empty table is one leaf without rows, so that it is reported as such
        starts = range(0, max(self._table.num_rows, 1), LEAF_ROWS)
        self.leaves = [RowLeaf(start, min(start + LEAF_ROWS, self._table.num_rows)) for start in starts]

    @property
    def reader(self) -> TableSource:
        """Itself: the rows are here."""
        return self

    def part(self, leaves: Sequence[RowLeaf]) -> Ready:
        """A few leaves, decoded."""
        return Ready({leaf: self.load(leaf) for leaf in leaves})

    def announce(self, leaf: RowLeaf) -> None:
        """Nothing to prepare."""

    def load(self, leaf: RowLeaf) -> LeafTable:
        """One leaf's columns."""
        table = self._table.slice(leaf.start, leaf.rows).select(list(self._columns))
        label = f"rows {leaf.start} to {leaf.stop - 1}" if leaf.rows else "the table"
        for i, name in enumerate(self._columns):
            kind = self.types[name]
            if pa.types.is_string_view(table.schema.field(i).type):
                table = table.set_column(i, name, table.column(i).cast(pa.large_string()))
            elif plain_differs(table.schema.field(i).type, kind):
                table = table.set_column(i, name, schemas.cast(table.column(i), kind, label, name))
        if self._filter is not None:
            table = schemas.filtered(table, self._filter, label)
        return LeafTable(table, label, leaf.rows, resident=True)


def plain_differs(stored: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a stored type needs a cast."""
    return bool(schemas.plain(stored) != kind)


class ArraySource(TableSource):
    """NumPy arrays X (n, p), y (n,) and others of the same length, turned into columns leaf by leaf."""

    def __init__(self, columns: Mapping[str, Any], n: int) -> None:
        self._arrays = dict(columns)
        self._n = n
        self.types = {name: pa.from_numpy_dtype(array.dtype) for name, array in self._arrays.items()}
        self.ordered = frozenset()
        self.categories = frozenset()
        self.leaves = []
        self._columns = ()
        self._filter = None

    @property
    def n_rows(self) -> int:
        """Rows."""
        return self._n

    def select(self, columns: Sequence[str], row_filter: Any = None, filter_columns: Sequence[str] = ()) -> None:
        """Settle what is read."""
        self._columns = tuple(dict.fromkeys((*columns, *filter_columns)))
        self._filter = row_filter
        self.leaves = [RowLeaf(s, min(s + LEAF_ROWS, self._n)) for s in range(0, max(self._n, 1), LEAF_ROWS)]

    def load(self, leaf: RowLeaf) -> LeafTable:
        """One leaf's columns, contiguous."""
        parts = {
            name: pa.array(np.ascontiguousarray(self._arrays[name][leaf.start : leaf.stop])) for name in self._columns
        }
        table = pa.table(parts)
        label = f"rows {leaf.start} to {leaf.stop - 1}"
        if self._filter is not None:
            table = schemas.filtered(table, self._filter, label)
        return LeafTable(table, label, leaf.rows, resident=True)


def from_pandas(frame: Any) -> TableSource:
    """A pandas DataFrame; categoricals keep their order."""
    import pandas as pd

    ordered = frozenset(str(n) for n, kind in frame.dtypes.items() if isinstance(kind, pd.CategoricalDtype))
    columns = {}
    for position, name in enumerate(frame.columns):
        series = frame.iloc[:, position]
        if isinstance(series.dtype, pd.SparseDtype):
            series = series.sparse.to_dense()
        try:
            columns[str(name)] = pa.Array.from_pandas(series)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            columns[str(name)] = _unusable(str(error), len(frame))
    if len(columns) < len(frame.columns):
        raise DesignError("two columns of the DataFrame have the same name")
    return TableSource(pa.table(columns), ordered)


def _unusable(reason: str, n: int) -> Any:
    """A column that Arrow cannot hold is refused when it is used, not when it is merely there."""
    return pa.StructArray.from_arrays([pa.nulls(n)], names=[" ".join(reason.split())[:80] or "unusable"])


def from_stream(data: Any) -> TableSource:
    """Anything with the Arrow stream interface (polars, DuckDB, ...)."""
    try:
        return TableSource(pa.table(data))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{type(data).__name__} could not be read through the Arrow interface: {error}") from None


def from_arrays(x: Any, extra: Mapping[str, Any], names: Sequence[str] | None = None) -> tuple[ArraySource, list[str]]:
    """X's columns under `names` or x0, x1, ...; beside them y, weights and offsets under their own names."""
    columns_of_x = list(names) if names is not None else [f"x{j}" for j in range(x.shape[1])]
    columns: dict[str, Any] = {name: x[:, j] for j, name in enumerate(columns_of_x)}
    for name, array in extra.items():
        if array.shape[0] != x.shape[0]:
            raise DesignError(f"{name} has {array.shape[0]} rows, X has {x.shape[0]}")
        if name in columns:
            raise DesignError(f'X has a column named "{name}", which is what {name}= is called here: rename it')
        columns[name] = array
    return ArraySource(columns, x.shape[0]), columns_of_x
