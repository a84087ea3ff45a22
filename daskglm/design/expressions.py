"""Expressions of a formula or a row filter: parsed, checked against a closed list, and only then computed.

Nothing here can run code: an expression is a tree of names, literals, arithmetic, comparisons and the functions below.
"""

from __future__ import annotations

import ast
import copy
import decimal
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design import folds, times
from daskglm.design.transforms import TRANSFORMS
from daskglm.errors import DesignError, closest

Values = Any

FUNCTIONS: dict[str, Callable[..., Values]] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": lambda value, decimals=0: np.round(value, int(decimals)),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arctan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "clip": np.clip,
    "where": np.where,
    "I": lambda value: value,
}
# These return one of their arguments, whose kind (text, whole numbers, truth values) the result keeps.
SELECTIONS = frozenset({"minimum", "maximum", "clip", "where", "I"})
# Functions of row filters alone.
FILTER_FUNCTIONS = ("fold",)
# least and most arguments, where that is not one: a ufunc would take one more for the array to write to
_ARGUMENTS = {"round": (1, 2), "minimum": (2, 2), "maximum": (2, 2), "clip": (3, 3), "where": (3, 3), "fold": (2, 2)}
_BINARY: dict[type[ast.AST], Callable[[Values, Values], Values]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
}
_UNARY: dict[type[ast.AST], Callable[[Values], Values]] = {
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Not: np.logical_not,
    ast.Invert: np.logical_not,
}
_COMPARE: dict[type[ast.AST], Callable[[Values, Values], Values]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
BACKTICKS = re.compile(r"`([^`]*)`")
STRINGS = re.compile(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")
_QUOTED = re.compile(f"({STRINGS.pattern[1:-1]}|`[^`]*`)")
_SINGLE_EQUALS = re.compile(r"(?<![<>=!])=(?!=)")
# Comparisons of SQL that row filters do not have, and what to write for them.
_OF_SQL = {
    r"\bbetween\b": "there is no between: write x >= 1 and x <= 2",
    r"\blike\b": "there is no like: list the values, as in x in ('a', 'b')",
    "<>": "there is no <>: write !=",
}
_FOR_MISSING = {"null": ("isnan", "isna", "isnull", "is_nan", "is_null", "is_na"), "not null": ("notna", "notnull")}
_FOR_FACTORS = ("factor", "as_factor", "ordered", "Categorical")
_NULL = re.compile(r"\bis\s+(not\s+)?null\b", re.IGNORECASE)


@final
@dataclass(frozen=True)
class Expression:
    """A checked expression. text is what the user wrote; columns are the names it reads, in order of appearance."""

    text: str
    tree: ast.expr = field(compare=False, repr=False)
    names: Mapping[str, str] = field(compare=False, repr=False)
    columns: tuple[str, ...]

    @property
    def column(self) -> str | None:
        """The name of the column that the expression returns unchanged, as `x` and `I(x)` do, or None."""
        node = self.tree
        while isinstance(node, ast.Call) and function_name(node.func) == "I":
            node = node.args[0]
        return self.names.get(node.id, node.id) if isinstance(node, ast.Name) else None

    def is_text(self, kinds: Mapping[str, Any]) -> bool:
        """Whether its values are text or other levels, given the kinds of the columns it reads.

        DesignError where text meets arithmetic or numbers.
        """
        return _is_text(self.tree, self, kinds)

    def dated(self, kinds: Mapping[str, Any]) -> Expression:
        """The same expression with literals that are compared with a column of times as numbers.

        A column of dates holds days since 1970, other times seconds.
        """
        if not any(times.is_time(kinds.get(name)) for name in self.columns):
            return self
        tree = _Dated(self, kinds).visit(copy.deepcopy(self.tree))
        return replace(self, tree=tree)

    def evaluate(self, values: Mapping[str, npt.NDArray[Any]], text: bool = False) -> npt.NDArray[Any]:
        """Compute its value from columns by name, in float64 wherever arithmetic is done.

        A result that is text is a DesignError unless `text` allows it; it is then an array of objects.
        """
        try:
            with np.errstate(all="ignore"):
                result = np.asarray(_value(self.tree, self.names, values))
                if result.dtype.kind in "biuf":
                    return result
                if not text and _holds_text(result):
                    raise DesignError(f"{self.text!r} is text, not numbers")
                return result.astype(object if text else np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DesignError(f"{self.text!r} cannot be computed: {' '.join(str(error).split())[:200]}") from None


def parse(text: str, of_filter: bool = False, written: str | None = None) -> Expression:
    """Check an expression; `a b` in backticks is the column named "a b". of_filter: whether it
    filters rows, which has functions of its own and may ask whether a value is missing. written:
    what the user wrote, where it is not the text itself.
    """
    names: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        name = f"_column_{len(names)}"
        names[name] = match.group(1)
        return name

    parts = STRINGS.split(text)
    source = "".join(part if i % 2 else BACKTICKS.sub(placeholder, part) for i, part in enumerate(parts))
    try:
        source = source.strip()
        tree = _ListOfOne(source).visit(ast.parse(source, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if of_filter:
            raise DesignError(_unreadable(text if written is None else written)) from None
        raise DesignError(f"cannot read the expression {text!r}: {getattr(error, 'msg', error)}") from None
    text = text if written is None else written
    columns: dict[str, None] = {}
    try:
        _check(tree, text, names, columns, of_filter)
    except RecursionError:
        raise DesignError("the expression is nested too deeply") from None
    return Expression(text, tree, names, tuple(columns))


def parse_filter(text: str) -> Expression:
    """Check a row filter, in which a single = compares and a value `is null` or `is not null`, as
    in SQL.
    """

    def plain(part: str) -> str:
        return _NULL.sub(lambda match: "is not None" if match.group(1) else "is None", _SINGLE_EQUALS.sub("==", part))

    parts = _QUOTED.split(text)
    return parse("".join(part if i % 2 else plain(part) for i, part in enumerate(parts)), True, text)


def _unreadable(text: str) -> str:
    """The message for a row filter that cannot be read: what SQL has and filters have not, or what they have."""
    bare = _QUOTED.sub(" ", text)
    for pattern, remedy in _OF_SQL.items():
        if re.search(pattern, bare, re.IGNORECASE):
            return f"cannot read where={text!r}: {remedy}"
    return (
        f"cannot read where={text!r}: a filter compares columns and values by =, !=, <, <=, >, >=, in, not in, "
        "is null and is not null, and joins comparisons by and, or and not"
    )


def column(name: str) -> Expression:
    """The expression that is one column, whatever its name."""
    return Expression(name, ast.Name("_column_0", ast.Load()), {"_column_0": name}, (name,))


def function_name(node: ast.expr) -> str | None:
    """f of f(...), also written np.f(...)."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("np", "numpy"):
        return node.attr
    return None


def _check(
    node: ast.expr, text: str, names: Mapping[str, str], columns: dict[str, None], of_filter: bool = False
) -> None:
    def each(*nodes: ast.expr) -> None:
        for child in nodes:
            _check(child, text, names, columns, of_filter)

    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return
    if isinstance(node, ast.Name):
        columns[names.get(node.id, node.id)] = None
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        each(node.left, node.right)
    elif isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        each(node.operand)
    elif isinstance(node, ast.BoolOp):
        each(*node.values)
    elif isinstance(node, ast.Compare) and all(isinstance(op, (ast.In, ast.NotIn)) for op in node.ops):
        each(node.left)
        for collection in node.comparators:
            if not isinstance(collection, (ast.List, ast.Tuple, ast.Set)):
                raise DesignError(f"in {text!r}, `in` needs a list, such as x in [1, 2]")
            if any(_literal(element) is None for element in collection.elts):
                raise DesignError(f"in {text!r}, the list after `in` holds literals only")
    elif isinstance(node, ast.Compare) and of_filter and _asks_for_missing(node):
        each(node.left)
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        each(node.left, *node.comparators)
    elif isinstance(node, ast.Call):
        name = function_name(node.func)
        if name in FILTER_FUNCTIONS and not of_filter:
            raise DesignError(f"{name}() in {text!r} is a function of row filters, where=, and not of formulas")
        known = (*TRANSFORMS, "offset", *FUNCTIONS)
        if name not in FUNCTIONS and name not in FILTER_FUNCTIONS:
            called = ast.unparse(node.func)
            of = _written_as(node.args[0], names) if node.args else "x"
            remedies = [
                f"{of} is {what}" for what, known_as in _FOR_MISSING.items() if function_name(node.func) in known_as
            ]
            if of_filter and remedies:
                raise DesignError(f"{called}() in {text!r} is not a function of row filters: write {remedies[0]}")
            if called in _FOR_FACTORS and not of_filter:
                raise DesignError(f"{called}() in {text!r} is not a function of a formula: write C({of})")
            raise DesignError(
                f"{called}() in {text!r} is not a function of a formula in this "
                f"version{closest(ast.unparse(node.func), known)}; there are: {', '.join(known)}"
            )
        if node.keywords:
            raise DesignError(f"{name}() in {text!r} takes no options by name")
        least, most = _ARGUMENTS.get(name or "", (1, 1))
        if name == "fold" and len(node.args) != 2:
            raise DesignError(f"in {text!r}, fold takes a column and a number of folds, as in fold(policy, 5)")
        if not least <= len(node.args) <= most:
            raise DesignError(
                f"{name} in {text!r} takes {least if least == most else f'{least} or {most}'} argument(s)"
            )
        each(*node.args)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
        raise DesignError(f"^ inside {text!r} is not a power: write **")
    else:
        raise DesignError(f"{ast.unparse(node)!r} in {text!r} is not allowed in a formula")


def _asks_for_missing(node: ast.Compare) -> bool:
    """Whether a comparison is `is None` or `is not None`, as `is null` is parsed."""
    missing = isinstance(node.comparators[0], ast.Constant) and node.comparators[0].value is None
    return len(node.ops) == 1 and isinstance(node.ops[0], (ast.Is, ast.IsNot)) and missing


def _is_text(node: ast.expr, expression: Expression, kinds: Mapping[str, Any]) -> bool:
    """Whether a node of an expression has text as its values; its parts are checked on the way."""

    def of(child: ast.expr) -> bool:
        return _is_text(child, expression, kinds)

    def need_numbers(*children: ast.expr) -> None:
        for child in children:
            if of(child):
                raise DesignError(f"{_written(child, expression)} in {expression.text!r} holds text, not numbers")

    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.Name):
        return bool(kinds.get(expression.names.get(node.id, node.id)) == "factor")
    if isinstance(node, ast.Compare):
        _check_comparison(node, expression, kinds)
        return False
    if not isinstance(node, ast.Call):
        need_numbers(*(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)))
        return False
    name = function_name(node.func)
    if name == "I":
        return of(node.args[0])
    if name != "where":
        need_numbers(*node.args)
        return False
    need_numbers(node.args[0])
    first, second = of(node.args[1]), of(node.args[2])
    if first != second:
        raise DesignError(f"where in {expression.text!r} mixes text and numbers: give it two of the same kind")
    return first


def _check_comparison(node: ast.Compare, expression: Expression, kinds: Mapping[str, Any]) -> None:
    """Refuse comparing numbers with text; what levels are compared with is checked when their values are known."""
    left = node.left
    for comparator in node.comparators:
        several = isinstance(comparator, (ast.List, ast.Tuple, ast.Set))
        # _check has made sure that the list holds literals only
        others: Sequence[ast.expr] = comparator.elts if several else [comparator]  # type: ignore[attr-defined]
        sides = [_is_text(side, expression, kinds) for side in (left, *others)]
        literals = [isinstance(_literal(side), str) for side in (left, *others)]
        if any(literals) and not all(sides):
            number = (left, *others)[sides.index(False)]
            text = (left, *others)[literals.index(True)]
            raise DesignError(
                f"{expression.text!r} compares text, {_written(text, expression)}, with numbers, "
                f"{_written(number, expression)}"
            )
        left = comparator


def _written(node: ast.expr, expression: Expression) -> str:
    """A part of an expression as it was written, a column in quotes."""
    if isinstance(node, ast.Name):
        return f'"{expression.names.get(node.id, node.id)}"'
    return _written_as(node, expression.names)


def _written_as(node: ast.expr, names: Mapping[str, str]) -> str:
    """A part of an expression as it was written."""
    text = ast.unparse(node)
    for placeholder, name in names.items():
        text = re.sub(rf"\b{placeholder}\b", lambda _, name=name: f"`{name}`", text)  # type: ignore[misc]
    return text


class _ListOfOne(ast.NodeTransformer):
    """Makes a list of the single literal in round brackets after `in`, as in x in ('a')."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        """A comparison: each literal in brackets becomes a list."""
        self.generic_visit(node)
        one_line = b"\n" not in self.source
        for i, (op, right) in enumerate(zip(node.ops, node.comparators, strict=True)):
            bracket = one_line and self.source[: right.col_offset].rstrip().endswith(b"(")
            if isinstance(op, (ast.In, ast.NotIn)) and bracket and _literal(right) is not None:
                node.comparators[i] = ast.Tuple([right], ast.Load())
        return node


class _Dated(ast.NodeTransformer):
    """Replaces text that is compared with a column of times by the number that this time is there."""

    def __init__(self, expression: Expression, kinds: Mapping[str, Any]) -> None:
        self.expression, self.kinds = expression, kinds

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        """A comparison: each literal is read as its neighbour's kind of time."""
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        found = [self._kind(side) for side in sides]
        for i, side in enumerate(sides):
            near = [kind for kind in (*found[max(i - 1, 0) : i], *found[i + 1 : i + 2]) if kind]
            if near:
                sides[i] = self._number(side, near[0])
        return ast.Compare(sides[0], node.ops, sides[1:])

    def _kind(self, node: ast.expr) -> str | None:
        if not isinstance(node, ast.Name):
            return None
        kind = self.kinds.get(self.expression.names.get(node.id, node.id))
        return str(kind) if times.is_time(kind) else None

    def _number(self, node: ast.expr, kind: str) -> ast.expr:
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return ast.List([self._number(element, kind) for element in node.elts], ast.Load())
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            return node
        number = times.parsed(node.value, kind)
        if number is None:
            raise DesignError(f"{node.value!r} in {self.expression.text!r} is not a {kind}")
        return ast.Constant(number)


def _holds_text(values: Values) -> bool:
    """Whether an array, a list or a literal holds text; the values of one column are of one kind."""
    if isinstance(values, (str, list)):
        return isinstance(values, str) or any(isinstance(value, str) for value in values)
    array = np.asarray(values)
    return array.dtype.kind == "U" or (array.dtype.kind == "O" and array.size > 0 and isinstance(array.flat[0], str))


def _holds_numbers(values: Values) -> bool:
    """Whether an array, a list or a literal holds numbers."""
    if isinstance(values, list):
        return any(not isinstance(value, str) for value in values)
    array = np.asarray(values)
    return array.dtype.kind in "biuf" or (
        array.dtype.kind == "O" and array.size > 0 and isinstance(array.flat[0], (bool, int, float))
    )


def _literal(node: ast.expr) -> Any:
    """The value of a number, a text or a truth value, or None."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, (bool, int, float, str)) else None


def _floating(value: Values) -> Values:
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value)
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "iub" else value


def _wide(value: Values) -> Values:
    """Whole numbers in a type that any other whole number can be compared with."""
    array = np.asarray(value)
    return array.astype(np.int64) if array.dtype.kind in "iu" and array.dtype.itemsize < 8 else value


def _selectable(values: Sequence[Values]) -> Sequence[Values]:
    """Arguments of which one is returned: whole numbers where one type of 64 bits holds them all,
    and float64 otherwise.
    """
    wide = [_wide(value) for value in values]
    unsigned = any(np.asarray(value).dtype == np.uint64 for value in wide)
    if unsigned and any(np.asarray(value).dtype.kind == "i" and np.min(value, initial=0) < 0 for value in wide):
        return [_floating(value) for value in wide]
    large = any(isinstance(value, int) and abs(value) >= 2**64 for value in wide)
    return [_floating(value) for value in wide] if large else wide


def _is_member(left: Values, listed: Sequence[Any]) -> Values:
    """Whether values are among literals; whole numbers without rounding."""
    array = np.asarray(left)
    if array.dtype.kind == "O":
        return np.isin(array, np.array(listed, object))
    if array.dtype.kind not in "iu":
        return np.isin(left, [float(v) if isinstance(v, int) and abs(v) >= 2**63 else v for v in listed])
    info = np.iinfo(array.dtype)
    whole = [v for v in _whole_of(listed) if info.min <= v <= info.max]
    return np.isin(array, np.array(whole, array.dtype))


def _whole_of(listed: Sequence[Any]) -> list[int]:
    """The literals that are whole numbers."""
    numbers = [v for v in listed if isinstance(v, int) or (isinstance(v, float) and math.isfinite(v))]
    return [int(v) for v in numbers if v == int(v)]


def evaluate_node(node: ast.expr, names: Mapping[str, str], values: Mapping[str, npt.NDArray[Any]]) -> Values:
    """The value of a part of a checked expression."""
    return _value(node, names, values)


def _value(node: ast.expr, names: Mapping[str, str], values: Mapping[str, npt.NDArray[Any]]) -> Values:
    def of(child: ast.expr) -> Values:
        return _value(child, names, values)

    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return values[names.get(node.id, node.id)]
    if isinstance(node, ast.BinOp):
        left, right = of(node.left), of(node.right)
        if isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            return _BINARY[type(node.op)](left, right)
        return _BINARY[type(node.op)](_floating(left), _floating(right))
    if isinstance(node, ast.UnaryOp):
        operand = of(node.operand)
        if isinstance(node.op, ast.USub) and type(operand) is int:
            return -operand
        return _UNARY[type(node.op)](_floating(operand) if isinstance(node.op, ast.USub) else operand)
    if isinstance(node, ast.BoolOp):
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        result = of(node.values[0])
        for child in node.values[1:]:
            result = combine(result, of(child))
        return result
    if isinstance(node, ast.Compare):
        return _compared(node, of)
    assert isinstance(node, ast.Call)
    name = function_name(node.func)
    assert name is not None
    arguments = [of(argument) for argument in node.args]
    if name in SELECTIONS:
        return FUNCTIONS[name](*_selectable(arguments))
    return FUNCTIONS[name](*(_floating(argument) for argument in arguments))


def _compared(node: ast.Compare, of: Callable[[ast.expr], Values]) -> Values:
    result: Values = None
    left = of(node.left)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, (ast.In, ast.NotIn)):
            assert isinstance(comparator, (ast.List, ast.Tuple, ast.Set))
            listed = [of(element) for element in comparator.elts]
            _check_kinds(left, listed)
            part = _is_member(left, listed)
            part = np.logical_not(part) if isinstance(op, ast.NotIn) else part
        else:
            right = of(comparator)
            _check_kinds(left, right)
            part = _COMPARE[type(op)](left, right)
            left = right
        result = part if result is None else np.logical_and(result, part)
    return result


def _check_kinds(left: Values, right: Values) -> None:
    """Refuse comparing text with numbers, which are never equal."""
    for one, other in ((left, right), (right, left)):
        if _holds_text(one) and _holds_numbers(other):
            raise TypeError("text is compared with numbers")


def to_arrow(expression: Expression, types: Mapping[str, Any]) -> Any:
    """The same expression for Arrow's readers, so that row groups that cannot match are never decoded.

    types: Arrow type of each column; a text literal compared with a date or time is read as one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    functions = {
        "log": pc.ln, "log2": pc.log2, "log10": pc.log10, "log1p": pc.log1p, "exp": pc.exp, "sqrt": pc.sqrt,
        "abs": pc.abs, "sign": pc.sign, "floor": pc.floor, "ceil": pc.ceil, "I": lambda value: value,
    }  # fmt: skip

    def wide(value: Any) -> Any:
        return value.cast(pa.float64(), safe=False)

    binary: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
        ast.Add: lambda a, b: pc.add(wide(a), wide(b)), ast.Sub: lambda a, b: pc.subtract(wide(a), wide(b)),
        ast.Mult: lambda a, b: pc.multiply(wide(a), wide(b)), ast.Div: lambda a, b: pc.divide(wide(a), wide(b)),
        ast.Pow: lambda a, b: pc.power(wide(a), wide(b)),
        ast.BitAnd: lambda a, b: a & b, ast.BitOr: lambda a, b: a | b,
        ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b, ast.Lt: lambda a, b: a < b,
        ast.LtE: lambda a, b: a <= b, ast.Gt: lambda a, b: a > b, ast.GtE: lambda a, b: a >= b,
    }  # fmt: skip

    def type_of(node: ast.expr) -> Any:
        return types.get(expression.names.get(node.id, node.id)) if isinstance(node, ast.Name) else None

    def literal(value: object, like: Any) -> Any:
        if isinstance(value, str) and like is not None and pa.types.is_temporal(like):
            return pc.scalar(moment(value, like))
        if isinstance(value, int) and abs(value) > 2**53 and not (like is not None and pa.types.is_integer(like)):
            return pc.scalar(float(value))
        return pc.scalar(value)

    def moment(text: str, like: Any) -> Any:
        # without an offset it is a time in the zone of the column
        seconds = times.parsed(text, f"timestamp[{like.tz}]") if pa.types.is_timestamp(like) and like.tz else None
        try:
            if seconds is not None:
                return pa.scalar(round(seconds * 1e6), pa.timestamp("us", like.tz))
            return pa.scalar(text).cast(like)
        except pa.ArrowInvalid:
            raise DesignError(f"{text!r} in where={expression.text!r} is not a {like}") from None

    def of(node: ast.expr, like: Any = None) -> Any:
        if isinstance(node, ast.Constant):
            return literal(node.value, like)
        if isinstance(node, ast.Name):
            return pc.field(expression.names.get(node.id, node.id))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            return modulo(node)
        if isinstance(node, ast.BinOp) and type(node.op) in binary:
            return binary[type(node.op)](of(node.left), of(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
            return ~of(node.operand)
        if isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.UAdd) or isinstance(node.operand, ast.Constant):
                value = _literal(node)
                return of(node.operand) if value is None else literal(value, like)
            return pc.negate(wide(of(node.operand)))
        if isinstance(node, ast.BoolOp):
            result = of(node.values[0])
            for child in node.values[1:]:
                result = result & of(child) if isinstance(node.op, ast.And) else result | of(child)
            return result
        if isinstance(node, ast.Compare):
            return compared(node)
        if isinstance(node, ast.Call) and function_name(node.func) == "fold":
            return fold(node)
        if isinstance(node, ast.Call) and function_name(node.func) in functions and len(node.args) == 1:
            return functions[function_name(node.func) or ""](of(node.args[0]))
        raise DesignError(f"{ast.unparse(node)!r} cannot be used in where=")

    def modulo(node: ast.BinOp) -> Any:
        """a % b, of the sign of b; of whole numbers without rounding."""
        divisor, kind = _literal(node.right), type_of(node.left)
        whole = kind is not None and pa.types.is_integer(kind) and not pa.types.is_uint64(kind)
        if whole and isinstance(divisor, int) and divisor:
            a, b = of(node.left).cast(pa.int64()), pc.scalar(divisor)
            rest = pc.subtract(a, pc.multiply(pc.divide(a, b), b))
            turned = (rest != 0) & ((rest < 0) if divisor > 0 else (rest > 0))
            return pc.if_else(turned, pc.add(rest, b), rest)
        if kind is not None and pa.types.is_uint64(kind) and isinstance(divisor, int) and 0 < divisor < 2**63:
            a, b = of(node.left), pc.scalar(pa.scalar(divisor, kind))
            return pc.subtract(a, pc.multiply(pc.divide(a, b), b)).cast(pa.int64())
        a, b = wide(of(node.left)), wide(of(node.right))
        return pc.subtract(a, pc.multiply(pc.floor(pc.divide(a, b)), b))

    def fold(node: ast.Call) -> Any:
        count = _literal(node.args[1])
        if isinstance(count, bool) or not isinstance(count, int) or count < 2:
            raise DesignError(
                f"in where={expression.text!r}, fold takes a column and a number of folds, 2 or more, as in fold(policy, 5)"
            )
        return folds.expression(of(node.args[0]), type_of(node.args[0]), count)

    def of_pair(left: ast.expr, op: ast.cmpop, right: ast.expr, like: Any) -> Any:
        """One comparison; whole numbers are compared without rounding, whatever their types."""
        for column, other, kind in ((left, right, type(op)), (right, left, _TURNED.get(type(op), type(op)))):
            written = f"{_written_as(column, expression.names)} {_SIGNS[kind]} {{}}"
            _refuse_mixture(column, type_of(column), _literal(other), written, expression)
        whole = [kind is not None and pa.types.is_integer(kind) for kind in (type_of(left), type_of(right))]
        value = _literal(right if whole[0] else left)
        if all(whole):
            exact = [of(side).cast(pa.decimal128(20)) for side in (left, right)]
            same = type_of(left) == type_of(right)
            return binary[type(op)](of(left), of(right)) if same else binary[type(op)](*exact)
        if any(whole) and type(value) in (int, float):
            column, kind = (left, type_of(left)) if whole[0] else (right, type_of(right))
            turned = type(op) if whole[0] else _TURNED.get(type(op), type(op))
            return binary[turned](of(column), pc.scalar(_whole_bound(value, turned, kind)))
        if any(whole) and not isinstance(value, (str, bool)):
            # the other side is a column of floating-point numbers or is computed
            return binary[type(op)](wide(of(left)), wide(of(right)))
        return binary[type(op)](of(left, like), of(right, like))

    def compared(node: ast.Compare) -> Any:
        if _asks_for_missing(node):
            # as missing= counts values: those that are NaN, too
            missing = pc.is_null(of(node.left), nan_is_null=True)
            return ~missing if isinstance(node.ops[0], ast.IsNot) else missing
        result = None
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            like = type_of(left) or (type_of(right) if isinstance(right, ast.Name) else None)
            if isinstance(op, (ast.In, ast.NotIn)):
                assert isinstance(right, (ast.List, ast.Tuple, ast.Set))
                values = [_literal(element) for element in right.elts]
                for value in values:
                    _refuse_mixture(left, like, value, "{} in the list", expression)
                try:
                    timely = like is not None and pa.types.is_temporal(like)
                    listed = pa.array([float(v) if type(v) is int and abs(v) >= 2**63 else v for v in values])
                    if timely and all(isinstance(value, str) for value in values):
                        listed = pa.array([moment(value, like).as_py() for value in values], like)
                    elif timely:
                        listed = listed.cast(like)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    raise DesignError(
                        f"{values!r} in where={expression.text!r} is not a list of {like or 'one kind'}"
                    ) from None
                if like is not None and pa.types.is_integer(like):
                    listed = pa.array([v for v in _whole_of(values) if _fits(v, like)], like)
                member = of(left).isin(listed)
                part = ~member if isinstance(op, ast.NotIn) else member
            else:
                part = of_pair(left, op, right, like)
                left = right
            result = part if result is None else result & part
        return result

    return of(expression.tree)


_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
# No whole number of 64 bits is as large.
_BEYOND = 10**30


def _fits(value: int, kind: Any) -> bool:
    """Whether an Arrow type of whole numbers holds a value."""
    bits = kind.bit_width
    low, high = (0, 2**bits) if str(kind).startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return low <= value < high


def _whole_bound(value: float, op: type[ast.cmpop], kind: Any) -> Any:
    """The Arrow scalar with which a column of whole numbers compares as it does with a literal."""
    import pyarrow as pa

    if isinstance(value, float):
        if not math.isfinite(value):
            value = math.copysign(_BEYOND, value)
        elif value != math.floor(value) and op in (ast.Eq, ast.NotEq):
            value = _BEYOND
        # x > 1.5 and x <= 1.5 are x > 1 and x <= 1; x >= 1.5 and x < 1.5 are x >= 2 and x < 2
        value = math.floor(value) if op in (ast.Gt, ast.LtE) else math.ceil(value)
    value = max(min(int(value), _BEYOND), -_BEYOND)
    if _fits(value, kind):
        return pa.scalar(value, kind)
    return pa.scalar(decimal.Decimal(value), pa.decimal128(38))


_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "=", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


def _refuse_mixture(node: ast.expr, kind: Any, value: object, write: str, expression: Expression) -> None:
    """Refuse comparing a column with a literal of another kind. write: the remedy, {} for the literal."""
    import pyarrow as pa

    if kind is None or value is None:
        return
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    name, text = _written_as(node, expression.names), isinstance(value, str)
    if pa.types.is_boolean(kind) and not isinstance(value, bool):
        what, remedy = "a truth value", "compare it with True or False"
    elif (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)) and text:
        number = _is_number(str(value))
        what = "a number"
        remedy = f"write {write.format(str(value).strip())}" if number else "compare it with a number"
    elif (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)) and not text:
        what, remedy = "text", f"write {write.format(repr(str(value)))}"
    else:
        return
    is_what = "text" if text else "a truth value" if isinstance(value, bool) else "a number"
    raise DesignError(f"in where={expression.text!r}, {name} is {what} and {value!r} is {is_what}: {remedy}")


def _is_number(text: str) -> bool:
    try:
        return isinstance(_literal(ast.parse(text.strip(), mode="eval").body), (int, float))
    except (SyntaxError, ValueError):
        return False
