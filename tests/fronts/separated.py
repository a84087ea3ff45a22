"""Data with and without an infinite optimum, and the linear program that says which rows are separated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import formulaic
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack

import daskglm as dg

Generator = np.random.Generator
Mask = npt.NDArray[np.bool_]

BINOMIAL = ("logit", "probit", "cloglog")
# A slack that can be had at all can be had in full, for directions may be as long as they like.
HALF = 0.5
# The same rows fitted twice, from other starts and in other sums.
SAME = 1e-8


@dataclass(frozen=True)
class Case:
    """A model of a frame; aligned: whether parameters keep their meaning when separated rows are left out."""

    kind: str
    formula: str
    data: pd.DataFrame
    family: str
    link: str
    options: dict[str, Any] = field(default_factory=dict)
    aligned: bool = True

    def fit(self, data: pd.DataFrame | None = None) -> dg.Fit:
        """The fit, its warnings swallowed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dg.glm(
                self.formula, self.data if data is None else data, family=self.family, link=self.link, **self.options
            )


def separated_rows(case: Case) -> Mask:
    """Rows that some direction of recession moves: max sum t, 0 <= t <= 1, t_i <= s_i x_i'b, 0 = x_i'b where row i must not
    move (Konis 2007, section 4.4, with slacks of their own). s_i: which way row i may go.
    """
    right = case.formula.split("~")[1].strip()
    x = formulaic.model_matrix(right, case.data).to_numpy(float)
    y = case.data["y"].to_numpy(float)
    sign = np.where(y == 0.0, -1.0, 0.0)
    if case.family == "binomial":
        sign[y == 1.0] = 1.0
    x = x / np.maximum(np.abs(x).max(axis=0), 1e-300)
    # + 0.0: a zero with a sign would be another
    rows = np.column_stack([np.where(sign[:, None] != 0.0, sign[:, None], 1.0) * x + 0.0, sign])
    signed = np.unique(rows, axis=0)
    a, free = signed[:, :-1], signed[:, -1] != 0.0
    m, p = int(free.sum()), x.shape[1]
    if not m:
        return np.zeros(len(y), bool)
    found = linprog(
        np.concatenate([np.zeros(p), -np.ones(m)]),
        A_ub=hstack([csr_array(-a[free]), eye_array(m)]).tocsr(),
        b_ub=np.zeros(m),
        A_eq=hstack([csr_array(a[~free]), csr_array((int((~free).sum()), m))]).tocsr() if (~free).any() else None,
        b_eq=np.zeros(int((~free).sum())) if (~free).any() else None,
        bounds=[(None, None)] * p + [(0.0, 1.0)] * m,
        method="highs",
    )
    assert found.status == 0, found.message
    moved = {row.tobytes() for row in signed[free][found.x[p:] > HALF]}
    return np.array([row.tobytes() in moved for row in rows])


def check(case: Case) -> dict[str, Any]:
    """The fit against the linear program, and against the fit without the separated rows; "wrong" says what differs."""
    gone = separated_rows(case)
    fit = case.fit()
    found = np.isinf(fit.predict(case.data, "link", **_neutral(case)).to_numpy())
    wrong: list[str] = []
    if not np.array_equal(found, gone):
        wrong.append(f"{int(found.sum())} rows instead of {int(gone.sum())}")
    if bool(fit.separated) != bool(gone.any()):
        wrong.append(f"separated: {fit.separated}")
    if not fit.converged:
        wrong.append(fit.record.reason)
    if not wrong and gone.any():
        wrong += _differences(case, fit, gone)
    return {"wrong": wrong, "rows": int(gone.sum()), "passes": fit.n_passes, "steps": fit.n_iter, "fit": fit}


def _neutral(case: Case) -> dict[str, Any]:
    return {name: value for name, value in (("offset", 0), ("exposure", 1)) if name in case.options}


def _differences(case: Case, fit: dg.Fit, gone: Mask) -> list[str]:
    wrong = []
    end = np.where(case.data["y"][gone] > 0, 1.0, 0.0)
    if not np.array_equal(fit.predict(case.data[gone], **_neutral(case)).to_numpy(), end):
        wrong.append("a mean is not at its limit")
    if gone.all():
        if fit.deviance != 0.0 or fit.record.statistics.rank != 0:
            wrong.append(f"deviance {fit.deviance}, rank {fit.record.statistics.rank}")
        return wrong
    rest = case.data[~gone]
    other = case.fit(rest)
    for name in ("deviance", "null_deviance", "llf", "aic", "df_resid", "df_null", "nobs", "scale", "pearson_chi2"):
        one, two = float(getattr(fit, name)), float(getattr(other, name))
        if not np.isclose(one, two, rtol=SAME, atol=SAME, equal_nan=True):
            wrong.append(f"{name}: {one!r} instead of {two!r}")
    one = fit.predict(rest, "link", se=True, **_neutral(case)).to_numpy()
    two = other.predict(rest, "link", se=True, **_neutral(case)).to_numpy()
    if not np.allclose(one, two, rtol=SAME, atol=SAME):
        wrong.append(f"linear predictors differ by {np.abs(one - two).max():.1e}")
    if case.aligned:
        finite = [name for name in fit.params.index if np.isfinite(fit.params[name])]
        if not set(finite) <= set(other.params.index):
            wrong.append(f"parameters {finite} instead of {list(other.params.index)}")
        elif not np.allclose(fit.params[finite], other.params[finite], rtol=SAME, atol=SAME) or not np.allclose(
            fit.bse[finite], other.bse[finite], rtol=SAME, atol=SAME
        ):
            wrong.append("parameters differ")
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


def _ordinary(rng: Generator, data: pd.DataFrame, family: str) -> npt.NDArray[np.float64]:
    """Responses far from any separation."""
    eta = (0.4 * data["x"] + 0.3 * (data["a"] == "B") - 0.2 * (data["b"] == "yes")).to_numpy()
    if family == "poisson":
        return rng.poisson(np.exp(0.3 + eta)).astype(float)
    return (rng.random(len(data)) < 1.0 / (1.0 + np.exp(-eta))).astype(float)


def _model(rng: Generator) -> tuple[str, str]:
    if rng.random() < 0.4:
        return "poisson", "log"
    return "binomial", str(rng.choice(BINOMIAL))


def _end(rng: Generator, family: str) -> float:
    return 0.0 if family == "poisson" else float(rng.integers(0, 2))


def _case(kind: str, formula: str, data: pd.DataFrame, y: Any, model: tuple[str, str], **options: Any) -> Case:
    aligned = bool(options.pop("aligned", True))
    return Case(kind, formula, data.assign(y=np.asarray(y, float)), *model, options, aligned)


# -- separated -----------------------------------------------------------------------------------------------------------


def level(rng: Generator) -> Case:
    """Levels of a factor, not the baseline, whose responses are all at one end."""
    model, data = _model(rng), _frame(rng, int(rng.integers(80, 400)))
    y = _ordinary(rng, data, model[0])
    for name in rng.choice(sorted(set(data["a"]) - {"A"}), int(rng.integers(1, 3)), replace=False):
        y[data["a"] == name] = _end(rng, model[0])
    return _case("level", "y ~ x + a + b", data, y, model)


def baseline(rng: Generator) -> Case:
    """The baseline level, at times with others."""
    model, data = _model(rng), _frame(rng, int(rng.integers(80, 400)))
    y = _ordinary(rng, data, model[0])
    for name in ["A"] + (["B"] if rng.random() < 0.4 else []) + (["D"] if rng.random() < 0.3 else []):
        y[data["a"] == name] = _end(rng, model[0])
    formula = str(rng.choice(["y ~ a + x", "y ~ x + b + a", "y ~ a", "y ~ b + a - 1"]))
    return _case("baseline", formula, data, y, model)


def no_intercept(rng: Generator) -> Case:
    """A level where each has a coefficient of its own."""
    model, data = _model(rng), _frame(rng, int(rng.integers(80, 400)))
    y = _ordinary(rng, data, model[0])
    y[data["a"] == "A"] = _end(rng, model[0])
    return _case("no intercept", "y ~ a + x - 1", data, y, model)


def complete(rng: Generator) -> Case:
    """All rows, by one or two continuous variables."""
    data = _frame(rng, int(rng.integers(20, 200)))
    slope = rng.normal(size=2) * ([1, 1] if rng.random() < 0.5 else [1, 0])
    score = slope[0] * data["x"] + slope[1] * data["z"] / data["z"].std()
    model = ("binomial", str(rng.choice(BINOMIAL)))
    formula = str(rng.choice(["y ~ x + z", "y ~ x + z + a"]))
    return _case("complete", formula, data, score > np.quantile(score, rng.uniform(0.2, 0.8)), model)


def quasi(rng: Generator) -> Case:
    """A continuous variable that tells the responses apart but for ties at one value."""
    data = _frame(rng, int(rng.integers(60, 300)))
    data["x"] = np.round(data["x"], int(rng.integers(0, 2)))
    cut = float(rng.choice(data["x"].to_numpy()))
    y = np.where(data["x"] == cut, _ordinary(rng, data, "binomial"), data["x"] > cut)
    y[np.flatnonzero(data["x"] == cut)[:1]] = 1.0
    return _case("quasi", str(rng.choice(["y ~ x", "y ~ x + z"])), data, y, ("binomial", str(rng.choice(BINOMIAL))))


def partly_zero(rng: Generator) -> Case:
    """A variable that is zero for many rows, and a response at its end for all others."""
    model, data = _model(rng), _frame(rng, int(rng.integers(80, 400)))
    data["u"] = np.maximum(data["z"] - np.quantile(data["z"], rng.uniform(0.3, 0.9)), 0.0)
    if rng.random() < 0.5:
        data["u"] = (data["u"] > 0.0).astype(float)
    y = _ordinary(rng, data, model[0])
    y[data["u"] > 0] = _end(rng, model[0])
    return _case("partly zero", str(rng.choice(["y ~ u + x + a", "y ~ x + u", "y ~ a + u - 1"])), data, y, model)


def cell(rng: Generator) -> Case:
    """One cell of an interaction, or a level with its interactions."""
    model, data = _model(rng), _frame(rng, int(rng.integers(150, 500)))
    y = _ordinary(rng, data, model[0])
    name = str(rng.choice(["A", "B", "C"]))
    inside = data["a"] == name
    if rng.random() < 0.6:
        inside &= data["b"] == str(rng.choice(["no", "yes"]))
    y[inside] = _end(rng, model[0])
    formula = str(rng.choice(["y ~ a*b", "y ~ a*b + x", "y ~ a:b + x - 1", "y ~ a*x + b"]))
    return _case("cell", formula, data, y, model, aligned=False)


def hierarchy(rng: Generator) -> Case:
    """A level at its end, and within the rest a variable that separates in another level only."""
    model, data = ("binomial", str(rng.choice(BINOMIAL))), _frame(rng, int(rng.integers(150, 500)))
    y = _ordinary(rng, data, "binomial")
    y[data["a"] == "B"] = _end(rng, "binomial")
    within = data["a"] == "C"
    y[within] = data["x"][within] > rng.normal(scale=0.3)
    return _case("hierarchy", "y ~ a*x" + str(rng.choice(["", " + b"])), data, y, model, aligned=False)


def unequal(rng: Generator) -> Case:
    """Separated rows of very unequal weight and distance."""
    model, data = ("binomial", "logit"), _frame(rng, int(rng.integers(80, 300)))
    data["w"] = np.exp(rng.normal(scale=3.0, size=len(data)))
    data["u"] = np.maximum(data["z"] - data["z"].median(), 0.0) ** 2
    y = _ordinary(rng, data, "binomial")
    y[data["u"] > 0] = 1.0
    return _case("unequal", "y ~ u + x + a", data, y, model, weights="w")


def grouped(rng: Generator) -> Case:
    """Proportions of several trials, with an offset."""
    data = _frame(rng, int(rng.integers(80, 300)))
    data["m"] = rng.integers(1, 9, len(data))
    data["o"] = rng.normal(scale=0.3, size=len(data))
    y = rng.binomial(data["m"], 0.4) / data["m"].to_numpy(float)
    y[data["a"] == str(rng.choice(["A", "B"]))] = _end(rng, "binomial")
    model = ("binomial", str(rng.choice(BINOMIAL)))
    return _case("grouped", "y ~ a + x", data, y, model, weights=dg.Trials("m"), offset="o")


def exposed(rng: Generator) -> Case:
    """Counts with an exposure; rare, so that ordinary levels have few events."""
    data = _frame(rng, int(rng.integers(300, 600)))
    data["e"] = rng.uniform(0.1, 3.0, len(data))
    y = rng.poisson(0.3 * data["e"]).astype(float)
    y[data["a"] == str(rng.choice(["A", "B"]))] = 0.0
    return _case("exposed", "y ~ a + x + b", data, y, ("poisson", "log"), exposure="e")


def alike(rng: Generator) -> Case:
    """Every response at the same end."""
    model, data = _model(rng), _frame(rng, int(rng.integers(20, 100)))
    return _case("alike", "y ~ x + a", data, np.full(len(data), _end(rng, model[0])), model)


PLANTED: tuple[Callable[[Generator], Case], ...] = (
    level, baseline, no_intercept, complete, quasi, partly_zero, cell, hierarchy, unequal, grouped, exposed, alike,
)  # fmt: skip


# -- not separated, or by chance -----------------------------------------------------------------------------------------


def plain(rng: Generator) -> Case:
    """Nothing of note."""
    model, data = _model(rng), _frame(rng, int(rng.integers(60, 300)))
    return _case("plain", "y ~ x + z + a*b", data, _ordinary(rng, data, model[0]), model, aligned=False)


def rare_level(rng: Generator) -> Case:
    """One to three events in a level."""
    model, data = _model(rng), _frame(rng, int(rng.integers(200, 500)))
    y = _ordinary(rng, data, model[0])
    inside = np.flatnonzero(data["a"] == str(rng.choice(["A", "B"])))
    y[inside] = 0.0
    y[rng.choice(inside, int(rng.integers(1, 4)), replace=False)] = 1.0
    return _case("rare level", "y ~ a + x + b", data, y, model)


def one_event(rng: Generator) -> Case:
    """A single event in five hundred rows."""
    model, data = _model(rng), _frame(rng, 500)
    y = np.zeros(500)
    y[int(rng.integers(500))] = 1.0
    return _case("one event", str(rng.choice(["y ~ x", "y ~ b", "y ~ 1", "y ~ x + z"])), data, y, model)


def steep(rng: Generator) -> Case:
    """Large finite coefficients: linear predictors up to 30."""
    data = _frame(rng, int(rng.integers(300, 600)))
    eta = rng.uniform(5.0, 30.0) * data["x"] / 3.0
    y = (rng.random(len(data)) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    return _case("steep", "y ~ x + b", data, y, ("binomial", str(rng.choice(BINOMIAL))))


def far(rng: Generator) -> Case:
    """An optimum far from the start, to which steps creep by one unit each; exposures over many orders of magnitude."""
    data = _frame(rng, int(rng.integers(200, 400)))
    data["e"] = np.exp(rng.uniform(0.0, 20.0, len(data)))
    inside = data["a"] == "B"
    y = rng.poisson(np.exp(-10.0) * data["e"]).astype(float)
    y[inside] = 0.0
    data.loc[inside, "e"] = np.exp(rng.uniform(10.0, 25.0))
    y[np.flatnonzero(inside)[0]] = 1.0
    start = {"start": {"Intercept": rng.uniform(0.0, 20.0)}} if rng.random() < 0.7 else {}
    return _case("far", "y ~ a", data, y, ("poisson", "log"), exposure="e", **start)


def collinear(rng: Generator) -> Case:
    """Columns that are combinations of others, or nearly."""
    model, data = _model(rng), _frame(rng, int(rng.integers(80, 300)))
    data["v"] = data["x"] + rng.choice([0.0, 1e-6, 1e-3]) * data["z"]
    y = _ordinary(rng, data, model[0])
    return _case("collinear", str(rng.choice(["y ~ x + v + a", "y ~ x + z + v"])), data, y, model)


def nearly(rng: Generator) -> Case:
    """Responses told apart by a variable but for one row."""
    data = _frame(rng, int(rng.integers(40, 200)))
    y = (data["x"].to_numpy() > 0).astype(float)
    low = np.argsort(data["x"].to_numpy())
    y[low[int(rng.integers(0, len(data) // 2 - 2))]] = 1.0
    return _case("nearly", "y ~ x", data, y, ("binomial", str(rng.choice(BINOMIAL))))


def tiny(rng: Generator) -> Case:
    """Few rows of small whole numbers, with ties of every kind: separated in every way there is, or not."""
    n, p = int(rng.integers(8, 40)), int(rng.integers(1, 9))
    data = pd.DataFrame({f"x{j}": rng.integers(-1, 2, n) * rng.integers(1, 3, n) for j in range(p)}).astype(float)
    family, link = _model(rng)
    y = rng.integers(0, 2, n) * (rng.random(n) < rng.uniform(0.2, 1.0))
    return _case("tiny", "y ~ " + " + ".join(data), data, y, (family, link), aligned=False)


def tinier(rng: Generator) -> Case:
    """Few rows of normal variables: separated by luck."""
    n, p = int(rng.integers(8, 40)), int(rng.integers(1, 9))
    data = pd.DataFrame(rng.normal(size=(n, p)), columns=[f"x{j}" for j in range(p)])
    eta = data.to_numpy() @ rng.normal(scale=rng.uniform(0.1, 3.0), size=p)
    model = ("binomial", str(rng.choice(BINOMIAL)))
    return _case("tinier", "y ~ " + " + ".join(data), data, rng.random(n) < 1.0 / (1.0 + np.exp(-eta)), model)


ORDINARY: tuple[Callable[[Generator], Case], ...] = (
    plain,
    rare_level,
    one_event,
    steep,
    far,
    collinear,
    nearly,
    tiny,
    tinier,
)
