"""Predictions: a map over leaves, one row out for every row in, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from daskglm.cluster import sources
from daskglm.cluster.engine import open_scored
from daskglm.cluster.sources import Source
from daskglm.cluster.tables import filtered_leaf
from daskglm.design import formula
from daskglm.design.columns import Columns
from daskglm.design.expressions import Expression, parse_filter, to_arrow
from daskglm.design.reading import Reading
from daskglm.errors import ConvergenceWarning, DataError, DesignError, closest, warn
from daskglm.inference import distributions
from daskglm.kernels import reference
from daskglm.kernels.blocks import Block
from daskglm.kernels.bordered import LowRank
from daskglm.kernels.products import Pieces, Workspace, gather, quadratic_form
from daskglm.model.pairs import likelihood_of
from daskglm.model.predictive import distribution, hermite, predictive_quantile
from daskglm.record import FitRecord
from daskglm.totals.moments import Model
from daskglm.totals.residualised import working_block, working_scaling, working_select
from daskglm.totals.separation import movement
from daskglm.totals.vector import Limit, Rows, choices, class_model

Vector = npt.NDArray[np.float64]
Kind = Literal["mean", "link", "terms", "canonical"]
KINDS = ("mean", "link", "terms", "canonical")
# What they are called elsewhere.
KINDS_ELSEWHERE = {
    **dict.fromkeys(("response", "prob", "probs", "probability", "mu", "fitted"), "mean"),
    **dict.fromkeys(("linear", "lp", "eta", "linear_predictor"), "link"),
}
Interval = Literal["confidence", "prediction"]

# Rows of X written out at a time where standard errors are asked for.
ROWS_IN_FULL = 2_048
# Why a row has no prediction, other than by a missing value.
UNSEEN_LEVEL, NO_ESTIMATE = " (unseen level)", "no finite estimate"
# What can be done about levels that a model has not seen.
UNSEEN = ("raise", "baseline", "missing")
# What leaves a model's linear predictor without its offset, or its exposure.
NEUTRAL = {"offset": 0, "exposure": 1}


@final
@dataclass(frozen=True)
class Prediction:
    """What to predict: the kind, whether with standard errors, an interval and its level; terms that
    are left out; unseen: the policy for levels that the model has not seen, None for the fitted one;
    where: a filter, NaN for rows that do not pass.
    """

    kind: Kind = "mean"
    se: bool = False
    interval: Interval | None = None
    level: float = 0.95
    without: tuple[str, ...] = ()
    unseen: str | None = None
    where: str | None = None


def result_columns(record: FitRecord, prediction: Prediction) -> tuple[str, ...]:
    """Names of the columns of a prediction; of classes one per class, then "se[class]", "lower[class]", "upper[class]"."""
    parameters = record.parameters
    if prediction.kind == "mean" and parameters.kind != "number":
        extra = ["se"] * prediction.se + ["lower", "upper"] * bool(prediction.interval)
        return parameters.classes + tuple(f"{name}[{label}]" for name in extra for label in parameters.classes)
    if prediction.kind == "link" and parameters.kind == "classes":
        return parameters.classes[1:]
    if prediction.kind == "canonical" and parameters.kind != "number":
        return parameters.classes[1:]
    if prediction.kind == "terms":
        return tuple(t for t in record.design.terms if t != "Intercept" and t not in prediction.without)
    names: list[str] = [prediction.kind]
    if prediction.se:
        names.append("se")
    if prediction.interval:
        names += ["lower", "upper"]
    return tuple(names)


@final
@dataclass(frozen=True)
class Tally:
    """Rows in the output, and those without a prediction.

    reasons: rows by the column that is missing, of which a row can have several.
    """

    rows: int = 0
    missing: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """How many rows have no prediction, and why, in a sentence; nothing where all have one."""
        if not self.missing:
            return ()
        why = ", ".join(f"{name}: {count:,}" for name, count in self.reasons.items())
        return (f"{self.missing:,} of {self.rows:,} rows have no prediction ({why})",)

    def __add__(self, other: Tally) -> Tally:
        reasons = dict(self.reasons)
        for name, count in other.reasons.items():
            reasons[name] = reasons.get(name, 0) + count
        return Tally(self.rows + other.rows, self.missing + other.missing, reasons)


@final
@dataclass(frozen=True)
class Scorer:
    """A fitted model ready to score leaves: columns of the result by name, NaN where a needed value is missing."""

    record: FitRecord
    prediction: Prediction
    reading: Reading
    likelihood: Any
    condition: Any = None
    filter_columns: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns of the data that are read."""
        return tuple(dict.fromkeys((*self.reading.columns, *self.filter_columns)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the result's columns."""
        return result_columns(self.record, self.prediction)

    def score(self, leaf: Any) -> dict[str, Vector]:
        """The result for one leaf's rows, each (n,)."""
        return self.tallied(leaf)[0]

    def tallied(self, leaf: Any) -> tuple[dict[str, Vector], Tally]:
        """The result for one leaf's rows, each (n,), and how many of them there are."""
        if self.condition is not None:
            return self._tallied_where(leaf)
        columns = self.reading.read(leaf)
        n = leaf.table.num_rows
        design = self.record.design
        unseen = self.prediction.unseen or self.record.specification.unseen
        try:
            block = design.encode(columns, "baseline" if unseen == "missing" else unseen)
        except DataError as error:
            raise DataError(f"{leaf.label}: {error}") from None
        if self.prediction.kind == "terms":
            values = self._terms(block, columns)
        else:
            values = self._scores(block) if self.record.parameters.kind == "number" else self._classes(block)
        reasons = {name: count for name, count in columns.ledger.missing.items() if count}
        unscored = np.zeros(columns.n, bool)
        if unseen == "missing":
            for name, strange in design.unseen_by_factor(columns).items():
                reasons[f"{name}{UNSEEN_LEVEL}"] = int(strange.sum())
                unscored |= strange
            for value in values.values():
                value[unscored] = np.nan
        first = next(iter(values.values()), np.zeros(columns.n))
        nowhere = np.isnan(first) & ~unscored
        if nowhere.any():
            reasons[NO_ESTIMATE] = int(nowhere.sum())
        tally = Tally(n, n - columns.n + int((unscored | nowhere).sum()), reasons)
        if columns.kept is None:
            return values, tally
        result = {}
        for name, value in values.items():
            result[name] = np.full(n, np.nan)
            result[name][columns.kept] = value
        return result, tally

    def _tallied_where(self, leaf: Any) -> tuple[dict[str, Vector], Tally]:
        """The same where a filter asks for some of the rows: NaN for the others."""
        passing = filtered_leaf(leaf, self.condition)
        values, tally = replace(self, condition=None).tallied(passing)
        n, place = leaf.table.num_rows, passing.numbers - leaf.first
        left_out = n - place.size
        reasons = {**tally.reasons, **({f"where={self.prediction.where!r}": left_out} if left_out else {})}
        result = {}
        for name, value in values.items():
            result[name] = np.full(n, np.nan)
            result[name][place] = value
        return result, Tally(n, tally.missing + left_out, reasons)

    # -- the linear predictor --------------------------------------------------------------------------------------

    def _raw(self, reported: Vector, left_out: Any) -> Vector:
        """Coefficients of the scaled raw columns from the user's (p,), without those `left_out` (p,)."""
        return self._placed(self.record.parameters.own(np.where(left_out, 0.0, reported)))

    def _reduced(self, scaled: Vector, left_out: Any) -> Vector:
        """The arithmetic's own coefficients (r,) less what they have of parameters that are left out (r,)."""
        parameters = self.record.parameters
        if not left_out.any():
            return scaled
        return np.asarray(scaled - parameters.own(np.where(left_out, parameters.coefficients(scaled), 0.0)))

    def _placed(self, coef: Vector) -> Vector:
        """Scaled coefficients at their raw columns; the slopes of an ordinal model are those of all but the intercept."""
        design = self.record.design
        raw = np.zeros(design.width)
        raw[design.select[len(design.names) - coef.size :]] = coef
        return raw

    def _left_out(self) -> Any:
        """Parameters of terms that are left out (r,)."""
        return np.array([term in self.prediction.without for term in self.record.parameters.term_of], bool)

    def _predictor(self, block: Block, eta: Vector, left_out: Any) -> Vector:
        """eta (n,) + x'b, -infinity or infinity where a direction of an infinite optimum moves the row."""
        scaling, separation = self.record.design.scaling, self.record.separation
        pieces = Pieces.of(block, scaling)
        gather(pieces, Workspace(pieces), self._placed(self._reduced(self.record.scaled, left_out)), 0, block.n, eta)
        # the first direction that moves a row has the last word
        for direction in [] if separation is None else separation.directions[::-1]:
            moved = movement(block, scaling, self._raw(direction, left_out))
            end = np.nan if separation is not None and separation.dropped else np.sign(moved[moved != 0.0]) * np.inf
            eta[moved != 0.0] = end
        return eta

    def _scores(self, block: Block) -> dict[str, Vector]:
        eta = np.zeros(block.n) if block.offset is None else np.array(block.offset, np.float64)
        eta = self._predictor(block, eta, self._left_out())
        with np.errstate(all="ignore"):
            mean, slope, _ = self.likelihood.link.inverse(eta, False)
        if self.prediction.kind == "canonical":
            return {"canonical": self._canonical(eta, mean)}
        result: dict[str, Vector] = {self.prediction.kind: mean if self.prediction.kind == "mean" else eta}
        if self.prediction.se or self.prediction.interval:
            error = np.where(np.isfinite(eta), self._errors(block), np.nan)
            if self.prediction.se:
                # a mean at the end of its range stays there
                with np.errstate(all="ignore"):
                    of_mean = np.where(np.isinf(eta), 0.0, error * np.abs(slope))
                result["se"] = error if self.prediction.kind == "link" else of_mean
            if self.prediction.interval:
                of_what = self._limits_of_new if self.prediction.interval == "prediction" else self._limits
                weight = np.ones(block.n) if block.weight is None else np.asarray(block.weight, np.float64)
                result["lower"], result["upper"] = of_what(eta, error, weight)
        return result

    def _canonical(self, eta: Vector, mean: Vector) -> Vector:
        """theta = Psi(mu) (n,); under the canonical link a multiple of the linear predictor."""
        family = self.likelihood.family
        if self.likelihood.canonical:
            return np.asarray(family.canonical_scale * eta)
        with np.errstate(all="ignore"):
            return np.asarray(family.natural_parameter(mean))

    def _classes(self, block: Block) -> dict[str, Vector]:
        """Probabilities of all classes, or linear predictors, with what goes with them."""
        parameters, likelihood, prediction = self.record.parameters, self.likelihood, self.prediction
        own = self._reduced(self.record.scaled, self._left_out())
        offset = np.zeros(block.n) if block.offset is None else np.array(block.offset, np.float64)
        pieces = Pieces.of(block, self.record.design.scaling)
        q = likelihood.q
        slopes = own.reshape(q, -1) if parameters.kind == "classes" else own[None, q:]
        eta = np.stack([offset.copy() for _ in slopes])
        for a, coef in enumerate(slopes):
            gather(pieces, Workspace(pieces), self._placed(coef), 0, block.n, eta[a])
        if prediction.kind == "link":
            for a, end in self._ends(block):
                eta[a] = np.where(end > 0.0, np.inf, np.where(end < 0.0, -np.inf, eta[a]))
            if parameters.kind == "classes":
                return dict(zip(parameters.classes[1:], eta, strict=True))
            # x'b of the columns as they are: thresholds carry the shift between them and the scaled ones
            shift = parameters.coefficients(np.concatenate([np.zeros(q), own[q:]]))[-q]
            return {"link": eta[0] + shift}
        possible = self._possible(block)
        with np.errstate(all="ignore"):
            if parameters.kind == "classes":
                chance = likelihood.probabilities(eta, possible)
            else:
                chance = likelihood.probabilities(eta[0], own[:q], possible)
        if prediction.kind == "canonical":
            with np.errstate(all="ignore"):
                theta = np.log(chance[1:]) - np.log(chance[0])
            return dict(zip(parameters.classes[1:], theta, strict=True))
        result = dict(zip(parameters.classes, chance, strict=True))
        if prediction.se or prediction.interval:
            error = self._class_errors(block, eta, own, chance, possible)
            if prediction.se:
                result |= {f"se[{label}]": e for label, e in zip(parameters.classes, error, strict=True)}
            if prediction.interval:
                result |= self._class_limits(chance, error)
        return result

    def _own_directions(self) -> list[Vector]:
        """Directions of an infinite optimum in the arithmetic's own coefficients (r,)."""
        separation, left_out = self.record.separation, self._left_out()
        directions: Any = () if separation is None else separation.directions
        return [self.record.parameters.own(np.where(left_out, 0.0, direction)) for direction in directions]

    def _possible(self, block: Block) -> npt.NDArray[np.bool_] | None:
        """Classes (K, n) that remain at the end of an infinite optimum, None where all do."""
        design = self.record.design
        limits = tuple(Limit(direction) for direction in self._own_directions())
        model = class_model(self.likelihood, design.select, design.width, design.scaling, limits=limits)
        pieces = Pieces.of(block, design.scaling)
        return choices(Rows(pieces, Workspace(pieces), design.scaling, 0, block.n), model, limits)

    def _ends(self, block: Block) -> Iterator[tuple[int, Vector]]:
        """Which way each linear predictor goes for good (n,), 0 where it stays."""
        q, number = self.likelihood.q, self.record.parameters.kind == "classes"
        pieces = self._own_directions()
        for a in range(q if number else 1):
            end = np.zeros(block.n)
            for direction in pieces:
                slopes = direction.reshape(q, -1)[a] if number else direction[q:]
                end = np.where(end == 0.0, movement(block, self.record.design.scaling, self._placed(slopes)), end)
            yield a, end

    def _class_errors(
        self,
        block: Block,
        eta: npt.NDArray[Any],
        own: Vector,
        chance: npt.NDArray[Any],
        possible: npt.NDArray[np.bool_] | None,
    ) -> npt.NDArray[Any]:
        """Standard errors of the probabilities (K, n), by the delta method; 0 of those that are 0 or 1 for good."""
        parameters, likelihood, design = self.record.parameters, self.likelihood, self.record.design
        covariance = self._covariance()
        scaling, select = design.scaling, design.select[len(design.names) - len(parameters.columns) :]
        result = np.empty_like(chance)
        for start in range(0, block.n, ROWS_IN_FULL):
            rows = block.rows(start, min(start + ROWS_IN_FULL, block.n))
            stop = start + rows.n
            x = reference.matrix(rows, scaling)[:, select]
            for k in range(likelihood.classes):
                if parameters.kind == "classes":
                    slope = -chance[1:, start:stop] * chance[k, start:stop]
                    if k:
                        slope[k - 1] += chance[k, start:stop]
                    jacobian = np.hstack([one[:, None] * x for one in slope])
                else:
                    of_thresholds = np.zeros((rows.n, likelihood.q))
                    there = None if possible is None else possible[:, start:stop]
                    with np.errstate(all="ignore"):
                        densities = likelihood.slopes(eta[0, start:stop], own[: likelihood.q], there)
                    if k < likelihood.q:
                        of_thresholds[:, k] = densities[k]
                    if k:
                        of_thresholds[:, k - 1] = -densities[k - 1]
                    jacobian = np.hstack([of_thresholds, -of_thresholds.sum(axis=1)[:, None] * x])
                variance = np.einsum("ij,ij->i", jacobian @ covariance, jacobian)
                result[k, start:stop] = np.sqrt(np.maximum(variance, 0.0))
        return result

    def _class_limits(self, chance: npt.NDArray[Any], error: npt.NDArray[Any]) -> dict[str, Vector]:
        """Limits built on the logit of each probability and mapped back."""
        quantile = distributions.quantile(self.record.statistics, self.prediction.level)
        with np.errstate(all="ignore"):
            logit, half = np.log(chance) - np.log1p(-chance), quantile * error / (chance * (1.0 - chance))
            low, high = 1.0 / (1.0 + np.exp(half - logit)), 1.0 / (1.0 + np.exp(-half - logit))
        # a probability at the end of its range stays there
        ends = (chance == 0.0) | (chance == 1.0)
        low, high = np.where(ends, chance, low), np.where(ends, chance, high)
        labels = self.record.parameters.classes
        return {f"lower[{label}]": v for label, v in zip(labels, low, strict=True)} | {
            f"upper[{label}]": v for label, v in zip(labels, high, strict=True)
        }

    def _covariance(self) -> npt.NDArray[Any]:
        """Of the coefficients on their working scale (r, r), zero where there is no estimate."""
        covariance, basis = self.record.working.covariance, self.record.working.basis
        left_out = self._left_out()
        if not left_out.any():
            return covariance
        way = np.empty_like(covariance)
        for one, unit in zip(way.T, np.eye(len(way)), strict=True):
            reduced = self._reduced(unit if basis is None else basis.scaled(unit)[0], left_out)
            one[:] = reduced if basis is None else basis.coefficients((reduced, np.zeros_like(reduced)))
        return np.asarray(way @ covariance @ way.T)

    def _errors(self, block: Block) -> Vector:
        """sqrt(x' C x) for every row, with C the covariance of the coefficients on their working scale."""
        held = self.record.working.held
        if isinstance(held, LowRank) and not self.prediction.without:
            return self._errors_of_low_rank(block, held)
        design, basis = self.record.design, self.record.working.basis
        select, scaling, rows = design.select, design.scaling, block
        if basis is not None:
            rows = working_block(block, Model(self.likelihood, select, design.width, scaling), basis)
            select, scaling = working_select(select, scaling, basis), working_scaling(scaling, basis)
        raw = np.zeros((rows.width, rows.width))
        raw[np.ix_(select, select)] = self._covariance()
        return np.sqrt(np.maximum(quadratic_form(rows, scaling, raw), 0.0))

    def _errors_of_low_rank(self, block: Block, held: LowRank) -> Vector:
        """The same of C = diag(d) + H H', sqrt(sum d x^2 + |H'x|^2): of the columns of d, the
        levels of a factor, a row has one that is not zero.
        """
        pieces = Pieces.of(block, self.record.design.scaling)
        workspace, result = Workspace(pieces), np.zeros(block.n)
        for column in (np.sqrt(held.diagonal), *held.half.T):
            part = np.zeros(block.n)
            gather(pieces, workspace, self._placed(column), 0, block.n, part)
            result += part * part
        return np.sqrt(result)

    def _limits_of_new(self, eta: Vector, error: Vector, weight: Vector) -> tuple[Vector, Vector]:
        """Where a new y lies: mu -+ t sqrt(phi / w + se^2) of gaussian models with the identity link; otherwise quantiles of
        the distribution averaged over a linear predictor that is normal about eta with its error, at the reported phi.
        """
        level, phi = self.prediction.level, new_dispersion(self.record)
        family = self.record.family
        if self.likelihood.quadratic:
            half = distributions.quantile(self.record.statistics, level) * np.sqrt(phi / weight + error * error)
            return eta - half, eta + half
        nodes, chances = hermite()
        low, high = np.empty(eta.size), np.empty(eta.size)
        for start in range(0, eta.size, ROWS_IN_FULL):
            rows = slice(start, start + ROWS_IN_FULL)
            about = eta[rows] + nodes[:, None] * np.where(np.isfinite(error[rows]), error[rows], 0.0)
            means = np.stack([self.likelihood.mean_range_of(one, one)[0] for one in about])
            for tail, out in ((0.5 - 0.5 * level, low), (0.5 + 0.5 * level, high)):
                out[rows] = predictive_quantile(family, tail, means, chances, weight[rows], phi)
        return low, high

    def _limits(self, eta: Vector, error: Vector, weight: Vector) -> tuple[Vector, Vector]:
        """eta -+ q se, mapped back to the mean where that is what was asked for."""
        quantile = distributions.quantile(self.record.statistics, self.prediction.level)
        low, high = eta - quantile * error, eta + quantile * error
        if self.prediction.kind == "link":
            return low, high
        with np.errstate(all="ignore"):
            first, second = self.likelihood.mean_range_of(low, high)
        return np.minimum(first, second), np.maximum(first, second)

    def _terms(self, block: Block, columns: Columns) -> dict[str, Vector]:
        """Each term's part of the linear predictor (not centred)."""
        terms = np.array(self.record.parameters.term_of)
        return {name: self._predictor(block, np.zeros(block.n), terms != name) for name in self.columns}


def _meant(kind: object) -> str:
    """' (did you mean "mean"?)' for a kind of prediction that there is not."""
    return closest(KINDS_ELSEWHERE.get(str(kind), kind), KINDS)


def scorer(
    record: FitRecord, prediction: Prediction, source: Source, offset: Any = None, exposure: Any = None
) -> Scorer:
    """A scorer for a source, whose columns are checked against what the model needs."""
    specification, design = record.specification, record.design
    likelihood = likelihood_of(record.family, record.link, len(design.y_levels))
    several = specification.response_kind != "number"
    if several and prediction.kind == "terms":
        raise DesignError('type="terms" is for one linear predictor: ask for "mean" or "link"')
    if several and prediction.kind == "link" and (prediction.se or prediction.interval):
        raise DesignError("errors of a model of classes are those of its probabilities: leave type= out")
    if prediction.kind not in KINDS:
        listed = ", ".join(f'"{kind}"' for kind in KINDS)
        raise DesignError(f"type={prediction.kind!r} is not one of {listed}{_meant(prediction.kind)}")
    if prediction.interval not in (None, "confidence", "prediction"):
        raise DesignError(f'interval must be "confidence", "prediction" or None, not {prediction.interval!r}')
    if prediction.kind in ("terms", "canonical") and (prediction.se or prediction.interval):
        raise DesignError(f'type="{prediction.kind}" has no errors: ask for "mean" or "link"')
    if not 0.0 < prediction.level < 1.0:
        raise DesignError(f"level must be between 0 and 1, not {prediction.level!r}")
    if prediction.interval == "prediction":
        _check_new(record, prediction)
    if prediction.unseen not in (None, *UNSEEN):
        listed = ", ".join(f'"{choice}"' for choice in UNSEEN)
        raise DesignError(f"unseen={prediction.unseen!r} is not one of {listed}{closest(prediction.unseen, UNSEEN)}")
    for name in prediction.without:
        if name not in design.terms:
            raise DesignError(f"the model has no term {name!r}{closest(name, design.terms)}: {', '.join(design.terms)}")
    right = "~" + formula.right_side(specification.formula)
    kinds: Any = {name: specification.kinds[name] for name in specification.predictors}
    terms = formula.parse(right, kinds, require_response=False)
    sources.match_folders(source, specification.kinds)
    found = sources.kinds(sources.as_fitted(source, specification.kinds))
    matrix = () if design.matrix is None else design.matrix.columns
    reading = _reading(terms, specification, offset, exposure, found, matrix)
    if prediction.interval == "prediction":
        reading = _weighed(reading, specification, found)
    formula.require_columns(reading.columns, found, "the model")
    sources.refuse_other_kinds(source, specification.kinds, reading.columns)
    if matrix and len(source.matrix_names) != len(matrix):
        raise DesignError(f"the model needs {len(matrix)} columns, X has {len(source.matrix_names)}")
    if prediction.where is None:
        return Scorer(record, prediction, reading, likelihood)
    if not isinstance(prediction.where, str):
        kind = type(prediction.where).__name__
        raise DesignError(f"where= is a filter written as text, such as 'x > 0', not {kind}")
    where = parse_filter(prediction.where)
    formula.require_columns(where.columns, source.types, f"where={prediction.where!r}")
    return Scorer(record, prediction, reading, likelihood, to_arrow(where, source.types), where.columns)


def warn_unconverged(record: FitRecord) -> None:
    """Warn of predictions by a model that did not converge."""
    if not record.converged:
        warn(
            f"the model did not converge ({record.reason}): its predictions are not those of the optimum",
            ConvergenceWarning,
        )


def _check_new(record: FitRecord, prediction: Prediction) -> None:
    """Whether a new y has a distribution."""
    if record.specification.response_kind != "number":
        raise DesignError(
            "a new y of a model of classes is one of them: their probabilities are its prediction interval"
        )
    if prediction.kind != "mean":
        raise DesignError('interval="prediction" is for a new y, on the scale of the mean: leave type= out')
    distribution(record.family)
    if record.family.discrete and record.statistics.scale != 1.0:
        raise DesignError(
            f"with a dispersion of {record.statistics.scale:.3g} the {record.family.name} family is no distribution of counts: "
            'use "negative_binomial", or interval="confidence"'
        )
    if not new_dispersion(record) > 0.0:
        raise DesignError("the dispersion is not positive, so a new y has no prediction interval")


def new_dispersion(record: FitRecord) -> float:
    """phi of a new y: that of the density where it was estimated beside the coefficients, the reported one otherwise."""
    return record.shape["dispersion"][0] if "dispersion" in record.shape else record.statistics.scale


def _weighed(reading: Reading, specification: Any, found: Mapping[str, Any]) -> Reading:
    """With what a new y weighs: its variance weight and its trials, which are columns of the new rows."""
    kind, column = specification.weights or ("", "")
    needed = column if kind in ("variance", "trials") else None
    formula.require_arrays({"weights": needed, "trials": specification.trials}, found)
    weight = formula.numeric(column, found) if kind == "variance" else None
    trials = None
    if specification.trials is not None or kind == "trials":
        trials = formula.numeric(specification.trials or column, found)
    elif specification.response.startswith("cbind("):
        raise DesignError(
            "a new y of cbind(successes, failures) needs its number of trials: fit the model with trials= or dg.Trials"
        )
    return replace(reading, weight=weight, trials=trials)


def _reading(
    terms: Any, specification: Any, offset: Any, exposure: Any, found: Mapping[str, Any], matrix: tuple[str, ...]
) -> Reading:
    for name, value in (("offset", offset), ("exposure", exposure)):
        if value is not None and not isinstance(value, (str, int, float)):
            raise DesignError(f"{name}= takes a number, a column or an expression, not {type(value).__name__}")
        if value is None and getattr(specification, name) == name and name not in found:
            raise DesignError(
                f'the model was fitted with {name}=: give {name}= for these rows too, or a column "{name}" of their table; '
                f"{name}={NEUTRAL[name]} leaves it out"
            )
    offsets: list[Expression] = []
    constant = 0.0
    if offset is None:
        offsets = list(terms.offsets)
        if specification.offset is not None:
            offsets.append(formula.numeric(specification.offset, found))
    elif isinstance(offset, (int, float)):
        constant = float(offset)
    else:
        offsets.append(formula.numeric(offset, found))
    given: Expression | float | None = None
    if exposure is not None and specification.exposure is None:
        raise DesignError("the model was fitted without an exposure: leave exposure= out, or use offset=")
    if isinstance(exposure, (int, float)):
        if exposure <= 0:
            raise DesignError(f"exposure must be positive, not {exposure!r}")
        given = float(exposure)
    elif exposure is not None or specification.exposure is not None:
        given = formula.numeric(exposure or specification.exposure, found)
    if constant:
        from daskglm.design.expressions import parse

        offsets.append(parse(repr(constant)))
    return Reading(
        terms.variables, (), (), "", False, None, "", None, None, tuple(offsets), given, scoring=True, matrix=matrix
    )


def predictions(score: Scorer, source: Source, threads: int | None = None) -> Iterator[tuple[dict[str, Vector], Tally]]:
    """Results of the source's leaves, in order, with the rows that have one and those without."""
    source.select(score.needed or _any_column(source))
    partitions = open_scored(source, score.needed, threads)
    try:
        yield from partitions.map(score.tallied)
    finally:
        partitions.release()


def _any_column(source: Source) -> Sequence[str]:
    return list(source.types)[:1]


def predict(
    record: FitRecord, source: Source, prediction: Prediction, offset: Any, exposure: Any, threads: int | None = None
) -> dict[str, Vector]:
    """All of a source's predictions at once, each (n,)."""
    return tallied(record, source, prediction, offset, exposure, threads)[0]


def tallied(
    record: FitRecord, source: Source, prediction: Prediction, offset: Any, exposure: Any, threads: int | None = None
) -> tuple[dict[str, Vector], Tally]:
    """All of a source's predictions at once, each (n,), and how many rows have none."""
    score = scorer(record, prediction, source, offset, exposure)
    parts, tally = [], Tally()
    for part, one in predictions(score, source, threads):
        parts.append(part)
        tally += one
    empty = np.zeros(0)
    return {name: np.concatenate([part[name] for part in parts] or [empty]) for name in score.columns}, tally
