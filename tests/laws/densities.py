"""Tweedie densities that scipy.stats has not, written down a second time, with the face of its frozen distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CompoundPoisson:
    """A Poisson number of gamma amounts: the Tweedie distribution with 1 < p < 2, mean mu and variance phi mu^p.

    The number has mean mu^(2-p) / (phi (2-p)), each amount shape (2-p) / (p-1) and scale phi (p-1) mu^(p-1). The density
    at y > 0 is the sum over the number, term by term. Source: Jorgensen (1997), section 4.2.4.
    """

    mu: Any
    phi: Any
    p: float

    def _parts(self) -> tuple[Any, float, Any]:
        with np.errstate(all="ignore"):
            number = np.power(self.mu, 2.0 - self.p) / (self.phi * (2.0 - self.p))
            return number, (2.0 - self.p) / (self.p - 1.0), self.phi * (self.p - 1.0) * np.power(self.mu, self.p - 1.0)

    def logpdf(self, y: Any) -> Vector:
        """Of y > 0 by Lebesgue measure, of y = 0 by counting."""
        number, shape, scale = self._parts()
        y, number, scale = np.broadcast_arrays(np.asarray(y, float), number, scale)
        found = -number.astype(float)
        at = np.flatnonzero(y > 0)
        if at.size:
            # terms are largest where the number is about y^(2-p) / (phi (2-p)), and fall as those of a Poisson
            phi = np.broadcast_to(self.phi, y.shape)
            likely = float(np.max(np.power(y[at], 2.0 - self.p) / (phi[at] * (2.0 - self.p))))
            j = np.arange(1.0, np.ceil(likely + 12.0 * np.sqrt(likely) * max(1.0, shape**-0.5) + 80.0))
            for part in np.array_split(at, max(1, at.size * j.size // 500_000)):
                terms = stats.poisson.logpmf(j, number[part, None])
                terms = terms + stats.gamma.logpdf(y[part, None], shape * j, scale=scale[part, None])
                found[part] = special.logsumexp(terms, axis=1)
        return found

    def mean(self) -> Any:
        return np.where(np.asarray(self.mu) > 0, self.mu, np.nan)

    def var(self) -> Any:
        return self.phi * np.power(self.mu, self.p)

    def support(self) -> tuple[float, float]:
        return 0.0, np.inf

    def rvs(self, random_state: np.random.Generator) -> Vector:
        number, shape, scale = self._parts()
        return random_state.standard_gamma(shape * random_state.poisson(number)) * scale


@dataclass(frozen=True)
class TiltedStable:
    """The Tweedie distribution with p = 2.5: a positive stable law of index 1/3, tilted, with mean mu and variance
    phi mu^2.5.

    Untilted it has the Laplace transform exp(-c s^(1/3)), c = (3 phi / 2)^(1/3) / (phi / 2), and X = Y / c^3 the density
    x^(-3/2) K_1/3(2 / sqrt(27 x)) / (3 pi). Source: Zolotarev (1986), section 2.8.
    """

    mu: Any
    phi: Any

    def logpdf(self, y: Any) -> Vector:
        with np.errstate(all="ignore"):
            log_c = np.log(1.5 * self.phi) / 3.0 - np.log(0.5 * self.phi)
            log_x = np.log(y) - 3.0 * log_c
            z = 2.0 / np.sqrt(27.0) * np.exp(-0.5 * log_x)
            log_density = -1.5 * log_x - np.log(3.0 * np.pi) + np.log(special.kve(1.0 / 3.0, z)) - z - 3.0 * log_c
            tilt = y * np.power(self.mu, -1.5) / -1.5 + np.power(self.mu, -0.5) / 0.5
            return np.asarray(log_density + tilt / self.phi)

    def mean(self) -> Any:
        return np.where(np.asarray(self.mu) > 0, self.mu, np.nan)

    def var(self) -> Any:
        return self.phi * np.power(self.mu, 2.5)

    def support(self) -> tuple[float, float]:
        return 0.0, np.inf

    def rvs(self, random_state: np.random.Generator) -> Vector:
        """Untilted, 1 / (27 G H) with gamma variables G and H of shapes 1/3 and 2/3 (Williams 1977); tilted by rejection,
        as a sum of parts so small that each is soon accepted."""
        mu, phi = np.broadcast_arrays(np.asarray(self.mu, float), self.phi)
        rate = np.power(mu, -1.5) / (1.5 * phi)
        parts = int(np.ceil(np.max(2.0 / (phi * np.sqrt(mu)))))
        size = 1.5 * phi * (2.0 / (phi * parts)) ** 3
        total = np.zeros(mu.shape)
        for _ in range(parts):
            open_rows = np.arange(mu.size)
            while open_rows.size:
                gammas = random_state.standard_gamma([[1.0 / 3.0], [2.0 / 3.0]], (2, open_rows.size))
                drawn = size[open_rows] / (27.0 * gammas.prod(axis=0))
                accepted = random_state.random(open_rows.size) < np.exp(-rate[open_rows] * drawn)
                total[open_rows[accepted]] += drawn[accepted]
                open_rows = open_rows[~accepted]
        return total
