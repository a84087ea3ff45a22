"""The same rows with a column set to something else, and the derivative of the columns of X in one column of the table.

A column of the table reaches X through every variable that reads it: as it is, through an expression, in a product, as
levels. Here all of them follow it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design import expressions
from daskglm.design.columns import Coded, Columns, product
from daskglm.design.design import Design
from daskglm.design.expressions import Expression
from daskglm.design.formula import Variable
from daskglm.design.pieces import Numbers, Piece
from daskglm.design.reading import Reading, beside_of
from daskglm.design.slopes import slope
from daskglm.design.times import is_number
from daskglm.errors import DataError, DesignError
from daskglm.kernels.blocks import Block, Levels, Scaling, code_dtype

Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@final
@dataclass(frozen=True)
class Role:
    """What a column of the table is to a model: a number (levels None), or one of the levels of `factor`, of which
    `baseline` is the one that others are compared with.
    """

    column: str
    levels: tuple[Any, ...] | None = None
    baseline: int = 0
    factor: str | None = None

    @property
    def numeric(self) -> bool:
        """Whether it varies continuously."""
        return self.levels is None

    def place(self, level: Any) -> int:
        """Where a level stands; a DesignError if it is none."""
        assert self.levels is not None
        return level_place(self.column, self.levels, level)


def level_place(name: str, levels: Sequence[Any], level: Any) -> int:
    """Where a level stands among others, as the value it is or as it is written."""
    for place, one in enumerate(levels):
        if type(one) is not str and not isinstance(level, str) and one == level:
            return place
    labels = [str(one) for one in levels]
    if str(level) not in labels:
        raise DesignError(f"{name} has no level {str(level)!r}; levels: {', '.join(labels[:20])}")
    return labels.index(str(level))


@final
@dataclass(frozen=True)
class Part:
    """d X / d x of some rows: the columns of X that move with x, in a block of their own, and d offset / d x (n,).

    places (width of the block,): which raw column each of its raw columns is; the first, its constant, is none.
    """

    block: Block
    scaling: Scaling
    places: Integers
    offset: Vector | None

    def coefficients(self, raw: Vector) -> Vector:
        """Of the block's raw columns, from those of all (width,)."""
        result = raw[self.places]
        result[0] = 0.0
        return result


class Raw(Mapping[str, npt.NDArray[Any]]):
    """The columns of a leaf's table as they are, for some of its rows: numbers, or text; some of them replaced."""

    def __init__(self, table: Any, place: npt.NDArray[np.intp], given: Mapping[str, Any] | None = None) -> None:
        self.table, self.place = table, place
        self._found: dict[str, npt.NDArray[Any]] = {n: np.full(place.size, v) for n, v in (given or {}).items()}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._found:
            found = beside_of(self.table, expressions.column(name), self.place)
            if isinstance(found, Coded):
                found = np.asarray(found.levels, object)[found.codes]
            self._found[name] = found
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.column_names)

    def __len__(self) -> int:
        return int(self.table.num_columns)

    def take(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """The columns an expression reads."""
        return {name: self[name] for name in names}


def is_plain(variable: Variable) -> bool:
    """Whether a variable is a column as it is."""
    return isinstance(variable.expression.tree, ast.Name)


def roles_of(
    variables: Sequence[Variable], design: Design, kinds: Mapping[str, Any], truths: Sequence[str]
) -> dict[str, Role]:
    """Every column of the right side that can be varied; truths: columns of true and false.

    Text of which the model knows conditions only, such as I(area == "B"), is not among them.
    """
    found: dict[str, Role] = {}
    for variable in variables:
        if variable.kind == "factor" and is_plain(variable):
            column = variable.expression.columns[0]
            role = Role(column, design.levels[variable.name], design.baselines[variable.name], variable.name)
            if column not in found or found[column].factor is None:
                found[column] = role
    result: dict[str, Role] = {}
    for variable in variables:
        for column in variable.expression.columns if variable.kind != "matrix" else ():
            if column in found:
                result[column] = found[column]
            elif column in truths:
                result[column] = Role(column, (False, True))
            elif is_number(kinds[column]) and _moves(column, variables):
                result[column] = Role(column)
    return result


def _moves(column: str, variables: Sequence[Variable]) -> bool:
    """Whether a number enters otherwise than by conditions such as C(age > 30)."""
    return any(v.kind == "numeric" and column in v.expression.columns for v in variables)


@final
@dataclass(frozen=True)
class Recipe:
    """How columns of a table become linear predictors: variables, offsets and exposure over a frozen design."""

    design: Design
    variables: tuple[Variable, ...]
    offsets: tuple[Expression, ...]
    exposure: Expression | float | None

    @staticmethod
    def of(design: Design, reading: Reading) -> Recipe:
        """The recipe of a reading."""
        return Recipe(design, reading.variables, reading.offsets, reading.exposure)

    def readers(self, column: str) -> tuple[Variable, ...]:
        """Variables that read a column."""
        return tuple(v for v in self.variables if column in v.expression.columns)

    def set_to(self, block: Block, columns: Columns, raw: Raw, role: Role, place: int) -> Block:
        """The block of the same rows with a column set to a level everywhere."""
        assert role.levels is not None
        level = role.levels[place]
        changed = Raw(raw.table, raw.place, {role.column: self._value(role, level)})
        numeric, factors = dict(columns.numeric), dict(columns.factors)
        readers = self.readers(role.column)
        for variable in readers:
            if variable.kind == "factor":
                factors[variable.name] = self._coded(variable, changed, level, columns.n)
            else:
                numeric[variable.name] = evaluated(variable, changed, columns.n)
        columns = replace(columns, numeric=numeric, factors=factors, offset=self._offset(columns, changed, role.column))
        return self.design.changed(block, columns, {v.name for v in readers})

    def _value(self, role: Role, level: Any) -> Any:
        if isinstance(level, str):
            return np.array(level, object)
        return level if isinstance(level, int) and abs(level) > 2**53 else float(level)

    def _coded(self, variable: Variable, raw: Raw, level: Any, n: int) -> Coded:
        if is_plain(variable):
            return Coded(np.zeros(n, np.int8), (level,))
        values = variable.expression.evaluate(raw.take(variable.expression.columns), text=True)
        values = np.broadcast_to(values if values.dtype.kind in "biuO" else values.astype(np.float64), (n,))
        levels, codes = np.unique(values, return_inverse=True)
        return Coded(codes.astype(code_dtype(max(len(levels), 1))), tuple(levels.tolist()))

    def _moved(self, column: str) -> bool:
        given = [*self.offsets, *([self.exposure] if isinstance(self.exposure, Expression) else [])]
        return any(column in e.columns for e in given)

    def _offset(self, columns: Columns, raw: Raw, column: str) -> Any:
        return self.offset(raw, columns.n) if self._moved(column) else columns.offset

    def offset(self, raw: Mapping[str, Any], n: int) -> Vector:
        """The offset (n,) of columns by name."""
        total = np.zeros(n)
        for e in self.offsets:
            total += e.evaluate({name: raw[name] for name in e.columns})
        if isinstance(self.exposure, Expression):
            total += np.log(self.exposure.evaluate({name: raw[name] for name in self.exposure.columns}))
        elif self.exposure is not None:
            total += np.log(self.exposure)
        return total

    def part(self, columns: Columns, raw: Raw, column: str, times: Vector | None = None) -> Part:
        """d X / d column of the rows, times a number of each row (n,) where there is one."""
        slopes: dict[str, Vector] = {}
        for variable in self.readers(column):
            if variable.kind != "numeric":
                continue
            found = slope(variable.expression, raw.take(variable.expression.columns), column)
            if not np.isfinite(found).all():
                raise DataError(
                    f"{variable.name} has no finite derivative in {column} in {int((~np.isfinite(found)).sum())} row(s)"
                )
            slopes[variable.name] = found if times is None else found * times
        numeric = self.design.numbers(columns)
        return self._part(columns, numeric, numeric.slopes(slopes), self._offset_slope(raw, columns.n, column, times))

    def _offset_slope(self, raw: Raw, n: int, column: str, times: Vector | None) -> Vector | None:
        if not self._moved(column):
            return None
        total = np.zeros(n)
        for e in self.offsets:
            if column in e.columns:
                total += slope(e, raw.take(e.columns), column)
        if isinstance(self.exposure, Expression) and column in self.exposure.columns:
            values = raw.take(self.exposure.columns)
            total += slope(self.exposure, values, column) / self.exposure.evaluate(values)
        return total if times is None else total * times

    def _part(
        self, columns: Columns, numeric: Mapping[str, Any], slopes: Mapping[str, Vector], offset: Vector | None
    ) -> Part:
        design = self.design
        scaling = design.scaling
        places: list[Any] = [[0]]
        dense, scale, levels, level_scale = [], [], [], []
        for j, piece in enumerate(design.dense):
            if set(piece.numeric) & set(slopes):
                dense.append(product_slope(numeric, piece.numeric, slopes))
                scale.append(scaling.scale[j])
                places.append([1 + j])
        at = 1 + len(design.dense)
        codes: dict[str, Any] = {}
        for k, piece in enumerate(design.factors):
            size = design.n_levels(piece)
            if set(piece.numeric) & set(slopes):
                for name in piece.factors:
                    codes.setdefault(name, design.codes(name, columns))
                there = design.combined(piece, codes, columns.n)
                levels.append(Levels(there, size, product_slope(numeric, piece.numeric, slopes)))
                level_scale.append(scaling.level_scale[k])
                places.append(np.arange(at, at + size))
            at += size
        block = Block(columns.n, tuple(dense), tuple(levels), np.zeros(columns.n, np.int8))
        of_part = Scaling(np.zeros(len(dense)), np.array(scale, float), np.array(level_scale, float))
        return Part(block, of_part, np.concatenate(places).astype(np.int64), offset)


def evaluated(variable: Variable, raw: Mapping[str, Any], n: int) -> Vector:
    """A numeric variable (n,) of columns by name."""
    found = variable.expression.evaluate({name: raw[name] for name in variable.expression.columns})
    return np.ascontiguousarray(np.broadcast_to(np.asarray(found, np.float64), (n,)))


def product_slope(numeric: Mapping[str, Any], names: tuple[str, ...], slopes: Mapping[str, Vector]) -> Vector:
    """The slope (n,) of a product of variables, of which those in `slopes` have one."""
    total: Any = None
    for k, name in enumerate(names):
        if name not in slopes:
            continue
        others = names[:k] + names[k + 1 :]
        term = slopes[name] * product(numeric, others) if others else slopes[name]
        total = term if total is None else total + term
    return np.ascontiguousarray(total, np.float64)


def pieces_by_raw(design: Design) -> list[tuple[Piece, int, int]]:
    """Each piece of numbers and levels with its first raw column and how many it has."""
    found, at = [], 1
    for piece in (*design.dense, *design.factors):
        size = design.n_levels(piece) if piece.factors else 1
        found.append((piece, at, size))
        at += size
    return found


def level_rows(design: Design, places: Mapping[str, npt.NDArray[Any]], n: int) -> npt.NDArray[np.float64]:
    """Raw columns (n, width) of combinations of the levels of some factors, by all terms of these factors alone.

    places: the level (n,) of each factor.
    """
    raw, rows = np.zeros((n, design.width)), np.arange(n)
    numbers = Numbers(design.states, {}, places)
    for piece, at, _ in pieces_by_raw(design):
        if set(piece.order) <= set(places):
            code = design.combined(piece, places, n).astype(np.intp)
            raw[rows, at + code] += product(numbers, piece.numeric) if piece.numeric else 1.0
    return raw
