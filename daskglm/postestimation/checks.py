"""What a check of fit is asked for, what of it a model has, and what it says: tables that print."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.columns import Ledger
from daskglm.errors import DesignError, closest
from daskglm.model.residuals import refuse_without_distribution
from daskglm.record import FitRecord
from daskglm.totals.counting import COUNTED

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]

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
# Rows of a table that are printed.
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
    def of(by: Any, key: Any, parts: Any = None, **options: Any) -> Request:
        """With columns named one by one, in a list, or as a dict of columns to the ends of their bands; parts: None for all."""
        chosen = _names(parts)
        for name in chosen:
            if name not in PARTS:
                raise DesignError(f"there is no check {name!r}{closest(name, PARTS)}; there are {', '.join(PARTS)}")
        names = {} if by is None else dict(by) if isinstance(by, Mapping) else dict.fromkeys(_names(by))
        request = Request(
            by={str(n): ends for n, ends in names.items()}, key=_names(key), parts=chosen or PARTS, **options
        )
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


@final
@dataclass(frozen=True)
class Checks:
    """Checks of fit, a DataFrame for each, None for one that was not asked for or does not exist: then `notes` say why.

    calibration: actual and expected by level of columns; lift: by bins of the prediction; double_lift: by bins of the ratio
    of two models' predictions; lorenz: shares along predictions, and gini (Series); reliability: scores decomposed;
    hosmer_lemeshow: its groups; rootogram: counts seen and expected; qq: quantiles of quantile residuals; overdispersion;
    tests: every chi-square and its p-value. passes: over the data; ledger: what became of the rows.
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
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def parts(self) -> dict[str, Any]:
        """Those that there are, by name."""
        found = {one.name: getattr(self, one.name) for one in fields(self)[2:-2]}
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


# -- what there is -------------------------------------------------------------------------------------------------------


def exposure_of(request: Request, record: FitRecord) -> str | None:
    """The column that means are proportional to."""
    return request.exposure if request.exposure is not None else record.specification.exposure


def weights_of(record: FitRecord) -> str | None:
    """What kind the weights are."""
    return None if record.specification.weights is None else record.specification.weights[0]


def absent(part: str, request: Request, record: FitRecord, against: FitRecord | None) -> str | None:
    """Why a part does not exist for a model; "" where nobody asked for it; None where it exists."""
    if part == "calibration" and not request.by:
        return "" if len(request.parts) > 1 else 'calibration needs columns: by="area", or several'
    if part == "double_lift":
        return _no_double_lift(request, record, against)
    if record.specification.response_kind != "number":
        return _absent_of_classes(part, record)
    if part in ("lorenz", "gini") and not record.family.mean_range[0] >= 0.0:
        name = record.specification.family
        return f"a Lorenz curve is of a response that is never negative, and that of {name} can be"
    if part == "hosmer_lemeshow":
        return _no_hosmer_lemeshow(request, record)
    if part == "rootogram":
        return _no_rootogram(record)
    if part == "qq":
        return _no_residuals(record)
    if part == "overdispersion" and weights_of(record) == "probability":
        return "with probability weights there is no likelihood from which overdispersion could be told"
    return None


def _absent_of_classes(part: str, record: FitRecord) -> str | None:
    if part in ("calibration", "lift", "reliability"):
        return None
    if part == "qq" and record.specification.response_kind == "ordered":
        return _no_residuals(record)
    return f"{part} is of a response that is a number, and that of this model is one of several classes"


def _no_hosmer_lemeshow(request: Request, record: FitRecord) -> str | None:
    if record.family.name != "binomial":
        return f"the Hosmer-Lemeshow test is of binomial models, not of {record.specification.family}"
    if exposure_of(request, record) is not None or weights_of(record) not in (None, "frequency", "trials"):
        return "the Hosmer-Lemeshow test counts observations: it has no weights but frequencies and trials, and no exposure"
    return None


def _no_rootogram(record: FitRecord) -> str | None:
    spec, weights = record.specification, weights_of(record)
    if record.family.name not in COUNTED or weights not in (None, "frequency", "trials"):
        return f"a rootogram is of {', '.join(COUNTED)} counts with no weights but frequencies and trials"
    trials = spec.trials is not None or weights == "trials" or spec.response.startswith("cbind(")
    if record.family.name == "binomial" and not trials:
        return "a rootogram of a response of 0 and 1 has two bars, which say what its calibration says"
    return None


def _no_residuals(record: FitRecord) -> str | None:
    if weights_of(record) == "probability":
        return "quantile residuals need the density of a row, which probability weights do not give"
    if record.specification.response_kind == "number":
        try:
            refuse_without_distribution(record.family)
        except DesignError as error:
            return str(error)
    return None


def _no_double_lift(request: Request, record: FitRecord, against: FitRecord | None) -> str | None:
    if against is None:
        return "" if len(request.parts) > 1 else "a double lift needs another fit of the same response"
    one, two = record.specification, against.specification
    if {one.response_kind, two.response_kind} != {"number"}:
        raise DesignError("a double lift is of a response that is a number")
    if (one.response, one.weights, one.trials) != (two.response, two.weights, two.trials):
        raise DesignError("a double lift is of two models of the same response, weights and trials")
    if not (record.family.mean_range[0] >= 0.0 and against.family.mean_range[0] >= 0.0):
        raise DesignError("a double lift sorts by a ratio of predictions, which must be positive in both models")
    return None
