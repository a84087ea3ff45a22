"""Checks of fit over all the data in one pass: calibration, order, scores, counts, residuals and overdispersion, as tables.

The functions at the end are methods of a Fit. Each is one pass over the data and one row x vector evaluation, two with another
fit, however many columns and parts it is asked for; under a log link one more per fit to order rows of different exposure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from daskglm.cluster.engine import on_cluster
from daskglm.cluster.schemas import kind_of
from daskglm.errors import DataError, DesignError
from daskglm.inference import calibration as tables
from daskglm.plan import refuse_unknown
from daskglm.postestimation.bands import edges
from daskglm.postestimation.bands import labels as labels_of_bands
from daskglm.postestimation.checks import Checks, Request, absent, exposure_of, weights_of
from daskglm.postestimation.revisit import Both, Visit, model_at, plan_of
from daskglm.record import FitRecord
from daskglm.totals.checks import SCORES, Asked, Bands, CheckSums, Other, check_sums, class_sums
from daskglm.totals.moments import Model
from daskglm.totals.sketches import LABELS, LIMIT, LabelSums, Sketch

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Counts told apart at most, unless it is asked for more.
MOST = 60


def check(
    record: FitRecord, data: Any, request: Request, against: FitRecord | None = None, where: str | None = None
) -> Checks:
    """All that was asked for. One part alone that does not exist is a DesignError; of several, a note."""
    run = _Run(record, request, against)
    sums = run.read(data, where)
    return run.tables(sums)


@final
@dataclass(frozen=True)
class SumsOf:
    """Rows of a leaf, or of two models, to CheckSums, as it can be sent to another process."""

    model: Any
    coef: Vector
    directions: tuple[Vector, ...]
    dropped: bool
    asked: Asked
    other: tuple[Any, Vector, tuple[Vector, ...]] | None = None

    def __call__(self, rows: Any) -> CheckSums:
        second = None
        if isinstance(rows, Both):
            rows, two = rows.one, rows.two
            assert self.other is not None
            model, coef, directions = self.other
            second = Other.of(two.block, model, coef, directions)
        if self.dropped and rows.at_limit is not None:
            kept = np.flatnonzero(~rows.at_limit)
            rows, second = rows.inside, None if second is None else second.take(kept)
        if not isinstance(self.model, Model):
            return class_sums(rows, self.model, self.coef, self.asked)
        return check_sums(rows, self.model, self.coef, self.directions, self.asked, second)


def directions_of(record: FitRecord, model: Any) -> tuple[Vector, ...]:
    """Of an infinite optimum, of the raw columns."""
    if record.separation is None or not isinstance(model, Model):
        return ()
    return tuple(model.raw(record.parameters.own(direction)) for direction in record.separation.directions)


def date_of(kind: Any) -> Callable[[float], str] | None:
    """How the numbers of a column of dates or times are written, days or seconds since 1970; None of any other."""
    if kind is None or not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return None
    unit: Any = "D" if pa.types.is_date32(kind) else "s"
    return lambda value: str(np.datetime64(int(np.floor(value)), unit))


class _Run:
    """One check from its request to its tables."""

    def __init__(self, record: FitRecord, request: Request, against: FitRecord | None) -> None:
        self.record, self.request, self.against = record, request, against
        spec = record.specification
        self.classes = spec.response_kind != "number"
        self.exposure, self.weights = exposure_of(request, record), weights_of(record)
        self.notes: list[str] = []
        self.tests: dict[str, tuple[float, float, float]] = {}
        self.parts = tuple(part for part in request.parts if self._there(part))
        self.plan = plan_of(spec, record)
        self.phi = record.statistics.scale

    # -- what there is ---------------------------------------------------------------------------------------------------

    def _there(self, part: str) -> bool:
        """Whether a part exists for this model; if not, a note, or an error where nothing else was asked for."""
        reason = absent(part, self.request, self.record, self.against)
        if reason is None:
            return True
        if len(self.request.parts) == 1:
            raise DesignError(reason)
        if reason:
            self.notes.append(reason)
        return False

    # -- the pass --------------------------------------------------------------------------------------------------------

    def read(self, data: Any, where: str | None) -> CheckSums:
        """The one pass."""
        wanted = (*self.request.by, *self.request.key, *(() if self.exposure is None else (self.exposure,)))
        other = self.against if "double_lift" in self.parts else None
        with Visit(self.record, data, tuple(dict.fromkeys(wanted)), other=other, where=where) as visit:
            model = visit.model
            separation = self.record.separation
            dropped = separation is not None and separation.dropped
            second = None
            if other is not None:
                plan = plan_of(other.specification, other)
                there = model_at(other, plan)
                second = there, other.scaled, directions_of(other, there)
            self.types = visit.types
            self.bands = {
                name: edges(name, ends, self._kind(name)) for name, ends in self.request.by.items() if ends is not None
            }
            function = SumsOf(
                model, visit.coef, directions_of(self.record, model), dropped, self._asked(model, visit.coef), second
            )
            sums: CheckSums = visit.total_of_items(function)
            self.passes, self.ledger = visit.passes, visit.ledger
            self.notes += visit.notes
        if not sums.total[0] > 0.0:
            raise DataError("the data have no rows that the model uses")
        return sums

    def _asked(self, model: Any, coef: Vector) -> Asked:
        parts, family = set(self.parts), self.record.family
        asked = Asked(
            by=tuple(self.request.by) if "calibration" in parts else (),
            bands=self.bands,
            exposure=self.exposure,
            phi=self.phi,
            sampling=self.weights == "probability",
            order=bool(parts & {"lift", "lorenz", "gini", "reliability", "hosmer_lemeshow"}),
            quantiles="qq" in parts,
            seed=self.request.seed,
            key=self.request.key,
        )
        if self.classes:
            return asked
        self.center = self._center(model, coef)
        steady = self.exposure is None or family.name == "poisson"
        return replace(
            asked,
            center=self.center,
            perfect=bool(parts & {"gini"}),
            most=self._most() if "rootogram" in parts else None,
            poisson="overdispersion" in parts and family.name == "poisson" and self.weights in (None, "frequency"),
            deviance=steady and not family.bounded,
        )

    def _center(self, model: Any, coef: Vector) -> float:
        """The mean at the middle of the columns: near that of the response, and known before the pass."""
        eta = float(coef[0]) if self.record.design.intercept else 0.0
        with np.errstate(all="ignore"):
            mean = float(model.likelihood.link.inverse(np.array([eta]), False)[0][0])
        low, high = self.record.family.mean_range
        if low < mean < high and np.isfinite(mean):
            return mean
        return 1.0 if low < 1.0 < high else 0.5

    def _most(self) -> int:
        if self.request.most is not None:
            return self.request.most
        variance = float(self.record.family.variance(np.array([self.center]), np.array([1.0 - self.center]))[0])
        return min(MOST, int(np.ceil(self.center + 6.0 * np.sqrt(max(variance, 0.0)))) + 6)

    # -- its tables ------------------------------------------------------------------------------------------------------

    def tables(self, sums: CheckSums) -> Checks:
        """Of the sums, the parts that were asked for."""
        import pandas as pd

        found: dict[str, Any] = {}
        with np.errstate(all="ignore"):
            for part in self.parts:
                found[part] = getattr(self, f"_{part}")(sums)
        if self.tests:
            found["tests"] = pd.DataFrame(self.tests, index=["stat", "df", "pvalue"]).T
        if sums.lost:
            self.notes.append(f"{sums.lost:,.15g} observations have no quantile residual, for they are no counts")
        kept = {name: part for name, part in found.items() if part is not None}
        return Checks(
            float(sums.total[0]), self.passes, notes=tuple(dict.fromkeys(self.notes)), ledger=self.ledger, **kept
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the classes, or one that stands for a number."""
        return self.record.parameters.classes if self.classes else ("",)

    def _calibration(self, sums: CheckSums) -> Any:
        import pandas as pd

        frames = []
        for name, one in zip(self.request.by, sums.by, strict=True):
            labels, rows = self._levels(name, one)
            rows_of_class = np.split(rows, len(self.labels), axis=1)
            for label, part in zip(self.labels, rows_of_class, strict=True):
                columns = tables.against(part, self.phi, self.request.level)
                frame = pd.DataFrame(columns, index=pd.Index(labels, dtype=object, name="level"))
                test = f"calibration by {name}" + (f", {label}" if self.classes else "")
                self._chi_square(test, columns["chi2"])
                keys = (name, label) if self.classes else (name,)
                frames.append(pd.concat({keys: frame}, names=["column", "class"][: len(keys)]))
        return pd.concat(frames)

    def _chi_square(self, name: str, parts: Vector) -> None:
        """The sum over levels against a chi-square with a degree of freedom each: levels of factors of the model agree by
        themselves, and so pass; those of other columns are independent but for what the fit has spent.
        """
        from scipy import special

        there = parts[np.isfinite(parts)]
        stat = float(there.sum())
        self.tests[name] = (stat, float(there.size), float(special.chdtrc(there.size, stat)) if there.size else np.nan)

    def _kind(self, name: str) -> str | None:
        """How a formula sees a column of the data; None of an expression."""
        return kind_of(self.types[name]) if name in self.types else None

    def _levels(self, name: str, one: Any) -> tuple[list[Any], Matrix]:
        """Levels of a column, and their sums (m, k)."""
        if isinstance(one, LabelSums):
            if one.crowded:
                raise DesignError(
                    f'"{name}" has more than {LABELS:,} levels: group them, or leave it out of by= (one with many is a '
                    "number to give bands for, or a key, and no factor)"
                )
            found = one.sorted()
            return list(found.labels), found.sums
        if isinstance(one, Bands):
            texts = [*labels_of_bands(self.bands[name], self._kind(name)), None]
            kept = np.flatnonzero(one.sums[:, 0] != 0.0)
            return [texts[i] for i in kept], one.sums[kept]
        labels, sums = self._bins(name, one)
        if one.missing[0]:
            labels, sums = [*labels, None], np.vstack([sums, one.missing])
        return labels, sums

    def _bins(self, name: str, sketch: Sketch) -> tuple[list[Any], Matrix]:
        """A level per value where there are few; else bins of equal exposure."""
        dated = date_of(self.types.get(name))
        if sketch.exact and sketch.keys.size <= self.request.bins:
            values = [float(value) for value in sketch.ends[0]] if sketch.whole is None else list(sketch.whole)
            return values if dated is None else [dated(value) for value in values], sketch.sums
        place = tables.even(sketch.sums[:, 1], self.request.bins)
        written = dated or "{:.6g}".format
        ends = zip(*tables.spans(sketch, place), strict=True)
        return [f"[{written(a)}, {written(b)}]" for a, b in ends], tables.grouped(sketch.sums, place)

    def _by_prediction(self, sketch: Sketch) -> tuple[npt.NDArray[np.intp], Matrix]:
        place = tables.even(sketch.sums[:, 1], self.request.bins)
        return place, tables.grouped(sketch.sums, place)

    def _lift(self, sums: CheckSums) -> Any:
        import pandas as pd

        frames = {}
        for label, sketch in zip(self.labels, sums.order, strict=True):
            place, bins = self._by_prediction(sketch)
            low, high = tables.spans(sketch, place)
            columns = {"from": low, "to": high} | tables.against(bins[:, :SCORES], self.phi, self.request.level)
            frames[label] = pd.DataFrame(columns, index=pd.RangeIndex(1, len(bins) + 1, name="bin"))
        return pd.concat(frames, names=["class"]) if self.classes else frames[""]

    def _double_lift(self, sums: CheckSums) -> Any:
        import pandas as pd

        assert sums.versus is not None
        place, bins = self._by_prediction(sums.versus)
        low, high = tables.spans(sums.versus, place)
        exposure = bins[:, 1]
        columns = {
            "from": low, "to": high, "observations": bins[:, 0], "exposure": exposure, "actual": bins[:, 2] / exposure,
            "expected": bins[:, 3] / exposure, "expected_other": bins[:, SCORES] / exposure,
            "ratio": bins[:, 2] / bins[:, 3], "ratio_other": bins[:, 2] / bins[:, SCORES],
        }  # fmt: skip
        return pd.DataFrame(columns, index=pd.RangeIndex(1, len(bins) + 1, name="bin"))

    def _lorenz(self, sums: CheckSums) -> Any:
        import pandas as pd

        (sketch,) = sums.order
        place = tables.even(sketch.sums[:, 1], max(self.request.bins, 100))
        bins = tables.grouped(sketch.sums, place)
        x, actual = tables.lorenz(bins[:, [1, 2]])
        _, expected = tables.lorenz(bins[:, [1, 3]])
        return pd.DataFrame({"exposure": x, "actual": actual, "expected": expected})

    def _gini(self, sums: CheckSums) -> Any:
        import pandas as pd

        assert sums.perfect is not None
        return pd.Series(tables.gini(sums.order[0], sums.perfect), name="gini")

    def _reliability(self, sums: CheckSums) -> Any:
        import pandas as pd

        frames = {}
        for label, sketch in zip(self.labels, sums.order, strict=True):
            bounded = self.classes or self.record.family.bounded
            bins = tables.recalibrated(sketch.sums)
            found = tables.chance_scores(bins) if bounded else tables.mean_scores(self.record.family, bins, self.center)
            frames[label] = pd.DataFrame(found).T
        return pd.concat(frames, names=["class"]) if self.classes else frames[""]

    def _hosmer_lemeshow(self, sums: CheckSums) -> Any:
        import pandas as pd

        (sketch,) = sums.order
        try:
            columns, test = tables.hosmer_lemeshow(sketch, self.request.groups)
        except DesignError as error:
            if len(self.request.parts) == 1:
                raise
            self.notes.append(str(error))
            return None
        self.tests["Hosmer-Lemeshow"] = test
        if not sketch.exact:
            self.notes.append(
                f"Hosmer-Lemeshow groups are of whole bins of predictions, of which there are at most {LIMIT:,}"
            )
        return pd.DataFrame(columns, index=pd.RangeIndex(1, len(columns["from"]) + 1, name="group"))

    def _rootogram(self, sums: CheckSums) -> Any:
        import pandas as pd

        assert sums.counts is not None
        last = sums.counts.shape[1] - 1
        labels = [*range(last), f"{last}+"]
        return pd.DataFrame(tables.rootogram(sums.counts), index=pd.Index(labels, dtype=object, name="count"))

    def _qq(self, sums: CheckSums) -> Any:
        import pandas as pd

        assert sums.residuals is not None
        if not sums.residuals.sum() > 0.0:
            self.notes.append("no observation has a quantile residual")
            return None
        columns, distance = tables.quantiles(sums.residuals)
        self.tests["quantile residuals, largest distance"] = (distance, np.nan, np.nan)
        return pd.DataFrame(columns)

    def _overdispersion(self, sums: CheckSums) -> Any:
        import pandas as pd

        s = self.record.statistics
        n = float(sums.total[0])
        same = abs(n - s.nobs) <= 1e-9 * max(n, 1.0)
        df = s.df_resid if same else n
        if not same:
            self.notes.append(
                "these are not the rows of the fit: dispersion is per observation, none spent on coefficients"
            )
        found = {
            name: (float(value), float(value) / df, np.nan)
            for name, value in zip(("Pearson", "deviance"), sums.total[-2:], strict=True)
        }
        if sums.poisson[0]:
            found |= tables.overdispersion(sums.poisson)
        return pd.DataFrame(found, index=["stat", "estimate", "pvalue"]).T


# -- methods of a Fit ------------------------------------------------------------------------------------------------------


@on_cluster
def every(
    fit: Any,
    data: Any,
    by: Any = None,
    *,
    parts: Any = None,
    exposure: str | None = None,
    against: Any = None,
    bins: int = 20,
    level: float = 0.95,
    groups: int = 10,
    most: int | None = None,
    seed: int = 0,
    key: Any = None,
    where: str | None = None,
    client: Any = None,
    **options: Any,
) -> Checks:
    """Every check of fit that the model has, in one pass over the data: a record of DataFrames that prints.

    parts: some of them alone, by the names of the methods; by: columns to calibrate by, whether in
    the model or not, or a dict of columns to the ends of bands; exposure: the column that the mean
    is proportional to, the model's own if it has one; against: another fit of the same response,
    for a double lift; bins, level: of tables and of intervals; groups: of Hosmer and Lemeshow;
    most: the largest count told apart in the rootogram; seed, key: of quantile residuals, as in
    `residuals`; where: a filter of the rows, of which each check takes one (that of the fit is not
    applied). The parts are the methods `calibration`, `lift`, ...; what does not exist for the
    model is named in `notes`.
    """
    given = {"exposure": exposure, "bins": bins, "level": level, "groups": groups, "most": most, "seed": seed}
    refuse_unknown(options, ["by", "parts", "against", *given, "key", "where"])
    return check(fit.record, data, Request.of(by, key, parts=parts, **given), _record_of(against), where)


@on_cluster
def calibration(
    fit: Any,
    data: Any,
    by: Any,
    *,
    exposure: str | None = None,
    bins: int = 20,
    level: float = 0.95,
    where: str | None = None,
    client: Any = None,
    **options: Any,
) -> pd.DataFrame:
    """Actual against expected by level of any columns: A = sum w y, E = sum w mu, each over the exposure sum w e, and A / E
    with limits A / E -+ z sqrt(phi sum w V) / E, means taken as known; chi2 = (A - E)^2 / (phi sum w V). Text: its levels, at
    most 10 000; numbers: each value if there are at most `bins`, or else bins of equal exposure, or the bands [a, b) of
    by={"age": [25, 40, 60]}. Of classes: class by class.
    """
    return _one(fit, "calibration", data, options, by=by, exposure=exposure, bins=bins, level=level, where=where)


@on_cluster
def lift(
    fit: Any,
    data: Any,
    *,
    exposure: str | None = None,
    bins: int = 10,
    level: float = 0.95,
    where: str | None = None,
    client: Any = None,
    **options: Any,
) -> pd.DataFrame:
    """Actual and expected in bins of equal exposure by the predicted mean per exposure, ties together."""
    return _one(fit, "lift", data, options, exposure=exposure, bins=bins, level=level, where=where)


@on_cluster
def double_lift(
    fit: Any,
    data: Any,
    other: Any,
    *,
    exposure: str | None = None,
    bins: int = 10,
    where: str | None = None,
    client: Any = None,
    **options: Any,
) -> pd.DataFrame:
    """Actual and both models' expected, in bins of equal exposure by the ratio of this model's predictions to the other's."""
    return _one(fit, "double_lift", data, options, other, exposure=exposure, bins=bins, where=where)


@on_cluster
def lorenz(
    fit: Any,
    data: Any,
    *,
    exposure: str | None = None,
    bins: int = 100,
    where: str | None = None,
    client: Any = None,
    **options: Any,
) -> pd.DataFrame:
    """Shares of exposure, actual and expected of the rows with the least predictions."""
    return _one(fit, "lorenz", data, options, exposure=exposure, bins=bins, where=where)


@on_cluster
def gini(
    fit: Any, data: Any, *, exposure: str | None = None, where: str | None = None, client: Any = None, **options: Any
) -> pd.Series:
    """1 - 2 int L of the actual ordered by predictions, ties together; `perfect`, ordered by itself; `normalised`, their ratio
    (2 AUC - 1 of a binary response). The exact ones lie within `..._error` of these.
    """
    found: pd.Series = _one(fit, "gini", data, options, exposure=exposure, where=where)
    return found


@on_cluster
def reliability(
    fit: Any, data: Any, *, exposure: str | None = None, where: str | None = None, client: Any = None, **options: Any
) -> pd.DataFrame:
    """Proper scores = miscalibration - discrimination + uncertainty, by isotonic recalibration: Brier and logarithmic of
    probabilities, one class against the rest of classes; squared error per exposure and deviance of other means.
    """
    return _one(fit, "reliability", data, options, exposure=exposure, where=where)


@on_cluster
def hosmer_lemeshow(
    fit: Any, data: Any, *, groups: int = 10, where: str | None = None, client: Any = None, **options: Any
) -> pd.Series:
    """sum (O - E)^2 / E over groups of predicted probability, on as many degrees of freedom as groups are formed less 2; as
    ResourceSelection::hoslem.test. The groups are `check(data).hosmer_lemeshow`.
    """
    found: pd.Series = _one(fit, "hosmer_lemeshow", data, options, groups=groups, where=where)
    return found


@on_cluster
def rootogram(
    fit: Any, data: Any, *, most: int | None = None, where: str | None = None, client: Any = None, **options: Any
) -> pd.DataFrame:
    """Observed and expected frequencies of 0, 1, ..., most, and more; `hanging` is sqrt(expected) - sqrt(observed)."""
    return _one(fit, "rootogram", data, options, most=most, where=where)


@on_cluster
def qq(
    fit: Any, data: Any, *, seed: int = 0, key: Any = None, where: str | None = None, client: Any = None, **options: Any
) -> pd.DataFrame:
    """Quantiles of the (randomised) quantile residuals beside those of a standard normal, to 1/512."""
    return _one(fit, "qq", data, options, seed=seed, key=key, where=where)


@on_cluster
def overdispersion(
    fit: Any, data: Any, *, where: str | None = None, client: Any = None, **options: Any
) -> pd.DataFrame:
    """Pearson's statistic and the deviance over their degrees of freedom; of a Poisson model Dean's and Cameron and Trivedi's
    tests, one-sided.
    """
    return _one(fit, "overdispersion", data, options, where=where)


def _one(fit: Any, part: str, data: Any, unknown: dict[str, Any], other: Any = None, **given: Any) -> Any:
    refuse_unknown(unknown, list(given))
    where = given.pop("where")
    asked = Request.of(given.pop("by", None), given.pop("key", None), parts=part, **given)
    return check(fit.record, data, asked, _record_of(other), where).only(part)


def _record_of(fit: Any) -> FitRecord | None:
    if fit is None or isinstance(getattr(fit, "record", None), FitRecord):
        return None if fit is None else fit.record
    raise DesignError(f"another fit is wanted, not {type(fit).__name__}: what glm() gave, or one of several responses")
