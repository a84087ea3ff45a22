"""Arrays that are pandas objects are paired by their index, in fits and in what reads the rows again."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.errors import DataError, DesignError

ROWS = 60
RNG = np.random.default_rng(4)
FRAME = pd.DataFrame(
    {
        "x": RNG.normal(size=ROWS), "z": RNG.normal(size=ROWS), "y": RNG.poisson(2.0, ROWS), "w": RNG.uniform(1, 2, ROWS),
        "e": RNG.uniform(1, 2, ROWS), "o": RNG.normal(size=ROWS), "g": RNG.integers(0, 9, ROWS),
    },
    index=pd.Index([f"row {i}" for i in RNG.permutation(ROWS)]),
)  # fmt: skip
X = FRAME[["x", "z"]]
OPTIONS = {"weights": "w", "offset": "o", "exposure": "e"}


def shuffled(name: str) -> pd.Series:
    return FRAME[name].sample(frac=1.0, random_state=len(name) + 5)


def fitted(x: Any, y: Any, **changes: Any) -> dg.Fit:
    given = {option: FRAME[name] for option, name in OPTIONS.items()} | changes
    return dg.glm(X=x, y=y, family="poisson", **given)


EXPECTED = fitted(X.to_numpy(), FRAME["y"].to_numpy())


@pytest.mark.parametrize("option", ["y", *OPTIONS])
def test_rows_are_paired_by_index(option: str) -> None:
    moved = shuffled(OPTIONS.get(option, "y"))
    found = fitted(X, moved) if option == "y" else fitted(X, FRAME["y"], **{option: moved})
    np.testing.assert_array_equal(found.params, EXPECTED.params)


def test_kinds_of_weights_and_clusters_are_paired_by_index() -> None:
    expected = dg.glm(X=X, y=FRAME["y"], weights=dg.Variance(FRAME["w"]), covariance=dg.Cluster(FRAME["g"]))
    found = dg.glm(X=X, y=FRAME["y"], weights=dg.Variance(shuffled("w")), covariance=dg.Cluster(shuffled("g")))
    np.testing.assert_array_equal(found.bse, expected.bse)


def test_arrays_without_an_index_are_paired_by_position() -> None:
    for x, y in ((X.to_numpy(), FRAME["y"]), (X, FRAME["y"].to_numpy()), (X, FRAME["y"].tolist())):
        np.testing.assert_array_equal(fitted(x, y).params, EXPECTED.params)


def test_an_index_with_repeated_labels_serves_where_it_is_the_same() -> None:
    again = pd.Index(["a", "b"] * (ROWS // 2))
    found = dg.glm(X=X.set_axis(again), y=FRAME["y"].set_axis(again))
    np.testing.assert_array_equal(found.params, dg.glm(X=X, y=FRAME["y"]).params)
    with pytest.raises(DesignError, match="the index of y does not have the labels of the index of X"):
        dg.glm(X=X.set_axis(again), y=FRAME["y"].set_axis(again[::-1]))


@pytest.mark.parametrize("option", ["y", *OPTIONS])
def test_other_labels_are_refused(option: str) -> None:
    other = FRAME[OPTIONS.get(option, "y")].reset_index(drop=True)
    changes = {} if option == "y" else {option: other}
    with pytest.raises(DesignError, match=rf"the index of {option} .* labels .*X.*{option}\.to_numpy\(\)"):
        fitted(X, other if option == "y" else FRAME["y"], **changes)


@pytest.mark.parametrize("method", ["residuals", "cov_params", "drop1"])
def test_rows_that_are_read_again_are_paired_by_index(method: str) -> None:
    def result(fit: dg.Fit, data: Any) -> Any:
        return {
            "residuals": lambda: fit.residuals(data).sort_values().to_numpy(),
            "cov_params": lambda: fit.cov_params("HC1", data),
            "drop1": lambda: fit.drop1(data),
        }[method]()

    fit = dg.glm(X=X, y=FRAME["y"], family="poisson")
    expected = result(fit, {"X": X.to_numpy(), "y": FRAME["y"].to_numpy()})
    for data in ({"X": X, "y": shuffled("y")}, {"X": X[["z", "x"]], "y": FRAME["y"]}):
        np.testing.assert_array_equal(result(fit, data), expected)
    with pytest.raises(DesignError, match="the index of y does not have the labels of the index of X"):
        result(fit, {"X": X, "y": FRAME["y"].reset_index(drop=True)})
    with pytest.raises(DesignError, match="the model needs 2 columns, X has 1"):
        result(fit, {"X": X[["z"]], "y": FRAME["y"]})


def test_partitions_are_paired_by_index() -> None:
    x = dd.from_pandas(X.sort_index(), npartitions=3)
    y = dd.from_pandas(FRAME["y"].sort_index(), npartitions=3)
    expected = dg.glm(X=x, y=y)
    moved = y.map_partitions(lambda part: part[::-1], meta=y._meta)
    np.testing.assert_array_equal(dg.glm(X=x, y=moved).params, expected.params)
    other = y.map_partitions(lambda part: part.reset_index(drop=True), meta=y._meta)
    with pytest.raises(DataError, match="chunk 0: the index of y does not have the labels"):
        dg.glm(X=x, y=other)
