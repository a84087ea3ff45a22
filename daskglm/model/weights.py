"""Weights say what they mean: how often a row was seen, how precise it is, whom it stands for, or out of how many.
Clusters say which rows are not independent of each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, final

from daskglm.errors import DesignError, closest

# Options of sampling designs in other libraries, which weights alone do not describe.
_SAMPLING = ("strata", "fpc", "ids", "id", "cluster", "clusters", "psu", "nest")


def _refuse(kind: str, options: dict[str, Any]) -> None:
    """DesignError where weights are given more than their column."""
    for name in options:
        if name in ("strata", "fpc") and kind == "Probability":
            raise DesignError(
                f"{name}= is not available in this version: errors are those of rows, or of sampling units with "
                'covariance=dg.Cluster("unit"), drawn independently and with replacement'
            )
        if name in _SAMPLING and kind == "Probability":
            raise DesignError(f'{kind} has no option {name!r}: sampling units are covariance=dg.Cluster("unit")')
        raise DesignError(f'{kind} takes a column and no option {name!r}: dg.{kind}("w")')


@final
@dataclass(frozen=True, init=False)
class Frequency:
    """The row was observed that many times: the fit equals that of the rows written out. nobs is the sum."""

    column: Any

    def __init__(self, column: Any, **options: Any) -> None:
        _refuse("Frequency", options)
        object.__setattr__(self, "column", column)


@final
@dataclass(frozen=True, init=False)
class Variance:
    """Analytic weights: the row's variance is dispersion * V(mu) / weight (an average of `weight` observations)."""

    column: Any

    def __init__(self, column: Any, **options: Any) -> None:
        _refuse("Variance", options)
        object.__setattr__(self, "column", column)


@final
@dataclass(frozen=True, init=False)
class Probability:
    """Sampling weights: the inverse of the probability that the row was drawn. Errors are linearised (Binder 1983).

    Only their ratios matter: deviance, Pearson chi-square and dispersion are those of weights rescaled to mean 1.
    """

    column: Any

    def __init__(self, column: Any, **options: Any) -> None:
        _refuse("Probability", options)
        object.__setattr__(self, "column", column)


@final
@dataclass(frozen=True, init=False)
class Trials:
    """The response is the proportion of successes out of that many trials (binomial only)."""

    column: Any

    def __init__(self, column: Any, **options: Any) -> None:
        _refuse("Trials", options)
        object.__setattr__(self, "column", column)


Weights = Frequency | Variance | Probability | Trials
WEIGHTS: dict[str, type[Weights]] = {
    "frequency": Frequency,
    "variance": Variance,
    "probability": Probability,
    "trials": Trials,
}


_CALL = re.compile(r"\s*(?:dg\.)?cluster\s*\((.*)\)\s*", re.DOTALL | re.IGNORECASE)
_PART = re.compile(r"(?:`[^`]*`|\"[^\"]*\"|'[^']*'|[^,])+")
_OPTION = re.compile(r"correction\s*=\s*[\"']?(\w+)[\"']?")
_NAME = re.compile(r"[\w. ]*\w")
CORRECTIONS = ("none", "groups", "full")


@final
@dataclass(frozen=True, init=False)
class Cluster:
    """Rows with the same value in a column are correlated in any way, those of different clusters are not.

    Several columns are ways of clustering that cross: V = sum over their non-empty subsets of (-1)^(size + 1) times the
    covariance clustered by the combinations of the subset's values (Cameron, Gelbach and Miller 2011). correction: "none";
    "groups", G / (G - 1) for each of those terms with its own number of clusters G; "full", that and (n - 1) / (n - k), as
    `vcovCL` of the R package sandwich with cadjust, of type HC0 or HC1. Tests use t(G - 1), with the smallest G of the columns.
    DesignError for anything that is no column.
    """

    columns: tuple[Any, ...]
    correction: str

    def __init__(self, *columns: Any, correction: str = "groups") -> None:
        if not columns:
            raise DesignError('clusters need a column: dg.Cluster("policy")')
        if len({id(column) if not isinstance(column, str) else column for column in columns}) < len(columns):
            raise DesignError("a column clusters rows one way, however often it is named: name each once")
        if correction not in CORRECTIONS:
            listed = ", ".join(f'"{option}"' for option in CORRECTIONS)
            raise DesignError(f"correction={correction!r} is not one of {listed}{closest(correction, CORRECTIONS)}")
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "correction", correction)

    @property
    def text(self) -> str:
        """As it is written on the command line."""
        rest = [] if self.correction == "groups" else [f"correction={self.correction}"]
        names = (name if _NAME.fullmatch(name) else f"`{name}`" for name in map(str, self.columns))
        return f"cluster({', '.join([*names, *rest])})"

    def __repr__(self) -> str:
        return f"Cluster({', '.join(map(repr, self.columns))}, correction={self.correction!r})"


def cluster_of(text: str) -> Cluster:
    """A `Cluster` from how it is written: "cluster(policy, year, correction=full)"; a column of any name in back quotes.
    DesignError where it is not.
    """
    call = _CALL.fullmatch(text)
    if not call:
        raise DesignError(f'{text!r} is no way of clustering: write "cluster(column, ...)"')
    columns: list[str] = []
    options: dict[str, str] = {}
    for part in _PART.findall(call.group(1)):
        name = part.strip()
        option = _OPTION.fullmatch(name)
        if option:
            options["correction"] = option.group(1)
        elif name:
            columns.append(name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "`\"'" else name)
    return Cluster(*columns, **options)
