"""Which cluster a row belongs to, as one 64-bit key: the same for the same value in every file and on every worker."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from daskglm.errors import DataError

Keys = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]


def keys_of(leaf: Any, name: str, kept: Index | None) -> Keys:
    """Keys (n,) of the rows kept (None: all) by a column of a leaf's table: whole numbers, days and moments are their own,
    other numbers their bits, and text a hash of its UTF-8 (BLAKE2b: 2 million clusters share a key by chance with
    probability 1e-7). DataError where a row has no value.
    """
    column = leaf.table.column(name)
    keys, missing = keys_and_missing(column)
    if kept is not None:
        keys, missing = keys[kept], None if missing is None else missing[kept]
    if missing is not None and missing.any():
        raise DataError(
            f'{leaf.label}: "{name}" is missing in {int(missing.sum())} row(s), and every row needs a cluster: leave them out '
            "with where=, or give them clusters of their own"
        )
    return keys


def keys_and_missing(column: Any) -> tuple[Keys, npt.NDArray[np.bool_] | None]:
    """Keys of a whole column, and where there is no value."""
    import pyarrow as pa

    kind, n = column.type, len(column)
    missing = np.asarray(column.is_null().to_numpy(), bool) if column.null_count else None
    if pa.types.is_null(kind):
        return np.zeros(n, np.int64), np.ones(n, bool)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        whole = column if pa.types.is_uint64(kind) else column.cast(pa.int64())
        return _whole(whole), missing
    if pa.types.is_temporal(kind):
        narrow = pa.types.is_date32(kind) or pa.types.is_time32(kind)
        return _whole(column.cast(pa.int32()).cast(pa.int64()) if narrow else column.cast(pa.int64())), missing
    if pa.types.is_floating(kind):
        numbers = np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(), np.float64)
        return _of_numbers(numbers), np.isnan(numbers) if missing is not None or np.isnan(numbers).any() else None
    if not pa.types.is_dictionary(kind):
        text = column.cast(pa.string()) if pa.types.is_decimal(kind) else column
        column = text.dictionary_encode()
    return _of_levels(column, missing)


def _whole(column: Any) -> Keys:
    filled = column.fill_null(0) if column.null_count else column
    return np.ascontiguousarray(filled.to_numpy()).view(np.int64)


def _of_numbers(numbers: npt.NDArray[np.float64]) -> Keys:
    """Whole numbers as such, so that a column of them that became float64 for a missing value keeps its keys."""
    with np.errstate(invalid="ignore"):
        whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**63)
        return np.where(whole, np.where(whole, numbers, 0.0).astype(np.int64), (numbers + 0.0).view(np.int64))


def _of_levels(column: Any, missing: npt.NDArray[np.bool_] | None) -> tuple[Keys, npt.NDArray[np.bool_] | None]:
    """Keys of a dictionary column, a level at a time."""
    parts, gone = [np.zeros(0, np.int64)], []
    for chunk in column.chunks:
        levels = chunk.dictionary.to_pylist()
        table = _of_values(levels)
        codes = np.asarray(chunk.indices.fill_null(0).to_numpy(zero_copy_only=False), np.intp)
        parts.append(table[codes] if table.size else np.zeros(codes.size, np.int64))
        empty = np.array([level is None for level in levels] or [True])
        gone.append(empty[codes])
    nothing = np.concatenate([np.zeros(0, bool), *gone])
    if missing is not None:
        nothing = nothing | missing
    return np.concatenate(parts), nothing if nothing.any() else None


def _of_values(levels: Sequence[Any]) -> Keys:
    return np.array([_of_value(level) for level in levels], np.int64)


def _of_value(level: Any) -> int:
    if level is None:
        return 0
    if isinstance(level, (bool, int)) and -(2**63) <= level < 2**63:
        return int(level)
    if isinstance(level, float):
        return int(_of_numbers(np.array([level]))[0])
    text = level if isinstance(level, bytes) else str(level).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)
