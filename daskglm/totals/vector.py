"""Loss, gradient and Gram of one block where the response is one of several classes.

Coefficients of a multinomial model stand predictor by predictor, (q, p); its Gram is one table for each pair of
predictors. An ordinal model has q thresholds, then the slopes that all share: one table for the slopes, one product with
the columns for each threshold.

Where an optimum is infinite, b + t d as t grows, d decides which classes of a row remain possible, and b the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block, Scaling
from daskglm.kernels.products import Gram, Pieces, Scatter, Workspace, add_gradient, gather
from daskglm.model.vector import BaselineLogit, Cumulative, pairs_of
from daskglm.totals.moments import CHUNK_ROWS, FitStats, Moments, Request
from daskglm.totals.occurrences import occurrences
from daskglm.totals.separation import ROUNDING, extents

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# A direction of whole levels moves rows by multiples of 1/8, and others not at all.
EXACT = 1.0 / 16.0


@final
@dataclass(frozen=True)
class Limit:
    """A direction of recession (r,) of the model's own coefficients, followed to its end; exact: one of whole levels."""

    direction: Vector
    exact: bool = False


@final
@dataclass(frozen=True)
class PairTables:
    """The Gram of q predictors: X'W_ab X for each pair a <= b, in that order; scores travel with the diagonal ones."""

    tables: tuple[Gram, ...]

    def __add__(self, other: PairTables) -> PairTables:
        return PairTables(tuple(one + two for one, two in zip(self.tables, other.tables, strict=True)))


@final
@dataclass(frozen=True)
class ParallelTables:
    """The Gram of thresholds and shared slopes: slopes X'WX; cross (q, width) X'c_k; thresholds (q, q), and score (q,)."""

    slopes: Gram
    cross: Matrix
    thresholds: Matrix
    score: Vector

    def __add__(self, other: ParallelTables) -> ParallelTables:
        return ParallelTables(
            self.slopes + other.slopes,
            self.cross + other.cross,
            self.thresholds + other.thresholds,
            self.score + other.score,
        )


@final
@dataclass(frozen=True)
class SeparateModel:
    """A multinomial model: coefficients (q p,) are those of the first predictor, then of the second, ...

    select (p,), width, scaling, frequency: as in `daskglm.totals.moments.Model`; limits: of an infinite optimum, in the
    order in which they decide.
    """

    likelihood: BaselineLogit
    select: npt.NDArray[np.int64]
    width: int
    scaling: Scaling
    frequency: bool = False
    refines: bool = False
    limits: tuple[Limit, ...] = ()

    @property
    def n_coefficients(self) -> int:
        """q p."""
        return int(self.likelihood.q * self.select.size)

    def intercepts(self, intercept: bool) -> npt.NDArray[np.int64]:
        """Places of the intercepts among the coefficients."""
        return np.arange(self.likelihood.q) * self.select.size if intercept else np.zeros(0, np.int64)

    def flat(self, eta: Vector, intercept: bool) -> Vector:
        """Coefficients with which every row has the predictors eta (q,), as far as there are intercepts."""
        result = np.zeros(self.n_coefficients)
        if intercept:
            result[self.intercepts(True)] = eta
        return result

    def raw(self, coef: Vector) -> Matrix:
        """Coefficients of the raw columns (q, width)."""
        result = np.zeros((self.likelihood.q, self.width))
        result[:, self.select] = coef.reshape(self.likelihood.q, -1)
        return result

    def gradient(self, sums: Moments) -> Vector:
        """X' w s of each predictor (q p,)."""
        return self.of_raw(sums.raw_gradient) if sums.tables is None else self.scores(sums.tables)

    def of_raw(self, gradient: Vector) -> Vector:
        """A gradient of the raw columns, predictor by predictor, in the coefficients (q p,)."""
        return gradient.reshape(self.likelihood.q, self.width)[:, self.select].ravel()

    def scores(self, tables: Any) -> Vector:
        """The gradient that travels with a Gram (q p,)."""
        diagonal = [t for t, (a, b) in zip(tables.tables, pairs_of(self.likelihood.q), strict=True) if a == b]
        return np.concatenate([table.gradient()[self.select] for table in diagonal])

    def gram(self, tables: Any) -> Matrix | None:
        """The Gram of all coefficients (q p, q p)."""
        if tables is None:
            return None
        q, p = self.likelihood.q, self.select.size
        result = np.empty((q * p, q * p))
        for table, (a, b) in zip(tables.tables, pairs_of(q), strict=True):
            part = table.matrix()[np.ix_(self.select, self.select)]
            result[a * p : (a + 1) * p, b * p : (b + 1) * p] = part
            result[b * p : (b + 1) * p, a * p : (a + 1) * p] = part
        return result

    def information(self, tables: Any) -> Matrix | None:
        """The same."""
        return self.gram(tables)

    def sums(self, block: Block, request: Request) -> Moments:
        """The moments of one block."""
        return _Separate(block, self, request).run()

    # -- directions --------------------------------------------------------------------------------------------------

    def courses(self, rows: Rows, direction: Vector) -> Matrix:
        """x'd of every class, 0 of the reference (K, n)."""
        result = np.zeros((self.likelihood.classes, rows.n))
        for k, raw in enumerate(self.raw(direction)):
            if raw.any():
                rows.gather(raw, result[k + 1])
        return result

    def size(self, direction: Vector) -> Vector:
        """The largest coefficient of each raw column (width,)."""
        return np.abs(self.raw(direction)).max(axis=0)

    def scatter(self, block: Block) -> SeparateScatter:
        """Where unit information is summed up."""
        return SeparateScatter(Pieces.of(block, self.scaling), self.likelihood.q)


@final
@dataclass(frozen=True)
class ParallelModel:
    """An ordinal model: coefficients (q + p,) are the thresholds, then the slopes.

    select (p,): raw columns of the slopes, the intercept not among them; limits: as in `SeparateModel`.
    """

    likelihood: Cumulative
    select: npt.NDArray[np.int64]
    width: int
    scaling: Scaling
    frequency: bool = False
    refines: bool = False
    limits: tuple[Limit, ...] = ()

    @property
    def n_coefficients(self) -> int:
        """q + p."""
        return int(self.likelihood.q + self.select.size)

    def intercepts(self, intercept: bool) -> npt.NDArray[np.int64]:
        """Places of the thresholds among the coefficients."""
        return np.arange(self.likelihood.q)

    def flat(self, eta: Vector, intercept: bool) -> Vector:
        """Coefficients of the thresholds alone."""
        return np.concatenate([eta, np.zeros(self.select.size)])

    def raw(self, coef: Vector) -> Vector:
        """Slopes of the raw columns (width,)."""
        result = np.zeros(self.width)
        result[self.select] = coef[self.likelihood.q :]
        return result

    def gradient(self, sums: Moments) -> Vector:
        """Of thresholds, then slopes (q + p,)."""
        return self.of_raw(sums.raw_gradient) if sums.tables is None else self.scores(sums.tables)

    def of_raw(self, gradient: Vector) -> Vector:
        """A gradient of the thresholds, then of the raw columns, in the coefficients (q + p,)."""
        q = self.likelihood.q
        return np.concatenate([gradient[:q], gradient[q:][self.select]])

    def scores(self, tables: Any) -> Vector:
        """The gradient that travels with a Gram (q + p,)."""
        return np.concatenate([tables.score, tables.slopes.gradient()[self.select]])

    def gram(self, tables: Any) -> Matrix | None:
        """The Gram of all coefficients (q + p, q + p)."""
        if tables is None:
            return None
        cross = tables.cross[:, self.select]
        slopes = tables.slopes.matrix()[np.ix_(self.select, self.select)]
        return np.block([[tables.thresholds, cross], [cross.T, slopes]])

    def information(self, tables: Any) -> Matrix | None:
        """The same."""
        return self.gram(tables)

    def sums(self, block: Block, request: Request) -> Moments:
        """The moments of one block."""
        return _Parallel(block, self, request).run()

    # -- directions --------------------------------------------------------------------------------------------------

    def courses(self, rows: Rows, direction: Vector) -> Matrix:
        """How each threshold moves away from x'b (q, n)."""
        moved = np.zeros(rows.n)
        rows.gather(self.raw(direction), moved)
        return direction[: self.likelihood.q, None] - moved

    def size(self, direction: Vector) -> Vector:
        """The largest coefficient of each raw column (width,), the thresholds in place of the intercept."""
        result = np.abs(self.raw(direction))
        result[0] = np.abs(direction[: self.likelihood.q]).max()
        return result

    def scatter(self, block: Block) -> ParallelScatter:
        """Where unit information is summed up."""
        return ParallelScatter(Pieces.of(block, self.scaling), self.likelihood.q)


def class_model(
    likelihood: BaselineLogit | Cumulative,
    select: npt.NDArray[np.int64],
    width: int,
    scaling: Scaling,
    frequency: bool = False,
    limits: tuple[Limit, ...] = (),
) -> SeparateModel | ParallelModel:
    """The model of a likelihood and of the columns of X, the intercept among them."""
    if isinstance(likelihood, Cumulative):
        return ParallelModel(likelihood, select[1:], width, scaling, frequency, limits=limits)
    return SeparateModel(likelihood, select, width, scaling, frequency, limits=limits)


@final
class Rows:
    """The rows start .. stop - 1 of a block, as directions meet them."""

    def __init__(self, pieces: Pieces, workspace: Workspace, scaling: Scaling, start: int, stop: int) -> None:
        self.pieces, self.workspace, self.scaling, self.start, self.stop = pieces, workspace, scaling, start, stop

    @property
    def n(self) -> int:
        """How many."""
        return self.stop - self.start

    def gather(self, raw: Vector, out: Vector) -> None:
        """out (n,) += x'b of the raw columns."""
        gather(self.pieces, self.workspace, raw, self.start, self.stop, out)

    def noise(self, size: Vector) -> Vector:
        """What of x'd (n,) is rounding, for coefficients of this size (width,)."""
        return ROUNDING * extents(self.pieces.block.rows(self.start, self.stop), self.scaling, size)


def choices(rows: Rows, model: Any, limits: Sequence[Limit]) -> Mask | None:
    """Classes (K, n) that remain possible when these directions are followed to their end, None where there are none."""
    if not limits:
        return None
    possible = np.ones((model.likelihood.classes, rows.n), bool)
    for limit in limits:
        noise = EXACT if limit.exact else rows.noise(model.size(limit.direction))
        possible = model.likelihood.left(possible, model.courses(rows, limit.direction), noise)
    return possible


@final
class SeparateScatter:
    """The Gram of q predictors of one block while its chunks go by."""

    def __init__(self, pieces: Pieces, q: int, workspace: Workspace | None = None) -> None:
        space = Workspace(pieces) if workspace is None else workspace
        self.pairs = pairs_of(q)
        self.grams = [Scatter(pieces, space) for _ in self.pairs]

    def take(self, weight: Matrix, score: Matrix, start: int, stop: int) -> None:
        """Add rows with their weights (q (q + 1) / 2, n) and scores (q, n)."""
        nothing = np.zeros(stop - start)
        for gram, (a, b), one in zip(self.grams, self.pairs, weight, strict=True):
            gram.take(one, score[a] if a == b else nothing, start, stop)

    def result(self) -> PairTables:
        """The tables, complete."""
        return PairTables(tuple(gram.result() for gram in self.grams))


@final
class ParallelScatter:
    """The Gram of thresholds and shared slopes of one block, of unit information: every end of a class counts alike."""

    def __init__(self, pieces: Pieces, q: int) -> None:
        self.pieces, self.workspace = pieces, Workspace(pieces)
        self.slopes = Scatter(pieces, self.workspace)
        self.cross = np.zeros((q, pieces.width))
        self.thresholds, self.score = np.zeros(q), np.zeros(q)

    def take(self, weight: Matrix, score: Matrix, start: int, stop: int) -> None:
        """Add rows with their weights (q, n) and scores (q, n) of the thresholds, against which the slopes stand."""
        self.slopes.take(weight.sum(axis=0), -score.sum(axis=0), start, stop)
        for k, one in enumerate(weight):
            add_gradient(self.pieces, self.workspace, -one, start, stop, self.cross[k])
        self.thresholds += weight.sum(axis=1)
        self.score += score.sum(axis=1)

    def result(self) -> ParallelTables:
        """The tables, complete."""
        return ParallelTables(self.slopes.result(), self.cross, np.diag(self.thresholds), self.score)


class _Classes:
    """What both kinds sum up alike while the chunks of one block go by."""

    def __init__(self, block: Block, classes: int, request: Request, model: Any) -> None:
        self.block, self.request, self.model, self.classes = block, request, model, classes
        self.pieces = Pieces.of(block, model.scaling)
        self.workspace = Workspace(self.pieces)
        self.second = request.coef is not None and request.order > 1
        self.by_class = np.zeros(classes)
        self.weight = self.loss = self.pearson = 0.0
        self.stats = FitStats(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0)
        self.limited = 0

    def possible(self, start: int, stop: int) -> Mask | None:
        """Classes that rows can have (K, n); rows that cannot have all are counted."""
        rows = Rows(self.pieces, self.workspace, self.model.scaling, start, stop)
        found = choices(rows, self.model, self.model.limits)
        if found is not None:
            self.limited += int((~found.all(axis=0)).sum())
        return found

    def chunks(self) -> Any:
        """(start, stop, codes, weight, offset) of each chunk; classes are weighed on the way."""
        block, request = self.block, self.request
        for start in range(0, block.n, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, block.n)
            y = block.y[start:stop]
            weight = None if block.weight is None else block.weight[start:stop].astype(np.float64, copy=False)
            offset = None if block.offset is None else block.offset[start:stop].astype(np.float64, copy=False)
            if request.means or request.statistics:
                self.by_class += np.bincount(y, weight, self.classes)
                self.weight += float(stop - start if weight is None else weight.sum())
            yield start, stop, y, weight, offset

    def common(self, terms: Any, weight: Vector | None) -> None:
        """Loss and the statistics of the closing pass."""
        loss = terms.loss if weight is None else terms.loss * weight
        self.loss += float(loss.sum())
        if not self.request.statistics:
            return
        # sum_k (1[y = k] - mu_k)^2 / mu_k = (1 - mu_y) / mu_y
        squares = -np.expm1(-terms.loss) / terms.chance
        self.pearson += float((squares if weight is None else squares * weight).sum())
        n = terms.loss.size
        observations = float(n if weight is None or not self.model.frequency else weight.sum())
        fractional = 0
        if weight is not None and not self.model.frequency:
            fractional = int((np.abs(weight - np.round(weight)) > 1e-9 * np.maximum(1.0, weight)).sum())
        total = float(n if weight is None else weight.sum())
        self.stats = self.stats + FitStats(n, observations, 2.0 * float(loss.sum()), 0.0, total, fractional, 0.0)

    def squared(self, weight: Vector | None) -> Vector | float:
        """What the products of scores are weighted by: f for a row that stands for f, w^2 otherwise."""
        if weight is None:
            return 1.0
        return weight if self.model.frequency else weight * weight

    def moments(self, gradient: Vector, tables: Any, meat: Any) -> Moments:
        if not np.isfinite(self.loss):
            self.loss = np.inf
        statistics = replace(self.stats, limited=self.limited) if self.request.statistics else None
        counts = occurrences(self.block, self.classes) if self.request.occurrences else None
        return Moments(
            self.block.n, self.weight, 0.0, self.loss, gradient, tables, self.pearson, self.by_class, statistics, meat,
            occurrences=counts,
        )  # fmt: skip


class _Separate(_Classes):
    """A multinomial block."""

    def __init__(self, block: Block, model: SeparateModel, request: Request) -> None:
        super().__init__(block, model.likelihood.classes, request, model)
        self.q = model.likelihood.q
        self.gram = SeparateScatter(self.pieces, self.q, self.workspace) if self.second else None
        self.meat = SeparateScatter(self.pieces, self.q, self.workspace) if request.meat else None
        self.raw = None if request.coef is None else model.raw(request.coef)
        self.gradient = np.zeros((self.q, model.width))

    def run(self) -> Moments:
        with np.errstate(all="ignore"):
            for start, stop, y, weight, offset in self.chunks():
                if self.raw is not None:
                    self._evaluate(start, stop, y, weight, offset)
        tables = None if self.gram is None else self.gram.result()
        meat = None if self.meat is None else self.meat.result()
        return self.moments(self.gradient.ravel(), tables, meat)

    def _evaluate(self, start: int, stop: int, y: Any, weight: Vector | None, offset: Vector | None) -> None:
        request, likelihood = self.request, self.model.likelihood
        assert self.raw is not None
        eta = np.zeros((self.q, stop - start))
        for a in range(self.q):
            if offset is not None:
                eta[a] = offset
            gather(self.pieces, self.workspace, self.raw[a], start, stop, eta[a])
        possible = self.possible(start, stop)
        terms = likelihood.rows(y, eta, request.order, request.information, possible)
        self.common(terms, weight)
        if self.meat is not None:
            copies = self.squared(weight)
            products = np.stack([terms.score[a] * terms.score[b] * copies for a, b in pairs_of(self.q)])
            self.meat.take(products, np.zeros(eta.shape), start, stop)
        score, curvature = terms.score, terms.weight
        if request.information == "unit" and possible is not None:
            _, pairs = likelihood.alternatives(y, possible, np.zeros(possible.shape))
            curvature = likelihood.unit(y, pairs.astype(np.float64))
        elif request.information == "unit":
            curvature = np.stack([np.full(stop - start, float(a == b)) for a, b in pairs_of(self.q)])
        elif weight is not None:
            curvature = curvature * weight
        if weight is not None:
            score = score * weight
        if self.gram is not None:
            self.gram.take(curvature, score, start, stop)
        elif request.order > 0:
            for a in range(self.q):
                add_gradient(self.pieces, self.workspace, score[a], start, stop, self.gradient[a])


class _Parallel(_Classes):
    """An ordinal block."""

    def __init__(self, block: Block, model: ParallelModel, request: Request) -> None:
        super().__init__(block, model.likelihood.classes, request, model)
        self.q = model.likelihood.q
        self.slopes = Scatter(self.pieces, self.workspace) if self.second else None
        self.meat = Scatter(self.pieces, self.workspace) if request.meat else None
        self.raw = None if request.coef is None else model.raw(request.coef)
        self.thresholds = np.zeros(self.q) if request.coef is None else request.coef[: self.q]
        self.cross, self.meat_cross = np.zeros((self.q, model.width)), np.zeros((self.q, model.width))
        self.between, self.meat_between = np.zeros((self.q, self.q)), np.zeros((self.q, self.q))
        self.score = np.zeros(self.q)
        self.gradient = np.zeros(model.width)

    def run(self) -> Moments:
        with np.errstate(all="ignore"):
            for start, stop, y, weight, offset in self.chunks():
                if self.raw is not None:
                    self._evaluate(start, stop, y, weight, offset)
        tables = meat = None
        if self.slopes is not None:
            tables = ParallelTables(self.slopes.result(), self.cross, self.between, self.score)
        if self.meat is not None:
            meat = ParallelTables(self.meat.result(), self.meat_cross, self.meat_between, np.zeros(self.q))
        return self.moments(np.concatenate([self.score, self.gradient]), tables, meat)

    def _evaluate(self, start: int, stop: int, y: Any, weight: Vector | None, offset: Vector | None) -> None:
        request, likelihood, n = self.request, self.model.likelihood, stop - start
        assert self.raw is not None
        eta = np.zeros(n) if offset is None else offset.copy()
        gather(self.pieces, self.workspace, self.raw, start, stop, eta)
        # the slopes' part of eta alone is gathered; an order of thresholds that is none makes the loss NaN
        possible = self.possible(start, stop)
        terms = likelihood.rows(y, eta, self.thresholds, request.order, request.information, possible)
        self.common(terms, weight)
        if self.meat is not None:
            copies = self.squared(weight)
            self.meat.take(terms.score * terms.score * copies, np.zeros(n), start, stop)
            for k in range(self.q):
                product = np.ascontiguousarray(terms.threshold_score[k] * terms.score * copies)
                add_gradient(self.pieces, self.workspace, product, start, stop, self.meat_cross[k])
            self.meat_between += (terms.threshold_score * copies) @ terms.threshold_score.T
        score, of_thresholds = terms.score, terms.threshold_score
        if weight is not None:
            score, of_thresholds = score * weight, of_thresholds * weight
        self.score += of_thresholds.sum(axis=1)
        if self.slopes is None:
            if request.order > 0:
                add_gradient(self.pieces, self.workspace, score, start, stop, self.gradient)
            return
        curvature, cross, diagonal, beside = terms.weight, terms.cross, terms.threshold_weight, terms.beside
        if request.information == "unit" and possible is not None:
            _, ends = likelihood.alternatives(y, possible, np.zeros((self.q, n)))
            diagonal = likelihood.unit(y, ends.astype(np.float64))
            curvature, cross, beside = diagonal.sum(axis=0), -diagonal, np.zeros((self.q - 1, n))
        elif request.information == "unit":
            curvature, cross = np.full(n, float(self.q)), np.full((self.q, n), -1.0)
            diagonal, beside = np.ones((self.q, n)), np.zeros((self.q - 1, n))
        elif weight is not None:
            curvature, cross = curvature * weight, cross * weight
            diagonal, beside = diagonal * weight, beside * weight
        self.slopes.take(curvature, score, start, stop)
        for k in range(self.q):
            add_gradient(self.pieces, self.workspace, np.ascontiguousarray(cross[k]), start, stop, self.cross[k])
        self.between += np.diag(diagonal.sum(axis=1))
        if self.q > 1:
            sides = beside.sum(axis=1)
            self.between += np.diag(sides, 1) + np.diag(sides, -1)
