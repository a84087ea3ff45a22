"""Calls to a scheduler and its workers, each with a deadline.

A process that is frozen keeps its connections open and never answers, so that a call without a
deadline can wait for ever.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any

from distributed import Client


class UnansweredError(Exception):
    """A call had no answer within its deadline."""


def ask(client: Client, call: Callable[[], Coroutine[Any, Any, Any]], seconds: float) -> Any:
    """Await call() on the event loop of a client, and give it up after so many seconds.

    An interrupt ends the wait at once. What was asked for may still be done later.

    Raises
    ------
    UnansweredError
        If there is no answer within `seconds`.
    """
    coming = asyncio.run_coroutine_threadsafe(call(), client.loop.asyncio_loop)
    try:
        if not concurrent.futures.wait([coming], seconds).done:
            raise UnansweredError(f"no answer in {seconds:.3g} s")
        return coming.result()
    finally:
        coming.cancel()
