"""Arrays that are pandas objects are paired by their index, in fits and in what reads the rows again."""

from __future__ import annotations

from typing import Any

import dask.array as da
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


MASKED = RNG.uniform(size=ROWS) < 0.2


def _kinds() -> dict[str, Any]:
    """X and y with the same missing values in every way that arrays have of saying so."""
    x, y = X.to_numpy(), FRAME["y"].to_numpy()
    mask = np.column_stack([MASKED, MASKED[::-1]])
    numbers = pd.DataFrame(x, columns=["x", "z"]).mask(mask)
    masked_x = np.ma.MaskedArray(x, mask)
    masked_y = np.ma.MaskedArray(y, np.roll(MASKED, 5))
    nan_x, nan_y = masked_x.filled(np.nan), masked_y.astype(float).filled(np.nan)
    return {
        "nan": (nan_x, nan_y),
        "masked": (masked_x, masked_y),
        "masked of large values": (np.ma.MaskedArray(np.where(mask, 1e20, x), mask), masked_y),
        "nullable": (numbers.convert_dtypes(), pd.Series(y).mask(masked_y.mask).convert_dtypes()),
        "masked, dask": (da.from_array(masked_x, (25, 2), asarray=False), da.from_array(masked_y, 25, asarray=False)),
        "masked y beside dask": (da.from_array(nan_x, (25, 2)), masked_y),
        "masked by dask": (da.ma.masked_array(da.from_array(x, (25, 2)), da.from_array(mask, (25, 2))), masked_y),
    }


KINDS = _kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_masked_entries_are_missing(kind: str) -> None:
    expected = dg.glm(X=KINDS["nan"][0], y=KINDS["nan"][1], family="poisson")
    assert expected.ledger.missing_rows > 15
    x, y = KINDS[kind]
    fit = dg.glm(X=x, y=y, family="poisson")
    np.testing.assert_allclose(fit.params, expected.params, rtol=1e-10)
    assert sum(fit.ledger.missing.values()) == sum(expected.ledger.missing.values())
    assert fit.ledger.missing_rows == expected.ledger.missing_rows
    scored = fit.predict(x)
    scored = scored.compute() if hasattr(scored, "compute") else scored
    np.testing.assert_allclose(scored, expected.predict(KINDS["nan"][0]), rtol=1e-10)
    again = da.from_array(y, x.chunks[0], asarray=False) if hasattr(x, "compute") and not hasattr(y, "compute") else y
    residuals = fit.residuals({"X": x, "y": again})
    residuals = residuals.compute() if hasattr(residuals, "compute") else residuals
    found = expected.residuals({"X": KINDS["nan"][0], "y": KINDS["nan"][1]})
    np.testing.assert_allclose(residuals, found, rtol=1e-8)
    if "dask" not in kind:
        table = fit.drop1({"X": x, "y": y})
        np.testing.assert_allclose(table, expected.drop1({"X": KINDS["nan"][0], "y": KINDS["nan"][1]}), rtol=1e-8)


@pytest.mark.parametrize("option", OPTIONS)
def test_masked_entries_of_what_goes_with_X_are_missing(option: str) -> None:  # noqa: N802
    values = FRAME[OPTIONS[option]].to_numpy()
    masked = np.ma.MaskedArray(np.where(MASKED, 1e9, values), MASKED)
    y = FRAME["y"].to_numpy()
    fit = dg.glm(X=X.to_numpy(), y=y, family="poisson", **{option: masked})
    expected = dg.glm(X=X[~MASKED], y=y[~MASKED], family="poisson", **{option: values[~MASKED]})
    np.testing.assert_allclose(fit.params, expected.params, rtol=1e-10)
    x = da.from_array(X.to_numpy(), (25, 2))
    lazy = da.from_array(masked, 25, asarray=False)
    found = dg.glm(X=x, y=da.from_array(y, 25), family="poisson", **{option: lazy})
    np.testing.assert_allclose(found.params, expected.params, rtol=1e-10)
    if option != "weights":
        scored = fit.predict(X.to_numpy(), **{option: masked})
        assert np.array_equal(np.isnan(scored), MASKED)
        np.testing.assert_array_equal(
            found.predict(x, **{option: lazy}).compute(), found.predict(X.to_numpy(), **{option: masked})
        )


def test_masked_columns_of_a_dict_are_missing() -> None:
    masked = np.ma.MaskedArray(np.where(MASKED, 1e9, FRAME["x"]), MASKED)
    fit = dg.glm("y ~ x", {"x": masked, "y": FRAME["y"].to_numpy()})
    np.testing.assert_allclose(fit.params, dg.glm("y ~ x", FRAME[~MASKED]).params, rtol=1e-10)


def test_masked_labels_of_clusters_have_no_cluster() -> None:
    text = np.ma.MaskedArray(FRAME["g"].astype(str).to_numpy().astype("U2"), MASKED)
    with pytest.raises(DataError, match=f'"cluster" is missing in {MASKED.sum()} row'):
        dg.glm(X=X.to_numpy(), y=FRAME["y"].to_numpy(), covariance=dg.Cluster(text))
