"""The distributed engine against the embedded one: the same bits whoever works, dies, joins or leaves; nothing left behind."""

from __future__ import annotations

import asyncio
import copy
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

import daskglm as dg
from daskglm import estimation as fitting
from daskglm.cluster import dask as engine
from daskglm.cluster import lakes, local, tables, worker
from daskglm.cluster.dask import DistributedPartitions, moves, open_partitions, shelf_height
from daskglm.cluster.engine import Engine, open_rows
from daskglm.cluster.local import LocalPartitions
from daskglm.cluster.tables import TableSource
from daskglm.errors import DataError, DesignError
from daskglm.partitions import TreeSum, tree_sum
from tests.cluster.problem import (
    FORMULA,
    KEEPS,
    ROWS,
    SEPARATED,
    Joined,
    Told,
    bits,
    blocks_under,
    failing,
    fitted,
    frame,
    kill,
    later,
    left_on,
    letter,
    letters,
    process_ids,
    tasks_on,
    tree,
    weighed,
    write_lake,
)
from tests.matrices import scattered

pytestmark = pytest.mark.usefixtures("small")
# More threads than processors are as good for a test as any.
MORE_THREADS = pytest.mark.filterwarnings("ignore:the workers on .* threads for the:daskglm.errors.ClusterWarning")


@pytest.fixture(scope="module")
def expected(lake: Path) -> tuple[Any, ...]:
    """The bits of one thread of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lakes, "LEAF_BYTES", 1)
        patch.setattr(fitting, "PILOT_ROWS", 1_000)
        return bits(fitted(lake, Engine(1, None, 1)))


@pytest.fixture
def spotless(client: Any, scratch: Path) -> Iterator[None]:
    """Afterwards nothing is left on the cluster, in memory or on disk."""
    yield
    assert left_on(client) == []
    assert blocks_under(scratch) == []


def numbered(count: int) -> TableSource:
    """A table of so many leaves of one row."""
    source = TableSource(pa.table({"x": np.arange(count)}))
    source.select(["x"])
    return source


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of a table is a leaf."""
    monkeypatch.setattr(tables, "LEAF_ROWS", 1)


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spotless")
@pytest.mark.parametrize(
    "leaves_per_task, keep", [(1, "memory"), (4, "disk"), (64, "reread"), *((None, keep) for keep in KEEPS)]
)
def test_neither_grouping_nor_where_rows_are_kept_changes_a_bit(
    client: Any, lake: Path, expected: tuple[Any, ...], leaves_per_task: int | None, keep: str
) -> None:
    told = Told()
    record = fitted(lake, Engine(client=client, leaves_per_task=leaves_per_task), keep, told)
    assert bits(record) == expected
    assert "pilot" in told.phases
    # every total hears of every row: the profile, those of the pilot's sample, and the passes
    assert told.rows % (ROWS + 4) == 0
    assert told.rows >= (ROWS + 4) * record.n_passes
    assert record.decodes == (1 if keep != "reread" else record.n_passes + 1)


@pytest.mark.usefixtures("spotless")
@pytest.mark.filterwarnings("ignore::daskglm.errors.SeparationWarning")
@pytest.mark.parametrize("keep", KEEPS)
def test_an_infinite_optimum_has_the_same_bits(client: Any, lake: Path, keep: str) -> None:
    """Rows that are at their limit are set aside on the workers."""
    expected = fitted(lake, Engine(1, None, 1), **SEPARATED)
    record = fitted(lake, Engine(client=client, leaves_per_task=4), keep, **SEPARATED)
    assert record.separated == ("C(year)[T.2020]", "C(year)[T.2021]")
    assert bits(record) == bits(expected)
    # a cluster that reads again does so for every pass
    assert record.decodes == (1 if keep != "reread" else record.n_passes + 1)


@MORE_THREADS
@pytest.mark.parametrize("keep", KEEPS)
def test_one_worker_of_several_threads(
    threaded: Any, lake: Path, expected: tuple[Any, ...], scratch: Path, keep: str
) -> None:
    assert bits(fitted(lake, Engine(client=threaded, leaves_per_task=2), keep)) == expected
    assert left_on(threaded) == []
    assert blocks_under(scratch) == []


@pytest.fixture(scope="module")
def threaded(scratch: Path) -> Iterator[Any]:
    """A client of a cluster of one worker with three threads."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=3, processes=True, dashboard_address=":0", memory_limit="2GiB",
            local_directory=str(scratch), silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@pytest.mark.usefixtures("spotless")
@pytest.mark.parametrize(
    "options",
    [
        {"where": "year = 2021 and x > 0"},
        {"weights": "w", "covariance": "HC1", "keep": "disk"},
        {"weights": dg.Probability("w"), "keep": "reread"},
        {"exposure": "z", "covariance": "observed", "dispersion": "pearson"},
        {"start": {"Intercept": 0.8}, "max_iter": 30, "tol": 1e-8},
    ],
    ids=["where", "HC1", "probability", "exposure", "start"],
)
def test_no_option_changes_a_bit(client: Any, lake: Path, options: dict[str, Any]) -> None:
    assert bits(fitted(lake, Engine(client=client), **options)) == bits(fitted(lake, Engine(2), **options))


def test_a_filter_leaves_row_groups_unread(client: Any, lake: Path) -> None:
    options = {"where": "year = 2021", "formula": "y ~ x"}
    told = Told()
    record = fitted(lake, Engine(client=client, leaves_per_task=1), reporter=told, **options)
    assert record.ledger.read == ROWS + 4
    # the rows of a year lie in one file, and no leaf of another is opened
    assert told.partitions.n_leaves == 4
    assert record.statistics.n_rows == frame().query("year == 2021 and x == x").shape[0]


def test_tables_and_sparse_matrices_go_to_a_cluster_that_is_named(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 512)
    monkeypatch.setattr(tables, "LEAST_ROWS", 64)
    monkeypatch.setattr(lakes, "LEAF_BYTES", 32 << 10)
    data = frame().dropna()
    here = dg.glm(FORMULA, data, family="poisson")
    assert bits(dg.glm(FORMULA, data, family="poisson", client=client).record) == bits(here.record)
    generator = np.random.default_rng(3)
    x: Any = abs(scattered((3_000, 40), 0.05, generator))
    y = generator.poisson(1.0 + 0.5 * x[:, [0]].toarray()[:, 0]).astype(float)
    options: dict[str, Any] = {"X": x, "y": y, "family": "poisson", "covariance": "HC1"}
    assert bits(dg.glm(**options, client=client).record) == bits(dg.glm(**options).record)


# -- the summing tree --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", range(4))
def test_sums_on_workers_make_the_same_tree_for_any_number_of_leaves(
    monkeypatch: pytest.MonkeyPatch, height: int
) -> None:
    monkeypatch.setattr(worker, "get_worker", lambda: SimpleNamespace(address="here"))
    for count in range(1, 71):
        names, size = letters(count), 1 << height
        shelves = [worker.Answer(tree_sum(map(Joined, names[at : at + size])), 0, {}) for at in range(0, count, size)]
        above, level = shelves, height
        while len(above) > 1:
            above = [
                worker.combine(above[at : at + engine.FAN_IN], level) for at in range(0, len(above), engine.FAN_IN)
            ]
            level += 2
        fetched: TreeSum[Joined] = TreeSum()
        for shelf in shelves:
            fetched.push(shelf.record, height)
        assert above[0].record.text == fetched.result().text == tree(names)


@pytest.mark.usefixtures("single", "spotless")
@pytest.mark.parametrize("large", [False, True], ids=["fetched", "combined"])
@pytest.mark.parametrize("leaves_per_task, counts", [(1, [1, 2, 7, 21]), (2, [9, 70]), (8, [33, 64, 65])])
def test_the_sum_is_one_tree_wherever_it_is_added(
    client: Any, monkeypatch: pytest.MonkeyPatch, leaves_per_task: int, counts: list[int], large: bool
) -> None:
    monkeypatch.setattr(engine, "FETCHED_BYTES", 0)
    for count in counts:
        partitions = open_partitions(numbered(count), ["x"], "memory", client, leaves_per_task)
        partitions._cluster.record_bytes = 1 if large else None
        assert partitions.n_leaves == count
        before = partitions._cluster.tasks
        assert partitions.total(letter).text == tree(letters(count))
        shelves = -(-count // leaves_per_task)
        assert (partitions._cluster.tasks - before == shelves) != (large and shelves > 1)
        partitions.release()


@pytest.mark.usefixtures("single")
def test_what_is_kept_is_what_was_made(client: Any) -> None:
    partitions = open_partitions(numbered(21), ["x"], "memory", client, 2)
    kept, record, beside = partitions.kept_with_total(
        lambda leaf: leaf.table.column("x").to_numpy() + 0.5, lambda x: x.sum(), aside=lambda x: 2.0 * x
    )
    assert beside is not None
    assert record == sum(range(21)) + 0.5 * 21
    assert [x.tolist() for x in kept.map(lambda x: x)] == [[i + 0.5] for i in range(21)]
    assert [x.tolist() for x in beside.map(lambda x: x)] == [[2 * i + 1.0] for i in range(21)]
    beside.release()
    squared = kept.consumed(lambda x: x * x)
    assert squared.total(np.sum) == sum((i + 0.5) ** 2 for i in range(21))
    assert list(squared.map(lambda x, power, plus: float(x[0] ** power + plus), 0.5, 1.0)) == [
        i + 1.5 for i in range(21)
    ]
    assert (squared.passes, squared.decodes, squared.rows, squared.n_leaves) == (1, 1, 21, 21)
    partitions.release()


# -- what travels ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("single", "spotless")
def test_a_large_call_travels_once_and_records_are_counted(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    coefficients = np.random.default_rng(0).normal(size=13_000)
    assert len(worker.Call(weighed, (coefficients,)).blob) > engine.CARRIED_BYTES
    wanted = open_rows(numbered(21), ["x"], "memory", Engine(2)).total(weighed, coefficients)
    partitions = open_partitions(numbered(21), ["x"], "memory", client, 2)
    cluster = partitions._cluster
    assert partitions.total(weighed, coefficients).tobytes() == wanted.tobytes()
    # eleven shelves of two leaves, and the call itself
    assert cluster.tasks == 12
    assert partitions.fetched_bytes == 11 * coefficients.nbytes
    monkeypatch.setattr(engine, "FETCHED_BYTES", 1 << 20)
    partitions.expect(coefficients.nbytes)
    assert partitions.total(weighed, coefficients).tobytes() == wanted.tobytes()
    # eleven sums are added to three, and those to one
    assert cluster.tasks == 12 + 12 + 3 + 1
    assert partitions.fetched_bytes == 12 * coefficients.nbytes
    partitions.release()


@pytest.mark.usefixtures("single")
def test_a_pass_has_at_most_four_tasks_per_thread(client: Any) -> None:
    for count in (1, 8, 9, 16, 17, 70):
        partitions = open_partitions(numbered(count), ["x"], "reread", client)
        partitions.total(letter)
        # two workers with a thread each
        assert min(count, 4) <= partitions._cluster.tasks <= 4 * 2
        partitions.release()


@pytest.mark.parametrize("leaves", [1, 2, 31, 32, 33, 100, 4_097, 100_000])
@pytest.mark.parametrize("slots", [1, 2, 7, 64])
def test_shelves_are_few_and_no_larger_than_they_must_be(leaves: int, slots: int) -> None:
    height = shelf_height(leaves, slots)
    assert -(-leaves // (1 << height)) <= engine.SHELVES_PER_SLOT * slots
    assert height == 0 or -(-leaves // (1 << (height - 1))) > engine.SHELVES_PER_SLOT * slots


def test_every_key_has_our_name_and_every_record_is_counted(client: Any, lake: Path) -> None:
    seen: list[str] = []
    told = Told("pass", lambda: seen.extend(tasks_on(client)), 1)
    record = fitted(lake, Engine(client=client), reporter=told)
    assert seen
    assert all(key.startswith("('daskglm-") for key in seen)
    # a Gram of 14 columns is at least as large as its triangle, and comes once from every shelf
    shelves = -(-told.partitions.n_leaves // 4)
    assert told.partitions.fetched_bytes > record.n_passes * shelves * 8 * 14 * 15 / 2


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spotless")
@pytest.mark.parametrize("keep", KEEPS)
def test_a_worker_killed_at_any_moment_changes_no_bit(
    cluster: Any, client: Any, lake: Path, expected: tuple[Any, ...], keep: str
) -> None:
    generator = random.Random(keep)
    told = Told("reading", later(generator.uniform(0.0, 0.8), lambda: kill(generator.choice(process_ids(cluster)))))
    assert bits(fitted(lake, Engine(client=client, leaves_per_task=1), keep, told)) == expected


@pytest.mark.usefixtures("spotless")
def test_all_workers_killed_at_once_change_no_bit(
    cluster: Any, client: Any, lake: Path, expected: tuple[Any, ...]
) -> None:
    told = Told("pass", later(0.02, lambda: kill(*process_ids(cluster))), 1)
    assert bits(fitted(lake, Engine(client=client, leaves_per_task=2), "disk", told)) == expected
    assert told.do is None


def test_a_worker_that_joins_and_one_that_leaves_change_no_bit(
    lake: Path, expected: tuple[Any, ...], scratch: Path
) -> None:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit="2GiB",
            local_directory=str(scratch), silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        (first,) = client.scheduler_info()["workers"]
        told = Told("pilot", lambda: cluster.scale(2))
        joined = Told("pass", lambda: client.wait_for_workers(2, timeout=30))
        left = Told("pass", lambda: client.retire_workers([first], close_workers=True), 1)
        assert (
            bits(fitted(lake, Engine(client=client, leaves_per_task=2), "memory", _All(told, joined, left))) == expected
        )
        assert first not in client.scheduler_info()["workers"]
        assert left_on(client) == []


class _All:
    """Several who are told."""

    def __init__(self, *several: Told) -> None:
        self._several = several

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: [getattr(one, name)(*args) for one in self._several] and None


def negative(folder: Path) -> Path:
    """A lake whose fourth file has a count below zero."""
    write_lake(folder)
    table = pq.read_table(folder / "3.parquet")
    y = table.column("y").to_numpy().copy()
    y[700] = -1.0
    pq.write_table(
        table.set_column(table.column_names.index("y"), "y", pa.array(y)), folder / "3.parquet", row_group_size=100
    )
    return folder


@pytest.mark.usefixtures("spotless")
@pytest.mark.parametrize("keep", KEEPS)
def test_an_error_in_a_leaf_names_the_file_and_leaves_nothing(client: Any, tmp_path: Path, keep: str) -> None:
    with pytest.raises(DataError, match=r"3\.parquet.*-1") as caught:
        fitted(negative(tmp_path / "lake"), Engine(client=client, leaves_per_task=1), keep)
    # the frames of the error live on, as they do in a session where somebody looks at them
    assert caught.tb is not None
    assert left_on(client) == []


@pytest.mark.usefixtures("spotless")
@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_an_interrupted_pass_leaves_nothing(client: Any, lake: Path, keep: str) -> None:
    told = Told("pass", later(0.03, lambda: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt) as caught:
        fitted(lake, Engine(client=client, leaves_per_task=1), keep, told)
    assert caught.tb is not None
    assert left_on(client) == []


@pytest.mark.usefixtures("single", "spotless")
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), TimeoutError("too late"), ZeroDivisionError("no")])
def test_an_error_of_a_task_is_not_taken_for_a_lost_scheduler(client: Any, error: BaseException) -> None:
    partitions = open_partitions(numbered(3), ["x"], "reread", client)
    with pytest.raises(type(error), match=str(error.args[-1])):
        partitions.total(failing, error)
    partitions.release()


# -- a guest among others ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spotless")
def test_two_fits_at_once_do_not_meet(cluster: Any, lake: Path, expected: tuple[Any, ...]) -> None:
    other = bits(fitted(lake, Engine(2), formula="y ~ x + s", covariance="HC1"))
    with Client(cluster, set_as_default=False) as one, Client(cluster, set_as_default=False) as two:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(fitted, lake, Engine(client=one, leaves_per_task=4), "disk")
            second = pool.submit(
                fitted, lake, Engine(client=two, leaves_per_task=4), "disk", formula="y ~ x + s", covariance="HC1"
            )
            assert bits(first.result()) == expected
            assert bits(second.result()) == other
        # either fit has given back its own
        assert left_on(one) == []


def test_configuration_is_left_as_it_was(client: Any, lake: Path) -> None:
    before = copy.deepcopy(dask.config.config)
    fitted(lake, Engine(client=client))
    assert dask.config.config == before


def test_the_active_client_is_used_for_files_and_not_for_tables(client: Any, lake: Path) -> None:
    told = Told()
    with client.as_current():
        fitted(lake, Engine(), reporter=told, formula="y ~ x")
        assert isinstance(told.partitions, DistributedPartitions)
        fitted(TableSource(pq.read_table(lake)), Engine(), reporter=told, formula="y ~ x")
        assert isinstance(told.partitions, LocalPartitions)
        fitted(lake, Engine(threads=1), reporter=told, formula="y ~ x")
        assert isinstance(told.partitions, LocalPartitions)
    fitted(lake, Engine(), reporter=told, formula="y ~ x")
    assert isinstance(told.partitions, LocalPartitions)


METHODS: dict[str, Callable[[Any, Any, dict[str, Any]], Any]] = {
    "conf_int": lambda fit, lake, o: fit.conf_int(method="profile", data=lake, params=["w"], **o),
    "bootstrap": lambda fit, lake, o: fit.bootstrap(lake, replicates=5, **o).cov(),
    "cov_params": lambda fit, lake, o: fit.cov_params("HC1", lake, **o),
    "residuals": lambda fit, lake, o: fit.residuals(lake, **o),
    "influence": lambda fit, lake, o: fit.influence(lake, **o),
    "influential": lambda fit, lake, o: fit.influential(lake, k=3, **o).rows,
    "score_test": lambda fit, lake, o: fit.score_test("year", lake, **o),
    "add1": lambda fit, lake, o: fit.add1(lake, "year", **o),
    "anova": lambda fit, lake, o: fit.anova(lake, **o),
    "drop1": lambda fit, lake, o: fit.drop1(lake, **o),
    "step": lambda fit, lake, o: fit.step(lake, direction="backward", **o).path,
    "margins": lambda fit, lake, o: fit.margins(lake, **o),
    "emmeans": lambda fit, lake, o: fit.emmeans("s", lake, **o).table,
    "relativities": lambda fit, lake, o: fit.relativities(lake, **o),
    "predict": lambda fit, lake, o: fit.predict(lake, **o),
    "check": lambda fit, lake, o: fit.check(lake, **o).lift,
    "gini": lambda fit, lake, o: fit.gini(lake, **o),
    "calibration": lambda fit, lake, o: fit.calibration(lake, by="s", **o),
}


@pytest.fixture(scope="module")
def fit_here(lake: Path) -> Any:
    return dg.glm("y ~ w + log(z) + s", str(lake), family="poisson")


@pytest.mark.usefixtures("spotless")
@pytest.mark.parametrize("name", METHODS)
def test_a_method_reads_on_the_cluster_that_it_is_given(
    client: Any, lake: Path, fit_here: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    here = METHODS[name](fit_here, str(lake), {})

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("rows are read in this process")

    monkeypatch.setattr(local, "open_partitions", refused)
    there = METHODS[name](fit_here, str(lake), {"client": client})
    assert np.array_equal(np.asarray(here), np.asarray(there)) or here.equals(there)


def test_a_client_that_has_nothing_to_read_is_refused(client: Any, fit_here: Any) -> None:
    for call in (fit_here.conf_int, fit_here.cov_params, fit_here.relativities, fit_here.vif):
        with pytest.raises(DesignError, match="client= is for a call that reads rows, and this one reads none"):
            call(client=client)
    with pytest.raises(DesignError, match="client="):
        fit_here.residuals(dd.from_pandas(frame(), npartitions=2), client=client)


def test_an_asynchronous_client_is_refused(cluster: Any, lake: Path) -> None:
    async def attempt() -> None:
        async with Client(cluster.scheduler_address, asynchronous=True) as client:
            with pytest.raises(DesignError, match="asynchronous"):
                fitted(lake, Engine(client=client))

    asyncio.run(attempt())


def test_what_is_no_client_is_refused(cluster: Any, lake: Path) -> None:
    for thing in (cluster.scheduler_address, cluster):
        with pytest.raises(DesignError, match=f"client= takes a distributed.Client, not {type(thing).__name__}"):
            fitted(lake, Engine(client=thing))


def test_threads_and_memory_are_those_of_the_workers(client: Any) -> None:
    with pytest.raises(DesignError, match="leave them out where a cluster is named"):
        Engine(threads=2, client=client)
    with pytest.raises(DesignError, match="leave them out where a cluster is named"):
        Engine(memory_limit=1 << 30, client=client)


def test_a_client_that_is_closed_is_refused(cluster: Any, lake: Path) -> None:
    client = Client(cluster, set_as_default=False)
    client.close()
    with pytest.raises(DesignError, match="client= is closed"):
        fitted(lake, Engine(client=client))


def test_nothing_is_sent_before_the_request_is_checked(client: Any, lake: Path) -> None:
    for keep in ("cloud", "memory "):
        with pytest.raises(DesignError, match="keep"):
            open_partitions(numbered(2), ["x"], keep, client)
    assert left_on(client) == []


@pytest.mark.parametrize(
    "held, threads, after",
    [
        ("aaaabbcc", {"a": 1, "b": 1, "c": 1}, {"a": 3, "b": 3, "c": 2}),
        ("aaaaaaaa", {"a": 1, "b": 3}, {"a": 2, "b": 6}),
        ("aab", {"a": 1, "b": 1}, {"a": 2, "b": 1}),
        ("aaa", {"a": 2}, {"a": 3}),
        ("aagg", {"a": 1, "b": 1}, {"a": 1, "b": 1}),
        ("", {"a": 1, "b": 1}, {"a": 0, "b": 0}),
    ],
)
def test_results_are_spread_over_the_threads(held: str, threads: dict[str, int], after: dict[str, int]) -> None:
    """A worker that is gone ("g") has nothing to give."""
    places = dict(enumerate(held))
    moved = moves(places, threads)
    found = Counter({**places, **moved}.values())
    assert {address: found[address] for address in threads} == after
    assert all(places[key] != target for key, target in moved.items())
