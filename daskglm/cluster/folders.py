"""Folders that results are written to: on a disk, or under a prefix of an object store.

A file appears whole or not at all. A draft is a folder of files that appear together: on a disk by
renaming the folder, in an object store as uploads that are completed when all have arrived.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, final
from urllib.parse import unquote

from daskglm.errors import DaskglmError, DesignError

if TYPE_CHECKING:
    from daskglm.cluster.objects import S3Store, Upload

Content = bytes | Callable[[IO[bytes]], None]

# What a complete set of objects ends with, as Spark and Hadoop write it.
SUCCESS = "_SUCCESS"
# How names of files begin that are not whole yet.
DRAFT = ".draft-"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_HALF = re.compile(r"(?i)(?:s3a?|gs|gcs|abfss?|hdfs|https?|file):(?!/)")
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Draft(Protocol):
    """Files that appear together when the draft is left without an error."""

    def write(self, name: str, content: Content) -> None:
        """Add a file; a name may lie in folders below, "year=2024/part-0.parquet"."""


class Folder(Protocol):
    """Files by their names inside the folder.

    place: how messages call the folder, without secrets; remote: whether it is in an object store.
    """

    @property
    def place(self) -> str: ...

    @property
    def remote(self) -> bool: ...

    def child(self, name: str) -> Folder:
        """The folder of that name inside."""

    def kind(self) -> str | None:
        """ "folder", "file", or None where there is nothing."""

    def names(self) -> list[str]:
        """Names of files and folders directly inside; none where there is no folder."""

    def read(self, name: str) -> bytes:
        """The content of a file; FileNotFoundError where there is none."""

    def read_with_tag(self, name: str) -> tuple[bytes, str | None]:
        """The content of a file, and what `swap` takes to recognise it."""

    def write(self, name: str, content: Content) -> None:
        """Write a file, or replace one."""

    def swap(self, name: str, content: bytes, tag: str | None) -> bool:
        """Replace the file that had that tag (None: write a new one); return whether that was done.

        An object store refuses where the file is another by now; on a disk the last writer wins.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def discard(self) -> None:
        """Remove the folder if it is empty."""

    def erase(self) -> None:
        """Remove the folder with all that is in it, as far as that can be done."""

    def probe(self) -> None:
        """Raise DesignError where nothing can be written; leave nothing behind."""

    def draft(self, replacing: bool = False) -> AbstractContextManager[Draft]:
        """Files that become this folder together; replacing: in place of what it holds now."""


def open_folder(path: str | os.PathLike[str], complaint: str, lasting: bool = False) -> Folder:
    """Return the folder of a path or an s3:// URL.

    complaint: how an error begins, with {place}, such as "the model cannot be written to {place}";
    lasting: whether files must be on the disk, not only on their way, before they show.
    DesignError for a URL of another kind, to which nothing can be written atomically.
    """
    name = os.fspath(path)
    if not name.strip():
        raise DesignError(f"{complaint.format(place=repr(name))}: name a folder")
    if _HALF.match(name):
        raise DesignError(f"{complaint.format(place=name)}: that is neither a path nor a URL, such as s3://BUCKET/NAME")
    scheme = _SCHEME.match(name)
    if scheme is None:
        return LocalFolder(Path(os.path.expanduser(name)), complaint, lasting=lasting)
    kind = scheme.group(1).lower()
    if kind == "file":
        local = re.sub(r"(?i)^file:/+(localhost/)?", "/", name)
        return LocalFolder(Path(unquote(local)), complaint, lasting=lasting)
    said = shown(name)
    if kind not in ("s3", "s3a"):
        raise DesignError(
            f"{complaint.format(place=said)}: results are written to folders and to s3:// URLs, "
            f"not to {kind}://, where they could not be replaced in one step"
        )
    if importlib.util.find_spec("s3fs") is None:
        raise DesignError(f"{complaint.format(place=said)}: that needs s3fs, pip install 'daskglm[s3]'")
    from daskglm.cluster.objects import from_url

    store, bare = from_url(re.sub(r"^[^:]*:/+", "s3://", name))
    bare = bare.rstrip("/")
    if "/" not in bare.partition("://")[2]:
        raise DesignError(f"{complaint.format(place=bare)}: name a prefix in the bucket, {bare}/NAME")
    return ObjectFolder(store, bare, complaint)


def reason(error: OSError, written: int | None = None, near: str | os.PathLike[str] = ".") -> str:
    """Return what is wrong in words; of a full disk with the bytes written and the bytes free."""
    said = " ".join(str(error.strerror or error).split())
    if error.errno not in _FULL:
        return said
    sizes = [] if written is None else [f"{written:,} bytes were written"]
    with contextlib.suppress(OSError):
        sizes.append(f"{shutil.disk_usage(_existing(Path(near))).free:,} bytes are free")
    return f"{said} ({', '.join(sizes)})" if sizes else said


def is_url(name: str) -> bool:
    """Return whether a name is a URL, or half of one, and no path."""
    return bool(_SCHEME.match(name) or _HALF.match(name))


def shown(name: str) -> str:
    """A URL without its secrets."""
    return re.sub(r"^([A-Za-z0-9+.-]+:/+)[^/@]*@", r"\1", name)


def _existing(path: Path) -> Path:
    """The nearest folder above that exists."""
    path = Path(os.path.abspath(path))
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _written(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    sink = io.BytesIO()
    content(sink)
    return sink.getvalue()


@final
class LocalFolder:
    """A folder on a disk."""

    remote = False

    def __init__(self, path: Path, complaint: str, place: str | None = None, lasting: bool = False) -> None:
        self.path, self._complaint, self._lasting = path, complaint, lasting
        self.place = place or str(path)

    def child(self, name: str) -> LocalFolder:
        """The folder of that name inside."""
        return LocalFolder(self.path / name, self._complaint, os.path.join(self.place, name), self._lasting)

    def kind(self) -> str | None:
        """What is there."""
        if self.path.is_dir():
            return "folder"
        return "file" if self.path.exists() else None

    def names(self) -> list[str]:
        """What is directly inside."""
        try:
            return sorted(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._refused(error) from None

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.path / name).read_bytes()

    def read_with_tag(self, name: str) -> tuple[bytes, str | None]:
        """The content; a file on a disk is replaced whatever it holds."""
        return self.read(name), None

    def write(self, name: str, content: Content) -> None:
        """Write a draft beside the file, and rename it."""
        target = self.path / name
        draft = target.with_name(f"{DRAFT}{os.getpid()}-{target.name}")
        near = _existing(target.parent)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(draft, "wb") as handle:
                if isinstance(content, bytes):
                    handle.write(content)
                else:
                    content(handle)
                if self._lasting:
                    handle.flush()
                    os.fsync(handle.fileno())
            os.replace(draft, target)
        except OSError as error:
            written = _removed(draft)
            _prune(target.parent, near)
            raise self._refused(error, written) from None
        except BaseException:
            _removed(draft)
            _prune(target.parent, near)
            raise

    def swap(self, name: str, content: bytes, tag: str | None) -> bool:
        """Replace the file, whatever it holds."""
        self.write(name, content)
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).unlink()

    def discard(self) -> None:
        """Remove the folder if it is empty."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def erase(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def probe(self) -> None:
        """Make a folder and remove it, in the nearest folder that exists."""
        near = _existing(self.path)
        try:
            if not near.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{near} is a file")
            os.rmdir(tempfile.mkdtemp(prefix=".daskglm-", dir=near))
        except OSError as error:
            raise self._refused(error) from None

    @contextlib.contextmanager
    def draft(self, replacing: bool = False) -> Iterator[Draft]:
        """A hidden folder beside this one, which takes its name at the end."""
        near = _existing(self.path.parent)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
            folder.chmod(0o755)
        except OSError as error:
            raise self._refused(error) from None
        try:
            yield LocalFolder(folder, self._complaint, self.place, self._lasting)
            try:
                self._become(folder, replacing)
            except OSError as error:
                raise self._refused(error) from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            _prune(self.path.parent, near)
            raise

    def _become(self, folder: Path, replacing: bool) -> None:
        if not replacing or not self.path.exists():
            if self.path.exists():
                self.path.rmdir()
            os.replace(folder, self.path)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
        try:
            os.replace(self.path, old)
            os.replace(folder, self.path)
        except BaseException:
            if not self.path.exists() and any(old.iterdir()):
                os.replace(old, self.path)
            raise
        finally:
            if self.path.exists():
                shutil.rmtree(old, ignore_errors=True)

    def _refused(self, error: OSError, written: int | None = None) -> DesignError:
        sentence = f"{self._complaint.format(place=self.place)}: {reason(error, written, self.path)}"
        return DesignError(sentence)


def _prune(folder: Path, near: Path) -> None:
    """Remove folders that were made for nothing: this one and those above it, up to one that was there."""
    folder = Path(os.path.abspath(folder))
    with contextlib.suppress(OSError):
        while folder not in (near, folder.parent):
            folder.rmdir()
            folder = folder.parent


def _removed(draft: Path) -> int | None:
    """Remove a draft; how many bytes it held."""
    try:
        size = draft.stat().st_size
        draft.unlink()
    except OSError:
        return None
    return size


@final
class ObjectFolder:
    """Objects whose names begin alike."""

    remote = True

    def __init__(self, store: S3Store, url: str, complaint: str) -> None:
        self.store, self.place, self._complaint = store, url, complaint

    def child(self, name: str) -> ObjectFolder:
        """The folder of that name inside."""
        return ObjectFolder(self.store, f"{self.place}/{name}", self._complaint)

    def kind(self) -> str | None:
        """What is there."""
        found = self.store.entry(self.place)
        return None if found is None else "folder" if found.folder else "file"

    def names(self) -> list[str]:
        """What is directly inside."""
        found = self.store.listed(self.place, recursive=False)
        return sorted(entry.path.rpartition("/")[2] for entry in found)

    def read(self, name: str) -> bytes:
        """The content of an object."""
        return self.store.get(f"{self.place}/{name}")[0]

    def read_with_tag(self, name: str) -> tuple[bytes, str | None]:
        """The content and its ETag."""
        return self.store.get(f"{self.place}/{name}")

    def write(self, name: str, content: Content) -> None:
        """One request; readers see the object before it or after it."""
        self.store.put(f"{self.place}/{name}", _written(content))

    def swap(self, name: str, content: bytes, tag: str | None) -> bool:
        """One conditional request."""
        return self.store.put_if(f"{self.place}/{name}", content, tag)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        self.store.delete(f"{self.place}/{name}")

    def discard(self) -> None:
        """Nothing: there are no folders without objects."""

    def erase(self) -> None:
        """Remove all objects whose names begin so."""
        with contextlib.suppress(DaskglmError):
            for entry in self.store.listed(self.place):
                if not entry.folder:
                    self.store.delete(entry.path)

    def probe(self) -> None:
        """Look for the bucket, then begin an upload and give it up."""
        self.store.listed(self.place, recursive=False)
        upload = self.store.begin(f"{self.place}/.probe")
        with contextlib.suppress(DesignError):
            # to write takes no right to give up
            upload.abort()

    @contextlib.contextmanager
    def draft(self, replacing: bool = False) -> Iterator[Draft]:
        """Uploads that nobody sees before they are completed, and a mark after the last of them."""
        if replacing:
            raise DesignError(
                f"{self.place} is in an object store, where a folder cannot be replaced in one step: name a new one"
            )
        pending = _Uploads(self.store, self.place)
        try:
            yield pending
            pending.complete()
        except BaseException:
            pending.abandon()
            raise


@final
class _Uploads:
    """Objects on their way."""

    def __init__(self, store: S3Store, place: str) -> None:
        self._store, self._place = store, place
        self._uploads: list[Upload] = []
        self._completed: list[Upload] = []

    def write(self, name: str, content: Content) -> None:
        """Send an object, to be completed later."""
        upload = self._store.begin(f"{self._place}/{name}")
        self._uploads.append(upload)
        upload.send(_written(content))

    def complete(self) -> None:
        """Let all of them appear."""
        for upload in self._uploads:
            upload.complete()
            self._completed.append(upload)
        self._store.put(f"{self._place}/{SUCCESS}", b"")

    def abandon(self) -> None:
        """Leave nothing of ours behind, as far as the store answers."""
        for upload in self._uploads:
            with contextlib.suppress(Exception):
                if upload in self._completed or not upload.abort():
                    self._store.delete(upload.path)


def write_file(path: str, content: bytes, complaint: str) -> None:
    """Write a single file, by its path or s3:// URL."""
    place = open_folder(path, complaint)
    if isinstance(place, LocalFolder):
        LocalFolder(place.path.parent, complaint, place.place).write(place.path.name, content)
    elif isinstance(place, ObjectFolder):
        place.store.put(place.place, content)


def folder_of(given: Any, complaint: str, lasting: bool = False) -> Folder:
    """A folder as it is, or the folder of a path."""
    if isinstance(given, (str, os.PathLike)):
        return open_folder(given, complaint, lasting)
    folder: Folder = given
    return folder
