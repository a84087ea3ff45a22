"""From a plan and data to a FitRecord: the one place that says what happens in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm import choices
from daskglm.checkpoint import Log, Recorded, digest
from daskglm.cluster import sources
from daskglm.cluster.engine import Engine, open_rows
from daskglm.cluster.machine import one_blas_thread
from daskglm.cluster.sources import Source
from daskglm.conclude import Beside, Context, record_of, warn
from daskglm.design import expressions, formula
from daskglm.design.columns import Arena, Columns
from daskglm.design.design import Classes, Design, products_of
from daskglm.design.expressions import Expression
from daskglm.design.formula import Terms
from daskglm.design.parameters import Parameters
from daskglm.design.profile import profile_of
from daskglm.design.reading import Reading
from daskglm.errors import DataError, DesignError, SolverError
from daskglm.inference.shape import Estimate, at_limit, estimate
from daskglm.model.likelihoods import GLM
from daskglm.model.pairs import likelihood_of
from daskglm.model.shapes import Shape, shape_of
from daskglm.model.vector import pairs_of
from daskglm.model.weights import Frequency, Trials
from daskglm.partitions import Partitions
from daskglm.plan import Plan
from daskglm.record import FitRecord, Specification
from daskglm.separation import Solution, solve
from daskglm.solvers.driver import FLOOR, Held, Optimum, Stopping, minimise
from daskglm.solvers.firth import minimise_bias
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Objective
from daskglm.solvers.pilot import Pilot, first_guess, pilot
from daskglm.solvers.separation import Watch
from daskglm.totals.moments import AnyModel, Model, Request, record_bytes
from daskglm.totals.vector import SeparateModel, class_model

Vector = npt.NDArray[np.float64]

# Below this a pass costs less than the pilot's book-keeping.
PILOT_ROWS = 200_000
# With fewer rows of the sample per column its optimum is far from that of all rows, and its factors cost as much.
ROWS_PER_COLUMN = 20
SMALL_DATA_GOAL = 1e-20
# Coefficients and the parameters beside them are solved in turn at most so often, on a sample this often.
MAX_ROUNDS = 30
PILOT_ROUNDS = 3
# Decrements of the parameters beside: the squared distance to their maximum in standard errors.
SHAPE_ENOUGH = 1e-16
PILOT_ENOUGH = 1e-4
SAMPLE_FRACTION = 0.1
SAMPLE_ROWS = 1_000_000


def model_of(plan: Plan, design: Design) -> AnyModel:
    """What the totals need to know: the likelihood that the family, the link and the classes of the response make."""
    frequency = isinstance(plan.weights, Frequency)
    likelihood = likelihood_of(plan.family, plan.link, len(design.y_levels))
    select, width, scaling = design.select, design.width, design.scaling
    if isinstance(likelihood, GLM):
        return Model(likelihood, select, width, scaling, frequency)
    return class_model(likelihood, select, width, scaling, frequency)


def _quadratic(plan: Plan) -> bool:
    return plan.family.response == "number" and GLM(plan.family, plan.link).quadratic


def _classes(plan: Plan) -> Classes:
    if plan.family.response == "number":
        return Classes()
    return Classes(None, plan.family.levels, plan.family.response == "ordered")


def _tables(model: AnyModel) -> int:
    """How many Grams one total holds."""
    return len(pairs_of(model.likelihood.q)) if isinstance(model, SeparateModel) else 1


class Reporter(Protocol):
    """Who is told how a fit goes on."""

    def begin(self, partitions: Partitions[Any]) -> None:
        """The work is known."""

    def phase(self, name: str) -> None:
        """A pass begins."""

    def deviance(self, value: float) -> None:
        """A pass is done, at which the deviance was this."""

    def end(self) -> None:
        """Nothing more comes."""


@final
@dataclass(frozen=True)
class Begin:
    """Where a search begins: coefficients, a Gram that may serve for the first step, and how fast steps near by converge."""

    coef: Any = None
    held: Held | None = None
    rate: float | None = None


@final
class ReadLeaf:
    """A leaf's table to its Columns; `roomy`: into an arena of this process, for columns that will stay."""

    def __init__(self, reading: Reading, roomy: bool) -> None:
        self.reading, self.roomy = reading, roomy
        self._arena = Arena() if roomy else None

    def __call__(self, leaf: Any) -> Columns:
        return self.reading.read(leaf, self._arena)

    def __reduce__(self) -> Any:
        return ReadLeaf, (self.reading, self.roomy)


@final
class SampleLeaf:
    """The pilot's rows of a leaf's Columns, a function of the data alone."""

    def __init__(self, fraction: float, at_most: int | None = None) -> None:
        self.fraction, self.at_most = fraction, at_most
        self._arena = Arena()

    def __call__(self, columns: Columns) -> Columns:
        most = 1.0 if self.at_most is None else self.at_most / max(columns.n, 1)
        return columns.sample(min(self.fraction, most), self._arena)

    def __reduce__(self) -> Any:
        return SampleLeaf, (self.fraction, self.at_most)


def run(plan: Plan, source: Source, engine: Engine, reporter: Reporter | None = None) -> FitRecord:
    """Fit a plan to a source."""
    with one_blas_thread():
        fitting = _Fitting(plan, source, engine, reporter)
        try:
            record = fitting.run()
            if fitting.log is not None:
                fitting.log.remove()
            return record
        finally:
            fitting.close()


class _Fitting:
    """One fit under way."""

    def __init__(self, plan: Plan, source: Source, engine: Engine, reporter: Reporter | None) -> None:
        self.plan, self.source, self.engine, self.reporter = plan, source, engine, reporter
        self.kinds = sources.kinds(source)
        self.terms = _parse(plan, self.kinds)
        self.reading = _reading(plan, self.terms, self.kinds, source.matrix_names)
        self.opened: list[Partitions[Any]] = []
        self.log: Log | None = None

    def close(self) -> None:
        """Give up whatever is kept."""
        for partitions in self.opened:
            partitions.release()
        if self.reporter is not None:
            self.reporter.end()

    def run(self) -> FitRecord:
        rows = self._open()
        self._say("reading")
        columns, profile, sample = rows.kept_with_total(
            ReadLeaf(self.reading, rows.keep == "memory"),
            profile_of,
            self._sampler(rows),
            replace(self.reading, passing=True).read,
        )
        self.opened += [columns] if sample is None else [columns, sample]
        if not profile.n:
            raise DataError(_nothing_left(profile.ledger, self.plan))
        design = Design.learn(
            self.terms, profile, self.source.ordered, self.reading.response_name, self.source.matrix_names,
            _classes(self.plan),
        )  # fmt: skip
        if not design.names:
            raise DesignError(f"the formula {self.terms.text!r} has no columns and no intercept: nothing to estimate")
        shape = shape_of(self.plan.family, self.plan.dispersion)
        if shape is not None and shape.moves_means:
            self.plan = replace(self.plan, family=shape.family(shape.start(1.0)))
        model = model_of(self.plan, design)
        rows.expect(_tables(model) * record_bytes(design.layout, profile.pairs, self.plan.meat))
        blocks = columns.consumed(design.encode)
        self.opened.append(blocks)
        null = Null(model.likelihood, design.intercept, self._has_offset()) if isinstance(model, Model) else None
        told = None if self.reporter is None else self.reporter.deviance
        counting = not isinstance(model, Model)
        objective = Objective(blocks, model, design.intercept, on_pass=told, counting=counting)
        solution, beside = self._solve(objective, design, null, sample, profile.n, shape)
        pruned = self.source.pruned_rows
        ledger = replace(profile.ledger, read=profile.ledger.read + pruned, filtered=profile.ledger.filtered + pruned)
        weighted = self.reading.weight is not None
        context = Context(self.plan, self._specification(), ledger, rows.decodes, weighted, self._has_offset())
        record = record_of(context, solution, null, beside)
        warn(record)
        return record

    # -- reading ---------------------------------------------------------------------------------------------------

    def _open(self) -> Partitions[Any]:
        plan, reading = self.plan, self.reading
        condition: Any = None
        used: tuple[str, ...] = ()
        if plan.where:
            expression = expressions.parse_filter(plan.where)
            formula.require_columns(expression.columns, self.source.types, f"where={plan.where!r}")
            condition, used = expressions.to_arrow(expression, self.source.types), expression.columns
        self.source.select(reading.columns, condition, used)
        if not self.source.leaves:
            raise DataError("the data have no rows" + (f" where {plan.where}" if plan.where else ": the lake is empty"))
        if plan.checkpoint is not None:
            self.log = self._log()
        rows = open_rows(self.source, reading.columns, plan.keep, self.engine)
        if self.log is not None:
            rows = Recorded(rows, self.log)
        self.opened.append(rows)
        if self.reporter is not None:
            self.reporter.begin(rows)
        return rows

    def _log(self) -> Log:
        """Totals of the same model and data that an interrupted fit has written down."""
        assert self.plan.checkpoint is not None
        data = self.source.fingerprint
        if data is None:
            raise DesignError(
                "checkpoint= is for files, which can be known again: rows in memory are gone with the process"
            )
        plan = replace(self.plan, keep="auto", checkpoint=None)
        return Log(self.plan.checkpoint, digest(plan), data)

    def _sampler(self, rows: Partitions[Any]) -> Callable[[Columns], Columns] | None:
        """How the pilot's rows are taken, a function of the data alone."""
        n = rows.rows
        if _quadratic(self.plan) or self.plan.start is not None:
            return None
        if n is None:
            return SampleLeaf(SAMPLE_FRACTION, max(SAMPLE_ROWS // rows.n_leaves, 1))
        return None if n < PILOT_ROWS else SampleLeaf(min(SAMPLE_FRACTION, SAMPLE_ROWS / n))

    def _has_offset(self) -> bool:
        return bool(self.reading.offsets) or self.reading.exposure is not None

    # -- optimum ---------------------------------------------------------------------------------------------------

    def _solve(
        self,
        objective: Objective,
        design: Design,
        null: Null | None,
        sample: Partitions[Any] | None,
        n: int,
        shape: Shape | None,
    ) -> tuple[Solution, Beside | None]:
        """The coefficients, and what is estimated beside them."""
        pilots = None
        if self.plan.start is None and sample is not None:
            pilots = sample.consumed(design.encode)
            self.opened.append(pilots)
        elif sample is not None:
            sample.release()
        try:
            if shape is not None and shape.moves_means:
                return self._in_turn(objective, design, null, pilots, n, shape)
            begin = self._begin(pilots, objective, design, null, n)
            solution = self._optimise(objective, design, null, begin, n, pilots is not None)
        finally:
            if pilots is not None:
                pilots.release()
        return solution, None if shape is None else self._dispersion(solution, shape)

    def _begin(
        self, pilots: Partitions[Any] | None, objective: Objective, design: Design, null: Null | None, n: int
    ) -> Begin:
        """Where the sample's optimum is, as far as the sample is of help."""
        if pilots is None or self._is_small(n, objective):
            return Begin()
        self._say("pilot")
        found = pilot(pilots, objective.model, design.intercept, null, n)
        return Begin() if found is None else Begin(found.coef, found.held)

    def _is_small(self, n: int, objective: Objective) -> bool:
        """Whether a pass over all rows costs less than a pilot is worth."""
        return n < PILOT_ROWS or SAMPLE_FRACTION * n < ROWS_PER_COLUMN * objective.n_coefficients

    def _optimise(
        self, objective: Objective, design: Design, null: Null | None, begin: Begin, n: int, sampled: bool
    ) -> Solution:
        """The optimum of one family; where it is infinite, as the plan says."""
        plan, start = self.plan, begin.coef
        if start is None:
            self._say("start")
            start = self._start(objective, design, null)
        if null is not None and null.iterates and null.waiting:
            null.start(objective.sums(Request(None, order=0, means=True)))
            null.fit(objective.blocks, objective.model)
        self._say("pass")
        stopping = self._stopping(n)
        known = plan.family.dispersion if plan.family.dispersion_known else None
        quadratic = objective.model.likelihood.quadratic

        def search(target: Objective, where: Vector, watch: Watch | None, again: bool) -> Optimum:
            if plan.separation == "firth":
                return minimise_bias(target, where, stopping, null)
            other = (lambda: first_guess(target, null)) if sampled or again else None
            return minimise(
                target, where, stopping, null=null, dispersion=known, quadratic=quadratic, meat=plan.meat,
                held=None if again else begin.held, rate=begin.rate, fallback=other, watch=watch,
            )  # fmt: skip

        if not isinstance(objective.model, Model):
            return choices.solve(objective, Parameters(design, plan.family.response), start, search, plan.separation)
        assert null is not None
        return solve(objective, design, null, start, search, plan.separation, self.opened.append)

    def _in_turn(
        self,
        objective: Objective,
        design: Design,
        null: Null | None,
        pilots: Partitions[Any] | None,
        n: int,
        shape: Shape,
    ) -> tuple[Solution, Beside]:
        """Coefficients and the parameters beside them, in turn until neither moves.

        The two are orthogonal in expectation, so that each round leaves the square of what the one before left. A sample,
        or all rows where there are few, finds the neighbourhood.
        """
        psi, begin, small = shape.start(1.0), Begin(), self._is_small(n, objective)
        if pilots is not None and not small:
            self._say("pilot")
            psi, begin = self._shape_pilot(pilots, design, null, n, shape, psi)
        solution: Solution | None = None
        before = np.inf
        for _ in range(MAX_ROUNDS):
            self.plan = replace(self.plan, family=shape.family(psi))
            objective = replace(objective, model=self._with_family(objective.model, null), reference=None)
            found = self._optimise(objective, design, null, begin, n, pilots is not None)
            solution = found if solution is None else solution.followed(found)
            objective, design, optimum = solution.objective, solution.design, solution.optimum
            held = Held(optimum.curvature, 1.0, optimum.decrement)
            begin = Begin(optimum.point.coef, held, optimum.rate)
            if optimum.point.sums.statistics is not None and not optimum.point.sums.statistics.n:
                here = Estimate(psi, np.nan, np.full(psi.size, np.nan), np.full((psi.size, psi.size), np.nan))
                break
            here = estimate(objective.blocks, objective.model, begin.coef, shape, psi, SHAPE_ENOUGH)
            objective.passes += here.passes
            if at_limit(shape, psi) and at_limit(shape, here.psi):
                break
            still = bool((here.psi == psi).all())
            if still and (here.decrement <= SHAPE_ENOUGH or (0.5 * before <= here.decrement <= FLOOR)):
                break
            before = here.decrement
            psi = here.psi
        assert solution is not None
        return solution, Beside(shape, here)

    def _with_family(self, model: AnyModel, null: Null | None) -> AnyModel:
        """The model with the family that the plan has now."""
        assert isinstance(model, Model)
        changed = replace(model, likelihood=GLM(self.plan.family, self.plan.link))
        if null is not None:
            null.change(changed.likelihood)
        return changed

    def _shape_pilot(
        self, pilots: Partitions[Any], design: Design, null: Null | None, n: int, shape: Shape, psi: Vector
    ) -> tuple[Vector, Begin]:
        """psi and coefficients near the optimum, from the sample."""
        found: Pilot | None = None
        for _ in range(PILOT_ROUNDS):
            model = model_of(replace(self.plan, family=shape.family(psi)), design)
            if null is not None:
                null.change(model.likelihood)
            found = pilot(pilots, model, design.intercept, null, n, None if found is None else found.coef)
            if found is None:
                return shape.start(1.0), Begin()
            psi = estimate(pilots, model, found.coef, shape, psi, PILOT_ENOUGH).psi
        assert found is not None
        return psi, Begin(found.coef, found.held)

    def _dispersion(self, solution: Solution, shape: Shape) -> Beside:
        """The dispersion of greatest likelihood at the coefficients, which do not depend on it."""
        objective, optimum = solution.objective, solution.optimum
        stats = optimum.point.sums.statistics
        assert stats is not None
        mean = stats.deviance / stats.observations
        closed = self.plan.family.ml_dispersion(mean, self.reading.weight is not None)
        phi = mean if closed is None else closed
        if not phi > 0:
            raise SolverError('the fit is perfect: dispersion="ml" has no finite estimate')
        begin = shape.start(phi)
        found = estimate(objective.blocks, objective.model, optimum.point.coef, shape, begin, SHAPE_ENOUGH)
        objective.passes += found.passes
        return Beside(shape, found)

    def _stopping(self, n: int) -> Stopping:
        # where a pass costs nothing, go on to the last digit
        goal = SMALL_DATA_GOAL if self.plan.tol_is_default and n < PILOT_ROWS else None
        return Stopping(self.plan.tol, self.plan.max_iter, goal)

    def _start(self, objective: Objective, design: Design, null: Null | None) -> Vector:
        if self.plan.start is not None:
            return _given_start(self.plan.start, Parameters(design, self.plan.family.response))
        quadratic = objective.model.likelihood.quadratic
        return np.zeros(objective.n_coefficients) if quadratic else first_guess(objective, null)

    def _say(self, phase: str) -> None:
        if self.opened:
            self.opened[0].enter(phase)
        if self.reporter is not None:
            self.reporter.phase(phase)

    def _specification(self) -> Specification:
        plan, reading = self.plan, self.reading
        weights = None
        if plan.weights is not None:
            weights = (type(plan.weights).__name__.lower(), str(plan.weights.column))
        used = dict.fromkeys(reading.columns)
        right = [*(variable.expression for variable in self.terms.variables), *self.terms.offsets]
        return Specification(
            formula=self.terms.text,
            family=plan.family.text,
            link=plan.link.name,
            kinds={name: self.kinds[name] for name in used},
            response=reading.response_name,
            weights=weights,
            offset=_text(plan.offset),
            exposure=_text(plan.exposure),
            trials=_text(plan.trials),
            covariance=plan.covariance,
            dispersion=plan.dispersion,
            missing=plan.missing,
            unseen=plan.unseen,
            where=plan.where,
            predictors=tuple(dict.fromkeys(c for e in right for c in e.columns)),
            response_kind=plan.family.response,
        )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else str(value)


def _parse(plan: Plan, kinds: Mapping[str, Any]) -> Terms:
    if plan.formula is None:
        raise DesignError("a formula is needed")
    return formula.parse(plan.formula, kinds)


def _reading(plan: Plan, terms: Terms, kinds: Mapping[str, Any], matrix: tuple[str, ...] = ()) -> Reading:
    """What to read of the table for this plan; matrix: names of the columns of its sparse matrix."""
    response = terms.response
    text = plan.formula or ""
    name = text[: len(text) - len(formula.right_side(text))].rstrip("~ ").strip()
    levels = plan.family.response != "number"
    if len(response) == 1 and response[0].text in kinds and kinds[response[0].text] == "factor":
        if not plan.family.bounded:
            raise DesignError(
                f'the response "{name}" is text, which the {plan.family.name} family cannot be fitted to: '
                "a two-level response is binomial, one of several levels multinomial or ordinal"
            )
        levels = True
    if len(response) == 2 and (not plan.family.bounded or plan.family.response != "number"):
        raise DesignError(f"cbind(successes, failures) is for the binomial family, not for {plan.family.name}")
    trials, weight = None, None
    if plan.trials is not None:
        trials = _column(plan.trials, kinds, "trials")
    if isinstance(plan.weights, Trials):
        trials = _column(plan.weights.column, kinds, "weights")
    elif plan.weights is not None:
        weight = _column(plan.weights.column, kinds, "weights")
    if trials is not None and len(response) == 2:
        raise DesignError("cbind(successes, failures) already says the trials: leave trials= out")
    if plan.family.response == "ordered" and not terms.intercept:
        raise DesignError(
            "the thresholds of an ordinal model are its intercepts: leave - 1 (or 0 +) out of the formula"
        )
    if plan.family.response == "classes" and (terms.offsets or plan.offset is not None):
        raise DesignError("a multinomial model has a linear predictor for each class: it takes no offset")
    offsets = list(terms.offsets)
    if plan.offset is not None:
        offsets.append(_column(plan.offset, kinds, "offset"))
    exposure: Expression | float | None = None
    if plan.exposure is not None:
        exposure = _column(plan.exposure, kinds, "exposure")
    return Reading(
        terms.variables, products_of(terms), response, name, levels,
        None if levels else plan.family.in_support, plan.family.support, weight, trials, tuple(offsets), exposure, plan.missing,  # type: ignore[arg-type]
        counts=plan.trials is not None,
        frequencies=isinstance(plan.weights, Frequency),
        matrix=matrix,
    )  # fmt: skip


def _column(value: Any, kinds: Mapping[str, Any], option: str) -> Expression:
    if not isinstance(value, str):
        raise DesignError(f"{option}= takes the name of a column or an expression, not {type(value).__name__}")
    return formula.numeric(value, kinds)


def _given_start(start: Any, parameters: Parameters) -> npt.NDArray[np.float64]:
    """start= on the user's scale to the scaled columns."""
    names = parameters.names
    if hasattr(start, "keys"):
        values = dict(start)
        formula.require_columns(values, dict.fromkeys(names), "start=")
        vector = np.array([float(values.get(name, 0.0)) for name in names])
    else:
        vector = np.asarray(start, np.float64)
    if vector.shape != (len(names),):
        raise DesignError(f"start= has {vector.size} values for {len(names)} parameters")
    return parameters.own(np.nan_to_num(vector))


def _nothing_left(ledger: Any, plan: Plan) -> str:
    if not ledger.read:
        return "the data have no rows: the lake is empty"
    parts = []
    if ledger.filtered:
        parts.append(f"{ledger.filtered} do not match where={plan.where!r}")
    if ledger.missing_rows:
        worst = max(ledger.missing, key=lambda name: ledger.missing[name])
        parts.append(f'{ledger.missing_rows} miss a value ("{worst}" in {ledger.missing[worst]})')
    if ledger.zero_weight:
        parts.append(f"{ledger.zero_weight} have weight 0")
    return f"no row is left of {ledger.read}: {', '.join(parts)}"
