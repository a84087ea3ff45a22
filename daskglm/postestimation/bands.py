"""Edges of bands that users give for a column, as the numbers that the column is read as."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from daskglm.design import times
from daskglm.errors import DesignError

Vector = npt.NDArray[np.float64]


def edges(name: str, given: Any, kind: str | None) -> Vector:
    """Ascending edges (m,) of the bands of a column, in its own unit.

    kind: of the column, as `daskglm.cluster.schemas.kind_of` names it; columns of dates and times
    take ISO text, dates, datetimes and timestamps, too.
    """
    values = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    dated = kind is not None and times.is_time(kind)
    found = [_number(value, str(kind)) if dated else _plain(value) for value in values]
    what = "numbers"
    if dated:
        what += f" or of the kind {kind}, such as {_example(str(kind))}"
    for value, number in zip(values, found, strict=True):
        if number is None or np.isnan(number):
            message = f"{str(value)!r} is no edge; edges must be ascending {what}"
            raise DesignError(f'bands of "{name}": {message}')
    result = np.array(found, np.float64)
    if not result.size or not (np.diff(result) > 0.0).all():
        raise DesignError(f'the edges of the bands of "{name}" must be ascending {what}, not {given!r}')
    return result


def written(edge: float, kind: str | None) -> str:
    """An edge as labels of bands show it."""
    if kind is None or not times.is_time(kind) or not np.isfinite(edge):
        return f"{edge:g}"
    (label,) = times.labels((float(edge),), kind)
    return f"{label:g}" if isinstance(label, float) else str(label)


def labels(cuts: Vector, kind: str | None) -> list[str]:
    """Of the bands below the first edge, between edges, and from the last one on."""
    texts = [written(edge, kind) for edge in cuts]
    inner = [f"[{a}, {b})" for a, b in itertools.pairwise(texts)]
    return [f"< {texts[0]}", *inner, f">= {texts[-1]}"]


def _plain(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _number(value: Any, kind: str) -> float | None:
    """The number that an edge is in a column of times, or None."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    elif isinstance(value, np.timedelta64):
        value = value.astype("timedelta64[us]").item()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds() if kind == "duration" else None
    if isinstance(value, (datetime.date, datetime.time)):
        value = value.isoformat()
    return times.parsed(value, kind) if isinstance(value, str) else _plain(value)


def _example(kind: str) -> str:
    if kind == "duration":
        return "datetime.timedelta(hours=1)"
    return '"12:30"' if kind == "time" else '"2024-06-01"'
