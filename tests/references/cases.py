"""The reference cases: what R, or exact arithmetic, says of published data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import daskglm as dg

HERE = Path(__file__).parent
GLM: list[dict[str, Any]] = json.loads((HERE / "glm.json").read_text())["cases"]
_ILL = json.loads((HERE / "ill_conditioned.json").read_text())
ILL_CONDITIONED: list[dict[str, Any]] = _ILL["cases"] if isinstance(_ILL, dict) else _ILL


def frame(case: dict[str, Any]) -> pd.DataFrame:
    """The data set, every number as it was written."""
    return pd.read_csv(HERE / "data" / case["data"])


def options(case: dict[str, Any]) -> dict[str, Any]:
    """Keywords of `glm` for a case."""
    weights = None
    if case["weights"] is not None:
        kind = {"trials": dg.Trials, "variance": dg.Variance}[case["weights"]["type"]]
        weights = kind(case["weights"]["column"])
    return {"family": case["family"], "link": case["link"], "weights": weights, "offset": case["offset"]}


def lake(case: dict[str, Any], folder: Path, files: int) -> Path:
    """The data set as Parquet files of unequal size; with more files than rows need, some are empty."""
    table = pa.Table.from_pandas(frame(case), preserve_index=False)
    n = table.num_rows
    # thirds of thirds: some files hold most rows, one in three none at all
    bounds = [0] + [n if i == files - 1 else min(n, (n * i * i) // (files * files)) for i in range(files)]
    bounds = sorted(bounds)
    for i in range(files):
        start, stop = bounds[i], bounds[i + 1]
        if files > 1 and i == files // 2:
            stop = start
            bounds[i + 1] = start
        pq.write_table(table.slice(start, stop - start), folder / f"part-{i}.parquet")
    return folder


def vector(values: list[float | None]) -> npt.NDArray[np.float64]:
    """null is NaN."""
    return np.array([np.nan if value is None else value for value in values], np.float64)
