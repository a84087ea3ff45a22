"""Responses of classes with and without an infinite optimum; the linear program over pairs of a row and a class that it has
not, which says what goes to its limit; and the likelihood at the limit, maximised with X written out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import formulaic
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack

import daskglm as dg

Generator = np.random.Generator
Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LINKS = ("logit", "probit", "cloglog", "loglog", "cauchit")
DISTRIBUTIONS: dict[str, Any] = {
    "logit": stats.logistic, "probit": stats.norm, "cloglog": stats.gumbel_l, "loglog": stats.gumbel_r,
    "cauchit": stats.cauchy,
}  # fmt: skip
# A slack that can be had at all can be had in full, for directions may be as long as they like.
HALF = 0.5
# Two optima of the same likelihood, each found to its own last digits.
SAME = 1e-7
# Errors of the other come from differences of gradients.
ERRORS = 1e-5
# Decrement at which the other optimum is one.
ENOUGH = 1e-22
# Probabilities that no rounding takes to zero.
LEAST = 1e-200
# Coordinates of a null space that are rounding.
ZERO = 1e-7


@dataclass(frozen=True)
class Case:
    """A model of a frame whose response is `y`, codes of K classes."""

    kind: str
    formula: str
    data: pd.DataFrame
    family: str
    link: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def y(self) -> npt.NDArray[np.intp]:
        """Codes of the classes."""
        return np.asarray(self.data["y"].cat.codes, np.intp)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.data["y"].cat.categories)

    @property
    def ordered(self) -> bool:
        """Whether classes have an order."""
        return self.family == "ordinal"

    @cached_property
    def x(self) -> Matrix:
        """X, without the intercept where thresholds stand for it."""
        matrix = formulaic.model_matrix(self.formula.split("~")[1].strip(), self.data).to_numpy(float)
        return matrix[:, 1:] if self.ordered else matrix

    @cached_property
    def weight(self) -> Vector:
        """Weights of rows."""
        given = self.options.get("weights")
        column = given if isinstance(given, str) or given is None else given.column
        return np.ones(len(self.data)) if column is None else self.data[column].to_numpy(float)

    @cached_property
    def offset(self) -> Vector:
        """What is added to the linear predictor."""
        name = self.options.get("offset")
        return np.zeros(len(self.data)) if name is None else self.data[name].to_numpy(float)

    def fit(self, **options: Any) -> dg.Fit:
        """The fit, its warnings swallowed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dg.glm(self.formula, self.data, family=self.family, link=self.link, **{**self.options, **options})


# -- pairs ---------------------------------------------------------------------------------------------------------------


def pairs(case: Case) -> tuple[Matrix, npt.NDArray[np.intp]]:
    """How each pair is moved by the coefficients (m, r), predictor by predictor or thresholds before slopes; and its row and
    class (m, 2), of ordered classes the class below or above.
    """
    x, y, q = case.x, case.y, case.classes - 1
    rows, whose = [], []
    for i, (one, c) in enumerate(zip(x, y, strict=True)):
        for a in range(case.classes):
            if case.ordered and abs(a - c) == 1:
                end = np.zeros(q)
                end[min(a, c)] = 1.0
                rows.append((1.0 if a > c else -1.0) * np.concatenate([end, -one]))
                whose.append((i, a))
            elif not case.ordered and a != c:
                difference = np.zeros((case.classes, one.size))
                difference[c], difference[a] = one, -one
                rows.append(difference[1:].ravel())
                whose.append((i, a))
    return np.array(rows), np.array(whose)


def moved(case: Case) -> Mask:
    """Pairs (m,) that some direction of recession moves: max sum t, 0 <= t <= 1, t <= what the pairs are moved by."""
    a, _ = pairs(case)
    a = a / np.maximum(np.abs(a).max(axis=0), 1e-300) + 0.0
    unique, inverse = np.unique(a, axis=0, return_inverse=True)
    m, r = unique.shape
    found = linprog(
        np.concatenate([np.zeros(r), -np.ones(m)]),
        A_ub=hstack([csr_array(-unique), eye_array(m)]).tocsr(),
        b_ub=np.zeros(m),
        bounds=[(None, None)] * r + [(0.0, 1.0)] * m,
        method="highs",
    )
    assert found.status == 0, found.message
    return np.asarray(found.x[r:] > HALF)[inverse.ravel()]


def possible(case: Case, gone: Mask) -> Mask:
    """Classes (n, K) that rows can have when these pairs are at their limit."""
    _, whose = pairs(case)
    result = np.ones((len(case.data), case.classes), bool)
    for i, a in whose[gone]:
        if not case.ordered:
            result[i, a] = False
        elif a > case.y[i]:
            result[i, a:] = False
        else:
            result[i, : a + 1] = False
    return result


# -- the likelihood at the limit -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """Where the likelihood at the limit is greatest: probabilities (n, K), loss, coefficients (r,), their covariance, and
    whether each coefficient is told by the pairs that are left.
    """

    chance: Matrix
    loss: float
    coef: Vector
    covariance: Matrix
    told: Mask


def optimum(case: Case, gone: Mask) -> Truth:
    """Newton's steps with X written out, by the least squares solution where some coefficients are not told."""
    there = possible(case, gone)
    z, _ = pairs(case)
    left = z[~gone]
    r = z.shape[1]
    # as many rows as columns, so that every singular vector is there
    scaled = np.concatenate([left / np.maximum(np.abs(z).max(axis=0), 1e-300), np.zeros((r, r))])
    values = np.linalg.svd(np.linalg.qr(scaled, mode="r"))
    null = values.Vh[int((1e-9 * max(values.S[0], 1e-300) < values.S).sum()) :].T
    told = np.abs(null).max(axis=1, initial=0.0) < ZERO
    steps = _ordered_terms if case.ordered else _classes_terms
    coef = _start(case)
    loss, gradient, hessian = steps(case, coef, there)
    for _ in range(200):
        step = _inverse(hessian) @ gradient
        if gradient @ step < ENOUGH:
            break
        size = 1.0
        while True:
            trial = steps(case, coef + size * step, there)
            if np.isfinite(trial[0]) and trial[0] <= loss + 1e-11 * (abs(loss) + 1.0):
                break
            size *= 0.5
            if size < 1e-8:
                trial = None
                break
        if trial is None:
            break
        coef = coef + size * step
        loss, gradient, hessian = trial
    return Truth(chances(case, coef, there), loss, coef, _inverse(hessian), told)


def _inverse(hessian: Matrix) -> Matrix:
    """Of its absolute value, for the loss under the cauchit link is not convex; 0 for what is rounding."""
    values, vectors = np.linalg.eigh(hessian)
    size = np.abs(values)
    kept = size > 1e-11 * size.max(initial=0.0)
    return np.asarray((vectors[:, kept] / size[kept]) @ vectors[:, kept].T)


def _start(case: Case) -> Vector:
    q, p = case.classes - 1, case.x.shape[1]
    if not case.ordered:
        return np.zeros(q * p)
    share = np.cumsum(np.bincount(case.y, case.weight, case.classes) + 0.5)
    return np.concatenate([DISTRIBUTIONS[case.link or "logit"].ppf(share[:-1] / share[-1]), np.zeros(p)])


def chances(case: Case, coef: Vector, there: Mask) -> Matrix:
    """Probabilities of all classes (n, K)."""
    if not case.ordered:
        eta = np.column_stack([np.zeros(len(there)), case.x @ coef.reshape(case.classes - 1, -1).T])
        up = np.where(there, np.exp(eta - np.where(there, eta, -np.inf).max(axis=1, keepdims=True)), 0.0)
        return np.asarray(up / up.sum(axis=1, keepdims=True))
    return np.column_stack([_difference(*_ends(case, coef, there, k)) for k in range(case.classes)])


def _classes_terms(case: Case, coef: Vector, there: Mask) -> tuple[float, Vector, Matrix]:
    x, y, w, q = case.x, case.y, case.weight, case.classes - 1
    mu = chances(case, coef, there)
    seen = np.eye(case.classes)[y]
    with np.errstate(divide="ignore"):
        loss = -float(w @ np.log(mu[np.arange(y.size), y]))
    gradient = ((seen - mu)[:, 1:] * w[:, None]).T @ x
    hessian = np.block(
        [[(x.T * (w * mu[:, a] * ((a == b) - mu[:, b]))) @ x for b in range(1, q + 1)] for a in range(1, q + 1)]
    )
    return loss, gradient.ravel(), hessian


def _ends(case: Case, coef: Vector, there: Mask, k: Any) -> tuple[Any, Vector, Vector, Mask, Mask, Mask]:
    """Distribution, upper and lower end of class k, which of them are at infinity, and whether the class is possible."""
    q = case.classes - 1
    n = len(there)
    k = np.broadcast_to(k, n)
    eta = case.x @ coef[q:] + case.offset
    counted = np.cumsum(there, axis=1)
    at = counted[np.arange(n), k]
    last = at == counted[:, -1]
    here = there[np.arange(n), k]
    first = at - here == 0
    upper, lower = coef[np.minimum(k, q - 1)] - eta, coef[np.maximum(k - 1, 0)] - eta
    return DISTRIBUTIONS[case.link or "logit"], upper, lower, last, first, here


def _difference(law: Any, upper: Vector, lower: Vector, last: Mask, first: Mask, here: Mask) -> Vector:
    """F(upper) - F(lower), in the tail where that has its digits."""
    up, low = np.where(last, np.inf, upper), np.where(first, -np.inf, lower)
    right = law.sf(low) - law.sf(up)
    return np.where(here, np.where(np.where(first, -1.0, low) > 0, right, law.cdf(up) - law.cdf(low)), 0.0)


def _ordered_gradient(case: Case, coef: Vector, there: Mask) -> tuple[float, Vector]:
    law, upper, lower, last, first, here = _ends(case, coef, there, case.y)
    with np.errstate(all="ignore"):
        chance = _difference(law, upper, lower, last, first, here)
        w, q, x, n = case.weight, case.classes - 1, case.x, len(there)
        loss = -float(w @ np.log(chance))
        up = np.where(last, 0.0, law.pdf(upper)) / chance * w
        low = np.where(first, 0.0, law.pdf(lower)) / chance * w
    thresholds = np.zeros((n, q))
    k = case.y
    inner = np.flatnonzero(~last)
    thresholds[inner, k[inner]] += up[inner]
    inner = np.flatnonzero(~first)
    thresholds[inner, k[inner] - 1] -= low[inner]
    return loss if np.all(chance > 0) else np.inf, np.concatenate([thresholds.sum(axis=0), -x.T @ (up - low)])


def _ordered_terms(case: Case, coef: Vector, there: Mask) -> tuple[float, Vector, Matrix]:
    loss, gradient = _ordered_gradient(case, coef, there)
    scale = 1.0 / np.concatenate([np.ones(case.classes - 1), np.maximum(np.abs(case.x).max(axis=0), 1e-300)])
    steps = 1e-5 * scale
    columns = []
    if not np.isfinite(loss):
        return np.inf, gradient, np.eye(coef.size)
    for j, h in enumerate(steps):
        e = np.zeros(coef.size)
        e[j] = h
        up, down = _ordered_gradient(case, coef + e, there)[1], _ordered_gradient(case, coef - e, there)[1]
        columns.append(-(up - down) / (2.0 * h))
    hessian = np.array(columns)
    return loss, gradient, 0.5 * (hessian + hessian.T)


# -- the verdict ---------------------------------------------------------------------------------------------------------


def check(case: Case, **options: Any) -> dict[str, Any]:
    """The fit against the linear program and the likelihood at the limit; "wrong" says what differs."""
    gone = moved(case)
    there = possible(case, gone)
    fit = case.fit(**options)
    chance = fit.predict(case.data).to_numpy()
    wrong: list[str] = []
    truth = optimum(case, gone)
    found, expected = _sides(case, chance > 0.0), _sides(case, there)
    # what is possible may be less likely than any number
    if (found & ~expected).any() or (expected & ~found & _sides(case, truth.chance > LEAST)).any():
        wrong.append(f"{int((~found).sum())} impossible classes instead of {int((~expected).sum())}")
    if bool(fit.separated) != bool(gone.any()):
        wrong.append(f"separated: {fit.separated}")
    if not fit.converged:
        wrong.append(fit.record.reason)
    if not wrong:
        wrong += _differences(case, fit, chance, truth)
    rows = int((~there.all(axis=1)).sum())
    return {"wrong": wrong, "rows": rows, "passes": fit.n_passes, "steps": fit.n_iter, "fit": fit}


def _sides(case: Case, there: Mask) -> Mask:
    """What pairs tell of the classes (n, K) of a row: of ordered ones, whether there are any below and above (n, 2)."""
    if not case.ordered:
        return there
    classes, seen = np.arange(case.classes), case.y[:, None]
    return np.column_stack([(there & (classes < seen)).any(axis=1), (there & (classes > seen)).any(axis=1)])


def _differences(case: Case, fit: dg.Fit, chance: Matrix, truth: Truth) -> list[str]:
    wrong = []
    # of ordered classes, rows know no more than their own and the neighbours
    known = np.eye(case.classes, dtype=bool)[case.y] if case.ordered else np.ones(chance.shape, bool)
    if not np.allclose(chance[known], truth.chance[known], rtol=SAME, atol=SAME):
        wrong.append(f"probabilities differ by {np.abs(chance - truth.chance)[known].max():.1e}")
    if not np.isclose(fit.deviance, 2.0 * truth.loss, rtol=1e-9, atol=1e-9):
        wrong.append(f"deviance {fit.deviance!r} instead of {2.0 * truth.loss!r}")
    record = fit.record
    q = case.classes - 1
    params, bse = record.coefficients, np.sqrt(np.diag(record.covariance))
    if case.ordered:
        # thresholds come last where they are reported
        params, bse = np.concatenate([params[-q:], params[:-q]]), np.concatenate([bse[-q:], bse[:-q]])
    # where some are set aside as combinations of others, those stand for both
    if not fit.aliased and (np.isfinite(params) & ~truth.told).any():
        wrong.append(f"finite although not told: {np.flatnonzero(np.isfinite(params) & ~truth.told)}")
    if not np.isfinite(params[truth.told]).all():
        wrong.append(f"told although not finite: {np.flatnonzero(~np.isfinite(params) & truth.told)}")
    both = np.isfinite(params) & truth.told
    error = np.sqrt(np.diag(truth.covariance))
    if not (np.abs(params - truth.coef)[both] <= SAME * np.maximum(np.abs(truth.coef), error)[both]).all():
        wrong.append(f"coefficients differ by {np.abs(params - truth.coef)[both].max():.1e}")
    if not np.allclose(bse[both], error[both], rtol=ERRORS):
        wrong.append(f"errors differ by {np.abs(bse / error - 1.0)[both].max():.1e}")
    return wrong


# -- what every case is made of ------------------------------------------------------------------------------------------


def _frame(rng: Generator, n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "z": rng.normal(rng.normal(), np.exp(rng.normal()), n),
            "a": rng.choice(list("ABCDE")[: int(rng.integers(3, 6))], n),
            "b": rng.choice(["no", "yes"], n),
        }
    )


def _ordinary(rng: Generator, data: pd.DataFrame, classes: int, rare: float = 0.0) -> npt.NDArray[np.intp]:
    """Classes far from any separation; the last of them rarer by exp(-rare)."""
    base = np.column_stack([data["x"], data["a"] == "B", data["b"] == "yes"]).astype(float)
    eta = base @ rng.normal(scale=0.4, size=(3, classes)) + rng.normal(scale=0.3, size=classes)
    eta[:, -1] -= rare
    return np.asarray(np.argmax(eta + rng.gumbel(size=eta.shape), axis=1))


def _graded(rng: Generator, data: pd.DataFrame, classes: int) -> npt.NDArray[np.intp]:
    """Ordered classes far from any separation."""
    eta = 0.5 * data["x"] + 0.4 * (data["a"] == "B") - 0.3 * (data["b"] == "yes") + rng.logistic(size=len(data))
    cuts = np.quantile(eta, np.sort(rng.uniform(0.15, 0.85, classes - 1)))
    return np.searchsorted(cuts, eta)


def _case(kind: str, formula: str, data: pd.DataFrame, y: Any, model: tuple[str, str | None], **options: Any) -> Case:
    """Classes are called p, q, r, ...; those that never occur are no classes."""
    used, codes = np.unique(np.asarray(y), return_inverse=True)
    labels = [chr(ord("p") + k) for k in range(used.size)]
    response = pd.Categorical.from_codes(codes, labels, ordered=model[0] == "ordinal")
    return Case(kind, formula, data.assign(y=response), *model, options)


def _elsewhere(rng: Generator, y: npt.NDArray[np.intp], where: Any, k: int, classes: int) -> None:
    """Rows `where` of class k get another one."""
    index = np.flatnonzero(np.asarray(where) & (y == k))
    y[index] = (k + rng.integers(1, classes, index.size)) % classes


def _formula(rng: Generator, *choices: str) -> str:
    return str(rng.choice(choices))


MULTINOMIAL = ("multinomial", None)


def _link(rng: Generator) -> tuple[str, str | None]:
    return "ordinal", str(rng.choice(LINKS))


# -- separated -----------------------------------------------------------------------------------------------------------


def level(rng: Generator) -> Case:
    """Levels of a factor, the baseline at times, in which a class never occurs."""
    classes, data = int(rng.integers(3, 6)), _frame(rng, int(rng.integers(150, 400)))
    y = _ordinary(rng, data, classes)
    for name in rng.choice(sorted(set(data["a"])), int(rng.integers(1, 3)), replace=False):
        _elsewhere(rng, y, data["a"] == name, int(rng.integers(classes)), classes)
    return _case("level", _formula(rng, "y ~ x + a + b", "y ~ a + x", "y ~ b + a - 1"), data, y, MULTINOMIAL)


def baseline(rng: Generator) -> Case:
    """The baseline level and another, without one or two classes each."""
    classes, data = int(rng.integers(3, 6)), _frame(rng, int(rng.integers(150, 400)))
    y = _ordinary(rng, data, classes)
    for name in ["A"] + (["B"] if rng.random() < 0.6 else []):
        for k in rng.choice(classes, int(rng.integers(1, 3)), replace=False):
            _elsewhere(rng, y, data["a"] == name, int(k), classes)
            y[(data["a"] == name) & (y == k)] = (k + 1) % classes
    return _case("baseline", _formula(rng, "y ~ a + x", "y ~ x + b + a"), data, y, MULTINOMIAL)


def one_class(rng: Generator) -> Case:
    """A level that is all of one class."""
    classes, data = int(rng.integers(3, 6)), _frame(rng, int(rng.integers(150, 400)))
    y = _ordinary(rng, data, classes)
    y[data["a"] == str(rng.choice(["A", "B", "C"]))] = int(rng.integers(classes))
    return _case("one class", _formula(rng, "y ~ a + x", "y ~ x + b + a", "y ~ a + x - 1"), data, y, MULTINOMIAL)


def rare(rng: Generator) -> Case:
    """A class of a few rows, which some levels have not."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(300, 600)))
    data["c"] = rng.choice([f"c{i:02d}" for i in range(12)], len(data))
    return _case("rare", "y ~ x + c + b", data, _ordinary(rng, data, classes, rare=3.5), MULTINOMIAL)


def complete(rng: Generator) -> Case:
    """All rows told apart by continuous variables."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(30, 150)))
    columns = np.column_stack([data["x"], data["z"] / data["z"].std(), np.ones(len(data))])
    y = np.zeros(len(data), int)
    while y.min() == y.max():
        y = np.argmax(columns @ rng.normal(size=(3, classes)), axis=1)
    return _case("complete", _formula(rng, "y ~ x + z", "y ~ x + z + b"), data, y, MULTINOMIAL)


def told_apart(rng: Generator) -> Case:
    """A variable tells one class, or some classes, from all others, which it does not tell apart."""
    classes, data = int(rng.integers(3, 6)), _frame(rng, int(rng.integers(80, 300)))
    y = _ordinary(rng, data, classes)
    upper = data["x"].to_numpy() > np.quantile(data["x"], rng.uniform(0.2, 0.8))
    few = int(rng.integers(1, classes))
    y = np.where(upper, rng.integers(0, few, len(data)), rng.integers(few, classes, len(data)))
    return _case("told apart", _formula(rng, "y ~ x", "y ~ x + z"), data, y, MULTINOMIAL)


def ties(rng: Generator) -> Case:
    """A variable that tells classes apart but for ties at one value."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(100, 300)))
    data["x"] = np.round(data["x"], 1)
    cut = float(rng.choice(data["x"].to_numpy()))
    few = int(rng.integers(1, classes))
    y = np.where(data["x"] > cut, rng.integers(0, few, len(data)), rng.integers(few, classes, len(data)))
    at = np.flatnonzero(data["x"] == cut)
    y[at] = rng.integers(0, classes, at.size)
    return _case("ties", _formula(rng, "y ~ x", "y ~ x + b"), data, y, MULTINOMIAL)


def partly_zero(rng: Generator) -> Case:
    """A variable that is zero for many rows, and a class that never occurs in all others."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(120, 400)))
    data["u"] = np.maximum(data["z"] - np.quantile(data["z"], rng.uniform(0.3, 0.8)), 0.0)
    y = _ordinary(rng, data, classes)
    _elsewhere(rng, y, data["u"] > 0, int(rng.integers(classes)), classes)
    formula = _formula(rng, "y ~ u + x + a", "y ~ x + u", "y ~ a + u - 1")
    return _case("partly zero", formula, data, y, MULTINOMIAL)


def cell(rng: Generator) -> Case:
    """A cell of an interaction without a class."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(300, 600)))
    y = _ordinary(rng, data, classes)
    inside = (data["a"] == str(rng.choice(["A", "B", "C"]))) & (data["b"] == str(rng.choice(["no", "yes"])))
    _elsewhere(rng, y, inside, int(rng.integers(classes)), classes)
    return _case("cell", _formula(rng, "y ~ a*b", "y ~ a*b + x", "y ~ a:b + x - 1"), data, y, MULTINOMIAL)


def hierarchy(rng: Generator) -> Case:
    """A level without a class, and a slope of another level that tells two apart."""
    classes, data = 3, _frame(rng, int(rng.integers(200, 500)))
    y = _ordinary(rng, data, classes)
    _elsewhere(rng, y, data["a"] == "B", int(rng.integers(classes)), classes)
    within = np.flatnonzero(data["a"] == "C")
    up = data["x"].to_numpy()[within] > rng.normal(scale=0.3)
    y[within] = np.where(up, 2, rng.integers(0, 2, within.size))
    return _case("hierarchy", "y ~ a*x" + _formula(rng, "", " + b"), data, y, MULTINOMIAL)


def weighted(rng: Generator) -> Case:
    """Rows of very unequal weight."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(150, 300)))
    data["w"] = np.exp(rng.normal(scale=2.0, size=len(data)))
    data["u"] = np.maximum(data["z"] - data["z"].median(), 0.0) ** 2
    y = _ordinary(rng, data, classes)
    _elsewhere(rng, y, data["u"] > 0, int(rng.integers(classes)), classes)
    return _case("weighted", "y ~ u + x + a", data, y, MULTINOMIAL, weights="w")


def graded_level(rng: Generator) -> Case:
    """Ordered classes; levels that are all of the lowest or all of the highest class."""
    classes, data = int(rng.integers(3, 6)), _frame(rng, int(rng.integers(150, 400)))
    y = _graded(rng, data, classes)
    for name in rng.choice(["A", "B", "C"], int(rng.integers(1, 3)), replace=False):
        y[data["a"] == name] = rng.choice([0, classes - 1])
    return _case("graded level", _formula(rng, "y ~ a + x", "y ~ x + b + a"), data, y, _link(rng))


def graded_complete(rng: Generator) -> Case:
    """Ordered classes that are intervals of a variable."""
    classes, data = int(rng.integers(3, 6)), _frame(rng, int(rng.integers(40, 200)))
    cuts = np.quantile(data["x"], np.sort(rng.uniform(0.1, 0.9, classes - 1)))
    formula = _formula(rng, "y ~ x", "y ~ x + z")
    return _case("graded complete", formula, data, np.searchsorted(cuts, data["x"]), _link(rng))


def graded_apart(rng: Generator) -> Case:
    """A variable tells the lower from the upper classes, and these not from each other."""
    data = _frame(rng, int(rng.integers(80, 300)))
    upper = data["x"].to_numpy() > np.quantile(data["x"], rng.uniform(0.2, 0.8))
    y = np.where(upper, rng.integers(1, 4, len(data)), rng.integers(0, 2, len(data)) * 0)
    return _case("graded apart", _formula(rng, "y ~ x", "y ~ x + b"), data, y, _link(rng))


def graded_ties(rng: Generator) -> Case:
    """The same with ties at one value."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(100, 300)))
    data["x"] = np.round(data["x"], 1)
    cut = float(rng.choice(data["x"].to_numpy()))
    y = np.where(data["x"] > cut, classes - 1, rng.integers(0, classes - 1, len(data)))
    y = np.where(data["x"] < cut, 0, y)
    at = np.flatnonzero(data["x"] == cut)
    y[at] = rng.integers(0, classes, at.size)
    return _case("graded ties", _formula(rng, "y ~ x", "y ~ x + b"), data, y, _link(rng))


def graded_zero(rng: Generator) -> Case:
    """A variable that is zero for many rows; all others are of the highest class."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(120, 400)))
    data["u"] = np.maximum(data["z"] - np.quantile(data["z"], rng.uniform(0.3, 0.8)), 0.0)
    y = _graded(rng, data, classes)
    y[data["u"] > 0] = classes - 1
    data["o"] = rng.normal(scale=0.3, size=len(data))
    offset = {"offset": "o"} if rng.random() < 0.5 else {}
    return _case("graded zero", _formula(rng, "y ~ u + x + a", "y ~ x + u"), data, y, _link(rng), **offset)


def graded_hierarchy(rng: Generator) -> Case:
    """A level that is all of the lowest class, and a slope of another level that tells the highest from the rest."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(200, 500)))
    y = _graded(rng, data, classes)
    y[data["a"] == "B"] = 0
    within = np.flatnonzero(data["a"] == "C")
    y[within] = np.where(data["x"].to_numpy()[within] > rng.normal(scale=0.3), classes - 1, 0)
    return _case("graded hierarchy", "y ~ a*x", data, y, _link(rng))


PLANTED: tuple[Callable[[Generator], Case], ...] = (
    level, baseline, one_class, rare, complete, told_apart, ties, partly_zero, cell, hierarchy, weighted, graded_level,
    graded_complete, graded_apart, graded_ties, graded_zero, graded_hierarchy,
)  # fmt: skip


# -- not separated, or by chance -----------------------------------------------------------------------------------------


def plain(rng: Generator) -> Case:
    """Nothing of note."""
    classes, data = int(rng.integers(3, 6)), _frame(rng, int(rng.integers(150, 400)))
    return _case("plain", "y ~ x + z + a", data, _ordinary(rng, data, classes), MULTINOMIAL)


def rare_class(rng: Generator) -> Case:
    """A class that few rows have."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(400, 800)))
    y = _ordinary(rng, data, classes, rare=rng.uniform(2.0, 5.0))
    return _case("rare class", _formula(rng, "y ~ x + b", "y ~ x", "y ~ x + a"), data, y, MULTINOMIAL)


def one_row(rng: Generator) -> Case:
    """A class of one row, or of one row in a level."""
    classes, data = 3, _frame(rng, 300)
    y = _ordinary(rng, data, classes)
    _elsewhere(rng, y, np.ones(len(data), bool), 2, classes)
    y[y == 2] = 1
    y[int(rng.integers(len(data)))] = 2
    return _case("one row", _formula(rng, "y ~ x", "y ~ 1", "y ~ b"), data, y, MULTINOMIAL)


def rare_level(rng: Generator) -> Case:
    """A level with one to three rows of a class."""
    classes, data = int(rng.integers(3, 5)), _frame(rng, int(rng.integers(300, 600)))
    y = _ordinary(rng, data, classes)
    inside = np.flatnonzero(data["a"] == str(rng.choice(["A", "B"])))
    k = int(rng.integers(classes))
    _elsewhere(rng, y, np.isin(np.arange(len(data)), inside), k, classes)
    y[rng.choice(inside, int(rng.integers(1, 4)), replace=False)] = k
    return _case("rare level", _formula(rng, "y ~ a + x", "y ~ x + b + a"), data, y, MULTINOMIAL)


def steep(rng: Generator) -> Case:
    """Large finite coefficients."""
    data = _frame(rng, int(rng.integers(300, 600)))
    eta = rng.uniform(3.0, 12.0) * data["x"].to_numpy()[:, None] * np.array([0.0, 1.0, -1.0])
    y = np.argmax(eta + rng.gumbel(size=eta.shape), axis=1)
    return _case("steep", "y ~ x + b", data, y, MULTINOMIAL)


def nearly(rng: Generator) -> Case:
    """Classes told apart by a variable but for one row."""
    data = _frame(rng, int(rng.integers(60, 200)))
    y = np.searchsorted(np.quantile(data["x"], [0.3, 0.7]), data["x"])
    low = np.argsort(data["x"].to_numpy())
    y[low[int(rng.integers(0, len(data) // 4))]] = 2
    model = MULTINOMIAL if rng.random() < 0.5 else _link(rng)
    return _case("nearly", "y ~ x", data, y, model)


def graded(rng: Generator) -> Case:
    """Ordered classes, nothing of note."""
    classes, data = int(rng.integers(3, 7)), _frame(rng, int(rng.integers(150, 400)))
    return _case("graded", "y ~ x + z + a*b", data, _graded(rng, data, classes), _link(rng))


def graded_rare(rng: Generator) -> Case:
    """Ordered classes of which one is rare, or rare in a level."""
    classes, data = int(rng.integers(3, 6)), _frame(rng, int(rng.integers(200, 400)))
    y = _graded(rng, data, classes)
    inside = np.flatnonzero(data["a"] == "B")
    y[inside] = 0
    y[inside[: int(rng.integers(1, 3))]] = classes - 1
    return _case("graded rare", _formula(rng, "y ~ a + x", "y ~ a"), data, y, _link(rng))


ORDINARY: tuple[Callable[[Generator], Case], ...] = (
    plain, rare_class, one_row, rare_level, steep, nearly, graded, graded_rare,
)  # fmt: skip
# Those to which steps do not creep: near separation, or far from the start, one may be looked at in vain.
CALM: tuple[Callable[[Generator], Case], ...] = (plain, rare_class, one_row, rare_level, graded, graded_rare)
