"""Schedulers and workers that are frozen (SIGSTOP) at a chosen moment of a fit: what became of the fit, and what is left."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client

from daskglm.cluster import dask as engine
from daskglm.cluster.engine import Engine
from daskglm.errors import ClusterError
from tests.cluster.problem import Told, bits, blocks_under, fitted, left_on

PHASES = ("preflight", "reading", "pilot", "pass", "gathering", "closing")
# Beyond the patience that was stated, an error may take this long.
GRACE_SECONDS = 5.0
START_SECONDS = 60.0


@dataclass
class Processes:
    """A scheduler and workers in processes of their own, and the client of this one."""

    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]
    client: Client
    folder: Path
    passes: int = 0
    expected: tuple[Any, ...] = ()
    stopped: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stopped_at: float = 0.0

    def stop(self, who: str) -> None:
        """Freeze the scheduler or the last worker, once."""
        if not self.stopped:
            self.stopped.append(self.scheduler if who == "scheduler" else self.workers[-1])
            self.stopped[0].send_signal(signal.SIGSTOP)
            self.stopped_at = time.monotonic()

    def go_on(self) -> None:
        """Continue what was frozen."""
        while self.stopped:
            self.stopped.pop().send_signal(signal.SIGCONT)

    def warm_up(self, lake: Path) -> None:
        """One fit without any fault: what it gives, and how many passes it takes."""
        # compiling can keep a worker silent for longer than it would be waited for
        before = self.client.run_on_scheduler(_wait_for_workers, None)
        told = Told()
        self.expected = bits(fitted(lake, Engine(client=self.client), reporter=told))
        self.passes = told.phases.count("pass") - 1
        self.client.run_on_scheduler(_wait_for_workers, before)


def _wait_for_workers(seconds: float | None, dask_scheduler: Any = None) -> Any:
    """Set how long the scheduler waits for silent workers; return what it was before."""
    before = dask_scheduler.worker_ttl
    if before:
        dask_scheduler.worker_ttl = seconds or 300.0
    return before


@contextlib.contextmanager
def processes(folder: Path, *, workers: int = 2, configuration: Sequence[str] = ()) -> Iterator[Processes]:
    """A scheduler, workers of one thread that nobody starts again, and a client."""
    folder.mkdir(parents=True, exist_ok=True)
    file = ["--scheduler-file", str(folder / "scheduler.json")]
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *file, "--no-dashboard", *arguments]
        environment = ["env", *configuration]
        started.append(subprocess.Popen([*environment, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    # importing takes seconds, in which a worker is silent
    alone = ["--nthreads", "1", "--no-nanny", "--local-directory", str(folder), "--preload", "daskglm"]
    try:
        scheduler = start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-show")
        crew = [start("worker", *alone, "--host", "127.0.0.1") for _ in range(workers)]
        with Client(scheduler_file=file[1], set_as_default=False, timeout=START_SECONDS) as client:
            client.wait_for_workers(workers, timeout=START_SECONDS)
            found = Processes(scheduler, crew, client, folder)
            try:
                yield found
            finally:
                found.go_on()
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Outcome:
    """What became of a fit: seconds from the freeze to its end, its error if there was one, and
    whether its numbers are those of the fit without faults; keys, files and threads that are left.
    """

    seconds: float
    error: BaseException | None
    same: bool
    left: tuple[str, ...]

    def wrong(self, patience: float) -> str:
        """What is wrong with it; nothing where it is as it should be."""
        said = []
        if self.error is None:
            said += [] if self.same else ["OTHER BITS"]
        elif not isinstance(self.error, ClusterError):
            said.append(f"{type(self.error).__name__}: {self.error}")
        elif self.seconds > patience + GRACE_SECONDS:
            said.append(f"an error after {self.seconds:.1f} s")
        return "; ".join([*said, *self.left])


def frozen_fit(
    there: Processes, lake: Path, who: str, phase: str, keep: str, and_then: Callable[[], Any] | None = None
) -> Outcome:
    """Fit, freeze the scheduler or a worker in that phase, and look what became of it."""
    threads = set(threading.enumerate())

    def stop() -> None:
        there.stop(who)
        if and_then is not None:
            and_then()

    told = {
        "closing": Told("pass", stop, there.passes - 1),
        **{name: Told(name, stop) for name in ("reading", "pilot", "pass")},
    }.get(phase)
    gathered = engine.Cluster._gathered

    def stop_and_gather(self: Any, futures: Any) -> Any:
        if self.phase == "pass":
            stop()
        return gathered(self, futures)

    error: BaseException | None = None
    same = False
    if phase == "preflight":
        stop()
    elif phase == "gathering":
        engine.Cluster._gathered = stop_and_gather  # type: ignore[method-assign]
    try:
        same = bits(fitted(lake, Engine(client=there.client), keep, told)) == there.expected
    except (Exception, KeyboardInterrupt) as caught:
        error = caught
    finally:
        engine.Cluster._gathered = gathered  # type: ignore[method-assign]
        seconds = time.monotonic() - there.stopped_at
        froze = bool(there.stopped)
        there.go_on()
    found = ["nothing was frozen"] * (not froze) + _left(there, threads)
    return Outcome(seconds, error, same, tuple(found))


def _left(there: Processes, threads: set[threading.Thread]) -> list[str]:
    """Keys, files and threads some seconds after the end."""
    keys = left_on(there.client)
    until = time.monotonic() + 10.0
    while True:
        files, later = blocks_under(there.folder), set(threading.enumerate()) - threads
        if not (files or later) or time.monotonic() > until:
            break
        time.sleep(0.1)
    return (
        [f"{len(keys)} keys"] * bool(keys)
        + [f"{len(files)} files"] * bool(files)
        + [f"threads {sorted(thread.name for thread in later)}"] * bool(later)
    )
