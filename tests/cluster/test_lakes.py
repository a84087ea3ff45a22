"""Lakes of every shape, against what pandas and Python's own lists say is in the files that were written."""

from __future__ import annotations

import datetime
import decimal
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daskglm.cluster import lakes
from daskglm.cluster.lakes import ParquetLake, open_lake
from daskglm.design import expressions
from daskglm.errors import ChangedInputError, DataError, DesignError

N = 1_000


def frame(n: int = N, seed: int = 0) -> pd.DataFrame:
    """Rows of every kind a filter can meet, sorted by `i` so that row groups differ."""
    generator = np.random.default_rng(seed)
    days = np.datetime64("2023-01-01") + np.arange(n).astype("timedelta64[D]")
    return pd.DataFrame(
        {
            "i": np.arange(n, dtype=np.int64),
            "x": np.where(np.arange(n) % 13 == 0, np.nan, generator.normal(size=n)),
            "s": generator.choice(["north", "south", "a = b", "it's"], n),
            "flag": generator.random(n) < 0.5,
            "k": generator.integers(-3, 100, n).astype(np.int8),
            "day": [day.astype(object) for day in days],
            "time": days.astype("datetime64[ns]"),
        }
    )


def values(source: Any, columns: list[str], where: str | None = None) -> dict[str, list[Any]]:
    """Every row of a source's columns, as Python values."""
    condition, used = None, ()
    if where is not None:
        expression = expressions.parse_filter(where)
        condition, used = expressions.to_arrow(expression, source.types), expression.columns
    source.select(columns, condition, used)
    found: dict[str, list[Any]] = {name: [] for name in columns}
    for leaf in source.leaves:
        table = source.load(leaf).table
        assert table.column_names == columns
        for name in columns:
            found[name] += table.column(name).to_pylist()
    return found


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of the frame in a folder, among files that are not part of it."""
    whole = pa.Table.from_pandas(frame(), preserve_index=False)
    lake = tmp_path / "lake"
    write(lake / "b.parquet", whole.slice(600), row_group_size=100)
    write(lake / "a.parq", whole.slice(0, 600), row_group_size=100)
    (lake / "_SUCCESS").write_text("")
    (lake / "notes.txt").write_text("not data")
    write(lake / ".hidden.parquet", whole)
    write(lake / "_temporary" / "c.parquet", whole)
    return lake


# -- where files are ---------------------------------------------------------------------------------------------------


SPELLINGS: dict[str, Callable[[Path], Any]] = {
    "text": str,
    "path": lambda folder: folder,
    "slash": lambda folder: f"{folder}/",
    "glob": lambda folder: f"{folder}/*.par*",
    "question mark": lambda folder: f"{folder}/?.par*",
    "brackets": lambda folder: f"{folder}/[ab].*",
    "negated brackets": lambda folder: f"{folder}/[!n.]*.par*",
    "list": lambda folder: [folder / "a.parq", str(folder / "b.parquet")],
    "list with a folder": lambda folder: [folder],
    "the same twice": lambda folder: [folder / "a.parq", folder / "b.parquet", folder / "a.parq"],
    "url": lambda folder: folder.as_uri(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_way_to_say_which_files_reads_the_same_rows(folder: Path, spelling: str) -> None:
    lake = open_lake(SPELLINGS[spelling](folder))
    assert [os.path.basename(file.path) for file in lake.files] == ["a.parq", "b.parquet"]
    found = values(lake, ["i", "s"])
    assert lake.n_rows == N
    assert found["i"] == list(range(N))
    assert found["s"] == frame()["s"].tolist()


@pytest.mark.parametrize(
    "pattern", ["lake/*.par*", "./lake/*.par*", "lake/**/*.par*", "lake", "*/a.parq", "./*/a.parq"]
)
def test_paths_relative_to_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(folder.parent)
    found = values(open_lake(pattern), ["i"])["i"]
    assert found == list(range(600 if "a.parq" in pattern else N))


def test_a_pattern_finds_hidden_files_only_where_it_asks_for_them(folder: Path) -> None:
    assert len(open_lake(f"{folder}/**/*.parquet").files) == 1
    assert [os.path.basename(file.path) for file in open_lake(f"{folder}/.*.parquet").files] == [".hidden.parquet"]
    assert [os.path.basename(file.path) for file in open_lake(f"{folder}/_t*/*").files] == ["c.parquet"]


def test_the_order_of_a_list_is_kept(folder: Path) -> None:
    found = values(open_lake([folder / "b.parquet", folder / "a.parq"]), ["i"])
    assert found["i"] == [*range(600, N), *range(600)]


def test_a_url_of_another_file_system() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    table = pa.table({"x": [1.0, 2.0, 3.0], "s": ["u", "v", "u"]})
    try:
        for name in ("a", "b"):
            with memory.open(f"/daskglm-test/{name}.parquet", "wb") as handle:
                pq.write_table(table, handle)
        lake = open_lake("memory://daskglm-test")
        assert not lake.local
        assert values(lake, ["x", "s"]) == {"x": [1.0, 2.0, 3.0] * 2, "s": ["u", "v", "u"] * 2}
        assert values(open_lake("memory://daskglm-test/*.parquet"), ["x"], "s = 'v'")["x"] == [2.0, 2.0]
    finally:
        memory.rm("/daskglm-test", recursive=True)


def nothing(folder: Path) -> list[tuple[Any, type[Exception], str]]:
    return [
        (folder / "absent.parquet", DesignError, "absent.parquet does not exist"),
        ([folder / "a.parq", folder / "absent.parquet"], DesignError, "absent.parquet does not exist"),
        (f"{folder}/*.nothing", DesignError, "no file matches"),
        (f"{folder}/nowhere/*.parquet", DesignError, "nowhere does not exist"),
        ("nonsense://bucket/x.parquet", DesignError, "nonsense://bucket/x.parquet cannot be opened"),
        ([], DesignError, "empty"),
    ]


@pytest.mark.parametrize("case", range(6))
def test_files_that_are_not_there_are_named(folder: Path, case: int) -> None:
    source, kind, message = nothing(folder)[case]
    with pytest.raises(kind, match=message) as caught:
        open_lake(source)
    assert type(caught.value) is kind


def test_a_folder_without_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(DataError, match="no Parquet files"):
        open_lake(tmp_path)


def test_a_delta_table_is_not_read_as_a_folder_of_files(folder: Path) -> None:
    (folder / "_delta_log").mkdir()
    (folder / "_delta_log" / "00000.json").write_text("{}")
    with pytest.raises(DesignError, match="Delta table"):
        open_lake(folder)


def test_two_file_systems_are_not_one_lake(folder: Path) -> None:
    with pytest.raises(DesignError, match="another file system"):
        open_lake([folder / "a.parq", "memory://elsewhere/b.parquet"])


# -- partitions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hive(tmp_path: Path) -> Path:
    """year= and region= folders with a null, a negative number and a percent-encoded name."""
    lake = tmp_path / "warehouse=9" / "hive"
    at = 0
    for year in ("-1", "2023", "2024"):
        for region in ("north", "so%20uth", "__HIVE_DEFAULT_PARTITION__"):
            table = pa.table({"i": pa.array(range(at, at + 5), pa.int32())})
            write(lake / f"year={year}" / f"region={region}" / "part-0.parquet", table)
            at += 5
    return lake


def expected_hive() -> list[tuple[int, int, str | None]]:
    return [
        (5 * (3 * y + r) + j, year, region)
        for y, year in enumerate((-1, 2023, 2024))
        # folders sort by their bytes, in which "_" stands between capitals and small letters
        for r, region in enumerate(("north", "so uth", None))
        for j in range(5)
    ]


def test_folders_named_like_columns_are_columns(hive: Path) -> None:
    lake = open_lake(hive)
    assert lake.types["year"] == pa.int64()
    assert lake.types["region"] == pa.string()
    assert "warehouse" not in lake.types
    found = values(lake, ["i", "year", "region"])
    assert sorted(zip(*found.values(), strict=True)) == expected_hive()


@pytest.mark.parametrize(
    "where, keep",
    [
        ("year = 2023", lambda i, year, region: year == 2023),
        ("year < 0 or region = 'so uth'", lambda i, year, region: year < 0 or region == "so uth"),
        ("region in ['north', 'so uth'] and i > 3", lambda i, year, region: region is not None and i > 3),
        ("region != 'north'", lambda i, year, region: region is not None and region != "north"),
        ("year in [2024, 7]", lambda i, year, region: year == 2024),
    ],
)
def test_a_filter_on_folders_opens_no_file_it_need_not(hive: Path, where: str, keep: Callable[..., bool]) -> None:
    lake = open_lake(hive)
    expected = [row[0] for row in expected_hive() if keep(*row)]
    assert sorted(values(lake, ["i"], where)["i"]) == expected
    # rows of null partitions may have to be looked at; those of other values not
    wrong = [row for row in expected_hive() if not keep(*row) and None not in row and "i" not in where.split()]
    assert lake.pruned_rows >= len(wrong)


def test_a_file_alone_has_the_values_of_its_folders(hive: Path) -> None:
    file = hive / "year=2024" / "region=north" / "part-0.parquet"
    found = values(open_lake([file]), ["year", "region"])
    assert found == {"year": [2024] * 5, "region": ["north"] * 5}


def test_numbers_mixed_with_words_are_words(tmp_path: Path) -> None:
    for value in ("1", "2b", "03"):
        write(tmp_path / f"code={value}" / "x.parquet", pa.table({"i": [0]}))
    lake = open_lake(tmp_path)
    assert lake.types["code"] == pa.string()
    assert sorted(values(lake, ["code"])["code"]) == ["03", "1", "2b"]


# -- types -------------------------------------------------------------------------------------------------------------


def day(k: int) -> datetime.date:
    return datetime.date(2024, 1, 1) + datetime.timedelta(days=k)


KINDS: dict[str, pa.Array] = {
    **{str(kind): pa.array([0, 1, 127, None], kind) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{str(kind): pa.array([0, 1, 255, None], kind) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    "extremes": pa.array([-(2**63), 2**63 - 1, None], pa.int64()),
    "half": pa.array(np.array([0.5, -2.0, 65504.0], np.float16)),
    "float": pa.array([0.1, None, -1e30], pa.float32()),
    "double": pa.array([0.1, None, -1e300], pa.float64()),
    "decimal": pa.array([decimal.Decimal("12.34"), None], pa.decimal128(9, 2)),
    "wide decimal": pa.array([decimal.Decimal("-0.125"), None], pa.decimal256(50, 3)),
    "days": pa.array([day(0), None, day(400)], pa.date32()),
    "seconds": pa.array([datetime.datetime(2024, 5, 6, 7, 8, 9), None], pa.timestamp("us")),
    "zoned": pa.array([datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)], pa.timestamp("ms", "UTC")),
    "booleans": pa.array([True, None, False]),
    "strings": pa.array(["b", None, "a", "b", ""]),
    "large strings": pa.array(["b", None, "a"], pa.large_string()),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array([2, None, 0], pa.int8()), pa.array(["c", "b", "a"])),
    "nothing": pa.nulls(3),
    "only nulls": pa.array([None, None], pa.float64()),
    "only null text": pa.array([None, None], pa.string()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_comes_back_as_it_was_written(tmp_path: Path, kind: str) -> None:
    array = KINDS[kind]
    lake = open_lake(write(tmp_path / "one.parquet", pa.table({"v": array})))
    assert values(lake, ["v"])["v"] == array.to_pylist()


DRIFTS: dict[str, tuple[list[pa.Array], pa.DataType]] = {
    "int to float": ([pa.array([1, 2], pa.int32()), pa.array([0.5, None])], pa.float64()),
    "widths": ([pa.array([1, None], pa.int8()), pa.array([40000], pa.uint16())], pa.int64()),
    "decimal to float": ([pa.array([decimal.Decimal("1.5")]), pa.array([2.25])], pa.float64()),
    "dictionary to string": ([pa.array(["b", "a"]).dictionary_encode(), pa.array(["c", None])], pa.string()),
    "string to large string": ([pa.array(["b"]), pa.array(["c", None], pa.large_string())], pa.string()),
    "dictionaries in another order": (
        [
            pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(["a", "b"])),
            pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["b", "a"])),
        ],
        pa.string(),
    ),
    "null to string": ([pa.nulls(2), pa.array(["a"])], pa.string()),
    "null to number": ([pa.nulls(2), pa.array([3], pa.int16())], pa.int16()),
    "seconds to microseconds": (
        [
            pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("ms")),
            pa.array([datetime.datetime(2024, 1, 2)], pa.timestamp("us")),
        ],
        pa.timestamp("ns"),
    ),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_column_whose_type_drifts_keeps_its_values(tmp_path: Path, drift: str) -> None:
    arrays, kind = DRIFTS[drift]
    for i, array in enumerate(arrays):
        write(tmp_path / f"{i}.parquet", pa.table({"v": array}))
    lake = open_lake(tmp_path)
    assert lake.types["v"] == kind
    assert values(lake, ["v"])["v"] == [value for array in arrays for value in array.to_pylist()]


def test_a_conflict_names_column_and_files_and_only_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "first.parquet", pa.table({"price": [1.0], "x": [1.0]}))
    write(tmp_path / "second.parquet", pa.table({"price": ["dear"], "x": [2.0]}))
    lake = open_lake(tmp_path)
    assert values(lake, ["x"])["x"] == [1.0, 2.0]
    with pytest.raises(DataError, match=r'"price" is double in .*first\.parquet but string in .*second\.parquet'):
        values(lake, ["price"])


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    write(tmp_path / "one.parquet", pa.table([[1.0], [2.0], [3.0]], names=["x", "k", "k"]))
    with pytest.raises(DataError, match=r'one\.parquet has two columns named "k"'):
        values(open_lake(tmp_path), ["k"])


def test_a_column_missing_in_one_file_is_named_with_it_and_only_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "first.parquet", pa.table({"x": [1.0], "z": [2.0]}))
    write(tmp_path / "second.parquet", pa.table({"x": [3.0]}))
    lake = open_lake(tmp_path)
    assert values(lake, ["x"])["x"] == [1.0, 3.0]
    with pytest.raises(DataError, match=r'second\.parquet has no column "z"'):
        values(lake, ["z"])


def test_nested_columns_do_not_disturb(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0], "list": [[1], [2, 3]], "struct": [{"a": 1}, {"a": 2}]})
    lake = open_lake(write(tmp_path / "one.parquet", table))
    assert values(lake, ["x"])["x"] == [1.0, 2.0]


def test_declared_order_is_read_from_the_file(tmp_path: Path) -> None:
    declared = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(["low", "high"]), ordered=True)
    free = declared.cast(pa.dictionary(pa.int8(), pa.string()))
    lake = open_lake(write(tmp_path / "one.parquet", pa.table({"grade": declared, "free": free})))
    assert lake.ordered == {"grade"}


# -- leaves ------------------------------------------------------------------------------------------------------------


def test_empty_files_and_empty_row_groups_are_no_trouble(tmp_path: Path) -> None:
    full = pa.table({"x": [1.0, 2.0, 3.0], "s": ["a", "b", "a"]})
    write(tmp_path / "0.parquet", full.slice(0, 0))
    with pq.ParquetWriter(tmp_path / "1.parquet", full.schema) as writer:
        for rows in (full.slice(0, 0), full.slice(0, 2), full.slice(0, 0), full.slice(2), full.slice(0, 0)):
            writer.write_table(rows)
    write(tmp_path / "2.parquet", full.slice(0, 0))
    lake = open_lake(tmp_path)
    assert values(lake, ["x", "s"]) == {"x": [1.0, 2.0, 3.0], "s": ["a", "b", "a"]}
    assert lake.n_rows == 3


def test_a_lake_of_empty_files_has_no_leaves(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", pa.table({"x": pa.array([], pa.float64())}))
    lake = open_lake(tmp_path)
    assert values(lake, ["x"]) == {"x": []}
    assert lake.leaves == []


@pytest.mark.parametrize("limit", [1, 850, 3_200, 1 << 20])
def test_leaves_are_runs_of_whole_row_groups_within_the_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(lakes, "LEAF_BYTES", limit)
    lake = open_lake(folder)
    assert values(lake, ["i"])["i"] == list(range(N))
    # 8 bytes a row, groups of 100 rows: no leaf exceeds the limit by choice, and no two neighbours would fit in one
    for leaf in lake.leaves:
        assert leaf.rows * 8 <= max(limit, 800)
        assert leaf.rows == 100 * len(leaf.row_groups)
    for one, other in zip(lake.leaves, lake.leaves[1:], strict=False):
        assert one.file != other.file or (one.rows + 100) * 8 > limit
    assert sum(leaf.rows for leaf in lake.leaves) == N


def test_the_size_of_a_row_is_that_of_the_columns_read(folder: Path) -> None:
    lake = open_lake(folder)
    assert lake.row_bytes(["i", "x"]) == 16
    assert lake.row_bytes(["k"]) == 1
    assert lake.row_bytes(["i", "k", "flag"]) == 10


# -- filters -----------------------------------------------------------------------------------------------------------

FILTERS: dict[str, tuple[str, Callable[[pd.DataFrame], Any]]] = {
    "equal": ("i = 7", lambda d: d.i == 7),
    "double equal": ("i == 7", lambda d: d.i == 7),
    "unequal": ("i != 7", lambda d: d.i != 7),
    "range": ("i >= 100 and i < 250", lambda d: (d.i >= 100) & (d.i < 250)),
    "chained": ("100 <= i < 250", lambda d: (d.i >= 100) & (d.i < 250)),
    "or": ("i < 10 or i > 990", lambda d: (d.i < 10) | (d.i > 990)),
    "not": ("not i < 900", lambda d: d.i >= 900),
    "bits": ("(i < 10) | (i > 990) & (k > 5)", lambda d: (d.i < 10) | ((d.i > 990) & (d.k > 5))),
    "tilde": ("~(i > 5)", lambda d: d.i <= 5),
    "text": ("s = 'north'", lambda d: d.s == "north"),
    "text with =": ('s = "a = b"', lambda d: d.s == "a = b"),
    "text with a quote": ('s = "it\'s"', lambda d: d.s == "it's"),
    "text order": ("s < 'n'", lambda d: d.s < "n"),
    "in": ("s in ['north', 'it\\'s']", lambda d: d.s.isin(["north", "it's"])),
    "not in": ("s not in ('north', 'south')", lambda d: ~d.s.isin(["north", "south"])),
    "in numbers": ("k in {-3, 0, 50}", lambda d: d.k.isin([-3, 0, 50])),
    "in one": ("i in [500]", lambda d: d.i == 500),
    "boolean": ("flag", lambda d: d.flag),
    "boolean equal": ("flag = True", lambda d: d.flag),
    "not boolean": ("not flag and i < 50", lambda d: ~d.flag & (d.i < 50)),
    "missing fails": ("x > 0", lambda d: d.x > 0),
    "negative": ("k = -3", lambda d: d.k == -3),
    "minus": ("-k > 1", lambda d: -d.k.astype(float) > 1),
    "narrow arithmetic": ("k * 100 > 5000 and k + 127 > 200", lambda d: (d.k.astype(int) * 100 > 5000) & (d.k > 73)),
    "division": ("i / 2 = 50 or k / 0 > 1", lambda d: (d.i == 100) | (d.k > 0)),
    "power": ("k ** 2 < 9", lambda d: d.k.astype(float) ** 2 < 9),
    "function": ("abs(x) < 0.5 and sqrt(i) > 20", lambda d: (d.x.abs() < 0.5) & (d.i > 400)),
    "two columns": ("i > 10 * k", lambda d: d.i > 10 * d.k.astype(int)),
    "day": ("day = '2023-02-01'", lambda d: d.day == datetime.date(2023, 2, 1)),
    "days": ("day >= '2023-02-01' and day < '2023-03-01'", lambda d: (d.i >= 31) & (d.i < 59)),
    "day on the right": ("'2025-01-01' <= day", lambda d: d.day >= datetime.date(2025, 1, 1)),
    "days in": ("day in ['2023-01-01', '2023-01-03']", lambda d: d.i.isin([0, 2])),
    "time": ("time > '2025-06-01 00:00:00'", lambda d: d.time > pd.Timestamp("2025-06-01")),
    "everything": ("1 = 1", lambda d: d.i >= 0),
    "nothing": ("i < 0", lambda d: d.i < 0),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("encoding", ["plain", "dictionary"])
def test_a_filter_leaves_the_rows_that_pandas_leaves(folder: Path, name: str, encoding: str) -> None:
    data = frame()
    where, mask = FILTERS[name]
    if encoding == "dictionary":
        table = pa.Table.from_pandas(data.assign(s=data.s.astype("category")), preserve_index=False)
        for file in ("a.parq", "b.parquet"):
            (folder / file).unlink()
        write(folder / "all.parquet", table, row_group_size=150)
    found = values(open_lake(folder), ["i", "s"], where)
    kept = data[mask(data)]
    assert found["i"] == kept.i.tolist()
    assert found["s"] == kept.s.tolist()


@pytest.mark.parametrize(
    "where, groups",
    [("i < 100", 1), ("i = 650", 1), ("i >= 350 and i < 450", 2), ("day < '2023-01-10'", 1), ("i < 0", 0)],
)
def test_row_groups_that_cannot_match_are_not_decoded(folder: Path, where: str, groups: int) -> None:
    lake = open_lake(folder)
    values(lake, ["x"], where)
    assert sum(len(leaf.row_groups) for leaf in lake.leaves) == groups
    assert lake.n_rows == 100 * groups
    assert lake.pruned_rows == N - 100 * groups


def test_nulls_pass_no_comparison_as_in_sql(tmp_path: Path) -> None:
    table = pa.table({"i": [0, 1, 2, 3], "v": [1, None, 3, None], "s": ["a", None, "b", "a"]})
    path = write(tmp_path / "one.parquet", table)
    assert values(open_lake(path), ["i"], "v > 0")["i"] == [0, 2]
    assert values(open_lake(path), ["i"], "not v > 2")["i"] == [0]
    assert values(open_lake(path), ["i"], "s != 'a'")["i"] == [2]
    assert values(open_lake(path), ["i"], "v > 2 or i = 1")["i"] == [1, 2]


@pytest.mark.parametrize(
    "where, message",
    [
        ("x", "where="),
        ("s = 1", "where="),
        ("i in ['a']", "where="),
        ("i in [1, 'a']", "'a' is text"),
        ("i in [k]", "literals"),
        ("day > 'yesterday'", "yesterday"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(folder: Path, where: str, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        values(open_lake(folder), ["i"], where)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def three(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(1)
    return [
        write(tmp_path / f"{i}.parquet", pa.table({"x": generator.normal(size=400)}), row_group_size=200)
        for i in range(3)
    ]


def damage(path: Path, at: int) -> None:
    """Overwrite 64 bytes, with the file's times and size as they were."""
    before = path.stat()
    with open(path, "r+b") as handle:
        handle.seek(at)
        handle.write(b"\xff" * 64)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_corrupt_page_in_the_middle_names_its_file(tmp_path: Path) -> None:
    paths = three(tmp_path)
    lake = open_lake(tmp_path)
    lake.select(["x"])
    damage(paths[1], 4)
    assert lake.load(lake.leaves[0]).table.num_rows == 400
    with pytest.raises(DataError, match=r"1\.parquet .*corrupt") as caught:
        lake.load(lake.leaves[1])
    assert type(caught.value) is DataError
    assert lake.load(lake.leaves[2]).table.num_rows == 400


def test_the_row_groups_of_a_leaf_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"x": np.arange(1_000.0)})
    path = write(tmp_path / "one.parquet", table, row_group_size=100)
    lake = open_lake(path)
    lake.select(["x"])
    assert [lake.load(leaf).label for leaf in lake.leaves] == [f"{path} (row groups 0 to 9)"]
    monkeypatch.setattr(lakes, "LEAF_BYTES", 3_200)
    lake.select(["x"])
    said = ("row groups 0 to 3", "row groups 4 to 7", "row groups 8 to 9")
    assert [lake.load(leaf).label for leaf in lake.leaves] == [f"{path} ({place})" for place in said]
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    lake.select(["x"])
    assert [lake.load(leaf).label for leaf in lake.leaves] == [f"{path} (row group {k})" for k in range(10)]


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"hello, world, this is no Parquet file", b"PAR1" + b"\0" * 50 + b"PAR1"]
)
def test_a_file_without_a_footer_is_named_when_the_lake_is_opened(tmp_path: Path, content: bytes) -> None:
    three(tmp_path)[1].write_bytes(content)
    with pytest.raises(DataError, match=r"1\.parquet"):
        open_lake(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = three(tmp_path)[2]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"2\.parquet is not a readable Parquet file"):
        open_lake(tmp_path)


def changed_leaf(tmp_path: Path, change: Callable[[Path], None]) -> tuple[ParquetLake, Any]:
    paths = three(tmp_path)
    lake = open_lake(tmp_path)
    lake.select(["x"])
    change(paths[1])
    return lake, lake.leaves[1]


def rewritten(path: Path) -> None:
    write(path, pa.table({"x": np.zeros(400)}))


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def rewritten_in_disguise(path: Path) -> None:
    """The same size and the same times, other numbers: only the footer tells."""
    before = path.stat()
    table = pq.read_table(path)
    other = pa.table({"x": np.roll(table.column("x").to_numpy(), 1)[::-1].copy()})
    write(path, other, row_group_size=200)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [rewritten, touched, rewritten_in_disguise, Path.unlink])
def test_a_file_that_changed_since_the_lake_was_opened_is_named(tmp_path: Path, change: Callable[[Path], None]) -> None:
    lake, leaf = changed_leaf(tmp_path, change)
    assert lake.load(lake.leaves[0]).table.num_rows == 400
    with pytest.raises(ChangedInputError, match=r"1\.parquet"):
        lake.load(leaf)


def test_the_home_folder_may_be_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert values(open_lake("~/lake"), ["i"])["i"] == list(range(N))
