"""Quasi families: their deviance is an integral, and mpmath integrates it too."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from daskglm.errors import DesignError
from daskglm.inference.covariance import dispersion, log_likelihood
from daskglm.model.likelihoods import GLM
from daskglm.model.links import LINKS, power
from daskglm.model.pairs import FAMILIES
from daskglm.model.quasi import LAWS, OwnVariance, Quasi, verify
from daskglm.totals.moments import FitStats
from tests.model import home_made

EPS = float(np.finfo(np.float64).eps)
# Integrals by nodes, relative; Quasi promises 1e-10.
INTEGRAL = 1e-12
# Towards an end other than 0 a mean is known to a part of 1e-16 of that end, and so is its distance from it.
AT_ONE = 1e-11
# Closed forms are differences of a few terms.
CLOSED = 1e-12
SLOPE = 1e-10
STEP = 2.0**-8
DIFFERENCES = 1e-8

POSITIVE = (0.0, np.inf)
LINE = (-np.inf, np.inf)


def exact(variance: Callable[[Any], Any], mean_range: tuple[float, float], y: float, mu: float) -> float:
    """2 times the integral from mu to y of (y - t) / V(t), on the scale on which V is smooth."""
    with mp.workdps(25):
        low, high = (mpf(end) for end in mean_range)
        a, b = mpf(mu), mpf(y)
        if mean_range == POSITIVE:
            scaled, back, rate = mp.log, mp.exp, mp.exp
        elif mean_range == LINE:
            scaled, back, rate = mp.asinh, mp.sinh, mp.cosh
        else:
            scaled = lambda t: mp.log((t - low) / (high - t))  # noqa: E731
            # below and above the middle by what keeps the distance from either end
            back = lambda z: low + (high - low) / (1 + mp.exp(-z))  # noqa: E731
            rate = lambda z: (high - low) * mp.exp(-z) / (1 + mp.exp(-z)) ** 2  # noqa: E731
        start = scaled(a)
        # an end of the range is as far off as 25 digits see it
        stop = start - 60 if b == low else start + 60 if b == high else scaled(b)
        pieces = int(abs(stop - start) / 5) + 1
        edges = [start + (stop - start) * k / pieces for k in range(pieces + 1)]
        return float(2 * mp.quad(lambda z: (b - back(z)) / variance(back(z)) * rate(z), edges))


# The name of a variance, once more as a function for mpmath, and pairs (y, mu).
NAMED: dict[str, tuple[Callable[[Any], Any], tuple[float, float], tuple[tuple[float, float], ...]]] = {
    "constant": (lambda t: mpf(1), LINE, ((0.0, 3.0), (-5.0, 7.0), (2.0, 2.0))),
    "mu": (lambda t: t, POSITIVE, ((0.0, 1.0), (0.0, 1e6), (5.0, 1e-6), (5.0, 5.001), (3.0, 400.0), (2.0, 2.0))),
    "mu^2": (lambda t: t**2, POSITIVE, ((1e-6, 1.0), (5.0, 1e-6), (5.0, 1e6), (2.0, 2.0))),
    "mu^3": (lambda t: t**3, POSITIVE, ((1.0, 3.0), (5.0, 1e-6), (1e-5, 3.0), (2.0, 2.0), (3.0, 3.0001))),
    "mu(1-mu)": (
        lambda t: t * (1 - t), (0.0, 1.0), ((0.0, 0.5), (1.0, 0.5), (1.0, 1e-9), (0.3, 0.7), (0.3, 1e-9), (0.5, 0.5)),
    ),
}  # fmt: skip
# A variance of one's own, the same for mpmath, the range of its mean, which ends it includes, and pairs (y, mu).
Own = tuple[
    Callable[[Any], Any], Callable[[Any], Any], tuple[float, float], tuple[bool, bool], tuple[tuple[float, float], ...]
]
OWN: dict[str, Own] = {
    "constant": (np.ones_like, lambda t: mpf(1), LINE, (False, False), NAMED["constant"][2]),
    "mu": (lambda t: t, lambda t: t, POSITIVE, (True, False), NAMED["mu"][2]),
    "mu^1.5": (
        home_made.power_variance, lambda t: t ** mpf(1.5), POSITIVE, (True, False),
        ((0.0, 1.0), (0.0, 1e-6), (5.0, 1e-6), (5.0, 1e6), (1e-8, 3.0), (7.0, 7.0 + 1e-7)),
    ),
    "mu^2": (lambda t: t * t, lambda t: t * t, POSITIVE, (False, False), NAMED["mu^2"][2]),
    "mu^3": (lambda t: t**3, lambda t: t**3, POSITIVE, (False, False), NAMED["mu^3"][2]),
    "negative binomial": (
        lambda t: t + 2 * t * t, lambda t: t + 2 * t * t, POSITIVE, (True, False),
        ((0.0, 1.0), (0.0, 1e6), (7.0, 1e-6), (7.0, 300.0), (1.0, 1.0 - 1e-9)),
    ),
    "mu(1-mu)": (lambda t: t * (1 - t), lambda t: t * (1 - t), (0.0, 1.0), (True, True), NAMED["mu(1-mu)"][2]),
    "mu^2(1-mu)^2": (
        lambda t: (t * (1 - t)) ** 2, lambda t: (t * (1 - t)) ** 2, (0.0, 1.0), (False, False),
        ((0.3, 0.7), (0.3, 1e-9), (1e-4, 0.99), (0.4, 0.4)),
    ),
    "cosh": (np.cosh, mp.cosh, LINE, (False, False), ((0.0, 3.0), (-5.0, 7.0), (0.0, 30.0), (1.0, 1.0))),
    "1 + mu^2": (lambda t: 1 + t * t, lambda t: 1 + t * t, LINE, (False, False), ((0.0, 3.0), (-5.0, 7.0), (0.0, 1e4))),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """As callers compute."""
    with np.errstate(all="ignore"):
        yield


def pairs_of(pairs: tuple[tuple[float, float], ...]) -> tuple[np.ndarray, np.ndarray]:
    y, mu = np.array(pairs).T
    return np.ascontiguousarray(y), np.ascontiguousarray(mu)


@pytest.mark.parametrize("name", NAMED)
def test_named_deviance_is_the_integral(name: str) -> None:
    variance, mean_range, pairs = NAMED[name]
    family, (y, mu) = Quasi(name), pairs_of(pairs)
    verify(family)
    truth = np.array([exact(variance, mean_range, *pair) for pair in pairs])
    found = family.unit_deviance(y.copy(), mu, 1.0 - mu)
    assert np.all(np.abs(found - truth) <= CLOSED * (np.abs(truth) + np.abs(y)))
    assert np.allclose(family.variance(mu, 1.0 - mu), [float(variance(mpf(m))) for m in mu], rtol=4 * EPS)
    loss = family.unit_loss(y, mu, 1.0 - mu) - family.unit_loss(y, mu[:1] + 0 * y, 1.0 - mu[:1] + 0 * y)
    base = [exact(variance, mean_range, one, mu[0]) for one in y]
    size = 1.0 + np.abs(truth) + np.abs(base) + np.abs(y)
    assert np.all(np.abs(2 * loss - (truth - base)) <= CLOSED * size)


@pytest.mark.parametrize("name", OWN)
def test_own_deviance_is_the_integral(name: str) -> None:
    """Relative to itself, however near y and mu are."""
    function, variance, mean_range, closed, pairs = OWN[name]
    family, (y, mu) = Quasi(function, mean_range), pairs_of(pairs)
    verify(family)
    truth = np.array([exact(variance, mean_range, *pair) for pair in pairs])
    found = family.unit_deviance(y, mu, 1.0 - mu)
    allowed = np.where(y == 1.0, AT_ONE, INTEGRAL) if mean_range == (0.0, 1.0) else INTEGRAL
    assert np.all(np.abs(found - truth) <= allowed * truth)
    assert np.all(found[y == mu] == 0.0)
    law = family.law
    assert isinstance(law, OwnVariance)
    assert law.closed == closed


@pytest.mark.parametrize("name", OWN)
def test_own_loss_is_half_the_deviance_up_to_a_function_of_y(name: str) -> None:
    function, _, mean_range, _, pairs = OWN[name]
    family, (y, mu) = Quasi(function, mean_range), pairs_of(pairs)
    middle = np.full(y.size, 0.4)
    gap = family.unit_loss(y, mu, 1.0 - mu) - family.unit_loss(y, middle, 1.0 - middle)
    truth = 0.5 * (family.unit_deviance(y, mu, 1.0 - mu) - family.unit_deviance(y, middle, 1.0 - middle))
    size = 1.0 + np.abs(family.unit_loss(y, mu, 1.0 - mu)) + family.unit_deviance(y, mu, 1.0 - mu)
    size = size + family.unit_deviance(y, middle, 1.0 - middle)
    assert np.all(np.abs(gap - truth) <= INTEGRAL * size)
    # the least loss there is, from which progress is counted
    least = family.unit_loss(middle, middle, 1.0 - middle)
    own = np.where(family.in_support(y), y, middle)
    best = family.unit_loss(own, own, 1.0 - own)
    other = family.unit_loss(own, middle, 1.0 - middle)
    assert np.all(np.isfinite(least))
    assert np.allclose(2 * (other - best), family.unit_deviance(own, middle, 1.0 - middle), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OWN)
def test_variance_slope(name: str) -> None:
    function, variance, mean_range, _, pairs = OWN[name]
    family, (_, mu) = Quasi(function, mean_range), pairs_of(pairs)
    with mp.workdps(40):
        truth = np.array([float(mp.diff(variance, mpf(m), h=mpf(10) ** -18)) for m in mu])
    found = family.variance_slope(mu, 1.0 - mu)
    assert np.all(np.abs(found - truth) <= SLOPE * (np.abs(truth) + family.variance(mu, mu) / np.abs(mu)))


def test_variance_slope_by_differences() -> None:
    """Of a function that takes no complex numbers."""
    mu = np.array([0.01, 0.5, 40.0])
    family = Quasi(lambda mu: np.abs(mu) ** 1.5, POSITIVE)
    assert np.allclose(family.variance_slope(mu, 1.0 - mu), 1.5 * np.sqrt(mu), rtol=SLOPE)


def test_what_is_no_mean_has_no_deviance() -> None:
    family = Quasi(home_made.power_variance, POSITIVE)
    mu, y = np.array([-1.0, 0.0, np.inf, np.nan]), np.ones(4)
    assert not np.isfinite(family.unit_loss(y, mu, 1.0 - mu)).any()
    assert np.isnan(family.unit_deviance(y, mu, 1.0 - mu)).all()


MATCHING = {"constant": "gaussian", "mu": "poisson", "mu^2": "gamma", "mu(1-mu)": "binomial"}


@pytest.mark.parametrize("name", MATCHING)
@pytest.mark.parametrize("link", LINKS)
def test_rows_are_those_of_the_matching_family(name: str, link: str) -> None:
    family, model = Quasi(name), FAMILIES[MATCHING[name]]()
    if link not in model.links:
        return
    y, eta = np.array([0.5, 0.25, 0.75]), LINKS[link]().link(np.array([0.1, 0.5, 0.9]))
    ours, theirs = (GLM(one, LINKS[link]()).rows(y, eta) for one in (family, model))
    for part in ("loss", "score", "weight", "mu", "variance"):
        assert np.array_equal(getattr(ours, part), getattr(theirs, part)), part
    assert GLM(family, LINKS[link]()).quadratic == GLM(model, LINKS[link]()).quadratic
    assert family.support == model.support
    assert np.array_equal(family.start_mean(y, 2.0), model.start_mean(y, 2.0))


def pairs() -> list[tuple[str, str]]:
    """Variances of one's own, and mu^3, with the links that go with them."""
    found = [(name, link) for name in OWN for link in Quasi(OWN[name][0], OWN[name][2]).links]
    return found + [("cube", link) for link in Quasi("mu^3").links]


@pytest.mark.parametrize("name, link", pairs())
def test_rows_by_finite_differences(name: str, link: str) -> None:
    family = Quasi("mu^3") if name == "cube" else Quasi(OWN[name][0], OWN[name][2])
    bridge = power(0.3) if link == "power" else LINKS[link]()
    mean = np.array([0.2, 0.5, 0.8])
    eta = bridge.link(mean)
    step = STEP * np.minimum(1.0, np.abs(eta) + (not bridge.restricts)) * 0.1
    glm = GLM(family, bridge)
    for y in (0.1, 0.6):
        at = np.full(3, y)
        here = glm.rows(at, eta)
        expected = glm.rows(at, eta, 2, "expected").weight
        rows = [glm.rows(at, eta + k * step) for k in (-2, -1, 1, 2)]
        for values, truth, size in (
            ([row.loss for row in rows], -here.score, np.abs(here.score) + np.sqrt(expected)),
            ([row.score for row in rows], -here.weight, np.abs(here.weight) + expected),
        ):
            slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
            noise = max(np.abs(v).max() for v in values) * 8 * EPS / step
            assert np.all(np.abs(slope - truth) <= DIFFERENCES * size + noise), (y, link)


@pytest.mark.parametrize(
    "variance, mean_range, link",
    [
        ("constant", None, "identity"),
        ("mu", None, "log"),
        ("mu^2", None, "log"),
        ("mu^3", None, "log"),
        ("mu(1-mu)", None, "logit"),
        (home_made.power_variance, POSITIVE, "log"),
        (home_made.power_variance, (0.0, 1.0), "logit"),
        (np.cosh, None, "identity"),
        (np.cosh, (1.0, 5.0), "identity"),
    ],
)
def test_default_link_is_among_its_links(variance: Any, mean_range: Any, link: str) -> None:
    family = Quasi(variance, mean_range)
    assert family.default_link == link
    assert {family.default_link, family.canonical_link} - {""} <= set(family.links)
    # only mu (1 - mu) has the likelihood of a probability
    assert family.bounded == (variance == "mu(1-mu)")


@pytest.mark.parametrize(
    "family, possible, impossible, words",
    [
        (Quasi("mu^3"), (1e-9, 4.0), (0.0, -1.0, np.inf, np.nan), "positive"),
        (Quasi(home_made.power_variance, POSITIVE), (0.0, 4.0), (-1.0, np.inf, np.nan), "0 or more"),
        (Quasi(np.square, POSITIVE), (1e-9, 4.0), (0.0, np.inf, np.nan), "more than 0"),
        (Quasi(lambda t: t * (1 - t), (0.0, 1.0)), (0.0, 0.5, 1.0), (1.1, -0.1, np.nan), "0 or more and 1 or less"),
        (Quasi(lambda t: -t, (-np.inf, 0.0)), (-3.0, 0.0), (1.0, -np.inf), "0 or less"),
        (Quasi(lambda t: t * t, (-np.inf, 0.0)), (-3.0,), (0.0, 1.0), "less than 0"),
        (Quasi(np.cosh), (-3.0, 0.0), (np.inf, np.nan), "any finite number"),
    ],
    ids=str,
)
def test_support(family: Quasi, possible: tuple[float, ...], impossible: tuple[float, ...], words: str) -> None:
    y = np.array([*possible, *impossible])
    assert family.in_support(y).tolist() == [True] * len(possible) + [False] * len(impossible)
    assert family.support == words
    start = family.start_mean(np.array(possible), 1.0)
    assert np.all((family.mean_range[0] < start) & (start < family.mean_range[1]))


def test_negative_means_mirror_positive_ones() -> None:
    y, mu = np.array([0.0, 1.0, 5.0]), np.array([2.0, 7.0, 1e-3])
    mirrored = Quasi(lambda t: -t, (-np.inf, 0.0))
    assert np.allclose(mirrored.unit_deviance(-y, -mu, mu), Quasi("mu").unit_deviance(y, mu, mu), rtol=INTEGRAL)


# -- there is no density -----------------------------------------------------------------------------------------------


def test_there_is_no_likelihood() -> None:
    family = Quasi("mu^2")
    y = np.ones(3)
    assert np.isnan(family.saturated(y, 1.0, 1.0)).all()
    stats = FitStats(3, 3.0, 1.5, float("nan"), 3.0, 0, 2.0)
    # no pass over the rows is asked for, with weights or without
    for weighted in (False, True):
        assert family.saturated_shift(3.0, 0.5, weighted) is not None
        assert np.isnan(log_likelihood(family, stats, 2.0, None, weighted))
    assert dispersion(None, family, stats, 4.0, 1) == (2.0, True)
    with pytest.raises(DesignError, match=r"a quasi family has no density: .* maximum likelihood .* use dispersion="):
        family.ml_dispersion(0.5, False)


@pytest.mark.parametrize("face", ["log_base_measure", "log_partition", "natural_parameter", "mean"])
def test_the_exponential_face_does_not_exist(face: str) -> None:
    with pytest.raises(DesignError, match="a quasi family has no density: mine has no"):
        getattr(Quasi("mu", name="mine"), face)(np.ones(2))


def test_the_mean_is_that_of_the_response() -> None:
    y = np.array([1.0, 2.0])
    assert np.array_equal(Quasi("mu").sufficient_statistic(y), y)


# -- requests that mean nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("mu2",), r'there is no variance "mu2" \(did you mean "mu\^2"\?\); there are: constant, mu, mu\^2, mu\^3, mu\(1-'),
        (("mu", (0, 1)), 'variance="mu" has its own range of means: leave mean_range= out'),
        ((3,), "variance must be a name or a function of the mean, not 3"),
        ((np.cosh, (1, 0)), r"mean_range=\(1, 0\) must be \(lower, upper\)"),
        ((np.cosh, "positive"), r"mean_range='positive' must be \(lower, upper\)"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(DesignError, match=sentence):
        Quasi(*arguments)


@pytest.mark.parametrize(
    "family, sentence",
    [
        (Quasi(home_made.power_variance), r"variance\(-4\) is nan, and must be positive on the range of the mean, \(-inf, inf"),
        (Quasi(lambda mu: -mu, POSITIVE), r"variance\(0.125\) is -0.125, and must be positive .* give mean_range="),
        (Quasi(lambda mu: 1.0, POSITIVE), r"variance must return one number for each mean: .* float64 of shape \(\)"),
        (Quasi(lambda mu: mu if mu > 0 else 0.0, POSITIVE), "variance fails for an array of means .* must be vectorised"),
    ],
    ids=str,
)  # fmt: skip
def test_verification_refuses(family: Quasi, sentence: str) -> None:
    with pytest.raises(DesignError, match=sentence):
        verify(family)


# -- by import path ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [*(Quasi(name, name="mine") for name in LAWS), Quasi(home_made.power_variance, POSITIVE), Quasi(np.cosh)],
    ids=str,
)
def test_document_and_back(family: Quasi) -> None:
    document = json.loads(json.dumps(family.document()))
    assert Quasi.from_document(document) == family
    before = pickle.dumps(family)
    assert family.support
    assert pickle.dumps(family) == before
    assert pickle.loads(before) == family


def test_a_function_without_an_import_path_is_refused() -> None:
    family = Quasi(lambda mu: mu, POSITIVE)
    for send in (family.document, lambda: pickle.dumps(family)):
        with pytest.raises(
            DesignError, match=r"variance of the quasi family cannot be found .* put the function into a"
        ):
            send()
