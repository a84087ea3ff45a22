"""Numbers by which models are compared, from a finished fit: information criteria and shares of what is explained."""

from __future__ import annotations

import numpy as np

from daskglm.errors import DesignError, closest
from daskglm.record import FitRecord

KINDS = ("mcfadden", "cox_snell", "nagelkerke")


def parameters(record: FitRecord) -> float:
    """k: what aic counts, an estimated dispersion, theta or power among them."""
    s = record.statistics
    return float(0.5 * (s.aic + 2.0 * s.llf))


def aicc(record: FitRecord) -> float:
    """aic + 2 k (k + 1) / (n - k - 1) (Hurvich and Tsai 1989); NaN where there are no more rows than that."""
    s, k = record.statistics, parameters(record)
    return float(s.aic + 2.0 * k * (k + 1.0) / (s.nobs - k - 1.0)) if s.nobs > k + 1.0 else float("nan")


def qaic(record: FitRecord, chat: float | None) -> float:
    """-2 llf / c + 2 k, c the variance inflation: given, or Pearson chi-square / df_resid of this fit."""
    s = record.statistics
    if not record.family.dispersion_known or s.scale_estimated:
        raise DesignError(
            f"qaic allows for dispersion above the one that is 1 by definition, and that of {record.family.name} is "
            "estimated: use aic"
        )
    if chat is None:
        if not s.df_resid > 0:
            raise DesignError("qaic needs chat=: the model leaves no degrees of freedom to estimate it from")
        chat = s.pearson_chi2 / s.df_resid
    if isinstance(chat, bool) or not isinstance(chat, (int, float)) or not chat > 0:
        raise DesignError(f"chat must be a positive number, not {chat!r}")
    return float(-2.0 * s.llf / chat + 2.0 * parameters(record))


def deviance_explained(record: FitRecord) -> float:
    """1 - deviance / null_deviance; NaN where the null model leaves nothing."""
    s = record.statistics
    return float(1.0 - s.deviance / s.null_deviance) if s.null_deviance > 0 else float("nan")


def null_llf(record: FitRecord) -> float:
    """Log-likelihood of the intercept-only model, which keeps the offset: where the dispersion is known
    llf - (null_deviance - deviance) / (2 phi), where it is taken at deviance / n, at null_deviance / n.
    """
    s, family = record.statistics, record.family
    if np.isnan(s.llf) or family.likelihood_at == "never":
        raise DesignError("the fit has no likelihood, and so no pseudo R-squared: deviance_explained is defined")
    beside = [name for name in record.shape if name in ("theta", "power")]
    if beside or family.likelihood_at == "reported" or record.specification.dispersion == "ml":
        raise DesignError(
            f"the null model has its own {beside[0] if beside else 'dispersion'}, which this fit does not know: fit y ~ 1, "
            "or use deviance_explained"
        )
    if family.likelihood_at == "known":
        return s.llf - 0.5 * (s.null_deviance - s.deviance) / family.dispersion
    weights = record.specification.weights
    weighted = weights is not None and weights[0] != "frequency"
    shifts = [
        family.saturated_shift(s.nobs, deviance / s.nobs, weighted) if deviance > 0 else None
        for deviance in (s.null_deviance, s.deviance)
    ]
    if shifts[0] is None or shifts[1] is None:
        raise DesignError(
            "the null model's likelihood does not follow from the sums of this fit: use deviance_explained"
        )
    # sum w d / phi is n for both
    return float(s.llf + shifts[0] - shifts[1])


def r2(record: FitRecord, kind: str) -> float:
    """Pseudo R-squared: McFadden 1 - llf / llf_0; Cox and Snell 1 - (L_0 / L)^(2/n); Nagelkerke that over its largest
    value 1 - L_0^(2/n).
    """
    if kind not in KINDS:
        raise DesignError(f"r2({kind!r}) is not one of {', '.join(KINDS)}{closest(kind, KINDS)}")
    s, null = record.statistics, null_llf(record)
    if kind == "mcfadden":
        if null >= 0.0 and not record.family.discrete:
            raise DesignError(
                "McFadden's is a ratio of log-likelihoods, and that of the null model is not negative: densities have no "
                "such scale; use deviance_explained"
            )
        return float(1.0 - s.llf / null)
    share = -np.expm1(2.0 * (null - s.llf) / s.nobs)
    if kind == "cox_snell":
        return float(share)
    most = -np.expm1(2.0 * null / s.nobs)
    if not most > 0.0:
        raise DesignError(
            "Nagelkerke's divides by the largest possible value, and a density has none: use cox_snell or deviance_explained"
        )
    return float(share / most)
