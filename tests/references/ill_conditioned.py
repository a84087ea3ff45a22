"""Reference values for ill-conditioned models, computed with 60 digits.

    python tests/references/ill_conditioned.py

Needs mpmath.  Reads data/longley.csv, data/women.csv and data/discoveries.csv
(written by glm.R), writes the other data sets and ill_conditioned.json.

Every number of a data file is taken as the double a program reads from it; all
further arithmetic has 60 digits: Fisher scoring (for least squares one step) by
normal equations, to a scaled score below 1e-40.
"""

import csv
import json
import random
from pathlib import Path

import mpmath
from mpmath import mp, mpf

mp.dps = 60
HERE = Path(__file__).resolve().parent
DATA = HERE / "data"


# ------------------------------------------------------------------ data sets


def write(name, columns):
    with open(DATA / f"{name}.csv", "w", newline="\n") as out:
        out.write(",".join(columns) + "\n")
        for row in zip(*columns.values(), strict=False):
            out.write(",".join(repr(v) for v in row) + "\n")


def read(name):
    with open(DATA / f"{name}.csv", newline="") as src:
        rows = list(csv.DictReader(src))
    return {k: [mpf(float(r[k])) for r in rows] for k in rows[0]}


def normal(source):
    """Nearly normal, a multiple of 1/1024: exact in binary and in decimals."""
    return round((sum(source.random() for _ in range(12)) - 6) * 1024) / 1024


def count(source, mean):
    """A Poisson variate."""
    n, product, limit = 0, source.random(), float(mpmath.exp(-mean))
    while product > limit:
        n, product = n + 1, product * source.random()
    return n


def logistic(eta):
    return float(1 / (1 + mpmath.exp(-eta)))


def generate():
    # Wampler (1970), as in the NIST Statistical Reference Datasets: the noise is
    # orthogonal to polynomials of degree five, so the coefficients are exact.
    noise = [
        759,
        -2048,
        2048,
        -2048,
        2523,
        -2048,
        2048,
        -2048,
        1838,
        -2048,
        2048,
        -2048,
        1838,
        -2048,
        2048,
        -2048,
        2523,
        -2048,
        2048,
        -2048,
        759,
    ]
    x = list(range(21))
    ones = [sum(v**k for k in range(6)) for v in x]
    tenths = [sum(v**k * 10 ** (5 - k) for k in range(6)) / 10**5 for v in x]
    write("wampler1", {"y": ones, "x": x})
    write("wampler2", {"y": tenths, "x": x})
    for number, factor in ((3, 1), (4, 100), (5, 10000)):
        write(f"wampler{number}", {"y": [a + factor * d for a, d in zip(ones, noise, strict=False)], "x": x})

    # x has mean 1e6 and standard deviation 1
    source = random.Random(20)
    n = 200
    z = [normal(source) for _ in range(n)]
    write(
        "uncentred",
        {
            "x": [1000000 + v for v in z],
            "z": [normal(source) for _ in z],
            "y": [3 + 2 * v + normal(source) for v in z],
            "success": [int(source.random() < logistic(0.3 + v)) for v in z],
            "n": [count(source, float(mpmath.exp(1 + v / 2))) for v in z],
            "t": [round(1024 * float(mpmath.exp(2 - v / 3)) * (0.25 + source.random())) / 1024 for v in z],
        },
    )

    # two columns that agree in all but their last digits
    a = [normal(source) for _ in range(n)]
    write(
        "near_collinear",
        {
            "a": a,
            "b": [v + normal(source) / 2**20 for v in a],
            "y": [1 + v + normal(source) for v in a],
            "success": [int(source.random() < logistic(v - 0.5)) for v in a],
        },
    )

    # columns of very different size
    small = [normal(source) / 2**20 for _ in range(n)]
    large = [normal(source) * 2**27 for _ in range(n)]
    eta = [0.5 + u * 2**19 + v / 2**28 for u, v in zip(small, large, strict=False)]
    write(
        "scales",
        {
            "small": small,
            "large": large,
            "y": [e + normal(source) for e in eta],
            "success": [int(source.random() < logistic(e)) for e in eta],
            "n": [count(source, float(mpmath.exp(e))) for e in eta],
        },
    )


# ------------------------------------------------------------------- families


def ylogy(y, mu):
    return y * mpmath.log(y / mu) if y else mpf(0)


FAMILIES = {  # variance, unit deviance
    "gaussian": (lambda m: mpf(1), lambda y, m: (y - m) ** 2),
    "poisson": (lambda m: m, lambda y, m: 2 * (ylogy(y, m) - (y - m))),
    "binomial": (lambda m: m * (1 - m), lambda y, m: 2 * (ylogy(y, m) + ylogy(1 - y, 1 - m))),
    "gamma": (lambda m: m * m, lambda y, m: 2 * (-mpmath.log(y / m) + (y - m) / m)),
}
LINKS = {  # mean, its derivative, link
    "identity": (lambda e: e, lambda e: mpf(1), lambda m: m),
    "log": (mpmath.exp, mpmath.exp, mpmath.log),
    "logit": (
        lambda e: 1 / (1 + mpmath.exp(-e)),
        lambda e: 1 / (2 + mpmath.exp(e) + mpmath.exp(-e)),
        lambda m: mpmath.log(m / (1 - m)),
    ),
    "probit": (mpmath.ncdf, mpmath.npdf, lambda m: mpmath.sqrt(2) * mpmath.erfinv(2 * m - 1)),
    "cloglog": (
        lambda e: -mpmath.expm1(-mpmath.exp(e)),
        lambda e: mpmath.exp(e - mpmath.exp(e)),
        lambda m: mpmath.log(-mpmath.log(1 - m)),
    ),
}


def log_likelihood(family, y, mu, deviance):
    """As R's logLik() has it: the scale of gaussian and gamma is deviance / n."""
    n = len(y)
    if family == "gaussian":
        return -mpf(n) / 2 * (mpmath.log(2 * mpmath.pi * deviance / n) + 1)
    if family == "poisson":
        return sum(v * mpmath.log(m) - m - mpmath.loggamma(v + 1) for v, m in zip(y, mu, strict=False))
    if family == "binomial":
        return -deviance / 2
    shape = n / deviance
    return sum(
        (shape - 1) * mpmath.log(v) - shape * v / m - mpmath.loggamma(shape) - shape * mpmath.log(m / shape)
        for v, m in zip(y, mu, strict=False)
    )


# -------------------------------------------------------------------- fitting


def column(term, data):
    """A numeric column, or a whole power of one written I(x**k)."""
    if term.startswith("I("):
        name, power = term[2:-1].split("**")
        return [v ** int(power) for v in data[name]]
    return data[term]


def weighted(X, y, eta, family, link):
    """Mean, information and score at the linear predictor."""
    variance = FAMILIES[family][0]
    mean, slope, _ = LINKS[link]
    mu = [mean(e) for e in eta]
    d = [slope(e) for e in eta]
    v = [variance(m) for m in mu]
    w = [a * a / b for a, b in zip(d, v, strict=False)]
    r = [(a - m) * s / b for a, m, s, b in zip(y, mu, d, v, strict=False)]
    p = range(len(X))
    information = mpmath.matrix(len(X))
    for i in p:
        weight = [a * b for a, b in zip(w, X[i], strict=False)]
        for j in p:
            information[i, j] = mpmath.fdot(weight, X[j])
    return mu, information, mpmath.matrix([mpmath.fdot(c, r) for c in X])


def predictor(X, beta):
    return [mpmath.fdot(beta, row) for row in zip(*X, strict=False)]


def fit(name, dataset, formula, family="gaussian", link="identity"):
    data = read(dataset)
    response, terms = (t.strip() for t in formula.split("~"))
    terms = [t.strip() for t in terms.split(" + ")]
    y = data[response]
    n = len(y)
    X = [[mpf(1)] * n] + [column(t, data) for t in terms]
    variance, unit = FAMILIES[family]

    mean = sum(y) / n
    beta = mpmath.matrix([LINKS[link][2](mean)] + [0] * len(terms))
    for iteration in range(100):
        mu, information, score = weighted(X, y, predictor(X, beta), family, link)
        scaled = max(abs(score[i]) / mpmath.sqrt(information[i, i]) for i in range(len(X)))
        if iteration and scaled < mpf(10) ** -40:
            break
        beta = beta + mpmath.lu_solve(information, score)
    else:
        raise RuntimeError(name)

    def summary(beta):
        mu, information, score = weighted(X, y, predictor(X, beta), family, link)
        pearson = sum((a - m) ** 2 / variance(m) for a, m in zip(y, mu, strict=False))
        dispersion = pearson / (n - len(X)) if family in ("gaussian", "gamma") else mpf(1)
        return mu, information, score, pearson, dispersion

    mu, information, score, pearson, dispersion = summary(beta)
    deviance = sum(unit(a, m) for a, m in zip(y, mu, strict=False))
    null = sum(unit(a, mean) for a in y)
    exact = deviance < mpf(10) ** -20 * null  # no residual beyond rounding
    likelihood = None if exact else log_likelihood(family, y, mu, deviance)
    parameters = len(X) + (family in ("gaussian", "gamma"))
    inverse = information**-1
    largest = None
    if not exact:  # what doubles can reach at all
        rounded = summary(mpmath.matrix([mpf(float(b)) for b in beta]))[2]
        largest = max(abs(rounded[i]) / mpmath.sqrt(information[i, i] * dispersion) for i in range(len(X)))
        largest = float(f"{float(largest):.1e}")
    p = range(len(X))
    scaled = mpmath.matrix(len(X))
    for i in p:
        for j in p:
            scaled[i, j] = information[i, j] / mpmath.sqrt(information[i, i] * information[j, j])
    values = mpmath.eigsy(scaled, eigvals_only=True)

    def number(v):
        return None if v is None else float(v) if abs(v) > mpf(10) ** -40 else 0.0

    return {
        "name": name,
        "data": f"{dataset}.csv",
        "factors": {},
        "formula": formula,
        "r_formula": formula.replace("**", "^"),
        "family": family,
        "link": link,
        "weights": None,
        "offset": None,
        "names": ["(Intercept)"] + [t.replace("**", "^") for t in terms],
        "coefficients": [float(b) for b in beta],
        "standard_errors": [number(mpmath.sqrt(inverse[i, i] * dispersion)) for i in p],
        "deviance": number(deviance),
        "null_deviance": number(null),
        "log_likelihood": number(likelihood),
        "aic": number(None if exact else 2 * (parameters - likelihood)),
        "dispersion": number(dispersion),
        "pearson_chi2": number(pearson),
        "df_residual": n - len(X),
        "df_null": n - 1,
        "nobs": n,
        # of the coefficients as printed here; null where the fit is exact
        "score": largest,
        # of the weighted columns, each scaled to length one
        "condition": float(f"{float(mpmath.sqrt(max(values) / min(values))):.1e}"),
    }


# ---------------------------------------------------------------------- cases


def main():
    generate()
    quintic = "y ~ x + I(x**2) + I(x**3) + I(x**4) + I(x**5)"
    everything = "Employed ~ GNP_deflator + GNP + Unemployed + Armed_Forces + Population + Year"
    cases = [
        fit("longley", "longley", everything),
        fit("longley_year_quadratic", "longley", "Employed ~ Year + I(Year**2)"),
        fit("longley_gamma_log", "longley", everything, "gamma", "log"),
        fit("longley_gaussian_log", "longley", everything, "gaussian", "log"),
        *[fit(f"wampler{k}", f"wampler{k}", quintic) for k in range(1, 6)],
        fit("wampler3_cubic", "wampler3", "y ~ x + I(x**2) + I(x**3)"),
        fit("women_quartic", "women", "weight ~ height + I(height**2) + I(height**3) + I(height**4)"),
        fit("discoveries_quadratic", "discoveries", "count ~ year + I(year**2)", "poisson", "log"),
        fit("discoveries_cubic", "discoveries", "count ~ year + I(year**2) + I(year**3)", "poisson", "log"),
        fit("uncentred_gaussian", "uncentred", "y ~ x + z"),
        fit("uncentred_logit", "uncentred", "success ~ x + z", "binomial", "logit"),
        fit("uncentred_probit", "uncentred", "success ~ x", "binomial", "probit"),
        fit("uncentred_cloglog", "uncentred", "success ~ x", "binomial", "cloglog"),
        fit("uncentred_poisson", "uncentred", "n ~ x + z", "poisson", "log"),
        fit("uncentred_gamma", "uncentred", "t ~ x + z", "gamma", "log"),
        fit("near_collinear_gaussian", "near_collinear", "y ~ a + b"),
        fit("near_collinear_logit", "near_collinear", "success ~ a + b", "binomial", "logit"),
        fit("scales_gaussian", "scales", "y ~ small + large"),
        fit("scales_logit", "scales", "success ~ small + large", "binomial", "logit"),
        fit("scales_poisson", "scales", "n ~ small + large", "poisson", "log"),
    ]
    by_name = {c["name"]: c for c in cases}
    for k in (1, 3, 4, 5):  # known without any computation
        assert by_name[f"wampler{k}"]["coefficients"] == [1.0] * 6, k
    for got, power in zip(by_name["wampler2"]["coefficients"], range(6), strict=False):
        assert abs(got * 10**power - 1) < 1e-12
    with open(HERE / "ill_conditioned.json", "w", newline="\n") as out:
        records = [
            ",\n   ".join(f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in c.items()) for c in cases
        ]
        out.write(
            '{\n"versions": '
            + json.dumps({"mpmath": mpmath.__version__})
            + ',\n"settings": "60 digits, scaled score below 1e-40",\n"cases": [\n  {'
            + "},\n  {".join(records)
            + "}]\n}\n"
        )


if __name__ == "__main__":
    main()
