"""What runs on the workers, beside a worker that is not there and on one that is."""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from dask.sizeof import sizeof
from threadpoolctl import threadpool_info, threadpool_limits

from daskglm import estimation as fitting
from daskglm.cluster import lakes, tables, worker
from daskglm.cluster.cells import Applied, Counter, Kept, Stored
from daskglm.cluster.dask import Cluster, open_partitions
from daskglm.cluster.engine import Engine
from daskglm.cluster.tables import TableSource
from daskglm.cluster.worker import Answer, Call, Filed, Shelf
from daskglm.errors import DataError
from tests.cluster.problem import Told, bits, blocks_under, fitted, left_on
from tests.totals.problems import problem

# Dask's own book-keeping of a few objects.
OVERHEAD = 4_000


@dataclass(frozen=True)
class Item:
    """A leaf's numbers, which can lie on disk."""

    x: Any

    @property
    def nbytes(self) -> int:
        return int(self.x.nbytes)

    def pack(self) -> tuple[Any, list[Any]]:
        return None, [self.x]

    @staticmethod
    def unpack(header: Any, arrays: list[Any]) -> Item:
        return Item(arrays[0])


class Decoded:
    """A cell that counts how often it is decoded."""

    rows = 100

    def __init__(self) -> None:
        self.announced = 0

    def get(self, counter: Counter) -> Any:
        counter.count()
        return np.arange(100.0)

    def announce(self) -> None:
        self.announced += 1


class Standing(SimpleNamespace):
    """What stands for a worker."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Any]:
    """Be a worker: the one of that name, with a folder of its own."""

    def become(name: str = "one") -> Any:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        found = Standing(local_directory=str(folder), address=name, state=SimpleNamespace(tasks={}))
        monkeypatch.setattr(worker, "get_worker", lambda: found)
        return found

    monkeypatch.setattr(worker, "_sweeper", SimpleNamespace(look_after=lambda *_: None))
    become()
    return become


def filed(fit: str, number: int = 3) -> Filed:
    """A block on this worker's disk."""
    origin = Applied(Decoded(), Item, 100)
    return Filed(fit, str(number), worker.file(origin.get(Counter()), fit, str(number), 100), origin, 100)


def block(folder: Path) -> Path:
    (found,) = blocks_under(folder)
    return found


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_sizes_count_what_is_held() -> None:
    held = problem("poisson", "log", 20_000, sparse=3).block
    record = {"gram": np.zeros((100, 100))}
    kept = Kept(held, held.n)
    assert held.nbytes <= sizeof(kept) <= held.nbytes + OVERHEAD
    assert 2 * held.nbytes <= sizeof(Shelf((kept, kept), 0)) <= 2 * held.nbytes + OVERHEAD
    beside = Shelf((kept,), 0, record, (Kept(np.zeros(9_000), 1),))
    assert held.nbytes + 152_000 <= sizeof(beside) <= held.nbytes + 152_000 + OVERHEAD
    assert 80_000 <= sizeof(Answer(record, 0, {})) <= 80_000 + OVERHEAD


def test_a_worker_knows_how_much_it_holds(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 1)
    source = TableSource(pa.table({"x": np.arange(4)}))
    source.select(["x"])
    partitions = open_partitions(source, ["x"], "memory", client, 2)
    kept, _, _ = partitions.kept_with_total(lambda leaf: np.zeros(50_000), np.sum)

    def sizes(dask_worker: Any) -> dict[str, int]:
        tasks = dask_worker.state.tasks.items()
        return {str(key): task.nbytes for key, task in tasks if task.nbytes and "daskglm-read" in str(key)}

    known = [size for found in client.run(sizes).values() for size in found.values()]
    assert len(known) == 2
    assert all(2 * 400_000 <= size <= 2 * 400_000 + OVERHEAD for size in known)
    kept.release()
    partitions.release()


# -- blocks on disk ----------------------------------------------------------------------------------------------------


def test_a_block_is_read_back(here: Any, tmp_path: Path) -> None:
    one, counter = filed("read-back"), Counter()
    np.testing.assert_array_equal(one.get(counter).x, np.arange(100.0))
    assert counter.loads == 0
    assert block(tmp_path).stat().st_size == 800
    one.announce()
    assert one.origin.cell.announced == 0


@pytest.mark.parametrize("fault", ["gone", "cut short", "emptied", "unreadable"])
def test_a_block_that_is_not_whole_is_rebuilt_and_written_again(
    here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def unreadable(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    one, counter = filed(f"fault-{fault}"), Counter()
    path = block(tmp_path)
    if fault == "gone":
        shutil.rmtree(path.parent)
        one.announce()
        assert one.origin.cell.announced == 1
    elif fault == "cut short":
        path.write_bytes(path.read_bytes()[:-9])
    elif fault == "emptied":
        path.write_bytes(b"")
    else:
        monkeypatch.setattr(Stored, "get", unreadable)
    np.testing.assert_array_equal(one.get(counter).x, np.arange(100.0))
    assert counter.loads == 1
    if fault != "unreadable":
        np.testing.assert_array_equal(one.get(counter).x, np.arange(100.0))
        assert counter.loads == 1


def test_a_block_of_another_worker_is_rebuilt_here(here: Any, tmp_path: Path) -> None:
    one, counter = filed("moved"), Counter()
    here("two")
    travelled = pickle.loads(pickle.dumps(Filed("moved", "3", one.stored, Applied(Fixed(), Item, 100), 100)))
    np.testing.assert_array_equal(travelled.get(counter).x, np.arange(100.0))
    assert sorted(path.parts[-4] for path in blocks_under(tmp_path)) == ["one", "two"]
    # and is no larger on its way than its few words
    assert len(pickle.dumps(travelled)) < 800


@dataclass
class Fixed:
    """A cell that can travel."""

    rows: int = 100

    def get(self, counter: Counter) -> Any:
        return np.arange(100.0)


def test_where_the_disk_is_full_blocks_are_rebuilt_each_time(
    here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, worker.SPARE_DISK + 799))
    one, counter = filed("full"), Counter()
    assert one.stored is None
    for times in (1, 2):
        np.testing.assert_array_equal(one.get(counter).x, np.arange(100.0))
        assert counter.loads == times
    assert blocks_under(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, worker.SPARE_DISK + 800))
    assert filed("room").stored is not None


def test_a_disk_that_fails_is_no_error(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(worker, "store", broken)
    assert filed("broken").stored is None


def test_what_is_forgotten_stays_away(here: Any, tmp_path: Path) -> None:
    this = here("one")
    one, other = filed("ended"), filed("goes-on")
    worker.forget("ended", dask_worker=this)
    assert [path.parent.name for path in blocks_under(tmp_path)] == ["goes-on"]
    # a task of the fit that had not heard of its end
    counter = Counter()
    assert one.get(counter).nbytes == 800
    assert [path.parent.name for path in blocks_under(tmp_path)] == ["goes-on"]
    assert other.get(counter).nbytes == 800
    assert counter.loads == 1


def test_blocks_of_a_fit_without_tasks_are_removed(here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler gives up the tasks of a client that has ended, and the worker hears of it."""
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(worker, "_sweeper", worker._Sweeper())
    this = here("one")
    this.state.tasks[("daskglm-read-goes-on0001", 3)] = None
    filed("goes-on"), filed("ended")

    def names() -> list[str]:
        return [path.parent.name for path in blocks_under(tmp_path)]

    assert await_that(lambda: names() == ["goes-on"])
    time.sleep(0.1)
    assert names() == ["goes-on"]
    this.state.tasks.clear()
    assert await_that(lambda: names() == [])
    assert await_that(lambda: "daskglm-sweep" not in {thread.name for thread in threading.enumerate()})


def await_that(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it comes true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


DYING = """
import os, signal, sys
from distributed import Client
from daskglm import estimation
from daskglm.cluster import lakes
from daskglm.cluster.engine import Engine
from tests.cluster.problem import Told, fitted
lakes.LEAF_BYTES, estimation.PILOT_ROWS = 1, 1_000
with Client(sys.argv[1], set_as_default=False) as client:
    fitted(sys.argv[2], Engine(client=client), "disk", Told("pass", lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


def test_blocks_of_a_client_that_was_killed_are_removed(cluster: Any, client: Any, lake: Path, scratch: Path) -> None:
    command = [sys.executable, "-c", DYING, cluster.scheduler_address, str(lake)]
    seen = False
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as dying:
        try:
            while dying.poll() is None:
                seen = seen or bool(blocks_under(scratch))
                time.sleep(0.01)
        finally:
            dying.kill()
    assert dying.returncode == -signal.SIGKILL
    assert seen
    assert await_that(lambda: blocks_under(scratch) == [])
    assert left_on(client) == []


def test_blocks_that_vanish_in_mid_fit_change_no_bit(
    client: Any, lake: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1_000)

    def vandalise() -> None:
        for number, path in enumerate(blocks_under(scratch)):
            if number % 3 == 0:
                path.unlink()
            elif number % 3 == 1:
                path.write_bytes(path.read_bytes()[: number * 100])

    told = Told("pass", vandalise, 1)
    record = fitted(lake, Engine(client=client), "disk", told)
    assert told.do is None
    assert bits(record) == bits(fitted(lake, Engine(2)))
    # two thirds of the blocks were decoded once more
    assert record.decodes == 2
    assert blocks_under(scratch) == []


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_a_call_is_opaque_until_it_is_opened() -> None:
    call = Call(max, (3, np.arange(5)))
    message = pickle.dumps(call)
    arrived = pickle.loads(message)
    assert arrived.blob == call.blob
    function, (number, array) = arrived.open()
    assert (function, number) == (max, 3)
    np.testing.assert_array_equal(array, np.arange(5))
    assert array.flags.aligned


def blas_threads() -> set[int]:
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


def test_tasks_side_by_side_have_one_blas_thread_until_the_last_ends(here: Any) -> None:
    both, longer = threading.Barrier(3), threading.Barrier(2)

    def look(item: Any, rounds: int) -> list[set[int]]:
        seen = []
        for barrier in (both, longer)[:rounds]:
            barrier.wait(10)
            seen.append(blas_threads())
        return seen

    before = blas_threads()
    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(2) as pool:
        if blas_threads() != {2}:
            pytest.skip("this BLAS has no threads to limit")
        shelf = Shelf((Kept(None, 1),), 0)
        short = pool.submit(worker.subtree, shelf, Call(_Local(look), (1,)))
        long = pool.submit(worker.subtree, shelf, Call(_Local(look), (2,)))
        both.wait(10)
        assert short.result(10).record == [{1}]
        # the other is still inside
        longer.wait(10)
        assert long.result(10).record == [{1}, {1}]
        assert blas_threads() == {2}
        with pytest.raises(ZeroDivisionError):
            worker.subtree(shelf, Call(_Local(lambda item: 1 / 0), ()))
        assert blas_threads() == {2}
    assert blas_threads() == before


_locals: dict[int, Any] = {}


class _Local:
    """A function that stays where it is, whatever its call does."""

    def __init__(self, function: Any) -> None:
        _locals[id(function)] = function
        self._place = id(function)

    def __call__(self, *args: Any) -> Any:
        return _locals[self._place](*args)


def test_who_added_what_is_told(here: Any) -> None:
    answers = [Answer(1.0, 2, {"a": "x"}), Answer(2.0, 3, {"b": "y"})]
    found = worker.combine(answers, 0)
    assert (found.record, found.loads) == (3.0, 5)
    assert found.makers == {"a": "x", "b": "y", "one": worker.preflight.identity()}


def test_a_worker_that_does_not_see_the_files_is_named(client: Any, tmp_path: Path) -> None:
    cluster = Cluster(client)
    assert len(cluster.inspect(str(tmp_path))) == 2
    with pytest.raises(DataError, match=r"the worker tcp://.* does not see /no/such/file: .* shared file system"):
        cluster.inspect("/no/such/file")
