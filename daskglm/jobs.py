"""A fit described in a TOML file, and predictions written partition by partition."""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from daskglm.cluster.connect import SCHEDULER_OPTIONS
from daskglm.cluster.local import open_partitions
from daskglm.cluster.sources import open_source
from daskglm.errors import DesignError, closest
from daskglm.model.weights import WEIGHTS, cluster_of
from daskglm.plan import DEFAULTS
from daskglm.predict import Prediction, scorer
from daskglm.record import FitRecord
from daskglm.writing import new_folder, write_parts

JOB_KEYS = ("formula", "data", "out", *DEFAULTS, "threads", "memory_limit", "progress", *SCHEDULER_OPTIONS)
_CALL = re.compile(r"\s*(?:dg\.)?([A-Za-z_]+)\s*\(\s*(.*?)\s*\)\s*", re.DOTALL)
_BYTES = re.compile(r"\s*([0-9.]+)\s*([kKmMgGtT]?)(i?)[bB]?\s*")


def read_job(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys of a job file: `formula`, `data`, `out` and any keyword of `daskglm.glm`."""
    try:
        with open(path, "rb") as handle:
            document = tomllib.load(handle)
    except FileNotFoundError:
        raise DesignError(f"{path} does not exist") from None
    except tomllib.TOMLDecodeError as error:
        raise DesignError(f"{path} is not TOML: {error}") from None
    for key in document:
        if key not in JOB_KEYS:
            raise DesignError(f"{path}: there is no key {key!r}{closest(key, JOB_KEYS)}; keys: {', '.join(JOB_KEYS)}")
    return document


def weights(text: str | None) -> Any:
    """Weights written as text: a column, or "frequency(n)", "variance(w)", "probability(w)", "trials(n)"."""
    if text is None:
        return None
    call = _CALL.fullmatch(text)
    if not call:
        return text
    name = call.group(1).lower()
    if name not in WEIGHTS:
        raise DesignError(f"{text!r} is no kind of weights{closest(name, WEIGHTS)}; there are: {', '.join(WEIGHTS)}")
    return WEIGHTS[name](call.group(2).strip("\"'`"))


def byte_count(text: str | int | None) -> int | None:
    """ "2 GiB", "1500MB" or a number of bytes."""
    if text is None or isinstance(text, int):
        return text
    match = _BYTES.fullmatch(text)
    if not match:
        raise DesignError(f"{text!r} is not an amount of memory, such as 2GiB")
    base = 1024 if match.group(3) else 1000
    return int(float(match.group(1)) * base ** " kmgt".index(match.group(2).lower() or " "))


def write_predictions(
    record: FitRecord,
    data: Any,
    out: str | os.PathLike[str],
    prediction: Prediction,
    offset: Any = None,
    exposure: Any = None,
    carried: tuple[str, ...] | None = None,
    threads: int | None = None,
) -> int:
    """Score a source leaf by leaf into a folder of Parquet files that appears only when it is complete.

    carried: columns of the data to write beside the predictions; None: all of them. Returns the number of rows.
    """
    target = new_folder(out, "predictions")
    source = open_source(data)
    score = scorer(record, prediction, source, offset, exposure)
    # terms are called what the columns are called, and stand alone
    everything = () if prediction.kind == "terms" else tuple(source.types)
    beside = everything if carried is None else carried
    for name in beside:
        if name not in source.types:
            raise DesignError(f"there is no column {name!r} to carry along{closest(name, source.types)}")
        if name in score.columns:
            raise DesignError(f"the data already have a column {name!r}: choose with --columns what to carry along")
    read = tuple(dict.fromkeys((*score.reading.columns, *beside))) or tuple(source.types)[:1]
    source.select(read)
    partitions = open_partitions(source, read, "reread", threads)
    return write_parts(target, partitions.map(_scored, score, beside), score.columns)


def _scored(leaf: Any, score: Any, beside: tuple[str, ...]) -> pa.Table:
    table = leaf.table.select(list(beside))
    for name, values in score.score(leaf).items():
        table = table.append_column(name, pa.array(values, from_pandas=True))
    return table


def options_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of `glm` in a job, with weights and clusters read."""
    chosen = {key: value for key, value in document.items() if key in DEFAULTS and value is not None}
    if isinstance(chosen.get("weights"), str):
        chosen["weights"] = weights(chosen["weights"])
    if str(chosen.get("covariance", "")).strip().lower().startswith(("cluster", "dg.cluster")):
        chosen["covariance"] = cluster_of(str(chosen["covariance"]))
    if isinstance(chosen.get("dispersion"), str):
        with contextlib.suppress(ValueError):
            chosen["dispersion"] = float(chosen["dispersion"])
    return chosen
