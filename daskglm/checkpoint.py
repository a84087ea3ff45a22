"""A fit that can be interrupted: every total is written down as it is learnt, and read back instead of being computed again.

All that a fit knows of the data are totals, and everything between them is arithmetic that gives the same bits each time.
So a fit begun again takes the same way, meets the totals that are written down in the same order, and goes on from the last
as if it had never stopped. What is written are plain arrays and JSON; nothing is executed when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import IO, Any, final

import numpy as np
from scipy.sparse import csr_array

from daskglm.cluster.folders import DRAFT, Folder, open_folder
from daskglm.design.columns import Ledger
from daskglm.design.profile import Profile
from daskglm.design.transforms import Spread
from daskglm.errors import ChangedInputError, DaskglmError, DesignError
from daskglm.kernels.products import Gram, Layout
from daskglm.kernels.sparse import SparseTables
from daskglm.model.own import Probe, code_of
from daskglm.partitions import Partitions
from daskglm.together import Several
from daskglm.totals.bias import Adjusted
from daskglm.totals.boundary import Guarded, Reach, Slack
from daskglm.totals.clusters import ClusterProducts
from daskglm.totals.likelihood import Number
from daskglm.totals.moments import FitStats, Moments
from daskglm.totals.occurrences import Occurrences
from daskglm.totals.refinement import TwofoldScore
from daskglm.totals.residuals import ResidualProducts
from daskglm.totals.scores import Meat
from daskglm.totals.separation import Movements, Separated, Split
from daskglm.totals.shape import JointSums, MixedSums, ShapeSums
from daskglm.totals.vector import PairTables, ParallelTables
from daskglm.version import __version__

FORMAT = 1
# Records that totals are made of: what a file may ask for, and no other class.
RECORDS: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (
        Profile,
        Spread,
        Ledger,
        Moments,
        FitStats,
        Gram,
        Layout,
        SparseTables,
        ResidualProducts,
        Number,
        Movements,
        Split,
        Separated,
        Adjusted,
        ShapeSums,
        MixedSums,
        JointSums,
        PairTables,
        ParallelTables,
        Occurrences,
        Meat,
        ClusterProducts,
        TwofoldScore,
        Slack,
        Guarded,
        Reach,
        Several,
    )
}


# -- records as arrays and JSON ------------------------------------------------------------------------------------------


def to_plain(value: Any, arrays: list[Any]) -> Any:
    """A record as JSON, its arrays set aside and named by their place."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, csr_array):
        arrays += [value.data, value.indices, value.indptr]
        return {"csr": [len(arrays) - 3, *value.shape]}
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        if RECORDS.get(name) is not type(value):
            raise TypeError(f"{name} is no record of a total")
        return {"record": name, "fields": {f.name: to_plain(getattr(value, f.name), arrays) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {"map": [[to_plain(key, arrays), to_plain(entry, arrays)] for key, entry in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [to_plain(entry, arrays) for entry in value]}
    if isinstance(value, list):
        return {"list": [to_plain(entry, arrays) for entry in value]}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return {"float": value.hex() if math.isfinite(value) else repr(value)}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"a total holds a {type(value).__name__}, which cannot be written down")


def from_plain(document: Any, arrays: Sequence[Any]) -> Any:
    """The record that `to_plain` described."""
    if not isinstance(document, dict):
        return document
    ((kind, content), *rest) = document.items()
    if kind == "array":
        return arrays[content]
    if kind == "csr":
        at, rows, columns = content
        return csr_array(tuple(arrays[at : at + 3]), shape=(rows, columns))
    if kind == "record":
        inner = dict(rest)["fields"]
        return RECORDS[content](**{name: from_plain(entry, arrays) for name, entry in inner.items()})
    if kind == "map":
        return {from_plain(key, arrays): from_plain(entry, arrays) for key, entry in content}
    if kind == "tuple":
        return tuple(from_plain(entry, arrays) for entry in content)
    if kind == "list":
        return [from_plain(entry, arrays) for entry in content]
    if kind == "float":
        return float.fromhex(content) if "x" in content else float(content)
    raise ValueError(f"{kind} is not known")


def digest(value: Any) -> str:
    """A name for arguments that is the same in another process: of arrays their bytes, of functions their names."""
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()[:24]


def _feed(state: Any, value: Any) -> None:
    state.update(type(value).__name__.encode() + b"(")
    if isinstance(value, np.ndarray):
        state.update(f"{value.dtype.str}{value.shape}".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, csr_array):
        for part in (value.data, value.indices, value.indptr):
            _feed(state, part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            _feed(state, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            _feed(state, key)
            _feed(state, entry)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            _feed(state, entry)
    elif isinstance(value, (set, frozenset)):
        for entry in sorted(value, key=repr):
            _feed(state, entry)
    elif isinstance(value, float):
        state.update(value.hex().encode())
    elif hasattr(value, "to_dict") and hasattr(value, "__array__"):
        # a Series, of which repr would leave out the middle
        _feed(state, value.to_dict())
    elif callable(value):
        state.update(str(getattr(value, "__qualname__", type(value).__qualname__)).encode())
    else:
        state.update(repr(value).encode())
    state.update(b")")


# -- the log ---------------------------------------------------------------------------------------------------------------

IDENTITY = "checkpoint.json"
_TOTAL = re.compile(r"total-\d+\.npz")


@final
class Log:
    """Totals in the order in which a fit asked for them, a file each; `data` and `plan` name what they belong to.

    functions: the functions of one's own that the plan uses, whose names alone are part of `plan`.
    """

    def __init__(
        self, path: str | os.PathLike[str], plan: str, data: str, functions: Mapping[str, Probe] | None = None
    ) -> None:
        self.folder = checkpoint_folder(path)
        self._next = 0
        self._replaying = True
        self.replayed = 0
        self._functions = {} if functions is None else functions
        found = {
            name: {"code": code_of(probe.function), "values": [value.hex() for value in probe.values()]}
            for name, probe in self._functions.items()
        }
        self._claim({"format": FORMAT, "version": __version__, "plan": plan, "data": data, "functions": found})

    def _claim(self, identity: dict[str, Any]) -> None:
        """Make the folder ours: begin anew where data or version changed, refuse what is another fit's or no log at all."""
        names = [name for name in self.folder.names() if not name.startswith(DRAFT)]
        place = self.folder.place
        if names and IDENTITY not in names:
            raise DesignError(f"checkpoint={place!r} is a folder with other things in it: name a new one")
        found = self._found(IDENTITY in names, identity)
        if identity["functions"].keys() == found.get("functions", {}).keys():
            self._refuse_other_functions(found["functions"], identity["functions"])
        if found["plan"] != identity["plan"]:
            raise DesignError(f"checkpoint={place!r} holds the state of another model: name another path, or remove it")
        if found != identity:
            for name in filter(_TOTAL.fullmatch, names):
                self.folder.remove(name)
            self.folder.write(IDENTITY, json.dumps(identity).encode())

    def _found(self, there: bool, identity: dict[str, Any]) -> dict[str, Any]:
        """Whose log it is; a file of that name which is none is somebody else's, and so is its folder."""
        try:
            found = json.loads(self.folder.read(IDENTITY)) if there else {**identity, "data": None}
        except ValueError:
            found = None
        if not (isinstance(found, dict) and {"format", "version", "plan", "data"} <= set(found)):
            raise DesignError(
                f"checkpoint={self.folder.place!r} holds a {IDENTITY} that is not of this package: name a new folder"
            )
        return found

    def _refuse_other_functions(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """A DesignError where a function of the plan is not the one that the totals were summed with."""
        for name, probe in self._functions.items():
            difference = probe.difference([float.fromhex(value) for value in before[name]["values"]])
            if difference is None and before[name]["code"] == now[name]["code"]:
                continue
            what = difference or (
                "its code, or a value or function that it uses, has changed, although its values on a grid have not"
            )
            raise DesignError(
                f"checkpoint={self.folder.place!r} was made with another function {name}: {what}; restore the function, "
                "name another path, or remove the checkpoint"
            )

    def recall(self, what: str) -> tuple[bool, Any]:
        """Whether the next total is written down under that name, and it."""
        if self._replaying:
            try:
                content = io.BytesIO(self.folder.read(self._name))
                with np.load(content, allow_pickle=False) as found:
                    document = json.loads(found["document"].tobytes())
                    arrays = [found[f"a{index}"] for index in range(document["arrays"])]
                if document["what"] == what:
                    record = from_plain(document["record"], arrays)
                    self._next += 1
                    self.replayed += 1
                    return True, record
            except Exception:
                # cut short, overwritten, of somebody else: whatever is wrong with it, it is no total of this fit
                pass
            self._replaying = False
        return False, None

    def note(self, what: str, record: Any) -> None:
        """Write the next total down; it appears whole or not at all."""
        arrays: list[Any] = []
        plain = to_plain(record, arrays)
        document = json.dumps({"what": what, "record": plain, "arrays": len(arrays)}).encode()

        def content(handle: IO[bytes]) -> None:
            np.savez(
                handle,
                document=np.frombuffer(document, np.uint8),
                allow_pickle=False,
                **{f"a{index}": array for index, array in enumerate(arrays)},
            )

        try:
            self.folder.write(self._name, content)
        except DaskglmError as error:
            raise type(error)(f"{error}{self._kept()}") from None
        self._next += 1

    def _kept(self) -> str:
        """Return the end of a message about a total that could not be written."""
        if not self._next:
            return ""
        totals = "total before it is" if self._next == 1 else f"{self._next} totals before it are"
        return f"; the {totals} kept in {self.folder.place}: the same call resumes after them"

    @property
    def _name(self) -> str:
        return f"total-{self._next:05d}.npz"

    def remove(self) -> None:
        """The fit is done and needs it no more; what somebody else has put there stays."""
        with contextlib.suppress(OSError, DaskglmError):
            for name in self.folder.names():
                if _TOTAL.fullmatch(name) or name.startswith(DRAFT):
                    self.folder.remove(name)
            self.folder.remove(IDENTITY)
            self.folder.discard()


def checkpoint_folder(path: str | os.PathLike[str]) -> Folder:
    """The folder of a checkpoint."""
    return open_folder(path, "checkpoint={place!r} cannot be written")


@final
class Recorded:
    """Partitions whose totals are written down, and read back where they are."""

    def __init__(self, inner: Partitions[Any], log: Log, read_back: list[int] | None = None) -> None:
        self._inner, self._log = inner, log
        self._read_back = [0] if read_back is None else read_back

    @property
    def n_leaves(self) -> int:
        """Number of leaves."""
        return self._inner.n_leaves

    @property
    def rows(self) -> int | None:
        """Rows of all leaves as the source counts them."""
        return self._inner.rows

    @property
    def keep(self) -> str:
        """Where items live between passes."""
        return self._inner.keep

    @property
    def passes(self) -> int:
        """Totals taken by the engine, and those read back, which the engine took before the interruption."""
        return self._inner.passes + self._read_back[0]

    @property
    def decodes(self) -> int:
        """How many times every leaf was read from its source."""
        return self._inner.decodes

    def enter(self, phase: str) -> None:
        """Name what follows."""
        self._inner.enter(phase)

    def expect(self, record: int) -> None:
        """Size of later records."""
        self._inner.expect(record)

    def observe(self, on_leaf: Callable[[int, int], None] | None) -> None:
        """Call on_leaf as work goes on."""
        self._inner.observe(on_leaf)

    def total(self, function: Callable[..., Any], *args: Any) -> Any:
        """From the log, or from the engine and into the log."""
        what = digest((function, args))
        known, record = self._log.recall(what)
        if not known:
            record = self._inner.total(function, *args)
            self._log.note(what, record)
        self._read_back[0] += known
        return record

    def grouped(self, scatter: Callable[[Any], Any], buckets: int, fold: Callable[[Any], Any]) -> Any:
        """From the log, or from the engine and into the log."""
        what = digest((scatter, buckets, fold))
        known, record = self._log.recall(what)
        if not known:
            record = self._inner.grouped(scatter, buckets, fold)
            self._log.note(what, record)
        self._read_back[0] += known
        return record

    def kept_with_total(
        self,
        function: Callable[[Any], Any],
        record: Callable[[Any], Any],
        aside: Callable[[Any], Any] | None = None,
        again: Callable[[Any], Any] | None = None,
    ) -> tuple[Recorded, Any, Recorded | None]:
        """The rows are read again, and must sum to what is written down."""
        kept, found, beside = self._inner.kept_with_total(function, record, aside, again)
        known, before = self._log.recall("profile")
        if known and digest(before) != digest(found):
            raise ChangedInputError(
                "the rows are not those that the checkpoint was made of, although the files look the same: remove it"
            )
        if not known:
            self._log.note("profile", found)
        sample = None if beside is None else Recorded(beside, self._log)
        return Recorded(kept, self._log, self._read_back), found, sample

    def consumed(self, function: Callable[[Any], Any]) -> Recorded:
        """Partitions of function(item)."""
        return Recorded(self._inner.consumed(function), self._log, self._read_back)

    def map(self, function: Callable[..., Any], *args: Any) -> Iterator[Any]:
        """Rows, not totals: nothing is written down."""
        return self._inner.map(function, *args)

    def release(self) -> None:
        """Give up what is kept."""
        self._inner.release()
