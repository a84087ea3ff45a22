"""One's own exponential family, p(y) = h(y) exp(T(y) theta) / Z(theta), from log Z alone; and its verification.

Sources: McCullagh and Nelder (1989), section 2.2; Barndorff-Nielsen, Information and Exponential Families (1978).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError
from daskglm.model.cumulants import Cumulants, spread_over
from daskglm.model.derivatives import complex_step, differences, takes_complex
from daskglm.model.families import xlogy
from daskglm.model.family import Formulas, LikelihoodAt, Response
from daskglm.model.links import LINKS, Logit, Rates
from daskglm.model.own import Probe, grid, imported, known, path_of, values_of, verify_values
from daskglm.model.supports import UNSETTLED, Finite, Sums, Support, support_of

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Function = Callable[[Vector], Vector]

# What a family may be given as a function, in the order of the arguments.
# Responses at which the values of a function are recorded, at most.
PROBED = 64
FUNCTIONS = ("log_partition", "sufficient_statistic", "log_base_measure", "mean", "variance", "natural_parameter")


@final
@dataclass(frozen=True)
class Given:
    """The functions a family was given; None for what follows from log Z, and for T(y) = y and log h(y) = 0."""

    log_partition: Function
    sufficient_statistic: Function | None = None
    log_base_measure: Function | None = None
    mean: Function | None = None
    variance: Function | None = None
    natural_parameter: Function | None = None


def looked_up(function: Function, x: Vector) -> Vector:
    """function(x), evaluated once per distinct value where values repeat."""
    values, which = np.unique(x, return_inverse=True)
    return function(values)[which] if 2 * values.size <= x.size else function(x)


def links_for(low: float, high: float) -> dict[str, str]:
    """Links whose means cover those in (low, high), or all that are positive, each with the care it needs."""
    care = f"steps are halved until every mean is between {low:g} and {high:g}"
    found = {}
    for name, link in LINKS.items():
        least, most = link().mean_range
        if most >= high and (least <= low or least <= max(low, 0.0) < high):
            misses = link().restricts or least < low or most > high
            found[name] = care if misses else ""
    if low >= 0.0 and high == np.inf:
        found["power"] = care
    return found


def inside_of(t: Vector, w: Vector | float, low: float, high: float, discrete: bool) -> Vector:
    """A mean in (low, high) near t: pulled towards the middle by half an observation of either end, or away from the one
    end there is.
    """
    if np.isfinite(low) and np.isfinite(high):
        return (w * np.minimum(np.maximum(t, low), high) + 0.5 * (low + high)) / (w + 1.0)
    if not np.isfinite(low) and not np.isfinite(high):
        return t
    if np.isfinite(low):
        return np.maximum(t, low) + 0.1 if discrete else np.where(t > low, t, low + 0.1 * (1.0 + abs(low)))
    return np.minimum(t, high) - 0.1 if discrete else np.where(t < high, t, high - 0.1 * (1.0 + abs(high)))


@final
@dataclass(frozen=True, init=False)
class ExponentialFamily:
    """p(y) = h(y) exp{T(y) theta - log Z(theta)} with a scalar theta in natural_space.

    The modelled mean is that of the sufficient statistic, mu = E[T(y)] = d log Z / d theta, and so is the variance: where
    T(y) = y (sufficient_statistic=None), they are those of y.

    log_partition, sufficient_statistic, log_base_measure, mean, variance, natural_parameter: vectorised functions of
    theta, y, y, theta, mu and mu; log_base_measure=None is log h = 0, and -inf where y has no chance. The last three are
    derived from log_partition where they are not given: the mean to 1e-13 of itself, the variance to 1e-11, Psi to
    rounding; where log_partition does not take complex numbers the mean to 1e-12, the variance to 1e-8. Giving them saves
    time. natural_space: the open interval on which Z is finite.
    support: "real", "positive", "unit interval", "counts", "binary", (lower, upper), or a list of more than two values.

    The dispersion is 1. A weight w multiplies the log density, as of w equal observations: in general the density of
    a mean of w observations is not known. The deviance is counted from the largest density a row can have; where that is
    infinite (a continuous y at the end of its range) or is not attained by any theta, from density 1.
    """

    given: Given
    support_given: str | tuple[float, ...]
    natural_space: tuple[float, float]
    name: str
    default_link: str

    def __init__(
        self,
        log_partition: Function,
        sufficient_statistic: Function | None = None,
        log_base_measure: Function | None = None,
        support: Any = "real",
        natural_space: tuple[float, float] = (-np.inf, np.inf),
        mean: Function | None = None,
        variance: Function | None = None,
        natural_parameter: Function | None = None,
        name: str = "exponential_family",
        default_link: str = "canonical",
    ) -> None:
        given = Given(log_partition, sufficient_statistic, log_base_measure, mean, variance, natural_parameter)
        for option in FUNCTIONS:
            function = getattr(given, option)
            if not callable(function) and (function is not None or option == "log_partition"):
                raise DesignError(f"{option} must be a function, not {function!r}")
        try:
            low, high = (float(end) for end in natural_space)
        except (TypeError, ValueError):
            low, high = np.nan, np.nan
        if not low < high:
            raise DesignError(
                f"natural_space={natural_space!r} must be (lower, upper), with the lower end below the upper"
            )
        support_of(support)
        for field, value in (
            ("given", given),
            ("support_given", support if isinstance(support, str) else tuple(float(v) for v in np.ravel(support))),
            ("natural_space", (low, high)),
            ("name", name),
            ("default_link", default_link),
        ):
            object.__setattr__(self, field, value)

    # -- what it is ------------------------------------------------------------------------------------------------

    canonical_link = "canonical"
    constant_variance = False
    dispersion_known = True
    dispersion = 1.0
    canonical_scale = 1.0
    response: Response = "number"
    shape_names: tuple[str, ...] = ()
    likelihood_at: LikelihoodAt = "known"

    @property
    def text(self) -> str:
        return self.name

    @property
    def formulas(self) -> Formulas:
        statistic = "y" if self.given.sufficient_statistic is None else "as given, T(y)"
        return Formulas(
            "as given", statistic, "as given, the inverse of d log Z / d theta", "as given", "d2 log Z / d theta2"
        )

    @cached_property
    def domain(self) -> Support:
        """The support as a set."""
        return support_of(self.support_given)

    @property
    def support(self) -> str:
        marks = self.domain.landmarks
        marks = marks[self.domain.contains(marks)]
        impossible = marks[~self.in_support(marks)] if self.discrete else marks[:0]
        if impossible.size == 0:
            return self.domain.words
        return f"{self.domain.words} that log_base_measure gives a chance (not {impossible[0]:g})"

    @property
    def discrete(self) -> bool:
        """Whether responses have chances rather than densities."""
        return self.domain.discrete

    @cached_property
    def cumulants(self) -> Cumulants:
        """log Z, its derivatives and their inverse."""
        given = self.given
        return Cumulants(given.log_partition, self.natural_space, given.mean, given.variance, given.natural_parameter)

    @cached_property
    def mean_range(self) -> tuple[float, float]:
        """From the limits of the mean at the ends of the natural space."""
        if self.bounded:
            return 0.0, 1.0
        marks = self.domain.landmarks
        with np.errstate(all="ignore"):
            # an infinite end has no chance either, but shows where T goes to
            t = self.sufficient_statistic(marks[np.isinf(marks) | (self.log_base_measure(marks) > -np.inf)])
            return self.cumulants.range_of_mean((float(np.nanmin(t)), float(np.nanmax(t))))

    @cached_property
    def bounded(self) -> bool:
        """Whether y is 0 or 1 and T(y) = y: then it is a Bernoulli variable with a shifted theta, whatever h, and its
        variance is mu (1 - mu). Other families with means between 0 and 1 have another likelihood.
        """
        if self.domain != Finite((0.0, 1.0)):
            return False
        y = self.domain.landmarks
        return bool(np.array_equal(self.sufficient_statistic(y), y) and np.isfinite(self.log_base_measure(y)).all())

    @cached_property
    def shift(self) -> float:
        """log h(0) - log h(1) of a Bernoulli variable: theta = logit(mu) + shift."""
        nothing, one = self.log_base_measure(np.array([0.0, 1.0]))
        return float(nothing - one)

    @property
    def links(self) -> dict[str, str]:
        low, high = self.natural_space
        whole = low == -np.inf and high == np.inf
        care = "" if whole else f"steps are halved until every natural parameter is between {low:g} and {high:g}"
        return {"canonical": care, **links_for(*self.mean_range)}

    # -- responses -------------------------------------------------------------------------------------------------

    def in_support(self, y: Vector) -> Mask:
        y = np.asarray(y, np.float64)
        possible = self.domain.contains(y)
        inner = y[possible]
        with np.errstate(all="ignore"):
            possible[possible] = np.isfinite(self.log_base_measure(inner)) & np.isfinite(
                self.sufficient_statistic(inner)
            )
        return possible

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return inside_of(self.sufficient_statistic(y), w, *self.mean_range, self.discrete)

    # -- at a mean -------------------------------------------------------------------------------------------------

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        if self.given.variance is not None:
            return np.asarray(self.given.variance(mu))
        if self.bounded:
            return mu * rest
        return self.cumulants.variance(self.natural_parameter(mu))

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        if self.bounded:
            return rest - mu
        if self.given.variance is None:
            theta = self.natural_parameter(mu)
            return self.cumulants.third(theta) / self.cumulants.variance(theta)
        low, high = self.mean_range
        if self._variance_analytic:
            return complex_step(self.given.variance, mu, low, high)
        return differences(self.given.variance, mu, low, high)[0]

    @cached_property
    def _variance_analytic(self) -> bool:
        assert self.given.variance is not None
        return takes_complex(self.given.variance, spread_over(*self.mean_range), *self.mean_range)

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        if self.bounded:
            return -2.0 * (xlogy(y, mu) + xlogy(1.0 - y, rest))
        return 2.0 * (looked_up(self._attained, y) + self.unit_loss(y, mu, rest))

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        if self.bounded:
            return -xlogy(y, mu) - xlogy(1.0 - y, rest)
        t = self.sufficient_statistic(y)
        theta = self.natural_parameter(mu)
        loss = np.asarray(self.cumulants.value(theta) - t * theta)
        low, high = self.mean_range
        edge = (mu == low) | (mu == high)
        if edge.any():
            # no theta has this mean: in the limit, a row that is no other than it has all the chance there is
            loss[edge] = np.where(t[edge] == mu[edge], -self._attained(y[edge]), np.inf)
        return loss

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        if self.bounded:
            return y * rest - (1.0 - y) * mu
        return self.sufficient_statistic(y) - mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return self.log_partition(theta) - self.sufficient_statistic(y) * theta

    def _attained(self, y: Vector) -> Vector:
        """sup over theta of T(y) theta - log Z(theta), or -log h(y) where that is infinite."""
        highest = self.cumulants.supremum(self.sufficient_statistic(y), self.mean_range)
        return np.where(highest == np.inf, -self.log_base_measure(y), highest)

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        if self.bounded:
            return np.zeros_like(y)
        return np.asarray(w * looked_up(lambda at: self.log_base_measure(at) + self._attained(at), y))

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        return 0.0

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        return self.saturated(y, w, phi), np.zeros(y.shape), np.zeros(y.shape)

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
        return 1.0

    # -- the exponential form --------------------------------------------------------------------------------------

    def log_base_measure(self, y: Vector) -> Vector:
        function = self.given.log_base_measure
        return np.zeros_like(y) if function is None else np.asarray(function(y))

    def sufficient_statistic(self, y: Vector) -> Vector:
        function = self.given.sufficient_statistic
        return y if function is None else np.asarray(function(y))

    def log_partition(self, theta: Vector) -> Vector:
        return self.cumulants.value(theta)

    def natural_parameter(self, mu: Vector) -> Vector:
        if self.bounded and self.given.natural_parameter is None:
            return np.log(mu) - np.log1p(-mu) + self.shift
        return self.cumulants.parameter(mu)

    def mean(self, theta: Vector) -> Vector:
        if self.bounded and self.given.mean is None:
            return Logit().inverse(theta - self.shift)[0]
        return self.cumulants.mean(theta)

    # -- as text ---------------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Import paths and settings, from which it is made again. DesignError where a function has no import path."""
        paths = {}
        for option in FUNCTIONS:
            function = getattr(self.given, option)
            paths[option] = None if function is None else path_of(function)
            if function is not None and paths[option] is None:
                raise DesignError(
                    f"{option} of the {self.name} family cannot be found again by another process: put the function "
                    "into a module that can be imported, on every worker too"
                )
        support = self.support_given if isinstance(self.support_given, str) else list(self.support_given)
        settings = {"natural_space": list(self.natural_space), "name": self.name, "default_link": self.default_link}
        return {**paths, "support": support, **settings, "values": values_of(self.probes)}

    @property
    def probes(self) -> dict[str, Probe]:
        """Its functions of one's own, and where their values are recorded."""
        marks = self.domain.landmarks
        marks = marks[np.isfinite(marks)]
        responses = marks[np.linspace(0, marks.size - 1, min(marks.size, PROBED), dtype=np.intp)]
        natural = ("log_partition", "mean")
        found = {}
        for option in FUNCTIONS:
            function = getattr(self.given, option)
            if function is None:
                continue
            of_response = option in ("sufficient_statistic", "log_base_measure")
            interval = self.natural_space if option in natural else self.mean_range
            found[option] = Probe(function, responses if of_response else grid(*interval))
        return found

    @staticmethod
    def from_document(document: dict[str, Any]) -> ExponentialFamily:
        """The family of a document; the modules of its functions must have been imported."""
        return _made(document, known)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.document(), imported)


def _made(document: dict[str, Any], find: Callable[[str], Function]) -> ExponentialFamily:
    given: dict[str, Any] = {
        option: None if document[option] is None else find(document[option]) for option in FUNCTIONS
    }
    made = ExponentialFamily(
        **given,
        support=document["support"],
        natural_space=document["natural_space"],
        name=document["name"],
        default_link=document["default_link"],
    )
    verify_values(made.probes, document.get("values"))
    return made


@final
@dataclass(frozen=True)
class Canonical:
    """eta = theta: the link of a family of one's own for which the linear predictor is the natural parameter."""

    family: ExponentialFamily
    name: str = "canonical"
    formula: str = "Psi(mu)"

    @property
    def restricts(self) -> bool:
        return self.family.natural_space != (-np.inf, np.inf)

    @property
    def mean_range(self) -> tuple[float, float]:
        return self.family.mean_range

    def link(self, mu: Vector) -> Vector:
        return self.family.natural_parameter(mu)

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        if self.family.bounded:
            return Logit().inverse(eta - self.family.shift)
        mu = self.family.mean(eta)
        if not np.isfinite(eta).all():
            # log Z has no digits there, but the mean has a limit
            low, high = self.family.mean_range
            mu = np.where(eta == -np.inf, low, np.where(eta == np.inf, high, mu))
        return mu, self.family.cumulants.variance(eta), 1.0 - mu if rest else mu

    def curvature(self, eta: Vector) -> Vector:
        if self.family.bounded:
            return Logit().curvature(eta - self.family.shift)
        return self.family.cumulants.third(eta)

    def rates(self, eta: Vector) -> Rates:
        if self.family.bounded:
            return Logit().rates(eta - self.family.shift)
        mu, slope, rest = self.inverse(eta)
        return Rates(np.log(mu), np.log(rest), slope / mu, slope / rest, self.curvature(eta) / slope)

    def valid(self, eta: Vector) -> Mask:
        low, high = self.family.natural_space
        return np.isfinite(eta) & (eta > low) & (eta < high)


# -- verification ------------------------------------------------------------------------------------------------------

# Sums and integrals are known to about 1e-10; derived variances to 1e-8, and to 1e-10 of the square of the mean of whose
# rounding they are made.
SUMS = 1e-8
DERIVED = 1e-6
ROUNDED = 1e-10
# Where the mean or the spread of a family is larger, its density is looked for at another theta.
LARGE = 1e6


def verify(family: ExponentialFamily) -> None:
    """Whether the functions of a family belong together, at values of theta spread over its natural space: log Z is
    finite and strictly convex, the density sums to 1, what is given agrees with what follows from log Z, and the mean and
    variance of T(y) are those stated. DesignError with the number where one does not.
    """
    theta = spread_over(*family.natural_space)
    with np.errstate(all="ignore"):
        _one_number_each(family, theta)
        _convex(family, theta)
        sums = _densities(family, theta)
        _as_derived(family, theta)
        _moments(family, theta, sums)


def _one_number_each(family: ExponentialFamily, theta: Vector) -> None:
    """Every function is vectorised, and log Z a number."""
    _called(family, "log_partition", theta)
    value = family.log_partition(theta)
    for i in np.flatnonzero(~np.isfinite(value))[:1]:
        low, high = family.natural_space
        raise DesignError(
            f"log_partition is {value[i]:g} at theta = {theta[i]:g}, inside natural_space ({low:g}, {high:g}): it must be "
            "finite there, or natural_space is smaller"
        )
    y = family.domain.landmarks
    # without infinite ends, and no more than it takes
    y = y[family.domain.contains(y)][:2048]
    _called(family, "sufficient_statistic", y)
    _called(family, "log_base_measure", y)
    if not family.in_support(y).any():
        raise DesignError(
            f"no response is possible in the {family.name} family: log_base_measure or sufficient_statistic is not finite "
            f"for any y tried (support: {family.support})"
        )
    _called(family, "mean", theta)
    mu = family.mean(theta)
    _called(family, "variance", mu)
    _called(family, "natural_parameter", mu)


_ONE_NUMBER = (
    "a family of one's own has one natural parameter and one statistic T(y) for each row, in arrays of shape (n,); vectors "
    "of them are those of the families in the package: dg.families.vector_form names them"
)


def _called(family: ExponentialFamily, option: str, at: Vector) -> None:
    function = getattr(family.given, option)
    if function is None:
        return
    try:
        value = np.asarray(function(at))
    except IndexError as error:
        raise DesignError(f"{option} fails ({error}): {_ONE_NUMBER}") from error
    except Exception as error:  # it is the user's function
        raise DesignError(
            f"{option} fails for an array of {at.size} numbers ({type(error).__name__}: {error}): it must be vectorised"
        ) from error
    if value.ndim > at.ndim:
        raise DesignError(f"{option} returns shape {value.shape} for an array of shape {at.shape}: {_ONE_NUMBER}")
    if value.shape != at.shape or value.dtype.kind not in "fiu":
        raise DesignError(
            f"{option} must return one number for each it is given: for an array of shape {at.shape} it returns "
            f"{value.dtype} of shape {value.shape}"
        )


def _convex(family: ExponentialFamily, theta: Vector) -> None:
    second = family.cumulants.derived_variance(theta)
    for i in np.flatnonzero(~(second > 0.0))[:1]:
        source = (
            "mean is not increasing: its" if family.given.mean else "log_partition is not strictly convex: its second"
        )
        raise DesignError(
            f"{source} derivative at theta = {theta[i]:g} is {second[i]:.6g}, which is the variance of T(y) and must be "
            "positive"
        )


def _densities(family: ExponentialFamily, theta: Vector) -> list[Sums]:
    """Sums of the density at each theta, all 1 where they could be formed."""
    mean, variance = family.cumulants.derived_mean(theta), family.cumulants.derived_variance(theta)
    # the statistic says where y is only where T(y) = y
    plain = family.given.sufficient_statistic is None
    found = []
    for at, log_z, center, spread in zip(theta, family.log_partition(theta), mean, np.sqrt(variance), strict=True):

        def log_density(y: Vector, at: float = at, log_z: float = log_z) -> Vector:
            return family.log_base_measure(y) + family.sufficient_statistic(y) * at - log_z

        place = (center, spread) if plain else (np.nan, 1.0)
        sums = family.domain.sums(log_density, family.sufficient_statistic, *place)
        found.append(sums if abs(center) <= LARGE and spread <= LARGE else UNSETTLED)
    for at, sums in zip(theta, found, strict=True):
        if sums.settled and not abs(sums.total - 1.0) <= SUMS:
            verb, digits = "sums" if family.discrete else "integrates", 6 if abs(sums.total - 1.0) > 1e-3 else 12
            if sums.total == np.inf:
                raise DesignError(
                    f"the density at theta = {at:g} {verb} to infinity: log_base_measure or sufficient_statistic is not as "
                    "meant, or natural_space is smaller"
                )
            raise DesignError(
                f"the density at theta = {at:g} {verb} to {sums.total:.{digits}g}, not to 1: log_partition (or "
                f"log_base_measure) is off by {np.log(sums.total):.{digits - 2}f}"
            )
    if not any(sums.settled for sums in found):
        raise DesignError(
            f"the density of the {family.name} family could not be summed at any theta from {theta[0]:g} to {theta[-1]:g}: "
            "its tails are too heavy, or support, log_base_measure or sufficient_statistic are not as meant"
        )
    return found


def _as_derived(family: ExponentialFamily, theta: Vector) -> None:
    """What is given against what follows from log Z, and Psi against the mean."""
    cumulants, mean = family.cumulants, family.mean(theta)
    derived, second = cumulants.derived_mean(theta), cumulants.derived_variance(theta)
    spread = np.sqrt(second)
    rows = [
        (
            "natural_parameter", "mu", mean, family.natural_parameter(mean), theta,
            DERIVED * (np.abs(theta) + 1.0 / spread) + ROUNDED * np.abs(mean) / second, "that is the mean at theta =",
        ),
    ]  # fmt: skip
    if family.given.variance is not None:
        stated, allowed = family.given.variance(mean), DERIVED * second + ROUNDED * mean * mean
        source = "the second derivative of log_partition there is"
        rows.insert(0, ("variance", "mu", mean, stated, second, allowed, source))
    if family.given.mean is not None:
        allowed = DERIVED * (np.abs(derived) + spread)
        rows.insert(0, ("mean", "theta", theta, mean, derived, allowed, "the derivative of log_partition is"))
    for option, argument, at, stated, truth, allowed, source in rows:
        for i in np.flatnonzero(~(np.abs(stated - truth) <= allowed))[:1]:
            raise DesignError(
                f"{option}({argument} = {at[i]:.6g}) is {stated[i]:.6g}, but {source} {truth[i]:.6g}: {option} or "
                "log_partition is wrong"
            )


def _moments(family: ExponentialFamily, theta: Vector, found: list[Sums]) -> None:
    """The mean and variance of T(y) under the density."""
    mean, variance = family.mean(theta), family.cumulants.variance(theta)
    for at, mu, second, sums in zip(theta, mean, variance, found, strict=True):
        for symbol, name, here, stated, allowed in (
            ("E", "mean", sums.mean, mu, DERIVED * (abs(mu) + np.sqrt(second))),
            ("Var", "variance", sums.variance, second, DERIVED * second + ROUNDED * mu * mu),
        ):
            if sums.settled and not abs(here - stated) <= allowed:
                raise DesignError(
                    f"the density at theta = {at:g} has {symbol}[T(y)] = {here:.6g}, but the {name} there is {stated:.6g}: "
                    f"log_partition, {name} or sufficient_statistic is wrong"
                )
