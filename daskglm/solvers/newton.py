"""The Newton direction: factor the Gram in formula order, look again at columns of which little is left, solve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from daskglm.kernels.cholesky import ALIASED, DOUBTFUL, Factor, factor
from daskglm.solvers.objective import Curvature, Objective, Point

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Residual passes that one factorisation may ask for: each multiplies the digits, so that two settle any column that a
# float64 product can tell from its neighbours, and the third is in reserve.
RESIDUAL_PASSES = 3


def curvature(objective: Objective, point: Point, aliased: Mask | None) -> Curvature:
    """The factored Gram of a point; columns with little left are recomputed from their residuals, one pass each time.

    aliased (p,): columns already known to be combinations of earlier ones, or None where that is still to be decided.
    """
    assert point.gram is not None
    gram = point.gram
    found = factor(gram, aliased)
    doubtful = _doubtful(found)
    if not doubtful.size or objective.ridge:
        return Curvature(found, None, gram)
    columns = doubtful
    basis = np.eye(gram.shape[0])
    for _ in range(RESIDUAL_PASSES):
        basis = _residual_basis(gram, basis, found, columns, aliased)
        products = objective.residuals(point.coef, basis[:, columns], point.information)
        better = _with_residuals(point.gram, columns, products.cross, products.inner)
        left = np.diag(products.inner) / np.diag(point.gram)[columns]
        gone = np.zeros(gram.shape[0], bool) if aliased is None else aliased.copy()
        gone[columns[left < ALIASED]] = True
        gram, found = better, factor(better, gone)
        more = np.setdiff1d(_doubtful(found), columns)
        settled = not more.size and bool(np.all(found.pivots[columns][found.kept[columns]] > DOUBTFUL))
        if settled:
            break
        columns = np.union1d(columns, more)
    return Curvature(found, basis, gram, tuple(int(j) for j in columns))


def _doubtful(found: Factor) -> npt.NDArray[np.intp]:
    return np.flatnonzero(found.kept & (found.pivots < DOUBTFUL))


def _residual_basis(
    gram: Matrix, basis: Matrix, found: Factor, columns: npt.NDArray[np.intp], aliased: Mask | None
) -> Matrix:
    """Take from each doubtful column, in the present basis, its projection on the kept columns before it."""
    result = basis.copy()
    for j in columns:
        before = np.zeros(gram.shape[0], bool)
        before[:j] = found.kept[:j]
        if not before.any():
            continue
        # the leading rows of a Cholesky factor are the factor of the leading columns
        k = int(before.sum())
        leading = Factor(before, found.lower[:k, :k], found.pivots, True)
        result[:, j] -= basis @ leading.solve(np.where(before, gram[:, j], 0.0))
    return result


def _with_residuals(gram: Matrix, columns: npt.NDArray[np.intp], cross: Matrix, inner: Matrix) -> Matrix:
    """The Gram in the basis in which `columns` stand for their residuals."""
    result = gram.copy()
    result[:, columns] = cross
    result[columns, :] = cross.T
    result[np.ix_(columns, columns)] = 0.5 * (inner + inner.T)
    return result
