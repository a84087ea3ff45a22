"""From a plan and data to a FitRecord: the one place that says what happens in which order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm import estimation as estimating
from daskglm.checkpoint import Log, Recorded, digest
from daskglm.cluster import sources
from daskglm.cluster.engine import Engine, client_for, open_rows, settle
from daskglm.cluster.machine import memory_limit, one_blas_thread
from daskglm.cluster.sources import Source
from daskglm.conclude import Context, record_of, warn
from daskglm.design import expressions, formula
from daskglm.design.columns import Arena, Columns
from daskglm.design.design import Classes, Design, products_of
from daskglm.design.expressions import Expression
from daskglm.design.formula import Terms
from daskglm.design.profile import Profile, profile_of
from daskglm.design.reading import Reading
from daskglm.errors import DataError, DesignError
from daskglm.errors import warn as warn_caller
from daskglm.estimation import Estimation, model_of
from daskglm.inference.covariance import kind_of
from daskglm.model.likelihoods import GLM
from daskglm.model.own import Probe, UserDefined
from daskglm.model.shapes import shape_of
from daskglm.model.vector import pairs_of
from daskglm.model.weights import Frequency, Probability, Trials
from daskglm.partitions import Partitions
from daskglm.plan import Plan
from daskglm.record import FitRecord, Specification
from daskglm.sizing import Size, require_columns_kept, size_of
from daskglm.together import Together
from daskglm.totals.moments import AnyModel, record_bytes
from daskglm.totals.vector import SeparateModel

Vector = npt.NDArray[np.float64]

SAMPLE_ROWS = 1_000_000


def _quadratic(plan: Plan) -> bool:
    return plan.family.response == "number" and GLM(plan.family, plan.link).quadratic


def _classes(plan: Plan) -> Classes:
    if plan.family.response == "number":
        return Classes()
    return Classes(None, plan.family.levels, plan.family.response == "ordered")


def _sized(plan: Plan) -> Any:
    """The family as far as it must be known to say how large records are."""
    shape = shape_of(plan.family, plan.dispersion)
    return plan.family if shape is None else shape.family(shape.start(1.0))


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

    def size(self, size: Size) -> None:
        """The design is known, and with it what the fit takes."""

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
    """Fit a plan to a source; its formula has one response."""
    records = run_all(plan, source, engine, reporter)
    if len(records) > 1:
        raise DesignError("several responses give several records: run_all")
    return records[0]


def run_all(
    plan: Plan,
    source: Source,
    engine: Engine,
    reporter: Reporter | None = None,
    deliver: Callable[[list[FitRecord]], None] | None = None,
) -> list[FitRecord]:
    """Fit a plan to a source: a record for each response.

    deliver: what is done with the records before the checkpoint is removed; it stays where that fails.
    """
    with one_blas_thread():
        fitting = _Fitting(plan, source, engine, reporter)
        try:
            records = fitting.run()
            fitting.close()
            if deliver is not None:
                deliver(records)
            if fitting.log is not None:
                fitting.log.remove()
            return records
        finally:
            fitting.close()


class _Fitting:
    """One fit under way."""

    def __init__(self, plan: Plan, source: Source, engine: Engine, reporter: Reporter | None) -> None:
        self.plan, self.source, self.engine, self.reporter = plan, source, engine, reporter
        settle(source, _texts(plan), engine)
        self.kinds = sources.kinds(source)
        self.terms = _parse(plan, self.kinds)
        self.reading = reading_of(plan, self.terms, self.kinds, source.matrix_names)
        formula.require_columns(plan.clusters, self.source.types, "covariance=Cluster")
        self.opened: list[Partitions[Any]] = []
        self.log: Log | None = None

    def close(self) -> None:
        """Give up whatever is kept."""
        for partitions in self.opened:
            partitions.release()
        self.opened = []
        if self.reporter is not None:
            self.reporter.end()
            self.reporter = None

    def run(self) -> list[FitRecord]:
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
            raise DataError(nothing_left(profile.ledger, self.plan))
        design = Design.learn(
            self.terms, profile, self.source.ordered, self.reading.response_name, self.source.matrix_names,
            _classes(self.plan),
        )  # fmt: skip
        if not design.names:
            raise DesignError(f"the formula {self.terms.text!r} has no columns and no intercept: nothing to estimate")
        model = model_of(replace(self.plan, family=_sized(self.plan)), design)
        self._size(size_of(model, design, kind_of(self.plan.covariance, self.plan.weights) == "model"))
        if rows.keep == "memory" and client_for(self.source, self.engine) is None:
            require_columns_kept(design, profile.n, self.engine.memory_limit or memory_limit())
        rows.expect(_tables(model) * record_bytes(design.layout, profile.pairs, self.plan.meat))
        blocks = columns.consumed(design.encode)
        self.opened.append(blocks)
        pilots = None if sample is None else sample.consumed(design.encode)
        if pilots is not None:
            self.opened.append(pilots)
        pruned = self.source.pruned_rows
        ledger = replace(profile.ledger, read=profile.ledger.read + pruned, filtered=profile.ledger.filtered + pruned)
        told = None if self.reporter is None or self.terms.several else self.reporter.deviance

        def one(k: int, rows_of: Partitions[Any], sample_of: Partitions[Any] | None) -> FitRecord:
            """The record of the k-th response."""
            weighted, offset = self.reading.weight is not None, self._has_offset()
            mean_weight = mean_weight_of(self.plan, profile)
            estimation = Estimation(
                self.plan, design, rows_of, sample_of, profile.n, offset=offset, weighted=weighted, say=self._say,
                told=told, keep=self.opened.append, mean_weight=mean_weight,
            )  # fmt: skip
            found = estimation.run()
            specification = self._specification(found.plan, k)
            context = Context(found.plan, specification, ledger, weighted, offset, mean_weight)
            return record_of(context, found.solution, found.null, found.beside)

        if not self.terms.several:
            records = [one(0, blocks, pilots)]
        else:
            batch = Together()
            views = [
                (batch.of(blocks, k), batch.of(pilots, k) if pilots is not None else None) for k in self._responses
            ]
            records = batch.run([partial(one, k, *views[k]) for k in self._responses])
        for record in records:
            warn(record)
        return records

    @property
    def _responses(self) -> range:
        return range(len(self.terms.response) if self.terms.several else 1)

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
            raise DataError("the data have no rows" + (f" where {plan.where}" if plan.where else ""))
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
        return Log(self.plan.checkpoint, digest(plan), data, _functions(plan))

    def _sampler(self, rows: Partitions[Any]) -> Callable[[Columns], Columns] | None:
        """How the pilot's rows are taken, a function of the data alone."""
        n = rows.rows
        if _quadratic(self.plan) or self.plan.start is not None:
            return None
        if n is None:
            return SampleLeaf(estimating.SAMPLE_FRACTION, max(SAMPLE_ROWS // rows.n_leaves, 1))
        return None if n < estimating.PILOT_ROWS else SampleLeaf(min(estimating.SAMPLE_FRACTION, SAMPLE_ROWS / n))

    def _has_offset(self) -> bool:
        return bool(self.reading.offsets) or self.reading.exposure is not None

    def _say(self, phase: str) -> None:
        if self.opened:
            self.opened[0].enter(phase)
        if self.reporter is not None:
            self.reporter.phase(phase)

    def _size(self, size: Size) -> None:
        """Refuse what does not fit in the memory of this process, and announce what is large."""
        size.require(self.engine.memory_limit or memory_limit())
        if size.is_large:
            logging.getLogger("daskglm").info("%s", size)
            if self.reporter is not None:
                self.reporter.size(size)

    def _specification(self, plan: Plan, k: int) -> Specification:
        """The model of the k-th response in names."""
        reading = self.reading
        weights = None
        if plan.weights is not None:
            weights = (type(plan.weights).__name__.lower(), str(plan.weights.column))
        used = dict.fromkeys(reading.of_model)
        right = [*(variable.expression for variable in self.terms.variables), *self.terms.offsets]
        return Specification(
            formula=self.terms.text,
            family=plan.family.text,
            link=plan.link.name,
            kinds={name: self.kinds[name] for name in used},
            response=self.terms.response[k].text if self.terms.several else reading.response_name,
            weights=weights,
            offset=_text(plan.offset),
            exposure=_text(plan.exposure),
            trials=_text(plan.trials),
            covariance=plan.covariance if isinstance(plan.covariance, str) else plan.covariance.text,
            dispersion=plan.dispersion,
            missing=plan.missing,
            unseen=plan.unseen,
            where=plan.where,
            predictors=tuple(dict.fromkeys(c for e in right for c in e.columns)),
            response_kind=plan.family.response,
            separation=plan.separation,
        )


def _texts(plan: Plan) -> tuple[Any, ...]:
    """Whatever of a plan names columns."""
    weights = None if plan.weights is None else plan.weights.column
    return (plan.formula, weights, plan.offset, plan.exposure, plan.trials, plan.where, *plan.clusters)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else str(value)


def _parse(plan: Plan, kinds: Mapping[str, Any]) -> Terms:
    if plan.formula is None:
        raise DesignError("a formula is needed")
    terms = formula.parse(plan.formula, kinds)
    formula.check_names(plan.formula, kinds)
    own = terms.response[0].text if len(terms.response) == 1 else None
    if any(len(term.variables) == 1 and term.name == own for term in formula.terms_of(terms)):
        message = f"the response {own!r} is on the right side of {plan.formula!r}, too, and is dropped there"
        warn_caller(message, UserWarning)
        name = f"`{own}`" if own in kinds else own
        return formula.parse(f"{plan.formula} - {name}", kinds)
    return terms


def _functions(plan: Plan) -> dict[str, Probe]:
    """The functions of one's own that the family and the link are made of, by their part in them."""
    return {
        f"{option} of the {kind} {part.name}": probe
        for kind, part in (("family", plan.family), ("link", plan.link))
        if isinstance(part, UserDefined)
        for option, probe in part.probes.items()
    }


def mean_weight_of(plan: Plan, profile: Profile) -> float:
    """The mean of probability weights, whose unit has no meaning; 1 for every other kind of weight."""
    return profile.weight / profile.n if isinstance(plan.weights, Probability) else 1.0


def reading_of(plan: Plan, terms: Terms, kinds: Mapping[str, Any], matrix: tuple[str, ...] = ()) -> Reading:
    """What to read of the table for this plan; matrix: names of the columns of its sparse matrix."""
    response = terms.response
    text = plan.formula or ""
    name = text[: len(text) - len(formula.right_side(text))].rstrip("~ ").strip()
    levels = plan.family.response != "number"
    if len(response) == 1 and response[0].is_text(kinds):
        if not plan.family.bounded:
            raise DesignError(
                f'the response "{name}" is text, which the {plan.family.name} family cannot be fitted to: '
                "a two-level response is binomial, one of several levels multinomial or ordinal"
            )
        levels = True
    if terms.several:
        _refuse_several(plan, levels)
    elif len(response) == 2 and (not plan.family.bounded or plan.family.response != "number"):
        raise DesignError(f"cbind(successes, failures) is for the binomial family, not for {plan.family.name}")
    trials, weight = None, None
    if plan.trials is not None:
        trials = _column(plan.trials, kinds, "trials")
    if isinstance(plan.weights, Trials):
        trials = _column(plan.weights.column, kinds, "weights")
    elif plan.weights is not None:
        weight = _column(plan.weights.column, kinds, "weights")
    if trials is not None and len(response) == 2 and not terms.several:
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
        several=terms.several,
        clusters=plan.clusters,
    )  # fmt: skip


def _refuse_several(plan: Plan, levels: bool) -> None:
    if levels:
        raise DesignError(
            f"responses(...) takes numbers, one model for each: not classes of the {plan.family.name} family"
        )
    if plan.trials is not None:
        raise DesignError('several responses are no counts out of trials=: give proportions and weights=dg.Trials("n")')
    if plan.start is not None:
        raise DesignError("start= is for one response")


def _column(value: Any, kinds: Mapping[str, Any], option: str) -> Expression:
    if not isinstance(value, str):
        way = (
            ""
            if isinstance(value, (int, float))
            else f': add it to data= as a column, and name that with {option}="..."'
        )
        raise DesignError(f"{option}= takes the name of a column or an expression, not {type(value).__name__}{way}")
    return formula.numeric(value, kinds)


def nothing_left(ledger: Any, plan: Plan) -> str:
    """Why no row is left, in a sentence."""
    if not ledger.read:
        return "the data have no rows"
    parts = []
    if ledger.filtered:
        parts.append(f"{ledger.filtered} do not match where={plan.where!r}")
    if ledger.missing_rows:
        worst = max(ledger.missing, key=lambda name: ledger.missing[name])
        parts.append(f'{ledger.missing_rows} miss a value ("{worst}" in {ledger.missing[worst]})')
    if ledger.zero_weight:
        parts.append(f"{ledger.zero_weight} have weight 0")
    return f"no row is left of {ledger.read}: {', '.join(parts)}"
