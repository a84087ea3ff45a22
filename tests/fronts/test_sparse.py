"""scipy.sparse X through the front door: the fit of X.toarray(), and what becomes of its odd rows and columns."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

import daskglm as dg
from daskglm import estimation as fitting
from daskglm.cluster import machine, tables
from daskglm.errors import AliasWarning, DataError, DesignError
from daskglm.fit import Engine, run
from daskglm.plan import make_plan
from tests.matrices import scattered

# Both solve the same well conditioned problem by sums in another order, the one about means and the other not.
SAME = 1e-10
N, P = 1_500, 12

MODELS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "poisson": {"family": "poisson"},
    "poisson sqrt": {"family": "poisson", "link": "sqrt"},
    "binomial": {"family": "binomial"},
    "binomial cloglog": {"family": "binomial", "link": "cloglog"},
    "gamma": {"family": "gamma", "link": "log"},
}


def matrix(n: int = N, p: int = P, seed: int = 0, density: float = 0.25) -> Any:
    rng = np.random.default_rng(seed)
    return scattered((n, p), density, rng)


def response(model: str, x: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    eta = 0.4 + x @ rng.uniform(-0.3, 0.3, x.shape[1])
    family = MODELS[model].get("family", "gaussian")
    if family == "binomial":
        return (rng.random(eta.size) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    if family == "gamma":
        return rng.gamma(2.0, np.exp(eta) / 2.0)
    if family == "poisson":
        return rng.poisson(np.exp(eta)).astype(float)
    return eta + rng.normal(size=eta.size)


def assert_same(one: dg.Fit, other: dg.Fit, rtol: float = SAME) -> None:
    assert list(one.params.index) == list(other.params.index)
    for found, expected in ((one.params, other.params), (one.bse, other.bse)):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    for name in ("deviance", "null_deviance", "llf", "scale", "pearson_chi2", "nobs", "df_resid"):
        found, expected = (getattr(fit.record.statistics, name) for fit in (one, other))
        assert found == pytest.approx(expected, rel=rtol, nan_ok=True)
    assert one.ledger == other.ledger
    assert one.aliased == other.aliased


def aliasing(**arguments: Any) -> tuple[dg.Fit, list[str]]:
    """The fit, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = dg.glm(**arguments)
    assert {warning.category for warning in caught} == {AliasWarning}
    return fit, [str(warning.message) for warning in caught]


# -- the same fit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("covariance", ["model", "observed", "HC0", "HC1"])
def test_the_fit_of_a_sparse_matrix_is_that_of_its_dense_form(model: str, covariance: str) -> None:
    x = matrix()
    y = response(model, x)
    options = {**MODELS[model], "covariance": covariance}
    assert_same(dg.glm(X=x, y=y, **options), dg.glm(X=x.toarray(), y=y, **options))


@pytest.mark.parametrize("model", ["gaussian", "poisson", "binomial", "gamma"])
@pytest.mark.parametrize("weights", [dg.Variance, dg.Frequency, dg.Probability])
def test_weights_and_offset(model: str, weights: Any) -> None:
    x = matrix()
    y = response(model, x)
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 4, N)
    options = {**MODELS[model], "weights": weights(counts), "offset": rng.uniform(-0.3, 0.3, N)}
    assert_same(dg.glm(X=x, y=y, **options), dg.glm(X=x.toarray(), y=y, **options))


def test_exposure_and_trials() -> None:
    x = matrix()
    rng = np.random.default_rng(4)
    exposure = rng.uniform(0.5, 2.0, N)
    y = rng.poisson(exposure).astype(float)
    options: dict[str, Any] = {"family": "poisson", "exposure": exposure}
    assert_same(dg.glm(X=x, y=y, **options), dg.glm(X=x.toarray(), y=y, **options))
    trials = rng.integers(1, 9, N)
    options = {"family": "binomial", "trials": trials}
    y = rng.binomial(trials, 0.4)
    assert_same(dg.glm(X=x, y=y, **options), dg.glm(X=x.toarray(), y=y, **options))


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "dia", "bsr"])
@pytest.mark.parametrize("kind", [sp.csr_array, sp.csr_matrix])
def test_every_format_gives_the_same_bits(form: str, kind: Any) -> None:
    x = kind(matrix(200, 5))
    y = response("poisson", x)
    expected = dg.glm(X=matrix(200, 5), y=y, family="poisson")
    with warnings.catch_warnings():
        # scipy finds so many diagonals inefficient, and is right
        warnings.simplefilter("ignore", sp.SparseEfficiencyWarning)
        found = dg.glm(X=x.asformat(form), y=y, family="poisson")
    assert found.params.equals(expected.params)
    assert found.cov_params().equals(expected.cov_params())


@pytest.mark.parametrize("kind", ["f4", "i1", "i8", "?"])
def test_numbers_of_every_kind(kind: str) -> None:
    x = sp.csr_array((np.random.default_rng(2).random((300, 6)) < 0.3).astype(kind))
    y = response("poisson", x.astype(float))
    assert_same(dg.glm(X=x, y=y, family="poisson"), dg.glm(X=x.toarray().astype(float), y=y, family="poisson"))


def test_explicit_zeros_and_duplicates_count_for_their_sum() -> None:
    x = matrix(400, 5)
    y = response("poisson", x)
    coo = x.tocoo()
    rows = np.concatenate([coo.row, coo.row, [3, 7]])
    columns = np.concatenate([coo.col, coo.col, [0, 4]])
    data = np.concatenate([0.25 * coo.data, 0.75 * coo.data, [0.0, 0.0]])
    twice = sp.coo_array((data, (rows, columns)), shape=x.shape)
    assert_same(dg.glm(X=twice, y=y, family="poisson"), dg.glm(X=x.toarray(), y=y, family="poisson"))
    # in a CSR matrix duplicates may stay as they are: it is fitted all the same, and left as it was
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=400))])
    loose = sp.csr_array((data[order], columns[order], indptr), shape=x.shape)
    assert_same(dg.glm(X=loose, y=y, family="poisson"), dg.glm(X=x.toarray(), y=y, family="poisson"))
    assert loose.nnz == data.size


def test_a_shuffle_of_the_rows_changes_nothing_but_rounding() -> None:
    x = matrix()
    y = response("poisson", x)
    order = np.random.default_rng(5).permutation(N)
    one, other = dg.glm(X=x, y=y, family="poisson"), dg.glm(X=x[order], y=y[order], family="poisson")
    assert_same(one, other)


def test_columns_of_very_different_size() -> None:
    """Scaled to their root mean square, they are as well conditioned as any."""
    x = matrix()
    y = response("poisson", x)
    size = 10.0 ** np.linspace(-150, 140, P)
    plain = dg.glm(X=x, y=y, family="poisson")
    found = dg.glm(X=x @ sp.diags_array(size), y=y, family="poisson")
    np.testing.assert_allclose(found.params.to_numpy()[1:] * size, plain.params.to_numpy()[1:], rtol=SAME)
    np.testing.assert_allclose(found.bse.to_numpy()[1:] * size, plain.bse.to_numpy()[1:], rtol=SAME)


def test_nearly_collinear_columns_keep_their_digits() -> None:
    """A column that is another plus something small, looked at again by its residual."""
    x, small = matrix(600, 4), 2.0**-16
    extra = matrix(600, 1, seed=8)
    near = sp.hstack([x, x[:, [0]] + small * extra], format="csr")
    y = response("gaussian", x)
    found = dg.glm(X=near, y=y)
    # the same model in columns that are not collinear at all
    apart = dg.glm(X=sp.hstack([x, extra], format="csr"), y=y)
    assert found.certificate.residual_columns == ("x4",)
    # what float64 keeps of the small part of the sum
    np.testing.assert_allclose(found.params["x4"] * small, apart.params["x4"], rtol=1e-8)
    np.testing.assert_allclose(found.bse["x4"] * small, apart.bse["x4"], rtol=1e-8)


# -- odd rows and columns ----------------------------------------------------------------------------------------------


def test_empty_rows_and_columns() -> None:
    x = matrix(500, 8).tolil()
    x[100:200] = 0.0
    x[:, [2, 7]] = 0.0
    x = x.tocsr()
    x.eliminate_zeros()
    y = response("poisson", x)
    found, said = aliasing(X=x, y=y, family="poisson", covariance="HC1")
    dense, _ = aliasing(X=x.toarray(), y=y, family="poisson", covariance="HC1")
    assert said == [f"x{j} is not estimated: its column is zero in every row used" for j in (2, 7)]
    assert found.aliased == ("x2", "x7")
    assert_same(found, dense)
    assert np.isnan(found.params[["x2", "x7"]]).all()
    np.testing.assert_allclose(found.predict(x), dense.predict(x.toarray()), rtol=SAME)


def test_a_combination_of_columns_is_named() -> None:
    x = matrix(500, 5)
    both = sp.hstack([x, x[:, [1]] + 2.0 * x[:, [3]]], format="csr")
    y = response("poisson", x)
    with pytest.warns(AliasWarning, match="x5 is not estimated"):
        found = dg.glm(X=both, y=y, family="poisson")
    assert found.record.aliased["x5"] == pytest.approx({"x1": 1.0, "x3": 2.0}, rel=1e-7)
    np.testing.assert_allclose(found.params.dropna(), dg.glm(X=x, y=y, family="poisson").params, rtol=SAME)


def test_indicators_of_every_level_leave_out_the_last() -> None:
    codes = np.random.default_rng(6).integers(0, 5, 400)
    x = sp.csr_array((np.ones(400), (np.arange(400), codes)), shape=(400, 5))
    y = np.random.default_rng(7).poisson(1.0 + codes).astype(float)
    with pytest.warns(AliasWarning, match="x4"):
        found = dg.glm(X=x, y=y, family="poisson")
    means = np.array([y[codes == level].mean() for level in range(5)])
    np.testing.assert_allclose(found.predict(sp.eye_array(5, format="csr")), means, rtol=1e-9)


def test_more_columns_than_rows() -> None:
    x = matrix(20, 60, density=0.5)
    y = np.random.default_rng(9).normal(size=20)
    found, said = aliasing(X=x, y=y)
    assert len(said) == 21
    assert said[-1] == "21 more columns are not estimated: see aliased"
    assert str(found.summary()).count("Not estimated: ") == 21
    assert found.record.statistics.rank == 20
    assert found.aliased == tuple(f"x{j}" for j in range(19, 60))
    np.testing.assert_allclose(found.predict(x), y, rtol=1e-8, atol=1e-8)


def test_rows_that_miss_a_value_are_left_out_and_counted_by_column() -> None:
    x = matrix(500, 6)
    y = response("poisson", x)
    rows = x.tocoo().row
    x.data[[0, 1, 40, 500]] = np.nan
    y[11] = np.nan
    options: dict[str, Any] = {"family": "poisson", "weights": np.r_[0.0, np.ones(499)]}
    found, dense = dg.glm(X=x, y=y, **options), dg.glm(X=x.toarray(), y=y, **options)
    assert_same(found, dense)
    assert found.ledger.missing_rows == len({11, *rows[[0, 1, 40, 500]].tolist()})
    assert sum(found.ledger.missing.values()) == 5
    scores = found.predict(x)
    assert np.flatnonzero(np.isnan(scores)).tolist() == sorted(set(rows[[0, 1, 40, 500]].tolist()))
    np.testing.assert_allclose(scores, dense.predict(x.toarray()), rtol=SAME)


@pytest.mark.parametrize("value, options, message", [
    (np.inf, {}, r'"x3" is inf in 1 row'),
    (-np.inf, {}, r'"x3" is -inf in 1 row'),
    (1e200, {}, r'"x3" is so large'),
    (np.nan, {"missing": "raise"}, r'"x3" is missing in row 17'),
])  # fmt: skip
def test_values_are_refused_as_in_a_dense_matrix(value: float, options: dict[str, Any], message: str) -> None:
    x = matrix(100, 6).tolil()
    x[17, 3] = value
    y = np.ones(100)
    said = []
    for form in (x.tocsr(), x.toarray()):
        with pytest.raises(DataError, match=message) as caught:
            dg.glm(X=form, y=y, **options)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_infinity_is_scored_as_missing() -> None:
    x = matrix(100, 6)
    fit = dg.glm(X=x, y=response("poisson", x), family="poisson")
    x.data[7] = np.inf
    assert np.isnan(fit.predict(x)).sum() == 1


def test_a_filter_takes_rows_of_table_and_matrix_alike() -> None:
    x = matrix()
    y = response("poisson", x)
    keep = y <= 2.0
    found = dg.glm(X=x, y=y, family="poisson", where="y <= 2")
    assert found.params.equals(dg.glm(X=x[keep], y=y[keep], family="poisson").params)
    assert found.ledger.filtered == int((~keep).sum())


@pytest.mark.parametrize("x, message", [
    (sp.csr_array((3, 2), dtype=complex), "real numbers, not complex128"),
    (sp.csr_array((4, 2)), "y has 3 rows, X has 4"),
])  # fmt: skip
def test_matrices_that_cannot_be_fitted_are_refused(x: Any, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        dg.glm(X=x, y=np.ones(3))


def test_no_rows_and_no_columns() -> None:
    with pytest.raises(DataError, match="no rows"):
        dg.glm(X=sp.csr_array((0, 3)), y=np.zeros(0))
    fit = dg.glm(X=sp.csr_array((4, 0)), y=np.arange(4.0))
    assert fit.params.to_dict() == pytest.approx({"Intercept": 1.5})


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["poisson", "binomial", "gaussian"])
@pytest.mark.parametrize("covariance", ["model", "HC1"])
def test_who_does_the_work_and_where_rows_are_kept_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str, covariance: str
) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", 64)
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1_000)
    monkeypatch.setattr(machine, "on_memory", lambda path: False)
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(tmp_path))
    x = matrix(5_000)
    x.data[[5, 900]] = np.nan
    y = response(model, sp.csr_array(np.nan_to_num(x.toarray())))
    extra = {"y": y, "w": np.random.default_rng(1).integers(0, 5, 5_000).astype(float)}

    def outcome(threads: int, leaves_per_task: int | None, keep: str) -> bytes:
        source, _ = tables.from_arrays(x, extra)
        plan = make_plan("y ~ X", {**MODELS[model], "keep": keep, "covariance": covariance, "weights": "w"})
        record = run(plan, source, Engine(threads, None, leaves_per_task))
        assert len(source.leaves) > 70
        numbers = (record.coefficients.tobytes(), record.covariance.tobytes())
        return b"".join(numbers) + repr((record.statistics, record.ledger)).encode()

    first = outcome(1, 1, "memory")
    for work in [(2, 1, "memory"), (1, 4, "disk"), (2, 4, "reread"), (2, None, "disk"), (1, 64, "reread")]:
        assert outcome(*work) == first, work
    assert list(tmp_path.iterdir()) == []


def test_a_pilot_leads_to_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    x = matrix(4_000)
    y = response("poisson", x)
    plain = dg.glm(X=x, y=y, family="poisson")
    monkeypatch.setattr(fitting, "PILOT_ROWS", 1_000)
    assert_same(dg.glm(X=x, y=y, family="poisson", tol=1e-20), plain)


# -- predictions, files, summary ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gaussian", "poisson", "binomial"])
@pytest.mark.parametrize("leaf_rows", [64, 131_072])
def test_predictions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str, leaf_rows: int) -> None:
    monkeypatch.setattr(tables, "LEAF_ROWS", leaf_rows)
    x, new = matrix(), matrix(300, seed=9)
    y = response(model, x)
    sparse, dense = dg.glm(X=x, y=y, **MODELS[model]), dg.glm(X=x.toarray(), y=y, **MODELS[model])
    for kind in ("mean", "link"):
        found = sparse.predict(new, type=kind, se=True, interval="confidence", level=0.9)
        expected = dense.predict(new.toarray(), type=kind, se=True, interval="confidence", level=0.9)
        assert list(found.columns) == [kind, "se", "lower", "upper"]
        np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME)
    assert isinstance(sparse.predict(new), pd.Series)
    np.testing.assert_array_equal(sparse.predict(new.toarray()), sparse.predict(new))
    np.testing.assert_array_equal(sparse.predict(new.tocsc()), sparse.predict(new))
    sparse.save(tmp_path / "model")
    again = dg.load(tmp_path / "model").predict(new, se=True, interval="confidence")
    assert again.equals(sparse.predict(new, se=True, interval="confidence"))


def test_the_matrix_is_one_term() -> None:
    x = matrix()
    fit = dg.glm(X=x, y=response("poisson", x), family="poisson")
    terms = fit.predict(x, type="terms")
    assert list(terms.columns) == ["X"]
    np.testing.assert_allclose(terms["X"] + fit.params["Intercept"], fit.predict(x, type="link"), atol=SAME)
    without = fit.predict(x, without="X")
    np.testing.assert_allclose(without, np.exp(fit.params["Intercept"]), rtol=SAME)


def test_offsets_beside_an_array() -> None:
    x = matrix()
    y = response("poisson", x)
    offset = np.random.default_rng(0).uniform(-1.0, 1.0, N)
    fit = dg.glm(X=x, y=y, family="poisson", offset=offset)
    rate = fit.predict(x, offset=0)
    np.testing.assert_allclose(fit.predict(x, offset=offset), rate * np.exp(offset), rtol=1e-12)
    dense = dg.glm(X=x.toarray(), y=y, family="poisson", offset=offset)
    np.testing.assert_allclose(dense.predict(x.toarray(), offset=pd.Series(offset)), rate * np.exp(offset), rtol=SAME)
    with pytest.raises(DesignError, match=r'fitted with offset=: give offset= .* column "offset"'):
        fit.predict(x)
    with pytest.raises(DesignError, match=r"offset= has shape \(3,\), X has 1500 rows"):
        fit.predict(x, offset=np.zeros(3))


def test_data_that_do_not_fit_the_model_are_refused() -> None:
    x = matrix(100, 4)
    y = response("poisson", x)
    sparse, dense = dg.glm(X=x, y=y, family="poisson"), dg.glm(X=x.toarray(), y=y, family="poisson")
    with pytest.raises(DesignError, match=r"needs 4 columns, X has 3"):
        sparse.predict(x[:, :3])
    with pytest.raises(DesignError, match=r"pass X.toarray\(\)"):
        dense.predict(x)
    with pytest.raises(DesignError, match='no column "X"'):
        sparse.predict(pd.DataFrame(x.toarray(), columns=[f"x{j}" for j in range(4)]))
    with pytest.raises(DesignError, match='"X" was matrix when the model was fitted and is numeric now'):
        sparse.predict(pd.DataFrame({"X": [1.0]}))


def test_what_is_printed_and_saved_is_short(tmp_path: Path) -> None:
    x = matrix(3_000, 500, density=0.05)
    y = np.random.default_rng(1).poisson(1.0, 3_000).astype(float)
    fit = dg.glm(X=x, y=y, family="poisson")
    assert fit.formula == "y ~ X"
    text = str(fit.summary())
    assert "y ~ X" in text
    assert "x0 " in text
    assert "and 101 more" in text
    fit.save(tmp_path / "model")
    (document,) = (tmp_path / "model").glob("runs/*/model.json")
    design = json.loads(document.read_text())["design"]
    assert design["terms"] == ["Intercept", "X"]
    assert len(design["pieces"]) == 1
    assert dg.load(tmp_path / "model").params.equals(fit.params)


def test_a_start_by_name() -> None:
    x = matrix()
    y = response("poisson", x)
    plain = dg.glm(X=x, y=y, family="poisson")
    again = dg.glm(X=x, y=y, family="poisson", start=plain.params)
    assert again.n_iter <= 1
    np.testing.assert_allclose(again.params, plain.params, rtol=SAME)


def test_a_hypothesis_about_columns() -> None:
    x = matrix()
    y = response("poisson", x)
    found = dg.glm(X=x, y=y, family="poisson").wald_test("x0 = x1, x3 = 0")
    expected = dg.glm(X=x.toarray(), y=y, family="poisson").wald_test("x0 = x1, x3 = 0")
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9)
