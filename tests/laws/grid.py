"""Every family with every link it accepts, on data of many shapes: what a fit says must be true of the data it saw.

A fit is at an optimum, which a gradient evaluated anew (`tests.laws.formulas`) confirms; or it names the coefficients that
are infinite, and is at the optimum of the rows that are left; or it says that the optimum lies on the boundary of the
possible means, and no feasible step from there lowers the loss; or it refuses in a sentence. Nothing else is right.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import linalg, optimize, special

import daskglm as dg
from daskglm import families
from daskglm.errors import AliasWarning, ConvergenceWarning, DaskglmError, SeparationWarning
from daskglm.model.pairs import FAMILIES
from tests.laws import formulas
from tests.laws.densities import CompoundPoisson
from tests.laws.formulas import LAWS, NATURAL, Law, Natural, Pair
from tests.model import home_made

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Squared distance to the optimum in standard errors.
NEAR = 1e-10
# A linear predictor cannot be closer to the best one than this part of itself: some hundred roundings of its terms.
ROUNDING = 1e-13
# Of what is estimated beside the coefficients, by differences of a density where there is no formula.
BESIDE = 1e-8
# A fall of the loss that a feasible step may still find at the boundary, in units of the dispersion.
FALL = 1e-3
# Linear predictors this near to an end of their domain, as a part of their mean, are at it.
AT_BOUNDARY = 1e-6
# The slope of the loss there, per unit of eta.
PRESSED = 1e-3
# A smaller dispersion of responses of order 1 is that of a perfect fit.
PERFECT = 1e-6
# Movements of a row along a direction of recession below this part of its terms are rounding.
STILL = 1e-8
# A direction that moves some row moves the farthest by 1; the linear program keeps its constraints to 1e-7.
SEPARATED = 0.5
# Terms of a density's series beyond which it is not summed here.
TERMS = 1e4
# Beyond this the derivatives of the log-likelihood in theta are rounding.
LARGE_THETA = 1e5
# What a fit may warn of.
SAID = (AliasWarning, ConvergenceWarning, SeparationWarning)
# Passes over so little data that are too many.
PASSES = 150

# -- families ----------------------------------------------------------------------------------------------------------------


def _draw_real(mu: Vector, rng: np.random.Generator) -> Vector:
    return mu + 0.5 * rng.normal(size=mu.size)


def _draw_chance(mu: Vector, rng: np.random.Generator) -> Vector:
    return (rng.random(mu.size) < mu).astype(float)


def _draw_counts(mu: Vector, rng: np.random.Generator) -> Vector:
    return rng.poisson(mu).astype(float)


def _draw_overdispersed(mu: Vector, rng: np.random.Generator) -> Vector:
    return rng.poisson(mu * rng.gamma(1.5, 1.0 / 1.5, mu.size)).astype(float)


def _draw_positive(mu: Vector, rng: np.random.Generator) -> Vector:
    return np.maximum(mu * rng.gamma(2.0, 0.5, mu.size), 1e-6 * mu)


def _draw_skewed(mu: Vector, rng: np.random.Generator) -> Vector:
    return rng.wald(mu, 2.0 * mu)


def _draw_compound(mu: Vector, rng: np.random.Generator) -> Vector:
    return CompoundPoisson(mu, 1.0, 1.5).rvs(rng)


def _draw_beyond_zero(mu: Vector, rng: np.random.Generator) -> Vector:
    return 1.0 + rng.poisson(np.maximum(mu - 1.0, 0.0))


@dataclass(frozen=True)
class Entry:
    """A family as it is asked for: made by make(); its formulas by law(fit); draw(mu, rng): responses; zero: whether 0 is
    one."""

    make: Callable[[], Any]
    law: Callable[[Any], Law]
    draw: Callable[[Vector, np.random.Generator], Vector]
    zero: bool


def _entry(text: str, draw: Any, zero: bool, make: Callable[[], Any] | None = None) -> Entry:
    return Entry(make or (lambda: text), lambda _: LAWS[text], draw, zero)


def _power_entry(p: float, draw: Any, zero: bool) -> Entry:
    return Entry(lambda: f"tweedie(power={p})", lambda _: formulas.tweedie(p), draw, zero)


ENTRIES: dict[str, Entry] = {
    "gaussian": _entry("gaussian", _draw_real, True),
    "binomial": _entry("binomial", _draw_chance, True),
    "poisson": _entry("poisson", _draw_counts, True),
    "gamma": _entry("gamma", _draw_positive, False),
    "gamma(shape=2)": _entry("gamma(shape=2)", _draw_positive, False),
    "exponential": _entry("exponential", _draw_positive, False),
    "inverse_gaussian": _entry("inverse_gaussian", _draw_skewed, False),
    "negative_binomial(theta=1.5)": Entry(
        lambda: "negative_binomial(theta=1.5)", lambda _: formulas.counts(1.5), _draw_overdispersed, True
    ),
    "negative_binomial": Entry(
        lambda: "negative_binomial",
        lambda fit: formulas.counts(fit.shape_params["theta"]),
        _draw_overdispersed,
        True,
    ),
    "geometric": _entry("geometric", _draw_overdispersed, True),
    "tweedie": Entry(
        lambda: "tweedie", lambda fit: formulas.tweedie(fit.shape_params["power"]), _draw_compound, True
    ),
    "tweedie(power=1.2)": _power_entry(1.2, _draw_compound, True),
    "tweedie(power=1.9)": _power_entry(1.9, _draw_compound, True),
    "tweedie(power=2.5)": _power_entry(2.5, _draw_skewed, False),
    "tweedie(power=4)": _power_entry(4.0, _draw_skewed, False),
    "tweedie(power=-0.5)": _power_entry(-0.5, _draw_real, True),
    "tweedie(power=-2)": _power_entry(-2.0, _draw_real, True),
    "tweedie(power=0)": _power_entry(0.0, _draw_real, True),
    'quasi(variance="constant")': _entry('quasi(variance="constant")', _draw_real, True),
    'quasi(variance="mu")': _entry('quasi(variance="mu")', _draw_compound, True),
    'quasi(variance="mu^2")': _entry('quasi(variance="mu^2")', _draw_positive, False),
    'quasi(variance="mu^3")': _entry('quasi(variance="mu^3")', _draw_skewed, False),
    'quasi(variance="mu(1-mu)")': _entry('quasi(variance="mu(1-mu)")', _draw_chance, True),
    "quasipoisson": _entry("quasipoisson", _draw_overdispersed, True),
    "quasibinomial": _entry("quasibinomial", _draw_chance, True),
    "overdispersed": _entry(
        "overdispersed", _draw_overdispersed, True,
        lambda: families.Quasi(formulas.overdispersed_variance, (0.0, np.inf), "overdispersed"),
    ),
    "secant": _entry("secant", _draw_real, True, lambda: families.Quasi(formulas.secant_variance, name="secant")),
}  # fmt: skip


@dataclass(frozen=True)
class Own:
    """One's own exponential family with its canonical link; draw(mu, rng) and zero as above; least: its least count."""

    make: Callable[[], Any]
    draw: Callable[[Vector, np.random.Generator], Vector]
    zero: bool
    least: float = 0.0


OWN: dict[str, Own] = {
    "own bernoulli": Own(
        lambda: families.ExponentialFamily(home_made.bernoulli_log_partition, support="binary"), _draw_chance, True
    ),
    "own poisson": Own(
        lambda: families.ExponentialFamily(
            home_made.poisson_log_partition, log_base_measure=home_made.one_over_factorial, support="counts"
        ),
        _draw_counts, True,
    ),
    "own exponential": Own(
        lambda: families.ExponentialFamily(
            home_made.exponential_log_partition, support="positive", natural_space=(-np.inf, 0.0)
        ),
        _draw_positive, False,
    ),
    "own truncated poisson": Own(
        lambda: families.ExponentialFamily(
            home_made.truncated_log_partition, log_base_measure=home_made.truncated_base, support="counts"
        ),
        _draw_beyond_zero, True, 1.0,
    ),
}  # fmt: skip

POWERS = ("power(0.3)", "power(2)", "power(-0.5)")
ORDERED = ("logit", "probit", "cloglog", "loglog", "cauchit")


def pairs() -> list[tuple[str, str]]:
    """Every family with every link it accepts; links of a number with several numbers."""
    found = []
    for name, entry in ENTRIES.items():
        made = entry.make()
        family = dg.plan("y ~ x", family=made).family
        for link in family.links:
            found += [(name, text) for text in (POWERS if link == "power" else (link,))]
    found += [(name, "canonical") for name in OWN]
    found += [("multinomial", "logit")] + [("ordinal", link) for link in ORDERED]
    return found


def missing() -> set[str]:
    """Families of the package that the grid does not know."""
    return {name for name in FAMILIES if not any(entry.startswith(name) for entry, _ in pairs())}


# -- shapes ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What the data look like. n rows; window: which means are true; right: the formula; counts: rows of the factor's
    levels, shares where they are below 1; change(frame, rng, zero): what is done to it in the end; options of the fit.
    """

    n: int
    right: str = "x1 + x2 + g"
    window: str = "plain"
    counts: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    change: Callable[[pd.DataFrame, np.random.Generator, bool], None] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    offset: bool = False


# True means: positive ones and those of any sign, and chances.
WINDOWS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "plain": ((1.0, 4.0), (0.25, 0.75)),
    "strong": ((0.05, 50.0), (0.02, 0.98)),
    "low": ((0.002, 2.0), (0.002, 0.4)),
    "high": ((0.5, 500.0), (0.6, 0.998)),
}


def _rescaled(frame: pd.DataFrame, rng: np.random.Generator, zero: bool) -> None:
    frame["x1"] *= 1e6


def _collinear(frame: pd.DataFrame, rng: np.random.Generator, zero: bool) -> None:
    frame["x2"] = frame["x1"] + 1e-5 * rng.normal(size=len(frame))


def _mostly_zero(frame: pd.DataFrame, rng: np.random.Generator, zero: bool) -> None:
    chosen = rng.random(len(frame)) < 0.8
    frame.loc[chosen, "y"] = 0.0 if zero else 1e-3 * frame.loc[chosen, "y"]


def _silent(frame: pd.DataFrame, rng: np.random.Generator, zero: bool) -> None:
    chosen = frame["g"] == "b"
    frame.loc[chosen, "y"] = 0.0 if zero else 1e-3 * frame.loc[chosen, "y"]


def _weighted(frame: pd.DataFrame, rng: np.random.Generator, zero: bool) -> None:
    frame["f"] = rng.integers(0, 5, len(frame))
    frame["w"] = rng.uniform(0.5, 3.0, len(frame))


SHAPES: dict[str, Shape] = {
    "plain": Shape(200),
    "strong": Shape(300, window="strong"),
    "tiny": Shape(12, "x1 + x2 + x3"),
    "unbalanced": Shape(200, counts=(150, 40, 6, 3, 1)),
    "offset": Shape(150, offset=True, options={"offset": "o"}),
    "frequency": Shape(150, change=_weighted, options={"weights": dg.Frequency("f")}),
    "variance": Shape(150, change=_weighted, options={"weights": dg.Variance("w")}),
    "zeros": Shape(200, change=_mostly_zero),
    "silent": Shape(200, change=_silent),
    "large x": Shape(150, change=_rescaled),
    "collinear": Shape(150, "x1 + x2", change=_collinear),
    "low edge": Shape(200, window="low"),
    "high edge": Shape(200, window="high"),
    "steep": Shape(60, "x1 + x2", window="low"),
    "lonely": Shape(30, "x1 + g", counts=(20, *(1,) * 10)),
    "saturated": Shape(8, "g", counts=(1,) * 8),
}

LEVELS = "abcdefghijklmnop"


def _codes(counts: tuple[float, ...], n: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    if counts[0] >= 1:
        return rng.permutation(np.repeat(np.arange(len(counts)), np.array(counts, int)))
    return rng.choice(len(counts), n, p=counts)


def _truth(shape: Shape, rng: np.random.Generator) -> tuple[pd.DataFrame, Vector, Vector]:
    """Columns, a linear predictor u of them in [-1, 1] (n,), and the offset's part of it."""
    codes = _codes(shape.counts, shape.n, rng)
    frame = pd.DataFrame({f"x{j}": rng.uniform(-1.0, 1.0, shape.n) for j in (1, 2, 3)})
    frame["g"] = np.array(list(LEVELS))[codes]
    effects = rng.uniform(-1.0, 1.0, len(shape.counts))
    part = {"x1": 0.4 * frame["x1"], "x2": -0.3 * frame["x2"], "x3": 0.2 * frame["x3"], "g": 0.25 * effects[codes]}
    moved = 0.05 * rng.uniform(-1.0, 1.0, shape.n) if shape.offset else np.zeros(shape.n)
    u = sum(np.asarray(part[name]) for name in shape.right.split(" + "))
    return frame, np.asarray(u, float) + moved, moved


@dataclass(frozen=True)
class Case:
    """A pair of family and link on data of one shape, drawn with one seed."""

    family: str
    link: str
    shape: str
    seed: int

    def __str__(self) -> str:
        return f"{self.family} {self.link} {self.shape} {self.seed}"

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The data."""
        shape = SHAPES[self.shape]
        rng = np.random.default_rng([zlib.crc32(f"{self.family} {self.link} {self.shape}".encode()), self.seed])
        frame, u, moved = _truth(shape, rng)
        if self.family in ("multinomial", "ordinal"):
            self._draw_classes(frame, u, moved, rng)
            return frame
        positive, chance = WINDOWS[shape.window]
        own = OWN.get(self.family)
        entry = ENTRIES.get(self.family)
        source: Any = own or entry
        low, high = chance if source.draw is _draw_chance else positive
        if source.draw is _draw_beyond_zero:
            low, high = low + 1.0, high + 1.0
        first, last = (_link(self.family, self.link, np.array([mean]))[0] for mean in (low, high))
        eta = 0.5 * (first + last) + 0.5 * (last - first) * u
        frame["o"] = 0.5 * (last - first) * moved
        mean = _mean(self.family, self.link, eta)
        frame["y"] = source.draw(mean, rng)
        if shape.change is not None:
            shape.change(frame, rng, source.zero)
        if own is not None:
            frame["y"] = np.maximum(frame["y"], own.least)
        return frame

    def _draw_classes(self, frame: pd.DataFrame, u: Vector, moved: Vector, rng: np.random.Generator) -> None:
        shape = SHAPES[self.shape]
        strength = {"plain": 1.0, "strong": 6.0, "low": 3.0, "high": 3.0}[shape.window]
        noise = rng.logistic(size=shape.n)
        latent = strength * u + noise
        cuts = {"low": (1.0, 3.0), "high": (-3.0, -1.0)}.get(shape.window, (-1.0, 1.0))
        frame["o"] = strength * moved
        frame["y"] = np.digitize(latent, cuts).astype(float)
        if shape.change is not None:
            shape.change(frame, rng, True)
        frame["y"] = np.array(["low", "middle", "top"])[frame["y"].to_numpy().astype(int)]
        frame["y"] = pd.Categorical(frame["y"], ["low", "middle", "top"], ordered=True)

    def fit(self) -> Any:
        """The package's fit."""
        shape = SHAPES[self.shape]
        source: Any = OWN.get(self.family) or ENTRIES.get(self.family)
        family = self.family if source is None else source.make()
        return dg.glm(f"y ~ {shape.right}", self.frame, family=family, link=self.link, progress=False, **shape.options)


def _link(family: str, link: str, mu: Vector) -> Vector:
    """g(mu), by root finding where the family is one's own."""
    if family in NATURAL:
        natural = NATURAL[family]
        high = -1e-12 if natural.high == 0.0 else 20.0
        low = -1e6 if natural.high == 0.0 else -60.0
        return np.array([optimize.brentq(lambda t, m=m: float(natural.mean(np.array(t)) - m), low, high) for m in mu])
    if link.startswith("power("):
        return mu ** float(link[6:-1])
    return {
        "identity": lambda m: m, "log": np.log, "logit": special.logit, "probit": special.ndtri,
        "cloglog": lambda m: np.log(-np.log1p(-m)), "loglog": lambda m: -np.log(-np.log(m)),
        "cauchit": lambda m: np.tan(np.pi * (m - 0.5)), "log_complement": lambda m: np.log1p(-m),
        "inverse": lambda m: 1.0 / m, "inverse_square": lambda m: m**-2.0, "sqrt": np.sqrt,
    }[link](mu)  # fmt: skip


def _mean(family: str, link: str, eta: Vector) -> Vector:
    return np.asarray(NATURAL[family].mean(eta) if family in NATURAL else formulas.inverse_of(link).mu(eta))


# -- the judge ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of a case. outcome: "optimum", "separated", "boundary", "given up", "refused" or "wrong"; passes over the
    data, seconds, and what there is to say."""

    case: Case
    outcome: str
    detail: str = ""
    passes: int = 0
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the fit said the truth, and not too slowly."""
        return self.outcome != "wrong"


@dataclass
class Data:
    """The rows a fit has used, as a dense problem. X (n, p) in the order of names."""

    y: npt.NDArray[Any]
    x: Matrix
    offset: Vector
    weight: Vector
    names: list[str]


def _column(frame: pd.DataFrame, name: str) -> Vector:
    if name == "Intercept":
        return np.ones(len(frame))
    if name.startswith("g[T."):
        return (frame["g"] == name[4:-1]).to_numpy(float)
    return frame[name].to_numpy(float)


def dense(case: Case, names: list[str]) -> Data:
    """The design matrix from the names of its columns."""
    shape, frame = SHAPES[case.shape], case.frame
    weight = np.ones(len(frame))
    given = shape.options.get("weights")
    if given is not None:
        weight = frame[given.column].to_numpy(float)
    used = frame[weight > 0]
    offset = used["o"].to_numpy(float) if "offset" in shape.options else np.zeros(len(used))
    y = (
        used["y"].cat.codes.to_numpy()
        if isinstance(used["y"].dtype, pd.CategoricalDtype)
        else used["y"].to_numpy(float)
    )
    return Data(y, np.column_stack([_column(used, name) for name in names]), offset, weight[weight > 0], names)


def judge(case: Case) -> Verdict:
    """Fit, and hold every word of it against the data."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = case.fit()
        except DaskglmError as error:
            return Verdict(case, "refused", str(error), 0, time.perf_counter() - began)
        except Exception as error:  # whatever it is, it is wrong
            return Verdict(case, "wrong", f"{type(error).__name__}: {error}", 0, time.perf_counter() - began)
    seconds = time.perf_counter() - began
    kinds = {warning.category for warning in caught}
    strange = [f"{w.category.__name__}: {w.message}" for w in caught if not issubclass(w.category, SAID)]
    outcome, detail = ("wrong", f"warns {strange[0]}") if strange else held_against(case, fit, kinds)
    if outcome in ("optimum", "separated") and fit.n_passes > PASSES:
        outcome, detail = "wrong", f"{fit.n_passes} passes, {detail}"
    return Verdict(case, outcome, detail, fit.n_passes, seconds)


def held_against(case: Case, fit: Any, kinds: set[type[Warning]]) -> tuple[str, str]:
    """Outcome and detail of a fit that warned so, by the data alone."""
    with np.errstate(all="ignore"):
        return (_of_classes if case.family in ("multinomial", "ordinal") else _of_number)(case, fit, kinds)


# -- a number ----------------------------------------------------------------------------------------------------------------


def _formulas(case: Case, fit: Any) -> Pair | Natural:
    if case.family in NATURAL:
        return NATURAL[case.family]
    return Pair(ENTRIES[case.family].law(fit), formulas.inverse_of(case.link), case.link)


def _of_number(case: Case, fit: Any, kinds: set[type[Warning]]) -> tuple[str, str]:
    model = _formulas(case, fit)
    data = dense(case, list(fit.params.index))
    values = fit.params.to_numpy()
    if bool(fit.separated) != (SeparationWarning in kinds):
        return "wrong", f"separated {fit.separated}, but warns {kinds}"
    if fit.converged == (ConvergenceWarning in kinds):
        return "wrong", f"status {fit.status}, but warns {kinds}"
    for name, value in zip(data.names, values, strict=True):
        if np.isnan(value) and name not in fit.aliased:
            return "wrong", f"{name} is NaN and not aliased"
        if np.isinf(value) and name not in fit.separated:
            return "wrong", f"{name} is infinite and not separated"
    coef, rest = np.nan_to_num(values), np.ones(len(data.y), bool)
    if fit.separated:
        said = _separation(fit, model, data)
        if isinstance(said, str):
            return "wrong", said
        coef, rest = said
        if fit.converged and not rest.any():
            return "separated", "every row"
    elif fit.converged and _infinite(data.x, *model.recession(data.y)):
        return "wrong", f"the optimum is infinite, and the fit does not say so (status {fit.status})"
    y, x, weight = data.y[rest], data.x[rest], data.weight[rest]
    eta = _inside(model, x @ coef + data.offset[rest], np.abs(x) @ np.abs(coef))
    rows = model.rows(y, eta)
    if not rows.possible.all():
        return "wrong", f"{(~rows.possible).sum()} impossible means (status {fit.status})"
    distance, phi, noise = _distance(x, weight, rows, eta, y, model.known)
    if fit.converged:
        if not distance <= max(NEAR * phi, noise):
            return (
                "wrong",
                f"{fit.status}, but the decrement is {distance / phi:.3g} (says {fit.certificate.decrement:.3g})",
            )
        pressed = _pressed(model, rows, eta, weight)
        if pressed:
            return "wrong", pressed
        bent = _saddle(model, y, x, weight, data.offset[rest], coef, rows)
        if bent:
            return "wrong", bent
        beside = _beside(case, fit, y, rows.mu, weight, "frequency" if case.shape == "frequency" else "variance")
        if beside:
            return "wrong", beside
        return ("separated" if fit.separated else "optimum"), f"decrement {distance / phi:.2g}"
    if not fit.record.reason:
        return "wrong", f"status {fit.status} without a reason"
    fall = descent(model, y, x, weight, data.offset[rest], coef, phi)
    if fall > FALL:
        return (
            "wrong",
            f"{fit.status} ({fit.record.reason[:70]}), but a feasible step lowers the loss by {fall:.3g} phi",
        )
    return "boundary", fit.record.reason


def _inside(model: Any, eta: Vector, size: Vector) -> Vector:
    """eta (n,), taken back into its domain where no more than the rounding of its terms (n,) led out of it."""
    low, high = model.domain()
    rounding = ROUNDING * size
    eta = np.where((eta <= low) & (eta > low - rounding), low + rounding, eta)
    return np.asarray(np.where((eta >= high) & (eta < high + rounding), high - rounding, eta))


def _whitened(x: Matrix, weight: Vector) -> Matrix:
    """An orthonormal basis of the columns of sqrt(weight) X."""
    rooted = np.sqrt(weight)[:, None] * x
    size = np.sqrt((rooted**2).sum(axis=0))
    rooted = rooted[:, size > 0] / size[size > 0]
    if not rooted.size:
        return np.zeros((len(x), 0))
    left, values, _ = linalg.svd(rooted, full_matrices=False)
    return np.asarray(left[:, values > 1e-12 * values.max(initial=1.0)])


def _distance(
    x: Matrix, weight: Vector, rows: formulas.Rows, eta: Vector, y: Vector, known: bool
) -> tuple[float, float, float]:
    """score' I^-1 score, the dispersion that it is measured by, and what of it is rounding."""
    expected = weight * rows.weight
    basis = _whitened(x, expected)
    with np.errstate(all="ignore"):
        pull = np.where(expected > 0, weight * rows.score / np.sqrt(expected), 0.0)
    pearson = float(np.sum(np.where(y == rows.mu, 0.0, weight * (y - rows.mu) ** 2 / rows.variance)))
    phi = 1.0 if known else max(pearson / max(len(y) - basis.shape[1], 1), np.finfo(float).tiny)
    noise = ROUNDING**2 * float(np.sum(expected * eta**2) + len(y))
    return float(np.sum((basis.T @ pull) ** 2)), phi, noise


def _separation(fit: Any, model: Any, data: Data) -> tuple[Vector, npt.NDArray[np.bool_]] | str:
    """(coefficients of the rows left, which those are), or what is wrong with the rows that are set at their limit."""
    record = fit.record.separation
    up, down = model.recession(data.y)
    rest = np.ones(len(data.y), bool)
    for direction in record.directions:
        moved = data.x @ direction
        size = np.abs(data.x) @ np.abs(direction)
        moving = rest & (np.abs(moved) > STILL * np.maximum(size, np.abs(direction).max()))
        wrong = moving & ~(((moved > 0) & up) | ((moved < 0) & down))
        if wrong.any():
            return f"separated {fit.separated}: the direction moves {wrong.sum()} row(s) that lose by it"
        if not moving.any():
            return f"separated {fit.separated}: a direction moves no row"
        rest &= ~moving
    if int((~rest).sum()) != record.rows:
        return f"separated {fit.separated}: {record.rows} rows at their limit, and {(~rest).sum()} that move"
    if _infinite(data.x[rest], up[rest], down[rest]) and fit.converged:
        return f"separated {fit.separated}: the rows left have an infinite optimum, too"
    return np.nan_to_num(record.finite), rest


def _infinite(x: Matrix, up: npt.NDArray[np.bool_], down: npt.NDArray[np.bool_]) -> bool:
    """Whether a direction moves some row and none that loses by it: a linear program."""
    free = up | down
    size = np.abs(x).max(axis=0, initial=0.0)
    x = x[:, size > 0] / size[size > 0]
    if not free.any() or not x.shape[1]:
        return False
    signed = np.where(up, 1.0, -1.0)[free, None] * x[free]
    # within the directions that leave the other rows where they are
    _, values, right = linalg.svd(np.vstack([x[~free], np.zeros((1, x.shape[1]))]))
    rank = int((values > 1e-9 * max(values.max(initial=0.0), 1e-300)).sum()) if (~free).any() else 0
    basis = right[rank:].T
    if not basis.shape[1]:
        return False
    toward = signed @ basis
    both = np.vstack([toward, -toward])
    bounds = np.concatenate([np.ones(len(toward)), np.full(len(toward), 1e-9)])
    found = optimize.linprog(-toward.sum(axis=0), both, bounds, bounds=(None, None), method="highs")
    return bool(found.status == 0 and -found.fun > SEPARATED)


def _pressed(model: Any, rows: formulas.Rows, eta: Vector, weight: Vector) -> str:
    """What is wrong where a row lies at the boundary of its domain and its loss still falls that way."""
    low, high = model.domain()
    close = 1e-10 * float(np.mean(np.abs(eta)))
    down, up = (eta - low < close) & (rows.score < -PRESSED), (high - eta < close) & (rows.score > PRESSED)
    return f"{int((down | up).sum())} row(s) are pressed against the boundary" if (down | up).any() else ""


def _saddle(model: Any, y: Vector, x: Matrix, weight: Vector, offset: Vector, coef: Vector, rows: formulas.Rows) -> str:
    """What is wrong where the score vanishes, but the loss falls along some direction: that is no optimum."""
    steps = _along(x, weight * rows.weight)
    base = float(weight @ rows.loss)
    # of the sum, and of linear predictors that are differences of large terms
    noise = 1e-11 * float(np.abs(weight * rows.loss).sum())
    noise += 1e-14 * float((weight * np.abs(rows.score)) @ (np.abs(x) @ np.abs(coef)))
    for step in steps.T:
        for sign in (1.0, -1.0):
            eta = x @ (coef + 1e-2 * sign * step) + offset
            moved = model.rows(y, eta)
            fall = base - float(weight @ moved.loss)
            if moved.possible.all() and fall > 1e-6 + noise:
                return f"the score vanishes at a saddle: a step of 0.01 standard errors lowers the loss by {fall:.3g}"
    return ""


def _along(x: Matrix, weight: Vector) -> Matrix:
    """Steps of one standard error (at dispersion 1) along each principal direction (p, k)."""
    rooted = np.sqrt(weight)[:, None] * x
    size = np.sqrt((rooted**2).sum(axis=0))
    size[size == 0] = np.inf
    _, values, right = linalg.svd(rooted / size, full_matrices=False)
    good = values > 1e-9 * values.max(initial=1e-300)
    return np.asarray(right[good].T / values[good] / size[:, None])


def descent(model: Any, y: Vector, x: Matrix, weight: Vector, offset: Vector, coef: Vector, phi: float) -> float:
    """By how much a feasible step lowers the loss, per unit dispersion: along coordinates, principal directions, and the
    steepest descent that keeps away from the boundary where rows lie on it (non-negative least squares, for several
    opinions of which rows do).
    """
    eta = _inside(model, x @ coef + offset, np.abs(x) @ np.abs(coef))
    rows = model.rows(y, eta)
    axes = _along(x, weight * np.maximum(rows.weight, 0.0))
    # a unit of the scale of x, where the weights of a few rows near the boundary outweigh all others
    plain = _along(x, np.ones(len(y)))
    slope = x.T @ (weight * rows.score)
    low, high = model.domain()
    directions = [*axes.T, *plain.T]
    for metric in (axes, plain):
        pull = metric.T @ slope
        directions.append(metric @ pull)
        for slack in (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2):
            close = slack * max(1.0, float(np.abs(eta).max()))
            near = np.vstack([x[eta - low < close], -x[high - eta < close]]) @ metric
            if len(near):
                multipliers = optimize.nnls(near.T, -pull, maxiter=50 * near.size)[0]
                directions.append(metric @ (pull + near.T @ multipliers))
    best = 0.0
    # rows at the boundary are there: what their loss still falls towards an end where it is as steep as a power does not count
    distance = np.minimum(eta - low, high - eta)
    held = distance <= AT_BOUNDARY * np.mean(np.abs(eta)) if np.isfinite([low, high]).any() else np.zeros(len(y), bool)
    noise = 1e-12 * float(np.abs(weight * rows.loss).sum())
    for direction in directions:
        full = float(np.sqrt(np.sum((x @ direction) ** 2)))
        if not full > 0:
            continue
        for sign in (1.0, -1.0):
            for length in 10.0 ** -np.arange(0.0, 9.0):
                moved = model.rows(y, eta + sign * length / full * (x @ direction))
                if moved.possible.all():
                    rise = weight * (moved.loss - rows.loss)
                    best = max(best, -float(np.sum(np.where(held, np.maximum(rise, 0.0), rise))) - noise)
    return best / max(phi, PERFECT)


def _beside(case: Case, fit: Any, y: Vector, mu: Vector, weight: Vector, kind: str) -> str:
    """What is wrong with a parameter beside the coefficients: its own score must vanish at the reported means."""
    if case.family == "negative_binomial":
        theta = fit.shape_params["theta"]
        size, count = (1.0, weight) if kind == "frequency" else (weight, 1.0)
        if theta > LARGE_THETA:
            slope = float(np.sum(count * ((size * (y - mu)) ** 2 - size * y) / (2.0 * size)))
            spread = float(np.sqrt(np.sum(count * mu**2 / 2.0)))
            # by 1 / theta, in which the log-likelihood is nearly a quadratic there
            least = spread / theta + 1e-3
            return (
                ""
                if slope <= least * spread
                else f"theta = {theta:.3g}, but the likelihood rises by {slope:.3g} in 1 / theta"
            )
        a, c, m = size * theta, size * y, size * mu
        slope = special.digamma(c + a) - special.digamma(a) - np.log1p(m / a) + (m - c) / (m + a)
        bend = special.polygamma(1, c + a) - special.polygamma(1, a) + 1 / a - 2 / (m + a) + (c + a) / (m + a) ** 2
        first, second = np.sum(count * a * slope), np.sum(count * (a * a * bend + a * slope))
        if not (second < 0 and first**2 / -second < BESIDE):
            return f"theta = {theta:.6g} is no maximum: decrement {first**2 / -second:.3g}"
    if case.family == "tweedie":
        power, phi = fit.shape_params["power"], fit.shape_params["dispersion"]
        if not (1.02 < power < 1.98 and y.max(initial=1.0) ** (2.0 - power) < TERMS * phi):
            return ""
        size, count = (1.0, weight) if kind == "frequency" else (weight, 1.0)

        def value(at: Vector) -> float:
            with np.errstate(all="ignore"):
                p = 1.0 + special.expit(at[0])
                return float(np.sum(count * CompoundPoisson(mu, np.exp(at[1]) / size, p).logpdf(y)))

        psi, h = np.array([special.logit(power - 1.0), np.log(phi)]), 1e-3
        here, unit = value(psi), np.eye(2)
        first = np.array([(value(psi + h * e) - value(psi - h * e)) / (2 * h) for e in unit])
        second = np.array([(value(psi + h * e) - 2 * here + value(psi - h * e)) / h**2 for e in unit])
        cross = (
            value(psi + h)
            - value(psi - h * np.array([-1.0, 1.0]))
            - value(psi - h * np.array([1.0, -1.0]))
            + value(psi - h)
        ) / (4 * h * h)
        bend = -np.array([[second[0], cross], [cross, second[1]]])
        if np.linalg.eigvalsh(bend).min() <= 0:
            return f"power = {power:.6g}, dispersion = {phi:.6g} is no maximum"
        if not first @ np.linalg.solve(bend, first) < 1e-5:
            return f"power = {power:.6g}, dispersion = {phi:.6g}: decrement {first @ np.linalg.solve(bend, first):.3g}"
    return ""


# -- classes -----------------------------------------------------------------------------------------------------------------


def _of_classes(case: Case, fit: Any, kinds: set[type[Warning]]) -> tuple[str, str]:
    if case.family == "multinomial":
        names = list(fit.params.index)
        data = dense(case, names)
        q, p = fit.params.shape[1], len(names)
        blocks = np.zeros((len(data.y), q, q * p))
        for k in range(q):
            blocks[:, k, k * p : (k + 1) * p] = data.x
        values = fit.params.to_numpy().T.ravel()
        present = [c for c in range(3) if (data.y == c).any()]
    else:
        slopes = [name for name in fit.params.index if "|" not in name]
        data = dense(case, slopes)
        q = len(fit.params) - len(slopes)
        blocks = np.zeros((len(data.y), q, len(slopes) + q))
        for k in range(q):
            blocks[:, k, : len(slopes)] = -data.x
            blocks[:, k, len(slopes) + k] = 1.0
        values = fit.params.to_numpy()
        present = [c for c in range(3) if (data.y == c).any()]
    codes = np.searchsorted(present, data.y)
    if len(present) != q + 1:
        codes = np.asarray(data.y, int)
    offset = np.zeros((len(codes), q)) - (data.offset[:, None] if case.family == "ordinal" else 0.0)
    infinite = _infinite_classes(case.family, blocks, codes)
    if bool(fit.separated) != (SeparationWarning in kinds):
        return "wrong", f"separated {fit.separated}, but warns {kinds}"
    if infinite != bool(fit.separated):
        return (
            "wrong",
            f"the optimum is {'infinite' if infinite else 'finite'}: {fit.status}, separated {fit.separated}",
        )
    if fit.separated:
        values = _far_out(case.family, case.link, fit.record.separation, blocks)
    if np.isnan(values).any() and not fit.aliased:
        return "wrong", "a coefficient is NaN and not aliased"
    eta = blocks @ np.nan_to_num(values) + offset
    rows = formulas.baseline(codes, eta) if case.family == "multinomial" else formulas.cumulative(case.link, codes, eta)
    score = np.einsum("i,ikj,ik->j", data.weight, blocks, rows.score)
    gram = np.einsum("i,ikj,ikl,ilm->jm", data.weight, blocks, rows.weight, blocks)
    size = np.sqrt(np.diag(gram))
    size[size == 0] = np.inf
    values_, vectors = linalg.eigh(gram / size / size[:, None])
    good = values_ > 1e-13 * values_.max()
    pull = vectors[:, good].T @ (score / size)
    distance = float(np.sum(pull**2 / values_[good]))
    if not fit.converged:
        return "wrong", f"{fit.status} ({fit.record.reason[:80]}), decrement {distance:.3g}"
    if not distance <= NEAR:
        return "wrong", f"{fit.status}, but the decrement is {distance:.3g}"
    return ("separated" if fit.separated else "optimum"), f"decrement {distance:.2g}"


def _far_out(family: str, link: str, separation: Any, blocks: npt.NDArray[np.float64]) -> Vector:
    """Coefficients so far along the directions of recession, the first the farthest, that what becomes impossible is so to
    the last digit.
    """
    found, size = np.nan_to_num(separation.finite), 1.0
    for direction in reversed(separation.directions):
        moved = blocks @ direction
        if family == "multinomial":
            padded = np.concatenate([np.zeros((len(moved), 1)), moved], axis=1)
            moved = (padded[:, :, None] - padded[:, None, :]).reshape(len(padded), -1)
        least = np.abs(moved[np.abs(moved) > STILL * np.abs(moved).max()]).min()
        # a tail of Cauchy's falls with the distance alone
        far = 1e13 if link == "cauchit" else 100.0
        size = (far + 2.0 * np.abs(blocks @ found).max()) / least
        found = found + size * direction
    return np.asarray(found)


def _infinite_classes(family: str, blocks: npt.NDArray[np.float64], codes: npt.NDArray[np.intp]) -> bool:
    """Whether a direction lowers no row's chance and raises some: every comparison that a row wins must not get worse."""
    n, q, r = blocks.shape
    rows = []
    if family == "multinomial":
        padded = np.concatenate([np.zeros((n, 1, r)), blocks], axis=1)
        seen = padded[np.arange(n), codes]
        rows = [seen[codes != k] - padded[codes != k, k] for k in range(q + 1)]
    else:
        rows = [np.where((codes <= k)[:, None], blocks[:, k], -blocks[:, k]) for k in range(q)]
        # a row of class k needs eta_(k-1) down and eta_k up; the other thresholds are of no concern to it
        rows = [part[(codes == k) | (codes == k + 1)] for k, part in enumerate(rows)]
    toward = np.vstack(rows)
    size = np.abs(toward).max(axis=0, initial=0.0)
    toward = toward[:, size > 0] / size[size > 0]
    both = np.vstack([-toward, toward])
    bounds = np.concatenate([np.full(len(toward), 1e-9), np.ones(len(toward))])
    found = optimize.linprog(-toward.sum(axis=0), both, bounds, bounds=(None, None), method="highs")
    return bool(found.status == 0 and -found.fun > SEPARATED)


# -- the grid ----------------------------------------------------------------------------------------------------------------


def suitable(family: str, shape: str) -> bool:
    """Whether a shape is a question for a family: a multinomial model takes no offset."""
    return not (family == "multinomial" and shape == "offset")


def cases(seeds: range) -> Iterator[Case]:
    """The whole grid, once for every seed."""
    for seed in seeds:
        for family, link in pairs():
            for shape in SHAPES:
                if suitable(family, shape):
                    yield Case(family, link, shape, seed)


def sample(each: int) -> list[Case]:
    """For every pair, `each` of the shapes, taken in turn so that all shapes meet all families."""
    found = []
    shapes = list(SHAPES)
    for k, (family, link) in enumerate(pairs()):
        chosen = [shapes[(each * k + j * 5 + k // len(shapes)) % len(shapes)] for j in range(each)]
        found += [Case(family, link, shape, 0) for shape in dict.fromkeys(chosen) if suitable(family, shape)]
    return found
