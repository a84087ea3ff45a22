"""The columns of X and their names, against formulaic; scaling, baselines and levels, against their meaning."""

from __future__ import annotations

import warnings
from typing import Any

import formulaic
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskglm as dg
from daskglm.cluster import tables
from daskglm.cluster.tables import TableSource, from_pandas
from daskglm.design.columns import Columns
from daskglm.design.design import Design, Rescaling, products_of
from daskglm.design.formula import parse
from daskglm.design.profile import profile_of
from daskglm.design.reading import Reading
from daskglm.errors import DataError
from daskglm.kernels import reference
from daskglm.kernels.blocks import Block, Scaling

# Products of a few numbers, multiplied in another order.
ROUNDING = 1e-14
# Numbers of size ten less their mean, and orthogonal polynomials by another algorithm.
CENTRED = 1e-13
# The same, shifted by means and back.
SHIFTED = 1e-9


def frame(n: int = 240, seed: int = 1) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": generator.normal(size=n),
            "x": generator.uniform(1.0, 3.0, n),
            "z": generator.normal(5.0, 2.0, n),
            "k": generator.integers(0, 3, n),
            "a": generator.choice(["a1", "a2", "a3"], n),
            "b": generator.choice(["b1", "b2"], n),
            "c": generator.choice([f"c{i}" for i in range(7)], n),
            "flag": generator.random(n) < 0.5,
        }
    )


def learn(formula: str, source: Any, weight: Any = None) -> tuple[Design, list[Columns]]:
    """The design of a source, and its leaves' columns."""
    from daskglm.cluster import sources

    terms = parse(formula, sources.kinds(source))
    reading = Reading(terms.variables, products_of(terms), terms.response, "y", False, None, "", weight, None, (), None)
    source.select(reading.columns)
    leaves = [reading.read(source.load(leaf)) for leaf in source.leaves]
    profile = profile_of(leaves[0])
    for leaf in leaves[1:]:
        profile = profile + profile_of(leaf)
    return Design.learn(terms, profile, source.ordered, "y"), leaves


def matrix(design: Design, block: Block) -> Any:
    """X as the user would write it."""
    return reference.matrix(block, Scaling.none(len(design.dense), len(design.factors)))[:, design.select]


def compared(formula: str, data: pd.DataFrame, source: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = formulaic.model_matrix(formula.split("~")[1].strip(), data)
    if not expected.shape[1]:
        return
    design, leaves = learn(formula, source)
    assert list(design.names) == list(expected.columns)
    x = np.concatenate([matrix(design, design.encode(leaf)) for leaf in leaves])
    learnt = any(word in formula for word in ("Poly", "poly", "Diff", "diff", "scale", "center", "standardize"))
    np.testing.assert_allclose(x, expected.to_numpy(float), rtol=ROUNDING, atol=CENTRED if learnt else 0.0)


FORMULAS = [
    "y ~ 1",
    "y ~ x + z",
    "y ~ x + z - 1",
    "y ~ a + b + c",
    "y ~ a*b - 1",
    "y ~ a*b*x",
    "y ~ a:b + x:z",
    "y ~ c:x + c:z + x",
    "y ~ a/x/z",
    "y ~ x:a:b",
    "y ~ b:c:a",
    "y ~ log(x)*a + I(z**2) + I(x*z)",
    "y ~ C(k)*z",
    "y ~ C(k, Treatment(1)):a",
    "y ~ C(a, Treatment('a3'))*b",
    "y ~ flag*x",
    "y ~ C(flag) + k",
    "y ~ I(x > 2) + x",
    "y ~ (a + b + c + x + z)^2",
    "y ~ C(a, contr.treatment(base='a2'))*C(k, contr.sum)",
    "y ~ C(c, Sum)",
    "y ~ C(c, Sum) - 1",
    "y ~ C(a, Sum())*b*z",
    "y ~ b*C(a, contr.sum)",
    "y ~ x + C(a, Sum):b",
    "y ~ x + b:C(a, Sum)",
    "y ~ C(a, Sum):x",
    "y ~ C(a, Helmert)*C(c, Sum)",
    "y ~ C(c, contr.helmert(reverse=False)):z + z",
    "y ~ C(c, contr.helmert(scale=True))",
    "y ~ C(c, contr.helmert(False, True))",
    "y ~ C(c, Diff)*x",
    "y ~ C(c, contr.diff(backward=False))",
    "y ~ C(c, Poly) + C(k, Poly):C(a, Diff)",
    "y ~ C(a, contr.poly(scores=[1, 2, 5]))*C(k, Poly([3, 1, 2]))",
    "y ~ C(a, Sum):C(b, Poly):C(k, Diff)",
    "y ~ C(flag, Sum) + C(z > 5, Helmert)",
    "y ~ scale(x)",
    "y ~ scale(x)*a + center(z):C(a, Sum)",
    "y ~ standardize(x):scale(z, ddof=0) - 1",
    "y ~ scale(x, center=False) + scale(z, scale=False) + scale(log(x), True, 2.5)",
    "y ~ scale(x + z, center=2) + standardize(x, rescale=False)",
]


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("leaf_rows", [1_000, 17])
def test_x_is_that_of_formulaic(monkeypatch: pytest.MonkeyPatch, formula: str, leaf_rows: int) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", leaf_rows)
    data = frame()
    compared(formula, data.assign(flag=data.flag.astype(int)) if "C(flag" not in formula else data, from_pandas(data))


ATOM = st.sampled_from(
    ["x", "z", "a", "b", "C(k)", "log(x)", "C(a, Sum)", "C(b, Diff)", "C(k, Poly)", "C(k, Helmert)", "scale(x)"]
)
TERM = st.lists(ATOM, min_size=1, max_size=3).flatmap(
    lambda atoms: st.lists(st.sampled_from([":", "*", "/"]), min_size=len(atoms) - 1, max_size=len(atoms) - 1).map(
        lambda signs: "".join(f"{sign}{atom}" for sign, atom in zip(["", *signs], atoms, strict=True))
    )
)
DATA = frame(60)


@settings(deadline=None, max_examples=150)
@given(st.lists(TERM, min_size=1, max_size=3), st.sampled_from(["", " - 1"]))
def test_x_of_any_combination_is_that_of_formulaic(terms: list[str], end: str) -> None:
    compared(f"y ~ {' + '.join(terms)}{end}", DATA, from_pandas(DATA))


def test_many_levels_and_their_combinations_keep_their_places() -> None:
    generator = np.random.default_rng(3)
    data = pd.DataFrame(
        {
            "y": 0.0,
            "u": [f"u{i:03}" for i in generator.integers(0, 200, 5_000)],
            "v": [f"v{i:03}" for i in generator.integers(0, 190, 5_000)],
        }
    )
    design, (leaf,) = learn("y ~ u:v - 1", from_pandas(data))
    block = design.encode(leaf)
    (piece,) = block.levels
    assert piece.n_levels == data.u.nunique() * data.v.nunique() > 2**15
    chosen = [
        design.names[j] for j in np.argsort(design.select)[np.searchsorted(np.sort(design.select), 1 + piece.codes)]
    ]
    assert chosen == [f"u[{u}]:v[{v}]" for u, v in zip(data.u, data.v, strict=True)]


# -- levels ------------------------------------------------------------------------------------------------------------


def levels(design: Design) -> tuple[Any, ...]:
    (found,) = design.levels.values()
    return found


def test_levels_sort_unless_an_order_was_declared() -> None:
    values = ["mid", "low", "high", "low"]
    declared = pd.Categorical(values, categories=["low", "mid", "high", "top"])
    plain, _ = learn("y ~ s", from_pandas(pd.DataFrame({"y": [0.0] * 4, "s": values})))
    kept, _ = learn("y ~ s", from_pandas(pd.DataFrame({"y": [0.0] * 4, "s": declared})))
    table = pa.table({"y": [0.0] * 4, "s": pa.array(values).dictionary_encode()})
    assert levels(plain) == levels(learn("y ~ s", TableSource(table))[0]) == ("high", "low", "mid")
    assert levels(kept) == ("low", "mid", "high")
    assert kept.names == ("Intercept", "s[T.mid]", "s[T.high]")
    assert "top" in kept.notes[0]


@pytest.mark.parametrize("leaf_rows", [1, 2, 100])
def test_levels_are_those_of_all_leaves_whatever_the_order(monkeypatch: pytest.MonkeyPatch, leaf_rows: int) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", leaf_rows)
    table = pa.table({"y": [0.0] * 5, "s": ["c", "b", "a", "b", "d"], "k": [10, 9, 2, 9, 1]})
    design, _ = learn("y ~ s + C(k)", TableSource(table))
    assert design.levels == {"s": ("a", "b", "c", "d"), "C(k)": (1, 2, 9, 10)}


def test_the_largest_level_can_be_the_baseline_by_rows_or_by_weight() -> None:
    from daskglm.design import expressions

    table = pa.table({"y": [0.0] * 5, "s": ["a", "b", "b", "c", "c"], "w": [9.0, 1.0, 1.0, 2.0, 3.0]})
    formula = 'y ~ C(s, Treatment("largest"))'
    by_rows, _ = learn(formula, TableSource(table))
    by_weight, _ = learn(formula, TableSource(table), expressions.column("w"))
    assert [name.split("[")[1] for name in by_rows.names[1:]] == ["T.a]", "T.c]"]
    assert [name.split("[")[1] for name in by_weight.names[1:]] == ["T.b]", "T.c]"]


def test_the_largest_level_is_that_of_most_exposure_where_there_is_one() -> None:
    data = pd.DataFrame({"y": [1.0, 2.0] * 5, "s": ["a"] * 2 + ["b"] * 5 + ["c"] * 3, "e": [9.0] * 2 + [1.0] * 8})
    fit = dg.glm('y ~ C(s, Treatment("largest"))', data, family="poisson", exposure="e")
    rates = data.y.groupby(data.s).sum() / data.e.groupby(data.s).sum()
    assert [name.split("[")[-1] for name in fit.params.index] == ["Intercept", "T.b]", "T.c]"]
    # saturated: the estimates are logarithms of rates and of their ratios
    np.testing.assert_allclose(np.exp(fit.params), [rates.a, rates.b / rates.a, rates.c / rates.a], rtol=SHIFTED)


def test_a_level_that_was_not_learnt() -> None:
    table = pa.table({"y": [0.0] * 4, "s": ["a", "b", "c", "b"]})
    design, _ = learn("y ~ s", TableSource(table))
    other = pa.table({"y": [0.0] * 3, "s": ["b", "q", "c"]})
    _, (leaf,) = learn("y ~ s", TableSource(other))
    with pytest.raises(DataError, match=r"s has levels .*: q;"):
        design.encode(leaf)
    np.testing.assert_array_equal(matrix(design, design.encode(leaf, "baseline")), [[1, 1, 0], [1, 0, 0], [1, 0, 1]])
    np.testing.assert_array_equal(design.unseen_rows(leaf), [False, True, False])


def test_a_level_that_only_the_dictionary_knows_is_no_trouble() -> None:
    design, _ = learn("y ~ s", TableSource(pa.table({"y": [0.0] * 2, "s": ["a", "b"]})))
    coded = pa.DictionaryArray.from_arrays(pa.array([1, 1], pa.int8()), pa.array(["ghost", "b"]))
    _, (leaf,) = learn("y ~ s", TableSource(pa.table({"y": [0.0] * 2, "s": coded})))
    np.testing.assert_array_equal(matrix(design, design.encode(leaf)), [[1, 1], [1, 1]])
    assert not design.unseen_rows(leaf).any()


def test_one_level_alone_leaves_no_column() -> None:
    design, _ = learn("y ~ s", TableSource(pa.table({"y": [0.0] * 2, "s": ["a", "a"]})))
    assert design.names == ("Intercept",)


# -- scaling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", ["y ~ x + z + x:z + a + a:z", "y ~ x + z + a:z - 1", "y ~ a*x", "y ~ x"])
def test_scaled_columns_have_unit_spread_and_are_unscaled_exactly(formula: str) -> None:
    data = frame().assign(z=lambda d: 1e4 + 100 * d.z)
    design, (leaf,) = learn(formula, from_pandas(data))
    block = design.encode(leaf)
    raw, scaled = matrix(design, block), reference.matrix(block, design.scaling)[:, design.select]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(raw @ design.unscaling().matrix(), scaled, rtol=SHIFTED, atol=SHIFTED)
    for j, name in enumerate(design.names):
        if "[" in name or name == "Intercept":
            continue
        if design.intercept:
            assert abs(scaled[:, j].mean()) < SHIFTED
        np.testing.assert_allclose(np.sqrt((scaled[:, j] ** 2).mean()), 1.0, rtol=SHIFTED)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-300, 1e150])
def test_a_constant_column_is_scaled_to_something_finite(value: float) -> None:
    table = pa.table({"y": [0.0] * 4, "x": [value] * 4})
    for formula in ("y ~ x", "y ~ x - 1"):
        design, (leaf,) = learn(formula, TableSource(table))
        scaled = reference.matrix(design.encode(leaf), design.scaling)
        assert np.isfinite(scaled).all()
        assert np.abs(scaled).max() <= 1.0


def test_aliased_columns_are_said_to_be_what_they_are() -> None:
    data = frame().assign(twice=lambda d: 2 * d.x + 3)
    with pytest.warns(dg.errors.AliasWarning, match=r"twice is not estimated: its column is .*2 x"):
        fit = dg.glm("y ~ x + twice + a", data)
    assert fit.aliased == ("twice",)
    assert np.isnan(fit.params["twice"])
    parts = fit.record.aliased["twice"]
    # found from a Gram matrix, whose digits are half of the data's
    assert parts == pytest.approx({"Intercept": 3.0, "x": 2.0}, rel=1e-7)
    x = np.column_stack([np.ones(len(data)), data.x, data.a == "a2", data.a == "a3"])
    expected = np.linalg.lstsq(x, data.y, rcond=None)[0]
    np.testing.assert_allclose(fit.params[["Intercept", "x", "a[T.a2]", "a[T.a3]"]], expected, rtol=1e-10)


@pytest.mark.parametrize("intercept", [True, False])
def test_rescaling_is_the_matrix_it_says_and_its_inverse_undoes_it(intercept: bool) -> None:
    generator = np.random.default_rng(0)
    p = 6
    factor, shift = generator.uniform(0.5, 3.0, p), np.zeros(p)
    if intercept:
        factor[0], shift[1:] = 1.0, generator.normal(size=p - 1)
    change = Rescaling(factor, shift)
    root = generator.normal(size=(p, p))
    coef, covariance = generator.normal(size=p), root @ root.T
    matrix = change.matrix()
    np.testing.assert_allclose(change.coefficients(coef), matrix @ coef, rtol=1e-14)
    np.testing.assert_allclose(change.covariance(covariance), matrix @ covariance @ matrix.T, rtol=1e-13)
    np.testing.assert_allclose(change.inverse().matrix() @ matrix, np.eye(p), atol=1e-15)
    np.testing.assert_allclose(change.inverse().coefficients(change.coefficients(coef)), coef, rtol=1e-13)


# -- other baselines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", ["y ~ a + x", "y ~ x + a*b", "y ~ a:x + b - 1", "y ~ b + a + a:z"])
def test_another_baseline_is_what_learning_it_would_have_been(formula: str) -> None:
    data = frame()
    design, (leaf,) = learn(formula, from_pandas(data))
    other = design.rebased({"a": 1}, ["a note"])
    expected, (same,) = learn(formula.replace("a", "C(a, Treatment('a2'))"), from_pandas(data))
    assert tuple(name.replace("C(a, Treatment('a2'))", "a") for name in expected.names) == other.names
    assert other.notes == (*design.notes, "a note")
    assert other.width == design.width
    np.testing.assert_array_equal(matrix(other, other.encode(leaf)), matrix(expected, expected.encode(same)))


def test_numbers_of_raw_columns_by_level() -> None:
    """Rows of each level, counted from the squares of the indicators, once for every term that leaves one out."""
    data = frame()
    design, (leaf,) = learn("y ~ x + a*b + c - 1", from_pandas(data))
    block = design.encode(leaf)
    squares = (reference.matrix(block, Scaling.none(len(design.dense), len(design.factors))) ** 2).sum(axis=0)
    found = design.by_level(squares)
    # a keeps all its levels in one term, and leaves one out in the other
    assert set(found) == {"a", "b", "c"}
    for name, times in (("a", 2), ("b", 2), ("c", 1)):
        counts = data[name].value_counts().sort_index() * times
        np.testing.assert_array_equal(found[name], counts)
