"""Random ill-conditioned designs, and their fits in arithmetic of sixty digits: for the law that no certificate claims too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mpmath import mp, mpf

import daskglm as dg

Vector = npt.NDArray[np.float64]

FAMILIES = ("gaussian", "binomial", "poisson")


@dataclass(frozen=True)
class Trial:
    """A data frame, a formula for it, how `glm` is asked, and the columns of X with every number as it was written."""

    table: pd.DataFrame
    formula: str
    options: dict[str, Any]
    columns: list[list[Any]]


@dataclass(frozen=True)
class Truth:
    """Coefficients and standard errors, rounded once."""

    coefficients: Vector
    errors: Vector


def trial(seed: int, family: str) -> Trial:
    """Columns that nearly agree, are far from zero, are powers of each other, or differ in size, as the seed has it."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(30, 90))
    center = float(rng.choice([0.0, 1.0, 1e3, 1e6]))
    x1 = center + rng.normal(size=n)
    left = 10.0 ** -float(rng.uniform(0.0, 6.0))
    table = {"x1": x1, "x2": x1 + left * rng.normal(size=n), "x3": rng.normal(size=n) * 10.0 ** rng.uniform(-6, 6)}
    terms = ["x1", "x2", "x3"]
    if rng.random() < 0.4:
        table["t"] = np.round(rng.uniform(0.0, 20.0, n), int(rng.integers(0, 3)))
        terms += ["t", "I(t**2)", "I(t**3)"]
    eta = 0.3 + 0.5 * (x1 - center) - 0.4 * table["x3"] / np.abs(table["x3"]).max()
    options: dict[str, Any] = {"family": family}
    if family == "gaussian":
        table["y"] = float(rng.choice([0.0, 1e4])) + eta + 10.0 ** rng.uniform(-4, 1) * rng.normal(size=n)
    elif family == "binomial":
        table["y"] = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    else:
        table["y"] = rng.poisson(np.exp(eta)).astype(float)
    if rng.random() < 0.3:
        table["w"] = rng.uniform(0.5, 2.0, n)
        options["weights"] = dg.Variance("w")
    if rng.random() < 0.3 and family != "binomial":
        table["o"] = rng.normal(size=n) * 0.1
        options["offset"] = "o"
    intercept = rng.random() > 0.15
    order = list(rng.permutation(terms))
    formula = f"y ~ {'' if intercept else '0 + '}{' + '.join(order)}"
    columns = [[mpf(1)] * n] if intercept else []
    for term in order:
        base, power = (term[2:-1].split("**")[0], int(term[-2])) if term.startswith("I(") else (term, 1)
        columns.append([mpf(float(v)) ** power for v in table[base]])
    return Trial(pd.DataFrame(table), formula, options, columns)


def truth(one: Trial) -> Truth | None:
    """Newton's method from the doubles of the table to sixty digits; None where the optimum is infinite."""
    mp.dps = 60
    table, family, p = one.table, one.options["family"], len(one.columns)
    y = [mpf(float(v)) for v in table["y"]]
    n = len(y)
    weight = [mpf(float(v)) for v in table["w"]] if "w" in table else [mpf(1)] * n
    offset = [mpf(float(v)) for v in table["o"]] if "o" in table else [mpf(0)] * n
    rows = list(zip(*one.columns, strict=True))
    beta = mp.matrix([0] * p)
    for step in range(60):
        eta = [mp.fdot(row, beta) + o for row, o in zip(rows, offset, strict=True)]
        if max(abs(e) for e in eta) > 60 and family != "gaussian":
            return None
        mean, slope = _means(family, eta)
        gram = mp.matrix(p, p)
        parts = [w * s for w, s in zip(weight, slope, strict=True)]
        for j in range(p):
            half = [a * b for a, b in zip(parts, one.columns[j], strict=True)]
            for k in range(j, p):
                gram[j, k] = gram[k, j] = mp.fdot(half, one.columns[k])
        left = [w * (a - m) for w, a, m in zip(weight, y, mean, strict=True)]
        score = mp.matrix([mp.fdot(column, left) for column in one.columns])
        move = mp.lu_solve(gram, score)
        if step and mp.fdot(score, move) < mpf(10) ** -70:
            break
        beta = beta + move
    else:
        return None
    inverse = gram**-1
    phi = mpf(1)
    if family == "gaussian":
        phi = mp.fsum(w * (a - m) ** 2 for w, a, m in zip(weight, y, mean, strict=True)) / (n - p)
    return Truth(np.array([float(b) for b in beta]), np.array([float(mp.sqrt(phi * inverse[j, j])) for j in range(p)]))


def _means(family: str, eta: list[Any]) -> tuple[list[Any], list[Any]]:
    if family == "gaussian":
        return eta, [mpf(1)] * len(eta)
    if family == "poisson":
        mean = [mp.exp(e) for e in eta]
        return mean, mean
    mean = [1 / (1 + mp.exp(-e)) for e in eta]
    return mean, [m * (1 - m) for m in mean]


def digits(found: Vector, expected: Vector) -> float:
    """Log relative error of the worst entry (NIST), 17 where all are equal."""
    with np.errstate(all="ignore"):
        error = np.where(expected == 0.0, np.abs(found), np.abs(found / expected - 1.0))
    return float(-np.log10(max(float(np.max(error)), 1e-17)))
