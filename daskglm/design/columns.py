"""The variables of one leaf's rows as records: numbers, codes, and what became of the rows that are not among them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Column, Sparse, Vector

# A sample takes runs of neighbouring rows, spread over the leaf: cheap to copy, and blind to no part of a sorted file.
SAMPLE_RUN = 1024
HUGE_PAGE = 2 << 20
ARENA_BYTES = 64 << 20


@final
@dataclass(frozen=True)
class Coded:
    """A factor of one leaf: codes (n,) into its own levels, in the leaf's own order."""

    codes: Column
    levels: tuple[Any, ...]


@final
@dataclass(frozen=True)
class Ledger:
    """What became of the rows: read, filtered out by where, dropped for a missing value or a zero weight, used; separated
    are those that were left out for having no finite estimate.

    missing counts, per column or expression, the rows in which it was missing; a row can miss several.
    """

    read: int = 0
    filtered: int = 0
    missing_rows: int = 0
    zero_weight: int = 0
    used: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    separated: int = 0

    def __add__(self, other: Ledger) -> Ledger:
        missing = dict(self.missing)
        for name, count in other.missing.items():
            missing[name] = missing.get(name, 0) + count
        return Ledger(
            self.read + other.read,
            self.filtered + other.filtered,
            self.missing_rows + other.missing_rows,
            self.zero_weight + other.zero_weight,
            self.used + other.used,
            missing,
            self.separated + other.separated,
        )


class Arena:
    """Room for the numbers of many leaves in few large allocations.

    Touching memory for the first time is a good part of reading it in: the system hands it out and clears it page by page.
    Allocations of this size come in huge pages, of which there are few. What is handed out lives as long as the last
    array in the same allocation.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = np.empty(0, np.uint8)

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """So many bytes, beginning on a cache line."""
        size = -(-size // 64) * 64
        with self._lock:
            if self._free.size < size:
                block = np.empty(max(ARENA_BYTES, size) + HUGE_PAGE, np.uint8)
                self._free = block[-block.ctypes.data % HUGE_PAGE :]
            place, self._free = self._free[:size], self._free[size:]
        return place


@final
@dataclass(frozen=True)
class Columns:
    """The variables of one leaf's rows that will be used, all of length n.

    kept: which rows of the leaf those are (None: all); importance: weight or exposure, by which the largest level is
    found, where one is asked for; sparse: the rows of a sparse matrix, and squares (p_s,) the sum of squares of each of
    its columns; others: further responses; clusters: keys of the rows' clusters, for each way of grouping them.
    learnt: records of the transforms of numeric variables, by name.
    """

    n: int
    numeric: Mapping[str, Column]
    factors: Mapping[str, Coded]
    moments: Mapping[tuple[str, ...], tuple[float, float]]
    y: Column | Coded | None
    weight: Column | None
    trials: Column | None
    offset: Column | None
    ledger: Ledger
    kept: npt.NDArray[np.intp] | None = None
    importance: Column | None = None
    sparse: Sparse | None = None
    squares: Vector | None = None
    others: tuple[Column, ...] = ()
    clusters: tuple[Column, ...] = ()
    learnt: Mapping[str, Any] = field(default_factory=dict)

    def sample(self, fraction: float, arena: Arena | None = None) -> Columns:
        """About that fraction of the rows, in evenly spread runs; copies, so that the rest can be given up."""
        if fraction >= 1.0:
            return self
        run = min(SAMPLE_RUN, max(1, int(self.n * fraction)))
        spacing = max(1, int(run / fraction))
        starts = np.arange(0, self.n, spacing)
        index = (starts[:, None] + np.arange(run)).ravel()
        return copied(replace(self, clusters=()).take(index[index < self.n]), arena or Arena())

    def take(self, index: npt.NDArray[np.intp]) -> Columns:
        """The rows of an index."""

        def pick(column: Any) -> Any:
            if column is None:
                return None
            return Coded(column.codes[index], column.levels) if isinstance(column, Coded) else column[index]

        return replace(
            self,
            n=len(index),
            numeric={name: pick(column) for name, column in self.numeric.items()},
            factors={name: pick(column) for name, column in self.factors.items()},
            y=pick(self.y),
            others=tuple(pick(column) for column in self.others),
            clusters=tuple(pick(column) for column in self.clusters),
            weight=pick(self.weight),
            trials=pick(self.trials),
            offset=pick(self.offset),
            importance=pick(self.importance),
            sparse=None if self.sparse is None else self.sparse.take(index),
            kept=index if self.kept is None else self.kept[index],
        )

    def pack(self) -> tuple[Any, list[Any]]:
        """A plain header and the arrays, from which `unpack` makes the same Columns; what only the profile asks for is
        left out.
        """
        arrays: list[Any] = []

        def put(column: Any) -> Any:
            if column is None:
                return None
            arrays.append(column.codes if isinstance(column, Coded) else column)
            return (len(arrays) - 1, column.levels if isinstance(column, Coded) else None)

        header = {
            "n": self.n,
            "numeric": {name: put(column) for name, column in self.numeric.items()},
            "factors": {name: put(column) for name, column in self.factors.items()},
            "rest": [put(column) for column in (self.y, self.weight, self.trials, self.offset, self.kept)],
            "others": [put(column) for column in self.others],
            "clusters": [put(column) for column in self.clusters],
            "moments": self.moments,
            "ledger": self.ledger,
            "sparse": None if self.sparse is None else self.sparse.n_columns,
        }
        if self.sparse is not None:
            arrays += [self.sparse.indptr, self.sparse.indices, self.sparse.data]
        return header, arrays

    @staticmethod
    def unpack(header: Any, arrays: list[Any]) -> Columns:
        """The Columns of a header and its arrays."""

        def take(place: Any) -> Any:
            if place is None:
                return None
            index, levels = place
            return arrays[index] if levels is None else Coded(arrays[index], levels)

        y, weight, trials, offset, kept = (take(place) for place in header["rest"])
        sparse = None
        if header["sparse"] is not None:
            sparse = Sparse(arrays[-3], arrays[-2], arrays[-1], header["sparse"])
        return Columns(
            header["n"],
            {name: take(place) for name, place in header["numeric"].items()},
            {name: take(place) for name, place in header["factors"].items()},
            header["moments"], y, weight, trials, offset, header["ledger"], kept, sparse=sparse,
            others=tuple(take(place) for place in header["others"]),
            clusters=tuple(take(place) for place in header["clusters"]),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        columns: list[Column | None] = [*self.numeric.values(), *(c.codes for c in self.factors.values())]
        columns += [self.y.codes if isinstance(self.y, Coded) else self.y, self.weight, self.trials, self.offset]
        columns += [self.kept, self.importance, self.squares, *self.others, *self.clusters]
        sparse = 0 if self.sparse is None else self.sparse.nbytes
        return sum(column.nbytes for column in columns if column is not None) + sparse


def copied(found: Columns, arena: Arena) -> Columns:
    """The numbers in an arena: Arrow's many small buffers, of which its allocator keeps about as much again, are free to
    serve the next leaf.
    """
    parts = {("numeric", name): column for name, column in found.numeric.items()}
    for name in ("y", "weight", "trials", "offset"):
        column = getattr(found, name)
        if column is not None and not isinstance(column, Coded):
            parts[("", name)] = column
    parts |= {("others", str(i)): column for i, column in enumerate(found.others)}
    padded = {key: -(-column.nbytes // 64) * 64 for key, column in parts.items()}
    slab, at = arena.take(sum(padded.values())), 0
    placed: dict[tuple[str, str], Column] = {}
    for key, column in parts.items():
        place = slab[at : at + column.nbytes].view(column.dtype)
        place[:] = column
        placed[key] = place
        at += padded[key]
    rest: dict[str, Any] = {name: column for (kind, name), column in placed.items() if not kind}
    others = tuple(placed[("others", str(i))] for i in range(len(found.others)))
    return replace(found, numeric={name: placed[("numeric", name)] for name in found.numeric}, others=others, **rest)


def product(numeric: Mapping[str, Column], names: tuple[str, ...]) -> Column:
    """The product of numeric variables; a single one as it is."""
    column = numeric[names[0]]
    for name in names[1:]:
        column = np.asarray(column, np.float64) * numeric[name]
    return column
