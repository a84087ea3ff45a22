"""The log-likelihood in the parameters beside the coefficients, for several candidates in one reading of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Workspace, add_gradient, gather
from daskglm.model.shapes import Shape
from daskglm.totals.moments import CHUNK_ROWS, Model, Moments, Request, leading, moments, sizes

Vector = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class ShapeSums:
    """Per candidate psi: log-likelihood (m,), its gradient (m, s) and Hessian (m, s, s)."""

    value: Vector
    gradient: npt.NDArray[np.float64]
    hessian: npt.NDArray[np.float64]

    def __add__(self, other: ShapeSums) -> ShapeSums:
        return ShapeSums(self.value + other.value, self.gradient + other.gradient, self.hessian + other.hessian)


@final
@dataclass(frozen=True)
class MixedSums:
    """X' of the mixed second derivatives of the log-likelihood in eta and psi, at phi = 1: (s, width)."""

    values: npt.NDArray[np.float64]

    def __add__(self, other: MixedSums) -> MixedSums:
        return MixedSums(self.values + other.values)


@final
@dataclass(frozen=True)
class JointSums:
    """All that a Newton step in the coefficients and psi together asks of the rows."""

    moments: Moments
    shape: ShapeSums
    mixed: MixedSums

    def __add__(self, other: JointSums) -> JointSums:
        return JointSums(self.moments + other.moments, self.shape + other.shape, self.mixed + other.mixed)


def joint_sums(block: Block, model: Model, coef: Vector, shape: Shape, psi: Vector, fraction: float = 1.0) -> JointSums:
    """At the scaled coefficients coef (p,) and psi (s,), in one reading of the leading `fraction` of the rows."""
    rows = leading(block, fraction)
    return JointSums(
        moments(rows, model, Request(coef)),
        shape_sums(rows, model, coef, shape, psi[None]),
        mixed_sums(rows, model, coef, shape, psi),
    )


def mixed_sums(block: Block, model: Model, coef: Vector, shape: Shape, psi: Vector) -> MixedSums:
    """At the scaled coefficients coef (p,) and psi (s,)."""
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    raw, values = model.raw(coef), np.zeros((psi.size, model.width))
    with np.errstate(all="ignore"):
        for start in range(0, block.n, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, block.n)
            eta = np.zeros(stop - start)
            if block.offset is not None:
                eta += block.offset[start:stop]
            gather(pieces, workspace, raw, start, stop, eta)
            terms = model.likelihood.rows(block.y[start:stop].astype(np.float64), eta, 1)
            score = terms.score if block.weight is None else terms.score * block.weight[start:stop]
            for k, slopes in enumerate(shape.score_slopes(terms.mu, psi)):
                add_gradient(pieces, workspace, score * slopes, start, stop, values[k])
    return MixedSums(values)


def shape_sums(
    block: Block,
    model: Model,
    coef: Vector,
    shape: Shape,
    candidates: npt.NDArray[np.float64],
    fraction: float = 1.0,
) -> ShapeSums:
    """Sums at the scaled coefficients coef (p,) and each of the candidates (m, s), over the leading `fraction` of the rows."""
    block = leading(block, fraction)
    m, s = candidates.shape
    value, gradient, hessian = np.zeros(m), np.zeros((m, s)), np.zeros((m, s, s))
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    raw = model.raw(coef)
    bounded = model.likelihood.family.bounded
    with np.errstate(all="ignore"):
        for start in range(0, block.n, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, block.n)
            eta = np.zeros(stop - start)
            if block.offset is not None:
                eta += block.offset[start:stop]
            gather(pieces, workspace, raw, start, stop, eta)
            mu = model.likelihood.link.inverse(eta, bounded)[0]
            y = block.y[start:stop].astype(np.float64)
            # a row that stands for others counts as often in the pseudo-likelihood
            frequency, size = sizes(block, model.frequency or model.sampling, start, stop)
            for i, psi in enumerate(candidates):
                terms = shape.terms(y, mu, size, psi)
                value[i] += float(np.sum(terms.value * frequency))
                gradient[i] += (terms.gradient * frequency).sum(axis=-1)
                hessian[i] += (terms.hessian * frequency).sum(axis=-1)
    return ShapeSums(value, gradient, hessian)
