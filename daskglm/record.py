"""Everything a Fit knows, as plain data: it prints, predicts and is saved from this alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.columns import Ledger
from daskglm.design.design import Design
from daskglm.design.parameters import Parameters

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Specification:
    """The model as asked for, in names: enough to say it again.

    kinds: how the formula saw each column it uses ("numeric" or "factor"); predictors: columns of the right side; weights: (type, column) or None; exposure,
    offset, trials: expressions or None; response_kind: "number", "classes" or "ordered"; family and link: as they are
    typed, with their parameters.
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


@final
@dataclass(frozen=True)
class Certificate:
    """How exact the numbers are.

    decrement: Newton decrement per unit dispersion at the reported coefficients, the squared distance to the optimum in
    standard errors; tolerance: what it had to be below, and limited_by: "tolerance", or "rounding" where float64 had the
    last word; gradient: largest entry of the scaled score; condition: of the scaled Gram that errors come from (1-norm);
    halvings: steps that had to be shortened; residual_columns: columns recomputed from what earlier ones leave of them.
    """

    decrement: float
    tolerance: float
    limited_by: str
    gradient: float
    condition: float
    halvings: int
    residual_columns: tuple[str, ...]


@final
@dataclass(frozen=True)
class Statistics:
    """Numbers of the fit as a whole; NaN where one does not exist."""

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


@final
@dataclass(frozen=True)
class FitRecord:
    """coefficients (r,) and covariance (r, r) on the scale of the user's columns, NaN where aliased.

    shape: (estimate, standard error) of each parameter beside the coefficients; aliased: per aliased parameter, the combination of others that it is; trace: per step loss, decrement, halvings.
    """

    specification: Specification
    design: Design
    coefficients: Vector
    covariance: Matrix
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

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names (r,)."""
        return self.parameters.names

    @property
    def parameters(self) -> Parameters:
        """How the parameters are laid out."""
        return Parameters(self.design, self.specification.response_kind)
