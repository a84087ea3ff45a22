"""Loss, gradient and Gram of one block at given coefficients, and the sums behind every statistic of a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block, Column, Scaling
from daskglm.kernels.bordered import AnyGram, Bordered
from daskglm.kernels.products import Gram, Layout, Pieces, Scatter, Workspace, add_gradient, gather
from daskglm.model.likelihoods import GLM, Information, RowTerms

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Rows per compiled call. Fixed, for it decides the order of the sums; small enough that the vectors of the family's
# formulas stay in the second-level cache, large enough that the interpreter is not noticed.
CHUNK_ROWS = 16_384
# From so many levels on the diagonal block of a factor is worth its own arithmetic.
MIN_DIAGONAL_LEVELS = 512


@final
@dataclass(frozen=True)
class Model:
    """What every total needs to know of the model: the likelihood, and how raw columns become columns of X.

    select (p,): the raw column of each column of X; width: number of raw columns; frequency: whether weights count rows;
    sampling: whether weights say for how many others a row stands; refines: whether nearly collinear columns can be looked at again by residual passes.
    """

    likelihood: GLM
    select: npt.NDArray[np.int64]
    width: int
    scaling: Scaling
    frequency: bool = False
    refines: bool = True
    sampling: bool = False

    @property
    def n_coefficients(self) -> int:
        """p."""
        return int(self.select.size)

    def intercepts(self, intercept: bool) -> npt.NDArray[np.int64]:
        """Places of the intercepts among the coefficients."""
        return np.zeros(int(intercept), np.int64)

    def flat(self, eta: Vector, intercept: bool) -> Vector:
        """Coefficients with which every row has the predictor eta (1,), as far as there is an intercept."""
        result = np.zeros(self.n_coefficients)
        result[self.intercepts(intercept)] = eta
        return result

    def sums(self, block: Block, request: Request) -> Moments:
        """The moments of one block."""
        return _Accumulation(block, self, request).run()

    def raw(self, coef: Vector) -> Vector:
        """Coefficients of the raw columns (width,) from those of X (p,)."""
        result = np.zeros(self.width)
        result[self.select] = coef
        return result

    def gradient(self, sums: Moments) -> Vector:
        """X' w s of the columns of X (p,)."""
        return sums.raw_gradient[self.select] if sums.tables is None else self.scores(sums.tables)

    def scores(self, tables: Gram) -> Vector:
        """The gradient that travels with a Gram (p,)."""
        return tables.gradient()[self.select]

    def gram(self, tables: Gram | None) -> Matrix | None:
        """X' diag(w) X of the columns of X (p, p)."""
        if tables is None:
            return None
        matrix = tables.matrix()
        if np.array_equal(self.select, np.arange(self.width)):
            return matrix
        return matrix[np.ix_(self.select, self.select)]

    def information(self, tables: Gram | None) -> AnyGram | None:
        """The same, bordered where the widest factor makes a large diagonal block."""
        factor = None if tables is None else self.widest(tables.layout)
        if tables is None or factor is None:
            return self.gram(tables)
        first = 1 + tables.layout.n_dense + sum(tables.layout.counts[:factor])
        end = first + tables.layout.counts[factor]
        within = (self.select >= first) & (self.select < end)
        inside, border = np.flatnonzero(within), np.flatnonzero(~within)
        levels, others = self.select[inside] - first, self.select[border]
        others = np.where(others < first, others, others - (end - first))
        diagonal, cross, square = tables.around(factor)
        return Bordered(inside, border, diagonal[levels], cross[np.ix_(levels, others)], square[np.ix_(others, others)])

    def widest(self, layout: Layout) -> int | None:
        """The factor whose levels make a diagonal block that is worth its own arithmetic, None
        where there is none.
        """
        if layout.n_sparse or not layout.counts:
            return None
        widest = int(np.argmax(layout.counts))
        return widest if layout.counts[widest] >= MIN_DIAGONAL_LEVELS else None


class AnyModel(Protocol):
    """A model of one response or of several classes, as totals and solvers know it."""

    @property
    def likelihood(self) -> Any:
        """What a row contributes."""

    @property
    def refines(self) -> bool:
        """Whether nearly collinear columns can be looked at again by residual passes."""

    @property
    def width(self) -> int:
        """Number of raw columns."""

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients."""

    def intercepts(self, intercept: bool) -> npt.NDArray[np.int64]:
        """Places of the intercepts among the coefficients, where there is one."""

    def flat(self, eta: Vector, intercept: bool) -> Vector:
        """Coefficients of the model without predictors, at those linear predictors."""

    def sums(self, block: Block, request: Request) -> Moments:
        """The moments of one block."""

    def gradient(self, sums: Moments) -> Vector:
        """Of minus the loss, uphill to the likelihood, in the coefficients."""

    def scores(self, tables: Any) -> Vector:
        """The gradient that travels with a Gram, in the coefficients."""

    def gram(self, tables: Any) -> Matrix | None:
        """The Gram of the coefficients."""

    def information(self, tables: Any) -> AnyGram | None:
        """The Gram of the coefficients, bordered where that is worth it."""


@final
@dataclass(frozen=True)
class Request:
    """What to sum up, and where.

    coef (p,) of the scaled columns, or None for the null model alone; order 0 loss, 1 gradient, 2 Gram; null: an
    intercept-only candidate to evaluate beside it; statistics: also FitStats; meat: also X' diag(s^2) X.
    reference: also the least loss there could be, each mean at its own response, from which deviance is counted;
    means: also the sums of w and w y; occurrences: of classes, also how often each column is not zero;
    start: linear predictors come from the response itself (family.start_mean), and the gradient is X'W z of the working
    response z, or of the constant `center` where one is given; fraction: only the leading part of each block.
    """

    coef: Vector | None
    order: int = 2
    information: Information = "observed"
    null: float | None = None
    statistics: bool = False
    meat: bool = False
    reference: bool = False
    means: bool = False
    start: bool = False
    center: float | None = None
    fraction: float = 1.0
    occurrences: bool = False


@final
@dataclass(frozen=True)
class FitStats:
    """Sums over the rows used, f a row's frequency and w its weight in the likelihood.

    n rows; observations sum f; deviance sum w d; saturated sum f log p(y; mean y) at
    phi = 1; weight sum w; fractional: rows whose w y is not whole; null_deviance; limited: rows in which some class is
    impossible.
    """

    n: int
    observations: float
    deviance: float
    saturated: float
    weight: float
    fractional: int
    null_deviance: float
    limited: int = 0

    def __add__(self, other: FitStats) -> FitStats:
        return FitStats(
            self.n + other.n,
            self.observations + other.observations,
            self.deviance + other.deviance,
            self.saturated + other.saturated,
            self.weight + other.weight,
            self.fractional + other.fractional,
            self.null_deviance + other.null_deviance,
            self.limited + other.limited,
        )


@final
@dataclass(frozen=True)
class Moments:
    """One leaf's, or the data's, contribution at phi = 1.

    n rows; weight sum w and weighted_y sum w y, where asked for; loss sum w loss (inf where a mean is impossible); pearson; null (3,): loss,
    gradient and second derivative of the null candidate (of classes: the weight of each). raw_gradient (width,): X' w s of the raw columns where no Gram
    was asked for; tables: that and X' diag(w) X in tables of the raw columns, `meat` likewise with squared scores;
    occurrences: `daskglm.totals.occurrences.Occurrences`, where asked for.
    `Model.gradient` and `Model.gram` make of them what the solver sees. Those of classes are in `daskglm.totals.vector`.
    """

    n: int
    weight: float
    weighted_y: float
    loss: float
    raw_gradient: Vector
    tables: Any
    pearson: float
    null: Vector
    statistics: FitStats | None
    meat: Any
    reference: float = 0.0
    occurrences: Any = None

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n + other.n,
            self.weight + other.weight,
            self.weighted_y + other.weighted_y,
            self.loss + other.loss,
            self.raw_gradient + other.raw_gradient,
            _sum(self.tables, other.tables),
            self.pearson + other.pearson,
            self.null + other.null,
            None if self.statistics is None or other.statistics is None else self.statistics + other.statistics,
            _sum(self.meat, other.meat),
            self.reference + other.reference,
            _sum(self.occurrences, other.occurrences),
        )


def _sum(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other


def _tables(scatter: Scatter | None) -> Gram | None:
    return None if scatter is None else scatter.result()


def record_bytes(layout: Layout, pairs: int | None = None, meat: bool = False) -> int:
    """About the bytes of one leaf's Moments of order 2, twice the tables where they carry the meat as well.

    Dense tables have (d + 1)(d + 2) numbers, levels x (d + 2), and L_k L_l for each pair of factors, whatever the leaf;
    the products of p_s sparse columns 12 bytes per entry, of which there are at most p_s (p_s + 1) / 2 and at most
    `pairs`, the largest `Profile.pairs` of a leaf.
    """
    return (2 if meat else 1) * layout.nbytes(pairs) + 8 * layout.width


def _floats(column: Column | None, start: int, stop: int) -> Vector | None:
    return None if column is None else column[start:stop].astype(np.float64, copy=False)


def moments(block: Block, model: AnyModel, request: Request) -> Moments:
    """Moments of one block."""
    return model.sums(leading(block, request.fraction), request)


def leading(block: Block, fraction: float) -> Block:
    """The first part of a block."""
    return block if fraction >= 1.0 else block.rows(0, int(np.ceil(block.n * fraction)))


def sizes(block: Block, counts: bool, start: int, stop: int) -> tuple[Vector | float, Vector | float]:
    """(how many rows each row stands for, what its own density is weighted by); counts: whether weights count rows."""
    weight, trials = _floats(block.weight, start, stop), _floats(block.trials, start, stop)
    if weight is None:
        return 1.0, 1.0
    if not counts:
        return 1.0, weight
    return (weight, 1.0) if trials is None else (weight / trials, trials)


class _Accumulation:
    """The sums of one block while its chunks go by."""

    def __init__(self, block: Block, model: Model, request: Request) -> None:
        self.block, self.model, self.request = block, model, request
        self.pieces = Pieces.of(block, model.scaling)
        self.workspace = Workspace(self.pieces)
        second = request.coef is not None and request.order > 1
        self.gram = Scatter(self.pieces, self.workspace) if second or request.start else None
        self.meat = Scatter(self.pieces, self.workspace) if request.meat else None
        self.gradient = np.zeros(model.width)
        self.raw = None if request.coef is None else model.raw(request.coef)
        self.weight = self.weighted_y = self.loss = self.pearson = 0.0
        self.reference = 0.0
        self.null = np.zeros(3)
        self.stats = FitStats(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0)

    def run(self) -> Moments:
        with np.errstate(all="ignore"):
            for start in range(0, self.block.n, CHUNK_ROWS):
                self._chunk(start, min(start + CHUNK_ROWS, self.block.n))
        if not np.isfinite(self.loss):
            self.loss = np.inf
        statistics = self.stats if self.request.statistics else None
        return Moments(
            self.block.n, self.weight, self.weighted_y, self.loss, self.gradient, _tables(self.gram), self.pearson,
            self.null, statistics, _tables(self.meat), self.reference,
        )  # fmt: skip

    def _chunk(self, start: int, stop: int) -> None:
        block = self.block
        y = block.y[start:stop].astype(np.float64, copy=False)
        weight = _floats(block.weight, start, stop)
        offset = _floats(block.offset, start, stop)
        if self.request.means:
            self.weight += float(stop - start if weight is None else weight.sum())
            t = self.model.likelihood.family.sufficient_statistic(y)
            self.weighted_y += float((t if weight is None else weight * t).sum())
        if self.request.null is not None:
            self._null(y, weight, offset, stop - start)
        if self.request.start:
            self._start(y, weight, offset, start, stop)
        elif self.raw is not None:
            self._evaluate(y, weight, offset, start, stop)

    def _evaluate(self, y: Vector, weight: Vector | None, offset: Vector | None, start: int, stop: int) -> None:
        request, likelihood = self.request, self.model.likelihood
        eta = np.zeros(stop - start) if offset is None else offset.copy()
        assert self.raw is not None
        gather(self.pieces, self.workspace, self.raw, start, stop, eta)
        terms = likelihood.rows(y, eta, request.order, request.information)
        if not terms.valid:
            self.loss = np.inf
            return
        loss, score = terms.loss, terms.score
        curvature = terms.weight if request.information != "unit" else np.ones(stop - start)
        if self.meat is not None:
            self._meat(score, weight, start, stop)
        if weight is not None:
            loss, score = loss * weight, score * weight
            curvature = curvature * weight if request.information != "unit" else curvature
        if request.reference:
            t = likelihood.family.sufficient_statistic(y)
            least = likelihood.family.unit_loss(y, t, 1.0 - t)
            self.reference += float((least if weight is None else least * weight).sum())
        # one NaN or infinity in any row shows in the sum
        self.loss += float(loss.sum())
        if not likelihood.family.dispersion_known or request.statistics:
            squares = (likelihood.family.sufficient_statistic(y) - terms.mu) ** 2
            squares = np.where(squares == 0.0, 0.0, squares / terms.variance)
            self.pearson += float((squares if weight is None else squares * weight).sum())
        if self.gram is not None:
            self.gram.take(curvature, score, start, stop)
        elif request.order > 0:
            add_gradient(self.pieces, self.workspace, score, start, stop, self.gradient)
        if request.statistics:
            self._statistics(y, weight, offset, terms, start, stop)

    def _meat(self, score: Vector, weight: Vector | None, start: int, stop: int) -> None:
        """Squared scores: of each copy of a row that stands for several, of the weighted row otherwise."""
        assert self.meat is not None
        squares = score * score
        if weight is not None:
            trials = _floats(self.block.trials, start, stop)
            copies = weight if trials is None else weight / trials
            squares *= weight * weight / copies if self.model.frequency else weight * weight
        self.meat.take(squares, score, start, stop)

    def _statistics(
        self, y: Vector, weight: Vector | None, offset: Vector | None, terms: RowTerms, start: int, stop: int
    ) -> None:
        family, link = self.model.likelihood.family, self.model.likelihood.link
        frequency, size = sizes(self.block, self.model.frequency, start, stop)
        deviance = family.unit_deviance(y, terms.mu, terms.rest)
        center = np.zeros_like(y) if self.request.null is None else np.full_like(y, self.request.null)
        mu, _, rest = link.inverse(center if offset is None else center + offset, family.bounded)
        null = family.unit_deviance(y, mu, rest)
        saturated: Vector | float = 0.0
        if family.likelihood_at in ("known", "deviance"):
            saturated = frequency * family.saturated(y, size, family.dispersion)
        if weight is not None:
            deviance, null = deviance * weight, null * weight
        observations = float(np.sum(frequency)) if isinstance(frequency, np.ndarray) else float(stop - start)
        fractional = 0
        whole = self.block.y.dtype.kind == "i" and isinstance(size, float)
        if family.discrete and not whole:
            total = size * y
            fractional = int((np.abs(total - np.round(total)) > 1e-9 * np.maximum(1.0, np.abs(total))).sum())
        total_weight = float(stop - start) if weight is None else float(weight.sum())
        self.stats = self.stats + FitStats(
            stop - start,
            observations,
            float(deviance.sum()),
            float(np.sum(saturated)),
            total_weight,
            fractional,
            float(null.sum()),
        )

    def _null(self, y: Vector, weight: Vector | None, offset: Vector | None, n: int) -> None:
        """Loss and its derivatives in the one coefficient of the null model."""
        assert self.request.null is not None
        eta = np.full(n, self.request.null) if offset is None else offset + self.request.null
        terms = self.model.likelihood.rows(y, eta, 2, "expected")
        if not terms.valid:
            self.null = self.null + np.array([np.inf, 0.0, 0.0])
            return
        parts = (terms.loss, terms.score, terms.weight)
        self.null = self.null + [float((t if weight is None else t * weight).sum()) for t in parts]

    def _start(self, y: Vector, weight: Vector | None, offset: Vector | None, start: int, stop: int) -> None:
        """The weighted least squares problem of the first step of IRLS: X'WX and X'Wz at eta = g(start_mean)."""
        family, link = self.model.likelihood.family, self.model.likelihood.link
        if self.block.trials is not None:
            size: Vector | float = self.block.trials[start:stop].astype(np.float64)
        else:
            size = 1.0
        eta = link.link(family.start_mean(y, size))
        terms = self.model.likelihood.rows(y, eta, 2, "expected")
        curvature = terms.weight if weight is None else terms.weight * weight
        target = eta + terms.score / terms.weight
        if self.request.center is not None:
            target = np.full_like(eta, self.request.center)
        if offset is not None:
            target = target - offset
        product = curvature * target
        usable = np.isfinite(product) & np.isfinite(curvature)
        assert self.gram is not None
        self.gram.take(np.where(usable, curvature, 0.0), np.where(usable, product, 0.0), start, stop)
