"""The embedded engine: threads in this process over leaves that are kept in memory, on local disk, or read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from daskglm.cluster import machine
from daskglm.cluster.cells import Applied, Counter, Kept, Spill, announce_after, cells_of
from daskglm.cluster.lakes import LEAF_BYTES
from daskglm.cluster.packets import Packets
from daskglm.cluster.sources import Source, largest
from daskglm.errors import DesignError
from daskglm.partitions import Record, TreeSum

Keep = Literal["memory", "disk", "reread"]

# What a thread holds at once when it sums a subtree: one partial sum per level, the leaf's own and the sum under way.
HELD_RECORDS = 5
# The part of the memory that packets of rows may take before they go to disk.
PACKETS_PART = 4


class LocalPartitions:
    """Leaves on this machine. leaves_per_task only groups work; the sum's tree, and so its bits, stay the same."""

    def __init__(
        self,
        cells: Sequence[Any],
        counter: Counter,
        threads: int,
        keep: Keep,
        spill: Spill | None = None,
        leaves_per_task: int | None = None,
        memory_limit: int | None = None,
        rows: int | None = None,
        sample: bool = False,
    ) -> None:
        self._known_rows = rows
        self._sample = sample
        self.memory_limit = memory_limit
        self._cells = list(cells)
        self._counter = counter
        self.threads = threads
        self.keep = keep
        self._spill = spill
        self.leaves_per_task = leaves_per_task

    @property
    def n_leaves(self) -> int:
        """Number of leaves."""
        return len(self._cells)

    @property
    def rows(self) -> int | None:
        """Rows of all leaves as the source counts them; None where it does not know."""
        return self._known_rows

    @property
    def passes(self) -> int:
        """Totals taken."""
        return self._counter.passes

    @property
    def decodes(self) -> int:
        """Times every leaf was decoded, rounded up."""
        return self._counter.decodes

    def observe(self, on_leaf: Callable[[int, int], None] | None) -> None:
        """Call on_leaf(rows, leaves) after each leaf of any later total."""
        self._counter.on_leaf = on_leaf

    def enter(self, phase: str) -> None:
        """What follows has a name; here nobody is told."""

    def expect(self, record: int) -> None:
        """Later totals have records of about so many bytes: DesignError where they cannot fit."""
        needed, limit = record * HELD_RECORDS * self.threads, self.memory_limit or machine.memory_limit()
        if needed > limit:
            raise DesignError(
                f"one Gram takes {record / 1e9:.2g} GB, and {self.threads} thread(s) hold {HELD_RECORDS} each: "
                f"{needed / 1e9:.2g} GB, more than the {limit / 1e9:.2g} GB there are. Use fewer threads, or fewer columns"
            )

    def total(self, function: Callable[..., Any], *args: Any) -> Any:
        """The tree sum over leaves of function(item, *args)."""

        size = self.leaves_per_task or _task_leaves(len(self._cells), self.threads)

        def subtree(start: int) -> Any:
            tree: TreeSum[Any] = TreeSum()
            # while a leaf is worked on, the store fetches those that this thread takes next
            later = start + size * self.threads
            way = self._cells[start : start + size] + self._cells[later : later + size]
            for at, cell in enumerate(way[:size]):
                announce_after(way, at, self.threads)
                tree.push(function(cell.get(self._counter), *args))
                self._seen(cell.rows)
            return tree.result()

        height = size.bit_length() - 1
        self._count_pass()
        result: TreeSum[Any] = TreeSum()
        for record in self._each(subtree, range(0, len(self._cells), size)):
            result.push(record, height)
        return result.result()

    def grouped(self, scatter: Callable[[Any], Any], buckets: int, fold: Callable[[Any], Any]) -> Any:
        """The tree sum over buckets of fold(packets), the packets of a bucket in the order of the leaves."""

        def visit(index: int) -> Any:
            cell = self._cells[index]
            packets = scatter(cell.get(self._counter))
            self._seen(cell.rows)
            return packets

        self._count_pass()
        limit = self.memory_limit or machine.memory_limit()
        held = Packets(buckets, limit // PACKETS_PART)
        try:
            for packets in self._each(visit, self._announced()):
                held.put(packets)
            tree: TreeSum[Any] = TreeSum()
            for record in self._each(lambda number: fold(held.take(number)), range(buckets)):
                tree.push(record)
            return tree.result()
        finally:
            held.close()

    def kept_with_total(
        self,
        function: Callable[[Any], Any],
        record: Callable[[Any], Record],
        aside: Callable[[Any], Any] | None = None,
        again: Callable[[Any], Any] | None = None,
    ) -> tuple[LocalPartitions, Any, LocalPartitions | None]:
        """Keep function(item) as this engine keeps, sum its record, and hold aside(function(item)) in memory; where
        nothing is kept, later reads call `again` instead of `function`.
        """

        def visit(index: int) -> tuple[Any, Any, Any]:
            cell = self._cells[index]
            item = function(cell.get(self._counter))
            summary = record(item)
            extra = None if aside is None else Kept(aside(item), cell.rows)
            self._seen(cell.rows)
            if self.keep == "memory":
                return Kept(item, cell.rows), summary, extra
            if self.keep == "disk":
                assert self._spill is not None
                return self._spill.store(item, index, cell.rows), summary, extra
            return Applied(cell, again or function, cell.rows), summary, extra

        cells, extras = [], []
        tree: TreeSum[Any] = TreeSum()
        for cell, summary, extra in self._each(visit, self._announced()):
            cells.append(cell)
            extras.append(extra)
            tree.push(summary)
        kept = self._with(cells)
        beside = None if aside is None else self._with(extras, sample=True)
        return kept, tree.result(), beside

    def consumed(self, function: Callable[[Any], Any]) -> LocalPartitions:
        """Partitions of function(item); what was in memory is given up leaf by leaf."""
        if self.keep != "memory":
            return self._with([Applied(cell, function, cell.rows) for cell in self._cells])

        def visit(index: int) -> Any:
            cell = self._cells[index]
            self._cells[index] = None  # the last reference to the old item
            return Kept(function(cell.get(self._counter)), cell.rows)

        return self._with(list(self._each(visit, range(len(self._cells)))))

    def map(self, function: Callable[..., Any], *args: Any) -> Iterator[Any]:
        """function(item, *args) of every leaf, in order; only a few results are held at a time."""

        def visit(index: int) -> Any:
            return function(self._cells[index].get(self._counter), *args)

        yield from self._each(visit, self._announced())

    def release(self) -> None:
        """Give up what is kept."""
        self._cells = []
        if self._spill is not None:
            self._spill.close()

    def _count_pass(self) -> None:
        # a total over a sample is no pass over the rows
        self._counter.passes += not self._sample

    def _with(self, cells: Sequence[Any], sample: bool = False) -> LocalPartitions:
        # what is held in memory beside the rest has no part in its folder, and does not take it away with itself
        spill = None if sample else self._spill
        return LocalPartitions(
            cells,
            self._counter,
            self.threads,
            "memory" if sample else self.keep,
            spill,
            self.leaves_per_task,
            self.memory_limit,
            self._known_rows,
            sample or self._sample,
        )

    def _seen(self, rows: int) -> None:
        if self._counter.on_leaf is not None:
            self._counter.on_leaf(rows, 1)

    def _announced(self) -> Iterator[int]:
        """Every leaf's number, once those that follow it are on their way, where their store is far."""
        depth = self._cells[0].ahead if self._cells else 0
        for number in range(len(self._cells)):
            if depth > 1:
                for following in range(number and number + depth, min(number + depth + 1, len(self._cells))):
                    self._cells[following].announce()
            yield number

    def _each(self, function: Callable[[int], Any], items: Iterable[int]) -> Iterator[Any]:
        """function of each item, in order, by this engine's threads; a window keeps results from piling up."""
        if self.threads == 1 or len(self._cells) == 1:
            yield from map(function, items)
            return
        pending: list[Any] = []
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="daskglm")
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * self.threads:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
            pool.shutdown(wait=True, cancel_futures=True)


def _task_leaves(leaves: int, threads: int) -> int:
    """Leaves per task, a power of two: eight tasks per thread even out the work, more only hand it back and forth."""
    each = max(1, leaves // (8 * threads))
    return 1 << (each.bit_length() - 1)


def choose_keep(source: Source, columns: Sequence[str], limit: int) -> Keep:
    """Memory while half of it holds every row; then local files are read again and remote ones kept on disk.

    Decoding a local file costs about as much as reading it back from a file of our own, which would have to be written.
    """
    needed = (source.n_rows or 0) * source.row_bytes(columns)
    if source.in_memory or needed <= limit // 2:
        return "memory"
    return "reread" if source.local else "disk"


def open_partitions(
    source: Source,
    columns: Sequence[str],
    keep: str = "auto",
    threads: int | None = None,
    memory: int | None = None,
    leaves_per_task: int | None = None,
) -> LocalPartitions:
    """Partitions of LeafTable over a source whose selection is settled. leaves_per_task must be a power of two; None:
    about eight tasks per thread.
    """
    if leaves_per_task is not None and (leaves_per_task < 1 or leaves_per_task & (leaves_per_task - 1)):
        raise DesignError(f"leaves_per_task must be a power of two, not {leaves_per_task}")
    limit = memory or machine.memory_limit()
    partition, place = largest(source, columns)
    if partition > LEAF_BYTES and 2 * partition > limit:
        raise DesignError(
            f"{place} takes about {partition / 1e9:.2g} GB once decoded, and as much again encoded, of {limit / 1e9:.2g} GB of "
            "memory: allow more memory, or write the file in smaller row groups"
        )
    mode: Any = choose_keep(source, columns, limit) if keep == "auto" else keep
    if mode not in ("memory", "disk", "reread"):
        raise DesignError(f'keep must be "auto", "memory", "disk" or "reread", not {keep!r}')
    spill = Spill((source.n_rows or 0) * source.row_bytes(columns)) if mode == "disk" else None
    counter = Counter(len(source.leaves))
    return LocalPartitions(
        cells_of(source.reader, source.leaves), counter, threads or machine.processors(), mode, spill, leaves_per_task,
        memory, source.n_rows,
    )  # fmt: skip
