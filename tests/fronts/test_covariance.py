"""Robust and clustered errors through every face: options, job files, saved fits, checkpoints, clusters; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import daskglm as dg
from daskglm.cli import main
from daskglm.cluster.engine import Engine
from daskglm.design.clusters import keys_of
from daskglm.errors import DataError, DesignError
from daskglm.model.weights import Cluster, cluster_of
from daskglm.postestimation.sandwich import covariance_of
from tests.cluster.problem import FORMULA, KEEPS, Told, bits, fitted, frame, left_on

TWO_WAYS = dg.Cluster("s", "year", correction="full")


@pytest.fixture(scope="module")
def plain(lake: Path) -> dg.Fit:
    found = dg.glm(FORMULA, lake, family="poisson")
    assert isinstance(found, dg.Fit)
    return found


@pytest.mark.parametrize("kind", ["HC3", dg.Cluster("x"), TWO_WAYS], ids=str)
@pytest.mark.parametrize("keep", KEEPS)
def test_the_same_bits_on_every_engine(lake: Path, client: Any, kind: Any, keep: str) -> None:
    options = {"covariance": kind}
    expected = bits(fitted(lake, Engine(threads=1), **options))
    assert bits(fitted(lake, Engine(threads=3, leaves_per_task=2), keep, **options)) == expected
    assert bits(fitted(lake, Engine(client=client), keep, **options)) == expected
    assert left_on(client) == []


def test_again_on_a_cluster(lake: Path, client: Any, plain: dg.Fit) -> None:
    expected = plain.cov_params(TWO_WAYS, lake).to_numpy()
    assert covariance_of(plain.record, TWO_WAYS, str(lake), client).tobytes() == expected.tobytes()
    assert left_on(client) == []


def test_dask_collections(client: Any, plain: dg.Fit) -> None:
    import dask.dataframe as dd

    data = frame(600).dropna()
    with client.as_current():
        parts = dd.from_pandas(data, npartitions=5)
        named = dg.glm("y ~ x + s", parts, family="poisson", covariance=dg.Cluster("year"))
        x = parts[["x", "z"]].to_dask_array(lengths=True)
        arrays = dg.glm(X=x, y=parts["y"], family="poisson", covariance=dg.Cluster(parts["year"]), client=client)
        again = named.cov_params("HC3", parts)  # type: ignore[union-attr]
    expected = dg.glm("y ~ x + s", data, family="poisson", covariance=dg.Cluster("year"))
    np.testing.assert_allclose(named.cov_params(), expected.cov_params(), rtol=1e-10)  # type: ignore[union-attr]
    np.testing.assert_allclose(again, expected.cov_params("HC3", data), rtol=1e-10)  # type: ignore[union-attr]
    local = dg.glm(
        X=data[["x", "z"]].to_numpy(),
        y=data.y.to_numpy(),
        family="poisson",
        covariance=dg.Cluster(data.year.to_numpy()),
    )
    np.testing.assert_allclose(arrays.bse, local.bse, rtol=1e-10)  # type: ignore[union-attr]


def test_command_line_job_and_saved_fit(lake: Path, tmp_path: Path, plain: dg.Fit) -> None:
    expected = dg.glm(FORMULA, lake, family="poisson", covariance=TWO_WAYS)
    assert isinstance(expected, dg.Fit)
    text = "cluster(s, year, correction=full)"
    options = ["--family", "poisson", "--covariance", text]
    job = tmp_path / "job.toml"
    job.write_text(
        f"formula = {json.dumps(FORMULA)}\ndata = {json.dumps(str(lake))}\nfamily = 'poisson'\ncovariance = '{text}'\n"
        f"out = {json.dumps(str(tmp_path / 'job'))}\n"
    )
    for name, arguments in (
        ("model", ["fit", FORMULA, str(lake), *options, "--out", str(tmp_path / "model")]),
        ("job", ["fit", str(job)]),
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        found = dg.load(tmp_path / name)
        assert isinstance(found, dg.Fit)
        assert found.cov_params().equals(expected.cov_params())
        assert found.record.statistics == expected.record.statistics
        assert found.pvalues.equals(expected.pvalues)
        assert str(found.summary()) == str(expected.summary())
        assert found.cov_params(TWO_WAYS).equals(expected.cov_params())
        np.testing.assert_allclose(found.cov_params(data=lake), plain.cov_params(TWO_WAYS, lake), rtol=1e-9)
        hc3 = dg.glm(FORMULA, lake, family="poisson", covariance="HC3")
        np.testing.assert_allclose(found.cov_params("HC3", lake), hc3.cov_params(), rtol=1e-11)  # type: ignore[union-attr]


@pytest.mark.parametrize("phases", [3, 6, 8])
def test_an_interrupted_fit_resumes(lake: Path, tmp_path: Path, phases: int) -> None:
    options = {"covariance": TWO_WAYS}
    expected = bits(fitted(lake, Engine(threads=1), **options))

    def interrupt() -> None:
        raise KeyboardInterrupt

    told = Told("pass", interrupt, phases)
    log = str(tmp_path / "log")
    try:
        found = fitted(lake, Engine(threads=1), reporter=told, checkpoint=log, **options)
    except KeyboardInterrupt:
        found = fitted(lake, Engine(threads=2), checkpoint=log, **options)
    assert bits(found) == expected
    # a log that is whole up to the last total answers all of them
    again = fitted(lake, Engine(threads=1), checkpoint=log, **options)
    assert bits(again) == expected


@pytest.mark.parametrize(
    ("text", "cluster"),
    [
        ("cluster(policy)", Cluster("policy")),
        ("dg.Cluster( policy ,year )", Cluster("policy", "year")),
        ('Cluster("a b", correction="full")', Cluster("a b", correction="full")),
        ("cluster(`a, (b)`, c, correction=none)", Cluster("a, (b)", "c", correction="none")),
    ],
)
def test_clusters_in_writing(text: str, cluster: Cluster) -> None:
    assert cluster_of(text) == cluster
    assert cluster_of(cluster.text) == cluster


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dg.Cluster(), "clusters need a column"),
        (lambda: dg.Cluster("a", "a"), "name each once"),
        (lambda: dg.Cluster("a", correction="ful"), 'did you mean "full"'),
        (lambda: cluster_of("cluster(a, correction=group)"), 'did you mean "groups"'),
        (lambda: dg.plan("y ~ x", covariance="HC4"), "HC3"),
        (lambda: dg.plan("y ~ x", covariance="cluster(a)"), r"dg\.Cluster\("),
        (lambda: dg.plan("y ~ x", covariance=dg.Cluster), "clusters need a column"),
        (lambda: dg.plan("y ~ x", covariance=3), r"dg\.Cluster"),
        (lambda: dg.plan("y ~ x", covariance=dg.Cluster(np.zeros(3))), "names of columns"),
        (lambda: dg.plan("y ~ x", weights=dg.Probability("w"), covariance="HC3"), "linearised"),
        (lambda: dg.plan("y ~ x", family="poisson", separation="firth", covariance=dg.Cluster("s")), "firth"),
    ],
)  # fmt: skip
def test_requests_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        make()


def test_data_that_are_refused(plain: dg.Fit, lake: Path) -> None:
    data = frame(600)
    with pytest.raises(DesignError, match=r'no column "yaer".*did you mean "year"'):
        dg.glm("y ~ x", data, family="poisson", covariance=dg.Cluster("yaer"))
    with pytest.raises(DataError, match="one value in all rows"):
        dg.glm("y ~ x", data.assign(c=1), family="poisson", covariance=dg.Cluster("c"))
    with pytest.raises(DataError, match=r'"x" is missing in 51 row.*where='):
        dg.glm("y ~ z", data, family="poisson", covariance=dg.Cluster("x"))
    # rows that miss a variable of the model need no cluster
    assert dg.glm("y ~ x", data, family="poisson", covariance=dg.Cluster("x")).nobs == 549  # type: ignore[union-attr]
    with pytest.raises(DesignError, match=r"cov_params\(kind, data\)"):
        plain.cov_params("HC1")
    with pytest.raises(DesignError, match='did you mean "HC3"'):
        plain.cov_params("HC33", lake)
    with pytest.raises(DesignError, match='did you mean "HC3"'):
        plain.cov_params("HC33")
    with pytest.raises(DataError, match="standard errors from the optimum of these rows"):
        plain.cov_params("HC0", frame(3_000, seed=9))


def test_rows_that_are_fitted_by_themselves() -> None:
    data = frame(600).dropna().reset_index(drop=True)
    data.loc[7, ["s", "y"]] = ["single", 3.0]
    found = dg.glm("y ~ x + s", data, family="poisson", covariance="HC3")
    assert isinstance(found, dg.Fit)
    assert found.bse.isna().all()
    assert "1 row(s) are fitted by themselves" in str(found.summary())
    assert found.cov_params("HC1", data).notna().all(axis=None)
    with pytest.raises(DataError, match="fitted by themselves"):
        found.cov_params("HC2", data)


def test_text_is_the_same_cluster_in_every_file() -> None:
    import pyarrow as pa

    class Leaf:
        label = "leaf"

        def __init__(self, column: Any) -> None:
            self.table = pa.table({"c": column})

    words = pa.array(["b", "a", "b"])
    keys = keys_of(Leaf(words), "c", None)
    assert keys[0] == keys[2] != keys[1]
    assert np.array_equal(keys_of(Leaf(words.dictionary_encode()), "c", None), keys)
    assert np.array_equal(keys_of(Leaf(pa.array(["z", "b", "a", "b"])), "c", np.array([1, 2, 3])), keys)
    numbers = [3, 1, 3]
    integers = [keys_of(Leaf(pa.array(numbers, kind)), "c", None) for kind in (pa.int8(), pa.uint64(), pa.float64())]
    assert all(np.array_equal(found, integers[0]) for found in integers)
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array([3, 1]))
    assert np.array_equal(keys_of(Leaf(dictionary), "c", None), integers[0])
    with pytest.raises(DataError, match="leaf"):
        keys_of(Leaf(pa.array(["a", None])), "c", None)
    assert isinstance(pd.Series(keys_of(Leaf(pa.array(["a", None])), "c", np.array([0]))), pd.Series)
