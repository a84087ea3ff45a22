"""The factored Gram behind a Newton direction: which columns are aliased, and those of which little is left looked at again.

Whether a column is a combination of earlier ones is a matter of the columns, not of the weights at some iterate, under
which a few rows can outweigh all others. So it is decided on X'X; and a column that is no combination stays in, however
little the present weights leave of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from daskglm.kernels.bordered import AnyFactor, AnyGram, Bordered, columns_of, diagonal_of, factor_any
from daskglm.kernels.cholesky import ALIASED, DOUBTFUL, FAINT, Factor
from daskglm.model.likelihoods import Information
from daskglm.solvers.objective import Curvature, Objective, Point

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Residual passes that one factorisation may ask for: each multiplies the digits, so that two settle any column that a
# float64 product can tell from its neighbours, and the third is in reserve.
RESIDUAL_PASSES = 3
# Passes in double-double arithmetic take some thirty times an ordinary one: data of so few rows times columns do not mind.
CHEAP = 1e6
# Of columns of which earlier ones leave less than this the errors are worth another look, where a pass costs nothing.
DULL = 1e-4
# Passes for naming combinations, and of how many columns at most.
COMBINATION_PASSES = 3
MOST_COMBINATIONS = 20
# What is left of a column, formed row by row, is itself rounding below the square of the machine epsilon.
LOST = 1e-28


def is_cheap(rows: float, columns: int) -> bool:
    """Whether the data are so small that passes in double-double arithmetic do not matter."""
    return rows * columns <= CHEAP


def curvature(objective: Objective, point: Point, aliased: Mask | None) -> Curvature:
    """The factored Gram of a point; columns with little left are recomputed from their residuals, one pass each time.

    aliased (p,): columns already known to be combinations of earlier ones, or None where that is still to be decided; it
    costs passes of its own only where the weighted Gram leaves a doubt.
    """
    assert point.gram is not None
    nobody = np.zeros(point.gram.shape[0], bool)
    known = nobody if objective.silent is None else objective.silent
    least = FAINT if objective.model.refines and not objective.ridge else ALIASED
    found = factor_any(point.gram, known if aliased is None else aliased, least)
    if objective.ridge:
        return Curvature(found, None, point.gram, nobody)
    if aliased is None:
        if not _in_doubt(found, known).any():
            return Curvature(found, None, point.gram, known)
        aliased = _combinations(objective, point)
        found = factor_any(point.gram, aliased, least)
    if not objective.model.refines or not found.definite or not _in_doubt(found, aliased).any():
        return Curvature(found, None, point.gram, aliased)
    # errors are reported from the closing point: there, products are to keep all digits
    closing = point.sums.statistics is not None
    return _refined(objective, point.coef, point.gram, point.information, aliased, LOST, closing)


def sharpened(objective: Objective, point: Point, found: Curvature) -> Curvature:
    """The factor of a closing point, in a basis in which every column that has lost a fourth of its digits stands for its
    residual: for the sake of the errors alone, in a pass or two.
    """
    assert point.gram is not None
    if not _in_doubt(found.factor, found.aliased, DULL).any() and found.basis is None:
        return found
    return _refined(objective, point.coef, point.gram, point.information, found.aliased, LOST, True, DULL)


def combinations(objective: Objective, point: Point, found: Curvature, columns: npt.NDArray[np.intp]) -> Matrix:
    """c (p, k): how aliased columns are made of kept ones, x_j = X c, where the Gram was factored in a basis of residuals: what
    the Gram says of it has lost as many digits, and is put right by what it leaves of the columns, in a pass each.
    """
    assert point.gram is not None
    right = np.where(found.kept[:, None], columns_of(point.gram, columns), 0.0)
    result = np.zeros_like(right)
    for last in range(COMBINATION_PASSES):
        result += np.array([found.solve(column) for column in right.T]).T
        if columns.size > MOST_COMBINATIONS or last == COMBINATION_PASSES - 1:
            break
        left = -result
        left[columns, np.arange(columns.size)] += 1.0
        products = objective.residuals(point.coef, left, point.information, True)
        right = np.where(found.kept[:, None], products.cross, 0.0)
    return result


def _combinations(objective: Objective, point: Point) -> Mask:
    """Columns of which earlier ones leave less than 1e-7 of their length, every row counting once; 3e-6 where they cannot be
    looked at again.
    """
    unit = objective.evaluate(point.coef, 2, "unit")
    assert unit.gram is not None
    if not objective.model.refines:
        return ~factor_any(unit.gram).kept
    found = factor_any(unit.gram, None, FAINT)
    # what is below the line without a doubt is set aside as it is
    gone = ~found.kept & (np.abs(found.pivots) < FAINT)
    if isinstance(unit.gram, Bordered) and _in_doubt(found, gone).any():
        found = factor_any(unit.gram, None, FAINT, precise=True)
        gone = ~found.kept & (np.abs(found.pivots) < FAINT)
    if not _in_doubt(found, gone).any():
        return gone
    return ~_refined(objective, point.coef, unit.gram, "unit", gone, FAINT).kept


def _in_doubt(found: AnyFactor, aliased: Mask, doubt: float = DOUBTFUL) -> Mask:
    """Columns that should be there and have lost half their digits (of the share `doubt` of their square, or less), or all."""
    return (found.kept & (found.pivots < doubt)) | (~found.kept & ~aliased)


def _refined(
    objective: Objective,
    coef: Vector,
    table: AnyGram,
    information: Information,
    aliased: Mask,
    least: float,
    exact: bool = False,
    doubt: float = DOUBTFUL,
) -> Curvature:
    """Factor in a basis in which doubtful columns stand for their residuals, until no pivot is in doubt. exact: those without
    the rounding of their rows.

    A column is set aside only if less than `least` of it remains.
    """
    gram, original = table, diagonal_of(table)
    found = factor_any(gram, aliased, FAINT)
    columns = np.flatnonzero(_in_doubt(found, aliased, doubt))
    if isinstance(gram, Bordered) and np.isin(columns, gram.inside).any():
        # residuals of levels are not diagonal any more
        return _refined(objective, coef, gram.dense(), information, aliased, least, exact, doubt)
    basis = np.eye(gram.shape[0])
    better: AnyGram = gram
    gone = aliased
    for _ in range(RESIDUAL_PASSES):
        basis = _residual_basis(better, basis, found, columns)
        products = objective.residuals(coef, basis[:, columns], information, exact)
        left = np.diag(products.inner) / np.maximum(original[columns], np.finfo(float).tiny)
        gone = aliased.copy()
        gone[columns[left < least]] = True
        better = _with_residuals(gram, columns, products.cross, products.inner)
        found = factor_any(better, gone, FAINT)
        more = np.setdiff1d(np.flatnonzero(_in_doubt(found, gone, doubt)), columns)
        if isinstance(gram, Bordered) and np.isin(more, gram.inside).any():
            return _refined(objective, coef, gram.dense(), information, aliased, least, exact, doubt)
        settled = not more.size and bool(np.all(found.pivots[columns][found.kept[columns]] > doubt))
        if settled and found.kept[columns].sum() == np.sum(~gone[columns]):
            break
        columns = np.union1d(columns, more)
    return Curvature(found, basis, better, aliased, tuple(int(j) for j in columns))


def _residual_basis(gram: AnyGram, basis: Matrix, found: AnyFactor, columns: npt.NDArray[np.intp]) -> Matrix:
    """Take from each doubtful column, in the present basis, its projection on the kept columns before it; the basis is
    written over.
    """
    taken = np.zeros((gram.shape[0], columns.size))
    for place, j in enumerate(columns):
        before = np.zeros(gram.shape[0], bool)
        before[:j] = found.kept[:j]
        if not before.any():
            continue
        if isinstance(found, Factor):
            # the leading rows of a Cholesky factor are the factor of the leading columns
            k = int(before.sum())
            leading: AnyFactor = Factor(before, found.lower[:k, :k], found.pivots, True)
        else:
            leading = factor_any(gram, ~before, FAINT)
        column = columns_of(gram, np.array([j]))[:, 0]
        taken[:, place] = basis @ leading.solve(np.where(before, column, 0.0))
    basis[:, columns] -= taken
    return basis


def _with_residuals(gram: AnyGram, columns: npt.NDArray[np.intp], cross: Matrix, inner: Matrix) -> AnyGram:
    """The Gram in the basis in which `columns` stand for their residuals; of a bordered one they are of the border."""
    if isinstance(gram, Bordered):
        places = np.searchsorted(gram.border, columns)
        levels = gram.cross.copy()
        levels[:, places] = cross[gram.inside]
        square = _with_residuals(gram.square, places, cross[gram.border], inner)
        assert not isinstance(square, Bordered)
        return Bordered(gram.inside, gram.border, gram.diagonal, levels, square)
    result = gram.copy()
    result[:, columns] = cross
    result[columns, :] = cross.T
    result[np.ix_(columns, columns)] = 0.5 * (inner + inner.T)
    return result
