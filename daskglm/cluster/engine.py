"""Which engine does the work: threads in this process, or the cluster of a client that is active or named."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast, final

from daskglm.cluster import local
from daskglm.cluster.sources import Source
from daskglm.errors import DesignError
from daskglm.partitions import Partitions


@final
@dataclass(frozen=True)
class Engine:
    """Where the work is done and how it is grouped.

    threads, memory_limit: of the embedded engine; leaves_per_task: a power of two, None for a rule; client: a
    `distributed.Client`, None for the one that is active, if any.
    """

    threads: int | None = None
    memory_limit: int | None = None
    leaves_per_task: int | None = None
    client: Any = None

    def __post_init__(self) -> None:
        if self.client is not None and (self.threads or self.memory_limit):
            raise DesignError(
                "threads and memory limit are those of the workers: leave them out where a cluster is named"
            )
        size = self.leaves_per_task
        if size is not None and (size < 1 or size & (size - 1)):
            raise DesignError(f"leaves_per_task must be a power of two, not {size}")


F = TypeVar("F", bound=Callable[..., Any])


@final
@dataclass
class _Named:
    """A client that a call names for whatever it reads, and whether it has read anything."""

    client: Any
    used: bool = False


_named: ContextVar[_Named | None] = ContextVar("daskglm_client", default=None)


@contextlib.contextmanager
def named_client(client: Any) -> Iterator[None]:
    """Let the cluster of a client read the rows meanwhile; None changes nothing.

    Raises
    ------
    DesignError
        If nothing was read, so that the client was named in vain.
    """
    if client is None:
        yield
        return
    named = _Named(client)
    token = _named.set(named)
    try:
        yield
    finally:
        _named.reset(token)
    if not named.used:
        raise DesignError(
            "client= is for a call that reads rows, and this one reads none: leave it out. What is lazy is computed "
            "by the client that computes it"
        )


def on_cluster(method: F) -> F:
    """Let a method with the keyword client= read rows on the cluster of that client."""

    @functools.wraps(method)
    def reading(*args: Any, client: Any = None, **options: Any) -> Any:
        with named_client(client):
            return method(*args, **options)

    return cast(F, reading)


def client_for(source: Source, engine: Engine) -> Any:
    """The client whose cluster reads a source, or None for the embedded engine.

    Rows in this process's memory stay in this process unless a client is named; rows of a Dask collection never come here.
    """
    if engine.client is not None:
        return engine.client
    named = _named.get()
    if named is not None:
        named.used = True
        return named.client
    if engine.threads or engine.memory_limit:
        return None
    return None if source.in_memory else _active()


def _active() -> Any:
    """The client that is current; where distributed was never imported there is none."""
    module = sys.modules.get("distributed.client")
    if module is None:
        return None
    try:
        return module.default_client()
    except ValueError:
        return None


def settle(source: Source, texts: Iterable[Any], engine: Engine) -> None:
    """Let the values of columns of objects say what they are, where the texts of a request mention such columns.

    One reduction over those columns of a Dask DataFrame; every other source has declared its types.
    """
    undecided: frozenset[str] = getattr(source, "undecided", frozenset())
    request = " ".join(text for text in texts if isinstance(text, str))
    names = sorted(name for name in undecided if name in request or "." in request)
    if not names:
        return
    from daskglm.cluster.collections import seen_in

    source.select(names)
    rows = open_rows(source, names, "auto", engine)
    try:
        source.decide(rows.total(seen_in))  # type: ignore[attr-defined]
    finally:
        rows.release()


def open_rows(source: Source, columns: Sequence[str], keep: str, engine: Engine) -> Partitions[Any]:
    """Partitions of LeafTable over a source whose selection is settled."""
    client, size = client_for(source, engine), engine.leaves_per_task
    if client is None:
        return local.open_partitions(source, columns, keep, engine.threads, engine.memory_limit, size)
    from daskglm.cluster import dask as distributed_engine

    return distributed_engine.open_partitions(source, columns, keep, client, size)


def open_scored(source: Source, columns: Sequence[str], threads: int | None = None) -> Partitions[Any]:
    """Partitions of LeafTable that are read once: on the cluster of a client that is named, or in this process."""
    if _named.get() is not None:
        return open_rows(source, columns, "auto" if hasattr(source, "chunks") else "reread", Engine())
    return local.open_partitions(source, columns, "reread", threads)
