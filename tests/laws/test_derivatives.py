"""The score is minus the derivative of the loss, the weight its second: for every pair of family and link."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from daskglm.model.likelihoods import GLM
from tests.laws.exact import (
    DIGITS,
    EPS,
    FAMILIES,
    FEWER_DIGITS,
    INVERSES,
    LINKS,
    LOSSES,
    PAIRS,
    RESPONSES,
    TINY,
    VARIANCES,
    extreme_etas,
    moderate_etas,
    tweedie,
)

# A central difference of fourth order with steps h errs by about h^4 times a fifth derivative and EPS / h times the
# function: with h = 2^-9 of the scale of eta both are below 1e-9 of the terms involved.
STEP = 2.0**-9
DIFFERENCES = 1e-8
# Roundings per formula; each is as large as the largest term of the sum it belongs to, times the size of the exponents
# (an exp(t) inherits the rounding of t).
ROUNDINGS = 16.0
# Losses in which the mean, which may be 1e-300, stands beside a constant.
BESIDE_A_CONSTANT = ("gaussian", "binomial", "negative_binomial(theta=1.75)", "geometric", tweedie(0))


def model(family: str, link: str) -> GLM:
    return GLM(FAMILIES[family](), LINKS[link]())


def responses(family: str) -> tuple[float, ...]:
    """With proportions, for the binomial family."""
    return (*RESPONSES[family], 0.25) if FAMILIES[family]().bounded else RESPONSES[family]


def central(values: list[np.ndarray], step: np.ndarray) -> np.ndarray:
    """The derivative from values at -2, -1, 1, 2 steps."""
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


@pytest.mark.parametrize("family, link", PAIRS)
def test_finite_differences(family: str, link: str) -> None:
    glm = model(family, link)
    eta = np.array(moderate_etas(family, link))
    # roots and poles are at eta = 0, from which a step keeps away
    step = STEP * np.minimum(1.0, np.abs(eta) + (not LINKS[link]().restricts))
    if link == "identity" and np.isfinite(FAMILIES[family]().mean_range[0]):
        step = STEP * np.minimum(eta, 1.0 - eta if FAMILIES[family]().bounded else 1.0)
    if link in ("log", "log_complement") and FAMILIES[family]().bounded:
        step = STEP * np.minimum(-eta, 1.0)
    for y in responses(family):
        rows = [glm.rows(np.full(eta.size, y), eta + k * step) for k in (-2, -1, 1, 2)]
        here = glm.rows(np.full(eta.size, y), eta)
        expected = glm.rows(np.full(eta.size, y), eta, 2, "expected").weight
        size = np.abs(here.loss) / step * EPS / DIFFERENCES + np.abs(here.score) + np.sqrt(expected)
        assert np.all(np.abs(central([r.loss for r in rows], step) + here.score) <= DIFFERENCES * size)
        size = np.abs(here.score) / step * EPS / DIFFERENCES + np.abs(here.weight) + expected
        size += np.abs(here.score) * EPS / (step * DIFFERENCES)
        assert np.all(np.abs(central([r.score for r in rows], step) + here.weight) <= DIFFERENCES * size)


def derivatives(function: Any, x: Any) -> tuple[Any, Any]:
    """First and second, by steps in proportion to x, however small that is."""
    if x == 0:
        return mp.diff(function, x), mp.diff(function, x, 2)
    first, second = mp.diff(lambda t: function(x * mp.exp(t)), 0), mp.diff(lambda t: function(x * mp.exp(t)), 0, 2)
    return first / x, (second - first) / x**2


@lru_cache(maxsize=10_000)
def _mean(link: str, eta: Any, bits: int) -> Any:
    return INVERSES[link](eta)


class Exact:
    """Loss and derivatives of one row, and the sizes of the terms of which float64 has to make them."""

    def __init__(self, family: str, link: str, y: float, eta: float) -> None:
        def inverse(at: Any) -> Any:
            # the same for all responses, and costly
            return _mean(link, at, mp.prec)

        def loss(at: Any) -> Any:
            return LOSSES[family](mpf(y), inverse(at))

        at = mpf(eta)
        mean = inverse(at)
        slope, bend = derivatives(inverse, at)
        variance, variance_slope = VARIANCES[family](mean), derivatives(VARIANCES[family], mean)[0]
        bounded = FAMILIES[family]().bounded
        # y (1 - mu) and (1 - y) mu have no cancellation between them where y is 0 or 1
        parts = y * (1 - mean) + (1 - y) * mean if bounded else abs(y) + abs(mean)
        downhill, self.weight = derivatives(loss, at)
        self.loss, self.score = loss(at), -downhill
        self.expected = slope**2 / variance
        self.score_size = parts * abs(slope) / variance
        self.weight_size = self.expected + parts * (abs(bend) / variance + slope**2 * abs(variance_slope) / variance**2)
        powers = [abs(mp.log(abs(t))) for t in (slope, variance, 1 - mean) if t != 0]
        self.exponents = 1 + max(powers)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("family, link", PAIRS)
def test_exact_derivatives(family: str, link: str, extreme: bool) -> None:
    """Against derivatives in 400 digits, to the last few bits, however far out."""
    glm = model(family, link)
    etas = extreme_etas(family, link) if extreme else moderate_etas(family, link)
    assert etas
    with mp.workdps(DIGITS if family in BESIDE_A_CONSTANT else FEWER_DIGITS):
        compare(family, link, glm, etas)


def compare(family: str, link: str, glm: GLM, etas: list[float]) -> None:
    for y in responses(family):
        with np.errstate(all="ignore"):
            observed = glm.rows(np.full(len(etas), y), np.array(etas))
            expected = glm.rows(np.full(len(etas), y), np.array(etas), 2, "expected")
        first = None
        for i, eta in enumerate(etas):
            exact = Exact(family, link, y, eta)
            allowed = ROUNDINGS * EPS * exact.exponents
            assert abs(mpf(float(observed.score[i])) - exact.score) <= allowed * exact.score_size + TINY, (y, eta)
            assert abs(mpf(float(observed.weight[i])) - exact.weight) <= allowed * exact.weight_size + TINY, (y, eta)
            assert abs(mpf(float(expected.weight[i])) - exact.expected) <= allowed * exact.expected + TINY, (y, eta)
            if first is None:
                first = exact.loss, observed.loss[i]
            # the loss is settled up to a function of y, and to an absolute rounding: the log of a mean beside 1
            difference = mpf(float(observed.loss[i])) - mpf(float(first[1])) - (exact.loss - first[0])
            size = abs(exact.loss) + abs(first[0]) + abs(mpf(float(observed.loss[i]))) + abs(mpf(float(first[1])))
            assert abs(difference) <= allowed * (1 + size), (y, eta)
