"""Wilkinson notation to terms; the grammar is formulaic's, the meaning of each factor is settled here.

Wilkinson and Rogers (1973), Symbolic description of factorial models. Full rank by structure after formulaic (and patsy
before it): every term is split into the spaces its factors span, and what earlier terms span already is left out.
"""

from __future__ import annotations

import ast
import itertools
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

from daskglm.design import expressions, times
from daskglm.design.contrasts import Treatment
from daskglm.design.expressions import Expression, function_name
from daskglm.design.transforms import TRANSFORMS, Transform
from daskglm.errors import DesignError, closest

Kind = Literal["numeric", "factor", "matrix"]


@final
@dataclass(frozen=True)
class Variable:
    """One factor of a term: a numeric expression, a column whose values are levels, or a sparse matrix.

    name is how it appears in parameter names; transform: what is made of the values of the expression by what is
    learnt from the data, None where they are used as they are (levels: treatment coding by the first one).
    """

    name: str
    kind: Kind
    expression: Expression
    transform: Transform | None = None

    @property
    def baseline(self) -> Any:
        """The level left out where one must be, None for the first."""
        return self.transform.base if isinstance(self.transform, Treatment) else None

    @property
    def largest(self) -> bool:
        """Whether the level left out is the one of most weight."""
        return isinstance(self.transform, Treatment) and self.transform.largest

    @property
    def text(self) -> str:
        """What it is evaluated from: equal texts have equal values."""
        learnt = self.kind == "numeric" and self.transform is not None
        return self.name if learnt else self.expression.text


@final
@dataclass(frozen=True)
class Coding:
    """A factor in a term, coded with all its levels (full) or without its baseline."""

    variable: Variable
    full: bool


@final
@dataclass(frozen=True)
class Part:
    """A product of variables that gives a run of columns of X; empty for the intercept. factors hold its codings."""

    variables: tuple[Variable, ...]
    full: Mapping[str, bool]


@final
@dataclass(frozen=True)
class Terms:
    """A formula understood: the response, the terms in order, each with its parts, and the offsets; several: whether the
    response is one of several, `responses(y1, y2)`, and not successes and failures.
    """

    text: str
    response: tuple[Expression, ...]
    names: tuple[str, ...]
    parts: tuple[tuple[str, Part], ...]
    offsets: tuple[Expression, ...]
    intercept: bool
    several: bool = False

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Every variable of the right side, once, in order of appearance."""
        found = {variable.name: variable for _, part in self.parts for variable in part.variables}
        return tuple(found.values())


@final
@dataclass(frozen=True)
class Term:
    """A term by itself: its name and its variables."""

    name: str
    variables: tuple[Variable, ...]


def terms_of(terms: Terms) -> tuple[Term, ...]:
    """Every term but the intercept, in order."""
    found: dict[str, tuple[Variable, ...]] = {}
    for name, part in terms.parts:
        # of the parts of a term one has all of its variables
        if part.variables and len(part.variables) > len(found.get(name, ())):
            found[name] = part.variables
    return tuple(Term(name, variables) for name, variables in found.items())


def beside(terms: Terms, further: Term) -> tuple[tuple[str, Part], ...]:
    """The parts of one more term, coded by what it adds to those that are there; none where it adds nothing."""
    own = [(term.name, term.variables) for term in terms_of(terms)]
    every = _scoped(terms.intercept, [*own, (further.name, further.variables)])
    return tuple(every)[len(terms.parts) :]


def joined(terms: Terms, further: Sequence[Term]) -> Terms:
    """The terms of one model and more of them, coded together as in one formula."""
    every = sorted([*terms_of(terms), *further], key=lambda term: len(term.variables))
    names = tuple((["Intercept"] if terms.intercept else []) + [term.name for term in every])
    parts = tuple(_scoped(terms.intercept, [(term.name, term.variables) for term in every]))
    return replace(terms, names=names, parts=parts)


def parse(text: str, kinds: Mapping[str, Kind], require_response: bool = True) -> Terms:
    """Read a formula over columns of the given kinds.

    DesignError where it cannot be read, names a column that is not there, or asks for a function that is not listed.
    """
    left, right = _grammar(text, kinds)
    if require_response and left is None:
        raise DesignError(f"the formula {text!r} has no response: write y ~ {text.lstrip('~ ')}")
    offsets: list[Expression] = []
    terms: list[tuple[str, tuple[Variable, ...]]] = []
    intercept = False
    for factors in sorted(right, key=len):
        inner = [_offset(expr, method) for expr, method in factors]
        if any(inner):
            if len(factors) > 1:
                raise DesignError(
                    f"an offset cannot be part of an interaction, as in {':'.join(f for f, _ in factors)}"
                )
            offsets.append(_numeric(inner[0] or "", kinds))
            continue
        if not factors:
            intercept = True
            continue
        absent = [expr for expr, method in factors if method == "lookup" and expr not in kinds]
        require_columns(absent, kinds, "the formula", text)
        variables = tuple(variable(expr, method, kinds) for expr, method in factors)
        if len(variables) > 1 and any(v.kind == "matrix" for v in variables):
            raise DesignError(f"a matrix cannot be part of an interaction, as in {':'.join(v.name for v in variables)}")
        terms.append((":".join(v.name for v in variables), variables))
    response = () if left is None else _response(left, kinds, text)
    names = tuple((["Intercept"] if intercept else []) + [name for name, _ in terms])
    several = left is not None and _is_call(left, "responses")
    return Terms(text, response, names, tuple(_scoped(intercept, terms)), tuple(offsets), intercept, several)


# A sum of columns in quotes, as arrays are written: the grammar's sums of sums take quadratic time, seconds for some
# thousand columns, and a column called 1 is the intercept to it.
_QUOTED_SUM = re.compile(r"\s*([^\W\d]\w*)?\s*~\s*(`[^`]+`(?:\s*\+\s*`[^`]+`)*)\s*")


def _quoted_sum(text: str) -> tuple[tuple[str, str] | None, list[list[tuple[str, str]]]] | None:
    found = _QUOTED_SUM.fullmatch(text)
    if found is None:
        return None
    names = dict.fromkeys(found.group(2).split("`")[1::2])
    return (found.group(1), "lookup") if found.group(1) else None, [[], *([(name, "lookup")] for name in names)]


def _grammar(text: str, kinds: Mapping[str, Kind]) -> tuple[tuple[str, str] | None, list[list[tuple[str, str]]]]:
    """The response's (expression, how to read it) and each term's; numbers as factors are the intercept."""
    from formulaic.errors import FormulaicError
    from formulaic.parser import DefaultFormulaParser

    if not isinstance(text, str):
        raise DesignError(f"a formula is text such as 'y ~ x', not {type(text).__name__}")
    if not text.strip():
        raise DesignError("the formula is empty: write, for example, y ~ x")
    quoted = _quoted_sum(text)
    if quoted is not None:
        return quoted
    parser = DefaultFormulaParser()
    given, text = text, _marked(text)
    try:
        _check_left(list(parser.get_tokens(text)), given, kinds)
        _refuse_numeric_powers(list(parser.get_tokens(text)), kinds, text)
        usable = [name for name, kind in kinds.items() if times.is_number(kind) or kind in ("factor", "matrix")]
        context = {"__formulaic_variables_available__": usable} if "." in text else {}
        structured = parser.get_terms(text, context=context) if context else parser.get_terms(text)
    except DesignError:
        raise
    except (FormulaicError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        message = " ".join(str(error).replace("\x1b[1;31m", "").replace("\x1b[0m", "").split())
        message = message.replace("⧛", "").replace("⧚", "").replace(_MARK, "")
        raise DesignError(f"cannot read the formula {given!r}: {message}{_quotes_for(given, kinds)}") from None
    text = given
    if hasattr(structured, "rhs"):
        left, right = list(structured.lhs), structured.rhs
    else:
        left, right = [], structured
    if isinstance(right, tuple):
        raise DesignError(f"the formula {text!r} has several parts (|), which a GLM does not")
    if len(left) > 1 or (left and len(left[0].factors) > 1):
        raise DesignError(
            f"the left side of {text!r} must be one response: for arithmetic write I(...), for counts out of trials "
            "cbind(a, b)"
        )
    response = None if not left else (_unmarked(left[0].factors[0].expr), left[0].factors[0].eval_method.value)
    terms: list[list[tuple[str, str]]] = []
    for term in right:
        factors = [(_unmarked(f.expr), f.eval_method.value) for f in term.factors]
        numbers = [expr for expr, method in factors if method == "literal"]
        if numbers and (len(factors) > 1 or float(ast.literal_eval(numbers[0])) not in (1.0,)):
            raise DesignError(
                f"{':'.join(f for f, _ in factors)!r} in {text!r} is not a term: write I(...) for arithmetic"
            )
        found = [factor for factor in factors if factor[1] != "literal"]
        if found not in terms:
            terms.append(found)
    return response, terms


# Within functions, Python is read, in which a column cannot be called as one of its keywords: such names are marked by a
# character that is part of no word, so that they stay in backticks.
_MARK = "\ue000"


def _marked(text: str) -> str:
    depth = 0

    def marked(match: re.Match[str]) -> str:
        nonlocal depth
        depth += {"(": 1, ")": -1}.get(match.group(0), 0)
        name = match.group(1)
        return f"`{name}{_MARK}`" if depth > 0 and name is not None and keyword.iskeyword(name) else match.group(0)

    parts = expressions.STRINGS.split(text)
    return "".join(part if i % 2 else re.sub(r"[()]|`([^`]*)`", marked, part) for i, part in enumerate(parts))


def _unmarked(text: str) -> str:
    return text.replace(_MARK, "")


def _check_left(tokens: list[Any], text: str, kinds: Mapping[str, Any]) -> None:
    """Refuse arithmetic on the left side, which formulas would take for the names of terms, and an empty right side."""
    place = next((i for i, token in enumerate(tokens) if token.token == "~"), None)
    if place is None:
        return
    left = text[: len(text) - len(right_side(text)) - 1].strip()
    if any(token.kind.value == "operator" and token.token not in "()" for token in tokens[:place]):
        raise DesignError(
            f"the left side of {text!r} must be one response: for arithmetic write I({left}) ~ ..., for counts out of trials "
            f"cbind(a, b) ~ ...{_quotes_for(left, kinds)}"
        )
    if not right_side(text).strip():
        raise DesignError(
            f"the formula {text!r} has nothing on its right side: write {left} ~ 1 for an intercept alone"
        )


def check_names(text: str, kinds: Mapping[str, Any]) -> None:
    """A DesignError for a name in a formula that is no column, also where a term is taken away."""
    from formulaic.parser import DefaultFormulaParser

    if _quoted_sum(text) is not None:
        return
    tokens = DefaultFormulaParser().get_tokens(_marked(text))
    names = [_unmarked(token.token.strip("`")) for token in tokens if token.kind.value == "name"]
    absent = [name for name in names if name != "." and name not in kinds]
    if absent:
        require_columns(absent[:1], kinds, text)


def _quotes_for(text: str, kinds: Mapping[str, Any]) -> str:
    """A hint where a text has the name of a column that needs backticks, and has it without them."""
    bare = expressions.BACKTICKS.sub("", text).replace(" ", "")
    for name in kinds:
        there = re.search(rf"(?<!\w){re.escape(name.replace(' ', ''))}(?!\w)", bare) if name else None
        if (keyword.iskeyword(name) or not name.isidentifier()) and there:
            return f"; the column {name!r} is written in backticks: `{name}`"
    return ""


def _refuse_numeric_powers(tokens: list[Any], kinds: Mapping[str, Kind], text: str) -> None:
    for i, (base, power, exponent) in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False)):
        if i > 1 and base.token == ")" and tokens[i - 2].token == "(":
            base = tokens[i - 1]
        name = base.token.strip("`")
        arithmetic = base.kind.value == "python" and not name.startswith("C(")
        if power.token in ("^", "**") and (arithmetic or times.is_number(kinds.get(name))):
            raise DesignError(
                f"{name}{power.token}{exponent.token} in {text!r} would only repeat {name}: in a formula "
                f"{power.token} makes interactions; for the square of a number write "
                f"I({'x' if _transform_name(_tree(name)) else name}**{exponent.token})"
            )


def require_columns(names: Iterable[str], kinds: Mapping[str, Any], where: str, text: str | None = None) -> None:
    """A DesignError for the first name that is not a column, with the closest one there is, or that cannot be used.

    text: where the names were written, if `where` is not that text.
    """
    for name in names:
        if name not in kinds:
            quotes = _quotes_for(where if text is None else text, kinds)
            raise DesignError(
                f'there is no column "{name}" (in {where}){quotes or closest(name, list(kinds))}; '
                f"columns: {', '.join(itertools.islice(kinds, 30))}{', ...' if len(kinds) > 30 else ''}"
            )
        if str(kinds[name]).startswith("unusable: "):
            raise DesignError(f'the column "{name}" (in {where}) cannot be used here, it is {str(kinds[name])[10:]}')


# How columns are called that were arrays of options, where not as the option.
_ARRAY_NAMES = {"clusters": r"cluster\d*_*"}


def require_arrays(given: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """A DesignError for the first option that a fit took from a column of the option's name, which
    is what arrays become, where the data lack it. given: the text of each option, by its name.
    """
    for option, name in given.items():
        pattern = _ARRAY_NAMES.get(option, f"{option}_*")
        if isinstance(name, str) and re.fullmatch(pattern, name) and name not in kinds:
            pronoun = "them" if option in ("weights", "trials", "clusters") else "it"
            verb = "were" if pronoun == "them" else "was"
            raise DesignError(
                f'there is no column "{name}": if the fit\'s {option} {verb} an array, '
                f'add {pronoun} to the data as the column "{name}"'
            )


def right_side(text: str) -> str:
    """What stands behind the ~ of a formula, wherever its response may have one in quotes."""
    quote = ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"`":
            quote = character
        elif character == "~":
            return text[position + 1 :]
    return text


def _numeric(text: str, kinds: Mapping[str, Kind]) -> Expression:
    expression = _expression(text, kinds)
    if expression.is_text(kinds):
        column = expression.column
        what = f'"{column}" in {text!r}' if column else repr(text)
        raise DesignError(f"{what} holds text, not numbers")
    return expression


def _expression(text: str, kinds: Mapping[str, Kind]) -> Expression:
    """An expression of columns, whatever its values are."""
    _refuse_learnt(text)
    expression = expressions.parse(text)
    require_columns(expression.columns, kinds, text)
    for name in expression.columns:
        if kinds[name] == "matrix":
            raise DesignError(f'"{name}" in {text!r} is a matrix, which stands in a formula as it is')
    expression = expression.dated(kinds)
    # a DesignError where text meets arithmetic
    expression.is_text(kinds)
    return expression


def numeric(text: str, kinds: Mapping[str, Kind]) -> Expression:
    """A numeric expression given outside the formula, as a column name or as text."""
    if text in kinds:
        require_columns([text], kinds, text)
        if not times.is_number(kinds[text]):
            raise DesignError(
                f'column "{text}" {"is a matrix" if kinds[text] == "matrix" else "holds text"}, not numbers'
            )
        return expressions.column(text)
    return _numeric(text, kinds)


def _offset(text: str, method: str) -> str | None:
    if method != "python":
        return None
    tree = _tree(text)
    if isinstance(tree, ast.Call) and function_name(tree.func) == "offset":
        if len(tree.args) != 1 or tree.keywords:
            raise DesignError(f"offset takes one expression: {text!r}")
        start = text.index("(") + 1
        return text[start : text.rindex(")")]
    return None


def _tree(text: str) -> ast.expr | None:
    parts = expressions.STRINGS.split(text)
    source = "".join(p if i % 2 else expressions.BACKTICKS.sub("_quoted_", p) for i, p in enumerate(parts))
    try:
        return ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _response(left: tuple[str, str], kinds: Mapping[str, Kind], formula: str) -> tuple[Expression, ...]:
    text, method = left
    if method == "lookup":
        require_columns([text], kinds, "the response", formula)
        return (expressions.column(text),)
    tree = _tree(text)
    if isinstance(tree, ast.Call) and function_name(tree.func) == "C" and tree.args:
        inner = _arguments(text[text.index("(") + 1 : text.rindex(")")])[0]
        written = inner if inner.strip("`") in kinds else f"I({inner})"
        raise DesignError(
            "C() is for the right side: the levels of a response are its values; write "
            f"{written} ~ {right_side(formula).strip()}"
        )
    if isinstance(tree, ast.Call) and function_name(tree.func) == "cbind":
        if len(tree.args) != 2 or tree.keywords:
            raise DesignError(f"cbind takes successes and failures: {text!r}")
        inner = text[text.index("(") + 1 : text.rindex(")")]
        return tuple(_numeric(part, kinds) for part in _arguments(inner))
    if isinstance(tree, ast.Call) and function_name(tree.func) == "responses":
        parts = _arguments(text[text.index("(") + 1 : text.rindex(")")])
        if len(parts) < 2 or tree.keywords or len(set(parts)) < len(parts):
            raise DesignError(f"responses takes two or more different columns or expressions: {text!r}")
        return tuple(_numeric(part, kinds) for part in parts)
    return (_expression(text, kinds),)


def _is_call(left: tuple[str, str], name: str) -> bool:
    """Whether the left side is a call of that name."""
    text, method = left
    if method == "lookup":
        return False
    tree = _tree(text)
    return isinstance(tree, ast.Call) and function_name(tree.func) == name


def _arguments(text: str) -> list[str]:
    """Split at the commas outside brackets, quotes and backticks."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"`":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def variable(text: str, method: str, kinds: Mapping[str, Kind]) -> Variable:
    """What one factor of a term means."""
    if method == "lookup":
        require_columns([text], kinds, "the formula")
        kind: Kind = "numeric" if times.is_time(kinds[text]) else kinds[text]
        return Variable(text, kind, expressions.column(text))
    tree = _tree(text)
    if isinstance(tree, ast.Call) and _transform_name(tree):
        return _transformed(text, tree, kinds)
    expression = _expression(text, kinds)
    return Variable(text, "factor" if expression.is_text(kinds) else "numeric", expression)


def _transformed(text: str, tree: ast.Call, kinds: Mapping[str, Kind]) -> Variable:
    """A variable whose columns depend on what is learnt from the data, such as C(area, Sum)."""
    name = str(_transform_name(tree))
    inner = _arguments(text[text.index("(") + 1 : text.rindex(")")])
    if not tree.args:
        raise DesignError(f"{name} in {text!r} takes a column or an expression")
    transform = TRANSFORMS[name].parse(text, tree.args[1:], tree.keywords)
    if transform.takes == "numbers":
        return Variable(text, "numeric", _argument(inner[0], text, kinds), transform)
    column = inner[0].strip("`")
    if kinds.get(column) == "matrix":
        raise DesignError(f"a matrix has no levels: {text!r}")
    if column in kinds:
        require_columns([column], kinds, text)
        return Variable(text, "factor", expressions.column(column), transform)
    return Variable(text, "factor", _expression(inner[0], kinds), transform)


def _argument(inner: str, text: str, kinds: Mapping[str, Kind]) -> Expression:
    """The numeric expression in a call."""
    column = inner.strip("`")
    if column in kinds:
        require_columns([column], kinds, text)
        return numeric(column, kinds)
    _refuse_learnt(inner)
    require_columns(expressions.parse(inner).columns, kinds, text)
    return _numeric(inner, kinds)


def _refuse_learnt(text: str) -> None:
    """What is learnt from the data is a variable of its own, and no part of an expression."""
    tree = _tree(text)
    for node in ast.walk(tree) if tree is not None else ():
        name = _transform_name(node)
        if name:
            raise DesignError(
                f"{name}(...) depends on what is learnt from the data and cannot be part of an "
                f"expression, as in {text!r}: write it on the right side as a variable of its own"
            )


def _transform_name(node: ast.AST | None) -> str | None:
    """The name of the transform that a node calls."""
    known = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return node.func.id if known and node.func.id in TRANSFORMS else None  # type: ignore[union-attr]


def _scoped(intercept: bool, terms: list[tuple[str, tuple[Variable, ...]]]) -> Iterable[tuple[str, Part]]:
    """Split each term into the parts that add something to what earlier terms span."""
    spanned: set[tuple[frozenset[str], frozenset[str]]] = set()
    if intercept:
        spanned.add((frozenset(), frozenset()))
        yield "Intercept", Part((), {})
    for name, variables in terms:
        numeric = frozenset(v.name for v in variables if v.kind != "factor")
        factors = [v for v in variables if v.kind == "factor"]
        fresh: list[tuple[Variable, ...]] = []
        for size in range(len(factors) + 1):
            for subset in itertools.combinations(factors, size):
                key = (numeric, frozenset(v.name for v in subset))
                if key not in spanned:
                    spanned.add(key)
                    fresh.append(subset)
        for coded in _merged([{v.name: False for v in subset} for subset in fresh]):
            chosen = tuple(v for v in variables if v.kind != "factor" or v.name in coded)
            yield name, Part(chosen, coded)


def _merged(parts: list[dict[str, bool]]) -> list[dict[str, bool]]:
    """Join a part with the one that has one factor less: together they are that factor with all its levels."""
    result: list[dict[str, bool]] = []
    for part in sorted(parts, key=len):
        for other in result:
            extra = set(part.items()) - set(other.items())
            if len(part) - 1 != len(other) or len(extra) != 1:
                continue
            factor, full = next(iter(extra))
            if not full:
                rest = [p for p in result if p is not other]
                result = _merged([*rest, {**part, factor: True}])
                break
        else:
            result.append(part)
    return result
