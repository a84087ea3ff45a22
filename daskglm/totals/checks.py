"""What a model expects of each row beside what was seen, summed up in every way that a check of fit asks for: one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

from daskglm.design.columns import Coded
from daskglm.errors import DataError
from daskglm.kernels.blocks import Block
from daskglm.model.residuals import Chances, chances, chances_of_classes
from daskglm.totals.counting import Counting
from daskglm.totals.fitted import Fitted, fitted, fitted_classes, linear_predictor
from daskglm.totals.identity import of_columns, of_places, uniforms
from daskglm.totals.moments import Model
from daskglm.totals.sketches import COLUMN_LIMIT, LabelSums, Sketch, by_code, residual_counts

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Channels of every sum: observations, exposure, actual, expected, variance of the actual at phi = 1; then those of scores.
OBSERVATIONS, EXPOSURE, ACTUAL, EXPECTED, VARIANCE, SCORES = range(6)

# Differences of offsets are rounded to multiples of this, which is far above their rounding errors.
SNAP = 2.0**-40


@final
@dataclass(frozen=True)
class Other:
    """What another model predicts of the same rows: means mu (n,) and, under a log link, X b and its offset, each (n,)."""

    mu: Vector
    linear: Vector | None
    offset: Vector

    @staticmethod
    def of(block: Block, model: Model, coef: Vector, directions: tuple[Vector, ...]) -> Other:
        """The predictions at coef (p,) of the scaled columns; directions: of an infinite optimum."""
        linear = linear_predictor(block, model, coef, directions, None) if multiplicative(model) else None
        return Other(fitted(block, model, coef, directions).mu, linear, _offset(block))

    def take(self, index: npt.NDArray[np.intp]) -> Other:
        """The rows of an index."""
        return Other(self.mu[index], None if self.linear is None else self.linear[index], self.offset[index])


@final
@dataclass(frozen=True)
class Asked:
    """What to sum up.

    by: columns beside; bands: ends of the bands of some of them; exposure: a column beside, or None for 1; center: a mean of
    the middle of the data, about which scores are counted; phi; sampling: weights say for how many others a row stands;
    order: sums by prediction; perfect: sums by the response; most: the largest count told apart, or None; quantiles: quantile
    residuals, drawn from seed and key; poisson: sums of tests for overdispersion; deviance: scores by deviance, too.
    """

    by: tuple[str, ...] = ()
    bands: Mapping[str, Vector] = field(default_factory=dict)
    exposure: str | None = None
    center: float = 0.0
    phi: float = 1.0
    sampling: bool = False
    order: bool = False
    perfect: bool = False
    most: int | None = None
    quantiles: bool = False
    seed: int = 0
    key: tuple[str, ...] = ()
    poisson: bool = False
    deviance: bool = False


@final
@dataclass(frozen=True)
class CheckSums:
    """rows; total (k,) of all channels, pearson sum w (y - mu)^2 / V and deviance; by: a sum per column asked for; order: by
    prediction, per class where there are classes; perfect: by the response; versus: by the ratio of two models' predictions;
    counts (2, most + 2): copies seen and expected of each count; residuals: copies by bin of quantile residuals; lost: rows
    without one; poisson (7,): sums of n, t, t^2, t mu, mu^2, (y - mu)^2 - y, with t = ((y - mu)^2 - y) / mu.
    """

    rows: int
    total: Vector
    by: tuple[Any, ...]
    order: tuple[Sketch, ...]
    perfect: Sketch | None
    versus: Sketch | None
    counts: Matrix | None
    residuals: Vector | None
    lost: float
    poisson: Vector

    def __add__(self, other: CheckSums) -> CheckSums:
        return CheckSums(
            self.rows + other.rows,
            self.total + other.total,
            tuple(one + two for one, two in zip(self.by, other.by, strict=True)),
            tuple(one + two for one, two in zip(self.order, other.order, strict=True)),
            _sum(self.perfect, other.perfect),
            _sum(self.versus, other.versus),
            _sum(self.counts, other.counts),
            _sum(self.residuals, other.residuals),
            self.lost + other.lost,
            self.poisson + other.poisson,
        )


def _sum(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other


@final
@dataclass(frozen=True)
class Unit:
    """Rows as checks see them: exposure (n,), channels (k, n), rate mu / e, and the observed rate y / e."""

    exposure: Vector
    channels: Matrix
    rate: Vector
    observed: Vector


def exposure_of(rows: Any, name: str | None) -> Vector:
    """What the mean of a row is proportional to (n,)."""
    if name is None:
        return np.ones(rows.block.n)
    found = rows.beside[name]
    if isinstance(found, Coded):
        raise DataError(f'{rows.label}: the exposure "{name}" is no number')
    exposure = found.astype(np.float64)
    if not bool((exposure > 0.0).all()):
        raise DataError(f'{rows.label}: the exposure "{name}" has a missing value, or one that is not positive')
    return exposure


def check_sums(
    rows: Any, model: Model, coef: Vector, directions: tuple[Vector, ...], asked: Asked, other: Other | None = None
) -> CheckSums:
    """The sums of one partition at coef (p,) of the scaled columns; directions: of an infinite optimum. other: the predictions
    of another model, by the ratio to which the rows are summed, too.
    """
    family, y = model.likelihood.family, rows.block.y.astype(np.float64)
    here = fitted(rows.block, model, coef, directions)
    with np.errstate(all="ignore"):
        exposure = exposure_of(rows, asked.exposure)
        rate = here.mu / exposure
        if asked.order and asked.exposure is not None and multiplicative(model):
            rate = _rate(rows.block, model, coef, directions, exposure)
        unit = _unit(family, y, here, exposure, rate, asked)
        counting = None
        if asked.most is not None:
            counting = Counting.of(family, y, here.mu, here.rest, here.size, asked.most)
        residuals, lost = None, 0.0
        if asked.quantiles:
            found = None if counting is None else counting.chances
            residuals, lost = _residuals(rows, family, y, here, asked, found)
        versus = None
        if other is not None:
            channels = np.vstack([unit.channels[:SCORES], here.copies * here.size * other.mu])
            ratio = here.mu / other.mu
            if other.linear is not None and multiplicative(model):
                linear = linear_predictor(rows.block, model, coef, directions, None)
                ratio = np.exp(linear - other.linear + _snapped(_offset(rows.block) - other.offset))
            versus = Sketch.of(ratio, channels)
        return CheckSums(
            rows.block.n,
            np.concatenate([unit.channels.sum(axis=1), _global(here)]),
            tuple(sums_by(rows, name, asked.bands.get(name), unit.channels[:SCORES]) for name in asked.by),
            (Sketch.of(unit.rate, unit.channels),) if asked.order else (),
            Sketch.of(unit.observed, unit.channels[[EXPOSURE, ACTUAL]]) if asked.perfect else None,
            versus,
            None if counting is None else counting.table(here.copies),
            residuals,
            lost,
            _poisson(y, here) if asked.poisson else np.zeros(6),
        )


def multiplicative(model: Model) -> bool:
    """Whether offsets multiply the mean, so that an exposure divides out of it."""
    return model.likelihood.link.name == "log"


def _rate(block: Block, model: Model, coef: Vector, directions: tuple[Vector, ...], exposure: Vector) -> Vector:
    """mu / e (n,) of a log link, equal to the bit for rows that differ in their exposure alone.

    exp(X b + offset) / e differs between them in its last bits. So the exposure is taken out of the offset instead, and what
    is left is rounded, to 0 where the offset is the logarithm of the exposure.
    """
    eta = linear_predictor(block, model, coef, directions, None)
    eta += _snapped(_offset(block) - np.log(exposure))
    return model.likelihood.link.inverse(eta, model.likelihood.family.bounded)[0]


def _offset(block: Block) -> Vector:
    return np.zeros(block.n) if block.offset is None else np.asarray(block.offset, np.float64)


def _snapped(offset: Vector) -> Vector:
    """Differences of offsets (n,), rounded to multiples of SNAP."""
    return np.asarray(np.round(offset / SNAP) * SNAP)


def _unit(family: Any, y: Vector, here: Fitted, exposure: Vector, rate: Vector, asked: Asked) -> Unit:
    mass = here.copies * here.size
    squares = mass * here.copies if asked.sampling else mass
    plain = [here.copies, mass * exposure, mass * here.y, mass * here.mu, squares * here.variance]
    observed = here.y / exposure
    scores: list[Vector] = []
    if asked.order and family.bounded:
        brier = here.y * here.rest**2 + (1.0 - here.y) * here.mu**2
        logarithmic = -xlogy(here.y, here.mu) - xlogy(1.0 - here.y, here.rest)
        scores = [mass * brier, mass * logarithmic]
    elif asked.order:
        scores = [mass * exposure * (observed - rate) ** 2, mass * exposure * (observed - asked.center) ** 2]
        if asked.deviance:
            # for a Poisson mean e r the deviance is e d(y / e, r); elsewhere it is asked for where e is 1 alone
            center = np.full_like(y, asked.center)
            scores += [
                here.copies * here.deviance,
                mass * exposure * family.unit_deviance(observed, center, 1 - center),
            ]
    return Unit(exposure, np.stack([*plain, *scores]), rate, observed)


def _global(here: Fitted) -> Vector:
    return np.array([float((here.copies * here.pearson**2).sum()), float((here.copies * here.deviance).sum())])


def sums_by(rows: Any, name: str, bands: Vector | None, channels: Matrix) -> LabelSums | Sketch | Bands:
    """Channels (k, n) by the values of a column beside."""
    column = rows.beside[name]
    if isinstance(column, Coded):
        if bands is not None:
            raise DataError(f'"{name}" is no number: it has levels, and no bands')
        return LabelSums.of(column.codes, column.levels, channels)
    if bands is None:
        return Sketch.of(column, channels, COLUMN_LIMIT)
    codes = np.searchsorted(bands, column.astype(np.float64), side="right")
    codes[np.isnan(column.astype(np.float64))] = bands.size + 1
    return Bands(by_code(codes, channels, bands.size + 2))


@final
@dataclass(frozen=True)
class Bands:
    """Sums (m + 2, k) by given bands [a, b): below the first end, between them, from the last on, and missing."""

    sums: Matrix

    def __add__(self, other: Bands) -> Bands:
        return Bands(self.sums + other.sums)


def _residuals(
    rows: Any, family: Any, y: Vector, here: Fitted, asked: Asked, found: Chances | None
) -> tuple[Vector, float]:
    if found is None:
        found = chances(family, y, here.mu, here.rest, here.size, asked.phi)
    return counted(rows, found, here.copies, asked)


def counted(rows: Any, found: Chances, copies: Vector, asked: Asked) -> tuple[Vector, float]:
    """Copies by bins of quantile residuals, and of rows that have none."""
    who = of_columns([rows.beside[name] for name in asked.key]) if asked.key else of_places(rows.origin, rows.numbers)
    residuals = found.quantile_residual(uniforms(who, asked.seed))
    there = ~np.isnan(residuals)
    return residual_counts(residuals[there], copies[there]), float(copies[~there].sum())


def _poisson(y: Vector, here: Fitted) -> Vector:
    """Sums behind Dean's and Cameron and Trivedi's tests."""
    excess = here.residual**2 - y
    there = here.mu > 0.0
    mu, excess, copies = here.mu[there], excess[there], here.copies[there]
    relative = excess / mu
    terms = (np.ones_like(mu), relative, relative**2, relative * mu, mu**2, excess)
    return np.array([float((copies * term).sum()) for term in terms])


def class_sums(rows: Any, model: Any, coef: Vector, asked: Asked) -> CheckSums:
    """The sums of one leaf of a response of K classes; channels of the calibration are those of a number, class by class."""
    here = fitted_classes(rows.block, model, coef, asked.sampling)
    mass = here.copies * here.size
    squares = mass * here.copies if asked.sampling else mass
    n = here.codes.size
    channels, order = [], []
    for k, chance in enumerate(here.chance):
        seen = (here.codes == k).astype(np.float64)
        variance = squares * chance * (1.0 - chance)
        own = [here.copies, mass, mass * seen, mass * chance, variance]
        channels += own
        if asked.order:
            scores = [mass * (seen - chance) ** 2, mass * -np.log(np.where(seen == 1.0, chance, 1.0 - chance))]
            order.append(Sketch.of(chance, np.stack([*own, *scores])))
    stacked = np.stack(channels)
    residuals, lost = None, 0.0
    if asked.quantiles:
        residuals, lost = counted(rows, chances_of_classes(here.codes, here.chance), here.copies, asked)
    by = tuple(sums_by(rows, name, asked.bands.get(name), stacked) for name in asked.by)
    total = np.concatenate([stacked.sum(axis=1), [0.0, 2.0 * float((mass * here.loss).sum())]])
    return CheckSums(n, total, by, tuple(order), None, None, None, residuals, lost, np.zeros(6))
