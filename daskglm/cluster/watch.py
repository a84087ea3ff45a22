"""Whether a pass still goes on: what Dask does not heal ends in one sentence, and never in silence."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from concurrent.futures import CancelledError
from typing import Any, final

from distributed import Client, Future
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from daskglm.errors import ClusterError, DaskglmError

# How long nothing may happen, in seconds, before the workers are looked at, and before the fit gives up.
PATIENCE = 60.0
FIRST_LOOK = 5.0


def patience() -> float:
    """Seconds without any progress that the environment (DASKGLM_PATIENCE) or the package allows."""
    try:
        return max(float(os.environ.get("DASKGLM_PATIENCE", PATIENCE)), 1.0)
    except ValueError:
        return PATIENCE


@contextlib.contextmanager
def lost(client: Client) -> Iterator[None]:
    """Errors of a connection that is gone, as one sentence."""
    try:
        yield
    except DaskglmError:
        raise
    except (CommClosedError, CancelledError, OSError, TimeoutError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise ClusterError(_gone(client, error)) from None
    except RuntimeError as error:
        if client.status == "running" and "client" not in str(error).lower():
            raise
        raise ClusterError(_gone(client, error)) from None


def _gone(client: Client, error: BaseException) -> str:
    # what Dask says of it lists every future
    what = "its connection broke"
    if isinstance(error, OSError) and not isinstance(error, (CommClosedError, TimeoutError)):
        what = " ".join(str(error).split())[:200] or what
    return (
        f"the scheduler was lost ({what}): start it again and rerun; with checkpoint= the same call goes on from the last "
        "pass"
    )


@final
class Watch:
    """Looks at a cluster while tasks run."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since = time.monotonic()
        self._looked = self._since

    def described(self) -> dict[str, Any]:
        """Workers as the scheduler describes them, by address."""
        with lost(self._client):
            found: dict[str, Any] = self._client.sync(self._client.scheduler.identity)["workers"]
        return found

    def threads(self) -> dict[str, int]:
        """Threads of each running worker."""
        found = self.described()
        running = {a: int(w["nthreads"]) for a, w in found.items() if str(w["status"]) == "running"}
        return running or {address: int(w["nthreads"]) for address, w in found.items()}

    def workers_soon(self) -> dict[str, Any]:
        """The workers, waiting for the first where a cluster still grows; a task asks an adaptive one to."""
        found = self.described()
        if found:
            return found
        nudge = self._client.submit(int, pure=False, key=f"daskglm-wake-{time.time_ns():x}")
        try:
            until = time.monotonic() + patience()
            while not found:
                if time.monotonic() > until:
                    raise ClusterError(
                        f"the scheduler at {self._client.scheduler.address} has no workers, and none came in "
                        f"{patience():.0f} s: start some"
                    )
                time.sleep(0.2)
                found = self.described()
        finally:
            nudge.release()
        return found

    def begin(self) -> None:
        """A pass begins."""
        self._since = self._looked = time.monotonic()

    def look(self, futures: Collection[Future[Any]], progress: bool) -> None:
        """Called now and then while some futures are pending. ClusterError where nothing moves and nothing will."""
        now = time.monotonic()
        if progress:
            self._since = now
        if self._client.status not in ("running", "connecting"):
            raise ClusterError(_gone(self._client, RuntimeError(f"the client is {self._client.status}")))
        if now - self._since < min(FIRST_LOOK, patience() / 2) or now - self._looked < 1.0:
            return
        self._looked = now
        reason = self._stuck({str(future.key) for future in futures})
        if reason is None:
            self._since = now
        elif now - self._since > patience():
            raise ClusterError(f"nothing has happened for {now - self._since:.0f} s: {reason}")

    def _stuck(self, keys: set[str]) -> str | None:
        """Why none of these keys can be computed just now, or None where one is being computed."""
        workers = self.described()
        if not workers:
            return "the cluster has no workers; start some, or look why they end"
        with lost(self._client):
            busy = self._client.processing()
        now = time.time()
        reasons = []
        for address, found in workers.items():
            mine = [key for key in busy.get(address, ()) if str(key) in keys or "daskglm-" in str(key)]
            status, silent = str(found["status"]), now - float(found["last_seen"])
            metrics = found.get("metrics") or {}
            if status == "paused":
                memory, limit = metrics.get("memory", 0), found["memory_limit"]
                reasons.append(
                    f"{address} is paused with {memory / 1e6:.0f} of {(limit or 0) / 1e6:.0f} MB in use: it needs more "
                    "memory, or more room on its disk to spill to"
                )
            elif silent > max(10.0, patience() / 4):
                reasons.append(
                    f"{address} has been silent for {silent:.0f} s; with distributed.scheduler.worker-ttl set, the "
                    "scheduler gives its work to others"
                )
            elif mine:
                return None
        return "; ".join(reasons[:3]) or "no worker has taken up the work: look at the dashboard"

    def explain(self, future: Future[Any]) -> None:
        """Raise what made a task fail."""
        if future.status == "error":
            with lost(self._client):
                error: BaseException = future.exception()
            if isinstance(error, DaskglmError):
                raise error
            if isinstance(error, KilledWorker):
                raise ClusterError(
                    "a part of the data ended its worker again and again, most likely for lack of memory: give workers "
                    'more, fewer threads each, or use keep="disk" or keep="reread"'
                ) from None
            if isinstance(error, MemoryError):
                raise ClusterError("a worker ran out of memory: give workers more, or fewer threads each") from None
            if isinstance(error, (CancelledError, CommClosedError)):
                raise ClusterError(_gone(self._client, error)) from None
            raise error
        raise ClusterError(_gone(self._client, RuntimeError(f"a task was {future.status}")))
