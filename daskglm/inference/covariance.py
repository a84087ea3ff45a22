"""Covariance, dispersion and the statistics of a fit, from the sums of its closing pass. Definitions are R's."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from daskglm.model.families import Family
from daskglm.solvers.driver import Optimum
from daskglm.totals.moments import FitStats

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
CovarianceKind = Literal["model", "observed", "HC0", "HC1", "probability"]
COVARIANCES: tuple[CovarianceKind, ...] = ("model", "observed", "HC0", "HC1")


def dispersion(
    rule: str | float | None, family: Family, stats: FitStats, pearson: float, rank: int
) -> tuple[float, bool]:
    """(phi, whether it was estimated).

    None: the family's rule (1, or Pearson chi-square / residual degrees of freedom); "pearson"; "deviance":
    deviance / residual degrees of freedom; or a number.
    """
    freedom = stats.observations - rank
    if isinstance(rule, (int, float)) and not isinstance(rule, bool):
        return float(rule), False
    if rule is None:
        rule = "known" if family.dispersion_known else "pearson"
    if rule == "known":
        return family.dispersion, False
    amount = pearson if rule == "pearson" else stats.deviance
    return (amount / freedom if freedom > 0 else np.nan), True


def covariance(
    kind: CovarianceKind,
    optimum: Optimum,
    phi: float,
    observed: Matrix | None,
    meat: Matrix | None,
) -> Matrix:
    """Covariance of the scaled parameters (p, p); zeros where aliased.

    "model": phi H^-1 with H the expected information; "observed": with the observed one; "HC0": H^-1 (sum s s') H^-1
    with s the rows' scores; "HC1": HC0 n / (n - k); "probability": HC0 n / (n - 1) (Binder 1983).
    """
    inverse = optimum.curvature.inverse()
    if kind == "model":
        scaled = phi * inverse
    elif kind == "observed":
        assert observed is not None
        scaled = phi * observed
    else:
        assert meat is not None
        n = float(optimum.point.sums.statistics.observations) if optimum.point.sums.statistics else 0.0
        rank = float(optimum.curvature.factor.rank)
        factor = {"HC0": 1.0, "HC1": n / (n - rank) if n > rank else np.nan, "probability": n / (n - 1.0)}[kind]
        scaled = factor * inverse @ meat @ inverse
    return np.asarray(scaled)


def log_likelihood(family: Family, stats: FitStats, phi: float, saturated: float | None, weighted: bool) -> float:
    """log L with every constant, at the dispersion phi of `likelihood_dispersion`.

    saturated: sum log p(y; mean y, phi / w), where that had to be summed at phi; None where it follows from the sums.
    NaN for a discrete family whose w y are not counts, and where there is no likelihood.
    """
    if family.likelihood_at == "never" or (family.discrete and stats.fractional):
        return np.nan
    if not phi > 0:
        return np.inf
    if saturated is None and family.likelihood_at == "known":
        saturated = stats.saturated
    if saturated is None:
        shift = family.saturated_shift(stats.observations, phi, weighted)
        if shift is None:
            return np.nan
        saturated = stats.saturated + shift
    return saturated - 0.5 * stats.deviance / phi


def likelihood_dispersion(family: Family, stats: FitStats, reported: float) -> float:
    """The dispersion at which the log-likelihood is taken: the known one, deviance / n, or the reported one."""
    if family.likelihood_at == "known":
        return family.dispersion
    return stats.deviance / stats.observations if family.likelihood_at == "deviance" else reported
