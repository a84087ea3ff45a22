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

Case = dict[str, Any]

HERE = Path(__file__).parent
GLM: list[Case] = json.loads((HERE / "glm.json").read_text())["cases"]
_ILL = json.loads((HERE / "ill_conditioned.json").read_text())
ILL_CONDITIONED: list[Case] = _ILL["cases"] if isinstance(_ILL, dict) else _ILL
FAMILIES: list[Case] = json.loads((HERE / "families.json").read_text())["cases"]
VECTOR: list[Case] = json.loads((HERE / "vector.json").read_text())["cases"]
TWEEDIE: dict[str, list[Case]] = json.loads((HERE / "tweedie.json").read_text())

# Families and links that need an argument, by the class that takes it.
FAMILY_CLASSES = {"negative_binomial": "NegativeBinomial", "quasi": "Quasi", "tweedie": "Tweedie"}
LINK_CLASSES = {"power": "Power"}


def of_kind(kind: str) -> list[Case]:
    """The cases of families.json that are "glm", "glm.nb", "gamma.shape" or "firth"."""
    return [case for case in FAMILIES if case["kind"] == kind]


def of_family(family: str) -> list[Case]:
    """The cases of vector.json that are "multinomial" or "ordinal"."""
    return [case for case in VECTOR if case["family"] == family]


# pandas reads every digit by itself from version 3 on, and says so where it is asked to.
EXACT: dict[str, Any] = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}


def frame(case: Case) -> pd.DataFrame:
    """The data set, every number as it was written; classes in another order than the sorted one as an ordered factor."""
    table = pd.read_csv(HERE / "data" / case["data"], **EXACT)
    if "levels" in case and (case["family"] == "ordinal" or case["levels"] != sorted(case["levels"])):
        table[case["response"]] = pd.Categorical(table[case["response"]], case["levels"], ordered=True)
    return table


def options(case: Case) -> dict[str, Any]:
    """Keywords of `glm` for a case."""
    family, link, weights = case["family"], case["link"], None
    if case.get("family_arguments"):
        family = getattr(dg.families, FAMILY_CLASSES[family])(**case["family_arguments"])
    if case.get("link_arguments"):
        link = getattr(dg.links, LINK_CLASSES[link])(**case["link_arguments"])
    if case["weights"] is not None:
        kind = {"trials": dg.Trials, "variance": dg.Variance, "frequency": dg.Frequency}[case["weights"]["type"]]
        weights = kind(case["weights"]["column"])
    return {"family": family, "link": link, "weights": weights, "offset": case["offset"]}


def lake(case: Case, folder: Path, files: int) -> Path:
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
