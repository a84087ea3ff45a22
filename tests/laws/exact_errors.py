"""Standard errors of every kind, leverages, errors of predictions and of marginal means in arithmetic of sixty digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mpmath import mp, mpf

import daskglm as dg

Vector = npt.NDArray[np.float64]

FAMILIES = ("gaussian", "binomial", "poisson", "gamma")


@dataclass(frozen=True)
class Exact:
    """A fit of y ~ a + b + c + g, everything to sixty digits.

    rows: of X; beta; inverse of the expected information; weight, score: of each row in its linear predictor; observed:
    its weight in the observed information; phi.
    """

    rows: list[list[Any]]
    beta: Any
    inverse: Any
    weight: list[Any]
    score: list[Any]
    observed: list[Any]
    phi: Any

    def form(self, row: Sequence[Any], matrix: Any) -> Any:
        """x' V x."""
        p = len(row)
        return mp.fsum(row[i] * matrix[i, j] * row[j] for i in range(p) for j in range(p))

    @property
    def leverages(self) -> list[Any]:
        """Of each row."""
        return [w * self.form(row, self.inverse) for w, row in zip(self.weight, self.rows, strict=True)]

    def covariance(self, kind: str, clusters: Sequence[Sequence[Any]] = ()) -> Any:
        """Of one kind; clusters: a label per row, for each way."""
        n, p = len(self.rows), len(self.rows[0])
        if kind == "model":
            return self.phi * self.inverse
        if kind == "observed":
            return self.phi * _gram(self.rows, self.observed) ** -1
        if kind == "cluster":
            return self._clustered(clusters)
        h = self.leverages if kind in ("HC2", "HC3") else [mpf(0)] * n
        power = {"HC2": mpf(1), "HC3": mpf(2)}.get(kind, mpf(0))
        squares = [s * s / (1 - one) ** power for s, one in zip(self.score, h, strict=True)]
        factor = {"HC1": mpf(n) / (n - p), "probability": mpf(n) / (n - 1)}.get(kind, mpf(1))
        return factor * self.inverse * _gram(self.rows, squares) * self.inverse

    def _clustered(self, clusters: Sequence[Sequence[Any]]) -> Any:
        p = len(self.rows[0])
        total = mp.matrix(p, p)
        for size in range(1, len(clusters) + 1):
            for ways in combinations(clusters, size):
                sums: dict[Any, list[Any]] = {}
                for row, score, *labels in zip(self.rows, self.score, *ways, strict=True):
                    there = sums.setdefault(tuple(labels), [mpf(0)] * p)
                    for j in range(p):
                        there[j] += row[j] * score
                groups = mpf(len(sums))
                part = _gram(list(sums.values()), [groups / (groups - 1)] * len(sums))
                total = total + part if size % 2 else total - part
        return self.inverse * total * self.inverse


def _gram(rows: Sequence[Sequence[Any]], weights: Sequence[Any]) -> Any:
    p = len(rows[0])
    columns = list(zip(*rows, strict=True))
    result = mp.matrix(p, p)
    for j in range(p):
        half = [w * v for w, v in zip(weights, columns[j], strict=True)]
        for k in range(j, p):
            result[j, k] = result[k, j] = mp.fdot(half, columns[k])
    return result


def table(seed: int, apart: float, center: float, n: int = 80) -> pd.DataFrame:
    """Columns a and b that differ by `apart`, both about `center`; c of another size; factors g, u and v."""
    rng = np.random.default_rng(seed)
    a = center + rng.normal(size=n)
    b = a + apart * rng.normal(size=n) if apart < 1.0 else center + rng.normal(size=n)
    frame = pd.DataFrame({"a": a, "b": b, "c": rng.normal(size=n) * 1e-3})
    frame["g"] = rng.choice(["A", "B", "C"], n)
    frame["u"], frame["v"] = rng.integers(0, 12, n), rng.integers(0, 7, n)
    eta = 0.3 + 0.4 * (a - center) - 200.0 * frame.c + 0.2 * (frame.g == "B")
    frame["gaussian"] = eta + rng.normal(size=n)
    frame["binomial"] = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    frame["poisson"] = rng.poisson(np.exp(eta)).astype(float)
    frame["gamma"] = rng.gamma(2.0, np.exp(eta) / 2.0)
    return frame


def design(frame: pd.DataFrame) -> list[list[Any]]:
    """Rows of X of a + b + c + g, every number as it was written."""
    return [
        [mpf(1), mpf(float(a)), mpf(float(b)), mpf(float(c)), mpf(int(g == "B")), mpf(int(g == "C"))]
        for a, b, c, g in zip(frame.a, frame.b, frame.c, frame.g, strict=True)
    ]


def exact(
    frame: pd.DataFrame, family: str, weights: Vector | None = None, columns: Sequence[int] = range(6)
) -> Exact | None:
    """The fit of those columns of `design`, by Newton's method from the doubles of the table; None where it does not converge."""
    mp.dps = 60
    rows, y = [[row[j] for j in columns] for row in design(frame)], [mpf(float(v)) for v in frame[family]]
    n, p = len(y), len(rows[0])
    size = [mpf(1)] * n if weights is None else [mpf(float(w)) for w in weights]
    beta = mp.matrix([0] * p)
    if family != "gaussian":
        beta[0] = mp.log(mp.fsum(y) / n) if family != "binomial" else mpf(0)
    for _ in range(80):
        weight, score, observed = _terms(family, y, [mp.fdot(row, beta) for row in rows])
        parts = [s * w for s, w in zip(size, weight, strict=True)]
        left = [s * w for s, w in zip(size, score, strict=True)]
        gram = _gram(rows, parts)
        gradient = mp.matrix([mp.fdot(column, left) for column in zip(*rows, strict=True)])
        move = mp.lu_solve(gram, gradient)
        if mp.fdot(gradient, move) < mpf(10) ** -80:
            break
        beta = beta + move
    else:
        return None
    phi = mpf(1)
    if family in ("gaussian", "gamma"):
        # of both, a row's part of Pearson's statistic is score^2 / weight
        phi = mp.fsum(s * a * a / w for s, a, w in zip(size, score, weight, strict=True)) / (n - p)
    observed = [s * w for s, w in zip(size, observed, strict=True)]
    return Exact(rows, beta, gram**-1, parts, left, observed, phi)


def _terms(family: str, y: list[Any], eta: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """(expected weight, score, observed weight) of each row in its linear predictor."""
    if family == "gaussian":
        one = [mpf(1)] * len(y)
        return one, [a - e for a, e in zip(y, eta, strict=True)], one
    if family == "binomial":
        mean = [1 / (1 + mp.exp(-e)) for e in eta]
        weight = [m * (1 - m) for m in mean]
        return weight, [a - m for a, m in zip(y, mean, strict=True)], weight
    mean = [mp.exp(e) for e in eta]
    if family == "poisson":
        return mean, [a - m for a, m in zip(y, mean, strict=True)], mean
    ratio = [a / m for a, m in zip(y, mean, strict=True)]
    return [mpf(1)] * len(y), [r - 1 for r in ratio], ratio


def options(family: str) -> dict[str, Any]:
    """How `glm` is asked."""
    return {"family": family, "link": "log"} if family == "gamma" else {"family": family}


def errors(matrix: Any) -> Vector:
    """Roots of a diagonal, rounded once; NaN of negative variances, which several ways of clustering can have."""
    diagonal = [matrix[j, j] for j in range(matrix.rows)]
    return np.array([float(mp.sqrt(one)) if one >= 0 else np.nan for one in diagonal])


def covariances(frame: pd.DataFrame) -> dict[str, tuple[Any, str, tuple[Any, ...]]]:
    """Every kind by name: as `glm` takes it, as `Exact.covariance` does, and its clusters."""
    u, v = list(frame.u), list(frame.v)
    plain: dict[str, tuple[Any, str, tuple[Any, ...]]] = {
        kind: (kind, kind, ()) for kind in ("model", "observed", "HC0", "HC1", "HC2", "HC3")
    }
    return plain | {
        "cluster": (dg.Cluster("u"), "cluster", (u,)),
        "two clusters": (dg.Cluster("u", "v"), "cluster", (u, v)),
    }
