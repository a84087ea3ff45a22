"""Profile likelihood intervals: what they are by definition, on small data, and what they must not depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from scipy.optimize import brentq, minimize

import daskglm as dg
from daskglm.errors import DesignError
from daskglm.inference import profile

Vector = npt.NDArray[np.float64]
# The issue of all of this: limits to a part of a standard error that nobody sees.
STANDARD_ERRORS = 1e-4
# The same sums in another order, through a search that ends 1e-5 off and steps once more.
SAME = 1e-8
# Minimisation by BFGS on a gradient of 1e-8.
BRUTE = 1e-6

FORMULA = "y ~ x + z + s"


def frame(family: str, n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Rows of a model with a numeric column of large mean and a factor."""
    generator = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": generator.normal(size=n),
            "z": generator.normal(1000.0, 2.0, n),
            "s": generator.choice(["a", "b", "c"], n),
            "f": generator.integers(1, 4, n),
            "w": generator.uniform(0.5, 3.0, n),
        }
    )
    eta = 0.4 * data.x + 0.2 * (data.z - 1000.0) + 0.5 * (data.s == "b") - 0.5
    mean = np.exp(eta)
    noise = generator.logistic(size=n)
    draws: dict[str, Any] = {
        "poisson": lambda: generator.poisson(mean),
        "negative_binomial": lambda: generator.negative_binomial(2.0, 2.0 / (2.0 + mean)),
        "binomial": lambda: (noise < eta).astype(int),
        "gamma": lambda: mean * generator.gamma(2.0, 0.5, n),
        "gaussian": lambda: eta + generator.normal(size=n),
        "tweedie(power=1.5)": lambda: generator.standard_gamma(2.0 * generator.poisson(mean)),
        "multinomial": lambda: np.where(eta + noise > 0.7, "C", np.where(eta + noise > -0.5, "B", "A")),
    }
    data["y"] = draws["multinomial" if family == "ordinal" else family]()
    if family == "ordinal":
        data["y"] = pd.Categorical(data.y, ["A", "B", "C"], ordered=True)
    return data


def files_of(data: pd.DataFrame, folder: Path, pieces: int, seed: int = 0) -> Path:
    """The rows in another order, in files of unequal size."""
    mixed = data.sample(frac=1.0, random_state=seed) if seed else data
    folder.mkdir()
    for k, part in enumerate(np.array_split(np.arange(len(mixed)), pieces)):
        table = pa.Table.from_pandas(
            mixed.iloc[part].assign(y=mixed.y.iloc[part].astype(data.y.dtype)), preserve_index=False
        )
        pq.write_table(table, folder / f"{k}.parquet", row_group_size=37)
    return folder


@pytest.mark.parametrize("family", ["poisson", "gamma", "binomial", "multinomial"])
def test_limits_depend_neither_on_partitions_nor_on_the_order_of_rows(family: str, tmp_path: Path, small: None) -> None:
    data = frame(family)
    fit = dg.glm(FORMULA, data, family=family)
    expected = fit.conf_int(method="profile", data=data)
    for k, pieces in enumerate((1, 7)):
        found = fit.conf_int(method="profile", data=files_of(data, tmp_path / str(k), pieces, seed=k))
        assert np.max(np.abs(found - expected).to_numpy() / fit.bse.to_numpy().T.reshape(-1, 1)) < SAME


@pytest.mark.parametrize("family", ["poisson", "gamma", "binomial", "ordinal"])
def test_a_frequency_is_that_many_rows(family: str) -> None:
    data = frame(family)
    written = data.loc[data.index.repeat(data.f)].reset_index(drop=True)
    one = dg.glm(FORMULA, data, family=family, weights=dg.Frequency("f"))
    other = dg.glm(FORMULA, written, family=family)
    found, expected = one.conf_int(method="profile", data=data), other.conf_int(method="profile", data=written)
    assert np.max(np.abs(found - expected).to_numpy() / other.bse.to_numpy()[:, None]) < SAME


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_gradients_alone_find_what_hessians_find(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = frame(family)
    fit = dg.glm(FORMULA, data, family=family, weights="w")
    expected = fit.conf_int(method="profile", data=data)
    monkeypatch.setattr(profile, "CHEAP", 0.0)
    monkeypatch.setattr(profile, "PATIENCE", 99)
    found = fit.conf_int(method="profile", data=data)
    assert np.max(np.abs(found - expected).to_numpy() / fit.bse.to_numpy()[:, None]) < SAME
    assert found.attrs["passes"] <= 6


def test_a_quadratic_likelihood_has_wald_limits() -> None:
    data = frame("gaussian")
    fit = dg.glm(FORMULA, data, weights="w")
    for level in (0.5, 0.95):
        found = fit.conf_int(method="profile", data=data, level=level)
        np.testing.assert_allclose(found, fit.conf_int(level=level), rtol=1e-9)


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_limits_of_classes_are_those_of_a_search_by_hand(family: str) -> None:
    data = frame(family, 120)
    fit = dg.glm("y ~ x + s", data, family=family)
    names = list(fit.record.names)
    found = fit.conf_int(method="profile", data=data)
    x = np.column_stack([np.ones(len(data)), data.x, data.s == "b", data.s == "c"]).astype(float)
    classes = np.array([{"A": 0, "B": 1, "C": 2}[value] for value in data.y])
    rows = np.arange(len(data))

    def loss(b: Vector) -> float:
        if family == "multinomial":
            eta = np.column_stack([np.zeros(len(data)), x @ b[:4], x @ b[4:]])
            return float((np.logaddexp.reduce(eta, axis=1) - eta[rows, classes]).sum())
        ends = np.concatenate([[-np.inf], b[3:], [np.inf]])
        eta = x[:, 1:] @ b[:3]
        above, below = 1 / (1 + np.exp(eta - ends[classes + 1])), 1 / (1 + np.exp(eta - ends[classes]))
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(-np.log(above - below).sum()) if b[3] < b[4] else np.inf

    best = fit.record.coefficients
    least, rise = loss(best), 0.5 * stats.chi2.ppf(0.95, 1)
    errors = np.sqrt(np.diag(fit.record.covariance))
    covariance = fit.record.covariance
    for j in (0, 1, len(names) - 1):
        others = [k for k in range(len(names)) if k != j]

        def excess(b: float, j: int = j, others: list[int] = others) -> float:
            start = best[others] + covariance[others, j] / covariance[j, j] * (b - best[j])
            answer = minimize(lambda v: loss(np.insert(v, j, b)), start, method="BFGS", options={"gtol": 1e-7})
            return float(answer.fun - least - rise)

        for column, side in enumerate((-1.0, 1.0)):
            limit = brentq(excess, best[j] + 0.5 * side * errors[j], best[j] + 4.0 * side * errors[j], xtol=1e-9)
            assert abs(found.iloc[j, column] - limit) / errors[j] < BRUTE


def test_named_parameters_and_levels() -> None:
    data = frame("poisson")
    fit = dg.glm(FORMULA, data, family="poisson")
    everything = fit.conf_int(method="profile", data=data, level=0.9)
    some = fit.conf_int(method="profile", data=data, level=0.9, params=["s[T.b]", "x"])
    assert list(some.index) == ["s[T.b]", "x"]
    np.testing.assert_allclose(some, everything.loc[some.index], rtol=1e-7)
    assert list(fit.conf_int(params="x").index) == ["x"]
    wide = fit.conf_int(method="profile", data=data, level=0.99)
    assert (wide.lower < everything.lower).all()
    assert (wide.upper > everything.upper).all()


def test_a_parameter_beside_the_coefficients_is_held_and_that_is_said() -> None:
    data = frame("negative_binomial", 600)
    fit = dg.glm(FORMULA, data, family="negative_binomial")
    held = dg.glm(FORMULA, data, family=dg.families.NegativeBinomial(theta=fit.shape_params["theta"]))
    found, expected = (f.conf_int(method="profile", data=data) for f in (fit, held))
    assert np.max(np.abs(found - expected).to_numpy() / held.bse.to_numpy()[:, None]) < STANDARD_ERRORS
    assert "theta held" in found.attrs["notes"][0]


def test_an_aliased_parameter_has_none_and_the_others_have_theirs() -> None:
    data = frame("poisson").assign(twice=lambda d: 2.0 * d.x)
    with pytest.warns(dg.errors.AliasWarning):
        fit = dg.glm("y ~ x + twice + s", data, family="poisson")
    found = fit.conf_int(method="profile", data=data)
    expected = dg.glm("y ~ x + s", data, family="poisson").conf_int(method="profile", data=data)
    assert found.loc["twice"].isna().all()
    np.testing.assert_allclose(found.drop("twice"), expected, rtol=1e-7)


def test_a_separated_parameter_leaves_the_others_their_limits() -> None:
    data = frame("poisson")
    data.loc[data.s == "c", "y"] = 0
    with pytest.warns(dg.errors.SeparationWarning):
        fit = dg.glm("y ~ x + s", data, family="poisson")
    found = fit.conf_int(method="profile", data=data)
    rest = data[data.s != "c"]
    expected = dg.glm("y ~ x + s", rest, family="poisson").conf_int(method="profile", data=rest)
    np.testing.assert_allclose(found.drop("s[T.c]"), expected, rtol=1e-7)
    assert found.loc["s[T.c]", "lower"] == -np.inf


def test_a_likelihood_that_flattens_has_no_limit() -> None:
    """Under the log link the loss of a gaussian row is bounded as its mean vanishes."""
    data = pd.DataFrame({"x": [0, 0, 0, 0, 1, 1, 1, 1], "y": [1.0, 2.0, 1.5, 2.5, 0.3, -0.6, 1.1, -0.4]})
    fit = dg.glm("y ~ x", data, link="log")
    found = fit.conf_int(method="profile", data=data)
    assert found.loc["x", "lower"] == -np.inf
    assert np.isfinite(found.loc["x", "upper"])
    assert any("x has no lower limit" in note for note in found.attrs["notes"])


def test_a_limit_on_the_boundary_of_the_possible_means_says_so() -> None:
    data = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "y": [0, 2, 1, 2, 3, 2]})
    fit = dg.glm("y ~ x", data, family="poisson", link="identity")
    found = fit.conf_int(method="profile", data=data)
    gone = found.isna().to_numpy()
    assert gone.any()
    assert sum("boundary" in note for note in found.attrs["notes"]) == gone.sum()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data": None}, "data="),
        ({"dist": "cauchy"}, 'dist must be "normal" or "t"'),
        ({"params": "nobody"}, "nobody"),
        ({"level": 1.0}, "level"),
        ({"method": "likelihood"}, "profile"),
        ({"alpha": 0.05}, "level="),
    ],
)
def test_requests_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    data = frame("poisson")
    fit = dg.glm("y ~ x", data, family="poisson")
    with pytest.raises(DesignError, match=message):
        fit.conf_int(**{"method": "profile", "data": data, **options})


def test_fits_without_a_maximum_of_the_likelihood_are_refused() -> None:
    data = frame("poisson")
    sampled = dg.glm("y ~ x", data, family="poisson", weights=dg.Probability("w"))
    with pytest.raises(DesignError, match="probability weights"):
        sampled.conf_int(method="profile", data=data)
    reduced = dg.glm("y ~ x", data, family="poisson", separation="firth")
    with pytest.raises(DesignError, match="maximum"):
        reduced.conf_int(method="profile", data=data)
    fit = dg.glm("y ~ x", data, family="poisson")
    with pytest.raises(DesignError, match="maximum"):
        fit.conf_int(method="profile", data=frame("poisson", seed=1))


def test_workers_find_the_same_bits(lake: Path, client: Any, small: None) -> None:
    fit = dg.glm("y ~ x + log(z) + s", str(lake), family="poisson")
    expected = fit.conf_int(method="profile", data=str(lake))
    with client.as_current():
        found = fit.conf_int(method="profile", data=str(lake))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("family", ["gaussian", "gamma", "poisson"])
def test_the_distribution_of_limits_can_be_named(family: str) -> None:
    """R's confint inverts the likelihood ratio by the normal quantile, whatever the test of a coefficient is."""
    data = frame(family, 40)
    fit = dg.glm("y ~ x + s", data, family=family)
    normal = fit.conf_int(method="profile", data=data, dist="normal")
    student = fit.conf_int(method="profile", data=data, dist="t")
    usual = fit.conf_int(method="profile", data=data)
    pd.testing.assert_frame_equal(usual, normal if family == "poisson" else student)
    if family == "gaussian":
        pd.testing.assert_frame_equal(normal, fit.conf_int(dist="normal"), rtol=1e-8, check_like=True)
    # the deviance of refits at a limit has risen by phi times the squared quantile
    quantile = stats.norm.ppf(0.975)
    fixed = data.assign(o=data.x * normal.loc["x", "upper"])
    refit = dg.glm("y ~ s", fixed, family=family, offset="o")
    assert (refit.deviance - fit.deviance) / fit.scale == pytest.approx(quantile**2, rel=1e-6)
