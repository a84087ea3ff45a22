"""Fits whose workers are killed, frozen, joined and sent away at random moments: the same bits, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import lakes

KEEPS = ("memory", "disk", "reread")
FAULTS = ("one killed", "all killed", "frozen", "joined", "left")
WORKERS = 2


def soak(rows: int, seeds: range, folder: Path) -> int:
    """One fit per seed; the number of seeds that went wrong."""
    import dask

    from daskglm import estimation as fitting
    from daskglm.cluster import lakes as sources
    from daskglm.cluster.engine import Engine

    sources.LEAF_BYTES, fitting.PILOT_ROWS = 1, 10_000  # type: ignore[misc]
    lake = lakes.claims(folder, rows, files=16)
    expected = _fitted(lake, Engine(1), "memory")
    wrong: Counter[str] = Counter()
    with dask.config.set({"distributed.scheduler.worker-ttl": "6s"}), tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            began = time.perf_counter()
            said, outcome = _one(random.Random(seed), lake, expected, Path(scratch))
            wrong[outcome] += 1
            click.echo(f"  seed {seed}: {said}: {outcome} ({time.perf_counter() - began:.1f} s)")
    click.echo(", ".join(f"{count} {outcome}" for outcome, count in wrong.most_common()))
    return wrong.total() - wrong["same bits"]


def _fitted(lake: Path, engine: Any, keep: str) -> tuple[bytes, bytes, str]:
    from daskglm.cluster.sources import open_source
    from daskglm.fit import run
    from daskglm.plan import make_plan

    plan = make_plan(lakes.FORMULA, {"family": "poisson", "exposure": "exposure", "keep": keep})
    record = run(plan, open_source(lake), engine)
    return record.coefficients.tobytes(), record.covariance.tobytes(), repr(record.statistics)


def _one(generator: random.Random, lake: Path, expected: Any, scratch: Path) -> tuple[str, str]:
    """What was done to one fit on a cluster of its own, and what came of it."""
    from distributed import Client, LocalCluster

    from daskglm.cluster.engine import Engine

    keep, size = generator.choice(KEEPS), generator.choice((1, 2, 4, None))
    plan = sorted((generator.uniform(0.2, 4.0), generator.choice(FAULTS)) for _ in range(generator.randint(1, 3)))
    said = f"{keep}, {size or 'as many as it likes'} leaves a task, " + ", ".join(f"{w} at {t:.2f} s" for t, w in plan)
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", memory_limit="4GiB",
            local_directory=str(scratch), silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        frozen: list[int] = []
        over = threading.Event()
        deeds: dict[str, Callable[[], Any]] = {
            "one killed": lambda: _signal(signal.SIGKILL, [generator.choice(_workers(cluster))]),
            "all killed": lambda: _signal(signal.SIGKILL, _workers(cluster)),
            "frozen": lambda: frozen.extend(_signal(signal.SIGSTOP, [generator.choice(_workers(cluster))])),
            "joined": lambda: cluster.scale(len(cluster.workers) + 1),
            "left": lambda: client.retire_workers([generator.choice(list(client.scheduler_info()["workers"]))]),
        }

        def disturb() -> None:
            began = time.monotonic()
            for moment, what in plan:
                if over.wait(max(began + moment - time.monotonic(), 0.0)):
                    return
                with contextlib.suppress(Exception):
                    deeds[what]()

        thread = threading.Thread(target=disturb, daemon=True)
        thread.start()
        try:
            outcome = (
                "same bits"
                if _fitted(lake, Engine(client=client, leaves_per_task=size), keep) == expected
                else "OTHER BITS"
            )
        except Exception as error:
            outcome = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        finally:
            over.set()
            _signal(signal.SIGKILL, frozen)
        thread.join(10.0)
        left = _left(client, scratch)
    return said, f"{outcome}, {left} left" if left else outcome


def _workers(cluster: Any) -> list[int]:
    """Processes that nannies look after; asking the workers themselves can hang."""
    return [nanny.process.pid for nanny in cluster.workers.values() if nanny.process and nanny.process.pid]


def _signal(number: int, ids: list[int]) -> list[int]:
    for process in ids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
    return ids


def _left(client: Any, scratch: Path) -> str:
    """Keys on the scheduler and blocks on disks some seconds after the end."""
    until = time.monotonic() + 5.0
    while True:
        keys = client.run_on_scheduler(lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks])
        blocks = list(scratch.rglob("*.block*"))
        if not (keys or blocks) or time.monotonic() > until:
            return ", ".join(filter(None, [f"{len(keys)} keys" * bool(keys), f"{len(blocks)} blocks" * bool(blocks)]))
        time.sleep(0.1)


def freezes(folder: Path, patience: float, only: str = "") -> int:
    """Freeze a worker and the scheduler in each phase, with and without worker-ttl; count wrong fits.

    Without worker-ttl a fit must end within the patience and 5 seconds; with it, a frozen worker must
    change no bit, which takes a patience of more than twice the worker-ttl of 8 seconds.
    """
    from daskglm import estimation as fitting
    from daskglm.cluster import lakes as sources
    from tests.cluster.freezing import PHASES, frozen_fit, processes
    from tests.cluster.problem import write_lake

    sources.LEAF_BYTES, fitting.PILOT_ROWS = 1, 1_000  # type: ignore[misc]
    os.environ["DASKGLM_PATIENCE"] = str(patience)
    lake = write_lake(folder / "frozen")
    cases = [(who, phase, ttl) for ttl in (None, "8s") for who in ("worker", "scheduler") for phase in PHASES]
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for number, (who, phase, ttl) in enumerate(cases):
            keep = KEEPS[number % len(KEEPS)]
            name = f"{who} in {phase}, keep={keep}, worker-ttl={ttl or 'not set'}"
            if only not in name:
                continue
            configuration = [f"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL={ttl or 'null'}"]
            with processes(Path(scratch) / str(number), configuration=configuration) as there:
                there.warm_up(lake)
                outcome = frozen_fit(there, lake, who, phase, keep)
            said = outcome.wrong(patience)
            if ttl and who == "worker" and outcome.error is not None:
                said = said or "not healed"
            wrong += bool(said)
            became = "the same bits" if outcome.error is None else " ".join(str(outcome.error).split())[:100]
            click.echo(f"  {name}: {became} after {outcome.seconds:.1f} s{': WRONG, ' if said else ''}{said}")
    return wrong
