"""Relativities as insurers read them: what each level multiplies the mean by, beside what was observed there and fitted.

exp(b_level - b_baseline) with limits from the covariance of the coefficients; sums of exposure, response and mean by level
come from one pass.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.changes import Role, level_rows
from daskglm.design.columns import Coded, product
from daskglm.design.design import Design
from daskglm.design.pieces import Piece
from daskglm.errors import DataError, DesignError, closest
from daskglm.inference import distributions
from daskglm.postestimation.bands import edges, labels
from daskglm.postestimation.effects import Leaf, LeafReader, left_out, require_rows, surface_for
from daskglm.postestimation.marginal_means import combined
from daskglm.postestimation.revisit import Visit
from daskglm.record import FitRecord
from daskglm.totals.effects import Surface, predictions

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class ByLevel:
    """Sums by level or band (k,): rows, weight m, exposure m s, response m y, fitted m mu; terms (k, t): m times each column
    of X that is of the banded number alone.
    """

    rows: Vector
    weight: Vector
    exposure: Vector
    observed: Vector
    fitted: Vector
    terms: Matrix

    def __add__(self, other: ByLevel) -> ByLevel:
        return ByLevel(
            self.rows + other.rows,
            self.weight + other.weight,
            self.exposure + other.exposure,
            self.observed + other.observed,
            self.fitted + other.fitted,
            self.terms + other.terms,
        )


@final
@dataclass(frozen=True)
class Tables:
    """One ByLevel for each variable."""

    parts: tuple[ByLevel, ...]

    def __add__(self, other: Tables) -> Tables:
        return Tables(tuple(a + b for a, b in zip(self.parts, other.parts, strict=True)))


@final
@dataclass(frozen=True)
class Banded:
    """A variable of the table: the role of its column, and where its bands are cut if it is a number."""

    role: Role
    cuts: tuple[float, ...] = ()
    # columns of X of this number alone, as places among the design's dense pieces
    own: tuple[int, ...] = ()
    # how the formula sees the column
    kind: str | None = None

    @property
    def key(self) -> str:
        """The name of the column."""
        return self.role.column

    @property
    def labels(self) -> tuple[str, ...]:
        """Of each level or band."""
        if self.role.levels is not None:
            return tuple(str(level) for level in self.role.levels)
        return tuple(labels(np.array(self.cuts), self.kind))


@final
@dataclass(frozen=True)
class Cells:
    """The combinations of the levels of several factors that interact, the last factor fastest."""

    roles: tuple[Role, ...]
    own: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """The name of the interaction, in columns of the data."""
        return ":".join(role.column for role in self.roles)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Levels of each factor."""
        return tuple(len(role.levels or ()) for role in self.roles)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of each combination."""
        return tuple(":".join(map(str, levels)) for levels in itertools.product(*(r.levels or () for r in self.roles)))

    def codes(self, leaf: Leaf, design: Design) -> npt.NDArray[Any]:
        """Which combination each row has (n,)."""
        places = [design.codes(str(role.factor), leaf.columns).astype(np.intp) for role in self.roles]
        return np.asarray(np.ravel_multi_index(places, self.sizes))

    def contrasts(self, design: Design) -> Matrix:
        """Each combination against that of the baselines, by every term of these factors (k, p)."""
        names = [str(role.factor) for role in self.roles]
        places = dict(zip(names, np.unravel_index(np.arange(math.prod(self.sizes)), self.sizes), strict=True))
        raw = level_rows(design, places, math.prod(self.sizes))
        baseline = np.ravel_multi_index([role.baseline for role in self.roles], self.sizes)
        raw -= raw[baseline].copy()
        return raw[:, design.select]


def tables_of(
    leaf: Leaf,
    variables: tuple[Banded | Cells, ...],
    surface: Surface,
    design: Design,
    exposure: Any,
    frequency: bool,
    inside: bool,
) -> Tables:
    """The sums of one leaf. exposure: an expression of the model's, the name of a column beside, or None."""
    leaf = leaf.inside if inside else leaf
    block, n = leaf.rows.block, leaf.rows.n
    weight = np.ones(n) if leaf.weight is None else leaf.weight
    size = _exposure(leaf, exposure)
    mean = predictions(block, surface)[0]
    rows = weight if frequency else np.ones(n)
    response = weight * np.asarray(block.y, np.float64)
    parts = []
    for variable in variables:
        k = len(variable.labels)
        codes = variable.codes(leaf, design) if isinstance(variable, Cells) else _codes(leaf, variable, design)

        def by_level(amount: Vector, codes: Any = codes, k: int = k) -> Vector:
            return np.bincount(codes, amount, k).astype(np.float64)

        terms = np.zeros((k, len(variable.own)))
        numeric = design.numbers(leaf.columns)
        for j, place in enumerate(variable.own):
            column = np.asarray(product(numeric, design.dense[place].numeric), np.float64)
            terms[:, j] = by_level(weight * column)
        parts.append(
            ByLevel(
                by_level(rows),
                by_level(weight),
                by_level(weight * size),
                by_level(response),
                by_level(weight * mean),
                terms,
            )
        )
    return Tables(tuple(parts))


def _exposure(leaf: Leaf, exposure: Any) -> Vector:
    """The exposure of each row (n,)."""
    if exposure is None:
        return np.ones(leaf.rows.n)
    if isinstance(exposure, str):
        found = leaf.rows.beside[exposure]
        if isinstance(found, Coded):
            raise DataError(f'exposure="{exposure}" holds text, not numbers')
        size = np.asarray(found, np.float64)
        wrong = ~(size >= 0.0)
        if wrong.any():
            raise DataError(
                f'{leaf.rows.label}: exposure="{exposure}" is missing or negative in {int(wrong.sum())} row(s) of the model'
            )
        return size
    values = exposure.evaluate(leaf.raw.take(exposure.columns))
    return np.broadcast_to(np.asarray(values, np.float64), (leaf.rows.n,))


def _codes(leaf: Leaf, variable: Banded, design: Design) -> npt.NDArray[Any]:
    role = variable.role
    if role.factor is not None:
        return design.codes(role.factor, leaf.columns)
    values = np.asarray(leaf.raw[role.column], np.float64)
    if role.levels is not None:
        return (values != 0.0).astype(np.intp)
    return np.searchsorted(np.array(variable.cuts), values, side="right")


def table(
    record: FitRecord,
    data: Any,
    level: float,
    exposure: str | None,
    bands: Mapping[str, Any] | None,
    where: str | None = None,
) -> pd.DataFrame:
    """See `Fit.relativities`."""
    import pandas as pd

    if record.parameters.kind != "number":
        raise DesignError("a table by level is there for a response of one linear predictor: leave data= out")
    _check_exposure(record, exposure)
    reader = LeafReader()
    beside = () if exposure is None or record.specification.exposure is not None else (exposure,)
    with Visit(record, data, beside, reader=reader, where=where) as v:
        variables = _variables(record, reader.roles, bands or {}, reader)
        given = exposure if beside else reader.recipe.exposure
        weights = record.specification.weights
        found = v.total_of_items(
            tables_of, variables, surface_for(v, reader), record.design, given,
            weights is not None and weights[0] == "frequency", left_out(record),
        )  # fmt: skip
    require_rows(float(found.parts[0].weight.sum()))
    frames = [
        _of_variable(record, variable, sums, level) for variable, sums in zip(variables, found.parts, strict=True)
    ]
    result = pd.concat(frames, keys=[variable.key for variable in variables], names=["variable", "level"])
    result.attrs |= {"notes": (*_notes(record, variables, reader), *v.notes), "ledger": v.ledger}
    return result


def _notes(record: FitRecord, variables: Sequence[Banded | Cells], reader: LeafReader) -> tuple[str, ...]:
    """For each variable of the table that takes part in further interactions: at which values of the others it holds."""
    design = record.design
    cells = {frozenset(str(r.factor) for r in v.roles): v.key for v in variables if isinstance(v, Cells)}
    notes = []
    for variable in variables:
        names = _names_of(variable, reader)
        others = [piece for piece in design.pieces if names & set(piece.order) and not set(piece.order) <= names]
        if not others:
            continue
        held = dict.fromkeys(_held(design, p, name, reader) for p in others for name in p.order if name not in names)
        terms = dict.fromkeys(piece.term for piece in others)
        rows = dict.fromkeys(cells[frozenset(p.order)] for p in others if frozenset(p.order) in cells)
        since = f"the model has {_listed(terms)}"
        if _has_columns(design, variable):
            note = f"{variable.key}: at {_listed(held)}, since {since}"
        else:
            note = f"{variable.key}: no relativity (NaN), since {since} and no term of {variable.key} alone"
        notes.append(note + (f"; see the rows {_listed(rows)} for every combination" if rows else ""))
    return tuple(notes)


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _names_of(variable: Banded | Cells, reader: LeafReader) -> set[str]:
    """The names that the pieces of the design have for the columns of a variable of the table."""
    if isinstance(variable, Cells):
        return {str(role.factor) for role in variable.roles}
    role = variable.role
    if role.factor is not None:
        return {role.factor}
    return {v.name for v in reader.recipe.variables if v.expression.columns == (role.column,)}


def _has_columns(design: Design, variable: Banded | Cells) -> bool:
    """Whether the model has columns of this variable alone."""
    if isinstance(variable, Cells):
        return True
    if variable.role.factor is not None:
        return any(set(piece.order) == {variable.role.factor} for piece in design.pieces)
    if variable.role.levels is not None:
        return any(piece.numeric == (variable.role.column,) for piece in design.dense)
    return bool(variable.own)


def _held(design: Design, piece: Piece, other: str, reader: LeafReader) -> str:
    """Where the columns of another variable of an interaction are zero."""
    if other in piece.coded:
        return f"the mean over the levels of {other}"
    if other in piece.factors:
        return f"{other} = {design.levels[other][design.baselines[other]]}"
    role = reader.roles.get(other)
    return f"{other} = {0 if role is None or role.levels is None else role.levels[0]}"


def _check_exposure(record: FitRecord, exposure: str | None) -> None:
    """What stands for the size of a row can be said once only."""
    specification = record.specification
    if exposure is None:
        return
    if not isinstance(exposure, str):
        raise DesignError(f"exposure= takes a column or an expression, not {type(exposure).__name__}")
    if specification.exposure is not None and exposure != specification.exposure:
        raise DesignError(f'the model was fitted with exposure="{specification.exposure}": leave exposure= out')
    weights = specification.weights
    if (weights is not None and weights[0] in ("variance", "trials")) or specification.trials is not None:
        raise DesignError(
            "the weights or trials of this model are the size of its rows, and are shown as exposure: leave exposure= out"
        )


def _variables(
    record: FitRecord, roles: Mapping[str, Role], bands: Mapping[str, Any], reader: LeafReader
) -> tuple[Banded | Cells, ...]:
    """Every column of levels, the numbers that are to be banded, in the order of the formula, and interactions of levels."""
    numbers = [name for name, role in roles.items() if role.numeric]
    for name in bands:
        if name not in numbers:
            raise DesignError(
                f'bands= is for numbers of the model, and "{name}" is none{closest(name, numbers)}: '
                f"{', '.join(numbers) or 'there are none'}"
            )
    found: list[Banded | Cells] = []
    for name, role in roles.items():
        if role.levels is not None:
            found.append(Banded(role))
        elif name in bands:
            kind = reader.kinds[name]
            cuts = edges(name, bands[name], kind)
            if not np.isfinite(cuts).all():
                raise DesignError(f'the edges of the bands of "{name}" must be finite, not {bands[name]!r}')
            alone = {v.name for v in reader.recipe.variables if v.kind == "numeric" and v.expression.columns == (name,)}
            places = [j for j, piece in enumerate(record.design.dense) if set(piece.order) <= alone]
            found.append(Banded(role, tuple(cuts.tolist()), tuple(places), kind))
    by_factor = {role.factor: role for role in roles.values() if role.factor is not None}
    interactions = dict.fromkeys(p.order for p in record.design.pieces if p.factors or p.coded)
    found += [
        Cells(tuple(by_factor[name] for name in names))
        for names in interactions
        if len(names) > 1 and set(names) <= set(by_factor)
    ]
    if not found:
        raise DesignError('the model has no levels to tell apart: bands={"age": [25, 40, 60]} cuts a number into bands')
    return tuple(found)


def _of_variable(record: FitRecord, variable: Banded | Cells, sums: ByLevel, level: float) -> pd.DataFrame:
    import pandas as pd

    if isinstance(variable, Cells):
        linear = variable.contrasts(record.design)
    else:
        linear = _contrasts(record.design, variable, sums)
    eta, covariance = combined(record, linear)
    error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    # what the model has no column of its own for is not known
    known = np.any(linear != 0.0)
    eta, error = (part if known else np.full(part.shape, np.nan) for part in (eta, error))
    half = distributions.quantile(record.statistics, level) * error
    with np.errstate(all="ignore"):
        frame = pd.DataFrame(
            {
                "relativity": np.exp(eta),
                "lower": np.exp(eta - half),
                "upper": np.exp(eta + half),
                "exposure": sums.exposure,
                "observed": sums.observed / sums.exposure,
                "fitted": sums.fitted / sums.exposure,
                "rows": sums.rows,
            },
            index=list(variable.labels),
        )
    return frame


def _contrasts(design: Design, variable: Banded, sums: ByLevel) -> Matrix:
    """Each level against the baseline, or each band's mean of the number's own columns against that of the first band with
    rows: combinations (k, p) of the reported coefficients.
    """
    role, k = variable.role, len(variable.labels)
    raw = np.zeros((k, design.width))
    if role.factor is not None:
        raw = level_rows(design, {role.factor: np.arange(k)}, k)
        raw -= raw[role.baseline].copy()
    elif role.levels is not None:
        for j, piece in enumerate(design.dense):
            if piece.numeric == (role.column,):
                raw[1, 1 + j] = 1.0
    else:
        with np.errstate(invalid="ignore"):
            means = sums.terms / sums.weight[:, None]
        first = int(np.argmax(sums.rows > 0))
        raw[:, [1 + j for j in variable.own]] = means - means[first]
        raw[sums.rows == 0] = 0.0
    return raw[:, design.select]
