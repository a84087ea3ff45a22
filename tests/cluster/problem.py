"""A lake of many small leaves, a model of it, and what of a fit must not depend on who did the work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from daskglm.cluster.engine import Engine
from daskglm.cluster.sources import open_source
from daskglm.fit import run
from daskglm.plan import make_plan
from daskglm.record import FitRecord

ROWS = 4_000
FORMULA = "y ~ x + log(z) + s + s:x"
KEEPS = ["memory", "disk", "reread"]
# No event in the first two of four years, of which the first is the baseline.
SEPARATED: dict[str, Any] = {"formula": "I(y * (year > 2021)) ~ x + C(year) + s", "family": "poisson"}


@dataclass(frozen=True)
class Joined:
    """A record whose sum says how it was made."""

    text: str

    def __add__(self, other: Joined) -> Joined:
        return Joined(f"({self.text}{other.text})")


def tree(letters: list[str]) -> str:
    """The binary counter's sum, by definition: the largest power of two first, the rest folded from the right."""
    if len(letters) == 1:
        return letters[0]
    half = 1
    while half * 2 < len(letters):
        half *= 2
    return f"({tree(letters[:half])}{tree(letters[half:])})"


def frame(n: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Rows of a Poisson model with a log link."""
    generator = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": generator.normal(size=n),
            "z": generator.uniform(0.5, 2.0, n),
            "s": generator.choice(["a", "b", "c", "d"], n, p=[0.4, 0.3, 0.2, 0.1]),
            "w": generator.uniform(0.5, 3.0, n),
            "year": np.arange(n) * 4 // n + 2020,
        }
    )
    eta = 0.8 + 0.2 * data.x + 0.1 * np.log(data.z) + 0.15 * (data.s == "b") - 0.1 * (data.s == "c")
    data["y"] = generator.poisson(np.exp(eta)).astype(float)
    data.loc[n // 3 : n // 3 + 50, "x"] = np.nan
    return data


def write_lake(folder: Path, rows: int = ROWS) -> Path:
    """Seven files: four in row groups of two sizes, one without rows, one with a single row, one with three."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(frame(rows), preserve_index=False)
    quarter = rows // 4
    for i in range(4):
        size = -(-quarter // (3 + i % 2))
        pq.write_table(table.slice(i * quarter, quarter), folder / f"{i}.parquet", row_group_size=size)
    for name, count in (("empty", 0), ("one", 1), ("three", 3)):
        pq.write_table(table.slice(0, count), folder / f"{name}.parquet")
    return folder


def fitted(
    lake: Any, engine: Engine, keep: str = "memory", reporter: Any = None, formula: str = FORMULA, **options: Any
) -> FitRecord:
    """The Poisson model of a lake, or another."""
    plan = make_plan(formula, {"family": "poisson", "keep": keep, **options})
    return run(plan, lake if hasattr(lake, "leaves") else open_source(lake), engine, reporter)


def bits(record: FitRecord) -> tuple[Any, ...]:
    """Every number of a fit: of arrays their bytes; repr gives every digit, and NaN is NaN."""
    rest: tuple[Any, ...] = (
        record.statistics, record.ledger, record.n_iter, record.n_passes, record.trace, record.aliased, record.shape
    )  # fmt: skip
    if record.separation is not None:
        rest += (record.separation.rows, record.separation.directions.tobytes(), record.separation.finite.tobytes())
    return record.coefficients.tobytes(), record.covariance.tobytes(), repr(rest), record.names


@dataclass
class Told:
    """A reporter that does something when a phase begins, and remembers what it was told."""

    at: str = ""
    do: Callable[[], Any] | None = None
    after: int = 0
    phases: list[str] = field(default_factory=list)
    sizes: list[Any] = field(default_factory=list)
    leaves: int = 0
    rows: int = 0
    partitions: Any = None

    def begin(self, partitions: Any) -> None:
        """Watch the leaves, too."""
        self.partitions = partitions
        partitions.observe(self._leaf)

    def phase(self, name: str) -> None:
        """Do it at the first phase of that name, or later."""
        self.phases.append(name)
        if name == self.at and self.do is not None:
            if self.after == 0:
                self.do()
                self.do = None
            self.after -= 1

    def deviance(self, value: float) -> None:
        """A pass of that kind goes on."""
        if self.phases[-1] == "pass":
            self.phase("pass")

    def size(self, size: Any) -> None:
        """What a large fit takes."""
        self.sizes.append(size)

    def end(self) -> None:
        """The fit is over."""

    def _leaf(self, rows: int, leaves: int) -> None:
        self.rows += rows
        self.leaves += leaves


def later(seconds: float, do: Callable[[], Any]) -> Callable[[], None]:
    """Something that happens a little later, while the pass that has just begun is under way."""
    return lambda: threading.Timer(seconds, do).start()


def letter(leaf: Any) -> Joined:
    """The name of a leaf of one row, whose only number is its place."""
    return Joined(chr(ord("A") + leaf.table.column("x")[0].as_py()))


def letters(count: int) -> list[str]:
    """The names of so many leaves."""
    return [chr(ord("A") + i) for i in range(count)]


def weighed(leaf: Any, coefficients: Any) -> Any:
    """A vector as long as the coefficients, whose last bits depend on the order in which leaves are added."""
    return np.sin(coefficients + leaf.table.column("x")[0].as_py())


def failing(leaf: Any, error: BaseException) -> Any:
    """What a leaf that cannot be summed up does."""
    raise error


def process_ids(cluster: Any) -> list[int]:
    """Of the workers that nannies look after; asking the workers themselves can hang."""
    return [nanny.process.pid for nanny in cluster.workers.values() if nanny.process and nanny.process.pid]


def kill(*ids: int) -> None:
    """As the kernel does when memory runs out."""
    for number in ids:
        os.kill(number, signal.SIGKILL)


def tasks_on(client: Any) -> list[str]:
    """Tasks that the scheduler knows."""

    def tasks(dask_scheduler: Any) -> list[str]:
        return [str(key) for key in dask_scheduler.tasks]

    found: list[str] = client.run_on_scheduler(tasks)
    return found


def left_on(client: Any) -> list[str]:
    """Tasks that the scheduler still knows after it had time to hear of what was released."""
    until = time.monotonic() + 5.0
    while (found := tasks_on(client)) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def blocks_under(folder: Path) -> list[Path]:
    """Blocks on workers' disks."""
    return sorted(folder.rglob("*.block*"))
