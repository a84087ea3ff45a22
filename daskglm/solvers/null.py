"""The intercept-only model, fitted in the same passes as the model itself."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from daskglm.model.likelihoods import GLM
from daskglm.partitions import Partitions
from daskglm.totals.moments import AnyModel, Moments, Request, moments

# A decrement this small no digit of the null deviance shows.
TOLERANCE = 1e-12
MAX_STEPS = 50


@final
class Null:
    """The null model's one coefficient.

    Without an offset it is g(weighted mean of y), whatever the family (the score is sum w (y - mu) times a constant);
    with one it takes its own Newton steps beside the model's. Without an intercept it is the offset alone.
    """

    def __init__(self, likelihood: GLM, intercept: bool, offset: bool) -> None:
        self.likelihood, self.intercept, self.iterates = likelihood, intercept, intercept and offset
        self.value: float | None = None if intercept else 0.0
        self.settled = not self.iterates
        self._loss = np.inf
        self._before: float | None = None

    def candidate(self, closing: bool) -> float | None:
        """The coefficient to evaluate in the next pass, if any."""
        if self.value is None or (self.settled and not closing):
            return None
        return self.value

    def learn(self, sums: Moments) -> None:
        """Take a step from what a pass found at the candidate, halving towards the last one where the loss rose."""
        if self.settled or self.value is None:
            return
        loss, gradient, curvature = (float(v) for v in sums.null)
        if not np.isfinite(loss) or (self._before is not None and loss > self._loss + 1e-12 * abs(self._loss)):
            if self._before is None:
                self.settled = True
                return
            self.value = 0.5 * (self.value + self._before)
            return
        self._loss, self._before = loss, self.value
        if curvature > 0:
            self.value = self.value + gradient / curvature
            self.settled = gradient * gradient / curvature <= TOLERANCE
        else:
            self.settled = True

    def change(self, likelihood: GLM) -> None:
        """Go on with another family, which has the same mean."""
        self.likelihood = likelihood
        if self.iterates:
            self.settled, self._loss, self._before = False, np.inf, None

    @property
    def waiting(self) -> bool:
        """Whether the mean of y is still to be learnt, in the next pass."""
        return self.intercept and self.value is None

    def begin_again(self) -> None:
        """Go on with other rows: from here where it iterates, from their own mean where it does not."""
        self.settled = not self.iterates
        self._loss, self._before = np.inf, None
        if self.intercept and not self.iterates:
            self.value = None

    def start(self, sums: Moments) -> None:
        """Begin at the mean of y."""
        if self.waiting:
            self.value = self.at_mean(sums)

    def at_mean(self, sums: Moments) -> float:
        """g(weighted mean of y)."""
        with np.errstate(all="ignore"):
            mean = np.array([sums.weighted_y / sums.weight if sums.weight else np.nan])
            return float(self.likelihood.link.link(mean)[0])

    def fit(self, blocks: Partitions[Any], model: AnyModel, fraction: float = 1.0) -> None:
        """Newton steps of its own, each a pass over that part of `blocks` that touches no column of X."""
        for _ in range(MAX_STEPS):
            if self.settled or self.value is None:
                return
            self.learn(blocks.total(moments, model, Request(None, null=self.value, fraction=fraction)))
