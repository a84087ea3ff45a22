"""What a fit owes nothing to: the order of rows, the files they are in, units of measurement, and who does the work."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm import estimation as fitting
from daskglm.cluster import lakes, machine
from daskglm.cluster.engine import Engine
from daskglm.cluster.sources import open_source
from daskglm.errors import AliasWarning
from daskglm.fit import run
from daskglm.plan import make_plan

# Sums of the same terms in another order; both fits are at their optimum to the last digits.
ROUNDING = 1e-9
# Standard errors come from the inverse of a Gram matrix of condition about 100.
ERRORS = 1e-8
# Parameters beside the coefficients are found to 1e-6 of their own errors, and errors move with them.
SHAPES = 1e-6
# The same law after columns of mean 1e3 times their spread were shifted: three digits are gone.
SHIFTED = 1e-6

N = 1_200
MODELS: dict[str, dict[str, Any]] = {
    "gaussian": {"family": "gaussian"},
    "gaussian log": {"family": "gaussian", "link": "log"},
    "poisson": {"family": "poisson"},
    "gamma log": {"family": "gamma", "link": "log"},
    "gamma inverse": {"family": "gamma", "link": "inverse"},
    "binomial": {"family": "binomial"},
    "probit": {"family": "binomial", "link": "probit"},
    "counts of theta 2": {"family": "negative_binomial(theta=2)"},
    "counts": {"family": "negative_binomial"},
    "tweedie": {"family": "tweedie(power=1.5)"},
    "tweedie of any power": {"family": "tweedie"},
    "inverse gaussian": {"family": "inverse_gaussian"},
}
# Of a weighted row, its theta or power is not that of a row of another weight: their estimates depend on the unit.
SHAPELESS = [model for model in MODELS if model not in ("counts", "tweedie of any power")]
# The dispersion is estimated, and takes up the unit of the weights.
SCATTERED = ("gaussian", "gamma", "tweedie", "inverse")


def frame(model: str, n: int = N, seed: int = 0) -> pd.DataFrame:
    """Rows the model is true of."""
    generator = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": generator.normal(size=n),
            "z": generator.uniform(0.0, 2.0, n),
            "s": generator.choice(["a", "b", "c", "d"], n, p=[0.4, 0.3, 0.2, 0.1]),
            "f": generator.integers(0, 4, n),
            "w": generator.uniform(0.5, 3.0, n),
            "o": generator.uniform(-0.2, 0.2, n),
        }
    )
    eta = 0.8 + 0.2 * data.x + 0.1 * data.z + 0.15 * (data.s == "b") - 0.1 * (data.s == "c")
    name = model.split()[0]
    if name == "poisson":
        data["y"] = generator.poisson(np.exp(eta)).astype(float)
    elif name == "gamma":
        data["y"] = generator.gamma(4.0, np.exp(eta) / 4.0)
    elif name == "counts":
        data["y"] = generator.negative_binomial(2.0, 2.0 / (2.0 + np.exp(eta))).astype(float)
    elif name == "tweedie":
        # half of the responses are nothing at all
        data["y"] = generator.standard_gamma(1.5 * generator.poisson(0.3 * np.exp(eta))) / 0.45
    elif name == "inverse":
        data["y"] = generator.wald(np.exp(eta), 8.0)
    elif name in ("binomial", "probit"):
        data["y"] = (generator.random(n) < 1 / (1 + np.exp(0.5 - eta))).astype(float)
    else:
        data["y"] = np.exp(eta) + 0.3 * generator.normal(size=n)
    return data


def glm(data: Any, model: str, formula: str = "y ~ x + z + s", **options: Any) -> dg.Fit:
    return dg.glm(formula, data, **MODELS[model], **options)


def same(one: dg.Fit, other: dg.Fit, rtol: float = ROUNDING, errors: float = ERRORS) -> None:
    assert list(one.params.index) == list(other.params.index)
    np.testing.assert_allclose(one.params, other.params, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(
        one.cov_params(), other.cov_params(), rtol=errors, atol=errors * np.abs(one.bse.max()) ** 2
    )
    for name in ("deviance", "null_deviance", "llf", "aic", "bic", "scale", "nobs", "df_resid", "pearson_chi2"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=errors, nan_ok=True), name
    for name, value in one.shape_params.items():
        assert value == pytest.approx(other.shape_params[name], rel=SHAPES)
        assert one.shape_bse[name] == pytest.approx(other.shape_bse[name], rel=SHAPES)


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_rows_does_not_matter(model: str) -> None:
    data = frame(model)
    same(glm(data, model), glm(data.sample(frac=1.0, random_state=3), model))


@pytest.mark.parametrize("model", MODELS)
def test_which_files_rows_are_in_does_not_matter(tmp_path: Path, model: str) -> None:
    data = frame(model)
    cuts = [0, 0, 5, 400, 400, 401, 1_000, N]
    pq.write_table(pa.Table.from_pandas(data, preserve_index=False), tmp_path / "whole.parquet")
    (tmp_path / "lake").mkdir()
    table = pa.Table.from_pandas(data, preserve_index=False)
    for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
        pq.write_table(table.slice(start, stop - start), tmp_path / "lake" / f"{i}.parquet", row_group_size=150)
    assert len(list((tmp_path / "lake").iterdir())) == 7
    same(glm(tmp_path / "whole.parquet", model), glm(tmp_path / "lake", model))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("covariance", ["model", "observed"])
def test_a_frequency_is_that_many_rows(model: str, covariance: str) -> None:
    data = frame(model)
    written_out = data.loc[data.index.repeat(data.f)]
    weighted = glm(data, model, weights=dg.Frequency("f"), covariance=covariance)
    assert weighted.nobs == data.f.sum()
    same(weighted, glm(written_out, model, covariance=covariance))


@pytest.mark.parametrize("model", SHAPELESS)
def test_the_unit_of_variance_weights_does_not_matter(model: str) -> None:
    data = frame(model).assign(w7=lambda d: 7.0 * d.w)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = glm(data, model, weights="w"), glm(data, model, weights=dg.Variance("w7"))
    np.testing.assert_allclose(one.params, other.params, rtol=ROUNDING)
    assert one.nobs == other.nobs == N
    # where the dispersion is estimated it takes up the unit, where it is 1 the information is 7 times as much
    ratio = 1.0 if model.startswith(SCATTERED) else np.sqrt(7.0)
    np.testing.assert_allclose(one.bse, other.bse * ratio, rtol=ERRORS)
    assert other.deviance == pytest.approx(7.0 * one.deviance, rel=ERRORS)


@pytest.mark.parametrize("model", MODELS)
def test_the_unit_of_probability_weights_does_not_matter(model: str) -> None:
    data = frame(model)
    other_data = data.assign(w=1000.0 * data.w)
    one, other = (glm(rows, model, weights=dg.Probability("w")) for rows in (data, other_data))
    np.testing.assert_allclose(one.params, other.params, rtol=ROUNDING)
    np.testing.assert_allclose(one.bse, other.bse, rtol=SHAPES if one.shape_params else ERRORS)
    for name in ("nobs", "df_resid", "deviance", "null_deviance", "pearson_chi2", "scale"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=SHAPES if one.shape_params else ERRORS), (
            name
        )
    for name, value in one.shape_params.items():
        assert value == pytest.approx(other.shape_params[name], rel=SHAPES)
    assert one.certificate.decrement == pytest.approx(other.certificate.decrement, abs=1e-12)


@pytest.mark.parametrize("model", ["gaussian", "gamma log", "inverse gaussian", "poisson", "tweedie"])
@pytest.mark.parametrize("dispersion", [None, "pearson", "deviance", "ml"])
def test_what_is_made_of_a_dispersion_has_no_unit_of_probability_weights(model: str, dispersion: str | None) -> None:
    if dispersion == "ml" and model in ("poisson", "tweedie"):
        pytest.skip("no maximum likelihood estimate of this dispersion")
    data = frame(model)
    other_data = data.assign(w=1000.0 * data.w)
    one, other = (glm(d, model, weights=dg.Probability("w"), dispersion=dispersion) for d in (data, other_data))
    assert other.scale == pytest.approx(one.scale, rel=SHAPES)
    if model != "poisson" or dispersion is None:  # quasi-Poisson counts have no distribution
        np.testing.assert_allclose(
            one.predict(data, interval="prediction"), other.predict(other_data, interval="prediction"), rtol=SHAPES
        )
        np.testing.assert_allclose(
            one.residuals(data, "quantile"), other.residuals(other_data, "quantile"), rtol=SHAPES, atol=SHAPES
        )
    tables = [fit.calibration(rows, by="s") for fit, rows in ((one, data), (other, other_data))]
    scale_free = ["ratio", "lower", "upper", "chi2"]
    np.testing.assert_allclose(tables[0][scale_free], tables[1][scale_free], rtol=SHAPES, atol=ROUNDING)


@pytest.mark.parametrize("model", MODELS)
def test_a_weight_of_zero_is_no_row(model: str) -> None:
    data = frame(model).assign(w=lambda d: np.where(d.x > 0.5, 0.0, d.w))
    same(glm(data, model, weights="w"), glm(data[data.x <= 0.5], model, weights="w"))


@pytest.mark.parametrize("model", [model for model in MODELS if model != "gamma inverse"])
def test_a_shift_of_the_offset_is_taken_up_by_the_intercept(model: str) -> None:
    data = frame(model).assign(shifted=lambda d: d.o + 0.37)
    one, other = glm(data, model, offset="o"), glm(data, model, offset="shifted")
    moved = one.params.copy()
    moved["Intercept"] -= 0.37
    np.testing.assert_allclose(other.params, moved, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(other.bse, one.bse, rtol=ERRORS)
    assert other.deviance == pytest.approx(one.deviance, rel=ERRORS)
    assert other.null_deviance == pytest.approx(one.null_deviance, rel=ERRORS)


def test_exposure_is_the_offset_of_its_logarithm() -> None:
    data = frame("poisson")
    same(
        glm(data, "poisson", exposure="w"),
        glm(data.assign(log_w=np.log(data.w)), "poisson", "y ~ x + z + s + offset(log_w)"),
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scale, shift", [(1e6, 0.0), (1e-6, 0.0), (-3.0, 0.0), (2.0, 1_000.0)])
def test_units_of_a_column_change_its_coefficient_and_the_intercept_alone(
    model: str, scale: float, shift: float
) -> None:
    data = frame(model)
    one, other = glm(data, model), glm(data.assign(x=scale * data.x + shift), model)
    expected = one.params.copy()
    expected["x"] /= scale
    expected["Intercept"] -= expected["x"] * shift
    tolerance = SHIFTED if shift else ROUNDING
    np.testing.assert_allclose(other.params, expected, rtol=tolerance)
    rest = [name for name in one.params.index if name != "Intercept"]
    factor = pd.Series(1.0, rest)
    factor["x"] = 1.0 / abs(scale)
    np.testing.assert_allclose(other.bse[rest], one.bse[rest] * factor, rtol=tolerance)
    assert other.deviance == pytest.approx(one.deviance, rel=ERRORS)


@pytest.mark.parametrize("model", ["gaussian", "poisson", "binomial"])
def test_another_baseline_is_the_same_model(model: str) -> None:
    data = frame(model)
    one, other = glm(data, model), glm(data, model, "y ~ x + z + C(s, Treatment('c'))")
    for level in "abd":
        difference = one.params.get(f"s[T.{level}]", 0.0) - one.params["s[T.c]"]
        assert other.params[f"C(s, Treatment('c'))[T.{level}]"] == pytest.approx(difference, rel=1e-8, abs=1e-9)
    assert other.llf == pytest.approx(one.llf, rel=ERRORS)


def test_a_filter_is_that_subset(tmp_path: Path) -> None:
    data = frame("poisson")
    pq.write_table(pa.Table.from_pandas(data, preserve_index=False), tmp_path / "a.parquet", row_group_size=100)
    subset = glm(data.query("x > 0 and s in ['a', 'b', 'd'] and z < 1.5"), "poisson")
    for source in (tmp_path, data):
        same(glm(source, "poisson", where="x > 0 and s in ['a', 'b', 'd'] and z < 1.5"), subset)


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Lakes of some 70 leaves, of which some hold a handful of rows and some none that count."""
    found = {}
    for model in ("poisson", "binomial", "gamma log", "gaussian"):
        folder = tmp_path_factory.mktemp("lake")
        data = frame(model, 20_000, 4)
        data.loc[3_000:3_700, "x"] = np.nan
        table = pa.Table.from_pandas(data, preserve_index=False)
        for i, start in enumerate(range(0, 20_000, 5_000)):
            size = 313 if i % 2 else 257
            pq.write_table(table.slice(start, 5_000), folder / f"{i}.parquet", row_group_size=size)
        pq.write_table(table.slice(0, 3), folder / "few.parquet")
        found[model] = folder
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every row group a leaf, pilots from a thousand rows on, and a folder for what is kept on disk."""
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1_000)
    monkeypatch.setattr(machine, "on_memory", lambda path: False)
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))
    return tmp_path


def outcome(lake: Path, model: str, engine: Engine, keep: str, **options: Any) -> tuple[Any, ...]:
    source = open_source(lake)
    plan = make_plan("y ~ x + log(z) + s + s:x", {**MODELS[model], "keep": keep, **options})
    record = run(plan, source, engine)
    assert len(source.leaves) > 60
    # repr gives every digit, and NaN is NaN
    return record.coefficients, record.covariance, repr(record.statistics), record.ledger


@pytest.mark.parametrize("model", ["poisson", "binomial", "gamma log", "gaussian"])
@pytest.mark.parametrize("options", [{}, {"covariance": "HC1", "weights": "w"}], ids=["plain", "robust and weighted"])
def test_who_does_the_work_and_where_rows_are_kept_changes_no_bit(
    many: dict[str, Path], small: Path, model: str, options: dict[str, Any]
) -> None:
    lake = many[model]
    coefficients, covariance, statistics, ledger = outcome(lake, model, Engine(1, None, 1), "memory", **options)
    data = pq.read_table(lake).to_pandas().dropna()
    assert ledger.used == len(data)
    assert ledger.read == 20_003
    for threads, leaves_per_task, keep in [
        (2, 1, "memory"),
        (1, 4, "memory"),
        (2, 4, "disk"),
        (1, 64, "reread"),
        (2, 64, "disk"),
        (2, None, "reread"),
        (3, None, "memory"),
    ]:
        other = outcome(lake, model, Engine(threads, None, leaves_per_task), keep, **options)
        assert coefficients.tobytes() == other[0].tobytes(), (threads, leaves_per_task, keep)
        assert covariance.tobytes() == other[1].tobytes(), (threads, leaves_per_task, keep)
        assert (statistics, ledger) == other[2:]
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("model", ["poisson", "binomial", "gamma log", "gaussian"])
def test_a_pilot_on_many_small_leaves_leads_to_the_same_optimum(many: dict[str, Path], small: Path, model: str) -> None:
    coefficients, covariance, _, _ = outcome(many[model], model, Engine(2), "memory", tol=1e-20)
    # one leaf in memory, and no pilot
    fitting.PILOT_ROWS = 10**9
    whole = dg.glm("y ~ x + log(z) + s + s:x", pq.read_table(many[model]), **MODELS[model])
    np.testing.assert_allclose(coefficients, whole.params, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), whole.bse, rtol=ERRORS)


@pytest.mark.parametrize("model", ["poisson", "binomial"])
def test_leaves_without_a_level_or_without_any_spread(small: Path, tmp_path: Path, model: str) -> None:
    data = frame(model, 2_000).sort_values(["s", "z"]).assign(constant=1.0)
    pq.write_table(pa.Table.from_pandas(data, preserve_index=False), tmp_path / "sorted.parquet", row_group_size=20)
    with pytest.warns(AliasWarning, match="constant"):
        fit = glm(tmp_path / "sorted.parquet", model, "y ~ x + z + s + constant", tol=1e-20)
    fitting.PILOT_ROWS = 10**9
    whole = glm(data, model)
    np.testing.assert_allclose(fit.params.dropna(), whole.params, rtol=ROUNDING, atol=ROUNDING)
