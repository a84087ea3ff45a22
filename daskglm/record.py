"""Everything a Fit knows, as plain data: it prints, predicts and is saved from this alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.columns import Ledger
from daskglm.design.design import Design
from daskglm.design.parameters import Parameters
from daskglm.design.working import WorkingScale
from daskglm.kernels.basis import Basis
from daskglm.kernels.bordered import LowRank

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Specification:
    """The model as asked for, in names: enough to say it again.

    kinds: how the formula saw each column it uses ("numeric", "factor", or a kind of time with its unit and zone, of
    `daskglm.design.times`); predictors: columns of the right side; weights: (type, column) or None; exposure,
    offset, trials: expressions or None; response_kind: "number", "classes" or "ordered"; family and link: as they are
    typed, with their parameters; separation: what was to become of an infinite optimum.
    """

    formula: str
    family: str
    link: str
    kinds: Mapping[str, str]
    response: str
    weights: tuple[str, str] | None
    offset: str | None
    exposure: str | None
    trials: str | None
    covariance: str
    dispersion: str | float | None
    missing: str
    unseen: str
    where: str | None
    predictors: tuple[str, ...] = ()
    response_kind: str = "number"
    separation: str = "limit"


@final
@dataclass(frozen=True)
class Certificate:
    """How exact the numbers are.

    decrement: Newton decrement per unit dispersion at the optimum that the search found, the squared distance to it in
    standard errors; tolerance: what it had to be below; goal: what the search aimed at, less than the tolerance where passes
    are cheap, and not insisted on; limited_by: "tolerance", or "rounding" where float64 had the
    last word; gradient: largest entry of the scaled score there; condition: of the scaled Gram that errors come from
    (1-norm); halvings: steps that had to be shortened.

    digits: estimated correct digits of the reported coefficients, of the worst of them, -log10 of its relative error, as of
    the columns and responses that float64 holds; NaN where there is no such estimate; worst: its name; error_digits: the
    same of standard errors. Refinements that were made: residual_columns, recomputed from what earlier ones leave of them, in
    residual_passes; twofold_passes: over the data with twice the digits, each of them a step at the end.
    """

    decrement: float
    tolerance: float
    limited_by: str
    gradient: float
    condition: float
    halvings: int
    residual_columns: tuple[str, ...]
    digits: float = float("nan")
    worst: str = ""
    error_digits: float = float("nan")
    residual_passes: int = 0
    twofold_passes: int = 0
    goal: float = float("nan")

    @property
    def refinements(self) -> tuple[str, ...]:
        """What was done for the sake of digits, in words."""
        made = []
        if self.residual_columns:
            columns = ", ".join(self.residual_columns[:4]) + (", ..." if len(self.residual_columns) > 4 else "")
            made.append(f"{_count(self.residual_passes, 'residual pass')} for {columns}")
        if self.twofold_passes:
            made.append(f"{_count(self.twofold_passes, 'pass')} in twofold arithmetic")
        return tuple(made)

    @property
    def accuracy(self) -> str:
        """Correct digits of coefficients and standard errors in one sentence; empty where they are not known."""
        if not self.digits >= 0.0:
            return ""
        worst = f" (worst: {self.worst})" if self.worst else ""
        errors = f"{int(self.error_digits)}" if self.error_digits >= 0.0 else "unknown"
        return f"{int(self.digits)} correct digits of coefficients{worst}, {errors} of standard errors"

    def __str__(self) -> str:
        what = "rounding" if self.limited_by == "rounding" else f"tolerance {self.tolerance:.1e}"
        if self.goal < self.tolerance:
            what += f" (the search aimed at {self.goal:.1e})"
        lines = [
            f"Gradient at the coefficients   {self.gradient:.1e} (largest entry, scaled)",
            f"Newton decrement               {self.decrement:.1e}, limited by {what}",
            f"Condition of the scaled Gram   {self.condition:.1e}",
            f"Estimated accuracy             {self.accuracy or 'unknown'}",
            f"Step halvings                  {self.halvings}",
            f"Refinements                    {'; '.join(self.refinements) or 'none needed'}",
        ]
        return "\n".join(lines)


def _count(number: int, what: str) -> str:
    plural = "" if number == 1 else "es"
    return f"{number} {what}{plural}" if number else f"{what}es"


@final
@dataclass(frozen=True)
class Statistics:
    """Numbers of the fit as a whole; NaN where one does not exist. clusters: how many, for each way that errors are
    clustered; at_limit: observations that are fitted at the limit of an infinite optimum, which nobs leaves out.
    """

    n_rows: int
    nobs: float
    df_resid: float
    df_null: float
    rank: int
    deviance: float
    null_deviance: float
    pearson_chi2: float
    scale: float
    scale_estimated: bool
    llf: float
    aic: float
    bic: float
    clusters: tuple[int, ...] = ()
    at_limit: float = 0.0

    @property
    def n_used(self) -> float:
        """Observations used, those at the limit included."""
        return self.nobs + self.at_limit

    @property
    def df_test(self) -> float | None:
        """Degrees of freedom of t tests: the smallest number of clusters less one, or those of an estimated dispersion;
        None where tests are normal.
        """
        if self.clusters:
            return float(min(self.clusters) - 1)
        return self.df_resid if self.scale_estimated else None


@final
@dataclass(frozen=True)
class Separation:
    """What an infinite optimum is made of: coefficients tend to finite + t directions[0] as t grows, on the user's scale.

    rows: how many of the data are moved by a direction, and so fitted at the limit. directions (m, r): the first of them
    that moves a row's linear predictor takes it to infinity, by its sign; a row that none moves has x' finite. finite (r,):
    the estimates from all rows that none moves, 0 where those leave a column no estimate. Of classes: rows in which some class becomes impossible; `finite` tells those apart that stay possible. dropped: those rows were left out,
    and nothing is said of rows like them.
    """

    rows: int
    directions: Matrix
    finite: Vector
    dropped: bool = False


@final
@dataclass(frozen=True)
class WorkingEstimate:
    """The estimate on its working scale: coefficients (r,) and covariance (r, r), 0 where there is no estimate.

    held: the covariance, as diagonal plus low rank where a factor of many levels makes it that
    (basis is None then). With an infinite optimum it is that of the rows whose linear predictors
    are finite.
    """

    coefficients: Vector
    held: Matrix | LowRank
    basis: Basis | None = None

    @property
    def covariance(self) -> Matrix:
        """The covariance (r, r), written out anew where it is held otherwise."""
        return self.held.dense() if isinstance(self.held, LowRank) else self.held


@final
@dataclass(frozen=True)
class FitRecord:
    """coefficients (r,) on the scale of the user's columns, NaN where aliased; an infinite coefficient is -inf or inf.

    aliased: per aliased parameter, the combination of others that it is; separated: infinite ones, and `separation` what
    predictions need of them; working: the estimate on its working scale; family, link: as objects; shape: (estimate, standard error) of each parameter beside the coefficients; trace: per step loss, decrement, halvings.
    """

    specification: Specification
    design: Design
    coefficients: Vector
    aliased: Mapping[str, Mapping[str, float]]
    separated: tuple[str, ...]
    statistics: Statistics
    converged: bool
    status: str
    reason: str
    n_iter: int
    n_passes: int
    decodes: int
    certificate: Certificate
    ledger: Ledger
    trace: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    shape: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    separation: Separation | None = None
    family: Any = None
    link: Any = None
    working: WorkingEstimate = field(kw_only=True)

    @property
    def covariance(self) -> Matrix:
        """Of the reported coefficients (r, r), NaN where one has no finite estimate; made anew each time."""
        reported = self._reported
        if reported is None:
            matrix = self.scale.covariance(self.working.covariance)
            matrix = 0.5 * (matrix + matrix.T)
        else:
            matrix = reported.dense()
        gone = self._without_error
        matrix[gone, :] = np.nan
        matrix[:, gone] = np.nan
        return matrix

    @cached_property
    def errors(self) -> Vector:
        """Standard errors of the reported coefficients (r,), NaN where one has none."""
        reported = self._reported
        with np.errstate(invalid="ignore"):
            if reported is not None:
                return np.where(self._without_error, np.nan, np.sqrt(reported.variances()))
            return np.asarray(np.sqrt(np.diag(self.covariance)))

    @property
    def _without_error(self) -> npt.NDArray[np.bool_]:
        """Parameters (r,) without a finite estimate, or whose information vanishes; of a perfect fit all errors are 0."""
        held = self.working.held
        variances = held.variances() if isinstance(held, LowRank) else np.diag(held)
        vanished = (variances == 0.0) & bool(variances.any())
        return np.asarray(~np.isfinite(self.coefficients) | self.parameters.reported(vanished))

    @property
    def _reported(self) -> LowRank | None:
        """The covariance of the reported coefficients where it is held as diagonal plus low rank."""
        held = self.working.held
        if not isinstance(held, LowRank):
            return None
        # columns of levels, of which the diagonal is, are scaled and not shifted
        factor = self.design.unscaling().factor
        return LowRank(factor**2 * held.diagonal, self.scale.left(held.half))

    @property
    def scale(self) -> WorkingScale:
        """The way between reported parameters and those of `working`."""
        return WorkingScale(self.parameters, self.working.basis)

    @property
    def scaled(self) -> Vector:
        """Coefficients (r,) of the scaled columns for rows with a finite linear predictor, 0 where there is no estimate."""
        return self.on(None)

    def on(self, basis: Basis | None) -> Vector:
        """Coefficients (r,) of the same rows on the working scale of another basis."""
        working = self.working
        if basis is working.basis:
            return working.coefficients
        nothing = np.zeros_like(working.coefficients)
        scaled = (
            (working.coefficients, nothing) if working.basis is None else working.basis.scaled(working.coefficients)
        )
        return np.asarray(scaled[0] + scaled[1]) if basis is None else basis.coefficients(scaled)

    @property
    def finite(self) -> Vector:
        """Reported coefficients (r,) for rows with a finite linear predictor, 0 where there is no estimate."""
        return np.nan_to_num(self.coefficients) if self.separation is None else self.separation.finite

    def forms(self, linear: Matrix) -> tuple[Vector, Matrix]:
        """L b (m,) and L C L' (m, m) of combinations L (m, r) of the reported parameters, in the finite estimates."""
        rows = self.scale.rows(linear)
        held = self.working.held
        form = held.form(rows) if isinstance(held, LowRank) else np.asarray(rows @ held @ rows.T)
        return rows @ self.working.coefficients, form

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names (r,)."""
        return self.parameters.names

    @property
    def parameters(self) -> Parameters:
        """How the parameters are laid out."""
        return Parameters(self.design, self.specification.response_kind)
