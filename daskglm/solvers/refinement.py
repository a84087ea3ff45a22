"""The last digits of the coefficients: steps by the factored Gram from scores in twofold arithmetic.

A Newton step is exact to a few digits, as many as the Gram has kept; by scores that are exact it is repeated until none is
left to gain. The coefficients are those of the columns as the user has them, so that none is lost on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.twofold import Twofold, add, two_sum
from daskglm.solvers.objective import Curvature, Objective
from daskglm.totals.moments import Model

Vector = npt.NDArray[np.float64]

# Each pass multiplies the digits, so that the second settles them and the third is in reserve.
REFINEMENTS = 4
# A step that is not this much shorter than the one before gains nothing.
SHRINKS = 0.1
# Steps shorter than this part of every coefficient are beyond its last bit.
SETTLED = 1e-17


class Scales(Protocol):
    """b = W b_working: between the user's columns and those that the Gram was factored in."""

    def scores(self, score: Twofold) -> Vector:
        """W' g."""

    def exact(self, working: Vector) -> Twofold:
        """W b, without rounding."""


@final
@dataclass(frozen=True)
class Refined:
    """coef (p,): on the user's scale, rounded once, and low (p,) what rounding left out of it; left: what the last step leaves, at most, in the norm of the information
    at phi = 1; noise: what the rounding of the family's formulas moves them by, in that norm and per unit of relative error;
    squares: sum w (y - mu)^2 of least squares at coefficients as good as these, None of other models; broken (p,): whether a column holds numbers that are not whole; passes: how many it took.
    """

    coef: Vector
    low: Vector
    left: float
    noise: float
    squares: float | None
    broken: npt.NDArray[np.bool_]
    passes: int


@np.errstate(all="ignore")
def refine(objective: Objective, curvature: Curvature, scales: Scales, coef: Vector) -> Refined | None:
    """From the coefficients coef (p,) of an optimum, on the user's scale; None where twofold arithmetic cannot tell."""
    model = objective.model
    assert isinstance(model, Model)
    kept = curvature.kept
    here: Twofold = (np.where(kept, coef, 0.0), np.zeros_like(coef))
    lengths: list[float] = []
    left, noise, broken, passes = np.inf, 0.0, np.ones(coef.size, bool), 0
    squares: float | None = None
    for _ in range(REFINEMENTS):
        found = objective.twofold(model.raw(here[0]), model.raw(here[1]))
        passes += 1
        score = scales.scores((found.high[model.select], found.low[model.select]))
        if not np.isfinite(score[kept]).all() or not np.isfinite(found.noise):
            return None
        noise, broken = float(np.sqrt(found.noise)), _broken(model, found.broken)
        squares = found.squares if model.likelihood.quadratic else None
        score[~kept] = 0.0
        step = curvature.factor.solve(score)
        length = float(np.sqrt(max(float(score @ step), 0.0)))
        if length == 0.0:
            if score.any():
                # it has fallen below the smallest number, and says nothing
                return None
            left = 0.0
            break
        if lengths and length > SHRINKS * lengths[-1]:
            # rounding of the formulas: what was left is of this size, and stays
            left = max(length, lengths[-1])
            break
        ratio = length / lengths[-1] if lengths else SHRINKS
        lengths.append(length)
        left = 2.0 * ratio * length
        high, low = scales.exact(step)
        here = add(here, (np.where(kept, high, 0.0), np.where(kept, low, 0.0)))
        if len(lengths) > 1 and bool((np.abs(high) * ratio <= SETTLED * np.abs(here[0])).all()):
            break
    rounded, low = two_sum(here[0], here[1])
    return Refined(rounded, low, left, noise, squares, broken, passes)


def _broken(model: Model, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the column of each coefficient holds numbers that are not whole; of levels there are none to compute."""
    result = np.zeros(model.width, bool)
    result[1 : 1 + counts.size] = counts > 0
    return result[model.select]
