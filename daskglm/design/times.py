"""Columns of dates and times as numbers: their units, conversions between them, literals and labels.

A kind is "date" (days since 1970-01-01), "timestamp" (seconds since then, without a time zone), "timestamp[ZONE]"
(seconds since then in UTC, shown in a zone), "duration" or "time" (seconds).
"""

from __future__ import annotations

import datetime
from typing import Any

DAY = 86_400.0
_EPOCH = datetime.datetime(1970, 1, 1)


def is_time(kind: Any) -> bool:
    """Whether a column of this kind holds dates or times."""
    return isinstance(kind, str) and (kind in ("date", "duration", "time") or kind.startswith("timestamp"))


def is_number(kind: Any) -> bool:
    """Whether a formula sees a column of this kind as numbers."""
    return bool(kind == "numeric") or is_time(kind)


def unit(kind: str) -> float:
    """Seconds of one unit of the numbers."""
    return DAY if kind == "date" else 1.0


def parsed(text: str, kind: str) -> float | None:
    """The number that a literal is in a column of this kind, or None where it is no such time."""
    try:
        if kind == "time":
            moment = datetime.time.fromisoformat(text)
            return (datetime.datetime.combine(_EPOCH, moment) - _EPOCH).total_seconds()
        if kind == "duration":
            return None
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    zone = zone_of(kind)
    if zone is not None:
        aware = found if found.tzinfo is not None else found.replace(tzinfo=zone)
        return (aware - _EPOCH.replace(tzinfo=datetime.UTC)).total_seconds()
    if found.tzinfo is not None:
        return None
    return (found - _EPOCH) / datetime.timedelta(seconds=unit(kind))


def zone_of(kind: str) -> datetime.tzinfo | None:
    """The time zone of a kind, None where it has none."""
    if not kind.startswith("timestamp["):
        return None
    name = kind[10:-1]
    if name[:1] in "+-":
        hours, _, minutes = name[1:].partition(":")
        offset = datetime.timedelta(hours=int(hours), minutes=int(minutes or 0))
        return datetime.timezone(-offset if name[0] == "-" else offset)
    import zoneinfo

    return zoneinfo.ZoneInfo(name)


def labels(levels: tuple[Any, ...], kind: str) -> tuple[Any, ...]:
    """Numbers of a column as the dates and times they are; durations and times of day stay seconds."""
    if kind in ("duration", "time"):
        return levels
    zone = zone_of(kind)
    return tuple(_label(float(level) * unit(kind), kind, zone) for level in levels)


def _label(seconds: float, kind: str, zone: datetime.tzinfo | None) -> str:
    moment = _EPOCH + datetime.timedelta(seconds=seconds)
    if kind == "date" and seconds % DAY == 0.0:
        return moment.date().isoformat()
    if zone is not None:
        moment = moment.replace(tzinfo=datetime.UTC).astimezone(zone)
    return moment.isoformat(" ")
