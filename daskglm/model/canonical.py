"""Means and canonical parameters of a family, both ways, and the families whose theta is a vector.

Source: Barndorff-Nielsen, Information and Exponential Families (1978), chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError
from daskglm.model.family import LOG_2PI
from daskglm.model.pairs import resolve

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


def natural_parameter(family: object, mean: Any) -> Vector:
    """theta = Psi(mu) of means (n,), or (n, K) probabilities, which give (n, K - 1)."""
    chosen, mu = resolve(family)[0], np.asarray(mean, np.float64)
    if chosen.response == "number":
        return np.asarray(chosen.natural_parameter(mu))
    if mu.ndim != 2:
        raise DesignError(f"probabilities of classes have two dimensions, not {mu.ndim}: a column for each class")
    return np.log(mu[:, 1:]) - np.log(mu[:, :1])


def mean_parameter(family: object, theta: Any) -> Vector:
    """mu = Psi^-1(theta) of canonical parameters (n,), or (n, K - 1), which give (n, K) probabilities."""
    chosen, given = resolve(family)[0], np.asarray(theta, np.float64)
    if chosen.response == "number":
        return np.asarray(chosen.mean(given))
    if given.ndim != 2:
        raise DesignError(
            f"parameters of classes have two dimensions, not {given.ndim}: a column for all but the first"
        )
    most = np.maximum(given.max(axis=1, keepdims=True, initial=0.0), 0.0)
    up = np.hstack([np.exp(-most), np.exp(given - most)])
    return np.asarray(up / up.sum(axis=1, keepdims=True))


@final
@dataclass(frozen=True)
class VectorFamily:
    """p(y) = h(y) exp{T(y).theta} / Z(theta) with theta of k numbers.

    log_base_measure (n,) of y (n,); sufficient_statistic (n, k) of y; log_partition (n,) of theta (n, k);
    natural_parameter (n, k) of the ordinary parameters (n, j), named in `parameters`, and ordinary back.
    """

    name: str
    parameters: tuple[str, ...]
    log_base_measure: Callable[[Vector], Vector]
    sufficient_statistic: Callable[[Vector], Matrix]
    log_partition: Callable[[Matrix], Vector]
    natural_parameter: Callable[[Matrix], Matrix]
    ordinary: Callable[[Matrix], Matrix]

    def log_density(self, y: Vector, theta: Matrix) -> Vector:
        """log h(y) + T(y).theta - log Z(theta) (n,)."""
        return self.log_base_measure(y) + (self.sufficient_statistic(y) * theta).sum(axis=1) - self.log_partition(theta)


def _gammaln(x: Vector) -> Vector:
    from scipy.special import gammaln

    return np.asarray(gammaln(x))


# Normal with mean and variance: theta = (mu / s2, -1 / (2 s2)).
NORMAL = VectorFamily(
    "normal",
    ("mean", "variance"),
    lambda y: np.full(y.shape, -0.5 * LOG_2PI),
    lambda y: np.stack([y, y * y], axis=1),
    lambda theta: -0.25 * theta[:, 0] ** 2 / theta[:, 1] - 0.5 * np.log(-2.0 * theta[:, 1]),
    lambda given: np.stack([given[:, 0] / given[:, 1], -0.5 / given[:, 1]], axis=1),
    lambda theta: np.stack([-0.5 * theta[:, 0] / theta[:, 1], -0.5 / theta[:, 1]], axis=1),
)

# Gamma with mean and shape: theta = (k - 1, -k / mu), T = (log y, y).
GAMMA = VectorFamily(
    "gamma",
    ("mean", "shape"),
    lambda y: np.zeros(y.shape),
    lambda y: np.stack([np.log(y), y], axis=1),
    lambda theta: _gammaln(theta[:, 0] + 1.0) - (theta[:, 0] + 1.0) * np.log(-theta[:, 1]),
    lambda given: np.stack([given[:, 1] - 1.0, -given[:, 1] / given[:, 0]], axis=1),
    lambda theta: np.stack([-(theta[:, 0] + 1.0) / theta[:, 1], theta[:, 0] + 1.0], axis=1),
)

# Inverse gaussian with mean and shape l = 1 / phi: theta = (-l / (2 mu^2), -l / 2), T = (y, 1 / y).
INVERSE_GAUSSIAN = VectorFamily(
    "inverse_gaussian",
    ("mean", "shape"),
    lambda y: -0.5 * (LOG_2PI + 3.0 * np.log(y)),
    lambda y: np.stack([y, 1.0 / y], axis=1),
    lambda theta: -2.0 * np.sqrt(theta[:, 0] * theta[:, 1]) - 0.5 * np.log(-2.0 * theta[:, 1]),
    lambda given: np.stack([-0.5 * given[:, 1] / given[:, 0] ** 2, -0.5 * given[:, 1]], axis=1),
    lambda theta: np.stack([np.sqrt(theta[:, 1] / theta[:, 0]), -2.0 * theta[:, 1]], axis=1),
)


def categorical(classes: int) -> VectorFamily:
    """One of K classes y = 0 .. K - 1 with probabilities (n, K): theta_k = log(mu_k / mu_0), k >= 1."""
    return VectorFamily(
        "multinomial",
        tuple(f"probability of {k}" for k in range(classes)),
        lambda y: np.zeros(y.shape),
        lambda y: (y[:, None] == np.arange(1, classes)).astype(np.float64),
        lambda theta: np.logaddexp(0.0, np.logaddexp.reduce(theta, axis=1)),
        lambda given: np.log(given[:, 1:]) - np.log(given[:, :1]),
        lambda theta: mean_parameter("multinomial", theta),
    )


# Families whose dispersion is part of theta, by the name users type.
VECTOR_FAMILIES = {"gaussian": NORMAL, "gamma": GAMMA, "inverse_gaussian": INVERSE_GAUSSIAN}


def vector_form(family: object, classes: int | None = None) -> VectorFamily:
    """The exponential family whose theta is a vector: gaussian with mean and variance, gamma and inverse_gaussian with mean
    and shape, multinomial with the probabilities of its classes (their number, or levels= of the family).

    DesignError where theta has one number: there the family itself has the form.
    """
    chosen = resolve(family)[0]
    if chosen.response != "number":
        count = classes if chosen.levels is None else len(chosen.levels)
        if count is None or count < 2:
            raise DesignError(f"the {chosen.name} family needs the number of its classes: classes=, two or more")
        return categorical(count)
    if chosen.name not in VECTOR_FAMILIES:
        known = ", ".join([*VECTOR_FAMILIES, "multinomial"])
        raise DesignError(f"theta of the {chosen.name} family has one number; families with a vector: {known}")
    return VECTOR_FAMILIES[chosen.name]
