"""The negative log-likelihood at phi = 1 as a function of the scaled coefficients, evaluated by totals over the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.bordered import AnyFactor, AnyGram, is_finite, plus_diagonal
from daskglm.model.likelihoods import Information
from daskglm.partitions import Partitions
from daskglm.totals.moments import AnyModel, Moments, Request, moments
from daskglm.totals.occurrences import Occurrences
from daskglm.totals.refinement import TwofoldScore, twofold_score
from daskglm.totals.residuals import ResidualProducts, residual_products

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Point:
    """The objective at coef (p,): what was summed, and what the penalty adds.

    loss: sum of row losses plus penalty; gradient (p,): of minus the loss, uphill to the likelihood; gram (p, p) or None.
    """

    coef: Vector
    sums: Moments
    loss: float
    gradient: Vector
    gram: AnyGram | None
    information: Information


@final
@dataclass
class Objective:
    """Loss over partitions with an optional ridge on all but the intercept (pilots only; the fit itself has none).

    on_pass is called with the deviance after each. counting: of classes, whether
    the first total also counts how often they occur with what, in `occurrences`. silent (p,): coefficients of which no row
    knows anything, where that has been found out. residual_passes: how many of the passes looked again at columns of which
    earlier ones leave little.
    """

    blocks: Partitions[Any]
    model: AnyModel
    intercept: bool
    ridge: float = 0.0
    fraction: float = 1.0
    on_pass: Callable[[float], None] | None = None
    reference: float | None = None
    counting: bool = False
    occurrences: Occurrences | None = None
    silent: npt.NDArray[np.bool_] | None = None
    residual_passes: int = 0

    @property
    def passes(self) -> int:
        """Passes over the partitions, as their engine counts them."""
        return self.blocks.passes

    @property
    def n_coefficients(self) -> int:
        """p."""
        return self.model.n_coefficients

    def sums(self, request: Request) -> Moments:
        """One total."""
        first = self.counting and self.occurrences is None
        result: Moments = self.blocks.total(
            moments, self.model, replace(request, occurrences=True) if first else request
        )
        if first:
            self.occurrences = result.occurrences
        return result

    def evaluate(
        self,
        coef: Vector,
        order: int = 2,
        information: Information = "observed",
        null: float | None = None,
        statistics: bool = False,
        meat: bool = False,
        means: bool = False,
    ) -> Point:
        """Loss and derivatives at coef, in one pass."""
        counting = self.on_pass is not None and self.reference is None
        request = Request(coef, order, information, null, statistics, meat, counting, means, fraction=self.fraction)
        sums = self.sums(request)
        if counting and np.isfinite(sums.loss):
            self.reference = sums.reference
        point = self.point(coef, sums, information)
        if self.on_pass is not None:
            self.on_pass(2.0 * (point.loss - (self.reference or 0.0)))
        return point

    def point(self, coef: Vector, sums: Moments, information: Information) -> Point:
        """What sums taken at coef say of the objective."""
        loss, gradient, gram = sums.loss, self.model.gradient(sums), self.model.information(sums.tables)
        if self.ridge:
            penalised = np.full(coef.size, self.ridge)
            penalised[self.model.intercepts(self.intercept)] = 0.0
            loss = loss + 0.5 * float(penalised @ coef**2)
            gradient = gradient - penalised * coef
            gram = None if gram is None else plus_diagonal(gram, penalised)
        if gram is not None and not is_finite(gram):
            loss = np.inf
        return Point(coef, sums, loss, gradient, gram, information)

    def residuals(self, coef: Vector, basis: Matrix, information: Information, exact: bool = False) -> ResidualProducts:
        """Products of the columns X basis, in one pass; exact: of columns without the rounding of their rows."""
        self.residual_passes += 1
        result: ResidualProducts = self.blocks.total(residual_products, self.model, coef, basis, information, exact)
        return result

    def twofold(self, high: Vector, low: Vector) -> TwofoldScore:
        """The score of the raw columns (width,) at their coefficients high + low (width,), in one pass."""
        result: TwofoldScore = self.blocks.total(twofold_score, self.model, high, low)
        return result


@final
@dataclass(frozen=True)
class Curvature:
    """A factored Gram, perhaps in a better basis: G^-1 = T (T' G T)^-1 T', with T unit upper triangular or the identity.

    aliased (p,): columns that are combinations of earlier ones. Doubtful columns of X T are what earlier columns leave of the originals, so that their products keep their digits.
    """

    factor: AnyFactor
    basis: Matrix | None
    gram: AnyGram
    aliased: npt.NDArray[np.bool_]
    doubtful: tuple[int, ...] = ()

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Columns that are estimated (p,)."""
        return self.factor.kept

    @property
    def definite(self) -> bool:
        """Whether the Gram was positive (semi)definite."""
        return self.factor.definite

    def solve(self, right: Vector) -> Vector:
        """G^-1 right."""
        if self.basis is None:
            return self.factor.solve(right)
        return np.asarray(self.basis @ self.factor.solve(self.basis.T @ right))

    def inverse(self) -> Matrix:
        """G^-1 (p, p), zeros where a column is aliased."""
        if self.basis is None:
            return self.factor.inverse()
        return np.asarray(self.basis @ self.factor.inverse() @ self.basis.T)
