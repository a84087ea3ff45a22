"""Before the first pass: what runs where, whether it fits together, and whether the rows and the sums fit in memory."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, final

import numpy as np

from daskglm.cluster import machine
from daskglm.errors import ClusterError, ClusterWarning, warn

# What must agree for a task to be understood at all, and what must agree for the same bits.
MUST_AGREE = ("daskglm", "python")
SHOULD_AGREE = ("numpy", "numba", "llvmlite", "pyarrow", "pandas", "scipy", "dask", "distributed")
# Dask spills a worker's data to disk from this part of its limit on, and pauses it at 0.8.
SPILLS_AT = 0.6


@final
@dataclass(frozen=True)
class Facts:
    """One process: versions that must agree, processor features that decide last bits, room."""

    versions: Mapping[str, str]
    features: Mapping[str, str]
    host: str
    processors: int
    memory: int
    disk_free: int
    disk_is_memory: bool

    @property
    def identity(self) -> str:
        """The same for two processes that compute the same bits."""
        return _identity(self.versions, self.features)


def _identity(versions: Mapping[str, str], features: Mapping[str, str]) -> str:
    text = json.dumps([dict(versions), dict(features)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def identity() -> str:
    """Of this process."""
    return _identity(versions(), features())


@cache
def versions() -> dict[str, str]:
    """Of this process."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in (*MUST_AGREE, *SHOULD_AGREE):
        if name != "python":
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "absent"
    return found


@cache
def features() -> dict[str, str]:
    """What decides the last bits of this process: NumPy's dispatch, numba's target, the core type of its BLAS.

    A pinned target stands for itself; otherwise the processor's flags do.
    """
    from threadpoolctl import threadpool_info

    core: Any = getattr(np, "_core", None)
    umath = getattr(core, "_multiarray_umath", None)
    enabled = getattr(umath, "__cpu_features__", {})
    # only what NumPy has code for: what else a processor can do changes nothing, and cannot be pinned
    simd = ",".join(sorted(name for name in getattr(umath, "__cpu_dispatch__", enabled) if enabled.get(name)))
    flags = hashlib.sha256(_processor_flags().encode()).hexdigest()[:12]
    pinned = [os.environ.get(name, "") for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")]
    blas = sorted(
        {str(found.get("architecture") or "") for found in threadpool_info() if found.get("user_api") == "blas"}
    )
    return {
        "machine": platform.machine(),
        "numpy": hashlib.sha256(simd.encode()).hexdigest()[:12],
        "numba": " ".join(pinned).strip() or flags,
        "blas": os.environ.get("OPENBLAS_CORETYPE") or ",".join(blas),
    }


def _processor_flags() -> str:
    try:
        with open("/proc/cpuinfo") as handle:
            for line in handle:
                if line.startswith(("flags", "Features")):
                    return " ".join(sorted(line.partition(":")[2].split()))
    except OSError:
        pass
    return platform.processor()


def facts(folder: str | None = None) -> Facts:
    """Of this process; folder: where blocks would lie on disk."""
    place = folder or "."
    free = shutil.disk_usage(place).free if os.path.isdir(place) else 0
    return Facts(
        versions(), features(), socket.gethostname(), machine.processors(), machine.memory_limit(), free,
        machine.on_memory(place),
    )  # fmt: skip


@final
@dataclass(frozen=True)
class Worker:
    """A worker as the scheduler and it itself describe it; memory_limit 0: none; resident: bytes it takes by itself."""

    address: str
    threads: int
    memory_limit: int
    status: str
    facts: Facts | None = None
    resident: int = 0

    @property
    def memory(self) -> int:
        """Bytes it may hold."""
        limit = self.memory_limit or (self.facts.memory if self.facts else 0)
        return min(limit, self.facts.memory) if self.facts else limit


def room_for_rows(workers: Sequence[Worker], partition: int) -> int:
    """Bytes of rows that the workers can hold before Dask spills, beside what they take by themselves, and a partition of
    so many bytes, decoded and encoded, in every thread; no more than half of their limits.
    """
    working = 2 * partition
    beside = (SPILLS_AT * each.memory - each.resident - working * each.threads for each in workers)
    return min(int(sum(max(room, 0.0) for room in beside)), sum(each.memory for each in workers) // 2)


def check_partition(partition: int, place: str, workers: Sequence[Worker]) -> None:
    """An error where a worker cannot hold the largest partition, decoded and encoded, beside what it takes by itself."""
    for each in workers:
        if each.memory and 2 * partition + each.resident > each.memory:
            raise ClusterError(
                f"{place} takes about {_gb(partition)} once decoded, and the worker {each.address} has {_gb(each.memory)}, of "
                f"which {_gb(each.resident)} are in use: give workers more memory, or write the file in smaller row groups"
            )


def check_versions(own: Facts, others: Mapping[str, Facts]) -> None:
    """ClusterError where a process would not understand the work, ClusterWarning where last bits may differ."""
    different: dict[str, list[str]] = {}
    for place, theirs in others.items():
        for name in (*MUST_AGREE, *SHOULD_AGREE):
            here, there = own.versions[name], theirs.versions.get(name, "absent")
            if here == there:
                continue
            if name in MUST_AGREE:
                raise ClusterError(
                    f"{name} is {there} on {place} and {here} here: install the same environment on client, scheduler "
                    "and workers"
                )
            different.setdefault(f"{name} {there} (here {here})", []).append(place)
    for what, places in different.items():
        warn(f"{what} on {_some(places)}: last digits may differ; install the same versions everywhere", ClusterWarning)


def check_features(own: Facts, workers: Mapping[str, Facts]) -> None:
    """A ClusterWarning where workers, or the client, would not compute the same bits."""
    kinds: dict[str, list[str]] = {}
    for place, theirs in {**workers, "the client": own}.items():
        kinds.setdefault(json.dumps(dict(theirs.features), sort_keys=True), []).append(place)
    if len(kinds) > 1:
        groups = " | ".join(_some(places) for places in kinds.values())
        names = [k for k in own.features if len({json.loads(kind).get(k) for kind in kinds}) > 1]
        warn(
            f"processors differ ({', '.join(names)}): {groups}. Last bits will depend on where a part is computed; "
            "OPENBLAS_CORETYPE, NPY_DISABLE_CPU_FEATURES and NUMBA_CPU_NAME, set alike everywhere, pin them",
            ClusterWarning,
        )


def check_threads(workers: Sequence[Worker]) -> None:
    """A ClusterWarning where a host's workers have more threads than it has processors."""
    hosts: dict[str, list[Worker]] = {}
    for worker in workers:
        if worker.facts is not None:
            hosts.setdefault(worker.facts.host, []).append(worker)
    for host, there in hosts.items():
        threads = sum(worker.threads for worker in there)
        processors = max(worker.facts.processors for worker in there if worker.facts)
        if threads > processors:
            warn(
                f"the workers on {host} have {threads} threads for the {processors} processor(s) that affinity and "
                "control group allow: start them with --nthreads to match",
                ClusterWarning,
            )


def check_collection(needed: int, workers: Sequence[Worker]) -> None:
    """A warning where the rows of a collection will be spilled, an error where memory and disks cannot hold them."""
    memory = sum(each.memory for each in workers)
    disks = {(each.facts.host, each.facts.disk_free >> 30): each.facts for each in workers if each.facts is not None}
    free = sum(found.disk_free for found in disks.values() if not found.disk_is_memory)
    ways = "give the cluster more memory, take fewer columns, or write the collection to Parquet and fit the files"
    if needed > SPILLS_AT * memory + free:
        raise ClusterError(
            f"the rows of the collection take about {_gb(needed)}, and the workers have {_gb(memory)} of memory and "
            f"{_gb(free)} of disk to spill to: {ways}"
        )
    if needed > SPILLS_AT * memory:
        warn(
            f"the rows of the collection take about {_gb(needed)}, and the workers have {_gb(memory)}, of which Dask spills "
            f"beyond {SPILLS_AT:.0%}: every pass will read from disk. To avoid it, {ways}",
            ClusterWarning,
        )


def check_blocks(needed: int, workers: Sequence[Worker], keep: str) -> None:
    """A warning where kept rows will be spilled, an error where disk cannot hold them."""
    room = sum(worker.memory for worker in workers)
    if keep == "memory" and needed > SPILLS_AT * room:
        warn(
            f'keep="memory" needs about {_gb(needed)}, and the workers have {_gb(room)}, of which Dask spills beyond '
            f'{SPILLS_AT:.0%}: keep="disk" or keep="reread" is faster',
            ClusterWarning,
        )
    if keep == "disk":
        disks: dict[tuple[str, int], Facts] = {}
        for worker in workers:
            if worker.facts is None:
                continue
            if worker.facts.disk_is_memory:
                raise ClusterError(
                    f'keep="disk": the folder of the worker {worker.address} is memory itself: start it with '
                    '--local-directory on a real disk, or use keep="reread"'
                )
            disks[(worker.facts.host, worker.facts.disk_free >> 30)] = worker.facts
        free = sum(found.disk_free for found in disks.values())
        if disks and needed * 1.1 > free:
            raise ClusterError(
                f'keep="disk" needs about {_gb(needed)} on the disks of the workers, which have {_gb(free)} free: '
                'give them --local-directory with more room, or use keep="reread"'
            )


def check_records(record: int, held: int, threads: int, limit: int, where: str) -> None:
    """An error where the sums of one pass alone do not fit: `held` records at a time for each of so many threads."""
    needed = record * held * threads
    if limit and needed > limit:
        raise ClusterError(
            f"one Gram takes {_gb(record)}, and {where} holds {held} of them for each of {threads} thread(s): "
            f"{_gb(needed)}, more than its {_gb(limit)}. Give it more memory, fewer threads, or the model fewer columns"
        )


def _gb(size: float) -> str:
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def _some(places: Sequence[str]) -> str:
    shown = ", ".join(places[:3])
    return f"{shown} and {len(places) - 3} more" if len(places) > 3 else shown
