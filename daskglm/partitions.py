"""The door to any engine, and the one order in which records are added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, Self, TypeVar

Item = TypeVar("Item", covariant=True)


class Record(Protocol):
    """Something small that a block of rows is summed up in, and that knows how to add."""

    def __add__(self, other: Self) -> Self: ...


R = TypeVar("R", bound=Record)


class TreeSum(Generic[R]):
    """Adds records in a fixed binary tree over their positions 0, 1, 2, ..., whatever computed them.

    Records 2i and 2i + 1 are added, then the pairs' sums in pairs, and so on, as the digits of a binary counter carry;
    what is left is folded from the right. A worker that hands over the sum of 2^k aligned leaves at height k gives the
    same tree, hence the same bits, as one that hands over each leaf; and one more leaf moves no other.
    """

    def __init__(self) -> None:
        self._stack: list[tuple[int, R]] = []

    def push(self, record: R, height: int = 0) -> None:
        """Take the sum of the next 2^height leaves."""
        while self._stack and self._stack[-1][0] == height:
            record = self._stack.pop()[1] + record
            height += 1
        self._stack.append((height, record))

    def result(self) -> R:
        """The sum of everything pushed."""
        if not self._stack:
            raise ValueError("a sum over no leaves")
        record = self._stack[-1][1]
        for _, earlier in reversed(self._stack[:-1]):
            record = earlier + record
        return record


def tree_sum(records: Iterable[R]) -> R:
    """The fixed-order sum of records, one per leaf."""
    tree: TreeSum[R] = TreeSum()
    for record in records:
        tree.push(record)
    return tree.result()


class Partitions(Protocol[Item]):
    """An ordered run of leaves, each of which can be turned into an `Item`, somewhere.

    Every number the driver learns of the data is a `total`: the fixed-order sum over the leaves of a small record.
    passes counts totals over all rows, those over a sample held aside not; decodes counts how often every byte was decoded.
    """

    @property
    def n_leaves(self) -> int:
        """Number of leaves."""

    @property
    def rows(self) -> int | None:
        """Rows of all leaves as the source counts them; None where it cannot."""

    @property
    def keep(self) -> str:
        """Where items live between passes: "memory", "disk" or "reread"."""

    def enter(self, phase: str) -> None:
        """Give what follows a name, for whoever watches the engine."""

    def expect(self, record: int) -> None:
        """Later totals have records of about so many bytes: an error where they cannot fit in memory."""

    def observe(self, on_leaf: Callable[[int, int], None] | None) -> None:
        """Call on_leaf(rows, leaves) as the work of later totals goes on."""

    @property
    def passes(self) -> int:
        """Totals and grouped totals taken over all rows since the partitions were opened, by any partitions made of them."""

    @property
    def decodes(self) -> int:
        """How many times every leaf was read from its source."""

    def total(self, function: Callable[..., Any], *args: Any) -> Any:
        """The tree sum over leaves of function(item, *args)."""

    def grouped(self, scatter: Callable[[Any], Any], buckets: int, fold: Callable[[Any], Any]) -> Any:
        """The tree sum over buckets of fold(packets), a record; the packets of a bucket are those that scatter(item) gives
        for it, a list of one per bucket or None, in the order of the leaves. One pass; its packets are held, or spilled,
        where the engine has room. The number of buckets is a function of the data alone, so that the bits are, too.
        """

    def kept_with_total(
        self,
        function: Callable[[Any], Any],
        record: Callable[[Any], Any],
        aside: Callable[[Any], Any] | None = None,
        again: Callable[[Any], Any] | None = None,
    ) -> tuple[Partitions[Any], Any, Partitions[Any] | None]:
        """Turn every item into function(item), keep those, and sum record(function(item)) in the same visit; hold
        aside(function(item)), something small, in memory. An engine that keeps nothing calls again(item) later."""

    def consumed(self, function: Callable[[Any], Any]) -> Partitions[Any]:
        """Partitions of function(item); the old items are given up as they are used."""

    def map(self, function: Callable[..., Any], *args: Any) -> Iterator[Any]:
        """function(item, *args) of every leaf, in order."""

    def release(self) -> None:
        """Free whatever is kept."""
