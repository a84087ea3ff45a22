"""Runs of columns of X: the pieces of each term, their names and their columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.formula import Part
from daskglm.design.transforms import State
from daskglm.kernels.blocks import Column

Vector = npt.NDArray[np.float64]
# The (mean, root mean square about it, root mean square) of a numeric column.
Moments = tuple[float, float, float]


@final
@dataclass(frozen=True)
class Piece:
    """A run of columns of X from one part of a term: factors by numeric products, or a matrix.

    factors: names, first fastest; numeric: names multiplied; full: which factors keep their
    baseline; term: its name; order: how the variables stand in parameter names; columns: of a
    sparse matrix, the names of its columns; coded: factors that stand in numeric by a column of
    their contrast; places: for each variable in order, which of the columns that its transform
    makes, -1 for levels.
    """

    term: str
    factors: tuple[str, ...]
    numeric: tuple[str, ...]
    full: tuple[bool, ...]
    order: tuple[str, ...]
    columns: tuple[str, ...] = ()
    coded: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    def place(self, variable: str) -> int:
        """Which of a variable's columns stands in the piece."""
        return self.places[self.order.index(variable)] if self.places else 0

    @property
    def part(self) -> tuple[Any, ...]:
        """What the pieces of one part of a term have in common."""
        return self.term, self.factors, self.full, self.order, self.coded, self.columns


@final
class Numbers(Mapping[str, Column]):
    """Numeric columns by name: variables as they are, and those that transforms make when needed.

    numeric: values of numeric variables, codes: of factors, each (n,).
    """

    def __init__(
        self,
        states: Mapping[str, State],
        numeric: Mapping[str, Column],
        codes: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        self.numeric, self.states = numeric, states
        self.given: dict[str, Any] = {n: numeric.get(n, codes.get(n)) for n in states}
        self.made = {
            label: (name, j)
            for name, values in self.given.items()
            if values is not None
            for j, label in enumerate(states[name].labels)
        }

    def __getitem__(self, name: str) -> Column:
        if name not in self.made:
            return self.numeric[name]
        variable, j = self.made[name]
        return self.states[variable].column(j, self.given[variable])

    def __contains__(self, name: object) -> bool:
        return name in self.made or name in self.numeric

    def __iter__(self) -> Iterator[str]:
        plain = (name for name in self.numeric if name not in self.states)
        return iter(dict.fromkeys((*plain, *self.made)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def slopes(self, slopes: Mapping[str, Vector]) -> dict[str, Vector]:
        """d column / d x (n,) of each column that moves with x, from the slopes of variables."""
        found = {}
        for name, slope in slopes.items():
            if name not in self.states:
                found[name] = slope
                continue
            state = self.states[name]
            for j, label in enumerate(state.labels):
                found[label] = slope * state.slope(j, self.given[name])
        return found


def pieces_of(
    term: str,
    part: Part,
    states: Mapping[str, State],
    matrix: Sequence[str],
) -> list[Piece]:
    """The pieces of a part of a term: one for each combination of the columns that transforms make.
    A factor that keeps all its levels has none of those.
    """
    made = [v.name for v in part.variables if v.name in states and not part.full.get(v.name, False)]
    factors = tuple(v.name for v in part.variables if v.kind == "factor" and v.name not in made)
    levels = {v.name for v in part.variables if v.kind == "factor"} - set(made)
    pieces = []
    for chosen in itertools.product(*(range(len(states[name].labels)) for name in made)):
        place = dict(zip(made, chosen, strict=True))
        numeric = tuple(
            states[v.name].labels[place[v.name]] if v.name in place else v.name
            for v in part.variables
            if v.name in place or v.kind == "numeric"
        )
        pieces.append(
            Piece(
                term,
                factors,
                numeric,
                tuple(part.full[name] for name in factors),
                tuple(v.name for v in part.variables),
                tuple(matrix) if any(v.kind == "matrix" for v in part.variables) else (),
                tuple(v.name for v in part.variables if v.kind == "factor" and v.name in place),
                tuple(-1 if v.name in levels else place.get(v.name, 0) for v in part.variables),
            )
        )
    return pieces


def moments_of(
    piece: Piece,
    states: Mapping[str, State],
    plain: Mapping[tuple[str, ...], Moments],
) -> Moments:
    """By which the product of a piece's numeric columns is scaled, of which transforms make some.

    The moments of a single column are exact. A product is not shifted, and its size is about that
    of independent factors: the arithmetic is exact at any scale.
    """
    made = {states[name].labels[piece.place(name)]: name for name in piece.order if name in states}
    names = [name for label, name in made.items() if label in piece.numeric]
    parts = [states[name].moments(piece.place(name)) for name in names]
    rest = tuple(name for name in piece.numeric if name not in made)
    parts += [plain[rest]] if rest else []
    if len(parts) == 1:
        return parts[0]
    size = math.prod(size for _, _, size in parts)
    return 0.0, size, size


def layout_of(
    intercept: bool,
    pieces: Sequence[Piece],
    levels: Mapping[str, tuple[Any, ...]],
    baselines: Mapping[str, int],
    states: Mapping[str, State],
) -> tuple[tuple[str, ...], tuple[str, ...], npt.NDArray[np.int64]]:
    """Parameter names in formula order, the term each belongs to, and its raw column."""
    names, terms, select = (["Intercept"], ["Intercept"], [0]) if intercept else ([], [], [])
    dense_at = 1
    level_at = 1 + sum(1 for piece in pieces if not piece.factors and not piece.columns)
    sizes = [math.prod(len(levels[name]) for name in p.factors) for p in pieces if p.factors]
    sparse_at = level_at + sum(sizes)
    for _, group in itertools.groupby(pieces, lambda piece: piece.part):
        found: list[tuple[tuple[int, ...], str, int]] = []
        for piece in group:
            if piece.columns:
                found += [((j,), name, sparse_at + j) for j, name in enumerate(piece.columns)]
            elif not piece.factors:
                found.append(_parameter(piece, {}, states, levels, dense_at))
                dense_at += 1
            else:
                found += _of_levels(piece, states, levels, baselines, level_at)
                level_at += math.prod(len(levels[name]) for name in piece.factors)
        # of the columns of several variables those of the first change fastest
        for _, name, column in sorted(found, key=lambda one: one[0]):
            names.append(name)
            select.append(column)
        terms.extend([piece.term] * (len(names) - len(terms)))
    return tuple(names), tuple(terms), np.array(select, np.int64)


def _of_levels(
    piece: Piece,
    states: Mapping[str, State],
    levels: Mapping[str, tuple[Any, ...]],
    baselines: Mapping[str, int],
    start: int,
) -> list[tuple[tuple[int, ...], str, int]]:
    """The parameters of the combinations of levels of a piece that are not those of a baseline."""
    found = []
    sizes = [len(levels[name]) for name in piece.factors]
    full = dict(zip(piece.factors, piece.full, strict=True))
    for column, reverse in enumerate(itertools.product(*(range(size) for size in reversed(sizes)))):
        index = dict(zip(piece.factors, reversed(reverse), strict=True))
        if all(full[name] or index[name] != baselines[name] for name in piece.factors):
            found.append(_parameter(piece, index, states, levels, start + column))
    return found


def _parameter(
    piece: Piece,
    index: Mapping[str, int],
    states: Mapping[str, State],
    levels: Mapping[str, tuple[Any, ...]],
    column: int,
) -> tuple[tuple[int, ...], str, int]:
    """Where a parameter stands within its part of a term, its name, and its raw column.

    index: the levels of factors.
    """
    full = dict(zip(piece.factors, piece.full, strict=True))
    labels, places = [], []
    for name in piece.order:
        if name in index:
            labels.append(f"{name}[{'' if full[name] else 'T.'}{levels[name][index[name]]}]")
            places.append(index[name])
        else:
            places.append(piece.place(name))
            labels.append(states[name].labels[places[-1]] if name in states else name)
    return tuple(reversed(places)), ":".join(labels), column
