"""Clusters that end, freeze or are full: healed with the same bits, or one sentence in good time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster
from distributed import scheduler as scheduler_module
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.core import Status
from distributed.scheduler import KilledWorker

from daskglm import estimation as fitting
from daskglm import families
from daskglm.cli import main
from daskglm.cluster import dask as engine
from daskglm.cluster import lakes, watch
from daskglm.cluster.engine import Engine
from daskglm.cluster.patience import patience
from daskglm.cluster.sources import open_source
from daskglm.cluster.watch import Standing, Watch, lost
from daskglm.errors import ClusterError, DataError, DesignError
from tests.cluster.freezing import GRACE_SECONDS, Processes, frozen_fit, processes
from tests.cluster.problem import FORMULA, Told, bits, fitted, frame, later, left_on
from tests.model import home_made

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second without progress is enough."""
    monkeypatch.setenv("DASKGLM_PATIENCE", "1")


# A worker of one thread that nobody starts again.
ALONE = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]


@contextlib.contextmanager
def threads(count: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A cluster in this process, which begins and ends at once, and a client."""
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, processes=False, dashboard_address=":0", memory_limit=0,
            silence_logs=50, **options,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield cluster, client


# -- no one works ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_a_cluster_without_workers_is_a_sentence(lake: Path) -> None:
    with threads(0) as (_, client):
        began = time.monotonic()
        with pytest.raises(ClusterError, match=r"the scheduler at inproc://\S+ has no workers, and none came in 1 s"):
            fitted(lake, Engine(client=client))
        assert 1.0 <= time.monotonic() - began < 5.0
        assert left_on(client) == []


def test_the_first_worker_is_waited_for(lake: Path) -> None:
    with threads(0) as (cluster, client):
        timer = threading.Timer(0.5, lambda: cluster.scale(1))
        timer.start()
        record = fitted(lake, Engine(client=client), formula="y ~ x")
        timer.join()
        assert bits(record) == bits(fitted(lake, Engine(1), formula="y ~ x"))
        assert left_on(client) == []


@pytest.mark.usefixtures("impatient")
def test_workers_that_all_leave_in_mid_fit_are_a_sentence(lake: Path) -> None:
    with threads(1) as (cluster, client):
        (address,) = client.scheduler_info()["workers"]

        def leave() -> None:
            cluster.sync(cluster.scheduler.remove_worker, address, stimulus_id="test", expected=True)

        with pytest.raises(
            ClusterError, match=r"nothing has happened for .* s: the cluster has no workers; start some"
        ):
            fitted(lake, Engine(client=client), reporter=Told("pass", leave, 1))
        assert left_on(client) == []


@pytest.mark.usefixtures("impatient")
def test_workers_that_are_paused_are_a_sentence(lake: Path) -> None:
    def pause(dask_worker: Any) -> None:
        dask_worker.status = Status.paused

    with threads(2) as (_, client):
        told = Told("pass", lambda: client.run(pause), 1)
        began = time.monotonic()
        with pytest.raises(
            ClusterError, match=r"is paused with \d+ of 0 MB in use: it needs more memory, or more room"
        ):
            fitted(lake, Engine(client=client), reporter=told)
        assert time.monotonic() - began < 10.0
        assert left_on(client) == []


# -- frozen ------------------------------------------------------------------------------------------------------------


def test_a_frozen_worker_is_given_up_and_no_bit_changes(
    lake: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # by default a worker says every half second that it lives, and is given up after ten silences at the least
    monkeypatch.setattr(scheduler_module, "heartbeat_interval", lambda n: 0.1)
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "0.2s"}),
        threads(1, protocol="tcp://") as (cluster, client),
    ):
        cluster.scheduler.worker_ttl = 60.0
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, *ALONE]
        frozen = subprocess.Popen(
            [*command, "--local-directory", str(scratch)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            client.wait_for_workers(2, timeout=60)

            def freeze() -> None:
                frozen.send_signal(signal.SIGSTOP)
                cluster.scheduler.worker_ttl = 5.0

            told = Told("pass", freeze)
            began = time.monotonic()
            record = fitted(lake, Engine(client=client, leaves_per_task=2), "memory", told)
            assert time.monotonic() - began > 1.0
            assert len(client.scheduler_info()["workers"]) == 1
        finally:
            frozen.kill()
            frozen.wait()
        assert bits(record) == bits(fitted(lake, Engine(2)))


@pytest.fixture(scope="module")
def there(lake: Path, scratch: Path) -> Iterator[Processes]:
    """Processes that are frozen and go on again, after one fit without faults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lakes, "LEAF_BYTES", 1)
        patch.setattr(fitting, "PILOT_ROWS", 1_000)
        with processes(scratch / "frozen") as found:
            found.warm_up(lake)
            yield found


FREEZES = [
    ("worker", "preflight", "memory", r"not all have answered for 2 s: tcp://\S+ has been silent for"),
    ("worker", "pass", "disk", r"nothing has happened for \d s: tcp://\S+ has been silent for"),
    ("worker", "gathering", "reread", r"nothing has happened for \d s: tcp://\S+ has been silent for"),
    ("scheduler", "preflight", "memory", r"the scheduler at tcp://\S+ has not answered for 2 s: it is frozen"),
    ("scheduler", "pass", "disk", r"the scheduler at tcp://\S+ has not answered for \d s: it is frozen"),
    ("scheduler", "gathering", "memory", r"the scheduler at tcp://\S+ has not answered for \d s: it is frozen"),
]


@pytest.mark.parametrize("who, phase, keep, said", FREEZES, ids=lambda value: str(value)[:10])
def test_a_frozen_process_is_a_sentence_in_time_and_nothing_is_left(
    there: Processes, lake: Path, monkeypatch: pytest.MonkeyPatch, who: str, phase: str, keep: str, said: str
) -> None:
    monkeypatch.setenv("DASKGLM_PATIENCE", "2")
    outcome = frozen_fit(there, lake, who, phase, keep)
    assert outcome.wrong(2.0) == ""
    assert outcome.error is not None
    with pytest.raises(ClusterError, match=said):
        raise outcome.error


@pytest.mark.parametrize("who, phase, keep", [case[:3] for case in FREEZES[1:]])
def test_an_interrupt_beside_a_frozen_process_ends_in_time_and_nothing_is_left(
    there: Processes, lake: Path, who: str, phase: str, keep: str
) -> None:
    interrupt = later(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome = frozen_fit(there, lake, who, phase, keep, interrupt)
    assert isinstance(outcome.error, KeyboardInterrupt)
    assert outcome.seconds < 0.5 + GRACE_SECONDS
    assert outcome.left == ()


# -- between a result and its fetching ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_results_that_are_lost_before_they_are_fetched_are_waited_for_in_vain(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with threads(1) as (cluster, client):
        (address,) = client.scheduler_info()["workers"]
        finish = engine.Cluster.finish

        def and_then_leave(self: Any, futures: Any, rows: Any = ()) -> None:
            finish(self, futures, rows)
            if self.phase == "pass":
                cluster.sync(cluster.scheduler.remove_worker, address, stimulus_id="test", expected=True)

        monkeypatch.setattr(engine.Cluster, "finish", and_then_leave)
        with pytest.raises(
            ClusterError, match=r"nothing has happened for .* s: the cluster has no workers; start some"
        ):
            fitted(lake, Engine(client=client))
        assert left_on(client) == []


# -- the scheduler -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def apart(folder: Path) -> Iterator[tuple[Path, int]]:
    """A scheduler and a worker in processes of their own: the scheduler's file and its process."""
    folder.mkdir()
    place = folder / "scheduler.json"
    file = ["--scheduler-file", str(place)]
    started = [
        [*file, "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--no-show"],
        [*file, *ALONE, "--local-directory", str(folder)],
    ]
    processes = []
    for name, arguments in zip(("scheduler", "worker"), started, strict=True):
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    try:
        yield place, processes[0].pid
    finally:
        for process in processes:
            process.kill()
            process.wait()


def await_file(path: Path) -> None:
    until = time.monotonic() + 60.0
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.005)


@pytest.mark.parametrize("keep", ["disk"])
def test_a_scheduler_that_dies_is_a_sentence_and_the_rerun_goes_on(
    client: Any, lake: Path, tmp_path: Path, quiet: None, keep: str
) -> None:
    log = tmp_path / "log"
    with apart(tmp_path / "cluster") as (place, number):
        await_file(place)
        killer = threading.Thread(target=lambda: (await_file(log / "total-00003.npz"), os.kill(number, signal.SIGKILL)))
        killer.start()
        began = time.monotonic()
        arguments = ["fit", FORMULA, str(lake), "--family", "poisson", "--keep", keep, "--checkpoint", str(log)]
        result = CliRunner().invoke(main, [*arguments, "--scheduler-file", str(place)])
        killer.join()
        assert result.exit_code == 5, result.output
        assert time.monotonic() - began < 30.0
    assert len(result.stderr.splitlines()) <= 2
    assert "error: the scheduler was lost" in result.stderr
    assert "with checkpoint= the same call goes on from the last pass" in result.stderr
    written = len(list(log.glob("total-*.npz")))
    assert written >= 4
    here, told = Told(), Told()
    record = fitted(lake, Engine(client=client), reporter=told, checkpoint=str(log))
    assert bits(record) == bits(fitted(lake, Engine(2), reporter=here))
    # the profile is read again; of the totals, those that were written down are not summed again
    assert told.leaves == here.leaves - (written - 1) * told.partitions.n_leaves
    assert told.partitions.passes == here.partitions.passes == record.n_passes
    assert not log.exists()


# -- work that is given up ---------------------------------------------------------------------------------------------


def closed(client: Client, _: Any) -> None:
    client.close()


def restarted(client: Client, _: Any) -> None:
    client.restart(wait_for_workers=False)


GIVEN_UP = [
    (closed, r"client= was closed while the fit was running: pass one that stays open"),
    (restarted, r"the workers were restarted while the fit was running \(client\.restart\(\)\)"),
]


@pytest.mark.parametrize("delay", [0.0, 0.05])
@pytest.mark.parametrize("do, said", GIVEN_UP)
def test_what_gave_the_work_up_is_said(lake: Path, do: Any, said: str, delay: float) -> None:
    with threads(2) as (cluster, client):
        told = Told("pass", later(delay, lambda: do(client, cluster)) if delay else lambda: do(client, cluster), 1)
        with pytest.raises(ClusterError, match=said):
            fitted(lake, Engine(client=client), reporter=told)


def test_rows_that_were_scattered_and_are_lost_are_said() -> None:
    data = frame().dropna()
    parts = [data.iloc[at : at + 1_000] for at in range(0, len(data), 1_000)]
    with threads(1) as (cluster, client):
        futures = client.scatter(parts)
        source = open_source(dd.from_delayed([dask.delayed(part) for part in futures], meta=data.iloc[:0]))
        (address,) = client.scheduler_info()["workers"]
        cluster.scale(2)
        client.wait_for_workers(2, timeout=30)
        cluster.sync(cluster.scheduler.remove_worker, address, stimulus_id="test", expected=True)
        with pytest.raises(ClusterError, match="was scattered to a worker, or comes from a future"):
            fitted(source, Engine(client=client))


def test_a_fit_inside_a_task_needs_a_thread_of_its_own(lake: Path) -> None:
    def inside(path: str, leave: bool) -> str:
        from distributed import get_client, secede

        if leave:
            secede()
        try:
            return repr(fitted(path, Engine(client=get_client())).names)
        except ClusterError as error:
            return str(error)

    with threads(1) as (_, client):
        said = client.submit(inside, str(lake), False, pure=False).result(timeout=60)
        assert "the fit runs inside a task, which occupies the only thread of the cluster" in said
        assert "distributed.secede()" in said
        assert "Intercept" in client.submit(inside, str(lake), True, pure=False).result(timeout=60)


@contextlib.contextmanager
def lacking(module: str, folder: Path) -> Iterator[tuple[Client, str]]:
    """A client, and the address of the only worker, which has not that module."""
    without = folder / "without.py"
    without.write_text(f"import sys\nsys.modules[{module!r}] = None\n")
    with threads(0, protocol="tcp://") as (cluster, client):
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, *ALONE]
        options = ["--preload", str(without), "--local-directory", str(folder)]
        other = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            client.wait_for_workers(1, timeout=60)
            (address,) = client.scheduler_info()["workers"]
            yield client, address
        finally:
            other.kill()
            other.wait()


def test_a_worker_without_the_package_is_named(lake: Path, tmp_path: Path) -> None:
    with (
        lacking("daskglm", tmp_path) as (client, address),
        pytest.raises(
            ClusterError, match=rf"the worker {address} cannot run daskglm \(.*daskglm.*\): install the same"
        ),
    ):
        fitted(lake, Engine(client=client))


def test_a_worker_without_a_module_of_the_user_is_a_sentence(lake: Path, tmp_path: Path) -> None:
    with (
        lacking("tests.model.home_made", tmp_path) as (client, _),
        pytest.raises(DesignError, match=r"put tests[.]model[.]home_made where every worker can import it"),
    ):
        fitted(
            lake,
            Engine(client=client),
            family=families.Quasi(variance=home_made.power_variance, mean_range=(0.0, np.inf)),
            formula="y ~ x",
        )


# -- sentences ---------------------------------------------------------------------------------------------------------


def standing(status: str = "running") -> Any:
    return SimpleNamespace(status=status, scheduler=SimpleNamespace(address="tcp://a:1"))


@pytest.mark.parametrize(
    "error, what",
    [
        (CommClosedError("in <TCP>: Stream is closed"), "its connection broke"),
        (FutureCancelledError("a key", "scheduler-connection-lost"), "its connection broke"),
        (TimeoutError(), "its connection broke"),
        (RuntimeError("cannot schedule new futures: Client is gone"), "its connection broke"),
        (ConnectionRefusedError("nobody is there"), "nobody is there"),
        (OSError("Timed out trying\n to connect"), "Timed out trying to connect"),
    ],
)
def test_a_lost_connection_is_one_sentence(error: BaseException, what: str) -> None:
    said = rf"the scheduler was lost \({what}\): start it again and rerun"
    with pytest.raises(ClusterError, match=said) as caught, lost(standing()):
        raise error
    assert caught.value.exit_code == 5
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("here"), PermissionError("no"), RuntimeError("of a task"), ZeroDivisionError(), DataError("y")],
)
def test_other_errors_are_left_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, lost(standing()):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error, said",
    [
        (
            KilledWorker("a task", SimpleNamespace(address="tcp://a"), 4),
            "ended its worker again and again, most likely for lack of memory",
        ),
        (MemoryError(), "a worker ran out of memory: give workers more"),
        (CancelledError("key"), "a task of the fit was cancelled: another program cancelled it, or data"),
    ],
)
def test_what_made_a_task_fail_is_explained(error: BaseException, said: str) -> None:
    future: Any = SimpleNamespace(status="error", exception=lambda: error)
    with pytest.raises(ClusterError, match=said):
        Watch(standing()).explain(future)
    lost_one: Any = SimpleNamespace(status="cancelled", result=_raising("scheduler-connection-lost"))
    with pytest.raises(ClusterError, match="the scheduler was lost"):
        Watch(standing()).explain(lost_one)


def _raising(reason: str) -> Any:
    def result(timeout: float) -> None:
        raise FutureCancelledError("key", reason)

    return result


@pytest.mark.parametrize("error", [ValueError("as it is"), OSError(5, "of a disk"), DataError("a.parquet")])
def test_errors_of_tasks_are_raised_as_they_are(error: BaseException) -> None:
    future: Any = SimpleNamespace(status="error", exception=lambda: error)
    with pytest.raises(type(error)) as caught:
        Watch(standing()).explain(future)
    assert caught.value is error


# -- patience ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, seconds", [(None, 60.0), ("90", 90.0), ("0.1", 1.0), ("soon", 60.0)])
def test_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, given: str | None, seconds: float) -> None:
    monkeypatch.delenv("DASKGLM_PATIENCE", raising=False)
    if given is not None:
        monkeypatch.setenv("DASKGLM_PATIENCE", given)
    assert patience() == seconds


class Clock:
    """The time, as the test has it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic


def looks(
    monkeypatch: pytest.MonkeyPatch, workers: list[Standing], seconds: int, progress: int = 0, held: bool = False
) -> str | None:
    """What is said of a cluster that stays like that, with progress every so many seconds. Who is silent gets ever more so."""
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    one = Watch(standing())

    def after(keys: Any, held: bool, *_: float) -> list[Standing]:
        passed = clock.now - 1_000.0
        return [replace(each, silent=each.silent and passed, stalled=each.stalled and passed) for each in workers]

    monkeypatch.setattr(one, "_standings", after)
    one.begin()
    for second in range(1, seconds + 1):
        clock.now += 1.0
        try:
            one.look([], bool(progress) and second % progress == 0, held)
        except ClusterError as error:
            return f"after {second} s: {error}"
    return None


def described(address: str, status: str = "running", silent: bool = False, stalled: bool | None = None) -> Standing:
    """A worker; stalled None: it has no part in what is awaited."""
    return Standing(address, status, float(silent), 9 * 10**8, 10**9, None if stalled is None else float(stalled))


def test_work_that_goes_on_may_take_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_PATIENCE", "20")
    a, b = described("a", stalled=False), described("b", "paused")
    assert looks(monkeypatch, [a, b], 500) is None
    assert looks(monkeypatch, [b], 500, progress=15) is None
    # one worker that goes on is enough for a pass
    assert looks(monkeypatch, [a, described("c", silent=True, stalled=True)], 500) is None
    assert looks(monkeypatch, [a], 500, held=True) is None


def test_nothing_is_given_up_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_PATIENCE", "20")
    silent = described("a", silent=True, stalled=True)
    for workers, held, said in [
        ([], False, "the cluster has no workers"),
        ([described("a", "paused", stalled=False)], False, "a is paused with 900 of 1000 MB in use"),
        ([silent], False, "a has been silent for 21 s"),
        ([described("a")], False, "no worker has taken up the work"),
        # what lies on a silent worker never comes, whoever else is there
        ([silent, described("b", stalled=False)], True, "a has been silent for 21 s"),
        ([described("a")], True, "what was computed does not arrive"),
        # a worker that waits for what lies on a silent one
        ([described("a", stalled=True), described("b", silent=True)], False, "b has been silent for 21 s"),
    ]:
        found = looks(monkeypatch, workers, 100, held=held)
        assert found is not None
        assert found.startswith("after 21 s: nothing has happened for 21 s: " + said), found


def test_a_client_that_was_closed_is_noticed_at_once() -> None:
    with pytest.raises(ClusterError, match="client= was closed while the fit was running"):
        Watch(standing("closed")).look([], False)
