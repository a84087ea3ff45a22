"""What a fit of classes owes nothing to, and what it owes to a binomial one: the laws of tests/laws/test_invariances.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import special

import daskglm as dg
from daskglm import estimation as fitting
from daskglm.cluster import lakes, machine
from daskglm.cluster.engine import Engine
from daskglm.cluster.sources import open_source
from daskglm.errors import AliasWarning
from daskglm.fit import run
from daskglm.plan import make_plan

Vector = npt.NDArray[np.float64]

# Sums of the same terms in another order; both fits are at their optimum to the last digits.
ROUNDING = 1e-9
# Standard errors come from the inverse of a Gram matrix of condition about 100.
ERRORS = 1e-8
# After columns of mean 1e3 times their spread were shifted: three digits are gone.
SHIFTED = 1e-6
# Two ways to the same optimum, each with a decrement below 1e-12, in standard errors.
DISTANCE = 1e-6
# Differences of second order with steps of 2^-9 of a log-likelihood of about 1 000.
SLOPES, CURVATURES = 1e-4, 1e-5

N = 900
LEVELS = ["first", "then", "third", "zuletzt"]
MODELS: dict[str, dict[str, Any]] = {
    "multinomial": {"family": "multinomial"},
    "logit": {"family": "ordinal"},
    "probit": {"family": "ordinal", "link": "probit"},
    "cloglog": {"family": "ordinal", "link": "cloglog"},
    "loglog": {"family": "ordinal", "link": "loglog"},
    "cauchit": {"family": "ordinal", "link": "cauchit"},
}
FORMULA = "y ~ x + z + s"
ONE_OF_EACH = ["multinomial", "logit", "cloglog"]


def frame(n: int = N, seed: int = 0, classes: int = 4) -> pd.DataFrame:
    """Rows with classes that follow x and s, and not too closely."""
    generator = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": generator.normal(size=n),
            "z": generator.uniform(0.5, 2.0, n),
            "s": generator.choice(["a", "b", "c", "d"], n, p=[0.4, 0.3, 0.2, 0.1]),
            "f": generator.integers(0, 4, n),
            "w": generator.uniform(0.5, 3.0, n),
            "o": generator.uniform(-0.2, 0.2, n),
        }
    )
    hidden = 0.8 * data.x + 0.3 * data.z + 0.5 * (data.s == "b") + generator.logistic(size=n)
    cut = np.searchsorted(np.quantile(hidden, np.arange(1, classes) / classes), hidden)
    return data.assign(y=np.array(LEVELS[:classes])[cut])


def glm(data: Any, model: str, formula: str = FORMULA, **options: Any) -> dg.Fit:
    return dg.glm(formula, data, **{**MODELS[model], **options})


def flat(values: Any) -> Vector:
    """Of a Series its values; of a multinomial's table column after column."""
    return np.asarray(values, float).T.ravel()


def same(one: dg.Fit, other: dg.Fit, rtol: float = ROUNDING, errors: float = ERRORS) -> None:
    assert one.record.names == other.record.names
    np.testing.assert_allclose(one.params, other.params, rtol=rtol, atol=rtol)
    largest = np.nanmax(flat(one.bse)) ** 2
    np.testing.assert_allclose(one.cov_params(), other.cov_params(), rtol=errors, atol=errors * largest)
    for name in (
        "deviance",
        "null_deviance",
        "llf",
        "aic",
        "bic",
        "scale",
        "nobs",
        "df_resid",
        "df_null",
        "pearson_chi2",
    ):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=errors, nan_ok=True), name


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_rows_does_not_matter(model: str) -> None:
    data = frame()
    same(glm(data, model), glm(data.sample(frac=1.0, random_state=3), model))


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_which_files_rows_are_in_does_not_matter(tmp_path: Path, model: str) -> None:
    """Even where a file has not all of the classes, or one only."""
    data = frame().sort_values("y", kind="stable")
    table = pa.Table.from_pandas(data, preserve_index=False)
    cuts = [0, 0, 5, 400, 400, 401, N]
    pq.write_table(table, tmp_path / "whole.parquet")
    (tmp_path / "lake").mkdir()
    for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
        pq.write_table(table.slice(start, stop - start), tmp_path / "lake" / f"{i}.parquet", row_group_size=150)
    same(glm(tmp_path / "whole.parquet", model), glm(tmp_path / "lake", model))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("covariance", ["model", "observed", "HC1"])
def test_a_frequency_is_that_many_rows(model: str, covariance: str) -> None:
    data = frame()
    weighted = glm(data, model, weights=dg.Frequency("f"), covariance=covariance)
    assert weighted.nobs == data.f.sum()
    same(weighted, glm(data.loc[data.index.repeat(data.f)], model, covariance=covariance))


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_the_unit_of_weights(model: str) -> None:
    """Seven times the weight is seven times the information; for sampling weights it means nothing."""
    data = frame().assign(w7=lambda d: 7.0 * d.w)
    one, other = glm(data, model, weights="w"), glm(data, model, weights=dg.Variance("w7"))
    np.testing.assert_allclose(one.params, other.params, rtol=ROUNDING)
    np.testing.assert_allclose(one.bse, other.bse * np.sqrt(7.0), rtol=ERRORS)
    assert other.deviance == pytest.approx(7.0 * one.deviance, rel=ERRORS)
    one, other = (glm(data, model, weights=dg.Probability(name)) for name in ("w", "w7"))
    np.testing.assert_allclose(one.params, other.params, rtol=ROUNDING)
    np.testing.assert_allclose(one.bse, other.bse, rtol=ERRORS)


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_a_weight_of_zero_is_no_row(model: str) -> None:
    data = frame().assign(w=lambda d: np.where(d.x > 0.5, 0.0, d.w))
    same(glm(data, model, weights="w"), glm(data[data.x <= 0.5], model, weights="w"))


@pytest.mark.parametrize("model", ONE_OF_EACH)
@pytest.mark.parametrize("scale, shift", [(1e6, 0.0), (-3.0, 0.0), (2.0, 1_000.0)])
def test_units_of_a_column_change_its_coefficients_and_the_constants_alone(
    model: str, scale: float, shift: float
) -> None:
    data = frame()
    one, other = glm(data, model), glm(data.assign(x=scale * data.x + shift), model)
    expected = one.params.copy()
    expected.loc["x"] = expected.loc["x"] / scale
    if model == "multinomial":
        expected.loc["Intercept"] -= expected.loc["x"] * shift
    else:
        # thresholds stand on the other side
        expected[expected.index.str.contains("|", regex=False)] += expected["x"] * shift
    tolerance = SHIFTED if shift else ROUNDING
    np.testing.assert_allclose(other.params, expected, rtol=tolerance, atol=tolerance)
    slopes = ["x", "z", "s[T.b]"]
    factor = np.array([1.0 / abs(scale), 1.0, 1.0])
    found, errors = np.asarray(other.bse.loc[slopes]), np.asarray(one.bse.loc[slopes])
    np.testing.assert_allclose(found.T, errors.T * factor, rtol=tolerance)
    assert other.deviance == pytest.approx(one.deviance, rel=ERRORS)


@pytest.mark.parametrize("model", [model for model in MODELS if model != "multinomial"])
def test_a_shift_of_the_offset_is_taken_up_by_the_thresholds(model: str) -> None:
    data = frame().assign(shifted=lambda d: d.o + 0.37)
    one, other = glm(data, model, offset="o"), glm(data, model, offset="shifted")
    moved = one.params.copy()
    moved[moved.index.str.contains("|", regex=False)] += 0.37
    np.testing.assert_allclose(other.params, moved, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(other.bse, one.bse, rtol=ERRORS)
    assert other.deviance == pytest.approx(one.deviance, rel=ERRORS)
    assert other.null_deviance == pytest.approx(one.null_deviance, rel=ERRORS)


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_another_baseline_of_a_factor_is_the_same_model(model: str) -> None:
    data = frame()
    one, other = glm(data, model), glm(data, model, "y ~ x + z + C(s, Treatment('c'))")
    for level in "abd":
        before = one.params.loc[f"s[T.{level}]"] if level != "a" else 0.0
        found = other.params.loc[f"C(s, Treatment('c'))[T.{level}]"]
        np.testing.assert_allclose(found, before - one.params.loc["s[T.c]"], rtol=1e-8, atol=1e-9)
    assert other.llf == pytest.approx(one.llf, rel=ERRORS)


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_aliased_columns_are_set_aside_in_every_predictor(model: str) -> None:
    data = frame().assign(twice=lambda d: 2.0 * d.x - d.z)
    with pytest.warns(AliasWarning, match="twice"):
        fit = glm(data, model, "y ~ x + z + s + twice")
    whole = glm(data, model)
    assert np.isnan(fit.params.loc["twice"]).all()
    assert len(fit.aliased) == (3 if model == "multinomial" else 1)
    np.testing.assert_allclose(fit.params.drop("twice"), whole.params, rtol=ROUNDING, atol=ROUNDING)
    assert fit.df_resid == whole.df_resid


# -- what they have in common with a binomial model --------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"weights": "w"}, {"weights": dg.Frequency("f"), "covariance": "HC1"}])
def test_a_multinomial_of_two_classes_is_binomial(options: dict[str, Any]) -> None:
    data = frame(classes=2)
    one, other = glm(data, "multinomial", **options), dg.glm(FORMULA, data, family="binomial", **options)
    np.testing.assert_allclose(one.params["then"], other.params, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(one.cov_params(), other.cov_params(), rtol=ERRORS, atol=ERRORS * other.bse.max() ** 2)
    for name in ("deviance", "null_deviance", "nobs", "df_resid", "df_null", "llf", "aic", "bic"):
        # fractions of an observation have no binomial likelihood
        if name not in ("llf", "aic", "bic") or "w" not in options.values():
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=ERRORS), name


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_an_ordinal_model_of_two_classes_is_binomial_of_the_lower(link: str) -> None:
    data = frame(classes=2).assign(lower=lambda d: (d.y == "first") * 1.0)
    one = glm(data, link, covariance="observed")
    other = dg.glm("lower ~ x + z + s", data, family="binomial", link=link, covariance="observed")
    np.testing.assert_allclose(one.params.iloc[:-1], -other.params.iloc[1:], rtol=ROUNDING, atol=ROUNDING)
    assert one.params["first|then"] == pytest.approx(other.params["Intercept"], rel=ROUNDING)
    np.testing.assert_allclose(one.bse.iloc[:-1], other.bse.iloc[1:], rtol=ERRORS)
    assert one.bse["first|then"] == pytest.approx(other.bse["Intercept"], rel=ERRORS)
    for name in ("deviance", "null_deviance", "llf", "aic", "nobs", "df_resid", "df_null"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=ERRORS), name


def test_classes_of_a_multinomial_can_be_relabelled() -> None:
    """Against another reference, coefficients are differences; whatever does not name a class stays as it is."""
    data = frame()
    one = glm(data, "multinomial")
    order = ["third", "first", "zuletzt", "then"]
    other = glm(data, "multinomial", family=dg.families.Multinomial(levels=order))
    before = one.params.assign(first=0.0)
    for label in order[1:]:
        np.testing.assert_allclose(other.params[label], before[label] - before["third"], rtol=ERRORS, atol=ROUNDING)
    new = frame(50, 1)
    np.testing.assert_allclose(other.predict(new)[LEVELS], one.predict(new)[LEVELS], rtol=ERRORS)
    for name in ("deviance", "null_deviance", "llf", "aic", "pearson_chi2", "df_resid"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=ERRORS), name


@pytest.mark.parametrize(
    "link, mirrored",
    [("logit", "logit"), ("probit", "probit"), ("cauchit", "cauchit"), ("cloglog", "loglog"), ("loglog", "cloglog")],
)
def test_classes_in_reverse_change_all_signs(link: str, mirrored: str) -> None:
    data = frame()
    one = glm(data, link)
    other = glm(data, mirrored, family=dg.families.Ordinal(levels=LEVELS[::-1]))
    slopes, q = [name for name in one.params.index if "|" not in name], 3
    np.testing.assert_allclose(other.params[slopes], -one.params[slopes], rtol=ERRORS, atol=ROUNDING)
    np.testing.assert_allclose(other.params.iloc[-q:], -one.params.iloc[-q:][::-1], rtol=ERRORS)
    np.testing.assert_allclose(other.bse[slopes], one.bse[slopes], rtol=ERRORS)
    assert other.llf == pytest.approx(one.llf, rel=ERRORS)


# -- the likelihood written down a second time -------------------------------------------------------------------------


def log_likelihood(model: str, data: pd.DataFrame) -> Callable[[Vector], float]:
    """Of the reported parameters, from dummies and scipy's distribution functions."""
    s = np.column_stack([data.s == level for level in "bcd"]).astype(float)
    x = np.column_stack([data.x, data.z, s])
    y = np.array([LEVELS.index(label) for label in data.y])
    rows = np.arange(len(y))
    if model == "multinomial":
        full = np.column_stack([np.ones(len(y)), x])

        def multinomial(params: Vector) -> float:
            eta = np.column_stack([np.zeros(len(y)), full @ params.reshape(3, -1).T])
            return float(np.sum(eta[rows, y] - special.logsumexp(eta, axis=1)))

        return multinomial
    below = {
        "logit": special.expit,
        "probit": special.ndtr,
        "cloglog": lambda t: -np.expm1(-np.exp(t)),
        "loglog": lambda t: np.exp(-np.exp(-t)),
        "cauchit": lambda t: 0.5 + np.arctan(t) / np.pi,
    }[model]

    def cumulative(params: Vector) -> float:
        at = params[-3:] - (x @ params[:-3])[:, None]
        edges = np.hstack([np.zeros((len(y), 1)), below(at), np.ones((len(y), 1))])
        return float(np.sum(np.log(np.diff(edges, axis=1)[rows, y])))

    return cumulative


@pytest.mark.parametrize("model", MODELS)
def test_the_optimum_and_its_errors_are_those_of_the_likelihood(model: str) -> None:
    """No slope at the estimate; errors from its curvature, by differences."""
    data = frame(400)
    fit = glm(data, model, covariance="observed")
    value, params = log_likelihood(model, data), flat(fit.params)
    assert fit.llf == pytest.approx(value(params), rel=ROUNDING)
    assert fit.deviance == pytest.approx(-2.0 * value(params), rel=ROUNDING)
    steps = np.diag(2.0**-9 * flat(fit.bse))
    # log-likelihoods a 512th of an error apart, where curvatures matter by 1e-6 of one
    slopes = np.array([(value(params + h) - value(params - h)) / 2 for h in steps]) / 2.0**-9
    assert np.all(np.abs(slopes) <= SLOPES)
    unit = np.diag(0.02 * flat(fit.bse))
    hessian = np.empty((params.size, params.size))
    for j, k in itertools.combinations_with_replacement(range(params.size), 2):
        found = 0.0
        # the second difference at two steps, their errors of second order taken out
        for size, weight in ((1.0, 4.0 / 3.0), (2.0, -1.0 / 3.0)):
            a, b = size * unit[j], size * unit[k]
            corners = [value(params + i * a + l * b) * i * l for i in (-1, 1) for l in (-1, 1)]
            found += weight * sum(corners) / (4.0 * size * size)
        hessian[j, k] = hessian[k, j] = -found / (unit[j, j] * unit[k, k])
    scale = np.sqrt(np.diag(fit.cov_params()))
    standardised = hessian * np.outer(scale, scale)
    product = standardised @ (fit.cov_params().to_numpy() / np.outer(scale, scale))
    assert np.allclose(product, np.eye(params.size), rtol=0, atol=CURVATURES)


@pytest.mark.parametrize("weights", [None, "w"])
def test_robust_errors_are_those_of_the_scores(weights: str | None) -> None:
    """sum w^2 s s' between inverses of the information, with HC1's n / (n - k); scores (1[y = k] - mu_k) x."""
    data = frame(400)
    fit = glm(data, "multinomial", covariance="HC1", weights=weights)
    w = np.ones(400) if weights is None else data.w.to_numpy()
    s = np.column_stack([data.s == level for level in "bcd"]).astype(float)
    x = np.column_stack([np.ones(400), data.x, data.z, s])
    mu = fit.predict(data).to_numpy()[:, 1:]
    seen = data.y.to_numpy()[:, None] == np.array(LEVELS[1:])
    scores = ((seen - mu)[:, :, None] * x[:, None, :]).reshape(400, -1)
    curvature = np.einsum("nk,kl->nkl", mu, np.eye(3)) - np.einsum("nk,nl->nkl", mu, mu)
    information = np.einsum("n,nkl,ni,nj->kilj", w, curvature, x, x).reshape(18, 18)
    bread = np.linalg.inv(information)
    meat = (scores * (w**2)[:, None]).T @ scores
    covariance = 400 / (400 - 18) * bread @ meat @ bread
    np.testing.assert_allclose(fit.cov_params(), covariance, rtol=1e-7, atol=1e-9 * covariance.max())


@pytest.mark.parametrize("model", ["multinomial", "logit", "cauchit"])
@pytest.mark.parametrize("options", [{}, {"weights": "w"}])
def test_the_null_deviance_is_that_of_the_constants_alone(model: str, options: dict[str, Any]) -> None:
    data = frame()
    fit, alone = glm(data, model, **options), glm(data, model, "y ~ 1", **options)
    assert fit.null_deviance == pytest.approx(alone.deviance, rel=ERRORS)
    assert alone.null_deviance == pytest.approx(alone.deviance, rel=ERRORS)
    assert fit.df_null == alone.df_resid
    # the fitted chances are the shares
    weight = data.groupby("y").w.sum() if options else data.y.value_counts().sort_index()
    np.testing.assert_allclose(alone.predict(data.head(1)).iloc[0], weight / weight.sum(), rtol=ERRORS)


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every row group a leaf, pilots from a thousand rows on, and a folder for what is kept on disk."""
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1_000)
    monkeypatch.setattr(machine, "on_memory", lambda path: False)
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))
    return tmp_path


def outcome(lake: Path, model: str, engine: Engine, keep: str, **options: Any) -> tuple[bytes, bytes, str]:
    plan = make_plan("y ~ x + log(z) + s + s:x", {**MODELS[model], "keep": keep, **options})
    record = run(plan, open_source(lake), engine)
    return record.coefficients.tobytes(), record.covariance.tobytes(), repr((record.statistics, record.ledger))


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_who_does_the_work_and_a_pilot_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, small: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit for any number of threads and any place of the rows; to the optimum's digits without the pilot."""
    lake = tmp_path_factory.mktemp("lake")
    data = frame(6_000, 4)
    data.loc[900:1_100, "x"] = np.nan
    table = pa.Table.from_pandas(data, preserve_index=False)
    for i, start in enumerate(range(0, 6_000, 2_000)):
        pq.write_table(table.slice(start, 2_000), lake / f"{i}.parquet", row_group_size=157)
    pq.write_table(table.slice(0, 3), lake / "few.parquet")
    options = {"weights": "w", "covariance": "HC1", "tol": 1e-18}
    expected = outcome(lake, model, Engine(1, None, 1), "memory", **options)
    for threads, leaves_per_task, keep in [(2, 1, "memory"), (2, 4, "disk"), (1, 64, "reread"), (3, None, "memory")]:
        assert outcome(lake, model, Engine(threads, None, leaves_per_task), keep, **options) == expected
    assert list(small.iterdir()) == []
    monkeypatch.setattr(fitting, "PILOT_ROWS", 10**9)
    whole = dg.glm("y ~ x + log(z) + s + s:x", pq.read_table(lake), **{**MODELS[model], **options})
    distance = (np.frombuffer(expected[0]) - whole.record.coefficients) / flat(whole.bse)
    assert np.max(np.abs(distance)) < DISTANCE
