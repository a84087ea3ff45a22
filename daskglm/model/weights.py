"""Weights say what they mean: how often a row was seen, how precise it is, whom it stands for, or out of how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class Frequency:
    """The row was observed that many times: the fit equals that of the rows written out. nobs is the sum."""

    column: Any


@final
@dataclass(frozen=True)
class Variance:
    """Analytic weights: the row's variance is dispersion * V(mu) / weight (an average of `weight` observations)."""

    column: Any


@final
@dataclass(frozen=True)
class Probability:
    """Sampling weights: the inverse of the probability that the row was drawn. Errors are linearised (Binder 1983)."""

    column: Any


@final
@dataclass(frozen=True)
class Trials:
    """The response is the proportion of successes out of that many trials (binomial only)."""

    column: Any


Weights = Frequency | Variance | Probability | Trials
WEIGHTS: dict[str, type[Weights]] = {
    "frequency": Frequency,
    "variance": Variance,
    "probability": Probability,
    "trials": Trials,
}
