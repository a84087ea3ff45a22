"""A Parquet lake: files listed, footers read, leaves planned; nothing is decoded before it is needed, nothing twice.

A leaf is a run of row groups of one file, fixed by the files alone. What a footer said is remembered and checked at every
load: a file that changed in between is named instead of being mixed with what was read before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from daskglm.cluster import schemas
from daskglm.errors import ChangedInputError, DataError, DesignError

LEAF_BYTES = 64 << 20
_SUFFIXES = (".parquet", ".parq", ".pq")
_WILD = re.compile(r"[*?\[]")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@final
@dataclass(frozen=True)
class LeafTable:
    """One leaf decoded: the table, a label for messages, how many rows the source held before any filter, and whether
    the table lies in the user's memory anyway, so that its buffers may be held on to. matrix: a scipy CSR matrix or array
    whose rows are those of the table, which may have no columns.
    """

    table: pa.Table
    label: str
    rows: int
    resident: bool = False
    matrix: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        matrix = self.matrix
        beside = 0 if matrix is None else matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
        return int(self.table.nbytes + beside)


@final
@dataclass(frozen=True)
class File:
    """A file as planned: its footer, what identifies it, and the values its folders carry."""

    path: str
    size: int
    modified: int
    metadata: pq.FileMetaData
    digest: bytes
    partition: Mapping[str, str | None]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of its footer."""
        return self.metadata.schema.to_arrow_schema()


@final
@dataclass(frozen=True)
class ParquetLeaf:
    """Row groups of one file; rows counts them before any filter."""

    file: int
    row_groups: tuple[int, ...]
    rows: int


@final
@dataclass(frozen=True)
class LakeReader:
    """How leaves are decoded, apart from the lake: all that a process elsewhere needs to read them.

    files: those that the leaves lie in, by their number; types: of the columns read.
    """

    filesystem: fs.FileSystem
    files: Mapping[int, File]
    types: Mapping[str, pa.DataType]
    columns: tuple[str, ...]
    filter: Any
    filter_columns: tuple[str, ...]

    @property
    def local(self) -> bool:
        """Whether the files lie on a disk, so that reading ahead is the operating system's business."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

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
        label = f"{file.path} (row group {leaf.row_groups[0]})" if len(file.path) else "the file"
        self._check_unchanged(file)
        stored = [c for c in (*self.columns, *self.filter_columns) if c not in file.partition]
        schema = file.schema
        for name in stored:
            if name not in schema.names:
                raise DataError(f'{file.path} has no column "{name}", which other files of the lake have')
        texts = [n for n in stored if pa.types.is_string(self.types[n]) and not _nested(schema.field(n).type)]
        try:
            with self.filesystem.open_input_file(file.path) as handle:
                self._check_footer(file, handle)
                reader = pq.ParquetFile(
                    handle, metadata=file.metadata, read_dictionary=texts, pre_buffer=not self.local,
                    page_checksum_verification=True,
                )  # fmt: skip
                table = _decoded(reader, leaf.row_groups, list(dict.fromkeys(stored)), one_by_one=self.local)
        except (ChangedInputError, DataError):
            raise
        except FileNotFoundError:
            raise ChangedInputError(f"{file.path} was there when the lake was listed, and is gone now") from None
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{label} cannot be decoded, the file is corrupt: {_one_line(error)}") from None
        self._check_unchanged(file)
        return LeafTable(self._finished(table, file, label), label, leaf.rows)

    def announce(self, leaf: ParquetLeaf) -> None:
        """Tell the operating system which part of a local file will be read next."""
        if not self.local:
            return
        file = self.files[leaf.file]
        groups = [file.metadata.row_group(index) for index in leaf.row_groups]
        start = min(_group_start(group) for group in groups)
        with contextlib.suppress(OSError), open(file.path, "rb", buffering=0) as handle:
            read_ahead(handle.fileno(), start, sum(group.total_byte_size for group in groups))

    def _finished(self, table: pa.Table, file: File, label: str) -> pa.Table:
        wanted = list(dict.fromkeys((*self.columns, *self.filter_columns)))
        columns = []
        for name in wanted:
            if name in file.partition:
                columns.append(_repeated(file.partition[name], self.types[name], table.num_rows))
            else:
                columns.append(schemas.cast(table.column(name), self.types[name], label, name))
        # a table without columns would forget how many rows it has
        result = pa.table(dict(zip(wanted, columns, strict=True))) if wanted else table
        if self.filter is not None:
            result = schemas.filtered(result, self.filter, label)
        return result.select(list(self.columns)) if self.columns else result

    def _check_unchanged(self, file: File) -> None:
        info = self.filesystem.get_file_info(file.path)
        if info.type == fs.FileType.NotFound:
            raise ChangedInputError(f"{file.path} was there when the lake was listed, and is gone now")
        if info.size != file.size or (info.mtime_ns or 0) != file.modified:
            raise ChangedInputError(f"{file.path} changed while it was being read: run again when it has settled")

    def _check_footer(self, file: File, handle: Any) -> None:
        if _footer_digest(handle, file.size, file.metadata.serialized_size) != file.digest:
            raise ChangedInputError(f"{file.path} changed while it was being read: run again when it has settled")


class ParquetLake:
    """Files of one shape, read by column and by row group."""

    in_memory = False
    matrix_names: tuple[str, ...] = ()

    def __init__(self, paths: Sequence[str], filesystem: fs.FileSystem, base: str | None) -> None:
        self.filesystem = filesystem
        self.local = isinstance(filesystem, (fs.LocalFileSystem,))
        workers = 4 if self.local else 16
        with ThreadPoolExecutor(workers) as pool:
            self.files: list[File] = list(pool.map(lambda path: self._plan(path, base), paths))
        self.conflicts: dict[str, str] = {}
        self.types = self._types()
        self.ordered = frozenset(
            field.name
            for file in self.files[:1]
            for field in file.schema
            if pa.types.is_dictionary(field.type) and field.type.ordered
        )
        first = {field.name for field in self.files[0].schema if pa.types.is_dictionary(field.type)}
        self.categories = frozenset(
            name
            for name in first
            if all(name not in f.schema.names or pa.types.is_dictionary(f.schema.field(name).type) for f in self.files)
        )
        self.leaves: list[ParquetLeaf] = []
        self._lock = threading.Lock()
        self._columns: tuple[str, ...] = ()
        self._filter: Any = None
        self._filter_columns: tuple[str, ...] = ()
        self.pruned_rows = 0

    @property
    def witness(self) -> str | None:
        """The first file of a lake on disk."""
        return os.path.abspath(self.files[0].path) if self.local else None

    @property
    def fingerprint(self) -> str:
        """Of the files: names, sizes, times and footers."""
        state = hashlib.sha256()
        for file in self.files:
            path = os.path.abspath(file.path) if self.local else file.path
            state.update(repr((path, file.size, file.modified, file.digest)).encode())
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
        self.leaves, self.pruned_rows = [], 0
        width = max(self.row_bytes({*columns, *filter_columns} & set(self.types)), 1)  # type: ignore[arg-type]
        for index, file in enumerate(self.files):
            groups = self._surviving(file)
            self.pruned_rows += file.metadata.num_rows - sum(file.metadata.row_group(g).num_rows for g in groups)
            run: list[int] = []
            rows = 0
            for group in groups:
                n = file.metadata.row_group(group).num_rows
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
        used = (*self._columns, *self._filter_columns)
        types = {name: self.types[name] for name in used}
        files = dict(enumerate(self.files))
        return LakeReader(self.filesystem, files, types, self._columns, self._filter, self._filter_columns)

    def load(self, leaf: ParquetLeaf) -> LeafTable:
        """Decode one leaf."""
        return self.reader.load(leaf)

    # -- planning --------------------------------------------------------------------------------------------------

    def _plan(self, path: str, base: str | None) -> File:
        try:
            info = self.filesystem.get_file_info(path)
            if info.type == fs.FileType.NotFound:
                raise DesignError(f"{path} does not exist")
            if info.size == 0:
                raise DataError(
                    f"{path} is empty, not even a Parquet footer: the file is corrupt or still being written"
                )
            with self.filesystem.open_input_file(path) as handle:
                metadata = pq.read_metadata(handle)
                digest = _footer_digest(handle, info.size, metadata.serialized_size)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a readable Parquet file: {_one_line(error)}") from None
        return File(path, info.size, info.mtime_ns or 0, metadata, digest, _partition(path, base))

    def _types(self) -> dict[str, pa.DataType]:
        types: dict[str, list[tuple[pa.DataType, str]]] = {}
        for file in self.files:
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
        return result

    def _surviving(self, file: File) -> list[int]:
        groups = list(range(file.metadata.num_row_groups))
        if self._filter is None:
            return groups
        from pyarrow import dataset as ds

        expression = None
        for name, value in file.partition.items():
            part = ds.field(name) == pa.scalar(value).cast(self.types[name]) if value is not None else None
            expression = part if expression is None else expression if part is None else expression & part
        known = {field.name: schemas.plain(field.type) for field in file.schema}
        schema = pa.schema([(name, known.get(name, kind)) for name, kind in self.types.items()])
        fragment = ds.ParquetFileFormat().make_fragment(
            file.path, self.filesystem, partition_expression=expression, row_groups=groups
        )
        try:
            return [group.id for group in fragment.subset(self._filter, schema=schema).row_groups]
        except pa.ArrowException:
            return groups


def _decoded(reader: Any, groups: Sequence[int], columns: list[str], one_by_one: bool) -> pa.Table:
    """Columns of row groups. Of a local file one by one: decoding all together holds three times what they take."""
    if not one_by_one or len(columns) < 2:
        return reader.read_row_groups(list(groups), columns=columns, use_threads=False)
    parts = [reader.read_row_groups(list(groups), columns=[name], use_threads=False) for name in columns]
    return pa.table({name: part.column(0) for name, part in zip(columns, parts, strict=True)})


def read_ahead(descriptor: int, start: int, length: int) -> None:
    """Ask for a part of a file to be fetched in the background, where the system can."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)


def _group_start(group: Any) -> int:
    column = group.column(0)
    return int(column.dictionary_page_offset or column.data_page_offset)


def _footer_digest(handle: Any, size: int, footer: int) -> bytes:
    length = min(footer + 8, size)
    return hashlib.sha256(handle.read_at(length, size - length)).digest()


def _nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _partition(path: str, base: str | None) -> dict[str, str | None]:
    from urllib.parse import unquote

    inside = path[len(base) :] if base and path.startswith(base) else path
    found: dict[str, str | None] = {}
    for part in inside.split("/")[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            found[unquote(name)] = None if value == _NULL_PARTITION else unquote(value)
    return found


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


def open_lake(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> ParquetLake:
    """A lake from a file, a folder, a glob pattern, or a list of these; local, or a URL of a known file system."""
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not given:
        raise DesignError("the list of files is empty")
    found: dict[str, None] = {}
    base: str | None = None
    filesystem: fs.FileSystem | None = None
    for entry in given:
        here, path = _filesystem(os.fspath(entry))
        if filesystem is not None and not here.equals(filesystem):
            raise DesignError(f"{entry} is on another file system than {given[0]}: read one at a time")
        filesystem = here
        if _WILD.search(path):
            found.update(dict.fromkeys(_globbed(here, path)))
            continue
        info = here.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise DesignError(f"{entry} does not exist")
        if info.type == fs.FileType.Directory:
            base = path if len(given) == 1 else None
            found.update(dict.fromkeys(_listed(here, path)))
        else:
            found[path] = None
    assert filesystem is not None
    if not found:
        raise DataError(f"there are no Parquet files in {', '.join(map(str, given[:3]))}: the lake is empty")
    return ParquetLake(list(found), filesystem, base)


def _filesystem(path: str) -> tuple[fs.FileSystem, str]:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", path)
    if not scheme:
        return fs.LocalFileSystem(), os.path.expanduser(path).rstrip("/") or "/"
    if scheme.group(1) in ("file", "s3", "gs", "gcs", "hdfs", "abfs", "abfss"):
        try:
            return fs.FileSystem.from_uri(path)  # type: ignore[no-any-return]
        except (pa.ArrowException, OSError) as error:
            raise DesignError(f"{path} cannot be opened: {_one_line(error)}") from None
    try:
        import fsspec

        handler, inner = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise DesignError(f"{path} cannot be opened: {_one_line(error)}") from None
    return fs.PyFileSystem(fs.FSSpecHandler(handler)), inner.rstrip("/")


def _listed(filesystem: fs.FileSystem, folder: str) -> list[str]:
    infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    prefix = folder.rstrip("/") + "/"
    names = []
    for info in infos:
        inside = info.path[len(prefix) :] if info.path.startswith(prefix) else info.path
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
        if info.type == fs.FileType.File and not hidden and info.path.endswith(_SUFFIXES):
            names.append(info.path)
    return sorted(names)


def _globbed(filesystem: fs.FileSystem, pattern: str) -> list[str]:
    pattern = re.sub(r"^(\./+)+", "", pattern)
    fixed = _WILD.split(pattern)[0].rpartition("/")[0] or ("/" if pattern.startswith("/") else ".")
    rest = pattern.removeprefix(fixed).lstrip("/")
    try:
        infos = filesystem.get_file_info(fs.FileSelector(fixed, recursive="**" in rest or "/" in rest))
    except FileNotFoundError:
        raise DesignError(f"{pattern}: the folder {fixed} does not exist") from None
    matches = re.compile(_glob_expression(pattern)).fullmatch
    found = []
    for info in infos:
        path = info.path[2:] if fixed == "." and info.path.startswith("./") else info.path
        inside = path.removeprefix(fixed).lstrip("/").split("/")
        # as in a listed folder, unless the pattern asks for such names
        hidden = any(part.startswith(mark) and f"/{mark}" not in f"/{rest}" for part in inside for mark in "_.")
        if hidden or not matches(path):
            continue
        if info.type == fs.FileType.File:
            found.append(info.path)
        elif info.type == fs.FileType.Directory:
            found.extend(_listed(filesystem, info.path))
    if not found:
        raise DesignError(f"no file matches {pattern}")
    return sorted(dict.fromkeys(found))


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
