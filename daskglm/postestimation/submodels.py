"""Models of some of the terms of a fitted one, fitted side by side: its rows are read once, and every pass is shared.

Each begins at the minimum that the full model's information foresees for it, so that few steps are left: with b the full
optimum, H its information and S the columns that stay, c = H_SS^-1 H_S. b minimises (b - c)' H (b - c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.conclude import Context, record_of
from daskglm.design.parameters import Parameters
from daskglm.errors import DesignError, SolverError
from daskglm.estimation import Estimation, model_of
from daskglm.kernels.cholesky import factor
from daskglm.model.vector import pairs_of
from daskglm.plan import Plan
from daskglm.postestimation.widened import Narrow, Shared, Widened, narrowed, refuse_other_deviance
from daskglm.record import FitRecord
from daskglm.solvers.driver import Stopping, minimise
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Objective
from daskglm.solvers.pilot import first_guess
from daskglm.together import Together, View
from daskglm.totals.combined import Combined
from daskglm.totals.moments import AnyModel, Model, Moments, Request, moments, record_bytes
from daskglm.totals.vector import SeparateModel

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

# Searches that share a pass at most, and the bytes that their sums may take together.
MOST_SEARCHES = 32
MOST_BYTES = 256e6

Terms = frozenset[str]


@final
@dataclass(frozen=True)
class Submodel:
    """A model of some terms, fitted: estimates counts its coefficients, infinite ones among them; df_resid: as its fit would
    say it; record: all that is known of it, None where it has no coefficients, or columns that are combinations of others.
    """

    deviance: float
    estimates: int
    df_resid: float
    record: FitRecord | None = None


def shared_moments(shared: Shared, model: AnyModel, request: Request) -> Moments:
    """The moments of one block."""
    return moments(shared.block, model, request)


@final
class Submodels:
    """Searches for submodels of what is `wide`; nothing is searched twice. family: held as the full model has it."""

    def __init__(self, wide: Widened) -> None:
        self.wide, self.record = wide, wide.record
        self._found: dict[Terms, Submodel] = {}
        self._full: _Full | None = None

    def full(self) -> _Full:
        """The information at the full model's optimum, and whether that is one of these rows. One pass, once."""
        if self._full is None:
            self._full = _Full.of(self.wide)
        return self._full

    def of(
        self, wanted: Sequence[Terms], start: FitRecord | None = None, bases: Sequence[Matrix] = ()
    ) -> tuple[dict[Terms, Submodel], list[Submodel]]:
        """The models of these terms, and those whose columns are combinations of the raw ones, one basis for each; start: a
        model close by, in place of the full one.
        """
        fresh = [terms for terms in dict.fromkeys(wanted) if terms not in self._found]
        finite = self.record.separation is None and not self.record.separated
        full = self.full() if finite and start is None and (fresh or bases) else None
        searches = [partial(self._search, terms, full, start) for terms in fresh]
        if bases:
            assert full is not None
            searches += [partial(self._combined, basis, full) for basis in bases]
        found = self._side_by_side(searches)
        self._found |= dict(zip(fresh, found, strict=False))
        return {terms: self._found[terms] for terms in wanted}, found[len(fresh) :]

    def _side_by_side(self, searches: Sequence[Callable[[View], Submodel]]) -> list[Submodel]:
        """What the searches find, as many at a time as fit."""
        each = max(1.0, self._bytes())
        room = int(max(1, min(MOST_SEARCHES, MOST_BYTES // each)))
        found: list[Submodel] = []
        for first in range(0, len(searches), room):
            batch = Together()
            group = searches[first : first + room]
            views = [batch.of(self.wide.blocks, k) for k in range(len(group))]
            found += batch.run([partial(search, view) for search, view in zip(group, views, strict=True)])
        return found

    def _bytes(self) -> float:
        model = model_of(self.wide.plan, self.wide.design)
        tables = len(pairs_of(model.likelihood.q)) if isinstance(model, SeparateModel) else 1
        return float(tables * record_bytes(self.wide.design.layout))

    def _search(self, terms: Terms, full: _Full | None, start: FitRecord | None, view: View) -> Submodel:
        wide = self.wide
        design, narrow = narrowed(wide.design, terms)
        blocks = view.consumed(narrow)
        model = model_of(wide.plan, design)
        if not model.n_coefficients:
            point = Objective(blocks, model, False).evaluate(np.zeros(0), 0, "expected", statistics=True)
            assert point.sums.statistics is not None
            return Submodel(point.sums.statistics.deviance, 0, self._observations())
        begin: Any = None
        parameters = Parameters(design, wide.plan.family.response)
        if start is not None:
            values = dict(zip(start.names, start.finite, strict=True))
            begin = {name: float(values.get(name, 0.0)) for name in parameters.names}
        elif full is not None:
            begin = full.start(parameters)
        plan = replace(wide.plan, start=begin)
        try:
            record = self._record(plan, design, blocks)
        except SolverError:
            if begin is None:
                raise
            # what was foreseen has means that are not possible
            record = self._record(replace(plan, start=None), design, blocks)
        if not record.converged and record.status != "boundary":
            raise SolverError(f"the model of {', '.join(sorted(terms)) or 'no terms'} was not fitted: {record.reason}")
        return Submodel(record.statistics.deviance, estimates(record), record.statistics.df_resid, record)

    def _observations(self) -> float:
        """Of the full model, one for each predictor of several classes."""
        return self.record.statistics.df_resid + self.record.statistics.rank

    def _record(self, plan: Plan, design: Any, blocks: View) -> FitRecord:
        wide = self.wide
        estimation = Estimation(
            plan, design, blocks, None, wide.n, offset=wide.offset, weighted=wide.weighted, say=_silent, told=None,
            keep=wide.keep,
        )  # fmt: skip
        found = estimation.run()
        context = Context(found.plan, self.record.specification, wide.ledger, wide.weighted, wide.offset)
        return record_of(context, found.solution, found.null, found.beside)

    def _combined(self, basis: Matrix, full: _Full, view: View) -> Submodel:
        wide = self.wide
        narrow = narrowed(wide.design, set(self.record.design.terms))[1]
        inner = full.model
        model = Combined(inner, basis)
        objective = Objective(view.consumed(narrow), model, False)
        projected = factor(basis.T @ full.gram @ basis)
        start = projected.solve(basis.T @ (full.gram @ full.coef))
        likelihood = inner.likelihood
        null = Null(likelihood, wide.design.intercept, wide.offset) if isinstance(inner, Model) else None
        family = wide.plan.family
        optimum = minimise(
            objective, start, Stopping(), dispersion=family.dispersion if family.dispersion_known else None,
            quadratic=likelihood.quadratic, fallback=lambda: first_guess(objective, null),
        )  # fmt: skip
        if not optimum.converged and optimum.status != "boundary":
            raise SolverError(f"a model in sum contrasts was not fitted: {optimum.reason}")
        assert optimum.point.sums.statistics is not None
        rank = optimum.curvature.factor.rank
        return Submodel(optimum.point.sums.statistics.deviance, rank, self._observations() - rank)


def _silent(phase: str) -> None:
    """Nobody is told of the phases of many searches."""


def estimates(record: FitRecord) -> int:
    """Coefficients that are estimated, infinite ones among them."""
    return int(np.sum(~np.isnan(record.coefficients)))


@final
@dataclass(frozen=True)
class _Full:
    """The full model on its raw columns: model, coef and gram (w, w) in those; place (r,): of its own coefficients there."""

    model: AnyModel
    coef: Vector
    gram: Matrix
    place: Places
    names: dict[str, int]

    @staticmethod
    def of(wide: Widened) -> _Full:
        record = wide.record
        design, narrow = narrowed(wide.design, set(record.design.terms))
        own = model_of(wide.plan, design)
        model, place = raw_model(own, design.width)
        parameters = Parameters(design, wide.plan.family.response)
        coef = np.zeros(model.n_coefficients)
        coef[place] = record.scaled
        request = Request(coef, 2, own.likelihood.reported, statistics=True)
        sums: Moments = wide.blocks.total(_narrow_moments, narrow, model, request)
        gram, score = model.gram(sums.tables), model.gradient(sums)
        assert gram is not None
        assert sums.statistics is not None
        step = factor(gram[np.ix_(place, place)]).solve(score[place])
        phi = record.statistics.scale
        decrement = float(score[place] @ step) / phi if phi > 0 else 0.0
        refuse_other_deviance(record, sums.statistics.deviance, decrement)
        names = dict(zip(parameters.names, place[_index(parameters)], strict=True))
        return _Full(model, coef, gram, place, names)

    def start(self, parameters: Parameters) -> Any:
        """Reported coefficients of a submodel, as the full one's information foresees them."""
        kept = np.zeros(parameters.n, np.intp)
        for at, name in zip(_index(parameters), parameters.names, strict=True):
            kept[at] = self.names[name]
        found = factor(self.gram[np.ix_(kept, kept)]).solve(self.gram[kept] @ self.coef)
        return parameters.coefficients(found)


def _index(parameters: Parameters) -> Places:
    return np.asarray(parameters.reported(np.arange(parameters.n)), np.intp)


def _narrow_moments(shared: Shared, narrow: Narrow, model: AnyModel, request: Request) -> Moments:
    return moments(narrow(shared.block), model, request)


def raw_model(model: AnyModel, width: int) -> tuple[AnyModel, Places]:
    """The model with a coefficient for every raw column, and the places there of those it has."""
    inner: Any = model
    select = np.asarray(inner.select, np.intp)
    if isinstance(model, Model):
        return replace(model, select=np.arange(width), refines=False), select
    q = model.likelihood.q
    if isinstance(model, SeparateModel):
        return replace(model, select=np.arange(width)), (np.arange(q)[:, None] * width + select).ravel()
    return replace(inner, select=np.arange(1, width)), np.concatenate([np.arange(q), q + select - 1])


def sum_contrasts(wide: Widened, dropped: str) -> Matrix:
    """The columns of all terms but one in sum contrasts, as combinations of the raw columns that a `raw_model` has."""
    design = narrowed(wide.design, set(wide.record.design.terms))[0]
    dense_at, level_at = 1, 1 + len(design.dense)
    table: Matrix
    parts: list[tuple[int, Matrix]] = [(0, np.ones((1, 1)))] if design.intercept else []
    for piece in design.pieces:
        if piece.columns:
            at, table = design.width - len(piece.columns), np.asarray(np.eye(len(piece.columns)))
        elif not piece.factors:
            at, table = dense_at, np.ones((1, 1))
            dense_at += 1
        else:
            at, table = level_at, np.ones((1, 1))
            for name, full in zip(piece.factors, piece.full, strict=True):
                # the first factor is the fastest
                table = np.asarray(np.kron(_contrasts(len(design.levels[name]), full), table), np.float64)
            level_at += design.n_levels(piece)
        if piece.term != dropped:
            parts.append((at, table))
    result = np.zeros((design.width, sum(table.shape[1] for _, table in parts)))
    column = 0
    for at, table in parts:
        result[at : at + table.shape[0], column : column + table.shape[1]] = table
        column += table.shape[1]
    kind = wide.plan.family.response
    if kind == "number":
        return result
    q = len(design.y_levels) - 1
    if kind == "classes":
        return np.asarray(np.kron(np.eye(q), result))
    slopes = result[1:, 1:]
    whole = np.zeros((q + slopes.shape[0], q + slopes.shape[1]))
    whole[:q, :q] = np.eye(q)
    whole[q:, q:] = slopes
    return whole


def _contrasts(levels: int, full: bool) -> Matrix:
    """Every level, or deviations that sum to zero."""
    return np.eye(levels) if full else np.vstack([np.eye(levels - 1), -np.ones((1, levels - 1))])


def refuse_separated(record: FitRecord, what: str) -> None:
    """What an infinite optimum does not allow."""
    if record.specification.separation == "drop" and record.separation is not None:
        raise DesignError(
            f'separation="drop" leaves out rows by the model, so that {what} would compare models of different rows: use '
            '"limit"'
        )
    if record.separated and record.aliased:
        raise DesignError(
            f"the fit has infinite and aliased coefficients at once, and the degrees of freedom of {what} are not certain: "
            "leave aliased columns out"
        )
