"""Links against the same formulas in mpmath."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from daskglm.errors import DesignError
from daskglm.model.links import LINKS, MAKERS, Link, Log, Power, power
from tests.laws.exact import DIGITS, EPS, FAMILIES, INVERSES, LEAST, TINY

# A result exp(t) inherits the rounding of t, so that its relative error grows with |log result|; beyond that, a handful
# of roundings.
ROUNDINGS = 8.0
# Slopes of the links are above 1e-3 on the moderate grid, so that a rounded mean moves eta by less than this.
THERE_AND_BACK = 1e-12
# A few roundings, and those of exponents t of up to 400 in exp(t).
RELATIVE = 1e-13
# 60 digits, for formulas in which nothing cancels.
FEWER_DIGITS = 60

EXPONENTS = (0.5, -1.0 / 3.0, 2.0, -2.0, 3.0)
BUILT: dict[str, Link] = {name: LINKS[name]() for name in LINKS} | {power(k).name: power(k) for k in EXPONENTS}
MEAN_OF: dict[str, Callable[[Any], Any]] = INVERSES | {
    power(k).name: lambda eta, k=k: mpf(eta) ** (1 / mpf(k)) for k in EXPONENTS
}
HALF = (1e-3, 0.4, 1.0, 2.5, 6.0, 20.0, 36.0, 40.0, 300.0, 700.0, 745.0, 800.0)
GRID = np.array([0.0, *HALF, *(-x for x in HALF)])
NEEDS_REST = sorted(
    {"loglog", "cauchit", "log_complement"}
    | {link for family in FAMILIES.values() if family().bounded for link in family().links}
)
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


@pytest.mark.parametrize("name", BUILT)
def test_mean(name: str) -> None:
    link = BUILT[name]
    mu, _, _ = link.inverse(etas(link))
    assert_accurate(mu, [MEAN_OF[name](mpf(eta)) for eta in etas(link)])


@pytest.mark.parametrize("name", BUILT)
def test_slope_is_the_derivative_of_the_mean(name: str) -> None:
    link = BUILT[name]
    _, slope, _ = link.inverse(etas(link))
    assert_accurate(slope, [mp.diff(MEAN_OF[name], mpf(eta)) for eta in etas(link)])


@pytest.mark.parametrize("name", NEEDS_REST)
def test_rest_is_one_minus_the_mean_without_cancellation(name: str) -> None:
    link = BUILT[name]
    _, _, rest = link.inverse(etas(link))
    assert_accurate(rest, [1 - MEAN_OF[name](mpf(eta)) for eta in etas(link)])


@pytest.mark.parametrize("name", BUILT)
def test_curvature_is_the_second_derivative_of_the_mean(name: str) -> None:
    link = BUILT[name]
    for eta, found in zip(etas(link), link.curvature(etas(link)), strict=True):
        exact = mp.diff(MEAN_OF[name], mpf(eta), 2)
        slope = abs(mp.diff(MEAN_OF[name], mpf(eta)))
        if abs(exact) > np.finfo(float).max:
            assert np.isinf(found)
            assert np.sign(found) == mp.sign(exact)
            continue
        # it may cross zero, so that the slope, with which it shares its factors, sets the scale
        size = abs(exact) + slope
        allowed = ROUNDINGS * EPS * (1 + abs(mp.log(size))) * size if size else mpf(0)
        assert abs(mpf(float(found)) - exact) <= allowed + TINY


@pytest.mark.parametrize("name", BUILT)
def test_link_undoes_the_inverse(name: str) -> None:
    link = BUILT[name]
    for mu, eta in zip(MEANS, link.link(MEANS), strict=True):
        if np.isinf(eta):
            # 1 / mu^2 of the smallest of them
            assert mu < np.finfo(float).max ** -0.5
            continue
        exact = MEAN_OF[name](mpf(float(eta)))
        slope = abs(mp.diff(MEAN_OF[name], mpf(float(eta))))
        allowed = ROUNDINGS * EPS * (mu + slope * (1 + abs(float(eta))))
        assert abs(exact - mpf(float(mu))) <= allowed, (mu, eta)


@pytest.mark.parametrize("name", BUILT)
def test_without_rest_the_others_are_the_same_bits(name: str) -> None:
    link = BUILT[name]
    eta = etas(link)
    for full, short in zip(link.inverse(eta)[:2], link.inverse(eta, False)[:2], strict=True):
        assert np.array_equal(full, short)


@pytest.mark.parametrize("name", BUILT)
def test_mean_range_is_what_the_inverse_gives(name: str) -> None:
    link = BUILT[name]
    low, high = link.mean_range
    means = [MEAN_OF[name](mpf(eta)) for eta in etas(link)]
    # at eta = 800 a mean is 1 to any number of digits
    assert all(low <= mean <= high for mean in means)
    assert all(low < mean < high for mean, eta in zip(means, etas(link), strict=True) if abs(eta) < 4.0)
    near = 1e-6
    ends = np.array([low + near if np.isfinite(low) else -1e3, high - near if np.isfinite(high) else 1e3])
    eta = link.link(ends)
    assert link.valid(eta).all()
    # 1 - 1e-6 has ten digits of its distance from 1
    assert np.allclose([float(MEAN_OF[name](mpf(v))) for v in eta], ends, rtol=0, atol=1e-9 * np.abs(ends))


@pytest.mark.parametrize("name", BUILT)
def test_valid_is_where_the_link_leads_back(name: str) -> None:
    link = BUILT[name]
    low, high = link.mean_range
    eta = np.array([-2.0, -1.0, -0.25, 0.0, 0.25, 1.0, 2.0])
    truth = []
    for value in eta:
        try:
            mean = np.array([float(MEAN_OF[name](mpf(float(value))))])
        except (ZeroDivisionError, TypeError):
            # no mean, or one of a root of a negative number
            truth.append(False)
            continue
        back = bool(low < mean[0] < high) and bool(abs(link.link(mean)[0] - value) <= THERE_AND_BACK)
        truth.append(back and mp.diff(MEAN_OF[name], value) != 0)
    assert link.valid(eta).tolist() == truth
    assert link.restricts is not all(truth)
    assert not link.valid(np.array([np.nan, np.inf, -np.inf])).any()


@pytest.mark.parametrize("name", BUILT)
def test_rates_of_probabilities_wherever_they_can_be_told_from_0_and_1(name: str) -> None:
    """log mu, log(1 - mu), mu'/mu, mu'/(1 - mu) and mu''/mu'."""
    link = BUILT[name]
    seen = 0
    for eta in (*GRID, 1.5, 3.0, 5.0, 6.75, 0.01, 0.99):
        mean = MEAN_OF[name](mpf(float(eta))) if link.valid(np.array([eta]))[0] else mpf(-1)
        if not min(mean, 1 - mean) > LEAST:
            continue
        seen += 1
        slope, bend = mp.diff(MEAN_OF[name], mpf(eta)), mp.diff(MEAN_OF[name], mpf(eta), 2)
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


def by_power(exponent: float) -> Callable[[Any], tuple[Any, ...]]:
    k = mpf(exponent)
    return lambda t: (t ** (1 / k), 1 - t ** (1 / k), t ** (1 / k) / (k * t), (1 / k - 1) / t)


# mu, 1 - mu, mu' and mu''/mu' by formulas in which nothing cancels.
IN_FULL: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "identity": lambda t: (t, 1 - t, mpf(1), mpf(0)),
    "log": lambda t: (mp.exp(t), -mp.expm1(t), mp.exp(t), mpf(1)),
    "logit": lambda t: (
        1 / (1 + mp.exp(-t)),
        1 / (1 + mp.exp(t)),
        1 / (2 + mp.exp(t) + mp.exp(-t)),
        -mp.tanh(t / 2),
    ),
    "probit": lambda t: (mp.erfc(-t / mp.sqrt(2)) / 2, mp.erfc(t / mp.sqrt(2)) / 2, mp.npdf(t), -t),
    "cloglog": lambda t: (-mp.expm1(-mp.exp(t)), mp.exp(-mp.exp(t)), mp.exp(t) * mp.exp(-mp.exp(t)), -mp.expm1(t)),
    "loglog": lambda t: (mp.exp(-mp.exp(-t)), -mp.expm1(-mp.exp(-t)), mp.exp(-t) * mp.exp(-mp.exp(-t)), mp.expm1(-t)),
    "cauchit": lambda t: (
        mp.atan2(1, -t) / mp.pi,
        mp.atan2(1, t) / mp.pi,
        1 / (mp.pi * (1 + t**2)),
        -2 * t / (1 + t**2),
    ),
    "log_complement": lambda t: (-mp.expm1(t), mp.exp(t), -mp.exp(t), mpf(1)),
    "inverse": lambda t: (1 / t, (t - 1) / t, -1 / t**2, -2 / t),
    "inverse_square": by_power(-2.0),
    "sqrt": by_power(0.5),
} | {power(k).name: by_power(k) for k in EXPONENTS}


@pytest.mark.parametrize("name", BUILT)
def test_formulas_in_full_are_derivatives_of_the_mean(name: str) -> None:
    """Those of the next test, against derivatives of the mean in as many digits as it takes."""
    for t in (mpf(x) for x in (-2.5, -0.75, 0.25, 0.875, 1.5) if BUILT[name].valid(np.array([x]))[0]):
        mean = MEAN_OF[name](t)
        slope, bend = mp.diff(MEAN_OF[name], t), mp.diff(MEAN_OF[name], t, 2)
        for found, truth in zip(IN_FULL[name](t), (mean, 1 - mean, slope, bend / slope), strict=True):
            assert mp.almosteq(found, truth, mpf(10) ** -FEWER_DIGITS, mpf(10) ** -FEWER_DIGITS)


@pytest.mark.parametrize("name", BUILT)
def test_probabilities_however_near_0_and_1(name: str) -> None:
    """Everything of a probability, relatively, wherever it is a normal number: at eta = 800 log(1 - mu) may be -1e-348,
    which is 0, or -1e347, which is infinite."""
    link = BUILT[name]
    seen = 0
    with mp.workdps(FEWER_DIGITS):
        for eta in (*GRID, 1.5, 3.0, 5.0, 6.5, 0.01, 0.99, 1.0 + 2.0**-30, 1.0 - 2.0**-30, -(2.0**-30), -3.5):
            if not link.valid(np.array([eta]))[0]:
                continue
            mu, rest, slope, bend = IN_FULL[name](mpf(float(eta)))
            if not (mu > 0 and rest > 0):
                continue
            seen += 1
            truth = {
                "mu": mu,
                "rest": rest,
                "slope": slope,
                "curvature": slope * bend,
                "log_mu": mp.log(mu) if mu < 0.5 else mp.log1p(-rest),
                "log_rest": mp.log(rest) if rest < 0.5 else mp.log1p(-mu),
                "up": slope / mu,
                "down": slope / rest,
                "bend": bend,
            }
            with np.errstate(all="ignore"):
                at = np.array([eta])
                rates = link.rates(at)
                found = dict(zip(("mu", "slope", "rest"), link.inverse(at), strict=True)) | {
                    part: getattr(rates, part) for part in ("log_mu", "log_rest", "up", "down", "bend")
                }
                found["curvature"] = link.curvature(at)
            # these two cross 0 at an eta of no distinction, and count beside what they are differences of
            beside = {"bend": mpf(1), "curvature": abs(slope)}
            for part, exact in truth.items():
                value = mpf(float(found[part][0]))
                if abs(exact) > np.finfo(float).max:
                    assert abs(value) >= np.finfo(float).max, (part, eta)
                    assert mp.sign(value) == mp.sign(exact), (part, eta)
                    continue
                assert abs(value - exact) <= RELATIVE * (abs(exact) + beside.get(part, 0)) + TINY, (part, eta)
            with np.errstate(all="ignore"):
                # which a likelihood multiplies, however far out
                assert (rates.up * rates.down >= 0.0).all()
    assert seen >= 4


def test_power_0_is_the_log() -> None:
    assert power(0) == power(0.0) == Log()
    # (mu^k - 1) / k tends to it
    mu, k = np.array([0.2, 1.0, 7.0]), 1e-7
    assert np.allclose((power(k).link(mu) - 1.0) / k, Log().link(mu), atol=1e-6)


@pytest.mark.parametrize("exponent, name", [(0.5, "sqrt"), (-1, "inverse"), (-2, "inverse_square")])
def test_powers_with_names_of_their_own(exponent: float, name: str) -> None:
    eta = np.array([1e-3, 0.3, 1.0, 2.5, 40.0])
    found, expected = power(exponent), LINKS[name]()
    for ours, theirs in zip(found.inverse(eta), expected.inverse(eta), strict=True):
        assert np.allclose(ours, theirs, rtol=RELATIVE)
    assert np.allclose(found.curvature(eta), expected.curvature(eta), rtol=RELATIVE)
    assert np.allclose(found.link(eta), expected.link(eta), rtol=RELATIVE)
    assert not found.valid(-eta).any()


@pytest.mark.parametrize("exponent", [0.5, 1 / 3, -1 / 3, 2, np.float64(0.1), 1e-300])
def test_the_name_of_a_power_can_be_read_back(exponent: float) -> None:
    link = power(exponent)
    maker, _, number = link.name.removesuffix(")").partition("(")
    assert MAKERS[maker](float(number)) == link == Power(float(exponent))


@pytest.mark.parametrize("exponent", ["2", None, True, np.nan, np.inf])
def test_the_exponent_of_a_power_is_a_number(exponent: Any) -> None:
    with pytest.raises(DesignError, match="the exponent of a power link is a"):
        power(exponent)


@pytest.mark.parametrize("name", BUILT)
def test_means_run_one_way_on_either_side_of_a_pole(name: str) -> None:
    link = BUILT[name]
    for eta in (np.linspace(-3.0, -0.01, 40), np.linspace(0.01, 3.0, 40)):
        if link.valid(eta).all():
            mu, slope, _ = link.inverse(eta)
            assert np.all(np.sign(np.diff(mu)) == np.sign(slope[0]))
            assert np.all(np.sign(slope) == np.sign(slope[0]))


def test_names_are_their_keys() -> None:
    assert {name: LINKS[name]().name for name in LINKS} == {name: name for name in LINKS}
    assert set(INVERSES) == set(LINKS) | {"power(0.3)"}
