"""A residual pass: products of columns with what earlier columns leave of a doubtful one, formed row by row.

A Gram knows the residual of a nearly collinear column only as a difference of large numbers; summing the products of the
residual itself keeps the digits (iterative refinement of the factor, as Bjorck 1967 does for least squares). The residual
of one row is a difference of large numbers, too: where errors are to come from the products, it is formed in twofold
arithmetic from the columns as the user has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Workspace, add_gradient, gather
from daskglm.model.likelihoods import Information
from daskglm.totals.moments import CHUNK_ROWS, Model
from daskglm.totals.residualised import residual_columns

Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class ResidualProducts:
    """cross (p, k): X'W R; inner (k, k): R'W R, with R = X T (n, k)."""

    cross: Matrix
    inner: Matrix

    def __add__(self, other: ResidualProducts) -> ResidualProducts:
        return ResidualProducts(self.cross + other.cross, self.inner + other.inner)


def residual_products(
    block: Block,
    model: Model,
    coef: npt.NDArray[np.float64],
    basis: Matrix,
    information: Information,
    exact: bool = False,
) -> ResidualProducts:
    """Products of R = X basis, basis (p, k), under the weights at coef (p,), both for the scaled columns.

    exact: each row's residual without the rounding of the columns' shifts and of its sum.
    """
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    k = basis.shape[1]
    cross, inner = np.zeros((k, model.width)), np.zeros((k, k))
    raw = model.raw(coef)
    for start in range(0, block.n, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, block.n)
        eta = np.zeros(stop - start)
        if block.offset is not None:
            eta += block.offset[start:stop]
        gather(pieces, workspace, raw, start, stop, eta)
        y = block.y[start:stop].astype(np.float64)
        with np.errstate(all="ignore"):
            weight = np.ones(stop - start)
            if information != "unit":
                weight = model.likelihood.rows(y, eta, 2, information).weight
        if block.weight is not None and information != "unit":
            weight = weight * block.weight[start:stop]
        residual = residual_columns(block.rows(start, stop), model, basis, exact)
        for j in range(k):
            weighted = weight * residual[j]
            add_gradient(pieces, workspace, weighted, start, stop, cross[j])
            for i in range(k):
                inner[i, j] += float((residual[i] * weighted).sum())
    return ResidualProducts(np.ascontiguousarray(cross[:, model.select].T), inner)
