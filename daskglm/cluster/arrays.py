"""The arrays inside a record or an item, whatever its class: how many bytes they are, and whether they lie as they should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

# Arrays of a compressed sparse matrix, by which one is known: its class is not this room's business.
_COMPRESSED = ("data", "indices", "indptr")
_PLAIN = (str, bytes, int, float, type(None))


def landed(value: Any) -> Any:
    """The same record with every array where the kernels want it.

    An array that crossed a network can begin at any byte; NumPy and kernels then take other ways, slower ones, on which the
    last bits differ, or refuse it. What lies well is not copied.
    """
    if isinstance(value, np.ndarray):
        return np.require(value, requirements=["C", "A"])
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        moved = {name: new for name, old in found.items() if (new := landed(old)) is not old}
        return replace(value, **moved) if moved else value
    if isinstance(value, Mapping):
        changed = {key: landed(entry) for key, entry in value.items()}
        return changed if any(changed[key] is not entry for key, entry in value.items()) else value
    if type(value) in (tuple, list) and not _all_plain(value):
        several = [landed(entry) for entry in value]
        return type(value)(several) if any(a is not b for a, b in zip(several, value, strict=True)) else value
    if _is_compressed(value):
        value.data, value.indices, value.indptr = (landed(getattr(value, name)) for name in _COMPRESSED)
    return value


def array_bytes(value: Any) -> int:
    """Bytes of the arrays inside, each counted once."""
    return sum({id(array): array.nbytes for array in _arrays(value)}.values())


def _arrays(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _arrays(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _arrays(entry)
    elif isinstance(value, (tuple, list)) and not _all_plain(value):
        for entry in value:
            yield from _arrays(entry)
    elif _is_compressed(value):
        for name in _COMPRESSED:
            yield getattr(value, name)


def _all_plain(values: Any) -> bool:
    """Whether all are words and numbers, such as the levels of a factor, of which there can be many."""
    return all(isinstance(value, _PLAIN) for value in values)


def _is_compressed(value: Any) -> bool:
    return all(isinstance(getattr(value, name, None), np.ndarray) for name in _COMPRESSED)
