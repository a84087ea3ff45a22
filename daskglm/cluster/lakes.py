"""A Parquet lake: files listed, footers read, leaves planned; nothing is decoded before it is needed, nothing twice.

A leaf is a run of row groups of one file, fixed by the files alone. What a footer said is remembered and checked at every
load: a file that changed in between is named instead of being mixed with what was read before.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from daskglm.cluster import schemas
from daskglm.cluster.stores import SUFFIXES, ArrowStore, Entry, Range, Store, changed, concurrency, footer_size
from daskglm.errors import DaskglmError, DataError, DesignError

LEAF_BYTES = 64 << 20
_WILD = re.compile(r"[*?\[]")
_FILTER = re.compile(r"[<>]|\s!?=\s|\sis\s+(not\s+)?null", re.IGNORECASE)
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@final
@dataclass(frozen=True)
class LeafTable:
    """One leaf decoded: the table, a label for messages, how many rows the source held before any filter, and whether
    the table lies in the user's memory anyway, so that its buffers may be held on to. matrix: a scipy CSR matrix or array
    whose rows are those of the table, which may have no columns.

    origin: the file of the rows by its place in the lake, however the path of the lake is spelled, or "" for a table;
    first: the number of the leaf's first row in it; numbers (n,): those of the rows that passed a filter, None without one.
    """

    table: pa.Table
    label: str
    rows: int
    resident: bool = False
    matrix: Any = None
    origin: str = ""
    first: int = 0
    numbers: Any = None

    def numbers_of(self, place: Any) -> Any:
        """Numbers in the file or table (m,) of the leaf's rows at some places (m,)."""
        return self.first + place if self.numbers is None else self.numbers[place]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        matrix = self.matrix
        beside = 0 if matrix is None else matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
        return int(self.table.nbytes + beside)


@final
@dataclass(frozen=True)
class Shape:
    """What files have in common: the schema, and which column chunks of a row group belong to each of its columns."""

    schema: pa.Schema
    chunks: Mapping[str, tuple[int, ...]]


@final
@dataclass(frozen=True)
class File:
    """A file as planned: its footer, what identifies it, rows of its row groups, and the values its
    folders carry; folders: those folders of the lake, "year=2024/month=1"; origin: its path within the lake.
    """

    path: str
    size: int
    tag: str
    metadata: pq.FileMetaData
    digest: bytes
    shape: Shape
    rows: tuple[int, ...]
    partition: Mapping[str, str | None]
    folders: str = ""
    origin: str = ""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of its footer."""
        return self.shape.schema

    @property
    def entry(self) -> Entry:
        """As it was listed."""
        return Entry(self.path, self.size, self.tag)


@final
@dataclass(frozen=True)
class ParquetLeaf:
    """Row groups of one file; rows counts them before any filter."""

    file: int
    row_groups: tuple[int, ...]
    rows: int

    @property
    def place(self) -> str:
        """Which part of its file it is, in words."""
        first, last = self.row_groups[0], self.row_groups[-1]
        return f"row group {first}" if first == last else f"row groups {first} to {last}"


@final
@dataclass(frozen=True)
class LakeReader:
    """How leaves are decoded, apart from the lake: all that a process elsewhere needs to read them.

    files: those that the leaves lie in, by their number; types: of the columns read.
    """

    store: Store
    files: Mapping[int, File]
    types: Mapping[str, pa.DataType]
    columns: tuple[str, ...]
    filter: Any
    filter_columns: tuple[str, ...]

    @property
    def local(self) -> bool:
        """Whether the files lie on a disk, so that reading ahead is the operating system's business."""
        return self.store.local

    @property
    def ahead(self) -> int:
        """How many leaves are worth announcing before they are loaded."""
        return self.store.ahead

    def part(self, leaves: Sequence[ParquetLeaf]) -> LakeReader:
        """The reader of a few leaves, with their files alone."""
        files = {leaf.file: self.files[leaf.file] for leaf in leaves}
        if self.local:
            # another process stands in another folder
            files = {number: replace(file, path=os.path.abspath(file.path)) for number, file in files.items()}
        return replace(self, files=files)

    def load(self, leaf: ParquetLeaf) -> LeafTable:
        """Decode one leaf. DataError names a corrupt file; ChangedInputError one that is not as it was planned."""
        file = self.files[leaf.file]
        label = f"{file.path} ({leaf.place})" if len(file.path) else "the file"
        stored, schema = self._stored(file), file.schema
        for name in stored:
            if name not in schema.names:
                raise DataError(f'{file.path} has no column "{name}", which other files of the lake have')
        texts = [n for n in stored if pa.types.is_string(self.types[n]) and not _nested(schema.field(n).type)]
        try:
            with self.store.reading(file.entry, self._ranges(leaf)) as handle:
                if not self.store.conditional:
                    _check_footer(file, handle)
                # from a disk, and from pieces that are here already
                one_by_one = self.local or self.store.conditional
                reader = pq.ParquetFile(
                    handle, metadata=file.metadata, read_dictionary=texts, pre_buffer=not one_by_one,
                    page_checksum_verification=True,
                )  # fmt: skip
                table = _decoded(reader, leaf.row_groups, stored, one_by_one)
        except DaskglmError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{label} cannot be decoded, the file is corrupt: {_one_line(error)}") from None
        first = sum(file.rows[: leaf.row_groups[0]])
        finished, numbers = self._finished(table, file, leaf, label)
        return LeafTable(finished, label, leaf.rows, origin=file.origin, first=first, numbers=numbers)

    def announce(self, leaf: ParquetLeaf) -> None:
        """Tell the store what will be read soon."""
        self.store.expect(self.files[leaf.file].entry, self._ranges(leaf))

    def _stored(self, file: File) -> list[str]:
        return [c for c in dict.fromkeys((*self.columns, *self.filter_columns)) if c not in file.partition]

    def _ranges(self, leaf: ParquetLeaf) -> list[Range]:
        """Where the leaf's columns are in its file."""
        file = self.files[leaf.file]
        chunks = [chunk for name in self._stored(file) for chunk in file.shape.chunks.get(name, ())]
        found = []
        for index in leaf.row_groups:
            group = file.metadata.row_group(index)
            for chunk in chunks:
                column = group.column(chunk)
                start, dictionary = column.data_page_offset, column.dictionary_page_offset
                if dictionary and dictionary < start:
                    start = dictionary
                found.append((start, start + column.total_compressed_size))
        return found

    def _finished(self, table: pa.Table, file: File, leaf: ParquetLeaf, label: str) -> tuple[pa.Table, Any]:
        """The columns asked for of the rows that pass, and the numbers of these rows in their file (n,)."""
        wanted = list(dict.fromkeys((*self.columns, *self.filter_columns)))
        columns = []
        for name in wanted:
            if name in file.partition:
                columns.append(_repeated(file.partition[name], self.types[name], table.num_rows))
            else:
                columns.append(schemas.cast(table.column(name), self.types[name], label, name))
        # a table without columns would forget how many rows it has
        result = pa.table(dict(zip(wanted, columns, strict=True))) if wanted else table
        numbers = None
        if self.filter is not None:
            result, numbers = schemas.filtered_rows(result, self.filter, label, _row_numbers(file, leaf))
        return (result.select(list(self.columns)) if self.columns else result), numbers


class ParquetLake:
    """Files of one shape, read by column and by row group."""

    in_memory = False
    matrix_names: tuple[str, ...] = ()

    def __init__(self, entries: Sequence[Entry], store: Store, base: str | None) -> None:
        self.store = store
        self.local = store.local
        self._own = {} if base is None else _own_partition(base, store.local)
        self._root = _root(entries, base, store.local)
        self._shapes = _Shapes()
        self.files: list[File] = list(store.footers(entries, lambda entry, tail: self._plan(entry, tail, base)))
        self.conflicts: dict[str, str] = {}
        # columns that names of folders carry, and whether any of them has a value
        self.folder_columns: dict[str, bool] = {}
        # the first file of each shape: what it has, the others have
        shapes = list({id(file.shape): file for file in reversed(self.files)}.values())[::-1]
        self.types = self._types(shapes)
        first = self.files[0].schema
        self.ordered = frozenset(
            field.name for field in first if pa.types.is_dictionary(field.type) and field.type.ordered
        )
        self.categories = frozenset(
            field.name
            for field in first
            if all(
                pa.types.is_dictionary(other.type)
                for file in shapes
                for other in file.schema
                if other.name == field.name
            )
        )
        self.leaves: list[ParquetLeaf] = []
        self._columns: tuple[str, ...] = ()
        self._filter: Any = None
        self._filter_columns: tuple[str, ...] = ()
        self._reader: LakeReader | None = None
        self.pruned_rows = 0

    @property
    def witness(self) -> str | None:
        """The first file of a lake on disk."""
        return os.path.abspath(self.files[0].path) if self.local else None

    @property
    def fingerprint(self) -> str:
        """Of the files: names, sizes, times or ETags, and footers."""
        state = hashlib.sha256()
        for file in self.files:
            path = os.path.abspath(file.path) if self.local else file.path
            state.update(repr((path, file.size, file.tag, file.digest)).encode())
        return state.hexdigest()

    @property
    def n_rows(self) -> int:
        """Rows of all leaves, from footers."""
        return sum(leaf.rows for leaf in self.leaves)

    def row_bytes(self, columns: Sequence[str]) -> int:
        """About what a row takes once decoded."""
        return sum(schemas.kept_bytes(self.types[name]) for name in columns)

    def select(self, columns: Sequence[str], row_filter: Any = None, filter_columns: Sequence[str] = ()) -> None:
        """Settle what is read: these columns, of rows that pass an Arrow expression; plan the leaves for it."""
        for name in (*columns, *filter_columns):
            if name in self.conflicts:
                raise DataError(self.conflicts[name])
        self._columns, self._filter, self._filter_columns = tuple(columns), row_filter, tuple(filter_columns)
        self.leaves, self.pruned_rows, self._reader = [], 0, None
        width = max(self.row_bytes({*columns, *filter_columns} & set(self.types)), 1)  # type: ignore[arg-type]
        surviving = self._surviving()
        for index, (file, groups) in enumerate(zip(self.files, surviving, strict=True)):
            self.pruned_rows += file.metadata.num_rows - sum(file.rows[group] for group in groups)
            run: list[int] = []
            rows = 0
            for group in groups:
                n = file.rows[group]
                if run and (rows + n) * width > LEAF_BYTES:
                    self.leaves.append(ParquetLeaf(index, tuple(run), rows))
                    run, rows = [], 0
                run.append(group)
                rows += n
            if rows:
                self.leaves.append(ParquetLeaf(index, tuple(run), rows))

    @property
    def reader(self) -> LakeReader:
        """How the leaves of the present selection are decoded."""
        if self._reader is None:
            used = (*self._columns, *self._filter_columns)
            types = {name: self.types[name] for name in used}
            files = dict(enumerate(self.files))
            self._reader = LakeReader(self.store, files, types, self._columns, self._filter, self._filter_columns)
        return self._reader

    def load(self, leaf: ParquetLeaf) -> LeafTable:
        """Decode one leaf."""
        return self.reader.load(leaf)

    # -- planning --------------------------------------------------------------------------------------------------

    def _plan(self, entry: Entry, tail: bytes, base: str | None) -> File:
        path = entry.path
        assert entry.size is not None
        assert entry.tag is not None
        if entry.size == 0:
            raise DataError(f"{path} is empty, not even a Parquet footer: the file is corrupt or still being written")
        try:
            metadata = pq.read_metadata(pa.BufferReader(tail))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a readable Parquet file: {_one_line(error)}") from None
        digest = hashlib.sha256(memoryview(tail)[-footer_size(tail) :]).digest()
        rows = tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
        shape = self._shapes.of(metadata)
        # a folder of one partition carries its own name, unless its files have that column
        own = {name: value for name, value in self._own.items() if name not in shape.schema.names}
        folders = _folders(path, base)
        partition = own | _values(folders)
        origin = _origin(path, self._root, self.local)
        return File(path, entry.size, entry.tag, metadata, digest, shape, rows, partition, "/".join(folders), origin)

    def _types(self, shapes: Sequence[File]) -> dict[str, pa.DataType]:
        types: dict[str, list[tuple[pa.DataType, str]]] = {}
        for file in shapes:
            names = file.schema.names
            for name in {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ():
                self.conflicts[name] = f'{file.path} has two columns named "{name}"'
            for field in file.schema:
                types.setdefault(field.name, []).append((field.type, file.path))
        result = {}
        for name, kinds in types.items():
            try:
                result[name] = schemas.unified(kinds, name)
            except DataError as error:
                # it matters only if the column is asked for
                result[name], self.conflicts[name] = schemas.plain(kinds[0][0]), str(error)
        for name in dict.fromkeys(key for file in self.files for key in file.partition):
            values = [file.partition.get(name) for file in self.files]
            result[name] = _partition_type(values)
            self.folder_columns[name] = any(value is not None for value in values)
        return result

    def _surviving(self) -> Iterable[Sequence[int]]:
        """The row groups of each file that may have rows that pass, from footers alone."""
        if self._filter is None:
            return [range(len(file.rows)) for file in self.files]
        from pyarrow import dataset as ds

        parquet = ds.ParquetFileFormat()
        known: dict[int, pa.Schema] = {}
        return [self._passing(file, parquet, known) for file in self.files]

    def _passing(self, file: File, parquet: Any, known: dict[int, pa.Schema]) -> Sequence[int]:
        from pyarrow import dataset as ds

        expression = None
        for name, value in file.partition.items():
            part = ds.field(name) == pa.scalar(value).cast(self.types[name]) if value is not None else None
            expression = part if expression is None else expression if part is None else expression & part
        if id(file.shape) not in known:
            here = {field.name: schemas.plain(field.type) for field in file.schema}
            known[id(file.shape)] = pa.schema([(name, here.get(name, kind)) for name, kind in self.types.items()])
        # a file of no more than the footer, which is here already
        footer = pa.BufferOutputStream()
        file.metadata.write_metadata_file(footer)
        groups = range(len(file.rows))
        fragment = parquet.make_fragment(footer.getvalue(), partition_expression=expression, row_groups=groups)
        try:
            passing = fragment.subset(self._filter, schema=known[id(file.shape)])
            return [group.id for group in passing.row_groups]
        except pa.ArrowException:
            return groups


class _Shapes:
    """One Shape for all files that have it: to ask each file for its schema would take longer than to parse its footer."""

    def __init__(self) -> None:
        self._written: dict[bytes | None, list[tuple[Any, Shape]]] = {}
        self._shapes: dict[bytes, Shape] = {}

    def of(self, metadata: pq.FileMetaData) -> Shape:
        """The shape of a file; files may be planned by several threads, and at worst one is worked out twice."""
        alike = self._written.setdefault((metadata.metadata or {}).get(b"ARROW:schema"), [])
        for parquet, shape in alike:
            if parquet.equals(metadata.schema):
                return shape
        schema = metadata.schema.to_arrow_schema().remove_metadata()
        chunks: dict[str, list[int]] = {}
        for index in range(metadata.num_columns):
            column = metadata.schema.column(index)
            name = column.path if column.path in schema.names else column.path.partition(".")[0]
            chunks.setdefault(name, []).append(index)
        made = Shape(schema, {name: tuple(indices) for name, indices in chunks.items()})
        shape = self._shapes.setdefault(schema.serialize().to_pybytes(), made)
        alike.append((metadata.schema, shape))
        return shape


def _decoded(reader: Any, groups: Sequence[int], columns: list[str], one_by_one: bool) -> pa.Table:
    """Columns of row groups. One by one where that asks for nothing more: all together hold three times what they take."""
    if not one_by_one or len(columns) < 2:
        return reader.read_row_groups(list(groups), columns=columns, use_threads=False)
    parts = [reader.read_row_groups(list(groups), columns=[name], use_threads=False) for name in columns]
    return pa.table({name: part.column(0) for name, part in zip(columns, parts, strict=True)})


def _check_footer(file: File, handle: Any) -> None:
    length = min(file.metadata.serialized_size + 8, file.size)
    if hashlib.sha256(handle.read_at(length, file.size - length)).digest() != file.digest:
        raise changed(file.path)


def _nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _folders(path: str, base: str | None) -> list[str]:
    """The folders of a file whose names carry a value, in the lake or, without a base, anywhere."""
    inside = path[len(base) :] if base and path.startswith(base) else path
    return [part for part in inside.split("/")[:-1] if part.find("=") > 0]


def _own_partition(base: str, local: bool) -> dict[str, str | None]:
    """The values that the name of the lake itself carries: of lake/year=2024 the year."""
    parts = (os.path.abspath(base) if local else base).rstrip("/").split("/")
    last = len(parts)
    while last and parts[last - 1].find("=") > 0:
        last -= 1
    return _values(parts[last:])


def _values(folders: Sequence[str]) -> dict[str, str | None]:
    from urllib.parse import unquote

    found: dict[str, str | None] = {}
    for part in folders:
        name, _, value = part.partition("=")
        found[unquote(name)] = None if value == _NULL_PARTITION else unquote(value)
    return found


def _root(entries: Sequence[Entry], base: str | None, local: bool) -> str:
    """The folder that the files of a lake are told apart in: the one that was given, or else the deepest they share."""
    if base is not None:
        return os.path.abspath(base) if local else base.rstrip("/")
    folders = [posixpath.dirname(os.path.abspath(entry.path) if local else entry.path) for entry in entries]
    return posixpath.commonpath(folders)


def _origin(path: str, root: str, local: bool) -> str:
    """The path of a file within a folder."""
    return (os.path.abspath(path) if local else path).removeprefix(root).lstrip("/")


def _row_numbers(file: File, leaf: ParquetLeaf) -> Any:
    """The number in its file of each row of a leaf (n,)."""
    starts = np.cumsum((0, *file.rows))
    return np.concatenate([np.arange(starts[group], starts[group + 1]) for group in leaf.row_groups])


def _partition_type(values: Sequence[str | None]) -> pa.DataType:
    known = [value for value in values if value is not None]
    if known and all(re.fullmatch(r"[+-]?\d{1,18}", value) for value in known):
        return pa.int64()
    return pa.string()


def _repeated(value: str | None, kind: pa.DataType, n: int) -> pa.ChunkedArray:
    if value is None:
        return pa.chunked_array([pa.nulls(n, kind)])
    if pa.types.is_string(kind):
        codes = (
            pa.array([0], pa.int32()).take(pa.repeat(pa.scalar(0, pa.int32()), n)) if n else pa.array([], pa.int32())
        )
        return pa.chunked_array([pa.DictionaryArray.from_arrays(codes, pa.array([value]))])
    return pa.chunked_array([pa.repeat(pa.scalar(int(value), kind), n)])


def _instead(name: str) -> str:
    """What text that stands where data are expected means, where it is no path."""
    if _FILTER.search(name):
        return f'; a filter of the rows is where="{name}"'
    return "" if re.search(r"[/\\.]", name) else "; data are a table in memory, or the path of a file or folder"


def open_lake(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> ParquetLake:
    """A lake from a file, a folder, a glob pattern, or a list of these; local, or a URL of a known file system."""
    given = [os.fspath(entry) for entry in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    if not given:
        raise DesignError("the list of files is empty")
    found: dict[str, Entry] = {}
    base: str | None = None
    store: Store | None = None
    for name in given:
        here, path = _store(name)
        if store is not None and here != store:
            raise DesignError(f"{_shown(name)} is on another file system than {_shown(given[0])}: read one at a time")
        # what one process holds of a store, it holds once
        store = store or here
        if _WILD.search(path):
            found.update((entry.path, entry) for entry in _globbed(store, path))
            continue
        entry = store.entry(path) if len(given) == 1 else store.presumed(path)
        if entry is None:
            raise DesignError(f"{_shown(name)} does not exist{_instead(name)}")
        if entry.folder:
            base = entry.path if len(given) == 1 else None
            found.update((inner.path, inner) for inner in _listed(store, entry.path))
        else:
            found[entry.path] = entry
    assert store is not None
    if not found:
        raise DataError(f"there are no Parquet files in {', '.join(map(_shown, given[:3]))}: the lake is empty")
    return ParquetLake(list(found.values()), store, base)


def lake_of(paths: Sequence[str], filesystem: fs.FileSystem) -> ParquetLake:
    """A lake of files that Arrow has listed already."""
    return ParquetLake([Entry(path) for path in paths], ArrowStore(filesystem), None)


def _shown(name: str) -> str:
    """A URL without its secrets."""
    return re.sub(r"^([A-Za-z0-9+.-]+://)[^/@]*@", r"\1", name)


def _store(path: str) -> tuple[Store, str]:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", path)
    if not scheme:
        return ArrowStore(fs.LocalFileSystem()), os.path.expanduser(path).rstrip("/") or "/"
    if scheme.group(1) in ("s3", "s3a") and importlib.util.find_spec("s3fs") is not None:
        from daskglm.cluster.objects import from_url

        return from_url(path)
    if scheme.group(1) in ("file", "s3", "gs", "gcs", "hdfs", "abfs", "abfss"):
        try:
            filesystem, inner = fs.FileSystem.from_uri(path)
            return ArrowStore(filesystem), inner
        except (pa.ArrowException, OSError) as error:
            raise DesignError(f"{_shown(path)} cannot be opened: {_one_line(error)}") from None
    try:
        import fsspec

        handler, inner = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise DesignError(f"{_shown(path)} cannot be opened: {_one_line(error)}") from None
    return ArrowStore(fs.PyFileSystem(fs.FSSpecHandler(handler))), inner.rstrip("/")


def _listed(store: Store, folder: str) -> list[Entry]:
    return _of_lake(folder, store.listed(folder))


def _of_lake(folder: str, entries: Iterable[Entry]) -> list[Entry]:
    """The Parquet files among what is in a folder, in order, without those that are hidden."""
    prefix = folder.rstrip("/") + "/"
    found = []
    for entry in entries:
        inside = entry.path[len(prefix) :] if entry.path.startswith(prefix) else entry.path
        parts = inside.split("/")
        if parts[0] == "metadata" and inside.endswith(".metadata.json"):
            raise DesignError(
                f"{folder} is an Iceberg table, whose folder also holds files that are no longer part of it: "
                "pass the list of files of its current snapshot"
            )
        if parts[0] == "_delta_log":
            raise DesignError(
                f"{folder} is a Delta table, whose folder also holds files that are no longer part of it: "
                "pass the list of files of its current snapshot"
            )
        hidden = any(part.startswith(("_", ".")) for part in parts)
        if not entry.folder and not hidden and entry.path.endswith(SUFFIXES):
            found.append(entry)
    return sorted(found, key=_path)


def _path(entry: Entry) -> str:
    return entry.path


def _globbed(store: Store, pattern: str) -> list[Entry]:
    pattern = re.sub(r"^(\./+)+", "", pattern)
    fixed, _, stem = _WILD.split(pattern)[0].rpartition("/")
    fixed = fixed or ("/" if pattern.startswith("/") else ".")
    rest = pattern.removeprefix(fixed).lstrip("/")
    try:
        entries = store.listed(fixed, stem, recursive="**" in rest or "/" in rest)
    except FileNotFoundError:
        raise DesignError(f"{pattern}: the folder {fixed} does not exist") from None
    matches = re.compile(_glob_expression(pattern)).fullmatch
    found: list[Entry] = []
    folders: list[Entry] = []
    for entry in entries:
        path = entry.path[2:] if fixed == "." and entry.path.startswith("./") else entry.path
        inside = path.removeprefix(fixed).lstrip("/").split("/")
        # as in a listed folder, unless the pattern asks for such names
        hidden = any(part.startswith(mark) and f"/{mark}" not in f"/{rest}" for part in inside for mark in "_.")
        if hidden or not matches(path):
            continue
        (folders if entry.folder else found).append(entry)
    if folders:
        with ThreadPoolExecutor(1 if store.local else concurrency()) as pool:
            for inner in pool.map(lambda folder: _listed(store, folder.path), folders):
                found += inner
    if not found:
        raise DesignError(f"no file matches {pattern}")
    return sorted({entry.path: entry for entry in found}.values(), key=_path)


def _glob_expression(pattern: str) -> str:
    result, i = "", 0
    while i < len(pattern):
        if pattern.startswith("**/", i):
            result, i = result + "(?:[^/]+/)*", i + 3
        elif pattern.startswith("**", i):
            result, i = result + ".*", i + 2
        elif pattern[i] == "*":
            result, i = result + "[^/]*", i + 1
        elif pattern[i] == "?":
            result, i = result + "[^/]", i + 1
        elif pattern[i] == "[" and "]" in pattern[i + 2 :]:
            end = pattern.index("]", i + 2)
            inner = pattern[i + 1 : end]
            result += "[" + ("^" + inner[1:] if inner.startswith("!") else inner).replace("\\", r"\\") + "]"
            i = end + 1
        else:
            result, i = result + re.escape(pattern[i]), i + 1
    return result
