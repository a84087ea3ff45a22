"""Whether a pass still goes on: what Dask does not heal ends in one sentence, and never in silence."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, final

from distributed import Client, Future
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from daskglm.cluster.calls import UnansweredError, ask
from daskglm.cluster.patience import patience
from daskglm.errors import ClusterError, DaskglmError

# How long nothing may happen, in seconds, before the workers are looked at.
FIRST_LOOK = 5.0
# How long the scheduler may take to answer when it is asked because something else did not.
BRIEF = 2.0
# A worker is called silent when the scheduler has not heard of it for this long; workers report at
# least every 5 seconds.
SILENT_SECONDS = 10.0


@contextlib.contextmanager
def lost(client: Client) -> Iterator[None]:
    """Errors of a connection that is gone, as one sentence."""
    try:
        yield
    except DaskglmError:
        raise
    except CancelledError as error:
        raise ClusterError(_why_cancelled(client, error)) from None
    except (CommClosedError, OSError, TimeoutError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise ClusterError(_gone(client, error)) from None
    except RuntimeError as error:
        if client.status == "running" and "client" not in str(error).lower():
            raise
        raise ClusterError(_gone(client, error)) from None
    except Exception as error:
        # what Dask raises for a closed client is no RuntimeError in all its versions
        if client.status in ("closing", "closed") and type(error).__module__.startswith("distributed"):
            raise ClusterError(_CLOSED) from None
        raise


# Why Dask cancelled a task, by the word it has for it.
_CANCELLED = {
    "scheduler-restart": "the workers were restarted while the fit was running (client.restart()), which gives all work up: "
    "rerun; with checkpoint= the same call goes on from the last pass",
    "lost dependencies": "data that the fit depends on are lost: what was scattered to a worker, or comes from a future, cannot "
    "be computed again when that worker ends. Read the rows from files, or scatter them again",
}
_CANCELLED["already forgotten"] = _CANCELLED["lost dependencies"]
# Reasons that explain others come first.
_REASONS = {name: i for i, name in enumerate(("scheduler-connection-lost", *_CANCELLED))}
_CLOSED = "client= was closed while the fit was running: pass one that stays open until the fit has ended"


def _reason(error: BaseException) -> str:
    """Dask's word for why something was cancelled."""
    groups = getattr(error, "error_groups", None) or [error]
    return str(getattr(groups[0], "reason", "unknown"))


def _why_cancelled(client: Client, error: BaseException) -> str:
    """Why a task of the fit was cancelled."""
    reason = _reason(error)
    if reason in _CANCELLED:
        return _CANCELLED[reason]
    if reason == "scheduler-connection-lost":
        return _gone(client, error)
    if client.status in ("closing", "closed"):
        return _CLOSED
    said = "" if reason == "unknown" else f" ({reason})"
    return (
        f"a task of the fit was cancelled{said}: another program cancelled it, or data that it depends on, scattered to a "
        "worker or held by a future, are lost. Read the rows from files, or scatter them again"
    )


def _gone(client: Client, error: BaseException) -> str:
    if client.status in ("closing", "closed") and isinstance(error, RuntimeError):
        return _CLOSED
    # what Dask says of it lists every future
    what = "its connection broke"
    if isinstance(error, OSError) and not isinstance(error, (CommClosedError, TimeoutError)):
        what = " ".join(str(error).split())[:200] or what
    return (
        f"the scheduler was lost ({what}): start it again and rerun; with checkpoint= the same call goes on from the last "
        "pass"
    )


@final
@dataclass(frozen=True)
class Standing:
    """A worker as the scheduler sees it.

    silent: seconds since the scheduler heard of it; stalled: seconds since the scheduler heard of all the workers that its
    part of the awaited tasks depends on, None where it has no part.
    """

    address: str
    status: str
    silent: float
    memory: int
    memory_limit: int
    stalled: float | None = None


def standings(keys: Sequence[Any], held: bool, dask_scheduler: Any = None) -> list[Standing]:
    """Return every worker's standing, with regard to tasks that are pending, or (held) finished and fetched from workers.

    It runs on the scheduler, whose clock stamps what workers report, and which Dask names.
    """
    now = time.time()
    silent = {address: now - found.last_seen for address, found in dask_scheduler.workers.items()}
    stalled: dict[str, float] = {}
    for task in _awaited(dask_scheduler.tasks, keys, held):
        if held:
            for holder in task.who_has or ():
                stalled[holder.address] = silent.get(holder.address, 0.0)
            continue
        worker = task.processing_on
        since = silent.get(worker.address, 0.0)
        if task not in worker.executing:
            # it may wait for results that lie elsewhere
            needed = [dep for dep in task.dependencies if dep.who_has and worker not in dep.who_has]
            since = max([since, *(silent.get(holder.address, 0.0) for dep in needed for holder in dep.who_has)])
        stalled[worker.address] = min(since, stalled.get(worker.address, since))
    return [
        Standing(
            address, found.status.name, silent[address], int((found.metrics or {}).get("memory") or 0),
            int(found.memory_limit or 0), stalled.get(address),
        )
        for address, found in dask_scheduler.workers.items()
    ]  # fmt: skip


def _awaited(tasks: Any, keys: Sequence[Any], held: bool) -> Iterator[Any]:
    """Return tasks that are held under these keys, or those under way among them and what they need."""
    stack = [tasks[key] for key in keys if key in tasks]
    seen = set(stack)
    while stack:
        task = stack.pop()
        if held or task.processing_on is not None:
            yield task
        else:
            below = [dep for dep in task.waiting_on or () if dep not in seen]
            seen.update(below)
            stack += below


@final
class Watch:
    """Looks at a cluster while tasks run."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since = time.monotonic()
        self._looked = self._since

    def identity(self, seconds: float | None = None) -> dict[str, Any]:
        """The scheduler's description of itself and its workers."""
        with lost(self._client), self.answering(seconds) as limit:
            found: dict[str, Any] = ask(self._client, self._client.scheduler.identity, limit)
        return found

    def described(self, seconds: float | None = None) -> dict[str, Any]:
        """Workers as the scheduler describes them, by address."""
        found: dict[str, Any] = self.identity(seconds)["workers"]
        return found

    @contextlib.contextmanager
    def answering(self, seconds: float | None = None, before: float = 0.0) -> Iterator[float]:
        """Give the seconds that the scheduler has for an answer; ClusterError where it is too late.

        before: seconds without a sign of it until now.
        """
        limit = patience() if seconds is None else max(seconds, BRIEF)
        if self._client.scheduler is None:
            raise ClusterError(_gone(self._client, RuntimeError(f"the client is {self._client.status}")))
        try:
            yield limit
        except UnansweredError:
            raise ClusterError(self._mute(before + limit)) from None

    def _mute(self, seconds: float) -> str:
        scheduler = self._client.scheduler
        return (
            f"the scheduler at {scheduler.address if scheduler else 'its address'} has not answered for {seconds:.0f} s: it is "
            "frozen, overloaded or cut off from this process. Look at its log and rerun; with checkpoint= the same call "
            "goes on from the last pass"
        )

    def silent(self, addresses: Collection[str], seconds: float) -> ClusterError:
        """Return the error of workers that have not answered, which names those that are silent."""
        try:
            found = self._standings([], False, BRIEF, seconds)
        except ClusterError as error:
            return error
        mute = [each for each in found if each.address in addresses and each.silent > min(seconds / 2, SILENT_SECONDS)]
        said = "; ".join(_silence(each) for each in mute[:3]) or "none of them is silent otherwise: look at their logs"
        return ClusterError(f"workers were asked, and not all have answered for {seconds:.0f} s: {said}")

    def _standings(self, keys: Sequence[Any], held: bool, seconds: float, before: float = 0.0) -> list[Standing]:
        client = self._client
        with lost(client), self.answering(seconds, before) as limit:
            found: list[Standing] = ask(
                client, lambda: client.run_on_scheduler(standings, keys, held, asynchronous=True), limit
            )
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
                found = self.described(until - time.monotonic())
        finally:
            nudge.release()
        return found

    def begin(self) -> None:
        """A pass begins."""
        self._since = self._looked = time.monotonic()

    def look(self, futures: Collection[Future[Any]], progress: bool, held: bool = False) -> None:
        """Called now and then while some futures are pending, or (held) are fetched. ClusterError where nothing moves and
        nothing will: no worker with a part in them has been heard of, and none was done, for as long as patience lasts.
        """
        now = time.monotonic()
        if progress:
            self._since = now
        if self._client.status not in ("running", "connecting"):
            raise ClusterError(_gone(self._client, RuntimeError(f"the client is {self._client.status}")))
        if now - self._since < min(FIRST_LOOK, patience() / 2) or now - self._looked < 1.0:
            return
        try:
            keys, before = [future.key for future in futures], now - self._since
            found = self._standings(keys, held, patience() - before, before)
        except ClusterError:
            if not held and any(future.status not in ("pending", "lost") for future in futures):
                # the scheduler was slow to answer, and worked
                self._since = time.monotonic()
                return
            raise
        now = self._looked = time.monotonic()
        stalled = [each.stalled for each in found if each.stalled is not None and (held or each.status != "paused")]
        if stalled:
            # a task may go on where one worker is heard of; fetching takes all that hold something
            self._since = max(self._since, now - (max(stalled) if held else min(stalled)))
        if now - self._since > patience():
            raise ClusterError(f"nothing has happened for {now - self._since:.0f} s: {_reasons(found, held)}")

    def explain(self, future: Future[Any], others: Collection[Future[Any]] = ()) -> None:
        """Raise what made a task fail. others: futures that it may depend on."""
        if future.status == "error":
            with lost(self._client):
                error: BaseException = future.exception()
            if isinstance(error, DaskglmError):
                raise error
            if isinstance(error, KilledWorker):
                raise ClusterError(
                    "a part of the data ended its worker again and again, most likely for lack of memory: give workers "
                    'more, or fewer threads each; rows of files are kept elsewhere with keep="disk" or keep="reread"'
                ) from None
            if isinstance(error, MemoryError):
                raise ClusterError("a worker ran out of memory: give workers more, or fewer threads each") from None
            if isinstance(error, CancelledError):
                raise ClusterError(_why_cancelled(self._client, error)) from None
            if isinstance(error, CommClosedError):
                raise ClusterError(_gone(self._client, error)) from None
            raise error
        cancelled = (each for each in (future, *others) if each.status == "cancelled")
        # a restart and a lost connection make dependencies lost, too
        found = sorted(map(_cancellation, cancelled), key=lambda each: _REASONS.get(_reason(each), len(_REASONS)))
        raise ClusterError(_why_cancelled(self._client, found[0] if found else CancelledError())) from None


def _cancellation(future: Future[Any]) -> BaseException:
    """What Dask says of a future that was cancelled."""
    try:
        future.result(timeout=BRIEF)
    except (CancelledError, TimeoutError) as error:
        return error
    except Exception:
        pass
    return CancelledError()


def _reasons(found: Sequence[Standing], held: bool) -> str:
    """Why nothing moves."""
    if not found:
        return "the cluster has no workers; start some, or look why they end"
    reasons = []
    for each in found:
        if each.silent > min(patience() / 2, SILENT_SECONDS):
            reasons.append(_silence(each))
        elif each.status == "paused":
            reasons.append(
                f"{each.address} is paused with {each.memory / 1e6:.0f} of {each.memory_limit / 1e6:.0f} MB in use: it needs "
                "more memory, or more room on its disk to spill to"
            )
    what = "what was computed does not arrive" if held else "no worker has taken up the work"
    return "; ".join(reasons[:3]) or f"{what}: look at the dashboard"


def _silence(found: Standing) -> str:
    return (
        f"{found.address} has been silent for {found.silent:.0f} s; with distributed.scheduler.worker-ttl set, the "
        "scheduler gives its work to others"
    )
