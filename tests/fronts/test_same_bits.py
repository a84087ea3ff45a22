"""The same model through every face and from every source: equal to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import daskglm as dg
from daskglm.cli import main
from daskglm.cluster import lakes
from daskglm.cluster.engine import Engine
from tests.cluster.problem import KEEPS, SEPARATED, bits, fitted, write_lake

FORMULA = "y ~ x + log(z) + a*b"
ROWS = 2_000


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=ROWS),
            "z": rng.uniform(1.0, 9.0, size=ROWS),
            "a": rng.choice(["p", "q", "r"], size=ROWS),
            "b": rng.choice(["no", "yes"], size=ROWS),
        }
    )
    eta = 0.3 * frame["x"] + 0.5 * np.log(frame["z"]) + 0.4 * (frame["a"] == "q") - 0.2 * (frame["b"] == "yes")
    frame["y"] = rng.poisson(np.exp(eta))
    return frame


@pytest.fixture(scope="module")
def reference(table: pd.DataFrame) -> dg.Fit:
    return dg.glm(FORMULA, table, family="poisson")


def same(one: dg.Fit, other: dg.Fit) -> None:
    assert one.params.equals(other.params)
    assert one.cov_params().equals(other.cov_params())
    assert one.record.statistics == other.record.statistics


def test_sources(table: pd.DataFrame, reference: dg.Fit, tmp_path: Path) -> None:
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    path = tmp_path / "one.parquet"
    pq.write_table(arrow, path)
    sources = [arrow, ds.dataset(arrow), ds.dataset(path), pl.from_pandas(table), str(path), path, tmp_path, [path]]
    for source in [*sources, str(tmp_path / "*.parquet"), {name: table[name].to_numpy() for name in table}]:
        same(dg.glm(FORMULA, source, family="poisson"), reference)


@pytest.mark.filterwarnings("ignore::daskglm.errors.SeparationWarning")
@pytest.mark.parametrize("separation", ["limit", "firth"])
@pytest.mark.parametrize("keep", KEEPS)
def test_an_infinite_optimum_has_the_same_bits_however_the_work_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separation: str, keep: str
) -> None:
    """Rows are set aside leaf by leaf, wherever they are kept."""
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    lake = write_lake(tmp_path / "lake", 1_000)
    options = {**SEPARATED, "separation": separation}
    expected = fitted(lake, Engine(1, None, 1), **options)
    assert expected.separated == (("C(year)[T.2020]", "C(year)[T.2021]") if separation == "limit" else ())
    for threads, leaves in ((1, 64), (2, 2), (3, None)):
        assert bits(fitted(lake, Engine(threads, None, leaves), keep, **options)) == bits(expected)


def test_command_line(table: pd.DataFrame, reference: dg.Fit, tmp_path: Path) -> None:
    lake, model = tmp_path / "lake.parquet", tmp_path / "model"
    table.to_parquet(lake)
    arguments = ["fit", FORMULA, str(lake), "--family", "poisson", "--out", str(model), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    same(dg.load(model), reference)
    assert str(reference.summary()) in result.stdout


def test_job_file(table: pd.DataFrame, reference: dg.Fit, tmp_path: Path) -> None:
    lake, model, job = tmp_path / "lake.parquet", tmp_path / "model", tmp_path / "job.toml"
    table.to_parquet(lake)
    job.write_text(f'formula = "{FORMULA}"\ndata = "{lake}"\nfamily = "poisson"\nout = "{model}"\n')
    assert CliRunner().invoke(main, ["fit", str(job)]).exit_code == 0
    same(dg.load(model), reference)


def test_arrays(table: pd.DataFrame) -> None:
    x = table[["x", "z"]].to_numpy()
    arrays = dg.glm(X=x, y=table["y"].to_numpy(), family="poisson")
    columns = dg.glm("y ~ x + z", table, family="poisson")
    np.testing.assert_array_equal(arrays.params.to_numpy(), columns.params.to_numpy())
    assert list(arrays.params.index) == ["Intercept", "x0", "x1"]
    named = dg.glm(X=table[["x", "z"]], y=table["y"], family="poisson")
    same(named, columns)


def test_command_line_predicts_what_python_does(table: pd.DataFrame, reference: dg.Fit, tmp_path: Path) -> None:
    lake, model, out = tmp_path / "lake.parquet", tmp_path / "model", tmp_path / "scored"
    table.to_parquet(lake)
    reference.save(model)
    arguments = ["predict", str(model), str(lake), "--out", str(out), "--se", "--interval", "confidence"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    written = pq.read_table(out).to_pandas()
    expected = reference.predict(table, se=True, interval="confidence")
    for name in ("mean", "se", "lower", "upper"):
        np.testing.assert_array_equal(written[name].to_numpy(), expected[name].to_numpy())
    np.testing.assert_array_equal(written["x"].to_numpy(), table["x"].to_numpy())
