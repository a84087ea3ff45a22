"""A logarithmic barrier at the ends of the linear predictors that have a mean: its sums beside those of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Gram, Pieces, Scatter, Workspace, gather
from daskglm.totals.moments import CHUNK_ROWS, Model, Moments, Request, moments

Vector = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Slack:
    """How far n rows are from the nearer end of eta: the sum of their distances, and the least of them."""

    n: int
    total: float
    least: float

    def __add__(self, other: Slack) -> Slack:
        return Slack(self.n + other.n, self.total + other.total, min(self.least, other.least))


@final
@dataclass(frozen=True)
class Guarded:
    """Moments, and those of the barrier -sum w (log(eta - low) + log(high - eta)): its value, and tables of the raw columns
    with its gradient (of minus it) and Gram. slack: of every row; at_ends (2,): rows nearer to the lower and to the upper
    end than was asked for.
    """

    moments: Moments
    value: float
    tables: Gram
    slack: Slack
    at_ends: Vector

    def __add__(self, other: Guarded) -> Guarded:
        return Guarded(
            self.moments + other.moments,
            self.value + other.value,
            self.tables + other.tables,
            self.slack + other.slack,
            self.at_ends + other.at_ends,
        )


@final
@dataclass(frozen=True)
class Reach:
    """How many times a step may be gone until some row is at an end of eta."""

    times: float

    def __add__(self, other: Reach) -> Reach:
        return Reach(min(self.times, other.times))


def reach(block: Block, model: Model, coef: Vector, step: Vector) -> Reach:
    """Of the step (p,) from coef (p,), at which every linear predictor has a mean."""
    low, high = model.likelihood.domain
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    eta, moved = np.zeros(block.n), np.zeros(block.n)
    if block.offset is not None:
        eta += block.offset
    gather(pieces, workspace, model.raw(coef), 0, block.n, eta)
    gather(pieces, workspace, model.raw(step), 0, block.n, moved)
    with np.errstate(all="ignore"):
        times = np.where(moved < 0.0, (eta - low) / -moved, np.where(moved > 0.0, (high - eta) / moved, np.inf))
    return Reach(float(times.min(initial=np.inf)))


def slack(block: Block, model: Model, coef: Vector) -> Slack:
    """At the scaled coefficients coef (p,)."""
    low, high = model.likelihood.domain
    pieces = Pieces.of(block, model.scaling)
    eta = np.zeros(block.n)
    if block.offset is not None:
        eta += block.offset
    gather(pieces, Workspace(pieces), model.raw(coef), 0, block.n, eta)
    distance = np.minimum(eta - low, high - eta)
    return Slack(block.n, float(distance.sum()), float(distance.min(initial=np.inf)))


def guarded(block: Block, model: Model, request: Request, near: float) -> Guarded:
    """Moments as requested and the barrier's at the same coefficients; near: the distance from an end that counts as at it.

    The barrier's row terms: slope 1 / (eta - low) - 1 / (high - eta), weight 1 / (eta - low)^2 + 1 / (high - eta)^2.
    Source: Boyd and Vandenberghe (2004), section 11.2.
    """
    assert request.coef is not None
    low, high = model.likelihood.domain
    pieces = Pieces.of(block, model.scaling)
    workspace = Workspace(pieces)
    scatter = Scatter(pieces, workspace)
    raw = model.raw(request.coef)
    value, distances = 0.0, Slack(0, 0.0, np.inf)
    at_ends = np.zeros(2)
    for start in range(0, block.n, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, block.n)
        eta = np.zeros(stop - start)
        if block.offset is not None:
            eta += block.offset[start:stop]
        gather(pieces, workspace, raw, start, stop, eta)
        weight = 1.0 if block.weight is None else block.weight[start:stop].astype(np.float64)
        below, above = eta - low, high - eta
        with np.errstate(all="ignore"):
            logarithms = sum(np.log(part) for part, end in ((below, low), (above, high)) if np.isfinite(end))
            slope, bend = 1.0 / below - 1.0 / above, 1.0 / (below * below) + 1.0 / (above * above)
        value -= float(np.sum(weight * logarithms))
        distance = np.minimum(below, above)
        distances += Slack(stop - start, float(distance.sum()), float(distance.min(initial=np.inf)))
        at_ends += np.array([np.sum(below < near), np.sum(above < near)])
        scatter.take(weight * bend, weight * slope, start, stop)
    return Guarded(moments(block, model, request), value, scatter.result(), distances, at_ends)
