"""The bootstrap of a finished fit: Poisson weights hashed from what a row is, of one step or refitted, in shared passes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.columns import Coded
from daskglm.errors import DataError, DesignError, closest
from daskglm.inference import distributions
from daskglm.kernels.basis import Basis
from daskglm.kernels.blocks import Block, Column
from daskglm.kernels.resampling import Draws, mixed
from daskglm.postestimation.intervals import at_optimum, blocks_of, require_optimum
from daskglm.postestimation.revisit import Rows, Visit
from daskglm.record import FitRecord
from daskglm.solvers.driver import Optimum, Stopping, minimise
from daskglm.solvers.newton import curvature
from daskglm.solvers.objective import Objective
from daskglm.together import Together
from daskglm.totals.moments import Moments, Request, moments
from daskglm.totals.resampling import Resampled, copies_of, resampled
from daskglm.totals.residualised import working_block, working_model

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]

METHODS = ("one-step", "full")
INTERVALS = ("percentile", "basic", "normal")
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Whole numbers that float64 holds, and the same keys whether they are written as floats or not.
WHOLE = 2.0**53
# Passes of refits, about; a refit that needs more steps than that is on its way to infinity.
FULL_PASSES = 6
MAX_STEPS = 25


@final
@dataclass(frozen=True)
class Bootstrap:
    """Replicates of the estimates. params: DataFrame (R, r), NaN where a replicate has no estimate; estimate (r,): of the
    fit; method: how they were made; seed, level; notes; passes over the data.
    """

    params: pd.DataFrame
    estimate: pd.Series
    method: str
    seed: int
    level: float
    notes: tuple[str, ...]
    passes: int

    def cov(self) -> pd.DataFrame:
        """Covariance of the replicates (r, r), divided by R - 1."""
        return self.params.cov()

    @property
    def bse(self) -> pd.Series:
        """Standard deviations of the replicates (r,)."""
        return self.params.std()

    @property
    def bias(self) -> pd.Series:
        """Mean of the replicates less the estimate (r,); of one-step replicates it is noise, for they are linear."""
        return self.params.mean() - self.estimate

    def conf_int(self, method: str = "percentile", *, level: float | None = None) -> pd.DataFrame:
        """Intervals with columns lower, upper (Davison and Hinkley 1997, sections 5.2 and 5.3).

        method: "percentile", quantiles of the replicates; "basic", those mirrored at the estimate; "normal", the estimate
        less the bias, -+ z standard deviations. "bca" needs an acceleration, which is not computed.
        """
        import pandas as pd

        if method not in INTERVALS:
            raise DesignError(
                f"method must be one of {', '.join(INTERVALS)}, not {method!r}{closest(method, INTERVALS)}"
            )
        level = checked_level(self.level if level is None else level)
        tails = [0.5 - 0.5 * level, 0.5 + 0.5 * level]
        low, high = (self.params.quantile(tail) for tail in tails)
        if method == "basic":
            low, high = 2.0 * self.estimate - high, 2.0 * self.estimate - low
        if method == "normal":
            half = distributions.normal_quantile(level) * self.bse
            low, high = self.estimate - self.bias - half, self.estimate - self.bias + half
        return pd.DataFrame({"lower": low, "upper": high})

    def __repr__(self) -> str:
        table = self.conf_int()
        table.insert(0, "estimate", self.estimate)
        table.insert(1, "se", self.bse)
        table.insert(2, "bias", self.bias)
        head = f"Bootstrap, {len(self.params)} replicates, {self.method}, seed {self.seed}; {self.level:.15g} percentile limits"
        return "\n".join([head, table.to_string(float_format=lambda v: f"{v:.6g}"), *self.notes])


def checked_level(level: Any) -> float:
    """A coverage."""
    if not (isinstance(level, (int, float)) and 0.0 < level < 1.0):
        raise DesignError(f"level must be between 0 and 1, not {level!r}")
    return float(level)


def bootstrap(
    record: FitRecord, data: Any, replicates: int, method: str, seed: int, key: Any, level: float
) -> Bootstrap:
    """Replicates of a fit's estimates: see `Fit.bootstrap`."""
    import pandas as pd

    _check(record, replicates, method, seed)
    level = checked_level(level)
    key = () if key is None else (key,) if isinstance(key, str) else tuple(key)
    notes = [f"{' and '.join(record.shape)} held at the estimate"] if record.shape else []
    with Visit(record, data, beside=key, passes=1 if method == "one-step" else FULL_PASSES) as visit:
        found = (_one_step if method == "one-step" else _full)(visit, replicates, seed, key)
        passes = visit.passes
        notes += visit.notes
    parameters = record.parameters
    reported = np.stack([parameters.coefficients(own) for own in found])
    reported[:, ~np.isfinite(record.coefficients)] = np.nan
    lost = int(np.isnan(found).any(axis=1).sum()) if method == "full" else 0
    if method == "full":
        reported[np.isnan(found).any(axis=1)] = np.nan
    if lost:
        notes.append(f"{lost} replicate(s) have no finite estimate of every parameter and are NaN")
    if record.separated:
        notes.append("infinite parameters have no replicates: rows at their limit are left out")
    frame = pd.DataFrame(reported, columns=list(record.names))
    estimate = pd.Series(record.coefficients, index=list(record.names))
    return Bootstrap(frame, estimate, method, seed, level, tuple(notes), passes)


def _check(record: FitRecord, replicates: Any, method: Any, seed: Any) -> None:
    if method not in METHODS:
        raise DesignError(f'method must be "one-step" or "full", not {method!r}{closest(str(method), METHODS)}')
    if not isinstance(replicates, (int, np.integer)) or isinstance(replicates, bool) or replicates < 2:
        raise DesignError(f"replicates must be a whole number of at least 2, not {replicates!r}")
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise DesignError(f"seed must be a whole number from 0 to 2^64 - 1, not {seed!r}")
    if record.status == "boundary":
        raise DesignError("the optimum lies on the boundary of the possible means, which the bootstrap is not right at")
    if not record.converged:
        raise DesignError("the fit has not converged: there is no estimate to take replicates of")
    if method == "full" and record.separated:
        raise DesignError(
            'refits of a model with infinite coefficients have other rows at their limit: use method="one-step"'
        )


@final
@dataclass(frozen=True)
class Stepped:
    """What one step of all replicates takes: the Gram of all rows, and the gradients of all replicates."""

    moments: Moments
    resampled: Resampled

    def __add__(self, other: Stepped) -> Stepped:
        return Stepped(self.moments + other.moments, self.resampled + other.resampled)


def _one_step(visit: Visit, replicates: int, seed: int, key: tuple[str, ...]) -> Matrix:
    """b + H^-1 g_r, with the expected information H of all rows (observed, of ordered classes)."""
    record, basis = visit.record, visit.record.working.basis
    model, coef = working_model(visit.model, basis), record.working.coefficients
    request = Request(coef, 2, model.likelihood.reported)
    found: Stepped = visit.total_of_rows(stepped, visit.model, basis, request, seed, replicates, key)
    objective = Objective(blocks_of(visit), model, record.design.intercept)
    point = objective.point(coef, found.moments, request.information)
    curved = curvature(objective, point, None if basis is None else _aliased(visit))
    require_optimum(point, curved, record.statistics.scale)
    steps = np.stack([coef + curved.solve(gradient) for gradient in found.resampled.gradients.T])
    return steps if basis is None else np.stack([basis.scaled(step)[0] for step in steps])


def stepped(
    rows: Rows, plain: Any, basis: Basis | None, request: Request, seed: int, replicates: int, key: tuple[str, ...]
) -> Stepped:
    """Of one leaf's rows; plain: the model of the scaled columns."""
    assert request.coef is not None
    model, rows = working_model(plain, basis), replace(rows, block=working_block(rows.block, plain, basis))
    drawn = resampled(rows.block, model, request.coef, draws_of(rows, model, seed, replicates, key))
    return Stepped(moments(rows.block, model, request), drawn)


def draws_of(rows: Rows, model: Any, seed: int, replicates: int, key: tuple[str, ...]) -> Draws:
    """The weights of one leaf's rows."""
    return Draws(identities(rows, key), copies_of(rows.block, model), seed, replicates)


def identities(rows: Rows, key: tuple[str, ...]) -> Keys:
    """What each row is (n,): the values of the key columns, or else its file's place in the lake and its number in the file."""
    if not key:
        return mixed(rows.numbers.astype(np.uint64) * GOLDEN + hashed(rows.origin))
    found = np.zeros(rows.n, np.uint64)
    for name in key:
        found = mixed(found * GOLDEN + _values(rows.beside[name], name, rows.label))
    return found


def _values(column: Column | Coded, name: str, label: str) -> Keys:
    """A number for each value (n,), the same wherever and in whatever company it is read."""
    if isinstance(column, Coded):
        absent = np.array([level is None for level in column.levels], bool)
        missing = bool(absent.size and absent[column.codes].any())
        of_levels = np.array([hashed(str(level)) for level in column.levels] or [np.uint64(0)], np.uint64)
        values = of_levels[column.codes]
    else:
        numbers = np.asarray(column)
        missing = numbers.dtype.kind == "f" and not bool(np.isfinite(numbers).all())
        if numbers.dtype.kind == "f":
            numbers = np.where(missing, 0.0, numbers.astype(np.float64))
            whole = (np.floor(numbers) == numbers) & (np.abs(numbers) < WHOLE)
            values = np.where(
                whole, np.where(whole, numbers, 0.0).astype(np.int64).view(np.uint64), numbers.view(np.uint64)
            )
        else:
            values = numbers.astype(np.int64).view(np.uint64)
    if missing:
        raise DataError(f'{label}: the key "{name}" is missing in some rows, which then are no rows of anybody')
    return mixed(values)


def hashed(text: str) -> np.uint64:
    """64 bits of a text."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


# -- refits --------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Replicated:
    """A leaf's rows with the weights (n, R) they have in each replicate, as `Together` asks for them."""

    block: Block
    weights: Matrix
    each: Vector | None

    def of_response(self, k: int) -> Block:
        """The block as replicate k has it: the rows it has drawn."""
        drawn = self.weights[:, k] if self.each is None else self.weights[:, k] * self.each
        index = np.flatnonzero(drawn)
        return replace(self.block.take(index), weight=np.ascontiguousarray(drawn[index]))


def replicated(
    rows: Rows, model: Any, seed: int, replicates: int, key: tuple[str, ...], function: Any, args: tuple[Any, ...]
) -> Any:
    """function(rows with their weights, *args)."""
    block, draws = rows.block, draws_of(rows, model, seed, replicates, key)
    copies = copies_of(block, model)
    each = None if block.weight is None else block.weight.astype(np.float64)
    if each is not None and copies is not None:
        each = each / copies
    return function(Replicated(block, draws.weights(0, block.n), each), *args)


@final
class Replicates:
    """The rows of a visit, in all replicates, as the partitions that several searches share."""

    def __init__(self, visit: Visit, asked: Any) -> None:
        self.visit, self.asked = visit, asked

    @property
    def passes(self) -> int:
        """Passes over the rows."""
        return self.visit.passes

    def total(self, function: Any, *args: Any) -> Any:
        """The sum over leaves."""
        return self.visit.total_of_rows(self.asked, function, args)


def _full(visit: Visit, replicates: int, seed: int, key: tuple[str, ...]) -> Matrix:
    """Maximum likelihood of each replicate, by Newton steps from the estimate of all rows."""
    statistics = visit.record.statistics
    objective = Objective(blocks_of(visit), visit.model, visit.record.design.intercept)
    at_optimum(objective, visit.coef, statistics.scale, (visit.model.likelihood.reported,))
    together = Together()
    rows: Any = Replicates(visit, partial(_asked, visit.model, int(seed), replicates, tuple(key)))
    stopping = Stopping(1e-12, MAX_STEPS)
    phi = statistics.scale if statistics.scale > 0.0 else 1.0

    def search(k: int) -> Optimum:
        one = Objective(together.of(rows, k), visit.model, visit.record.design.intercept)
        return minimise(one, visit.coef, stopping, dispersion=phi, quadratic=visit.model.likelihood.quadratic)

    found = together.run([partial(search, k) for k in range(replicates)])
    kept = visit.record.scaled
    result = np.full((replicates, kept.size), np.nan)
    aliased = np.zeros(kept.size, bool) if not visit.record.aliased else _aliased(visit)
    for k, optimum in enumerate(found):
        if optimum.converged and not (optimum.aliased & ~aliased).any():
            result[k] = np.where(aliased, 0.0, optimum.point.coef)
    return result


def _asked(
    model: Any, seed: int, replicates: int, key: tuple[str, ...], rows: Rows, function: Any, args: tuple[Any, ...]
) -> Any:
    return replicated(rows, model, seed, replicates, key, function, args)


def _aliased(visit: Visit) -> npt.NDArray[np.bool_]:
    """The arithmetic's own coefficients that have no estimate (r,)."""
    names: Mapping[str, Any] = visit.record.aliased
    reported = np.array([name in names for name in visit.parameters.names], bool)
    if visit.parameters.kind != "ordered":
        return reported
    q = len(visit.parameters.thresholds)
    return np.concatenate([reported[-q:], reported[:-q]])
