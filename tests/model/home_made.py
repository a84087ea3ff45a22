"""Functions of families as users write them into modules of their own."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

Vector = np.ndarray


def bernoulli_log_partition(theta: Vector) -> Vector:
    return np.log1p(np.exp(theta))


def poisson_log_partition(theta: Vector) -> Vector:
    return np.exp(theta)


def one_over_factorial(y: Vector) -> Vector:
    return -gammaln(y + 1.0)


def exponential_log_partition(theta: Vector) -> Vector:
    return -np.log(-theta)


def truncated_log_partition(theta: Vector) -> Vector:
    return np.log(np.expm1(np.exp(theta)))


def truncated_base(y: Vector) -> Vector:
    return np.where(y > 0, -gammaln(y + 1.0), -np.inf)


def logarithmic_log_partition(theta: Vector) -> Vector:
    return np.log(-np.log1p(-np.exp(theta)))


def logarithmic_base(y: Vector) -> Vector:
    return np.where(y > 0, -np.log(y), -np.inf)


def pareto_log_partition(theta: Vector) -> Vector:
    return -np.log(-theta - 1.0)


def five_coins_log_partition(theta: Vector) -> Vector:
    """As it is best written, which takes no complex numbers."""
    return 5.0 * np.logaddexp(0.0, theta)


def five_coins_base(y: Vector) -> Vector:
    return gammaln(6.0) - gammaln(y + 1.0) - gammaln(6.0 - y)


def uniform_log_partition(theta: Vector) -> Vector:
    """log of (exp(theta) - 1) / theta, by its series about 0: the density exp(y theta) on [0, 1]."""
    small = np.abs(theta) < 0.02
    ordinary = np.where(small, 1.0, theta)
    series = theta / 2 + theta**2 / 24 - theta**4 / 2880 + theta**6 / 181440
    return np.where(small, series, np.log(np.expm1(ordinary) / ordinary))


def three_log_partition(theta: Vector) -> Vector:
    return np.log(np.exp(-theta) + np.exp(theta) + np.exp(2.5 * theta))


def power_variance(mu: Vector) -> Vector:
    return mu**1.5


def log_odds(mu: Vector) -> Vector:
    return np.log(mu / (1.0 - mu))


def of_log_odds(eta: Vector) -> Vector:
    return 1.0 / (1.0 + np.exp(-eta))


def squared(mu: Vector) -> Vector:
    return mu * mu
