"""Expressions compute what NumPy computes, and nothing else than expressions is let in."""

from __future__ import annotations

import contextlib
import operator as op
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskglm.design import expressions, formula
from daskglm.design.expressions import parse, parse_filter, to_arrow
from daskglm.errors import DesignError

GENERATOR = np.random.default_rng(3)
VALUES: dict[str, Any] = {
    "x": GENERATOR.normal(size=50),
    "z": GENERATOR.uniform(0.1, 5.0, size=50),
    "k": GENERATOR.integers(-5, 100, 50).astype(np.int8),
    "flag": GENERATOR.integers(0, 2, 50).astype(np.int8),
    "s": np.array([["a", "b", "it's"][i % 3] for i in range(50)], object),
    "a b": GENERATOR.normal(size=50),
    "x=1": GENERATOR.normal(size=50),
}
x, z, k, flag, s = (VALUES[name] for name in ("x", "z", "k", "flag", "s"))
K = k.astype(float)

with np.errstate(all="ignore"):
    VALUED: dict[str, Any] = {
        "x": x,
        "x + z": x + z,
        "x - z * 2": x - z * 2,
        "-x": -x,
        "+x": x,
        "x / k": x / K,
        "k * k * k": K**3,
        "k + k": K + K,
        "-k": -K,
        "k // 3": K // 3,
        "k % 7": K % 7,
        "k ** 2": K**2,
        "k ** -1": K**-1.0,
        "2 ** k": 2.0**K,
        "1 / 0 * x": np.inf * x,
        "(x + z) * (x - z)": (x + z) * (x - z),
        "I(x**2)": x**2,
        "log(z)": np.log(z),
        "np.log(z)": np.log(z),
        "numpy.log(z)": np.log(z),
        "log(k)": np.log(np.where(K < 0, np.nan, K)),
        "log2(z) + log10(z) + log1p(z)": np.log2(z) + np.log10(z) + np.log1p(z),
        "exp(x) - expm1(x)": np.exp(x) - np.expm1(x),
        "sqrt(abs(x))": np.sqrt(np.abs(x)),
        "sign(x) + floor(x) + ceil(x)": np.sign(x) + np.floor(x) + np.ceil(x),
        "round(x)": np.round(x),
        "round(x, 1)": np.round(x, 1),
        "round(x * 100, -1)": np.round(x * 100, -1),
        "sin(x) * cos(x) / tan(x)": np.sin(x) * np.cos(x) / np.tan(x),
        "arctan(x) + sinh(x) + cosh(x) + tanh(x)": np.arctan(x) + np.sinh(x) + np.cosh(x) + np.tanh(x),
        "minimum(x, z) + maximum(k, 3)": np.minimum(x, z) + np.maximum(K, 3),
        "clip(x, -1, 0.5)": np.clip(x, -1, 0.5),
        "where(x > 0, z, -z)": np.where(x > 0, z, -z),
        "x > 0": x > 0,
        "0 < x < 1": (x > 0) & (x < 1),
        "x >= z or k != 5": (x >= z) | (k != 5),
        "not (x > 0)": ~(x > 0),
        "~(x > 0)": ~(x > 0),
        "not flag": flag == 0,
        "(x > 0) & (k > 5) | (z < 1)": ((x > 0) & (k > 5)) | (z < 1),
        "x > 0 and k > 5 and z < 3": (x > 0) & (k > 5) & (z < 3),
        "(x > 0) * z": (x > 0) * z,
        "(x > 0) + (z > 1)": (x > 0).astype(float) + (z > 1),
        "s == 'a'": s == "a",
        's == "it\'s"': s == "it's",
        "s != 'a'": s != "a",
        "s in ['a', 'c']": s == "a",
        "s not in ('a', 'b')": s == "it's",
        "k in [1, 2, 3, -4]": np.isin(k, [1, 2, 3, -4]),
        "k not in {1, 2}": ~np.isin(k, [1, 2]),
        "`a b` * 2": VALUES["a b"] * 2,
        "`x=1` + x": VALUES["x=1"] + x,
        "s == '`a b`'": np.zeros(50, bool),
        "3": np.array(3),
        "True": np.array(True),
    }


@pytest.mark.parametrize("text", VALUED)
def test_values_are_those_of_numpy(text: str) -> None:
    result = parse(text).evaluate(VALUES)
    np.testing.assert_array_equal(result, np.asarray(VALUED[text]))


def test_every_listed_function_of_one_argument_is_the_one_of_numpy() -> None:
    two = {"minimum", "maximum", "clip", "where", "I", "round"}
    for name in set(expressions.FUNCTIONS) - two:
        result = parse(f"{name}(z)").evaluate(VALUES)
        np.testing.assert_array_equal(result, getattr(np, name)(z), err_msg=name)


@pytest.mark.parametrize(
    "text, columns",
    [
        ("x", ("x",)),
        ("z + x * z", ("z", "x")),
        ("log(`a b`) + x", ("a b", "x")),
        ("s == 'x' and k > 2", ("s", "k")),
        ("k in [1, 2]", ("k",)),
        ("'z' == s", ("s",)),
        ("1 + 2", ()),
        ("np.exp(np_1)", ("np_1",)),
    ],
)
def test_the_columns_read_are_known_beforehand(text: str, columns: tuple[str, ...]) -> None:
    assert parse(text).columns == columns


def test_the_column_called_anything() -> None:
    expression = expressions.column("a b")
    assert expression.columns == ("a b",)
    np.testing.assert_array_equal(expression.evaluate(VALUES), VALUES["a b"])


NESTED = 100_000

ATTACKS = [
    "__import__('os').system('true')",
    "__import__('os')",
    "x.__class__",
    "().__class__.__bases__[0].__subclasses__()",
    "x.tofile('stolen')",
    "np.load('x')",
    "np.fromfile('x')",
    "np.log.__globals__",
    "np.core.os.system('true')",
    "np.log.reduce(x)",
    "numpy.f2py.os",
    "np.pi",
    "np",
    "log.__self__(x)",
    "open('/etc/passwd')",
    "eval('1')",
    "exec('1')",
    "compile('1', '', 'eval')",
    "getattr(x, 'shape')",
    "vars()",
    "globals()",
    "print(x)",
    "lambda: 1",
    "(lambda v: v)(x)",
    "[v for v in x]",
    "{v for v in x}",
    "{v: v for v in x}",
    "(v for v in x)",
    "[x, z]",
    "(x, z)",
    "{'a': x}",
    "(y := x)",
    "f'{x}'",
    "f'{__import__(\"os\")}'",
    "x if z > 0 else k",
    "x[0]",
    "x[:]",
    "s.upper()",
    "'a'.join(s)",
    "'{0.__class__}'.format(x)",
    "b'bytes'",
    "1j * x",
    "None",
    "...",
    "x is z",
    "x in z",
    "x in [z]",
    "k in [1, __import__('os')]",
    "k in [*x]",
    "x @ z",
    "x << 2",
    "x ^ 2",
    "await x",
    "(yield x)",
    "(yield from x)",
    "log(*x)",
    "log(**x)",
    "log(x, out=z)",
    "log(x, z)",
    "maximum(x, z, k)",
    "log()",
    "I()",
    "I(x, z)",
    "where(x > 0)",
    "clip(x, 0)",
    "round(x, 1, z)",
    "log(x)(z)",
    "(log)(x, z)",
    "import os",
    "x; z",
    "x\nz",
    "x = 1",
    "del x",
    "assert x",
    "",
    " ",
    "x +",
    "(x",
    "'unfinished",
    "x # comment\n)",
    "\0",
    "x\0",
    "(" * NESTED + "x" + ")" * NESTED,
    "-" * NESTED + "x",
    "not " * NESTED + "x",
    "x" + " + x" * NESTED,
    "x" + " and x" * 10 + " and (" * 300 + "x" + ")" * 300,
    "log(" * NESTED + "x" + ")" * NESTED,
    "9" * 10_000,
]


def evaluated(text: str) -> Any:
    """Its value on VALUES; a name that is no column is refused as it is when a formula is read."""
    expression = parse(text)
    formula.require_columns(expression.columns, VALUES, text)
    return expression.evaluate(VALUES)


@pytest.mark.parametrize("text", ATTACKS, ids=lambda text: text[:40].encode("unicode_escape").decode())
def test_nothing_but_expressions_is_let_in(text: str) -> None:
    with pytest.raises(DesignError) as caught:
        evaluated(text)
    assert caught.type is DesignError


def test_columns_are_never_written_to() -> None:
    before = {name: values.copy() for name, values in VALUES.items()}
    for text in [*VALUED, *ATTACKS]:
        with contextlib.suppress(DesignError):
            evaluated(text)
    for name, values in VALUES.items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("text", ["x + 'a'", "x == 'a'", "'a' * 10 ** 10", "I('abc')", "s + 1", "log(s)", "'a'", "s"])
def test_text_in_arithmetic_is_refused_by_name(text: str) -> None:
    with pytest.raises(DesignError) as caught:
        parse(text).evaluate(VALUES)
    assert text in str(caught.value)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_a_design_error(text: str) -> None:
    try:
        expression = parse(text)
    except DesignError:
        return
    names = {name: np.ones(3) for name in expression.columns}
    try:
        assert expression.evaluate(names).dtype.kind in "biuf"
    except DesignError:
        return


LEAF = st.sampled_from(["x", "z", "k", "2", "0.5"])
TREES = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "<", ">="]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        inner.map(lambda t: f"(-{t})"),
        st.tuples(st.sampled_from(["exp", "abs", "sqrt", "sign"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, inner).map(lambda t: f"minimum({t[0]}, {t[1]})"),
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200)
@given(TREES)
def test_any_arithmetic_has_the_value_python_gives_it(text: str) -> None:
    def f(value: Any) -> Any:
        return np.asarray(value, np.float64)

    class Number:
        """Arithmetic that is float64 throughout, comparisons included."""

        def __init__(self, value: Any) -> None:
            self.v = f(value)

    def operator(function: Callable[..., Any]) -> Callable[..., Number]:
        return lambda *arguments: Number(function(*(a.v if isinstance(a, Number) else f(a) for a in arguments)))

    for method, function in {
        "__add__": np.add, "__sub__": np.subtract, "__mul__": np.multiply, "__truediv__": np.true_divide,
        "__lt__": np.less, "__ge__": np.greater_equal, "__neg__": np.negative,
    }.items():  # fmt: skip
        setattr(Number, method, operator(function))
    scope = {name: Number(VALUES[name]) for name in ("x", "z", "k")}
    scope |= {name: operator(getattr(np, name)) for name in ("exp", "abs", "sqrt", "sign", "minimum")}
    wrapped = text.replace("0.5", "N(0.5)").replace("2", "N(2)")
    with np.errstate(all="ignore"):
        expected = eval(wrapped, {"__builtins__": {}, "N": Number}, scope).v
    np.testing.assert_array_equal(np.asarray(parse(text).evaluate(VALUES), np.float64), expected)


@pytest.mark.parametrize(
    "text, plain",
    [
        ("k = 5", "k == 5"),
        ("k == 5", "k == 5"),
        ("k >= 5 and k <= 9 and k != 7", "k >= 5 and k <= 9 and k != 7"),
        ("s = 'a'", "s == 'a'"),
        ("s = '='", "s == '='"),
        ("`x=1` > 0", "`x=1` > 0"),
        ("`x=1`=0", "`x=1` == 0"),
        ("s = 'a' or (k=5 and x=1)", "s == 'a' or (k == 5 and x == 1)"),
    ],
)
def test_in_a_filter_one_equals_sign_compares(text: str, plain: str) -> None:
    np.testing.assert_array_equal(parse_filter(text).evaluate(VALUES), parse(plain).evaluate(VALUES))


# a number is no condition in Arrow, so `not flag` stays out
CONDITIONS = [text for text in VALUED if VALUED[text].dtype == bool and VALUED[text].ndim and text != "not flag"]
TABLE = pa.table({name: pa.array(values.tolist()) for name, values in VALUES.items()})


@pytest.mark.parametrize("text", CONDITIONS)
def test_arrow_filters_the_rows_that_the_expression_is_true_of(text: str) -> None:
    types = {field.name: field.type for field in TABLE.schema}
    kept = TABLE.filter(to_arrow(parse(text), types)).column("x").to_pylist()
    assert kept == x[VALUED[text]].tolist()


@pytest.mark.parametrize("text", ["sin(x) > 0", "x // 2 = 1", "where(x > 0, 1, 2) = 1", "minimum(x, z) > 0"])
def test_what_arrow_cannot_compute_is_refused_by_name(text: str) -> None:
    with pytest.raises(DesignError, match="cannot be used in where="):
        to_arrow(parse_filter(text), {"x": pa.float64(), "z": pa.float64()})


WHOLE = pa.table(
    {
        "u": pa.array([1, 2**53 + 1, 2**63 + 1, None], pa.uint64()),
        "i": pa.array([-1, 2**53 + 1, 5, None], pa.int64()),
        "s": pa.array([1, 2, 3, None], pa.int8()),
    }
)
BOUNDS = [0, 1, -1, 2, 2**53, 2**53 + 1, 2**63 + 1, 2**70, -(2**70), 1.5, -0.5, 2.0**53, 1e300]
OPERATORS = {"<": op.lt, "<=": op.le, ">": op.gt, ">=": op.ge, "==": op.eq, "!=": op.ne}


@pytest.mark.parametrize("name", WHOLE.column_names)
@pytest.mark.parametrize("sign", OPERATORS)
def test_filters_compare_whole_numbers_without_rounding(name: str, sign: str) -> None:
    types = {f.name: f.type for f in WHOLE.schema}
    values = [value for value in WHOLE[name].to_pylist() if value is not None]
    for bound in BOUNDS:
        for text, expected in (
            (f"{name} {sign} {bound!r}", [v for v in values if OPERATORS[sign](v, bound)]),
            (f"{bound!r} {sign} {name}", [v for v in values if OPERATORS[sign](bound, v)]),
        ):
            assert WHOLE.filter(to_arrow(parse_filter(text), types))[name].to_pylist() == expected, text
    for other in WHOLE.column_names:
        rows = zip(WHOLE[name].to_pylist()[:3], WHOLE[other].to_pylist()[:3], strict=True)
        expected = [OPERATORS[sign](a, b) for a, b in rows]
        found = WHOLE.filter(to_arrow(parse_filter(f"{name} {sign} {other}"), types))
        assert found.num_rows == sum(expected), other


def test_filters_list_and_divide_whole_numbers_without_rounding() -> None:
    types = {f.name: f.type for f in WHOLE.schema}
    for text, expected in (
        (f"u in [1, {2**63 + 1}, -1, 2.5]", 2), (f"i not in [5, {2**70}]", 3), ("s in [1, 300]", 1), ("u % 2 = 1", 3),
        (f"i * 1.0 < {2**63 + 1}", 3), (f"i * 1.0 < {2**53 + 1}", 2),
    ):  # fmt: skip
        assert WHOLE.filter(to_arrow(parse_filter(text), types)).num_rows == expected, text
