"""One set of rows through every kind of data: the fit must be that of ordinary least squares, or be refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import formulaic
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.cluster import sources
from daskglm.cluster.lakes import ParquetLake
from daskglm.errors import DesignError

# Both solve a problem of condition about 10 in float64.
ROUNDING = 1e-11

N = 400


def frame() -> pd.DataFrame:
    generator = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "y": generator.normal(size=N),
            "x": generator.normal(2.0, 3.0, size=N),
            "k": generator.integers(0, 50, N),
            "s": generator.choice(["red", "green", "blue"], N),
            "flag": generator.random(N) < 0.4,
        }
    )


def parquet(folder: Path) -> Path:
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    pq.write_table(table.slice(0, 150), folder / "a.parquet")
    pq.write_table(table.slice(150), folder / "b.parquet", row_group_size=30)
    return folder


def arrow() -> pa.Table:
    return pa.Table.from_pandas(frame(), preserve_index=False)


class Stream:
    """A foreign table."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return arrow().__arrow_c_stream__(requested_schema)


KINDS: dict[str, Callable[[Path], Any]] = {
    "folder": parquet,
    "file": lambda folder: [parquet(folder) / "a.parquet", folder / "b.parquet"],
    "pandas": lambda folder: frame(),
    "pandas category": lambda folder: frame().assign(
        s=lambda d: d.s.astype(pd.CategoricalDtype(["blue", "green", "red"]))
    ),
    "pandas nullable": lambda folder: frame().convert_dtypes(),
    "pandas arrow": lambda folder: frame().convert_dtypes(dtype_backend="pyarrow"),
    "pandas float32": lambda folder: frame().assign(k=lambda d: d.k.astype("float32")),
    "polars": lambda folder: pl.DataFrame(frame()),
    "polars categorical": lambda folder: pl.DataFrame(frame()).with_columns(pl.col("s").cast(pl.Categorical)),
    "table": lambda folder: arrow(),
    "chunks": lambda folder: pa.concat_tables([arrow().slice(at, 7) for at in range(0, N, 7)]),
    "batch": lambda folder: arrow().combine_chunks().to_batches()[0],
    "dataset": lambda folder: ds.dataset(parquet(folder)),
    "dataset in memory": lambda folder: ds.dataset(arrow()),
    "dict of lists": lambda folder: {name: frame()[name].tolist() for name in frame()},
    "dict of arrays": lambda folder: (
        {name: frame()[name].to_numpy() for name in ("y", "x", "k", "flag")} | {"s": frame().s.tolist()}
    ),
    "stream": lambda folder: Stream(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_gives_the_least_squares_fit(tmp_path: Path, kind: str) -> None:
    fit = dg.glm("y ~ x + k + s + flag", KINDS[kind](tmp_path))
    data = frame().assign(flag=lambda d: d.flag.astype(int))
    design = formulaic.model_matrix("x + k + s + flag", data)
    expected = np.linalg.lstsq(design.to_numpy(float), data.y.to_numpy(), rcond=None)[0]
    assert list(fit.params.index) == list(design.columns)
    np.testing.assert_allclose(fit.params, expected, rtol=ROUNDING, atol=ROUNDING)
    assert fit.nobs == N


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["f8", "f4", "i4", "u2"])
def test_arrays_give_the_least_squares_fit(order: str, kind: str) -> None:
    x = np.asarray(frame()[["k"]].assign(j=lambda d: d.k**2 % 17).to_numpy(), dtype=kind, order=order)
    y = frame().y.to_numpy()
    fit = dg.glm(X=x, y=y)
    expected = np.linalg.lstsq(np.column_stack([np.ones(N), x]).astype(float), y, rcond=None)[0]
    assert list(fit.params.index) == ["Intercept", "x0", "x1"]
    np.testing.assert_allclose(fit.params, expected, rtol=ROUNDING, atol=ROUNDING)


def test_a_frame_as_x_gives_its_names() -> None:
    data = frame()
    fit = dg.glm(X=data[["x", "k"]], y=data.y)
    expected = np.linalg.lstsq(np.column_stack([np.ones(N), data.x, data.k]), data.y, rcond=None)[0]
    np.testing.assert_allclose(fit.params[["Intercept", "x", "k"]], expected, rtol=ROUNDING, atol=ROUNDING)


def test_a_dataset_of_parquet_files_is_read_as_a_lake_and_a_filtered_one_filtered(tmp_path: Path) -> None:
    dataset = ds.dataset(parquet(tmp_path))
    assert isinstance(sources.open_source(dataset), ParquetLake)
    fit = dg.glm("y ~ x", dataset.filter(ds.field("k") > 20))
    data = frame().query("k > 20")
    expected = np.linalg.lstsq(np.column_stack([np.ones(len(data)), data.x]), data.y, rcond=None)[0]
    assert fit.nobs == len(data)
    np.testing.assert_allclose(fit.params, expected, rtol=ROUNDING, atol=ROUNDING)


def test_how_a_formula_sees_the_columns() -> None:
    source = sources.open_source(pa.table({"x": [1.0], "s": ["a"], "b": [True], "l": [[1]], "n": pa.nulls(1)}))
    kinds = sources.kinds(source)
    assert kinds.pop("l") == "unusable: list<item: int64>"
    assert kinds == {"x": "numeric", "s": "factor", "b": "numeric", "n": "numeric"}


def test_a_categorical_of_numbers_is_a_factor() -> None:
    data = pd.DataFrame({"k": pd.Categorical([3, 1, 1, 3, 2, 2], [3, 1, 2]), "y": np.arange(6.0)})
    fit = dg.glm("y ~ k", data)
    assert list(fit.params.index) == ["Intercept", "k[T.1]", "k[T.2]"]
    np.testing.assert_allclose(fit.params, [1.5, 0.0, 3.0], atol=ROUNDING)


@pytest.mark.parametrize("data", [3, 2.5, None, object(), [], [1, 2], {1, 2}, np.zeros((3, 2))])
def test_data_of_no_known_kind_are_refused_with_their_type(data: Any) -> None:
    with pytest.raises(DesignError, match=type(data).__name__):
        sources.open_source(data)


def test_a_dask_array_is_no_table() -> None:
    import dask.array as da

    with pytest.raises(DesignError, match="X= and y="):
        sources.open_source(da.zeros((4, 2)))
