"""The rows a model was fitted to, or others like them, read once more: blocks of its frozen design, and columns beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from daskglm.cluster import sources
from daskglm.cluster.engine import Engine, open_rows
from daskglm.cluster.machine import one_blas_thread
from daskglm.cluster.sources import Source, open_source
from daskglm.cluster.tables import from_arrays, is_sparse
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


@final
@dataclass(frozen=True)
class Rows:
    """The rows of one leaf that the model uses.

    block: n rows; beside: columns by name, each a `Column` (n,), NaN where missing, or `Coded`, with the level None there;
    label: of the leaf, the same for the same data; place (n,): which rows of the leaf's `total` rows these are; at_limit
    (n,): rows whose linear predictor is infinite, None where there are none. All but predictions and residuals are of the
    other rows: `inside`.
    """

    block: Block
    beside: Mapping[str, Column | Coded]
    label: str
    place: npt.NDArray[np.intp]
    total: int
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
            None if self.at_limit is None else self.at_limit[index],
        )


@final
@dataclass(frozen=True)
class RowsOf:
    """A leaf to its Rows: the whole way, as it can be sent to another process."""

    reading: Reading
    design: Design
    beside: tuple[expressions.Expression, ...]
    directions: tuple[Vector, ...]

    def __call__(self, leaf: Any) -> Rows:
        columns: Columns = self.reading.read(leaf)
        try:
            block = self.design.encode(columns)
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
        return Rows(block, beside, leaf.label, place, leaf.table.num_rows, at_limit)


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
    estimate; plan: the request, with the family as it was estimated; passes: totals taken.
    """

    def __init__(
        self,
        record: FitRecord,
        data: Any,
        beside: Sequence[str] = (),
        *,
        passes: int = 1,
        client: Any = None,
        reader: Any = None,
    ) -> None:
        """data: whatever `glm` reads, or of a model that was fitted to arrays a dict of X, y and the others by those names;
        beside: further columns; passes: how many will be taken, about: rows are kept for several; reader: for one pass,
        reader(rows_of, source) makes what turns a leaf into something else than Rows, of which `rows` then are.
        """
        self.record, self.passes = record, 0
        self.plan = plan_of(record.specification, record)
        source = self._source(data)
        kinds = sources.kinds(source)
        terms = formula.parse(str(self.plan.formula), kinds)
        reading = reading_of(self.plan, terms, kinds, source.matrix_names)
        formula.require_columns(reading.columns, kinds, "the model")
        extra = tuple(_expression(text, kinds) for text in beside)
        formula.require_columns(tuple(c for e in extra for c in e.columns), kinds, "the request")
        changed = [n for n, kind in record.specification.kinds.items() if n in kinds and kinds[n] != kind]
        if changed:
            name = changed[0]
            was = record.specification.kinds[name]
            raise DesignError(f'the column "{name}" was {was} when the model was fitted and is {kinds[name]} now')
        self.parameters = record.parameters
        self.coef = self.parameters.own(record.finite[0])
        self.model = self._model()
        directions: tuple[Vector, ...] = ()
        if record.separation is not None and isinstance(self.model, Model):
            found = [self.parameters.own(direction) for direction in record.separation.directions]
            directions = tuple(self.model.raw(direction) for direction in found)
        columns = tuple(dict.fromkeys((*reading.columns, *(c for e in extra for c in e.columns))))
        condition: Any = None
        used: tuple[str, ...] = ()
        if self.plan.where:
            where = expressions.parse_filter(self.plan.where)
            condition, used = expressions.to_arrow(where, source.types), where.columns
        source.select(columns or list(source.types)[:1], condition, used)
        if not source.leaves:
            raise DataError("the data have no rows" + (f" where {self.plan.where}" if self.plan.where else ""))
        self._blas = one_blas_thread()
        self._opened: list[Partitions[Any]] = []
        opened = open_rows(source, columns, "reread" if passes == 1 else "auto", Engine(client=client))
        self._opened.append(opened)
        rows_of = RowsOf(replace(reading, passing=True), record.design, extra, directions)
        self.ledger: Ledger | None = None
        if passes == 1:
            self.rows: Partitions[Any] = opened.consumed(rows_of if reader is None else reader(rows_of, source))
        else:
            self.rows, counted, _ = opened.kept_with_total(rows_of, counted_rows)
            self.ledger = Ledger(used=counted.n)
        self._opened.append(self.rows)

    def total(self, function: Any, *args: Any) -> Any:
        """The sum over leaves of function(block, *args), blocks without rows at their limit. One pass."""
        self.passes += 1
        return self.rows.total(Passing(function, False), *args)

    def total_of_rows(self, function: Any, *args: Any) -> Any:
        """The sum over leaves of function(rows, *args), of `Rows` without those at their limit. One pass."""
        self.passes += 1
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

    def _model(self) -> AnyModel:
        model = model_of(self.plan, self.record.design)
        separation = self.record.separation
        if separation is None or isinstance(model, Model):
            return model
        limits = tuple(Limit(self.parameters.own(direction)) for direction in separation.directions)
        found: AnyModel = replace(model, limits=limits)  # type: ignore[type-var]
        return found

    def _source(self, data: Any) -> Source:
        if not (isinstance(data, dict) and "X" in data and "y" in data and np.ndim(data["X"]) != 1):
            return open_source(data)
        unknown = set(data) - set(ARRAYS)
        if unknown:
            raise DesignError(f"there is no array {sorted(unknown)[0]!r} beside X: {', '.join(ARRAYS)}")
        extra = {name: np.asarray(value) for name, value in data.items() if name != "X"}
        matrix = self.record.design.matrix
        x = data["X"] if is_sparse(data["X"]) else np.asarray(data["X"])
        names = list(matrix.columns) if matrix is not None else list(self.record.specification.predictors)
        return from_arrays(x, extra, names)[0]


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
