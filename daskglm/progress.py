"""A progress bar on standard error while a fit is under way, in a terminal only."""

from __future__ import annotations

import sys
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def reporter(progress: bool | None) -> Bar | None:
    """A bar if asked for, or if None was said and standard error is a terminal."""
    wanted = sys.stderr.isatty() if progress is None else progress
    return Bar() if wanted else None


@final
class Bar:
    """Pass, leaves done, rows per second and the deviance so far."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[what]:<9}"), BarColumn(), TextColumn("{task.completed}/{task.total} leaves"),
            TextColumn("{task.fields[speed]}"), TextColumn("{task.fields[deviance]}"), TimeElapsedColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task: Any = None
        self._rows = 0
        self._began = 0.0
        self._pass = 0
        self._partitions: Any = None

    def begin(self, partitions: Any) -> None:
        """Show the bar."""
        self._partitions = partitions
        partitions.observe(self._leaf)
        self._progress.start()
        self._task = self._progress.add_task("", total=partitions.n_leaves, what="reading", speed="", deviance="")
        self._restart()

    def phase(self, name: str) -> None:
        """A new stretch of work."""
        self._pass = 1 if name == "pass" else 0
        self._restart()
        self._progress.update(self._task, what=f"pass {self._pass}" if self._pass else name)

    def deviance(self, value: float) -> None:
        """A pass is over."""
        deviance = f"deviance {value:.8g}"
        if self._pass:
            self._pass += 1
        self._restart()
        self._progress.update(self._task, what=f"pass {self._pass}" if self._pass else "start", deviance=deviance)

    def size(self, size: Any) -> None:
        """What a large fit takes, as a line above the bar."""
        self._progress.console.print(str(size), highlight=False)

    def end(self) -> None:
        """Take the bar away."""
        if self._partitions is not None:
            self._partitions.observe(None)
        self._progress.stop()

    def _restart(self) -> None:
        self._rows, self._began = 0, self._progress.get_time()
        self._progress.reset(self._task, total=self._partitions.n_leaves)

    def _leaf(self, rows: int, leaves: int) -> None:
        self._rows += rows
        seconds = max(self._progress.get_time() - self._began, 1e-6)
        self._progress.update(self._task, advance=leaves, speed=f"{self._rows / seconds / 1e6:.1f} M rows/s")
