"""Links against the same formulas in mpmath."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from daskglm.model.links import LINKS, Link
from tests.laws.exact import DIGITS, EPS, FAMILIES, INVERSES, LEAST, TINY, mean_of

# A result exp(t) inherits the rounding of t, so that its relative error grows with |log result|; beyond that, a handful
# of roundings.
ROUNDINGS = 8.0
# Slopes of the links are above 1e-3 on the moderate grid, so that a rounded mean moves eta by less than this.
THERE_AND_BACK = 1e-12

HALF = (1e-3, 0.4, 1.0, 2.5, 6.0, 20.0, 36.0, 40.0, 300.0, 700.0, 745.0, 800.0)
GRID = np.array([0.0, *HALF, *(-x for x in HALF)])
NEEDS_REST = sorted({link for family in FAMILIES.values() if family().bounded for link in family().links})
MEANS = np.array([1e-300, 1e-12, 0.01, 0.3, 0.5, 0.63, 0.9, 1.0 - 2.0**-30])


@pytest.fixture(autouse=True)
def _digits() -> Any:
    with mp.workdps(DIGITS):
        yield


def etas(link: Link) -> np.ndarray:
    return GRID[link.valid(GRID)]


def assert_accurate(found: np.ndarray, truth: list[Any]) -> None:
    """Relative accuracy down to the smallest normal number, and overflow to infinity."""
    assert found.shape == (len(truth),)
    for value, exact in zip(found, truth, strict=True):
        if abs(exact) > np.finfo(float).max:
            assert np.isposinf(abs(value))
            assert np.sign(value) == mp.sign(exact)
            continue
        size = abs(exact)
        allowed = ROUNDINGS * EPS * (1.0 + float(abs(mp.log(size)))) * size if size else mpf(0)
        assert abs(mpf(float(value)) - exact) <= allowed + TINY, (value, mp.nstr(exact, 17))


@pytest.mark.parametrize("name", LINKS)
def test_mean(name: str) -> None:
    link = LINKS[name]()
    mu, _, _ = link.inverse(etas(link))
    assert_accurate(mu, [INVERSES[name](mpf(eta)) for eta in etas(link)])


@pytest.mark.parametrize("name", LINKS)
def test_slope_is_the_derivative_of_the_mean(name: str) -> None:
    link = LINKS[name]()
    _, slope, _ = link.inverse(etas(link))
    assert_accurate(slope, [mp.diff(INVERSES[name], mpf(eta)) for eta in etas(link)])


@pytest.mark.parametrize("name", NEEDS_REST)
def test_rest_is_one_minus_the_mean_without_cancellation(name: str) -> None:
    link = LINKS[name]()
    _, _, rest = link.inverse(etas(link))
    assert_accurate(rest, [1 - INVERSES[name](mpf(eta)) for eta in etas(link)])


@pytest.mark.parametrize("name", LINKS)
def test_curvature_is_the_second_derivative_of_the_mean(name: str) -> None:
    link = LINKS[name]()
    for eta, found in zip(etas(link), link.curvature(etas(link)), strict=True):
        exact = mp.diff(INVERSES[name], mpf(eta), 2)
        slope = abs(mp.diff(INVERSES[name], mpf(eta)))
        if abs(exact) > np.finfo(float).max:
            assert np.isposinf(found)
            continue
        # it may cross zero, so that the slope, with which it shares its factors, sets the scale
        size = abs(exact) + slope
        allowed = ROUNDINGS * EPS * (1 + abs(mp.log(size))) * size if size else mpf(0)
        assert abs(mpf(float(found)) - exact) <= allowed + TINY


@pytest.mark.parametrize("name", LINKS)
def test_link_undoes_the_inverse(name: str) -> None:
    link = LINKS[name]()
    for mu, eta in zip(MEANS, link.link(MEANS), strict=True):
        exact = INVERSES[name](mpf(float(eta)))
        slope = abs(mp.diff(INVERSES[name], mpf(float(eta))))
        allowed = ROUNDINGS * EPS * (mu + slope * (1 + abs(float(eta))))
        assert abs(exact - mpf(float(mu))) <= allowed, (mu, eta)


@pytest.mark.parametrize("name", LINKS)
def test_without_rest_the_others_are_the_same_bits(name: str) -> None:
    link = LINKS[name]()
    eta = etas(link)
    for full, short in zip(link.inverse(eta)[:2], link.inverse(eta, False)[:2], strict=True):
        assert np.array_equal(full, short)


@pytest.mark.parametrize("name", LINKS)
def test_mean_range_is_what_the_inverse_gives(name: str) -> None:
    link = LINKS[name]()
    low, high = link.mean_range
    means = [INVERSES[name](mpf(eta)) for eta in etas(link)]
    # at eta = 800 a mean is 1 to any number of digits
    assert all(low <= mean <= high for mean in means)
    assert all(low < mean < high for mean, eta in zip(means, etas(link), strict=True) if abs(eta) < 4.0)
    near = 1e-5
    assert min(means) < (low + near if np.isfinite(low) else -100.0)
    assert max(means) > (high - near if np.isfinite(high) else 100.0)


@pytest.mark.parametrize("name", LINKS)
def test_valid_is_where_the_link_leads_back(name: str) -> None:
    link = LINKS[name]()
    eta = np.array([-2.0, -1.0, -0.25, 0.0, 0.25, 1.0, 2.0])
    truth = []
    for value in eta:
        try:
            mean = np.array([float(INVERSES[name](mpf(float(value))))])
        except ZeroDivisionError:
            truth.append(False)
            continue
        truth.append(bool(abs(link.link(mean)[0] - value) <= THERE_AND_BACK) and mp.diff(INVERSES[name], value) != 0)
    assert link.valid(eta).tolist() == truth
    assert link.restricts is not all(truth)
    assert not link.valid(np.array([np.nan, np.inf, -np.inf])).any()


@pytest.mark.parametrize("name", LINKS)
def test_rates_of_probabilities_wherever_they_can_be_told_from_0_and_1(name: str) -> None:
    """log mu, log(1 - mu), mu'/mu, mu'/(1 - mu) and mu''/mu'."""
    link = LINKS[name]()
    seen = 0
    for eta in (*GRID, 1.5, 3.0, 5.0, 6.75, 0.01, 0.99):
        mean = mean_of(name, float(eta))
        if mean is None or not min(mean, 1 - mean) > LEAST:
            continue
        seen += 1
        slope, bend = mp.diff(INVERSES[name], mpf(eta)), mp.diff(INVERSES[name], mpf(eta), 2)
        truth = {
            "log_mu": mp.log(mean),
            "log_rest": mp.log(1 - mean),
            "up": slope / mean,
            "down": slope / (1 - mean),
            "bend": bend / slope,
        }
        with np.errstate(all="ignore"):
            found = link.rates(np.array([eta]))
        for part, exact in truth.items():
            value = mpf(float(getattr(found, part)[0]))
            # logs beside 0 and differences like (1 - mu) - mu count absolutely, ratios relatively
            size = abs(exact) + (part in ("log_mu", "log_rest", "bend"))
            assert abs(value - exact) <= ROUNDINGS * EPS * (1 + abs(mp.log(abs(slope)))) * size + TINY, (part, eta)
    assert seen >= 4


def test_names_are_their_keys() -> None:
    assert {name: LINKS[name]().name for name in LINKS} == {name: name for name in INVERSES}
