"""The score in twofold arithmetic, at coefficients held as sums of two float64, of the columns as the user has them.

Of a least squares problem it is exact to about 30 digits, so that steps by it settle every digit that the data have,
whatever the Gram behind the steps has lost (iterative refinement, Bjorck 1967; Demmel, Hida, Riedy and Li 2009). Of other
models it knows each mean to the rounding of its formula, and loses nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block, Scaling
from daskglm.kernels.twofold import Twofold, add, total, totals_by, two_product, two_sum
from daskglm.totals.moments import CHUNK_ROWS, Model

Vector = npt.NDArray[np.float64]

# Larger float64 may be whole for want of digits.
WHOLE = 2.0**53


@final
@dataclass(frozen=True)
class TwofoldScore:
    """high + low (width,): X'w s of the raw columns, neither shifted nor scaled.

    noise: sum w (m^2 + (y - mu)^2) / V, m the smaller of a mean's distances to the ends of its range: its root times the
    relative error of the family's formulas is what they move the score by, in the norm of the inverse information; 0 of least
    squares. squares: sum w (y - mu)^2, of least squares alone. broken (d,): rows in which a dense column is no whole number.
    """

    high: Vector
    low: Vector
    noise: float
    squares: float
    broken: npt.NDArray[np.int64]

    def __add__(self, other: TwofoldScore) -> TwofoldScore:
        # beyond 1e300 there are no twofold numbers, which shows in the sum
        with np.errstate(all="ignore"):
            high, low = add((self.high, self.low), (other.high, other.low))
        return TwofoldScore(
            high, low, self.noise + other.noise, self.squares + other.squares, self.broken + other.broken
        )


def twofold_score(block: Block, model: Model, high: Vector, low: Vector) -> TwofoldScore:
    """Of one block, at the coefficients high + low (width,) of its raw columns."""
    result = TwofoldScore(np.zeros(model.width), np.zeros(model.width), 0.0, 0.0, np.zeros(len(block.dense), np.int64))
    with np.errstate(all="ignore"):
        for start in range(0, block.n, CHUNK_ROWS):
            result = result + _of_rows(block.rows(start, min(start + CHUNK_ROWS, block.n)), model, high, low)
    return result


def _of_rows(block: Block, model: Model, high: Vector, low: Vector) -> TwofoldScore:
    dense = [column.astype(np.float64) for column in block.dense]
    score, noise, squares = _scores(block, model, linear_predictor(block, dense, (high, low)))
    parts = [_single(total(*score))]
    broken = np.zeros(len(dense), np.int64)
    for j, column in enumerate(dense):
        parts.append(_single(total(*_times(score, column))))
        broken[j] = int(((column != np.rint(column)) | (np.abs(column) > WHOLE)).sum())
    for piece in block.levels:
        valued = score if piece.value is None else _times(score, piece.value.astype(np.float64))
        parts.append(totals_by(piece.codes, *valued, piece.n_levels))
    if block.sparse is not None:
        row = np.repeat(np.arange(block.n), np.diff(block.sparse.indptr))
        entries = _times((score[0][row], score[1][row]), block.sparse.data)
        parts.append(totals_by(block.sparse.indices, *entries, block.sparse.n_columns))
    return TwofoldScore(
        np.concatenate([h for h, _ in parts]), np.concatenate([l for _, l in parts]), noise, squares, broken
    )


def _single(pair: Twofold) -> Twofold:
    return np.array([pair[0]]), np.array([pair[1]])


def _times(one: Twofold, factor: Vector) -> Twofold:
    """Twofold numbers times a float64 each, not normalised: what is left out is small enough to be summed as it is."""
    product, left = two_product(one[0], factor)
    return product, left + one[1] * factor


def unscaled(scaling: Scaling, n_levels: tuple[int, ...], coef: Vector) -> Twofold:
    """Coefficients (width,) of the raw columns as the user has them, from those of the columns as they are shifted and scaled:
    the same linear predictor, without the rounding of a shift. n_levels: of each factor.
    """
    d = scaling.shift.size
    of_levels = [np.full(n, scale) for n, scale in zip(n_levels, scaling.level_scale, strict=True)]
    scale = np.concatenate([np.ones(1), scaling.scale, *of_levels, scaling.sparse_scale])
    high, low = two_product(coef, scale)
    shifted = _times((high[1 : 1 + d], low[1 : 1 + d]), -scaling.shift)
    first = add((high[:1], low[:1]), _single(total(*shifted)))
    return np.concatenate([first[0], high[1:]]), np.concatenate([first[1], low[1:]])


def linear_predictor(block: Block, dense: list[Vector], coef: Twofold, offset: bool = True) -> Twofold:
    """X b of each row, of the raw columns neither shifted nor scaled; with the offset if asked for."""
    high, low = coef
    eta: Twofold = (np.full(block.n, high[0]), np.full(block.n, low[0]))
    if offset and block.offset is not None:
        eta = add(eta, (block.offset.astype(np.float64), np.zeros(block.n)))
    for j, column in enumerate(dense, 1):
        if high[j] == 0.0 and low[j] == 0.0:
            continue
        eta = add(eta, _times((np.full(block.n, high[j]), np.full(block.n, low[j])), column))
    at = 1 + len(dense)
    for piece in block.levels:
        codes = at + piece.codes.astype(np.intp)
        part: Twofold = (high[codes], low[codes])
        eta = add(eta, part if piece.value is None else _times(part, piece.value.astype(np.float64)))
        at += piece.n_levels
    if block.sparse is not None:
        row = np.repeat(np.arange(block.n), np.diff(block.sparse.indptr))
        columns = at + block.sparse.indices.astype(np.intp)
        entries = _times((high[columns], low[columns]), block.sparse.data)
        eta = add(eta, totals_by(row, *entries, block.n))
    return eta


def _scores(block: Block, model: Model, eta: Twofold) -> tuple[Twofold, float, float]:
    """w s of each row, the noise of the formulas it came from, and the sum of squares."""
    y = block.y.astype(np.float64)
    weight = None if block.weight is None else block.weight.astype(np.float64)
    likelihood = model.likelihood
    if likelihood.quadratic:
        high, low = two_sum(y, -eta[0])
        score: Twofold = two_sum(high, low - eta[1])
        residual = score[0] + score[1]
        squares = float((residual * residual * (1.0 if weight is None else weight)).sum())
        return (score if weight is None else _times(score, weight)), 0.0, squares
    terms = likelihood.rows(y, eta[0], 2, "observed")
    if not terms.valid:
        nothing = np.full(block.n, np.nan)
        return (nothing, nothing), np.nan, np.nan
    size = np.ones(block.n) if weight is None else weight
    score = _times((terms.score, -terms.weight * eta[1]), size)
    mean = np.minimum(np.abs(terms.mu), np.abs(terms.rest)) if likelihood.family.bounded else terms.mu
    distance = likelihood.family.sufficient_statistic(y) - terms.mu
    parts = mean * mean + distance * distance
    relative = np.where(parts == 0.0, 0.0, parts / terms.variance)
    return score, float((size * relative).sum()), 0.0
