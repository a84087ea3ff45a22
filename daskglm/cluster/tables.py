"""Data that are in memory already: Arrow tables, pandas, anything with the Arrow stream interface, NumPy arrays."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pyarrow as pa

from daskglm.cluster import schemas
from daskglm.cluster.lakes import LEAF_BYTES, LeafTable
from daskglm.cluster.values import arrow_of, is_interval, of_intervals
from daskglm.errors import DataError, DesignError

LEAF_ROWS = 131_072
# Rows of many numbers come in smaller leaves, so that there are leaves to share out; but a leaf is summed up in a number
# per pair of columns, which should not outweigh it.
LEAST_ROWS = 4_096
# What a sparse matrix is called in a formula.
MATRIX = "X"
_ROW = "row of the leaf"


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
        return _arrived, ({leaf: (_stream(t.table), replace(t, table=None)) for leaf, t in self.tables.items()},)


def _stream(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _arrived(parts: Mapping[RowLeaf, Any]) -> Ready:
    """What `Ready.__reduce__` sent."""
    return Ready(
        {
            leaf: replace(beside, table=pa.ipc.open_stream(stream).read_all(), resident=False)
            for leaf, (stream, beside) in parts.items()
        }
    )


class TableSource:
    """An Arrow table, cut into leaves of a fixed number of rows."""

    in_memory = True
    local = True
    ahead = 0
    pruned_rows = 0
    witness = None
    fingerprint = None
    matrix_names: tuple[str, ...] = ()
    # what messages call it, where it is not by its rows
    label = ""

    def __init__(self, table: pa.Table, ordered: frozenset[str] = frozenset()) -> None:
        names = table.column_names
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DesignError(f"the table has two columns named {sorted(twice)[0]!r}")
        for i, field in enumerate(table.schema):
            if is_interval(field.type):
                table = table.set_column(i, field.name, of_intervals(table.column(i)))
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
        label = self.label or (f"rows {leaf.start} to {leaf.stop - 1}" if leaf.rows else "the table")
        for i, name in enumerate(self._columns):
            kind = self.types[name]
            if pa.types.is_string_view(table.schema.field(i).type):
                table = table.set_column(i, name, table.column(i).cast(pa.large_string()))
            elif plain_differs(table.schema.field(i).type, kind):
                table = table.set_column(i, name, schemas.cast(table.column(i), kind, label, name))
        numbers = None
        if self._filter is not None:
            numbers = np.arange(leaf.start, leaf.start + table.num_rows)
            table, numbers = schemas.filtered_rows(table, self._filter, label, numbers)
        return LeafTable(table, label, leaf.rows, resident=True, first=leaf.start, numbers=numbers)


def plain_differs(stored: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a stored type needs a cast."""
    return bool(schemas.plain(stored) != kind)


def leaf_rows(row_bytes: float) -> int:
    """Rows of a leaf whose rows take so many bytes each: a power of two, fixed by the data, for it decides the bits."""
    wanted = int(min(LEAF_ROWS, max(LEAST_ROWS, LEAF_BYTES / max(row_bytes, 1.0))))
    return 1 << (wanted.bit_length() - 1)


def is_sparse(x: Any) -> bool:
    """Whether it is a matrix or array of scipy.sparse, which nobody can have without having imported it."""
    module = sys.modules.get("scipy.sparse")
    return module is not None and bool(module.issparse(x))


def plain_array(value: Any) -> Any:
    """An array, list or pandas object as a NumPy array with NaN (None among text) for masked entries and pandas' NA.

    A sparse matrix is returned as it is.
    """
    import pandas as pd

    if is_sparse(value):
        return value
    if isinstance(value, np.ma.MaskedArray):
        if not np.ma.is_masked(value):
            return value.data
        numbers = value.dtype.kind in "biuf"
        found = np.array(value.data, np.float64 if numbers else object)
        found[np.ma.getmaskarray(value)] = np.nan if numbers else None
        return found
    array = np.asarray(value)
    if array.dtype == object and isinstance(value, (pd.DataFrame, pd.Series)):
        try:
            return value.to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            return array
    return array


def as_csr(x: Any) -> Any:
    """A sparse matrix of any format as CSR, columns ascending and duplicates added up; the user's own is left as it is."""
    matrix = x.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy() if matrix is x else matrix
        matrix.sum_duplicates()
    return matrix


def csr_rows(matrix: Any, start: int, stop: int) -> Any:
    """The rows start .. stop - 1 of a CSR matrix in canonical form, whose entries are views."""
    first, last = int(matrix.indptr[start]), int(matrix.indptr[stop])
    # the constructor would copy what is a small part of something larger
    result = type(matrix)((stop - start, matrix.shape[1]), dtype=matrix.dtype)
    result.data, result.indices = matrix.data[first:last], matrix.indices[first:last]
    result.indptr = matrix.indptr[start : stop + 1] - matrix.indptr[start]
    result.has_canonical_format = True
    return result


def chunk_leaf(x: Any, others: Mapping[str, Any], names: Sequence[str], label: str) -> LeafTable:
    """One chunk of arrays as a leaf: x (m, p), NumPy or sparse, or None; others (m,) by name, at least one where x is None.

    The columns of a dense x are columns of the table under `names` (p,); a sparse one goes beside the table.
    """
    columns: dict[str, Any] = {}
    matrix = as_csr(x) if x is not None and is_sparse(x) else None
    if x is not None and matrix is None:
        # by columns in one sweep: taken one by one, each would read the whole chunk
        columns.update(zip(names, np.ascontiguousarray(np.asarray(x).T), strict=True))
    columns.update(others)
    rows = len(next(iter(others.values()))) if x is None else int(x.shape[0])
    # a table without columns knows its rows only if it once had one
    table = pa.table(
        {name: pa.array(np.ascontiguousarray(array)) for name, array in columns.items()} or {_ROW: pa.nulls(rows)}
    )
    return LeafTable(table.select(list(columns)), label, rows, resident=True, matrix=matrix)


class ArraySource(TableSource):
    """Arrays X (n, p), NumPy or sparse, y (n,) and others of the same length, turned into columns leaf by leaf."""

    def __init__(self, x: Any, others: Mapping[str, Any], names: Sequence[str]) -> None:
        self._x = as_csr(x) if is_sparse(x) else x
        self._others = dict(others)
        self._place = {} if is_sparse(x) else {name: j for j, name in enumerate(names)}
        self.matrix_names = tuple(names) if is_sparse(x) else ()
        self.types = {name: pa.from_numpy_dtype(x.dtype) for name in self._place}
        self.types |= {name: pa.from_numpy_dtype(array.dtype) for name, array in self._others.items()}
        self.ordered = frozenset()
        self.categories = frozenset()
        self.leaves = []
        self._columns = ()
        self._filter = None

    @property
    def n_rows(self) -> int:
        """Rows."""
        return int(self._x.shape[0])

    def row_bytes(self, columns: Sequence[str]) -> int:
        """About what a row takes once decoded."""
        plain = super().row_bytes([name for name in columns if name != MATRIX or not self.matrix_names])
        return plain + (self._matrix_bytes() if MATRIX in columns and self.matrix_names else 0)

    def _matrix_bytes(self) -> int:
        """Of the entries of an average row: a number and its column, and where the row ends."""
        return 8 + 12 * -(-int(self._x.nnz) // max(self.n_rows, 1))

    def select(self, columns: Sequence[str], row_filter: Any = None, filter_columns: Sequence[str] = ()) -> None:
        """Settle what is read."""
        self._columns = tuple(dict.fromkeys((*columns, *filter_columns)))
        self._filter = row_filter
        n, step = self.n_rows, leaf_rows(self.row_bytes(self._columns))
        self.leaves = [RowLeaf(start, min(start + step, n)) for start in range(0, max(n, 1), step)]

    def load(self, leaf: RowLeaf) -> LeafTable:
        """One leaf's columns, contiguous."""
        label = f"rows {leaf.start} to {leaf.stop - 1}"
        rows = slice(leaf.start, leaf.stop)
        others = {name: array[rows] for name, array in self._others.items() if name in self._columns}
        if self.matrix_names:
            part = chunk_leaf(csr_rows(self._x, leaf.start, leaf.stop), others, (), label)
            return filtered_leaf(replace(part, first=leaf.start), self._filter)
        names = [name for name in self._columns if name in self._place]
        at = [self._place[name] for name in names]
        x = self._x[rows] if at == list(range(self._x.shape[1])) else self._x[rows, at]
        return filtered_leaf(replace(chunk_leaf(x, others, names, label), first=leaf.start), self._filter)


def filtered_leaf(leaf: LeafTable, condition: Any) -> LeafTable:
    """The rows of table and matrix that pass an Arrow expression; all of them where there is none."""
    if condition is None:
        return leaf
    table, rows = schemas.filtered_rows(leaf.table, condition, leaf.label, np.arange(leaf.rows))
    matrix = None if leaf.matrix is None else leaf.matrix[rows]
    return replace(leaf, table=table, matrix=matrix, numbers=leaf.first + rows)


def from_pandas(frame: Any) -> TableSource:
    """A pandas DataFrame; categoricals keep their order."""
    import pandas as pd

    ordered = frozenset(str(n) for n, kind in frame.dtypes.items() if isinstance(kind, pd.CategoricalDtype))
    columns = {str(name): arrow_of(frame.iloc[:, position]) for position, name in enumerate(frame.columns)}
    if len(columns) < len(frame.columns):
        raise DesignError("two columns of the DataFrame have the same name")
    return TableSource(pa.table(columns), ordered)


def from_columns(data: Mapping[str, Any]) -> TableSource:
    """Columns by name: lists, arrays and Series, those of pandas paired by their index."""
    import pandas as pd

    ordered = frozenset(n for n, v in data.items() if isinstance(getattr(v, "dtype", None), pd.CategoricalDtype))
    columns = {str(name): _column_of(str(name), value) for name, value in paired(data).items()}
    lengths = {name: len(column) for name, column in columns.items()}
    other = next((name for name, n in lengths.items() if n != next(iter(lengths.values()))), None)
    if other is not None:
        first = next(iter(lengths))
        raise DesignError(f'the column "{other}" has {lengths[other]} rows, "{first}" has {lengths[first]}')
    return TableSource(pa.table(columns), ordered)


def _column_of(name: str, value: Any) -> Any:
    import pandas as pd

    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return value
    if isinstance(value, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        return arrow_of(pd.Series(value))
    if hasattr(value, "__arrow_c_stream__"):
        return pa.chunked_array(value)
    if np.ndim(value) != 1:
        raise DesignError(
            f'the column "{name}" has {np.ndim(value)} dimensions: a column has one, also of a single row'
        )
    array = plain_array(value) if isinstance(value, np.ma.MaskedArray) else value
    if isinstance(array, np.ndarray) and array.dtype.kind in "biuf":
        return pa.array(array)
    return arrow_of(pd.Series(array))


def like(data: Any, names: Sequence[Any], columns: Sequence[Any], single: bool) -> Any:
    """Numbers with one row for every row of data, as the kind of table that data are.

    names (m,), columns (m, n) floats; single: as one column by itself. pandas: a Series or DataFrame with the index of
    data; polars: a Series or DataFrame; pyarrow: an Array or Table. There, NaN is null. Other data: as pandas.
    """
    import pandas as pd

    library = type(data).__module__.split(".")[0]
    if library == "polars":
        polars = sys.modules["polars"]
        found = [
            polars.Series(str(name), np.asarray(c), nan_to_null=True) for name, c in zip(names, columns, strict=True)
        ]
        return found[0] if single else polars.DataFrame(found)
    if library == "pyarrow":
        arrays = [pa.array(np.ascontiguousarray(column), from_pandas=True) for column in columns]
        return arrays[0] if single else pa.table(arrays, names=[str(name) for name in names])
    rows = data.get("X") if isinstance(data, dict) else data
    index = rows.index if isinstance(rows, (pd.DataFrame, pd.Series)) else None
    if single:
        return pd.Series(np.asarray(columns[0]), index=index, name=names[0])
    frame = pd.DataFrame(dict(enumerate(columns)), index=index)
    return frame.set_axis(pd.Index(list(names), dtype=object if not len(names) else None), axis=1)


def from_stream(data: Any) -> TableSource:
    """Anything with the Arrow stream interface (polars, DuckDB, ...)."""
    try:
        return TableSource(pa.table(data))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{type(data).__name__} could not be read through the Arrow interface: {error}") from None


def column_names(data: Any) -> list[str] | None:
    """Names of the columns of a table in memory, None of any other data."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return [str(name) for name in data.columns]
    if isinstance(data, pa.Table):
        return list(data.column_names)
    refuse_lazy(data)
    return list(data.columns) if type(data).__module__.startswith("polars") and hasattr(data, "with_columns") else None


def refuse_lazy(data: Any) -> None:
    """A DesignError for a polars LazyFrame, which has no rows before it is collected."""
    if type(data).__module__.startswith("polars") and type(data).__name__ == "LazyFrame":
        raise DesignError("a polars LazyFrame cannot be read: collect() it first")


def has_rows(value: Any) -> bool:
    """Whether an option holds a value for each row, rather than a name, an expression or a number."""
    return not isinstance(value, (str, bytes)) and hasattr(value, "__len__") and getattr(value, "shape", None) != ()


def with_columns(data: Any, columns: Mapping[str, Any]) -> Any:
    """A table in memory with more columns; pandas objects are paired by their index, others by
    position.

    DesignError for a column of another length or of more than one dimension.
    """
    import pandas as pd

    _, *values = paired({"data": data, **columns}).values()
    found = {}
    for name, value in zip(columns, values, strict=True):
        column = value if hasattr(value, "to_arrow") else plain_array(value)
        if getattr(column, "ndim", 1) != 1:
            raise DesignError(f"{name.rstrip('_')}= must have one dimension, not {column.ndim}")
        if len(column) != len(data):
            raise DesignError(f"{name.rstrip('_')}= has {len(column)} values for {len(data)} rows")
        found[name] = column
    if isinstance(data, pd.DataFrame):
        return data.assign(**{name: np.asarray(column) for name, column in found.items()})
    table = data if isinstance(data, pa.Table) else data.to_arrow()
    for name, column in found.items():
        table = table.append_column(name, column.to_arrow() if hasattr(column, "to_arrow") else pa.array(column))
    return table


def paired(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name with every pandas object in the order of the first one's index; other values pair by position.

    DesignError where the labels of two indexes are not the same.
    """
    import pandas as pd

    indexed = {name: value for name, value in values.items() if isinstance(value, (pd.DataFrame, pd.Series))}
    result = dict(values)
    first = next(iter(indexed), "")
    for name, value in indexed.items():
        index, wanted = value.index, indexed[first].index
        # a different number of rows is an error of its own
        if index.equals(wanted) or len(index) != len(wanted):
            continue
        if not (index.is_unique and wanted.is_unique and index.isin(wanted).all()):
            raise DesignError(
                f"the index of {name} does not have the labels of the index of {first}, so rows cannot be paired: align them, "
                f"or pass {name}.to_numpy() to pair them by position"
            )
        result[name] = value.reindex(wanted)
    return result


def in_order(x: Any, names: Sequence[str]) -> Any:
    """X with its columns in the order of names (p,), by their labels where it is a DataFrame that has them."""
    labels = [str(label) for label in x.columns] if hasattr(x, "columns") else []
    if labels and set(names) <= set(labels):
        x = x.iloc[:, [labels.index(name) for name in names]]
    width = 1 if len(x.shape) == 1 else x.shape[1]
    if width != len(names):
        raise DesignError(f"the model needs {len(names)} columns, X has {width}")
    return x


def from_arrays(x: Any, others: Mapping[str, Any], names: Sequence[str] | None = None) -> tuple[ArraySource, list[str]]:
    """X's columns under `names` or x0, x1, ...; beside them y, weights and offsets under their own names."""
    columns_of_x = list(names) if names is not None else [f"x{j}" for j in range(x.shape[1])]
    twice = sorted({name for name in columns_of_x if columns_of_x.count(name) > 1}) if names is not None else []
    if twice:
        raise DesignError(f"two columns of X have the same name: {twice[0]!r}")
    taken = {MATRIX} if is_sparse(x) else set(columns_of_x)
    for name, array in others.items():
        if array.shape[0] != x.shape[0]:
            raise DesignError(f"{name} has {array.shape[0]} rows, X has {x.shape[0]}")
        if name in taken:
            raise DesignError(f'X has a column named "{name}", which is what {name}= is called here: rename it')
    return ArraySource(x, others, columns_of_x), columns_of_x
