"""Parameters beside the coefficients, estimated by maximum likelihood at given means: theta, power, dispersion.

Each works on a scale psi without bounds and gives, per row, the log density and its derivatives in psi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.model.counts import NegativeBinomial
from daskglm.model.family import Family, Vector, by_value, log_density
from daskglm.model.power import Tweedie

Matrix = npt.NDArray[np.float64]

# Beyond this, theta cannot be told from infinity, and its derivatives are rounding.
THETA_LIMIT = 1e7
# The logit of the power less 1 stays within this, the power between 1.01 and 1.99: nearer to its ends the density is nearly
# that of multiples of phi, or of a gamma distribution, and its likelihood grows without bound where the data are not.
POWER_LIMIT = float(np.log(99.0))
# Step of the differences in the logit of the power; the error of the five-point formula is of its fourth order.
POWER_STEP = 0.01


@final
@dataclass(slots=True)
class ShapeTerms:
    """log density (n,), and its first (s, n) and second (s, s, n) derivatives in psi."""

    value: Vector
    gradient: Matrix
    hessian: npt.NDArray[np.float64]


class Shape(Protocol):
    """s parameters beside the coefficients."""

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called."""

    @property
    def moves_means(self) -> bool:
        """Whether the coefficients depend on them, so that both are solved in turn."""

    @property
    def joint(self) -> bool:
        """Whether their errors count that the coefficients are estimated, too."""

    @property
    def costly(self) -> bool:
        """Whether their likelihood costs several times what a Gram of the coefficients does."""

    def score_slopes(self, mu: Vector, psi: Vector) -> Matrix:
        """dlog|score of eta|/dpsi (s, n), which says how the two sets of estimates hang together."""

    def start(self, phi: float) -> Vector:
        """psi to begin with (s,), phi being a rough dispersion."""

    def family(self, psi: Vector) -> Family:
        """The family at psi."""

    def phi(self, psi: Vector) -> float:
        """The dispersion at psi."""

    def values(self, psi: Vector) -> Vector:
        """The parameters themselves (s,)."""

    def slopes(self, psi: Vector) -> Vector:
        """dvalue/dpsi (s,)."""

    def terms(self, y: Vector, mu: Vector, w: Vector | float, psi: Vector) -> ShapeTerms:
        """Per row, with variance weights w."""

    def guesses(self, psi: Vector, gradient: Vector, hessian: Matrix) -> list[Vector]:
        """Where the maximum may be besides at the Newton step in psi."""

    def within(self, psi: Vector) -> Vector:
        """psi (..., s), no further than the parameters go."""

    def held(self, psi: Vector, gradient: Vector) -> npt.NDArray[np.bool_]:
        """Which of them (s,) are at the end of their range, with a likelihood that rises beyond."""

    @property
    def at_end(self) -> str:
        """What it means that one is held."""

    def ways_back(self, psi: Vector) -> list[Vector]:
        """From an end that a sample, or other coefficients, ran to: where something nearer may be likelier."""


@final
@dataclass(frozen=True)
class Theta:
    """theta of a negative binomial, psi = log theta. With a = w theta, c = w y, m = w mu:

    dl/da = digamma(c + a) - digamma(a) - log(1 + m / a) + (m - c) / (m + a);
    d2l/da2 = trigamma(c + a) - trigamma(a) + 1 / a - 2 / (m + a) + (c + a) / (m + a)^2 (as MASS::theta.ml).
    """

    base: NegativeBinomial
    names: tuple[str, ...] = ("theta",)
    moves_means: bool = True
    # as MASS::glm.nb
    joint: bool = False
    costly: bool = False
    at_end: str = "theta is infinite: the counts are no more dispersed than those of a Poisson distribution"

    def score_slopes(self, mu: Vector, psi: Vector) -> Matrix:
        return (mu / (mu + np.exp(psi[0])))[None]

    def start(self, phi: float) -> Vector:
        return np.zeros(1)

    def family(self, psi: Vector) -> Family:
        theta = float(np.exp(psi[0]))
        return self.base.with_theta(theta if theta < THETA_LIMIT else np.inf)

    def phi(self, psi: Vector) -> float:
        return 1.0

    def values(self, psi: Vector) -> Vector:
        theta = np.exp(psi)
        return np.where(theta < THETA_LIMIT, theta, np.inf)

    def slopes(self, psi: Vector) -> Vector:
        return self.values(psi)

    def guesses(self, psi: Vector, gradient: Vector, hessian: Matrix) -> list[Vector]:
        # the Newton step in 1 / theta, in which the log-likelihood is nearly quadratic where theta is large
        bend = float(hessian[0, 0] + gradient[0])
        ratio = 1.0 + float(gradient[0]) / bend if bend < 0 else np.nan
        if not np.isfinite(ratio):
            return []
        limit = np.log(THETA_LIMIT)
        return [np.array([min(psi[0] - np.log(ratio), limit) if ratio > 0 else limit])]

    def within(self, psi: Vector) -> Vector:
        return psi

    def held(self, psi: Vector, gradient: Vector) -> npt.NDArray[np.bool_]:
        # infinity, where the negative binomial is Poisson; derivatives there are rounding
        return psi >= np.log(THETA_LIMIT)

    def ways_back(self, psi: Vector) -> list[Vector]:
        at_end = bool(psi[0] >= np.log(THETA_LIMIT))
        return [np.array([value]) for value in np.log([1.0, 10.0, 1e2, 1e3, 1e4, 1e5])] if at_end else []

    def terms(self, y: Vector, mu: Vector, w: Vector | float, psi: Vector) -> ShapeTerms:
        from scipy.special import digamma, polygamma

        theta = float(np.exp(psi[0]))
        family = self.base.with_theta(theta)
        value = log_density(family, y.copy(), mu, 1.0, w)
        size, count, mean = w * theta, w * y, w * mu
        if isinstance(w, float) and w == 1.0:
            first = by_value(lambda c: np.asarray(digamma(c + theta) - digamma(theta)), y)
            second = by_value(lambda c: np.asarray(polygamma(1, c + theta) - polygamma(1, theta)), y)
        else:
            first = np.asarray(digamma(count + size) - digamma(size))
            second = np.asarray(polygamma(1, count + size) - polygamma(1, size))
        total = mean + size
        slope = first - np.log1p(mean / size) + (mean - count) / total
        bend = second + 1.0 / size - 2.0 / total + (count + size) / (total * total)
        return ShapeTerms(value, (size * slope)[None], (size * size * bend + size * slope)[None, None])


@final
@dataclass(frozen=True)
class PowerAndDispersion:
    """Power and dispersion of a Tweedie family with 1 < power < 2: psi = (logit(power - 1), log phi).

    Derivatives in the power by the five-point formula, those in log phi as the density gives them.
    """

    base: Tweedie
    names: tuple[str, ...] = ("power", "dispersion")
    moves_means: bool = True
    joint: bool = True
    costly: bool = True
    at_end: str = (
        "power lies at an end of the range it is sought in, 1.01 to 1.99, and has no standard error: towards 1 the data are "
        "like counts times a constant, towards 2 like a gamma family"
    )

    def score_slopes(self, mu: Vector, psi: Vector) -> Matrix:
        return np.stack([-np.log(mu) * self.slopes(psi)[0], np.full_like(mu, -1.0)])

    def start(self, phi: float) -> Vector:
        return np.array([0.0, np.log(phi)])

    def power(self, psi: Vector) -> float:
        """The power at psi."""
        return 1.0 + 1.0 / (1.0 + float(np.exp(-psi[0])))

    def family(self, psi: Vector) -> Family:
        return self.base.with_power(self.power(psi))

    def phi(self, psi: Vector) -> float:
        return float(np.exp(psi[1]))

    def values(self, psi: Vector) -> Vector:
        return np.array([self.power(psi), self.phi(psi)])

    def slopes(self, psi: Vector) -> Vector:
        q = self.power(psi) - 1.0
        return np.array([q * (1.0 - q), self.phi(psi)])

    def guesses(self, psi: Vector, gradient: Vector, hessian: Matrix) -> list[Vector]:
        return []

    def within(self, psi: Vector) -> Vector:
        result = np.array(psi)
        result[..., 0] = np.clip(result[..., 0], -POWER_LIMIT, POWER_LIMIT)
        return result

    def held(self, psi: Vector, gradient: Vector) -> npt.NDArray[np.bool_]:
        at_end = abs(psi[0]) >= POWER_LIMIT and gradient[0] * psi[0] > 0.0
        return np.array([at_end, False])

    def ways_back(self, psi: Vector) -> list[Vector]:
        return [np.array([0.0, psi[1]])] if abs(psi[0]) >= POWER_LIMIT else []

    def terms(self, y: Vector, mu: Vector, w: Vector | float, psi: Vector) -> ShapeTerms:
        positive = y > 0
        if bool(positive.all()):
            return _by_differences([self._density(y, mu, w, psi, k) for k in (-2, -1, 0, 1, 2)])
        # most rows of a pure premium are zeros, whose density is one exponential
        logarithm = np.log(mu)
        found = _by_differences([self._of_zeros(logarithm, w, psi, k) for k in (-2, -1, 0, 1, 2)])
        at = np.flatnonzero(positive)
        size = w[at] if isinstance(w, np.ndarray) else w
        others = _by_differences([self._density(y[at], mu[at], size, psi, k) for k in (-2, -1, 0, 1, 2)])
        found.value[at] = others.value
        found.gradient[:, at] = others.gradient
        found.hessian[:, :, at] = others.hessian
        return found

    def _density(self, y: Vector, mu: Vector, w: Vector | float, psi: Vector, k: int) -> tuple[Vector, Vector, Vector]:
        """log density and its derivatives in log phi, k steps of the power away."""
        family, phi = self.family(psi + np.array([k * POWER_STEP, 0.0])), self.phi(psi)
        saturated, first, second = family.saturated_derivatives(y, w, phi)
        half = 0.5 * w * family.unit_deviance(y, mu, mu) / phi
        return saturated - half, first + half, second - half

    def _of_zeros(self, log_mu: Vector, w: Vector | float, psi: Vector, k: int) -> tuple[Vector, Vector, Vector]:
        """The same of y = 0: log p = -w mu^(2 - p) / ((2 - p) phi)."""
        left = 2.0 - self.power(psi + np.array([k * POWER_STEP, 0.0]))
        rate = w * np.exp(left * log_mu) / (left * self.phi(psi))
        return -rate, rate, -rate


def _by_differences(at: list[tuple[Vector, Vector, Vector]]) -> ShapeTerms:
    """Terms from values, first and second derivatives in log phi at five powers, a step apart."""
    h = POWER_STEP
    v, s, bend = [one[0] for one in at], [one[1] for one in at], at[2][2]
    in_power = (v[0] - 8.0 * v[1] + 8.0 * v[3] - v[4]) / (12.0 * h)
    twice = (-v[0] + 16.0 * v[1] - 30.0 * v[2] + 16.0 * v[3] - v[4]) / (12.0 * h * h)
    both = (s[0] - 8.0 * s[1] + 8.0 * s[3] - s[4]) / (12.0 * h)
    return ShapeTerms(v[2].copy(), np.stack([in_power, s[2]]), np.array([[twice, both], [both, bend]]))


@final
@dataclass(frozen=True)
class Dispersion:
    """The dispersion by maximum likelihood, psi = log phi; of a gamma family its shape 1 / phi. The coefficients do not
    depend on it.
    """

    base: Family
    moves_means: bool = False
    at_end: str = ""
    # at the optimum the score is zero whatever phi
    joint: bool = False
    costly: bool = False

    def score_slopes(self, mu: Vector, psi: Vector) -> Matrix:
        return np.full((1, mu.size), -1.0)

    @property
    def names(self) -> tuple[str, ...]:
        return ("shape",) if self.base.name == "gamma" else ("dispersion",)

    def start(self, phi: float) -> Vector:
        return np.array([np.log(phi)])

    def family(self, psi: Vector) -> Family:
        return self.base

    def phi(self, psi: Vector) -> float:
        return float(np.exp(psi[0]))

    def values(self, psi: Vector) -> Vector:
        return np.exp(-psi if self.base.name == "gamma" else psi)

    def guesses(self, psi: Vector, gradient: Vector, hessian: Matrix) -> list[Vector]:
        return []

    def within(self, psi: Vector) -> Vector:
        return psi

    def held(self, psi: Vector, gradient: Vector) -> npt.NDArray[np.bool_]:
        return np.zeros(psi.size, bool)

    def ways_back(self, psi: Vector) -> list[Vector]:
        return []

    def slopes(self, psi: Vector) -> Vector:
        return np.array([-1.0 if self.base.name == "gamma" else 1.0]) * self.values(psi)

    def terms(self, y: Vector, mu: Vector, w: Vector | float, psi: Vector) -> ShapeTerms:
        phi = self.phi(psi)
        saturated, first, second = self.base.saturated_derivatives(y, w, phi)
        half = 0.5 * w * self.base.unit_deviance(y.copy(), mu, mu) / phi
        return ShapeTerms(saturated - half, (first + half)[None], (second - half)[None, None])


def shape_of(family: Family, dispersion: object) -> Shape | None:
    """What is to be estimated beside the coefficients: what the family leaves open, or the dispersion where its maximum
    likelihood estimate is asked for.
    """
    if isinstance(family, NegativeBinomial) and family.shape_names:
        return Theta(family)
    if isinstance(family, Tweedie) and family.shape_names:
        return PowerAndDispersion(family)
    return Dispersion(family) if dispersion == "ml" else None
