"""Likelihoods of classes, against the same formulas in mpmath, by differences, and by sums over the classes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpf

from daskglm.model.likelihoods import GLM
from daskglm.model.links import LINKS
from daskglm.model.vector import BaselineLogit, Cumulative, pairs_of
from tests.laws.exact import EPS, FAMILIES, TINY
from tests.model.test_links import FEWER_DIGITS, IN_FULL

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

CUMULATIVE = ("logit", "probit", "cloglog", "loglog", "cauchit")
# Roundings of a handful of operations on numbers of the size of the loss and of eta, which an exponential inherits.
ROUNDINGS = 32.0
# A difference of fourth order with steps 2^-9, see tests/laws/test_derivatives.py.
STEP = 2.0**-9
DIFFERENCES = 1e-8
# Sums of a few terms over the classes.
SUMS = 1e-12

MODERATE = (-3.0, -0.7, 0.0, 0.4, 2.5)
FAR = (-800.0, -40.0, -20.0, 20.0, 40.0, 800.0)
THRESHOLDS = np.array([-1.0, 0.25, 1.5])
# Linear predictors of four classes: each alone far out, several far out, and all near.
ETAS = np.array(
    [*itertools.product(MODERATE, repeat=3), *itertools.product((-800.0, -40.0, 0.5, 40.0, 800.0), repeat=3)]
).T


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """As callers do."""
    with np.errstate(all="ignore"):
        yield


def close(found: Any, exact: Any, size: Any) -> bool:
    """To a few roundings of the size of the terms."""
    return abs(mpf(float(found)) - exact) <= ROUNDINGS * EPS * size + TINY


# -- multinomial -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", range(4))
def test_multinomial_rows_in_exact_arithmetic(y: int) -> None:
    """Every probability, and what is left of it to 1, keeps its digits."""
    etas = ETAS[:, ::7]
    n = etas.shape[1]
    terms = BaselineLogit(4).rows(np.full(n, y), etas)
    with mp.workdps(2 * 350 + 60):
        for i in range(n):
            eta = [mpf(0), *(mpf(float(v)) for v in etas[:, i])]
            up = [mp.exp(v) for v in eta]
            mu = [v / sum(up) for v in up]
            rest = [sum(up[:k] + up[k + 1 :]) / sum(up) for k in range(4)]
            # the exponents are differences of etas
            exponents = 1 + max(abs(v) for v in eta)
            loss = mp.log(sum(up)) - eta[y]
            assert close(terms.loss[i], loss, exponents * min(1, loss) + loss), eta
            assert close(terms.chance[i], mu[y], exponents * mu[y])
            for k in range(1, 4):
                exact = rest[k] if y == k else -mu[k]
                assert close(terms.score[k - 1, i], exact, exponents * abs(exact)), (eta, k)
            for t, (a, b) in enumerate(pairs_of(3)):
                exact = mu[a + 1] * rest[a + 1] if a == b else -mu[a + 1] * mu[b + 1]
                assert close(terms.weight[t, i], exact, 2 * exponents * abs(exact)), (eta, a, b)


def full(weights: Matrix, q: int) -> Matrix:
    """The symmetric matrix (n, q, q) of weights kept for a <= b."""
    result = np.zeros((weights.shape[1], q, q))
    for weight, (a, b) in zip(weights, pairs_of(q), strict=True):
        result[:, a, b] = result[:, b, a] = weight
    return result


def central(values: list[Vector]) -> Vector:
    """The derivative from values at -2, -1, 1, 2 steps."""
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * STEP)


@pytest.mark.parametrize("y", range(4))
def test_multinomial_finite_differences(y: int) -> None:
    etas = ETAS[:, : len(MODERATE) ** 3]
    likelihood, codes = BaselineLogit(4), np.full(etas.shape[1], y)
    here = likelihood.rows(codes, etas)
    weight = full(here.weight, 3)
    for k in range(3):
        step = STEP * np.eye(3)[k][:, None]
        sides = [likelihood.rows(codes, etas + j * step, 1) for j in (-2, -1, 1, 2)]
        assert np.allclose(central([s.loss for s in sides]), -here.score[k], rtol=0, atol=DIFFERENCES)
        for j in range(3):
            assert np.allclose(central([s.score[j] for s in sides]), -weight[:, j, k], rtol=0, atol=DIFFERENCES)


def test_multinomial_scores_have_mean_zero_and_the_weight_as_covariance() -> None:
    likelihood, n = BaselineLogit(4), ETAS.shape[1]
    mu = likelihood.probabilities(ETAS)
    assert np.allclose(mu.sum(axis=0), 1.0, rtol=0, atol=SUMS)
    scores = np.stack([likelihood.rows(np.full(n, y), ETAS).score for y in range(4)])
    assert np.allclose(np.einsum("yn,ykn->kn", mu, scores), 0.0, rtol=0, atol=SUMS)
    spread = np.einsum("yn,yan,ybn->nab", mu, scores, scores)
    for information in ("observed", "expected"):
        weight = full(likelihood.rows(np.zeros(n, int), ETAS, 2, information).weight, 3)  # type: ignore[arg-type]
        assert np.allclose(spread, weight, rtol=0, atol=SUMS)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classes_can_be_relabelled(classes: int) -> None:
    """Against another reference, predictors are differences of the old ones; the likelihood does not change."""
    rng = np.random.default_rng(classes)
    eta = rng.normal(0.0, 3.0, (classes, 40))
    y = rng.integers(0, classes, 40)
    likelihood = BaselineLogit(classes)
    one = likelihood.rows(y, eta[1:] - eta[0])
    for order in (np.roll(np.arange(classes), 1), np.arange(classes)[::-1], rng.permutation(classes)):
        moved = eta[order]
        other = likelihood.rows(np.argsort(order)[y], moved[1:] - moved[0])
        assert np.allclose(one.loss, other.loss, rtol=SUMS, atol=SUMS)
        mu, moved_mu = likelihood.probabilities(eta[1:] - eta[0]), likelihood.probabilities(moved[1:] - moved[0])
        assert np.allclose(mu[order], moved_mu, rtol=SUMS)


@pytest.mark.parametrize("information", ["observed", "expected"])
def test_two_classes_are_binomial(information: Any) -> None:
    eta = np.array([*MODERATE, *FAR])
    for y in (0, 1):
        terms = BaselineLogit(2).rows(np.full(eta.size, y), eta[None], 2, information)
        binomial = GLM(FAMILIES["binomial"](), LINKS["logit"]()).rows(np.full(eta.size, float(y)), eta, 2, information)
        # under the canonical link the binomial loss is a difference of numbers of the size of eta
        assert np.all(np.abs(terms.loss - binomial.loss) <= ROUNDINGS * EPS * (1.0 + np.abs(eta)))
        assert np.allclose(terms.score[0], binomial.score, rtol=ROUNDINGS * EPS, atol=TINY)
        assert np.allclose(terms.weight[0], binomial.weight, rtol=ROUNDINGS * EPS, atol=TINY)


def test_multinomial_start_is_the_model_of_the_shares() -> None:
    weights = np.array([3.0, 0.0, 7.5, 1.5])
    likelihood = BaselineLogit(4)
    mu = likelihood.probabilities(likelihood.start(weights)[:, None])[:, 0]
    # half an observation more of each, so that none is impossible
    assert np.allclose(mu, (weights + 0.5) / 14.0, rtol=SUMS)


@pytest.mark.parametrize("eta", [np.nan, np.inf])
def test_a_predictor_that_is_not_finite_shows_in_the_loss(eta: float) -> None:
    terms = BaselineLogit(3).rows(np.array([0, 1, 2]), np.array([[eta, 0.0, eta], [0.1, 0.2, 0.3]]))
    assert not np.isfinite(terms.loss.sum())


# -- ordinal -----------------------------------------------------------------------------------------------------------


class ExactClass:
    """One row of a cumulative model: -log P, its derivatives in (t_1, ..., t_q, eta), and the sizes of their terms."""

    def __init__(self, link: str, y: int, eta: float) -> None:
        ends = [IN_FULL[link](mpf(float(t)) - mpf(eta)) for t in THRESHOLDS]
        zero = (mpf(0), mpf(1), mpf(0), mpf(0))
        one = (mpf(1), mpf(0), mpf(0), mpf(0))
        (mu, rest, slope, bend), (mu0, rest0, slope0, bend0) = (*ends, one)[y], (zero, *ends)[y]
        # whichever tail is smaller
        self.chance = mu - mu0 if mu < rest0 else rest0 - rest
        q = THRESHOLDS.size
        self.score, self.weight, self.size = mp.zeros(q + 1, 1), mp.zeros(q + 1), mp.zeros(q + 1)
        if not self.chance > 0:
            return
        self.loss = -mp.log(self.chance)
        a, b = slope / self.chance, slope0 / self.chance
        gradient = mp.zeros(q + 1, 1)
        if y < q:
            gradient[y] += a
            self.weight[y, y] += a * (a - bend)
            self.size[y, y] += a * (a + abs(bend))
        if y > 0:
            gradient[y - 1] -= b
            self.weight[y - 1, y - 1] += b * (b + bend0)
            self.size[y - 1, y - 1] += b * (b + abs(bend0))
        if 0 < y < q:
            self.weight[y, y - 1] = self.weight[y - 1, y] = -a * b
            self.size[y, y - 1] = self.size[y - 1, y] = a * b
        self.score = gradient
        # every threshold moves against eta
        self.score[q] = b - a
        for k in range(q):
            self.weight[k, q] = self.weight[q, k] = -sum(self.weight[k, j] for j in range(q))
            self.size[k, q] = self.size[q, k] = sum(self.size[k, j] for j in range(q))
        self.weight[q, q] = sum(self.weight[j, k] for j in range(q) for k in range(q))
        self.size[q, q] = sum(self.size[j, k] for j in range(q) for k in range(q))
        self.parts = a + b


def matrix_of(terms: Any, q: int) -> Matrix:
    """All second derivatives (n, q + 1, q + 1), thresholds before eta."""
    n = terms.loss.size
    result = np.zeros((n, q + 1, q + 1))
    for k in range(q):
        result[:, k, k] = terms.threshold_weight[k]
        result[:, k, q] = result[:, q, k] = terms.cross[k]
        if k:
            result[:, k - 1, k] = result[:, k, k - 1] = terms.beside[k - 1]
    result[:, q, q] = terms.weight
    return result


@pytest.mark.parametrize("y", range(4))
@pytest.mark.parametrize("link", CUMULATIVE)
def test_cumulative_rows_in_exact_arithmetic(link: str, y: int) -> None:
    """However far out, as long as the loss is a number at all."""
    etas = np.array([*MODERATE, *FAR, -6.0, 6.0, -8.5, 8.5])
    terms = Cumulative(LINKS[link](), 4).rows(np.full(etas.size, y), etas, THRESHOLDS)
    seen = 0
    with mp.workdps(FEWER_DIGITS):
        for i, eta in enumerate(etas):
            exact = ExactClass(link, y, float(eta))
            if not exact.chance > 0 or not exact.loss < 1e300:
                # minus infinity of log-likelihood, which a solver steps back from
                assert not terms.loss[i] < 1e300, eta
                continue
            seen += 1
            # logarithms of both tails are subtracted, and their roundings are of the size of the loss
            exponents = 1 + abs(mpf(float(eta))) + exact.loss
            assert close(terms.loss[i], exact.loss, exponents), eta
            assert close(terms.chance[i], exact.chance, exponents * exact.chance), eta
            found = [*terms.threshold_score[:, i], terms.score[i]]
            for k in range(4):
                size = exact.parts if k == 3 else abs(exact.score[k])
                assert close(found[k], exact.score[k], exponents * size), (eta, k)
            weight = matrix_of(terms, 3)[i]
            for j in range(4):
                for k in range(4):
                    assert close(weight[j, k], exact.weight[j, k], 2 * exponents * exact.size[j, k]), (eta, j, k)
    assert seen >= 9


@pytest.mark.parametrize("y", range(4))
@pytest.mark.parametrize("link", CUMULATIVE)
def test_cumulative_finite_differences(link: str, y: int) -> None:
    etas = np.array(MODERATE)
    likelihood, codes = Cumulative(LINKS[link](), 4), np.full(etas.size, y)
    here = likelihood.rows(codes, etas, THRESHOLDS)
    score, weight = np.vstack([here.threshold_score, here.score]), matrix_of(here, 3)
    size = 1.0 + np.abs(weight).max() + np.abs(here.loss).max()
    for k in range(4):
        sides = [
            likelihood.rows(codes, etas + j * STEP * (k == 3), THRESHOLDS + j * STEP * (np.arange(3) == k), 1)
            for j in (-2, -1, 1, 2)
        ]
        assert np.allclose(central([s.loss for s in sides]), -score[k], rtol=0, atol=DIFFERENCES * size)
        for j in range(4):
            scores = [s.score if j == 3 else s.threshold_score[j] for s in sides]
            assert np.allclose(central(scores), -weight[:, j, k], rtol=0, atol=DIFFERENCES * size)


@pytest.mark.parametrize("link", CUMULATIVE)
def test_cumulative_scores_have_mean_zero_and_the_information_as_covariance(link: str) -> None:
    """Summed over the classes: E[s] = 0, Var[s] = E[observed] = expected."""
    likelihood, etas = Cumulative(LINKS[link](), 4), np.array(MODERATE)
    chance = likelihood.probabilities(etas, THRESHOLDS)
    assert np.allclose(chance.sum(axis=0), 1.0, rtol=0, atol=SUMS)
    rows = [likelihood.rows(np.full(etas.size, y), etas, THRESHOLDS) for y in range(4)]
    scores = np.stack([np.vstack([r.threshold_score, r.score]) for r in rows])
    assert np.allclose(np.einsum("yn,ykn->kn", chance, scores), 0.0, rtol=0, atol=SUMS)
    spread = np.einsum("yn,yan,ybn->nab", chance, scores, scores)
    observed = np.einsum("yn,ynab->nab", chance, np.stack([matrix_of(r, 3) for r in rows]))
    assert np.allclose(observed, spread, rtol=0, atol=SUMS * np.abs(spread).max())
    for y in range(4):
        expected = likelihood.rows(np.full(etas.size, y), etas, THRESHOLDS, 2, "expected")
        assert np.allclose(matrix_of(expected, 3), spread, rtol=0, atol=SUMS * np.abs(spread).max())
        assert np.array_equal(expected.loss, rows[y].loss)
        assert np.array_equal(expected.score, rows[y].score)


@pytest.mark.parametrize("link", CUMULATIVE)
def test_the_expected_information_is_a_number_however_far_out(link: str) -> None:
    """One such row must not spoil the sum of the others."""
    likelihood, etas = Cumulative(LINKS[link](), 4), np.array([*FAR, -9.0, 9.0])
    found = matrix_of(likelihood.rows(np.zeros(etas.size, int), etas, THRESHOLDS, 2, "expected"), 3)
    with mp.workdps(FEWER_DIGITS):
        for i, eta in enumerate(etas):
            rows = [ExactClass(link, y, float(eta)) for y in range(4)]
            for j in range(4):
                for k in range(4):
                    exact = sum((r.chance * r.score[j] * r.score[k] for r in rows if r.chance > 0), mpf(0))
                    # one class is nearly certain, and the chances of others are exponentials of up to eta^2 / 2
                    size = sum((r.chance * r.parts**2 for r in rows if r.chance > 0), mpf(0))
                    exponents = 1 + sum((r.loss for r in rows if r.chance > 0 and r.loss < 1e4), abs(mpf(float(eta))))
                    assert close(found[i, j, k], exact, 8 * exponents * size), (eta, j, k)


@pytest.mark.parametrize("information", ["observed", "expected"])
@pytest.mark.parametrize("link", CUMULATIVE)
def test_two_ordered_classes_are_binomial_of_the_lower(link: str, information: Any) -> None:
    """P(Y <= 1) = F(t - eta): the lower class is a success at t - eta."""
    eta, t = np.array(MODERATE), np.array([0.3])
    for y in (0, 1):
        terms = Cumulative(LINKS[link](), 2).rows(np.full(eta.size, y), eta, t, 2, information)
        glm = GLM(FAMILIES["binomial"](), LINKS[link]())
        binomial = glm.rows(np.full(eta.size, 1.0 - y), t - eta, 2, information)
        assert np.allclose(terms.loss, binomial.loss, rtol=SUMS)
        assert np.allclose(terms.score, -binomial.score, rtol=SUMS)
        assert np.allclose(terms.threshold_score[0], binomial.score, rtol=SUMS)
        for found, sign in ((terms.weight, 1), (terms.threshold_weight[0], 1), (terms.cross[0], -1)):
            assert np.allclose(found, sign * binomial.weight, rtol=SUMS)


@pytest.mark.parametrize(
    "link, mirrored", [*((l, l) for l in ("logit", "probit", "cauchit")), ("cloglog", "loglog"), ("loglog", "cloglog")]
)
def test_classes_in_reverse_change_all_signs(link: str, mirrored: str) -> None:
    """1 - F(x) = F(-x), or the F of the other of cloglog and loglog."""
    eta = np.array([*MODERATE, -5.0, 5.0])
    for y in range(4):
        one = Cumulative(LINKS[link](), 4).rows(np.full(eta.size, y), eta, THRESHOLDS)
        other = Cumulative(LINKS[mirrored](), 4).rows(np.full(eta.size, 3 - y), -eta, -THRESHOLDS[::-1])
        assert np.allclose(one.loss, other.loss, rtol=SUMS)
        assert np.allclose(one.score, -other.score, rtol=SUMS, atol=SUMS)
        assert np.allclose(one.threshold_score, -other.threshold_score[::-1], rtol=SUMS, atol=SUMS)
        assert np.allclose(one.weight, other.weight, rtol=SUMS, atol=SUMS)


@pytest.mark.parametrize("link", CUMULATIVE)
def test_thresholds_out_of_order_make_the_loss_no_number(link: str) -> None:
    terms = Cumulative(LINKS[link](), 4).rows(np.array([0, 1, 2, 3]), np.zeros(4), np.array([0.0, 1.0, 0.5]))
    assert not np.isfinite(terms.loss.sum())


@pytest.mark.parametrize("link", CUMULATIVE)
def test_ordinal_start_is_the_model_of_the_shares(link: str) -> None:
    weights = np.array([3.0, 0.0, 7.5, 1.5])
    likelihood = Cumulative(LINKS[link](), 4)
    chance = likelihood.probabilities(np.zeros(1), likelihood.start(weights))[:, 0]
    assert np.allclose(chance, (weights + 0.5) / 14.0, rtol=SUMS)


def test_first_order_has_the_same_loss_and_scores() -> None:
    y = np.arange(4)
    one = [BaselineLogit(4).rows(y, ETAS[:, :4], order) for order in (0, 1, 2)]
    assert all(np.array_equal(one[0].loss, other.loss) and np.array_equal(one[0].score, other.score) for other in one)
    two = [Cumulative(LINKS["probit"](), 4).rows(y, np.zeros(4), THRESHOLDS, order) for order in (0, 1, 2)]
    for other in two:
        assert np.array_equal(two[0].loss, other.loss)
        assert np.array_equal(two[0].score, other.score)
        assert np.array_equal(two[0].threshold_score, other.threshold_score)
