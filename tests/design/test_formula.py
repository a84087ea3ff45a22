"""Formulas mean what they mean in formulaic, whose parameter names are the truth here; the rest is refused by name."""

from __future__ import annotations

import warnings
from typing import Any

import formulaic
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import daskglm as dg
from daskglm.design import formula
from daskglm.design.design import Design
from daskglm.design.formula import Kind, Terms, parse
from daskglm.design.profile import Profile
from daskglm.errors import DesignError

KINDS: dict[str, Kind] = {
    "y": "numeric", "n": "numeric", "x": "numeric", "z": "numeric", "w": "numeric", "k": "numeric", "a b": "numeric",
    "a": "factor", "b": "factor", "c": "factor",
}  # fmt: skip
LEVELS: dict[str, list[Any]] = {"a": ["a1", "a2", "a3"], "b": ["b1", "b2"], "c": ["c1", "c2", "c3"], "k": [0, 1, 2]}


def frame() -> pd.DataFrame:
    """Every combination of levels, and numbers."""
    generator = np.random.default_rng(8)
    cells = pd.MultiIndex.from_product([*LEVELS.values(), range(2)], names=[*LEVELS, "copy"]).to_frame(index=False)
    for name in ("y", "n", "x", "z", "w", "a b"):
        cells[name] = generator.uniform(1.0, 2.0, len(cells))
    return cells


FRAME = frame()


def names(text: str) -> list[str]:
    """Parameter names by this package, with the levels of FRAME."""
    return list(learnt(parse(text, KINDS)).names)


def learnt(terms: Terms) -> Design:
    def levels(variable: Any) -> dict[Any, float]:
        values = variable.expression.evaluate({n: FRAME[n].to_numpy() for n in variable.expression.columns})
        return dict.fromkeys(pd.unique(values), 1.0)

    factors: dict[str, dict[Any, float]] = {}
    for v in terms.variables:
        if v.kind == "factor":
            column = v.expression.columns[0]
            plain = v.expression.text == column
            factors[v.name] = dict.fromkeys(LEVELS[column], 1.0) if plain else levels(v)
    return Design.learn(terms, Profile(len(FRAME), factors, {}))


def formulaic_names(text: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(formulaic.model_matrix(text.split("~", 1)[1].strip(), FRAME).columns)


FORMULAS = [
    "y ~ 1",
    "y ~ x",
    "y ~ x + z",
    "y ~ x - 1",
    "y ~ 0 + x",
    "y ~ -1 + x + a",
    "y ~ a",
    "y ~ a - 1",
    "y ~ a + b",
    "y ~ a + b - 1",
    "y ~ b + a - 1",
    "y ~ a:b",
    "y ~ a:b - 1",
    "y ~ a*b",
    "y ~ a*b - 1",
    "y ~ a*b*c",
    "y ~ a*b*c - 1",
    "y ~ a*b*c - a:b:c",
    "y ~ a + a:b",
    "y ~ a:b + b",
    "y ~ a + a:b + a:b:c",
    "y ~ a:b:c",
    "y ~ a/b",
    "y ~ a/b/c",
    "y ~ a/(b + c)",
    "y ~ a/x",
    "y ~ a/x - 1",
    "y ~ (a + b)/x",
    "y ~ b %in% a",
    "y ~ x:a",
    "y ~ a:x",
    "y ~ x + x:a",
    "y ~ x*a",
    "y ~ x*a - 1",
    "y ~ x*a - x",
    "y ~ x*a - a",
    "y ~ x*z",
    "y ~ x:z",
    "y ~ x:z:a",
    "y ~ x*z*a",
    "y ~ a:x:b",
    "y ~ a:x + b:x",
    "y ~ a:x + a:b:x",
    "y ~ x + a:x + b:x + a:b:x",
    "y ~ a:z + a:x - 1",
    "y ~ (a + b + c)**2",
    "y ~ (a + b + c)^2",
    "y ~ (a + x)^2 - 1",
    "y ~ (a + b + x + z)^2",
    "y ~ a + b + a:b - a",
    "y ~ x + x + x",
    "y ~ a + a",
    "y ~ log(x)",
    "y ~ log(x) + I(x**2) + np.sqrt(z)",
    "y ~ log(x):a",
    "y ~ a*log(x)",
    "y ~ np.log(x)",
    "y ~ I(x + z)",
    "y ~ I(x > 1.5)",
    "y ~ C(k)",
    "y ~ C(k) - 1",
    "y ~ C(k)*x",
    "y ~ C(k):a",
    "y ~ C(a)",
    "y ~ C(a, Treatment('a2'))",
    'y ~ C(a, Treatment("a3")):b',
    "y ~ C(a, Treatment('a2')) - 1",
    "y ~ C(a, contr.treatment('a3')) + b",
    "y ~ C(k, Treatment(1))",
    "y ~ C(k, Treatment(2)) + x",
    "y ~ `a b`",
    "y ~ `a b`*a",
    "y ~ k",
    "y ~ (x + z):(a + b)",
    "y ~ x:(a + b) + c",
    "log(y) ~ x",
    "y ~ 1 + x + 1",
    "y ~ x + 0 + 1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_names_are_those_of_formulaic(text: str) -> None:
    assert names(text) == formulaic_names(text)


ATOM = st.sampled_from(["x", "z", "a", "b", "c", "k", "C(k)", "log(x)"])
PAIR = st.tuples(ATOM, st.sampled_from([":", "*", "/"]), ATOM).map(lambda t: f"{t[0]}{t[1]}{t[2]}")
TRIPLE = st.tuples(ATOM, st.sampled_from([":", "*"]), ATOM, st.sampled_from([":", "*"]), ATOM).map("".join)
GROUP = st.tuples(ATOM, ATOM, st.sampled_from([":", "*"]), ATOM).map(lambda t: f"({t[0]} + {t[1]}){t[2]}{t[3]}")
TERM = st.one_of(ATOM, PAIR, TRIPLE, GROUP)


@settings(deadline=None, max_examples=250)
@given(st.lists(TERM, min_size=1, max_size=3), st.sampled_from(["", " - 1", " + 0", " - x", " - a", " - a:b"]))
def test_names_of_any_combination_are_those_of_formulaic(terms: list[str], end: str) -> None:
    text = f"y ~ {' + '.join(terms)}{end}"
    expected = formulaic_names(text)
    assume(expected)
    assert names(text) == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(TERM, min_size=1, max_size=3), st.sampled_from(["", " - 1"]))
def test_no_column_is_a_combination_of_others_by_structure(terms: list[str], end: str) -> None:
    text = f"{' + '.join(terms)}{end}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = formulaic.model_matrix(text, FRAME)
    # k beside C(k), and a numeric interaction of it, are combinations by their values, not by their structure
    assume("k" not in text.replace("C(k)", ""))
    rank = np.linalg.matrix_rank(matrix.to_numpy(float))
    assert len(names("y ~ " + text)) == matrix.shape[1] == rank


def test_every_other_column_is_a_dot() -> None:
    kinds: dict[str, Kind] = {"y": "numeric", "x": "numeric", "a": "factor"}
    assert parse("y ~ .", kinds).names == ("Intercept", "x", "a")


# -- the response and offsets ------------------------------------------------------------------------------------------


def test_the_response_may_be_an_expression_or_two_counts() -> None:
    assert [e.text for e in parse("y ~ x", KINDS).response] == ["y"]
    assert [e.text for e in parse("`a b` ~ x", KINDS).response] == ["a b"]
    (logarithm,) = parse("log(y) ~ x", KINDS).response
    np.testing.assert_array_equal(logarithm.evaluate({"y": FRAME.y.to_numpy()}), np.log(FRAME.y))
    successes, failures = parse("cbind(y, n - y) ~ x", KINDS).response
    assert (successes.columns, failures.columns) == (("y",), ("n", "y"))
    assert [e.columns for e in parse("cbind(y, maximum(n, y)) ~ x", KINDS).response] == [("y",), ("n", "y")]


def test_offsets_are_no_terms() -> None:
    terms = parse("y ~ x + offset(log(n)) + offset(z)", KINDS)
    assert terms.names == ("Intercept", "x")
    total = sum(o.evaluate({name: FRAME[name].to_numpy() for name in ("n", "z")}) for o in terms.offsets)
    np.testing.assert_array_equal(total, np.log(FRAME.n) + FRAME.z)


def test_baselines_are_remembered() -> None:
    (variable,) = parse("y ~ C(a, Treatment('a2'))", KINDS).variables
    assert (variable.kind, variable.baseline, variable.largest) == ("factor", "a2", False)
    (variable,) = parse("y ~ C(a, Treatment('largest'))", KINDS).variables
    assert variable.largest


# -- refusals ----------------------------------------------------------------------------------------------------------

WRONG: list[tuple[Any, str]] = [
    ("", "empty"),
    ("   ", "empty"),
    (3, "int"),
    ("x + z", "no response"),
    ("~ x", "no response"),
    ("y ~ ageg", '"ageg"'),
    ("yy ~ x", '"yy".*did you mean "y"'),
    ("y ~ log(xx)", '"xx".*did you mean "x"'),
    ("y ~ C(aa)", '"aa"'),
    ("y ~ x +", "cannot read"),
    ("y ~ (x", "cannot read"),
    ("y ~ x)", "cannot read"),
    ("y ~ x ~ z", "y ~ x ~ z"),
    ("y ~ x | z", "several parts"),
    ("y + z ~ x", "one response"),
    ("y:z ~ x", "one response"),
    ("y ~ x^2", r"x\^2.*I\(x\*\*2\)"),
    ("y ~ x**2", r"x\*\*2.*I\(x\*\*2\)"),
    ("y ~ (x)^2", r"I\(x\*\*2\)"),
    ("y ~ log(x)^2", r"I\(log\(x\)\*\*2\)"),
    ("y ~ `a b`^2", r"a b\^2"),
    ("y ~ I(x^2)", r"\^.*\*\*"),
    ("y ~ 2", "cannot read"),
    ("y ~ 2*x", "cannot read"),
    ("y ~ x:2", "not a term"),
    ("y ~ poly(x, 2)", r"poly\(\)"),
    ("y ~ bs(x)", r"bs\(\)"),
    ("y ~ x.mean()", "mean"),
    ("y ~ __import__('os').system('true')", "system"),
    ("y ~ I(__import__('os').system('true'))", "system"),
    ("y ~ {x + 1; z}", "cannot read"),
    ("y ~ log(a)", '"a".*text'),
    ("y ~ I(a + 1)", '"a".*text'),
    ("log(a) ~ x", '"a".*text'),
    ("cbind(y) ~ x", "cbind"),
    ("cbind(y, n, z) ~ x", "cbind"),
    ("cbind(y, a) ~ x", '"a".*text'),
    ("y ~ offset(x):z", "offset"),
    ("y ~ offset(x, z)", "offset"),
    ("y ~ offset(a)", '"a".*text'),
    ("y ~ C(a, Sums)", 'did you mean "Sum"'),
    ("y ~ C(a, contr.sdif)", "is not a contrast"),
    ("y ~ C(a, Sum, 1)", "C takes a column and optionally a contrast"),
    ("y ~ C(a, contrast=Sum)", "C takes a column and optionally a contrast"),
    ("y ~ C(a, Sum(1))", "takes no options"),
    ("y ~ C(a, Helmert(reversed=True))", "at most the option"),
    ("y ~ C(a, Helmert(True, reverse=True))", "at most the option"),
    ("y ~ C(a, Helmert(reverse=1))", "is True or False, not 1"),
    ("y ~ C(a, Helmert(reverse=x))", "must be a literal"),
    ("y ~ C(a, Poly(scores=3))", "a list of different numbers"),
    ("y ~ C(a, Poly(scores=[1, 1, 2]))", "a list of different numbers"),
    ("y ~ C(a, Poly(scores=[1, 2, 1e999]))", "a list of different numbers"),
    ("y ~ C(scale(x), Sum)", "cannot be part of an expression"),
    ("y ~ log(scale(x))", "cannot be part of an expression"),
    ("y ~ scale(center(x))", "cannot be part of an expression"),
    ("scale(y) ~ x", "cannot be part of an expression"),
    ("y ~ offset(scale(x))", "cannot be part of an expression"),
    ("y ~ scale(x)^2", "only repeat"),
    ("y ~ scale(a)", "text"),
    ("y ~ standardise(x)", 'did you mean "standardize"'),
    ("y ~ scale(q)", 'no column "q" \\(in scale'),
    ("y ~ scale()", "takes a column or an expression"),
    ("y ~ scale(x, centre=True)", 'did you mean "center"'),
    ("y ~ scale(x, True, True, 1, 2)", "takes a number and the option"),
    ("y ~ scale(x, True, center=True)", "takes a number and the option"),
    ("y ~ scale(x, scale=0)", "other than 0, not 0"),
    ("y ~ scale(x, center='mean')", "is True, False or a number"),
    ("y ~ scale(x, ddof=-1)", "from 0 on, not -1"),
    ("y ~ center(x, 3)", "takes one argument"),
    ("y ~ C(a, Treatment(a))", "literal"),
    ("y ~ C(a, Treatment('a1', 'a2'))", "one level"),
    ("y ~ C(a, Treatment(wrong='a1'))", "one level"),
    ("y ~ C(a, levels=['a1'])", "C takes"),
    ("y ~ C()", "takes a column"),
    ("y ~ I(" + "-" * 50_000 + "x)", "cannot read|too deeply"),
]


@pytest.mark.parametrize("text, message", WRONG, ids=[str(text)[:30] for text, _ in WRONG])
def test_what_is_no_formula_is_refused_and_named(text: Any, message: str) -> None:
    with pytest.raises(DesignError, match=message) as caught:
        parse(text, KINDS)
    assert caught.type is DesignError


def test_a_baseline_that_is_no_level_is_named_with_those_there_are() -> None:
    with pytest.raises(DesignError, match=r"'a9'.*a1, a2, a3"):
        names("y ~ C(a, Treatment('a9'))")


def test_options_outside_the_formula_are_columns_or_expressions() -> None:
    assert formula.numeric("a b", KINDS).columns == ("a b",)
    assert formula.numeric("log(n) + x", KINDS).columns == ("n", "x")
    with pytest.raises(DesignError, match='"a" holds text'):
        formula.numeric("a", KINDS)
    with pytest.raises(DesignError, match="nn"):
        formula.numeric("nn", KINDS)


def test_the_errors_reach_who_fits() -> None:
    with pytest.raises(DesignError, match=r'"xx".*did you mean "x"'):
        dg.glm("y ~ xx", FRAME)


# -- columns in quotes, and matrices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "y ~ `x`", "y~`x`+`z`", "y ~ `x` + `x` + `a b`", "~ `a` + `x`", "y ~ `a`+ `b`  +`x`", " y ~ `a b` ",
])  # fmt: skip
def test_sums_of_quoted_columns_mean_what_the_grammar_says(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    at_once = parse(text, KINDS, require_response=False)
    monkeypatch.setattr(formula, "_quoted_sum", lambda text: None)
    assert at_once == parse(text, KINDS, require_response=False)


@pytest.mark.parametrize("text", [
    "y ~ x", "y ~ `x` + z", "y ~ `x`:`z`", "y ~ `x` - 1", "1 ~ `x`", "`y` ~ `x`", "log(y) ~ `x`", "y ~ `x` +", "~",
])  # fmt: skip
def test_whatever_is_more_than_a_sum_of_quoted_columns_is_left_to_the_grammar(text: str) -> None:
    assert formula._quoted_sum(text) is None


def test_columns_with_the_names_of_numbers() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    fit = dg.glm(X=pd.DataFrame(x), y=x @ [1.0, 2.0, 3.0])
    assert list(fit.params.index) == ["Intercept", "0", "1", "2"]
    np.testing.assert_allclose(fit.params, [0.0, 1.0, 2.0, 3.0], atol=1e-12)


WITH_MATRIX: dict[str, Kind] = {**KINDS, "X": "matrix"}


@pytest.mark.parametrize("text, expected", [
    ("y ~ X", ["Intercept", "u", "v"]),
    ("y ~ X - 1", ["u", "v"]),
    ("y ~ x + X + X + z", ["Intercept", "x", "u", "v", "z"]),
    ("y ~ X + a", ["Intercept", "u", "v", "a[T.a2]", "a[T.a3]"]),
])  # fmt: skip
def test_a_matrix_is_a_term_whose_columns_have_names(text: str, expected: list[str]) -> None:
    terms = parse(text, WITH_MATRIX)
    moments = {(name,): (9, 0.0, 9.0) for name in "xz"}
    profile = Profile(9, {"a": dict.fromkeys(LEVELS["a"], 1.0)}, moments, squares=np.array([36.0, 0.0]))
    design = Design.learn(terms, profile, matrix=("u", "v"))
    assert list(design.names) == expected
    assert [term for name, term in zip(design.names, design.term_of, strict=True) if name in "uv"] == ["X", "X"]
    # whatever stands where in the formula, the columns of the matrix are the last raw ones
    places = dict(zip(design.names, design.select.tolist(), strict=True))
    assert (places["u"], places["v"]) == (design.width - 2, design.width - 1)
    assert design.layout.n_sparse == 2
    np.testing.assert_array_equal(design.scaling.sparse_scale, [0.5, 1.0])


@pytest.mark.parametrize("text, message", [
    ("y ~ X:x", "matrix cannot be part of an interaction, as in X:x"),
    ("y ~ a*X", "matrix cannot be part of an interaction, as in a:X"),
    ("y ~ log(X)", '"X" in .* is a matrix'),
    ("y ~ C(X)", "a matrix has no levels"),
    ("y ~ x + offset(X)", '"X" in .* is a matrix'),
])  # fmt: skip
def test_a_matrix_is_a_term_on_its_own_or_nothing(text: str, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        parse(text, WITH_MATRIX)
    with pytest.raises(DesignError, match='column "X" is a matrix, not numbers'):
        formula.numeric("X", WITH_MATRIX)
