"""A client for a cluster that is named by an address or a scheduler file."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from daskglm.errors import ClusterError, DesignError

SCHEDULER_OPTIONS = ("scheduler", "scheduler_file", "tls_ca_file", "tls_cert", "tls_key")
# How long a scheduler may take to answer, and to write its file, in seconds.
CONNECT_SECONDS = 30.0


@contextlib.contextmanager
def connected(options: Mapping[str, Any]) -> Iterator[Any]:
    """A client for the scheduler that the options name, closed at the end; None where they name none.

    scheduler: "tcp://host:port" or "tls://host:port"; scheduler_file: what `dask scheduler --scheduler-file` writes;
    tls_ca_file, tls_cert, tls_key: PEM files. DesignError where they contradict each other, ClusterError where nobody
    answers or the certificates are refused.
    """
    given = {name: options[name] for name in SCHEDULER_OPTIONS if options.get(name) is not None}
    if not given:
        yield None
        return
    address, path = given.get("scheduler"), given.get("scheduler_file")
    if (address is None) == (path is None):
        raise DesignError("name one scheduler: --scheduler tcp://host:port, or --scheduler-file FILE")
    security = _security(given, address)
    from distributed import Client

    place = str(address or path)
    try:
        found = _address_in(str(path)) if path is not None else str(address)
        client = Client(found, security=security, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ClusterError(f"the scheduler at {place} cannot be reached: {reason or type(error).__name__}") from None
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=5)


def _security(given: Mapping[str, Any], address: Any) -> Any:
    files = {name: given[name] for name in ("tls_ca_file", "tls_cert", "tls_key") if name in given}
    if not files:
        return None
    if address is not None and not str(address).startswith("tls://"):
        raise DesignError(f"certificates are for a scheduler at tls://, not for {address}")
    if len(files) < 3:
        raise DesignError("TLS takes three files: --tls-ca-file, --tls-cert and --tls-key")
    for name, file in files.items():
        if not os.path.isfile(file):
            raise DesignError(f"--{name.replace('_', '-')}: {file} does not exist")
    from distributed import Security

    return Security(
        tls_ca_file=str(files["tls_ca_file"]),
        tls_client_cert=str(files["tls_cert"]),
        tls_client_key=str(files["tls_key"]),
        require_encryption=True,
    )


def _address_in(path: str) -> str:
    """The address in a scheduler's file, which may not be there yet, or half written."""
    until = time.monotonic() + CONNECT_SECONDS
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as handle:
            return str(json.load(handle)["address"])
        if time.monotonic() > until:
            what = "names no address" if os.path.exists(path) else "did not appear"
            raise ClusterError(f"the scheduler file {path} {what} in {CONNECT_SECONDS:.0f} s")
        time.sleep(0.1)
