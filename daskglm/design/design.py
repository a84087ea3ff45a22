"""The design, frozen: which raw columns a block has, which of them are columns of X, and what those are called."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.columns import Coded, Columns, product
from daskglm.design.formula import Part, Terms, Variable
from daskglm.design.pieces import Numbers, Piece, layout_of, moments_of, pieces_of
from daskglm.design.profile import Profile
from daskglm.design.transforms import State
from daskglm.errors import DataError, DesignError
from daskglm.kernels.blocks import Block, Column, Levels, Scaling, code_dtype
from daskglm.kernels.products import Layout

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Rescaling:
    """b = A b_scaled with A = diag(factor) + e_1 shift', the first coefficient being the intercept's: factor (p,),
    shift (p,), zero at the intercept, and everywhere without one. A itself is never formed, for p can be large.
    """

    factor: Vector
    shift: Vector

    def coefficients(self, scaled: Vector) -> Vector:
        """A b (p,)."""
        result = np.asarray(self.factor * scaled, np.float64)
        if self.shift.any():
            result[0] += self.shift @ scaled
        return result

    def covariance(self, scaled: Matrix) -> Matrix:
        """A C A' (p, p), C symmetric."""
        result = self.factor[:, None] * scaled * self.factor
        if self.shift.any():
            half = scaled @ self.shift
            result[0, :] += half * self.factor
            result[:, 0] += half * self.factor
            result[0, 0] += self.shift @ half
        return np.asarray(result)

    def inverse(self) -> Rescaling:
        """b_scaled = A^-1 b."""
        return Rescaling(1.0 / self.factor, -self.shift / self.factor)

    def amplifies(self, scaled: Matrix) -> float:
        """How many times larger than a variance of A C A' the terms are that it is summed up from, at most."""
        if not self.shift.any():
            return 1.0
        found = self.covariance(scaled)[0, 0]
        size = Rescaling(np.abs(self.factor), np.abs(self.shift)).covariance(np.abs(scaled))[0, 0]
        return float(size / found) if found > 0.0 else np.inf

    def matrix(self) -> Matrix:
        """A (p, p)."""
        result = np.diag(self.factor)
        if self.shift.any():
            result[0, :] += self.shift
        return result


@final
@dataclass(frozen=True)
class Design:
    """Everything that turns Columns into a Block and a raw vector into parameters, learnt from the profile and frozen.

    levels: per factor, in order; baselines: index of the level left out; names (p,): parameter names in formula order;
    select (p,): which raw column each one is; moments: per numeric product (mean, root mean square about it, root mean
    square), by which columns are shifted and scaled; y_levels: (failure, success) of a text response; sizes (p_s,): root
    mean square of each column of a sparse matrix; states: by name, of the variables whose columns a transform makes.
    """

    terms: tuple[str, ...]
    intercept: bool
    pieces: tuple[Piece, ...]
    levels: Mapping[str, tuple[Any, ...]]
    baselines: Mapping[str, int]
    names: tuple[str, ...]
    term_of: tuple[str, ...]
    select: npt.NDArray[np.int64]
    moments: Mapping[tuple[str, ...], tuple[float, float, float]]
    y_levels: tuple[Any, ...]
    notes: tuple[str, ...] = ()
    sizes: Vector = field(default_factory=lambda: np.zeros(0))
    states: Mapping[str, State] = field(default_factory=dict)

    @staticmethod
    def learn(
        terms: Terms,
        profile: Profile,
        keep_order: frozenset[str] = frozenset(),
        response: str = "",
        matrix: Sequence[str] = (),
        classes: Classes | None = None,
        distinct: bool = True,
    ) -> Design:
        """Settle levels, baselines, names and scales. keep_order: factors whose levels stay in their declared order;
        matrix: names of the columns of the sparse matrix that the terms may name; classes: what is asked of the levels
        of the response, where it is one of several classes; distinct: whether all terms are of one model, in which two
        parameters of the same name are an error.
        """
        levels: dict[str, tuple[Any, ...]] = {}
        baselines: dict[str, int] = {}
        notes: list[str] = []
        for variable in terms.variables:
            if variable.kind == "factor":
                levels[variable.name] = _levels(variable, profile, keep_order, notes)
                baselines[variable.name] = _baseline(variable, levels[variable.name], profile)
        states = _states(terms, levels, profile)
        pieces = tuple(
            piece for name, part in terms.parts if part.variables for piece in pieces_of(name, part, states, matrix)
        )
        moments = {key: _scale(*sums) for key, sums in profile.moments.items()}
        made = {label for state in states.values() for label in state.labels}
        moments |= {p.numeric: moments_of(p, states, moments) for p in pieces if made & set(p.numeric)}
        ordered = bool(terms.response) and terms.response[0].column in keep_order
        y_levels = _y_levels(profile, response, ordered, classes or Classes(), notes)
        names, term_of, select = layout_of(terms.intercept, pieces, levels, baselines, states)
        if distinct and len(set(names)) < len(names):
            twice = min(name for name, count in Counter(names).items() if count > 1)
            raise DesignError(f'two parameters would be called "{twice}": rename the column')
        return Design(
            terms.names, terms.intercept, pieces, levels, baselines, names, term_of, select, moments, y_levels,
            tuple(notes), _sizes(profile), states,
        )  # fmt: skip

    @property
    def dense(self) -> tuple[Piece, ...]:
        """Pieces of one numeric column."""
        return tuple(piece for piece in self.pieces if not piece.factors and not piece.columns)

    @property
    def empty_terms(self) -> tuple[str, ...]:
        """Terms without a parameter, for a factor of theirs has one level."""
        single = {name for name, levels in self.levels.items() if len(levels) < 2}
        found = dict.fromkeys(
            piece.term for piece in self.pieces if piece.term not in self.term_of and single & set(piece.factors)
        )
        return tuple(found)

    def single_levels(self, term: str) -> str:
        """The factors of a term that have one level, in words."""
        names = dict.fromkeys(name for piece in self.pieces if piece.term == term for name in piece.factors)
        found = [f'{name} has the level "{self.levels[name][0]}" only' for name in names if len(self.levels[name]) == 1]
        return " and ".join(found)

    @property
    def factors(self) -> tuple[Piece, ...]:
        """Pieces with levels."""
        return tuple(piece for piece in self.pieces if piece.factors)

    @property
    def matrix(self) -> Piece | None:
        """The piece of a sparse matrix."""
        return next((piece for piece in self.pieces if piece.columns), None)

    @property
    def layout(self) -> Layout:
        """Which tables the Gram of its blocks has."""
        return Layout(len(self.dense), tuple(self.n_levels(piece) for piece in self.factors), self.sizes.size)

    def n_levels(self, piece: Piece) -> int:
        """Combinations of levels in a piece, baselines included."""
        return math.prod(len(self.levels[name]) for name in piece.factors)

    @property
    def width(self) -> int:
        """Number of raw columns: [1 | dense | levels | sparse]."""
        return self.layout.width

    @property
    def scaling(self) -> Scaling:
        """Shift by the mean (where there is an intercept to take it up) and scale to unit spread; sparse columns are
        scaled to unit root mean square.
        """
        shift, scale = [], []
        for piece in self.dense:
            mean, spread, size = self.moments[piece.numeric]
            shift.append(mean if self.intercept else 0.0)
            scale.append(_reciprocal(spread if self.intercept else size, size))
        valued = [_reciprocal(self.moments[p.numeric][2], 0.0) if p.numeric else 1.0 for p in self.factors]
        with np.errstate(divide="ignore", over="ignore"):
            sparse = 1.0 / self.sizes
        sparse[~(np.isfinite(sparse) & (sparse > 0.0))] = 1.0
        return Scaling(np.array(shift, float), np.array(scale, float), np.array(valued, float), sparse)

    def raw_scaling(self) -> tuple[Vector, Vector]:
        """(shift, factor), each (width,): raw columns enter the arithmetic as (x - shift) factor."""
        scaling = self.scaling
        factor = np.ones(self.width)
        factor[1 : 1 + len(self.dense)] = scaling.scale
        at = 1 + len(self.dense)
        for piece, scale in zip(self.factors, scaling.level_scale, strict=True):
            factor[at : at + self.n_levels(piece)] = scale
            at += self.n_levels(piece)
        factor[at:] = scaling.sparse_scale
        shift = np.zeros(self.width)
        shift[1 : 1 + len(self.dense)] = scaling.shift
        return shift, factor

    def unscaling(self) -> Rescaling:
        """From scaled coefficients to those of the columns as the user has them."""
        shift, factor = self.raw_scaling()
        moved = -shift * factor if self.intercept else np.zeros(self.width)
        return Rescaling(factor[self.select], moved[self.select])

    def by_level(self, raw: Vector) -> dict[str, Vector]:
        """A number per raw column (width,) summed over the columns of each level of each factor that leaves one out."""
        result: dict[str, Vector] = {}
        at = 1 + len(self.dense)
        for piece in self.factors:
            sizes = [len(self.levels[name]) for name in piece.factors]
            # the first factor is the fastest, which is the last axis
            table = raw[at : at + self.n_levels(piece)].reshape(sizes[::-1])
            for place, name in enumerate(piece.factors):
                others = tuple(axis for axis in range(len(sizes)) if axis != len(sizes) - 1 - place)
                result[name] = result.get(name, np.zeros(sizes[place])) + table.sum(axis=others)
            at += self.n_levels(piece)
        coded = {
            name for piece in self.factors for name, full in zip(piece.factors, piece.full, strict=True) if not full
        }
        return {name: sums for name, sums in result.items() if name in coded}

    def level_name(self, column: int) -> str:
        """What the raw column of a level, or of levels of several factors, stands for: area[B]."""
        at = 1 + len(self.dense)
        for piece in self.factors:
            if column < at + self.n_levels(piece):
                break
            at += self.n_levels(piece)
        # the first factor is the fastest
        code, parts = column - at, []
        for name in piece.factors:
            code, index = divmod(code, len(self.levels[name]))
            parts.append(f"{name}[{self.levels[name][index]}]")
        return ":".join(parts)

    def rebased(self, baselines: Mapping[str, int], notes: Sequence[str]) -> Design:
        """The same raw columns with other levels left out."""
        chosen = {**self.baselines, **baselines}
        names, term_of, select = layout_of(self.intercept, self.pieces, self.levels, chosen, self.states)
        return replace(self, baselines=chosen, names=names, term_of=term_of, select=select, notes=(*self.notes, *notes))

    def encode(self, columns: Columns, unseen: str = "raise") -> Block:
        """The Block of one leaf. A level that was not learnt: DataError, the baseline, or the row's weight set to NaN."""
        n = columns.n
        codes = {name: self._codes(name, coded, unseen) for name, coded in columns.factors.items()}
        numeric = Numbers(self.states, columns.numeric, codes)
        dense = tuple(product(numeric, piece.numeric) for piece in self.dense)
        levels = tuple(self._levels_of(piece, codes, numeric, n) for piece in self.factors)
        y, weight = self._y(columns), columns.weight
        if columns.trials is not None:
            trials = np.asarray(columns.trials, np.float64)
            weight = trials if weight is None else trials * weight
        return Block(
            n, dense, levels, y, weight, columns.offset, columns.trials, columns.sparse, columns.others,
            columns.clusters,
        )  # fmt: skip

    def changed(self, block: Block, columns: Columns, names: Collection[str], unseen: str = "raise") -> Block:
        """The block of the same rows with other values of some variables, `columns` having those; the rest is shared."""
        moved = {piece.part for piece in self.pieces if set(names) & set(piece.order)}
        needed = {name for piece in self.pieces if piece.part in moved for name in (*piece.factors, *piece.coded)}
        codes = {name: self._codes(name, columns.factors[name], unseen) for name in needed}
        numeric = Numbers(self.states, columns.numeric, codes)
        dense = tuple(
            product(numeric, piece.numeric) if piece.part in moved else column
            for piece, column in zip(self.dense, block.dense, strict=True)
        )
        levels = tuple(
            self._levels_of(piece, codes, numeric, columns.n) if piece.part in moved else there
            for piece, there in zip(self.factors, block.levels, strict=True)
        )
        return replace(block, dense=dense, levels=levels, offset=columns.offset)

    def _levels_of(
        self, piece: Piece, codes: Mapping[str, npt.NDArray[Any]], numeric: Mapping[str, Column], n: int
    ) -> Levels:
        """A piece with levels, of the codes of each factor."""
        value = None
        if piece.numeric:
            value = np.ascontiguousarray(product(numeric, piece.numeric), np.float64)
        return Levels(self.combined(piece, codes, n), self.n_levels(piece), value)

    def numbers(self, columns: Columns) -> Numbers:
        """The numeric variables of some rows by the names in which pieces have them, each (n,)."""
        coded = {name for piece in self.pieces for name in piece.coded}
        return Numbers(self.states, columns.numeric, {name: self.codes(name, columns) for name in coded})

    def column_bytes(self, piece: Piece) -> int:
        """Bytes per row of the numeric column of a piece."""
        if len(piece.numeric) > 1 or not piece.coded:
            return 8
        (name,) = piece.coded
        column = self.states[name].column(piece.place(name), np.zeros(0, np.int64))
        return 8 if piece.factors else column.dtype.itemsize

    def contrast(self, piece: Piece) -> Vector:
        """The product of the contrast columns of a piece, at all combinations of levels of its coded factors, the first
        one fastest.
        """
        result: Vector = np.ones(1)
        for name in piece.coded:
            column = self.states[name].column(piece.place(name), np.arange(len(self.levels[name])))
            result = np.asarray(np.kron(column, result), np.float64)
        return result

    def combined(self, piece: Piece, codes: Mapping[str, npt.NDArray[Any]], n: int) -> npt.NDArray[Any]:
        """The code (n,) of the levels of several factors together, the first factor fastest."""
        stride, result = 1, np.zeros(n, code_dtype(max(self.n_levels(piece), 1)))
        for name in piece.factors:
            result = result + (codes[name].astype(result.dtype) * result.dtype.type(stride))
            stride *= len(self.levels[name])
        return result

    def codes(self, name: str, columns: Columns) -> npt.NDArray[Any]:
        """Which of the learnt levels each row (n,) has."""
        return self._codes(name, columns.factors[name], "raise")

    def _y(self, columns: Columns) -> Any:
        if columns.y is None:
            return np.zeros(columns.n, np.int8)
        if not isinstance(columns.y, Coded):
            return columns.y
        place = {level: i for i, level in enumerate(self.y_levels)}
        table = np.array([place.get(level, -1) for level in columns.y.levels] or [0], code_dtype(len(place) + 1))
        return table[columns.y.codes]

    def _codes(self, name: str, coded: Coded, unseen: str) -> npt.NDArray[Any]:
        place = {level: i for i, level in enumerate(self.levels[name])}
        dtype = code_dtype(max(len(self.levels[name]), 1))
        table = np.array([place.get(level, -1) for level in coded.levels] or [0], np.int64)
        if (table < 0).any():
            used = np.zeros(len(table), bool)
            used[coded.codes] = True
            strange = [level for level, t, u in zip(coded.levels, table, used, strict=False) if t < 0 and u]
            if strange and unseen == "raise":
                raise DataError(
                    f"{name} has levels that the model has not seen: {', '.join(map(str, strange[:5]))}; "
                    'unseen="baseline" scores them as the baseline, unseen="missing" as NaN'
                )
            table[table < 0] = self.baselines[name]
        return table.astype(dtype)[coded.codes]

    def unseen_rows(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Rows with a level that was not learnt (n,)."""
        return np.logical_or.reduce([np.zeros(columns.n, bool), *self.unseen_by_factor(columns).values()])

    def unseen_by_factor(self, columns: Columns) -> dict[str, npt.NDArray[np.bool_]]:
        """Rows with a level that was not learnt (n,), of each factor that has such rows."""
        result = {}
        for name, coded in columns.factors.items():
            known = set(self.levels[name])
            strange = np.array([level not in known for level in coded.levels] or [False])
            if strange.any() and strange[coded.codes].any():
                result[name] = strange[coded.codes]
        return result


def _levels(variable: Variable, profile: Profile, keep_order: frozenset[str], notes: list[str]) -> tuple[Any, ...]:
    counts = profile.levels[variable.name]
    present = [level for level, count in counts.items() if count > 0]
    absent = [level for level, count in counts.items() if not count > 0]
    kept = variable.expression.column in keep_order
    if kept and absent:
        notes.append(f"{variable.name}: declared levels without rows are dropped: {', '.join(map(str, absent))}")
    if kept:
        return tuple(present)
    try:
        return tuple(sorted(present))
    except TypeError:
        return tuple(sorted(present, key=str))


def _baseline(variable: Variable, levels: tuple[Any, ...], profile: Profile) -> int:
    if variable.largest:
        counts = profile.levels[variable.name]
        return max(range(len(levels)), key=lambda i: (counts[levels[i]], -i), default=0)
    if variable.baseline is None:
        return 0
    if variable.baseline in levels:
        return levels.index(variable.baseline)
    labels = [str(level) for level in levels]
    if str(variable.baseline) not in labels:
        raise DesignError(f"{variable.name}: there is no level {variable.baseline!r}; levels: {', '.join(labels[:20])}")
    return labels.index(str(variable.baseline))


def _sizes(profile: Profile) -> Vector:
    """Root mean squares of the columns of a sparse matrix."""
    if profile.squares is None:
        return np.zeros(0)
    return np.asarray(np.sqrt(profile.squares / max(profile.n, 1)), np.float64)


def _scale(n: int, mean: float, squares: float) -> tuple[float, float, float]:
    if not n:
        return 0.0, 1.0, 1.0
    spread = math.sqrt(squares / n)
    return mean, spread, math.hypot(mean, spread)


def _reciprocal(spread: float, size: float) -> float:
    """1 / spread, or 1 where a column is constant to rounding."""
    if spread <= 1e-14 * size or spread <= 0.0 or not math.isfinite(1.0 / spread):
        return 1.0 / size if size > 0 and math.isfinite(1.0 / size) else 1.0
    return 1.0 / spread


@final
@dataclass(frozen=True)
class Classes:
    """What is asked of a response whose values are levels: how many there may be at most, and which, in which order."""

    most: int | None = 2
    levels: tuple[Any, ...] | None = None
    # whether an order of text that is only alphabetical deserves a word
    ordered: bool = False


def _y_levels(profile: Profile, response: str, kept: bool, asked: Classes, notes: list[str]) -> tuple[Any, ...]:
    """Levels of the response in order: as given, as declared, or sorted."""
    if not profile.y_levels:
        return ()
    present = [level for level, count in profile.y_levels.items() if count > 0]
    if asked.most is None and any(isinstance(level, float) and not level.is_integer() for level in present):
        raise DataError(
            f'the response "{response}" has numbers that are not whole: a response of classes has few values'
        )
    if asked.levels is not None:
        return _given_levels(present, asked.levels, response)
    if not kept:
        try:
            present.sort()
        except TypeError:
            present.sort(key=str)
        if asked.ordered and any(isinstance(level, str) for level in present):
            notes.append(f"classes of {response} in alphabetical order: {' < '.join(map(str, present))}")
    if len(present) < 2 or (asked.most is not None and len(present) > asked.most):
        allowed = (
            "a binomial response has two, of which the second is success" if asked.most == 2 else "it needs two or more"
        )
        raise DataError(
            f'the response "{response}" has {len(present)} level(s) ({", ".join(map(str, present[:8]))}); {allowed}'
        )
    return tuple(present)


def _given_levels(present: Sequence[Any], given: Sequence[Any], response: str) -> tuple[Any, ...]:
    """The levels that were given, each as the data write it."""
    by_label = {str(level): level for level in present}
    strange = [label for label in by_label if label not in map(str, given)]
    if strange:
        raise DataError(f'the response "{response}" has levels that levels= does not name: {", ".join(strange[:8])}')
    missing = [str(level) for level in given if str(level) not in by_label]
    if missing:
        raise DataError(
            f'no row has the level(s) {", ".join(missing[:8])} of the response "{response}": leave them out of levels='
        )
    return tuple(by_label[str(level)] for level in given)


def _states(terms: Terms, levels: Mapping[str, tuple[Any, ...]], profile: Profile) -> dict[str, State]:
    """What the transforms of all variables learn."""
    found = {}
    for variable in terms.variables:
        if variable.transform is not None:
            factor = variable.kind == "factor"
            record = levels[variable.name] if factor else profile.learnt[variable.name]
            state = variable.transform.learn(variable.name, record)
            if state is not None:
                found[variable.name] = state
    return found


def products_of(terms: Terms) -> tuple[tuple[str, ...], ...]:
    """The numeric products that appear among the columns, whose moments the profile must know; without variables that a
    transform changes, of which their states have them.
    """

    def key(part: Part) -> tuple[str, ...]:
        return tuple(v.name for v in part.variables if v.kind == "numeric" and v.transform is None)

    return tuple(dict.fromkeys(key(part) for _, part in terms.parts if key(part)))
