"""How the levels of a factor become columns of X: treatment, sum, Helmert, polynomial, difference.

A factor with L levels has L - 1 columns beside the terms that it is marginal to. Treatment coding
keeps one code per row; every other contrast is a matrix (L, L - 1) whose row of a row's level is
written to dense columns. The definitions are those of formulaic, which are R's `contr.sum`,
`contr.helmert`, `contr.poly` and MASS's `contr.sdif` (Venables and Ripley 2002, Modern Applied
Statistics with S, section 6.2).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar, Literal, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError, closest

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Contrasts other than treatment write a dense column per level.
MAX_DENSE_LEVELS = 1_000


@final
@dataclass(frozen=True)
class CodedLevels:
    """A contrast of known levels: labels (k,) of its columns, matrix (L, k), a row per level."""

    kind: ClassVar[str] = "levels"
    labels: tuple[str, ...]
    matrix: Matrix

    def column(self, j: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Column j (n,) at the codes of the rows' levels (n,)."""
        # looking up in contiguous entries takes a fifth of the time
        entries = np.ascontiguousarray(self.matrix[:, j])
        narrow = entries.astype(np.int8)
        return (narrow if np.array_equal(narrow, entries) else entries).take(values)

    def slope(self, j: int, values: npt.NDArray[Any]) -> Vector:
        """Zero (n,): levels do not vary continuously."""
        return np.zeros(values.shape)

    def moments(self, j: int) -> tuple[float, float, float]:
        """The (mean, spread, size) by which a column is shifted and scaled: over levels alone, and
        about zero, as the columns of levels are.
        """
        size = float(np.sqrt(np.mean(self.matrix[:, j] ** 2)))
        return 0.0, size, size

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"labels": list(self.labels), "matrix": self.matrix.tolist()}

    @staticmethod
    def of_document(document: Mapping[str, Any]) -> CodedLevels:
        """The contrast that `document` described."""
        labels = tuple(document["labels"])
        return CodedLevels(labels, np.array(document["matrix"], float).reshape(-1, len(labels)))


@final
@dataclass(frozen=True)
class Treatment:
    """Each level against a baseline: the first level, the one named, or the one of most weight."""

    takes: ClassVar[Literal["levels", "numbers"]] = "levels"
    base: Any = None

    @property
    def largest(self) -> bool:
        """Whether the baseline is the level of most weight."""
        return isinstance(self.base, str) and self.base == "largest"

    def observe(self, values: Any, counts: Any) -> None:
        """Nothing: levels are counted for every factor."""

    def learn(self, name: str, record: Sequence[Any]) -> None:
        """Nothing: a code per row is all that treatment columns need."""


@final
@dataclass(frozen=True)
class Contrast:
    """A contrast by a matrix. kind: a key of `MATRICES`; options: those of formulaic, by name."""

    takes: ClassVar[Literal["levels", "numbers"]] = "levels"
    kind: str
    options: tuple[tuple[str, Any], ...] = ()

    def observe(self, values: Any, counts: Any) -> None:
        """Nothing: levels are counted for every factor."""

    def learn(self, name: str, record: Sequence[Any]) -> CodedLevels | None:
        """The contrast of the levels of a variable, in their order; None of a single level."""
        if len(record) < 2:
            return None
        if len(record) > MAX_DENSE_LEVELS:
            raise DesignError(
                f"{name} has {len(record):,} levels, each of which would be a dense column: "
                f"contrasts other than treatment take at most {MAX_DENSE_LEVELS:,}; use "
                "C(..., Treatment)"
            )
        labels, matrix = MATRICES[self.kind](name, record, **dict(self.options))
        return CodedLevels(tuple(f"{name}[{label}]" for label in labels), matrix)


def _sum(name: str, levels: Sequence[Any]) -> tuple[list[str], Matrix]:
    """Each level but the last against the mean of all levels: R's contr.sum."""
    last = -np.ones((1, len(levels) - 1))
    return [f"S.{level}" for level in levels[:-1]], np.vstack([np.eye(len(levels) - 1), last])


def _helmert(
    name: str,
    levels: Sequence[Any],
    reverse: bool = True,
    scale: bool = False,
) -> tuple[list[str], Matrix]:
    """Each level against the mean of those before it, R's contr.helmert; reverse=False: of those
    after it; scale: divided so that the coefficient is that difference.
    """
    count = len(levels)
    steps = np.arange(count - 1)
    matrix = np.zeros((count, count - 1))
    if reverse:
        matrix[np.triu_indices(count - 1)] = -1.0
        matrix[steps + 1, steps] = steps + 1.0
    else:
        matrix[np.tril_indices(count, k=-1, m=count - 1)] = -1.0
        matrix[steps, steps] = count - steps - 1.0
    if scale:
        matrix /= steps + 2.0 if reverse else count - steps
    return [f"H.{level}" for level in (levels[1:] if reverse else levels[:-1])], matrix


def _diff(name: str, levels: Sequence[Any], backward: bool = True) -> tuple[list[str], Matrix]:
    """Each level against the one before it, MASS's contr.sdif; backward=False: the one after it."""
    count = len(levels)
    matrix = np.tile(np.arange(1.0, count) / count, (count, 1))
    matrix[np.triu_indices(count, m=count - 1)] -= 1.0
    labels = [f"D.{level}" for level in (levels[1:] if backward else levels[:-1])]
    return labels, matrix if backward else -matrix


def _poly(
    name: str,
    levels: Sequence[Any],
    scores: Sequence[float] | None = None,
) -> tuple[list[str], Matrix]:
    """Orthonormal polynomials of the levels' scores (1, 2, ... if none are given): contr.poly."""
    count = len(levels)
    if scores is not None and len(scores) != count:
        raise DesignError(f"{name} has {count} levels, and scores= has {len(scores)} values")
    points = np.arange(1.0, count + 1.0) if scores is None else np.array(scores, float)
    columns = orthogonal_polynomials(points, count - 1)
    names = {1: ".L", 2: ".Q", 3: ".C"}
    return [names.get(degree, f"^{degree}") for degree in range(1, count)], columns


def orthogonal_polynomials(points: Vector, degree: int) -> Matrix:
    """Orthonormal polynomials of degree 1 to `degree` at distinct points (L,): (L, degree).

    Each is the one before times the centred points, made orthogonal to all before it, twice: powers
    of the points would lose every digit from some twenty points on (Brubeck, Nakatsukasa and
    Trefethen 2021, Vandermonde with Arnoldi, SIAM Review 63, 405-415).
    """
    centred = points - points.mean()
    basis = np.full((points.size, 1), 1.0 / math.sqrt(points.size))
    for _ in range(degree):
        found = centred * basis[:, -1]
        for _ in range(2):
            found = found - (basis * (basis * found[:, None]).sum(axis=0)).sum(axis=1)
        basis = np.column_stack([basis, found / np.sqrt((found * found).sum())])
    return np.ascontiguousarray(basis[:, 1:])


def _defaults(make: Any) -> dict[str, Any]:
    """The options of a contrast, which come behind the name and the levels."""
    return {option.name: option.default for option in list(signature(make).parameters.values())[2:]}


MATRICES: Mapping[str, Any] = {"sum": _sum, "helmert": _helmert, "diff": _diff, "poly": _poly}
# The options of each contrast with their defaults, in the order in which formulaic takes them.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "treatment": {"base": None},
    **{kind: _defaults(make) for kind, make in MATRICES.items()},
}
# As formulaic and patsy write them.
NAMES = {name: kind for kind in OPTIONS for name in (kind.capitalize(), f"contr.{kind}")}


def contrast_of(text: str, arguments: Sequence[ast.expr], named: Sequence[ast.keyword]) -> Any:
    """The contrast that stands behind the column in C(column, contrast); DesignError otherwise."""
    given = [*arguments, *(keyword.value for keyword in named if keyword.arg == "contrasts")]
    if len(given) != len(arguments) + len(named) or len(given) > 1:
        raise DesignError(f"{text!r}: C takes a column and optionally a contrast: {_listed()}")
    if not given:
        return Treatment()
    node = given[0]
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    written = ast.unparse(call.func)
    kind = NAMES.get(written)
    if kind is None:
        raise DesignError(
            f"{ast.unparse(node)!r} in {text!r} is not a contrast{closest(written, list(NAMES))}; there are {_listed()}"
        )
    options = _options(kind, call, text)
    if kind == "treatment":
        return Treatment(options.get("base"))
    return Contrast(kind, tuple(options.items()))


def _listed() -> str:
    names = [kind.capitalize() for kind in OPTIONS]
    return f'{names[0]}("level"), {", ".join(names[1:])}'


def _options(kind: str, call: ast.Call, text: str) -> dict[str, Any]:
    """The options of a contrast, checked."""
    known = OPTIONS[kind]
    written = ast.unparse(call.func)
    pairs = list(zip(known, call.args, strict=False))
    pairs += [("base" if k.arg == "reference" else str(k.arg), k.value) for k in call.keywords]
    names = [name for name, _ in pairs]
    strange = [name for name in names if name not in known]
    if strange or len(call.args) > len(known) or len(set(names)) < len(names):
        takes = f"at most the option(s) {', '.join(known)}" if known else "no options"
        if kind == "treatment":
            takes = "one level"
        raise DesignError(f"{written} in {text!r} takes {takes}")
    found = {}
    for name, node in pairs:
        try:
            found[name] = ast.literal_eval(node)
        except ValueError:
            what = "the level" if kind == "treatment" else f"{name}="
            raise DesignError(f"{what} in {text!r} must be a literal") from None
        if isinstance(known[name], bool) and not isinstance(found[name], bool):
            raise DesignError(f"{name}= in {text!r} is True or False, not {found[name]!r}")
    if found.get("scores") is not None:
        found["scores"] = _scores(found["scores"], text)
    return found


def _scores(given: Any, text: str) -> tuple[float, ...]:
    """Scores of levels: different finite numbers."""
    values: list[Any] = list(given) if isinstance(given, (list, tuple)) else []
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    usable = [number for number in dict.fromkeys(numbers) if math.isfinite(number)]
    if not values or len(usable) < len(values):
        raise DesignError(f"scores= in {text!r} is a list of different numbers, one for each level")
    return tuple(usable)
