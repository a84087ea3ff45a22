"""Another covariance of a finished fit, from its rows read once more."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from daskglm.design.working import WorkingScale
from daskglm.errors import DataError, DesignError
from daskglm.inference.covariance import Bread, basis_of, covariance, kind_of
from daskglm.kernels.blocks import Block
from daskglm.model.weights import Cluster, Probability
from daskglm.plan import check_covariance
from daskglm.postestimation.revisit import Rows, Visit
from daskglm.record import FitRecord
from daskglm.solvers.newton import curvature, is_cheap, sharpened
from daskglm.solvers.objective import Objective

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# The squared distance in standard errors from the reported coefficients to the optimum of the rows, beyond which these are
# others than the model was fitted to; as a multiple of what the fit itself left, and at least.
ANOTHER = 1e4
ELSEWHERE = 1e-6
# Kinds that one pass tells, the Gram's, and those that need the information only to begin with.
OF_GRAM = ("model", "HC0", "HC1")


def covariance_of(record: FitRecord, kind: str | Cluster, data: Any, client: Any = None) -> Matrix:
    """The matrix of `covariance_and_notes`."""
    return covariance_and_notes(record, kind, data, client)[0]


def covariance_and_notes(
    record: FitRecord, kind: str | Cluster, data: Any, client: Any = None
) -> tuple[Matrix, tuple[str, ...]]:
    """The covariance (r, r) of that kind at the reported coefficients, NaN where these have no error.

    data: the rows that the model was fitted to. One pass for "model", "HC0" and "HC1", two for "observed", one for HC2 and
    HC3, 2^w - 1 for w ways of clustering; and one more for HC2, HC3 and clusters where the fit does not hold the errors of
    its model, whose inverse is the information, to enough digits. DataError where the rows have another optimum.
    """
    check_covariance(kind, None, "kind")
    if record.specification.separation == "firth" and kind != "model":
        raise DesignError(
            'with separation="firth" the score is another; its errors are those of covariance="model" alone'
        )
    bread = None if kind == "observed" or kind in OF_GRAM else _known(record)
    clusters = kind.columns if isinstance(kind, Cluster) else ()
    passes = 2 ** len(clusters) - 1 if clusters else 1
    if kind not in OF_GRAM and bread is None:
        passes += 1
    if record.specification.where is not None:
        # rows that are kept are counted as they are read
        passes = max(passes, 2)
    with Visit(record, data, passes=passes, clusters=clusters, client=client) as visit:
        check_covariance(kind, visit.plan.weights, "kind")
        objective = Objective(visit.rows.consumed(inside), visit.model, record.design.intercept)
        gradient, tables = None, None
        if bread is None:
            meat = kind in ("HC0", "HC1") or isinstance(visit.plan.weights, Probability)
            bread, gradient, tables = information_of(record, objective, visit, meat)
            _require_optimum(record, gradient, bread)
        found = covariance(kind_of(kind, visit.plan.weights), objective, bread, record.statistics.scale, tables)
    if gradient is None and found.gradient is not None:
        _require_optimum(record, found.gradient, bread)
    if found.note and np.isnan(found.matrix).any():
        raise DataError(found.note)
    matrix = WorkingScale(record.parameters, found.basis).covariance(found.matrix)
    gone = record.parameters.reported(np.diag(bread.inverse) == 0.0) | ~np.isfinite(record.coefficients)
    matrix = 0.5 * (matrix + matrix.T)
    matrix[gone, :] = np.nan
    matrix[:, gone] = np.nan
    return np.asarray(matrix), visit.notes


def information_of(
    record: FitRecord, objective: Objective, visit: Visit, meat: bool = False
) -> tuple[Bread, Vector, Any]:
    """The information at the reported coefficients, the gradient on its working scale, and the products of scores if asked
    for. One pass, and more where nearly collinear columns are recomputed.
    """
    point = objective.evaluate(visit.coef, 2, visit.model.likelihood.reported, statistics=True, meat=meat)
    found = curvature(objective, point, _aliased(record))
    if visit.model.refines and is_cheap(float(point.sums.n), record.parameters.n):
        found = sharpened(objective, point, found)
    basis = basis_of(found)
    gradient = point.gradient if basis is None else basis.matrix().T @ point.gradient
    return Bread.of(point, found, record.on(basis)), gradient, point.sums.meat


def _known(record: FitRecord) -> Bread | None:
    """The information's inverse, from the errors that the fit holds; None where these are others."""
    specification, statistics, parameters = record.specification, record.statistics, record.parameters
    sampled = specification.weights is not None and specification.weights[0] == "probability"
    if specification.covariance != "model" or sampled or record.separation is not None or parameters.kind != "number":
        return None
    working, aliased = record.working, _aliased(record)
    if not statistics.scale > 0.0 or not np.isfinite(working.covariance).all():
        return None
    assert aliased is not None
    inverse = working.covariance / statistics.scale
    inverse[aliased, :] = 0.0
    inverse[:, aliased] = 0.0
    return Bread(
        working.coefficients, inverse, np.zeros(aliased.size), aliased, statistics.rank, statistics.nobs,
        statistics.n_rows, working.basis,
    )  # fmt: skip


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


def _require_optimum(record: FitRecord, gradient: Vector, bread: Bread) -> None:
    """A DataError where the score is not zero: these are not the rows of the fit."""
    if record.specification.separation == "firth":
        return
    scale = record.statistics.scale if record.statistics.scale > 0.0 else 1.0
    with np.errstate(all="ignore"):
        kept = np.where(np.diag(bread.inverse) > 0.0, gradient, 0.0)
        decrement = float(kept @ bread.inverse @ kept) / scale
    if not np.isfinite(decrement):
        raise DataError("the coefficients give some of these rows an impossible mean: are they those of the fit?")
    if decrement > max(ELSEWHERE, ANOTHER * record.certificate.decrement):
        raise DataError(
            f"the reported coefficients are {np.sqrt(max(decrement, 0.0)):.2g} standard errors from the optimum of these rows: "
            "give the rows that the model was fitted to"
        )


def refuse_without_data(kind: str | Cluster, fitted: str) -> NoReturn:
    """A DesignError that says how to get another covariance than the one fitted."""
    name = kind.text if isinstance(kind, Cluster) else str(kind)
    raise DesignError(f"the fit holds its {fitted} covariance; {name} needs the rows again: cov_params(kind, data)")
