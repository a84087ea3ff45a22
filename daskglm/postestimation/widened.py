"""The rows of a fitted model once more, for models near it: its own columns as they were frozen, and those of further terms,
whose levels and scales are learnt in the same visit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from daskglm.cluster import sources
from daskglm.cluster.engine import Engine, open_rows, settle
from daskglm.cluster.machine import memory_limit, one_blas_thread
from daskglm.cluster.sources import Source, open_source
from daskglm.cluster.tables import from_arrays, in_order, paired, plain_array
from daskglm.design import expressions, formula
from daskglm.design.columns import Columns, Ledger
from daskglm.design.design import Classes, Design
from daskglm.design.formula import Terms
from daskglm.design.parameters import Parameters
from daskglm.design.profile import profile_of
from daskglm.design.reading import Reading
from daskglm.errors import DataError, DesignError
from daskglm.fit import ReadLeaf, reading_of
from daskglm.kernels.blocks import Block
from daskglm.partitions import Partitions
from daskglm.plan import Plan
from daskglm.postestimation.revisit import ARRAYS, left_out_note, plan_of, require_beside
from daskglm.record import FitRecord

Vector = npt.NDArray[np.float64]
# A deviance that is another by this part is one of other rows.
OTHER_ROWS = 1e-7
PART_OF_MEMORY = 0.3


@final
@dataclass(frozen=True)
class Shared:
    """A block that several searches look at."""

    block: Block

    def of_response(self, k: int) -> Block:
        """The block, whoever asks."""
        return self.block


@final
@dataclass(frozen=True)
class Narrow:
    """A block with some of its pieces: places of dense and level ones, and whether the sparse one stays. Nothing is copied."""

    dense: tuple[int, ...]
    levels: tuple[int, ...]
    sparse: bool

    def __call__(self, block: Block) -> Block:
        return replace(
            block,
            dense=tuple(block.dense[i] for i in self.dense),
            levels=tuple(block.levels[i] for i in self.levels),
            sparse=block.sparse if self.sparse else None,
        )


def narrowed(design: Design, terms: Collection[str]) -> tuple[Design, Narrow]:
    """The design of some of the terms, coded as they are, and what makes its blocks of those of the whole."""
    pieces = tuple(piece for piece in design.pieces if piece.term in terms)
    sparse = any(piece.columns for piece in pieces)
    names = tuple(name for name in design.terms if name in terms or name == "Intercept")
    smaller = replace(design, terms=names, pieces=pieces, sizes=design.sizes if sparse else np.zeros(0))
    dense = tuple(i for i, piece in enumerate(design.dense) if piece.term in terms)
    levels = tuple(i for i, piece in enumerate(design.factors) if piece.term in terms)
    return smaller.rebased({}, ()), Narrow(dense, levels, sparse)


@final
@dataclass(frozen=True)
class Encoded:
    """Columns of a leaf to the Shared block of a design."""

    design: Design
    labels: bool

    def __call__(self, columns: Columns) -> Shared:
        block = self.design.encode(columns)
        if self.labels and (block.y < 0).any():
            raise DataError("the response has levels that the model has not seen")
        return Shared(block)


@final
class Widened:
    """A model, its rows, and terms beside its own. Use it as a context: what is kept of the rows is given up at its end.

    design: the pieces of the model's own terms first, with the levels, baselines and scales it was fitted with, then the
    others, each coded by what it adds to the model or, `jointly`, as in one formula; blocks: Partitions of Shared; ledger: what became of the rows; plan: the request, with the family as it was
    estimated. One decode.
    """

    def __init__(
        self,
        record: FitRecord,
        data: Any,
        further: Sequence[formula.Term] = (),
        *,
        jointly: bool = False,
        client: Any = None,
    ) -> None:
        self.record, self.plan, self.jointly = record, plan_of(record.specification, record), jointly
        self.source = source_of(record, data)
        named = [column for term in further for v in term.variables for column in v.expression.columns]
        settle(self.source, (*named, self.plan.where), Engine(client=client))
        self.kinds = sources.kinds(self.source)
        require_beside(self.plan, self.kinds)
        self.base = formula.parse(str(self.plan.formula), self.kinds)
        fitted = record.specification.kinds
        sources.refuse_other_kinds(self.source, fitted, fitted)
        if jointly:
            self.terms = formula.joined(self.base, further)
        else:
            parts = tuple(part for term in further for part in formula.beside(self.base, term))
            names = (*self.base.names, *(term.name for term in further))
            self.terms = replace(self.base, names=names, parts=self.base.parts + parts)
        self.reading = reading_of(self.plan, self.terms, self.kinds, self.source.matrix_names)
        formula.require_columns(self.reading.columns, self.kinds, "the model")
        select(self.source, self.plan, self.reading)
        self._blas = one_blas_thread()
        rows = open_rows(self.source, self.reading.columns, self._keep(), Engine(client=client))
        self._opened: list[Partitions[Any]] = [rows]
        passing = replace(self.reading, passing=True)
        read = ReadLeaf(self.reading if further else passing, rows.keep == "memory")
        try:
            columns, profile, _ = rows.kept_with_total(read, profile_of, None, passing.read)
            self._opened.append(columns)
            self.n = profile.n
            pruned = self.source.pruned_rows
            self.ledger: Ledger = replace(
                profile.ledger, read=profile.ledger.read + pruned, filtered=profile.ledger.filtered + pruned
            )
            self._refuse_other_rows(further)
            self.design = record.design if not further else self._learn(profile)
            self.blocks = columns.consumed(Encoded(self.design, self.reading.response_levels))
            self._opened.append(self.blocks)
        except BaseException:
            self._release()
            raise

    @property
    def passes(self) -> int:
        """Totals taken over all rows."""
        return self.blocks.passes

    @property
    def notes(self) -> tuple[str, ...]:
        """How many rows the fit's filter has left out, where it has."""
        return left_out_note(self.ledger, self.plan.where, True)

    @property
    def offset(self) -> bool:
        """Whether rows have offsets."""
        return bool(self.reading.offsets) or self.reading.exposure is not None

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return self.reading.weight is not None

    def keep(self, partitions: Any) -> None:
        """To be released at the end."""
        self._opened.append(partitions)

    def _keep(self) -> str:
        """Where rows live between passes. An engine goes by the columns it reads, of which terms may make many more: what
        would not fit is read again, which costs a second decode.
        """
        made = len(self.reading.variables) + len(self.reading.products)
        needed = 8 * (self.source.n_rows or 0) * made
        return "reread" if needed > PART_OF_MEMORY * memory_limit() else "auto"

    def _learn(self, profile: Any) -> Design:
        own, family = self.record.design, self.plan.family
        classes = (
            Classes() if family.response == "number" else Classes(None, family.levels, family.response == "ordered")
        )
        found = Design.learn(
            self.terms, profile, self.source.ordered, self.reading.response_name, self.source.matrix_names, classes,
            distinct=self.jointly,
        )  # fmt: skip
        frozen = replace(
            found, levels={**found.levels, **own.levels}, moments={**found.moments, **own.moments},
            states={**found.states, **own.states},
            y_levels=own.y_levels, notes=own.notes, sizes=own.sizes if own.sizes.size else found.sizes,
        )  # fmt: skip
        return frozen.rebased({**found.baselines, **own.baselines}, ())

    def _refuse_other_rows(self, further: Sequence[formula.Term]) -> None:
        """The model's optimum is one of its own rows."""
        used = self.record.ledger.used + self.record.ledger.separated
        if self.ledger.used == used:
            return
        gone = {name: n for name, n in self.ledger.missing.items() if n > self.record.ledger.missing.get(name, 0)}
        if further and self.ledger.used < used and gone:
            name = max(gone, key=lambda each: gone[each])
            raise DataError(
                f'"{name}" is missing in {gone[name]:,} row(s) that the model was fitted to, so that models with and '
                f"without it are not of the same rows: fit again where it is not missing"
            )
        raise DataError(
            f"the model was fitted to {used:,} row(s) and these data give {self.ledger.used:,}: it takes the same rows"
        )

    def _release(self) -> None:
        for partitions in self._opened[::-1]:
            partitions.release()

    def __enter__(self) -> Self:
        self._blas.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        self._blas.__exit__(kind, value, trace)


def refuse_other_deviance(record: FitRecord, deviance: float, decrement: float) -> None:
    """A model's coefficients are the optimum of its own rows, and of no others."""
    size = max(abs(record.statistics.deviance), 1e-12 * abs(record.statistics.null_deviance), 1e-300)
    if not abs(deviance - record.statistics.deviance) <= OTHER_ROWS * size:
        raise DataError(
            f"the model's deviance is {record.statistics.deviance:.10g} and is {deviance:.10g} on these data: it takes the "
            "rows that the model was fitted to"
        )
    if not decrement <= 1e-4:
        raise DesignError(
            "the coefficients are not those of greatest likelihood (squared distance to it in standard errors: "
            f"{decrement:.3g}): such tests need a fit that has converged"
        )


def select(source: Source, plan: Plan, reading: Reading) -> None:
    """Settle which rows and columns are read."""
    condition: Any = None
    used: tuple[str, ...] = ()
    if plan.where:
        where = expressions.parse_filter(plan.where)
        formula.require_columns(where.columns, source.types, f"where={plan.where!r}")
        condition, used = expressions.to_arrow(where, source.types), where.columns
    source.select(reading.columns or list(source.types)[:1], condition, used)
    if not source.leaves:
        raise DataError("the data have no rows" + (f" where {plan.where}" if plan.where else ""))


def source_of(record: FitRecord, data: Any) -> Source:
    """Whatever `glm` reads, or of a model fitted to arrays a dict of X, y and the others by those names."""
    if not (isinstance(data, dict) and "X" in data and "y" in data and np.ndim(data["X"]) != 1):
        return sources.as_fitted(open_source(data), record.specification.kinds)
    unknown = set(data) - set(ARRAYS)
    if unknown:
        raise DesignError(f"there is no array {sorted(unknown)[0]!r} beside X: {', '.join(ARRAYS)}")
    data = paired(data)
    extra = {name: plain_array(value) for name, value in data.items() if name != "X"}
    matrix = record.design.matrix
    names = list(matrix.columns) if matrix is not None else list(record.specification.predictors)
    x = in_order(data["X"], names)
    return from_arrays(plain_array(x), extra, names)[0]


def own_names(parameters: Parameters) -> list[str]:
    """Names in the order of the arithmetic's own coefficients."""
    result = [""] * parameters.n
    for place, name in zip(parameters.reported(np.arange(parameters.n)), parameters.names, strict=True):
        result[int(place)] = name
    return result


def refuse_without_likelihood(record: FitRecord, what: str) -> None:
    """Tests by likelihood are of a likelihood's maximum."""
    weights = record.specification.weights
    if weights is not None and weights[0] == "probability":
        raise DesignError(
            f"with probability weights there is no likelihood, and so no {what}: use wald_test, whose errors are linearised"
        )
    if record.specification.separation == "firth":
        raise DesignError(
            f'a fit with separation="firth" does not maximise the likelihood, which {what} compares: fit with "limit"'
        )


def described(terms: Terms) -> dict[str, frozenset[str]]:
    """The variables of every term but the intercept, by the text of what they evaluate."""
    return {name: frozenset(v.expression.text for v in term.variables) for name, term in _terms(terms).items()}


def _terms(terms: Terms) -> Mapping[str, formula.Term]:
    return {term.name: term for term in formula.terms_of(terms)}
