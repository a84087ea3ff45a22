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
from daskglm.design.design import Design, Rescaling, products_of
from daskglm.design.expressions import Expression
from daskglm.design.formula import Terms
from daskglm.design.profile import profile_of
from daskglm.design.reading import Reading
from daskglm.errors import AliasWarning, ConvergenceWarning, DataError, DesignError, SeparationWarning
from daskglm.inference import covariance as inference
from daskglm.kernels.cholesky import combination
from daskglm.model.likelihoods import GLM
from daskglm.model.weights import Frequency, Probability, Trials
from daskglm.partitions import Partitions
from daskglm.plan import Plan
from daskglm.record import Certificate, FitRecord, Specification, Statistics
from daskglm.separation import AT_LIMIT, NOBODY, Solution, sentence, solve
from daskglm.solvers.driver import Optimum, Stopping, minimise
from daskglm.solvers.firth import minimise_bias
from daskglm.solvers.newton import curvature
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Objective
from daskglm.solvers.pilot import first_guess, pilot
from daskglm.solvers.separation import Watch
from daskglm.totals.likelihood import null_deviance, saturated
from daskglm.totals.moments import FitStats, Model, Request, record_bytes

# Below this a pass costs less than the pilot's book-keeping.
PILOT_ROWS = 200_000
# With fewer rows of the sample per column its optimum is far from that of all rows, and its factors cost as much.
ROWS_PER_COLUMN = 20
SMALL_DATA_GOAL = 1e-20
# Part of the null deviance that is left by rounding alone.
PERFECT = 1e-24
# Aliased columns that are named one by one: a wide sparse matrix can have thousands.
MOST_WARNINGS = 20
SAMPLE_FRACTION = 0.1
SAMPLE_ROWS = 1_000_000


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
            self.terms, profile, self.source.ordered, self.reading.response_name, self.source.matrix_names
        )
        if not design.names:
            raise DesignError(f"the formula {self.terms.text!r} has no columns and no intercept: nothing to estimate")
        rows.expect(record_bytes(design.layout, profile.pairs, self.plan.meat))
        blocks = columns.consumed(design.encode)
        self.opened.append(blocks)
        likelihood = GLM(self.plan.family, self.plan.link)
        frequency = isinstance(self.plan.weights, Frequency)
        model = Model(likelihood, design.select, design.width, design.scaling, frequency)
        null = Null(likelihood, design.intercept, self._has_offset())
        told = None if self.reporter is None else self.reporter.deviance
        objective = Objective(blocks, model, design.intercept, on_pass=told)
        solution = self._optimise(objective, design, null, sample, profile.n)
        pruned = self.source.pruned_rows
        ledger = replace(profile.ledger, read=profile.ledger.read + pruned, filtered=profile.ledger.filtered + pruned)
        return self._record(solution, null, ledger, rows)

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
        if GLM(self.plan.family, self.plan.link).quadratic or self.plan.start is not None:
            return None
        if n is None:
            return SampleLeaf(SAMPLE_FRACTION, max(SAMPLE_ROWS // rows.n_leaves, 1))
        return None if n < PILOT_ROWS else SampleLeaf(min(SAMPLE_FRACTION, SAMPLE_ROWS / n))

    def _has_offset(self) -> bool:
        return bool(self.reading.offsets) or self.reading.exposure is not None

    # -- optimum ---------------------------------------------------------------------------------------------------

    def _optimise(
        self, objective: Objective, design: Design, null: Null, sample: Partitions[Any] | None, n: int
    ) -> Solution:
        plan, held = self.plan, None
        quadratic = objective.model.likelihood.quadratic
        start: npt.NDArray[np.float64] | None = None
        if plan.start is not None:
            start = _given_start(plan.start, design)
        elif sample is not None:
            beginning = None
            if n >= PILOT_ROWS and SAMPLE_FRACTION * n >= ROWS_PER_COLUMN * len(design.names):
                self._say("pilot")
                beginning = pilot(sample.consumed(design.encode), objective.model, design.intercept, null, n)
            sample.release()
            if beginning is not None:
                start, held = beginning.coef, beginning.held
        if start is None:
            self._say("start")
            start = np.zeros(len(design.names)) if quadratic else first_guess(objective, null)
        if null.iterates and null.waiting:
            null.start(objective.sums(Request(None, order=0, means=True)))
            null.fit(objective.blocks, objective.model)
        self._say("pass")
        # where a pass costs nothing, go on to the last digit
        goal = SMALL_DATA_GOAL if plan.tol_is_default and n < PILOT_ROWS else None
        stopping = Stopping(plan.tol, plan.max_iter, goal)

        def search(target: Objective, begin: npt.NDArray[np.float64], watch: Watch | None, again: bool) -> Optimum:
            if plan.separation == "firth":
                return minimise_bias(target, begin, stopping, null)
            other = (lambda: first_guess(target, null)) if sample is not None or again else None
            return minimise(
                target, begin, stopping, null=null, dispersion_known=plan.family.dispersion_known, quadratic=quadratic,
                meat=plan.meat, held=None if again else held, fallback=other, watch=watch,
            )  # fmt: skip

        return solve(objective, design, null, start, search, plan.separation, self.opened.append)

    def _say(self, phase: str) -> None:
        if self.opened:
            self.opened[0].enter(phase)
        if self.reporter is not None:
            self.reporter.phase(phase)

    # -- the record ------------------------------------------------------------------------------------------------

    def _record(self, solution: Solution, null: Null, ledger: Any, rows: Partitions[Any]) -> FitRecord:
        plan, family = self.plan, self.plan.family
        objective, design, optimum = solution.objective, solution.design, solution.optimum
        stats = optimum.point.sums.statistics
        assert stats is not None
        pearson = optimum.point.sums.pearson
        rank = optimum.curvature.factor.rank
        phi, estimated = inference.dispersion(plan.dispersion, family, stats, pearson, rank)
        kind: Any = "probability" if isinstance(plan.weights, Probability) else plan.covariance
        observed = self._observed(objective, optimum) if kind == "observed" else None
        unscaling = design.unscaling()
        meat = objective.model.gram(optimum.point.sums.meat)
        matrix = unscaling.covariance(inference.covariance(kind, optimum, phi, observed, meat))
        matrix = 0.5 * (matrix + matrix.T)
        coefficients = unscaling.coefficients(optimum.point.coef)
        separation, infinite = solution.record(matrix), solution.infinite()
        aliased = _aliased(design, optimum, unscaling, infinite)
        coefficients[optimum.aliased] = np.nan
        coefficients[infinite != 0.0] = infinite[infinite != 0.0] * np.inf
        gone = ~optimum.curvature.kept | (infinite != 0.0)
        matrix[gone, :] = np.nan
        matrix[:, gone] = np.nan
        notes = list(design.notes)
        at_limit = solution.at_limit if plan.separation == "limit" else NOBODY
        statistics = self._statistics(objective, design, null, stats, at_limit, pearson, rank, phi, estimated, notes)
        if plan.separation == "drop":
            ledger = replace(ledger, used=ledger.used - solution.at_limit.n, separated=solution.at_limit.n)
        record = FitRecord(
            self._specification(), design, coefficients, matrix, aliased,
            tuple(name for name, sign in zip(design.names, infinite, strict=True) if sign), statistics,
            optimum.converged, optimum.status, optimum.reason, len(optimum.steps), objective.passes, rows.decodes,
            _certificate(design, optimum, plan), ledger, _trace(optimum), tuple(notes), _provenance(), separation,
        )  # fmt: skip
        _warn(record)
        return record

    def _observed(self, objective: Objective, optimum: Optimum) -> npt.NDArray[np.float64]:
        point = objective.evaluate(optimum.point.coef, 2, "observed")
        return curvature(objective, point, optimum.aliased).inverse()

    def _statistics(
        self,
        objective: Objective,
        design: Design,
        null: Null,
        stats: FitStats,
        at_limit: FitStats,
        pearson: float,
        rank: int,
        phi: float,
        estimated: bool,
        notes: list[str],
    ) -> Statistics:
        family, plan = self.plan.family, self.plan
        null_dev = stats.null_deviance
        if null.iterates and not null.settled and null.value is not None:
            null.fit(objective.blocks, objective.model)
            null_dev = objective.blocks.total(null_deviance, objective.model, null.value).value
            objective.passes += 1
        constant = None
        weighted = self.reading.weight is not None and not isinstance(plan.weights, Frequency)
        if not family.dispersion_known and weighted and family.saturated_shift(1.0, 1.0, True) is None:
            constant = objective.blocks.total(saturated, family, stats.deviance / stats.observations).value
            objective.passes += 1
        llf = inference.log_likelihood(family, stats + at_limit, constant, weighted)
        if isinstance(plan.weights, Probability):
            llf = np.nan
            notes.append("with probability weights there is no likelihood: llf, aic and bic are NaN")
        elif not stats.n:
            notes.append("every row is at its limit: the model tells the responses apart without error")
        elif stats.deviance <= PERFECT * abs(null_dev):
            notes.append("the fit is perfect to rounding: errors, tests and the likelihood mean nothing")
        elif np.isnan(llf):
            notes.append("the weighted response is not a count in every row: llf, aic and bic are NaN")
        parameters = rank + (0 if family.dispersion_known else 1)
        return Statistics(
            n_rows=stats.n,
            nobs=stats.observations,
            df_resid=stats.observations - rank,
            df_null=max(stats.observations - (1 if design.intercept else 0), 0.0),
            rank=rank,
            deviance=stats.deviance + at_limit.deviance,
            null_deviance=null_dev,
            pearson_chi2=pearson,
            scale=phi,
            scale_estimated=estimated,
            llf=float(llf),
            aic=float(-2.0 * llf + 2.0 * parameters),
            bic=float(-2.0 * llf + np.log(max(stats.observations, 1.0)) * parameters),
        )

    def _specification(self) -> Specification:
        plan, reading = self.plan, self.reading
        weights = None
        if plan.weights is not None:
            weights = (type(plan.weights).__name__.lower(), str(plan.weights.column))
        used = dict.fromkeys(reading.columns)
        right = [*(variable.expression for variable in self.terms.variables), *self.terms.offsets]
        return Specification(
            formula=self.terms.text,
            family=plan.family.name,
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
    levels = False
    if len(response) == 1 and response[0].text in kinds and kinds[response[0].text] == "factor":
        if not plan.family.bounded:
            raise DesignError(
                f'the response "{name}" is text, which the {plan.family.name} family cannot be fitted to: '
                "a two-level response is binomial"
            )
        levels = True
    if len(response) == 2 and not plan.family.bounded:
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
    offsets = list(terms.offsets)
    if plan.offset is not None:
        offsets.append(_column(plan.offset, kinds, "offset"))
    exposure: Expression | float | None = None
    if plan.exposure is not None:
        exposure = _column(plan.exposure, kinds, "exposure")
    return Reading(
        terms.variables, products_of(terms), response, name, levels,
        plan.family.in_support, plan.family.support, weight, trials, tuple(offsets), exposure, plan.missing,  # type: ignore[arg-type]
        counts=plan.trials is not None,
        frequencies=isinstance(plan.weights, Frequency),
        matrix=matrix,
    )  # fmt: skip


def _column(value: Any, kinds: Mapping[str, Any], option: str) -> Expression:
    if not isinstance(value, str):
        raise DesignError(f"{option}= takes the name of a column or an expression, not {type(value).__name__}")
    return formula.numeric(value, kinds)


def _given_start(start: Any, design: Design) -> npt.NDArray[np.float64]:
    """start= on the user's scale to the scaled columns."""
    if hasattr(start, "keys"):
        values = dict(start)
        formula.require_columns(values, dict.fromkeys(design.names), "start=")
        vector = np.array([float(values.get(name, 0.0)) for name in design.names])
    else:
        vector = np.asarray(start, np.float64)
    if vector.shape != (len(design.names),):
        raise DesignError(f"start= has {vector.size} values for {len(design.names)} parameters")
    return design.unscaling().inverse().coefficients(np.nan_to_num(vector))


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


def _aliased(
    design: Design, optimum: Optimum, unscaling: Rescaling, infinite: npt.NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    """Each aliased parameter's column as a combination of the others, on the user's scale; infinite ones are not aliased."""
    result: dict[str, dict[str, float]] = {}
    if not optimum.point.sums.n:
        # of no rows, every column is every combination
        return {design.names[j]: {} for j in np.flatnonzero(optimum.aliased & (infinite == 0.0))}
    gram, found = optimum.curvature.gram, optimum.curvature
    for j in np.flatnonzero(optimum.aliased & (infinite == 0.0)):
        if found.basis is None:
            scaled = combination(gram, found.factor, int(j))
        else:
            scaled = -found.basis[:, j].copy()
            scaled[j] = 0.0
            scaled[np.abs(scaled) < 1e-7 * np.abs(scaled).max(initial=0.0)] = 0.0
        # Z (c - e_j) = 0 for the scaled columns Z = X A, so X A (c - e_j) = 0 says it for the user's own
        change = scaled.copy()
        change[j] = -1.0
        original = unscaling.coefficients(change)
        lead = -original[j]
        parts = {design.names[k]: float(original[k] / lead) for k in np.flatnonzero(original) if k != j}
        size = max((abs(v) for v in parts.values()), default=0.0)
        result[design.names[j]] = {name: value for name, value in parts.items() if abs(value) > 1e-9 * size}
    return result


def _certificate(design: Design, optimum: Optimum, plan: Plan) -> Certificate:
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
        residual_columns=tuple(design.names[j] for j in optimum.curvature.doubtful),
    )


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
        rows = 0 if record.separation is None else record.separation.rows
        warnings.warn(f"{sentence(record.separated, rows)}; {AT_LIMIT}", SeparationWarning, stacklevel=5)
    if not record.converged:
        warnings.warn(record.reason, ConvergenceWarning, stacklevel=5)


def alias_sentence(name: str, parts: Mapping[str, float]) -> str:
    """Why a coefficient is not estimated."""
    if not parts:
        return f"{name} is not estimated: its column is zero in every row used"
    shown = " + ".join(f"{value:.6g} {other}" for other, value in list(parts.items())[:6])
    more = " + ..." if len(parts) > 6 else ""
    return f"{name} is not estimated: its column is {shown}{more}"
