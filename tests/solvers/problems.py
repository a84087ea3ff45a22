"""Partitions in a list, and what is true of an optimum in exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf

from daskglm.kernels.blocks import Block
from daskglm.partitions import tree_sum
from daskglm.solvers.objective import Objective
from daskglm.totals.moments import Model
from tests.laws.exact import INVERSES, VARIANCES
from tests.totals.problems import Problem

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


class Leaves:
    """Leaves of a block in memory; `calls` says what was summed."""

    def __init__(self, block: Block, leaf_rows: int = 100) -> None:
        self.items = [block.rows(at, min(at + leaf_rows, block.n)) for at in range(0, max(block.n, 1), leaf_rows)]
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    @property
    def n_leaves(self) -> int:
        return len(self.items)

    @property
    def passes(self) -> int:
        return len(self.calls)

    @property
    def decodes(self) -> int:
        return 0

    def total(self, function: Callable[..., Any], *args: Any) -> Any:
        self.calls.append((function.__name__, args))
        return tree_sum(function(item, *args) for item in self.items)

    def kept_with_total(self, function: Callable[[Any], Any], record: Callable[[Any], Any]) -> Any:
        raise AssertionError("a solver only sums")

    def consumed(self, function: Callable[[Any], Any]) -> Any:
        raise AssertionError("a solver only sums")

    def map(self, function: Callable[..., Any], *args: Any) -> Iterator[Any]:
        return (function(item, *args) for item in self.items)

    def release(self) -> None:
        self.items = []


def objective(block: Block, model: Model, ridge: float = 0.0, intercept: bool = True) -> Objective:
    """Over leaves of 100 rows."""
    return Objective(Leaves(block), model, intercept, ridge)


def exact_terms(one: Problem, coef: Vector, x: Matrix | None = None) -> tuple[Any, Any, Any]:
    """Gradient and expected information of the log-likelihood at phi = 1, and Pearson's sum, in 40 digits."""
    family, link = one.family, one.model.likelihood.link.name
    columns = one.x if x is None else x
    p = columns.shape[1]
    offset = np.zeros(one.block.n) if one.block.offset is None else one.block.offset
    with mp.workdps(40):
        gradient, information, pearson = mp.zeros(p, 1), mp.zeros(p, p), mpf(0)
        numbers = [mpf(float(v)) for v in coef]
        for row, y, weight, shift in zip(columns, one.block.y, one.weight, offset, strict=True):
            values = [mpf(float(v)) for v in row]
            eta = mp.fdot(values, numbers) + mpf(float(shift))
            mu, slope = INVERSES[link](eta), mp.diff(INVERSES[link], eta)
            variance, w = VARIANCES[family](mu), mpf(float(weight))
            pearson += w * (mpf(float(y)) - mu) ** 2 / variance
            for j in range(p):
                gradient[j] += w * values[j] * slope / variance * (mpf(float(y)) - mu)
                for k in range(j + 1):
                    information[j, k] += w * values[j] * values[k] * slope**2 / variance
        for j in range(p):
            for k in range(j):
                information[k, j] = information[j, k]
    return gradient, information, pearson


def exact_decrement(one: Problem, coef: Vector) -> float:
    """g' I^-1 g per unit dispersion: the squared distance to the optimum in standard errors."""
    gradient, information, pearson = exact_terms(one, coef)
    with mp.workdps(40):
        decrement = (gradient.T * mp.lu_solve(information, gradient))[0]
        family = one.model.likelihood.family
        phi = family.dispersion if family.dispersion_known else pearson / (one.block.n - coef.size)
        return float(decrement / phi)


def numbers(matrix: Any) -> Matrix:
    """An mpmath matrix as float64."""
    return np.array([[float(matrix[j, k]) for k in range(matrix.cols)] for j in range(matrix.rows)])
