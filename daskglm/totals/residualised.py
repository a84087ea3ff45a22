"""Blocks in which nearly collinear columns are replaced by what earlier columns leave of them.

The replaced columns X T are formed row by row, so that products and quadratic forms of them keep the digits that those of the
original columns lose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.basis import Basis
from daskglm.kernels.blocks import Block, Scaling
from daskglm.kernels.products import Pieces, Workspace, gather
from daskglm.totals.moments import CHUNK_ROWS, Model
from daskglm.totals.refinement import linear_predictor, unscaled

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


def residual_columns(block: Block, model: Any, directions: Matrix, exact: bool = True) -> Matrix:
    """X D (k, n) of the scaled columns, D (p, k).

    exact: without the rounding of the columns' shifts and of the sum, in double-double arithmetic; otherwise each row's
    residual has the rounding of its terms.
    """
    result = np.zeros((directions.shape[1], block.n))
    raws = [model.raw(np.ascontiguousarray(column)) for column in directions.T]
    if not exact:
        pieces = Pieces.of(block, model.scaling)
        workspace = Workspace(pieces)
        for start in range(0, block.n, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, block.n)
            for one, raw in zip(result, raws, strict=True):
                gather(pieces, workspace, raw, start, stop, one[start:stop])
        return result
    sizes = tuple(piece.n_levels for piece in block.levels)
    users = [unscaled(model.scaling, sizes, raw) for raw in raws]
    for start in range(0, block.n, CHUNK_ROWS):
        rows = block.rows(start, min(start + CHUNK_ROWS, block.n))
        dense = [column.astype(np.float64) for column in rows.dense]
        for one, user in zip(result, users, strict=True):
            with np.errstate(all="ignore"):
                high, low = linear_predictor(rows, dense, user, offset=False)
                one[start : start + rows.n] = high + low
    return result


def working_block(block: Block, model: Any, basis: Basis | None, exact: bool = True) -> Block:
    """The block with the replaced columns of X T as further dense columns, as `working_model` selects them."""
    if basis is None:
        return block
    columns = residual_columns(block, model, basis.directions, exact)
    return replace(block, dense=(*block.dense, *columns))


def working_model(model: Any, basis: Basis | None) -> Any:
    """The model of the columns X T, whose coefficients are those of the working scale."""
    if basis is None:
        return model
    assert isinstance(model, Model)
    return replace(
        model,
        select=working_select(model.select, model.scaling, basis),
        width=model.width + basis.columns.size,
        scaling=working_scaling(model.scaling, basis),
        refines=False,
    )


def working_select(select: npt.NDArray[np.int64], scaling: Scaling, basis: Basis) -> npt.NDArray[np.int64]:
    """The raw column of a `working_block` that each column of X T is (p,)."""
    d, m = scaling.shift.size, basis.columns.size
    result = np.where(select > d, select + m, select)
    result[basis.columns] = 1 + d + np.arange(m)
    return np.asarray(result)


def working_scaling(scaling: Scaling, basis: Basis) -> Scaling:
    """The scaling of a `working_block`, whose further columns are on their scale already."""
    m = basis.columns.size
    shift, scale = np.concatenate([scaling.shift, np.zeros(m)]), np.concatenate([scaling.scale, np.ones(m)])
    return replace(scaling, shift=shift, scale=scale)


@final
@dataclass(frozen=True)
class InBasis:
    """function(block, *args) on blocks of the columns X T."""

    function: Callable[..., Any]
    model: Any
    basis: Basis

    def __call__(self, block: Block, *args: Any) -> Any:
        return self.function(working_block(block, self.model, self.basis), *args)


def in_basis(function: Callable[..., Any], model: Any, basis: Basis | None) -> Callable[..., Any]:
    """A function of a block as a function of the columns X T; the same function where these are the scaled columns."""
    return function if basis is None else InBasis(function, model, basis)
