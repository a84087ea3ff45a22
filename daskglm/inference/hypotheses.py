"""Tests of hypotheses from a finished fit: no pass over data."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy import special

from daskglm.errors import DesignError, closest

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class TestResult:
    """A statistic and its p-value. distribution: "chi2" (df) or "F" (df, df_denom)."""

    __test__ = False

    statistic: float
    pvalue: float
    df: float
    distribution: str
    df_denom: float | None = None

    def __repr__(self) -> str:
        freedom = f"{self.df:g}" if self.df_denom is None else f"{self.df:g}, {self.df_denom:g}"
        return f"<{self.distribution}({freedom}) = {self.statistic:.6g}, p = {self.pvalue:.4g}>"


def wald(
    coefficients: Vector,
    covariance: Matrix,
    matrix: Matrix,
    value: Vector,
    df_denom: float | None,
    names: Sequence[str] = (),
    forms: Callable[[Matrix], tuple[Vector, Matrix]] | None = None,
) -> TestResult:
    """Test L b = c: (L b - c)' (L C L')^-1 (L b - c), chi-square with rank(L) degrees of freedom; where the dispersion
    was estimated (df_denom given), that over rank(L), against F(rank, df_denom). names: of the coefficients, for messages;
    forms: L to L b (m,) and L C L' (m, m), to more digits than these coefficients and covariance give.
    """
    if not np.isfinite(matrix).all() or not np.isfinite(value).all():
        raise DesignError("the hypothesis has numbers that are not finite")
    if not matrix.size:
        raise DesignError('the hypothesis is empty: write, for example, "x = 0"')
    involved = np.any(matrix != 0.0, axis=0)
    for odd, what in (
        (np.isnan(coefficients), "a coefficient that was not estimated (aliased)"),
        (np.isinf(coefficients), "an infinite coefficient (separated), which has no standard error"),
        (np.isnan(np.diag(covariance)), "a coefficient that has no standard error"),
    ):
        if (odd & involved).any():
            at = int(np.flatnonzero(odd & involved)[0])
            raise DesignError(f"the hypothesis involves {what}{f': {names[at]}' if names else ''}")
    if forms is None:
        part = matrix[:, involved]
        linear, middle = part @ coefficients[involved], part @ covariance[np.ix_(involved, involved)] @ part.T
    else:
        linear, middle = forms(matrix)
    difference = linear - value
    # in units of their own errors, so that scales of columns are not taken for dependence
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = 1.0 / np.sqrt(np.diag(middle))
    size = middle * unit[:, None] * unit
    rank = int(np.linalg.matrix_rank(size, tol=1e-10, hermitian=True)) if np.isfinite(size).all() else 0
    if rank < matrix.shape[0]:
        raise DesignError("the hypotheses are not independent of each other: leave out those that follow from the rest")
    amount = float((difference * unit) @ np.linalg.solve(size, difference * unit))
    if df_denom is None:
        return TestResult(amount, float(special.chdtrc(rank, amount)), rank, "chi2")
    return TestResult(amount / rank, float(special.fdtrc(rank, df_denom, amount / rank)), rank, "F", df_denom)


def parse(hypothesis: Any, names: Sequence[str], term_of: Sequence[str] = ()) -> tuple[Matrix, Vector]:
    """L (m, p) and c (m,) of a hypothesis: a matrix, names of parameters or terms that are all zero, or text such
    as "area[T.B] = area[T.C], bonus = 0". term_of (p,): the term of each parameter that has an estimate, "" of others.
    """
    parts: list[str] | None = None
    if isinstance(hypothesis, str):
        parts = [hypothesis] if hypothesis and hypothesis in term_of else _split(hypothesis)
    elif isinstance(hypothesis, (list, tuple)) and hypothesis and all(isinstance(item, str) for item in hypothesis):
        parts = list(hypothesis)
    if parts is not None:
        rows = [row for part in parts for row in _equations(part, names, term_of)]
        return np.array([row for row, _ in rows]), np.array([value for _, value in rows])
    try:
        matrix = np.atleast_2d(np.asarray(hypothesis, np.float64))
    except (TypeError, ValueError):
        raise DesignError(
            'a hypothesis is text such as "x = 0", a list of parameter names, or a matrix of numbers'
        ) from None
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise DesignError(f"the hypothesis matrix must have {len(names)} columns, one per parameter")
    return matrix, np.zeros(matrix.shape[0])


def _split(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _equations(text: str, names: Sequence[str], term_of: Sequence[str]) -> list[tuple[Vector, float]]:
    """The equations of one part: of a term one for each of its parameters."""
    if text in names or text not in term_of:
        return [_equation(text, names, term_of)]
    return [(row, 0.0) for row, term in zip(np.eye(len(names)), term_of, strict=True) if term == text]


def _equation(text: str, names: Sequence[str], terms: Sequence[str] = ()) -> tuple[Vector, float]:
    """One linear equation in parameter names; without = it says that the left side is zero."""
    if text in names:
        row = np.zeros(len(names))
        row[list(names).index(text)] = 1.0
        return row, 0.0
    marked, places = text, {}
    # longest names first, so that one that contains another is not cut short; only whole names count
    for position, name in sorted(enumerate(names), key=lambda entry: -len(entry[1])):
        place = f"_p{position}_"
        pattern = rf"(?<![\w.\[]){re.escape(name)}(?![\w.\[])"
        marked, count = re.subn(pattern, place, marked)
        if count:
            places[place] = position
    sides = re.split(r"={1,2}", marked)
    if len(sides) > 2:
        raise DesignError(f"{text!r} has more than one equals sign")
    total = np.zeros(len(names) + 1)
    for sign, side in zip((1.0, -1.0), sides, strict=False):
        total += sign * _linear(side, text, places, [*names, *filter(None, terms)], len(names))
    return total[:-1], -float(total[-1])


def _linear(side: str, text: str, places: dict[str, int], names: Sequence[str], size: int) -> Vector:
    try:
        tree = ast.parse(side.strip(), mode="eval").body
    except SyntaxError:
        raise DesignError(f"cannot read the hypothesis {text!r}") from None

    def of(node: ast.expr) -> Vector:
        result = np.zeros(size + 1)
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            result[-1] = float(node.value)
        elif isinstance(node, ast.Name) and node.id in places:
            result[places[node.id]] = 1.0
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            result = of(node.operand) * (-1.0 if isinstance(node.op, ast.USub) else 1.0)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            result = of(node.left) + of(node.right) * (1.0 if isinstance(node.op, ast.Add) else -1.0)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
            left, right = of(node.left), of(node.right)
            if isinstance(node.op, ast.Div) and not right[:-1].any() and right[-1]:
                return left / right[-1]
            if isinstance(node.op, ast.Mult) and not left[:-1].any():
                return right * left[-1]
            if isinstance(node.op, ast.Mult) and not right[:-1].any():
                return left * right[-1]
            raise DesignError(f"{text!r} is not linear in the parameters")
        else:
            name = ast.unparse(node)
            raise DesignError(f"{name!r} in {text!r} is not a parameter or term{closest(name, names)}")
        return result

    return of(tree)
