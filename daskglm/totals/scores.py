"""Scores of rows, and their products for robust errors, with leverages taken out.

A row with q linear predictors eta = X_i b has the score s_i (q,) in them, so that X_i' s_i is its part of the gradient; of
ordered classes X_i = [I_q | -1 x']: thresholds, and slopes that they share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Scatter, Workspace, add_gradient, gather, quadratic_form
from daskglm.model.vector import pairs_of
from daskglm.totals.moments import CHUNK_ROWS, AnyModel, Model, sizes
from daskglm.totals.vector import PairTables, ParallelModel, ParallelTables, Rows, SeparateModel, choices

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# A row whose leverage is this near to 1 is fitted by itself: what it leaves is rounding, and so is 1 - h.
WHOLE_LEVERAGE = 1e-10
# Of one matrix per row of several predictors, of which there are about ten at a time.
SQUARE_BYTES = 2 << 20


@final
@dataclass(frozen=True)
class Terms:
    """Of each row and unit weight: score (q, n); weight (q (q + 1) / 2, n) of the information in the predictors, for the
    pairs a <= b, empty where only scores were asked for.
    """

    score: Matrix
    weight: Matrix


@final
@dataclass(frozen=True)
class RawForm:
    """C in the raw columns: forms (width, width), one for each pair of predictors or one that all share; across (q, width)
    and between (q, q) for parameters that stand by themselves.
    """

    forms: tuple[Matrix, ...]
    across: Matrix | None = None
    between: Matrix | None = None


class Predictors(Protocol):
    """A model's rows by their linear predictors."""

    @property
    def q(self) -> int:
        """How many predictors a row has."""

    def terms(self, start: int, stop: int, order: int) -> Terms:
        """Of rows start .. stop - 1."""

    def leverage_form(self, start: int, stop: int, raw: RawForm) -> Matrix:
        """X_i C X_i' of each row for the pairs a <= b (q (q + 1) / 2, n)."""

    def raw_form(self, inverse: Matrix) -> RawForm:
        """C = inverse of the coefficients by raw columns, as `leverage_form` wants it."""


@final
class _One:
    """A response that is a number: one predictor."""

    q = 1

    def __init__(self, block: Block, model: Model, coef: Vector) -> None:
        self.block, self.model, self.raw = block, model, model.raw(coef)
        self.pieces = Pieces.of(block, model.scaling)
        self.workspace = Workspace(self.pieces)

    def terms(self, start: int, stop: int, order: int) -> Terms:
        eta = _offset(self.block, start, stop)
        gather(self.pieces, self.workspace, self.raw, start, stop, eta)
        y = self.block.y[start:stop].astype(np.float64, copy=False)
        likelihood = self.model.likelihood
        found = likelihood.rows(y, eta, order, likelihood.reported)
        return Terms(found.score[None], found.weight[None])

    def raw_form(self, inverse: Matrix) -> RawForm:
        return RawForm((_spread(self.model, inverse),))

    def leverage_form(self, start: int, stop: int, raw: RawForm) -> Matrix:
        return quadratic_form(self.block.rows(start, stop), self.model.scaling, raw.forms[0])[None]


@final
class _Separate:
    """Classes without an order: each but the first has its own predictor, of the same columns."""

    def __init__(self, block: Block, model: SeparateModel, coef: Vector) -> None:
        self.block, self.model, self.raw = block, model, model.raw(coef)
        self.q = model.likelihood.q
        self.pieces = Pieces.of(block, model.scaling)
        self.workspace = Workspace(self.pieces)

    def terms(self, start: int, stop: int, order: int) -> Terms:
        eta = np.zeros((self.q, stop - start))
        for a in range(self.q):
            eta[a] = _offset(self.block, start, stop)
            gather(self.pieces, self.workspace, self.raw[a], start, stop, eta[a])
        rows = Rows(self.pieces, self.workspace, self.model.scaling, start, stop)
        possible = choices(rows, self.model, self.model.limits)
        likelihood = self.model.likelihood
        found = likelihood.rows(self.block.y[start:stop], eta, order, likelihood.reported, possible)
        return Terms(found.score, found.weight)

    def raw_form(self, inverse: Matrix) -> RawForm:
        p = self.model.select.size
        parts = (inverse[a * p : (a + 1) * p, b * p : (b + 1) * p] for a, b in pairs_of(self.q))
        # x'C x knows the symmetric part alone
        return RawForm(tuple(_spread(self.model, 0.5 * (part + part.T)) for part in parts))

    def leverage_form(self, start: int, stop: int, raw: RawForm) -> Matrix:
        rows = self.block.rows(start, stop)
        return np.stack([quadratic_form(rows, self.model.scaling, form) for form in raw.forms])


@final
class _Parallel:
    """Ordered classes: a predictor for each threshold, theta_k - x'b."""

    def __init__(self, block: Block, model: ParallelModel, coef: Vector) -> None:
        self.block, self.model, self.raw = block, model, model.raw(coef)
        self.q = model.likelihood.q
        self.thresholds = coef[: self.q]
        self.pieces = Pieces.of(block, model.scaling)
        self.workspace = Workspace(self.pieces)

    def terms(self, start: int, stop: int, order: int) -> Terms:
        eta = _offset(self.block, start, stop)
        gather(self.pieces, self.workspace, self.raw, start, stop, eta)
        rows = Rows(self.pieces, self.workspace, self.model.scaling, start, stop)
        possible = choices(rows, self.model, self.model.limits)
        likelihood = self.model.likelihood
        found = likelihood.rows(self.block.y[start:stop], eta, self.thresholds, order, likelihood.reported, possible)
        weight = np.zeros((self.q * (self.q + 1) // 2 if order > 1 else 0, stop - start))
        for place, (a, b) in enumerate(pairs_of(self.q) if order > 1 else ()):
            if a == b:
                weight[place] = found.threshold_weight[a]
            elif b == a + 1:
                weight[place] = found.beside[a]
        return Terms(found.threshold_score, weight)

    def raw_form(self, inverse: Matrix) -> RawForm:
        q = self.q
        across = np.zeros((q, self.model.width))
        across[:, self.model.select] = inverse[:q, q:]
        return RawForm((_spread(self.model, inverse[q:, q:]),), across, inverse[:q, :q])

    def leverage_form(self, start: int, stop: int, raw: RawForm) -> Matrix:
        form = quadratic_form(self.block.rows(start, stop), self.model.scaling, raw.forms[0])
        across = np.zeros((self.q, stop - start))
        assert raw.across is not None
        assert raw.between is not None
        for one, coef in zip(across, raw.across, strict=True):
            gather(self.pieces, self.workspace, coef, start, stop, one)
        return np.stack([raw.between[a, b] - across[a] - across[b] + form for a, b in pairs_of(self.q)])


def _offset(block: Block, start: int, stop: int) -> Vector:
    if block.offset is None:
        return np.zeros(stop - start)
    return block.offset[start:stop].astype(np.float64)


def _spread(model: Any, matrix: Matrix) -> Matrix:
    """A matrix of the columns of X as one of the raw columns."""
    result = np.zeros((model.width, model.width))
    result[np.ix_(model.select, model.select)] = matrix
    return result


def predictors_of(block: Block, model: AnyModel, coef: Vector) -> Predictors:
    """The rows of a block by their linear predictors at coef."""
    if isinstance(model, Model):
        return _One(block, model, coef)
    if isinstance(model, SeparateModel):
        return _Separate(block, model, coef)
    assert isinstance(model, ParallelModel)
    return _Parallel(block, model, coef)


# -- products of scores, leverages taken out -------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Meat:
    """sum_i X_i' s_i s_i' X_i of scores with their leverages taken out, in the tables of a Gram, with which sum_i X_i' s_i of
    the scores as they are travels; alone: rows that are fitted by themselves, of which nothing can be taken out; least: the
    smallest 1 - h of any row, h the largest eigenvalue of its leverage.
    """

    tables: Any
    alone: int
    least: float = 1.0

    def __add__(self, other: Meat) -> Meat:
        return Meat(self.tables + other.tables, self.alone + other.alone, min(self.least, other.least))


def meat(block: Block, model: AnyModel, coef: Vector, inverse: Matrix, power: float) -> Meat:
    """The products of w (I - H)^(-power) s, H_i = w W_i X_i C X_i' (q, q) the leverage of a row, or of one of its f copies.

    power 0: HC0, 1/2: HC2, 1: HC3. inverse (p, p): C, of the information at phi = 1. A row that stands for f counts f times.
    Source: MacKinnon and White (1985), Journal of Econometrics 29, 305-325; of several predictors (I - W_i X_i C X_i')^-1 s
    is what (H - X_i' W_i X_i)^-1, the information without the row, makes of X_i' s.
    """
    rows = predictors_of(block, model, coef)
    products, raw = _products_of(block, model), rows.raw_form(inverse)
    alone, least = 0, 1.0
    counts = bool(getattr(model, "frequency", False))
    for start in range(0, block.n, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, block.n)
        frequency, size = sizes(block, counts, start, stop)
        with np.errstate(all="ignore"):
            terms = rows.terms(start, stop, 2)
            form = rows.leverage_form(start, stop, raw)
            score, saturated, left = without_leverage(terms.score, terms.weight * size, form, power)
        alone, least = alone + saturated, min(least, left)
        copies = np.broadcast_to(np.asarray(frequency, np.float64), (stop - start,))
        products.take(score * size, terms.score * size * copies, copies, start, stop)
    return Meat(products.result(), alone, least)


def without_leverage(score: Matrix, weight: Matrix, form: Matrix, power: float) -> tuple[Matrix, int, float]:
    """(I - W Q)^(-power) s of each row (q, n), how many rows have an eigenvalue of W Q at 1, and the smallest eigenvalue of
    I - W Q.

    weight, form: W and Q for the pairs a <= b (q (q + 1) / 2, n). With Q = L L', (I - W Q)^(-power) =
    I + W L h(L'WL) L' where h(x) = ((1 - x)^(-power) - 1) / x, which asks no inverse of W.
    """
    q, n = score.shape
    if q == 1:
        left = 1.0 - weight[0] * form[0]
        return score * left**-power, int((left <= WHOLE_LEVERAGE).sum()), float(np.min(left, initial=1.0))
    step = max(SQUARE_BYTES // (8 * q * q), 1)
    parts = [
        _without_blocks(score[:, at : at + step], weight[:, at : at + step], form[:, at : at + step], power)
        for at in range(0, n, step)
    ]
    scores = np.concatenate([part for part, _, _ in parts], axis=1)
    return scores, sum(alone for _, alone, _ in parts), min((left for *_, left in parts), default=1.0)


def _without_blocks(score: Matrix, weight: Matrix, form: Matrix, power: float) -> tuple[Matrix, int, float]:
    """The same of several predictors, a q x q matrix a row."""
    q = score.shape[0]
    w, both = _square(weight, q), _square(form, q)
    values, vectors = np.linalg.eigh(both)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    inner = np.swapaxes(root, 1, 2) @ w @ root
    x, u = np.linalg.eigh(0.5 * (inner + np.swapaxes(inner, 1, 2)))
    # expm1 and log1p keep the digits where a leverage is small
    change = np.where(x == 0.0, power, np.expm1(-power * np.log1p(-x)) / np.where(x == 0.0, 1.0, x))
    s = score.T[:, :, None]
    inside = np.swapaxes(u, 1, 2) @ (np.swapaxes(root, 1, 2) @ s)
    moved = w @ (root @ (u @ (change[:, :, None] * inside)))
    largest = x.max(axis=1)
    result = np.ascontiguousarray((s + moved)[:, :, 0].T)
    return result, int((largest >= 1.0 - WHOLE_LEVERAGE).sum()), float(1.0 - np.max(largest, initial=0.0))


def _square(pairs: Matrix, q: int) -> Matrix:
    """Symmetric matrices (n, q, q) of their pairs a <= b."""
    result = np.empty((pairs.shape[1], q, q))
    for values, (a, b) in zip(pairs, pairs_of(q), strict=True):
        result[:, a, b] = values
        result[:, b, a] = values
    return result


class _Products(Protocol):
    def take(self, score: Matrix, whole: Matrix, copies: Vector, start: int, stop: int) -> None:
        """Add rows with their scores (q, n), each so many times; whole (q, n): their part of the gradient."""

    def result(self) -> Any:
        """The tables, as the model's Gram has them."""


def _products_of(block: Block, model: AnyModel) -> _Products:
    if isinstance(model, ParallelModel):
        return _ParallelProducts(block, model)
    return _PairProducts(block, model)


@final
class _PairProducts:
    """Of one predictor, or of several of the same columns."""

    def __init__(self, block: Block, model: Any) -> None:
        pieces = Pieces.of(block, model.scaling)
        workspace = Workspace(pieces)
        self.single = isinstance(model, Model)
        self.pairs = pairs_of(model.likelihood.q)
        self.grams = [Scatter(pieces, workspace) for _ in self.pairs]

    def take(self, score: Matrix, whole: Matrix, copies: Vector, start: int, stop: int) -> None:
        nothing = np.zeros(stop - start)
        for gram, (a, b) in zip(self.grams, self.pairs, strict=True):
            gram.take(score[a] * score[b] * copies, whole[a] if a == b else nothing, start, stop)

    def result(self) -> Any:
        tables = tuple(gram.result() for gram in self.grams)
        return tables[0] if self.single else PairTables(tables)


@final
class _ParallelProducts:
    """Of thresholds and the slopes that they share, which stand against them."""

    def __init__(self, block: Block, model: ParallelModel) -> None:
        self.pieces = Pieces.of(block, model.scaling)
        self.workspace = Workspace(self.pieces)
        q = model.likelihood.q
        self.slopes = Scatter(self.pieces, self.workspace)
        self.cross, self.between, self.score = np.zeros((q, model.width)), np.zeros((q, q)), np.zeros(q)

    def take(self, score: Matrix, whole: Matrix, copies: Vector, start: int, stop: int) -> None:
        slope = -score.sum(axis=0)
        self.slopes.take(slope * slope * copies, -whole.sum(axis=0), start, stop)
        self.score += whole.sum(axis=1)
        for k, one in enumerate(score):
            add_gradient(self.pieces, self.workspace, one * slope * copies, start, stop, self.cross[k])
        self.between += (score * copies) @ score.T

    def result(self) -> ParallelTables:
        return ParallelTables(self.slopes.result(), self.cross, self.between, self.score)
