"""What this process may use: processors and memory, as affinity and control groups allow rather than as installed."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_V1_UNLIMITED = 1 << 60


def processors() -> int:
    """min(processors of the affinity mask, processor quota of the control group), at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = _quota()
    return max(1, min(count, quota) if quota else count)


def memory_limit() -> int:
    """Bytes this process may hold: the least of physical memory and the limits of its control groups."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        total = 4 << 30
    limits = _group_values("memory", ("memory.max", "memory.high", "memory.limit_in_bytes"))
    return min([total, *(limit for limit in limits if 0 < limit < _V1_UNLIMITED)])


def on_memory(path: str) -> bool:
    """Whether a folder lies on a file system that is itself memory."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return False
    real = os.path.realpath(path)
    best = ("", "")
    for line in mounts:
        parts = line.split()
        inside = real == parts[1] or real.startswith(parts[1].rstrip("/") + "/")
        if inside and len(parts[1]) >= len(best[0]):
            best = (parts[1], parts[2])
    return best[1] in ("tmpfs", "ramfs")


def _quota() -> int:
    for folder in _group_folders("cpu"):
        try:
            if (folder / "cpu.max").exists():
                allowed, period = (folder / "cpu.max").read_text().split()
                if allowed != "max":
                    return max(1, int(int(allowed) / int(period)))
            elif (folder / "cpu.cfs_quota_us").exists():
                allowed_us = int((folder / "cpu.cfs_quota_us").read_text())
                if allowed_us > 0:
                    return max(1, allowed_us // int((folder / "cpu.cfs_period_us").read_text()))
        except (OSError, ValueError):
            continue
    return 0


def _group_values(controller: str, names: tuple[str, ...]) -> list[int]:
    values = []
    for folder in _group_folders(controller):
        for name in names:
            try:
                text = (folder / name).read_text().strip()
            except OSError:
                continue
            if text.isdigit():
                values.append(int(text))
    return values


def _group_folders(controller: str) -> list[Path]:
    """This process's control group for a controller and all above it, for versions 1 and 2."""
    folders: list[Path] = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
        elif controller in controllers.split(","):
            roots = [Path("/sys/fs/cgroup") / controllers, Path("/sys/fs/cgroup") / controller]
        else:
            continue
        for root in roots:
            here = root / path.lstrip("/")
            while True:
                folders.append(here)
                if here == root or root not in here.parents:
                    break
                here = here.parent
    return folders


class _OneBlasThread:
    """One BLAS thread from the first that enters to the last that leaves, then what it was before.

    The limit of most libraries belongs to the whole process: fits or tasks side by side that each set and reset it would do
    so under one another's arithmetic, and the number of threads changes last bits. Two also collapse when another process
    wants a core.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limits: Any = None
        self._found: Any = None
        self._modules = -1

    def _controller(self) -> Any:
        """The libraries that are loaded, looked for again only where something was imported since: it takes a while."""
        if self._modules != len(sys.modules):
            from threadpoolctl import ThreadpoolController

            self._found, self._modules = ThreadpoolController(), len(sys.modules)
        return self._found

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            _take_control()
            # every thread that enters says so, for some libraries count threads by caller
            limits = self._controller().limit(limits=1, user_api="blas")
            self._limits = limits if self._inside == 0 else self._limits
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    _take_control()
                    self._limits.restore_original_limits()
                    _take_control()


def _take_control() -> None:
    """In threadpoolctl 3.8 only the thread that first set a limit may set one; calls of others are ignored in silence."""
    from threadpoolctl import OpenBLASController

    clear = getattr(OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


one_blas_thread = _OneBlasThread()
