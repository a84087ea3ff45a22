"""Exact derivatives of a formula's expressions in one of their columns, by the rules of differentiation on the tree.

Forward mode: every node has its value and its slope together (Griewank and Walther 2008, Evaluating derivatives, section 3).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from daskglm.design.expressions import FUNCTIONS, Expression, evaluate_node, function_name

Vector = npt.NDArray[np.float64]
# Of a column that a node does not read, or that it reads as steps, which are flat between their jumps.
FLAT = None

# d f(x) / dx of each function of one number; of those that are steps there is none.
SLOPES: dict[str, Callable[[Any], Any]] = {
    "log": lambda x: 1.0 / x,
    "log2": lambda x: 1.0 / (x * np.log(2.0)),
    "log10": lambda x: 1.0 / (x * np.log(10.0)),
    "log1p": lambda x: 1.0 / (1.0 + x),
    "exp": np.exp,
    "expm1": np.exp,
    "sqrt": lambda x: 0.5 / np.sqrt(x),
    "abs": np.sign,
    "sin": np.cos,
    "cos": lambda x: -np.sin(x),
    "tan": lambda x: 1.0 + np.square(np.tan(x)),
    "arctan": lambda x: 1.0 / (1.0 + np.square(x)),
    "sinh": np.cosh,
    "cosh": np.sinh,
    "tanh": lambda x: 1.0 / np.square(np.cosh(x)),
    "I": lambda x: np.ones_like(x),
}
STEPS = frozenset({"sign", "floor", "ceil", "round"})
CHOICES = frozenset({"minimum", "maximum", "clip", "where"})
assert set(SLOPES) | STEPS | CHOICES == set(FUNCTIONS)


def slope(expression: Expression, values: Mapping[str, npt.NDArray[Any]], column: str) -> Vector:
    """d expression / d column (n,) at columns by name; 0 where it is a step function of it.

    At a kink (of abs, minimum, maximum, clip) the slope of one side.
    """
    n = next(iter(values.values())).shape[0]
    with np.errstate(all="ignore"):
        found = _Slopes(expression, values, column).of(expression.tree)[1]
    return np.zeros(n) if found is FLAT else np.ascontiguousarray(np.broadcast_to(found, (n,)), np.float64)


class _Slopes:
    """Value and slope of each node."""

    def __init__(self, expression: Expression, values: Mapping[str, npt.NDArray[Any]], column: str) -> None:
        self.names, self.values, self.column = expression.names, values, column

    def value(self, node: ast.expr) -> Any:
        found = np.asarray(evaluate_node(node, self.names, self.values))
        return found.astype(np.float64) if found.dtype.kind in "iub" else found

    def of(self, node: ast.expr) -> tuple[Any, Any]:
        value = self.value(node)
        if isinstance(node, ast.Name):
            here = self.names.get(node.id, node.id) == self.column
            return value, np.ones_like(value, np.float64) if here else FLAT
        if isinstance(node, ast.BinOp):
            return value, self._arithmetic(node, value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            inner = self.of(node.operand)[1]
            return value, inner if inner is FLAT or isinstance(node.op, ast.UAdd) else -inner
        if isinstance(node, ast.Call):
            return value, self._call(node, value)
        # comparisons and what is made of them are true or false
        return value, FLAT

    def _arithmetic(self, node: ast.BinOp, value: Any) -> Any:
        (a, da), (b, db) = self.of(node.left), self.of(node.right)
        op = node.op
        if (da is FLAT and db is FLAT) or isinstance(op, (ast.FloorDiv, ast.BitAnd, ast.BitOr)):
            return FLAT
        if isinstance(op, (ast.Add, ast.Sub)):
            return _sum(da, db if db is FLAT or isinstance(op, ast.Add) else -db)
        if isinstance(op, ast.Mult):
            return _sum(_times(da, b), _times(db, a))
        if isinstance(op, ast.Div):
            return _sum(_times(da, 1.0 / b), _times(db, -a / (b * b)))
        if isinstance(op, ast.Mod):
            return _sum(da, _times(db, -np.floor(a / b)))
        assert isinstance(op, ast.Pow)
        # the slope of x**0 is 0 at 0, too
        base = FLAT if da is FLAT else np.where(b == 0.0, 0.0, b * np.power(a, b - 1.0)) * da
        return _sum(base, FLAT if db is FLAT else value * np.log(a) * db)

    def _call(self, node: ast.Call, value: Any) -> Any:
        name = function_name(node.func) or ""
        if name in STEPS:
            return FLAT
        parts = [self.of(argument) for argument in node.args]
        if all(d is FLAT for _, d in parts):
            return FLAT
        if name in SLOPES:
            return SLOPES[name](parts[0][0]) * parts[0][1]
        values, slopes = [v for v, _ in parts], [0.0 if d is FLAT else d for _, d in parts]
        if name == "where":
            return np.where(values[0] != 0.0, slopes[1], slopes[2])
        if name == "clip":
            outside = np.where(values[0] < values[1], slopes[1], slopes[2])
            return np.where((values[0] >= values[1]) & (values[0] <= values[2]), slopes[0], outside)
        first = values[0] <= values[1] if name == "minimum" else values[0] >= values[1]
        return np.where(first, slopes[0], slopes[1])


def _sum(a: Any, b: Any) -> Any:
    if a is FLAT or b is FLAT:
        return b if a is FLAT else a
    return a + b


def _times(a: Any, b: Any) -> Any:
    return FLAT if a is FLAT else a * b
