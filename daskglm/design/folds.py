"""Folds of rows by a hash of a value: the same for the same value in every source, on every engine.

The value's 64-bit key (`daskglm.design.clusters`) is mixed by SplitMix64 (Steele, Lea and Flood
2014), and the fold is what division by the number of folds leaves. Arrow's filters call it as
functions of their own, one for each kind of value.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from daskglm.design.clusters import keys_and_missing
from daskglm.errors import DesignError

_NAME = "daskglm_fold"
_STEP, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def folds(keys: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Folds 0 .. count - 1 of keys (n,)."""
    with np.errstate(over="ignore"):
        mixed = keys.view(np.uint64) + _STEP
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
        mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(count)).astype(np.int64)


def expression(value: Any, kind: Any, count: int) -> Any:
    """An Arrow expression of the fold of a value; kind: its Arrow type, None where it is computed.

    DesignError for a type without keys of its own.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind is not None and pa.types.is_dictionary(kind):
        value, kind = value.cast(kind.value_type), kind.value_type
    if kind is None or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        target = pa.float64()
    elif pa.types.is_uint64(kind):
        target = kind
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        target = pa.int64()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        target = pa.large_string()
    elif pa.types.is_date(kind):
        value, target = value.cast(pa.date32()).cast(pa.int32()), pa.int64()
    elif pa.types.is_timestamp(kind):
        value, target = value.cast(pa.timestamp("us", kind.tz), safe=False), pa.int64()
    else:
        raise DesignError(f"fold() takes numbers, text, truth values and dates, not {kind}")
    _register()
    arguments = [value.cast(target, safe=False), pc.scalar(pa.scalar(count, pa.int64()))]
    return pc.Expression._call(f"{_NAME}_{target}", arguments)


@cache
def _register() -> None:
    """Make the functions known to Arrow in this process."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def fold(_: Any, value: Any, count: Any) -> Any:
        column = pa.chunked_array([value]) if isinstance(value, pa.Array) else pa.chunked_array([[value]], value.type)
        keys, missing = keys_and_missing(column)
        return pa.array(folds(keys, count.as_py()), pa.int64(), mask=missing)

    about = {"summary": "fold of a value", "description": "a hash of the value modulo a number of folds"}
    for kind in (pa.int64(), pa.uint64(), pa.float64(), pa.large_string()):
        pc.register_scalar_function(fold, f"{_NAME}_{kind}", about, {"value": kind, "count": pa.int64()}, pa.int64())


# a filter that was sent to another process is only a name there
_register()
