"""The part of an adjusted score that takes away the bias of maximum likelihood, which needs the leverage of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Workspace, add_gradient, gather, quadratic_form
from daskglm.totals.moments import CHUNK_ROWS, Model, Moments, Request, moments

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Adjusted:
    """Moments, and raw (width,): sum_i x_i h_i mu_i'' / (2 mu_i') over the raw columns."""

    moments: Moments
    raw: Vector

    def __add__(self, other: Adjusted) -> Adjusted:
        return Adjusted(self.moments + other.moments, self.raw + other.raw)


def adjusted(block: Block, model: Model, request: Request, inverse: Matrix) -> Adjusted:
    """Moments as requested, and what mean bias reduction adds to the score at phi = 1: X' (h mu'' / (2 mu')).

    inverse (p, p): of the expected information, from which the leverages are h_i = w_i mu_i'^2 / V_i x_i' C x_i.
    Source: Kosmidis and Firth (2009), Biometrika 96, 793-804, section 4.1.
    """
    assert request.coef is not None
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    raw, matrix = model.raw(request.coef), np.zeros((model.width, model.width))
    matrix[np.ix_(model.select, model.select)] = inverse
    total = np.zeros(model.width)
    for start in range(0, block.n, CHUNK_ROWS):
        rows = block.rows(start, min(start + CHUNK_ROWS, block.n))
        eta = np.zeros(rows.n) if rows.offset is None else rows.offset.astype(np.float64)
        gather(pieces, workspace, raw, start, start + rows.n, eta)
        with np.errstate(all="ignore"):
            weight = model.likelihood.rows(rows.y.astype(np.float64), eta, 2, "expected").weight
            bend = model.likelihood.link.rates(eta).bend
            leverage = weight * quadratic_form(rows, model.scaling, matrix)
            score = 0.5 * bend * (leverage if rows.weight is None else leverage * rows.weight)
        add_gradient(pieces, workspace, score, start, start + rows.n, total)
    return Adjusted(moments(block, model, request), total)
