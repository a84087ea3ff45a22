"""What each row has to say in the coefficients: leverage, Cook's distance, DFFITS, DFBETAS; the rows that say most, and how
all others are spread.

One step of Newton from the coefficients without the row, for which the row's own part of the fit is enough: h_i = w_i x_i'
(X'WX)^-1 x_i. Sources: Pregibon (1981), Annals of Statistics 9; Williams (1987), Applied Statistics 36; R's lm.influence, which
takes deviance residuals for those of least squares; of classes, Lesaffre and Albert (1989), Applied Statistics 38.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels import reference
from daskglm.kernels.basis import Basis
from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Workspace, gather, quadratic_form
from daskglm.totals.fitted import Fitted, fitted, fitted_classes
from daskglm.totals.moments import Model
from daskglm.totals.residualised import working_block, working_model
from daskglm.totals.vector import ParallelModel, SeparateModel

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# A leverage within so little of 1 is 1, as in R.
ONE = 10.0 * np.finfo(np.float64).eps
# Rows of X that are written out at a time.
ROWS_IN_FULL = 2_048
# Bits of a double that a bin of a sketch does not tell apart: 7 of the fraction's 52 are left, 128 bins from each power of two.
SHIFT = np.int64(45)


@final
@dataclass(frozen=True)
class Bread:
    """The fit as the measures need it.

    inverse (r, r): of the information at phi = 1, on the working scale of `basis`; change (r, r): from a row's x_i e_i on that
    scale to standardised changes of the reported coefficients; rank, phi, deviance and df_resid of the fit; known: whether
    phi is.
    """

    inverse: Matrix
    change: Matrix
    rank: int
    phi: float
    deviance: float
    df_resid: float
    known: bool
    basis: Basis | None = None


@final
@dataclass(frozen=True)
class Measures:
    """leverage, cooks, dffits (n,): of one copy of each row; pull (q, n): of what x_i is added to the coefficients by
    (X'WX)^-1 as the row goes in, over the standard deviation without it. dffits is NaN for several predictors.
    """

    leverage: Vector
    cooks: Vector
    dffits: Vector
    pull: Matrix
    copies: Vector


def leverage(block: Block, model: Model, bread: Bread, rows: Fitted) -> Vector:
    """h (n,) of one copy of each row."""
    there, columns = working_model(model, bread.basis), working_block(block, model, bread.basis)
    raw = np.zeros((there.width, there.width))
    raw[np.ix_(there.select, there.select)] = bread.inverse
    h = rows.weight * np.maximum(quadratic_form(columns, there.scaling, raw), 0.0)
    return np.where(h > 1.0 - ONE, 1.0, h)


def deleted_deviation(bread: Bread, squares: Vector, h: Vector) -> Vector:
    """The standard deviation without each row (n,), as R's lm.influence: sqrt((sum e^2 - e^2 / (1 - h)) / (df - 1))."""
    freedom = bread.df_resid - 1.0
    if not freedom > 0.0:
        return np.full(h.size, np.nan)
    with np.errstate(all="ignore"):
        gone = np.where(h < 1.0, squares / (1.0 - h), 0.0)
        return np.sqrt(np.maximum(bread.deviance - gone, 0.0) / freedom)


def measures(block: Block, model: Any, coef: Vector, bread: Bread) -> Measures:
    """Measures of rows with finite linear predictors."""
    if not isinstance(model, Model):
        return _of_classes(block, model, coef, bread)
    rows = fitted(block, model, coef)
    h = leverage(block, model, bread, rows)
    deviation = deleted_deviation(bread, rows.deviance, h)
    with np.errstate(all="ignore"):
        cooks = _defined((rows.pearson / (1.0 - h)) ** 2 * h / (bread.phi * bread.rank))
        raised = rows.signed_deviance / (deviation * (1.0 - h))
        # without the row its direction has no estimate: R says no change
        pull = np.where(h < 1.0, np.sqrt(rows.weight) * raised, 0.0 / deviation)
        return Measures(h, cooks, _defined(raised * np.sqrt(h)), pull[None], rows.copies)


def _defined(values: Vector) -> Vector:
    """What divides by zero is not defined, as in R."""
    return np.where(np.isfinite(values), values, np.nan)


def _of_classes(block: Block, model: SeparateModel | ParallelModel, coef: Vector, bread: Bread) -> Measures:
    """With M = x_i (X'WX)^-1 x_i' (q, q): leverage tr(W M), change of the coefficients (X'WX)^-1 x_i' a with a = (I - W M)^-1 s,
    and Cook's distance a' M a / rank.
    """
    rows = fitted_classes(block, model, coef)
    form = np.moveaxis(_forms(block, model, bread.inverse), 2, 0)
    product = np.moveaxis(rows.information, 2, 0) @ form
    left = np.eye(model.likelihood.q) - product
    singular = ~(np.abs(np.linalg.det(left)) > ONE)
    left[singular] = np.eye(model.likelihood.q)
    pull = np.linalg.solve(left, rows.score.T[:, :, None])[:, :, 0]
    pull[singular] = np.nan
    cooks = np.einsum("ia,iab,ib->i", pull, form, pull) / bread.rank
    traces = np.trace(product, axis1=1, axis2=2)
    return Measures(traces, cooks, np.full(block.n, np.nan), np.ascontiguousarray(pull.T), rows.copies)


def _forms(block: Block, model: SeparateModel | ParallelModel, inverse: Matrix) -> Matrix:
    """M (q, q, n), a predictor by a predictor: what the linear predictors of a row have as their covariance at phi = 1."""
    q, p = model.likelihood.q, model.select.size
    place = np.ix_(model.select, model.select)
    result = np.zeros((q, q, block.n))

    def form(matrix: Matrix) -> Vector:
        raw = np.zeros((model.width, model.width))
        raw[place] = 0.5 * (matrix + matrix.T)
        return quadratic_form(block, model.scaling, raw)

    if isinstance(model, SeparateModel):
        parts = inverse.reshape(q, p, q, p)
        for a in range(q):
            for b in range(a, q):
                result[a, b] = result[b, a] = form(parts[a, :, b, :])
        return result
    pieces = Pieces.of(block, model.scaling)
    space, between = Workspace(pieces), np.zeros((q, block.n))
    for one, row in zip(between, inverse[:q, q:], strict=True):
        raw = np.zeros(model.width)
        raw[model.select] = row
        gather(pieces, space, raw, 0, block.n, one)
    slopes = form(inverse[q:, q:])
    for a in range(q):
        for b in range(q):
            # predictor a is t_a - x'b
            result[a, b] = inverse[a, b] - between[a] - between[b] + slopes
    return result


def dfbetas(block: Block, model: Any, bread: Bread, pull: Matrix) -> Matrix:
    """Change of each reported coefficient as the row goes in, over its standard error without it (n, r)."""
    result = np.empty((block.n, bread.change.shape[1]))
    columns, model = working_block(block, model, bread.basis), working_model(model, bread.basis)
    for start in range(0, block.n, ROWS_IN_FULL):
        rows = columns.rows(start, min(start + ROWS_IN_FULL, block.n))
        stop = start + rows.n
        x = reference.matrix(rows, model.scaling)[:, model.select]
        one = pull[:, start:stop]
        if isinstance(model, ParallelModel):
            lever = np.hstack([one.T, -one.sum(axis=0)[:, None] * x])
        else:
            lever = np.hstack([part[:, None] * x for part in one])
        result[start:stop] = lever @ bread.change
    return result


# -- the rows that say most, and all others ------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Spread:
    """How numbers >= 0 are spread: bins (m,) and how many fall in each (m,), exactly, whatever the order they came in.

    A bin is all doubles that agree in sign, exponent and seven bits of the fraction, so that its ends are within 1 part in
    128, and a quantile is known to 1 part in 256; zero has a bin of its own.
    """

    bins: Counts
    counts: Counts

    @staticmethod
    def of(values: Vector, copies: Vector) -> Spread:
        """Of values (n,), each counted as often as it has copies; NaN are left out."""
        there = ~np.isnan(values)
        if not there.any():
            return Spread(np.zeros(0, np.int64), np.zeros(0, np.int64))
        every = np.maximum(values[there], 0.0).view(np.int64) >> SHIFT
        first = int(every.min())
        # there are 2^18 bins in all, so that counting needs no sort
        counts = np.bincount(every - first, copies[there])
        bins = np.flatnonzero(counts)
        return Spread(bins + first, counts[bins].astype(np.int64))

    def __add__(self, other: Spread) -> Spread:
        bins, which = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        both = np.concatenate([self.counts, other.counts])
        counts = np.zeros(bins.size, np.int64)
        np.add.at(counts, which, both)
        return Spread(bins, counts)

    @property
    def n(self) -> int:
        """How many numbers."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The smallest number that at least that share do not exceed, to 1 part in 256."""
        if not self.n:
            return float("nan")
        rank = max(int(np.ceil(share * self.n)), 1)
        at = self.bins[np.searchsorted(np.cumsum(self.counts), rank)]
        if at == 0:
            return 0.0
        low, high = (np.array([at, at + 1]) << SHIFT).view(np.float64)
        return float(2.0 * low * high / (low + high))


@final
@dataclass(frozen=True)
class Top:
    """The k rows of largest size, in that order, of equal ones the earlier: size (m,), values (m, c), keys, each (m,)."""

    k: int
    size: Vector
    values: Matrix
    keys: tuple[npt.NDArray[Any], ...]

    def __add__(self, other: Top) -> Top:
        size = np.concatenate([self.size, other.size])
        order = np.argsort(-size, kind="stable")[: self.k]
        keys = tuple(np.concatenate(pair)[order] for pair in zip(self.keys, other.keys, strict=True))
        return Top(self.k, size[order], np.concatenate([self.values, other.values])[order], keys)


@final
@dataclass(frozen=True)
class Asked:
    """Which rows to look for: how many, the largest by what, with which columns beside, and from where on a row counts."""

    k: int
    by: str
    keys: tuple[str, ...]
    leverage_above: float
    cooks_above: float


@final
@dataclass(frozen=True)
class Influences:
    """The top rows and how all are spread; high (2,): rows above the cut-offs of leverage and of Cook's distance."""

    top: Top
    leverage: Spread
    cooks: Spread
    high: Counts = field(default_factory=lambda: np.zeros(2, np.int64))

    def __add__(self, other: Influences) -> Influences:
        return Influences(
            self.top + other.top, self.leverage + other.leverage, self.cooks + other.cooks, self.high + other.high
        )


def influences(rows: Any, model: Any, coef: Vector, bread: Bread, asked: Asked) -> Influences:
    """Influences of the rows of a leaf, a `block` with columns `beside`."""
    block = rows.block
    found = measures(block, model, coef, bread)
    sizes = {"cooks_distance": found.cooks, "leverage": found.leverage, "dffits": np.abs(found.dffits)}
    size = sizes[asked.by]
    index = largest(size, asked.k)
    chosen = rows.take(index)
    beside = dfbetas(chosen.block, model, bread, found.pull[:, index])
    values = np.column_stack([found.leverage[index], found.cooks[index], found.dffits[index], beside])
    keys = tuple(_written(chosen.beside[name]) for name in asked.keys)
    high = [
        int(found.copies[measure > least].sum())
        for measure, least in ((found.leverage, asked.leverage_above), (found.cooks, asked.cooks_above))
    ]
    return Influences(
        Top(asked.k, size[index], values, keys),
        Spread.of(found.leverage, found.copies),
        Spread.of(found.cooks, found.copies),
        np.array(high, np.int64),
    )


def largest(size: Vector, k: int) -> npt.NDArray[np.intp]:
    """Places of the k largest, in that order, of equal ones the earlier; NaN is never among them."""
    there = np.flatnonzero(~np.isnan(size))
    if there.size > k:
        least = np.partition(size[there], there.size - k)[there.size - k]
        there = there[size[there] >= least]
    return there[np.argsort(-size[there], kind="stable")][:k]


def _written(column: Any) -> npt.NDArray[Any]:
    """The values of a column of few rows."""
    if isinstance(column, np.ndarray):
        return column.astype(object)
    return np.array([column.levels[code] for code in column.codes], object)
