"""Where one leaf's item is, and how to get it: in memory, in a file of our own, or decoded again from the source."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np

from daskglm.cluster import machine
from daskglm.cluster.arrays import landed
from daskglm.cluster.folders import reason
from daskglm.cluster.sources import Reader
from daskglm.cluster.stores import read_ahead
from daskglm.errors import DesignError

# Room that is left on a disk for others.
SPARE_DISK = 256 << 20
# Folders of rows on disk, and the file in each that its process locks.
SPILL_PREFIX = "daskglm-"
OWNER = "owner"
_OWNED: dict[str, int] = {}
_OWNED_LOCK = threading.Lock()


class Packable(Protocol):
    """An item that can lie on disk: a small plain header, and arrays."""

    def pack(self) -> tuple[Any, list[Any]]:
        """The header and the arrays."""


class Counter:
    """Counts leaf decodes, so that passes over the source can be told from passes over what is kept."""

    def __init__(self, leaves: int = 0) -> None:
        self._lock = threading.Lock()
        self.leaves = leaves
        self.loads = 0
        self.passes = 0
        self.on_leaf: Callable[[int, int], None] | None = None

    def count(self, loads: int = 1) -> None:
        """Leaves were decoded."""
        with self._lock:
            self.loads += loads

    @property
    def decodes(self) -> int:
        """Times every leaf was decoded, rounded up."""
        return -(-self.loads // max(self.leaves, 1))


class Cell(Protocol):
    """One leaf's item, somewhere."""

    rows: int

    @property
    def ahead(self) -> int:
        """How many cells like this are worth announcing before they are asked for."""

    def get(self, counter: Counter) -> Any:
        """The item; decodes it took are counted."""

    def announce(self) -> None:
        """It will be asked for soon."""


@final
@dataclass
class Kept:
    """In memory."""

    item: Any
    rows: int

    ahead = 0

    def get(self, counter: Counter) -> Any:
        """As it is."""
        return self.item

    def announce(self) -> None:
        """Nothing to prepare."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(getattr(self.item, "nbytes", 0))

    def __reduce__(self) -> Any:
        return _kept, (self.item, self.rows)


def _kept(item: Any, rows: int) -> Kept:
    """A cell that came from another process."""
    return Kept(landed(item), rows)


@final
@dataclass
class Loaded:
    """Decoded from the source whenever it is asked for."""

    reader: Reader
    leaf: Any
    rows: int

    @property
    def ahead(self) -> int:
        """As the source says."""
        return self.reader.ahead

    def get(self, counter: Counter) -> Any:
        """One decode."""
        counter.count()
        return self.reader.load(self.leaf)

    def announce(self) -> None:
        """Let the source prepare."""
        self.reader.announce(self.leaf)


@final
@dataclass
class Applied:
    """A function of another cell, computed whenever it is asked for."""

    cell: Any
    function: Callable[[Any], Any]
    rows: int

    @property
    def ahead(self) -> int:
        """As the cell below says."""
        return int(self.cell.ahead)

    def get(self, counter: Counter) -> Any:
        """Computed now."""
        return self.function(self.cell.get(counter))

    def announce(self) -> None:
        """The cell below will be asked for."""
        self.cell.announce()


@final
@dataclass
class Stored:
    """In a file of its own, read back with plain reads: a memory map would count as this process's memory."""

    path: str
    kind: Any
    header: Any
    layout: list[tuple[str, tuple[int, ...], int]]
    rows: int

    ahead = 1

    def announce(self) -> None:
        """Let the disk begin."""
        with contextlib.suppress(OSError), open(self.path, "rb", buffering=0) as handle:
            read_ahead(handle.fileno(), 0, self.size)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(size for _, _, size in self.layout)

    def get(self, counter: Counter) -> Any:
        """Read back."""
        arrays = []
        with open(self.path, "rb", buffering=0) as handle:
            for dtype, shape, _ in self.layout:
                array = np.empty(shape, dtype)
                view = array.data.cast("B") if array.size else memoryview(b"")
                done = 0
                while done < len(view):
                    got = handle.readinto(view[done:])
                    if not got:
                        raise DesignError(f"{self.path} was cut short: is the disk full, or was it cleaned?")
                    done += got
                arrays.append(array)
        return self.kind.unpack(self.header, arrays)


def store(item: Packable, path: str, rows: int) -> Stored:
    """Write one item; the file appears only when it is whole."""
    header, arrays = item.pack()
    layout = []
    draft = f"{path}.{threading.get_ident()}"
    try:
        with open(draft, "wb") as handle:
            for array in arrays:
                array = np.ascontiguousarray(array)
                handle.write(array.data.cast("B") if array.size else b"")
                layout.append((array.dtype.str, array.shape, array.nbytes))
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    return Stored(path, type(item), header, layout, rows)


def spill_parent() -> str:
    """Return the folder below which rows are written; DesignError where it is none."""
    parent = os.environ.get("DASKGLM_SPILL_DIR") or tempfile.gettempdir()
    if not os.path.isdir(parent):
        raise DesignError(f"DASKGLM_SPILL_DIR is {parent}, which is not a folder on this machine")
    return parent


def _own(folder: str) -> None:
    """Lock a file in the folder for as long as this process lives, by which others know that the folder is in use."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        # nobody finds the file before it is locked
        path = os.path.join(folder, OWNER)
        handle = os.open(f"{path}.new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(f"{path}.new", path)
        with _OWNED_LOCK:
            _OWNED[folder] = handle


def remove_folder(folder: str) -> None:
    """Remove a folder of rows, and give up its lock."""
    with _OWNED_LOCK:
        handle = _OWNED.pop(folder, None)
    if handle is not None:
        os.close(handle)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_ownerless(parent: str) -> None:
    """Remove the folders of processes that were killed: nobody locks their files any more."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        for entry in list(os.scandir(parent)):
            owner = os.path.join(entry.path, OWNER)
            if not entry.name.startswith(SPILL_PREFIX) or not os.path.isfile(owner):
                continue
            with contextlib.suppress(OSError), open(owner, "rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)


def spill_folder(parent: str) -> str:
    """Make a folder of our own below the one for rows; DesignError where that cannot be done."""
    try:
        _remove_ownerless(parent)
        folder = tempfile.mkdtemp(prefix=SPILL_PREFIX, dir=parent)
        _own(folder)
        return folder
    except OSError as error:
        raise DesignError(
            f"nothing can be written to {parent}: {reason(error, near=parent)}; set DASKGLM_SPILL_DIR to another folder"
        ) from None


class Spill:
    """A folder for stored cells, gone with the partitions that use it."""

    def __init__(self, needed: int) -> None:
        parent = spill_parent()
        if machine.on_memory(parent):
            raise DesignError(
                f'keep="disk" would write to {parent}, which is memory itself: set DASKGLM_SPILL_DIR to a real disk'
            )
        free = shutil.disk_usage(parent).free
        if free < needed * 1.1:
            raise DesignError(
                f'keep="disk" needs about {needed / 1e9:.1f} GB in {parent}, where {free / 1e9:.1f} GB are free: '
                'set DASKGLM_SPILL_DIR, or use keep="reread"'
            )
        self.folder = spill_folder(parent)
        self._finalizer = weakref.finalize(self, remove_folder, self.folder)

    def store(self, item: Any, index: int, rows: int) -> Stored:
        """Write one item; DesignError where the disk does not take it."""
        path = os.path.join(self.folder, f"{index}.block")
        try:
            return store(item, path, rows)
        except OSError as error:
            raise DesignError(
                f'keep="disk": {path} of {item.nbytes:,} bytes cannot be written: {reason(error, near=path)}; set '
                'DASKGLM_SPILL_DIR to a larger disk, or use keep="reread"'
            ) from None

    def close(self) -> None:
        """Remove the folder."""
        self._finalizer()


def cells_of(reader: Reader, leaves: Sequence[Any]) -> list[Loaded]:
    """The leaves of a source as they are before anything is kept."""
    return [Loaded(reader, leaf, leaf.rows) for leaf in leaves]


def announce_after(cells: Sequence[Any], at: int, threads: int = 1) -> None:
    """While the cell at this place of a thread's way is worked on, let those after it be prepared: as many as are worth it
    for all threads together. Each call adds the last of them, the first call all.
    """
    depth = max(1, cells[at].ahead // threads)
    for following in range(at + 1 if at == 0 else at + depth, min(at + depth + 1, len(cells))):
        cells[following].announce()
