"""The distributed engine: shelves of leaves as futures on a Dask cluster, summed by few tasks a pass.

The unit of data is the leaf, the unit of work the shelf: 2^k neighbouring leaves that one task sums, a whole subtree of the
fixed tree, so that the bits do not depend on workers, grouping or failures. Shelves are futures and recover by lineage; a
pass sends one task a shelf and fetches small records, or lets the workers add them first where they are large.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, Literal

import dask
from distributed import Client, Future, get_worker, threadpoolexecutor, wait
from distributed.utils import format_dashboard_link

from daskglm.cluster import machine, preflight, sources, worker
from daskglm.cluster.calls import UnansweredError, ask
from daskglm.cluster.cells import Counter
from daskglm.cluster.collections import uncomputed
from daskglm.cluster.patience import patience
from daskglm.cluster.watch import Watch, lost
from daskglm.errors import ClusterError, DaskglmError, DesignError
from daskglm.partitions import TreeSum

Keep = Literal["memory", "disk", "reread"]

# Shelves per thread of the cluster: enough to even out the work and to share it with workers that join.
SHELVES_PER_SLOT = 4
# A call above this travels to each worker once, as a task's result, and not with every task through the scheduler.
CARRIED_BYTES = 64 << 10
# Records above this in all are added on the workers, four at a time, and only the last few fetched.
FETCHED_BYTES = 8 << 20
FETCHED_ANSWERS = 256
FAN_IN = 4
# Buckets of packets are folded by a task for so many shelves.
FOLDS_PART = 2
# While a pass runs, the driver looks this often whether something went wrong.
LOOK_SECONDS = 1.0
# Cleaning up waits no longer than this for workers that do not answer; what they hold they remove themselves.
CLEANING_SECONDS = 1.5
# What a thread holds at once when it sums a subtree: one partial sum per level, the leaf's own and the sum under way.
HELD_RECORDS = 5
# What this process holds at once of a pass: the sum, a copy that came with it, and the factor made of it.
CLIENT_RECORDS = 3

# Moving rows to workers that have fewer is waited for no longer than this; it is not needed for the right numbers.
BALANCING_SECONDS = 3.0

_greeted: weakref.WeakSet[Client] = weakref.WeakSet()


class Cluster:
    """A client as one fit sees it: its workers, the keys the fit owns, and what happened. It is a guest here: nothing of
    the client is changed, and every key is given back.
    """

    def __init__(self, client: Client) -> None:
        if not isinstance(client, Client):
            raise DesignError(f"client= takes a distributed.Client, not {type(client).__name__}")
        if client.asynchronous:
            raise DesignError("client= is asynchronous: pass a synchronous distributed.Client")
        if client.status == "closed":
            raise DesignError("client= is closed: pass one that is connected")
        self.client = client
        self.fit = uuid.uuid4().hex[:12]
        self.watch = Watch(client)
        self.own = preflight.facts()
        self.known: dict[str, str] = {}
        self.phase = "read"
        self.counter = Counter()
        self.fetched_bytes = 0
        self.tasks = 0
        self.record_bytes: int | None = None
        self._serial = 0
        self._owned: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
        self._given: weakref.WeakKeyDictionary[Future[Any], str] = weakref.WeakKeyDictionary()
        self._on_disk = False

    @contextlib.contextmanager
    def guest(self) -> Iterator[None]:
        """Speak to the cluster: this client is the current one for as long, and a lost connection is one sentence."""
        with lost(self.client), self.client.as_current():
            yield

    # -- preflight -------------------------------------------------------------------------------------------------

    def inspect(self, path: str | None = None) -> list[preflight.Worker]:
        """Workers with their facts, compared with one another, the scheduler and this process."""
        until = time.monotonic() + patience()
        with self.guest():
            self._greet()
            scheduler = self._ask_scheduler()
            while True:
                described = self.watch.workers_soon()
                found = self._ask(list(described), path)
                if found:
                    break
                # all have ended since they were listed, and are perhaps being started again
                if time.monotonic() > until:
                    raise ClusterError("no worker answers: look at the scheduler's dashboard or its log")
                time.sleep(LOOK_SECONDS / 5)
        preflight.check_versions(self.own, {"the scheduler": scheduler, **found})
        preflight.check_features(self.own, found)
        workers = [
            preflight.Worker(
                address,
                int(w["nthreads"]),
                int(w["memory_limit"] or 0),
                str(w["status"]),
                found.get(address),
                int((w.get("metrics") or {}).get("memory") or 0),
            )
            for address, w in described.items()
        ]
        preflight.check_threads(workers)
        self._refuse_without_thread(workers)
        self.known = {address: facts.identity for address, facts in found.items()}
        return workers

    def _refuse_without_thread(self, workers: Sequence[preflight.Worker]) -> None:
        """A fit inside a task waits for tasks of its own: one thread more than its own must be there."""
        if not getattr(threadpoolexecutor.thread_state, "proceed", False):
            return
        with contextlib.suppress(ValueError):
            here = get_worker().scheduler.address == self.client.scheduler.address
            if here and sum(found.threads for found in workers) < 2:
                raise ClusterError(
                    "the fit runs inside a task, which occupies the only thread of the cluster: call "
                    "distributed.secede() before it, start more threads, or fit in the client"
                )

    def _ask_scheduler(self) -> preflight.Facts:
        try:
            with self.watch.answering() as limit:
                answer: preflight.Facts = ask(
                    self.client, lambda: self.client.run_on_scheduler(preflight.facts, asynchronous=True), limit
                )
        except (ImportError, AttributeError, TypeError) as error:
            raise ClusterError(
                f"the scheduler cannot run daskglm ({error}): install the same environment on client, scheduler and workers"
            ) from None
        return answer

    def _ask(self, addresses: Sequence[str], path: str | None) -> dict[str, preflight.Facts]:
        limit = patience()
        try:
            answers = ask(
                self.client,
                lambda: self.client.run(
                    worker.look, path, workers=list(addresses), on_error="return", asynchronous=True
                ),
                limit,
            )
        except UnansweredError:
            raise self.watch.silent(addresses, limit) from None
        found: dict[str, preflight.Facts] = {}
        for address, answer in answers.items():
            if isinstance(answer, preflight.Facts):
                found[address] = answer
            elif isinstance(answer, DaskglmError):
                raise answer
            elif isinstance(answer, (ImportError, AttributeError)) or "daskglm" in str(answer):
                raise ClusterError(
                    f"the worker {address} cannot run daskglm ({answer}): install the same environment on client, "
                    "scheduler and workers"
                )
            elif isinstance(answer, OSError):
                continue  # gone since it was listed; the scheduler will notice
            else:
                said = " ".join(str(answer).split())[:300]
                raise ClusterError(f"the worker {address} could not be examined: {type(answer).__name__}: {said}")
        return found

    def seen(self, answer: worker.Answer) -> None:
        """A worker that joined after the preflight is looked at before what it computed is used."""
        for address, identity in answer.makers.items():
            alike = identity in self.known.values()
            if self.known.get(address) == identity:
                continue
            self.known[address] = identity
            # one that is gone again would be waited for
            if not alike and address in self.watch.described():
                found = self._ask([address], None)
                preflight.check_versions(self.own, found)
                preflight.check_features(self.own, found)

    def _greet(self) -> None:
        """Print once per client where the dashboard is."""
        if self.client in _greeted:
            return
        link = getattr(self.client.cluster, "dashboard_link", None)
        if link is None:
            # the client's own attribute asks the scheduler without a deadline
            found = self.watch.identity()
            port = found["services"].get("dashboard")
            host = str(found["address"]).split("://")[-1].rsplit(":", 1)[0]
            link = None if port is None else format_dashboard_link(host, port)
        _greeted.add(self.client)
        if link:
            print(f"daskglm: dashboard {link}", file=sys.stderr)

    # -- tasks -----------------------------------------------------------------------------------------------------

    def key(self, name: str, number: int) -> tuple[str, int]:
        """The dashboard groups tasks by what stands before the fit's own hexadecimal name."""
        return (f"daskglm-{name}-{self.fit}{self._serial:04x}", number)

    def map(self, name: str, task: Callable[..., Any], *iterables: Sequence[Any]) -> list[Future[Any]]:
        """One task per element."""
        self._serial += 1
        keys = [self.key(name, number) for number in range(len(iterables[0]))]
        self.tasks += len(keys)
        with self.guest(), dask.annotate(daskglm={"fit": self.fit, "phase": self.phase}):
            futures: list[Future[Any]] = self.client.map(task, *iterables, key=keys, pure=False)
        return self.owned(futures)

    def owned(self, futures: list[Future[Any]]) -> list[Future[Any]]:
        """Futures that `close` gives back, whoever still holds them: the frames of an error do."""
        self._owned.update(futures)
        return futures

    def given(self, parts: Sequence[Sequence[Future[Any]]], place: Callable[[int], str]) -> None:
        """The parts of each leaf, which the user's own tasks compute, and what messages call a leaf."""
        for number, futures in enumerate(parts):
            self._given.update((future, place(number)) for future in self.owned(list(futures)))

    def call(self, *parts: Any) -> Any:
        """Functions and arguments, ready to be sent with every task of a pass."""
        call = worker.Call(*parts)
        if len(call.blob) <= CARRIED_BYTES:
            return call
        self._serial += 1
        self.tasks += 1
        with self.guest():
            return self.owned([self.client.submit(worker.carried, call, key=self.key("call", 0), pure=False)])[0]

    def balance(self, futures: Sequence[Future[Any]]) -> None:
        """Copy results from workers that hold more than their share to those with less.

        The first pass of a fit places rows where a thread is free, and workers that start late get fewer: later passes
        would wait for the others. Dask drops the copies that are too many, from the workers that hold most.
        """

        threads = self.watch.threads()

        async def move() -> None:
            scheduler: Any = self.client.scheduler
            found = await scheduler.who_has(keys=[future.key for future in futures])
            held = {key: holders[0] for key, holders in found.items() if holders}
            for key, target in moves(held, threads).items():
                await scheduler.replicate(keys=[key], workers=[target], n=1, branching_factor=2)

        # a worker that does not answer is noticed by the next pass
        with contextlib.suppress(UnansweredError, OSError, ValueError):
            ask(self.client, move, BALANCING_SECONDS)

    def finish(self, futures: Sequence[Future[Any]], rows: Sequence[tuple[int, int]] = ()) -> None:
        """Wait until all are done, telling whoever watches; the error of one that failed, or one sentence."""
        left = set(futures)
        sizes = dict(zip(futures, rows, strict=False))
        place = {future: number for number, future in enumerate(futures)}
        failed: Future[Any] | None = None
        self.watch.begin()
        while left:
            # what was cancelled is explained below
            with self.guest(), contextlib.suppress(TimeoutError, CancelledError):
                wait(list(left), timeout=LOOK_SECONDS)
            # what died with its worker is "lost" until it has been computed again
            done = {future for future in left if future.status not in ("pending", "lost")}
            for future in done:
                if future.status not in ("finished", "error"):
                    self.watch.explain(future, list(self._owned))
                if future.status == "error" and (failed is None or place[future] < place[failed]):
                    failed = future
                if self.counter.on_leaf is not None and future in sizes:
                    self.counter.on_leaf(*sizes[future])
            left -= done
            if failed is not None:
                # which of several mistakes is told should not be chance: those before it were begun before it
                left = {future for future in left if place[future] < place[failed]}
            if left:
                with self.guest():
                    self.watch.look(left, bool(done))
        if failed is not None:
            self._explain(failed)

    def _explain(self, future: Future[Any]) -> None:
        """Raise what made a task fail; where that was a task of the user's own, with the place."""
        try:
            self.watch.explain(future, list(self._owned))
        except DaskglmError:
            raise
        except Exception as error:
            own = next((place for part, place in self._given.items() if part.status == "error"), None)
            if own is None:
                raise
            raise uncomputed(own, error) from error

    def fetch(self, futures: Sequence[Future[Any]], rows: Sequence[tuple[int, int]] = ()) -> list[worker.Answer]:
        """The answers, in order; their size is counted."""
        self.finish(futures, rows)
        with self.guest():
            answers = self._gathered(futures)
        for answer in answers:
            self.seen(answer)
            self.counter.count(answer.loads)
            self.fetched_bytes += answer.nbytes
        _released(futures)
        return answers

    def _gathered(self, futures: Sequence[Future[Any]]) -> list[worker.Answer]:
        """What finished tasks returned; watched, for a worker can be lost with what it holds before that was fetched, or
        hold it and be silent.
        """
        loop = self.client.loop.asyncio_loop
        coming = asyncio.run_coroutine_threadsafe(self.client.gather(list(futures), asynchronous=True), loop)
        self.watch.begin()
        try:
            while not concurrent.futures.wait([coming], LOOK_SECONDS).done:
                left = [future for future in futures if future.status != "finished"]
                # as long as all are there and their holders are heard of, they are on their way, which can take long
                self.watch.look(left or futures, False, held=not left)
            try:
                answers: list[worker.Answer] = coming.result()
            except CancelledError:
                cancelled = next((future for future in futures if future.status == "cancelled"), futures[0])
                self.watch.explain(cancelled, list(self._owned))
                raise
        finally:
            coming.cancel()
        return answers

    def close(self) -> None:
        """Give up every key, and what lies on the workers' disks. Silent workers are not waited for."""
        for future in list(self._owned):
            with contextlib.suppress(Exception):
                future.release()
        if self._on_disk and self.client.status == "running":
            with contextlib.suppress(Exception):
                ask(
                    self.client,
                    lambda: self.client.run(worker.forget, self.fit, on_error="ignore", asynchronous=True),
                    CLEANING_SECONDS,
                )
            self._on_disk = False

    def uses_disk(self) -> None:
        """Blocks will be written; `close` removes them."""
        self._on_disk = True


class DistributedPartitions:
    """Shelves of leaves on a cluster: futures, or recipes of shelves that nothing has been read of."""

    def __init__(
        self, cluster: Cluster, shelves: Sequence[Any], rows: Sequence[tuple[int, int]], height: int, keep: Keep
    ) -> None:
        self._cluster = cluster
        self._shelves = list(shelves)
        self._rows = list(rows)
        self._height = height
        self.keep = keep
        self.n_leaves = 0
        self.regroup = 0
        self.owner = False
        self.sample = False

    @property
    def rows(self) -> int | None:
        """Rows of all leaves as the source counts them; None where it does not know."""
        counts = [rows for rows, _ in self._rows]
        return sum(counts) if all(counts) else None

    @property
    def passes(self) -> int:
        """Totals taken."""
        return self._cluster.counter.passes

    @property
    def decodes(self) -> int:
        """Times every leaf was decoded, rounded up."""
        return self._cluster.counter.decodes

    @property
    def fetched_bytes(self) -> int:
        """Bytes of records fetched to this process so far."""
        return self._cluster.fetched_bytes

    def observe(self, on_leaf: Callable[[int, int], None] | None) -> None:
        """Call on_leaf(rows, leaves) after each shelf of any later total."""
        self._cluster.counter.on_leaf = on_leaf

    def enter(self, phase: str) -> None:
        """Name what follows on the dashboard."""
        self._cluster.phase = phase

    def expect(self, record: int) -> None:
        """Later totals have records of about so many bytes: ClusterError where they cannot fit."""
        self._cluster.record_bytes = record
        preflight.check_records(record, CLIENT_RECORDS, 1, machine.memory_limit(), "this process")
        for address, found in self._cluster.watch.described().items():
            limit, threads = int(found["memory_limit"] or 0), int(found["nthreads"])
            preflight.check_records(record, HELD_RECORDS, threads, limit, f"the worker {address}")

    def total(self, function: Callable[..., Any], *args: Any) -> Any:
        """The tree sum over leaves of function(item, *args)."""
        cluster = self._cluster
        self._count_pass()
        call = cluster.call(function, args)
        futures = cluster.map(_name(function), worker.subtree, self._shelves, [call] * len(self._shelves))
        return self._collected(futures, cluster.record_bytes or 0)

    def grouped(self, scatter: Callable[[Any], Any], buckets: int, fold: Callable[[Any], Any]) -> Any:
        """The tree sum over buckets of fold(packets): packets stay on the workers, and each bucket's go to the one that
        folds it.
        """
        cluster = self._cluster
        self._count_pass()
        call = cluster.call(scatter, fold)
        shelves = cluster.map("scatter", worker.scattered, self._shelves, [call] * len(self._shelves))
        # 2^height neighbouring buckets are folded by one task, a whole subtree of the sum over buckets
        height = max(-(-buckets // max(len(shelves) // FOLDS_PART, 1)) - 1, 0).bit_length()
        runs = [range(at, min(at + (1 << height), buckets)) for at in range(0, buckets, 1 << height)]
        parts = [cluster.map("packets", worker.parcels_of, shelves, [run] * len(shelves)) for run in runs]
        folds = cluster.map("fold", worker.folded, parts, [call] * len(runs))
        cluster.finish(shelves, self._rows)
        for futures in (shelves, *parts):
            _released(futures)
        if len(folds) * (cluster.record_bytes or 0) <= FETCHED_BYTES:
            return _added(cluster.fetch(folds), height)
        return self._combined(folds, height)

    def _collected(self, futures: list[Future[Any]], record_bytes: int) -> Any:
        """The sum of the shelves' answers: added here where they are small and few, on the workers first where not."""
        cluster, height = self._cluster, self._height
        if len(futures) * record_bytes <= FETCHED_BYTES and len(futures) <= FETCHED_ANSWERS:
            return _added(cluster.fetch(futures, self._rows), height)
        cluster.finish(futures, self._rows)
        return self._combined(futures, height)

    def _combined(self, futures: list[Future[Any]], height: int) -> Any:
        """The sum of answers of 2^height leaves each, added on the workers."""
        cluster = self._cluster
        cluster.finish(futures)
        while len(futures) > 1:
            groups = [futures[at : at + FAN_IN] for at in range(0, len(futures), FAN_IN)]
            sums, futures = futures, cluster.map("combine", worker.combine, groups, [height] * len(groups))
            # the sums below are given up as soon as theirs is there
            _released(sums)
            height += FAN_IN.bit_length() - 1
            cluster.finish(futures)
        return _added(cluster.fetch(futures), height)

    def kept_with_total(
        self,
        function: Callable[[Any], Any],
        record: Callable[[Any], Any],
        aside: Callable[[Any], Any] | None = None,
        again: Callable[[Any], Any] | None = None,
    ) -> tuple[DistributedPartitions, Any, DistributedPartitions | None]:
        """Keep function(item) on the workers as asked, sum its record, and hold aside(function(item)) in their memory."""
        cluster = self._cluster
        if self.keep == "disk":
            cluster.uses_disk()
        call = cluster.call(function, record, aside, again, self.keep, cluster.fit)
        filled = cluster.map("read", worker.fill, self._shelves, [call] * len(self._shelves))
        profiles = cluster.map("profile", worker.record_of, filled)
        record_sum = self._collected(profiles, 0)
        beside = None
        if aside is not None:
            beside = self._with(cluster.map("sample", worker.aside_of, filled), sample=True)
        # the parts of a collection have served; recipes cost nothing
        self._shelves = [shelf for shelf in self._shelves if isinstance(shelf, worker.Call)]
        return self._with(filled), record_sum, beside

    def consumed(self, function: Callable[[Any], Any]) -> DistributedPartitions:
        """Partitions of function(item), as shelves of the size that passes want; the old ones are given up."""
        cluster = self._cluster
        call = cluster.call(function)
        size = 1 << self.regroup
        groups = [self._shelves[at : at + size] for at in range(0, len(self._shelves), size)]
        rows = [_both(self._rows[at : at + size]) for at in range(0, len(self._rows), size)]
        futures = cluster.map("encode", worker.convert, groups, [call] * len(groups))
        cluster.finish(futures)
        if self.keep == "memory" and not self.sample:
            cluster.balance(futures)
        result = DistributedPartitions(cluster, futures, rows, self._height + self.regroup, self.keep)
        result.n_leaves, result.sample = self.n_leaves, self.sample
        self._shelves = []
        return result

    def map(self, function: Callable[..., Any], *args: Any) -> Iterator[Any]:
        """function(item, *args) of every leaf, in order; a few shelves' results are on their way at a time."""
        cluster = self._cluster
        call = cluster.call(function, args)
        window = max(2 * sum(cluster.watch.threads().values()), 1)
        for at in range(0, len(self._shelves), window):
            shelves = self._shelves[at : at + window]
            for answer in cluster.fetch(cluster.map(_name(function), worker.each, shelves, [call] * len(shelves))):
                yield from answer.record

    def release(self) -> None:
        """Give up every key and every file."""
        for shelf in self._shelves:
            if isinstance(shelf, Future):
                shelf.release()
        self._shelves = []
        if self.owner:
            self._cluster.close()

    def _count_pass(self) -> None:
        # a total over a sample is no pass over the rows
        self._cluster.counter.passes += not self.sample

    def _with(self, shelves: Sequence[Any], sample: bool = False) -> DistributedPartitions:
        keep: Keep = "memory" if sample else self.keep
        result = DistributedPartitions(self._cluster, shelves, self._rows, self._height, keep)
        result.n_leaves, result.regroup, result.sample = self.n_leaves, self.regroup, sample or self.sample
        return result


def _released(futures: Sequence[Future[Any]]) -> None:
    """Give up keys here and now: what a future does when it is collected, an interrupt cannot get through."""
    for future in futures:
        future.release()


def _both(rows: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(n for n, _ in rows), sum(leaves for _, leaves in rows)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__)).strip("_").replace("_", "-")


def _added(answers: Sequence[worker.Answer], height: int) -> Any:
    tree: TreeSum[Any] = TreeSum()
    for answer in answers:
        tree.push(answer.record, height)
    return tree.result()


def moves(held: Mapping[Any, str], threads: Mapping[str, int]) -> dict[Any, str]:
    """Which results go to which worker, so that none has a whole one more per thread than another would then have.

    held: the worker of each result; threads: of each worker.
    """
    kept: dict[str, list[Any]] = {address: [] for address in threads}
    for key, address in held.items():
        if address in kept:
            kept[address].append(key)
    result: dict[Any, str] = {}
    while len(kept) > 1:
        fullest = max(kept, key=lambda each: len(kept[each]) / threads[each])
        target = min(kept, key=lambda each: (len(kept[each]) + 1) / threads[each])
        if (len(kept[target]) + 1) / threads[target] >= len(kept[fullest]) / threads[fullest]:
            break
        key = kept[fullest].pop()
        kept[target].append(key)
        result[key] = target
    return result


def shelf_height(leaves: int, slots: int) -> int:
    """k such that 2^k leaves a shelf make at most SHELVES_PER_SLOT shelves per slot."""
    each = -(-leaves // max(SHELVES_PER_SLOT * slots, 1))
    return max(each - 1, 0).bit_length()


def open_partitions(
    source: Any, columns: Sequence[str], keep: str, client: Client, leaves_per_task: int | None = None
) -> DistributedPartitions:
    """Partitions of LeafTable over a source whose selection is settled, on the workers of a client."""
    cluster = Cluster(client)
    try:
        return _opened(cluster, source, columns, keep, leaves_per_task)
    except BaseException:
        cluster.close()
        raise


def _opened(
    cluster: Cluster, source: Any, columns: Sequence[str], keep: str, leaves_per_task: int | None
) -> DistributedPartitions:
    collection = hasattr(source, "chunks")
    path = None if collection else source.witness
    workers = cluster.inspect(path)
    slots = sum(found.threads for found in workers)
    needed = (source.n_rows or 0) * source.row_bytes(columns)
    partition, place = sources.largest(source, columns)
    mode = _keep(source, keep, needed, preflight.room_for_rows(workers, partition), collection)
    if collection:
        preflight.check_collection(needed, workers)
    else:
        preflight.check_partition(partition, place, workers)
        preflight.check_blocks(needed, workers, mode)
    leaves = source.leaves
    cluster.counter.leaves = len(leaves)
    height = shelf_height(len(leaves), slots) if leaves_per_task is None else leaves_per_task.bit_length() - 1
    size = 1 << height
    if collection:
        call = cluster.call(source.converter)
        with cluster.guest():
            chunks = source.chunks(cluster.client)
        cluster.given(chunks, source.converter.place)
        shelves: list[Any] = [[parts, call, number] for number, parts in enumerate(chunks)]
        rows = [(leaf.rows, 1) for leaf in leaves]
        result = DistributedPartitions(cluster, shelves, rows, 0, mode)
        result.regroup = height
    else:
        runs = [leaves[at : at + size] for at in range(0, len(leaves), size)]
        # a task that reads carries what it reads, so that whichever worker is free takes the next one. Tying tasks to
        # workers, however loosely, leaves them without one when that worker dies (distributed 2026.8)
        shelves = [worker.Call(source.reader.part(run), run, at * size) for at, run in enumerate(runs)]
        result = DistributedPartitions(
            cluster, shelves, [(sum(leaf.rows for leaf in run), len(run)) for run in runs], height, mode
        )
    result.n_leaves, result.owner = len(leaves), True
    return result


def _keep(source: Any, keep: str, needed: int, room: int, collection: bool) -> Keep:
    if keep not in ("auto", "memory", "disk", "reread"):
        raise DesignError(f'keep must be "auto", "memory", "disk" or "reread", not {keep!r}')
    if collection:
        if keep in ("disk", "reread"):
            raise DesignError(
                f'keep="{keep}" is for files: what a Dask collection holds is kept in the memory of the workers, which '
                "Dask spills to disk"
            )
        return "memory"
    if keep != "auto":
        return keep  # type: ignore[return-value]
    if source.in_memory or needed <= room:
        return "memory"
    return "reread" if source.local else "disk"
