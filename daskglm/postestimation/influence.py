"""Influence of rows: leverage, Cook's distance, DFFITS and DFBETAS, for every row or for those that say most."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from daskglm.design.working import WorkingScale
from daskglm.errors import DataError, DesignError, closest
from daskglm.kernels.basis import Basis
from daskglm.postestimation.aligned import aligned
from daskglm.postestimation.revisit import Rows, Visit, model_at, plan_of
from daskglm.postestimation.sandwich import information_of, inside
from daskglm.record import FitRecord
from daskglm.solvers.objective import Objective
from daskglm.totals.influence import Asked, Bread, Influences, Spread, dfbetas, influences, measures
from daskglm.totals.moments import Model

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

BY = ("cooks_distance", "leverage", "dffits")
# Shares at which the spread of a measure is shown.
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


def refuse_sampled(record: FitRecord, what: str, kinds: str = "") -> None:
    """DesignError for probability weights, under which a row stands for others that are not there to leave out.

    kinds: of residuals that the model has.
    """
    weights = record.specification.weights
    if weights is not None and weights[0] == "probability":
        raise DesignError(
            f"{what} of rows with probability weights are not defined here, for a row stands for others that were not drawn; "
            + (f"residuals of kind {kinds} are" if kinds else "residuals without leverage are")
        )


# -- the fit as measures need it -----------------------------------------------------------------------------------------


def bread_of(record: FitRecord, data: Any) -> Bread:
    """From the record, where the covariance it holds is model-based; from one pass where not."""
    found = _recorded(record)
    inverse, basis = _summed(record, data) if found is None else found
    parameters, s = record.parameters, record.statistics
    scale = WorkingScale(parameters, basis)
    way = scale.left(np.eye(parameters.n))
    with np.errstate(all="ignore"):
        spread = np.sqrt(np.diag(scale.covariance(inverse)))
        spread = np.where(np.isfinite(record.coefficients) & (spread > 0.0), spread, np.nan)
    change = inverse @ way.T / spread
    return Bread(inverse, change, s.rank, s.scale, s.deviance, s.df_resid, not s.scale_estimated, basis)


def _recorded(record: FitRecord) -> tuple[Matrix, Basis | None] | None:
    """(X'WX)^-1 on the working scale from the covariance of the fit, None where that does not tell."""
    s, working = record.statistics, record.working
    if record.specification.covariance != "model" or not (np.isfinite(s.scale) and s.scale > 0.0):
        return None
    return working.covariance / s.scale, working.basis


def _summed(record: FitRecord, data: Any) -> tuple[Matrix, Basis | None]:
    """The inverse of the information of the rows, on its working scale."""
    with Visit(record, data) as visit:
        objective = Objective(visit.rows.consumed(inside), visit.model, record.design.intercept)
        bread, _, _ = information_of(record, objective, visit)
    if bread.rows != record.statistics.n_rows:
        raise DataError(
            f"leverage is of the rows that the model was fitted to: of those it used {record.statistics.n_rows:,}, of these "
            f"data it would use {bread.rows:,}"
        )
    return bread.inverse, bread.basis


# -- every row -----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class InfluenceOf:
    """Measures of rows; NaN of those whose linear predictor is infinite, which have none."""

    columns: tuple[str, ...]
    model: Any
    coef: Vector
    bread: Bread
    changes: bool
    beside: tuple[str, ...] = ()

    def __call__(self, rows: Rows) -> Matrix:
        block = rows.inside.block
        found = measures(block, self.model, self.coef, self.bread)
        parts = [found.leverage, found.cooks]
        if isinstance(self.model, Model):
            parts.append(found.dffits)
        if self.changes:
            parts.append(dfbetas(block, self.model, self.bread, found.pull))
        result = np.column_stack(parts)
        if rows.at_limit is None:
            return result
        every = np.full((rows.n, result.shape[1]), np.nan)
        every[~rows.at_limit] = result
        return every


def columns_of(record: FitRecord, changes: bool) -> tuple[str, ...]:
    """Names of the measures; DFFITS are of one linear predictor."""
    first = ("leverage", "cooks_distance", "dffits")[: 3 if record.parameters.kind == "number" else 2]
    return first + tuple(f"dfbetas[{name}]" for name in record.names) * changes


def influence(
    record: FitRecord, data: Any, changes: bool, out: str | os.PathLike[str] | None, where: str | None = None
) -> Any:
    """A line for each row of the data."""
    refuse_sampled(record, "measures of influence")
    model, coef = _model(record)
    request = InfluenceOf(columns_of(record, changes), model, coef, bread_of(record, data), changes)
    return aligned(record, data, request, False, out, "measures of influence", where)


def _model(record: FitRecord) -> tuple[Any, Vector]:
    return model_at(record, plan_of(record.specification, record)), record.scaled


# -- the rows that say most ----------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Influential:
    """The rows of largest influence, and how all are spread; prints as a table.

    rows: a DataFrame of the keys and measures, the largest first; quantiles: of leverage and Cook's distance over all rows, each
    right to 1 part in 256; above: for each, the usual cut-off, 2 p / n and 4 / n, and how many rows exceed it. notes: how
    many rows a filter has left out.
    """

    rows: pd.DataFrame
    quantiles: pd.DataFrame
    above: pd.DataFrame
    by: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        digits = "{:.4g}".format
        shown = self.rows[[name for name in self.rows.columns if not str(name).startswith("dfbetas[")]]
        return "\n\n".join(
            (
                f"Rows of largest influence, by {self.by}",
                shown.to_string(index=False, float_format=digits),
                "All rows, quantiles",
                self.quantiles.to_string(float_format=digits),
                "Rows above the usual cut-off",
                self.above.to_string(float_format=digits),
                *self.notes,
            )
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(str(part.to_html()) for part in (self.rows, self.quantiles, self.above))


def _readable(values: npt.NDArray[Any], kind: pa.DataType | None) -> pd.Series:
    """A column of keys as its type says: rows are read as numbers, dates in days and times in seconds."""
    import pandas as pd

    column = pd.Series(list(values)).infer_objects()
    if kind is None or column.dtype.kind not in "biuf":
        return column
    if pa.types.is_boolean(kind):
        return column.astype(bool) if column.notna().all() else column
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return pd.to_datetime(column, unit="D" if pa.types.is_date(kind) else "s")
    return column


def influential(
    record: FitRecord, data: Any, k: int, by: str, keys: str | Sequence[str], where: str | None = None
) -> Influential:
    """The k rows of largest `by` over all leaves in one pass."""
    import pandas as pd

    refuse_sampled(record, "measures of influence")
    several = record.parameters.kind != "number"
    if by not in BY:
        raise DesignError(f"by={by!r} is no measure{closest(by, BY)}; there are: {', '.join(BY)}")
    if by == "dffits" and several:
        raise DesignError(
            'dffits are of one linear predictor, and this model has several: by="cooks_distance" or "leverage"'
        )
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise DesignError(f"k is how many rows to show, 1 or more, not {k!r}")
    names = (keys,) if isinstance(keys, str) else tuple(keys)
    bread = bread_of(record, data)
    s = record.statistics
    cuts = 2.0 * s.rank / s.nobs, 4.0 / s.nobs
    with Visit(record, data, names, where=where) as visit:
        asked = Asked(int(k), by, names, *cuts)
        found: Influences = visit.total_of_rows(influences, visit.model, visit.coef, bread, asked)
        types, notes = visit.types, visit.notes
    columns: dict[str, Any] = {
        name: _readable(column, types.get(name)) for name, column in zip(names, found.top.keys, strict=True)
    }
    measured = ("leverage", "cooks_distance", "dffits", *columns_of(record, True)[2 if several else 3 :])
    columns |= {n: v for n, v in zip(measured, found.top.values.T, strict=True) if not (several and n == "dffits")}
    spreads: dict[str, Spread] = {"leverage": found.leverage, "cooks_distance": found.cooks}
    quantiles = pd.DataFrame(
        {name: [spread.quantile(share) for share in SHARES] for name, spread in spreads.items()},
        index=pd.Index(SHARES, name="quantile"),
    )
    above = pd.DataFrame({"cutoff": cuts, "rows": found.high}, index=list(spreads))
    return Influential(pd.DataFrame(columns), quantiles, above, by, notes)
