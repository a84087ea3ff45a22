"""Row terms of a GLM: which rows are possible, and how the forms of the information hang together.

Their derivatives are held in tests/laws/test_derivatives.py.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from mpmath import mp, mpf

from daskglm.model.custom import custom
from daskglm.model.likelihoods import GLM
from daskglm.model.links import Link, power
from tests.laws.exact import (
    DIGITS,
    DISTRIBUTIONS,
    EPS,
    FAMILIES,
    INVERSES,
    LINKS,
    LOSSES,
    PAIRS,
    RESPONSES,
    WITH_DENSITY,
    exact_log_density,
    moderate_etas,
    possible,
)

# Losses and log densities are sums of a few terms of at most a few thousand.
LOSS_RELATIVE = 1e-12
# 1 - mu as the textbook has it loses up to 1 / 0.03 of its digits over the means looked at.
TEXTBOOK = 1e-13

GRID = (-2.0, -1.0, -0.3, -1e-12, 0.0, 1e-12, 0.3, 0.9, 1.0, 2.0)


# How far a linear predictor is followed: beyond that of any response, and not so far that 1 - mu has no digits in mpmath.
FAR = {
    "logit": 64.0,
    "probit": 30.0,
    "log": 64.0,
    "identity": 4096.0,
    "sqrt": 4096.0,
    "inverse": 4096.0,
    "inverse_square": 1e12,
    "power(0.3)": 4096.0,
    "cauchit": 4096.0,
}
NEARER = 6.0


def model(family: str, link: str) -> GLM:
    return GLM(FAMILIES[family](), LINKS[link]())


@pytest.mark.parametrize("family, link", PAIRS)
def test_valid_says_whether_the_mean_is_possible(family: str, link: str) -> None:
    glm = model(family, link)
    y = np.array([RESPONSES[family][1]])
    good = [eta for eta in GRID if possible(family, link, eta)]
    with np.errstate(all="ignore"):
        for eta in GRID:
            assert glm.rows(y, np.array([eta])).valid == (eta in good), eta
        assert glm.rows(np.full(len(good), y[0]), np.array(good)).valid
        for bad in set(GRID) - set(good):
            mixed = np.array([*good, bad, *good])
            assert not glm.rows(np.full(mixed.size, y[0]), mixed).valid


@pytest.mark.parametrize("family, link", PAIRS)
def test_no_rows_are_valid(family: str, link: str) -> None:
    terms = model(family, link).rows(np.zeros(0), np.zeros(0))
    assert terms.valid
    assert terms.loss.shape == terms.score.shape == terms.weight.shape == (0,)


@pytest.mark.parametrize("family, link", PAIRS)
@pytest.mark.parametrize("eta", [np.nan, np.inf])
def test_an_eta_that_is_not_finite_shows(family: str, link: str, eta: float) -> None:
    """In `valid` or in the loss."""
    with np.errstate(all="ignore"):
        terms = model(family, link).rows(np.array([1.0, 1.0, 0.0]), np.array([eta, 0.5, eta]))
    assert not terms.valid or not np.isfinite(terms.loss.sum())


@pytest.mark.parametrize("family, link", [pair for pair in PAIRS if pair[0] in WITH_DENSITY])
def test_loss_differs_from_minus_the_log_density_by_a_function_of_y(family: str, link: str) -> None:
    glm = model(family, link)
    etas = np.array(moderate_etas(family, link))
    for y in RESPONSES[family]:
        loss = glm.rows(np.full(etas.size, y), etas).loss
        density = exact_log_density(family, np.full(etas.size, y), glm.mean_of(etas))
        size = np.abs(loss).max() + np.abs(density).max()
        assert np.allclose(loss - loss[0], density[0] - density, rtol=0, atol=LOSS_RELATIVE * size)


@pytest.mark.parametrize("family, link", PAIRS)
def test_score_and_expected_weight_by_the_textbook(family: str, link: str) -> None:
    """(y - mu) / (V g'(mu)) and 1 / (V g'(mu)^2), McCullagh and Nelder (1989), section 2.5, with V from scipy."""
    glm = model(family, link)
    eta = np.array(moderate_etas(family, link))
    mu = glm.mean_of(eta)
    distribution, _ = DISTRIBUTIONS[family](mu, 1.0, 1.0)
    slope = 1.0 / glm.link.inverse(eta)[1]
    for y in RESPONSES[family]:
        terms = glm.rows(np.full(eta.size, y), eta, 2, "expected")
        assert np.allclose(terms.weight, 1.0 / (distribution.var() * slope**2), rtol=TEXTBOOK)
        score = (y - mu) / (distribution.var() * slope)
        size = (np.abs(y) + np.abs(mu)) / np.abs(distribution.var() * slope)
        assert np.all(np.abs(terms.score - score) <= TEXTBOOK * size)
        assert np.allclose(terms.mu, mu, rtol=EPS)
        assert np.allclose(terms.variance, distribution.var(), rtol=TEXTBOOK)


@pytest.mark.parametrize("family, link", PAIRS)
def test_observed_and_expected_weights_agree_where_y_is_the_mean(family: str, link: str) -> None:
    glm = model(family, link)
    eta = np.array(moderate_etas(family, link))
    mu = glm.mean_of(eta)
    observed, expected = (glm.rows(mu, eta, 2, kind).weight for kind in ("observed", "expected"))
    # the residual is zero up to the rounding of mu, and multiplies a bend of the size of the weight / mu
    assert np.allclose(observed, expected, rtol=TEXTBOOK)


@pytest.mark.parametrize("family, link", PAIRS)
def test_canonical_is_where_eta_is_the_natural_parameter(family: str, link: str) -> None:
    glm = model(family, link)
    eta = np.array(moderate_etas(family, link))
    theta = glm.family.natural_parameter(glm.mean_of(eta))
    same = np.allclose(theta, glm.family.canonical_scale * eta)
    # families that name no canonical link may still meet theirs by name: a Tweedie with p = 2 and the inverse link
    assert same if glm.canonical else not (same and glm.family.canonical_link)


@pytest.mark.parametrize("family, link", PAIRS)
def test_first_order_has_the_same_loss_and_score(family: str, link: str) -> None:
    glm = model(family, link)
    eta = np.array(moderate_etas(family, link))
    y = np.full(eta.size, RESPONSES[family][1])
    first, second = glm.rows(y, eta, 1), glm.rows(y, eta, 2)
    assert np.array_equal(first.loss, second.loss)
    assert np.array_equal(first.score, second.score)


def a_log_below_0() -> Link:
    return custom(np.log, np.exp, (0.0, 1.0), eta_range=(-np.inf, 0.0))


E1 = float(np.exp(-1.0))


@pytest.mark.parametrize(
    "family, link, interval, means",
    [
        ("binomial", LINKS["logit"](), (-np.inf, 0.0), (0.0, 0.5)),
        ("binomial", LINKS["log"](), (-1.0, 0.5), (E1, 1.0)),
        ("binomial", LINKS["log_complement"](), (-1.0, 0.5), (1.0 - E1, 0.0)),
        ("binomial", LINKS["identity"](), (-0.25, 0.5), (0.0, 0.5)),
        ("binomial", a_log_below_0(), (-1.0, 0.5), (E1, 1.0)),
        ("poisson", LINKS["log"](), (-1.0, 800.0), (E1, np.inf)),
        ("gamma", LINKS["inverse"](), (-1.0, 0.5), (np.inf, 2.0)),
        ("gamma", LINKS["inverse_square"](), (-1.0, 4.0), (np.inf, 0.5)),
        ("gamma", LINKS["sqrt"](), (-1.0, 2.0), (0.0, 4.0)),
        ("gamma", power(1.0 / 4.0), (-1.0, 2.0), (0.0, 16.0)),
        ("gamma", power(-1.0), (-1.0, 2.0), (np.inf, 0.5)),
        ("gaussian", LINKS["sqrt"](), (-1.0, 2.0), (0.0, 4.0)),
        ("gaussian", LINKS["inverse"](), (-2.0, -0.5), (-0.5, -2.0)),
        ("gaussian", LINKS["log_complement"](), (-np.inf, 1.0), (1.0, 1.0 - np.e)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_interval_of_eta_ends_where_its_means_do(
    family: str, link: Link, interval: tuple[float, float], means: tuple[float, float]
) -> None:
    low, high = (np.array([end, end]) for end in interval)
    found = GLM(FAMILIES[family](), link).mean_range_of(low, high)
    for value, mean in zip(found, means, strict=True):
        assert np.allclose(value, mean, rtol=LOSS_RELATIVE, atol=1e-300)
        assert value.shape == (2,)


def falling(family: str, link: str, y: float, sign: float) -> bool:
    """Whether the loss falls all the way from one end of the linear predictor to the other, and has a mean there. Under
    the inverse of any number no way leads over the pole at 0: the end is the best there is where it is the response.
    """
    if link == "inverse" and not np.isfinite(FAMILIES[family]().mean_range[0]):
        return y == 0.0
    end = FAR.get(link, NEARER)
    way = [sign * part * end for part in (-1.0, -0.25, -0.0625, -0.01, 0.01, 0.0625, 0.25, 1.0)]
    with mp.workdps(DIGITS):
        if not possible(family, link, way[-1]):
            return False
        losses = [LOSSES[family](mpf(y), INVERSES[link](mpf(eta))) for eta in way if possible(family, link, eta)]
        return all(after <= before for before, after in itertools.pairwise(losses))


@pytest.mark.parametrize("family, link", PAIRS)
def test_recession_is_where_the_loss_falls_all_the_way(family: str, link: str) -> None:
    glm = model(family, link)
    responses = np.array([*RESPONSES[family], *((0.3,) if glm.family.bounded else ())])
    up, down = glm.recession(responses)
    assert up.tolist() == [falling(family, link, y, 1.0) for y in responses]
    assert down.tolist() == [falling(family, link, y, -1.0) for y in responses]
    assert glm.separable == bool((up | down).any())


@pytest.mark.parametrize("family, link", PAIRS)
def test_the_deviance_at_the_limit_is_the_least_a_row_can_have(family: str, link: str) -> None:
    glm = model(family, link)
    y = np.array(RESPONSES[family])
    for allowed, limit in zip(glm.recession(y), glm.limits[::-1], strict=True):
        mu = np.full(int(allowed.sum()), limit)
        with np.errstate(all="ignore"):
            deviance = glm.family.unit_deviance(y[allowed], mu, 1.0 - mu)
        # nothing where the mean can be the response itself, nor where the variance vanishes faster than the mean
        nothing = (y[allowed] == limit) | (family == "tweedie(power=-0.5)")
        expected = np.where(nothing, 0.0, (y[allowed] - limit) ** 2)
        assert deviance.tolist() == expected.tolist()
