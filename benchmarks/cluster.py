"""The distributed engine on worker processes of this machine: bits, gain, overhead, memory. Part by part or all in one run."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import lakes

LEVELS = (5, 12, 50, 300)
FLOATS = 10
BLOCK_ROWS = 156_250
WIDE = 13_000


# -- clusters and what they hold -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def cluster(workers: int, memory: str = "8GiB", threads: int = 1) -> Iterator[Any]:
    """A client of that many worker processes."""
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "60s"}),
        LocalCluster(
            n_workers=workers, threads_per_worker=threads, memory_limit=memory, dashboard_address=":0", silence_logs=50
        ) as made,
        Client(made) as client,
    ):
        yield client


def digest(record: Any) -> str:
    """Of every bit of coefficients and covariance."""
    return hashlib.sha256(record.coefficients.tobytes() + record.covariance.tobytes()).hexdigest()[:16]


def fitted(lake: Any, client: Any, keep: str = "auto", **options: Any) -> tuple[Any, float]:
    """The record of a fit and its seconds."""
    from daskglm.cluster.engine import Engine
    from daskglm.cluster.sources import open_source
    from daskglm.fit import run
    from daskglm.plan import make_plan

    given = {"family": "poisson", "exposure": "exposure", "keep": keep} | options
    plan = make_plan(options.pop("formula", lakes.FORMULA), {k: v for k, v in given.items() if k != "formula"})
    began = time.perf_counter()
    record = run(plan, open_source(lake), Engine(client=client))
    return record, time.perf_counter() - began


class Watcher:
    """Peak memory of each worker and whether any was paused, seen from outside every tenth of a second."""

    def __init__(self, client: Any) -> None:
        self.client, self.peak, self.paused, self.stop = client, 0.0, False, threading.Event()
        self.pids = list(client.run(os.getpid).values())
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        import psutil

        turn = 0
        while not self.stop.wait(0.1):
            for pid in self.pids:
                with contextlib.suppress(psutil.Error):
                    self.peak = max(self.peak, psutil.Process(pid).memory_info().rss / 2**20)
            turn += 1
            if turn % 5 == 0:
                found = self.client.scheduler_info(n_workers=-1)["workers"].values()
                self.paused |= any(worker["status"] == "paused" for worker in found)


# -- leaves that are made, not read --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A leaf of a synthetic source."""

    number: int
    rows: int


@dataclass(frozen=True)
class Synthetic:
    """A source whose leaves are their own numbers."""

    leaves: list[Made]
    in_memory = False
    local = True
    witness = None
    ahead = 0
    pruned_rows = 0

    @property
    def n_rows(self) -> int:
        return sum(leaf.rows for leaf in self.leaves)

    @property
    def reader(self) -> Synthetic:
        return self

    def row_bytes(self, columns: Any) -> int:
        return 1

    def part(self, leaves: Any) -> Synthetic:
        return Synthetic(list(leaves))

    def announce(self, leaf: Made) -> None:
        pass

    def load(self, leaf: Made) -> Made:
        return leaf


class Count:
    """A record of nothing but a number."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __add__(self, other: Count) -> Count:
        return Count(self.value + other.value)


def one(item: Any) -> Count:
    """Counts a leaf."""
    return Count(1)


def itself(item: Any) -> Any:
    """As it is."""
    return item


class Table:
    """A record the size of a Gram."""

    def __init__(self, values: Any) -> None:
        self.values = values

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes)

    def __add__(self, other: Table) -> Table:
        return Table(self.values + other.values)


def nothing(item: Any, coef: Any) -> Table:
    """No work, and the record that work would have."""
    return Table(np.zeros((coef.size, coef.size)))


def nothing_alone(number: int) -> Table:
    """The same as a bare task."""
    return Table(np.zeros((50, 50)))


def block_of(leaf: Made) -> Any:
    """A block of the claims shape."""
    from daskglm.kernels.blocks import Block, Levels, code_dtype

    rng = np.random.default_rng(leaf.number)
    levels = []
    for count in LEVELS:
        weight = 1.0 / (1.0 + np.arange(count)) ** 0.8
        codes = rng.choice(count, size=leaf.rows, p=weight / weight.sum()).astype(code_dtype(count))
        levels.append(Levels(codes, count))
    dense = tuple(rng.normal(size=leaf.rows) for _ in range(FLOATS))
    return Block(leaf.rows, dense, tuple(levels), rng.poisson(0.1, leaf.rows).astype(np.int8))


def model_and_request() -> tuple[Any, Any]:
    """What a Newton pass of a Poisson model asks for."""
    from daskglm.kernels.blocks import Scaling
    from daskglm.model.likelihoods import GLM
    from daskglm.model.pairs import resolve
    from daskglm.totals.moments import Model, Request

    width = 1 + FLOATS + sum(LEVELS)
    model = Model(GLM(*resolve("poisson", None)), np.arange(width), width, Scaling.none(FLOATS, len(LEVELS)))
    return model, Request(np.full(width, -0.01))


def opened(client: Any, leaves: int, rows: int) -> Any:
    """Partitions of a synthetic source."""
    from daskglm.cluster.dask import open_partitions

    return open_partitions(Synthetic([Made(i, rows) for i in range(leaves)]), [], "memory", client)


# -- parts -----------------------------------------------------------------------------------------------------------------


def bits(folder: Path, rows: int, seed: int) -> None:
    """One lake, every number of workers, and a worker killed in a random pass: one digest."""
    lake = lakes.claims(folder, rows)
    record, seconds = fitted(lake, None)
    click.echo(f"embedded, threads: {digest(record)} in {seconds:.1f} s, {record.n_passes} passes")
    expected, chance = digest(record), random.Random(seed)
    for workers in (1, 2, 4):
        with cluster(workers) as client:
            record, seconds = fitted(lake, client)
            click.echo(f"{workers} worker(s): {digest(record)} in {seconds:.1f} s")
            assert digest(record) == expected
            after = chance.uniform(0.1, 0.9) * seconds
            victims = [nanny.process.pid for nanny in client.cluster.workers.values()]
            timer = threading.Timer(after, os.kill, (chance.choice(victims), signal.SIGKILL))
            timer.start()
            record, seconds = fitted(lake, client)
            timer.join()
            click.echo(f"{workers} worker(s), one killed after {after:.1f} s: {digest(record)} in {seconds:.1f} s")
            assert digest(record) == expected


def collections(folder: Path, rows: int, repeat: int) -> None:
    """Dask arrays and a DataFrame against the lake, once persisted."""
    import dask.array as da
    import dask.dataframe as dd
    from distributed import wait

    import daskglm as dg

    lake = lakes.claims(folder, rows)
    floats = [f"x{j}" for j in range(FLOATS)]
    plain = "claims ~ " + " + ".join(floats)

    def timed(function: Callable[[], Any]) -> tuple[Any, float]:
        function()
        seconds = []
        for _ in range(repeat):
            began = time.perf_counter()
            fit = function()
            seconds.append(time.perf_counter() - began)
        return fit, statistics.median(seconds)

    def compared(name: str, fit: Any, seconds: float, truth: Any, base: float) -> None:
        far = max(
            float(np.max(np.abs(a.to_numpy() / b.to_numpy() - 1.0)))
            for a, b in ((fit.params, truth.params), (fit.bse, truth.bse))
        )
        click.echo(f"{name}: {seconds:.2f} s, {seconds / base:.2f} times the lake, relative difference {far:.1e}")

    with cluster(2) as client:
        options: dict[str, Any] = {"family": "poisson", "client": client}
        truth, base = timed(lambda: dg.glm(lakes.FORMULA, lake, exposure="exposure", **options))
        click.echo(f"lake, every column: {base:.2f} s")
        frame = dd.read_parquet(lake).persist()
        wait(frame)
        fit, seconds = timed(lambda: dg.glm(lakes.FORMULA, frame, exposure="exposure", **options))
        compared("DataFrame", fit, seconds, truth, base)
        truth, base = timed(lambda: dg.glm(plain, lake, exposure="exposure", **options))
        click.echo(f"lake, {FLOATS} float columns: {base:.2f} s")
        whole = frame[[*floats, "claims", "exposure"]].to_dask_array(lengths=True).persist()
        wait(whole)
        known = [part.persist() for part in (whole[:, :FLOATS], whole[:, FLOATS], whole[:, FLOATS + 1])]
        empty = da.from_array(np.zeros((0, FLOATS + 2)))
        ragged = da.concatenate([whole[: len(frame.partitions[0])], empty, whole[len(frame.partitions[0]) :]])
        holed = [part.persist() for part in (ragged[:, :FLOATS], ragged[:, FLOATS], ragged[:, FLOATS + 1])]
        unknown = frame[[*floats, "claims", "exposure"]].to_dask_array()
        nameless = [part.persist() for part in (unknown[:, :FLOATS], unknown[:, FLOATS], unknown[:, FLOATS + 1])]
        for name, parts in (("known sizes", known), ("one empty", holed), ("unknown sizes", nameless)):
            wait(parts)
            x, y, exposure = parts
            fit, seconds = timed(lambda x=x, y=y, e=exposure: dg.glm(X=x, y=y, exposure=e, **options))
            compared(f"arrays of {x.numblocks[0]} chunks, {name}", fit, seconds, truth, base)


def _bare(leaves: list[Made], passes: int, start: Any, out: Any) -> None:
    """The kernel and nothing else: blocks of this process, pass after pass."""
    from daskglm.partitions import tree_sum
    from daskglm.totals.moments import moments

    blocks = [block_of(leaf) for leaf in leaves]
    model, request = model_and_request()
    tree_sum(moments(block, model, request) for block in blocks)
    start.wait()
    began = time.perf_counter()
    for _ in range(passes):
        tree_sum(moments(block, model, request) for block in blocks)
        start.wait()
    out.put(time.perf_counter() - began)


def _bare_seconds(processes: int, leaves: int, passes: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(processes), context.Queue()
    made = [Made(i, BLOCK_ROWS) for i in range(leaves)]
    bounds = np.linspace(0, leaves, processes + 1).astype(int)
    running = [
        context.Process(target=_bare, args=(made[bounds[i] : bounds[i + 1]], passes, barrier, out))
        for i in range(processes)
    ]
    for process in running:
        process.start()
    seconds = max(out.get() for _ in running)
    for process in running:
        process.join()
    return seconds / passes


def gain(leaves: int, passes: int, repeat: int) -> None:
    """What a second worker process brings, against what a second process brings the bare kernel."""
    from daskglm.totals.moments import moments

    model, request = model_and_request()

    def ours(workers: int) -> float:
        with cluster(workers) as client:
            rows = opened(client, leaves, BLOCK_ROWS)
            blocks, _, _ = rows.kept_with_total(block_of, one)
            blocks.total(moments, model, request)
            began = time.perf_counter()
            for _ in range(passes):
                blocks.total(moments, model, request)
            seconds = (time.perf_counter() - began) / passes
            blocks.release()
            rows.release()
        return seconds

    ratios = []
    for turn in range(repeat):
        found = {name: [f(k) for k in (1, 2)] for name, f in
                 (("bare", lambda k: _bare_seconds(k, leaves, passes)), ("ours", ours))}  # fmt: skip
        bare, own = (found[name][0] / found[name][1] for name in ("bare", "ours"))
        ratios.append(own / bare)
        click.echo(
            f"{turn + 1}: bare kernel {found['bare'][0]:.3f} -> {found['bare'][1]:.3f} s a pass ({bare:.2f} times), "
            f"engine {found['ours'][0]:.3f} -> {found['ours'][1]:.3f} s ({own:.2f} times): {own / bare:.0%} of the gain"
        )
    click.echo(f"median: {statistics.median(ratios):.0%} of the gain of the bare kernel")


def overhead(repeat: int) -> None:
    """A pass whose leaves do nothing, for 64 and 1 000 leaves, against a bare map of as many tasks."""
    coef = np.zeros(50)
    with cluster(2) as client:
        slots = 2
        found: dict[str, list[float]] = {}
        kept = {}
        for leaves in (64, 1000):
            rows = opened(client, leaves, 1)
            kept[leaves] = rows.kept_with_total(itself, one)[0]
            tasks = len(kept[leaves]._shelves)
            click.echo(f"{leaves} leaves: {tasks} tasks a pass, {tasks / slots:g} per slot")
        for _ in range(repeat):
            for leaves, partitions in kept.items():
                tasks = len(partitions._shelves)
                began = time.perf_counter()
                partitions.total(nothing, coef)
                found.setdefault(f"pass of {leaves}", []).append(time.perf_counter() - began)
                began = time.perf_counter()
                client.gather(client.map(nothing_alone, range(tasks), pure=False))
                found.setdefault(f"bare map of {tasks} beside {leaves}", []).append(time.perf_counter() - began)
        middle = {name: statistics.median(values) for name, values in found.items()}
        for name, seconds in middle.items():
            click.echo(f"{name}: {1000 * seconds:.1f} ms")
        names = list(middle)
        click.echo(f"1 000 leaves against 64: {middle[names[2]] / middle[names[0]]:.2f} times (at most 2)")
        for i in (0, 2):
            click.echo(
                f"{names[i]} against a bare map: {middle[names[i]] / middle[names[i + 1]]:.2f} times (at most 1.5)"
            )


def wide(rows: int, memory: str) -> None:
    """13 000 sparse columns' coefficients, and 2 000 dense columns on two small workers."""
    import dask.array as da

    import daskglm as dg
    from daskglm.cluster.engine import Engine, open_rows
    from daskglm.totals.moments import moments

    model, request = sparse_model_and_request()
    found = {}
    with cluster(2) as client:
        leaves = Synthetic([Made(i, 5_000) for i in range(64)])
        for name, partitions in (
            ("cluster", opened(client, 64, 5_000)),
            ("embedded", open_rows(leaves, [], "memory", Engine(threads=2))),  # type: ignore[arg-type]
        ):
            blocks, _, _ = partitions.kept_with_total(sparse_block_of, one)
            began = time.perf_counter()
            sums = blocks.total(moments, model, request)
            found[name] = (sums.loss, model.gradient(sums).tobytes())
            click.echo(f"13 000 sparse columns, loss and gradient, {name}: {time.perf_counter() - began:.2f} s")
            blocks.release()
            partitions.release()
    click.echo(f"13 000 sparse columns: same bits {found['cluster'] == found['embedded']}")
    with cluster(2, memory) as client, Watcher(client) as seen:
        rng = da.random.default_rng(3)
        x = rng.normal(size=(rows, 2_000), chunks=(rows // 16, 2_000))
        y = rng.poisson(1.0, size=rows, chunks=rows // 16)
        began = time.perf_counter()
        fit = dg.glm(X=x, y=y, family="poisson", client=client)
        seconds = time.perf_counter() - began
        click.echo(
            f"2 000 dense columns, {rows} rows, two workers of {memory}: {seconds:.1f} s, {fit.n_passes} passes, "
            f"peak {seen.peak:.0f} MiB a worker, paused: {seen.paused}, converged: {fit.converged}"
        )


def sparse_block_of(leaf: Made) -> Any:
    """A block of 13 000 sparse columns, three entries a row."""
    import scipy.sparse as sp

    from daskglm.kernels.blocks import Block, Sparse

    rng = np.random.default_rng(leaf.number)
    rows = np.repeat(np.arange(leaf.rows), 3)
    x = sp.csr_array((rng.normal(size=rows.size), (rows, rng.integers(0, WIDE, rows.size))), shape=(leaf.rows, WIDE))
    x.sum_duplicates()
    piece = Sparse(x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data, WIDE)
    return Block(leaf.rows, (), (), rng.poisson(1.0, leaf.rows).astype(np.int8), sparse=piece)


def sparse_model_and_request() -> tuple[Any, Any]:
    """Loss and gradient of a Poisson model of those columns."""
    from daskglm.kernels.blocks import Scaling
    from daskglm.model.likelihoods import GLM
    from daskglm.model.pairs import resolve
    from daskglm.totals.moments import Model, Request

    scaling = Scaling(np.zeros(0), np.ones(0), np.ones(0), np.ones(WIDE))
    model = Model(GLM(*resolve("poisson", None)), np.arange(1 + WIDE), 1 + WIDE, scaling)
    return model, Request(np.linspace(-0.01, 0.01, 1 + WIDE), order=1)


def small(folder: Path, rows: int) -> None:
    """One worker of 600 MiB whose blocks lie on its disk."""
    lake = lakes.claims(folder, rows)
    with cluster(1, "600MiB") as client, Watcher(client) as seen:
        record, seconds = fitted(lake, client, "disk")
        held = rows * (FLOATS * 8 + 8 + 8 + 1 + 1 + 1 + 2)
        click.echo(
            f"{rows} rows, about {held / 1e9:.1f} GB of blocks on disk, a worker of 600 MiB: {seconds:.1f} s, "
            f"{record.n_passes} passes, peak {seen.peak:.0f} MiB, paused: {seen.paused}"
        )


def large(folder: Path, rows: int, memory: str) -> None:
    """A lake far larger than two small workers."""
    lake = lakes.claims(folder, rows, files=max(64, rows // 1_000_000))
    files = sorted(lake.glob("*.parquet"))
    size = sum(file.stat().st_size for file in files)
    with contextlib.suppress(OSError):
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    began, read = time.perf_counter(), 0
    for file in files[: max(1, len(files) // 5)]:
        with open(file, "rb", buffering=0) as handle:
            while chunk := handle.read(8 << 20):
                read += len(chunk)
    rate = read / (time.perf_counter() - began)
    with cluster(2, memory) as client, Watcher(client) as seen:
        record, seconds = fitted(lake, client)
        passes = record.n_passes + 1
        bound = 3.0 * size * passes / rate
        click.echo(
            f"{size / 1e9:.1f} GB, {rows} rows, two workers of {memory}: {seconds:.0f} s, {passes} readings, "
            f"disk {rate / 1e6:.0f} MB/s (cold), bound 3 x {size * passes / rate:.0f} = {bound:.0f} s, "
            f"peak {seen.peak:.0f} MiB a worker, paused: {seen.paused}, decodes {record.decodes}"
        )


def together(folder: Path, rows: int) -> None:
    """Two fits at once from two clients, and what is left of their keys."""
    from distributed import Client

    lake = lakes.claims(folder, rows)
    with cluster(2) as client, Client(client.scheduler.address, set_as_default=False) as other:
        alone, _ = fitted(lake, client)
        found: list[Any] = []
        threads = [threading.Thread(target=lambda c=c: found.append(fitted(lake, c))) for c in (client, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(1.0)
        keys = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        same = all(digest(record) == digest(alone) for record, _ in found)
        click.echo(
            f"two fits at once: {', '.join(f'{s:.1f} s' for _, s in found)}; same bits: {same}; keys left: {keys}"
        )
