"""Where the files of a lake are: what a store must be able to do, and the stores that Arrow speaks to, the disk first of all.

A store lists files with what identifies their content, hands over footers in as few requests as it can, and opens a file for
the ranges that a leaf needs. Stores travel to other processes; connections do not, they are made again there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, final

from pyarrow import fs

from daskglm.cluster.patience import VARIABLE as PATIENCE_VARIABLE
from daskglm.cluster.patience import patience
from daskglm.errors import ChangedInputError, DesignError, UnavailableError

SUFFIXES = (".parquet", ".parq", ".pq")
# The end of a file that is read for its footer: all of it for some hundred columns and row groups.
TAIL_BYTES = 64 << 10
# Ranges nearer to each other than this are one request: these bytes take less time than another request's latency.
HOLE_BYTES = 1 << 20
# A single connection carries some 50 to 100 MB/s; a longer range is asked for in parts, side by side.
REQUEST_BYTES = 16 << 20
# Requests under way at once, to a store and from a process.
CONCURRENCY = 32
CONCURRENCY_VARIABLE = "DASKGLM_OBJECT_CONCURRENCY"

Range = tuple[int, int]
T = TypeVar("T")


@final
@dataclass(frozen=True)
class Entry:
    """A file or folder as a listing tells of it; tag changes with the content (ETag, or time of modification).

    size and tag are None where nobody has asked the store yet.
    """

    path: str
    size: int | None = None
    tag: str | None = None
    folder: bool = False


class Store(Protocol):
    """Files by their full names.

    local: on a disk, so that reading ahead is the operating system's business. conditional: ranges come from the very file
    that was planned, or not at all, so that nobody need look again. ahead: how many leaves are worth announcing at a time.
    """

    @property
    def local(self) -> bool: ...
    @property
    def conditional(self) -> bool: ...
    @property
    def ahead(self) -> int: ...

    def entry(self, path: str) -> Entry | None:
        """The file or folder of that name."""

    def presumed(self, path: str) -> Entry | None:
        """One of many names, as `entry`; where each question is a request, one that is to be answered by its footer."""

    def listed(self, folder: str, stem: str = "", recursive: bool = True) -> list[Entry]:
        """What is in a folder under names that begin with stem. FileNotFoundError where there is no such folder."""

    def footers(self, entries: Sequence[Entry], use: Callable[[Entry, bytes], T]) -> Iterator[T]:
        """use(entry, its last bytes, the footer among them) for each, in order; size and tag of each entry are known."""

    def reading(self, entry: Entry, ranges: Sequence[Range]) -> contextlib.AbstractContextManager[Any]:
        """A file that Arrow reads these ranges of. ChangedInputError where the file is not as it was planned."""

    def expect(self, entry: Entry, ranges: Sequence[Range]) -> None:
        """These ranges will be read soon, just as they are."""


def concurrency() -> int:
    """Requests to a store that may be under way at once."""
    given = os.environ.get(CONCURRENCY_VARIABLE, "")
    if not given:
        return CONCURRENCY
    if not given.isdigit() or not 1 <= int(given) <= 1024:
        raise DesignError(f"{CONCURRENCY_VARIABLE} must be a number between 1 and 1024, not {given!r}")
    return int(given)


def footer_size(tail: bytes) -> int:
    """Bytes of a Parquet footer with its length and mark, from the last eight; 0 where there is none."""
    if len(tail) < 8 or tail[-4:] not in (b"PAR1", b"PARE"):
        return 0
    return int.from_bytes(tail[-8:-4], "little") + 8


@final
@dataclass(frozen=True)
class ArrowStore:
    """The local disk, or whatever else Arrow and fsspec have a file system for."""

    filesystem: fs.FileSystem

    conditional = False

    @property
    def local(self) -> bool:
        """Whether this is the disk."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def ahead(self) -> int:
        """The disk reads the next leaf meanwhile; elsewhere nothing is announced."""
        return 1

    def entry(self, path: str) -> Entry | None:
        """One question to the file system."""
        with _spoken(path):
            found = self._answered(path, lambda: self.filesystem.get_file_info(path))
        return None if found.type == fs.FileType.NotFound else _entry(found)

    def presumed(self, path: str) -> Entry | None:
        """The same."""
        return self.entry(path)

    def listed(self, folder: str, stem: str = "", recursive: bool = True) -> list[Entry]:
        """One listing."""
        with _spoken(folder):
            selector = fs.FileSelector(folder, recursive=recursive)
            return [_entry(info) for info in self._answered(folder, lambda: self.filesystem.get_file_info(selector))]

    def footers(self, entries: Sequence[Entry], use: Callable[[Entry, bytes], T]) -> Iterator[T]:
        """A few files at a time."""

        def one(entry: Entry) -> T:
            known = entry if entry.size is not None else self.entry(entry.path)
            if known is None or known.folder or known.size is None:
                raise DesignError(f"{entry.path} does not exist")
            return use(known, self._footer(known.path, known.size))

        with ThreadPoolExecutor(4 if self.local else concurrency()) as pool:
            yield from pool.map(one, entries)

    def _answered(self, path: str, call: Callable[[], T]) -> T:
        """What a call returns; elsewhere than on the disk, UnavailableError where it is silent until patience ends.

        Arrow's own limits are minutes, and its calls hear of no interrupt.
        """
        if self.local:
            return call()
        answer: Future[T] = Future()

        def ask() -> None:
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=ask, name="daskglm-store", daemon=True).start()
        if not wait([answer], patience()).done:
            raise UnavailableError(
                f"{path} could not be read: the store has not answered for {patience():.0f} s. Run again later; "
                f"{PATIENCE_VARIABLE} sets how long it is waited for"
            )
        return answer.result()

    def _footer(self, path: str, size: int) -> bytes:
        return self._answered(path, lambda: self._tail(path, size)) if size else b""

    def _tail(self, path: str, size: int) -> bytes:
        with self.filesystem.open_input_file(path) as handle:
            tail: bytes = handle.read_at(min(TAIL_BYTES, size), max(size - TAIL_BYTES, 0))
            needed = footer_size(tail)
            return handle.read_at(needed, size - needed) if len(tail) < needed <= size else tail

    @contextlib.contextmanager
    def reading(self, entry: Entry, ranges: Sequence[Range]) -> Iterator[Any]:
        """The file, looked at before and after."""
        self._check(entry)
        try:
            handle = self.filesystem.open_input_file(entry.path)
        except FileNotFoundError:
            raise gone(entry.path) from None
        with handle:
            yield handle
        self._check(entry)

    def expect(self, entry: Entry, ranges: Sequence[Range]) -> None:
        """Tell the operating system which part of a local file will be read next."""
        if self.local and ranges:
            start = min(start for start, _ in ranges)
            with contextlib.suppress(OSError), open(entry.path, "rb", buffering=0) as handle:
                read_ahead(handle.fileno(), start, max(end for _, end in ranges) - start)

    def _check(self, entry: Entry) -> None:
        found = self.entry(entry.path)
        if found is None:
            raise gone(entry.path)
        if (found.size, found.tag) != (entry.size, entry.tag):
            raise changed(entry.path)


@contextlib.contextmanager
def _spoken(path: str) -> Iterator[None]:
    """A sentence in place of whatever a file system says when it is asked what is there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DesignError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from None


def _entry(info: Any) -> Entry:
    if info.type == fs.FileType.Directory:
        return Entry(info.path, folder=True)
    return Entry(info.path, info.size, str(info.mtime_ns or 0))


def read_ahead(descriptor: int, start: int, length: int) -> None:
    """Ask for a part of a file to be fetched in the background, where the system can."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)


def gone(path: str) -> ChangedInputError:
    """The error of a planned file that is not there any more."""
    return ChangedInputError(f"{path} was there when the lake was listed, and is gone now")


def changed(path: str) -> ChangedInputError:
    """The error of a planned file that is another now."""
    return ChangedInputError(f"{path} changed while it was being read: run again when it has settled")


def coalesced(ranges: Sequence[Range]) -> list[Range]:
    """The requests that cover these ranges: near ones joined, long ones cut."""
    joined: list[list[int]] = []
    for start, end in sorted(ranges):
        if joined and start - joined[-1][1] <= HOLE_BYTES:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return [
        (at, min(at + REQUEST_BYTES, end)) for start, end in joined for at in range(start, end, REQUEST_BYTES)
    ]  # fmt: skip


class Pieces:
    """A file of which only some pieces are here, as Python's file protocol has it; the rest is fetched if it is asked for."""

    mode = "rb"

    def __init__(self, size: int, pieces: Sequence[tuple[int, bytes]], fetch: Callable[[int, int], bytes]) -> None:
        self._size, self._fetch = size, fetch
        self._starts = [start for start, _ in pieces]
        self._pieces = [memoryview(content) for _, content in pieces]
        self._at = 0
        self.closed = False

    def read(self, length: int = -1) -> Any:
        """The next bytes, without a copy where they lie in one piece."""
        start = at = self._at
        end = self._size if length < 0 else min(start + length, self._size)
        parts: list[Any] = []
        while at < end:
            index = bisect_right(self._starts, at) - 1
            inside = at - self._starts[index]
            part = self._pieces[index][inside : inside + end - at] if index >= 0 else b""
            if not part:
                parts = [self._fetch(start, end)]
                break
            parts.append(part)
            at += len(part)
        self._at = max(start, end)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is not."""
        return False

    def close(self) -> None:
        """Give the pieces up."""
        self.closed = True
        self._pieces = []
