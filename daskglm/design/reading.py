"""One leaf's table to the variables of a model: evaluated, checked, rows with missing values compacted away and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, final

import numpy as np
import numpy.typing as npt

from daskglm.design import times
from daskglm.design.clusters import keys_of
from daskglm.design.columns import Arena, Coded, Columns, Ledger, copied, product
from daskglm.design.expressions import Expression
from daskglm.design.formula import Variable
from daskglm.errors import DataError
from daskglm.kernels.blocks import Column, Sparse, Vector, as_column, code_dtype, has_large
from daskglm.kernels.moments import column_moments

Mask = npt.NDArray[np.bool_]
Missing = Literal["drop", "raise"]


@final
@dataclass(frozen=True)
class Reading:
    """What to read of a table, and how: the frozen recipe that turns any leaf into Columns.

    response: one expression, or successes and failures, or with `several` one for each response; response_levels: whether its values are levels;
    frequencies: whether weights count rows; scoring: whether
    rows are scored, so that what cannot be computed is missing and no error; counts:
    whether it counts successes out of `trials`, of which it is otherwise the proportion.
    products: the numeric products whose moments the design will need, by names of variables. passing: the columns are
    used once and given up, as when they are read again in every pass: no moments. matrix: names of the columns of the
    sparse matrix that a variable stands for. clusters: columns that say which rows belong together, for each way.
    """

    variables: tuple[Variable, ...]
    products: tuple[tuple[str, ...], ...]
    response: tuple[Expression, ...]
    response_name: str
    response_levels: bool
    support: Any
    support_text: str
    weight: Expression | None
    trials: Expression | None
    offsets: tuple[Expression, ...]
    exposure: Expression | float | None
    missing: Missing = "drop"
    frequencies: bool = False
    scoring: bool = False
    passing: bool = False
    counts: bool = False
    matrix: tuple[str, ...] = ()
    several: bool = False
    clusters: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns that are needed, and no others."""
        return tuple(dict.fromkeys((*self.of_model, *self.clusters)))

    @property
    def of_model(self) -> tuple[str, ...]:
        """Names of the columns that the model itself is made of."""
        found: dict[str, None] = {}
        for expression in self._expressions():
            found.update(dict.fromkeys(expression.columns))
        return tuple(found)

    def _expressions(self) -> list[Expression]:
        given = [v.expression for v in self.variables] + list(self.response) + list(self.offsets)
        extra = [self.weight, self.trials, self.exposure]
        return given + [e for e in extra if isinstance(e, Expression)]

    def read(self, leaf: Any, arena: Arena | None = None) -> Columns:
        """The Columns of one leaf, copied into an arena if there is one. A leaf is an object with `table` (pyarrow), `label`, `rows` before any filter,
        `resident`, whether the table stays in memory anyway, and `matrix` (scipy CSR, rows as the table's) or None."""
        return _Reader(self, leaf, arena).columns()


class _Reader:
    """One leaf on its way from Arrow to NumPy: `keep` is the index of rows still in, None for all."""

    def __init__(self, reading: Reading, leaf: Any, arena: Arena | None) -> None:
        self.reading = reading
        self.arena = arena
        self.leaf = leaf
        self.table = leaf.table
        self.n: int = leaf.table.num_rows
        self.missing: dict[str, int] = {}
        self.keep: npt.NDArray[np.intp] | None = None
        self._numbers: dict[str, Column] = {}
        self._coded: dict[str, Coded] = {}
        self._masks: dict[str, Mask] = {}
        self._sparse: Sparse | None = None
        self._missing_entries: dict[str, int] = {}

    def columns(self) -> Columns:
        reading = self.reading
        total = self.n
        matrices = {v.name for v in reading.variables if v.kind == "matrix"}
        for name in reading.of_model:
            if name in matrices:
                self._load_matrix(name)
            else:
                self._load(name)
        self._compact(self._masks)
        weight = self._expression(reading.weight)
        trials = self._expression(reading.trials)
        if trials is not None:
            self._refuse(reading.trials, trials, trials < 0, "a number of trials cannot be negative")
        if weight is not None:
            self._refuse(reading.weight, weight, weight < 0, "a weight cannot be negative")
            if reading.frequencies and weight.dtype.kind == "f":
                self._refuse(reading.weight, weight, weight != np.floor(weight), "a frequency is a whole number")
        y: Any
        others: tuple[Column, ...] = ()
        if reading.several:
            y, *rest = (_narrowest(self._expression(e)) for e in reading.response)
            others = tuple(rest)
        elif len(reading.response) == 2:
            successes, failures = (np.asarray(self._expression(e), np.float64) for e in reading.response)
            self._refuse(reading.response[0], successes, successes < 0, "a count of successes cannot be negative")
            self._refuse(reading.response[1], failures, failures < 0, "a count of failures cannot be negative")
            trials = successes + failures
            with np.errstate(invalid="ignore", divide="ignore"):
                y = np.where(trials > 0, successes / trials, 0.0)
        else:
            y = self._response()
            if reading.counts:
                y = self._proportion(y, trials)
        numeric = {v.name: self._variable(v) for v in reading.variables if v.kind == "numeric"}
        factors = {v.name: self._levels(v.expression) for v in reading.variables if v.kind == "factor"}
        offset = self._offset()
        importance = self._importance(weight)
        found = Columns(
            self.n,
            numeric,
            factors,
            {},
            y,
            weight,
            trials,
            offset,
            Ledger(),
            self.keep,
            importance,
            self._sparse,
            others=others,
        )
        missing_rows = total - self.n
        found = self._finite(found)
        found, zero = self._without_zero_weight(found)
        self._check_support(found)
        moments = {} if reading.passing else {key: self._moments(found, key) for key in reading.products}
        ledger = Ledger(
            read=self.leaf.rows, filtered=self.leaf.rows - total, missing_rows=missing_rows, zero_weight=zero,
            used=found.n, missing=self.missing,
        )  # fmt: skip
        if not self.leaf.resident and self.arena is not None:
            found = copied(found, self.arena)
        squares = None if found.sparse is None or reading.passing or reading.scoring else self._squares(found.sparse)
        clusters = tuple(keys_of(self.leaf, name, found.kept) for name in reading.clusters)
        learnt = {} if reading.passing or reading.scoring else self._learnt(found)
        return replace(found, moments=moments, ledger=ledger, squares=squares, clusters=clusters, learnt=learnt)

    # -- from Arrow ------------------------------------------------------------------------------------------------

    def _load(self, name: str) -> None:
        """One column to numbers or codes; where it is missing goes to a mask."""
        import pyarrow as pa

        column = self.table.column(name)
        if pa.types.is_null(column.type):
            self._masks[name] = np.ones(self.n, bool)
            self._numbers[name] = np.zeros(self.n)
            return
        if pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks):
            # a null that hides among the levels
            column = column.cast(column.type.value_type)
        if column.null_count:
            self._masks[name] = ~_bits(column.is_valid())
        if pa.types.is_dictionary(column.type) or _is_text(column.type):
            self._coded[name] = _coded(column)
            return
        self._numbers[name] = _numbers(column, self._masks.get(name))
        self._missing_numbers(name)

    def _missing_numbers(self, name: str) -> None:
        """NaN in the data is a missing value, infinity an error; looked for only where a sum is not finite."""
        column = self._numbers[name]
        if column.dtype.kind != "f" or _all_finite(column):
            return
        if not self.reading.scoring:
            self._refuse_infinite(name, column)
        mask = ~np.isfinite(column)
        if mask.any():
            self._masks[name] = mask | self._masks[name] if name in self._masks else mask

    def _refuse_infinite(self, name: str, column: Column) -> None:
        infinite = np.isinf(column)
        if infinite.any():
            row = int(np.flatnonzero(infinite)[0])
            self._refuse_infinity(name, float(column[row]), int(infinite.sum()))

    def _refuse_infinity(self, name: str, value: float, count: int) -> NoReturn:
        raise DataError(
            f'{self.leaf.label}: "{name}" is {value} in {count} row(s), of which '
            "nothing can be computed: leave such rows out with where=, or mend them"
        )

    def _refuse_missing(self, name: str, row: int, count: int) -> NoReturn:
        raise DataError(
            f'{self.leaf.label}: "{name}" is missing in row {row} ({count} in this part), and '
            'missing="raise" was asked for; missing="drop" leaves such rows out and counts them'
        )

    def _load_matrix(self, name: str) -> None:
        """The rows of the sparse matrix; the rows in which any entry is missing go to a mask, counted by column."""
        names = self.reading.matrix
        found = self._sparse = Sparse.of(self.leaf.matrix)
        if _all_finite(found.data):
            return
        wrong = np.flatnonzero(~np.isfinite(found.data))
        rows, columns = found.row_of(wrong), found.indices[wrong]
        infinite = np.flatnonzero(np.isinf(found.data[wrong]))
        if infinite.size and not self.reading.scoring:
            first = infinite[np.argmin(columns[infinite])]
            count = int((columns[infinite] == columns[first]).sum())
            self._refuse_infinity(names[columns[first]], float(found.data[wrong[first]]), count)
        if self.reading.missing == "raise":
            first = int(np.argmin(columns))
            self._refuse_missing(names[columns[first]], int(rows[first]), int((columns == columns[first]).sum()))
        mask = np.zeros(self.n, bool)
        mask[rows] = True
        self._masks[name] = mask
        for column, count in zip(*np.unique(columns, return_counts=True), strict=True):
            self._missing_entries[names[column]] = int(count)

    def _compact(self, masks: Mapping[str, Mask]) -> None:
        """Leave out, once and for all columns alike, every row that misses something."""
        if not masks:
            return
        for name, mask in masks.items():
            counts = {name: int(mask.sum())} if name in self._numbers or name in self._coded else self._missing_entries
            for column, count in counts.items():
                self.missing[column] = self.missing.get(column, 0) + count
        gone = np.logical_or.reduce(list(masks.values()))
        if self.reading.missing == "raise":
            name = next(name for name, mask in masks.items() if mask.any())
            self._refuse_missing(name, int(np.flatnonzero(masks[name])[0]), self.missing[name])
        index = np.flatnonzero(~gone)
        self.keep = index if self.keep is None else self.keep[index]
        self._numbers = {name: column[index] for name, column in self._numbers.items()}
        self._coded = {name: Coded(c.codes[index], c.levels) for name, c in self._coded.items()}
        self._sparse = None if self._sparse is None else self._sparse.take(index)
        self.n = len(index)

    # -- expressions -----------------------------------------------------------------------------------------------

    def _expression(self, expression: Expression | None) -> Any:
        if expression is None:
            return None
        if len(expression.columns) == 1 and expression.text == expression.columns[0]:
            column = self._numbers.get(expression.columns[0])
            if column is not None:
                return as_column(column) if column.dtype.kind == "u" else column
        result = self._evaluated(expression)
        return result.astype(np.int8) if result.dtype == np.bool_ else np.ascontiguousarray(result, np.float64)

    def _evaluated(self, expression: Expression, text: bool = False) -> npt.NDArray[Any]:
        """The values of an expression (n,), of the kind that it makes."""
        coded = self._single(expression)
        if coded is not None:
            return self._of_levels(expression, coded, text)[coded.codes]
        result = expression.evaluate({name: self._values(name) for name in expression.columns}, text)
        return np.full(self.n, result) if result.ndim == 0 else result

    def _single(self, expression: Expression) -> Coded | None:
        """The factor that is the only column of an expression."""
        return self._coded.get(expression.columns[0]) if len(expression.columns) == 1 else None

    def _of_levels(self, expression: Expression, coded: Coded, text: bool) -> npt.NDArray[Any]:
        """The values of an expression of one factor at each of its levels."""
        levels = np.empty(len(coded.levels), object)
        levels[:] = coded.levels
        return np.broadcast_to(expression.evaluate({expression.columns[0]: levels}, text), levels.shape)

    def _values(self, name: str) -> npt.NDArray[Any]:
        """A column as expressions see it: numbers, truth values, or levels as objects."""
        coded = self._coded.get(name)
        if coded is not None:
            return np.asarray(coded.levels, object)[coded.codes]
        return self._numbers[name].astype(bool) if self._is_boolean(name) else self._numbers[name]

    def _variable(self, variable: Variable) -> Column:
        column: Column = self._expression(variable.expression)
        return _narrowest(column)

    def _levels(self, expression: Expression) -> Coded:
        column = expression.column
        if column in self._coded:
            return self._coded[column]
        single = self._single(expression)
        if single is not None:
            found = _leveled(self._of_levels(expression, single, text=True))
            return Coded(found.codes[single.codes], found.levels)
        if column is None:
            return _leveled(self._evaluated(expression, text=True))
        found = _leveled(self._values(column))
        return Coded(found.codes, _dated(found.levels, self.table.column(column).type))

    def _is_boolean(self, name: str) -> bool:
        import pyarrow as pa

        return bool(pa.types.is_boolean(self.table.column(name).type))

    def _response(self) -> Column | Coded | None:
        if not self.reading.response:
            return None
        expression = self.reading.response[0]
        if self.reading.response_levels:
            return self._levels(expression)
        return _narrowest(self._expression(expression))

    def _proportion(self, count: Any, trials: Any) -> Any:
        """A count of successes out of its trials as the proportion it is."""
        successes, out_of = np.asarray(count, np.float64), np.asarray(trials, np.float64)
        wrong = (successes > out_of) | (successes < 0)
        self._refuse(self.reading.response[0], successes, wrong, "a count of successes lies between 0 and its trials")
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(out_of > 0, successes / out_of, np.where(np.isnan(out_of), np.nan, 0.0))

    def _importance(self, weight: Column | None) -> Column | None:
        if not any(variable.largest for variable in self.reading.variables):
            return None
        exposure = self.reading.exposure
        return self._expression(exposure) if weight is None and isinstance(exposure, Expression) else weight

    def _offset(self) -> Column | None:
        reading = self.reading
        parts = [np.asarray(self._expression(e), np.float64) for e in reading.offsets]
        if isinstance(reading.exposure, Expression):
            exposure = np.asarray(self._expression(reading.exposure), np.float64)
            self._refuse(reading.exposure, exposure, exposure <= 0, "an exposure must be positive, its log is added")
            with np.errstate(invalid="ignore", divide="ignore"):
                parts.append(np.log(exposure))
        elif reading.exposure is not None and reading.exposure != 1.0:
            parts.append(np.full(self.n, np.log(reading.exposure)))
        if not parts:
            return None
        return np.ascontiguousarray(sum(parts[1:], parts[0]))

    # -- checks ----------------------------------------------------------------------------------------------------

    def _refuse(self, expression: Expression | None, values: Any, wrong: Mask, reason: str) -> None:
        if expression is not None and wrong.any():
            value = values[np.flatnonzero(wrong)[0]]
            raise DataError(
                f'{self.leaf.label}: "{expression.text}" is {value:.17g} in {int(wrong.sum())} row(s): {reason}'
            )

    def _finite(self, found: Columns) -> Columns:
        """Refuse what an expression makes of values that are there: the log of zero, the root of a negative number.
        Rows that are only scored go without.
        """
        reading = self.reading
        parts: list[tuple[str, Any]] = [
            *found.numeric.items(),
            (reading.response_name, None if isinstance(found.y, Coded) else found.y),
            *((e.text, column) for e, column in zip(reading.response[1:], found.others, strict=False)),
            (reading.weight.text if reading.weight else "weights", found.weight),
            (reading.trials.text if reading.trials else "trials", found.trials),
            ("offset", found.offset),
        ]
        leveled = {**found.factors, **({reading.response_name: found.y} if isinstance(found.y, Coded) else {})}
        parts += [(name, values) for name, coded in leveled.items() if (values := _undefined_levels(coded)) is not None]
        undefined = np.zeros(found.n, bool)
        for name, column in parts:
            if column is None or column.dtype.kind != "f" or name in self._numbers or _all_finite(column):
                continue
            nowhere = ~np.isfinite(column)
            undefined |= nowhere
            if reading.scoring:
                self.missing[name] = self.missing.get(name, 0) + int(nowhere.sum())
            else:
                self._refuse_infinite(name, column)
                raise DataError(
                    f'{self.leaf.label}: "{name}" is not a number in {int(undefined.sum())} row(s) whose values are all there: leave '
                    "such rows out with where="
                )
        return found.take(np.flatnonzero(~undefined)) if undefined.any() else found

    def _without_zero_weight(self, found: Columns) -> tuple[Columns, int]:
        keep: Mask | None = None
        for column in (found.weight, found.trials):
            if column is None or not column.size:
                continue
            if column.min() == 0:
                keep = (column != 0) if keep is None else keep & (column != 0)
        if keep is None:
            return found, 0
        index = np.flatnonzero(keep)
        return found.take(index), found.n - len(index)

    def _check_support(self, found: Columns) -> None:
        if found.y is None or isinstance(found.y, Coded) or self.reading.support is None or not found.n:
            return
        names = [e.text for e in self.reading.response] if found.others else [self.reading.response_name]
        for name, column in zip(names, (found.y, *found.others), strict=True):
            y = np.asarray(column, np.float64)
            wrong = ~self.reading.support(y)
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise DataError(
                    f'{self.leaf.label}: the response "{name}" is {y[row]:g} in '
                    f"{int(wrong.sum())} row(s), but must be {self.reading.support_text}"
                )

    def _moments(self, found: Columns, key: tuple[str, ...]) -> tuple[float, float]:
        column = product(found.numeric, key)
        mean, squares = column_moments(column)
        if found.n and not (np.isfinite(mean) and np.isfinite(squares)):
            self._refuse_size(":".join(key))
        return mean, squares

    def _learnt(self, found: Columns) -> dict[str, Any]:
        """A record of the values of each numeric variable with a transform; rows count as often as frequencies say."""
        counts = found.weight if self.reading.frequencies else None
        return {
            v.name: v.transform.observe(found.numeric[v.name], counts)
            for v in self.reading.variables
            if v.kind == "numeric" and v.transform is not None
        }

    def _squares(self, sparse: Sparse) -> Vector:
        squares = sparse.square_sums()
        if not np.isfinite(squares).all():
            self._refuse_size(self.reading.matrix[int(np.argmin(np.isfinite(squares)))])
        return squares

    def _refuse_size(self, name: str) -> NoReturn:
        raise DataError(f'{self.leaf.label}: "{name}" is so large that its square is not a number: rescale it')


def beside_of(table: Any, expression: Expression, kept: npt.NDArray[np.intp] | None) -> Column | Coded:
    """A column of a table that the model does not know, for the rows kept (None: all): numbers, NaN where missing, or codes,
    whose last level is None where any is missing. An expression is computed of numbers.
    """
    import pyarrow as pa

    plain = expression.columns == (expression.text,)
    if plain:
        name = expression.columns[0]
        column = table.column(name)
        if kept is not None and column.null_count and pa.types.is_integer(column.type):
            # the rows kept may have all values, and then stay whole numbers
            return _beside(column.take(pa.array(kept)), name)
        found = _beside(column, name)
        if kept is None:
            return found
        return Coded(found.codes[kept], found.levels) if isinstance(found, Coded) else found[kept]
    columns = {name: _beside(table.column(name), name) for name in expression.columns}
    values = {n: np.asarray(c.levels, object)[c.codes] if isinstance(c, Coded) else c for n, c in columns.items()}
    result = np.broadcast_to(np.asarray(expression.evaluate(values), np.float64), (table.num_rows,))
    return np.ascontiguousarray(result if kept is None else result[kept])


def _beside(column: Any, name: str) -> Column | Coded:
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks):
        column = column.cast(column.type.value_type)
    missing = ~_bits(column.is_valid()) if column.null_count else None
    if pa.types.is_dictionary(column.type) or _is_text(column.type):
        found = _coded(column)
        if missing is None:
            return found
        codes = found.codes.astype(code_dtype(len(found.levels) + 1))
        codes[missing] = len(found.levels)
        return Coded(codes, (*found.levels, None))
    numbers = _numbers(column, missing)
    if missing is None:
        return numbers
    if numbers.dtype.kind in "iu" and has_large(numbers):
        raise DataError(
            f'"{name}" has missing values and whole numbers beyond 2^53, which are not told apart beside them: '
            "fill the missing values, or convert the column to text"
        )
    numbers = numbers.astype(np.float64)
    numbers[missing] = np.nan
    return numbers


def _undefined_levels(coded: Coded) -> Vector | None:
    """The values (n,) of a factor that has NaN or infinity among its levels, None where it has neither."""
    levels = [float(level) if isinstance(level, float) else 0.0 for level in coded.levels]
    return None if np.isfinite(levels).all() else np.array(levels)[coded.codes]


def _leveled(values: npt.NDArray[Any]) -> Coded:
    """Values (n,) as codes of their distinct ones."""
    if values.dtype.kind == "O" and values.size:
        import pyarrow as pa

        return _coded(pa.chunked_array([pa.array(values)]))
    levels, codes = np.unique(values, return_inverse=True)
    return Coded(codes.astype(code_dtype(max(len(levels), 1))), tuple(levels.tolist()))


def _dated(levels: tuple[Any, ...], kind: Any) -> tuple[Any, ...]:
    """Days and seconds as the dates and times they are."""
    import pyarrow as pa

    if pa.types.is_date(kind):
        return times.labels(levels, "date")
    if pa.types.is_timestamp(kind):
        return times.labels(levels, f"timestamp[{kind.tz}]" if kind.tz else "timestamp")
    return levels


def _all_finite(column: Column) -> bool:
    """Whether a column holds no NaN and no infinity, at the price of a sum (which may overflow: then look)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(column.sum())) or bool(np.isfinite(column).all())


def _bits(valid: Any) -> Mask:
    return np.asarray(valid.to_numpy(), bool)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )  # fmt: skip


def _coded(column: Any) -> Coded:
    """Dictionary codes as they are in the file, in the narrowest integers; Arrow's own are given up."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if column.num_chunks != 1:
        column = column.unify_dictionaries().combine_chunks() if column.num_chunks else column.combine_chunks()
    array = column if not isinstance(column, pa.ChunkedArray) else column.chunk(0)
    indices = array.indices
    codes = np.asarray((indices.fill_null(0) if indices.null_count else indices).to_numpy(zero_copy_only=False))
    levels = _level_values(array.dictionary)
    return Coded(codes.astype(code_dtype(max(len(levels), 1))), levels)


def _level_values(levels: Any) -> tuple[Any, ...]:
    """The levels of a dictionary: text, numbers, truth values, and times as text."""
    import pyarrow as pa

    if pa.types.is_temporal(levels.type) or pa.types.is_decimal(levels.type):
        numbers = _numbers(pa.chunked_array([levels]), None)
        return _dated(tuple(numbers.tolist()), levels.type)
    return tuple(value.decode() if isinstance(value, bytes) else value for value in levels.to_pylist())


def _numbers(column: Any, missing: Mask | None) -> Column:
    """Numbers as they lie in Arrow's buffer where that is possible; dates in days, times in seconds, decimals rounded."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        wide = column.cast(pa.int32()).cast(pa.int64()) if pa.types.is_time32(kind) else column.cast(pa.int64())
        column = pa.chunked_array([np.asarray(wide.fill_null(0).to_numpy()) / per_second])
    if missing is not None and column.null_count:
        column = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
    if column.num_chunks == 1:
        array = column.chunk(0).to_numpy(zero_copy_only=False)
    else:
        array = column.to_numpy()
    return _exact(array) if array.dtype == np.uint64 else as_column(array)


def _exact(values: npt.NDArray[np.uint64]) -> Column:
    """Unsigned whole numbers (n,) as int64, or as they are where some are 2^63 or more."""
    fits = not values.size or int(values.max()) < 2**63
    return np.ascontiguousarray(values.astype(np.int64) if fits else values)


def _narrowest(column: Column) -> Column:
    """Whole numbers in as few bytes as they need: what is kept is read again in every pass."""
    if column.dtype.kind != "i" or column.dtype.itemsize == 1 or not column.size:
        return column
    low, high = int(column.min()), int(column.max())
    for name in ("i1", "i2", "i4"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return column.astype(name)
    return column
