"""The bootstrap: its laws, its replicates written out, and what it must not depend on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

import daskglm as dg
from daskglm.errors import DataError, DesignError
from daskglm.kernels.blocks import Block
from daskglm.kernels.resampling import Draws
from daskglm.postestimation.bootstrap import identities
from daskglm.postestimation.revisit import Rows, Visit

# Sums in another order.
SAME = 1e-9
# Refits by other steps to the same tolerance.
REFIT = 1e-6

FORMULA = "y ~ x + z + s"
MODELS: dict[str, dict[str, Any]] = {
    "poisson": {"family": "poisson", "offset": "o"},
    "gamma": {"family": "gamma", "link": "inverse", "weights": dg.Variance("w")},
    "binomial": {"family": "binomial", "link": "probit", "weights": dg.Trials("f")},
    "frequency": {"family": "poisson", "weights": dg.Frequency("f")},
    "negative_binomial": {"family": "negative_binomial"},
    "multinomial": {"family": "multinomial"},
    "ordinal": {"family": "ordinal", "weights": dg.Frequency("f")},
}


def frame(model: str, n: int = 600, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": generator.normal(size=n),
            "z": generator.normal(50.0, 2.0, n),
            "s": generator.choice(["a", "b", "c"], n),
            "o": generator.uniform(0, 0.5, n),
            "f": generator.integers(1, 5, n),
            "w": generator.uniform(0.5, 3.0, n),
            "row": np.arange(n),
            "owner": [f"owner {k}" for k in generator.integers(0, n // 4, n)],
        }
    )
    eta = 0.3 * data.x + 0.1 * (data.z - 50.0) + 0.4 * (data.s == "b")
    mean, noise = np.exp(eta), generator.logistic(size=n)
    if model in ("poisson", "frequency", "negative_binomial"):
        # more variable than Poisson, so that HC0 is another matrix than the model's
        data["y"] = generator.poisson(mean * generator.gamma(2.0, 0.5, n))
    elif model == "gamma":
        data["y"] = generator.gamma(3.0, 1.0 / (3.0 * (2.0 + np.tanh(eta))))
    elif model == "binomial":
        data["y"] = generator.binomial(data.f, stats.norm.cdf(eta - 0.3)) / data.f
    else:
        data["y"] = np.where(eta + noise > 0.9, "C", np.where(eta + noise > -0.5, "B", "A"))
        if model == "ordinal":
            data["y"] = pd.Categorical(data.y, ["A", "B", "C"], ordered=True)
    return data


def keyed(data: pd.DataFrame) -> Rows:
    """The rows as far as their key knows them."""
    n = len(data)
    return Rows(Block(n, (), (), np.zeros(n)), {"row": data.row.to_numpy()}, "", np.arange(n), n, "", np.arange(n))


def files_of(data: pd.DataFrame, folder: Path, pieces: int, seed: int = 0) -> Path:
    """The rows in another order, in several files of small row groups."""
    mixed = data.sample(frac=1.0, random_state=seed) if seed else data
    folder.mkdir()
    for k, part in enumerate(np.array_split(np.arange(len(mixed)), pieces)):
        table = pa.Table.from_pandas(mixed.iloc[part], preserve_index=False)
        pq.write_table(table, folder / f"{k}.parquet", row_group_size=41)
    return folder


@pytest.mark.parametrize("model", MODELS)
def test_the_covariance_of_one_step_tends_to_hc0(model: str) -> None:
    data = frame(model)
    fit = dg.glm(FORMULA, data, **MODELS[model])
    robust = dg.glm(FORMULA, data, **MODELS[model], covariance="HC0").cov_params().to_numpy()
    replicates = 4_000
    found = fit.bootstrap(data, replicates=replicates)
    root = np.linalg.cholesky(np.linalg.inv(robust))
    # R S is Wishart: its eigenvalues lie within (1 +- sqrt(p / R))^2 (Marchenko and Pastur 1967), and a little beyond; the
    # draws are fixed, so this never fails by chance
    whitened = np.linalg.eigvalsh(root.T @ found.cov().to_numpy() @ root)
    edge = np.sqrt(len(robust) / replicates)
    assert whitened.min() > (1 - edge) ** 2 - 0.05
    assert whitened.max() < (1 + edge) ** 2 + 0.05
    # and the means of the replicates are within 4.5 of their errors
    bias = (found.params.mean().to_numpy() - fit.record.coefficients) @ root
    assert np.abs(bias).max() * np.sqrt(replicates) < 4.5
    assert found.passes == 1


@pytest.mark.parametrize("model", ["poisson", "frequency"])
def test_one_step_replicates_written_out(model: str) -> None:
    data = frame(model)
    fit = dg.glm(FORMULA, data, **MODELS[model])
    found = fit.bootstrap(data, replicates=70, seed=11, key="row")
    rows = keyed(data)
    copies = data.f.to_numpy(float) if model == "frequency" else None
    weights = Draws(identities(rows, ("row",)), copies, 11, 70).weights(0, 600)
    x = np.column_stack([np.ones(600), data.x, data.z, data.s == "b", data.s == "c"]).astype(float)
    offset = data.o.to_numpy() if model == "poisson" else 0.0
    mean = np.exp(x @ fit.params.to_numpy() + offset)
    information = (x.T * (mean * (1.0 if copies is None else copies))) @ x
    expected = (
        fit.params.to_numpy() + np.linalg.solve(information, x.T @ ((data.y.to_numpy() - mean)[:, None] * weights)).T
    )
    np.testing.assert_allclose(found.params, expected, rtol=1e-7)


@pytest.mark.parametrize("method", ["one-step", "full"])
def test_with_a_key_replicates_depend_neither_on_partitions_nor_on_the_order_of_rows(
    method: str, tmp_path: Path, small: None
) -> None:
    data = frame("poisson")
    fit = dg.glm(FORMULA, data, **MODELS["poisson"])
    expected = fit.bootstrap(data, replicates=20, key="row", method=method)
    for k, pieces in enumerate((1, 5)):
        source = files_of(data, tmp_path / str(k), pieces, seed=k)
        found = fit.bootstrap(source, replicates=20, key="row", method=method)
        np.testing.assert_allclose(found.params, expected.params, rtol=SAME, atol=SAME)
    # whole numbers are the same key as floats
    floats = fit.bootstrap(data.assign(row=data.row.astype(float)), replicates=20, key=["row"], method=method)
    np.testing.assert_allclose(floats.params, expected.params, rtol=SAME, atol=SAME)
    other = fit.bootstrap(data, replicates=20, key="row", method=method, seed=1)
    assert (np.abs(other.params - expected.params) > 1e-4).any(axis=None)


def test_rows_of_one_key_are_drawn_as_one() -> None:
    data = frame("poisson")
    fit = dg.glm(FORMULA, data, **MODELS["poisson"])
    replicates = 4_000
    found = fit.bootstrap(data, replicates=replicates, key="owner")
    x = np.column_stack([np.ones(600), data.x, data.z, data.s == "b", data.s == "c"]).astype(float)
    mean = np.exp(x @ fit.params.to_numpy() + data.o)
    scores = pd.DataFrame(x * (data.y - mean).to_numpy()[:, None]).groupby(data.owner).sum().to_numpy()
    bread = np.linalg.inv((x.T * mean.to_numpy()) @ x)
    root = np.linalg.cholesky(np.linalg.inv(bread @ scores.T @ scores @ bread))
    whitened = np.linalg.eigvalsh(root.T @ found.cov().to_numpy() @ root)
    edge = np.sqrt(5 / replicates)
    assert whitened.min() > (1 - edge) ** 2 - 0.05
    assert whitened.max() < (1 + edge) ** 2 + 0.05


def test_two_keys_are_one_of_pairs() -> None:
    data = frame("poisson")
    fit = dg.glm(FORMULA, data, **MODELS["poisson"])
    pairs = data.assign(half=data.row // 2, parity=np.where(data.row % 2, "odd", "even"))
    one = fit.bootstrap(pairs, replicates=10, key=("half", "parity"))
    again = fit.bootstrap(pairs.sample(frac=1.0, random_state=2), replicates=10, key=("half", "parity"))
    np.testing.assert_allclose(one.params, again.params, rtol=SAME, atol=SAME)
    swapped = fit.bootstrap(pairs, replicates=10, key=("parity", "half"))
    assert (np.abs(one.params - swapped.params) > 1e-4).any(axis=None)


def test_a_frequency_that_is_one_everywhere_changes_no_draw() -> None:
    data = frame("poisson").assign(f=1)
    plain = dg.glm("y ~ x", data, family="poisson").bootstrap(data, replicates=30)
    counted = dg.glm("y ~ x", data, family="poisson", weights=dg.Frequency("f")).bootstrap(data, replicates=30)
    np.testing.assert_allclose(plain.params, counted.params, rtol=SAME)


@pytest.mark.parametrize("model", ["poisson", "gamma", "binomial", "frequency", "multinomial", "ordinal"])
def test_full_replicates_are_refits_with_the_weights_drawn(model: str) -> None:
    data = frame(model)
    options = MODELS[model]
    fit = dg.glm(FORMULA, data, **options)
    found = fit.bootstrap(data, replicates=6, method="full", key="row")
    counted = model in ("frequency", "ordinal")
    rows = keyed(data)
    weights = Draws(identities(rows, ("row",)), data.f.to_numpy(float) if counted else None, 0, 6).weights(0, 600)
    for k in range(6):
        written = data.loc[data.index.repeat(weights[:, k].astype(int))].reset_index(drop=True)
        expected = dg.glm(FORMULA, written, **({**options, "weights": None} if counted else options))
        errors = np.sqrt(np.diag(expected.record.covariance))
        difference = found.params.iloc[k].to_numpy() - expected.record.coefficients
        assert np.max(np.abs(difference) / errors) < REFIT
    # four to seven shared passes, whatever the number of replicates
    assert found.passes < 10


def test_a_replicate_without_an_estimate_is_nan_and_counted() -> None:
    data = pd.DataFrame({"s": ["a"] * 40 + ["b"] * 2, "y": [0, 1, 2, 1] * 10 + [3, 0]})
    fit = dg.glm("y ~ s", data, family="poisson")
    found = fit.bootstrap(data, replicates=40, method="full")
    lost = found.params.isna().any(axis=1)
    assert 0 < lost.sum() < 40
    assert any(f"{lost.sum()} replicate(s)" in note for note in found.notes)
    assert found.params[lost].isna().all(axis=None)


def test_intervals_are_what_they_are_called() -> None:
    data = frame("poisson")
    fit = dg.glm(FORMULA, data, **MODELS["poisson"])
    found = fit.bootstrap(data, replicates=300, level=0.9)
    low, high = np.quantile(found.params, [0.05, 0.95], axis=0)
    b, mean, spread = fit.params, found.params.mean(), found.params.std()
    np.testing.assert_allclose(found.conf_int(), np.column_stack([low, high]))
    np.testing.assert_allclose(found.conf_int("basic"), np.column_stack([2 * b - high, 2 * b - low]))
    half = stats.norm.ppf(0.975) * spread
    center = 2 * b - mean
    np.testing.assert_allclose(found.conf_int("normal", level=0.95), np.column_stack([center - half, center + half]))
    np.testing.assert_allclose(found.bse, np.sqrt(np.diag(found.cov())))
    np.testing.assert_allclose(found.bias, mean - b, atol=1e-15)
    text = repr(found)
    assert "300 replicates, one-step, seed 0" in text
    assert all(name in text for name in fit.params.index)


def test_aliased_and_separated_parameters_have_no_replicates() -> None:
    data = frame("poisson").assign(twice=lambda d: 2.0 * d.x)
    data.loc[data.s == "c", "y"] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = dg.glm("y ~ x + twice + s", data, family="poisson")
    found = fit.bootstrap(data, replicates=30, key="row")
    rest = data[data.s != "c"]
    expected = dg.glm("y ~ x + s", rest, family="poisson").bootstrap(rest, replicates=30, key="row")
    assert found.params[["twice", "s[T.c]"]].isna().all(axis=None)
    np.testing.assert_allclose(found.params[expected.params.columns], expected.params, rtol=1e-6, atol=1e-8)
    with pytest.raises(DesignError, match="one-step"):
        fit.bootstrap(data, replicates=30, method="full")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "jackknife"}, "one-step"),
        ({"replicates": 1}, "replicates"),
        ({"replicates": 10.0}, "replicates"),
        ({"seed": -1}, "seed"),
        ({"level": 95}, "level"),
        ({"key": "nobody"}, "nobody"),
    ],
)
def test_requests_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    data = frame("poisson")
    fit = dg.glm("y ~ x", data, family="poisson")
    with pytest.raises(DesignError, match=message):
        fit.bootstrap(data, **options)
    with pytest.raises(DesignError, match="percentile"):
        fit.bootstrap(data, replicates=2).conf_int("bca")


def test_what_it_is_not_right_for_is_refused() -> None:
    data = frame("poisson")
    reduced = dg.glm("y ~ x", data, family="poisson", separation="firth")
    with pytest.raises(DesignError, match="maximum"):
        reduced.bootstrap(data, replicates=10)
    fit = dg.glm("y ~ x", data, family="poisson")
    with pytest.raises(DataError, match="missing"):
        fit.bootstrap(data.assign(row=data.row.where(data.row > 5)), replicates=10, key="row")
    with pytest.raises(DataError, match="missing"):
        fit.bootstrap(data.assign(owner=data.owner.where(data.row > 5)), replicates=10, key="owner")


def test_without_a_key_a_row_is_its_place_in_its_leaf() -> None:
    """So rows that are left out for missing values change no other row's draws."""
    data = frame("poisson")
    fit = dg.glm("y ~ x", data, family="poisson")
    keys = []
    for table in (data, data.assign(x=data.x.where(data.row % 7 > 0))):
        with Visit(fit.record, table) as visit:
            (rows,) = visit.rows.map(lambda rows: rows)
            keys.append(dict(zip(rows.place, identities(rows, ()), strict=True)))
    assert len(keys[1]) < len(keys[0])
    assert all(keys[0][place] == key for place, key in keys[1].items())


@pytest.mark.parametrize("method", ["one-step", "full"])
def test_workers_find_the_same_bits(method: str, lake: Path, client: Any, small: None) -> None:
    fit = dg.glm("y ~ x + log(z) + s", str(lake), family="poisson")
    expected = fit.bootstrap(str(lake), replicates=5, method=method)
    with client.as_current():
        found = fit.bootstrap(str(lake), replicates=5, method=method)
    pd.testing.assert_frame_equal(found.params, expected.params, check_exact=True)
