"""Predictions: a map over leaves, one row out for every row in, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from daskglm.cluster import sources
from daskglm.cluster.local import open_partitions
from daskglm.cluster.sources import Source
from daskglm.design import formula
from daskglm.design.columns import Columns
from daskglm.design.expressions import Expression
from daskglm.design.reading import Reading
from daskglm.errors import DataError, DesignError, closest
from daskglm.inference import distributions
from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Workspace, gather, quadratic_form
from daskglm.model.likelihoods import GLM
from daskglm.model.pairs import resolve
from daskglm.record import FitRecord
from daskglm.totals.separation import movement

Vector = npt.NDArray[np.float64]
Kind = Literal["mean", "link", "terms"]
Interval = Literal["confidence"]


@final
@dataclass(frozen=True)
class Prediction:
    """What to predict: the kind, whether with standard errors, an interval and its level; terms that are left out."""

    kind: Kind = "mean"
    se: bool = False
    interval: Interval | None = None
    level: float = 0.95
    without: tuple[str, ...] = ()


def result_columns(record: FitRecord, prediction: Prediction) -> tuple[str, ...]:
    """Names of the columns of a prediction."""
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
class Scorer:
    """A fitted model ready to score leaves: columns of the result by name, NaN where a needed value is missing."""

    record: FitRecord
    prediction: Prediction
    reading: Reading
    likelihood: GLM

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the result's columns."""
        return result_columns(self.record, self.prediction)

    def score(self, leaf: Any) -> dict[str, Vector]:
        """The result for one leaf's rows, each (n,)."""
        columns = self.reading.read(leaf)
        n = leaf.table.num_rows
        design = self.record.design
        unseen = self.record.specification.unseen
        try:
            block = design.encode(columns, "baseline" if unseen == "missing" else unseen)
        except DataError as error:
            raise DataError(f"{leaf.label}: {error}") from None
        values = self._terms(block, columns) if self.prediction.kind == "terms" else self._scores(block)
        if unseen == "missing":
            strange = design.unseen_rows(columns)
            for value in values.values():
                value[strange] = np.nan
        if columns.kept is None:
            return values
        result = {}
        for name, value in values.items():
            result[name] = np.full(n, np.nan)
            result[name][columns.kept] = value
        return result

    # -- the linear predictor --------------------------------------------------------------------------------------

    def _raw(self, coefficients: Vector, left_out: Any) -> Vector:
        """Coefficients of the scaled raw columns from the user's (p,), without those `left_out` (p,)."""
        design = self.record.design
        raw = np.zeros(design.width)
        raw[design.select] = design.unscaling().inverse().coefficients(np.where(left_out, 0.0, coefficients))
        return raw

    def _predictor(self, block: Block, eta: Vector, left_out: Any) -> Vector:
        """eta (n,) + x'b, -infinity or infinity where a direction of an infinite optimum moves the row."""
        scaling, separation = self.record.design.scaling, self.record.separation
        pieces = Pieces.of(block, scaling)
        gather(pieces, Workspace(pieces), self._raw(self.record.finite[0], left_out), 0, block.n, eta)
        # the first direction that moves a row has the last word
        for direction in [] if separation is None else separation.directions[::-1]:
            moved = movement(block, scaling, self._raw(direction, left_out))
            eta[moved != 0.0] = np.sign(moved[moved != 0.0]) * np.inf
        return eta

    def _scores(self, block: Block) -> dict[str, Vector]:
        left_out = np.array([term in self.prediction.without for term in self.record.design.term_of])
        eta = np.zeros(block.n) if block.offset is None else np.array(block.offset, np.float64)
        eta = self._predictor(block, eta, left_out)
        with np.errstate(all="ignore"):
            mean, slope, _ = self.likelihood.link.inverse(eta, False)
        result: dict[str, Vector] = {self.prediction.kind: mean if self.prediction.kind == "mean" else eta}
        if self.prediction.se or self.prediction.interval:
            error = np.where(np.isinf(eta), np.nan, self._errors(block))
            if self.prediction.se:
                # a mean at the end of its range stays there
                of_mean = np.where(np.isinf(eta), 0.0, error * np.abs(slope))
                result["se"] = error if self.prediction.kind == "link" else of_mean
            if self.prediction.interval:
                result["lower"], result["upper"] = self._limits(eta, error)
        return result

    def _errors(self, block: Block) -> Vector:
        """sqrt(x' C x) for every row, with C the covariance of the scaled coefficients."""
        design = self.record.design
        covariance = self.record.finite[1]
        dropped = np.array([term in self.prediction.without for term in design.term_of])
        covariance[dropped, :] = 0.0
        covariance[:, dropped] = 0.0
        scaled = design.unscaling().inverse().covariance(covariance)
        raw = np.zeros((design.width, design.width))
        raw[np.ix_(design.select, design.select)] = scaled
        return np.sqrt(np.maximum(quadratic_form(block, design.scaling, raw), 0.0))

    def _limits(self, eta: Vector, error: Vector) -> tuple[Vector, Vector]:
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
        terms = np.array(self.record.design.term_of)
        return {name: self._predictor(block, np.zeros(block.n), terms != name) for name in self.columns}


def scorer(
    record: FitRecord, prediction: Prediction, source: Source, offset: Any = None, exposure: Any = None
) -> Scorer:
    """A scorer for a source, whose columns are checked against what the model needs."""
    specification, design = record.specification, record.design
    family, link = resolve(specification.family, specification.link)
    if prediction.kind not in ("mean", "link", "terms"):
        raise DesignError(f'type must be "mean", "link" or "terms", not {prediction.kind!r}')
    if prediction.interval == "prediction":  # type: ignore[comparison-overlap]
        raise DesignError('interval="prediction" is not available in this version; interval="confidence" is')
    if prediction.interval not in (None, "confidence"):
        raise DesignError(f'interval must be "confidence" or None, not {prediction.interval!r}')
    if prediction.kind == "terms" and (prediction.se or prediction.interval):
        raise DesignError('type="terms" has no errors: ask for "mean" or "link"')
    if not 0.0 < prediction.level < 1.0:
        raise DesignError(f"level must be between 0 and 1, not {prediction.level!r}")
    for name in prediction.without:
        if name not in design.terms:
            raise DesignError(f"the model has no term {name!r}{closest(name, design.terms)}: {', '.join(design.terms)}")
    right = "~" + formula.right_side(specification.formula)
    kinds: Any = {name: specification.kinds[name] for name in specification.predictors}
    terms = formula.parse(right, kinds, require_response=False)
    found = sources.kinds(source)
    matrix = () if design.matrix is None else design.matrix.columns
    reading = _reading(terms, specification, offset, exposure, found, matrix)
    formula.require_columns(reading.columns, found, "the model")
    for name in reading.columns:
        # a column without a single value has no type to speak of
        nothing = str(source.types.get(name)) == "null"
        if specification.kinds.get(name, found[name]) != found[name] and not nothing:
            raise DesignError(
                f'the column "{name}" was {specification.kinds[name]} when the model was fitted and is {found[name]} now'
            )
    if matrix and len(source.matrix_names) != len(matrix):
        raise DesignError(f"the model needs {len(matrix)} columns, X has {len(source.matrix_names)}")
    return Scorer(record, prediction, reading, GLM(family, link))


def _reading(
    terms: Any, specification: Any, offset: Any, exposure: Any, found: Mapping[str, Any], matrix: tuple[str, ...]
) -> Reading:
    for name, value in (("offset", offset), ("exposure", exposure)):
        if value is not None and not isinstance(value, (str, int, float)):
            raise DesignError(f"{name}= takes a number, a column or an expression, not {type(value).__name__}")
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


def predictions(score: Scorer, source: Source, threads: int | None = None) -> Iterator[dict[str, Vector]]:
    """Results of the source's leaves, in order."""
    source.select(score.reading.columns or _any_column(source))
    partitions = open_partitions(source, score.reading.columns, "reread", threads)
    yield from partitions.map(score.score)


def _any_column(source: Source) -> Sequence[str]:
    return list(source.types)[:1]


def predict(
    record: FitRecord, source: Source, prediction: Prediction, offset: Any, exposure: Any, threads: int | None = None
) -> dict[str, Vector]:
    """All of a source's predictions at once, each (n,)."""
    score = scorer(record, prediction, source, offset, exposure)
    parts = list(predictions(score, source, threads))
    return {name: np.concatenate([part[name] for part in parts]) if parts else np.zeros(0) for name in score.columns}
