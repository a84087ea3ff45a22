"""No certificate claims more digits than there are, whatever the covariance; and forms in it keep theirs.

Designs from well-posed to columns that differ by a millionth of their spread, at 10^8 from zero, against sixty digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from mpmath import mp, mpf

import daskglm as dg
from daskglm.kernels.blocks import Block
from daskglm.kernels.resampling import Draws
from daskglm.postestimation.bootstrap import identities
from daskglm.postestimation.revisit import Rows
from tests.laws.digits import digits
from tests.laws.exact_errors import (
    FAMILIES,
    Exact,
    covariances,
    errors,
    exact,
    options,
    table,
)

# (difference of two columns in their standard deviations, mean of both in the same).
DESIGNS = [(1.0, 0.0), (1.0, 1e8), (1e-3, 1e6), (1e-6, 0.0), (1e-6, 1e8)]
# Digits that are left of every standard error: R's sandwich keeps 4 of those of columns that agree in six digits.
LEAST_OF_ERRORS = 9.0
# And claimed, by bounds that cannot know how much of the roundings cancels.
LEAST_CLAIMED = 8.5
# Of leverages, which R has to 9 there, and of errors of predictions and marginal means.
LEAST_OF_FORMS = 10.0
FORMULA = "a + b + c + g"


def close(found: Any, expected: npt.NDArray[np.float64]) -> float:
    """Digits of the worst entry; NaN where there is none."""
    values = np.asarray(found, np.float64)
    there = ~np.isnan(expected)
    assert np.array_equal(np.isnan(values), ~there)
    return digits(values[there], expected[there])


@pytest.fixture(scope="module", params=[(f, *d) for f in FAMILIES for d in DESIGNS], ids=str)
def case(request: Any) -> tuple[str, pd.DataFrame, Exact]:
    family, apart, center = request.param
    frame = table(1, apart, center)
    truth = exact(frame, family)
    assert truth is not None
    return family, frame, truth


def fitted(family: str, frame: pd.DataFrame, **more: Any) -> Any:
    fit = dg.glm(f"{family} ~ {FORMULA}", frame, **options(family), **more)
    assert fit.converged
    assert not fit.aliased
    return fit


def test_every_covariance(case: tuple[str, pd.DataFrame, Exact]) -> None:
    family, frame, truth = case
    plain = fitted(family, frame)
    assert close(plain.params, np.array([float(b) for b in truth.beta])) >= plain.certificate.digits
    for name, (asked, kind, clusters) in covariances(frame).items():
        expected = errors(truth.covariance(kind, clusters))
        fit = fitted(family, frame, covariance=asked)
        found = close(fit.bse, expected)
        assert found >= fit.certificate.error_digits, name
        # what several ways of clustering leave of each other has fewer
        if name != "two clusters":
            assert found >= LEAST_OF_ERRORS, name
            assert fit.certificate.error_digits >= LEAST_CLAIMED, name
        with np.errstate(invalid="ignore"):
            again = np.sqrt(np.diag(plain.cov_params(asked, frame)))
        assert close(again, expected) >= min(found, fit.certificate.error_digits), name


def test_probability_weights(case: tuple[str, pd.DataFrame, Exact]) -> None:
    family, frame, _ = case
    weights = np.random.default_rng(5).uniform(0.5, 20.0, len(frame))
    truth = exact(frame, family, weights)
    assert truth is not None
    fit = fitted(family, frame.assign(w=weights), weights=dg.Probability("w"))
    found = close(fit.bse, errors(truth.covariance("probability")))
    assert found >= max(fit.certificate.error_digits, LEAST_OF_ERRORS)
    assert fit.certificate.error_digits >= LEAST_CLAIMED


def test_leverages_and_errors_of_predictions(case: tuple[str, pd.DataFrame, Exact]) -> None:
    family, frame, truth = case
    leverage = np.array([float(h) for h in truth.leverages])
    covariance = truth.covariance("model")
    spread = np.array([float(mp.sqrt(truth.form(row, covariance))) for row in truth.rows])
    fit = fitted(family, frame)
    robust = fitted(family, frame, covariance="HC0")
    for one in (fit, robust):
        found = one.influence(frame)["leverage"]
        assert close(found, leverage) >= LEAST_OF_FORMS
        assert found.sum() == pytest.approx(6.0, abs=1e-9)
    assert close(fit.predict(frame, "link", se=True)["se"], spread) >= LEAST_OF_FORMS
    middle = truth.covariance("HC0")
    robust_spread = np.array([float(mp.sqrt(truth.form(row, middle))) for row in truth.rows])
    assert close(robust.predict(frame, "link", se=True)["se"], robust_spread) >= LEAST_OF_FORMS


def test_errors_of_marginal_means_and_hypotheses(case: tuple[str, pd.DataFrame, Exact]) -> None:
    family, frame, truth = case
    at = {"a": float(frame.a[0]), "b": float(frame.b[0]), "c": 0.001}
    shared = [mpf(1), *(mpf(value) for value in at.values())]
    rows = [[*shared, mpf(int(level == "B")), mpf(int(level == "C"))] for level in "ABC"]
    covariance = truth.covariance("model")
    spread = np.array([float(mp.sqrt(truth.form(row, covariance))) for row in rows])
    fit = fitted(family, frame)
    assert close(fit.emmeans("g", at=at).table["se"], spread) >= LEAST_OF_FORMS
    # the linear predictor of the first row as a hypothesis
    eta = mp.fdot(truth.rows[0], truth.beta)
    expected = float(eta * eta / truth.form(truth.rows[0], covariance))
    tested = fit.wald_test(np.array([[float(value) for value in truth.rows[0]]]))
    assert digits(np.array([tested.statistic]), np.array([expected])) >= LEAST_OF_FORMS - 2.0


def test_a_saved_model_keeps_the_digits(case: tuple[str, pd.DataFrame, Exact], tmp_path: Any) -> None:
    family, frame, _ = case
    fit = fitted(family, frame)
    fit.save(tmp_path / "model")
    loaded = dg.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(frame, se=True), fit.predict(frame, se=True), check_exact=True)
    pd.testing.assert_frame_equal(loaded.influence(frame), fit.influence(frame), check_exact=True)


def _rao(frame: pd.DataFrame) -> float:
    """U^2 / (I_cc - I_cb I_bb^-1 I_bc) of c, at the fit without it."""
    without = exact(frame.assign(c=0.0), "poisson", columns=(0, 1, 2, 4, 5))
    assert without is not None
    c = [mpf(float(value)) for value in frame.c]
    cross = mp.matrix(
        [
            mp.fsum(w * x * v for w, x, v in zip(without.weight, column, c, strict=True))
            for column in zip(*without.rows, strict=True)
        ]
    )
    left = mp.fsum(w * v * v for w, v in zip(without.weight, c, strict=True)) - (cross.T * without.inverse * cross)[0]
    return float(mp.fdot(without.score, c) ** 2 / left)


@pytest.mark.parametrize("apart, center", DESIGNS)
def test_score_tests_and_the_one_step_bootstrap(apart: float, center: float) -> None:
    """Rao's statistic of c and the covariance that one-step replicates tend to, by the same arithmetic in sixty digits."""
    frame = table(2, apart, center)
    frame["row"] = np.arange(len(frame))
    truth = exact(frame, "poisson")
    assert truth is not None
    fit = dg.glm("poisson ~ a + b + g", frame, family="poisson")
    found = fit.score_test("c", frame)
    assert found.stat.iloc[0] == pytest.approx(_rao(frame), rel=1e-8)
    replicates = dg.glm(f"poisson ~ {FORMULA}", frame, family="poisson").bootstrap(
        frame, replicates=4, seed=3, key="row"
    )
    moved = (replicates.params - replicates.estimate).to_numpy()
    index = np.arange(len(frame))
    block = Block(len(frame), (), (), np.zeros(len(frame)))
    keys = identities(Rows(block, {"row": index}, "", index, len(frame), "", index), ("row",))
    weights = Draws(keys, None, 3, 4).weights(0, len(frame)).T
    for step, drawn in zip(moved, weights, strict=True):
        score = [mpf(int(k)) * s for k, s in zip(drawn, truth.score, strict=True)]
        gradient = mp.matrix([mp.fdot(column, score) for column in zip(*truth.rows, strict=True)])
        expected = np.array([float(v) for v in truth.inverse * gradient])
        assert np.abs(step - expected).max() < 1e-8 * np.abs(expected).max()


@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
@pytest.mark.parametrize("apart, center", [(1.0, 1e8), (1e-2, 1e3), (1e-4, 1e6), (1e-5, 0.0)])
def test_two_classes_are_a_binomial_response(family: str, apart: float, center: float) -> None:
    """Columns of several predictors are not replaced by their residuals: fewer digits are left, and fewer are claimed."""
    frame = table(1, apart, center)
    truth = exact(frame, "binomial")
    assert truth is not None
    frame["y"] = np.where(frame.binomial > 0, "yes", "no")
    for name, (asked, kind, clusters) in covariances(frame).items():
        fit = dg.glm(f"y ~ {FORMULA}", frame, family=family, covariance=asked)
        assert fit.converged
        found = np.asarray(fit.bse, np.float64).ravel()
        if family == "ordinal":
            # the threshold follows the slopes
            found = np.concatenate([found[-1:], found[:-1]])
        digits_left = close(found, errors(truth.covariance(kind, clusters)))
        assert digits_left >= fit.certificate.error_digits, name
        # errors of covariances lose the condition of the Gram, the square of that of the columns
        assert digits_left >= 14.0 + 2.0 * min(np.log10(apart), 0.0) - 2.0 * (name == "two clusters"), name
