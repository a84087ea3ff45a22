"""A model as a folder of plain files: JSON and Parquet, read back without running anything that is in them.

model/current.json           {"format": 1, "run": "ID"}, replaced as the last act; readers follow it.
                             A run that did not pass is kept and not named here
model/runs/ID/model.json     the record without its numbers per parameter
model/runs/ID/parameters.parquet   name, term, estimate, standard error, aliased
model/runs/ID/covariance.parquet   one column per parameter; left out of a model with a factor of
many levels model/runs/ID/working.parquet      the estimate on its working scale: coefficients, and
the covariance, one column each; of a
                                   factor of many levels its diagonal and the columns of a matrix H,
                                   diagonal + H H'
model/runs/ID/run.json       when and where it was made
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shlex
from dataclasses import asdict, dataclass, fields
from functools import partial
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from daskglm.cluster.folders import Folder, folder_of
from daskglm.design.columns import Ledger
from daskglm.design.design import Design
from daskglm.design.parameters import Parameters
from daskglm.design.pieces import Piece
from daskglm.design.transforms import document_of, state_of
from daskglm.errors import ChangedInputError, ConvergenceWarning, DataError, DesignError, closest, warn
from daskglm.kernels.basis import Basis
from daskglm.kernels.bordered import LowRank
from daskglm.model.custom import Custom
from daskglm.model.exponential import ExponentialFamily
from daskglm.model.pairs import resolve
from daskglm.model.quasi import Quasi
from daskglm.record import Certificate, FitRecord, Separation, Specification, Statistics, WorkingEstimate

Matrix = npt.NDArray[np.float64]

FORMAT = 1
CURRENT = "current.json"
PUBLISH = ("always", "converged")
COMPLAINT = "the model cannot be written to {place}"
# What can be of one's own in a model, by the name it has in files.
OWN: dict[str, Any] = {"exponential_family": ExponentialFamily, "quasi": Quasi, "custom": Custom}


def save(
    record: FitRecord,
    path: str | os.PathLike[str] | Folder,
    publish: str | None = None,
    passed: bool = True,
) -> Saved:
    """Write a model as a run of its folder; to publish it is to let current.json name it.

    publish, passed: as in `publishes`. What was there stays whole until the new run is complete.
    """
    folder = folder_of(path, COMPLAINT, lasting=True)
    refuse_foreign(folder)
    before = identified(folder, CURRENT)
    published = publishes(publish, passed and record.converged, before is not None)
    with Runs(folder) as runs:
        run = runs.write(record, folder)
        if published:
            runs.publish(folder, run, before)
    return Saved(folder.place, runs.places, published)


@final
@dataclass(frozen=True)
class Saved:
    """What was written: the folder, a run for each response, and whether they are published."""

    place: str
    runs: tuple[str, ...]
    published: bool

    def warn(self) -> None:
        """Warn where a run was not published."""
        if not self.published:
            warn(
                f"the fit did not converge, and the model published in {self.place} stays; the run is "
                f'kept in {", ".join(self.runs)}, and publish="always" publishes such runs, too',
                ConvergenceWarning,
            )


def publishes(publish: str | None, passed: bool, before: bool = False) -> bool:
    """Return whether a run becomes the current one of its folder.

    publish: "always"; "converged", where it passed; None, also where there is none before.
    """
    if publish not in (None, *PUBLISH):
        listed = " or ".join(f'"{choice}"' for choice in PUBLISH)
        raise DesignError(f"publish={publish!r} is not {listed}{closest(publish, PUBLISH)}")
    return publish == "always" or passed or (publish is None and not before)


@final
class Runs:
    """Runs under way, one for each response: all are removed where one cannot be written."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._named = folder, False
        self._written: list[tuple[Folder, Folder]] = []

    def write(self, record: FitRecord, folder: Folder) -> str:
        """Write the run of a response's model into its folder."""
        run = write_run(record, folder)
        self._written.append((folder, folder.child("runs").child(run)))
        return run

    def publish(self, folder: Folder, run: str, before: Identified | None) -> None:
        """Let the current.json of a response's folder name its run, which stays from then on."""
        point_at(folder, run, before)
        self._named = True

    @property
    def places(self) -> tuple[str, ...]:
        """Where they are."""
        return tuple(run.place for _, run in self._written)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self._named or isinstance(error, ChangedInputError):
            return
        for folder, run in self._written:
            run.erase()
            folder.child("runs").discard()
            folder.discard()
        self._folder.discard()


def point_at(folder: Folder, run: str, before: Identified | None) -> None:
    """Let a folder's current.json name a run; before: the file as it was when the run was begun."""
    tag = None if before is None else before.tag
    if not folder.swap(CURRENT, _json({"format": FORMAT, "run": run}), tag):
        raise ChangedInputError(
            f"another run was published in {folder.place} while this one was written: this one is kept in "
            f"{folder.child('runs').child(run).place}, and {CURRENT} names the other"
        )


@final
@dataclass(frozen=True)
class Identified:
    """A file that is there; tag: what `Folder.swap` takes to recognise it."""

    tag: str | None


def identified(folder: Folder, name: str) -> Identified | None:
    """Return what identifies a file as it is now; None where there is none."""
    try:
        return Identified(folder.read_with_tag(name)[1])
    except FileNotFoundError:
        return None


def refuse_foreign(folder: Folder) -> None:
    """Raise DesignError where a model cannot be saved because of what is there.

    A checkpoint may lie in the folder of its model.
    """
    kind = folder.kind()
    if kind == "file":
        raise DesignError(f"{folder.place} is a file: a model is saved as a folder")
    names = set(folder.names()) if kind else set()
    if not names or names & {CURRENT, "responses.json", "runs"} or "runs" in folder.child("0").names():
        return
    if not all("checkpoint.json" in folder.child(name).names() for name in names):
        raise DesignError(f"{folder.place} holds other files: give a new or an empty folder for the model")


def write_run(record: FitRecord, folder: Folder) -> str:
    """Write a run that appears when it is complete; return its name."""
    stamp = datetime.datetime.now(datetime.UTC)
    run = f"{stamp:%Y%m%dT%H%M%S}-{stamp.microsecond:06d}"
    about = {
        "written": stamp.isoformat(),
        "host": platform.node(),
        "converged": record.converged,
        "provenance": dict(record.provenance),
    }
    tables = {
        "parameters.parquet": _parameters(record),
        "working.parquet": _working(record),
    }
    if not isinstance(record.working.held, LowRank):
        tables["covariance.parquet"] = _covariance(record)
    document = _json(_document(record))
    with folder.child("runs").child(run).draft() as draft:
        draft.write("model.json", document)
        for name, table in tables.items():
            draft.write(name, partial(pq.write_table, table))
        draft.write("run.json", _json(about))
    return run


def load(path: str | os.PathLike[str] | Folder) -> FitRecord:
    """Read a model back, from its folder or from one of the runs in it.

    DataError where a file is missing, damaged, or of a format this version does not know.
    """
    folder = folder_of(path, "{place} cannot be read")
    if folder.kind() is None:
        raise DesignError(f"{folder.place} does not exist")
    names = folder.names()
    if "model.json" in names:
        return _run(folder)
    if "responses.json" in names:
        raise DesignError(f"{folder.place} holds a model for each of several responses: name one of its folders")
    if CURRENT not in names:
        refuse_unpublished(folder)
        raise DesignError(f"{folder.place} is not a saved model: it has no {CURRENT}")
    current = _versioned(folder, CURRENT)
    run = str(current.get("run"))
    if os.path.basename(run) != run or run in ("", ".", ".."):
        raise DataError(f"{folder.place}/{CURRENT} names no run")
    return _run(folder.child("runs").child(run))


def refuse_unpublished(folder: Folder, beginning: str = "") -> None:
    """Raise DesignError for a folder of runs, none of which was published.

    beginning: what the sentence begins with.
    """
    runs = [name for name in folder.child("runs").names() if not name.startswith((".", "_"))]
    if not runs:
        return
    latest = folder.child("runs").child(runs[-1]).place
    state = f"{beginning}{folder.place} has no published model: none of its {len(runs)} run(s) passed"
    again = "or fit again with --publish always"
    error = DesignError(f'{state}. Read the latest all the same with load("{latest}"), {again}')
    path = shlex.quote(latest)
    error.on_command_line = (
        f"{state}. Name the latest all the same, daskglm predict {path} ... or daskglm summary {path}, {again}"
    )
    raise error


def _run(place: Folder) -> FitRecord:
    document = _versioned(place, "model.json")
    try:
        estimates = _table(place, "parameters.parquet").column("estimate").to_numpy(zero_copy_only=False)
        # models of earlier versions have no working estimate
        has_working = "basis" in document
        numbers = _columns(place, "working.parquet" if has_working else "covariance.parquet")
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"{place.place} is damaged: {' '.join(str(error).split())}") from None
    try:
        return _record(document, np.array(estimates, float), numbers, has_working)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{place.place}/model.json is damaged: {type(error).__name__} {error}") from None


def _table(place: Folder, name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(place.read(name)))


# -- to documents --------------------------------------------------------------------------------------------------


def _document(record: FitRecord) -> dict[str, Any]:
    design = record.design
    return {
        "format": FORMAT,
        "specification": asdict(record.specification),
        "design": {
            "terms": list(design.terms),
            "intercept": design.intercept,
            "pieces": [asdict(piece) for piece in design.pieces],
            "levels": {name: [_level(level) for level in levels] for name, levels in design.levels.items()},
            "baselines": dict(design.baselines),
            "names": list(design.names),
            "term_of": list(design.term_of),
            "select": design.select.tolist(),
            "moments": [[list(key), list(value)] for key, value in design.moments.items()],
            "y_levels": [_level(level) for level in design.y_levels],
            "notes": list(design.notes),
            "sizes": design.sizes.tolist(),
            "states": {name: document_of(state) for name, state in design.states.items()},
        },
        "aliased": {name: dict(parts) for name, parts in record.aliased.items()},
        "separated": list(record.separated),
        "separation": None if record.separation is None else _separation(record.separation),
        "statistics": asdict(record.statistics),
        "converged": record.converged,
        "status": record.status,
        "reason": record.reason,
        "n_iter": record.n_iter,
        "n_passes": record.n_passes,
        "decodes": record.decodes,
        "certificate": asdict(record.certificate),
        "ledger": asdict(record.ledger),
        "trace": [dict(step) for step in record.trace],
        "notes": list(record.notes),
        "provenance": dict(record.provenance),
        "own": _own(record),
        "shape": {name: list(pair) for name, pair in record.shape.items()},
        "basis": _basis(record.working.basis),
        "low_rank": isinstance(record.working.held, LowRank),
    }


def _separation(separation: Separation) -> dict[str, Any]:
    return {
        "rows": separation.rows,
        "directions": separation.directions.tolist(),
        "finite": separation.finite.tolist(),
        "dropped": separation.dropped,
    }


def _own(record: FitRecord) -> dict[str, Any]:
    """Families and links of one's own by their import paths; DesignError where they have none."""
    found: dict[str, Any] = {}
    for part, given in (("family", record.family), ("link", record.link)):
        kind = next((name for name, made in OWN.items() if isinstance(given, made)), None)
        if kind == "quasi" and isinstance(given.variance_given, str):
            continue
        if kind is not None:
            found[part] = {"kind": kind, **given.document()}
    return found


def _pair(document: Any) -> tuple[Any, Any]:
    """Family and link; functions of one's own must have been imported already: a file that is read imports nothing."""
    found, specification = document.get("own", {}), document["specification"]
    family: Any = specification["family"]
    if "family" in found:
        given = dict(found["family"])
        family = OWN[given.pop("kind")].from_document(given)
    link: Any = specification["link"]
    if "link" in found:
        given = dict(found["link"])
        link = OWN[given.pop("kind")].from_document(given)
    return resolve(family, link)


def _level(level: Any) -> Any:
    """A level with its type, which JSON would lose for dates and whole floats."""
    if isinstance(level, bool) or level is None or isinstance(level, str):
        return level
    if isinstance(level, int):
        return {"$int": str(level)}
    if isinstance(level, float):
        return {"$float": level.hex()}
    raise DesignError(f"a level of type {type(level).__name__} cannot be saved")


def _parameters(record: FitRecord) -> pa.Table:
    return pa.table(
        {
            "name": list(record.names),
            "term": list(record.parameters.term_of),
            "estimate": record.coefficients,
            "standard_error": record.errors,
            "aliased": [name in record.aliased for name in record.names],
        }
    )


def _basis(basis: Basis | None) -> dict[str, Any] | None:
    """Where columns stand for their residuals: places, and the directions as columns."""
    if basis is None:
        return None
    return {"columns": basis.columns.tolist(), "directions": basis.directions.T.tolist()}


def _working(record: FitRecord) -> pa.Table:
    working = record.working
    columns = {"coefficient": working.coefficients}
    if isinstance(working.held, LowRank):
        columns |= {"diagonal": working.held.diagonal}
        columns |= {f"half {j}": column for j, column in enumerate(working.held.half.T)}
    else:
        columns |= {str(j): column for j, column in enumerate(working.held.T)}
    return pa.table({name: pa.array(column) for name, column in columns.items()})


def _covariance(record: FitRecord) -> pa.Table:
    return pa.table([pa.array(column) for column in record.covariance.T], names=list(record.names))


def _json(document: Any) -> bytes:
    text = json.dumps(_finite(document), indent=1, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def _finite(value: Any) -> Any:
    """NaN and infinities as text: JSON has none."""
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    return value


# -- from documents ------------------------------------------------------------------------------------------------


def _versioned(folder: Folder, name: str) -> Any:
    place = f"{folder.place}/{name}"
    try:
        document = _parsed(json.loads(folder.read(name).decode("utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{place} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise DataError(f"{place} is damaged: it holds no object")
    if document.get("format") != FORMAT:
        raise DataError(f"{place} has format {document.get('format')}, this version reads format {FORMAT}")
    return document


def _parsed(value: Any) -> Any:
    if isinstance(value, list):
        return [_parsed(entry) for entry in value]
    if isinstance(value, dict):
        text = value.get("$float", value.get("$int"))
        if len(value) == 1 and isinstance(text, str):
            return int(text) if "$int" in value else float.fromhex(text) if "x" in text else float(text)
        return {key: _parsed(entry) for key, entry in value.items()}
    return value


def _only(kind: Any, document: Any) -> Any:
    """A dataclass from the fields it knows; later additions in a file of this format are left alone."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in document.items() if name in known})


def _columns(place: Folder, name: str) -> Matrix:
    table = _table(place, name)
    columns = [table.column(i).to_numpy(zero_copy_only=False) for i in range(table.num_columns)]
    return np.array(np.column_stack(columns) if columns else np.zeros((0, 0)), float)


def _record(document: Any, coefficients: Any, numbers: Matrix, has_working: bool) -> FitRecord:
    d = document["design"]
    pieces = tuple(_only(Piece, {k: tuple(v) if isinstance(v, list) else v for k, v in p.items()}) for p in d["pieces"])
    design = Design(
        tuple(d["terms"]), d["intercept"], pieces, {k: tuple(v) for k, v in d["levels"].items()}, d["baselines"],
        tuple(d["names"]), tuple(d["term_of"]), np.array(d["select"], np.int64),
        {tuple(key): tuple(value) for key, value in d["moments"]}, tuple(d["y_levels"]), tuple(d["notes"]),
        np.array(d.get("sizes", []), float), {name: state_of(state) for name, state in d.get("states", {}).items()},
    )  # fmt: skip
    specification = dict(document["specification"])
    count = Parameters(design, specification.get("response_kind", "number")).n
    low_rank = bool(document.get("low_rank", False))
    if count != coefficients.size or len(numbers) != count or not (low_rank or numbers.shape[1] == count + has_working):
        raise ValueError("its tables do not fit its design")
    if specification["weights"] is not None:
        specification["weights"] = tuple(specification["weights"])
    specification["predictors"] = tuple(specification["predictors"])
    statistics = dict(document["statistics"])
    statistics["clusters"] = tuple(statistics.get("clusters", ()))
    certificate = dict(document["certificate"])
    certificate["residual_columns"] = tuple(certificate["residual_columns"])
    separation = _separation_of(document.get("separation"), coefficients.size)
    parameters = Parameters(design, specification.get("response_kind", "number"))
    if low_rank:
        working = WorkingEstimate(
            numbers[:, 0].copy(), LowRank(numbers[:, 1].copy(), np.ascontiguousarray(numbers[:, 2:]))
        )
    elif has_working:
        basis = _basis_of(document["basis"], count)
        working = WorkingEstimate(numbers[:, 0].copy(), np.ascontiguousarray(numbers[:, 1:]), basis)
    else:
        working = _from_reported(parameters, coefficients, numbers, document.get("separation"))
    return FitRecord(
        _only(Specification, specification), design, coefficients, document["aliased"],
        tuple(document["separated"]), _only(Statistics, statistics), document["converged"],
        document["status"], document["reason"], document["n_iter"], document["n_passes"], document["decodes"],
        _only(Certificate, certificate), _only(Ledger, document["ledger"]), tuple(document["trace"]),
        tuple(document["notes"]), document["provenance"],
        {name: tuple(pair) for name, pair in document.get("shape", {}).items()},
        separation, *_pair(document), working=working,
    )  # fmt: skip


def _basis_of(document: Any, p: int) -> Basis | None:
    if document is None:
        return None
    columns = np.array(document["columns"], np.int64)
    directions = np.array(document["directions"], float).reshape(columns.size, p).T
    return Basis(columns, np.ascontiguousarray(directions))


def _from_reported(parameters: Parameters, coefficients: Any, covariance: Matrix, separation: Any) -> WorkingEstimate:
    """The working estimate of a model that was saved without one; separation: its document, None where there is none."""
    finite, errors = np.nan_to_num(coefficients), np.nan_to_num(covariance)
    if separation is not None:
        finite = np.array(separation["finite"], float)
        for j, row in zip(separation["held"], separation["cross"], strict=True):
            errors[j, :] = row
            errors[:, j] = row
    return WorkingEstimate(parameters.own(finite), parameters.own_covariance(errors))


def _separation_of(document: Any, p: int) -> Separation | None:
    if document is None:
        return None
    return Separation(
        int(document["rows"]),
        np.array(document["directions"], float).reshape(-1, p),
        np.array(document["finite"], float).reshape(p),
        bool(document.get("dropped", False)),
    )
