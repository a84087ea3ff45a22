"""Rows of X for chosen values of the table's columns, averaged over the levels of those that are not chosen.

An average over a grid of all combinations of levels is never written out: the columns of a term know only its own factors,
so their averages are products of weights of levels (or a table of joint weights of the few factors of one term).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.changes import Raw, Recipe, evaluated, is_plain, level_place, pieces_by_raw, product_slope
from daskglm.design.columns import Columns, product
from daskglm.design.formula import Variable
from daskglm.design.pieces import Numbers, Piece
from daskglm.design.slopes import slope
from daskglm.errors import DesignError
from daskglm.kernels.blocks import Vector

Matrix = npt.NDArray[np.float64]
# Weights of the combinations of levels of some factors, by their names, the first fastest.
WeightsOf = Callable[[tuple[str, ...]], Vector]


@final
@dataclass(frozen=True)
class Grid:
    """chosen: values (G,) of columns of the table; weights: of the levels of all factors whose columns are not chosen."""

    recipe: Recipe
    chosen: Mapping[str, npt.NDArray[Any]]
    weights: WeightsOf
    size: int

    def rows(self) -> Matrix:
        """The raw columns of X (G, width), neither shifted nor scaled."""
        numeric, codes = self._numeric(), self._codes()
        result = np.zeros((self.size, self.recipe.design.width))
        result[:, 0] = 1.0
        for piece, at, size in pieces_by_raw(self.recipe.design):
            names = tuple(name for name in piece.numeric if name in numeric)
            values = product(numeric, names) if names else np.ones(self.size)
            result[:, at : at + size] = values[:, None] * self._shares(piece, codes)
        return result

    def slopes(self, column: str) -> Matrix:
        """d rows / d column (G, width)."""
        numeric, codes = self._numeric(), self._codes()
        found: dict[str, Vector] = {}
        for variable in self.recipe.readers(column):
            if variable.kind == "numeric":
                values = {name: self.chosen[name] for name in variable.expression.columns}
                found[variable.name] = slope(variable.expression, values, column)
        moving = numeric.slopes(found)
        result = np.zeros((self.size, self.recipe.design.width))
        for piece, at, size in pieces_by_raw(self.recipe.design):
            if set(piece.numeric) & set(moving):
                names = tuple(name for name in piece.numeric if name in numeric)
                moved = product_slope(numeric, names, moving)
                result[:, at : at + size] = moved[:, None] * self._shares(piece, codes)
        return result

    def _numeric(self) -> Numbers:
        """Numeric columns (G,); those that are contrasts of factors are not among them."""
        found: dict[str, Any] = {}
        for variable in self.recipe.variables:
            if variable.kind != "numeric":
                continue
            absent = [name for name in variable.expression.columns if name not in self.chosen]
            if absent:
                raise DesignError(
                    f'"{absent[0]}" enters through {variable.name}, which has no average over levels: choose a value for it'
                )
            found[variable.name] = evaluated(variable, self.chosen, self.size)
            if not np.isfinite(found[variable.name]).all():
                raise DesignError(f"{variable.name} is not a number at the chosen values")
        return Numbers(self.recipe.design.states, found, {})

    def _codes(self) -> dict[str, npt.NDArray[np.int64]]:
        """The level of each chosen factor (G,)."""
        found = {}
        for variable in self.recipe.variables:
            if variable.kind == "factor" and all(name in self.chosen for name in variable.expression.columns):
                found[variable.name] = self._code(variable)
        return found

    def _code(self, variable: Variable) -> npt.NDArray[np.int64]:
        levels = self.recipe.design.levels[variable.name]
        if is_plain(variable):
            values: Any = self.chosen[variable.expression.columns[0]]
        else:
            chosen = {name: self.chosen[name] for name in variable.expression.columns}
            values = variable.expression.evaluate(chosen, text=True)
            values = np.broadcast_to(values, (self.size,)).tolist()
        return np.array([level_place(variable.name, levels, value) for value in values], np.int64)

    def _shares(self, piece: Piece, codes: Mapping[str, Any]) -> Matrix:
        """The weight of each combination of a piece's levels (G, combinations); of its coded factors the mean of their
        contrast columns.
        """
        names = (*piece.factors, *piece.coded)
        if not names:
            return np.ones((self.size, 1))
        design = self.recipe.design
        sizes = [len(design.levels[name]) for name in names]
        free = tuple(name for name in names if name not in codes)
        # the first factor is the fastest, which is the last axis
        shape = [len(design.levels[name]) if name in free else 1 for name in names]
        table = (self.weights(free) if free else np.ones(1)).reshape(1, *shape[::-1])
        for place, name in enumerate(names):
            if name in codes:
                axis = [1] * len(sizes)
                axis[len(sizes) - 1 - place] = sizes[place]
                here = codes[name][:, None] == np.arange(sizes[place])
                table = table * here.reshape(self.size, *axis)
        every = np.broadcast_to(table, (self.size, *sizes[::-1]))
        return np.asarray(design.contrast(piece) @ every.reshape(self.size, -1, design.n_levels(piece)))


def outer(levels: Mapping[str, Vector]) -> WeightsOf:
    """Products of the weights of each factor's levels."""

    def weights(names: tuple[str, ...]) -> Vector:
        result: Vector = np.ones(1)
        for name in names:
            result = np.asarray(np.kron(levels[name], result), np.float64)
        return result

    return weights


@final
@dataclass(frozen=True)
class Centers:
    """What a grid needs of data: weight: sum of w; numbers: weighted mean of each column; offset: of the offset; levels:
    weight of each level of each factor; joint: of combinations of several, by their names, the first fastest.
    """

    weight: float
    numbers: Mapping[str, float]
    offset: float
    levels: Mapping[str, Vector]
    joint: Mapping[tuple[str, ...], Vector]

    def __add__(self, other: Centers) -> Centers:
        total = self.weight + other.weight
        share = other.weight / total if total else 0.0
        return Centers(
            total,
            {name: mean + (other.numbers[name] - mean) * share for name, mean in self.numbers.items()},
            self.offset + (other.offset - self.offset) * share,
            {name: counts + other.levels[name] for name, counts in self.levels.items()},
            {names: counts + other.joint[names] for names, counts in self.joint.items()},
        )


def centers(
    recipe: Recipe,
    columns: Columns,
    raw: Raw,
    weight: Vector | None,
    numbers: Sequence[str],
    joint: Sequence[tuple[str, ...]],
) -> Centers:
    """The Centers of the rows of one leaf."""
    design = recipe.design
    total = float(columns.n) if weight is None else float(weight.sum())

    def mean(values: Any) -> float:
        values = np.asarray(values, np.float64)
        if not total:
            return 0.0
        # about the first value, so that large ones keep their digits
        first = float(values[0])
        around = values - first
        return first + float((around if weight is None else around * weight).sum()) / total

    codes = {name: design.codes(name, columns) for name in columns.factors}

    def counts(codes_of: Any, size: int) -> Vector:
        return np.bincount(codes_of, weight, size).astype(np.float64)

    def together(names: tuple[str, ...]) -> Vector:
        piece = Piece("", names, (), (False,) * len(names), names)
        return counts(design.combined(piece, codes, columns.n), design.n_levels(piece))

    return Centers(
        total,
        {name: mean(raw[name]) for name in numbers},
        0.0 if columns.offset is None else mean(columns.offset),
        {name: counts(codes[name], len(design.levels[name])) for name in columns.factors},
        {names: together(names) for names in joint},
    )
