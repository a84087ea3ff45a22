"""What a certificate says of a fit: never more digits than there are, whatever the columns; and where it is said."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import daskglm as dg
from daskglm.cli import main
from daskglm.cluster.engine import Engine
from daskglm.cluster.sources import open_source
from daskglm.fit import run
from daskglm.plan import make_plan
from daskglm.record import Certificate
from tests.laws.digits import FAMILIES, Trial, digits, trial, truth

# Of designs with columns that agree in six digits, the least that is left of any coefficient, and of any error.
LEAST, LEAST_OF_ERRORS = 10.0, 10.0


def fitted(one: Trial) -> Any:
    return dg.glm(one.formula, one.table, **one.options)


@pytest.mark.filterwarnings("ignore::daskglm.errors.AliasWarning")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(12))
def test_it_never_claims_more_digits_than_there_are(family: str, seed: int) -> None:
    one = trial(seed, family)
    exact = truth(one)
    if exact is None:
        pytest.skip("the optimum is infinite")
    fit = fitted(one)
    if fit.aliased:
        pytest.skip("a column is a combination of others")
    found = digits(fit.params.to_numpy(), exact.coefficients)
    errors = digits(fit.bse.to_numpy(), exact.errors)
    assert fit.converged
    assert found >= fit.certificate.digits
    assert errors >= fit.certificate.error_digits
    assert found >= LEAST - 2.0 * (family != "gaussian")
    assert errors >= LEAST_OF_ERRORS


def collinear(n: int = 300, left: float = 1e-6) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    a = 1e6 + rng.normal(size=n)
    frame = pd.DataFrame({"a": a, "b": a + left * rng.normal(size=n), "c": rng.normal(size=n)})
    eta = 0.4 * (a - 1e6) - 0.3 * frame.c
    return frame.assign(y=eta + rng.normal(size=n), z=(rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int))


@pytest.mark.parametrize("response, family", [("y", "gaussian"), ("z", "binomial")])
def test_the_worst_of_plain_normal_equations(response: str, family: str) -> None:
    """Means of a million, and two columns that agree in six digits beyond: the Gram of the columns as they are has none."""
    frame = collinear()
    fit = dg.glm(f"{response} ~ a + b + c", frame, family=family)
    x = np.column_stack([np.ones(300), frame[["a", "b", "c"]]])
    assert np.linalg.cond(x.T @ x) > 1e16
    one = Trial(frame.assign(y=frame[response]), "", {"family": family}, [[*map(_exact, column)] for column in x.T])
    exact = truth(one)
    assert exact is not None
    found = digits(fit.params.to_numpy(), exact.coefficients)
    assert found >= fit.certificate.digits >= 9.0
    assert digits(fit.bse.to_numpy(), exact.errors) >= fit.certificate.error_digits >= 8.0
    assert fit.certificate.residual_columns == ("b",)
    assert fit.certificate.residual_passes >= 1
    assert fit.certificate.twofold_passes >= 2


def _exact(value: float) -> Any:
    from mpmath import mpf

    return mpf(float(value))


@pytest.mark.parametrize("center", [1e3, 1e5, 1e6])
@pytest.mark.parametrize("formula", ["y ~ 0 + x + I(x**2)", "y ~ x + I(x**2)", "y ~ g + x:g", "y ~ x * z"])
@pytest.mark.filterwarnings("ignore::daskglm.errors.AliasWarning")
def test_columns_that_are_computed_or_not_shifted(formula: str, center: float) -> None:
    """Squares and products are rounded as they are computed, which nothing afterwards can mend: the claim knows of it.
    Columns of a factor times a number are not shifted, and mended all the same.
    """
    rng = np.random.default_rng(4)
    x, t = center + rng.normal(size=90), center + rng.normal(size=90)
    frame = pd.DataFrame({"x": x, "z": t, "g": rng.choice(["A", "B"], 90), "y": x - center + rng.normal(size=90)})
    one, numbers, others = [_exact(1.0)] * 90, [_exact(v) for v in x], [_exact(v) for v in t]
    where = [[_exact(g == level) for g in frame.g] for level in "AB"]
    products = [[a * b for a, b in zip(u, numbers, strict=True)] for u in (numbers, *where, others)]
    columns = {
        "y ~ 0 + x + I(x**2)": [numbers, products[0]],
        "y ~ x + I(x**2)": [one, numbers, products[0]],
        "y ~ g + x:g": [one, where[1], products[1], products[2]],
        "y ~ x * z": [one, numbers, others, products[3]],
    }[formula]
    fit = dg.glm(formula, frame)
    if fit.aliased:
        assert center > 1e3
        return
    exact = truth(Trial(frame, formula, {"family": "gaussian"}, columns))
    assert exact is not None
    assert digits(fit.params.to_numpy(), exact.coefficients) >= fit.certificate.digits
    assert digits(fit.bse.to_numpy(), exact.errors) >= fit.certificate.error_digits


def test_shifts_and_scales_of_columns_change_no_slope() -> None:
    """By powers of two and whole numbers, which are exact: to the last bit where every digit is settled."""
    rng = np.random.default_rng(5)
    x = np.round(rng.normal(size=80) * 1024) / 1024
    z = x + np.round(rng.normal(size=80) * 8) / 2**20
    frame = pd.DataFrame({"x": x, "z": z, "y": x + rng.normal(size=80)})
    frame["far"], frame["wide"] = frame.x + 2.0**20, frame.z * 2.0**30
    one = dg.glm("y ~ x + z", frame)
    other = dg.glm("y ~ far + wide", frame)
    assert one.certificate.digits == other.certificate.digits == 15.0
    assert other.params["far"] == one.params["x"]
    assert other.params["wide"] * 2.0**30 == one.params["z"]
    assert other.bse["far"] == pytest.approx(one.bse["x"], rel=1e-11)


def test_well_conditioned_data_need_no_refinement() -> None:
    rng = np.random.default_rng(6)
    frame = pd.DataFrame({"x": rng.normal(size=500)}).assign(y=lambda rows: 1.0 + rows.x + rng.normal(size=500))
    fit = dg.glm("y ~ x", frame)
    assert fit.certificate.refinements == ()
    assert fit.certificate.digits >= 12.0
    assert fit.certificate.error_digits >= 13.0
    assert fit.n_passes == 2
    assert "none needed" in str(fit.certificate)


def test_a_loose_tolerance_is_what_digits_are_limited_by() -> None:
    rng = np.random.default_rng(7)
    n = 250_000
    frame = pd.DataFrame({"x": rng.normal(size=n), "u": rng.normal(size=n), "v": rng.normal(size=n)})
    frame["y"] = rng.poisson(np.exp(0.3 + 0.4 * frame.x))
    formula = "y ~ x + u + v"
    loose = dg.glm(formula, frame, family="poisson", tol=1.0)
    tight = dg.glm(formula, frame, family="poisson", tol=1e-18)
    assert loose.certificate.twofold_passes == 0
    assert loose.certificate.digits < tight.certificate.digits
    assert digits(loose.params.to_numpy(), tight.params.to_numpy()) >= loose.certificate.digits


@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma", "binomial", "negative_binomial", "ordinal"])
@pytest.mark.parametrize("separation", ["limit", "firth"])
def test_the_default_tolerance_given_explicitly_is_the_same_fit_to_the_bit(family: str, separation: str) -> None:
    if separation == "firth" and family in ("gaussian", "gamma", "ordinal"):
        pytest.skip("no bias reduction of this family")
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"x": rng.normal(size=400), "z": rng.normal(size=400)})
    counts = rng.poisson(np.exp(0.3 + 0.4 * frame.x))
    frame["y"] = {"binomial": counts > 1, "ordinal": np.minimum(counts, 3), "gamma": counts + 0.5}.get(
        family, counts
    ) * 1
    one, other = (dg.glm("y ~ x + z", frame, family=family, separation=separation, tol=tol) for tol in (None, 1e-12))
    assert one.params.to_numpy().tobytes() == other.params.to_numpy().tobytes()
    assert one.bse.to_numpy().tobytes() == other.bse.to_numpy().tobytes()
    assert one.certificate == other.certificate
    assert one.n_passes == other.n_passes
    assert one.certificate.goal == 1e-20
    assert "tolerance 1.0e-12 (the search aimed at 1.0e-20)" in str(one.certificate) or "rounding" in str(
        one.certificate
    )


def test_the_certificate_states_the_goal_that_was_in_force() -> None:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"x": rng.normal(size=400)}).assign(y=lambda d: rng.poisson(np.exp(0.3 + 0.4 * d.x)))
    loose = dg.glm("y ~ x", frame, family="poisson", tol=1e-3).certificate
    assert (loose.tolerance, loose.goal) == (1e-3, 1e-3)
    assert loose.decrement > 1e-20
    assert "aimed" not in str(loose)
    tight = dg.glm("y ~ x", frame, family="poisson", tol=1e-15).certificate
    assert (tight.tolerance, tight.goal) == (1e-15, 1e-20)


@pytest.mark.parametrize("tol", [True, float("nan"), float("inf"), 0.0, "1e-3"])
def test_a_tolerance_is_a_positive_number(tol: Any) -> None:
    with pytest.raises(dg.errors.DesignError, match="tol must be a positive number, not"):
        dg.glm("y ~ x", {"x": [0.0, 1.0], "y": [0.0, 1.0]}, tol=tol)


def test_it_prints_in_a_few_lines() -> None:
    fit = dg.glm("y ~ a + b + c", collinear())
    text = str(fit.certificate)
    assert len(text.splitlines()) == 6
    for part in ("Gradient", "Newton decrement", "Condition", "15 correct digits", "halvings", "residual passes for b"):
        assert part in text
    assert "Estimated accuracy: 15 correct digits of coefficients" in str(fit.summary())


def test_it_is_saved_and_older_files_are_read(tmp_path: Path) -> None:
    fit = dg.glm("y ~ a + b + c", collinear())
    fit.save(tmp_path / "model")
    assert dg.load(tmp_path / "model").certificate == fit.certificate
    place = next((tmp_path / "model" / "runs").iterdir()) / "model.json"
    document = json.loads(place.read_text())
    added = ("digits", "worst", "error_digits", "residual_passes", "twofold_passes")
    for name in added:
        del document["certificate"][name]
    place.write_text(json.dumps(document))
    old = dg.load(tmp_path / "model").certificate
    assert np.isnan(old.digits)
    assert old.accuracy == ""
    assert "unknown" in str(old)
    kept = [field.name for field in fields(Certificate) if field.name not in added]
    assert all(getattr(old, name) == getattr(fit.certificate, name) for name in kept)
    assert "Estimated accuracy" not in str(dg.load(tmp_path / "model").summary())


def test_the_command_line_says_it(tmp_path: Path) -> None:
    collinear().to_parquet(tmp_path / "rows.parquet", index=False)
    arguments = ["fit", "y ~ a + b + c", str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "model"), "--json"]
    result = CliRunner().invoke(main, arguments)
    found = json.loads(result.stdout.splitlines()[-1])["certificate"]
    fit = dg.load(tmp_path / "model")
    assert found["digits"] == fit.certificate.digits == 15.0
    assert found["refinements"] == list(fit.certificate.refinements)
    assert set(found) == {field.name for field in fields(Certificate)} | {"refinements"}
    described = CliRunner().invoke(main, ["summary", str(tmp_path / "model"), "--json"])
    assert json.loads(described.stdout.splitlines()[-1])["certificate"] == found


@pytest.fixture(scope="module")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collinear")
    rows = collinear()
    for k, (start, stop) in enumerate(((0, 50), (50, 180), (180, 181), (181, 300))):
        rows.iloc[start:stop].to_parquet(folder / f"{k}.parquet", index=False)
    return folder


@pytest.mark.parametrize("response, family", [("y", "gaussian"), ("z", "binomial")])
def test_the_same_bits_in_every_engine(client: Any, leaves: Path, response: str, family: str) -> None:
    plan = make_plan(f"{response} ~ a + b + c", {"family": family})
    records = [
        run(plan, open_source(str(leaves)), engine)
        for engine in (Engine(threads=1), Engine(threads=3), Engine(client=client))
    ]
    assert records[0].certificate.twofold_passes >= 2
    for other in records[1:]:
        assert other.coefficients.tobytes() == records[0].coefficients.tobytes()
        assert other.covariance.tobytes() == records[0].covariance.tobytes()
        assert other.certificate == records[0].certificate


def test_a_checkpoint_holds_refinements(leaves: Path, tmp_path: Path) -> None:
    plain = dg.glm("y ~ a + b + c", str(leaves))
    logged = dg.glm("y ~ a + b + c", str(leaves), checkpoint=str(tmp_path / "log"))
    assert logged.params.to_numpy().tobytes() == plain.params.to_numpy().tobytes()
    assert logged.certificate == plain.certificate


def test_several_responses_have_one_each() -> None:
    rng = np.random.default_rng(8)
    frame = collinear().assign(u=lambda rows: rows.a - 1e6 + rng.normal(size=300))
    fits = dg.glm("responses(y, u) ~ a + b + c", frame)
    for name in ("y", "u"):
        alone = dg.glm(f"{name} ~ a + b + c", frame)
        assert fits[name].certificate == alone.certificate
        assert fits[name].params.to_numpy().tobytes() == alone.params.to_numpy().tobytes()


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_classes_have_an_honest_estimate(family: str) -> None:
    """Against a fit that is taken as far as float64 goes, from elsewhere."""
    rng = np.random.default_rng(9)
    frame = pd.DataFrame({"x": 100.0 + rng.normal(size=400), "t": rng.normal(size=400)})
    eta = 0.8 * (frame.x - 100.0) - 0.5 * frame.t + rng.logistic(size=400)
    frame["k"] = pd.cut(eta, [-np.inf, -0.7, 0.6, np.inf], labels=["a", "b", "c"])
    frame["near"] = frame.x - 100.0
    one = dg.glm("k ~ x + t", frame, family=family)
    other = dg.glm("k ~ near + t", frame, family=family)
    slopes = (
        (lambda fit, name: np.ravel(fit.params.loc[name].to_numpy()))
        if family == "multinomial"
        else (lambda fit, name: np.array([fit.params[name]]))
    )
    assert 8.0 <= one.certificate.digits <= digits(slopes(one, "x"), slopes(other, "near"))


def test_an_optimum_that_was_not_reached_claims_little() -> None:
    rng = np.random.default_rng(10)
    frame = pd.DataFrame({"x": rng.normal(size=200)}).assign(y=lambda rows: rng.poisson(np.exp(rows.x)))
    full = dg.glm("y ~ x", frame, family="poisson")
    with pytest.warns(dg.errors.ConvergenceWarning):
        short = dg.glm("y ~ x", frame, family="poisson", max_iter=2)
    assert short.certificate.digits <= digits(short.params.to_numpy(), full.params.to_numpy())
    assert short.certificate.twofold_passes == 0


PERFECT: dict[str, tuple[list[float], list[float]]] = {
    "a line": ([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]),
    "as many rows as columns": ([1.0, 2.0], [1.0, 3.0]),
    "nothing": ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]),
    "a constant": ([1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]),
    "a slope of zero": ([-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]),
    "small numbers": ([1.0, 2.0, 4.0, 7.0], [3e-150, 5e-150, 8e-150, 1e-150]),
}


@pytest.mark.parametrize("name", PERFECT)
def test_fits_without_a_residual_or_without_a_slope(name: str) -> None:
    """Errors of zero, or none, are no crash and no warning; coefficients are right to the last bit or two."""
    x, y = (np.array(values) for values in PERFECT[name])
    fit = dg.glm("y ~ x", {"x": x, "y": y})
    slope, level = np.polyfit(x, y / np.abs(y).max(initial=1e-300), 1) * np.abs(y).max(initial=1e-300)
    assert fit.params.to_numpy() == pytest.approx([level, slope], rel=1e-12, abs=1e-13 * np.abs(y).max(initial=0.0))
    assert fit.certificate.digits >= 0.0
    assert "Estimated accuracy" in str(fit.summary())
    assert np.isnan(fit.certificate.error_digits) == (x.size == 2)
    assert fit.tvalues.shape == fit.pvalues.shape == (2,)
