"""Families whose variance is a power of the mean (Tweedie).

Source: Jorgensen, The Theory of Dispersion Models (1997), chapter 4. Densities are in `daskglm.model.tweedie`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np

from daskglm.errors import DesignError
from daskglm.model import tweedie
from daskglm.model.family import LOG_2PI, Formulas, LikelihoodAt, Mask, Response, Vector, called


@final
@dataclass(frozen=True)
class Tweedie:
    """Variance phi mu^power / w: for 1 < power < 2 a Poisson number of gamma amounts, with zeros (pure premiums).

    power <= 0 (0 is gaussian; below, any response with positive mean), 1 < power < 2, or >= 2 (2 is gamma, 3 inverse
    gaussian); None: estimated by maximum likelihood between 1 and 2, together with the dispersion.
    At phi = 1: Psi(mu) = mu^(1 - p) / (1 - p), log Z = mu^(2 - p) / (2 - p).
    """

    power: float | None = None
    name: str = "tweedie"
    default_link: str = "log"
    canonical_link: str = ""
    bounded: bool = False
    discrete: bool = False
    dispersion_known: bool = False
    canonical_scale: float = 1.0
    response: Response = "number"
    dispersion: float = 1.0
    likelihood_at: LikelihoodAt = "reported"

    def __post_init__(self) -> None:
        p = self.power
        if p is None:
            return
        if not isinstance(p, (int, float)) or not np.isfinite(p):
            raise DesignError(f"the power of a Tweedie family is a number, not {p!r}")
        if p == 1:
            raise DesignError('Tweedie with power 1 is the Poisson family: use "poisson", or "quasipoisson"')
        if 0 < p < 1:
            raise DesignError(f"no distribution has a variance mu^{p:g}: the power is <= 0, between 1 and 2, or >= 2")
        if p != 0:
            tweedie.check_power(p)

    @property
    def text(self) -> str:
        return called(self.name, power=self.power)

    @property
    def shape_names(self) -> tuple[str, ...]:
        return ("power", "dispersion") if self.power is None else ()

    @property
    def p(self) -> float:
        """The power, which must be given by now."""
        if self.power is None:
            raise DesignError("the power of this Tweedie family is not known yet: give power=, or fit it to data")
        return float(self.power)

    @property
    def formulas(self) -> Formulas:
        p = "p" if self.power is None else f"{self.power:g}"
        if self.power == 0:
            return Formulas("exp(-y^2 / 2) / sqrt(2 pi)", "y", "mu", "exp(theta^2 / 2)", "1")
        if self.power == 2:
            return Formulas("1", "y", "-1 / mu", "-1 / theta", "mu^2")
        one, two = ("1 - p", "2 - p") if self.power is None else (f"{1.0 - self.power:g}", f"{2.0 - self.power:g}")
        return Formulas(
            f"an infinite series a(y; {p})", "y", f"mu^({one}) / ({one})",
            f"exp((({one}) theta)^(({two}) / ({one})) / ({two}))", f"mu^{p}",
        )  # fmt: skip

    @property
    def mean_range(self) -> tuple[float, float]:
        return (-np.inf, np.inf) if self.power == 0 else (0.0, np.inf)

    @property
    def constant_variance(self) -> bool:
        return self.power == 0

    @property
    def support(self) -> str:
        if self.power is None or 1 < self.power < 2:
            return "zero or positive"
        return "positive" if self.power >= 2 else "any finite number"

    @property
    def links(self) -> dict[str, str]:
        care = "steps are halved until every mean is positive"
        careful = {"inverse": care, "identity": care, "inverse_square": care, "sqrt": care, "power": care}
        if self.power == 0:
            return {"log": "", **careful, "identity": ""}
        return {"log": "", **careful}

    def with_power(self, power: float) -> Tweedie:
        """The family with that power."""
        return replace(self, power=power)

    def in_support(self, y: Vector) -> Mask:
        finite = np.isfinite(y)
        if self.power is None or 1 < self.power < 2:
            return (y >= 0) & finite
        return (y > 0) & finite if self.power >= 2 else finite

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        if self.power == 0:
            return y
        if self.p < 0:
            return np.maximum(y, 0.1 * max(float(np.mean(np.abs(y))), np.finfo(float).tiny) if y.size else 1.0)
        return y if self.p >= 2 else y + 0.1 * float(np.mean(y)) + np.finfo(float).tiny if y.size else y

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return np.power(mu, self.p)

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        return np.zeros_like(mu) if self.p == 0 else self.p * np.power(mu, self.p - 1.0)

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        p = self.p
        if p == 0:
            return (y - mu) ** 2
        if p == 2:
            excess = (y - mu) / mu
            with np.errstate(divide="ignore"):
                # each keeps its digits where the other loses them: near y = mu, and near y = 0
                logarithm = np.where(excess > -0.5, np.log1p(excess), np.log(y / mu))
            return np.asarray(2.0 * (excess - logarithm))
        positive = y > 0
        if bool(positive.all()):
            return self._deviance(y, mu)
        # a response of 0 or less has terms that vanish with the mean, and no more
        slope = np.where(y == 0, 0.0, y * np.power(mu, 1.0 - p) / (1.0 - p)) if p < 0 else 0.0
        result = np.asarray(2.0 * (np.power(mu, 2.0 - p) / (2.0 - p) - slope))
        at = np.flatnonzero(positive)
        result[at] = self._deviance(y[at], mu[at])
        return result

    def _deviance(self, y: Vector, mu: Vector) -> Vector:
        """Of positive responses: 2 mu^(2-p) g(y / mu), g(r) = (r^(2-p) - 1) / ((1-p) (2-p)) - (r - 1) / (1 - p)."""
        p, ratio = self.p, y / mu
        plain = (np.power(ratio, 2.0 - p) - 1.0) / ((1.0 - p) * (2.0 - p)) - (ratio - 1.0) / (1.0 - p)
        near = np.abs(ratio - 1.0) < 1e-2
        return np.asarray(2.0 * np.power(mu, 2.0 - p) * np.where(near, self._near(ratio - 1.0), plain))

    def _near(self, e: Vector) -> Vector:
        """g(1 + e) by its series, where the closed form is a difference of nearly equal numbers."""
        p = self.p
        # g''(r) = r^-p: g(1 + e) = sum_k>=2 c_k e^k with c_k = c_(k-1) (2 - p - k + 1) / k
        coefficient, power, total = 0.5, e * e, np.zeros_like(e)
        for k in range(3, 14):
            total = total + coefficient * power
            coefficient *= (3.0 - p - k) / k
            power = power * e
        return np.asarray(total)

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        p = self.p
        if p == 2:
            return y / mu + np.log(mu)
        loss = np.asarray(np.power(mu, 1.0 - p) * (mu / (2.0 - p) - y / (1.0 - p)))
        # at the end of the range, where a row of y <= 0 fits best
        return loss if p == 0 else np.where(mu <= 0.0, np.where((y > 0) & (p > 0), np.inf, 0.0), loss)

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y - mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return self.log_partition(theta) - y * theta

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        p = self.p
        if p == 0:
            return np.broadcast_to(np.asarray(-0.5 * (LOG_2PI + np.log(phi) - np.log(w))), y.shape)
        return tweedie.saturated(y, w, phi, p)

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        p = self.p
        if p == 0:
            return self.saturated(y, w, phi), np.full(y.shape, -0.5), np.zeros(y.shape)
        return tweedie.saturated_derivatives(y, w, phi, p)

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return -0.5 * n * float(np.log(phi)) if self.power == 0 else None

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
        return deviance if self.power in (0, 3) else None

    def log_base_measure(self, y: Vector) -> Vector:
        zero = np.zeros(y.shape)
        with np.errstate(all="ignore"):
            # the saturated density is h exp(y theta(y) - log Z), with mean y
            theta = self.natural_parameter(y) if self.p != 0 else y
            inside = np.where(y > 0, y * theta - self.log_partition(theta), zero) if self.p != 0 else 0.5 * y * y
        return np.asarray(self.saturated(y, 1.0, 1.0) - inside)

    def sufficient_statistic(self, y: Vector) -> Vector:
        return y

    def log_partition(self, theta: Vector) -> Vector:
        p = self.p
        if p == 2:
            return -np.log(-theta)
        return np.asarray(np.power((1.0 - p) * theta, (2.0 - p) / (1.0 - p)) / (2.0 - p))

    def natural_parameter(self, mu: Vector) -> Vector:
        return np.asarray(np.power(mu, 1.0 - self.p) / (1.0 - self.p))

    def mean(self, theta: Vector) -> Vector:
        return np.asarray(np.power((1.0 - self.p) * theta, 1.0 / (1.0 - self.p)))
