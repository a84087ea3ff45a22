"""A folder of Parquet files that appears only when it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from daskglm.errors import DesignError


def new_folder(out: str | os.PathLike[str], what: str) -> Path:
    """The folder to write `what` into, which must not hold anything yet."""
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DesignError(f"{target} exists and is not an empty folder: name a new one for the {what}")
    return target


def write_parts(target: Path, tables: Iterable[pa.Table], names: Iterable[str]) -> int:
    """Write tables one by one, as part-00000.parquet and on; names: columns of doubles where there are no rows. How many rows.

    The folder is made beside the target and becomes it by renaming as the last act.
    """
    draft = draft_beside(target)
    rows = 0
    try:
        draft.chmod(0o755)
        for index, table in enumerate(tables):
            pq.write_table(table, draft / f"part-{index:05d}.parquet")
            rows += table.num_rows
        if not rows:
            empty = pa.table({name: pa.array([], pa.float64()) for name in names})
            pq.write_table(empty, draft / "part-00000.parquet")
        if target.exists():
            target.rmdir()
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return rows


def draft_beside(target: Path) -> Path:
    """A new folder next to the target, to become it by renaming; DesignError where nothing can be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise DesignError(f"{target} cannot be written: {error.strerror}") from None
