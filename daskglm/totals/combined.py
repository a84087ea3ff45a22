"""A model whose columns are combinations of those of another: coefficients c stand for T c there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.totals.moments import AnyModel, Moments, Request

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Combined:
    """basis (r, k): T, a column for each of k coefficients; inner: the model of r coefficients."""

    inner: AnyModel
    basis: Matrix
    refines: bool = False

    @property
    def likelihood(self) -> Any:
        """What a row contributes."""
        return self.inner.likelihood

    @property
    def width(self) -> int:
        """Number of raw columns."""
        return self.inner.width

    @property
    def n_coefficients(self) -> int:
        """k."""
        return int(self.basis.shape[1])

    def intercepts(self, intercept: bool) -> npt.NDArray[np.int64]:
        """Nobody penalises these coefficients."""
        return np.zeros(0, np.int64)

    def flat(self, eta: Vector, intercept: bool) -> Vector:
        """The coefficients nearest to those of the model without predictors."""
        return np.asarray(np.linalg.lstsq(self.basis, self.inner.flat(eta, intercept), rcond=None)[0])

    def sums(self, block: Block, request: Request) -> Moments:
        """The moments of one block, in the inner model's tables."""
        coef = None if request.coef is None else self.basis @ request.coef
        return self.inner.sums(block, replace(request, coef=coef))

    def gradient(self, sums: Moments) -> Vector:
        """T' g (k,)."""
        return np.asarray(self.basis.T @ self.inner.gradient(sums))

    def scores(self, tables: Any) -> Vector:
        """The same of the gradient that travels with a Gram (k,)."""
        return np.asarray(self.basis.T @ self.inner.scores(tables))

    def gram(self, tables: Any) -> Matrix | None:
        """T' G T (k, k)."""
        found = self.inner.gram(tables)
        return None if found is None else self.basis.T @ found @ self.basis

    def information(self, tables: Any) -> Matrix | None:
        """The same."""
        return self.gram(tables)
