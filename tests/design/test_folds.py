"""Filters by a hash of a value, by missing values and by remainders: the same rows from every source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.design.expressions import parse, parse_filter, to_arrow
from daskglm.design.folds import folds
from daskglm.errors import DesignError


def kept(table: pa.Table, where: str) -> list[int]:
    """Numbers of the rows that a filter keeps."""
    condition = to_arrow(parse_filter(where), dict(zip(table.schema.names, table.schema.types, strict=True)))
    numbered = table.append_column("row", pa.array(range(table.num_rows)))
    return numbered.filter(condition)["row"].to_pylist()


def test_folds_are_fixed_for_good() -> None:
    keys = np.array([0, 1, 2, -1, 10**18], np.int64)
    mixed = [16294208416658607535, 10451216379200822465, 10905525725756348110, 16490336266968443936]
    assert [int(fold) for fold in folds(keys[:4], 1_000_003)] == [value % 1_000_003 for value in mixed]
    assert kept(pa.table({"p": [f"P{i}" for i in range(12)]}), "fold(p, 3) = 0") == FIRST_THIRD


FIRST_THIRD = [3, 8]


def test_folds_are_balanced_and_independent_of_each_other() -> None:
    keys = np.arange(100_000, dtype=np.int64)
    for count in (2, 5, 7):
        share = np.bincount(folds(keys, count)) / keys.size
        np.testing.assert_allclose(share, 1.0 / count, atol=4.0 * np.sqrt(1.0 / count / keys.size))
    table = np.histogram2d(folds(keys, 5), keys % 5, bins=5)[0] / keys.size
    np.testing.assert_allclose(table, 0.04, atol=0.003)


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(21, 2)]
)
def test_numbers_of_any_width_have_the_same_folds(kind: Any) -> None:
    values = pa.array(range(100))
    expected = kept(pa.table({"p": values}), "fold(p, 5) != 0")
    assert 60 < len(expected) < 95
    assert kept(pa.table({"p": values.cast(kind)}), "fold(p, 5) != 0") == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_text_of_any_kind_has_the_same_folds(kind: Any) -> None:
    values = pa.array([f"policy {i}" for i in range(100)])
    expected = kept(pa.table({"p": values}), "fold(p, 5) != 0")
    assert kept(pa.table({"p": values.cast(kind)}), "fold(p, 5) != 0") == expected


def test_times_have_folds_whatever_their_unit() -> None:
    days = pd.date_range("2020-01-01", periods=60)
    by_unit = [
        kept(pa.table({"t": pa.array(days).cast(pa.timestamp(unit))}), "fold(t, 4) = 1") for unit in ("s", "us", "ns")
    ]
    assert by_unit[0] == by_unit[1] == by_unit[2] != []
    assert kept(pa.table({"t": pa.array(days).cast(pa.date32())}), "fold(t, 4) = 1") != []


def test_a_missing_value_is_in_no_fold() -> None:
    table = pa.table({"p": [1, None, 3], "x": [1.0, float("nan"), None]})
    assert kept(table, "fold(p, 2) >= 0") == [0, 2]
    assert kept(table, "fold(x, 2) >= 0") == [0]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("x is null", [1, 3]),
        ("x IS NOT NULL", [0, 2]),
        ("s is null or x > 2", [2]),
        ("s is not null and not (x is null)", [0]),
        ("`a b` is null", [0]),
        ("s = 'is null'", [3]),
        ("i % 3 = 1", [0, 3]),
        ("i % -3 = -2", [0, 3]),
        ("(i + 0.5) % 2 < 1", [1, 3]),
        ("x % 2 = 1", [0, 2]),
    ],
)
def test_missing_values_and_remainders(where: str, expected: list[int]) -> None:
    table = pa.table(
        {
            "x": [1.0, None, 3.0, float("nan")],
            "s": ["a", "b", None, "is null"],
            "a b": [None, 1, 2, 3],
            "i": [1, 2, 3, -2],
        }
    )
    assert kept(table, where) == expected


def test_remainders_are_those_of_python() -> None:
    numbers = [-7, -6, -1, 0, 1, 6, 7, 2**62 + 1]
    for divisor in (3, -3, 7, 1):
        rest = [number % divisor for number in numbers]
        for value in set(rest):
            found = kept(pa.table({"i": numbers}), f"i % {divisor} = {value}")
            assert found == [place for place, one in enumerate(rest) if one == value]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("fold(p) = 0", "takes a column and a number of folds"),
        ("fold(p, 1) = 0", "2 or more"),
        ("fold(p, k) = 0", "2 or more"),
        ("fold(l, 3) = 0", "not list"),
        ("p is 3", "is not allowed"),
    ],
)
def test_requests_that_make_no_sense(where: str, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        kept(pa.table({"p": [1], "k": [2], "l": [[1]]}), where)


def test_formulas_have_no_folds() -> None:
    with pytest.raises(DesignError, match=r"fold\(\) in .* is a function of row filters, where="):
        parse("fold(p, 5)")
    with pytest.raises(DesignError, match="not allowed in a formula"):
        parse("x is None")


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 400
    x = rng.normal(size=n)
    policy = [f"P{i:04d}" for i in rng.integers(0, 150, n)]
    return pd.DataFrame({"policy": policy, "number": rng.integers(0, 90, n), "x": x, "y": rng.poisson(np.exp(0.3 * x))})


@pytest.mark.parametrize("where", ["fold(policy, 5) != 0", "fold(number, 4) = 2", "x is not null and number % 2 = 1"])
def test_every_source_and_engine_takes_the_same_rows(where: str, tmp_path: Path, client: Any) -> None:
    dataframes = pytest.importorskip("dask.dataframe")
    data = frame()
    folder = tmp_path / "lake"
    folder.mkdir()
    for part in range(4):
        table = pa.Table.from_pandas(data.iloc[100 * part : 100 * (part + 1)], preserve_index=False)
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=30)
    expected = dg.glm("y ~ x", data, family="poisson", where=where)
    assert 0 < expected.nobs < 400
    categorical = data.assign(policy=data["policy"].astype("category"), number=data["number"].astype("float64"))
    for source in (categorical, pl.from_pandas(data), pa.Table.from_pandas(data), str(folder)):
        found = dg.glm("y ~ x", source, family="poisson", where=where)
        assert found.nobs == expected.nobs
        np.testing.assert_allclose(found.params, expected.params, rtol=1e-12)
    for source in (str(folder), dataframes.from_pandas(data, npartitions=3)):
        found = dg.glm("y ~ x", source, family="poisson", where=where, client=client)
        assert found.nobs == expected.nobs
        np.testing.assert_allclose(found.params, expected.params, rtol=1e-12)


def test_folds_split_policies_and_not_their_rows() -> None:
    data = frame()
    parts = [dg.glm("y ~ 1", data, family="poisson", where=f"fold(policy, 3) = {k}") for k in range(3)]
    assert sum(part.nobs for part in parts) == len(data)
    rows = [set(data["policy"].iloc[kept(pa.table({"p": data["policy"]}), f"fold(p, 3) = {k}")]) for k in range(3)]
    assert not rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2]
