"""What runs on the workers: shelves of leaves are filled, summed and given up. Nothing here knows of the driver."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from dask.sizeof import sizeof
from distributed import get_worker
from distributed.protocol.pickle import dumps, loads

from daskglm.cluster import preflight
from daskglm.cluster.arrays import array_bytes, landed
from daskglm.cluster.cells import SPARE_DISK, Applied, Counter, Kept, Loaded, Stored, announce_after, store
from daskglm.cluster.machine import one_blas_thread
from daskglm.errors import DataError, DesignError
from daskglm.partitions import TreeSum

FOLDER = "daskglm"
# How often a worker looks whether the fits whose blocks lie on its disk still have tasks here.
SWEEP_SECONDS = 1.0
# Fits that have ended while this process was a worker.
_forgotten: set[str] = set()


@final
class Call:
    """Functions and arguments as they travel: written once by the driver, opened by each task, opaque in between.

    Dask looks for keys in whatever tuples and lists a task is given, and the scheduler unpickles what it is sent; bytes
    are spared both.
    """

    __slots__ = ("blob",)

    def __init__(self, *parts: Any) -> None:
        self.blob: bytes = dumps(parts)

    def open(self) -> Any:
        """What was given."""
        return loads(self.blob)

    def __reduce__(self) -> Any:
        return _call, (self.blob,)


def _call(blob: bytes) -> Call:
    call: Call = object.__new__(Call)
    call.blob = blob
    return call


def carried(call: Call) -> Call:
    """A call too large to be sent with every task is a task's result itself, which recovers as any other."""
    return call


@final
@dataclass(frozen=True)
class Answer:
    """What a task hands to the driver: the sum of its leaves, decodes it took, and the identity of each worker that had a
    part in it.
    """

    record: Any
    loads: int
    makers: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of the record."""
        return array_bytes(self.record)

    def __reduce__(self) -> Any:
        return _answered, (self.record, self.loads, self.makers)


def _answered(*parts: Any) -> Answer:
    """An answer that arrived."""
    return Answer(*landed(parts))


@final
@dataclass(frozen=True)
class Shelf:
    """A run of neighbouring leaves: `start` is the first one's number. record and aside: what filling it summed and set
    apart, until it has been fetched.
    """

    cells: tuple[Any, ...]
    start: int
    record: Any = None
    aside: tuple[Any, ...] = ()
    loads: int = 0

    @property
    def rows(self) -> int:
        """Rows of its leaves as the source counts them."""
        return sum(cell.rows for cell in self.cells)

    @property
    def nbytes(self) -> int:
        """Bytes held, each buffer counted once, so that Dask's memory manager sees them."""
        return sum(sizeof(cell) for cell in (*self.cells, *self.aside)) + array_bytes(self.record)


@final
@dataclass(frozen=True)
class Parcels:
    """Packets of rows by leaf and bucket, None where there are none; decodes they took, and who made them."""

    packets: tuple[tuple[Any, ...], ...]
    loads: int
    makers: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(packet.nbytes for leaf in self.packets for packet in leaf if packet is not None)


@sizeof.register(Parcels)
def _parcels_size(parcels: Parcels) -> int:
    return 1000 + parcels.nbytes


@sizeof.register(Shelf)
def _shelf_size(shelf: Shelf) -> int:
    return 1000 + shelf.nbytes


@sizeof.register(Kept)
def _kept_size(cell: Kept) -> int:
    return 200 + cell.nbytes


@sizeof.register(Answer)
def _answer_size(answer: Answer) -> int:
    return 1000 + answer.nbytes


# -- places on this worker ---------------------------------------------------------------------------------------------


def _folder(fit: str) -> str:
    """Where this worker keeps blocks of a fit; Dask removes it with the worker, or after it."""
    return os.path.join(get_worker().local_directory, FOLDER, fit)


def forget(fit: str, dask_worker: Any = None) -> None:
    """Remove a fit's folder. Dask names the worker."""
    # a task of the fit may still be running, and would make the folder anew
    _forgotten.add(fit)
    shutil.rmtree(os.path.join(dask_worker.local_directory, FOLDER, fit), ignore_errors=True)


@final
class _Sweeper:
    """Removes the blocks of fits that have no task left on a worker of this process.

    A folder is named after its fit, and so is every task of the fit. The scheduler gives up the tasks of a client that
    ended, however it ended; a worker that was silent while a fit cleaned up learns so later. The thread ends with the
    last folder.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: dict[str, tuple[str, weakref.ref[Any]]] = {}
        self._thread: threading.Thread | None = None

    def look_after(self, folder: str, fit: str, worker: Any) -> None:
        """Remove this folder once its fit has no tasks on the worker."""
        with self._lock:
            self._folders.setdefault(folder, (fit, weakref.ref(worker)))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="daskglm-sweep", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(SWEEP_SECONDS)
            with self._lock:
                for folder, (fit, reference) in list(self._folders.items()):
                    owner = reference()
                    if owner is None or not any(fit in str(key) for key in list(owner.state.tasks)):
                        shutil.rmtree(folder, ignore_errors=True)
                        del self._folders[folder]
                    del owner
                if not self._folders:
                    self._thread = None
                    return


_sweeper = _Sweeper()


@final
@dataclass(frozen=True)
class Filed:
    """A block on a worker's disk: which file, and how to rebuild it where that file is not.

    It travels as the few words it is. On another worker, or after the disk was cleaned, it is rebuilt from the source.
    """

    fit: str
    name: str
    stored: Stored | None
    origin: Applied
    rows: int

    ahead = 1

    def _here(self) -> Stored | None:
        if self.stored is None:
            return None
        path = os.path.join(_folder(self.fit), f"{self.name}.block")
        with contextlib.suppress(OSError):
            if os.path.getsize(path) == self.stored.size:
                return replace(self.stored, path=path)
        return None

    def get(self, counter: Counter) -> Any:
        """Read back, or rebuilt and written again."""
        here = self._here()
        if here is not None:
            with contextlib.suppress(OSError, DesignError):
                return here.get(counter)
        item = self.origin.get(counter)
        if self.stored is not None:
            file(item, self.fit, self.name, self.rows)
        return item

    def announce(self) -> None:
        """Let the disk, or the source, begin."""
        here = self._here()
        if here is not None:
            here.announce()
        else:
            self.origin.announce()


def filed(item: Any, fit: str, name: str, origin: Applied) -> Filed:
    """An item written to this worker's disk."""
    return Filed(fit, name, file(item, fit, name, origin.rows), origin, origin.rows)


def file(item: Any, fit: str, name: str, rows: int) -> Stored | None:
    """Write an item to this worker's disk; None where there is no room, and it will be rebuilt when needed."""
    folder = _folder(fit)
    try:
        os.makedirs(folder, exist_ok=True)
        _sweeper.look_after(folder, fit, get_worker())
        if shutil.disk_usage(folder).free < SPARE_DISK + item.nbytes:
            return None
        return store(item, os.path.join(folder, f"{name}.block"), rows)
    except OSError:
        return None
    finally:
        if fit in _forgotten:
            shutil.rmtree(folder, ignore_errors=True)


def _answer(record: Any, loads: int, earlier: Sequence[Answer] = ()) -> Answer:
    makers = {address: identity for answer in earlier for address, identity in answer.makers.items()}
    return Answer(record, loads, {**makers, get_worker().address: preflight.identity()})


# -- tasks -------------------------------------------------------------------------------------------------------------


def lay_out(reader: Any, leaves: Sequence[Any], start: int) -> Shelf:
    """A shelf of leaves that are decoded when asked for."""
    return Shelf(tuple(Loaded(reader, leaf, leaf.rows) for leaf in leaves), start)


def lay_out_part(parts: Sequence[Any], call: Call, start: int) -> Shelf:
    """A shelf of one leaf, made of one partition or chunk of a collection."""
    (converter,) = call.open()
    table = converter(start, parts)
    return Shelf((Kept(table, table.rows),), start)


def opened(given: Shelf | Call | Sequence[Any]) -> Shelf:
    """A shelf, or the recipe of one: a reader, its leaves and the number of the first; or the parts of one partition of a
    collection, how they become a leaf, and its number.
    """
    if isinstance(given, Shelf):
        return given
    return lay_out(*given.open()) if isinstance(given, Call) else lay_out_part(*given)


def fill(given: Shelf | Call | Sequence[Any], call: Call) -> Shelf:
    """Turn every leaf into function(leaf), keep that as asked, sum its record, and set something of it apart."""
    shelf = opened(given)
    function, record, aside, again, keep, fit = call.open()
    tree: TreeSum[Any] = TreeSum()
    cells: list[Any] = []
    beside: list[Any] = []
    counter = Counter()
    with one_blas_thread():
        for number, cell in enumerate(shelf.cells, shelf.start):
            announce_after(shelf.cells, number - shelf.start)
            item = function(cell.get(counter))
            tree.push(record(item))
            origin = Applied(cell, again or function, cell.rows)
            if aside is not None:
                part = aside(item)
                if keep == "disk":
                    beside.append(filed(part, fit, f"{number}-aside", Applied(origin, aside, cell.rows)))
                else:
                    beside.append(Kept(part, cell.rows))
            if keep == "memory":
                cells.append(Kept(item, cell.rows))
            elif keep == "disk":
                cells.append(filed(item, fit, str(number), origin))
            else:
                cells.append(origin)
    return Shelf(tuple(cells), shelf.start, tree.result(), tuple(beside), counter.loads)


def record_of(shelf: Shelf) -> Answer:
    """What filling it summed."""
    return _answer(shelf.record, shelf.loads)


def aside_of(shelf: Shelf) -> Shelf:
    """What filling it set apart."""
    return Shelf(shelf.aside, shelf.start)


def convert(given: Sequence[Any], call: Call) -> Shelf:
    """Neighbouring shelves as one, of function(item): now for what is in memory, when asked for what is not."""
    shelves = [opened(shelf) for shelf in given]
    (function,) = call.open()
    counter = Counter()
    cells: list[Any] = []
    with one_blas_thread():
        for cell in (cell for shelf in shelves for cell in shelf.cells):
            if isinstance(cell, Kept):
                cells.append(Kept(function(cell.item), cell.rows))
            else:
                cells.append(Applied(cell, function, cell.rows))
    return Shelf(tuple(cells), shelves[0].start, loads=counter.loads)


def subtree(given: Shelf | Call | Sequence[Any], call: Call) -> Answer:
    """The fixed-order sum of function(item, *arguments) over a shelf."""
    shelf = opened(given)
    function, arguments = call.open()
    tree: TreeSum[Any] = TreeSum()
    counter = Counter()
    with one_blas_thread():
        for number, cell in enumerate(shelf.cells, shelf.start):
            announce_after(shelf.cells, number - shelf.start)
            tree.push(function(cell.get(counter), *arguments))
    return _answer(tree.result(), counter.loads)


def scattered(given: Shelf | Call | Sequence[Any], call: Call) -> Parcels:
    """scatter(item) of every leaf of a shelf."""
    shelf = opened(given)
    scatter, _ = call.open()
    counter = Counter()
    packets = []
    with one_blas_thread():
        for number, cell in enumerate(shelf.cells, shelf.start):
            announce_after(shelf.cells, number - shelf.start)
            packets.append(tuple(scatter(cell.get(counter))))
    return Parcels(tuple(packets), counter.loads, {get_worker().address: preflight.identity()})


def parcels_of(parcels: Parcels, buckets: range) -> Parcels:
    """Those of neighbouring buckets; the first of all also say what scattering took."""
    own = tuple(tuple(leaf[number] for number in buckets) for leaf in parcels.packets)
    return Parcels(own, 0 if buckets.start else parcels.loads, parcels.makers)


def folded(given: Sequence[Parcels], call: Call) -> Answer:
    """The sum over neighbouring buckets of fold(packets), each in the order of the leaves."""
    _, fold = call.open()
    leaves = [leaf for parcels in given for leaf in parcels.packets]
    tree: TreeSum[Any] = TreeSum()
    with one_blas_thread():
        for packets in zip(*leaves, strict=True):
            tree.push(fold([landed(packet) for packet in packets if packet is not None]))
    makers = {address: identity for parcels in given for address, identity in parcels.makers.items()}
    return _answer(tree.result(), sum(parcels.loads for parcels in given), (Answer(None, 0, makers),))


def combine(answers: Sequence[Answer], height: int) -> Answer:
    """The sum of neighbouring sums, each of 2^height leaves, in the order of the fixed tree."""
    tree: TreeSum[Any] = TreeSum()
    for answer in answers:
        tree.push(answer.record, height)
    return _answer(tree.result(), sum(answer.loads for answer in answers), answers)


def each(given: Shelf | Call | Sequence[Any], call: Call) -> Answer:
    """function(item, *arguments) of every leaf of a shelf, in order."""
    shelf = opened(given)
    function, arguments = call.open()
    counter = Counter()
    with one_blas_thread():
        results = [function(cell.get(counter), *arguments) for cell in shelf.cells]
    return _answer(results, counter.loads)


def look(path: str | None = None, dask_worker: Any = None) -> preflight.Facts:
    """The facts of this worker; DataError where it does not see a file that the driver sees. Dask names the worker."""
    if path is not None and not os.path.exists(path):
        raise DataError(
            f"the worker {dask_worker.address} does not see {path}: a lake must lie where every worker can read it, on a "
            "shared file system or in an object store"
        )
    return preflight.facts(dask_worker.local_directory)
