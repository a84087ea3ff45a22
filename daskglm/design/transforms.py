"""Stateful terms: variables of a formula whose columns depend on what was learnt from the data.

A *transform* is what a function of a formula asks for: `scale(x)` or `C(area, Sum)`. It takes
levels or numbers. `observe` makes a record of the values of one partition, and records add (levels
are counted for every factor and need none). `learn` makes a *state* of the sum of the records, or
of the levels in their order. A state is frozen in the design and saved as JSON. It has k >= 1
labels, one for each of its columns, and makes these columns when a partition is encoded, their
derivatives for marginal effects, and the moments by which they are scaled.

A new transform is a class with `takes`, `observe` and `learn`, a class for its state, and a line in
`TRANSFORMS`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.design.contrasts import CodedLevels, contrast_of
from daskglm.errors import DataError, DesignError, closest

Vector = npt.NDArray[np.float64]


class Transform(Protocol):
    """What a function of a formula asks for, before data are read."""

    @property
    def takes(self) -> Literal["levels", "numbers"]:
        """Whether its argument is a factor or a numeric expression."""

    def observe(self, values: Any, counts: Any) -> Any:
        """A record of the values (n,) of one partition; counts: rows each stands for, or None."""

    def learn(self, name: str, record: Any) -> State | None:
        """The state of the variable of that name; None of a factor that stays codes."""


class State(Protocol):
    """What was learnt, and the columns that it makes of a variable's values."""

    @property
    def kind(self) -> str:
        """What it is called in a saved model."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns (k,)."""

    def column(self, j: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Column j (n,) at values (n,): numbers, or codes of levels."""

    def slope(self, j: int, values: npt.NDArray[Any]) -> Vector:
        """d column j / d values (n,)."""

    def moments(self, j: int) -> tuple[float, float, float]:
        """(mean, root mean square about it, root mean square) by which column j is scaled."""

    def document(self) -> dict[str, Any]:
        """The state as JSON, of which `of_document` of its class makes it again."""


@final
@dataclass(frozen=True)
class Spread:
    """n rows, their mean, and the sum of squared deviations from it. It adds."""

    n: float
    mean: float
    squares: float

    def __add__(self, other: Spread) -> Spread:
        if not self.n or not other.n:
            return other if not self.n else self
        n, step = self.n + other.n, other.mean - self.mean
        # Chan, Golub and LeVeque (1983), equation 2.1
        squares = self.squares + other.squares + step * step * self.n * other.n / n
        return Spread(n, self.mean + step * other.n / n, squares)


@final
@dataclass(frozen=True)
class Affine:
    """(x - center) / divisor of a numeric variable; mean and spread: of x over the rows it was
    learnt from.
    """

    kind: ClassVar[str] = "affine"
    label: str
    center: float
    divisor: float
    mean: float
    spread: float

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of its column."""
        return (self.label,)

    def column(self, j: int, values: npt.NDArray[Any]) -> Vector:
        """The column (n,) at values (n,)."""
        return np.asarray((np.asarray(values, np.float64) - self.center) / self.divisor)

    def slope(self, j: int, values: npt.NDArray[Any]) -> Vector:
        """1 / divisor (n,)."""
        return np.full(values.shape, 1.0 / self.divisor)

    def moments(self, j: int) -> tuple[float, float, float]:
        """Of the column."""
        mean, spread = (self.mean - self.center) / self.divisor, self.spread / abs(self.divisor)
        return mean, spread, math.hypot(mean, spread)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "label": self.label, "center": self.center, "divisor": self.divisor,
            "mean": self.mean, "spread": self.spread,
        }  # fmt: skip

    @staticmethod
    def of_document(document: Mapping[str, Any]) -> Affine:
        """The state that `document` described."""
        return Affine(**{field.name: document[field.name] for field in fields(Affine)})


@final
@dataclass(frozen=True)
class Scale:
    """x less its mean, over its standard deviation.

    center, scale: True to learn it, False to leave it out, or a number; ddof: what is subtracted
    from the number of rows in the variance. Without centring the divisor is the root mean square,
    as in R's scale.
    """

    takes: ClassVar[Literal["levels", "numbers"]] = "numbers"
    center: bool | float = True
    scale: bool | float = True
    ddof: float = 1

    def observe(self, values: Any, counts: Any) -> Spread:
        """Mean and squares of one partition; counts: rows each stands for, or None."""
        # compiled: a formula is read without it
        from daskglm.kernels.moments import column_moments

        if counts is None or not len(values):
            mean, squares = column_moments(values)
            return Spread(float(len(values)), mean, squares)
        x, n = np.asarray(values, np.float64), float(counts.sum())
        # about the first value, so that large ones keep their digits
        mean = float(x[0] + ((x - x[0]) * counts).sum() / n)
        return Spread(n, mean, float((counts * (x - mean) ** 2).sum()))

    def learn(self, name: str, record: Spread) -> Affine:
        """The column of the variable of that name."""
        if not math.isfinite(record.squares):
            raise DataError(f"the variable of {name} is so large that its square is not a number: rescale it")
        center = record.mean if self.center is True else float(self.center)
        divisor = 1.0 if isinstance(self.scale, bool) else float(self.scale)
        if self.scale is True:
            divisor = self._divisor(name, record, center)
        spread = math.sqrt(record.squares / max(record.n, 1.0))
        return Affine(name, float(center), divisor, record.mean, spread)

    def _divisor(self, name: str, record: Spread, center: float) -> float:
        """The standard deviation; DataError where there is none."""
        moved = record.mean - center
        squares, rows = record.squares + record.n * moved * moved, record.n - self.ddof
        size = math.sqrt(squares / rows) if rows > 0 else 0.0
        if not size > 1e-14 * abs(record.mean) or not size > 0.0:
            what = f"is {record.mean:g} in every row" if rows > 0 else f"has {record.n:g} row(s)"
            raise DataError(
                f"the variable of {name} {what}, so that there is no standard deviation to divide "
                "by: leave it out of the formula"
            )
        return size


def _scale(text: str, arguments: Sequence[ast.expr], named: Sequence[ast.keyword]) -> Scale:
    found = _options("scale", {"center": True, "scale": True, "ddof": 1}, text, arguments, named)
    return Scale(found["center"], found["scale"], found["ddof"])


def _center(text: str, arguments: Sequence[ast.expr], named: Sequence[ast.keyword]) -> Scale:
    _options("center", {}, text, arguments, named)
    return Scale(scale=False)


def _standardize(text: str, arguments: Sequence[ast.expr], named: Sequence[ast.keyword]) -> Scale:
    known = {"center": True, "rescale": True, "ddof": 0}
    found = _options("standardize", known, text, arguments, named)
    return Scale(found["center"], found["rescale"], found["ddof"])


def _options(
    function: str,
    known: Mapping[str, Any],
    text: str,
    arguments: Sequence[ast.expr],
    named: Sequence[ast.keyword],
) -> dict[str, Any]:
    """The options of scale and its like, with their defaults, checked."""
    pairs = list(zip(known, arguments, strict=False))
    pairs += [(str(keyword.arg), keyword.value) for keyword in named]
    names = [name for name, _ in pairs]
    strange = [name for name in names if name not in known]
    if strange or len(arguments) > len(known) or len(set(names)) < len(names):
        takes = f"a number and the option(s) {', '.join(known)}" if known else "one argument"
        hint = closest(strange[0], list(known)) if strange and known else ""
        raise DesignError(f"{function} in {text!r} takes {takes}{hint}")
    found = dict(known)
    for name, node in pairs:
        try:
            value = ast.literal_eval(node)
        except ValueError:
            value = None
        usable = isinstance(value, (bool, int, float)) and math.isfinite(value)
        if name == "ddof" and (not usable or isinstance(value, bool) or value < 0):
            raise DesignError(f"ddof= in {text!r} is a number from 0 on, not {ast.unparse(node)}")
        divides = name in ("scale", "rescale")
        if not usable or (divides and not isinstance(value, bool) and value == 0):
            what = "a number other than 0" if divides else "a number"
            found_value = ast.unparse(node)
            raise DesignError(f"{name}= in {text!r} is True, False or {what}, not {found_value}")
        found[name] = value
    return found


@final
@dataclass(frozen=True)
class Entry:
    """A function of formulas. parse: the transform of `name(argument, ...)`, from its text and what
    stands behind its first argument; state: the class of what it learns.
    """

    parse: Callable[[str, Sequence[ast.expr], Sequence[ast.keyword]], Transform]
    state: Any


TRANSFORMS: Mapping[str, Entry] = {
    "C": Entry(contrast_of, CodedLevels),
    "scale": Entry(_scale, Affine),
    "center": Entry(_center, Affine),
    "standardize": Entry(_standardize, Affine),
}


def document_of(state: State) -> dict[str, Any]:
    """A state as JSON, with what it is."""
    return {"kind": state.kind, **state.document()}


def state_of(document: Mapping[str, Any]) -> State:
    """The state that `document_of` described."""
    kinds = {entry.state.kind: entry.state for entry in TRANSFORMS.values()}
    state: State = kinds[document["kind"]].of_document(document)
    return state
