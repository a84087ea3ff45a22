"""A number between 0 and 1 for each row, drawn from who the row is and from a seed: the same on every engine.

Identities are 64-bit hashes, mixed by the finaliser of SplitMix64 (Steele, Lea and Flood 2014), which is a bijection whose
output passes for random where its inputs differ at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from daskglm.design.columns import Coded

Identity = npt.NDArray[np.uint64]
Vector = npt.NDArray[np.float64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Doubles hold every whole number up to here.
EXACT = 2**53


def mixed(value: Identity) -> Identity:
    """SplitMix64's finaliser of value + golden ratio (n,)."""
    with np.errstate(over="ignore"):
        z = value + GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def of_places(origin: str, numbers: npt.NDArray[np.intp]) -> Identity:
    """Who rows are by their file's place in the lake and their numbers in the file (n,)."""
    return mixed(mixed(numbers.astype(np.uint64)) ^ _hashed(origin))


def of_columns(columns: Sequence[Any]) -> Identity:
    """Who rows are by the values of columns (n,), each numbers or `Coded`: whole numbers are the same in every type."""
    result = np.zeros(1, np.uint64)
    for column in columns:
        result = mixed(result ^ _values(column))
    return result


def uniforms(identity: Identity, seed: int) -> Vector:
    """A number in (0, 1) of each identity (n,)."""
    drawn = mixed(identity ^ mixed(np.array([seed % 2**64], np.uint64)))
    return ((drawn >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _values(column: Any) -> Identity:
    if isinstance(column, Coded):
        levels = [np.uint64(0) if level is None else _hashed(str(level)) for level in column.levels]
        return np.array(levels or [np.uint64(0)], np.uint64)[column.codes]
    if column.dtype.kind in "iu" and column.size and max(-int(column.min()), int(column.max())) >= EXACT:
        exact = np.abs(column.astype(np.float64)) < EXACT
        return np.where(exact, _bits(column), column.astype(np.uint64))
    return _bits(column)


def _bits(column: Any) -> Identity:
    """Of numbers as doubles, minus zero as zero and every NaN alike."""
    numbers = column.astype(np.float64) + 0.0
    numbers[np.isnan(numbers)] = np.nan
    return np.asarray(numbers.view(np.uint64))


def _hashed(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
