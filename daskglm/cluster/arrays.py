"""The arrays inside a record or an item, whatever its class: how many bytes they are, and whether they lie as they should.

An array that crossed the network lies where its message happened to put it. Kernels refuse one that is misaligned, and
NumPy's last bits depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

# Arrays of a compressed sparse matrix, by which one is known: its class is not this room's business.
_COMPRESSED = ("data", "indices", "indptr")
_PLAIN = (str, bytes, int, float, type(None))


def aligned(value: Any) -> Any:
    """The same with every misaligned array copied to where it should lie; itself where there is none."""
    if isinstance(value, np.ndarray):
        return value if value.flags.aligned else value.copy(order="K")
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        moved = {name: aligned(part) for name, part in parts.items()}
        changed = {name: part for name, part in moved.items() if part is not parts[name]}
        return replace(value, **changed) if changed else value
    if isinstance(value, dict):
        entries = {key: aligned(part) for key, part in value.items()}
        return entries if any(entries[key] is not value[key] for key in value) else value
    if type(value) in (tuple, list) and not _all_plain(value):
        places = [aligned(part) for part in value]
        return type(value)(places) if any(a is not b for a, b in zip(places, value, strict=True)) else value
    if _is_compressed(value):
        for name in _COMPRESSED:
            setattr(value, name, aligned(getattr(value, name)))
    return value


def array_bytes(value: Any) -> int:
    """Bytes of the arrays inside, each counted once."""
    return sum({id(array): array.nbytes for array in _arrays(value)}.values())


def _arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _arrays(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _arrays(part)
    elif isinstance(value, (tuple, list)) and not _all_plain(value):
        for part in value:
            yield from _arrays(part)
    elif _is_compressed(value):
        for name in _COMPRESSED:
            yield getattr(value, name)


def _all_plain(values: Any) -> bool:
    """Whether a sequence is of plain words and numbers, such as the levels of a factor, of which there can be many."""
    return all(isinstance(value, _PLAIN) for value in values)


def _is_compressed(value: Any) -> bool:
    return all(isinstance(getattr(value, name, None), np.ndarray) for name in _COMPRESSED)
