"""Dask collections as sources: a partition of a DataFrame, or a chunk of rows of arrays, is a leaf, taken as it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow as pa

from daskglm.cluster import schemas, tables, values
from daskglm.cluster.lakes import LeafTable
from daskglm.cluster.tables import MATRIX, RowLeaf, chunk_leaf, is_sparse, plain_array
from daskglm.errors import DaskglmError, DataError, DesignError

# What Dask writes in the place of categories that it does not know yet.
UNKNOWN = "__UNKNOWN_CATEGORIES__"
# Guessed for an entry-rich sparse row: only memory is planned with it.
SPARSE_ROW_BYTES = 256


# Kinds of values that are read as one another once a model says which it was fitted to.
_ALIKE = {"text": "text", "dates": "times", "timestamps": "times", "durations": "durations", "times of day": "hours"}


@final
@dataclass(frozen=True)
class Part:
    """The number of a partition, and its rows where they are known (0 where not)."""

    number: int
    rows: int


def is_collection(value: Any) -> bool:
    """Whether it is a Dask DataFrame, Series or array: nothing is imported to find out."""
    return type(value).__module__.split(".")[0] in ("dask", "dask_expr") and hasattr(value, "__dask_graph__")


def is_array(value: Any) -> bool:
    """Whether a collection is an array."""
    # something delayed has every attribute
    return isinstance(getattr(value, "chunks", None), tuple)


def is_frame(value: Any) -> bool:
    """Whether a collection is a DataFrame: a Series has no columns, though Dask's says that it had."""
    return hasattr(getattr(value, "_meta", None), "columns")


def is_series(value: Any) -> bool:
    """Whether a collection is a Series."""
    return hasattr(getattr(value, "_meta", None), "to_frame") and not is_frame(value)


# -- one partition to a leaf, on whatever worker holds it ----------------------------------------------------------------


@final
@dataclass(frozen=True)
class FrameToLeaf:
    """A pandas partition's columns, cast to the types of the whole, rows filtered.

    by_value: columns of objects, whose values must be of the kind of their type; without a type they are as found.
    categories: those that the DataFrame's meta knows, in its order, which every partition takes.
    """

    columns: tuple[str, ...]
    types: Mapping[str, pa.DataType]
    filter: Any
    filter_columns: tuple[str, ...]
    by_value: tuple[str, ...] = ()
    categories: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def place(self, number: int) -> str:
        """What messages call a partition."""
        return f"partition {number} of the DataFrame"

    def __call__(self, number: int, parts: Sequence[Any]) -> LeafTable:
        """The leaf of partition `number`; parts: the partition alone."""
        (frame,) = parts
        label = self.place(number)
        wanted = list(dict.fromkeys((*self.columns, *self.filter_columns)))
        for name in wanted:
            if name not in frame.columns:
                raise DataError(f'{label} has no column "{name}", which the DataFrame\'s meta has')
        frame = frame[wanted]
        ordered = {name: _in_order(frame[name], known) for name, known in self.categories.items()}
        table = tables.from_pandas(frame.assign(**ordered) if ordered else frame)
        for name in self.by_value:
            self._check_values(name, table.types[name], label)
        table.types = {**table.types, **{name: self.types[name] for name in wanted if name in self.types}}
        table.label = label
        table.select(wanted, self.filter)
        leaf = table.load(RowLeaf(0, len(frame)))
        kept = leaf.table.select(list(self.columns)) if self.columns else leaf.table
        return replace(leaf, table=kept, origin=label)

    def _check_values(self, name: str, found: pa.DataType, label: str) -> None:
        """Refuse objects that are something else than the column holds elsewhere."""
        wanted = self.types.get(name)
        if wanted is None or pa.types.is_null(wanted) or pa.types.is_null(found):
            return
        reason = values.reason_of(found)
        if reason is not None:
            raise DataError(f'{label}: the column "{name}" cannot be used, it is {reason}')
        if _ALIKE.get(values.words_of(found), "numbers") != _ALIKE.get(values.words_of(wanted), "numbers"):
            raise DataError(
                f'{label}: the column "{name}" holds {values.words_of(found)}, and {values.words_of(wanted)} elsewhere'
            )


@final
@dataclass(frozen=True)
class Seen:
    """The Arrow types of columns of objects in the partitions, in order of appearance, each with where it was first."""

    types: Mapping[str, tuple[tuple[pa.DataType, str], ...]]

    def __add__(self, other: Seen) -> Seen:
        return Seen({name: _distinct((*seen, *other.types[name])) for name, seen in self.types.items()})


def _distinct(seen: Sequence[tuple[pa.DataType, str]]) -> tuple[tuple[pa.DataType, str], ...]:
    first: dict[pa.DataType, str] = {}
    for kind, label in seen:
        first.setdefault(kind, label)
    return tuple(first.items())


def seen_in(leaf: LeafTable) -> Seen:
    """The types of the columns of one partition, without those that have no value."""
    fields = {field.name: schemas.plain(field.type) for field in leaf.table.schema}
    return Seen({name: () if pa.types.is_null(kind) else ((kind, leaf.label),) for name, kind in fields.items()})


def _in_order(column: Any, known: tuple[Any, ...]) -> Any:
    """A column with these categories in this order; what a partition has beside them comes after them."""
    there = set(known)
    if isinstance(column.dtype, pd.CategoricalDtype):
        more = [value for value in column.cat.categories if value not in there]
        # a cast to the same categories in another order would change nothing
        return column.cat.set_categories([*known, *more])
    more = [value for value in pd.unique(column.dropna()) if value not in there]
    return column.astype(pd.CategoricalDtype([*known, *more]))


@final
@dataclass(frozen=True)
class ChunksToLeaf:
    """A chunk of X, NumPy, pandas or sparse, and the chunks of y and others beside it."""

    names: tuple[str, ...]
    others: tuple[str, ...]
    sparse: bool
    columns: tuple[str, ...]
    filter: Any

    def place(self, number: int) -> str:
        """What messages call a chunk and those beside it."""
        return f"chunk {number} of X, or of what goes with it,"

    def __call__(self, number: int, parts: Sequence[Any]) -> LeafTable:
        """The leaf of chunk `number`; parts: the chunk of X and those of the others, in order."""
        label = f"chunk {number} of X"
        x, *rest = _paired(parts, self.others, number)
        x = _plain(x, label)
        if getattr(x, "ndim", 2) == 1:
            x = x.reshape(-1, 1)
        if is_sparse(x) and not self.sparse:
            raise DataError(
                f"{label} is a {type(x).__name__}, which the array's meta does not say: X.map_blocks(scipy.sparse.csr_array) "
                "makes it a format that Dask keeps track of"
            )
        if self.sparse and not is_sparse(x):
            raise DataError(f"{label} is dense, which the array's meta does not say: give map_blocks(..., meta=)")
        others: dict[str, Any] = {}
        for name, part in zip(self.others, rest, strict=True):
            array = _plain(part, f"chunk {number} of {name}")
            array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
            if array.ndim != 1:
                raise DesignError(f"{name} must have one dimension, not {array.ndim}")
            if array.shape[0] != x.shape[0]:
                raise DataError(
                    f"chunk {number}: X has {x.shape[0]} rows and {name} {array.shape[0]}: chunk them alike"
                )
            others[name] = array
        if x.shape[1] != len(self.names):
            raise DataError(f"{label} has {x.shape[1]} columns, X {len(self.names)}")
        leaf = replace(chunk_leaf(x, others, self.names, label), origin=label)
        return tables.filtered_leaf(leaf, self.filter)


def _paired(parts: Sequence[Any], others: Sequence[str], number: int) -> list[Any]:
    """The chunks of one number, those of pandas in the order of the first one's index."""
    try:
        return list(tables.paired(dict(zip(("X", *others), parts, strict=True))).values())
    except DesignError as error:
        raise DataError(f"chunk {number}: {error}") from None


def _plain(part: Any, label: str) -> Any:
    """A chunk as NumPy, pandas' own kinds of numbers among them, or as it is where it is sparse."""
    values = plain_array(part)
    if values.dtype == object and hasattr(part, "to_numpy"):
        raise DataError(f"{label} is no chunk of numbers: it holds other values, too")
    if values.dtype.kind not in "biuf":
        raise DataError(f"{label} is of {values.dtype}, not of numbers as the collection's meta says")
    return values


def uncomputed(place: str, error: BaseException) -> DataError:
    """The error of one of the user's own tasks, told with the place."""
    said = " ".join(str(error).split())[:300]
    return DataError(f"{place} could not be computed: {type(error).__name__}{said and ': '}{said}")


# -- sources -------------------------------------------------------------------------------------------------------------


class CollectionSource:
    """What a DataFrame and arrays have in common: delayed partitions, and how one becomes a leaf."""

    in_memory = False
    local = True
    ahead = 0
    pruned_rows = 0
    witness = None
    fingerprint = None
    ordered: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    matrix_names: tuple[str, ...] = ()

    def __init__(self, types: Mapping[str, pa.DataType]) -> None:
        self.types: dict[str, pa.DataType] = dict(types)
        self.leaves: list[Part] = []
        self._delayed: list[tuple[Any, ...]] = []
        self.converter: FrameToLeaf | ChunksToLeaf | None = None

    @property
    def n_rows(self) -> int | None:
        """Rows, where every partition's are known."""
        counts = [leaf.rows for leaf in self.leaves]
        return sum(counts) if all(counts) else None

    def row_bytes(self, columns: Sequence[str]) -> int:
        """About what a row takes once decoded."""
        known = [name for name in columns if name in self.types]
        return sum(schemas.kept_bytes(self.types[n]) for n in known) + (SPARSE_ROW_BYTES if self.matrix_names else 0)

    def chunks(self, client: Any) -> list[list[Any]]:
        """Futures of every leaf's parts on a cluster, computed by Dask as the collection says."""
        flat = [part for parts in self._delayed for part in parts]
        futures = iter(client.compute(flat))
        return [[next(futures) for _ in parts] for parts in self._delayed]

    @property
    def reader(self) -> CollectionSource:
        """Itself, in this process."""
        return self

    def part(self, leaves: Sequence[Part]) -> CollectionSource:
        """A collection travels by its graph, never as rows."""
        raise DesignError("a Dask collection is read by the cluster whose client is active")

    def announce(self, leaf: Part) -> None:
        """Nothing to prepare."""

    def load(self, leaf: Part) -> LeafTable:
        """Compute one partition in this thread."""
        import dask

        assert self.converter is not None
        try:
            parts = dask.compute(*self._delayed[leaf.number], scheduler="synchronous")
        except DaskglmError:
            raise
        except Exception as error:
            raise uncomputed(self.converter.place(leaf.number), error) from error
        return self.converter(leaf.number, parts)


@final
class FrameSource(CollectionSource):
    """A Dask DataFrame; its partitions are the leaves."""

    def __init__(self, frame: Any) -> None:
        meta = _example(frame)
        twice = sorted({str(name) for name in meta.columns if list(meta.columns).count(name) > 1})
        if twice:
            raise DesignError(f"two columns of the DataFrame have the same name: {twice[0]!r}")
        super().__init__(tables.from_pandas(meta).types)
        # the example that Dask has of a column of objects says nothing of their kind: their values decide
        self.objects = frozenset(str(name) for name, kind in meta.dtypes.items() if kind == np.dtype(object))
        self.undecided = self.objects
        self.types |= {name: pa.null() for name in self.objects}
        self.types |= {str(n): pa.string() for n, kind in meta.dtypes.items() if isinstance(kind, pd.IntervalDtype)}
        self._frame = frame.rename(columns=str) if any(not isinstance(name, str) for name in meta.columns) else frame
        factors = {str(n): kind for n, kind in meta.dtypes.items() if isinstance(kind, pd.CategoricalDtype)}
        self.categories = frozenset(factors)
        # categories that are known come in their order; unknown ones differ between partitions, and are sorted. What
        # Dask reads from Parquet it declares known, and empty
        declared = {n: list(frame._meta[_own(frame, n)].cat.categories) for n in factors}
        self.ordered = frozenset(n for n, found in declared.items() if found and UNKNOWN not in found)
        self._known = {name: tuple(declared[name]) for name in self.ordered}
        for name in self.categories - self.ordered:
            self.types[name] = pa.string()

    def select(self, columns: Sequence[str], row_filter: Any = None, filter_columns: Sequence[str] = ()) -> None:
        """Settle what is read; what is not needed is not computed, where the partitions stay as they are."""
        wanted = list(dict.fromkeys((*columns, *filter_columns)))
        delayed = (_projected(self._frame, wanted) if wanted else self._frame).to_delayed()
        if len(delayed) != self._frame.npartitions:
            # the optimiser would join partitions
            delayed = self._frame.to_delayed(optimize_graph=False)
        self._delayed = [(part,) for part in delayed]
        self.leaves = [Part(number, 0) for number in range(len(delayed))]
        types = {name: self.types[name] for name in wanted if name not in self.undecided}
        by_value = tuple(name for name in wanted if name in self.objects)
        known = {name: self._known[name] for name in wanted if name in self._known}
        self.converter = FrameToLeaf(tuple(columns), types, row_filter, tuple(filter_columns), by_value, known)

    def decide(self, seen: Seen) -> None:
        """Give columns of objects the type of their values; of a mixture the reason why it cannot be used."""
        for name, found in seen.types.items():
            self.types[name] = _decided(name, found)
        self.undecided -= set(seen.types)

    def decide_as(self, types: Mapping[str, pa.DataType]) -> None:
        """Take columns of objects for what a model was fitted to; each partition is checked when it is read."""
        known = {name: kind for name, kind in types.items() if name in self.undecided}
        self.types |= known
        self.undecided -= set(known)


def _decided(name: str, found: Sequence[tuple[pa.DataType, str]]) -> pa.DataType:
    """The one type that the values of all partitions have."""
    for kind, label in found:
        reason = values.reason_of(kind)
        if reason is not None:
            return values.unusable(f"{reason} of {label}", 0).type
        first, place = found[0]
        one, other = values.words_of(first), values.words_of(kind)
        if one != other:
            return values.unusable(f"a mixture of {one} ({place}) and {other} ({label})", 0).type
    return schemas.unified(found, name) if found else pa.null()


def _example(frame: Any) -> Any:
    """Rows as a frame has them, of Dask's making; none where Dask cannot make them, as of intervals."""
    try:
        return frame._meta_nonempty
    except (TypeError, ValueError):
        return frame._meta


def _projected(frame: Any, wanted: Sequence[str]) -> Any:
    """These columns: Dask reads no others where it can; where it cannot, a partition that lacks one is told by us."""
    names = list(wanted)
    found = frame[names]
    if type(found.expr.simplify()).__name__ != "Projection":
        return found
    return frame.map_partitions(ThoseThere(tuple(names)), meta=frame._meta[names], enforce_metadata=False)


@final
@dataclass(frozen=True)
class ThoseThere:
    """Some columns of a partition, as far as it has them."""

    columns: tuple[str, ...]
    __name__ = "columns"

    def __call__(self, frame: Any) -> Any:
        return frame[[name for name in self.columns if name in frame.columns]]


def _own(frame: Any, name: str) -> Any:
    """A column's name as the frame has it, which need not be text."""
    return next(column for column in frame.columns if str(column) == name)


@final
class ChunkSource(CollectionSource):
    """X (n, p) chunked along rows, and y, weights and offsets (n,) chunked alike; p names of columns."""

    def __init__(self, x: Any, others: Mapping[str, Any], names: Sequence[str]) -> None:
        meta = x._meta
        self._sparse = is_sparse(meta)
        frame = hasattr(x, "dtypes") and not is_array(x)
        kinds = [x.dtypes.iloc[j] for j in range(len(names))] if frame else [x.dtype] * len(names)
        types = {n: _arrow(kind, f'"{n}"' if frame else "X") for n, kind in zip(names, kinds, strict=True)}
        super().__init__(
            ({} if self._sparse else types) | {name: _arrow(array.dtype, name) for name, array in others.items()}
        )
        self._names, self._others = tuple(names), tuple(others)
        self.matrix_names = tuple(names) if self._sparse else ()
        blocks = [_blocks(x), *(_blocks(array) for array in others.values())]
        for name, found in zip(others, blocks[1:], strict=True):
            if len(found) != len(blocks[0]):
                raise DesignError(f"X has {len(blocks[0])} chunks of rows and {name} {len(found)}: rechunk them alike")
        self._all = [tuple(parts) for parts in zip(*blocks, strict=True)]
        self._sizes = _sizes(x, len(self._all))

    def select(self, columns: Sequence[str], row_filter: Any = None, filter_columns: Sequence[str] = ()) -> None:
        """Settle what is read."""
        if row_filter is not None and self._sparse:
            raise DesignError("where= is for tables: leave rows of a sparse X out before they come here")
        self._delayed = self._all
        self.leaves = [Part(number, rows) for number, rows in enumerate(self._sizes)]
        self.converter = ChunksToLeaf(self._names, self._others, self._sparse, tuple(columns), row_filter)


def _arrow(kind: Any, name: str) -> pa.DataType:
    if getattr(kind, "kind", "O") not in "biuf":
        raise DesignError(f"{name} must be numbers, not {kind}: for other columns write a formula")
    return pa.from_numpy_dtype(np.dtype(getattr(kind, "numpy_dtype", kind)))


def _blocks(value: Any) -> list[Any]:
    """The delayed parts of a collection, in the order of its rows."""
    delayed = value.to_delayed()
    return list(np.asarray(delayed, object).ravel()) if is_array(value) else list(delayed)


def _sizes(x: Any, parts: int) -> list[int]:
    if not is_array(x):
        return [0] * parts
    return [0 if np.isnan(size) else int(size) for size in x.chunks[0]]


def open_chunks(x: Any, others: Mapping[str, Any]) -> tuple[ChunkSource, list[str]]:
    """X and what goes with it, chunked alike: known sizes are rechunked to X's, unknown ones must have as many chunks."""
    if not is_collection(x):
        rows = {name: array for name, array in others.items() if is_collection(array)}
        raise DesignError(
            f"{next(iter(rows))} is a Dask collection and X is not: make X one, or compute {next(iter(rows))}"
        )
    if is_array(x):
        if x.ndim == 1:
            x = x.reshape((-1, 1)) if not np.isnan(x.shape[0]) else x[:, None]
        if x.ndim != 2:
            raise DesignError(f"X must have two dimensions, not {x.ndim}")
        if np.isnan(x.shape[1]):
            raise DesignError("the number of X's columns is not known: compute_chunk_sizes() finds it")
        if x.numblocks[1] > 1:
            x = x.rechunk({1: -1})
        names = [f"x{j}" for j in range(x.shape[1])]
    elif is_frame(x):
        names = [str(name) for name in x.columns]
    elif is_series(x):
        x = x.to_frame()
        names = [str(name) for name in x.columns]
    else:
        raise DesignError(f"X= takes a Dask array or DataFrame, not {type(x).__name__}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DesignError(f"two columns of X have the same name: {twice[0]!r}")
    aligned = {name: _alike(array, x, name) for name, array in others.items()}
    for name in aligned:
        if name in names and not is_sparse(x._meta):
            raise DesignError(f'X has a column named "{name}", which is what {name}= is called here: rename it')
    if is_sparse(x._meta) and MATRIX in aligned:
        raise DesignError(f'"{MATRIX}" is what the matrix is called here')
    return ChunkSource(x, aligned, names), names


def _alike(array: Any, x: Any, name: str) -> Any:
    """An array chunked as X is."""
    if not is_collection(array):
        plain = plain_array(array)
        if plain.ndim == 0 or plain.dtype.kind not in "biuf":
            raise DesignError(f"with X= and y=, {name} must be an array of numbers of one dimension")
        _one_dimension(plain, name)
        if not is_array(x) or np.isnan(x.shape[0]):
            way = ", or call X.compute_chunk_sizes()" if is_array(x) else ""
            raise DesignError(
                f"{name} is in memory and the sizes of X's chunks are not known: make it a Dask collection chunked as X{way}"
            )
        import dask.array as da

        if plain.shape[0] != x.shape[0]:
            raise DesignError(f"{name} has {plain.shape[0]} rows, X has {x.shape[0]}")
        return da.from_array(plain, chunks=(x.chunks[0], *plain.shape[1:]))
    if not is_array(array) and not is_series(array):
        raise DesignError(f"{name}= takes a Dask array or Series, not {type(array).__name__}")
    if is_array(array):
        _one_dimension(array, name)
    if is_array(array) and is_array(x) and array.chunks[0] != x.chunks[0]:
        unknown = np.isnan(array.shape[0]) or np.isnan(x.shape[0])
        if not unknown:
            if array.shape[0] != x.shape[0]:
                raise DesignError(f"{name} has {array.shape[0]} rows, X has {x.shape[0]}")
            return array.rechunk({0: x.chunks[0]})
        if array.numblocks[0] != x.numblocks[0]:
            raise DesignError(
                f"X has {x.numblocks[0]} chunks of rows and {name} {array.numblocks[0]}, of unknown sizes: call "
                "compute_chunk_sizes() on both, or rechunk them alike"
            )
    return array


def _one_dimension(array: Any, name: str) -> None:
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise DesignError(f"{name} must have one dimension, not {array.ndim}")


# -- predictions, lazily -------------------------------------------------------------------------------------------------


def beside(data: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    """Dask arrays or Series (n,) that go with an array X of n rows, as columns (n, 1) chunked as X is."""
    found = {}
    for name, value in others.items():
        if not is_array(data):
            raise DesignError(
                f"beside a Dask DataFrame, {name}= is a number, or a column of it: frame.assign({name}=...) adds one"
            )
        if not is_collection(value):
            raise DesignError(
                f"beside a Dask array, {name}= is a number, or a Dask array chunked as X is, not {type(value).__name__}: "
                f"da.from_array({name}, chunks=X.chunks[0])"
            )
        array = _alike(value, data, name)
        array = array.to_dask_array() if is_series(array) else array
        _arrow(array.dtype, name)
        found[name] = array[:, None] if array.ndim == 1 else array
    return found


def mapped(
    data: Any, function: Callable[..., Any], columns: Sequence[Any], name: Any, others: Sequence[Any] = ()
) -> Any:
    """function of each partition, as the same kind of collection: nothing is computed.

    function: a pandas partition, or a NumPy chunk and those of others (n, 1), to an array (m, len(columns)); name: of the
    Series, None for a DataFrame. The function, which holds a model, is the result of a task of its own: it travels once to
    each worker, and not with every partition.
    """
    from dask import delayed

    once = delayed(function, pure=True, traverse=False)
    if not is_array(data):
        if not _frames_resolve_tasks():
            once = function
        meta: Any = (
            pd.Series(np.zeros(0), name=name) if name is not None else pd.DataFrame({c: np.zeros(0) for c in columns})
        )
        meta.index = data._meta.index[:0]
        return data.map_partitions(FramePart(tuple(columns), name), once, meta=meta)
    x = data[:, None] if data.ndim == 1 else data
    x = x if x.numblocks[1] == 1 else x.rechunk({1: -1})
    if name is not None:
        return x.map_blocks(ArrayPart(True), *others, function=once, dtype=np.float64, drop_axis=1, meta=np.zeros(0))
    return x.map_blocks(
        ArrayPart(False), *others, function=once, dtype=np.float64, chunks=(x.chunks[0], (len(columns),)),
        meta=np.zeros((0, 0)),
    )  # fmt: skip


def _frames_resolve_tasks() -> bool:
    """Whether map_partitions of a frame gives a task's result to the function: Dask 2025.5.1 and later."""
    import dask

    numbers = [int(part) for part in dask.__version__.split(".")[:3] if part.isdigit()]
    return numbers >= [2025, 5, 1]


@final
@dataclass(frozen=True)
class FramePart:
    """Results beside the index of their partition."""

    columns: tuple[Any, ...]
    name: Any
    # what Dask calls the task
    __name__ = "predict"

    def __call__(self, frame: Any, function: Callable[[Any], Any]) -> Any:
        values = function(frame)
        if self.name is not None:
            return pd.Series(values[:, 0], index=frame.index, name=self.name)
        return pd.DataFrame(values, index=frame.index, columns=list(self.columns))


@final
@dataclass(frozen=True)
class ArrayPart:
    """Results of a chunk, (m,) or (m, k)."""

    flat: bool
    __name__ = "predict"

    def __call__(self, chunk: Any, *others: Any, function: Callable[..., Any]) -> Any:
        values = function(chunk, *others)
        return values[:, 0] if self.flat else values
