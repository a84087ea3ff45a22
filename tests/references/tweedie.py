"""Reference values for the Tweedie likelihood, computed with 40 digits.

    python tests/references/tweedie.py

Needs mpmath and numpy; after families.R, whose data sets it reads.  Writes tweedie.json.

Given power p, mean mu and dispersion phi, the density is summed as it is defined:
1 < p < 2: a Poisson number of gamma amounts, lambda = mu^(2-p) / (phi (2-p)), shape (2-p) / (p-1), scale phi (p-1) mu^(p-1)
(Jorgensen, The Theory of Dispersion Models, 1997, section 4.2);
p > 2: a tilted positive stable law of index (p-2) / (p-1), whose density is an integral of a positive function (Kanter,
Annals of Probability 3, 1975); at p = 3 it is checked against the inverse Gaussian density. The density for
1 < p < 2 is checked by integrating to 1.

densities: log likelihoods of whole data sets at given coefficients and dispersions.  dispersions: phi by maximum
likelihood, power given.  powers: (p, phi, beta) by maximum likelihood; given p the best beta is that of the GLM whatever
phi, so Newton steps on the profile in (p, log phi) find it.  The error of p comes in two ways: from the Hessian in
(p, log phi) at fixed beta, and from that of all parameters (the profile's own Hessian, by Schur complement).
unit_errors: of the coefficients at dispersion 1, from the expected information.
"""

import csv
import json
from pathlib import Path

import mpmath
from mpmath import mp, mpf

mp.dps = 40
HERE = Path(__file__).resolve().parent
# Central differences in 40 digits: truncation and rounding are both below 1e-18 of the function.
STEP = mpf(10) ** -11


# ------------------------------------------------------------------ densities


def log_compound(y, mu, phi, p):
    """log density at y >= 0, 1 < p < 2, of many rows at once: all lists of the same length."""
    shape = (2 - p) / (p - 1)
    rates = [m ** (2 - p) / (f * (2 - p)) for m, f in zip(mu, phi, strict=True)]
    scales = [f * (p - 1) * m ** (p - 1) for m, f in zip(mu, phi, strict=True)]
    weights = []  # log of 1 / (n! Gamma(n shape))
    total = []
    for value, rate, scale in zip(y, rates, scales, strict=True):
        if value == 0:
            total.append(-rate)
            continue
        log_term = mp.log(rate) + shape * mp.log(value / scale)
        terms, n, largest = [], 0, None
        while True:
            n += 1
            if n > len(weights):
                weights.append(-mp.loggamma(n + 1) - mp.loggamma(n * shape))
            term = weights[n - 1] + n * log_term
            terms.append(term)
            largest = term if largest is None else max(largest, term)
            if term < largest - 100 and term < terms[-2]:
                break
        series = mp.fsum(mp.exp(t - largest) for t in terms)
        total.append(largest + mp.log(series) - rate - value / scale - mp.log(value))
    return total


def log_stable(y, mu, phi, p):
    """log density at y > 0, p > 2."""
    alpha = (p - 2) / (p - 1)
    total = []
    for value, mean, f in zip(y, mu, phi, strict=True):
        size = (((p - 1) * f) ** alpha / ((p - 2) * f)) ** (1 / alpha)
        kernel = (value * mean ** (1 - p) / (1 - p) - mean ** (2 - p) / (2 - p)) / f
        total.append(log_positive_stable(value / size, alpha) - mp.log(size) + kernel)
    return total


def log_positive_stable(x, alpha):
    """log density of the law with Laplace transform exp(-s^alpha):
    alpha / ((1 - alpha) pi) x^(-1 / (1 - alpha)) int_0^pi A exp(-x^(-alpha / (1 - alpha)) A).
    """
    power = x ** (-alpha / (1 - alpha))
    lowest = alpha ** (alpha / (1 - alpha)) * (1 - alpha)

    def rise(angle):
        if angle == 0:
            return mpf(0)
        numerator = mp.sin(alpha * angle) ** alpha * mp.sin((1 - alpha) * angle) ** (1 - alpha)
        return (numerator / mp.sin(angle)) ** (1 / (1 - alpha)) - lowest

    # beyond the cut the integrand is below exp(-80) of its largest value
    low, high = mpf(0), mp.pi
    for _ in range(60):
        middle = (low + high) / 2
        if power * rise(middle) > 80 + mp.log1p(rise(middle) / lowest):
            high = middle
        else:
            low = middle
    integral = mp.quad(
        lambda angle: (lowest + rise(angle)) * mp.exp(-power * rise(angle)),
        mp.linspace(0, high, 5),
        method="gauss-legendre",
    )
    return mp.log(alpha / ((1 - alpha) * mp.pi) * integral) - mp.log(x) / (1 - alpha) - power * lowest


def log_densities(y, mu, phi, p):
    return (log_compound if p < 2 else log_stable)(y, mu, phi, p)


def check_densities():
    p, mean, phi = mpf("1.6"), mpf("1.2"), mpf("0.8")
    with mp.workdps(15):
        zero = mp.exp(log_compound([mpf(0)], [mean], [phi], p)[0])
        rest = mp.quad(
            lambda y: mp.exp(log_compound([y], [mean], [phi], p)[0]), [mpf("1e-12"), 0.01, 0.1, 0.5, 1, 2, 4, 8, 16, 40]
        )
        assert abs(zero + rest - 1) < 1e-5, zero + rest
    for value in (mpf("0.3"), mpf(2)):
        exact = -mp.log(2 * mp.pi * phi * value**3) / 2 - (value - mean) ** 2 / (2 * phi * mean**2 * value)
        assert abs(log_stable([value], [mean], [phi], mpf(3))[0] - exact) < mpf(10) ** -25


# ----------------------------------------------------------------- the model


def columns(name):
    with open(HERE / "data" / f"{name}.csv", newline="") as source:
        return list(csv.DictReader(source))


def dummies(rows, column):
    levels = sorted({row[column] for row in rows})
    return [[mpf(row[column] == level) for row in rows] for level in levels[1:]]


def numbers(rows, column):
    return [mpf(float(row[column])) for row in rows]


def design(rows, terms):
    """X by columns: an intercept, then numbers, logarithms or factors."""
    found = [[mpf(1)] * len(rows)]
    for kind, column in terms:
        if kind == "factor":
            found += dummies(rows, column)
        else:
            values = numbers(rows, column)
            found.append([mp.log(v) for v in values] if kind == "log" else values)
    return found


class Model:
    """y, X and offset of a log-linear Tweedie model; weight: phi / weight is the row's dispersion; copies: frequencies."""

    def __init__(self, data, response, terms, offset=None, weight=None, copies=None):
        rows = columns(data)
        ones = [mpf(1)] * len(rows)
        self.X = design(rows, terms)
        self.y = numbers(rows, response)
        self.weight = ones if weight is None else numbers(rows, weight)
        self.copies = ones if copies is None else numbers(rows, copies)
        self.offset = [mpf(0)] * len(rows) if offset is None else [mp.log(v) for v in numbers(rows, offset)]
        self.beta = None

    def mean(self, beta):
        parts = zip(*self.X, strict=True)
        return [mp.exp(mp.fdot(row, beta) + offset) for row, offset in zip(parts, self.offset, strict=True)]

    def gram(self, weights):
        q = len(self.X)
        found = mp.matrix(q, q)
        for i in range(q):
            scaled = [a * w for a, w in zip(self.X[i], weights, strict=True)]
            for j in range(i, q):
                found[i, j] = found[j, i] = mp.fdot(scaled, self.X[j])
        return found

    def fitted(self, p):
        """beta given p, from the last beta found: scoring while steps are long, then Newton steps."""
        totals = [w * f for w, f in zip(self.weight, self.copies, strict=True)]
        if self.beta is None:
            share = mp.fdot(totals, self.y) / mp.fdot(totals, [mp.exp(o) for o in self.offset])
            self.beta = [mp.log(share)] + [mpf(0)] * (len(self.X) - 1)
        beta, far = self.beta, True
        for _ in range(60):
            mu = self.mean(beta)
            residual = [w * (y - m) * m ** (1 - p) for y, m, w in zip(self.y, mu, totals, strict=True)]
            score = mp.matrix([mp.fdot(column, residual) for column in self.X])
            if far:
                information = [w * m ** (2 - p) for m, w in zip(mu, totals, strict=True)]
            else:
                information = [
                    w * ((2 - p) * m ** (2 - p) + (p - 1) * y * m ** (1 - p))
                    for y, m, w in zip(self.y, mu, totals, strict=True)
                ]
            step = mp.lu_solve(self.gram(information), score)
            far = max(abs(s) for s in step) > 1e-3
            beta = [b + s for b, s in zip(beta, step, strict=True)]
            if max(abs(s) for s in step) < mpf(10) ** -34:
                self.beta = beta
                return beta
        raise ArithmeticError("Newton steps did not end")

    def log_likelihood(self, beta, p, phi):
        dispersion = [phi / w for w in self.weight]
        return mp.fdot(self.copies, log_densities(self.y, self.mean(beta), dispersion, p))

    def deviance(self, beta, p):
        def unit(y, m):
            own = mpf(0) if y == 0 else y ** (2 - p) / ((1 - p) * (2 - p))
            return 2 * (own - y * m ** (1 - p) / (1 - p) + m ** (2 - p) / (2 - p))

        terms = zip(self.y, self.mean(beta), self.weight, self.copies, strict=True)
        return mp.fsum(f * w * unit(y, m) for y, m, w, f in terms)

    def pearson(self, beta, p):
        terms = zip(self.y, self.mean(beta), self.weight, self.copies, strict=True)
        return mp.fsum(f * w * (y - m) ** 2 / m**p for y, m, w, f in terms)

    def unit_errors(self, beta, p):
        terms = zip(self.mean(beta), self.weight, self.copies, strict=True)
        inverse = self.gram([f * w * m ** (2 - p) for m, w, f in terms]) ** -1
        return [mp.sqrt(inverse[i, i]) for i in range(len(self.X))]

    def nobs(self):
        return mp.fsum(self.copies)


# ------------------------------------------------------------------- maxima


def derivatives(function, x):
    """Value, gradient and Hessian by central differences."""
    n = len(x)

    def at(*moves):
        point = list(x)
        for i, sign in moves:
            point[i] += sign * STEP
        return function(*point)

    value = at()
    gradient, hessian = mp.matrix(n, 1), mp.matrix(n, n)
    for i in range(n):
        up, down = at((i, 1)), at((i, -1))
        gradient[i] = (up - down) / (2 * STEP)
        hessian[i, i] = (up - 2 * value + down) / STEP**2
        for j in range(i):
            cross = at((i, 1), (j, 1)) - at((i, 1), (j, -1)) - at((i, -1), (j, 1)) + at((i, -1), (j, -1))
            hessian[i, j] = hessian[j, i] = cross / (4 * STEP**2)
    return value, gradient, hessian


def maximum(function, x):
    """Newton steps, halved until they climb, to a scaled score below 1e-12."""
    for _ in range(50):
        value, gradient, hessian = derivatives(function, x)
        if max(abs(gradient[i]) / mp.sqrt(abs(hessian[i, i])) for i in range(len(x))) < mpf(10) ** -12:
            return x, value, hessian
        step = mp.lu_solve(-hessian, gradient)
        if mp.fdot(step, gradient) < 0:
            step = gradient / max(abs(hessian[i, i]) for i in range(len(x)))
        size = mpf(1)
        while True:
            trial = [a + size * s for a, s in zip(x, step, strict=True)]
            if all(1 < v < 2 for v in trial[:-1]) and function(*trial) > value:
                break
            size /= 2
        x = trial
    raise ArithmeticError("no maximum found")


def errors(hessian):
    inverse = (-hessian) ** -1
    return [mp.sqrt(inverse[i, i]) for i in range(hessian.rows)]


# -------------------------------------------------------------------- cases

POLICIES = [("factor", "area"), ("number", "age")]
MODELS = {
    "policies": {"data": "policies", "response": "cost", "terms": POLICIES, "formula": "cost ~ area + age"},
    "policies_offset": {
        "data": "policies", "response": "cost", "terms": POLICIES, "formula": "cost ~ area + age", "offset": "exposure",
    },
    "policies_frequency": {
        "data": "policies", "response": "cost", "terms": POLICIES, "formula": "cost ~ area + age", "copies": "copies",
    },
    "policies_weights": {
        "data": "policies", "response": "cost", "terms": POLICIES, "formula": "cost ~ area + age", "weight": "exposure",
    },
    "quine": {
        "data": "quine", "response": "Days", "terms": [("factor", "Eth"), ("factor", "Age")], "formula": "Days ~ Eth + Age",
    },
    "trees": {
        "data": "trees", "response": "Volume", "terms": [("log", "Girth"), ("log", "Height")],
        "formula": "Volume ~ log(Girth) + log(Height)",
    },
    "leuk": {"data": "leuk", "response": "time", "terms": [("factor", "ag")], "formula": "time ~ ag"},
}  # fmt: skip
DENSITIES = [
    ("policies", "1.3"), ("policies", "1.5"), ("policies", "1.7"), ("policies", "1.05"), ("policies", "1.95"),
    ("policies_weights", "1.5"), ("policies_frequency", "1.6"), ("quine", "1.4"), ("quine", "1.7"), ("trees", "1.5"),
    ("trees", "2.5"), ("trees", "3.5"), ("leuk", "2.2"), ("leuk", "2.5"), ("leuk", "3.5"),
]  # fmt: skip
DISPERSIONS = [
    ("policies", "1.5"),
    ("policies_weights", "1.5"),
    ("policies_frequency", "1.6"),
    ("quine", "1.7"),
    ("trees", "1.5"),
]
POWERS = ["policies", "policies_offset", "policies_frequency", "quine"]


def model_of(name):
    return Model(**{key: value for key, value in MODELS[name].items() if key != "formula"})


def heading(name, label):
    given = MODELS[name]
    weights = None
    if "copies" in given:
        weights = {"type": "frequency", "column": given["copies"]}
    if "weight" in given:
        weights = {"type": "variance", "column": given["weight"]}
    offset = f"log({given['offset']})" if "offset" in given else None
    return {
        "name": label, "data": f"{given['data']}.csv", "formula": given["formula"], "family": "tweedie", "link": "log",
        "weights": weights, "offset": offset,
    }  # fmt: skip


def density_case(name, power):
    model, p = model_of(name), mpf(float(power))
    beta = [mpf(float(b)) for b in model.fitted(p)]  # doubles, so that everyone starts from the same
    pearson = float(model.pearson(beta, p) / (model.nobs() - len(beta)))
    phis = [pearson / 4, pearson, pearson * 3]
    return heading(name, f"{name}_{power}") | {
        "power": float(power), "coefficients": beta, "dispersions": phis,
        "log_likelihoods": [model.log_likelihood(beta, p, mpf(phi)) for phi in phis],
        "deviance": model.deviance(beta, p),
    }  # fmt: skip


def dispersion_case(name, power):
    model, p = model_of(name), mpf(float(power))
    beta = model.fitted(p)
    start = mp.log(model.deviance(beta, p) / model.nobs())
    (log_phi,), value, hessian = maximum(lambda u: model.log_likelihood(beta, p, mp.exp(u)), [start])
    phi = mp.exp(log_phi)
    return heading(name, f"{name}_{power}_dispersion") | {
        "power": float(power), "coefficients": beta, "unit_errors": model.unit_errors(beta, p), "dispersion": phi,
        "dispersion_error": phi * errors(hessian)[0], "log_likelihood": value, "deviance": model.deviance(beta, p),
        "pearson_chi2": model.pearson(beta, p),
    }  # fmt: skip


def power_case(name):
    model = model_of(name)
    start = mpf("1.5")
    phi = model.deviance(model.fitted(start), start) / model.nobs()
    profile = lambda p, u: model.log_likelihood(model.fitted(p), p, mp.exp(u))  # noqa: E731
    (p, log_phi), value, joint = maximum(profile, [start, mp.log(phi)])
    beta, phi = model.fitted(p), mp.exp(log_phi)
    fixed = derivatives(lambda q, u: model.log_likelihood(beta, q, mp.exp(u)), [p, log_phi])[2]
    return heading(name, f"{name}_power") | {
        "power": p, "dispersion": phi, "coefficients": beta, "unit_errors": model.unit_errors(beta, p),
        "log_likelihood": value, "deviance": model.deviance(beta, p), "pearson_chi2": model.pearson(beta, p),
        "power_error_at_fixed_coefficients": errors(fixed)[0], "power_error_joint": errors(joint)[0],
        "dispersion_error_at_fixed_coefficients": phi * errors(fixed)[1], "dispersion_error_joint": phi * errors(joint)[1],
        "hessian_at_fixed_coefficients": [[fixed[i, j] for j in range(2)] for i in range(2)],
        "hessian_joint": [[joint[i, j] for j in range(2)] for i in range(2)],
    }  # fmt: skip


def plain(value):
    """mpf to the nearest double."""
    if isinstance(value, mpf):
        return float(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def main():
    check_densities()
    found = {
        "versions": {"mpmath": mpmath.__version__},
        "settings": "40 digits",
        "densities": [density_case(*case) for case in DENSITIES],
        "dispersions": [dispersion_case(*case) for case in DISPERSIONS],
        "powers": [power_case(name) for name in POWERS],
    }
    (HERE / "tweedie.json").write_text(json.dumps(plain(found), indent=1) + "\n")


if __name__ == "__main__":
    main()
