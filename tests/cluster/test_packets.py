"""Grouped totals: the same from memory, from disk and from a cluster, in an order that the leaves alone decide."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daskglm.cluster import dask as distributed_engine
from daskglm.cluster import local
from daskglm.cluster.local import LocalPartitions
from daskglm.cluster.packets import Packets
from daskglm.cluster.sources import open_source
from daskglm.errors import DesignError

from .problem import Joined, left_on


@dataclass(frozen=True)
class Numbers:
    """A packet."""

    values: Any

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes)

    def pack(self) -> tuple[Any, list[Any]]:
        return None, [self.values]

    @staticmethod
    def unpack(header: Any, arrays: list[Any]) -> Numbers:
        return Numbers(arrays[0])


def by_remainder(leaf: Any) -> list[Numbers | None]:
    """Rows of a leaf by the remainder of y; there is nothing for bucket 2."""
    y = leaf.table.column("y").to_numpy().astype(np.int64) % 5
    x = np.asarray(leaf.table.column("w").to_numpy())
    return [Numbers(x[y == k]) if k != 2 and (y == k).any() else None for k in range(5)]


def told(packets: list[Numbers]) -> Joined:
    """Every bit of a bucket, in order."""
    whole = np.concatenate([np.zeros(0), *(packet.values for packet in packets)])
    return Joined(f"[{whole.tobytes().hex()}]")


def partitions(lake: Path, **options: Any) -> LocalPartitions:
    source = open_source(lake)
    source.select(["y", "w"])
    return local.open_partitions(source, ["y", "w"], **options)


@pytest.fixture(scope="module")
def expected(lake: Path) -> str:
    found: Joined = partitions(lake, threads=1).grouped(by_remainder, 5, told)
    return found.text


def test_is_by_bucket_and_leaf(lake: Path, expected: str) -> None:
    opened = partitions(lake, threads=1)
    leaves = list(opened.map(by_remainder))
    whole = [told([leaf[k] for leaf in leaves if leaf[k] is not None]).text for k in range(5)]  # type: ignore[misc]
    assert expected == f"((({whole[0]}{whole[1]})({whole[2]}{whole[3]})){whole[4]})"


@pytest.mark.parametrize("keep", ["memory", "disk", "reread"])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_places(lake: Path, expected: str, keep: str, threads: int) -> None:
    opened = partitions(lake, threads=threads, keep=keep)
    assert opened.grouped(by_remainder, 5, told).text == expected
    assert opened.passes == 1
    opened.release()


def test_beyond_the_memory(lake: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))
    spilled = []
    close = Packets.close

    def closing(packets: Packets) -> None:
        spilled.append(packets.spilled)
        close(packets)

    monkeypatch.setattr(Packets, "close", closing)
    # less than two leaves' packets
    opened = partitions(lake, threads=2, memory=local.PACKETS_PART * 3_000)
    assert opened.grouped(by_remainder, 5, told).text == expected
    assert spilled[0] > 10_000
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Packets, "_write", full)
    said = r"rows by cluster, [\d,]+ bytes, cannot be written to .*\.packets: No space left on device \([\d,]+ bytes"
    with pytest.raises(DesignError, match=said):
        partitions(lake, threads=1, memory=local.PACKETS_PART * 3_000).grouped(by_remainder, 5, told)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_memory(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_SPILL_DIR", "/dev/shm")
    with pytest.raises(DesignError, match="memory itself: set DASKGLM_SPILL_DIR"):
        partitions(lake, threads=1, memory=local.PACKETS_PART * 3_000).grouped(by_remainder, 5, told)


@pytest.mark.parametrize("leaves_per_task", [1, 4])
def test_on_a_cluster(lake: Path, expected: str, client: Any, leaves_per_task: int) -> None:
    source = open_source(lake)
    source.select(["y", "w"])
    opened = distributed_engine.open_partitions(source, ["y", "w"], "reread", client, leaves_per_task)
    assert opened.grouped(by_remainder, 5, told).text == expected
    opened.release()
    assert left_on(client) == []


def failing_fold(packets: list[Numbers]) -> Joined:
    raise DesignError("no fold")


def test_an_error_in_a_fold(lake: Path, client: Any) -> None:
    with pytest.raises(DesignError, match="no fold"):
        partitions(lake).grouped(by_remainder, 5, failing_fold)
    source = open_source(lake)
    source.select(["y", "w"])
    opened = distributed_engine.open_partitions(source, ["y", "w"], "reread", client)
    with pytest.raises(DesignError, match="no fold"):
        opened.grouped(by_remainder, 5, failing_fold)
    opened.release()
