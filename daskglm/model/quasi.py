"""Quasi families: a mean and a variance function, and no distribution.

The quasi-deviance is d(y, mu) = 2 times the integral from mu to y of (y - t) / V(t) dt.
Source: McCullagh and Nelder (1989), chapter 9; Wedderburn (1974), Biometrika 61.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError, closest
from daskglm.model.cumulants import spread_over
from daskglm.model.derivatives import complex_step, differences, takes_complex
from daskglm.model.exponential import inside_of, links_for
from daskglm.model.families import Binomial, Gamma, Gaussian, InverseGaussian, Poisson
from daskglm.model.family import Formulas, LikelihoodAt, Response
from daskglm.model.own import Probe, grid, imported, known, path_of, values_of, verify_values

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Function = Callable[[Vector], Vector]

NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(20)
FEW_NODES, FEW_WEIGHTS = np.polynomial.legendre.leggauss(10)
# On the scale of z a variance function has its features about 3 apart (t + t^2 has a pole at i pi): panels of 4 see them.
EDGES = np.array([0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0])
# Panels are halved where both halves do not agree with the whole to this, so often at most.
SETTLED = 1e-12
HALVINGS = 10
# Tables of primitives: how far they go on the scale of z, and the first width of their cells.
FARTHEST = 300.0
CELL = 0.5
# An integral up to an end of the range is finite where the integrand falls by this rate or more between two distances from
# the end, both on the scale of z: for V(t) = t^p up to about p = 1.9.
FALL = 0.099
CLOSE = (16.0, 24.0)


class Law(Protocol):
    """A variance function with what follows from it; the methods mean what those of a Family mean."""

    @property
    def mean_range(self) -> tuple[float, float]: ...
    @property
    def support(self) -> str: ...
    @property
    def canonical_link(self) -> str: ...
    @property
    def canonical_scale(self) -> float: ...
    @property
    def bounded(self) -> bool: ...
    @property
    def constant_variance(self) -> bool: ...
    @property
    def links(self) -> dict[str, str]: ...
    def in_support(self, y: Vector) -> Mask: ...
    def start_mean(self, y: Vector, w: Vector | float) -> Vector: ...
    def variance(self, mu: Vector, rest: Vector) -> Vector: ...
    def variance_slope(self, mu: Vector, rest: Vector) -> Vector: ...
    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector: ...
    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector: ...
    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector: ...
    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector: ...


@final
@dataclass(frozen=True)
class OwnVariance:
    """V(mu) given as a function on mean_range; its deviance by quadrature, its slope by a complex step or differences."""

    function: Function
    mean_range: tuple[float, float] = (-np.inf, np.inf)
    canonical_link: str = ""
    canonical_scale: float = 1.0
    bounded: bool = False
    constant_variance: bool = False

    @property
    def links(self) -> dict[str, str]:
        return links_for(*self.mean_range)

    @property
    def support(self) -> str:
        low, high = self.mean_range
        if low == -np.inf and high == np.inf:
            return "any finite number"
        words = []
        if np.isfinite(low):
            words.append(f"{low:g} or more" if self.closed[0] else f"more than {low:g}")
        if np.isfinite(high):
            words.append(f"{high:g} or less" if self.closed[1] else f"less than {high:g}")
        return " and ".join(words)

    @cached_property
    def closed(self) -> tuple[bool, bool]:
        """Whether a response may lie at the lower and at the upper end of the range: where the deviance is finite."""
        low, high = self.mean_range
        found = []
        with np.errstate(all="ignore"):
            for end in (low, high):
                if not np.isfinite(end):
                    found.append(False)
                    continue
                toward = np.sign(self._scaled(np.array([end])))
                near, nearer = (np.abs(self._integrand(np.array([end]), toward * z)) for z in CLOSE)
                found.append(bool((np.log(near / nearer) >= FALL * (CLOSE[1] - CLOSE[0])).all()))
        return found[0], found[1]

    def in_support(self, y: Vector) -> Mask:
        low, high = self.mean_range
        inside = (y > low) & (y < high)
        return (inside | ((y == low) & self.closed[0]) | ((y == high) & self.closed[1])) & np.isfinite(y)

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return inside_of(y, w, *self.mean_range, discrete=False)

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return np.asarray(self.function(mu))

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        low, high = self.mean_range
        if self._analytic:
            return complex_step(self.function, mu, low, high)
        return differences(self.function, mu, low, high)[0]

    @cached_property
    def _analytic(self) -> bool:
        return takes_complex(self.function, spread_over(*self.mean_range), *self.mean_range)

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        """Integrated from mu to y on the scale z of t; close by, on that of t itself, which keeps the digits of y - mu."""
        low, high = self.mean_range
        z, end = self._scaled(mu), self._scaled(y)
        apart = np.abs(end - z)
        possible = (mu > low) & (mu < high)
        half = np.where(y == mu, 0.0, np.nan)
        for rows, integral in (
            (possible & (apart <= 1.0) & (y != mu), self._near),
            (possible & (apart > 1.0) & np.isfinite(end), self._far),
            (possible & (y == low), lambda _, at: self._from_low.at(self._scaled(at))),
            (possible & (y == high), lambda _, at: self._from_high.at(self._scaled(at))),
        ):
            if rows.any():
                half[rows] = integral(y[rows], mu[rows])
        return 2.0 * half

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        """The integral from mu to a fixed mean c of (y - t) / V(t) dt, from two primitives."""
        z, center = self._scaled(mu), float(self._center[0])
        loss = self._bent.at(z) - (y - center) * self._plain.at(z)
        same = (y == mu) & ~np.isfinite(z)
        if same.any():
            # a response at the end of the range, its own mean: as far below another mean's loss as the deviance says
            other = np.broadcast_to(self._center, y[same].shape)
            loss[same] = -0.5 * self.unit_deviance(y[same], other, other)
        return np.asarray(loss)

    def _near(self, y: Vector, mu: Vector) -> Vector:
        """(mu - y)^2 times the integral over s from 0 to 1 of s / V(y + (mu - y) s)."""

        def integrand(rows: Any, s: Vector) -> Vector:
            return s / self.function(y[rows, None] + (mu - y)[rows, None] * s)

        zero = np.zeros_like(y)
        return np.asarray((mu - y) ** 2 * _integral(integrand, np.arange(y.size), zero, zero + 1.0, zero))

    def _far(self, y: Vector, mu: Vector) -> Vector:
        """Panel by panel of the distance from mu."""
        z, end = self._scaled(mu), self._scaled(y)
        sign, length = np.sign(end - z), np.abs(end - z)

        def integrand(rows: Any, distance: Vector) -> Vector:
            return np.abs(self._integrand(y[rows, None], z[rows, None] + sign[rows, None] * distance))

        total = np.zeros_like(y)
        for start, stop in pairwise(EDGES):
            rows = np.flatnonzero(length > start)
            if rows.size == 0:
                break
            low, high = np.full(rows.size, start), np.minimum(length[rows], stop)
            total[rows] += _integral(integrand, rows, low, high, total[rows])
        return total

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return y - mu

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return self.unit_loss(y, mu, mu)

    # -- primitives ----------------------------------------------------------------------------------------------------

    @cached_property
    def _center(self) -> Vector:
        return spread_over(*self.mean_range)[4:5]

    @cached_property
    def _plain(self) -> Primitive:
        """The integral of 1 / V from the center."""
        return Primitive.of(lambda z: self._rate(z)[1], float(self._scaled(self._center)[0]))

    @cached_property
    def _bent(self) -> Primitive:
        """The integral of (t - center) / V from the center."""
        return Primitive.of(lambda z: -self._integrand(self._center, z), float(self._scaled(self._center)[0]))

    @cached_property
    def _from_low(self) -> Primitive:
        """The integral of (t - low) / V from the lower end."""
        return Primitive.of(lambda z: -self._integrand(np.array(self.mean_range[0]), z), -FARTHEST)

    @cached_property
    def _from_high(self) -> Primitive:
        """The integral of (t - high) / V from the upper end."""
        return Primitive.of(lambda z: -self._integrand(np.array(self.mean_range[1]), z), FARTHEST)

    # -- the scale of z ------------------------------------------------------------------------------------------------

    def _scaled(self, t: Vector) -> Vector:
        """z(t): log of the distance from the one end there is, logit between two, asinh on the line; infinite at ends."""
        low, high = self.mean_range
        if np.isfinite(low) and np.isfinite(high):
            return np.log(t - low) - np.log(high - t)
        if np.isfinite(low):
            return np.log(t - low)
        return -np.log(high - t) if np.isfinite(high) else np.arcsinh(t)

    def _rate(self, z: Vector) -> tuple[Vector, Vector, Vector]:
        """t - low, (dt/dz) / V(t), high - t; the distances without cancellation, infinite where there is no end."""
        low, high = self.mean_range
        if np.isfinite(low) and np.isfinite(high):
            tail = np.exp(-np.abs(z))
            small, large = (high - low) * tail / (1.0 + tail), (high - low) / (1.0 + tail)
            below, above = np.where(z < 0, small, large), np.where(z < 0, large, small)
            t = np.where(z < 0, low + below, high - above)
            rate = below * (large / (high - low)) * np.where(z < 0, 1.0, small / large)
        elif np.isfinite(low):
            below = rate = np.exp(z)
            t, above = low + below, np.full_like(z, np.inf)
        elif np.isfinite(high):
            above = rate = np.exp(-z)
            t, below = high - above, np.full_like(z, np.inf)
        else:
            t, rate = np.sinh(z), np.cosh(z)
            below, above = t - low, high - t
        # so near to an end that t cannot be told from it, nothing is left of the integral
        return below, np.where((t <= low) | (t >= high), 0.0, rate / self.function(t)), above

    def _integrand(self, y: Vector, z: Vector) -> Vector:
        """(y - t) / V(t) dt/dz at t(z), whose y - t keeps its digits at the ends."""
        low, high = self.mean_range
        below, rate, above = self._rate(z)
        if np.isfinite(low) and np.isfinite(high):
            gap = np.where(z < 0, (y - low) - below, (y - high) + above)
        elif np.isfinite(low):
            gap = (y - low) - below
        else:
            gap = (y - high) + above if np.isfinite(high) else y - np.sinh(z)
        return np.asarray(np.where(rate == 0.0, 0.0, gap * rate))


@final
@dataclass(frozen=True)
class Primitive:
    """F(z), the integral of f from a start: its values at nodes, and a short panel from the nearest of them."""

    f: Function
    nodes: Vector
    values: Vector

    @staticmethod
    def of(f: Function, start: float) -> Primitive:
        """Cells are halved until a panel over each agrees with two over its halves."""
        with np.errstate(all="ignore"):
            nodes = np.unique(np.append(np.arange(-FARTHEST, FARTHEST + CELL, CELL), start))
            for _ in range(HALVINGS):
                middle = 0.5 * (nodes[:-1] + nodes[1:])
                halves = _panel(f, nodes[:-1], middle) + _panel(f, middle, nodes[1:])
                worse = np.abs(_panel(f, nodes[:-1], nodes[1:]) - halves) > SETTLED * np.abs(halves)
                if not worse.any():
                    break
                nodes = np.sort(np.append(nodes, middle[worse]))
            parts = _panel(f, nodes[:-1], nodes[1:])
            k = int(np.searchsorted(nodes, start))
            above = np.concatenate([[0.0], np.cumsum(parts[k:])])
            below = -np.cumsum(parts[:k][::-1])[::-1]
            return Primitive(f, nodes, np.concatenate([below, above]))

    def at(self, z: Vector) -> Vector:
        """F(z) (n,); NaN beyond the nodes."""
        inside = np.abs(z) <= FARTHEST
        z = np.where(inside, z, 0.0)
        k = np.minimum(np.searchsorted(self.nodes, z, side="right") - 1, self.nodes.size - 2)
        return np.where(inside, self.values[k] + _panel(self.f, self.nodes[k], z), np.nan)


def _panel(f: Function, low: Vector, high: Vector) -> Vector:
    half = 0.5 * (high - low)
    return np.asarray((f((low + half)[:, None] + half[:, None] * FEW_NODES) @ FEW_WEIGHTS) * half)


def _integral(
    f: Callable[[Any, Vector], Vector], rows: Any, low: Vector, high: Vector, beside: Vector, depth: int = HALVINGS
) -> Vector:
    """Integrals of f(row, x) from low to high (n,), one for each row; beside: what they will be added to. Panels are halved
    where they need it.
    """
    middle = 0.5 * (low + high)
    whole, total = _gauss(f, rows, low, high), _gauss(f, rows, low, middle) + _gauss(f, rows, middle, high)
    worse = np.abs(total - whole) > SETTLED * (np.abs(total) + beside)
    if depth and worse.any():
        low, middle, high, beside = low[worse], middle[worse], high[worse], beside[worse] + np.abs(total[worse])
        total[worse] = _integral(f, rows[worse], low, middle, beside, depth - 1) + _integral(
            f, rows[worse], middle, high, beside, depth - 1
        )
    return total


def _gauss(f: Callable[[Any, Vector], Vector], rows: Any, low: Vector, high: Vector) -> Vector:
    half = 0.5 * (high - low)
    return np.asarray((f(rows, (low + half)[:, None] + half[:, None] * NODES) @ NODE_WEIGHTS) * half)


LAWS: dict[str, Law] = {
    "constant": Gaussian(),
    "mu": Poisson(),
    "mu^2": Gamma(),
    "mu^3": InverseGaussian(),
    "mu(1-mu)": Binomial(),
}
# The same as people write them.
WRITTEN = {"constant": "1", "mu": "mu", "mu^2": "mu^2", "mu^3": "mu^3", "mu(1-mu)": "mu (1 - mu)"}
# Links where none is named, by the range of the mean.
DEFAULT_LINKS = {(0.0, 1.0): "logit", (0.0, np.inf): "log"}


@final
@dataclass(frozen=True, init=False)
class Quasi:
    """A mean mu with Var[y] = phi V(mu) / w and nothing else assumed; estimates solve the quasi-score equations.

    variance: "constant", "mu", "mu^2", "mu^3", "mu(1-mu)", or a vectorised function V(mu), positive on mean_range. The
    deviance of a function is integrated to 1e-10 (towards an end of mean_range other than 0, as far as V can tell a mean
    from that end); responses lie where it is finite. There is no likelihood: llf, aic and
    bic are NaN, and the dispersion is Pearson's.
    """

    variance_given: str | Function
    mean_range: tuple[float, float]
    name: str

    def __init__(
        self,
        variance: str | Function = "constant",
        mean_range: tuple[float, float] | None = None,
        name: str = "quasi",
    ) -> None:
        if isinstance(variance, str):
            if variance not in LAWS:
                raise DesignError(
                    f'there is no variance "{variance}"{closest(variance, LAWS)}; there are: {", ".join(LAWS)}, '
                    "or a function of the mean"
                )
            if mean_range is not None:
                raise DesignError(f'variance="{variance}" has its own range of means: leave mean_range= out')
            low, high = LAWS[variance].mean_range
        elif callable(variance):
            try:
                low, high = (float(end) for end in ((-np.inf, np.inf) if mean_range is None else mean_range))
            except (TypeError, ValueError):
                low, high = np.nan, np.nan
            if not low < high:
                raise DesignError(
                    f"mean_range={mean_range!r} must be (lower, upper), with the lower end below the upper"
                )
        else:
            raise DesignError(f"variance must be a name or a function of the mean, not {variance!r}")
        for field, value in (("variance_given", variance), ("mean_range", (low, high)), ("name", name)):
            object.__setattr__(self, field, value)

    dispersion_known = False
    discrete = False
    dispersion = 1.0
    response: Response = "number"
    shape_names: tuple[str, ...] = ()
    likelihood_at: LikelihoodAt = "never"

    @property
    def text(self) -> str:
        if self.name in ("quasipoisson", "quasibinomial"):
            return self.name
        given = self.variance_given
        return f"quasi(variance={given!r})" if isinstance(given, str) else self.name

    @property
    def formulas(self) -> Formulas:
        given = self.variance_given
        return Formulas("", "y", "", "", WRITTEN[given] if isinstance(given, str) else "the given function of mu")

    @cached_property
    def law(self) -> Law:
        """The variance function with what follows from it."""
        given = self.variance_given
        if isinstance(given, str):
            return LAWS[given]
        own: Law = OwnVariance(given, self.mean_range)
        return own

    @property
    def default_link(self) -> str:
        return DEFAULT_LINKS.get(self.mean_range, "identity")

    @property
    def canonical_link(self) -> str:
        return self.law.canonical_link

    @property
    def canonical_scale(self) -> float:
        return self.law.canonical_scale

    @property
    def links(self) -> dict[str, str]:
        if self.name in ("quasipoisson", "quasibinomial"):
            return self.law.links
        return links_for(*self.mean_range)

    @property
    def support(self) -> str:
        return self.law.support

    @property
    def bounded(self) -> bool:
        return self.law.bounded

    @property
    def constant_variance(self) -> bool:
        return self.law.constant_variance

    def in_support(self, y: Vector) -> Mask:
        return self.law.in_support(y)

    def start_mean(self, y: Vector, w: Vector | float) -> Vector:
        return self.law.start_mean(y, w)

    def variance(self, mu: Vector, rest: Vector) -> Vector:
        return self.law.variance(mu, rest)

    def variance_slope(self, mu: Vector, rest: Vector) -> Vector:
        return self.law.variance_slope(mu, rest)

    def unit_deviance(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return self.law.unit_deviance(y, mu, rest)

    def unit_loss(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return self.law.unit_loss(y, mu, rest)

    def residual(self, y: Vector, mu: Vector, rest: Vector) -> Vector:
        return self.law.residual(y, mu, rest)

    def canonical_loss(self, y: Vector, theta: Vector, mu: Vector) -> Vector:
        return self.law.canonical_loss(y, theta, mu)

    # -- what needs a density ------------------------------------------------------------------------------------------

    def saturated(self, y: Vector, w: Vector | float, phi: float) -> Vector:
        return np.full(y.shape, np.nan)

    def saturated_derivatives(self, y: Vector, w: Vector | float, phi: float) -> tuple[Vector, Vector, Vector]:
        nothing = np.full(y.shape, np.nan)
        return nothing, nothing, nothing

    def saturated_shift(self, n: float, phi: float, weighted: bool) -> float | None:
        # not None, which would ask for a pass over the rows
        return np.nan

    def ml_dispersion(self, deviance: float, weighted: bool) -> float | None:
        raise self._no_density('no maximum likelihood estimate of the dispersion: use dispersion="pearson"')

    def log_base_measure(self, y: Vector) -> Vector:
        raise self._no_density("no log_base_measure")

    def sufficient_statistic(self, y: Vector) -> Vector:
        return y

    def log_partition(self, theta: Vector) -> Vector:
        raise self._no_density("no log_partition")

    def natural_parameter(self, mu: Vector) -> Vector:
        raise self._no_density("no natural_parameter")

    def mean(self, theta: Vector) -> Vector:
        raise self._no_density("no natural parameter to have a mean at")

    def _no_density(self, lack: str) -> DesignError:
        return DesignError(f"a quasi family has no density: {self.name} has {lack}")

    # -- as text -------------------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Names, import path and range, from which it is made again. DesignError where V has no import path."""
        given = self.variance_given
        if isinstance(given, str):
            return {"variance": given, "function": None, "mean_range": None, "name": self.name}
        path = path_of(given)
        if path is None:
            raise DesignError(
                f"variance of the {self.name} family cannot be found again by another process: put the function into a "
                "module that can be imported, on every worker too"
            )
        values = values_of(self.probes)
        return {
            "variance": None, "function": path, "mean_range": list(self.mean_range), "name": self.name, "values": values
        }  # fmt: skip

    @property
    def probes(self) -> dict[str, Probe]:
        """Its functions of one's own, and where their values are recorded."""
        given = self.variance_given
        return {} if isinstance(given, str) else {"variance": Probe(given, grid(*self.mean_range))}

    @staticmethod
    def from_document(document: dict[str, Any]) -> Quasi:
        """The family of a document; the module of its function must have been imported."""
        return _made(document, known)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.document(), imported)


def _made(document: dict[str, Any], find: Callable[[str], Function]) -> Quasi:
    path = document["function"]
    if path is None:
        return Quasi(document["variance"], name=document["name"])
    made = Quasi(find(path), document["mean_range"], document["name"])
    verify_values(made.probes, document.get("values"))
    return made


def verify(family: Quasi) -> None:
    """Whether a variance function is one: a positive number for each mean, at means spread over the range."""
    mu = spread_over(*family.mean_range)
    low, high = family.mean_range
    with np.errstate(all="ignore"):
        try:
            variance = np.asarray(family.variance(mu, 1.0 - mu))
        except Exception as error:  # it is the user's function
            raise DesignError(
                f"variance fails for an array of means ({type(error).__name__}: {error}): it must be vectorised"
            ) from error
    if variance.shape != mu.shape or variance.dtype.kind not in "fiu":
        raise DesignError(
            f"variance must return one number for each mean: for an array of shape {mu.shape} it returns "
            f"{variance.dtype} of shape {variance.shape}"
        )
    for i in np.flatnonzero(~((variance > 0.0) & np.isfinite(variance)))[:1]:
        raise DesignError(
            f"variance({mu[i]:g}) is {variance[i]:g}, and must be positive on the range of the mean, ({low:g}, {high:g}): "
            "give mean_range= where it is smaller"
        )


def Quasipoisson() -> Quasi:  # noqa: N802 - users call it as they call the others
    """Counts with Var[y] = phi mu / w and phi estimated: the estimates of poisson, with errors that follow the scatter."""
    return Quasi("mu", name="quasipoisson")


def Quasibinomial() -> Quasi:  # noqa: N802 - users call it as they call the others
    """Proportions with Var[y] = phi mu (1 - mu) / w and phi estimated: the estimates of binomial."""
    return Quasi("mu(1-mu)", name="quasibinomial")
