"""The part of an adjusted score that takes away the bias of maximum likelihood, which needs the leverage of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Gram, Pieces, Scatter, Workspace, gather, quadratic_form
from daskglm.totals.moments import CHUNK_ROWS, Model, Moments, Request, moments

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# For the slope of mu''/mu', which only the length of steps depends on.
DIFFERENCE = 1e-5


@final
@dataclass(frozen=True)
class Adjusted:
    """Moments, and tables of the raw columns: the adjustment X' (h mu'' / (2 mu')) as their gradient, and as their Gram the
    part of minus its slope that is positive, the leverages h held.
    """

    moments: Moments
    tables: Gram

    def __add__(self, other: Adjusted) -> Adjusted:
        return Adjusted(self.moments + other.moments, self.tables + other.tables)


def adjusted(block: Block, model: Model, request: Request, before: Vector, inverse: Matrix) -> Adjusted:
    """Moments as requested, and what mean bias reduction adds to the score at phi = 1: X' (h mu'' / (2 mu')).

    Leverages are those at `before` (p,), h_i = w_i mu_i'^2 / V_i x_i' C x_i with C = inverse (p, p) of the expected
    information there.
    Source: Kosmidis and Firth (2009), Biometrika 96, 793-804, section 4.1.
    """
    assert request.coef is not None
    link = model.likelihood.link
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    scatter = Scatter(pieces, workspace)
    now, then = model.raw(request.coef), model.raw(before)
    matrix = np.zeros((model.width, model.width))
    matrix[np.ix_(model.select, model.select)] = inverse
    for start in range(0, block.n, CHUNK_ROWS):
        rows = block.rows(start, min(start + CHUNK_ROWS, block.n))
        stop = start + rows.n
        offset = np.zeros(rows.n) if rows.offset is None else rows.offset.astype(np.float64)
        eta, old = offset.copy(), offset
        gather(pieces, workspace, now, start, stop, eta)
        gather(pieces, workspace, then, start, stop, old)
        with np.errstate(all="ignore"):
            weight = model.likelihood.rows(rows.y.astype(np.float64), old, 2, "expected").weight
            leverage = weight * quadratic_form(rows, model.scaling, matrix)
            if rows.weight is not None:
                leverage = leverage * rows.weight
            bend = link.rates(eta).bend
            slope = (link.rates(eta + DIFFERENCE).bend - link.rates(eta - DIFFERENCE).bend) / (2.0 * DIFFERENCE)
        scatter.take(leverage * np.maximum(-0.5 * slope, 0.0), 0.5 * leverage * bend, start, stop)
    return Adjusted(moments(block, model, request), scatter.result())
