"""Another covariance of a finished fit, from its rows read once more."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from daskglm.errors import DataError, DesignError
from daskglm.inference.covariance import Covariance, covariance, kind_of
from daskglm.kernels.blocks import Block
from daskglm.model.weights import Cluster
from daskglm.plan import check_covariance
from daskglm.record import FitRecord
from daskglm.revisit import Rows, Visit
from daskglm.solvers.newton import curvature
from daskglm.solvers.objective import Curvature, Objective, Point

Matrix = npt.NDArray[np.float64]

# The squared distance in standard errors from the reported coefficients to the optimum of the rows, beyond which these are
# others than the model was fitted to; as a multiple of what the fit itself left, and at least.
ANOTHER = 1e4
ELSEWHERE = 1e-6
# Kinds that are known from one pass, the Gram's.
ONE_PASS = ("model", "HC0", "HC1")


def covariance_of(record: FitRecord, kind: str | Cluster, data: Any, client: Any = None) -> Matrix:
    """The covariance (r, r) of that kind at the reported coefficients, NaN where these have no error.

    data: the rows that the model was fitted to. One pass for "model", "HC0" and "HC1", two for "observed", "HC2" and "HC3",
    and 2^w for w ways of clustering. DataError where the rows have another optimum.
    """
    check_covariance(kind, None, "kind")
    if record.specification.separation == "firth" and kind != "model":
        raise DesignError(
            'with separation="firth" the score is another; its errors are those of covariance="model" alone'
        )
    probability = record.specification.weights is not None and record.specification.weights[0] == "probability"
    clusters = kind.columns if isinstance(kind, Cluster) else ()
    with Visit(record, data, passes=1 if kind in ONE_PASS else 2, clusters=clusters, client=client) as visit:
        check_covariance(kind, visit.plan.weights, "kind")
        objective = Objective(visit.rows.consumed(inside), visit.model, record.design.intercept)
        meat = kind in ("HC0", "HC1") or (probability and kind == "model")
        reported = visit.model.likelihood.reported
        point = objective.evaluate(visit.coef, 2, reported, statistics=True, meat=meat)
        if not np.isfinite(point.loss):
            raise DataError("the coefficients give some of these rows an impossible mean: are they those of the fit?")
        bread = curvature(objective, point, _aliased(record))
        if record.specification.separation != "firth":
            _require_optimum(record, point, bread)
        found: Covariance = covariance(
            kind_of(kind, visit.plan.weights), objective, point, bread, record.statistics.scale
        )
        if found.note and np.isnan(found.matrix).any():
            raise DataError(found.note)
        matrix = record.parameters.covariance(found.matrix)
        gone = record.parameters.reported(~bread.kept) | ~np.isfinite(record.coefficients)
    matrix = 0.5 * (matrix + matrix.T)
    matrix[gone, :] = np.nan
    matrix[:, gone] = np.nan
    return np.asarray(matrix)


def inside(rows: Rows) -> Block:
    """The rows that a finite optimum is about."""
    return rows.inside.block


def _aliased(record: FitRecord) -> npt.NDArray[np.bool_] | None:
    """Parameters without an estimate, in the order of the arithmetic; to be decided anew where rows are at their limit."""
    if record.separation is not None:
        return None
    at = record.parameters.reported(np.arange(record.parameters.n))
    mask = np.zeros(at.size, bool)
    mask[at] = np.isnan(record.coefficients)
    return mask


def _require_optimum(record: FitRecord, point: Point, bread: Curvature) -> None:
    gradient = np.where(bread.kept, point.gradient, 0.0)
    decrement = float(gradient @ bread.solve(gradient)) / max(record.statistics.scale, np.finfo(float).tiny)
    if not decrement <= max(ELSEWHERE, ANOTHER * record.certificate.decrement):
        raise DataError(
            f"the reported coefficients are {np.sqrt(max(decrement, 0.0)):.2g} standard errors from the optimum of these rows: "
            "give the rows that the model was fitted to"
        )


def refuse_without_data(kind: str | Cluster, fitted: str) -> NoReturn:
    """A DesignError that says how to get another covariance than the one fitted."""
    name = kind.text if isinstance(kind, Cluster) else str(kind)
    raise DesignError(f"the fit holds its {fitted} covariance; {name} needs the rows again: cov_params(kind, data)")
