"""Means of rows and how they move, summed up: with the linear predictors eta_a (q of them) and what is predicted h_k (K of
them: the mean, or the probability of each class),

    sum_i w_i h_k(eta_i)   and   sum_i w_i sum_a S_ka(eta_i) d_ia,   S_ka = dh_k / deta_a,   d_ia = deta_ia / dx,

each with its derivatives in the coefficients: sum_i w_i S_ka x_i, and sum_i w_i (S_ka dx_i/dx + B_ka x_i) with
B_ka = sum_b d2h_k / deta_a deta_b d_ib. Of ordered classes eta_a = t_a - x'b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.design.changes import Part
from daskglm.errors import DesignError
from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Workspace, add_gradient, gather
from daskglm.totals.moments import CHUNK_ROWS, AnyModel, Model
from daskglm.totals.separation import movement
from daskglm.totals.vector import ParallelModel, Rows, SeparateModel, choices

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Cube = npt.NDArray[np.float64]
# What of the movement of an averaged row is rounding, of the size of its parts.
NOISE = 1e-9


@final
@dataclass(frozen=True)
class Averages:
    """weight: sum of w; value (m,): sums of m predictions or slopes; jacobian (m, r): their derivatives in the model's own
    coefficients. Divided by weight they are averages.
    """

    weight: float
    value: Vector
    jacobian: Matrix

    def __add__(self, other: Averages) -> Averages:
        return Averages(self.weight + other.weight, self.value + other.value, self.jacobian + other.jacobian)


@final
@dataclass(frozen=True)
class At:
    """Predictions at linear predictors (q, n): h (K, n), slope S (K, q, n), and bend: from d (q, n) to B (K, q, n)."""

    h: Matrix
    slope: Cube
    bend: Callable[[Matrix], Cube]

    def logarithm(self) -> At:
        """The same of log h."""
        slope = self.slope / self.h[:, None]

        def bend(d: Matrix) -> Cube:
            moved = np.einsum("kan,an->kn", slope, d)
            return self.bend(d) / self.h[:, None] - slope * moved[:, None]

        return At(np.log(self.h), slope, bend)


class Surface(Protocol):
    """A model's predictions as a function of its linear predictors."""

    @property
    def shape(self) -> tuple[int, int]:
        """(K, q)."""

    def predictors(self, offset: Vector, gather: Callable[[Vector, Vector], None]) -> Matrix:
        """eta (q, n): gather(raw, out) adds x'b of raw coefficients; the offset (n,) is used up."""

    def moved(self, offset: Vector, gather: Callable[[Vector, Vector], None]) -> Matrix:
        """d (q, n): the same of the derivatives of columns, without a constant."""

    def at(self, eta: Matrix, ends: Any) -> At:
        """Predictions; ends: what `ends` found of these rows."""

    def ends(self, block: Block) -> Any:
        """What of the rows is at the limit of an infinite optimum; None: nothing."""

    def ends_at(self, x: Vector) -> Any:
        """The same of one row of scaled raw columns (width,)."""

    def fold(self, gradient: Matrix) -> Vector:
        """From the raw columns of each predictor (q, width) to the coefficients (r,)."""


@final
@dataclass(frozen=True)
class Scalar:
    """h = mu(eta). directions: of an infinite optimum, raw (width,); dropped: whether nothing is said of rows they move."""

    model: Model
    coef: Vector
    directions: tuple[Vector, ...] = ()
    dropped: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return 1, 1

    def predictors(self, offset: Vector, gather: Callable[[Vector, Vector], None]) -> Matrix:
        gather(self.model.raw(self.coef), offset)
        return offset[None]

    moved = predictors

    def ends(self, block: Block) -> Any:
        """Where eta goes (n,): -infinity, infinity, NaN where nothing is said, 0 where it stays."""
        if not self.directions:
            return None
        found = np.zeros(block.n)
        for direction in self.directions[::-1]:
            moved = movement(block, self.model.scaling, direction)
            end = np.nan if self.dropped else np.where(moved > 0.0, np.inf, -np.inf)
            found = np.where(moved != 0.0, end, found)
        return found

    def ends_at(self, x: Vector) -> Any:
        found = np.zeros(1)
        for direction in self.directions[::-1]:
            moved, size = float(x @ direction), float(np.abs(x) @ np.abs(direction))
            if abs(moved) > NOISE * size:
                found[0] = np.nan if self.dropped else np.sign(moved) * np.inf
        return found if self.directions else None

    def at(self, eta: Matrix, ends: Any) -> At:
        x = eta[0]
        if ends is not None:
            x = np.where(ends == 0.0, x, ends)
        link = self.model.likelihood.link
        mu, slope, _ = link.inverse(x, False)
        curvature = link.curvature(x)
        if ends is not None:
            # at its limit a mean moves no more
            slope, curvature = (np.where(np.isinf(x), 0.0, part) for part in (slope, curvature))
        return At(mu[None], slope[None, None], lambda d: (curvature * d[0])[None, None])

    def fold(self, gradient: Matrix) -> Vector:
        return gradient[0][self.model.select]


@final
@dataclass(frozen=True)
class Separate:
    """h_k = exp(eta_k) / sum_j exp(eta_j) of K classes, with eta_0 = 0.

    S_ka = h_k (1[k = a] - h_a); B_ka = h_k ((1[k = a] - h_a) (d_k - m) - h_a (d_a - m)), m = sum_b h_b d_b.
    """

    model: SeparateModel
    coef: Vector

    @property
    def shape(self) -> tuple[int, int]:
        return self.model.likelihood.classes, self.model.likelihood.q

    def predictors(self, offset: Vector, gather: Callable[[Vector, Vector], None]) -> Matrix:
        eta = np.stack([offset.copy() for _ in range(self.model.likelihood.q)])
        for raw, one in zip(self.model.raw(self.coef), eta, strict=True):
            gather(raw, one)
        return eta

    moved = predictors

    def ends(self, block: Block) -> Any:
        return _possible(block, self.model)

    def ends_at(self, x: Vector) -> Any:
        return _everything(self.model)

    def at(self, eta: Matrix, ends: Any) -> At:
        h = self.model.likelihood.probabilities(eta, ends)
        same = np.eye(h.shape[0])[:, 1:, None]
        slope = h[:, None] * (same - h[None, 1:])

        def bend(d: Matrix) -> Cube:
            every = np.concatenate([np.zeros((1, d.shape[1])), d])
            gain = every - (h * every).sum(axis=0)
            return np.asarray(slope * gain[:, None] - h[:, None] * (h * gain)[None, 1:])

        return At(h, slope, bend)

    def fold(self, gradient: Matrix) -> Vector:
        return self.model.of_raw(gradient.ravel())


@final
@dataclass(frozen=True)
class Parallel:
    """h_k = F(eta_k) - F(eta_(k-1)) of ordered classes, eta_k = t_k - x'b: S_kk = f(eta_k), S_k(k-1) = -f(eta_(k-1))."""

    model: ParallelModel
    coef: Vector

    @property
    def shape(self) -> tuple[int, int]:
        return self.model.likelihood.classes, self.model.likelihood.q

    def predictors(self, offset: Vector, gather: Callable[[Vector, Vector], None]) -> Matrix:
        gather(self.model.raw(self.coef), offset)
        return self.coef[: self.model.likelihood.q, None] - offset

    def moved(self, offset: Vector, gather: Callable[[Vector, Vector], None]) -> Matrix:
        gather(self.model.raw(self.coef), offset)
        return np.tile(-offset, (self.model.likelihood.q, 1))

    def ends(self, block: Block) -> Any:
        return _possible(block, self.model)

    def ends_at(self, x: Vector) -> Any:
        return _everything(self.model)

    def at(self, eta: Matrix, ends: Any) -> At:
        likelihood = self.model.likelihood
        classes, q = self.shape
        thresholds = self.coef[:q]
        x = thresholds[0] - eta[0]
        density = likelihood.slopes(x, thresholds, ends)
        curvature = np.stack([likelihood.link.curvature(one) for one in eta])
        if ends is not None:
            curvature = np.where(ends[:-1] & ends[1:], curvature, 0.0)

        def by_class(of_threshold: Matrix) -> Cube:
            result = np.zeros((classes, q, eta.shape[1]))
            for a in range(q):
                result[a, a], result[a + 1, a] = of_threshold[a], -of_threshold[a]
            return result

        return At(likelihood.probabilities(x, thresholds, ends), by_class(density), lambda d: by_class(curvature * d))

    def fold(self, gradient: Matrix) -> Vector:
        # a threshold counts every row once, as the constant does
        return np.concatenate([gradient[:, 0], -gradient.sum(axis=0)[self.model.select]])


def _possible(block: Block, model: Any) -> Any:
    """Classes (K, n) that rows can have at the end of an infinite optimum, None for all."""
    pieces = Pieces.of(block, model.scaling)
    return choices(Rows(pieces, Workspace(pieces), model.scaling, 0, block.n), model, model.limits)


def _everything(model: Any) -> None:
    if model.limits:
        raise DesignError(
            "a row of means has no classes that are impossible, as rows of this model have at its infinite estimates: "
            'use at="overall"'
        )


def surface_of(model: AnyModel, coef: Vector, directions: tuple[Vector, ...], dropped: bool) -> Surface:
    """The surface of a model at its coefficients (r,)."""
    if isinstance(model, Model):
        return Scalar(model, coef, directions, dropped)
    return Separate(model, coef) if isinstance(model, SeparateModel) else Parallel(model, coef)  # type: ignore[arg-type]


def _chunks(block: Block, surface: Surface) -> Iterator[tuple[int, int]]:
    outputs, predictors = surface.shape
    size = max(CHUNK_ROWS // (outputs * predictors), 512)
    for start in range(0, block.n, size):
        yield start, min(start + size, block.n)


def _offset(offset: Any, start: int, stop: int) -> Vector:
    return np.zeros(stop - start) if offset is None else np.array(offset[start:stop], np.float64)


def _cut(ends: Any, start: int, stop: int) -> Any:
    return None if ends is None else ends[..., start:stop]


def predictions(block: Block, surface: Surface) -> Matrix:
    """h (K, n) of every row, the limit where it is at one."""
    ends, pieces = surface.ends(block), Pieces.of(block, surface.model.scaling)  # type: ignore[attr-defined]
    workspace = Workspace(pieces)
    parts = [np.empty((surface.shape[0], 0))]
    for start, stop in _chunks(block, surface):
        eta = surface.predictors(
            _offset(block.offset, start, stop),
            lambda raw, out, a=start, b=stop: gather(pieces, workspace, raw, a, b, out),  # type: ignore[misc]
        )
        with np.errstate(all="ignore"):
            parts.append(surface.at(eta, _cut(ends, start, stop)).h)
    return np.concatenate(parts, axis=1)


def averages(block: Block, surface: Surface, logarithm: bool = False, part: Part | None = None) -> Averages:
    """The sums of predictions, or of their slopes in the direction of `part`; of their logarithms. No sparse columns move.

    Evaluations per row: a linear predictor and a gradient, of each of q predictors and K predictions; with a part one more
    of each for its columns.
    """
    model: Any = surface.model  # type: ignore[attr-defined]
    outputs, q = surface.shape
    pieces = Pieces.of(block, model.scaling)
    of_part = None if part is None else Pieces.of(part.block, part.scaling)
    workspace, of_ends = Workspace(pieces), surface.ends(block)
    second = None if of_part is None else Workspace(of_part)
    value = np.zeros(outputs)
    gradient = np.zeros((outputs, q, model.width))
    along = np.zeros((outputs, q, 0 if part is None else part.places.size))
    for start, stop in _chunks(block, surface):
        weight = 1.0 if block.weight is None else block.weight[start:stop].astype(np.float64)

        def whole(raw: Vector, out: Vector, a: int = start, b: int = stop) -> None:
            gather(pieces, workspace, raw, a, b, out)

        def moving(raw: Vector, out: Vector, a: int = start, b: int = stop) -> None:
            gather(of_part, second, part.coefficients(raw), a, b, out)  # type: ignore[union-attr,arg-type]

        with np.errstate(all="ignore"):
            at = surface.at(surface.predictors(_offset(block.offset, start, stop), whole), _cut(of_ends, start, stop))
            at = at.logarithm() if logarithm else at
            if part is None:
                value += (at.h * weight).sum(axis=1)
                pull = at.slope
            else:
                d = surface.moved(_offset(part.offset, start, stop), moving)
                value += (np.einsum("kan,an->kn", at.slope, d) * weight).sum(axis=1)
                pull = at.bend(d)
            for k in range(outputs):
                for a in range(q):
                    score = np.ascontiguousarray(pull[k, a] * weight)
                    add_gradient(pieces, workspace, score, start, stop, gradient[k, a])
                    if of_part is not None and second is not None:
                        score = np.ascontiguousarray(at.slope[k, a] * weight)
                        add_gradient(of_part, second, score, start, stop, along[k, a])
    if part is not None:
        gradient[:, :, part.places[1:]] += along[:, :, 1:]
    total = float(block.n) if block.weight is None else float(block.weight.sum(dtype=np.float64))
    return Averages(total, value, np.stack([surface.fold(one) for one in gradient]))


def averages_at(x: Vector, dx: Vector | None, offset: float, surface: Surface, logarithm: bool = False) -> Averages:
    """The same of one row of scaled raw columns (width,), which may be an average of rows; dx (width,): its slope."""
    ends = surface.ends_at(x)

    def dot(row: Vector) -> Callable[[Vector, Vector], None]:
        def add(raw: Vector, out: Vector) -> None:
            out += row @ raw

        return add

    with np.errstate(all="ignore"):
        at = surface.at(surface.predictors(np.array([offset]), dot(x)), ends)
        at = at.logarithm() if logarithm else at
        if dx is None:
            value, gradient = at.h[:, 0], at.slope[:, :, :1] * x
        else:
            d = surface.moved(np.zeros(1), dot(dx))
            value = np.einsum("kan,an->k", at.slope, d)
            gradient = at.bend(d)[:, :, :1] * x + at.slope[:, :, :1] * dx
    return Averages(1.0, value, np.stack([surface.fold(one) for one in gradient]))


@final
@dataclass(frozen=True)
class Flat:
    """Of a mean with one linear predictor: sums of w h'(eta), and w h''(eta) x (r,), from which the slopes in any number of
    columns that enter as they are follow.
    """

    weight: float
    slope: float
    bend: Vector

    def __add__(self, other: Flat) -> Flat:
        return Flat(self.weight + other.weight, self.slope + other.slope, self.bend + other.bend)


def flat(block: Block, surface: Scalar, logarithm: bool = False) -> Flat:
    """These sums of one block."""
    pieces = Pieces.of(block, surface.model.scaling)
    workspace, of_ends = Workspace(pieces), surface.ends(block)
    slope, gradient = 0.0, np.zeros((1, surface.model.width))
    for start, stop in _chunks(block, surface):
        weight = 1.0 if block.weight is None else block.weight[start:stop].astype(np.float64)

        def whole(raw: Vector, out: Vector, a: int = start, b: int = stop) -> None:
            gather(pieces, workspace, raw, a, b, out)

        with np.errstate(all="ignore"):
            at = surface.at(surface.predictors(_offset(block.offset, start, stop), whole), _cut(of_ends, start, stop))
            at = at.logarithm() if logarithm else at
            slope += float((at.slope[0, 0] * weight).sum())
            score = at.bend(np.ones((1, stop - start)))[0, 0] * weight
            add_gradient(pieces, workspace, np.ascontiguousarray(score), start, stop, gradient[0])
    total = float(block.n) if block.weight is None else float(block.weight.sum(dtype=np.float64))
    return Flat(total, slope, surface.fold(gradient))
