"""A basis in which nearly collinear columns stand for what earlier columns leave of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.twofold import Twofold, add, two_product

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Basis:
    """X T: scaled columns of which some stand for what earlier ones leave of them.

    T (p, p) is the identity but for `columns` (m,), where it has `directions` (p, m): unit upper triangular.
    """

    columns: npt.NDArray[np.int64]
    directions: Matrix

    @staticmethod
    def of(matrix: Matrix, columns: Any) -> Basis:
        """From T and the columns in which it differs from the identity."""
        places = np.array(columns, np.int64)
        return Basis(places, np.ascontiguousarray(matrix[:, places]))

    def matrix(self) -> Matrix:
        """T (p, p)."""
        result = np.eye(self.directions.shape[0])
        result[:, self.columns] = self.directions
        return result

    def scaled(self, coef: Vector) -> Twofold:
        """T b (p,): coefficients of the scaled columns."""
        result = (np.array(coef, np.float64), np.zeros(coef.size))
        result[0][self.columns] = 0.0
        for j, direction in zip(self.columns, self.directions.T, strict=True):
            result = add(result, two_product(direction, coef[j]))
        return result

    def coefficients(self, scaled: Twofold) -> Vector:
        """T^-1 b (p,): coefficients of the columns of X T, rounded once."""
        high, low = scaled[0].copy(), scaled[1].copy()
        # a column's own coefficient is settled once all later ones are
        for k in range(self.columns.size - 1, -1, -1):
            j = int(self.columns[k])
            own = (high[j], low[j])
            column = self.directions[:, k]
            product, left = two_product(column, own[0])
            moved = add((high, low), (-product, -(left + column * own[1])))
            high, low = np.array(moved[0]), np.array(moved[1])
            high[j], low[j] = own
        return np.asarray(high + low)
