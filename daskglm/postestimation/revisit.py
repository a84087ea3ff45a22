"""The rows a model was fitted to, or others like them, read once more: blocks of its frozen design, and columns beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from daskglm.cluster import collections, sources
from daskglm.cluster.engine import Engine, open_rows, settle
from daskglm.cluster.machine import one_blas_thread
from daskglm.cluster.sources import Source, open_source
from daskglm.cluster.tables import filtered_leaf, from_arrays, in_order, paired, plain_array
from daskglm.design import expressions, formula
from daskglm.design.columns import Coded, Columns, Ledger
from daskglm.design.design import Design
from daskglm.design.reading import Reading, beside_of
from daskglm.errors import DataError, DesignError
from daskglm.estimation import model_of
from daskglm.fit import nothing_left, reading_of
from daskglm.kernels.blocks import Block, Column
from daskglm.model.weights import WEIGHTS, cluster_of
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
# The filter that the model was fitted with, where a method repeats the fit; methods that evaluate have their own.
FITTED = "\0fitted"


@final
@dataclass(frozen=True)
class Rows:
    """The rows of one leaf that the model uses.

    block: n rows; beside: columns by name, each a `Column` (n,), NaN where missing, or `Coded`, with the level None there;
    label: of the leaf, for messages; place (n,): which rows of the leaf's `total` rows these are; origin: their file by its
    place in the lake, and numbers (n,): those of the rows in it, the same wherever the lake is and whatever is read;
    ledger: what became of all rows of the leaf; at_limit
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
    ledger: Ledger = field(default_factory=Ledger)
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
            self.ledger,
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
            first = leaf.first
            leaf = filtered_leaf(leaf, self.where)
            passed = leaf.numbers - first
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
        numbers = leaf.numbers_of(place)
        place = place if passed is None else passed[place]
        strange = self.design.unseen_rows(columns) if self.unseen == "missing" else np.zeros(0, bool)
        ledger, unknown = columns.ledger, int(strange.sum())
        ledger = replace(ledger, used=ledger.used - unknown, missing_rows=ledger.missing_rows + unknown)
        found = Rows(block, beside, leaf.label, place, total, leaf.origin, numbers, ledger, at_limit)
        return found.take(np.flatnonzero(~strange)) if unknown else found


def require_beside(plan: Plan, kinds: Mapping[str, Any]) -> None:
    """A DesignError where data lack a column that an array of the fit became."""
    weights = None if plan.weights is None else plan.weights.column
    given = {"weights": weights, "offset": plan.offset, "exposure": plan.exposure, "trials": plan.trials}
    formula.require_arrays(given, kinds)


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
    require_beside(plan, kinds)
    reading = replace(reading_of(plan, terms, kinds, source.matrix_names), clusters=clusters)
    formula.require_columns(reading.of_model, kinds, "the model")
    fitted = record.specification.covariance
    own = cluster_of(fitted).columns if fitted.startswith("cluster(") else ()
    for column in [name for name in reading.clusters if name in own]:
        formula.require_arrays({"clusters": column}, source.types)
    formula.require_columns(reading.clusters, source.types, "Cluster")
    extra = tuple(_expression(text, kinds) for text in beside)
    formula.require_columns(tuple(c for e in extra for c in e.columns), kinds, "the request")
    known = record.specification.kinds
    sources.refuse_other_kinds(source, known, known)
    directions: tuple[Vector, ...] = ()
    if record.separation is not None and isinstance(model, Model):
        found = [record.parameters.own(direction) for direction in record.separation.directions]
        directions = tuple(model.raw(direction) for direction in found)
    columns = tuple(dict.fromkeys((*reading.columns, *(c for e in extra for c in e.columns))))
    condition: Any = None
    used: tuple[str, ...] = ()
    if plan.where:
        where = expressions.parse_filter(plan.where)
        formula.require_columns(where.columns, source.types, f"where={plan.where!r}")
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

    @property
    def ledger(self) -> Ledger:
        """What became of the rows of the first model."""
        return self.one.ledger


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
@dataclass(frozen=True)
class Accounted:
    """A record, and what became of the rows that it was made of."""

    record: Any
    ledger: Ledger

    def __add__(self, other: Accounted) -> Accounted:
        return Accounted(self.record + other.record, self.ledger + other.ledger)


@final
@dataclass(frozen=True)
class Accounting:
    """function(item, *args) with the ledger of the item."""

    function: Any

    def __call__(self, item: Any, *args: Any) -> Accounted:
        return Accounted(self.function(item, *args), item.ledger)


@final
class Visit:
    """A model and its rows. Use it as a context: what is kept of the rows is given up at its end.

    model, coef (r,): the model as totals know it, and the reported coefficients on its own scale, 0 where there is no
    estimate; plan: the request, with the family as it was estimated and the filter that is applied; types: Arrow types of the
    data's columns; passes: totals taken; ledger: what became of the rows, after a total.
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
        where: str | None = FITTED,
    ) -> None:
        """data: whatever `glm` reads, or of a model that was fitted to arrays a dict of X, y and the others by those names;
        beside: further columns; passes: how many will be taken, about: rows are kept for several; clusters: columns whose keys
        the blocks carry; every: as in `recipe`; other: a second model, so that `rows` are `Both`, for one pass; reader: for one
        pass, reader(rows_of, source) makes what turns a leaf into something else than Rows, of which `rows` then are; where: the
        filter of the rows, that of the fit unless another one, or None, is given.
        """
        self.record = record
        self.plan = plan_where(record, where)
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
            plan = plan_where(other, where)
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
        self._pruned = source.pruned_rows
        self.ledger = Ledger()
        if passes == 1:
            self.rows: Partitions[Any] = opened.consumed(whole if reader is None else reader(rows_of, source))
        else:
            self.rows, counted, _ = opened.kept_with_total(rows_of, ledger_of)
            self._account(counted)
        self._opened.append(self.rows)

    @property
    def passes(self) -> int:
        """Totals taken, as the engine counts them."""
        return self.rows.passes

    def total(self, function: Any, *args: Any) -> Any:
        """The sum over leaves of function(block, *args), blocks without rows at their limit. One pass."""
        return self.total_of_items(Passing(function, False), *args)

    def total_of_rows(self, function: Any, *args: Any) -> Any:
        """The sum over leaves of function(rows, *args), of `Rows` without those at their limit. One pass."""
        return self.total_of_items(Passing(function, True), *args)

    def total_of_items(self, function: Any, *args: Any) -> Any:
        """The sum over leaves of function(item, *args), whatever the items are. One pass."""
        found: Accounted = self.rows.total(Accounting(function), *args)
        self._account(found.ledger)
        return found.record

    def map_items(self, function: Any) -> Iterator[Any]:
        """function(item) of every leaf, in order."""
        for found in self.rows.map(Accounting(function)):
            self.ledger += found.ledger
            yield found.record

    def _account(self, ledger: Ledger) -> None:
        """Take what became of the rows; DataError where a filter leaves none."""
        read, filtered = ledger.read + self._pruned, ledger.filtered + self._pruned
        self.ledger = replace(ledger, read=read, filtered=filtered)
        if not self.ledger.used and filtered:
            raise DataError(nothing_left(self.ledger, self.plan))

    @property
    def notes(self) -> tuple[str, ...]:
        """How many rows the filter has left out, where it has."""
        return left_out_note(self.ledger, self.plan.where, self.plan.where == self.record.specification.where)

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


def ledger_of(rows: Rows) -> Ledger:
    """What became of the rows of a leaf."""
    return rows.ledger


def left_out_note(ledger: Ledger, where: str | None, of_fit: bool) -> tuple[str, ...]:
    """How many rows a filter has left out, in a sentence; nothing where it has left out none."""
    if where is None or not ledger.filtered:
        return ()
    what = "the fit's " if of_fit else ""
    return (f"{what}where={where!r} left out {ledger.filtered:,} of {ledger.read:,} rows",)


def plan_where(record: FitRecord, where: str | None) -> Plan:
    """The request that a record answers, of the rows that pass a filter: the fit's own, another one, or None for all."""
    if where is not None and not isinstance(where, str):
        raise DesignError(f"where= is a filter written as text, such as 'x > 0', not {type(where).__name__}")
    return plan_of(record.specification, record, **({} if where == FITTED else {"where": where}))


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
