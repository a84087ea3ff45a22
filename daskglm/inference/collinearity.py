"""Which columns nearly repeat each other, from the covariance of the coefficients alone: no pass over data.

The covariance C of a fit from the information is phi (X'WX)^-1, so that it holds what an analysis of the weighted columns
would find. Belsley, Kuh and Welsch (Regression Diagnostics, 1980, chapter 3) take the singular values of the columns
scaled to unit length; Fox and Monette (1992) the determinants of the correlations of the coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Belsley, Kuh and Welsch: from here on a direction is a dependency that harms.
HARMFUL = 30.0
# Entries of a direction below this part of its largest are left out of its combination.
SMALL = 1e-3
# Columns named in one sentence.
MOST_NAMES = 8


@final
@dataclass(frozen=True)
class Combination:
    """Columns that nearly cancel: name is nearly the sum of parts[other] times other.

    condition_index: of the direction, the larger the nearer; involved: parameters of whose variance the direction makes more
    than half.
    """

    condition_index: float
    name: str
    parts: Mapping[str, float]
    involved: tuple[str, ...]

    def __str__(self) -> str:
        shown = list(self.parts.items())[:MOST_NAMES]
        text = " + ".join(f"{value:.6g} {name}" for name, value in shown).replace("+ -", "- ") or "0"
        more = " + ..." if len(self.parts) > MOST_NAMES else ""
        return f"{self.name} is nearly {text}{more} (condition index {self.condition_index:.4g})"


@final
@dataclass(frozen=True)
class Collinearity:
    """Condition indices and variance-decomposition proportions (Belsley, Kuh and Welsch 1980).

    names (p,): parameters with an estimate; indices (p,): the largest singular value of W^1/2 X, columns scaled to unit
    length and not centred, over each, ascending; proportions (p, p): row k is the part of each parameter's variance that
    comes from direction k; combinations: of each direction with an index above 30 the columns that nearly cancel; basis: what
    all this comes from.
    """

    names: tuple[str, ...]
    indices: Vector
    proportions: Matrix
    combinations: tuple[Combination, ...]
    basis: str

    @property
    def table(self) -> pd.DataFrame:
        """A row per direction: condition_index, then the proportion of each parameter's variance."""
        import pandas as pd

        table = pd.DataFrame(self.proportions, columns=list(self.names))
        table.insert(0, "condition_index", self.indices)
        return table

    @property
    def condition_number(self) -> float:
        """The largest condition index."""
        return float(self.indices.max(initial=1.0))

    def __str__(self) -> str:
        lines = [f"Condition number {self.condition_number:.4g}, from {self.basis}"]
        lines += [str(combination) for combination in self.combinations]
        if not self.combinations:
            lines.append(f"No combination of columns is nearly zero (condition indices below {HARMFUL:g})")
        return "\n".join(lines)

    __repr__ = __str__


def of_information(specification: Any, covariance: Matrix, method: str, data: Any, robust: Any) -> Matrix:
    """The covariance (p, p) that is proportional to the inverse information: the fitted one, or robust("model", data)."""
    sampling = specification.weights is not None and specification.weights[0] == "probability"
    if specification.covariance in ("model", "observed") and not sampling:
        if data is not None:
            raise DesignError(f"{method}() needs no data here: the fitted covariance is from the information")
        return covariance
    if data is None:
        kind = "linearised for probability weights" if sampling else specification.covariance
        raise DesignError(f"the fitted covariance is {kind}: {method}(data) reads the rows for that of the information")
    return np.asarray(robust("model", data).to_numpy())


def collinearity(covariance: Matrix, names: Sequence[str], basis: str) -> Collinearity:
    """From a covariance (p, p) that is proportional to an inverse information; NaN where there is no estimate."""
    kept = np.isfinite(np.diag(covariance)) & (np.diag(covariance) > 0.0)
    inner = covariance[np.ix_(kept, kept)]
    shown = tuple(name for name, keep in zip(names, kept, strict=True) if keep)
    if not shown:
        return Collinearity((), np.zeros(0), np.zeros((0, 0)), (), basis)
    correlation, deviations = _correlation(inner)
    # squared lengths of the columns, in units of phi: the diagonal of the information
    lengths = np.sqrt(np.diag(_inverse(correlation))) / deviations
    values, vectors = np.linalg.eigh(inner * lengths[:, None] * lengths)
    # of the inverse of the information, so that the smallest singular value comes last, and is the most exact
    values = np.maximum(values, np.finfo(float).tiny)
    parts = vectors.T**2 * values[:, None]
    proportions = parts / parts.sum(axis=0)
    indices = np.sqrt(values / values[0])
    found = tuple(
        _combination(float(index), vector, lengths, shares, shown)
        for index, vector, shares in zip(indices, vectors.T, proportions, strict=True)
        if index >= HARMFUL
    )
    return Collinearity(shown, indices, proportions, found[::-1], basis)


def _combination(index: float, vector: Vector, lengths: Vector, shares: Vector, names: tuple[str, ...]) -> Combination:
    """X diag(1 / length) v is nearly zero, so a column with a large part is nearly a combination of the others: the last
    such in the formula, as aliased columns are the last.
    """
    size = np.abs(vector)
    lead = int(np.flatnonzero(size >= 0.5 * size.max())[-1])
    coefficients = vector / lengths
    others = [j for j in np.argsort(-size, kind="stable") if j != lead and size[j] >= SMALL * size[lead]]
    parts = {names[j]: float(-coefficients[j] / coefficients[lead]) for j in others}
    involved = tuple(name for name, share in zip(names, shares, strict=True) if share > 0.5)
    return Combination(index, names[lead], parts, involved)


def inflation(covariance: Matrix, names: Sequence[str], terms: Sequence[str], constant: str) -> pd.DataFrame:
    """Variance inflation factors from a covariance (p, p); those whose term is `constant` are left out.

    A row per parameter, NaN where there is no estimate: vif, the diagonal of R^-1 with R the correlations of the estimates;
    its term, and of that gvif = det R_tt det R_oo / det R with t its parameters and o the others, df, and
    gvif_root = gvif^(1 / (2 df)), to be compared between terms (Fox and Monette 1992).
    """
    import pandas as pd

    rows = [j for j, term in enumerate(terms) if term != constant]
    kept = [j for j in rows if np.isfinite(covariance[j, j]) and covariance[j, j] > 0.0]
    correlation = _correlation(covariance[np.ix_(kept, kept)])[0]
    single = dict(zip(kept, np.diag(_inverse(correlation)), strict=True))
    of_term: dict[str, tuple[float, int]] = {}
    whole = _log_determinant(correlation)
    for term in dict.fromkeys(terms[j] for j in kept):
        here = np.array([terms[j] == term for j in kept])
        parts = _log_determinant(correlation[np.ix_(here, here)]) + _log_determinant(correlation[np.ix_(~here, ~here)])
        of_term[term] = float(np.exp(parts - whole)), int(here.sum())
    table = pd.DataFrame(
        {
            "term": [terms[j] for j in rows],
            "vif": [float(single.get(j, np.nan)) for j in rows],
            "gvif": [of_term[terms[j]][0] if j in single else np.nan for j in rows],
            "df": [of_term[terms[j]][1] if j in single else 0 for j in rows],
        },
        index=[names[j] for j in rows],
    )
    table["gvif_root"] = table["gvif"] ** (1.0 / (2.0 * table["df"].clip(lower=1)))
    return table


def _correlation(covariance: Matrix) -> tuple[Matrix, Vector]:
    """Correlations and standard deviations."""
    deviations = np.sqrt(np.diag(covariance))
    return covariance / deviations[:, None] / deviations, deviations


def _spectrum(correlation: Matrix) -> tuple[Vector, Matrix]:
    """Eigenvalues no smaller than what rounding leaves of them, and vectors."""
    values, vectors = np.linalg.eigh(correlation)
    return np.maximum(values, np.finfo(float).eps * max(correlation.shape[0], 1)), vectors


def _inverse(correlation: Matrix) -> Matrix:
    values, vectors = _spectrum(correlation)
    return np.asarray((vectors / values) @ vectors.T)


def _log_determinant(correlation: Matrix) -> float:
    return float(np.log(_spectrum(correlation)[0]).sum())
