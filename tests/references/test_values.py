"""The references themselves: NumPy and SciPy agree at R's solutions, where the score is zero to rounding.

Designs are formulaic's, densities SciPy's, derivatives written down again: nothing here comes from daskglm but the reading
of the files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import formulaic
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import optimize, special, stats

from .cases import GLM, TWEEDIE, Case, frame, of_family, of_kind, vector

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# What a solution must satisfy to count: the score in units of its own standard deviation.
SCORE = 1e-9
# Closed forms evaluated twice in float64; errors go through an inverse of condition up to 1e6.
SUMS, ERRORS = 1e-10, 1e-8
# Second derivatives by central differences of the score with step 1e-5.
DIFFERENCES = 1e-6


@final
@dataclass(frozen=True)
class Rows:
    """X (n, p), y, prior weight w, frequency f and offset (n,); trials: w counts them."""

    X: Matrix
    y: Vector
    w: Vector
    f: Vector
    offset: Vector
    trials: bool
    table: pd.DataFrame


CONTEXT = {"sqrt": np.sqrt, "log": np.log, "exp": np.exp}


def rows_of(case: Case) -> Rows:
    """The rows R used: complete in every column of the model, of positive weight."""
    left, right = case["formula"].split("~")
    table = frame(case)
    weights = case["weights"]
    names = {name for name in table.columns if name in formula_names(case["formula"] + " " + (case["offset"] or ""))}
    if weights is not None:
        names.add(weights["column"])
    table = table.dropna(subset=sorted(names))
    if weights is not None:
        table = table[table[weights["column"]] > 0]
    table = table.reset_index(drop=True)
    X = np.asarray(formulaic.model_matrix(right, table, context=CONTEXT), np.float64)
    ones = np.ones(len(table))
    column = ones if weights is None else table[weights["column"]].to_numpy(np.float64)
    kind = None if weights is None else weights["type"]
    w, f = (ones, column) if kind == "frequency" else (column, ones)
    left = left.strip()
    trials = kind == "trials"
    if left.startswith("cbind("):
        successes, failures = (table[name.strip()].to_numpy(np.float64) for name in left[6:-1].split(","))
        w, trials = successes + failures, True
        y = successes / w
    elif "levels" in case:
        y = pd.Categorical(table[left], case["levels"]).codes.astype(np.float64)
    else:
        y = np.asarray(number(left, table), np.float64)
    offset = 0.0 * ones if case["offset"] is None else np.asarray(number(case["offset"], table), np.float64)
    return Rows(X, y, w, f, offset, trials, table)


def formula_names(text: str) -> set[str]:
    """Every word of a formula."""
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


def number(expression: str, table: pd.DataFrame) -> Any:
    """A column or an expression of columns."""
    if expression in table:
        return table[expression]
    return eval(expression, {"I": lambda x: x, **CONTEXT}, {name: table[name] for name in table.columns})


# -- links: mu, dmu/deta and d2mu/deta2 ------------------------------------------------------------------------------

Inverse = Callable[[Vector], tuple[Vector, Vector, Vector]]
LINKS: dict[str, Inverse] = {
    "identity": lambda e: (e, np.ones_like(e), np.zeros_like(e)),
    "log": lambda e: (np.exp(e), np.exp(e), np.exp(e)),
    "inverse": lambda e: (1 / e, -1 / e**2, 2 / e**3),
    "inverse_square": lambda e: (e**-0.5, -0.5 * e**-1.5, 0.75 * e**-2.5),
    "sqrt": lambda e: (e**2, 2 * e, np.full_like(e, 2.0)),
    "logit": lambda e: (
        special.expit(e),
        special.expit(e) * special.expit(-e),
        special.expit(e) * special.expit(-e) * (special.expit(-e) - special.expit(e)),
    ),
    "probit": lambda e: (stats.norm.cdf(e), stats.norm.pdf(e), -e * stats.norm.pdf(e)),
    "cauchit": lambda e: (stats.cauchy.cdf(e), stats.cauchy.pdf(e), -2 * e / (np.pi * (1 + e * e) ** 2)),
    "cloglog": lambda e: (-np.expm1(-np.exp(e)), np.exp(e - np.exp(e)), (1 - np.exp(e)) * np.exp(e - np.exp(e))),
    "loglog": lambda e: (
        np.exp(-np.exp(-e)),
        np.exp(-e - np.exp(-e)),
        (np.exp(-e) - 1) * np.exp(-e - np.exp(-e)),
    ),
    "log_complement": lambda e: (-np.expm1(e), -np.exp(e), -np.exp(e)),
}


def inverse_of(case: Case) -> Inverse:
    """The case's inverse link."""
    if case["link"] != "power":
        return LINKS[case["link"]]
    k = 1.0 / case["link_arguments"]["exponent"]
    return lambda e: (e**k, k * e ** (k - 1), k * (k - 1) * e ** (k - 2))


# -- families: variance, unit deviance, log density at dispersion phi / w --------------------------------------------


def power_deviance(y: Vector, m: Vector, p: float) -> Vector:
    """2 int_m^y (y - t) / t^p dt."""
    if p == 1.0:
        return 2 * (special.xlogy(y, y / m) - y + m)
    if p == 2.0:
        return 2 * (y / m - 1 - np.log(y / m))
    own = np.where(y > 0, np.power(np.where(y > 0, y, 1.0), 2 - p), 0.0) / ((1 - p) * (2 - p))
    if p < 1.0:
        own = y ** (2 - p) / ((1 - p) * (2 - p))
    return 2 * (own - y * m ** (1 - p) / (1 - p) + m ** (2 - p) / (2 - p))


def binomial_deviance(y: Vector, m: Vector) -> Vector:
    return 2 * (special.xlogy(y, y / m) + special.xlogy(1 - y, (1 - y) / (1 - m)))


def negative_binomial_deviance(y: Vector, m: Vector, theta: float) -> Vector:
    return 2 * (special.xlogy(y, y / m) - (y + theta) * np.log((y + theta) / (m + theta)))


@final
@dataclass(frozen=True)
class Law:
    """V(mu), d(y, mu), log p(y; mu, phi / w) where there is one, and whether phi is 1."""

    variance: Callable[[Vector], Vector]
    deviance: Callable[[Vector, Vector], Vector]
    log_density: Callable[[Vector, Vector, Vector, float], Vector] | None = None
    known: bool = False


def powers(p: float, log_density: Any = None, known: bool = False) -> Law:
    return Law(lambda m: m**p, lambda y, m: power_deviance(y, m, p), log_density, known)


def count_law(theta: float) -> Law:
    return Law(
        lambda m: m + m * m / theta,
        lambda y, m: negative_binomial_deviance(y, m, theta),
        lambda y, m, w, phi: stats.nbinom.logpmf(y, theta, theta / (theta + m)),
        True,
    )


GAMMA = powers(2.0, lambda y, m, w, phi: stats.gamma.logpdf(y, w / phi, scale=m * phi / w))
PROPORTION = Law(lambda m: m * (1 - m), binomial_deviance)
QUASI = {"constant": powers(0.0), "mu": powers(1.0), "mu^2": powers(2.0), "mu^3": powers(3.0), "mu(1-mu)": PROPORTION}
LAWS: dict[str, Callable[..., Law]] = {
    "gaussian": lambda: powers(0.0, lambda y, m, w, phi: stats.norm.logpdf(y, m, np.sqrt(phi / w))),
    "poisson": lambda: powers(1.0, lambda y, m, w, phi: stats.poisson.logpmf(y, m), True),
    "binomial": lambda: Law(
        PROPORTION.variance,
        binomial_deviance,
        lambda y, m, w, phi: stats.binom.logpmf(np.round(w * y), w, m),
        True,
    ),
    "gamma": lambda: GAMMA,
    "exponential": lambda: powers(2.0, lambda y, m, w, phi: stats.expon.logpdf(y, scale=m), True),
    "inverse_gaussian": lambda: powers(3.0, lambda y, m, w, phi: stats.invgauss.logpdf(y, m * phi / w, scale=w / phi)),
    "geometric": lambda: count_law(1.0),
    "negative_binomial": count_law,
    "quasi": lambda variance: QUASI[variance],
    "quasipoisson": lambda: powers(1.0),
    "quasibinomial": lambda: PROPORTION,
    "tweedie": powers,
}


def law_of(case: Case) -> Law:
    arguments = dict(case.get("family_arguments", {}))
    if "power" in arguments:
        arguments = {"p": float(arguments["power"])}
    if "theta" in case:
        arguments = {"theta": case["theta"]}
    return LAWS[case["family"]](**arguments)


# -- a scalar response -----------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Solution:
    """A case's rows at its coefficients, aliased columns left out; gram is X'WX at dispersion 1."""

    rows: Rows
    X: Matrix
    mu: Vector
    slope: Vector
    bend: Vector
    weight: Vector
    score: Vector
    gram: Matrix

    def scaled(self, score: Vector, phi: float) -> float:
        return float(np.max(np.abs(score) / np.sqrt(np.diag(self.gram) * phi)))

    def errors(self) -> Vector:
        size = np.sqrt(np.diag(self.gram))
        return np.sqrt(np.diag(np.linalg.inv(self.gram / np.outer(size, size)))) / size


def solution_of(case: Case) -> Solution:
    rows, law = rows_of(case), law_of(case)
    beta = vector(case["coefficients"])
    assert rows.X.shape[1] == beta.size == len(case["names"])
    X, beta = rows.X[:, ~np.isnan(beta)], beta[~np.isnan(beta)]
    mu, slope, bend = inverse_of(case)(X @ beta + rows.offset)
    weight = rows.f * rows.w * slope**2 / law.variance(mu)
    score = X.T @ (rows.f * rows.w * (rows.y - mu) * slope / law.variance(mu))
    return Solution(rows, X, mu, slope, bend, weight, score, X.T @ (weight[:, None] * X))


def check_sums(case: Case, found: Solution, observations: float) -> None:
    """Deviance, Pearson statistic, degrees of freedom."""
    rows, law = found.rows, law_of(case)
    deviance = np.sum(rows.f * rows.w * law.deviance(rows.y, found.mu))
    pearson = np.sum(rows.f * rows.w * (rows.y - found.mu) ** 2 / law.variance(found.mu))
    assert deviance == pytest.approx(case["deviance"], rel=SUMS, abs=SUMS)
    assert pearson == pytest.approx(case["pearson_chi2"], rel=SUMS)
    assert case["nobs"] == observations
    assert case["df_residual"] == observations - found.X.shape[1]


@pytest.mark.parametrize("case", [*GLM, *of_kind("glm")], ids=lambda case: case["name"])
def test_glm(case: Case) -> None:
    found, law = solution_of(case), law_of(case)
    rows = found.rows
    n, p = float(np.sum(rows.f)), found.X.shape[1]
    phi = case["dispersion"]
    assert found.scaled(found.score, phi) < SCORE
    errors = vector(case["standard_errors"])
    np.testing.assert_allclose(found.errors() * np.sqrt(phi), errors[~np.isnan(errors)], rtol=ERRORS)
    check_sums(case, found, n)
    assert phi == pytest.approx(1.0 if law.known else case["pearson_chi2"] / (n - p), rel=SUMS)
    if case["log_likelihood"] is None:
        return
    assert law.log_density is not None
    at = 1.0 if law.known else case["deviance"] / n
    llf = float(np.sum(rows.f * law.log_density(rows.y, found.mu, rows.w, at)))
    assert llf == pytest.approx(case["log_likelihood"], rel=SUMS)
    assert case["aic"] == pytest.approx(2 * (p + (not law.known)) - 2 * llf, rel=SUMS)


@pytest.mark.parametrize("case", of_kind("glm.nb"), ids=lambda case: case["name"])
def test_theta(case: Case) -> None:
    found = solution_of(case)
    rows, theta = found.rows, case["theta"]
    y, mu, n = rows.y, found.mu, float(np.sum(rows.f))
    assert found.scaled(found.score, 1.0) < SCORE
    np.testing.assert_allclose(found.errors(), case["standard_errors"], rtol=ERRORS)
    check_sums(case, found, n)
    score, information = theta_terms(y, mu, rows.f, theta)
    assert abs(score) / np.sqrt(information) < SCORE
    assert case["theta_error"] == pytest.approx(information**-0.5, rel=ERRORS)
    step = 1e-5 * theta
    difference = (theta_terms(y, mu, rows.f, theta + step)[0] - theta_terms(y, mu, rows.f, theta - step)[0]) / (
        2 * step
    )
    assert information == pytest.approx(-difference, rel=DIFFERENCES)
    llf = float(np.sum(rows.f * stats.nbinom.logpmf(y, theta, theta / (theta + mu))))
    assert llf == pytest.approx(case["log_likelihood"], rel=SUMS)
    assert case["aic"] == pytest.approx(2 * (found.X.shape[1] + 1) - 2 * llf, rel=SUMS)


def theta_terms(y: Vector, mu: Vector, f: Vector, theta: float) -> tuple[float, float]:
    """d log p / dtheta, and minus the second derivative, at fixed mu."""
    total = theta + mu
    first = special.digamma(theta + y) - special.digamma(theta) + np.log(theta / total) + (mu - y) / total
    second = (
        special.polygamma(1, theta + y) - special.polygamma(1, theta) + 1 / theta - 2 / total + (y + theta) / total**2
    )
    return float(np.sum(f * first)), -float(np.sum(f * second))


@pytest.mark.parametrize("case", of_kind("gamma.shape"), ids=lambda case: case["name"])
def test_shape(case: Case) -> None:
    found = solution_of(case)
    rows, shape = found.rows, case["shape"]
    assert case["dispersion"] == pytest.approx(1 / shape, rel=1e-15)
    assert found.scaled(found.score, 1 / shape) < SCORE
    np.testing.assert_allclose(found.errors() / np.sqrt(shape), case["standard_errors"], rtol=ERRORS)
    check_sums(case, found, float(np.sum(rows.f)))
    ratio = rows.y / found.mu
    score = np.sum(
        rows.f * rows.w * (np.log(ratio) - ratio + 1 + np.log(rows.w * shape) - special.digamma(rows.w * shape))
    )
    information = np.sum(rows.f * rows.w * (rows.w * special.polygamma(1, rows.w * shape) - 1 / shape))
    assert abs(score) / np.sqrt(information) < SCORE
    assert case["shape_error"] == pytest.approx(information**-0.5, rel=ERRORS)
    assert GAMMA.log_density is not None
    llf = float(np.sum(rows.f * GAMMA.log_density(rows.y, found.mu, rows.w, 1 / shape)))
    assert llf == pytest.approx(case["log_likelihood_at_shape"], rel=SUMS)


# -- reduced bias ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", of_kind("firth"), ids=lambda case: case["name"])
def test_firth(case: Case) -> None:
    found = solution_of(case)
    rows = found.rows
    leverage = found.weight * np.einsum("ij,jk,ik->i", found.X, np.linalg.inv(found.gram), found.X)
    adjusted = found.score + found.X.T @ (leverage * found.bend / (2 * found.slope))
    assert found.scaled(adjusted, 1.0) < SCORE
    np.testing.assert_allclose(found.errors(), case["standard_errors"], rtol=ERRORS)
    check_sums(case, found, float(np.sum(rows.f)))
    law = law_of(case)
    assert law.log_density is not None
    llf = float(np.sum(rows.f * law.log_density(rows.y, found.mu, rows.w, 1.0)))
    assert llf == pytest.approx(case["log_likelihood"], rel=SUMS)
    if case["link"] == {"binomial": "logit", "poisson": "log"}[case["family"]]:
        check_penalised_maximum(case, found)
    assert is_separated(case, found) == bool(case["separated"])


def check_penalised_maximum(case: Case, found: Solution) -> None:
    """No step of 1e-4 standard errors along an axis raises the likelihood times the root of det(information)."""

    def value(beta: Vector) -> float:
        mu, slope, _ = inverse_of(case)(found.X @ beta + found.rows.offset)
        law, rows = law_of(case), found.rows
        assert law.log_density is not None
        weight = rows.f * rows.w * slope**2 / law.variance(mu)
        _, log_det = np.linalg.slogdet(found.X.T @ (weight[:, None] * found.X))
        return float(np.sum(rows.f * law.log_density(rows.y, mu, rows.w, 1.0)) + log_det / 2)

    best = vector(case["coefficients"])
    for step in np.diag(1e-4 * found.errors()):
        assert value(best + step) < value(best)
        assert value(best - step) < value(best)


def is_separated(case: Case, found: Solution) -> bool:
    """Whether some direction lowers no row's likelihood and moves the mean of one (Albert and Anderson 1984)."""
    X, y = found.X, found.rows.y
    upper = 1.0 if case["family"] == "binomial" else np.inf
    inner = (y > 0) & (y < upper)
    sign = np.where(y == 0, -1.0, 1.0)[~inner]
    signed = sign[:, None] * X[~inner]
    best = optimize.linprog(
        -signed.sum(0),
        A_ub=-signed,
        b_ub=np.zeros(signed.shape[0]),
        A_eq=X[inner] if inner.any() else None,
        b_eq=np.zeros(inner.sum()) if inner.any() else None,
        bounds=(-1, 1),
    )
    return bool(-best.fun > 1e-6)


# -- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", of_family("multinomial"), ids=lambda case: case["name"])
def test_multinomial(case: Case) -> None:
    rows = rows_of(case)
    B = np.array(case["coefficients"])
    p, classes = rows.X.shape[1], len(case["levels"])
    assert B.shape == (p, classes - 1) == np.array(case["standard_errors"]).shape
    eta = np.column_stack([np.zeros(len(rows.y)), rows.X @ B])
    log_p = eta - special.logsumexp(eta, axis=1, keepdims=True)
    P = np.exp(log_p)
    hit = np.arange(classes) == rows.y[:, None]
    assert hit.sum(0).min() > 0
    score = rows.X.T @ (rows.f[:, None] * (hit - P))[:, 1:]
    Q = P[:, 1:]
    blocks = np.einsum("i,ij,jk->ijk", rows.f, Q, np.eye(classes - 1)) - np.einsum("i,ij,ik->ijk", rows.f, Q, Q)
    gram = np.einsum("ia,ijk,ib->jakb", rows.X, blocks, rows.X).reshape(B.size, B.size)
    check_vector(case, rows, float(np.sum(rows.f * log_p[hit])), score.T.ravel(), gram, P[hit])
    n = case["nobs"]
    assert case["df_residual"] == n * (classes - 1) - B.size
    # without an intercept the null model gives every class the same probability
    entropy = np.log(classes) if "- 1" in case["formula"] else stats.entropy(rows.f @ hit)
    assert case["null_deviance"] == pytest.approx(2 * n * entropy, rel=SUMS)


def check_vector(case: Case, rows: Rows, llf: float, score: Vector, information: Matrix, p: Vector) -> None:
    """What both kinds of classes have in common; p (n,): the probability of the class that was seen."""
    size = np.sqrt(np.diag(information))
    errors = np.sqrt(np.diag(np.linalg.inv(information / np.outer(size, size)))) / size
    assert np.max(np.abs(score) / size) < SCORE
    given = np.array(case["standard_errors"])
    given = given.T.ravel() if given.ndim == 2 else given
    np.testing.assert_allclose(errors, given, rtol=DIFFERENCES if case["family"] == "ordinal" else ERRORS)
    assert llf == pytest.approx(case["log_likelihood"], rel=SUMS)
    assert case["deviance"] == pytest.approx(-2 * llf, rel=SUMS)
    assert case["aic"] == pytest.approx(-2 * llf + 2 * given.size, rel=SUMS)
    assert case["parameters"] == given.size
    assert case["nobs"] == np.sum(rows.f)
    assert case["pearson_chi2"] == pytest.approx(np.sum(rows.f * (1 / p - 1)), rel=SUMS)


CUMULATIVE = {
    "logit": stats.logistic, "probit": stats.norm, "cauchit": stats.cauchy, "loglog": stats.gumbel_r, "cloglog": stats.gumbel_l,
}  # fmt: skip


def ordinal_terms(case: Case, rows: Rows, X: Matrix, theta: Vector) -> tuple[float, Vector, Vector]:
    """Log likelihood, its gradient in (slopes, thresholds), and the probability of the class seen: P(Y <= k) = F(c_k - eta)."""
    law, q = CUMULATIVE[case["link"]], X.shape[1]
    k = rows.y.astype(int)
    cuts = np.concatenate([[-np.inf], theta[q:], [np.inf]])
    eta = X @ theta[:q] + rows.offset
    low, high = cuts[k] - eta, cuts[k + 1] - eta
    p = np.where(low > 0, law.sf(low) - law.sf(high), law.cdf(high) - law.cdf(low))
    up, down = (
        rows.f / p * np.where(np.isfinite(x), law.pdf(np.where(np.isfinite(x), x, 0.0)), 0.0) for x in (high, low)
    )
    thresholds = np.arange(theta.size - q)
    by_cut = (k[:, None] == thresholds).T @ up - (k[:, None] - 1 == thresholds).T @ down
    return float(np.sum(rows.f * np.log(p))), np.concatenate([X.T @ (down - up), by_cut]), p


@pytest.mark.parametrize("case", of_family("ordinal"), ids=lambda case: case["name"])
def test_ordinal(case: Case) -> None:
    rows = rows_of(case)
    X = rows.X[:, 1:]
    theta = vector(case["coefficients"])
    assert theta.size == X.shape[1] + len(case["levels"]) - 1 == len(case["names"])
    assert np.all(np.diff(theta[X.shape[1] :]) > 0)
    llf, score, p = ordinal_terms(case, rows, X, theta)
    steps = 1e-5 * vector(case["standard_errors"])
    information = np.column_stack(
        [
            (ordinal_terms(case, rows, X, theta - step)[1] - ordinal_terms(case, rows, X, theta + step)[1])
            / (2 * step.sum())
            for step in np.diag(steps)
        ]
    )
    check_vector(case, rows, llf, score, information, p)
    assert case["df_residual"] == case["nobs"] - theta.size
    if case["offset"] is None:
        seen = rows.f @ (np.arange(len(case["levels"])) == rows.y[:, None])
        assert case["null_deviance"] == pytest.approx(2 * case["nobs"] * stats.entropy(seen), rel=SUMS)
    assert case["null_deviance"] >= case["deviance"] - 1e-9


# -- Tweedie ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*TWEEDIE["dispersions"], *TWEEDIE["powers"]], ids=lambda case: case["name"])
def test_tweedie_coefficients(case: Case) -> None:
    whole = {**case, "names": case["coefficients"], "family_arguments": {"power": case["power"]}}
    found = solution_of(whole)
    rows = found.rows
    assert found.scaled(found.score, case["dispersion"]) < SCORE
    np.testing.assert_allclose(found.errors(), case["unit_errors"], rtol=ERRORS)
    deviance = np.sum(rows.f * rows.w * power_deviance(rows.y, found.mu, case["power"]))
    assert deviance == pytest.approx(case["deviance"], rel=SUMS)


@pytest.mark.parametrize("case", TWEEDIE["densities"], ids=lambda case: case["name"])
def test_tweedie_likelihood(case: Case) -> None:
    """Against SciPy's compound sum for 1 < p < 2: a Poisson number of gamma amounts."""
    p = case["power"]
    whole = {**case, "names": case["coefficients"], "family_arguments": {"power": p}}
    found = solution_of(whole)
    rows = found.rows
    if p > 2:
        # no such sum there (tweedie.py checks its integral where p is 3): the Pearson dispersion beats a quarter of it
        assert case["log_likelihoods"][1] > case["log_likelihoods"][0]
        return
    for phi, expected in zip(case["dispersions"], case["log_likelihoods"], strict=True):
        rate = found.mu ** (2 - p) * rows.w / (phi * (2 - p))
        scale = phi / rows.w * (p - 1) * found.mu ** (p - 1)
        counts = np.arange(1, int(rate.max() + 40 * np.sqrt(rate.max()) + 60))[:, None]
        amounts = stats.gamma.logpdf(rows.y, counts * (2 - p) / (p - 1), scale=scale)
        with np.errstate(invalid="ignore"):
            positive = special.logsumexp(stats.poisson.logpmf(counts, rate) + amounts, axis=0)
        llf = float(np.sum(rows.f * np.where(rows.y == 0, -rate, positive)))
        assert llf == pytest.approx(expected, rel=1e-9)
