"""Tables of every type to the variables of a model, against pandas; and every refusal, with place and value."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_array

import daskglm as dg
from daskglm.cluster.lakes import LeafTable
from daskglm.design import expressions
from daskglm.design.columns import Coded, Columns, Ledger
from daskglm.design.formula import Variable, parse
from daskglm.design.reading import Reading
from daskglm.errors import DataError, DesignError


def reading(formula: str, table: pa.Table, **changes: Any) -> Reading:
    from daskglm.cluster import schemas

    kinds: Any = {f.name: schemas.kind_of(f.type) for f in table.schema}
    terms = parse(formula, kinds)
    options: dict[str, Any] = {
        "products": tuple((v.name,) for v in terms.variables if v.kind == "numeric"), "response_name": "y",
        "response_levels": False, "support": None, "support_text": "", "weight": None, "trials": None,
        "offsets": terms.offsets, "exposure": None, **changes,
    }  # fmt: skip
    return Reading(terms.variables, response=terms.response, **options)


def read(formula: str, table: pa.Table, resident: bool = False, **changes: Any) -> Columns:
    return reading(formula, table, **changes).read(LeafTable(table, "part 7", table.num_rows, resident))


def level_values(coded: Any) -> list[Any]:
    assert isinstance(coded, Coded)
    return [coded.levels[code] for code in coded.codes]


EPOCH = datetime.date(1970, 1, 1)
NUMBERS: dict[str, tuple[pa.Array, list[float]]] = {
    **{
        str(kind): (pa.array([1, 0, 100, None], kind), [1.0, 0.0, 100.0])
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    },
    "negative": (pa.array([-128, 127, None], pa.int8()), [-128.0, 127.0]),
    "large": (pa.array([2**40, -(2**40), None], pa.int64()), [2.0**40, -(2.0**40)]),
    "largest": (pa.array([2**64 - 1, 0, None], pa.uint64()), [2.0**64, 0.0]),
    "half": (pa.array(np.array([0.5, 2.0], np.float16)), [0.5, 2.0]),
    "float": (pa.array([0.5, None, -1.25], pa.float32()), [0.5, -1.25]),
    "double": (pa.array([0.1, None, -1e150], pa.float64()), [0.1, -1e150]),
    "decimal": (pa.array([decimal.Decimal("1.25"), None], pa.decimal128(9, 2)), [1.25]),
    "wide decimal": (pa.array([decimal.Decimal("-0.5"), None], pa.decimal256(50, 1)), [-0.5]),
    "boolean": (pa.array([True, None, False]), [1.0, 0.0]),
    "day": (pa.array([datetime.date(1970, 1, 11), None, datetime.date(1969, 12, 31)], pa.date32()), [10.0, -1.0]),
    "day in milliseconds": (pa.array([datetime.date(1970, 1, 11)], pa.date64()), [10.0]),
    "second": (pa.array([datetime.datetime(1970, 1, 1, 0, 1), None], pa.timestamp("s")), [60.0]),
    "microsecond": (pa.array([datetime.datetime(1970, 1, 1, 0, 0, 0, 500_000), None], pa.timestamp("us")), [0.5]),
    "nanosecond": (pa.array([1_500_000_000, None], pa.timestamp("ns")), [1.5]),
    "duration": (pa.array([datetime.timedelta(minutes=2), None], pa.duration("ms")), [120.0]),
    "time of day": (pa.array([datetime.time(1, 0), None], pa.time32("s")), [3600.0]),
    "time of day, fine": (pa.array([datetime.time(0, 0, 1), None], pa.time64("us")), [1.0]),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("shape", ["whole", "slice", "chunks", "empty chunks"])
@pytest.mark.parametrize("resident", [True, False])
def test_numbers_of_every_type(kind: str, shape: str, resident: bool) -> None:
    array, expected = NUMBERS[kind]
    if shape == "slice":
        chunked = pa.chunked_array([pa.concat_arrays([array, array, array]).slice(len(array), len(array))])
    elif shape == "chunks":
        chunked = pa.chunked_array([array.slice(i, 1) for i in range(len(array))])
    elif shape == "empty chunks":
        chunked = pa.chunked_array([array.slice(0, 0), array, array.slice(0, 0)])
    else:
        chunked = pa.chunked_array([array])
    columns = read("v ~ v", pa.table({"v": chunked}), resident)
    assert columns.numeric["v"].astype(float).tolist() == expected
    assert np.asarray(columns.y, float).tolist() == expected
    assert columns.n == len(expected)
    assert columns.ledger == Ledger(
        len(array), 0, len(array) - len(expected), 0, len(expected), {"v": array.null_count} if array.null_count else {}
    )


LEVELED = {
    "C(where(g == 'a', 1, 0))": [1, 0, 0, 1],
    "C(g == 'a')": [True, False, False, True],
    "C(I(g == 'a'))": [True, False, False, True],
    "C(I(g))": ["a", "b", "c", "a"],
    "I(g)": ["a", "b", "c", "a"],
    "C(where(g == 'a', g, 'other'))": ["a", "other", "other", "a"],
    "where(g == 'a', 'a', 'other')": ["a", "other", "other", "a"],
    "C(where(k > 1, g, 'other'))": ["other", "b", "c", "a"],
    "C(g == h)": [True, False, False, False],
    "C(I(b))": [True, False, True, False],
    "C(where(k > 1, b, False))": [False, False, True, False],
    "C(maximum(k, 300))": [300, 300, 300, 300],
    "C(I(day))": ["2024-01-01", "2024-01-02", "2024-01-01", "2024-01-02"],
    "C(day > '2024-01-01')": [False, True, False, True],
    "C(day in ['2024-01-02'])": [False, True, False, True],
}


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("term", LEVELED)
def test_the_levels_of_an_expression_are_its_values(term: str, dictionary: bool) -> None:
    text = pa.array(["a", "b", "c", "a"])
    days = [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)] * 2
    table = pa.table(
        {
            "g": text.dictionary_encode() if dictionary else text, "h": ["a", "a", "b", "c"],
            "k": pa.array([1, 2, 3, 4], pa.int8()), "b": [True, False, True, False], "day": days,
        }
    )  # fmt: skip
    columns = read(f"k ~ {term}", table)
    (coded,) = columns.factors.values()
    assert level_values(coded) == LEVELED[term]
    assert [type(value) for value in level_values(coded)] == [type(value) for value in LEVELED[term]]


@pytest.mark.parametrize("response", ["I(g == 'a')", "I(g)", "where(g == 'a', 'a', 'other')"])
def test_the_classes_of_an_expression_are_its_values(response: str) -> None:
    table = pa.table({"g": ["a", "b", "c", "a"], "k": [1, 2, 3, 4]})
    columns = read(f"{response} ~ k", table, response_levels=True)
    expected = LEVELED.get(response, LEVELED.get(f"C({response})"))
    assert level_values(columns.y) == expected


UNDEFINED_LEVELS = {"C(log(x))": "infinite|-inf", "C(sqrt(x - 1))": "not a number"}


@pytest.mark.parametrize("term", UNDEFINED_LEVELS)
def test_what_cannot_be_computed_is_no_level(term: str) -> None:
    table = pa.table({"x": [0.0, 1.0, 2.0], "y": [1.0, 2.0, 4.0]})
    with pytest.raises(DataError, match=UNDEFINED_LEVELS[term]):
        read(f"y ~ {term}", table)
    scored = read(f"y ~ {term}", table, scoring=True)
    assert scored.kept is not None
    assert scored.kept.tolist() == [1, 2]


MIXED = {
    "log(g)": '"g" in .* holds text, not numbers',
    "C(log(g))": '"g" in .* holds text, not numbers',
    "I(g + 1)": '"g" in .* holds text, not numbers',
    "I((x > 0) * g)": '"g" in .* holds text, not numbers',
    "I(x == 'a')": "compares text, 'a', with numbers, \"x\"",
    "I(x in ['a', 'b'])": "compares text, 'a', with numbers, \"x\"",
    "C(where(x > 0, g, 1))": "mixes text and numbers",
    "I(g == 1)": "text is compared with numbers",
    "I(day > 'yesterday')": "'yesterday' in .* is not a date",
}


@pytest.mark.parametrize("term", MIXED)
def test_text_among_numbers_is_refused(term: str) -> None:
    table = pa.table({"g": ["a", "b"], "x": [1.0, 2.0], "day": [EPOCH, EPOCH]})
    with pytest.raises(DesignError, match=MIXED[term]):
        read(f"x ~ {term}", table)


TEXTS = {
    "string": pa.array(["b", None, "a", "b", "", "ä"]),
    "large string": pa.array(["b", None, "a"], pa.large_string()),
    "binary": pa.array([b"b", None, b"a"]),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array([2, None, 0, 2], pa.int8()), pa.array(["c", "b", "a"])),
    "wide dictionary": pa.DictionaryArray.from_arrays(
        pa.array([299, 0, None], pa.int32()), pa.array([f"l{i}" for i in range(300)])
    ),
    "null in the dictionary": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2], pa.int8()), pa.array(["a", None, "b"])
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("shape", ["whole", "slice", "chunks"])
def test_levels_of_every_type(kind: str, shape: str) -> None:
    array = TEXTS[kind]
    if shape == "slice":
        chunked = pa.chunked_array([pa.concat_arrays([array, array]).slice(1, len(array))])
    elif shape == "chunks":
        chunked = pa.chunked_array([array.slice(i, 2) for i in range(0, len(array), 2)])
    else:
        chunked = pa.chunked_array([array])
    table = pa.table({"y": np.arange(float(len(array))), "s": chunked})
    columns = read("y ~ s", table)
    expected = [
        (i, v.decode() if isinstance(v, bytes) else v) for i, v in enumerate(chunked.to_pylist()) if v is not None
    ]
    assert level_values(columns.factors["s"]) == [value for _, value in expected]
    assert np.asarray(columns.y).tolist() == [i for i, _ in expected]
    assert columns.ledger.missing == {"s": len(array) - len(expected)}


def test_dictionaries_of_chunks_in_another_order() -> None:
    one = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(["a", "b"]))
    other = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), pa.array(["b", "c", "a"]))
    table = pa.table({"y": np.zeros(5), "s": pa.chunked_array([one, other])})
    assert level_values(read("y ~ s", table).factors["s"]) == ["a", "b", "b", "c", "a"]


def test_numbers_as_levels() -> None:
    table = pa.table({"y": np.zeros(5), "k": [3, 1, None, 1, 2], "f": [True, False, True, None, True]})
    columns = read("y ~ C(k) + C(f) + C(k > 1)", table)
    assert level_values(columns.factors["C(k)"]) == [3, 1, 2]
    assert level_values(columns.factors["C(f)"]) == [True, False, True]
    assert level_values(columns.factors["C(k > 1)"]) == [1, 0, 1]


def test_nan_is_no_level() -> None:
    table = pa.table({"y": np.arange(4.0), "g": np.array([1.0, np.nan, 2.0, np.nan])})
    columns = read("y ~ C(g)", table)
    assert level_values(columns.factors["C(g)"]) == [1.0, 2.0]
    assert np.asarray(columns.y).tolist() == [0.0, 2.0]
    assert columns.ledger.missing_rows == 2


# -- missing values and the ledger -------------------------------------------------------------------------------------


def messy(n: int = 500) -> pd.DataFrame:
    generator = np.random.default_rng(17)

    def holes(values: Any, share: float) -> Any:
        return pd.Series(values).astype(object).where(generator.random(n) > share, None)

    return pd.DataFrame(
        {
            "y": pd.to_numeric(holes(generator.normal(size=n), 0.05)),
            "x": pd.to_numeric(holes(generator.normal(size=n), 0.1)),
            "s": holes(generator.choice(["a", "b"], n), 0.1),
            "w": np.where(generator.random(n) < 0.1, 0.0, generator.uniform(1, 2, n)),
            "e": pd.to_numeric(holes(generator.uniform(1, 2, n), 0.02)),
            "unused": [None] * n,
        }
    )


@pytest.mark.parametrize("nan", [True, False])
def test_rows_that_miss_something_are_left_out_and_counted(nan: bool) -> None:
    data = messy()
    table = pa.table(
        {name: pa.array(data[name].to_numpy(), from_pandas=not nan) for name in ("y", "x", "w", "e")}
        | {"s": pa.array(data.s.tolist())}
    )
    columns = read("y ~ x + s + offset(log(e))", table, weight=expressions.column("w"))
    whole = data[["y", "x", "s", "e"]].notna().all(axis=1)
    used = data[whole & (data.w > 0)]
    np.testing.assert_array_equal(columns.y, used.y)
    np.testing.assert_array_equal(columns.numeric["x"], used.x)
    np.testing.assert_array_equal(columns.weight, used.w)
    np.testing.assert_array_equal(columns.offset, np.log(used.e))
    assert level_values(columns.factors["s"]) == used.s.tolist()
    np.testing.assert_array_equal(columns.kept, np.flatnonzero(whole & (data.w > 0)))
    ledger = columns.ledger
    assert (ledger.read, ledger.used) == (len(data), len(used))
    assert ledger.missing_rows == int((~whole).sum())
    assert ledger.zero_weight == int((whole & (data.w == 0)).sum())
    if not nan:
        assert ledger.missing == {name: int(data[name].isna().sum()) for name in ("x", "s", "y", "e")}


def test_the_logarithm_of_what_has_none_is_an_error_and_of_a_missing_value_missing() -> None:
    table = pa.table({"y": np.zeros(4), "x": [1.0, np.nan, 2.0, None]})
    columns = read("y ~ log(x)", table)
    np.testing.assert_array_equal(columns.numeric["log(x)"], np.log([1.0, 2.0]))
    assert columns.ledger.missing == {"x": 2}
    with pytest.raises(DataError, match=r'part 7: "log\(x\)" is not a number in 1 row\(s\) whose values are all there'):
        read("y ~ log(x)", pa.table({"y": np.zeros(2), "x": [1.0, -1.0]}))
    with pytest.raises(DataError, match=r'part 7: "log\(x\)" is -inf in 1 row'):
        read("y ~ log(x)", pa.table({"y": np.zeros(2), "x": [1.0, 0.0]}))


def test_ledgers_add() -> None:
    one = Ledger(10, 1, 2, 3, 4, {"x": 2, "s": 1})
    other = Ledger(20, 2, 0, 5, 13, {"x": 1, "z": 7})
    assert one + other == Ledger(30, 3, 2, 8, 17, {"x": 3, "s": 1, "z": 7})


def test_an_empty_table_gives_no_rows() -> None:
    table = pa.table({"y": pa.array([], pa.float64()), "x": pa.array([], pa.int8()), "s": pa.array([], pa.string())})
    columns = read("y ~ x + s", table)
    assert (columns.n, columns.ledger) == (0, Ledger())
    assert columns.numeric["x"].shape == (0,)


def test_a_column_of_nulls_leaves_nothing() -> None:
    table = pa.table({"y": [1.0, 2.0], "x": pa.nulls(2), "z": pa.array([None, None], pa.float64())})
    for name in ("x", "z"):
        columns = read(f"y ~ {name}", table)
        assert (columns.n, columns.ledger.missing) == (0, {name: 2})


# -- what is computed --------------------------------------------------------------------------------------------------


def test_moments_are_those_of_the_rows_used() -> None:
    data = messy().assign(big=lambda d: 1e6 + d.w)
    table = pa.Table.from_pandas(data[["y", "x", "big"]], preserve_index=False)
    products = (("x",), ("big",), ("x", "big"))
    columns = read("y ~ x + big + x:big", table, products=products)
    used = data[["y", "x", "big"]].dropna()
    for key in products:
        values = used[list(key)].prod(axis=1).to_numpy()
        mean, squares = columns.moments[key]
        # eps times the condition of a variance about a mean of 1e6 with spread 1, and then some
        np.testing.assert_allclose(mean, np.longdouble(values).mean().astype(float), rtol=1e-13)
        np.testing.assert_allclose(
            squares, ((values - np.longdouble(values).mean()) ** 2).sum().astype(float), rtol=1e-8
        )


def test_successes_and_failures_are_proportions_of_their_sum() -> None:
    table = pa.table({"a": [3, 0, 0, 5], "b": [1, 4, 0, 0], "x": [1.0, 2.0, 3.0, 4.0]})
    columns = read("cbind(a, b) ~ x", table)
    assert np.asarray(columns.y).tolist() == [0.75, 0.0, 1.0]
    assert np.asarray(columns.trials).tolist() == [4.0, 4.0, 5.0]
    assert columns.ledger.zero_weight == 1


def test_counts_out_of_trials_are_proportions() -> None:
    table = pa.table({"y": [3, 0, None, 5], "m": [4, 4, 1, 5], "x": [1.0, 2.0, 3.0, 4.0]})
    columns = read("y ~ x", table, trials=expressions.column("m"), counts=True)
    assert np.asarray(columns.y).tolist() == [0.75, 0.0, 1.0]
    with pytest.raises(DataError, match=r'part 7: "y" is 6 in 1 row'):
        read("y ~ x", pa.table({"y": [6], "m": [4], "x": [1.0]}), trials=expressions.column("m"), counts=True)


def test_offsets_and_the_logarithm_of_an_exposure_add_up() -> None:
    table = pa.table({"y": [1.0, 2.0], "o": [0.5, 1.5], "e": [2.0, 4.0]})
    columns = read("y ~ 1 + offset(o) + offset(2 * o)", table, exposure=expressions.column("e"))
    np.testing.assert_allclose(columns.offset, [1.5 + np.log(2), 4.5 + np.log(4)], rtol=1e-15)
    columns = read("y ~ 1", table, exposure=3.0)
    np.testing.assert_array_equal(columns.offset, np.log([3.0, 3.0]))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("n", [0, 1, 10, 5_000, 60_000])
def test_a_sample_is_about_its_fraction_of_whole_rows(fraction: float, n: int) -> None:
    x = np.arange(n, dtype=float)
    columns = Columns(
        n, {"x": x}, {"s": Coded(np.arange(n) % 5, tuple("abcde"))}, {}, x * 2, None, None, x * 3, Ledger(), None
    )
    sample = columns.sample(fraction)
    assert sample.n == sample.numeric["x"].size
    if n >= 5_000:
        assert fraction * n * 0.5 <= sample.n <= max(fraction * n * 2.1, 1)
    np.testing.assert_array_equal(sample.y, sample.numeric["x"] * 2)
    np.testing.assert_array_equal(sample.offset, sample.numeric["x"] * 3)
    assert [ord(level) - ord("a") for level in level_values(sample.factors["s"])] == (sample.numeric["x"] % 5).tolist()


def test_columns_survive_packing() -> None:
    data = messy()
    columns = read("y ~ x + s + offset(log(e))", pa.Table.from_pandas(data, preserve_index=False))
    header, arrays = columns.pack()
    back = Columns.unpack(header, [array.copy() for array in arrays])
    used = data[["y", "x", "s", "e"]].dropna()
    np.testing.assert_array_equal(back.y, used.y)
    np.testing.assert_array_equal(back.numeric["x"], used.x)
    assert level_values(back.factors["s"]) == used.s.tolist()
    assert (back.n, back.ledger, back.weight, back.moments) == (len(used), columns.ledger, None, columns.moments)


def test_the_columns_a_reading_needs_are_all_and_no_others() -> None:
    table = pa.table({name: [1.0] for name in ("y", "x", "z", "w", "o", "e", "unused")} | {"s": ["a"], "t": ["b"]})
    needed = reading(
        "y ~ log(x):z + C(s) + t + offset(o)", table, weight=expressions.column("w"), exposure=expressions.column("e")
    )
    assert set(needed.columns) == {"y", "x", "z", "s", "t", "o", "w", "e"}
    assert len(needed.columns) == len(set(needed.columns))
    assert isinstance(needed.variables[0], Variable)


# -- refusals, through the front door ----------------------------------------------------------------------------------


def lake(folder: Path, **columns: Any) -> Path:
    generator = np.random.default_rng(0)
    good = {"y": generator.poisson(2.0, 50), "x": generator.normal(size=50), "e": np.ones(50), "s": ["a", "b"] * 25}
    pq.write_table(pa.table(good), folder / "good.parquet")
    bad = {**good, **columns}
    pq.write_table(pa.table(bad), folder / "later.parquet")
    return folder


def changed(values: Any, at: int, value: float) -> Any:
    result = np.array(values, dtype=float)
    result[at] = value
    return result


ONES = np.ones(50)
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], type[Exception], str]] = [
    ("y ~ x", {"y": changed(ONES, 3, -2)}, {"family": "poisson"}, DataError, r'later\.parquet.*"y" is -2 in 1 row'),
    ("y ~ x", {"y": changed(ONES, 3, 0)}, {"family": "gamma"}, DataError, r"parquet.*\"y\" is 0 in"),
    ("y ~ x", {"y": changed(ONES, 3, 1.5)}, {"family": "binomial"}, DataError, r"parquet.*\"y\" is"),
    ("s ~ x", {}, {"family": "poisson"}, DesignError, '"s" is text.*poisson'),
    ("cbind(y, x) ~ 1", {}, {"family": "poisson"}, DesignError, "cbind.*poisson"),
    (
        "y ~ x",
        {"e": changed(ONES, 9, 0)},
        {"family": "poisson", "exposure": "e"},
        DataError,
        r'later.*"e" is 0 in 1 row',
    ),
    ("y ~ x", {"e": changed(ONES, 9, -1)}, {"family": "poisson", "exposure": "e"}, DataError, r'later.*"e" is -1 in 1'),
    ("y ~ x", {"x": changed(ONES, 0, np.inf)}, {}, DataError, r'later\.parquet.*"x" is inf in 1 row'),
    ("y ~ x", {"x": changed(ONES, 0, -np.inf)}, {}, DataError, r'later\.parquet.*"x" is -inf in 1 row'),
    ("x ~ y", {"x": changed(ONES, 0, np.inf)}, {}, DataError, r'later\.parquet.*"x" is inf in 1 row'),
    ("y ~ x", {"e": changed(ONES, 2, np.inf)}, {"weights": "e"}, DataError, r'later\.parquet.*"e" is inf in 1 row'),
    ("y ~ x", {"e": changed(ONES, 2, np.inf)}, {"offset": "e"}, DataError, r'later\.parquet.*"e" is inf in 1 row'),
    ("y ~ x", {"e": changed(ONES, 2, -3)}, {"weights": "e"}, DataError, r'later\.parquet.*"e" is -3 in 1 row'),
    ("y ~ x", {"x": changed(ONES, 2, 1e200)}, {}, DataError, r'later\.parquet.*"x" is so large'),
    (
        "y ~ x",
        {"x": changed(ONES, 2, np.nan)},
        {"missing": "raise"},
        DataError,
        r'later\.parquet.*"x" is missing in row 2',
    ),
    ("y ~ x", {"x": pa.array([1.0] * 49 + [None])}, {"missing": "raise"}, DataError, r'"x" is missing in row 49'),
    ("y ~ s", {"s": [None] + ["a"] * 49}, {"missing": "raise"}, DataError, r'later\.parquet.*"s" is missing in row 0'),
    ("y ~ x", {}, {"weights": "ee"}, DesignError, '"ee".*did you mean "e"'),
    ("y ~ x", {}, {"weights": "s"}, DesignError, '"s" holds text'),
    ("y ~ x", {}, {"offset": "log(s)"}, DesignError, '"s".*text'),
    ("y ~ x", {}, {"where": "xx > 0"}, DesignError, '"xx".*did you mean "x"'),
    ("y ~ x", {}, {"where": "x > 1e9"}, DataError, "x > 1e9"),
    ("s ~ x", {"s": ["a", "b", "c", "a", "b"] * 10}, {"family": "binomial"}, DataError, r'"s" has 3 level'),
    ("y ~ log(x, e)", {}, {}, DesignError, "argument"),
    ("y ~ I(x + 'a')", {}, {}, DesignError, r"I\(x \+ 'a'\)"),
]


@pytest.mark.parametrize("formula, columns, options, kind, message", REFUSED)
def test_wrong_data_and_requests_are_refused_with_place_and_value(
    tmp_path: Path, formula: str, columns: dict[str, Any], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        dg.glm(formula, lake(tmp_path, **columns), **options)
    assert caught.type is kind


def test_text_levels_of_a_response_are_failure_and_success(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    won = np.array(["no", "yes"])[generator.integers(0, 2, 300)]
    table = pa.table({"won": won, "g": generator.choice(["u", "v"], 300)})
    fit = dg.glm("won ~ g", table, family="binomial")
    share = [pc.mean(pc.equal(table.filter(pc.field("g") == g)["won"], "yes")).as_py() for g in "uv"]
    logit = np.log(share) - np.log1p(-np.array(share))
    # a saturated model: the estimates are the logits of the two shares
    np.testing.assert_allclose(fit.params, [logit[0], logit[1] - logit[0]], rtol=1e-9)


# -- a sparse matrix beside the table ----------------------------------------------------------------------------------


def read_matrix(x: Any, table: pa.Table, formula: str = "y ~ X", **changes: Any) -> Columns:
    kinds: Any = dict.fromkeys(table.column_names, "numeric") | {"X": "matrix"}
    terms = parse(formula, kinds)
    names = tuple(f"x{j}" for j in range(x.shape[1]))
    options: dict[str, Any] = {
        "products": tuple((v.name,) for v in terms.variables if v.kind == "numeric"), "response_name": "y",
        "response_levels": False, "support": None, "support_text": "", "weight": None, "trials": None,
        "offsets": terms.offsets, "exposure": None, "matrix": names, **changes,
    }  # fmt: skip
    reading = Reading(terms.variables, response=terms.response, **options)
    return reading.read(LeafTable(table, "part 7", table.num_rows, True, csr_array(x)))


def written(columns: Columns) -> np.ndarray:
    assert columns.sparse is not None
    rows = np.repeat(np.arange(columns.n), np.diff(columns.sparse.indptr))
    result = np.zeros((columns.n, columns.sparse.n_columns))
    result[rows, columns.sparse.indices] = columns.sparse.data
    return result


def sparse_rows(n: int = 40) -> np.ndarray:
    generator = np.random.default_rng(1)
    return generator.integers(1, 9, (n, 5)) * (generator.random((n, 5)) < 0.4).astype(float)


def test_rows_of_a_matrix_go_with_those_of_the_table() -> None:
    x, y, w = sparse_rows(), np.arange(40.0), np.ones(40)
    holes = x.copy()
    holes[[4, 9, 9], [2, 2, 0]] = np.nan
    y[6], w[11] = np.nan, 0.0
    columns = read_matrix(holes, pa.table({"y": y, "w": w}), weight=expressions.column("w"))
    gone = [4, 6, 9, 11]
    np.testing.assert_array_equal(written(columns), np.delete(x, gone, axis=0))
    np.testing.assert_array_equal(columns.y, np.delete(y, gone))
    np.testing.assert_array_equal(columns.kept, np.delete(np.arange(40), gone))
    assert columns.ledger == Ledger(40, 0, 3, 1, 36, {"x0": 1, "x2": 2, "y": 1})
    np.testing.assert_array_equal(columns.squares, (np.delete(x, gone, axis=0) ** 2).sum(axis=0))


def test_a_matrix_beside_other_terms() -> None:
    x = sparse_rows()
    columns = read_matrix(x, pa.table({"y": np.zeros(40), "z": np.arange(40.0)}), "y ~ z + X")
    np.testing.assert_array_equal(written(columns), x)
    np.testing.assert_array_equal(columns.numeric["z"], np.arange(40.0))
    assert columns.moments == {("z",): (19.5, 5330.0)}


def test_a_matrix_survives_packing_and_sampling() -> None:
    x = sparse_rows(3_000)
    columns = read_matrix(x, pa.table({"y": np.arange(3_000.0)}))
    header, arrays = columns.pack()
    back = Columns.unpack(header, [array.copy() for array in arrays])
    np.testing.assert_array_equal(written(back), x)
    assert columns.squares is not None
    # what only the profile asks for is not packed
    assert columns.nbytes - columns.squares.nbytes == back.nbytes > x.astype(bool).sum() * 12
    sample = columns.sample(0.1)
    assert 200 < sample.n < 500
    np.testing.assert_array_equal(written(sample), x[np.asarray(sample.y).astype(int)])


def test_only_what_is_learnt_from_is_squared() -> None:
    x, table = sparse_rows(), pa.table({"y": np.zeros(40)})
    assert read_matrix(x, table, passing=True).squares is None
    assert read_matrix(x, table, scoring=True).squares is None


@pytest.mark.parametrize("first", [2**53, 2**63])
@pytest.mark.parametrize("dictionary", [False, True])
def test_unsigned_whole_numbers_are_levels_without_rounding(first: int, dictionary: bool) -> None:
    column = pa.array([first, first + 1, None, first + 2], pa.uint64())
    table = pa.table({"y": np.zeros(4), "u": column.dictionary_encode() if dictionary else column})
    columns = read(f"y ~ C(u) + C(u > {first}) + C(u == {first + 1}) + C(u in [{first + 2}, -1])", table)
    assert level_values(columns.factors["C(u)"]) == [first, first + 1, first + 2]
    assert level_values(columns.factors[f"C(u > {first})"]) == [False, True, True]
    assert level_values(columns.factors[f"C(u == {first + 1})"]) == [False, True, False]
    assert level_values(columns.factors[f"C(u in [{first + 2}, -1])"]) == [False, False, True]


def test_unsigned_whole_numbers_are_numbers() -> None:
    table = pa.table({"y": np.zeros(2), "u": pa.array([1, 2**63 + 2**12], pa.uint64())})
    columns = read("y ~ u + I(u + 1) + maximum(u, -1) + minimum(u, 3)", table)
    assert columns.numeric["u"].tolist() == [1.0, 2.0**63 + 2**12]
    assert columns.numeric["maximum(u, -1)"].tolist() == [1.0, 2.0**63 + 2**12]
    assert columns.numeric["minimum(u, 3)"].tolist() == [1.0, 3.0]


def test_negative_literals_are_compared_without_rounding() -> None:
    table = pa.table({"y": np.zeros(2), "k": [-(2**53), -(2**53) - 1]})
    columns = read(f"y ~ C(k == {-(2**53) - 1})", table)
    assert level_values(columns.factors[f"C(k == {-(2**53) - 1})"]) == [False, True]


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "parquet", "objects"])
def test_every_source_keeps_unsigned_levels_apart(kind: str, tmp_path: Path) -> None:
    import polars as pl

    u = np.uint64(2**63) + np.arange(60, dtype="uint64") % np.uint64(3)
    frame = pd.DataFrame({"u": u, "y": (np.arange(60) % 3) * 10.0 + np.sin(np.arange(60))})
    table = pa.Table.from_pandas(frame)
    pq.write_table(table, tmp_path / "u.parquet")
    sources: dict[str, Any] = {
        "pandas": frame, "polars": pl.from_pandas(frame), "pyarrow": table, "parquet": tmp_path / "u.parquet",
        "objects": frame.assign(u=frame["u"].astype(object)),
    }  # fmt: skip
    fit = dg.glm("y ~ C(u)", sources[kind], progress=False)
    names = ["Intercept", f"C(u)[T.{2**63 + 1}]", f"C(u)[T.{2**63 + 2}]"]
    assert fit.params.index.tolist() == names
    classes = dg.glm("u ~ 1", sources[kind], family="multinomial", progress=False)
    assert classes.params.shape == (1, 2)
