"""A process under a memory limit: in a control group of its own where that can be made, else by asking it nicely."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def control_group(limit: int) -> Iterator[Path | None]:
    """A new control group with that many bytes, for the duration; None where this user cannot make one."""
    name = f"daskglm-benchmark-{os.getpid()}"
    version1 = (V1 / "memory.limit_in_bytes").exists()
    group = (V1 if version1 else V2) / name
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version1 else "memory.max")).write_text(str(limit))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def entered(group: Path | None) -> None:
    """Put this process, and so its children, into a group; for use between fork and exec."""
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
