"""From an optimum to the record of a fit: dispersion, covariance, statistics, and what there is to say about it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm import choices
from daskglm.certificate import certified
from daskglm.design.columns import Ledger
from daskglm.design.parameters import Parameters
from daskglm.errors import AliasWarning, ConvergenceWarning, SeparationWarning
from daskglm.errors import warn as say
from daskglm.inference import covariance as inference
from daskglm.inference.shape import Estimate
from daskglm.kernels.bordered import combination_of
from daskglm.model.shapes import Shape
from daskglm.model.weights import Frequency, Probability
from daskglm.plan import Plan
from daskglm.record import FitRecord, Specification, Statistics, WorkingEstimate
from daskglm.separation import AT_LIMIT, NOBODY, Solution, sentence
from daskglm.solvers.driver import Optimum, Stopping, minimise
from daskglm.solvers.newton import combinations
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Objective
from daskglm.totals.likelihood import null_deviance, saturated

Matrix = npt.NDArray[np.float64]

# Part of the null deviance that is left by rounding alone.
PERFECT = 1e-24
# Aliased columns that are named one by one: a wide sparse matrix can have thousands.
MOST_WARNINGS = 20


@final
@dataclass(frozen=True)
class Context:
    """What a record states about how the data were read: the model in names, the rows; weighted: whether rows have weights;
    offset: whether they have one; mean_weight: the mean of probability weights, by which the
    reported sums are divided so that they do not depend on the unit of the weights (as R's svyglm); 1 for other kinds.
    """

    plan: Plan
    specification: Specification
    ledger: Ledger
    weighted: bool
    offset: bool
    mean_weight: float = 1.0


@final
@dataclass(frozen=True)
class Beside:
    """The parameters beside the coefficients, as they were estimated."""

    shape: Shape
    found: Estimate

    @property
    def dispersion(self) -> float | None:
        """phi, where it is among them."""
        return self.shape.phi(self.found.psi) if {"dispersion", "shape"} & set(self.shape.names) else None

    def estimates(self) -> dict[str, tuple[float, float]]:
        """(estimate, standard error) of each, by the delta method from psi."""
        with np.errstate(all="ignore"):
            errors = np.sqrt(np.diag(self.found.covariance())) * np.abs(self.shape.slopes(self.found.psi))
        values = np.where(np.isfinite(self.found.value), self.shape.values(self.found.psi), np.nan)
        errors = np.where(np.isfinite(values), errors, np.nan)
        return {n: (float(v), float(e)) for n, v, e in zip(self.shape.names, values, errors, strict=True)}


def record_of(context: Context, solution: Solution, null: Null | None, beside: Beside | None) -> FitRecord:
    """The record; passes of its own where an error, the null model or a constant needs the rows."""
    plan, family = context.plan, context.plan.family
    exact = certified(
        plan, solution, beside.found.decrement if beside is not None and beside.shape.moves_means else None
    )
    solution = exact.solution
    objective, optimum = solution.objective, solution.optimum
    parameters = Parameters(solution.design, family.response)
    stats = optimum.point.sums.statistics
    assert stats is not None
    rank = optimum.curvature.factor.rank
    pearson = optimum.point.sums.pearson / context.mean_weight
    per_weight = replace(stats, deviance=stats.deviance / context.mean_weight)
    phi, estimated = inference.dispersion(plan.dispersion, family, per_weight, pearson, rank)
    if plan.dispersion == "ml" and beside is not None and beside.dispersion is not None:
        phi, estimated = beside.dispersion, True
    kind = inference.kind_of(plan.covariance, plan.weights)
    errors = inference.of_model(optimum.curvature, phi) if kind == "model" else None
    if errors is None:
        bread = inference.Bread.of(optimum.point, optimum.curvature, exact.on(exact.working.basis))
        errors = inference.covariance(kind, objective, bread, phi, optimum.point.sums.meat)
    working = WorkingEstimate(exact.on(errors.basis), errors.held, errors.basis)
    separation, infinite = solution.record(), solution.infinite()
    coefficients = exact.coefficients.copy()
    aliased = _aliased(objective, parameters, optimum, infinite)
    coefficients[parameters.reported(optimum.aliased)] = np.nan
    coefficients[infinite != 0.0] = infinite[infinite != 0.0] * np.inf
    notes = list(solution.design.notes)
    if errors.note:
        notes.append(errors.note)
    if beside is not None and beside.found.held.any():
        notes.append(beside.shape.at_end)
    statistics = _statistics(context, solution, parameters, null, beside, phi, estimated, notes)
    statistics = replace(statistics, clusters=errors.clusters)
    ledger = context.ledger
    if plan.separation == "drop":
        ledger = replace(ledger, used=ledger.used - solution.at_limit.n, separated=solution.at_limit.n)
    record = FitRecord(
        context.specification, solution.design, coefficients, aliased,
        tuple(name for name, sign in zip(parameters.names, infinite, strict=True) if sign), statistics,
        optimum.converged, optimum.status, optimum.reason, len(optimum.steps),
        objective.blocks.passes, objective.blocks.decodes,
        exact.of_errors(errors), ledger, _trace(optimum), tuple(notes), _provenance(),
        _beside(plan, beside), separation, family, plan.link, working=working,
    )  # fmt: skip
    return record


def _beside(plan: Plan, beside: Beside | None) -> dict[str, tuple[float, float]]:
    """Estimates beside the coefficients; with probability weights, whose errors are linearised, those have none here."""
    found = {} if beside is None else beside.estimates()
    if isinstance(plan.weights, Probability):
        return {name: (value, float("nan")) for name, (value, _) in found.items()}
    return found


def _statistics(
    context: Context,
    solution: Solution,
    parameters: Parameters,
    null: Null | None,
    beside: Beside | None,
    phi: float,
    estimated: bool,
    notes: list[str],
) -> Statistics:
    plan, family, objective, optimum = context.plan, context.plan.family, solution.objective, solution.optimum
    stats, rank = optimum.point.sums.statistics, optimum.curvature.factor.rank
    assert stats is not None
    at_limit = solution.at_limit if plan.separation == "limit" else NOBODY
    null_dev = _null_deviance(context, objective, parameters, optimum, null, stats.null_deviance)
    at = inference.likelihood_dispersion(family, stats + at_limit, phi)
    if beside is not None and beside.dispersion is not None and family.likelihood_at == "reported":
        at = beside.dispersion
    constant = None
    counts = isinstance(plan.weights, Frequency)
    weighted = context.weighted and not counts
    by_rows = family.likelihood_at == "deviance" and weighted and family.saturated_shift(1.0, 1.0, True) is None
    if family.likelihood_at == "reported" or by_rows:
        constant = objective.blocks.total(saturated, family, at, counts).value
    llf = inference.log_likelihood(family, stats + at_limit, at, constant, weighted)
    if family.likelihood_at == "never":
        notes.append("a quasi family has no likelihood: llf, aic and bic are NaN")
    elif isinstance(plan.weights, Probability):
        llf = np.nan
        notes.append("with probability weights there is no likelihood: llf, aic and bic are NaN")
    elif not stats.n or (solution.directions and not rank and stats.deviance == 0.0):
        notes.append("every row is at its limit: the model tells the responses apart without error")
    elif stats.deviance <= PERFECT * abs(null_dev):
        notes.append("the fit is perfect to rounding: errors, tests and the likelihood mean nothing")
    elif np.isnan(llf) and family.discrete:
        notes.append("the response (times its weight) is not a whole number in every row: llf, aic and bic are NaN")
    elif np.isnan(llf):
        notes.append(f"the density of {family.text} is not computed: llf, aic and bic are NaN")
    others = {"dispersion" if name == "shape" else name for name in (() if beside is None else beside.shape.names)}
    estimates = rank + len(others | (set() if family.dispersion_known else {"dispersion"}))
    # a multinomial row is as many observations as it has predictors; an ordinal one counts once, as in polr
    each = objective.model.likelihood.q if family.response == "classes" else 1
    constants = objective.model.intercepts(parameters.design.intercept).size
    return Statistics(
        n_rows=stats.n,
        nobs=stats.observations,
        df_resid=each * stats.observations - rank,
        df_null=max(each * stats.observations - constants, 0.0),
        rank=rank,
        deviance=(stats.deviance + at_limit.deviance) / context.mean_weight,
        null_deviance=null_dev / context.mean_weight,
        pearson_chi2=optimum.point.sums.pearson / context.mean_weight,
        scale=phi,
        scale_estimated=estimated,
        llf=float(llf),
        aic=float(-2.0 * llf + 2.0 * estimates),
        bic=float(-2.0 * llf + np.log(max(stats.observations, 1.0)) * estimates),
        at_limit=at_limit.observations,
    )


def _null_deviance(
    context: Context, objective: Objective, parameters: Parameters, optimum: Optimum, null: Null | None, found: float
) -> float:
    """Of the intercept-only model: as the closing pass found it, unless its one coefficient has to be solved for first."""
    if null is None:
        return _null_of_classes(context, objective, parameters, optimum)
    if null.iterates and not null.settled and null.value is not None:
        null.fit(objective.blocks, objective.model)
        found = objective.blocks.total(null_deviance, objective.model, null.value).value
    return found


def _null_of_classes(context: Context, objective: Objective, parameters: Parameters, optimum: Optimum) -> float:
    """Deviance of the model of intercepts or thresholds alone."""
    model: Any = objective.model
    weights = optimum.point.sums.null
    if not parameters.design.intercept:
        return 2.0 * float(weights.sum()) * float(np.log(weights.size))
    if not context.offset:
        share = weights[weights > 0] / weights.sum()
        return -2.0 * float(weights[weights > 0] @ np.log(share))
    alone = replace(model, select=np.zeros(0, np.int64), limits=())
    thresholds = Objective(objective.blocks, alone, True)
    found = minimise(thresholds, alone.flat(alone.likelihood.start(weights), True), Stopping())
    return 2.0 * found.point.loss


def _aliased(
    objective: Objective, parameters: Parameters, optimum: Optimum, infinite: npt.NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    """Each aliased parameter's column as a combination of the others, on the user's scale; infinite ones are not aliased."""
    result: dict[str, dict[str, float]] = {}
    if not optimum.point.sums.n:
        # of no rows, every column is every combination
        aliased = parameters.reported(optimum.aliased) & (infinite == 0.0)
        return {parameters.names[j]: {} for j in np.flatnonzero(aliased)}
    gram, found = optimum.curvature.gram, optimum.curvature
    places = parameters.reported(np.arange(parameters.n))
    columns = np.flatnonzero(optimum.aliased & (infinite[places.argsort()] == 0.0))
    exact = None if found.basis is None or not columns.size else combinations(objective, optimum.point, found, columns)
    for k, j in enumerate(columns):
        at = int(np.flatnonzero(places == j)[0])
        if exact is None:
            scaled = combination_of(gram, found.factor, int(j))
        else:
            scaled = exact[:, k]
            scaled[np.abs(scaled) < 1e-7 * np.abs(scaled).max(initial=0.0)] = 0.0
        # Z (c - e_j) = 0 for the scaled columns Z = X A, so X A (c - e_j) = 0 says it for the user's own
        change = scaled.copy()
        change[j] = -1.0
        original = parameters.coefficients(change)
        lead = -original[at]
        parts = {parameters.names[k]: float(original[k] / lead) for k in np.flatnonzero(original) if k != at}
        size = max((abs(v) for v in parts.values()), default=0.0)
        result[parameters.names[at]] = {name: value for name, value in parts.items() if abs(value) > 1e-9 * size}
    return result


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


def warn(record: FitRecord) -> None:
    """What a user should hear of a fit."""
    limits = 0 if record.separation is None else record.separation.rows
    # where all rows are at their limit, none is left of which a column could be zero
    everywhere = limits > 0 and limits >= record.ledger.used
    for name, parts in [] if everywhere else list(record.aliased.items())[:MOST_WARNINGS]:
        say(alias_sentence(name, parts), AliasWarning)
    for term in record.design.empty_terms:
        say(f"{term} is not estimated: {record.design.single_levels(term)} in the rows used", AliasWarning)
    if len(record.aliased) > MOST_WARNINGS:
        say(f"{len(record.aliased) - MOST_WARNINGS} more columns are not estimated: see aliased", AliasWarning)
    if record.separation is not None and record.separation.dropped:
        say(
            f'{record.separation.rows:,} row(s) are left out as separation="drop" asks: with them the likelihood rises for '
            "ever; of rows like them predictions are NaN",
            SeparationWarning,
        )
    if record.separated:
        rows = 0 if record.separation is None else record.separation.rows
        say(_separation_sentence(record, rows), SeparationWarning)
    if not record.converged:
        say(record.reason, ConvergenceWarning)


def _separation_sentence(record: FitRecord, rows: int) -> str:
    if record.specification.response_kind == "number":
        return f"{sentence(record.separated, rows)}; {AT_LIMIT}"
    return f"{choices.sentence(record.separated, rows)}; {choices.AT_LIMIT}"


def alias_sentence(name: str, parts: Mapping[str, float]) -> str:
    """Why a coefficient is not estimated."""
    if not parts:
        return f"{name} is not estimated: its column is zero in every row used"
    shown = " + ".join(f"{value:.6g} {other}" for other, value in list(parts.items())[:6])
    more = " + ..." if len(parts) > 6 else ""
    return f"{name} is not estimated: its column is {shown}{more}"
