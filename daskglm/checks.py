"""Checks of fit over all the data in one pass: calibration, order, scores, counts, residuals and overdispersion, as tables."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DataError, DesignError, closest
from daskglm.inference import calibration as tables
from daskglm.model.residuals import refuse_without_distribution
from daskglm.record import FitRecord
from daskglm.revisit import Both, Visit, model_at, plan_of
from daskglm.totals.checks import SCORES, Asked, Bands, CheckSums, check_sums, class_sums
from daskglm.totals.counting import COUNTED
from daskglm.totals.fitted import fitted
from daskglm.totals.moments import Model
from daskglm.totals.sketches import LABELS, LIMIT, LabelSums, Sketch

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

TITLES = {
    "calibration": "Calibration: actual against expected by level",
    "lift": "Lift: bins of equal exposure by prediction",
    "double_lift": "Double lift: bins of equal exposure by the ratio of two predictions",
    "lorenz": "Lorenz curve along the predictions",
    "gini": "Gini",
    "reliability": "Scores: miscalibration - discrimination + uncertainty",
    "hosmer_lemeshow": "Hosmer-Lemeshow groups",
    "rootogram": "Rootogram",
    "qq": "Quantile residuals",
    "overdispersion": "Dispersion",
    "tests": "Tests",
}
PARTS = tuple(TITLES)[:-1]
# Counts told apart at most, unless it is asked for more.
MOST = 60
SHOWN = 40


@final
@dataclass(frozen=True)
class Request:
    """What a check is asked for; parts: names among PARTS."""

    parts: tuple[str, ...] = PARTS
    by: Mapping[str, Any] = field(default_factory=dict)
    exposure: str | None = None
    bins: int = 20
    groups: int = 10
    level: float = 0.95
    most: int | None = None
    seed: int = 0
    key: tuple[str, ...] = ()

    @staticmethod
    def of(by: Any, key: Any, **options: Any) -> Request:
        """With columns named one by one, in a list, or as a dict of columns to the ends of their bands."""
        names = {} if by is None else dict(by) if isinstance(by, Mapping) else dict.fromkeys(_names(by))
        request = Request(by={str(n): _bands(n, ends) for n, ends in names.items()}, key=_names(key), **options)
        for name, least in (("bins", 1), ("groups", 3)):
            if not isinstance(value := getattr(request, name), int) or value < least:
                raise DesignError(f"{name} must be a whole number from {least} on, not {value!r}")
        if request.most is not None and not (isinstance(request.most, int) and 0 <= request.most <= 10_000):
            raise DesignError(f"most must be a whole number from 0 to 10000, not {request.most!r}")
        if not 0.0 < request.level < 1.0:
            raise DesignError(f"level must be between 0 and 1, not {request.level!r}")
        return request


def _names(given: Any) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def _bands(name: str, ends: Any) -> Vector | None:
    if ends is None:
        return None
    found = np.asarray(ends, np.float64)
    if found.ndim != 1 or not found.size or np.isnan(found).any() or not (np.diff(found) > 0.0).all():
        raise DesignError(f'the bands of "{name}" must be ascending numbers: each begins where the one before ends')
    return found


@final
@dataclass(frozen=True)
class Checks:
    """Checks of fit, a DataFrame for each, None for one that was not asked for or does not exist: then `notes` say why.

    calibration: actual and expected by level of columns; lift: by bins of the prediction; double_lift: by bins of the ratio
    of two models' predictions; lorenz: shares along predictions, and gini (Series); reliability: scores decomposed;
    hosmer_lemeshow: its groups; rootogram: counts seen and expected; qq: quantiles of quantile residuals; overdispersion;
    tests: every chi-square and its p-value. passes: over the data.
    """

    observations: float
    passes: int
    calibration: pd.DataFrame | None = None
    lift: pd.DataFrame | None = None
    double_lift: pd.DataFrame | None = None
    lorenz: pd.DataFrame | None = None
    gini: pd.Series | None = None
    reliability: pd.DataFrame | None = None
    hosmer_lemeshow: pd.DataFrame | None = None
    rootogram: pd.DataFrame | None = None
    qq: pd.DataFrame | None = None
    overdispersion: pd.DataFrame | None = None
    tests: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Any]:
        """Those that there are, by name."""
        found = {one.name: getattr(self, one.name) for one in fields(self)[2:-1]}
        return {name: part for name, part in found.items() if part is not None}

    def only(self, part: str) -> Any:
        """One part; of a test that is its statistic."""
        if part != "hosmer_lemeshow":
            return getattr(self, part)
        assert self.tests is not None
        return self.tests.loc["Hosmer-Lemeshow"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"Checks have no {name!r}{closest(name, [*PARTS, 'tests', 'notes'])}")

    def __repr__(self) -> str:
        lines = [f"Checks of fit, {self.observations:,.15g} observations, {self.passes} pass"]
        for name, part in self.parts.items():
            lines += ["", TITLES[name], part.to_string(**_shown(part))]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    def _repr_html_(self) -> str:
        pieces = [f"<p>Checks of fit, {self.observations:,.15g} observations, {self.passes} pass</p>"]
        for name, part in self.parts.items():
            frame = part.to_frame("") if part.ndim == 1 else part
            pieces += [f"<h4>{TITLES[name]}</h4>", frame.to_html(**_shown(frame))]
        return "<div>" + "".join([*pieces, *(f"<p>{html.escape(note)}</p>" for note in self.notes)]) + "</div>"


def _shown(part: Any) -> dict[str, Any]:
    digits = {"float_format": "{:.6g}".format}
    return digits if part.ndim == 1 else digits | {"max_rows": SHOWN}


def check(record: FitRecord, data: Any, request: Request, against: FitRecord | None = None) -> Checks:
    """All that was asked for. One part alone that does not exist is a DesignError; of several, a note."""
    run = _Run(record, request, against)
    sums = run.read(data)
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
            second = fitted(two.block, model, coef, directions).mu
        if self.dropped and rows.at_limit is not None:
            kept = np.flatnonzero(~rows.at_limit)
            rows, second = rows.inside, None if second is None else second[kept]
        if not isinstance(self.model, Model):
            return class_sums(rows, self.model, self.coef, self.asked)
        return check_sums(rows, self.model, self.coef, self.directions, self.asked, second)


def directions_of(record: FitRecord, model: Any) -> tuple[Vector, ...]:
    """Of an infinite optimum, of the raw columns."""
    if record.separation is None or not isinstance(model, Model):
        return ()
    return tuple(model.raw(record.parameters.own(direction)) for direction in record.separation.directions)


class _Run:
    """One check from its request to its tables."""

    def __init__(self, record: FitRecord, request: Request, against: FitRecord | None) -> None:
        self.record, self.request, self.against = record, request, against
        spec = record.specification
        self.classes = spec.response_kind != "number"
        self.exposure = request.exposure if request.exposure is not None else spec.exposure
        self.weights = None if spec.weights is None else spec.weights[0]
        self.trials = spec.trials is not None or self.weights == "trials" or spec.response.startswith("cbind(")
        self.notes: list[str] = []
        self.tests: dict[str, tuple[float, float, float]] = {}
        self.parts = tuple(part for part in request.parts if self._there(part))
        self.plan = plan_of(spec, record)
        self.phi = record.statistics.scale

    # -- what there is ---------------------------------------------------------------------------------------------------

    def _there(self, part: str) -> bool:
        """Whether a part exists for this model; if not, a note, or an error where nothing else was asked for."""
        reason = self._missing(part)
        if reason is None:
            return True
        if len(self.request.parts) == 1:
            raise DesignError(reason)
        if reason:
            self.notes.append(reason)
        return False

    def _missing(self, part: str) -> str | None:
        """Why a part does not exist; "" where nobody asked for it."""
        family, whole = self.record.family, self.weights in (None, "frequency")
        name = self.record.specification.family
        if part == "calibration" and not self.request.by:
            return "" if len(self.request.parts) > 1 else 'calibration needs columns: by="area", or several'
        if part == "double_lift":
            return self._no_double_lift()
        if self.classes:
            return self._missing_of_classes(part)
        if part in ("lorenz", "gini") and not family.mean_range[0] >= 0.0:
            return f"a Lorenz curve is of a response that is never negative, and that of {name} can be"
        if part == "hosmer_lemeshow":
            if not family.name.endswith("binomial") or not family.bounded:
                return f"the Hosmer-Lemeshow test is of binomial models, not of {name}"
            if self.exposure is not None or self.weights not in (None, "frequency", "trials"):
                return "the Hosmer-Lemeshow test counts observations: it has no weights but frequencies and trials, and no exposure"
        if part == "rootogram" and family.name == "binomial" and not self.trials:
            return "a rootogram of a response of 0 and 1 has two bars, which say what its calibration says"
        if part == "rootogram" and (family.name not in COUNTED or not (whole or self.weights == "trials")):
            return f"a rootogram is of {', '.join(COUNTED)} counts with no weights but frequencies and trials"
        if part == "qq":
            return self._no_residuals()
        if part == "overdispersion" and self.weights == "probability":
            return "with probability weights there is no likelihood from which overdispersion could be told"
        return None

    def _missing_of_classes(self, part: str) -> str | None:
        kind = self.record.specification.family
        if part in ("calibration", "lift", "reliability"):
            return None
        if part == "qq" and self.record.specification.response_kind == "ordered":
            return self._no_residuals()
        return f"{part} is of a response that is a number, not of the classes of a {kind} model"

    def _no_residuals(self) -> str | None:
        if self.weights == "probability":
            return "quantile residuals need the density of a row, which probability weights do not give"
        if not self.classes:
            try:
                refuse_without_distribution(self.record.family)
            except DesignError as error:
                return str(error)
        return None

    def _no_double_lift(self) -> str | None:
        if self.against is None:
            return "" if len(self.request.parts) > 1 else "a double lift needs another fit of the same response"
        one, two = self.record.specification, self.against.specification
        if self.classes or two.response_kind != "number":
            return "a double lift is of a response that is a number"
        if (one.response, one.weights, one.trials, one.where) != (two.response, two.weights, two.trials, two.where):
            raise DesignError("a double lift is of two models of the same response, weights, trials and where")
        if not (self.record.family.mean_range[0] >= 0.0 and self.against.family.mean_range[0] >= 0.0):
            return "a double lift sorts by a ratio of predictions, which must be positive in both models"
        return None

    # -- the pass --------------------------------------------------------------------------------------------------------

    def read(self, data: Any) -> CheckSums:
        """The one pass."""
        wanted = (*self.request.by, *self.request.key, *(() if self.exposure is None else (self.exposure,)))
        other = self.against if "double_lift" in self.parts else None
        with Visit(self.record, data, tuple(dict.fromkeys(wanted)), other=other) as visit:
            model = visit.model
            separation = self.record.separation
            dropped = separation is not None and separation.dropped
            second = None
            if other is not None:
                plan = plan_of(other.specification, other)
                there = model_at(other, plan)
                second = there, other.parameters.own(other.finite[0]), directions_of(other, there)
            function = SumsOf(
                model, visit.coef, directions_of(self.record, model), dropped, self._asked(model, visit.coef), second
            )
            sums: CheckSums = visit.rows.total(function)
        if not sums.total[0] > 0.0:
            raise DataError("the data have no rows that the model uses")
        return sums

    def _asked(self, model: Any, coef: Vector) -> Asked:
        parts, family = set(self.parts), self.record.family
        asked = Asked(
            by=tuple(self.request.by) if "calibration" in parts else (),
            bands={name: ends for name, ends in self.request.by.items() if ends is not None},
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
        return Checks(float(sums.total[0]), 1, notes=tuple(dict.fromkeys(self.notes)), **kept)

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
            ends = self.request.by[name]
            texts = [f"< {ends[0]:g}", *(f"[{a:g}, {b:g})" for a, b in itertools.pairwise(ends))]
            labels: list[Any] = [*texts, f">= {ends[-1]:g}", None]
            kept = np.flatnonzero(one.sums[:, 0] != 0.0)
            return [labels[i] for i in kept], one.sums[kept]
        labels, sums = self._bins(one)
        if one.missing[0]:
            labels, sums = [*labels, None], np.vstack([sums, one.missing])
        return labels, sums

    def _bins(self, sketch: Sketch) -> tuple[list[Any], Matrix]:
        """A level per value where there are few; else bins of equal exposure."""
        if sketch.exact and sketch.keys.size <= self.request.bins:
            return [float(value) for value in sketch.ends[0]], sketch.sums
        place = tables.even(sketch.sums[:, 1], self.request.bins)
        low, high = tables.spans(sketch, place)
        return [f"[{a:.6g}, {b:.6g}]" for a, b in zip(low, high, strict=True)], tables.grouped(sketch.sums, place)

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
