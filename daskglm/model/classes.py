"""Responses that are one of several classes: multinomial, and ordinal, whose classes have an order.

Their means are probabilities of all classes at once, so they have likelihoods of their own in `daskglm.model.vector`.
Sources: Agresti, Categorical Data Analysis (2013), sections 8.1 and 8.2; McCullagh (1980), Regression models for ordinal
data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from daskglm.errors import DesignError
from daskglm.model.family import Formulas, LikelihoodAt, Response, called


def _checked(levels: Any) -> tuple[Any, ...] | None:
    """Levels as they are given, in order, each once."""
    if levels is None:
        return None
    if isinstance(levels, str) or not hasattr(levels, "__iter__"):
        raise DesignError(f"levels= is the list of all levels in order, not {levels!r}")
    found = tuple(levels)
    if len(set(found)) < len(found) or len(found) < 2:
        raise DesignError(f"levels= names two or more different levels, not {list(found)!r}")
    return found


@final
@dataclass(frozen=True)
class Multinomial:
    """One of K classes, each with a probability: log(mu_k / mu_1) = eta_k for all but the first class, the reference.

    levels: the classes in order, the reference first; None: as the data order them, or sorted.
    T(y) = (1[y = 2], ..., 1[y = K]), Psi_k = log(mu_k / mu_1), Z = 1 + sum_k exp(theta_k).
    """

    levels: tuple[Any, ...] | None = None
    name: str = "multinomial"
    default_link: str = "logit"
    canonical_link: str = "logit"
    support: str = "one of several classes"
    mean_range: tuple[float, float] = (0.0, 1.0)
    bounded: bool = True
    discrete: bool = True
    dispersion_known: bool = True
    dispersion: float = 1.0
    response: Response = "classes"
    likelihood_at: LikelihoodAt = "known"
    shape_names: tuple[str, ...] = ()
    formulas: Formulas = Formulas(
        "1", "(1[y = 2], ..., 1[y = K])", "(log(mu_2 / mu_1), ..., log(mu_K / mu_1))",
        "1 + exp(theta_2) + ... + exp(theta_K)", "diag(mu) - mu mu'",
    )  # fmt: skip

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", _checked(self.levels))

    @property
    def text(self) -> str:
        return called(self.name, levels=self.levels and list(self.levels))

    @property
    def links(self) -> dict[str, str]:
        return {"logit": ""}


@final
@dataclass(frozen=True)
class Ordinal:
    """One of K ordered classes: P(Y <= k) = F(threshold_k - eta), F the inverse of the link; one slope for all k.

    levels: the classes in order; None: as the data order them (a categorical column), or sorted.
    """

    levels: tuple[Any, ...] | None = None
    name: str = "ordinal"
    default_link: str = "logit"
    canonical_link: str = ""
    support: str = "one of several ordered classes"
    mean_range: tuple[float, float] = (0.0, 1.0)
    bounded: bool = True
    discrete: bool = True
    dispersion_known: bool = True
    dispersion: float = 1.0
    response: Response = "ordered"
    likelihood_at: LikelihoodAt = "known"
    shape_names: tuple[str, ...] = ()
    formulas: Formulas = Formulas(
        "1", "(1[y = 2], ..., 1[y = K])", "(log(mu_2 / mu_1), ..., log(mu_K / mu_1))",
        "1 + exp(theta_2) + ... + exp(theta_K)", "diag(mu) - mu mu'",
    )  # fmt: skip

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", _checked(self.levels))

    @property
    def text(self) -> str:
        return called(self.name, levels=self.levels and list(self.levels))

    @property
    def links(self) -> dict[str, str]:
        return dict.fromkeys(("logit", "probit", "cloglog", "loglog", "cauchit"), "")


def shares(sums: Any) -> Any:
    """Shares of classes from their weights (K,), none of them zero: half an observation is added to each."""
    padded = np.asarray(sums, np.float64) + 0.5
    return padded / padded.sum()
