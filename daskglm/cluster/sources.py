"""Every kind of data a model can be fitted to, opened as leaves. Nothing is read yet but footers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from daskglm.cluster import schemas, tables, values
from daskglm.cluster.lakes import LeafTable, ParquetLake, lake_of, open_lake
from daskglm.cluster.tables import MATRIX
from daskglm.errors import DesignError

# How a formula sees a column of objects whose values nobody has looked at.
UNDECIDED = "unusable: of kind object, and its values have not been read: give it a kind, as frame.astype does"


class Reader(Protocol):
    """What decodes leaves, here or in another process."""

    def part(self, leaves: Sequence[Any]) -> Reader:
        """A reader of these leaves alone, fit to travel."""

    @property
    def ahead(self) -> int:
        """How many leaves are worth announcing before they are loaded."""

    def announce(self, leaf: Any) -> None:
        """The leaf will be loaded soon."""

    def load(self, leaf: Any) -> LeafTable:
        """Decode one leaf."""


class Source(Protocol):
    """Leaves that can be loaded: types of the columns, rows, and a selection settled before the first load.

    matrix_names: names of the columns of the sparse matrix that each leaf carries beside its table, where it does.
    """

    types: dict[str, pa.DataType]
    ordered: frozenset[str]
    categories: frozenset[str]
    leaves: list[Any]
    in_memory: bool
    local: bool
    pruned_rows: int
    matrix_names: tuple[str, ...]

    @property
    def witness(self) -> str | None:
        """A file that every process that reads this source must see; None where there is none to look for."""

    @property
    def fingerprint(self) -> str | None:
        """The same for the same rows, in any process; None where that cannot be known."""

    @property
    def n_rows(self) -> int | None:
        """Rows of all leaves; None where they are not known before they are read."""

    def row_bytes(self, columns: Sequence[str]) -> int:
        """About what a row takes once decoded."""

    def select(self, columns: Sequence[str], row_filter: Any = None, filter_columns: Sequence[str] = ()) -> None:
        """Settle what is read."""

    @property
    def reader(self) -> Reader:
        """How the leaves of the present selection are decoded."""


def open_source(data: Any) -> Source:
    """The source behind whatever a user passed as data."""
    if isinstance(data, (str, os.PathLike)):
        return open_lake(data)
    if isinstance(data, (list, tuple)) and data and all(isinstance(item, (str, os.PathLike)) for item in data):
        return open_lake(data)
    if isinstance(data, pa.Table):
        return tables.TableSource(data)
    if isinstance(data, pa.RecordBatch):
        return tables.TableSource(pa.Table.from_batches([data]))
    module = type(data).__module__.split(".")[0]
    if isinstance(data, pa.dataset.Dataset) if hasattr(pa, "dataset") else module == "pyarrow":
        return _dataset(data)
    if module == "pandas" and hasattr(data, "dtypes") and hasattr(data, "columns"):
        return tables.from_pandas(data)
    if module in ("dask", "dask_expr"):
        return _collection(data)
    if isinstance(data, dict):
        return tables.from_columns(data)
    if hasattr(data, "__arrow_c_stream__"):
        return tables.from_stream(data)
    tables.refuse_lazy(data)
    raise DesignError(
        f"data of type {type(data).__name__} cannot be read: pass a path, a list of paths, pandas, polars, "
        "a pyarrow Table or Dataset, or X= and y= arrays"
    )


def _collection(data: Any) -> Source:
    from daskglm.cluster import collections

    if not collections.is_collection(data) or not collections.is_frame(data):
        raise DesignError(
            f"a Dask {type(data).__name__} is no table: pass a Dask DataFrame, or arrays as X= and y= chunked along rows"
        )
    return collections.FrameSource(data)


def _dataset(data: Any) -> Source:
    from pyarrow import dataset as ds

    # a dataset that filters, or reads columns from its paths by a scheme of its own, is left to Arrow
    plain = not getattr(data, "_scan_options", None)
    if plain and isinstance(data, ds.FileSystemDataset) and isinstance(data.format, ds.ParquetFileFormat):
        return lake_of(sorted(data.files), data.filesystem)
    return tables.TableSource(data.to_table())


def largest(source: Source, columns: Sequence[str]) -> tuple[int, str]:
    """About the bytes of the largest partition once decoded, and where it is; 0 where its rows are not known."""
    leaf = max(source.leaves, key=lambda each: each.rows, default=None)
    if leaf is None or source.in_memory:
        return 0, ""
    place = f"{leaf.place} of {source.files[leaf.file].path}" if isinstance(source, ParquetLake) else "a partition"
    return leaf.rows * source.row_bytes(columns), place


def kinds(source: Source) -> dict[str, Any]:
    """How a formula sees each column: "numeric", "factor", a kind of time, the "matrix", or why it cannot be used."""
    undecided: frozenset[str] = getattr(source, "undecided", frozenset())
    found = {name: UNDECIDED if name in undecided else _kind(kind) for name, kind in source.types.items()}
    matrix = {MATRIX: "matrix"} if source.matrix_names else {}
    return {name: "factor" if name in source.categories else kind for name, kind in found.items()} | matrix


def _kind(kind: pa.DataType) -> str:
    intervals = (
        "of intervals, which are no labels: make it text, as astype(str) does" if values.is_interval(kind) else None
    )
    return schemas.kind_of(kind) or f"unusable: {values.reason_of(kind) or intervals or kind}"


def as_fitted(source: Source, fitted: Mapping[str, str]) -> Source:
    """The source, with columns of times read in the units that a model was fitted to.

    fitted: the kind of each column of the model. Dates and timestamps without a time zone are converted into each
    other, and timestamps with a time zone into the zone of the fit.
    """
    from daskglm.cluster import collections

    if isinstance(source, collections.FrameSource):
        source.decide_as({name: kind for name, was in fitted.items() if (kind := _arrow_of(was)) is not None})
    for name, now in kinds(source).items():
        was = fitted.get(name, now)
        if now == was or name not in source.types:
            continue
        kind = source.types[name]
        if {was, now} == {"date", "timestamp"}:
            source.types[name] = pa.date32() if was == "date" else pa.timestamp("us")
        elif was.startswith("timestamp[") and now.startswith("timestamp["):
            source.types[name] = pa.timestamp(kind.unit, was[len("timestamp[") : -1])
    return source


def _arrow_of(kind: str) -> pa.DataType | None:
    """An Arrow type that a formula sees as this kind."""
    plain = {"numeric": pa.float64(), "factor": pa.string(), "date": pa.date32(), "timestamp": pa.timestamp("us")}
    plain |= {"duration": pa.duration("us"), "time": pa.time64("us")}
    zone = kind[len("timestamp[") : -1] if kind.startswith("timestamp[") else None
    return pa.timestamp("us", zone) if zone else plain.get(kind)


def refuse_other_kinds(source: Source, fitted: Mapping[str, str], names: Iterable[str]) -> None:
    """A DesignError for the first of some columns that is of another kind than when the model was fitted."""
    found = kinds(source)
    for name in names:
        # a column without a single value has no kind
        empty = name in source.types and pa.types.is_null(source.types[name])
        if name in found and fitted.get(name, found[name]) != found[name] and not empty:
            raise DesignError(
                f'the column "{name}" was {fitted[name]} when the model was fitted and is {found[name]} now'
                f"{_conversion(name, fitted[name], found[name])}"
            )


def _conversion(name: str, was: str, now: str) -> str:
    """How pandas converts a column of times or of text into the times that a model was fitted to."""
    if was not in ("date", "duration", "time") and not was.startswith("timestamp"):
        return ""
    zone = was[len("timestamp[") : -1] if was.startswith("timestamp[") else None
    if now == "factor" and was in ("duration", "time"):
        return ", which is text: convert it"
    if now == "factor":
        aware = ", utc=True" if zone else ""
        return f", which is text: convert it, as pd.to_datetime({name}{aware}) does"
    if now.startswith("timestamp[") and was in ("date", "timestamp"):
        return f": take the zone away, as {name}.dt.tz_localize(None) does in pandas"
    if zone and now in ("date", "timestamp"):
        return f": give it its zone, as {name}.dt.tz_localize({zone!r}) does in pandas"
    return ""


def match_folders(source: Source, known: Mapping[str, Any]) -> None:
    """Read columns that names of folders carry as the kinds known of them, "numeric" or "factor".

    One folder alone does not tell whether the others have text, or whether they have a value.
    """
    for name, valued in getattr(source, "folder_columns", {}).items():
        if known.get(name) == "factor" and pa.types.is_integer(source.types[name]):
            source.types[name] = pa.string()
        elif known.get(name) == "numeric" and not valued:
            source.types[name] = pa.int64()
