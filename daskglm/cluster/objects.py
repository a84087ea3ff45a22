"""Objects in S3 and in what speaks like it: many small requests overlapped, each conditional, each tried again for a while.

One client a process, on s3fs's own event loop, whatever number of threads ask. An object is read by ranges with If-Match and the
ETag it had when the lake was planned, so that one that was replaced in between is refused by the store itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, final
from urllib.parse import parse_qsl, unquote

import pyarrow as pa

from daskglm.cluster import machine
from daskglm.cluster.patience import VARIABLE as PATIENCE_VARIABLE
from daskglm.cluster.patience import patience
from daskglm.cluster.stores import (
    CONCURRENCY_VARIABLE,
    SUFFIXES,
    TAIL_BYTES,
    Entry,
    Pieces,
    Range,
    changed,
    coalesced,
    concurrency,
    footer_size,
    gone,
)
from daskglm.errors import ChangedInputError, DaskglmError, DesignError, UnavailableError

# A request is tried so often, waiting twice as long each time: some ten seconds, in which a store that is merely busy recovers.
ATTEMPTS = 8
FIRST_WAIT = 0.1
LONGEST_WAIT = 4.0
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
# A store that is silent is asked again so often before patience ends: the connection may be what is broken.
SILENT_ATTEMPTS = 2
# What has been fetched and not asked for yet holds no more than this, nor than this part of the memory there is.
AHEAD_BYTES = 256 << 20
AHEAD_PART = 1 / 8
# Per request under way: footers that are asked for before the first of them has come, and announcements after which one that
# nobody came for is forgotten.
WINDOW = 4
STALE = 4

# Requests that leave everything as it is.
_READING = {"get_object", "list_objects_v2"}
_QUERY = {"region", "scheme", "endpoint_override"}
# Errors that another try may mend. The libraries underneath are not imported for the names of their exceptions.
_BUSY = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException",
    "ConditionalRequestConflict", "OperationAborted",
}  # fmt: skip
_BROKEN = {
    "OSError", "TimeoutError", "HTTPClientError", "ConnectionError", "IncompleteReadError", "ClientPayloadError",
    "ClientConnectionError", "ResponseParserError", "HTTPException",
}  # fmt: skip
_REFUSED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}

T = TypeVar("T")


@final
class S3Store:
    """Objects by their URLs. options: of s3fs, from the URL; all else comes from the environment, as usual with AWS."""

    local = False
    conditional = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self._expected: dict[Any, _Expected] = {}
        self._announcements = 0
        self._lock = threading.Lock()
        self._made: tuple[int, _Connection] | None = None
        # at the end of the process everything goes by itself
        weakref.finalize(self, _forget, self._expected).atexit = False

    def __reduce__(self) -> Any:
        return (S3Store, (self.options,))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Store) and self.options == other.options

    def __hash__(self) -> int:
        return hash(repr(sorted(self.options.items(), key=str)))

    @property
    def ahead(self) -> int:
        """As many as may be under way."""
        return concurrency()

    @property
    def _connection(self) -> _Connection:
        made = self._made
        if made is None or made[0] != os.getpid():
            # in a forked child what the parent waited for never comes
            self._expected.clear()
            made = self._made = (os.getpid(), connected(self.options))
        return made[1]

    def entry(self, path: str) -> Entry | None:
        """One or two short listings, which need no right but to list, and to none but to read if that is missing."""
        bucket, key = _split(path)
        name = path.rstrip("/")
        if not key or path.endswith("/"):
            return Entry(name, folder=True)
        connection = self._connection
        try:
            first = connection.run(connection.page(path, Bucket=bucket, Prefix=key, MaxKeys=1))
            for found in first.get("Contents", []):
                if found["Key"] == key:
                    return Entry(name, found["Size"], found["ETag"])
            inside = connection.run(connection.page(path, Bucket=bucket, Prefix=f"{key}/", MaxKeys=1))
        except _RefusedError:
            # many may read objects whose names they may not list
            if not path.endswith(SUFFIXES):
                raise
            return Entry(path)
        return Entry(name, folder=True) if inside.get("Contents") else None

    def presumed(self, path: str) -> Entry | None:
        """An object by its ending, which the request for its footer will find; else as `entry`."""
        return Entry(path) if path.endswith(SUFFIXES) else self.entry(path)

    def listed(self, folder: str, stem: str = "", recursive: bool = True) -> list[Entry]:
        """Pages of a thousand; folders are what names have in common."""
        bucket, key = _split(folder)
        connection = self._connection
        prefix = f"{key.rstrip('/')}/{stem}" if key else stem
        wanted = {"Bucket": bucket, "Prefix": prefix} | ({} if recursive else {"Delimiter": "/"})
        found: list[Entry] = []
        folders: dict[str, None] = {}
        while True:
            page = connection.run(connection.page(folder, **wanted))
            for item in page.get("Contents", []):
                name: str = item["Key"]
                if not name.endswith("/"):
                    found.append(Entry(f"s3://{bucket}/{name}", item["Size"], item["ETag"]))
                parent = name.rpartition("/")[0]
                while recursive and len(parent) > len(key) and parent not in folders:
                    folders[parent] = None
                    parent = parent.rpartition("/")[0]
            folders.update((item["Prefix"].rstrip("/"), None) for item in page.get("CommonPrefixes", []))
            if not page.get("IsTruncated"):
                return found + [Entry(f"s3://{bucket}/{name}", folder=True) for name in folders]
            wanted["ContinuationToken"] = page["NextContinuationToken"]

    def footers(self, entries: Sequence[Entry], use: Callable[[Entry, bytes], T]) -> Iterator[T]:
        """One request for each object, a second only for a footer that is longer; results are used as they come."""
        connection = self._connection
        window: deque[Future[tuple[Entry, bytes]]] = deque()
        try:
            for entry in entries:
                window.append(connection.start(connection.footer(entry)))
                if len(window) >= WINDOW * concurrency():
                    yield use(*window.popleft().result())
            while window:
                yield use(*window.popleft().result())
        finally:
            for future in window:
                future.cancel()

    @contextlib.contextmanager
    def reading(self, entry: Entry, ranges: Sequence[Range]) -> Iterator[Any]:
        """The ranges, fetched now if they have not been already."""
        connection = self._connection
        with self._lock:
            expected = self._expected.pop((entry.path, tuple(ranges)), None)
        if expected is not None:
            pieces = expected.taken()
        else:
            pieces = connection.run(connection.pieces(entry, coalesced(ranges)))
        assert entry.size is not None

        def fetch(start: int, end: int) -> bytes:
            return connection.run(connection.part(entry, start, end))

        yield pa.PythonFile(Pieces(entry.size, pieces, fetch), mode="r")

    def expect(self, entry: Entry, ranges: Sequence[Range]) -> None:
        """Begin to fetch them, unless enough is waiting already."""
        connection = self._connection
        key, wanted = (entry.path, tuple(ranges)), coalesced(ranges)
        size = sum(end - start for start, end in wanted)
        with self._lock:
            self._announcements += 1
            oldest = next(iter(self._expected), None)
            if oldest is not None and self._expected[oldest].number < self._announcements - STALE * concurrency():
                # announced to a thread that found it done already, or given up: nobody will come for it
                self._expected.pop(oldest).given_up()
            if key not in self._expected and connection.reserved(size):
                future = connection.start(connection.pieces(entry, wanted))
                self._expected[key] = _Expected(connection, future, size, self._announcements)

    # -- writing ---------------------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[bytes, str]:
        """Return the content of an object and its ETag; FileNotFoundError where there is none."""
        try:
            answer, content = self._request("get_object", path)
        except _MissingError:
            raise FileNotFoundError(path) from None
        return content, answer["ETag"]

    def put(self, path: str, content: bytes) -> None:
        """Write an object, or replace it."""
        self._request("put_object", path, Body=content)

    def put_if(self, path: str, content: bytes, tag: str | None) -> bool:
        """Replace the object of that ETag (None: write a new one); False where it is another."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            self._request("put_object", path, Body=content, **condition)
        except _UnknownRequestError:
            self.put(path, content)
        except (ChangedInputError, _MissingError):
            # an answer that was lost on its way makes the next attempt fail
            with contextlib.suppress(FileNotFoundError):
                return self.get(path)[0] == content
            return False
        return True

    def delete(self, path: str) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(_MissingError):
            self._request("delete_object", path)

    def begin(self, path: str) -> Upload:
        """Begin an upload, whose object appears when it is completed."""
        answer, _ = self._request("create_multipart_upload", path)
        return Upload(self, path, answer["UploadId"])

    def _request(self, operation: str, path: str, **parameters: Any) -> tuple[Any, bytes]:
        bucket, key = _split(path)
        wanted = {"Bucket": bucket, "Key": key, **parameters}
        connection = self._connection
        return connection.run(connection.request(operation, path, wanted))


@final
class Upload:
    """An object that is on its way to the store; a single part, which may have 5 GB."""

    def __init__(self, store: S3Store, path: str, number: str) -> None:
        self._store, self.path, self._number = store, path, number
        self._tag = ""

    def send(self, content: bytes) -> None:
        """Send the content."""
        answer, _ = self._store._request("upload_part", self.path, UploadId=self._number, PartNumber=1, Body=content)
        self._tag = answer["ETag"]

    def complete(self) -> None:
        """Let the object appear; ChangedInputError where there is one of that name by now."""
        wanted: dict[str, Any] = {
            "UploadId": self._number,
            "MultipartUpload": {"Parts": [{"ETag": self._tag, "PartNumber": 1}]},
        }
        try:
            self._store._request("complete_multipart_upload", self.path, IfNoneMatch="*", **wanted)
        except _UnknownRequestError:
            self._store._request("complete_multipart_upload", self.path, **wanted)
        except ChangedInputError:
            raise ChangedInputError(f"{self.path} was written by somebody else meanwhile: name a new folder") from None
        except _MissingError:
            # the upload is gone after an attempt whose answer was lost
            if self._store.entry(self.path) is None:
                raise

    def abort(self) -> bool:
        """Give the upload up; False where there is none any more, for it was completed."""
        try:
            self._store._request("abort_multipart_upload", self.path, UploadId=self._number)
        except _MissingError:
            return False
        return True


@final
class _Expected:
    """Ranges on their way, and the room that is kept for them."""

    def __init__(
        self, connection: _Connection, future: Future[list[tuple[int, bytes]]], size: int, number: int
    ) -> None:
        self._connection, self._future, self._size, self.number = connection, future, size, number

    def taken(self) -> list[tuple[int, bytes]]:
        """The ranges, whose room is another's now."""
        try:
            return self._future.result()
        finally:
            self.given_up()

    def given_up(self) -> None:
        """Nobody wants them."""
        self._future.cancel()
        self._connection.reserved(-self._size)


def _forget(expected: dict[Any, _Expected]) -> None:
    for each in expected.values():
        each.given_up()


class _RefusedError(DesignError):
    """Credentials are missing, wrong, or have no right to this."""


class _MissingError(DesignError):
    """There is no such object."""


class _UnknownRequestError(DesignError):
    """The store does not implement what it was asked for."""


@final
class _Connection:
    """One client: its event loop, the bound on its requests, the room for what it fetches ahead, and its patience."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        import fsspec

        requests, silence = concurrency(), patience() / SILENT_ATTEMPTS
        config = {
            "max_pool_connections": requests, "connect_timeout": min(CONNECT_SECONDS, silence),
            "read_timeout": min(READ_SECONDS, silence),
            # tries are counted here, or they would multiply
            "retries": {"max_attempts": 0},
        }  # fmt: skip
        # an instance of our own: fsspec's would be another in each thread
        self._s3 = fsspec.filesystem("s3", skip_instance_cache=True, config_kwargs=config, **options)
        self._s3.connect()
        self._loop: asyncio.AbstractEventLoop = self._s3.loop
        self._limit = asyncio.Semaphore(requests)
        self._lock = threading.Lock()
        self._held = 0
        self._room = min(AHEAD_BYTES, int(machine.memory_limit() * AHEAD_PART))
        self._refused = False

    def renewed(self) -> _Connection:
        """This connection, with the credentials read again if those it had were refused: files of profiles change."""
        if self._refused:
            # the session has read its files, and older s3fs would go on with it
            self._s3.session = None
            self._s3.connect(refresh=True)
            self._refused = False
        return self

    def reserved(self, size: int) -> bool:
        """Whether there is room for so many bytes more; it is taken, or given back."""
        with self._lock:
            if size > 0 and self._held + size > self._room:
                return False
            self._held += size
            return True

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Let the loop do it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the loop do it, and wait."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def page(self, path: str, **parameters: Any) -> Any:
        """One page of a listing."""
        return (await self._asked("list_objects_v2", Entry(path), parameters))[0]

    async def footer(self, entry: Entry) -> tuple[Entry, bytes]:
        """The entry with its size and tag, and the object's last bytes, its footer among them."""
        if entry.size == 0:
            return entry, b""
        bucket, key = _split(entry.path)
        if entry.size is None:
            wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes=-{TAIL_BYTES}"}
            answer, tail = await self._asked("get_object", entry, wanted)
            if not answer:
                return Entry(entry.path, 0, ""), b""
            size = int(answer.get("ContentRange", "").rpartition("/")[2] or answer["ContentLength"])
            entry = Entry(entry.path, size, answer["ETag"])
        else:
            tail = await self.part(entry, max(entry.size - TAIL_BYTES, 0), entry.size)
        assert entry.size is not None
        needed = footer_size(tail)
        if len(tail) < needed <= entry.size:
            tail = await self.part(entry, entry.size - needed, entry.size)
        return entry, tail

    async def part(self, entry: Entry, start: int, end: int) -> bytes:
        """Bytes start to end - 1 of the very object that was listed."""
        bucket, key = _split(entry.path)
        wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{end - 1}", "IfMatch": entry.tag}
        return (await self._asked("get_object", entry, wanted, end - start))[1]

    async def pieces(self, entry: Entry, ranges: Sequence[Range]) -> list[tuple[int, bytes]]:
        """Several parts of one object, side by side."""
        parts = await asyncio.gather(*(self.part(entry, start, end) for start, end in ranges))
        return [(start, part) for (start, _), part in zip(ranges, parts, strict=True)]

    async def request(self, operation: str, path: str, parameters: Mapping[str, Any]) -> tuple[Any, bytes]:
        """One request about an object."""
        return await self._asked(operation, Entry(path), parameters)

    async def _asked(
        self, operation: str, entry: Entry, parameters: Mapping[str, Any], length: int | None = None
    ) -> tuple[Any, bytes]:
        """A request's answer and body, after as many tries as it takes."""
        verb = "read" if operation in _READING else "written"
        asked = 0.0
        for attempt in range(ATTEMPTS):
            try:
                async with self._limit:
                    began = self._loop.time()
                    client = await self._s3.get_s3(parameters["Bucket"])
                    answer = await getattr(client, operation)(**parameters)
                    if operation != "get_object":
                        return answer, b""
                    async with answer["Body"] as body:
                        content = await body.read()
                if entry.tag is not None and answer["ETag"] != entry.tag:
                    # a store that does not know If-Match
                    raise changed(entry.path)
                if length is not None and len(content) != length:
                    raise OSError(f"{len(content)} bytes came instead of {length}")
                return answer, content
            except DaskglmError:
                raise
            except Exception as error:
                code, status = _code(error)
                if (code == "InvalidRange" or status == 416) and entry.tag is None:
                    return None, b""
                if not _may_mend(error, code, status):
                    sentence = _sentence(error, code, status, entry, verb)
                    self._refused |= isinstance(sentence, _RefusedError)
                    raise sentence from None
                asked += self._loop.time() - began
                if _is_silence(error) and asked > patience() - 0.5:
                    raise UnavailableError(
                        f"{entry.path} could not be {verb}: the store takes connections and has not answered for "
                        f"{asked:.0f} s. Run again later; {PATIENCE_VARIABLE} sets how long it is waited for"
                    ) from None
                if attempt + 1 == ATTEMPTS:
                    raise UnavailableError(
                        f"{entry.path} could not be {verb} in {ATTEMPTS} attempts, the last of which ended with "
                        f"{_said(error, code)}: run again later, and with a smaller {CONCURRENCY_VARIABLE} if the store is busy"
                    ) from None
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(FIRST_WAIT * 2**attempt, LONGEST_WAIT))
        raise AssertionError("every attempt returns or raises")


_CONNECTIONS: dict[Any, _Connection] = {}
_CONNECTING = threading.Lock()


def connected(options: Mapping[str, Any]) -> _Connection:
    """The connection of this process with these options and the credentials that the environment names now."""
    named = sorted((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "FSSPEC_", "DASKGLM_")))
    key = (os.getpid(), repr(sorted(options.items(), key=str)), tuple(named))
    with _CONNECTING:
        try:
            if key not in _CONNECTIONS:
                _CONNECTIONS[key] = _Connection(options)
            return _CONNECTIONS[key].renewed()
        except DaskglmError:
            raise
        except Exception as error:
            raise DesignError(f"no connection to S3 can be made: {_said(error, '')}") from None


def from_url(url: str) -> tuple[S3Store, str]:
    """The store of s3://[KEY:SECRET@|anonymous@]BUCKET/NAME[?region=&endpoint_override=&scheme=], and the bare URL."""
    rest = url.partition("://")[2]
    options: dict[str, Any] = {}
    place, mark, query = rest.rpartition("?")
    words = dict(parse_qsl(query)) if mark else {}
    if words and set(words) <= _QUERY:
        rest = place
        if "endpoint_override" in words:
            endpoint = words["endpoint_override"]
            scheme = "" if "://" in endpoint else f"{words.get('scheme', 'https')}://"
            options["endpoint_url"] = scheme + endpoint
        if "region" in words:
            options["client_kwargs"] = {"region_name": words["region"]}
    bucket, slash, key = rest.partition("/")
    user, _, bucket = bucket.rpartition("@")
    if user == "anonymous":
        options["anon"] = True
    elif user:
        name, _, secret = user.partition(":")
        options |= {"key": unquote(name), "secret": unquote(secret)}
    if not bucket or re.search(r"[*?\[]", bucket):
        raise DesignError(f"s3://{bucket}/{key} has no bucket: write s3://BUCKET/NAME, a pattern in NAME at most")
    return S3Store(options), f"s3://{bucket}{slash}{key}"


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key


def _code(error: BaseException) -> tuple[str, int]:
    """The store's own word for an error, and the status of its answer."""
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        return "", 0
    code = response.get("Error", {}).get("Code", "")
    return str(code), int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_mend(error: BaseException, code: str, status: int) -> bool:
    if code or status:
        return code in _BUSY or status == 429 or (status >= 500 and status != 501)
    return bool(_BROKEN & {kind.__name__ for kind in type(error).__mro__})


def _is_silence(error: BaseException) -> bool:
    """Whether a request ended because no answer came."""
    return any("Timeout" in kind.__name__ for kind in type(error).__mro__)


def _sentence(error: BaseException, code: str, status: int, entry: Entry, verb: str) -> BaseException:
    """What the user is told of an answer that no other try will mend."""
    path = entry.path
    if code == "PreconditionFailed" or status == 412 or code == "InvalidRange":
        return changed(path)
    if code == "NoSuchBucket":
        return DesignError(f"{path} does not exist: there is no bucket {_split(path)[0]}")
    if code == "NoSuchKey" or status == 404:
        return gone(path) if entry.tag is not None else _MissingError(f"{path} does not exist")
    kinds = {kind.__name__ for kind in type(error).__mro__}
    # older clients do not know conditional writes
    if code == "NotImplemented" or status == 501 or "ParamValidationError" in kinds:
        return _UnknownRequestError(f"{path} cannot be {verb}: {_said(error, code)}")
    if code in _REGION or status == 301:
        return DesignError(f"{path} is in another region ({_said(error, code)}): set AWS_DEFAULT_REGION to it")
    if status in (401, 403) or code in _REFUSED or any("Credential" in kind for kind in kinds):
        return _RefusedError(
            f"the store refuses {path} ({_said(error, code)}): check the credentials, in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or in the profile that AWS_PROFILE names"
        )
    if code or status or "BotoCoreError" in kinds or isinstance(error, ValueError):
        return DesignError(f"{path} cannot be {verb}: {_said(error, code)}")
    return error


def _said(error: BaseException, code: str) -> str:
    words = " ".join(str(error).split())[:200]
    return code or (f"{type(error).__name__}: {words}" if words else type(error).__name__)
