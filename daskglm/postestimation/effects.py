"""Marginal effects: what one more unit of a column, or another level of it, does to the mean.

Averages over rows need one pass, effects at the means one pass for the means. Errors are those of the delta method,
var = J C J' with J the derivative of the effect in the coefficients, summed in the same pass, and C their covariance;
the rows count as given (Greene, Econometric Analysis, 7th edition, section 17.3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from daskglm.cluster.sources import Source, kinds
from daskglm.design.changes import Part, Raw, Recipe, Role, roles_of
from daskglm.design.columns import Columns, Ledger
from daskglm.design.grid import Centers, Grid, centers, outer
from daskglm.design.times import is_number
from daskglm.errors import DataError, DesignError, closest
from daskglm.inference import distributions
from daskglm.postestimation.revisit import Rows, RowsOf, Visit
from daskglm.record import FitRecord
from daskglm.totals.effects import Averages, Flat, Scalar, Surface, averages, averages_at, flat, surface_of

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

KINDS = ("dydx", "eyex", "dyex", "eydx")


@final
@dataclass(frozen=True)
class Leaf:
    """The rows of one leaf with the columns they came from: `columns` of the model's variables, `raw` of the table."""

    rows: Rows
    columns: Columns
    raw: Raw

    @property
    def ledger(self) -> Ledger:
        """What became of the rows of the leaf."""
        return self.rows.ledger

    @property
    def inside(self) -> Leaf:
        """Without the rows at the limit of an infinite optimum."""
        if self.rows.at_limit is None:
            return self
        index = np.flatnonzero(~self.rows.at_limit)
        rows = self.rows.inside
        return Leaf(rows, self.columns.take(index), Raw(self.raw.table, rows.place))

    @property
    def weight(self) -> Vector | None:
        """Of each row (n,), trials included."""
        weight = self.rows.block.weight
        return None if weight is None else weight.astype(np.float64)


@final
@dataclass(frozen=True)
class AlreadyRead:
    """The reading of one leaf whose columns are there, so that it is read once for them and for its rows."""

    columns: Columns

    def read(self, leaf: Any) -> Columns:
        """As they are."""
        return self.columns


@final
@dataclass(frozen=True)
class LeafOf:
    """A leaf to its Leaf."""

    rows_of: RowsOf

    def __call__(self, leaf: Any) -> Leaf:
        columns = self.rows_of.reading.read(leaf)
        rows = replace(self.rows_of, reading=AlreadyRead(columns))(leaf)  # type: ignore[arg-type]
        return Leaf(rows, columns, Raw(leaf.table, rows.place))


@final
class LeafReader:
    """Makes the reader of a visit, and keeps what it was told: the recipe and the roles of the columns."""

    recipe: Recipe
    roles: dict[str, Role]
    rows_of: RowsOf
    kinds: Mapping[str, Any]

    def __call__(self, rows_of: RowsOf, source: Source) -> LeafOf:
        import pyarrow as pa

        self.recipe = Recipe.of(rows_of.design, rows_of.reading)
        self.kinds = kinds(source)
        truths = [name for name, kind in source.types.items() if pa.types.is_boolean(kind)]
        self.roles = roles_of(rows_of.reading.variables, rows_of.design, self.kinds, truths)
        self.rows_of = rows_of
        return LeafOf(rows_of)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the right side, in order."""
        found = (c for v in self.recipe.variables if v.kind != "matrix" for c in v.expression.columns)
        return tuple(dict.fromkeys(found))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Those that are numbers and not levels."""
        levels = {name for name, role in self.roles.items() if role.factor is not None}
        return tuple(name for name in self.columns if is_number(self.kinds[name]) and name not in levels)


@final
@dataclass(frozen=True)
class Request:
    """Which effects: roles of the columns, and whether changes are relative to the mean (ey), to the column (ex)."""

    roles: tuple[Role, ...]
    of_logarithm: bool
    times_column: bool
    # columns of a sparse matrix
    matrix: bool = False


@final
@dataclass(frozen=True)
class Found:
    """The sums behind every effect asked for, in the order of the roles: one of slopes, or one per level; and of a matrix."""

    parts: tuple[Averages, ...]
    flat: Flat | None

    def __add__(self, other: Found) -> Found:
        both = None if self.flat is None or other.flat is None else self.flat + other.flat
        return Found(tuple(a + b for a, b in zip(self.parts, other.parts, strict=True)), both)


def effects_of(leaf: Leaf, request: Request, recipe: Recipe, surface: Surface, inside: bool) -> Found:
    """The sums of one leaf; inside: without the rows at a limit."""
    leaf = leaf.inside if inside else leaf
    block, columns, raw = leaf.rows.block, leaf.columns, leaf.raw
    parts = []
    for role in request.roles:
        if role.levels is None:
            times = np.asarray(raw[role.column], np.float64) if request.times_column else None
            part: Part | None = recipe.part(columns, raw, role.column, times)
            parts.append(averages(block, surface, request.of_logarithm, part))
            continue
        for place in range(len(role.levels)):
            changed = recipe.set_to(block, columns, raw, role, place)
            parts.append(averages(changed, surface, request.of_logarithm))
    sums = flat(block, surface, request.of_logarithm) if request.matrix and isinstance(surface, Scalar) else None
    return Found(tuple(parts), sums)


def centers_of(
    leaf: Leaf, recipe: Recipe, numbers: tuple[str, ...], joint: tuple[tuple[str, ...], ...], inside: bool
) -> Centers:
    """Means of numbers and shares of levels in one leaf."""
    leaf = leaf.inside if inside else leaf
    return centers(recipe, leaf.columns, leaf.raw, leaf.weight, numbers, joint)


def surface_for(visit: Visit, reader: LeafReader) -> Surface:
    """Predictions of the visited model."""
    return surface_of(visit.model, visit.coef, reader.rows_of.directions, left_out(visit.record))


def left_out(record: FitRecord) -> bool:
    """Whether rows at a limit were dropped, so that nothing is said of them."""
    return record.separation is not None and record.separation.dropped


def margins(
    record: FitRecord,
    data: Any,
    at: str,
    variables: Sequence[str] | str | None,
    kind: str,
    level: float,
    where: str | None = None,
) -> pd.DataFrame:
    """See `Fit.margins`."""
    for name, value, options in (("at", at, ("overall", "mean")), ("kind", kind, KINDS)):
        if value not in options:
            listed = ", ".join(f'"{option}"' for option in options)
            raise DesignError(f"{name}={value!r} is not one of {listed}{closest(str(value), options)}")
    check_level(level)
    names = (variables,) if isinstance(variables, str) else None if variables is None else tuple(variables)
    reader = LeafReader()
    with Visit(record, data, reader=reader, where=where) as v:
        request, columns = _request(record, reader, names, kind, at)
        surface = surface_for(v, reader)
        if at == "mean":
            sums = v.total_of_items(centers_of, reader.recipe, reader.numbers, (), left_out(record))
            require_rows(sums.weight)
            found = _at_means(request, reader, surface, sums)
        else:
            found = v.total_of_items(effects_of, request, reader.recipe, surface, left_out(record))
            require_rows(found.parts[0].weight if found.flat is None else found.flat.weight)
        lines = _lines(request, found, kind, columns, v)
    table = _table(record, lines, level)
    table.attrs |= {"notes": v.notes, "ledger": v.ledger}
    return table


def require_rows(weight: float) -> None:
    """Averages are over something."""
    if not weight > 0.0:
        raise DataError("the data have no rows that the model uses")


def check_level(level: float) -> None:
    """A coverage lies between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise DesignError(f"level must be between 0 and 1, not {level!r}")


def _request(
    record: FitRecord, reader: LeafReader, names: tuple[str, ...] | None, kind: str, at: str
) -> tuple[Request, tuple[str, ...]]:
    """What to sum up, and which columns of a sparse matrix are asked for."""
    roles, times = reader.roles, kind.endswith("ex")
    matrix = record.design.matrix
    entries: tuple[str, ...] = () if matrix is None else matrix.columns
    if names is None:
        chosen = tuple(role for role in roles.values() if role.numeric or not times)
        columns = entries
    else:
        strange = [name for name in names if name not in roles and name not in entries]
        if strange:
            known = [*roles, *entries]
            raise DesignError(
                f"{strange[0]!r} is not a column whose effect can be told{closest(strange[0], known)}; "
                f"there are: {', '.join(known[:30]) or 'none'}"
            )
        chosen = tuple(roles[name] for name in dict.fromkeys(names) if name in roles)
        columns = tuple(name for name in dict.fromkeys(names) if name in entries and name not in roles)
    factors = [role.column for role in chosen if not role.numeric]
    if times and factors:
        raise DesignError(f'kind="{kind}" is relative to the column, and {factors[0]} has levels: use "dydx" or "eydx"')
    if not chosen and not columns:
        raise DesignError("the model has no column whose effect could be told")
    if columns and (times or record.parameters.kind != "number" or at == "mean"):
        raise DesignError(
            'effects of a sparse matrix are there for at="overall", kind="dydx" or "eydx" and a response of one predictor'
        )
    return Request(chosen, kind.startswith("ey"), times, bool(columns)), columns


def _at_means(request: Request, reader: LeafReader, surface: Surface, sums: Centers) -> Found:
    """Effects on a row at the mean of every number, and in the share of every level."""
    recipe, roles = reader.recipe, reader.roles
    design = recipe.design
    if design.matrix is not None:
        raise DesignError('at="mean" is not available for a model of a sparse matrix; at="overall" is')
    for variable in recipe.variables:
        unknown = [name for name in variable.expression.columns if name not in roles and variable.kind == "numeric"]
        if unknown:
            raise DesignError(
                f'"{unknown[0]}" enters through {variable.name}, which has no value at a mean: use at="overall"'
            )
    shares = {name: counts / counts.sum() for name, counts in sums.levels.items()}
    plain = [name for name, role in roles.items() if role.factor is None]
    chosen = {name: np.array([sums.numbers[name]]) for name in plain}

    def at(changed: Mapping[str, Any], column: str | None = None) -> Averages:
        grid = Grid(recipe, {**chosen, **changed}, outer(shares), 1)
        x, dx = grid.rows()[0], None if column is None else grid.slopes(column)[0]
        if dx is not None and request.times_column:
            dx = dx * sums.numbers[column or ""]
        shift, scale = design.raw_scaling()
        return averages_at(
            (x - shift) * scale, None if dx is None else dx * scale, sums.offset, surface, request.of_logarithm
        )

    parts = []
    for role in request.roles:
        if role.levels is None:
            parts.append(at({}, role.column))
            continue
        values = [np.array([value], object if isinstance(value, str) else np.float64) for value in role.levels]
        parts += [at({role.column: value}) for value in values]
    return Found(tuple(parts), None)


@final
@dataclass(frozen=True)
class Line:
    """An effect of a variable: values (K,) and their derivatives (K, r) in the model's own coefficients."""

    variable: str
    contrast: str
    value: Vector
    jacobian: Matrix


def _lines(request: Request, found: Found, kind: str, columns: Sequence[str], v: Visit) -> list[Line]:
    """Sums divided by the weight, levels compared with their baseline."""
    lines: list[Line] = []
    parts = iter(found.parts)
    for role in request.roles:
        if role.levels is None:
            part = next(parts)
            lines.append(Line(role.column, kind, part.value / part.weight, part.jacobian / part.weight))
            continue
        every = [next(parts) for _ in role.levels]
        base = every[role.baseline]
        pattern = "log({}) - log({})" if request.of_logarithm else "{} - {}"
        for level, part in zip(role.levels, every, strict=True):
            if part is not base:
                name = pattern.format(level, role.levels[role.baseline])
                value = (part.value - base.value) / base.weight
                lines.append(Line(role.column, name, value, (part.jacobian - base.jacobian) / base.weight))
    if found.flat is not None:
        lines += _of_matrix(v, found.flat, kind, columns)
    return lines


def _of_matrix(v: Visit, sums: Flat, kind: str, columns: Sequence[str]) -> list[Line]:
    """Effects of columns that enter as they are: b_j mean(h'), with the derivative b_j mean(h'' x) + mean(h') e_j."""
    design = v.record.design
    factor = design.unscaling().factor
    lines = []
    for name in columns:
        j = design.names.index(name)
        slope = factor[j] * v.coef[j]
        jacobian = slope * sums.bend / sums.weight
        jacobian[j] += factor[j] * sums.slope / sums.weight
        lines.append(Line(name, kind, np.array([slope * sums.slope / sums.weight]), jacobian[None]))
    return lines


def _table(record: FitRecord, lines: Sequence[Line], level: float) -> pd.DataFrame:
    """Effects with their errors, tests and limits."""
    import pandas as pd

    parameters = record.parameters
    covariance = record.working.covariance
    value = np.concatenate([line.value for line in lines])
    jacobian = record.scale.in_basis(np.concatenate([line.jacobian for line in lines]))
    variance = np.einsum("ij,ij->i", jacobian @ covariance, jacobian)
    with np.errstate(invalid="ignore"):
        error = np.sqrt(np.maximum(variance, 0.0))
    names = ["variable", "contrast"]
    if parameters.kind == "number":
        index = pd.MultiIndex.from_tuples([(line.variable, line.contrast) for line in lines], names=names)
    else:
        every = [(line.variable, line.contrast, label) for line in lines for label in parameters.classes]
        index = pd.MultiIndex.from_tuples(every, names=[*names, "class"])
    return pd.DataFrame({"effect": value, **inferred(record, value, error, level)}, index=index)


def inferred(record: FitRecord, value: Vector, error: Vector, level: float) -> dict[str, Vector]:
    """se, stat, pvalue, lower, upper of estimates that would be 0, by the distribution of the fit's tests."""
    quantile = distributions.quantile(record.statistics, level)
    with np.errstate(invalid="ignore", divide="ignore"):
        stat = value / error
    return {
        "se": error,
        "stat": stat,
        "pvalue": distributions.p_value(record.statistics, stat),
        "lower": value - quantile * error,
        "upper": value + quantile * error,
    }
