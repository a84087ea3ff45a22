"""A folder of Parquet files that appears only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from daskglm.cluster.folders import SUCCESS, Folder, open_folder
from daskglm.cluster.stores import SUFFIXES
from daskglm.errors import DesignError


def new_folder(out: str | os.PathLike[str], what: str, overwrite: bool | None = None) -> Folder:
    """Return the folder to write `what` into, after a look at whether that will be possible.

    It must be empty, or with `overwrite` hold nothing but Parquet files, which are replaced; None:
    whoever writes cannot replace them.
    """
    target = open_folder(out, f"{what} cannot be written to {{place}}")
    kind = target.kind()
    if kind == "file" or (kind and target.names() and not overwrite):
        replaceable = overwrite is not None and kind != "file" and not target.remote
        way = "; --overwrite replaces it" if replaceable else ""
        raise DesignError(f"{target.place} exists and is not an empty folder: name a new one for the {what}{way}")
    if kind and overwrite:
        if target.remote and target.names():
            raise DesignError(
                f"{target.place} is in an object store, where {what} cannot be replaced in one step: name a new folder"
            )
        strange = _foreign(target)
        if strange:
            raise DesignError(f"{target.place} holds {strange}, which is not part of {what}: name a new folder")
    target.probe()
    return target


def _foreign(folder: Folder) -> str:
    """Return the name of something in a folder that is neither a Parquet file nor a partition."""
    for name in folder.names():
        inner = folder.child(name)
        if "=" in name and inner.kind() == "folder":
            found = _foreign(inner)
            if found:
                return f"{name}/{found}"
        elif not name.endswith(SUFFIXES) and name != SUCCESS:
            return name
    return ""


def write_parts(
    target: Folder,
    tables: Iterable[tuple[str, pa.Table]],
    empty: pa.Table,
    overwrite: bool = False,
) -> int:
    """Write tables as part-00000.parquet and on, each in the folder that is named with it.

    tables: pairs of a folder ("" for none) and a table; empty: what is written where there are none.
    Return how many rows there are.
    """
    rows, index = 0, -1
    with target.draft(replacing=overwrite) as draft:
        for index, (folder, table) in enumerate(tables):
            name = f"part-{index:05d}.parquet"
            draft.write(f"{folder}/{name}" if folder else name, partial(_write, table))
            rows += table.num_rows
        if index < 0:
            draft.write("part-00000.parquet", partial(_write, empty))
    return rows


def _write(table: pa.Table, handle: IO[bytes]) -> None:
    pq.write_table(table, handle)
