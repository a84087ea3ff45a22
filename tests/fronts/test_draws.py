"""What is drawn for a row depends on which row it is: on no spelling of a path, no engine and no other column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.cluster import lakes
from daskglm.postestimation.revisit import Visit


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("draws") / "lake"
    rng = np.random.default_rng(3)
    for year in (2023, 2024):
        for part in range(2):
            place = folder / f"year={year}"
            place.mkdir(parents=True, exist_ok=True)
            x = rng.normal(size=300)
            table = {"x": x, "z": rng.normal(size=300), "y": rng.poisson(np.exp(0.2 + 0.3 * x))}
            table["s"] = rng.choice(["a", "b"], 300)
            pq.write_table(pa.table(table), place / f"{part}.parquet", row_group_size=70)
    return folder


@pytest.fixture(scope="module")
def fit(lake: Path) -> Any:
    return dg.glm("y ~ x", lake, family="poisson")


def file_url(lake: Path) -> Any:
    return f"file://{lake}"


SPELLINGS: dict[str, Callable[[Path], Any]] = {
    "relative": lambda lake: lake.name,
    "relative with a dot": lambda lake: f"./{lake.name}",
    "from above": lambda lake: f"../{lake.parent.name}/{lake.name}",
    "a trailing slash": lambda lake: f"{lake}/",
    "a URL": file_url,
    "a URL with a trailing slash": lambda lake: f"file://{lake}/",
    "a path object": lambda lake: lake,
    "a pattern": lambda lake: f"{lake}/*/*.parquet",
    "a relative pattern": lambda lake: f"{lake.name}/**/*.parquet",
    "a list of files": lambda lake: sorted(str(path) for path in lake.rglob("*.parquet")),
    "a dataset": lambda lake: ds.dataset(lake, format="parquet"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_lake_has_the_same_draws_however_it_is_spelled(
    lake: Path, fit: Any, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(lake.parent)
    data = SPELLINGS[spelling](lake)
    found, expected = (fit.residuals(where, "quantile", seed=5) for where in (data, str(lake)))
    # those of a dataset come back as pyarrow's
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    one, other = (fit.bootstrap(where, replicates=5, seed=2).params for where in (data, str(lake)))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    pd.testing.assert_frame_equal(fit.qq(data), fit.qq(str(lake)), check_exact=True)


def test_a_copy_of_a_lake_elsewhere_has_the_same_draws(lake: Path, fit: Any, tmp_path: Path) -> None:
    for path in lake.rglob("*.parquet"):
        target = tmp_path / "copy of a lake" / path.relative_to(lake)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    one, other = (fit.residuals(str(where), "quantile") for where in (lake, tmp_path / "copy of a lake"))
    pd.testing.assert_series_equal(one, other, check_exact=True)


@pytest.mark.parametrize("leaf_bytes", [1, 3_000, 64 << 20])
def test_how_a_file_is_cut_into_partitions_does_not_matter(
    lake: Path, fit: Any, monkeypatch: pytest.MonkeyPatch, leaf_bytes: int
) -> None:
    whole = fit.residuals(lake, "quantile", seed=5), fit.bootstrap(lake, replicates=5).params
    monkeypatch.setattr(lakes, "LEAF_BYTES", leaf_bytes)
    pd.testing.assert_series_equal(fit.residuals(lake, "quantile", seed=5), whole[0])
    np.testing.assert_allclose(fit.bootstrap(lake, replicates=5).params, whole[1], rtol=1e-12)


def test_columns_that_are_read_beside_do_not_matter(lake: Path, fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lakes, "LEAF_BYTES", 3_000)
    one, other = (fit.check(lake, by).qq for by in ("x", ["z", "s"]))
    pd.testing.assert_frame_equal(one, other)


def numbers_of(rows: Any) -> tuple[str, list[int]]:
    return rows.origin, rows.numbers.tolist()


@pytest.mark.parametrize("leaf_bytes", [1, 64 << 20])
def test_a_filter_does_not_renumber_rows(lake: Path, monkeypatch: pytest.MonkeyPatch, leaf_bytes: int) -> None:
    """Rows that pass keep their numbers, whether row groups and files are skipped or read."""
    monkeypatch.setattr(lakes, "LEAF_BYTES", leaf_bytes)
    fit = dg.glm("y ~ x", lake, family="poisson", where="year = 2024 and x > 1.8")
    found: dict[str, list[int]] = {}
    with Visit(fit.record, lake) as visit:
        for origin, numbers in visit.rows.map(numbers_of):
            found[origin] = found.get(origin, []) + numbers
    expected = {}
    for part in range(2):
        x = pq.read_table(lake / "year=2024" / f"{part}.parquet").column("x").to_numpy()
        expected[f"year=2024/{part}.parquet"] = np.flatnonzero(x > 1.8).tolist()
    assert found == expected


@pytest.mark.parametrize("where", [None, "x > 0"])
def test_threads_and_a_cluster_draw_the_same(
    client: Any, lake: Path, monkeypatch: pytest.MonkeyPatch, where: str | None
) -> None:
    monkeypatch.chdir(lake.parent)
    fit = dg.glm("y ~ x", lake, family="poisson", where=where)
    with client.as_current():
        there = fit.bootstrap(lake.name, replicates=5).params, fit.residuals(lake.name, "quantile")
    here = fit.bootstrap(str(lake), replicates=5).params, fit.residuals(str(lake), "quantile")
    pd.testing.assert_frame_equal(there[0], here[0], check_exact=True)
    pd.testing.assert_series_equal(there[1], here[1], check_exact=True)
