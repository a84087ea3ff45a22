"""A fit described in a TOML file, and predictions written partition by partition."""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import unquote

import pyarrow as pa

from daskglm.cluster.connect import SCHEDULER_OPTIONS
from daskglm.cluster.engine import Engine, open_rows
from daskglm.cluster.folders import Folder, is_url
from daskglm.cluster.lakes import ParquetLake
from daskglm.cluster.sources import Source, open_source
from daskglm.design import expressions, formula
from daskglm.errors import DesignError, closest
from daskglm.model.weights import WEIGHTS, cluster_of
from daskglm.plan import DEFAULTS
from daskglm.predict import Prediction, Tally, scorer, warn_unconverged
from daskglm.record import FitRecord
from daskglm.writing import new_folder, refuse_other_files, write_parts

_CALL = re.compile(r"\s*(?:dg\.)?([A-Za-z_]+)\s*\(\s*(.*?)\s*\)\s*", re.DOTALL)
_BYTES = re.compile(r"\s*([0-9.]+)\s*([kKmMgGtT]?)(i?)[bB]?\s*")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return _text(value) or (isinstance(value, list) and bool(value) and all(map(_text, value)))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _whole(value) or isinstance(value, float)


# What a job file may hold under a key that is not text.
OTHER_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "data": (_texts, "a path or a list of paths"),
    "dispersion": (lambda value: _text(value) or _number(value), "a number or a rule as text"),
    "tol": (_number, "a number"),
    "max_iter": (_whole, "a whole number"),
    "start": (lambda value: isinstance(value, (list, dict)), "a list or a table of numbers"),
    "penalty": (lambda value: True, ""),
    "constraints": (lambda value: True, ""),
    "threads": (lambda value: _whole(value) and value >= 1, "a whole number of at least 1"),
    "memory_limit": (lambda value: _text(value) or _whole(value), 'an amount of memory, such as "2GiB"'),
    "progress": (lambda value: isinstance(value, bool), "true or false"),
}
# Keys whose values are paths, which are relative to the file.
PATH_KEYS = ("data", "out", "checkpoint", "scheduler_file", "tls_ca_file", "tls_cert", "tls_key")
JOB_KEYS = ("formula", "data", "out", "publish", *DEFAULTS, "threads", "memory_limit", "progress", *SCHEDULER_OPTIONS)


def read_job(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the keys of a job file: `formula`, `data`, `out` and any keyword of `daskglm.glm`.

    Relative paths in it are relative to the file. DesignError names a key of the wrong kind.
    """
    try:
        with open(path, "rb") as handle:
            document = tomllib.load(handle)
    except FileNotFoundError:
        raise DesignError(f"{path} does not exist") from None
    except OSError as error:
        raise DesignError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DesignError(f"{path} is not UTF-8 text (byte {error.start}): save it in that encoding") from None
    except tomllib.TOMLDecodeError as error:
        raise DesignError(f"{path} is not TOML: {error}") from None
    for key, value in document.items():
        if key not in JOB_KEYS:
            raise DesignError(f"{path}: there is no key {key!r}{closest(key, JOB_KEYS)}; keys: {', '.join(JOB_KEYS)}")
        right, wanted = OTHER_KINDS.get(key, (_text, "text"))
        if not right(value):
            raise DesignError(f"{path}: the key {key!r} takes {wanted}, not {_shown(value)}")
    for key in ("formula", "data"):
        if not document.get(key):
            state = "empty" if key in document else "missing"
            raise DesignError(f"{path}: the key {key!r} is {state}")
    base = os.path.dirname(os.fspath(path))
    for key in document.keys() & set(PATH_KEYS):
        value = document[key]
        document[key] = _placed(value, base) if _text(value) else [_placed(one, base) for one in value]
    return document


def _placed(path: str, base: str) -> str:
    """Return a path that is relative to a folder as it is seen from here; URLs stay as they are."""
    return path if is_url(path) else os.path.join(base, os.path.expanduser(path))


def _shown(value: Any) -> str:
    words = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}
    kind = words.get(type(value), type(value).__name__)
    return (
        kind
        if isinstance(value, (list, dict))
        else f"{kind} ({value})"
        if kind != "true or false"
        else str(value).lower()
    )


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


@final
@dataclass(frozen=True)
class Scored:
    """What was written: rows with and without a prediction, and rows that a filter left out."""

    tally: Tally
    filtered: int


@final
@dataclass(frozen=True)
class Scoring:
    """What to write, and where it is computed.

    carried: columns of the data to write beside the predictions, None for all; where: which rows;
    overwrite: whether predictions that are there already are replaced.
    """

    prediction: Prediction
    offset: Any = None
    exposure: Any = None
    carried: tuple[str, ...] | None = None
    where: str | None = None
    overwrite: bool = False


def write_predictions(
    record: FitRecord, data: Any, out: str | os.PathLike[str], scoring: Scoring, engine: Engine
) -> Scored:
    """Score a source into a folder of Parquet files that appears when it is complete.

    Folders of the data whose names carry a value, year=2024, are folders of the output.
    """
    target = new_folder(out, "predictions", scoring.overwrite)
    source = open_source(data)
    _refuse_own_input(source, target)
    if scoring.overwrite:
        refuse_other_files(target, "predictions")
    warn_unconverged(record)
    score = scorer(record, scoring.prediction, source, scoring.offset, scoring.exposure)
    beside = _carried(source, score.columns, scoring, target)
    read = tuple(dict.fromkeys((*score.reading.columns, *beside))) or tuple(source.types)[:1]
    condition, used = _filter(scoring.where, source)
    source.select(read, condition, used)
    types = {name: source.types[name] for name in beside} | dict.fromkeys(score.columns, pa.float64())
    empty = pa.table({name: pa.array([], kind) for name, kind in types.items()})
    tallies = [Tally()]
    left_out = [source.pruned_rows]

    def tables() -> Iterator[tuple[str, pa.Table]]:
        if not source.leaves:
            return
        partitions = open_rows(source, read, "reread", engine)
        try:
            parts = partitions.map(_scored, score, beside)
            for (table, tally, filtered), folder in zip(parts, _folders_of(source), strict=True):
                tallies[0] += tally
                left_out[0] += filtered
                yield folder, table
        finally:
            partitions.release()

    write_parts(target, tables(), empty, "predictions", scoring.overwrite)
    return Scored(tallies[0], left_out[0])


def _filter(where: str | None, source: Source) -> tuple[Any, tuple[str, ...]]:
    """An Arrow condition and the columns it needs."""
    if where is None:
        return None, ()
    expression = expressions.parse_filter(where)
    formula.require_columns(expression.columns, source.types, f"where={where!r}")
    return expressions.to_arrow(expression, source.types), expression.columns


def _folders_of(source: Source) -> Iterator[str]:
    """The folder of the output that each partition of the source goes to."""
    for leaf in source.leaves:
        yield source.files[leaf.file].folders if isinstance(source, ParquetLake) else ""


def _refuse_own_input(source: Source, target: Folder) -> None:
    """Refuse to write predictions where the data are."""
    if not isinstance(source, ParquetLake):
        return
    folder = target.place if target.remote else os.path.realpath(target.place)
    for file in source.files:
        path = os.path.realpath(file.path) if source.local else file.path
        if path.startswith(f"{folder.rstrip('/')}/"):
            raise DesignError(f"{target.place} holds the data that are to be scored: name another folder")


def _carried(source: Source, predicted: tuple[str, ...], scoring: Scoring, target: Folder) -> tuple[str, ...]:
    """Columns of the data that are written beside the predictions."""
    # terms are called what the columns are called, and stand alone
    everything = () if scoring.prediction.kind == "terms" else tuple(source.types)
    beside = everything if scoring.carried is None else scoring.carried
    for name in beside:
        if name not in source.types:
            raise DesignError(f"there is no column {name!r} to carry along{closest(name, source.types)}")
        if name in predicted:
            raise DesignError(f"the data already have a column {name!r}: choose with --columns what to carry along")
    # what a folder's name says is not said again in its files
    parts = [part for file in getattr(source, "files", ()) for part in file.folders.split("/")]
    named = {unquote(part.partition("=")[0]) for part in {*parts, *target.place.split("/")} if "=" in part}
    folders = set(getattr(source, "folder_columns", ()))
    return tuple(name for name in beside if not (name in folders and name in named))


def _scored(leaf: Any, score: Any, beside: tuple[str, ...]) -> tuple[pa.Table, Tally, int]:
    table = leaf.table.select(list(beside))
    values, tally = score.tallied(leaf)
    for name, column in values.items():
        table = table.append_column(name, pa.array(column, from_pandas=True))
    return table, tally, leaf.rows - leaf.table.num_rows


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
