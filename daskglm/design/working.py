"""The working scale: the parameters as the arithmetic holds them, in which quadratic forms keep their digits.

Columns are shifted by their means, scaled to unit spread and, where earlier columns leave little of one, replaced by what they
leave of it. On that scale the information is well conditioned, so that a form l'Vl loses few digits; on the user's scale a
column far from zero, or two that nearly agree, make V a matrix of large numbers that cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.design.parameters import Parameters
from daskglm.kernels.basis import Basis
from daskglm.kernels.twofold import Twofold, add, times, total, two_product

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class WorkingScale:
    """The way between reported parameters and those of the working scale: reported = W working, W (r, r).

    basis: None where the scaled columns are as they are; a response of several predictors has none.
    """

    parameters: Parameters
    basis: Basis | None = None

    @cached_property
    def _columns(self) -> list[Twofold]:
        """Columns of W for the replaced columns of X, each (r,)."""
        if self.basis is None:
            return []
        units = np.eye(self.parameters.n)[:, self.basis.columns]
        return [self.exact(unit) for unit in np.ascontiguousarray(units.T)]

    @property
    def _shift(self) -> Vector:
        """What columns are shifted by (r,), which the intercept takes up."""
        return self.parameters.raw_scaling()[0] if self.parameters.design.intercept else np.zeros(self.parameters.n)

    def exact(self, working: Vector) -> Twofold:
        """W b (r,) without rounding; of a response of one predictor."""
        factor = self.parameters.raw_scaling()[1]
        scaled = (working, np.zeros_like(working)) if self.basis is None else self.basis.scaled(working)
        high, low = times(scaled, factor)
        moved, left = two_product(high, -self._shift)
        first = add((high[:1], low[:1]), _pair(total(moved, left - self._shift * low)))
        return np.concatenate([first[0], high[1:]]), np.concatenate([first[1], low[1:]])

    def scores(self, score: Twofold) -> Vector:
        """W' g (r,), rounded once; of a response of one predictor."""
        factor = self.parameters.raw_scaling()[1]
        first = (np.full_like(score[0], score[0][0]), np.full_like(score[1], score[1][0]))
        high, low = times(add(score, times(first, -self._shift)), factor)
        result = high + low
        if self.basis is not None:
            for j, direction in zip(self.basis.columns, self.basis.directions.T, strict=True):
                product, left = two_product(direction, high)
                result[j] = sum(total(product, left + direction * low))
        return np.asarray(result)

    def coefficients(self, working: Vector) -> Vector:
        """W b (r,)."""
        return self.parameters.coefficients(working if self.basis is None else self.basis.scaled(working)[0])

    def left(self, matrix: Matrix) -> Matrix:
        """W M (r, k) of M (r, k)."""
        return self._product(matrix, by_size=False)

    def left_by_size(self, matrix: Matrix) -> Matrix:
        """|W| M (r, k)."""
        return self._product(matrix, by_size=True)

    def _product(self, matrix: Matrix, by_size: bool) -> Matrix:
        parameters = self.parameters
        if parameters.kind != "number":
            act = parameters.terms if by_size else parameters.coefficients
            return np.array([act(column) for column in matrix.T]).T.reshape(matrix.shape)
        unscaling = parameters.design.unscaling()
        shift = np.abs(unscaling.shift) if by_size else unscaling.shift
        rest = matrix
        if self.basis is not None:
            rest = matrix.copy()
            rest[self.basis.columns] = 0.0
        result = unscaling.factor[:, None] * rest
        if shift.any():
            result[0] += shift @ rest
        if self.basis is not None:
            columns = np.array([high + low for high, low in self._columns]).T
            result += (np.abs(columns) if by_size else columns) @ matrix[self.basis.columns]
        return np.asarray(result)

    def covariance(self, working: Matrix) -> Matrix:
        """W V W' (r, r), symmetric."""
        if self.basis is None:
            return self.parameters.covariance(working)
        half = self.left(working)
        return self.left(np.ascontiguousarray(half.T))

    def rows(self, linear: Matrix) -> Matrix:
        """L W (m, r): combinations L (m, r) of the reported parameters as combinations of the working ones."""
        result = self.parameters.own_rows(linear)
        for j, (high, low) in zip(() if self.basis is None else self.basis.columns, self._columns, strict=True):
            for i, row in enumerate(linear):
                product, left = two_product(row, high)
                result[i, j] = sum(total(product, left + row * low))
        return result

    def in_basis(self, scaled: Matrix) -> Matrix:
        """L T (m, r) of combinations L (m, r) of coefficients of scaled columns."""
        if self.basis is None:
            return scaled
        result = scaled.copy()
        result[:, self.basis.columns] = scaled @ self.basis.directions
        return result

    def working(self, reported: Twofold) -> Vector:
        """W^-1 b (r,), rounded once."""
        if self.parameters.kind != "number":
            return self.parameters.own(reported[0] + reported[1])
        high, low = reported
        moved, left = two_product(high, self._shift)
        first = add((high[:1], low[:1]), _pair(total(moved, left + self._shift * low)))
        high, low = np.concatenate([first[0], high[1:]]), np.concatenate([first[1], low[1:]])
        scaled = _divided((high, low), self.parameters.raw_scaling()[1])
        return np.asarray(scaled[0] + scaled[1]) if self.basis is None else self.basis.coefficients(scaled)


def _pair(value: Twofold) -> Twofold:
    return np.array([value[0]]), np.array([value[1]])


def _divided(one: Twofold, by: Vector) -> Twofold:
    """A twofold number over a float64."""
    first = one[0] / by
    product = times((first, np.zeros_like(first)), by)
    left = add(one, (-product[0], -product[1]))
    return first, np.asarray((left[0] + left[1]) / by)
