"""Links of one's own against the built-in ones and mpmath."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy import special

from daskglm.errors import DesignError
from daskglm.model.custom import EVERYWHERE, Custom, custom, differences, verify_link
from daskglm.model.likelihoods import GLM
from daskglm.model.links import LINKS
from daskglm.model.pairs import FAMILIES

HERE = __name__
POSITIVE = (0.0, np.inf)
BETWEEN = (0.0, 1.0)

# Against the built-in links: 1 - mu is known to 1e-16, which at eta = 9 is 1e-12 of it.
AS_BUILT_IN = 1e-9
# Slopes by the complex step are exact; the extrapolated differences err by some hundred roundings of a slope or a mean,
# those of second order by some hundred thousand.
COMPLEX_SLOPE = 1e-15
COMPLEX_CURVATURE = 1e-12
REAL_SLOPE = 1e-13
REAL_CURVATURE = 1e-10
# The last step is 1/4 at eta = 700, which for functions like exp leaves this.
FAR_OUT = 1e-7


def my_logit(mu: Any) -> Any:
    return np.log(mu / (1.0 - mu))


def my_expit(eta: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-eta))


def expit_without_overflow(eta: Any) -> Any:
    """abs() drops the imaginary part."""
    small = np.exp(-np.abs(eta))
    return np.where(np.real(eta) >= 0, 1.0, small) / (1.0 + small)


def expit_of_reals(eta: Any) -> Any:
    """Refuses complex arrays."""
    return special.expit(eta)


def my_log(mu: Any) -> Any:
    return np.log(mu)


def my_exp(eta: Any) -> Any:
    return np.exp(eta)


def my_cube(mu: Any) -> Any:
    return mu**3


def my_cube_root(eta: Any) -> Any:
    return eta ** (1.0 / 3.0)


def my_negated_inverse(x: Any) -> Any:
    return -1.0 / x


def steep_logit(mu: Any) -> Any:
    return np.log(mu / (1.0 - mu)) / 10.0


def steep_expit(eta: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-10.0 * eta))


LOGIT = custom(my_logit, my_expit, BETWEEN)
REAL_LOGIT = custom(my_logit, expit_without_overflow, BETWEEN)
LOG = custom(my_log, my_exp, POSITIVE)
REAL_LOG = custom(my_log, lambda eta: np.exp(np.real(eta)), POSITIVE)
CUBE = custom(my_cube, my_cube_root, POSITIVE, eta_range=POSITIVE)

MODERATE = np.array([-9.0, -4.0, -1.5, -0.25, 0.0, 1e-3, 0.7, 2.0, 5.0, 9.0])

MEANS: dict[str, tuple[Custom, Callable[[Any], Any], tuple[float, ...]]] = {
    "logit": (LOGIT, lambda t: 1 / (1 + mp.exp(-t)), (-300.0, -40.0, -9.0, -1.0, 0.0, 0.3, 5.0, 20.0, 40.0)),
    "real logit": (REAL_LOGIT, lambda t: 1 / (1 + mp.exp(-t)), (-300.0, -40.0, -9.0, -1.0, 0.0, 0.3, 5.0, 20.0, 40.0)),
    "log": (LOG, mp.exp, (-600.0, -40.0, -1.0, 0.0, 2.0, 40.0, 300.0, 700.0)),
    "real log": (REAL_LOG, mp.exp, (-600.0, -40.0, -1.0, 0.0, 2.0, 40.0, 300.0, 700.0)),
    "cube": (CUBE, mp.cbrt, (1e-9, 1e-3, 0.5, 3.0, 100.0, 1e4, 1e9)),
    "real cube": (
        custom(my_cube, lambda eta: np.cbrt(eta), POSITIVE, eta_range=POSITIVE),
        mp.cbrt,
        (1e-9, 1e-3, 0.5, 3.0, 100.0, 1e4, 1e9),
    ),
    "probit": (custom(special.ndtri, special.ndtr, BETWEEN), mp.ncdf, (-8.0, -5.0, -1.0, 0.0, 0.4, 3.0, 6.0)),
    "canonical gamma": (
        custom(my_negated_inverse, my_negated_inverse, POSITIVE, eta_range=(-np.inf, 0.0)),
        lambda t: -1 / t,
        (-1e6, -30.0, -1.0, -0.01, -1e-7),
    ),
}


def test_which_inverses_take_complex_arrays() -> None:
    for name, (link, _, _) in MEANS.items():
        assert name == "probit" or link.analytic is not name.startswith("real")
    assert not custom(my_logit, expit_of_reals, BETWEEN).analytic
    # right on one side of 0 only
    assert not custom(my_log, lambda eta: np.where(np.real(eta) < 2.0, np.exp(eta), np.exp(np.abs(eta)))).analytic


@pytest.mark.parametrize("name", MEANS)
def test_derivatives(name: str) -> None:
    link, mean_of, etas = MEANS[name]
    eta = np.array(etas)
    mu, slope, rest = link.inverse(eta)
    curvature = link.curvature(eta)
    assert np.array_equal(rest, 1.0 - mu)
    with mp.workdps(60):
        for i, t in enumerate(etas):
            mean, first, second = (mp.diff(mean_of, mpf(t), order) for order in (0, 1, 2))
            assert abs(mu[i] - mean) <= 1e-13 * mean
            # per unit of eta, or per eta where that is large or next to the end of eta_range
            scale = min(max(1.0, abs(t)), *(abs(t - end) for end in link.eta_range if np.isfinite(end)), np.inf)
            far = FAR_OUT if abs(t) > 100.0 and link.eta_range == EVERYWHERE else 0.0
            if link.analytic:
                assert abs(slope[i] - first) <= COMPLEX_SLOPE * abs(first)
                assert abs(curvature[i] - second) <= max(COMPLEX_CURVATURE, far) * (abs(second) + abs(first) / scale)
            else:
                noise = abs(first) + mean / scale
                assert abs(slope[i] - first) <= max(REAL_SLOPE, far) * noise
                assert abs(curvature[i] - second) <= max(REAL_CURVATURE, far) * (abs(second) + noise / scale)


@pytest.mark.parametrize(
    "own, name",
    [(LOGIT, "logit"), (REAL_LOGIT, "logit"), (LOG, "log"), (REAL_LOG, "log")],
    ids=["logit", "real logit", "log", "real log"],
)
def test_equal_to_the_built_in(own: Custom, name: str) -> None:
    link = LINKS[name]()
    eta = MODERATE[MODERATE < 0.0] if name == "log" else MODERATE
    for ours, theirs in zip(own.inverse(eta), link.inverse(eta), strict=True):
        assert np.allclose(ours, theirs, rtol=AS_BUILT_IN, atol=0)
    assert np.allclose(own.link(own.inverse(eta)[0]), link.link(link.inverse(eta)[0]), rtol=AS_BUILT_IN, atol=1e-12)
    ours, theirs = own.rates(eta), link.rates(eta)
    for part in ("log_mu", "log_rest", "up", "down", "bend"):
        assert np.allclose(getattr(ours, part), getattr(theirs, part), rtol=AS_BUILT_IN, atol=AS_BUILT_IN * 1e-3)
    # every row of a likelihood, of probabilities and of counts
    family = FAMILIES["binomial" if name == "logit" else "poisson"]()
    for y in (0.0, 1.0):
        for information in ("expected", "observed"):
            mine = GLM(family, own).rows(np.full(eta.size, y), eta, 2, information)
            other = GLM(family, link).rows(np.full(eta.size, y), eta, 2, information)
            for part in ("loss", "score", "weight", "mu", "variance"):
                # the observed weight is the difference of two terms of the size of 1
                found, expected = getattr(mine, part), getattr(other, part)
                assert np.allclose(found, expected, rtol=AS_BUILT_IN, atol=AS_BUILT_IN), part
            assert mine.valid


@pytest.mark.parametrize("own", [LOGIT, REAL_LOGIT], ids=["complex", "real"])
def test_a_probability_that_rounds_to_1_spoils_no_sum(own: Custom) -> None:
    eta = np.array([36.0, 36.9, 38.0, 60.0, 800.0])
    for information in ("expected", "observed"):
        with np.errstate(all="ignore"):
            success = GLM(FAMILIES["binomial"](), own).rows(np.ones(eta.size), eta, 2, information)
            failure = GLM(FAMILIES["binomial"](), own).rows(np.zeros(eta.size), eta, 2, information)
        for part in (success.loss, success.score, success.weight):
            assert np.all(np.abs(part) < 1e-15)
        # as an impossible observation shows: the loss
        assert np.all(np.isinf(failure.loss) == (success.mu == 1.0))


def test_no_step_leaves_the_range_of_eta() -> None:
    seen: list[Any] = []

    def watched(eta: Any) -> Any:
        seen.append((np.min(np.real(eta)), np.max(np.real(eta))))
        return np.sqrt(np.abs(eta))

    link = custom(np.square, watched, POSITIVE, eta_range=(0.0, 4.0))
    link.inverse(np.array([1e-9, 2.0, 3.999999]))
    link.curvature(np.array([1e-9, 2.0, 3.999999]))
    assert len(seen) > 20
    assert all(low > 0.0 and high < 4.0 for low, high in seen)


def test_differences_of_a_cubic() -> None:
    eta = np.array([-2.0, 0.0, 0.5, 7.0])
    with np.errstate(all="raise"):
        assert np.allclose(differences(lambda x: x**3 - x, eta, EVERYWHERE, 1), 3 * eta**2 - 1, atol=1e-12)
        assert np.allclose(differences(lambda x: x**3 - x, eta, EVERYWHERE, 2), 6 * eta, atol=1e-11)
    assert differences(np.exp, np.zeros(0), EVERYWHERE, 1).shape == (0,)


def test_valid_is_inside_the_range_of_eta() -> None:
    eta = np.array([-1.0, 0.0, 0.5, 2.0, np.inf, np.nan])
    assert CUBE.valid(eta).tolist() == [False, False, True, True, False, False]
    assert CUBE.restricts
    assert LOG.valid(eta).tolist() == [True, True, True, True, False, False]
    assert not LOG.restricts


def test_name_and_path() -> None:
    assert LOGIT.path == (f"{HERE}:my_logit", f"{HERE}:my_expit")
    assert LOGIT.name == f"custom({HERE}:my_logit, {HERE}:my_expit)"
    assert LOGIT.formula == f"{HERE}:my_logit(mu)"
    assert (REAL_LOG.path, REAL_LOG.name, REAL_LOG.formula) == (None, "custom", f"{HERE}:my_log(mu)")
    assert custom(lambda mu: mu, lambda eta: eta).formula == "g(mu)"
    assert custom(my_logit, my_expit, name="mine").name == "mine"


def test_a_pickle_holds_paths_and_no_code() -> None:
    for link in (LOGIT, REAL_LOGIT, CUBE, custom(my_log, my_exp, [0, np.inf], "mine")):
        sent = pickle.dumps(link)
        assert pickle.loads(sent) == link
        paths = [
            text for text in (f"{HERE}:{f.__qualname__}".encode() for f in (link.g, link.g_inverse)) if text in sent
        ]
        assert len(paths) == 2


def test_what_has_no_path_is_not_sent() -> None:
    with pytest.raises(DesignError, match=r"the link custom is: put its functions into a module that can be imported"):
        pickle.dumps(REAL_LOG)


GOOD = {
    "logit": LOGIT,
    "real logit": REAL_LOGIT,
    "log": LOG,
    "cube": CUBE,
    "steep logit": custom(steep_logit, steep_expit, BETWEEN),
    "probit": custom(special.ndtri, special.ndtr, BETWEEN),
    "cloglog": custom(lambda mu: np.log(-np.log1p(-mu)), lambda eta: -np.expm1(-np.exp(eta)), BETWEEN),
    "loglog": custom(lambda mu: -np.log(-np.log(mu)), lambda eta: np.exp(-np.exp(-eta)), BETWEEN),
    "falling": custom(lambda mu: np.log1p(-mu), lambda eta: -np.expm1(eta), (-np.inf, 1.0)),
    "canonical gamma": custom(my_negated_inverse, my_negated_inverse, POSITIVE, eta_range=(-np.inf, 0.0)),
    "identity of probabilities": custom(lambda mu: mu, lambda eta: eta, BETWEEN, eta_range=BETWEEN),
    "far from 0": custom(lambda mu: mu + 1e6, lambda eta: eta - 1e6, POSITIVE, eta_range=(1e6, np.inf)),
    "of integers": custom(lambda mu: mu, lambda eta: eta),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_link_passes(name: str) -> None:
    verify_link(GOOD[name])


BAD = {
    "is not strictly monotone: its inverse gives 0 at eta = 0 and 0.00390625 at eta = 0.0625, where it should fall": custom(
        np.sqrt, lambda eta: eta * eta
    ),
    "monotone: its inverse gives 1 at eta = 1 and 1 at eta = 1.0625, where it should rise as between -3 and -2.9375": (
        custom(lambda mu: mu, lambda eta: np.minimum(np.real(eta), 1.0))
    ),
    "does not undo its inverse: the mean at eta = -3 is 0.04742587318, and the link of that is -1.301575": custom(
        lambda mu: my_logit(mu) * 0.43385850, my_expit, BETWEEN
    ),
    "the mean at eta = 1.414213562 is 1.122462048, and the link of that is 1.414213585, which should be 1.414213562": custom(
        lambda mu: mu**3 * (1.0 + np.where(mu > 1.1, 1.6e-8, 0.0)), my_cube_root, POSITIVE, eta_range=POSITIVE
    ),
    "the link of that is nan, which should be -3 again": custom(lambda mu: np.log(-mu), my_exp, POSITIVE),
    "gives nan at eta = -3 where there should be a finite mean: eta_range=": custom(my_cube, my_cube_root),
    "gives inf at eta = 0 where there": custom(lambda mu: 1.0 / mu, lambda eta: 1.0 / eta),
    r"gives 1.25 at eta = 1.25, which should be inside \(0, 1.25\): mean_range=": custom(
        lambda mu: mu, lambda eta: eta, (0.0, 1.25), eta_range=(0.0, 16.0)
    ),
    r"the inverse function of the link custom raised TypeError \(.*for an array of 97 numbers: write it with NumPy": (
        custom(my_log, lambda eta: float(eta))
    ),
    "the inverse function of the link custom gives bool of shape": custom(my_log, lambda eta: eta > 0),
    r"the link function of the link custom gives float64 of shape \(\) for an array": custom(
        lambda mu: np.sum(mu), my_exp, POSITIVE
    ),
}


@pytest.mark.parametrize("sentence", BAD)
def test_what_is_no_link_is_refused(sentence: str) -> None:
    with pytest.raises(DesignError, match=sentence):
        verify_link(BAD[sentence])


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"link": "log"}, "link='log' of the custom link is not a function"),
        ({"inverse": None}, "inverse=None of the custom link is not a function"),
        ({"mean_range": 3}, "mean_range=3 of the custom link is no interval"),
        ({"eta_range": (1.0, 0.0)}, r"eta_range=\(1.0, 0.0\) of the custom link is no interval"),
        ({"eta_range": (0.0, np.nan)}, r"eta_range=\(0.0, nan\) of the custom link is no interval"),
        ({"mean_range": ("0", "1")}, "of the custom link is no interval"),
        (
            {"name": "log"},
            "name='log' of the custom link: a text without parentheses that is the name of no other link",
        ),
        ({"name": "power(2.0)"}, r"name='power\(2.0\)' of the custom link"),
        ({"name": ""}, "name='' of the custom link"),
        ({"name": 2}, "name=2 of the custom link"),
    ],
)
def test_arguments_are_looked_at(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DesignError, match=sentence):
        custom(**({"link": my_log, "inverse": my_exp} | arguments))
