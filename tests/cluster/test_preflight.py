"""What is said before the first pass, with its numbers, and of workers that join later."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from daskglm.cluster import dask as engine
from daskglm.cluster import local, preflight, tables, worker
from daskglm.cluster.dask import Cluster, open_partitions
from daskglm.cluster.engine import Engine
from daskglm.cluster.lakes import open_lake
from daskglm.cluster.preflight import Facts, Worker
from daskglm.cluster.tables import TableSource
from daskglm.errors import ClusterError, ClusterWarning, DesignError
from tests.cluster.problem import fitted, left_on, letter, letters, tree

GB = 10**9
OWN = preflight.facts()
HERE = OWN.versions["numpy"]


def facts(versions: Mapping[str, str] | None = None, features: Mapping[str, str] | None = None, **other: Any) -> Facts:
    """This process's, but for a few."""
    return replace(
        OWN,
        versions={**OWN.versions, **(versions or {})},
        features={**OWN.features, **(features or {})},
        **other,
    )


def workers(*found: Facts, threads: int = 1, limit: int = 0) -> list[Worker]:
    return [Worker(f"tcp://{i}", threads, limit, "running", one) for i, one in enumerate(found)]


# -- versions and processors -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_what_is_alike_is_silent() -> None:
    others = {"the scheduler": OWN, "tcp://a": pickle.loads(pickle.dumps(OWN))}
    preflight.check_versions(OWN, others)
    preflight.check_features(OWN, others)
    assert others["tcp://a"].identity == OWN.identity == preflight.identity()


@pytest.mark.parametrize("name", ["daskglm", "python"])
def test_another_package_or_python_is_refused_by_name(name: str) -> None:
    others = {"the scheduler": OWN, "tcp://10.0.0.2:40": facts({name: "0.0.7"})}
    with pytest.raises(ClusterError, match=rf"{name} is 0\.0\.7 on tcp://10\.0\.0\.2:40 and {OWN.versions[name]} here"):
        preflight.check_versions(OWN, others)


@pytest.mark.parametrize("name", ["numpy", "numba", "scipy", "pyarrow", "distributed"])
def test_another_library_is_a_warning_that_counts(name: str) -> None:
    others = {f"tcp://{i}": facts({name: "0.1"}) for i in range(5)} | {"tcp://same": OWN}
    said = rf"{name} 0\.1 \(here {OWN.versions[name]}\) on tcp://0, tcp://1, tcp://2 and 2 more: last digits may differ"
    with pytest.warns(ClusterWarning, match=said) as caught:
        preflight.check_versions(OWN, others)
    assert len(caught) == 1


def test_a_library_that_is_absent_is_another_version() -> None:
    without = replace(OWN, versions={k: v for k, v in OWN.versions.items() if k != "numpy"})
    with pytest.warns(ClusterWarning, match=rf"numpy absent \(here {HERE}\) on tcp://a"):
        preflight.check_versions(OWN, {"tcp://a": without})


@pytest.mark.parametrize("feature", ["machine", "numpy", "numba", "blas"])
def test_processors_that_give_other_bits_are_named(feature: str) -> None:
    others = {"tcp://a": facts(features={feature: "other"}), "tcp://b": OWN}
    said = rf"processors differ \({feature}\): tcp://a \| tcp://b, the client\. .* OPENBLAS_CORETYPE"
    with pytest.warns(ClusterWarning, match=said):
        preflight.check_features(OWN, others)
    assert others["tcp://a"].identity != OWN.identity


@pytest.mark.parametrize("name", ["NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "OPENBLAS_CORETYPE"])
def test_a_pinned_target_is_another_identity(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for pin in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "OPENBLAS_CORETYPE"):
        monkeypatch.delenv(pin, raising=False)
    free = preflight.features.__wrapped__()
    assert preflight.features.__wrapped__() == free
    monkeypatch.setenv(name, "generic")
    assert preflight.features.__wrapped__() != free


# -- threads and memory ------------------------------------------------------------------------------------------------


def test_more_threads_than_processors_are_a_warning() -> None:
    two = facts(host="node7", processors=4)
    with pytest.warns(
        ClusterWarning, match=r"the workers on node7 have 6 threads for the 4 processor\(s\).*--nthreads"
    ):
        preflight.check_threads(workers(two, two, threads=3))


@pytest.mark.filterwarnings("error")
def test_threads_are_counted_host_by_host() -> None:
    preflight.check_threads(workers(facts(host="a", processors=3), facts(host="b", processors=3), threads=3))
    preflight.check_threads([Worker("tcp://gone", 99, 0, "running", None)])


def test_memory_is_the_least_of_what_is_said() -> None:
    for limit, memory, found in [(0, 5 * GB, 5 * GB), (2 * GB, 5 * GB, 2 * GB), (9 * GB, 5 * GB, 5 * GB)]:
        assert Worker("a", 1, limit, "running", facts(memory=memory)).memory == found
    assert Worker("a", 1, 7, "running", None).memory == 7


def test_rows_that_would_be_spilled_are_a_warning() -> None:
    several = workers(facts(memory=5 * GB), facts(memory=5 * GB))
    said = r'keep="memory" needs about 6\.1 GB, and the workers have 10 GB, of which Dask spills beyond 60%'
    with pytest.warns(ClusterWarning, match=said):
        preflight.check_blocks(6_100_000_000, several, "memory")


@pytest.mark.filterwarnings("error")
def test_rows_that_fit_are_silent() -> None:
    several = workers(facts(memory=5 * GB), facts(memory=5 * GB, disk_free=100 * GB))
    preflight.check_blocks(5_900_000_000, several, "memory")
    preflight.check_blocks(10**12, several, "reread")
    preflight.check_blocks(90 * GB, several, "disk")


def test_disks_without_room_are_refused() -> None:
    several = workers(facts(disk_free=3 * GB), facts(host="b", disk_free=2 * GB))
    with pytest.raises(
        ClusterError, match=r'keep="disk" needs about 4\.7 GB .* which have 5 GB free: .*local-directory'
    ):
        preflight.check_blocks(4_700_000_000, several, "disk")
    preflight.check_blocks(4_400_000_000, several, "disk")


def test_workers_of_one_disk_have_its_room_once() -> None:
    one = facts(disk_free=3 * GB)
    with pytest.raises(ClusterError, match=r"have 3 GB free"):
        preflight.check_blocks(4 * GB, workers(one, one, one), "disk")


def test_a_disk_that_is_memory_is_refused() -> None:
    with pytest.raises(ClusterError, match=r'keep="disk": the folder of the worker tcp://1 is memory itself'):
        preflight.check_blocks(1, workers(OWN, facts(disk_is_memory=True)), "disk")


def test_sums_that_do_not_fit_are_refused() -> None:
    preflight.check_records(GB, 5, 2, 10 * GB, "the worker tcp://a")
    preflight.check_records(GB, 5, 2, 0, "the worker tcp://a")
    said = r"one Gram takes 1\.1 GB, and the worker tcp://a holds 5 of them for each of 2 thread\(s\): 11 GB, more than its 10 GB"
    with pytest.raises(ClusterError, match=said):
        preflight.check_records(1_100_000_000, 5, 2, 10 * GB, "the worker tcp://a")


def test_sums_are_held_against_the_workers_there_are(client: Any) -> None:
    partitions = open_partitions(numbered(2), ["x"], "memory", client)
    # the workers of these tests may hold 2 GiB, and a thread holds five sums
    partitions.expect(400 << 20)
    with pytest.raises(
        ClusterError, match=r"one Gram takes 0\.44 GB, and the worker tcp://.* 2\.2 GB, more than its 2\.1 GB"
    ):
        partitions.expect(420 << 20)
    partitions.release()


# -- a cluster that is not what it should be ---------------------------------------------------------------------------


def numbered(count: int) -> TableSource:
    source = TableSource(pa.table({"x": np.arange(count)}))
    source.select(["x"])
    return source


def test_versions_of_workers_are_asked_for(client: Any, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = facts({"daskglm": "9.9"})
    monkeypatch.setattr(preflight, "facts", lambda folder=None: mine)
    # the scheduler of these tests is in this process, the workers are not
    with pytest.raises(ClusterError, match=rf"daskglm is {OWN.versions['daskglm']} on tcp://\S+ and 9\.9 here"):
        fitted(lake, Engine(client=client))
    assert left_on(client) == []


def test_a_scheduler_or_worker_without_the_package_is_a_sentence(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(client)

    def missing(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError("No module named 'daskglm'")

    with monkeypatch.context() as patch:
        patch.setattr(client, "run_on_scheduler", missing)
        with pytest.raises(ClusterError, match=r"the scheduler cannot run daskglm .*No module.* the same environment"):
            cluster.inspect()
    # a worker that cannot read what it is asked answers with its error as text
    error = "No module named 'daskglm.cluster'"
    for answer in (ModuleNotFoundError(error), Exception(f'ModuleNotFoundError("{error}")')):
        monkeypatch.setattr(client, "run", answering({"tcp://a": answer}))
        with pytest.raises(ClusterError, match=r"the worker tcp://a cannot run daskglm .*No module"):
            cluster.inspect()
    monkeypatch.setattr(client, "run", answering({"tcp://a": ZeroDivisionError("by 0")}))
    with pytest.raises(ClusterError, match="the worker tcp://a could not be examined: ZeroDivisionError: by 0"):
        cluster.inspect()


def answering(*answers: Any) -> Any:
    """What stands for `Client.run`: one answer after the other, the last of them again and again."""
    left = list(answers)

    async def run(*_: Any, **__: Any) -> Any:
        return left.pop(0) if len(left) > 1 else left[0]

    return run


def test_workers_that_do_not_answer_are_left_out_unless_none_does(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(client)
    answers: dict[str, Any] = {"tcp://a": OSError("gone"), "tcp://b": OWN}
    monkeypatch.setattr(client, "run", answering(answers))
    assert len(cluster.inspect()) == 2
    answers["tcp://b"] = OSError("gone, too")
    monkeypatch.setenv("DASKGLM_PATIENCE", "1")
    with pytest.raises(ClusterError, match="no worker answers"):
        cluster.inspect()


def test_workers_that_are_being_started_again_are_waited_for(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = {"tcp://a": OSError("killed")}
    monkeypatch.setattr(client, "run", answering(killed, killed, {"tcp://b": OWN}))
    assert len(Cluster(client).inspect()) == 2


def test_a_late_joiner_is_looked_at_once(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(client)
    cluster.inspect()
    monkeypatch.setattr(cluster.watch, "described", lambda: {"tcp://alike": {}, "tcp://late": {}})
    asked: list[str] = []
    other = facts(features={"blas": "Z80"})

    def ask(addresses: list[str], path: Any) -> dict[str, Facts]:
        asked.extend(addresses)
        return dict.fromkeys(addresses, other)

    monkeypatch.setattr(cluster, "_ask", ask)
    cluster.seen(worker.Answer(0, 0, {"tcp://alike": OWN.identity}))
    assert asked == []
    with pytest.warns(ClusterWarning, match=r"processors differ \(blas\): tcp://late \| the client"):
        cluster.seen(worker.Answer(0, 0, {"tcp://alike": OWN.identity, "tcp://late": other.identity}))
    cluster.seen(worker.Answer(0, 0, {"tcp://late": other.identity}))
    assert asked == ["tcp://late"]


def test_a_late_joiner_that_is_gone_again_is_no_error(client: Any) -> None:
    cluster = Cluster(client)
    cluster.inspect()
    cluster.seen(worker.Answer(0, 0, {"tcp://127.0.0.1:9": "another"}))


@pytest.mark.parametrize("combined", [False, True], ids=["fetched", "combined"])
def test_other_processors_are_noticed_however_their_sums_arrive(
    client: Any, monkeypatch: pytest.MonkeyPatch, combined: bool
) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 1)
    monkeypatch.setattr(engine, "FETCHED_BYTES", 0 if combined else 1 << 20)
    partitions = open_partitions(numbered(17), ["x"], "reread", client, 1)
    partitions._cluster.record_bytes = 1
    address = sorted(client.scheduler_info()["workers"])[0]
    client.run(_become_another, workers=[address])
    try:
        with pytest.warns(ClusterWarning, match=rf"processors differ \(blas\): {address} \| the client"):
            assert partitions.total(letter).text == tree(letters(17))
    finally:
        client.run(_become_oneself, workers=[address])
    partitions.release()


def _become_another() -> None:
    from daskglm.cluster import preflight

    preflight.identity.cache_clear()
    preflight.features.cache_clear()
    known = preflight.features()
    known["blas"] = "Z80"


def _become_oneself() -> None:
    from daskglm.cluster import preflight

    preflight.identity.cache_clear()
    preflight.features.cache_clear()


@pytest.mark.parametrize("keep", ["disk", "reread"])
def test_what_is_in_memory_can_be_kept_anywhere(client: Any, keep: str) -> None:
    partitions = open_partitions(numbered(5), ["x"], keep, client)
    assert partitions.keep == keep
    partitions.release()
    with pytest.raises(DesignError, match="'nowhere'"):
        open_partitions(numbered(5), ["x"], "nowhere", client)


# -- room for rows -----------------------------------------------------------------------------------------------------


def small_workers(count: int, limit: int, resident: int, threads: int = 1) -> list[Worker]:
    found = facts(memory=64 * GB, disk_free=10 * GB)
    return [Worker(f"tcp://{i}", threads, limit, "running", found, resident) for i in range(count)]


def test_rows_are_kept_in_memory_where_the_workers_limits_have_room_for_them() -> None:
    small = small_workers(2, 400 << 20, 230 << 20)
    # of 400 MiB Dask spills beyond 240, and the process itself takes 230
    assert preflight.room_for_rows(small, 0) < 30 << 20
    assert preflight.room_for_rows(small, 64 << 20) == 0
    assert preflight.room_for_rows(small_workers(2, 4 * GB, 300 << 20), 64 << 20) == pytest.approx(
        2 * (0.6 * 4 * GB - (300 << 20) - (128 << 20)), abs=2
    )
    # never more than half of the limits
    assert preflight.room_for_rows(small_workers(1, 4 * GB, 0), 0) == 2 * GB


@pytest.mark.parametrize("limit, keep", [(400 << 20, "reread"), (8 * GB, "memory")])
def test_small_workers_do_not_keep_rows_in_memory(
    client: Any, lake: Path, monkeypatch: pytest.MonkeyPatch, limit: int, keep: str
) -> None:
    inspect = Cluster.inspect
    # what these workers take by themselves depends on the tests before
    as_if = {"memory_limit": limit, "resident": 230 << 20}
    monkeypatch.setattr(Cluster, "inspect", lambda *given: [replace(each, **as_if) for each in inspect(*given)])
    source = open_lake(lake)
    source.select(["x"])
    # as if its rows took 300 MB
    monkeypatch.setattr(source, "row_bytes", lambda columns: 300_000_000 // source.n_rows)
    partitions = open_partitions(source, ["x"], "auto", client)
    assert partitions.keep == keep
    partitions.release()


def test_a_row_group_that_does_not_fit_is_named(client: Any, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_lake(lake)
    source.select(["x"])
    monkeypatch.setattr(source, "row_bytes", lambda columns: 10_000_000)
    said = r"row groups? 0.* of \S*\d\.parquet takes about .* GB once decoded, and the worker tcp://\S+ has 2\.1 GB, of which"
    with pytest.raises(ClusterError, match=said):
        open_partitions(source, ["x"], "reread", client)
    assert left_on(client) == []
    said = r"row groups? 0.* of \S*\d\.parquet takes about .* GB once decoded, and as much again encoded, of 2 GB of memory"
    with pytest.raises(DesignError, match=said):
        local.open_partitions(source, ["x"], "reread", 1, 2 * GB)


def test_a_collection_that_does_not_fit_is_refused_and_one_that_spills_is_a_warning() -> None:
    few = small_workers(2, GB, 0)
    preflight.check_collection(GB, few)
    with pytest.warns(
        ClusterWarning, match=r"the rows of the collection take about 5 GB.* every pass will read from disk"
    ):
        preflight.check_collection(5 * GB, few)
    with pytest.raises(
        ClusterError, match=r"take about 30 GB, and the workers have 2 GB of memory and 10 GB of disk"
    ) as found:
        preflight.check_collection(30 * GB, few)
    # what a collection does not accept is not advised
    assert "keep=" not in str(found.value)


def test_the_sums_must_fit_in_this_process_too(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    partitions = open_partitions(numbered(2), ["x"], "memory", client)
    monkeypatch.setattr(engine.machine, "memory_limit", lambda: 100 << 20)
    partitions.expect(30 << 20)
    with pytest.raises(ClusterError, match=r"one Gram takes 0\.042 GB, and this process holds 3 of them"):
        partitions.expect(40 << 20)
    partitions.release()
