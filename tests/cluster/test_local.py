"""The embedded engine against plain loops: what it sums, in which order, what it keeps and what it leaves behind."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import daskglm as dg
from daskglm.cluster import cells, local, machine, tables
from daskglm.cluster.local import LocalPartitions, Spill, choose_keep, open_partitions
from daskglm.cluster.tables import TableSource
from daskglm.errors import DesignError

LEAVES = 21
ROWS = 10


@dataclass(frozen=True)
class Joined:
    """A record whose sum says how it was made."""

    text: str

    def __add__(self, other: Joined) -> Joined:
        return Joined(f"({self.text}{other.text})")


@dataclass(frozen=True)
class Item:
    """A leaf's numbers, which can lie on disk."""

    x: Any
    label: str

    def pack(self) -> tuple[Any, list[Any]]:
        return self.label, [self.x, np.zeros((0, 3), np.int8), self.x[:, None] > 50]

    @staticmethod
    def unpack(header: Any, arrays: list[Any]) -> Item:
        assert arrays[1].shape == (0, 3)
        np.testing.assert_array_equal(arrays[2][:, 0], arrays[0] > 50)
        return Item(arrays[0], header)


def item(leaf: Any) -> Item:
    return Item(leaf.table.column("x").to_numpy(), leaf.label)


def name(leaf: Any) -> Joined:
    return Joined(chr(ord("a") + leaf.table.column("x")[0].as_py() // ROWS))


def initial(kept: Item) -> Joined:
    return Joined(chr(ord("a") + int(kept.x[0]) // ROWS))


def tree(letters: list[str]) -> str:
    """The binary counter's sum, by definition: the largest power of two first, the rest folded from the right."""
    if len(letters) == 1:
        return letters[0]
    half = 1
    while half * 2 < len(letters):
        half *= 2
    return f"({tree(letters[:half])}{tree(letters[half:])})"


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TableSource:
    monkeypatch.setattr(tables, "LEAF_ROWS", ROWS)
    monkeypatch.setattr(machine, "on_memory", lambda path: False)
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))
    source = TableSource(pa.table({"x": np.arange(LEAVES * ROWS)}))
    source.select(["x"])
    return source


EXPECTED = tree([chr(ord("a") + i) for i in range(LEAVES)])


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("leaves_per_task", [None, 1, 2, 4, 16, 64])
def test_the_sum_is_one_tree_however_the_work_is_cut(
    source: TableSource, threads: int, leaves_per_task: int | None
) -> None:
    partitions = open_partitions(source, ["x"], "reread", threads, leaves_per_task=leaves_per_task)
    assert partitions.n_leaves == LEAVES
    assert partitions.rows == LEAVES * ROWS
    assert partitions.total(name).text == EXPECTED
    _, record, _ = partitions.kept_with_total(item, initial)
    assert record.text == EXPECTED


@pytest.mark.parametrize("keep", ["memory", "disk", "reread"])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_kept_is_what_was_made_and_is_decoded_as_often_as_it_must(
    source: TableSource, keep: str, threads: int
) -> None:
    partitions = open_partitions(source, ["x"], keep, threads)
    kept, record, beside = partitions.kept_with_total(item, initial, aside=lambda i: Item(i.x[:2], i.label))
    assert record.text == EXPECTED
    assert beside is not None
    assert [kept.x.tolist() for kept in beside.map(lambda i: i)] == [[10 * i, 10 * i + 1] for i in range(LEAVES)]
    for _ in range(2):
        assert kept.total(initial).text == EXPECTED
        assert [list(i.x) for i in kept.map(lambda i: i)] == [list(range(10 * i, 10 * i + 10)) for i in range(LEAVES)]
    doubled = kept.consumed(lambda i: Item(i.x * 2, i.label))
    assert [int(i.x.sum()) for i in doubled.map(lambda i: i)] == [2 * (100 * i + 45) for i in range(LEAVES)]
    assert kept.passes == 2
    # reread: one for the record, four for the sums and maps above, one for the map of what was consumed
    assert kept.decodes == (6 if keep == "reread" else 1)


def test_the_arguments_of_a_total_reach_every_leaf(source: TableSource) -> None:
    partitions = open_partitions(source, ["x"], "reread", 2)
    assert partitions.total(lambda leaf, a, b: a * sum(leaf.table.column("x").to_pylist()) + b, 3, 7) == (
        3 * sum(range(LEAVES * ROWS)) + 7 * LEAVES
    )


def test_who_watches_is_told_of_every_row(source: TableSource) -> None:
    partitions = open_partitions(source, ["x"], "reread", 2)
    seen: list[int] = []
    lock = threading.Lock()

    def watch(rows: int, leaves: int) -> None:
        with lock:
            seen.append(rows)

    partitions.observe(watch)
    partitions.total(name)
    assert sum(seen) == LEAVES * ROWS


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_leaf_comes_out_as_it_is_and_leaves_no_thread(source: TableSource, threads: int) -> None:
    partitions = open_partitions(source, ["x"], "reread", threads)

    def fails(leaf: Any) -> Joined:
        if leaf.label == "rows 50 to 59":
            raise ZeroDivisionError(leaf.label)
        return Joined("")

    with pytest.raises(ZeroDivisionError, match="rows 50 to 59"):
        partitions.total(fails)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("daskglm")]


def test_a_map_that_is_not_finished_leaves_no_thread(source: TableSource) -> None:
    results = open_partitions(source, ["x"], "reread", 3).map(name)
    assert next(results).text == "a"
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("daskglm")]


# -- on disk -----------------------------------------------------------------------------------------------------------


def spilled(folder: Path) -> list[str]:
    return [entry for entry in os.listdir(folder) if entry.startswith("daskglm-")]


def test_released_partitions_leave_nothing_on_disk(source: TableSource, tmp_path: Path) -> None:
    partitions = open_partitions(source, ["x"], "disk", 2)
    kept, _, _ = partitions.kept_with_total(item, initial)
    (folder,) = spilled(tmp_path)
    assert len(list((tmp_path / folder).glob("*.block"))) == LEAVES
    kept.release()
    assert spilled(tmp_path) == []


def test_forgotten_partitions_leave_nothing_on_disk(source: TableSource, tmp_path: Path) -> None:
    kept, _, _ = open_partitions(source, ["x"], "disk", 2).kept_with_total(item, initial)
    assert len(spilled(tmp_path)) == 1
    del kept
    gc.collect()
    assert spilled(tmp_path) == []


@pytest.mark.parametrize("works", [True, False])
def test_a_fit_leaves_nothing_on_disk_even_when_it_fails(source: TableSource, tmp_path: Path, works: bool) -> None:
    generator = np.random.default_rng(2)
    y = generator.poisson(2.0, 200).astype(float)
    if not works:
        y[150] = -1.0
    data = pa.table({"y": y, "x": generator.normal(size=200)})
    if works:
        fit = dg.glm("y ~ 1", data, family="poisson", keep="disk")
        # the intercept of a Poisson model alone is the logarithm of the mean
        assert abs(fit.params["Intercept"] - np.log(y.mean())) < 1e-12
    else:
        with pytest.raises(dg.errors.DataError):
            dg.glm("y ~ x", data, family="poisson", keep="disk")
    assert spilled(tmp_path) == []


def test_a_folder_that_is_memory_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))
    monkeypatch.setattr(machine, "on_memory", lambda path: path == str(tmp_path))
    with pytest.raises(DesignError, match=f"{tmp_path}, which is memory itself.*DASKGLM_SPILL_DIR"):
        Spill(10)
    assert spilled(tmp_path) == []


@pytest.mark.skipif(not machine.on_memory("/dev/shm"), reason="no file system in memory here")
def test_the_file_system_of_shared_memory_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_SPILL_DIR", "/dev/shm")
    with pytest.raises(DesignError, match="/dev/shm"):
        Spill(10)


def test_a_disk_without_room_is_refused_before_it_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))
    monkeypatch.setattr(machine, "on_memory", lambda path: False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**9))
    with pytest.raises(DesignError, match=r"5\.0 GB .* 1\.0 GB"):
        Spill(5 * 10**9)
    Spill(5 * 10**8).close()


def test_a_stored_leaf_that_was_cut_short_is_named(source: TableSource, tmp_path: Path) -> None:
    kept, _, _ = open_partitions(source, ["x"], "disk", 1).kept_with_total(item, initial)
    block = tmp_path / spilled(tmp_path)[0] / "3.block"
    block.write_bytes(block.read_bytes()[:-5])
    with pytest.raises(DesignError, match=r"3\.block was cut short"):
        kept.total(initial)
    kept.release()


# -- choices -----------------------------------------------------------------------------------------------------------


class Lake:
    """A source of a given size that is not in memory."""

    in_memory = False
    leaves = ()

    def __init__(self, rows: int, near: bool) -> None:
        self.n_rows, self.local = rows, near

    def row_bytes(self, columns: list[str]) -> int:
        return 8 * len(columns)


@pytest.mark.parametrize(
    "rows, near, keep",
    [(1_000, True, "memory"), (1_000, False, "memory"), (1_001, True, "reread"), (1_001, False, "disk")],
)
def test_rows_stay_in_memory_while_half_of_it_holds_them(rows: int, near: bool, keep: str) -> None:
    lake: Any = Lake(rows, near)
    # two columns of eight bytes: 1000 rows are half of 32000 bytes
    assert choose_keep(lake, ["a", "b"], 32_000) == keep


def test_tables_in_memory_are_kept_there(source: TableSource) -> None:
    assert choose_keep(source, ["x"], 1) == "memory"


@pytest.mark.parametrize("number", [0, -1, 3, 12])
def test_leaves_per_task_is_a_power_of_two(source: TableSource, number: int) -> None:
    with pytest.raises(DesignError, match=str(number)):
        open_partitions(source, ["x"], leaves_per_task=number)


def test_there_is_no_other_place_to_keep(source: TableSource) -> None:
    with pytest.raises(DesignError, match="'cloud'"):
        open_partitions(source, ["x"], "cloud")


@pytest.mark.parametrize("leaves", [1, 7, 8, 100, 5_000])
@pytest.mark.parametrize("threads", [1, 2, 16])
def test_tasks_are_powers_of_two_of_leaves_and_about_eight_per_thread(leaves: int, threads: int) -> None:
    size = local._task_leaves(leaves, threads)
    assert size in {1 << k for k in range(20)}
    tasks = leaves / size
    assert size == 1 or 8 * threads <= tasks < 16 * threads + 1


def test_partitions_without_leaves_sum_to_nothing() -> None:
    empty = LocalPartitions([], local.Counter(0), 1, "memory")
    with pytest.raises(ValueError, match="no leaves"):
        empty.total(name)


KILLED = """
import os, signal, sys
from daskglm.cluster.cells import Spill
spill = Spill(0)
open(os.path.join(spill.folder, "0.block"), "wb").write(b"rows")
print(spill.folder, flush=True)
sys.stdin.read()
"""


def test_folders_of_processes_that_were_killed_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))
    monkeypatch.setattr(cells.machine, "on_memory", lambda path: False)
    foreign = tmp_path / "daskglm-of-somebody"
    foreign.mkdir()
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        try:
            # while its process lives, nobody takes it away
            first = cells.Spill(0)
            assert (folder / "0.block").exists()
        finally:
            process.kill()
    second = cells.Spill(0)
    assert not folder.exists()
    assert Path(first.folder).exists()
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == [foreign]
