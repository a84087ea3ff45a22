"""What a distribution of the response answers, and what several of them share.

A family's density with mean mu, dispersion phi and prior weight w is written in two ways that agree:
exponential family, at phi = w = 1:  log p = log h(y) + T(y) theta - log Z(theta), theta = Psi(mu);
dispersion model:                    log p = saturated(y, w, phi) - w d(y, mu) / (2 phi), d the unit deviance.

Sources: McCullagh and Nelder (1989), chapter 2; Jorgensen, The Theory of Dispersion Models (1997), chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LOG_2PI = float(np.log(2.0 * np.pi))
# What the response is to a model: a number, one of several classes, or one of several ordered classes.
Response = Literal["number", "classes", "ordered"]
# At which dispersion the log-likelihood is taken: the known one, deviance / n (R), the reported one, or none.
LikelihoodAt = Literal["known", "deviance", "reported", "never"]


@final
@dataclass(frozen=True)
class Formulas:
    """The exponential family in symbols: h(y), T(y), Psi(mu), Z(theta), and the variance V(mu)."""

    base_measure: str
    sufficient_statistic: str
    natural_parameter: str
    partition: str
    variance: str


class Family(Protocol):
    """A distribution of the response given its mean. All arrays are (n,); rest is 1 - mu without cancellation."""

    @property
    def name(self) -> str:
        """The name users type."""

    @property
    def text(self) -> str:
        """The name with the parameters that are set, as users type it and models are saved: "tweedie(power=1.5)"."""

    @property
    def response(self) -> Response:
        """What the response is."""

    @property
    def shape_names(self) -> tuple[str, ...]:
        """Parameters beside the coefficients that are still to be estimated."""

    @property
    def formulas(self) -> Formulas:
        """The family in symbols."""

    @property
    def default_link(self) -> str:
        """The link where none is named."""

    @property
    def canonical_link(self) -> str:
        """The link for which eta = theta."""

    @property
    def links(self) -> dict[str, str]:
        """Links that make sense with it, each with "" or the care it needs."""

    @property
    def support(self) -> str:
        """Where y may lie, in words."""

    @property
    def mean_range(self) -> tuple[float, float]:
        """The open interval of possible means."""

    @property
    def bounded(self) -> bool:
        """Whether means are bounded above by 1, so that 1 - mu is needed to full precision."""

    @property
    def discrete(self) -> bool:
        """Whether it is a distribution of counts."""

    @property
    def constant_variance(self) -> bool:
        """Whether V is 1 whatever the mean."""

    @property
    def dispersion_known(self) -> bool:
        """Whether phi is given by the family."""

    @property
    def dispersion(self) -> float:
        """phi where it is known, 1 otherwise."""

    @property
    def likelihood_at(self) -> LikelihoodAt:
        """At which dispersion the log-likelihood is taken."""

    @property
    def canonical_scale(self) -> float:
        """theta = canonical_scale * eta under the canonical link, named or not."""

    def in_support(self, y: Vector) -> Mask:
        """Where y is a possible response."""

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        """A possible mean near y, from which iteration starts."""

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        """V(mu), the variance at phi = w = 1."""

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        """dV/dmu."""

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        """d(y, mu) = 2 (log p(y; mean y) - log p(y; mean mu)) at phi = w = 1."""

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        """d / 2 up to a function of y alone: what a solver compares."""

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        """y - mu without cancellation."""

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        """log Z(theta) - y theta up to a function of y alone: unit_loss under the canonical link, mu at hand."""

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        """log p(y; mean y): the largest log density the row can have."""

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        """saturated and its first and second derivative in log phi."""

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        """sum saturated(phi) - sum saturated(1) over n rows; None where it needs the rows."""

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
        """The maximum likelihood estimate of phi where the mean unit deviance is `deviance`; None where it needs the
        rows; the known one where it is known.
        """

    def log_base_measure(self, y: Vector) -> Vector:
        """log h(y)."""

    def sufficient_statistic(self, y: Vector) -> Vector:
        """T(y)."""

    def log_partition(self, theta: Vector) -> Vector:
        """log Z(theta)."""

    def natural_parameter(self, mu: Vector) -> Vector:
        """theta = Psi(mu)."""

    def mean(self, theta: Vector) -> Vector:
        """mu = Psi^-1(theta) = d log Z / d theta."""


def called(name: str, **parameters: object) -> str:
    """How a family with those parameters is written, in the words a user types."""
    given = ", ".join(f"{key}={value!r}" for key, value in parameters.items() if value is not None)
    return f"{name}({given})" if given else name


def refuse_form(name: str) -> NoReturn:
    """DesignError for what only an exponential family has."""
    raise DesignError(f"the {name} family is no exponential family of one parameter: it has no h, T, Psi and Z")


def log_density(family: Family, y: Vector, mu: Vector, phi: float = 1.0, w: Vector | float = 1.0) -> Vector:
    """log p(y; mu, phi / w) (n,), every constant included."""
    return family.saturated(y, w, phi) - 0.5 * w * family.unit_deviance(y, mu, 1.0 - mu) / phi


def by_value(function: Callable[[Vector], Vector], y: Vector) -> Vector:
    """function(y), looked up where y is made of small counts: a table of 1 000 entries spares a log per row."""
    if y.size < 1000:
        return function(y)
    counts = y.astype(np.int64)
    if counts.min() < 0 or counts.max() >= 1000 or not np.array_equal(counts, y):
        return function(y)
    return np.asarray(function(np.arange(counts.max() + 1, dtype=np.float64))[counts])


def xlogy(x: Vector, y: Vector) -> Vector:
    """x log y, 0 where x = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, 0.0, x * np.log(y))
