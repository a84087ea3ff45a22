"""The distribution a coefficient is tested against: normal where the dispersion is known, Student's t where it is not or
where errors are clustered.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special

Vector = npt.NDArray[np.float64]
Name = Literal["normal", "t"]


class HasFreedom(Protocol):
    """What is needed of a fit's statistics."""

    @property
    def df_resid(self) -> float:
        """Residual degrees of freedom."""

    @property
    def df_test(self) -> float | None:
        """Degrees of freedom of t tests, None where tests are normal."""


def default(statistics: HasFreedom) -> Name:
    """ "t" where phi was estimated, as R's summary.glm, or errors are clustered."""
    return "normal" if statistics.df_test is None else "t"


def quantile(statistics: HasFreedom, level: float, dist: Name | None = None) -> float:
    """The two-sided critical value for a level such as 0.95."""
    tail = 0.5 + 0.5 * level
    if (dist or default(statistics)) == "normal":
        return float(special.ndtri(tail))
    freedom = statistics.df_resid if statistics.df_test is None else statistics.df_test
    return float(special.stdtrit(freedom, tail)) if freedom > 0 else float("nan")


def normal_quantile(level: float) -> float:
    """The two-sided critical value of a normal variable."""
    return float(special.ndtri(0.5 + 0.5 * level))


def p_value(statistics: HasFreedom, value: Any) -> Vector:
    """Two-sided p-values of z or t statistics."""
    size = np.abs(np.asarray(value, np.float64))
    if statistics.df_test is None:
        return np.asarray(2.0 * special.ndtr(-size))
    if not statistics.df_test > 0:
        return np.full_like(size, np.nan)
    return np.asarray(2.0 * special.stdtr(statistics.df_test, -size))
