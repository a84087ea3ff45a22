"""A link of one's own: g and its inverse are enough, derivatives are taken numerically.

Sources: Squire and Trapp, Using complex variables to estimate derivatives of real functions (SIAM Review 1998);
Ridders, Accurate computation of F'(x) and F'(x) F''(x) (Advances in Engineering Software 1982).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError
from daskglm.model.links import LINKS, MAKERS, Rates
from daskglm.model.own import Probe, grid, imported, known, path_of, values_of, verify_values

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Map = Callable[[Any], Any]
Range = tuple[float, float]

EVERYWHERE: Range = (-np.inf, np.inf)
# The error of the complex step is its square; a slope times it stays a normal number down to slopes of 1e-277.
COMPLEX_STEP = 1e-30
# Steps of central differences, each half the one before, from a quarter of eta (or of 1): at eta = 700 the last is 1/4,
# as small as functions like exp need.
STEPS = 10
# Two ways to the same slope differ by less, of the slope and a thousandth of the mean, unless one of them is wrong:
# scipy's complex functions have nine digits in places, fewer than differences of its real ones.
SAME_SLOPE = 1e-9
# What g has to give back of eta.
THERE_AND_BACK = 1e-8


def differences(function: Map, eta: Vector, eta_range: Range, order: int) -> Vector:
    """The first or second derivative (n,) by central differences with steps h, h/2, h/4, ..., extrapolated to 0.

    Of each row the entry of the tableau is taken whose neighbours differ least (Ridders 1982), so that the step suits
    functions whose scale is 1 and those whose scale is eta. No step leaves eta_range.
    """
    best, least = np.full_like(eta, np.nan), np.full_like(eta, np.inf)
    before: list[Vector] = []
    with np.errstate(all="ignore"):
        room = np.minimum(np.maximum(1.0, np.abs(eta)), 2.0 * np.minimum(eta - eta_range[0], eta_range[1] - eta))
        # powers of two, so that eta + step and eta - step are as far from eta as they say
        step = np.exp2(np.floor(np.log2(room)) - 2.0)
        here = function(eta) if order == 2 else eta
        for _ in range(STEPS):
            above, below = function(eta + step), function(eta - step)
            first = (above - below) / (2.0 * step)
            row = [first if order == 1 else ((above - here) - (here - below)) / (step * step)]
            for k, coarser in enumerate(before):
                row.append(row[k] + (row[k] - coarser) / (4.0 ** (k + 1) - 1.0))
                error = np.maximum(np.abs(row[k + 1] - row[k]), np.abs(row[k + 1] - coarser))
                better = error < least
                best, least = np.where(better, row[k + 1], best), np.where(better, error, least)
            before, step = row, 0.5 * step
    return best


@final
@dataclass(frozen=True)
class Custom:
    """A link given by g and its inverse; `custom` makes them.

    The mean is what the inverse gives, and 1 - mu is just that: a probability cannot come nearer to 1 than 1e-16, where
    the built-in links can. Its slope is exact where the inverse takes complex arrays (complex step); otherwise, and for
    the curvature, see `differences`.
    """

    g: Map
    g_inverse: Map
    mean_range: Range
    eta_range: Range
    label: str | None
    # whether the inverse takes complex arrays and the complex step is its derivative
    analytic: bool

    @property
    def path(self) -> tuple[str, str] | None:
        """Import paths "module:qualname" of g and of its inverse, if both have one."""
        g, g_inverse = path_of(self.g), path_of(self.g_inverse)
        return None if g is None or g_inverse is None else (g, g_inverse)

    @property
    def name(self) -> str:
        path = self.path
        return self.label or ("custom" if path is None else f"custom({path[0]}, {path[1]})")

    @property
    def formula(self) -> str:
        return f"{path_of(self.g) or 'g'}(mu)"

    @property
    def restricts(self) -> bool:
        return self.eta_range != EVERYWHERE

    def link(self, mu: Vector) -> Vector:
        with np.errstate(all="ignore"):
            return np.asarray(self.g(mu), np.float64)

    def inverse(self, eta: Vector, rest: bool = True) -> tuple[Vector, Vector, Vector]:
        mu = self._mean(eta)
        return mu, self._slope(eta), 1.0 - mu if rest else mu

    def curvature(self, eta: Vector) -> Vector:
        if self.analytic:
            return differences(self._slope, eta, self.eta_range, 1)
        return differences(self._mean, eta, self.eta_range, 2)

    def rates(self, eta: Vector) -> Rates:
        mu, slope, rest = self.inverse(eta)
        # a mean that is 0 or 1 to the last bit tells no more about eta; 0 / 0 would spoil the sums of the other rows
        settled = (mu == 0.0) | (rest == 0.0) | (slope == 0.0)
        ratios = (np.where(settled, 0.0, part) for part in (slope / mu, slope / rest, self.curvature(eta) / slope))
        return Rates(np.log(mu), np.log1p(-mu), *ratios)

    def valid(self, eta: Vector) -> Mask:
        return np.isfinite(eta) & (eta > self.eta_range[0]) & (eta < self.eta_range[1])

    def _mean(self, eta: Vector) -> Vector:
        with np.errstate(all="ignore"):
            return np.asarray(self.g_inverse(eta), np.float64)

    def _slope(self, eta: Vector) -> Vector:
        if self.analytic:
            return _complex_step(self.g_inverse, eta)
        return differences(self._mean, eta, self.eta_range, 1)

    def document(self) -> dict[str, Any]:
        """Import paths and settings, from which it is made again; DesignError where a function has no path."""
        path = self.path
        if path is None:
            raise DesignError(
                f"nobody else can be told what the link {self.name} is: put its functions into a module that can be "
                f"imported, not into a notebook, a script or another function"
            )
        settings = {"mean_range": list(self.mean_range), "eta_range": list(self.eta_range)}
        return {
            "link": path[0], "inverse": path[1], **settings, "label": self.label, "analytic": self.analytic,
            "values": values_of(self.probes),
        }  # fmt: skip

    @property
    def probes(self) -> dict[str, Probe]:
        """Its functions, and where their values are recorded."""
        return {
            "link": Probe(self.g, grid(*self.mean_range)),
            "inverse": Probe(self.g_inverse, grid(*self.eta_range)),
        }

    @staticmethod
    def from_document(document: dict[str, Any]) -> Custom:
        """The link of a document; the modules of its functions must have been imported."""
        return _made(document, known)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.document(), imported)


def custom(
    link: Map,
    inverse: Map,
    mean_range: Range = EVERYWHERE,
    name: str | None = None,
    eta_range: Range = EVERYWHERE,
) -> Custom:
    """A link of one's own, eta = link(mu) and mu = inverse(eta), functions of arrays (n,).

    mean_range is the open interval of means it can give, by which it suits a family or not; eta_range the open interval
    of eta that have a mean. Derivatives are taken numerically. Measured for |eta| up to 100 on the scale of the function:
    where the inverse takes complex arrays, slopes to 1e-15 and curvatures to 1e-12 of their size; elsewhere slopes to
    1e-13 and curvatures to 1e-10 of their size or the mean's, whichever is larger. A row costs some 20 calls of the inverse
    for each curvature, and for each slope that is not by the complex step.
    A saved model and a cluster know it by the import paths of the two functions. DesignError where an argument is not
    what it should be; `verify_link` looks at the functions.
    """
    for argument, function in (("link", link), ("inverse", inverse)):
        if not callable(function):
            raise DesignError(f"{argument}={function!r} of the custom link is not a function")
    for argument, interval in (("mean_range", mean_range), ("eta_range", eta_range)):
        if not _is_interval(interval):
            raise DesignError(f"{argument}={interval!r} of the custom link is no interval (low, high)")
    if name is not None and (not isinstance(name, str) or not name or "(" in name or name in LINKS or name in MAKERS):
        raise DesignError(
            f"name={name!r} of the custom link: a text without parentheses that is the name of no other link, or None"
        )
    interval = (float(eta_range[0]), float(eta_range[1]))
    means = (float(mean_range[0]), float(mean_range[1]))
    return Custom(link, inverse, means, interval, name, _is_analytic(inverse, interval))


def verify_link(link: Custom) -> None:
    """Raise a DesignError that says what is wrong, unless on a grid of eta the inverse is finite, strictly monotone, and
    inside mean_range, and the link leads back to eta, to 1e-8 of it (or what one rounding of the mean makes of it).

    The grid is in eta_range, between -3 and 3 where that has no end: beyond, means may be at their bounds.
    """
    eta = grid(*link.eta_range)
    with np.errstate(all="ignore"):
        mu = _called(link, "inverse", link.g_inverse, eta)
        at = _first(~np.isfinite(mu))
        if at is not None:
            raise DesignError(
                f"the inverse of the link {link.name} gives {mu[at]:.10g} at eta = {eta[at]:.10g} where there should be a "
                f"finite mean: eta_range= says where there is one"
            )
        low, high = link.mean_range
        at = _first(~((mu > low) & (mu < high)))
        if at is not None:
            raise DesignError(
                f"the inverse of the link {link.name} gives {mu[at]:.10g} at eta = {eta[at]:.10g}, which should be inside "
                f"({low:g}, {high:g}): mean_range= says which means there are, eta_range= for which eta"
            )
        rises = np.diff(mu)
        at = _first(~(rises * np.sign(rises[0]) > 0.0))
        if at is not None:
            raise DesignError(
                f"the link {link.name} is not strictly monotone: its inverse gives {mu[at]:.10g} at eta = {eta[at]:.10g} "
                f"and {mu[at + 1]:.10g} at eta = {eta[at + 1]:.10g}, where it should "
                f"{'rise' if rises[0] > 0.0 else 'fall'} as between {eta[0]:.10g} and {eta[1]:.10g}"
            )
        back = _called(link, "link", link.g, mu)
        shaken = np.stack([_called(link, "link", link.g, np.nextafter(mu, end)) for end in (-np.inf, np.inf)])
    size = np.maximum(np.abs(eta), min(1.0, link.eta_range[1] - link.eta_range[0]))
    allowed = THERE_AND_BACK * size + 2.0 * np.nan_to_num(np.abs(shaken - back)).max(axis=0)
    at = _first(~(np.abs(back - eta) <= allowed))
    if at is not None:
        raise DesignError(
            f"the link {link.name} does not undo its inverse: the mean at eta = {eta[at]:.10g} is {mu[at]:.10g}, and the "
            f"link of that is {back[at]:.10g}, which should be {eta[at]:.10g} again"
        )


def _first(wrong: Mask) -> int | None:
    return int(np.argmax(wrong)) if wrong.any() else None


def _called(link: Custom, kind: str, function: Map, values: Vector) -> Vector:
    """function(values) (n,), or a DesignError where that is not what comes out."""
    try:
        found = np.asarray(function(values))
    except Exception as error:
        raise DesignError(
            f"the {kind} function of the link {link.name} raised {type(error).__name__} ({error}) for an array of "
            f"{values.size} numbers: write it with NumPy functions of arrays"
        ) from error
    if found.shape != values.shape or found.dtype.kind not in "fiu":
        raise DesignError(
            f"the {kind} function of the link {link.name} gives {found.dtype} of shape {found.shape} for an array of "
            f"{values.size} numbers: it should give as many numbers"
        )
    return found.astype(np.float64)


def _is_interval(interval: object) -> bool:
    if not isinstance(interval, (tuple, list)) or len(interval) != 2:
        return False
    if not all(isinstance(end, (int, float, np.integer, np.floating)) for end in interval):
        return False
    return bool(interval[0] < interval[1])


def _complex_step(function: Map, eta: Vector) -> Vector:
    """f'(eta) = Im f(eta + ih) / h: nothing is subtracted."""
    with np.errstate(all="ignore"):
        return np.asarray(np.imag(function(eta + 1j * COMPLEX_STEP)) / COMPLEX_STEP, np.float64)


def _is_analytic(function: Map, eta_range: Range) -> bool:
    """Whether the complex step gives the derivative: not where it raises or warns, and not where abs() or the like
    threw the imaginary part away."""
    eta = grid(*eta_range)
    if eta_range == EVERYWHERE:
        eta = np.concatenate([eta, 4.0 * eta, 16.0 * eta])
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")
            mu, slope = np.asarray(function(eta), np.float64), _complex_step(function, eta)
            other = differences(lambda x: np.asarray(function(x), np.float64), eta, eta_range, 1)
    except Exception:  # whatever a function raises that was not written for complex numbers
        return False
    looked_at = np.isfinite(mu) & np.isfinite(other)
    if slope.shape != eta.shape or not looked_at.any():
        return False
    size = np.abs(other) + 1e-3 * np.abs(mu)
    return bool(np.all(np.abs(slope - other)[looked_at] <= SAME_SLOPE * size[looked_at]))


def _made(document: dict[str, Any], find: Callable[[str], Map]) -> Custom:
    means, interval = (tuple(float(end) for end in document[key]) for key in ("mean_range", "eta_range"))
    label, analytic = document["label"], bool(document["analytic"])
    made = Custom(find(document["link"]), find(document["inverse"]), means, interval, label, analytic)  # type: ignore[arg-type]
    verify_values(made.probes, document.get("values"))
    return made
