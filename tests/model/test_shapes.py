"""Parameters beside the coefficients: log densities and their derivatives against mpmath, row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from daskglm.model.counts import NegativeBinomial
from daskglm.model.families import Binomial, Gamma, Gaussian, InverseGaussian, Poisson
from daskglm.model.likelihoods import GLM
from daskglm.model.links import Log, Sqrt
from daskglm.model.power import Tweedie
from daskglm.model.shapes import THETA_LIMIT, Dispersion, PowerAndDispersion, Shape, Theta, shape_of

# Sums of log-gammas of up to a few thousand, and of digammas, whose differences cancel in part.
DENSITY = 1e-11
DERIVATIVES = 1e-9
# The power's derivatives are differences with steps of 0.01: 2e-9 of a fifth derivative, 2e-9 of a sixth; and the
# rounding of the density over the step or its square.
POWER, POWER_TWICE = 1e-7, 1e-5
DIGITS = 40

WEIGHTS = (1.0, 0.4, 3.0)


def negative_binomial(y: Any, mu: Any, w: Any, psi: Any) -> Any:
    """Of the total of w observations, each with theta = exp(psi)."""
    a, c, m = w * mp.exp(psi[0]), w * y, w * mu
    ways = mp.loggamma(c + a) - mp.loggamma(a) - mp.loggamma(c + 1)
    return ways + a * mp.log(a / (a + m)) + (c * mp.log(m / (a + m)) if c else 0)


def gamma(y: Any, mu: Any, w: Any, psi: Any) -> Any:
    k = w / mp.exp(psi[0])
    return k * mp.log(k * y / mu) - k * y / mu - mp.log(y) - mp.loggamma(k)


def inverse_gaussian(y: Any, mu: Any, w: Any, psi: Any) -> Any:
    phi = mp.exp(psi[0]) / w
    return -mp.log(2 * mp.pi * phi * y**3) / 2 - (y - mu) ** 2 / (2 * phi * mu**2 * y)


def gaussian(y: Any, mu: Any, w: Any, psi: Any) -> Any:
    phi = mp.exp(psi[0]) / w
    return -mp.log(2 * mp.pi * phi) / 2 - (y - mu) ** 2 / (2 * phi)


def tweedie(y: Any, mu: Any, w: Any, psi: Any) -> Any:
    """A Poisson number of gamma amounts, summed over the number."""
    p, phi = 1 + 1 / (1 + mp.exp(-psi[0])), mp.exp(psi[1]) / w
    rate, shape, scale = mu ** (2 - p) / (phi * (2 - p)), (2 - p) / (p - 1), phi * (p - 1) * mu ** (p - 1)
    if y == 0:
        return -rate
    total, log_rate, log_y = mpf(0), mp.log(rate), mp.log(y / scale)
    for j in range(1, 400):
        term = mp.exp(j * log_rate - mp.loggamma(j + 1) - mp.loggamma(j * shape) + j * shape * log_y)
        total += term
        # terms rise to one largest, and fall for ever
        if term < total * mp.eps:
            break
    return mp.log(total) - rate - y / scale - mp.log(y)


COUNTS, MEANS = (0.0, 1.0, 4.0, 70.0), (0.3, 2.5, 60.0)
SIZES = (0.05, 0.8, 9.0)
# The shape, its log density, responses, and values of psi.
CASES: dict[str, tuple[Shape, Callable[..., Any], tuple[float, ...], list[list[float]]]] = {
    "theta": (Theta(NegativeBinomial()), negative_binomial, COUNTS, [[-3.0], [0.0], [2.0], [9.0]]),
    "gamma": (Dispersion(Gamma()), gamma, SIZES, [[-4.0], [0.3], [2.0]]),
    "inverse gaussian": (Dispersion(InverseGaussian()), inverse_gaussian, SIZES, [[-4.0], [0.3], [2.0]]),
    "gaussian": (Dispersion(Gaussian()), gaussian, (-2.0, 0.0, 5.0), [[-4.0], [0.3], [2.0]]),
    "tweedie": (PowerAndDispersion(Tweedie()), tweedie, (0.0, 0.05, 0.8, 4.0), [[0.0, 0.2], [-1.2, -0.4]]),
}


@pytest.mark.parametrize("w", WEIGHTS)
@pytest.mark.parametrize("name", CASES)
def test_log_density_and_its_derivatives(name: str, w: float) -> None:
    shape, exact, responses, psis = CASES[name]
    y, mu = (part.ravel() for part in np.meshgrid(responses, MEANS if name == "theta" else (0.4, 2.5)))
    w_of_row = np.full(y.size, w)
    for psi in psis:
        found = shape.terms(y.copy(), mu, 1.0 if w == 1.0 else w_of_row, np.array(psi))
        s = len(psi)
        assert found.value.shape == y.shape
        assert found.gradient.shape == (s, y.size)
        assert found.hessian.shape == (s, s, y.size)
        with mp.workdps(DIGITS):
            at = [mpf(v) for v in psi]
            for i in range(y.size):

                def value(*point: Any, i: int = i) -> Any:
                    return exact(mpf(y[i]), mpf(mu[i]), mpf(w), point)

                truth = value(*at)
                size = 1.0 + abs(float(truth)) + y[i] + mu[i]
                assert abs(found.value[i] - float(truth)) <= DENSITY * size, (y[i], mu[i], psi)
                for j in range(s):
                    first, second = (DERIVATIVES, DERIVATIVES) if name != "tweedie" or j else (POWER, POWER_TWICE)
                    order = tuple(int(k == j) for k in range(s))
                    slope = float(mp.diff(value, tuple(at), order))
                    assert abs(found.gradient[j, i] - slope) <= first * size, (y[i], mu[i], psi, j)
                    for k in range(j, s):
                        twice = tuple(int(m == j) + int(m == k) for m in range(s))
                        bend = float(mp.diff(value, tuple(at), twice))
                        assert abs(found.hessian[j, k, i] - bend) <= second * size, (y[i], mu[i], psi, j, k)
                        assert found.hessian[j, k, i] == found.hessian[k, j, i]


@pytest.mark.parametrize("name", CASES)
def test_values_and_their_slopes(name: str) -> None:
    """From psi to the parameters users know, and what the delta method needs."""
    shape, _, _, psis = CASES[name]
    words: dict[str, Callable[[Any], list[Any]]] = {
        "theta": lambda psi: [mp.exp(psi[0])],
        "gamma": lambda psi: [mp.exp(-psi[0])],
        "tweedie": lambda psi: [1 + 1 / (1 + mp.exp(-psi[0])), mp.exp(psi[1])],
    }
    exact = words.get(name, lambda psi: [mp.exp(psi[0])])
    for psi in psis:
        truth = [float(v) for v in exact([mpf(v) for v in psi])]
        assert np.allclose(shape.values(np.array(psi)), truth, rtol=1e-14)
        for j, slope in enumerate(shape.slopes(np.array(psi))):

            def value(t: Any, j: int = j, psi: list[float] = psi) -> Any:
                return exact([t if k == j else mpf(v) for k, v in enumerate(psi)])[j]

            assert float(mp.diff(value, mpf(psi[j]))) == pytest.approx(slope, rel=1e-12)


def test_names_and_dispersions() -> None:
    psi = np.array([0.5])
    assert Theta(NegativeBinomial()).names == ("theta",)
    assert Theta(NegativeBinomial()).phi(psi) == 1.0
    assert Dispersion(Gamma()).names == ("shape",)
    assert Dispersion(Gaussian()).names == Dispersion(InverseGaussian()).names == ("dispersion",)
    assert Dispersion(Gamma()).phi(psi) == pytest.approx(np.exp(0.5))
    both = PowerAndDispersion(Tweedie())
    assert both.names == ("power", "dispersion")
    assert both.phi(np.array([0.0, 0.5])) == pytest.approx(np.exp(0.5))
    assert both.family(np.array([0.0, 0.5])) == Tweedie(1.5)


@pytest.mark.parametrize(
    "family, dispersion, shape",
    [
        (NegativeBinomial(), None, Theta),
        (NegativeBinomial(2.0), None, None),
        (Tweedie(), None, PowerAndDispersion),
        (Tweedie(1.5), None, None),
        (Tweedie(1.5), "ml", Dispersion),
        (Gamma(), "ml", Dispersion),
        (Gamma(), "pearson", None),
        (Gamma(), 2.0, None),
        (Poisson(), None, None),
        (Binomial(), None, None),
    ],
)
def test_what_is_estimated_beside_the_coefficients(family: Any, dispersion: Any, shape: Any) -> None:
    found = shape_of(family, dispersion)
    assert (None if found is None else type(found)) is shape


def test_beyond_its_limit_theta_is_infinite() -> None:
    theta = Theta(NegativeBinomial(name="mine"))
    near, beyond = np.log([0.9 * THETA_LIMIT, 1.1 * THETA_LIMIT])[:, None]
    assert theta.values(near)[0] == pytest.approx(0.9 * THETA_LIMIT)
    assert theta.values(beyond)[0] == np.inf
    assert theta.family(beyond) == NegativeBinomial(np.inf, name="mine")
    assert theta.family(near).theta == pytest.approx(0.9 * THETA_LIMIT)


@pytest.mark.parametrize("psi", [0.5, 2.0, 5.0])
def test_theta_is_also_looked_for_by_a_step_in_its_inverse(psi: float) -> None:
    """u - l'(u) / l''(u) at u = 1 / theta, of the log-likelihood of a few counts."""
    y, mu = np.array([0.0, 2.0, 3.0, 1.0, 4.0, 7.0]), np.full(6, 2.4)
    theta = Theta(NegativeBinomial())
    terms = theta.terms(y, mu, 1.0, np.array([psi]))
    gradient, hessian = terms.gradient.sum(axis=1), terms.hessian.sum(axis=2)
    guesses = theta.guesses(np.array([psi]), gradient, hessian)
    with mp.workdps(DIGITS):

        def value(u: Any) -> Any:
            return mp.fsum(negative_binomial(mpf(a), mpf(b), mpf(1), [-mp.log(u)]) for a, b in zip(y, mu, strict=True))

        u = mp.exp(-mpf(psi))
        first, second = mp.diff(value, u), mp.diff(value, u, 2)
        if second >= 0:
            assert guesses == []
            return
        step = u - first / second
    expected = np.log(THETA_LIMIT) if step <= 0 else min(-float(mp.log(step)), np.log(THETA_LIMIT))
    assert guesses[0][0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "shape, link, y",
    [
        (Theta(NegativeBinomial()), Log(), 3.0),
        (Theta(NegativeBinomial()), Sqrt(), 3.0),
        (PowerAndDispersion(Tweedie()), Log(), 0.0),
        (PowerAndDispersion(Tweedie()), Log(), 2.3),
        (Dispersion(Gamma()), Log(), 2.3),
    ],
)
def test_score_slopes_are_those_of_the_score(shape: Shape, link: Any, y: float) -> None:
    """d log|score of eta| / d psi, the score being that of the density: at phi."""
    psi = np.array([0.3, -0.4])[: len(shape.names)]
    eta = np.array([0.2, 1.1])

    def log_score(at: np.ndarray) -> np.ndarray:
        terms = GLM(shape.family(at), link).rows(np.full(2, y), eta, 1)
        return np.log(np.abs(terms.score) / shape.phi(at))

    mu = GLM(shape.family(psi), link).mean_of(eta)
    step = 2.0**-9
    for j, slopes in enumerate(shape.score_slopes(mu, psi)):
        at = [log_score(psi + k * step * np.eye(psi.size)[j]) for k in (-2, -1, 1, 2)]
        assert np.allclose(slopes, (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step), rtol=0, atol=DERIVATIVES)
