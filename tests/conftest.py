"""One cluster of two worker processes for all tests of the distributed engine."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daskglm import estimation as fitting
from daskglm.cluster import lakes, machine
from tests.cluster.problem import write_lake

# a shell starts what it runs in the background with interrupts ignored, and tests here interrupt themselves
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where workers keep what they keep: a folder that is no memory, as `keep="disk"` wants it."""
    folder = tmp_path_factory.mktemp("workers")
    if machine.on_memory(str(folder)):
        pytest.skip("the folder of temporary files is memory itself")
    return folder


@pytest.fixture(scope="session")
def cluster(scratch: Path) -> Iterator[Any]:
    """Two workers with one thread each."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit="2GiB",
        local_directory=str(scratch), silence_logs=50,
    ) as found:  # fmt: skip
        yield found


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """A client that nobody finds unless it is named; both workers are there."""
    from distributed import Client

    with Client(cluster, set_as_default=False) as found:
        found.wait_for_workers(2, timeout=30)
        yield found


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of many small leaves."""
    return write_lake(tmp_path_factory.mktemp("cluster") / "lake")


@pytest.fixture(autouse=True)
def computing_as_before() -> Iterator[None]:
    """What computes Dask collections is what it was: clients that are closed out of order leave their own behind."""
    import dask

    before = dask.config.config.get("scheduler")
    yield
    if before is None:
        dask.config.config.pop("scheduler", None)
    else:
        dask.config.set(scheduler=before)


@pytest.fixture
def quiet() -> Iterator[None]:
    """What the command line silences speaks again afterwards."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row group a leaf, and pilots from a thousand rows on."""
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1_000)
