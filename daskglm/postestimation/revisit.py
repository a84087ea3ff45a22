"""The rows a model was fitted to, or others like them, read once more: blocks of its frozen design, and columns beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from daskglm.cluster import collections, schemas, sources
from daskglm.cluster.engine import Engine, open_rows, settle
from daskglm.cluster.machine import one_blas_thread
from daskglm.cluster.sources import Source, open_source
from daskglm.cluster.tables import from_arrays, in_order, paired, plain_array
from daskglm.design import expressions, formula
from daskglm.design.columns import Coded, Columns, Ledger
from daskglm.design.design import Design
from daskglm.design.reading import Reading, beside_of
from daskglm.errors import DataError, DesignError
from daskglm.estimation import model_of
from daskglm.fit import reading_of
from daskglm.kernels.blocks import Block, Column
from daskglm.model.weights import WEIGHTS
from daskglm.partitions import Partitions
from daskglm.plan import Plan, make_plan
from daskglm.record import FitRecord, Specification
from daskglm.totals.moments import AnyModel, Model
from daskglm.totals.separation import movement
from daskglm.totals.vector import Limit

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# What arrays are called that a model was fitted to without a table.
ARRAYS = ("X", "y", "weights", "offset", "exposure", "trials")
# What the number of a row is called in a table: a name that no column has.
PLACE = "\0place"


@final
@dataclass(frozen=True)
class Rows:
    """The rows of one leaf that the model uses.

    block: n rows; beside: columns by name, each a `Column` (n,), NaN where missing, or `Coded`, with the level None there;
    label: of the leaf, for messages; place (n,): which rows of the leaf's `total` rows these are; origin: their file by its
    place in the lake, and numbers (n,): those of the rows in it, the same wherever the lake is and whatever is read; at_limit
    (n,): rows whose linear predictor is infinite, None where there are none. All but predictions and residuals are of the
    other rows: `inside`.
    """

    block: Block
    beside: Mapping[str, Column | Coded]
    label: str
    place: npt.NDArray[np.intp]
    total: int
    origin: str
    numbers: npt.NDArray[np.intp]
    at_limit: Mask | None = None

    @property
    def n(self) -> int:
        """How many."""
        return self.block.n

    @property
    def inside(self) -> Rows:
        """Those with a finite linear predictor."""
        return self if self.at_limit is None else replace(self.take(np.flatnonzero(~self.at_limit)), at_limit=None)

    def take(self, index: npt.NDArray[np.intp]) -> Rows:
        """The rows of an index."""

        def pick(column: Column | Coded) -> Column | Coded:
            return Coded(column.codes[index], column.levels) if isinstance(column, Coded) else column[index]

        return Rows(
            self.block.take(index),
            {name: pick(column) for name, column in self.beside.items()},
            self.label,
            self.place[index],
            self.total,
            self.origin,
            self.numbers[index],
            None if self.at_limit is None else self.at_limit[index],
        )


@final
@dataclass(frozen=True)
class RowsOf:
    """A leaf to its Rows: the whole way, as it can be sent to another process.

    directions: of an infinite optimum, of the raw columns. where: an Arrow expression that rows must pass, of a leaf that was
    read whole, so that places are those of all its rows; unseen: what is done about levels that were not learnt.
    """

    reading: Reading
    design: Design
    beside: tuple[expressions.Expression, ...]
    directions: tuple[Vector, ...]
    where: Any = None
    unseen: str = "raise"

    def __call__(self, leaf: Any) -> Rows:
        total, passed = leaf.table.num_rows, None
        if self.where is not None:
            leaf, passed = _passing(leaf, self.where)
        columns: Columns = self.reading.read(leaf)
        try:
            block = self.design.encode(columns, "baseline" if self.unseen == "missing" else self.unseen)
        except DataError as error:
            raise DataError(f"{leaf.label}: {error}") from None
        if isinstance(columns.y, Coded) and (block.y < 0).any():
            raise DataError(f"{leaf.label}: the response has levels that the model has not seen")
        place = np.arange(leaf.table.num_rows) if columns.kept is None else np.asarray(columns.kept, np.intp)
        beside = {e.text: beside_of(leaf.table, e, columns.kept) for e in self.beside}
        at_limit: Mask | None = None
        for direction in self.directions:
            moved = movement(block, self.design.scaling, direction) != 0.0
            at_limit = moved if at_limit is None else at_limit | moved
        numbers = leaf.numbers_of(place if passed is None else passed[place])
        place = place if passed is None else passed[place]
        found = Rows(block, beside, leaf.label, place, total, leaf.origin, numbers, at_limit)
        strange = self.design.unseen_rows(columns) if self.unseen == "missing" else np.zeros(0, bool)
        return found.take(np.flatnonzero(~strange)) if strange.any() else found


def _passing(leaf: Any, where: Any) -> tuple[Any, npt.NDArray[np.intp]]:
    """A leaf of the rows that pass a filter, and their places."""
    numbered = leaf.table.append_column(PLACE, pa.array(np.arange(leaf.table.num_rows)))
    passed = schemas.filtered(numbered, where, leaf.label)
    place = np.asarray(passed.column(PLACE).to_numpy(), np.intp)
    return replace(leaf, table=passed.drop_columns([PLACE])), place


def recipe(
    record: FitRecord,
    plan: Plan,
    model: AnyModel,
    source: Source,
    beside: Sequence[str] = (),
    every: bool = False,
    clusters: tuple[str, ...] = (),
) -> tuple[tuple[str, ...], RowsOf]:
    """Names of the columns that a model and a request need, and how a leaf becomes Rows; settles what the source reads.

    every: leaves are read whole, so that places are those of all rows, and rows that a filter leaves out are left out later;
    levels that were not learnt are treated as they are in predictions.
    """
    sources.match_folders(source, record.specification.kinds)
    kinds = sources.kinds(source)
    terms = formula.parse(str(plan.formula), kinds)
    reading = replace(reading_of(plan, terms, kinds, source.matrix_names), clusters=clusters)
    formula.require_columns(reading.of_model, kinds, "the model")
    formula.require_columns(reading.clusters, source.types, "Cluster")
    extra = tuple(_expression(text, kinds) for text in beside)
    formula.require_columns(tuple(c for e in extra for c in e.columns), kinds, "the request")
    fitted = record.specification.kinds
    sources.refuse_other_kinds(source, fitted, fitted)
    directions: tuple[Vector, ...] = ()
    if record.separation is not None and isinstance(model, Model):
        found = [record.parameters.own(direction) for direction in record.separation.directions]
        directions = tuple(model.raw(direction) for direction in found)
    columns = tuple(dict.fromkeys((*reading.columns, *(c for e in extra for c in e.columns))))
    condition: Any = None
    used: tuple[str, ...] = ()
    if plan.where:
        where = expressions.parse_filter(plan.where)
        condition, used = expressions.to_arrow(where, source.types), where.columns
    if every:
        columns = tuple(dict.fromkeys((*columns, *used)))
        source.select(columns or list(source.types)[:1])
    else:
        source.select(columns or list(source.types)[:1], condition, used)
    rows_of = RowsOf(replace(reading, passing=True), record.design, extra, directions)
    if every:
        rows_of = replace(rows_of, where=condition, unseen=record.specification.unseen)
    return columns, rows_of


@final
@dataclass(frozen=True)
class Both:
    """The rows of a leaf that each of two models uses, in the same order."""

    one: Rows
    two: Rows


@final
@dataclass(frozen=True)
class BothOf:
    """A leaf to the rows that both models use."""

    one: RowsOf
    two: RowsOf

    def __call__(self, leaf: Any) -> Both:
        one, two = self.one(leaf), self.two(leaf)
        if np.array_equal(one.place, two.place):
            return Both(one, two)
        _, first, second = np.intersect1d(one.place, two.place, assume_unique=True, return_indices=True)
        return Both(one.take(first), two.take(second))


@final
@dataclass(frozen=True)
class Passing:
    """function(block or rows of the finite linear predictors, *args)."""

    function: Any
    whole: bool

    def __call__(self, rows: Rows, *args: Any) -> Any:
        inside = rows.inside
        return self.function(inside if self.whole else inside.block, *args)


@final
class Visit:
    """A model and its rows. Use it as a context: what is kept of the rows is given up at its end.

    model, coef (r,): the model as totals know it, and the reported coefficients on its own scale, 0 where there is no
    estimate; plan: the request, with the family as it was estimated; types: Arrow types of the data's columns; passes: totals
    taken.
    """

    def __init__(
        self,
        record: FitRecord,
        data: Any,
        beside: Sequence[str] = (),
        *,
        passes: int = 1,
        client: Any = None,
        clusters: Sequence[str] = (),
        every: bool = False,
        other: FitRecord | None = None,
        reader: Any = None,
    ) -> None:
        """data: whatever `glm` reads, or of a model that was fitted to arrays a dict of X, y and the others by those names;
        beside: further columns; passes: how many will be taken, about: rows are kept for several; clusters: columns whose keys
        the blocks carry; every: as in `recipe`; other: a second model, so that `rows` are `Both`, for one pass; reader: for one
        pass, reader(rows_of, source) makes what turns a leaf into something else than Rows, of which `rows` then are.
        """
        self.record = record
        self.plan = plan_of(record.specification, record)
        source = source_of(record, data, tuple(clusters))
        more_text = () if other is None else (other.specification.formula,)
        settle(source, (*beside, *clusters, self.plan.where, *more_text), Engine(client=client))
        self.parameters = record.parameters
        self.coef = record.scaled
        self.model = model_at(record, self.plan)
        whole: Any
        columns, rows_of = recipe(record, self.plan, self.model, source, beside, every, tuple(clusters))
        self.types, whole = dict(source.types), rows_of
        if other is not None:
            plan = plan_of(other.specification, other)
            more, second = recipe(other, plan, model_at(other, plan), source)
            columns = tuple(dict.fromkeys((*columns, *more)))
            recipe(record, self.plan, self.model, source, (*beside, *more), every)
            whole = BothOf(rows_of, second)
        if not source.leaves:
            raise DataError("the data have no rows" + (f" where {self.plan.where}" if self.plan.where else ""))
        self._blas = one_blas_thread()
        self._opened: list[Partitions[Any]] = []
        # what a Dask collection holds is on the workers anyway
        keep = "reread" if passes == 1 and not hasattr(source, "chunks") else "auto"
        opened = open_rows(source, columns, keep, Engine(client=client))
        self._opened.append(opened)
        self.ledger: Ledger | None = None
        if passes == 1:
            self.rows: Partitions[Any] = opened.consumed(whole if reader is None else reader(rows_of, source))
        else:
            self.rows, counted, _ = opened.kept_with_total(rows_of, counted_rows)
            self.ledger = Ledger(used=counted.n)
        self._opened.append(self.rows)

    @property
    def passes(self) -> int:
        """Totals taken, as the engine counts them."""
        return self.rows.passes

    def total(self, function: Any, *args: Any) -> Any:
        """The sum over leaves of function(block, *args), blocks without rows at their limit. One pass."""
        return self.rows.total(Passing(function, False), *args)

    def total_of_rows(self, function: Any, *args: Any) -> Any:
        """The sum over leaves of function(rows, *args), of `Rows` without those at their limit. One pass."""
        return self.rows.total(Passing(function, True), *args)

    def __enter__(self) -> Self:
        self._blas.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for partitions in self._opened[::-1]:
            partitions.release()
        self._blas.__exit__(kind, value, trace)


def source_of(record: FitRecord, data: Any, others: tuple[str, ...] = ()) -> Source:
    """The source of data as `Visit` takes them."""
    if not (isinstance(data, dict) and "X" in data and "y" in data and np.ndim(data["X"]) != 1):
        return sources.as_fitted(open_source(data), record.specification.kinds)
    unknown = set(data) - {*ARRAYS, *others}
    if unknown:
        raise DesignError(f"there is no array {sorted(unknown)[0]!r} beside X: {', '.join(ARRAYS)}")
    if any(collections.is_collection(value) for value in data.values()):
        return collections.open_chunks(data["X"], {name: value for name, value in data.items() if name != "X"})[0]
    data = paired(data)
    extra = {name: plain_array(value) for name, value in data.items() if name != "X"}
    matrix = record.design.matrix
    names = list(matrix.columns) if matrix is not None else list(record.specification.predictors)
    x = in_order(data["X"], names)
    return from_arrays(plain_array(x), extra, names)[0]


def model_at(record: FitRecord, plan: Plan) -> AnyModel:
    """The model of a record as totals know it, with the directions of its infinite optimum where there are classes."""
    model = model_of(plan, record.design)
    if record.separation is None or isinstance(model, Model):
        return model
    limits = tuple(Limit(record.parameters.own(direction)) for direction in record.separation.directions)
    found: AnyModel = replace(model, limits=limits)  # type: ignore[type-var]
    return found


@final
@dataclass(frozen=True)
class Counted:
    """Rows that were read."""

    n: int

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.n + other.n)


def counted_rows(rows: Rows) -> Counted:
    """How many rows a leaf has."""
    return Counted(rows.n)


def _expression(text: str, kinds: Mapping[str, Any]) -> expressions.Expression:
    """A column by its name, whatever that is, or an expression."""
    found = expressions.parse(f"`{text}`" if text in kinds else text)
    return replace(found, text=text)


def plan_of(specification: Specification, record: FitRecord, **changed: Any) -> Plan:
    """The request that a record answers, with the family as it was estimated; changed: options that are to be others."""
    s = specification
    text = s.formula
    if text.lstrip().startswith("responses("):
        text = f"{s.response} ~ {formula.right_side(text)}"
    weights = None if s.weights is None else WEIGHTS[s.weights[0]](s.weights[1])
    options: dict[str, Any] = {
        "family": record.family, "link": record.link, "weights": weights, "offset": s.offset, "exposure": s.exposure,
        "trials": s.trials, "dispersion": s.dispersion, "missing": s.missing, "where": s.where, "unseen": s.unseen,
    }  # fmt: skip
    return make_plan(text, options | changed)
