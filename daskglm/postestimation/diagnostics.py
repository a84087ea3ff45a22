"""Residuals of every kind, one for each row of the data.

Definitions are those of R's residuals.glm, rstandard.glm and rstudent.glm; weights of precision and trials enter by their root,
a row that stands for several has the residual of one of them. With p Pearson's residual, d that of the deviance, h the leverage:

"anscombe" sqrt(w) (A(y) - A(mu)) / V^(1/6) with A' = V^(-1/3); "standardized_pearson" and "standardized_deviance" p and d over
sqrt(phi (1 - h)); "studentized" sign(d) sqrt(d^2 + h p^2 / (1 - h)), over the deviation without the row where phi is estimated;
"quantile" Phi^-1(F(y)), between F(y-) and F(y) at random where y is discrete. Of classes "response" and "pearson" have a column
per class, "deviance" is sqrt(2 w loss), and ordered ones have "quantile". Sources: McCullagh and Nelder (1989), chapters 2 and 12; Davison
and Snell (1991); Dunn and Smyth (1996).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError, closest
from daskglm.model.residuals import (
    Chances,
    anscombe,
    chances,
    chances_of_classes,
    refuse_without_distribution,
)
from daskglm.postestimation.aligned import aligned, is_lazy
from daskglm.postestimation.influence import bread_of, refuse_sampled
from daskglm.postestimation.revisit import Rows, model_at, plan_of
from daskglm.record import FitRecord
from daskglm.totals.fitted import Fitted, FittedClasses, fitted, fitted_classes
from daskglm.totals.identity import of_columns, of_places, uniforms
from daskglm.totals.influence import Bread, deleted_deviation, leverage
from daskglm.totals.moments import Model

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Kinds of a response that is a number, from its rows alone.
PLAIN: dict[str, Callable[[Any, Fitted], Vector]] = {
    "response": lambda family, rows: rows.residual,
    "pearson": lambda family, rows: rows.pearson,
    "deviance": lambda family, rows: rows.signed_deviance,
    "working": lambda family, rows: rows.residual / rows.slope,
    "anscombe": lambda family, rows: np.sqrt(rows.size) * anscombe(family, rows.y, rows.mu, rows.rest),
}
# Kinds that need the leverage h of each row.
LEVERED: dict[str, Callable[[Fitted, Vector, Bread], Vector]] = {
    "standardized_pearson": lambda rows, h, bread: rows.pearson / np.sqrt(bread.phi * (1.0 - h)),
    "standardized_deviance": lambda rows, h, bread: rows.signed_deviance / np.sqrt(bread.phi * (1.0 - h)),
    "studentized": lambda rows, h, bread: _studentized(rows, h, bread),
}
KINDS = (*PLAIN, *LEVERED, "quantile")
# Of classes: one column per class, or one per row.
OF_CLASSES = {
    "multinomial": ("response", "pearson", "deviance"),
    "ordinal": ("response", "pearson", "deviance", "quantile"),
}


def _studentized(rows: Fitted, h: Vector, bread: Bread) -> Vector:
    """sign(d) sqrt(d^2 + h p^2 / (1 - h)), over the deviation without the row where the dispersion was estimated."""
    size = np.sqrt(rows.deviance + h * rows.pearson**2 / (1.0 - h))
    found = np.copysign(size, rows.residual)
    return found if bread.known else found / deleted_deviation(bread, rows.deviance, h)


@final
@dataclass(frozen=True)
class ResidualsOf:
    """Residuals of rows of a response that is a number.

    directions: of an infinite optimum; dropped: whether rows that those move were left out of the fit; bread: where leverage
    is needed; seed and key: of the numbers that quantile residuals are drawn with.
    """

    model: Model
    coef: Vector
    kind: str
    phi: float
    directions: tuple[Vector, ...]
    dropped: bool
    bread: Bread | None
    seed: int
    beside: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The kind."""
        return (self.kind,)

    def __call__(self, rows: Rows) -> Matrix:
        family = self.model.likelihood.family
        here = fitted(rows.block, self.model, self.coef, self.directions)
        with np.errstate(all="ignore"):
            if self.kind == "quantile":
                found = chances(family, rows.block.y.astype(np.float64), here.mu, here.rest, here.size, self.phi)
                result = found.quantile_residual(drawn(rows, self.seed, self.beside))
            elif self.bread is not None:
                h = leverage(rows.block, self.model, self.bread, here)
                result = LEVERED[self.kind](here, h, self.bread)
                result = np.where(np.isfinite(result), result, np.nan)
            else:
                result = PLAIN[self.kind](family, here)
        if rows.at_limit is not None and (self.dropped or self.bread is not None):
            result = np.where(rows.at_limit, np.nan, result)
        return np.asarray(result, np.float64)[:, None]


@final
@dataclass(frozen=True)
class ClassResidualsOf:
    """Residuals of rows of a response of classes: a column per class, or one."""

    columns: tuple[str, ...]
    model: Any
    coef: Vector
    kind: str
    sampling: bool
    seed: int
    beside: tuple[str, ...]

    def __call__(self, rows: Rows) -> Matrix:
        here = fitted_classes(rows.block, self.model, self.coef, self.sampling)
        with np.errstate(all="ignore"):
            if self.kind == "quantile":
                found: Chances = chances_of_classes(here.codes, here.chance)
                return found.quantile_residual(drawn(rows, self.seed, self.beside))[:, None]
            if self.kind == "deviance":
                return np.sqrt(2.0 * here.size * np.maximum(here.loss, 0.0))[:, None]
            return _by_class(here, self.kind).T


def _by_class(here: FittedClasses, kind: str) -> Matrix:
    """1[y = k] - mu_k (K, n); of Pearson's kind over sqrt(mu_k / size), so that their squares add up to Pearson's statistic."""
    seen = np.arange(here.chance.shape[0])[:, None] == here.codes
    gap = seen - here.chance
    if kind == "response":
        return gap
    return np.where(gap == 0.0, 0.0, gap * np.sqrt(here.size / here.chance))


def drawn(rows: Rows, seed: int, key: tuple[str, ...]) -> Vector:
    """A number in (0, 1) for each row, from who it is: the columns of its key, or its file and its number in it."""
    who = of_columns([rows.beside[name] for name in key]) if key else of_places(rows.origin, rows.numbers)
    return uniforms(who, seed)


def residuals(
    record: FitRecord,
    data: Any,
    kind: str,
    seed: int,
    key: str | Sequence[str] | None,
    out: str | os.PathLike[str] | None,
    where: str | None = None,
) -> Any:
    """A Series, or of classes a DataFrame, aligned with the data."""
    beside = () if key is None else (key,) if isinstance(key, str) else tuple(key)
    _check(record, data, kind, seed, beside)
    plan = plan_of(record.specification, record)
    model, coef = model_at(record, plan), record.scaled
    sampling = record.specification.weights is not None and record.specification.weights[0] == "probability"
    if not isinstance(model, Model):
        columns = record.parameters.classes if kind in ("response", "pearson") else (kind,)
        of_classes = ClassResidualsOf(columns, model, coef, kind, sampling, seed, beside)
        return aligned(record, data, of_classes, columns == (kind,), out, "residuals", where)
    family = model.likelihood.family
    phi = family.dispersion if family.dispersion_known else record.statistics.scale
    bread = bread_of(record, data) if kind in LEVERED else None
    separation = record.separation
    found = [] if separation is None else [record.parameters.own(one) for one in separation.directions]
    directions = tuple(model.raw(one) for one in found)
    dropped = separation is not None and separation.dropped
    request = ResidualsOf(model, coef, kind, phi, directions, dropped, bread, seed, beside)
    return aligned(record, data, request, True, out, "residuals", where)


def _without_leverage(family: Any) -> str:
    """The kinds of residuals of a family that need no leverage, as text."""
    kinds = [*PLAIN]
    with contextlib.suppress(DesignError):
        refuse_without_distribution(family)
        kinds.append("quantile")
    quoted = [f'"{kind}"' for kind in kinds]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _check(record: FitRecord, data: Any, kind: str, seed: int, key: tuple[str, ...]) -> None:
    """Refuse what has no answer, before any data are read."""
    if kind not in KINDS:
        raise DesignError(f"kind={kind!r} is no kind of residual{closest(kind, KINDS)}; there are: {', '.join(KINDS)}")
    known = OF_CLASSES.get(record.family.name)
    if known is not None and kind not in known:
        raise DesignError(
            f"residuals of kind {kind!r} are not defined for a {record.family.name} response; there are: {', '.join(known)}"
        )
    if kind in LEVERED:
        refuse_sampled(record, f"{kind} residuals", _without_leverage(record.family))
    if kind != "quantile" and (key or seed):
        raise DesignError(f"seed= and key= draw quantile residuals, and {kind} residuals are not drawn: leave them out")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise DesignError(f"seed= is a whole number, not {seed!r}")
    if kind == "quantile":
        if known is None:
            refuse_without_distribution(record.family)
        if is_lazy(data) and not key:
            raise DesignError(
                "quantile residuals of a Dask collection are drawn by what identifies a row: name its columns with key="
            )
