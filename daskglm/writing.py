"""A folder of Parquet files that appears only when it is complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from daskglm.cluster.folders import SUCCESS, Folder, LocalFolder, open_folder
from daskglm.errors import DesignError

# The key in the schema metadata of every Parquet file written here; its value is what the file has.
MARK = b"daskglm"
_PART = re.compile(r"part-\d{5,}\.parquet")


def new_folder(out: str | os.PathLike[str], what: str, overwrite: bool | None = None) -> Folder:
    """Return the folder to write `what` into, after a look at whether that will be possible.

    It must be empty, unless `overwrite` is true: then `refuse_other_files` checks what it holds.
    overwrite: None where the caller offers no replacement.
    """
    target = open_folder(out, f"{what} cannot be written to {{place}}")
    kind = target.kind()
    if kind == "file" or (kind and target.names() and not overwrite):
        replaceable = overwrite is not None and kind != "file" and not target.remote
        way = "; --overwrite replaces it" if replaceable else ""
        raise DesignError(f"{target.place} exists and is not an empty folder: name a new one for the {what}{way}")
    if kind and overwrite and target.remote and target.names():
        raise DesignError(
            f"{target.place} is in an object store, where {what} cannot be replaced in one step: name a new folder"
        )
    target.probe()
    return target


def refuse_other_files(folder: Folder, what: str) -> None:
    """Raise DesignError where a folder on a disk holds anything but `what`, as `write_parts` wrote it.

    The footer of every Parquet file is read.
    """
    other = _other_file(folder, what)
    if other:
        raise DesignError(
            f"{folder.place} holds {other}, which is not marked as {what} that this version of "
            "daskglm wrote, and is not replaced: name a new folder, or remove this one by hand"
        )


def _other_file(folder: Folder, what: str) -> str:
    """Return the path inside a folder of an entry that is not of `what`; "" where there is none."""
    for name in folder.names():
        inner = folder.child(name)
        if "=" in name and inner.kind() == "folder":
            found = _other_file(inner, what)
            if found:
                return f"{name}/{found}"
        elif name != SUCCESS and not (_PART.fullmatch(name) and _mark(inner) == what):
            return name
    return ""


def _mark(file: Folder) -> str | None:
    """Return the value of MARK in the footer of a file on a disk; None where there is none."""
    if not isinstance(file, LocalFolder):
        return None
    try:
        found = (pq.read_schema(file.path).metadata or {}).get(MARK)
    except (OSError, pa.ArrowException):
        return None
    return None if found is None else found.decode(errors="replace")


def write_parts(
    target: Folder,
    tables: Iterable[tuple[str, pa.Table]],
    empty: pa.Table,
    what: str,
    overwrite: bool = False,
) -> int:
    """Write tables as part-00000.parquet and on, each in the folder that is named with it.

    tables: pairs of a folder ("" for none) and a table; empty: what is written where there are none;
    what: the mark of the files, such as "predictions"; overwrite: whether marked files that are
    there are replaced. Return how many rows there are.
    """
    rows, index = 0, -1
    with target.draft(replacing=overwrite) as draft:
        for index, (folder, table) in enumerate(tables):
            name = f"part-{index:05d}.parquet"
            draft.write(f"{folder}/{name}" if folder else name, partial(_write, table, what))
            rows += table.num_rows
        if index < 0:
            draft.write("part-00000.parquet", partial(_write, empty, what))
        if overwrite:
            # other files may have arrived since the first check
            refuse_other_files(target, what)
    return rows


def _write(table: pa.Table, what: str, handle: IO[bytes]) -> None:
    metadata = {**(table.schema.metadata or {}), MARK: what.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), handle)
