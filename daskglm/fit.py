"""From a plan and data to a FitRecord: the one place that says what happens in which order."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.checkpoint import Log, Recorded, digest
from daskglm.cluster import sources
from daskglm.cluster.engine import Engine, open_rows
from daskglm.cluster.machine import one_blas_thread
from daskglm.cluster.sources import Source
from daskglm.design import expressions, formula
from daskglm.design.columns import Arena, Columns
from daskglm.design.design import Classes, Design, products_of
from daskglm.design.expressions import Expression
from daskglm.design.formula import Terms
from daskglm.design.parameters import Parameters
from daskglm.design.profile import profile_of
from daskglm.design.reading import Reading
from daskglm.errors import AliasWarning, ConvergenceWarning, DataError, DesignError, SeparationWarning, SolverError
from daskglm.inference import covariance as inference
from daskglm.inference.shape import Estimate, at_limit, estimate
from daskglm.inference.shape import step as shape_step
from daskglm.kernels.cholesky import combination
from daskglm.model.likelihoods import GLM
from daskglm.model.pairs import likelihood_of
from daskglm.model.shapes import Shape, shape_of
from daskglm.model.vector import BaselineLogit, Cumulative, pairs_of
from daskglm.model.weights import Frequency, Probability, Trials
from daskglm.partitions import Partitions
from daskglm.plan import Plan
from daskglm.record import Certificate, FitRecord, Specification, Statistics
from daskglm.solvers.driver import FLOOR, Held, Optimum, Stopping, minimise
from daskglm.solvers.newton import curvature
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Objective
from daskglm.solvers.pilot import Pilot, first_guess, pilot
from daskglm.totals.likelihood import null_deviance, saturated
from daskglm.totals.moments import AnyModel, Model, Request, record_bytes
from daskglm.totals.vector import ParallelModel, SeparateModel

# Below this a pass costs less than the pilot's book-keeping.
PILOT_ROWS = 200_000
# With fewer rows of the sample per column its optimum is far from that of all rows, and its factors cost as much.
ROWS_PER_COLUMN = 20
SMALL_DATA_GOAL = 1e-20
# Part of the null deviance that is left by rounding alone.
PERFECT = 1e-24
# Variance of a scaled coefficient, per unit weight, that no data with a finite optimum leave.
RUNAWAY_VARIANCE = 1e8
# Aliased columns that are named one by one: a wide sparse matrix can have thousands.
MOST_WARNINGS = 20
# Coefficients and the parameters beside them are solved in turn at most so often, on a sample this often.
MAX_ROUNDS = 30
PILOT_ROUNDS = 3
# Decrements of the parameters beside: the squared distance to their maximum in standard errors.
SHAPE_ENOUGH = 1e-12
PILOT_ENOUGH = 1e-4
SAMPLE_FRACTION = 0.1
SAMPLE_ROWS = 1_000_000


def model_of(plan: Plan, design: Design) -> AnyModel:
    """What the totals need to know: the likelihood that the family, the link and the classes of the response make."""
    frequency = isinstance(plan.weights, Frequency)
    likelihood = likelihood_of(plan.family, plan.link, len(design.y_levels))
    select, width, scaling = design.select, design.width, design.scaling
    if isinstance(likelihood, BaselineLogit):
        return SeparateModel(likelihood, select, width, scaling, frequency)
    if isinstance(likelihood, Cumulative):
        return ParallelModel(likelihood, select[1:], width, scaling, frequency)
    return Model(likelihood, select, width, scaling, frequency)


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
        parameters = Parameters(design, self.plan.family.response)
        rows.expect(_tables(model) * record_bytes(design.layout, profile.pairs, self.plan.meat))
        blocks = columns.consumed(design.encode)
        self.opened.append(blocks)
        null = Null(model.likelihood, design.intercept, self._has_offset()) if isinstance(model, Model) else None
        told = None if self.reporter is None else self.reporter.deviance
        objective = Objective(blocks, model, design.intercept, on_pass=told)
        estimated: Estimate | None
        if shape is not None and shape.moves_means:
            objective, optimum, estimated = self._in_turn(objective, parameters, null, sample, profile.n, shape)
        else:
            optimum = self._optimise(objective, parameters, null, sample, profile.n)
            estimated = self._dispersion(objective, optimum, shape) if shape is not None else None
        found = None if shape is None or estimated is None else (shape, estimated)
        pruned = self.source.pruned_rows
        ledger = replace(profile.ledger, read=profile.ledger.read + pruned, filtered=profile.ledger.filtered + pruned)
        return self._record(objective, parameters, null, optimum, found, ledger, rows)

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

    def _optimise(
        self, objective: Objective, parameters: Parameters, null: Null | None, sample: Partitions[Any] | None, n: int
    ) -> Optimum:
        held, design = None, parameters.design
        start: npt.NDArray[np.float64] | None = None
        if self.plan.start is None and sample is not None:
            beginning = None
            if n >= PILOT_ROWS and SAMPLE_FRACTION * n >= ROWS_PER_COLUMN * parameters.n:
                self._say("pilot")
                beginning = pilot(sample.consumed(design.encode), objective.model, design.intercept, null, n)
            sample.release()
            if beginning is not None:
                start, held = beginning.coef, beginning.held
        if start is None:
            self._say("start")
            start = self._start(objective, parameters, null)
        if null is not None and null.iterates and null.waiting:
            null.start(objective.sums(Request(None, order=0, means=True)))
            null.fit(objective.blocks, objective.model)
        self._say("pass")
        family = self.plan.family
        return minimise(
            objective, start, self._stopping(n), null=null,
            dispersion=family.dispersion if family.dispersion_known else None,
            quadratic=objective.model.likelihood.quadratic, meat=self.plan.meat, held=held,
            fallback=(lambda: first_guess(objective, null)) if sample is not None else None,
        )  # fmt: skip

    def _in_turn(
        self,
        objective: Objective,
        parameters: Parameters,
        null: Null | None,
        sample: Partitions[Any] | None,
        n: int,
        shape: Shape,
    ) -> tuple[Objective, Optimum, Estimate]:
        """Coefficients and the parameters beside them, in turn until neither moves.

        The two are orthogonal in expectation, so that each round leaves the square of what the one before left. A sample,
        or all rows where there are few, finds the neighbourhood.
        """
        blocks, design = objective.blocks, parameters.design
        psi, start, held = shape.start(1.0), None, None
        small = n < PILOT_ROWS or SAMPLE_FRACTION * n < ROWS_PER_COLUMN * parameters.n
        if sample is not None:
            pilots = sample.consumed(design.encode)
            self.opened.append(pilots)
            if not small:
                self._say("pilot")
                psi, start, held = self._shape_pilot(pilots, objective, design, null, n, shape, psi)
            pilots.release()
        before, rate = np.inf, None
        for _ in range(MAX_ROUNDS):
            family = shape.family(psi)
            self.plan = replace(self.plan, family=family)
            model = model_of(self.plan, design)
            objective = replace(objective, model=model, reference=None)
            if null is not None:
                null.change(model.likelihood)
            if start is None:
                self._say("start")
                start = self._start(objective, parameters, null)
            if null is not None and null.iterates and null.waiting:
                null.start(objective.sums(Request(None, order=0, means=True)))
                null.fit(blocks, model)
            self._say("pass")
            optimum = minimise(
                objective, start, self._stopping(n), null=null, dispersion=family.dispersion if family.dispersion_known else None,
                meat=self.plan.meat, held=held, rate=rate, fallback=lambda: first_guess(objective, null),  # noqa: B023
            )  # fmt: skip
            start, rate = optimum.point.coef, optimum.rate
            held = Held(optimum.curvature, 1.0, optimum.decrement)
            # where passes are cheap, a search; else the one step that the neighbourhood needs
            here = estimate(blocks, model, start, shape, psi, SHAPE_ENOUGH if small else np.inf)
            objective.passes += here.passes
            moved = float(np.max(np.abs(here.psi - psi), initial=0.0))
            if at_limit(shape, here.psi):
                if at_limit(shape, psi):
                    break
                psi = here.psi
                continue
            decrement = here.decrement
            if moved == 0.0 and (decrement <= SHAPE_ENOUGH or (decrement <= FLOOR and decrement >= 0.5 * before)):
                break
            before = decrement
            psi = here.psi + (0.0 if here.decrement <= SHAPE_ENOUGH else shape_step(here.gradient, here.hessian))
        return objective, optimum, here

    def _shape_pilot(
        self,
        pilots: Partitions[Any],
        objective: Objective,
        design: Design,
        null: Null | None,
        n: int,
        shape: Shape,
        psi: Any,
    ) -> tuple[Any, Any, Held | None]:
        """(psi, coefficients, Gram) near the optimum, from the sample."""
        found: Pilot | None = None
        for _ in range(PILOT_ROUNDS):
            model = model_of(replace(self.plan, family=shape.family(psi)), design)
            if null is not None:
                null.change(model.likelihood)
            found = pilot(pilots, model, design.intercept, null, n, None if found is None else found.coef)
            if found is None:
                return shape.start(1.0), None, None
            psi = estimate(pilots, model, found.coef, shape, psi, PILOT_ENOUGH).psi
        assert found is not None
        return psi, found.coef, found.held

    def _dispersion(self, objective: Objective, optimum: Optimum, shape: Shape) -> Estimate:
        """The dispersion of greatest likelihood at the coefficients, which do not depend on it."""
        stats, model = optimum.point.sums.statistics, objective.model
        assert stats is not None
        assert isinstance(model, Model)
        mean = stats.deviance / stats.observations
        closed = self.plan.family.ml_dispersion(mean, self.reading.weight is not None)
        phi = mean if closed is None else closed
        if not phi > 0:
            raise SolverError('the fit is perfect: dispersion="ml" has no finite estimate')
        found = estimate(objective.blocks, model, optimum.point.coef, shape, shape.start(phi), SHAPE_ENOUGH)
        objective.passes += found.passes
        return found

    def _stopping(self, n: int) -> Stopping:
        # where a pass costs nothing, go on to the last digit
        goal = SMALL_DATA_GOAL if self.plan.tol_is_default and n < PILOT_ROWS else None
        return Stopping(self.plan.tol, self.plan.max_iter, goal)

    def _start(self, objective: Objective, parameters: Parameters, null: Null | None) -> npt.NDArray[np.float64]:
        if self.plan.start is not None:
            return _given_start(self.plan.start, parameters)
        quadratic = objective.model.likelihood.quadratic
        return np.zeros(parameters.n) if quadratic else first_guess(objective, null)

    def _say(self, phase: str) -> None:
        if self.opened:
            self.opened[0].enter(phase)
        if self.reporter is not None:
            self.reporter.phase(phase)

    # -- the record ------------------------------------------------------------------------------------------------

    def _record(
        self,
        objective: Objective,
        parameters: Parameters,
        null: Null | None,
        optimum: Optimum,
        beside: tuple[Shape, Estimate] | None,
        ledger: Any,
        rows: Partitions[Any],
    ) -> FitRecord:
        plan, family, design = self.plan, self.plan.family, parameters.design
        stats = optimum.point.sums.statistics
        assert stats is not None
        pearson = optimum.point.sums.pearson
        rank = optimum.curvature.factor.rank
        if plan.dispersion == "ml" and beside is not None:
            phi, estimated = beside[0].phi(beside[1].psi), True
        else:
            phi, estimated = inference.dispersion(plan.dispersion, family, stats, pearson, rank)
        kind: Any = "probability" if isinstance(plan.weights, Probability) else plan.covariance
        observed = self._observed(objective, optimum) if kind == "observed" else None
        meat = objective.model.gram(optimum.point.sums.meat)
        matrix = parameters.covariance(inference.covariance(kind, optimum, phi, observed, meat))
        matrix = 0.5 * (matrix + matrix.T)
        coefficients = parameters.coefficients(optimum.point.coef)
        aliased = _aliased(parameters, optimum)
        coefficients[parameters.reported(optimum.aliased)] = np.nan
        gone = parameters.reported(~optimum.curvature.kept)
        matrix[gone, :] = np.nan
        matrix[:, gone] = np.nan
        notes = list(design.notes)
        statistics = self._statistics(objective, parameters, null, optimum, beside, rank, phi, estimated, notes)
        record = FitRecord(
            self._specification(), design, coefficients, matrix, aliased, _separated(parameters, optimum, plan), statistics,
            optimum.converged, optimum.status, optimum.reason, len(optimum.steps), objective.passes, rows.decodes,
            _certificate(parameters, optimum, plan), ledger, _trace(optimum), tuple(notes), _provenance(),
            _shape_estimates(beside),
        )  # fmt: skip
        _warn(record)
        return record

    def _observed(self, objective: Objective, optimum: Optimum) -> npt.NDArray[np.float64]:
        point = objective.evaluate(optimum.point.coef, 2, "observed")
        return curvature(objective, point, optimum.aliased).inverse()

    def _statistics(
        self,
        objective: Objective,
        parameters: Parameters,
        null: Null | None,
        optimum: Optimum,
        beside: tuple[Shape, Estimate] | None,
        rank: int,
        phi: float,
        estimated: bool,
        notes: list[str],
    ) -> Statistics:
        family, plan = self.plan.family, self.plan
        stats = optimum.point.sums.statistics
        assert stats is not None
        null_dev = stats.null_deviance
        if null is None:
            null_dev = self._null_of_classes(objective, parameters, optimum)
        elif null.iterates and not null.settled and null.value is not None:
            null.fit(objective.blocks, objective.model)
            null_dev = objective.blocks.total(null_deviance, objective.model, null.value).value
            objective.passes += 1
        constant = None
        weighted = self.reading.weight is not None and not isinstance(plan.weights, Frequency)
        at = inference.likelihood_dispersion(family, stats, phi)
        by_rows = family.likelihood_at == "deviance" and weighted and family.saturated_shift(1.0, 1.0, True) is None
        if beside is not None and "dispersion" in beside[0].names:
            at = beside[0].phi(beside[1].psi)
        if family.likelihood_at == "reported" or by_rows:
            constant = objective.blocks.total(saturated, family, at, isinstance(plan.weights, Frequency)).value
            objective.passes += 1
        llf = inference.log_likelihood(family, stats, at, constant, weighted)
        if isinstance(plan.weights, Probability):
            llf = np.nan
            notes.append("with probability weights there is no likelihood: llf, aic and bic are NaN")
        elif stats.deviance <= PERFECT * abs(null_dev):
            notes.append("the fit is perfect to rounding: errors, tests and the likelihood mean nothing")
        elif np.isnan(llf):
            notes.append("the weighted response is not a count in every row: llf, aic and bic are NaN")
        others = () if beside is None else beside[0].names
        estimates = rank + len(set(others) | (set() if family.dispersion_known else {"dispersion"}) - {"shape"})
        # a multinomial row is as many observations as it has predictors; an ordinal one counts once, as in polr
        each = objective.model.likelihood.q if family.response == "classes" else 1
        constants = objective.model.intercepts(parameters.design.intercept).size
        return Statistics(
            n_rows=stats.n,
            nobs=stats.observations,
            df_resid=each * stats.observations - rank,
            df_null=each * stats.observations - constants,
            rank=rank,
            deviance=stats.deviance,
            null_deviance=null_dev,
            pearson_chi2=optimum.point.sums.pearson,
            scale=phi,
            scale_estimated=estimated,
            llf=float(llf),
            aic=float(-2.0 * llf + 2.0 * estimates),
            bic=float(-2.0 * llf + np.log(stats.observations) * estimates),
        )

    def _null_of_classes(self, objective: Objective, parameters: Parameters, optimum: Optimum) -> float:
        """Deviance of the model of intercepts or thresholds alone."""
        model: Any = objective.model
        weights = optimum.point.sums.null
        if not parameters.design.intercept:
            return 2.0 * float(weights.sum()) * float(np.log(weights.size))
        if not self._has_offset():
            share = weights[weights > 0] / weights.sum()
            return -2.0 * float(weights[weights > 0] @ np.log(share))
        alone = replace(model, select=np.zeros(0, np.int64))
        thresholds = Objective(objective.blocks, alone, True)
        found = minimise(thresholds, alone.flat(alone.likelihood.start(weights), True), Stopping())
        objective.passes += thresholds.passes
        return 2.0 * found.point.loss

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


def _aliased(parameters: Parameters, optimum: Optimum) -> dict[str, dict[str, float]]:
    """Each aliased parameter's column as a combination of the others, on the user's scale."""
    result: dict[str, dict[str, float]] = {}
    gram, found = optimum.curvature.gram, optimum.curvature
    places = parameters.reported(np.arange(parameters.n))
    for j in np.flatnonzero(optimum.aliased):
        if found.basis is None:
            scaled = combination(gram, found.factor, int(j))
        else:
            scaled = -found.basis[:, j].copy()
            scaled[j] = 0.0
            scaled[np.abs(scaled) < 1e-7 * np.abs(scaled).max(initial=0.0)] = 0.0
        # Z (c - e_j) = 0 for the scaled columns Z = X A, so X A (c - e_j) = 0 says it for the user's own
        change = scaled.copy()
        change[j] = -1.0
        original = parameters.coefficients(change)
        at = int(np.flatnonzero(places == j)[0])
        lead = -original[at]
        parts = {parameters.names[k]: float(original[k] / lead) for k in np.flatnonzero(original) if k != at}
        size = max((abs(v) for v in parts.values()), default=0.0)
        result[parameters.names[at]] = {name: value for name, value in parts.items() if abs(value) > 1e-9 * size}
    return result


def _separated(parameters: Parameters, optimum: Optimum, plan: Plan) -> tuple[str, ...]:
    """Parameters that ran away, all the way to a mean of nothing, or far: at a finite optimum of these models the information on a coefficient is at least of the
    order of the events that bound it, while it vanishes with the decrement where nothing bounds it.
    """
    gone = ~optimum.curvature.kept & ~optimum.aliased
    if plan.family.dispersion_known and plan.link.name in ("log", "logit", "probit", "cloglog"):
        sums = optimum.point.sums
        weight = sums.statistics.weight / max(sums.n, 1) if sums.statistics is not None else 1.0
        loose = np.diag(optimum.curvature.inverse()) * weight > RUNAWAY_VARIANCE
        gone = gone | (loose & optimum.curvature.kept)
    return tuple(name for name, bad in zip(parameters.names, parameters.reported(gone), strict=True) if bad)


def _certificate(parameters: Parameters, optimum: Optimum, plan: Plan) -> Certificate:
    gram, point = optimum.curvature.gram, optimum.point
    kept = optimum.curvature.kept
    scale = np.sqrt(np.maximum(np.diag(point.gram), 0.0)) if point.gram is not None else np.ones(kept.size)
    with np.errstate(all="ignore"):
        gradient = np.abs(point.gradient[kept]) / (scale[kept] * np.sqrt(optimum.dispersion))
    # the 1-norm condition of the Gram scaled to a unit diagonal, whose inverse is that of its factor
    root = np.sqrt(np.maximum(np.diag(gram)[kept], 1e-300))
    scaled = gram[np.ix_(kept, kept)] / root[:, None] / root
    inverse = optimum.curvature.factor.inverse()[np.ix_(kept, kept)] * root[:, None] * root
    condition = float(np.linalg.norm(scaled, 1) * np.linalg.norm(inverse, 1)) if scaled.size else 1.0
    return Certificate(
        decrement=float(optimum.decrement),
        tolerance=plan.tol,
        limited_by="rounding" if optimum.status == "floor" else "tolerance",
        gradient=float(np.max(gradient, initial=0.0)),
        condition=condition,
        halvings=sum(step.halvings for step in optimum.steps),
        residual_columns=tuple(parameters.names[j] for j in optimum.curvature.doubtful),
    )


def _shape_estimates(beside: tuple[Shape, Estimate] | None) -> dict[str, tuple[float, float]]:
    """(estimate, standard error) of each parameter beside the coefficients, by the delta method from psi."""
    if beside is None:
        return {}
    shape, found = beside
    with np.errstate(all="ignore"):
        errors = np.sqrt(np.diag(found.covariance())) * np.abs(shape.slopes(found.psi))
    values = shape.values(found.psi)
    errors = np.where(np.isfinite(values), errors, np.nan)
    return {name: (float(v), float(e)) for name, v, e in zip(shape.names, values, errors, strict=True)}


def _trace(optimum: Optimum) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {"loss": s.loss, "decrement": s.decrement, "halvings": s.halvings, "newton": s.newton} for s in optimum.steps
    )


def _provenance() -> dict[str, Any]:
    import numba
    import pyarrow

    from daskglm.version import __version__

    return {
        "daskglm": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "pyarrow": pyarrow.__version__,
        "machine": platform.machine(),
    }


def _warn(record: FitRecord) -> None:
    for name, parts in list(record.aliased.items())[:MOST_WARNINGS]:
        warnings.warn(alias_sentence(name, parts), AliasWarning, stacklevel=5)
    if len(record.aliased) > MOST_WARNINGS:
        warnings.warn(
            f"{len(record.aliased) - MOST_WARNINGS} more columns are not estimated: see aliased",
            AliasWarning,
            stacklevel=5,
        )
    if record.separated:
        warnings.warn(
            f"no finite estimate seems to exist for {', '.join(record.separated[:10])}: the response does not vary where "
            "they apply; leave the term out, or join levels",
            SeparationWarning,
            stacklevel=5,
        )
    if not record.converged:
        warnings.warn(record.reason, ConvergenceWarning, stacklevel=5)


def alias_sentence(name: str, parts: Mapping[str, float]) -> str:
    """Why a coefficient is not estimated."""
    if not parts:
        return f"{name} is not estimated: its column is zero in every row used"
    shown = " + ".join(f"{value:.6g} {other}" for other, value in list(parts.items())[:6])
    more = " + ..." if len(parts) > 6 else ""
    return f"{name} is not estimated: its column is {shown}{more}"
