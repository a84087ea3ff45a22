"""A client for a cluster that is named by an address or a scheduler file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from daskglm.cluster.patience import patience
from daskglm.errors import ClusterError, DesignError

SCHEDULER_OPTIONS = ("scheduler", "scheduler_file", "tls_ca_file", "tls_cert", "tls_key")
# How long a scheduler may take to answer, and to write its file, in seconds.
CONNECT_SECONDS = 30.0
# How long a host may refuse the connection: nobody listens there, and Dask would go on asking for all of that time.
REFUSED_SECONDS = 2.0
LEAST_CONNECT_SECONDS = 5.0
# What Dask may take beyond the time it was given, to say why it gave up.
GRACE_SECONDS = 0.5
# How long a client may take to leave; a scheduler that is frozen does not answer it.
CLOSE_SECONDS = 1.5
_ADDRESS = re.compile(r"(?:(?:tcp|tls)://)?(\[[0-9A-Fa-f:.%]+\]|[^\s:/@\[\]]+):(\d+)/?")


@contextlib.contextmanager
def connected(options: Mapping[str, Any]) -> Iterator[Any]:
    """A client for the scheduler that the options name, closed at the end; None where they name none.

    scheduler: "tcp://host:port", "tls://host:port" or "host:port"; scheduler_file: what `dask scheduler --scheduler-file`
    writes; tls_ca_file, tls_cert, tls_key: PEM files. DesignError where they contradict each other or are no address,
    ClusterError where nobody answers or the certificates are refused.
    """
    given = {name: options[name] for name in SCHEDULER_OPTIONS if options.get(name) is not None}
    if not given:
        yield None
        return
    address, path = given.get("scheduler"), given.get("scheduler_file")
    if (address is None) == (path is None):
        raise DesignError("name one scheduler: --scheduler tcp://host:port, or --scheduler-file FILE")
    if path is not None:
        address = _awaited(str(path))
    place, address = str(path or address), str(address)
    if not _ADDRESS.fullmatch(address):
        # Dask knows more kinds, and keeps a process that tries one of them for a minute
        raise DesignError(
            f"{address!r} is no address of a scheduler: tcp://host:port, tls://host:port or host:port is one"
        )
    security = _security(given, address)
    with _quiet():
        client = _client(address, security, place)
        try:
            yield client
        finally:
            with contextlib.suppress(Exception):
                client.close(timeout=CLOSE_SECONDS)


def _client(address: str, security: Any, place: str) -> Any:
    """A client that is connected. A host that refuses is asked for two seconds, one that is silent for thirty; both for
    as long as DASKGLM_PATIENCE says where that is set, and not beyond thirty seconds.
    """
    from distributed import Client

    given = "DASKGLM_PATIENCE" in os.environ
    limit = min(patience(), CONNECT_SECONDS) if given else CONNECT_SECONDS
    reason: str | None = None
    for seconds in (limit if given else min(REFUSED_SECONDS, limit), limit):
        began = time.monotonic()
        reason = asyncio.run(_unmet(address, security, seconds))
        if reason is None or time.monotonic() - began < seconds:
            break
        if _refused(address):
            reason = "the connection is refused, for nobody listens there"
            break
        if seconds >= limit:
            break
    if reason is None:
        try:
            # the client keeps this limit for connecting again
            limit = max(limit, LEAST_CONNECT_SECONDS)
            return Client(address, security=security, set_as_default=False, timeout=limit)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            reason = _said(error)
    raise ClusterError(f"the scheduler at {place} cannot be reached: {reason}")


async def _unmet(address: str, security: Any, seconds: float) -> str | None:
    """Why nobody who speaks as Dask does answers within so many seconds; None where somebody does.

    A client would ask whoever refuses again and again, and wait for ever for one that takes the call and is silent.
    """
    from distributed.comm import connect

    arguments = security.get_connection_args("client")
    try:
        comm = await asyncio.wait_for(connect(address, timeout=seconds, **arguments), seconds + GRACE_SECONDS)
    except TimeoutError:
        return f"no answer in {seconds:.3g} s"
    except OSError as error:
        return _said(error)
    except Exception as error:
        # what came was taken for a message, and anything may become of that
        return f"who answers there does not speak as a Dask scheduler of this version does ({_said(error)})"
    await comm.close()
    return None


def _said(error: BaseException) -> str:
    said = [" ".join(str(each).split()) for each in (error.__cause__, error) if each is not None]
    return next((text[:200] for text in said if text), type(error).__name__)


def _refused(address: str) -> bool:
    """Whether the host says that nobody listens there."""
    found = _ADDRESS.fullmatch(address)
    assert found is not None
    try:
        with socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=1.0):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask tells of a lost connection in tracebacks; whoever asked for a fit is told in one sentence."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _security(given: Mapping[str, Any], address: str) -> Any:
    """What to speak to the address with: the files given, or Dask's configuration.

    DesignError for what Dask would refuse too, since a client that it refuses takes a minute to be rid of.
    """
    from distributed import Security

    files = {name: str(given[name]) for name in ("tls_ca_file", "tls_cert", "tls_key") if name in given}
    encrypted = address.startswith("tls://")
    if files and not encrypted:
        raise DesignError(f"certificates are for a scheduler at tls://, not for {address}")
    if files and len(files) < 3:
        raise DesignError("TLS takes three files: --tls-ca-file, --tls-cert and --tls-key")
    for name, file in files.items():
        if not os.path.isfile(file):
            raise DesignError(f"--{name.replace('_', '-')}: {file} does not exist")
    names = {"tls_ca_file": "tls_ca_file", "tls_cert": "tls_client_cert", "tls_key": "tls_client_key"}
    chosen = {names[name]: file for name, file in files.items()}
    security = Security(**chosen, require_encryption=True) if chosen else Security()
    try:
        arguments = security.get_connection_args("client")
    except OSError as error:
        told = ", ".join(files.values()) or "those of Dask's configuration"
        raise DesignError(f"certificates that cannot be used ({told}): {' '.join(str(error).split())}") from None
    if arguments["require_encryption"] and not encrypted:
        raise DesignError(f"Dask's configuration here demands encryption: name the scheduler by tls://, not {address}")
    if encrypted and arguments["ssl_context"] is None:
        raise DesignError(f"{address} takes certificates: give --tls-ca-file, --tls-cert and --tls-key")
    return security


def _awaited(path: str) -> str:
    """The address in a scheduler's file, which may still be on its way."""
    until = time.monotonic() + CONNECT_SECONDS
    while True:
        written = False
        try:
            with open(path, encoding="utf-8") as handle:
                written = bool(handle.read(1))
                handle.seek(0)
                return str(json.load(handle)["address"])
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > until:
                break
        time.sleep(0.1)
    if written:
        raise DesignError(f"{path} is not the file of a scheduler (dask scheduler --scheduler-file)")
    raise ClusterError(f"the scheduler file {path} did not appear in {CONNECT_SECONDS:.0f} s")
