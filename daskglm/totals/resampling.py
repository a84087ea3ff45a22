"""Gradients of all bootstrap replicates of one block in one reading: X' diag(s) W with the weights W drawn on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Pieces, Workspace, gather
from daskglm.kernels.resampling import Draws, add_resampled, empty_sums, of_columns
from daskglm.totals.moments import CHUNK_ROWS, AnyModel, Model, sizes
from daskglm.totals.vector import ParallelModel, Rows, SeparateModel, choices

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Resampled:
    """n rows; gradients (r, R), uphill, of each replicate in the model's own coefficients."""

    n: int
    gradients: Matrix

    def __add__(self, other: Resampled) -> Resampled:
        return Resampled(self.n + other.n, self.gradients + other.gradients)


def copies_of(block: Block, model: Any) -> Vector | None:
    """How many rows each row stands for (n,), None where each is one."""
    if not model.frequency or block.weight is None:
        return None
    return np.broadcast_to(np.asarray(sizes(block, True, 0, block.n)[0], np.float64), (block.n,))


def resampled(block: Block, model: AnyModel, coef: Vector, draws: Draws) -> Resampled:
    """The gradients at coef (r,) with every row drawn as often as each replicate has it."""
    return Resampled(block.n, _Resampling(block, model, coef, draws).run())


class _Resampling:
    def __init__(self, block: Block, model: Any, coef: Vector, draws: Draws) -> None:
        self.block, self.model, self.coef, self.draws = block, model, coef, draws
        self.pieces = Pieces.of(block, model.scaling)
        self.workspace = Workspace(self.pieces)
        self.copies = copies_of(block, model)

    def run(self) -> Matrix:
        model, draws = self.model, self.draws
        ordered = isinstance(model, ParallelModel)
        through = [] if isinstance(model, Model) else [None] * model.likelihood.q if ordered else []
        sums: list[Matrix] = [empty_sums(None, draws) for _ in through]
        predictors = model.likelihood.q if isinstance(model, SeparateModel) else 1
        sums += [empty_sums(self.pieces, draws) for _ in range(predictors)]
        for start in range(0, self.block.n, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, self.block.n)
            with np.errstate(all="ignore"):
                scores = self._scores(start, stop)
            for k, (score, total) in enumerate(zip(scores, sums, strict=True)):
                pieces = None if k < len(through) else self.pieces
                add_resampled(pieces, draws, np.ascontiguousarray(score), start, stop, total)
        thresholds = [of_columns(None, draws, total) for total in sums[: len(through)]]
        columns = [of_columns(self.pieces, draws, total)[model.select] for total in sums[len(through) :]]
        return np.concatenate([*thresholds, *columns])

    def _scores(self, start: int, stop: int) -> Matrix:
        """Scores of one copy of each row, with its weight: thresholds first, then predictors (s, n)."""
        block, model = self.block, self.model
        n = stop - start
        offset = np.zeros(n) if block.offset is None else block.offset[start:stop].astype(np.float64)
        raw = np.atleast_2d(model.raw(self.coef))
        eta = np.stack([offset.copy() for _ in raw])
        for one, coef in zip(eta, raw, strict=True):
            gather(self.pieces, self.workspace, coef, start, stop, one)
        y = block.y[start:stop]
        if isinstance(model, Model):
            scores = model.likelihood.rows(y.astype(np.float64, copy=False), eta[0], 1).score[None]
        else:
            possible = choices(Rows(self.pieces, self.workspace, model.scaling, start, stop), model, model.limits)
            if isinstance(model, SeparateModel):
                scores = model.likelihood.rows(y, eta, 1, possible=possible).score
            else:
                q = model.likelihood.q
                terms = model.likelihood.rows(y, eta[0], self.coef[:q], 1, possible=possible)
                scores = np.concatenate([terms.threshold_score, terms.score[None]])
        if block.weight is None:
            return np.asarray(scores)
        weight = block.weight[start:stop].astype(np.float64)
        return np.asarray(scores * (weight if self.copies is None else weight / self.copies[start:stop]))
