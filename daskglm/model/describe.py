"""The whole specification of a model in words and formulas: `daskglm.describe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from daskglm.errors import public
from daskglm.model.pairs import resolve

# What a pair is called, where it has a name of its own.
CALLED = {
    ("gaussian", "identity"): "linear regression",
    ("binomial", "logit"): "logistic regression",
    ("binomial", "probit"): "probit regression",
    ("binomial", "cloglog"): "complementary log-log regression, a grouped proportional hazards model",
    ("binomial", "log"): "log-binomial regression, whose exp(b) are relative risks",
    ("binomial", "identity"): "a linear probability model",
    ("poisson", "log"): "Poisson regression, a log-linear model of counts",
    ("negative_binomial", "log"): "negative binomial regression (NB2)",
    ("gamma", "log"): "gamma regression of positive amounts, whose exp(b) are factors",
    ("multinomial", "logit"): "multinomial logistic regression, with the first class as reference",
    ("ordinal", "logit"): "the proportional odds model",
    ("ordinal", "probit"): "ordered probit regression",
    ("ordinal", "cloglog"): "the proportional hazards model of grouped times",
}

# The inverse of each link in symbols.
INVERSES = {
    "identity": "eta",
    "log": "exp(eta)",
    "logit": "1 / (1 + exp(-eta))",
    "probit": "Phi(eta), the normal distribution function",
    "cloglog": "1 - exp(-exp(eta))",
    "loglog": "exp(-exp(-eta))",
    "cauchit": "1/2 + arctan(eta) / pi",
    "inverse": "1 / eta",
    "inverse_square": "1 / sqrt(eta)",
    "sqrt": "eta^2",
    "log_complement": "1 - exp(eta)",
    "power": "eta^(1 / exponent)",
}


@final
@dataclass(frozen=True)
class Description:
    """Lines of a label and what it says; prints as text."""

    lines: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self.lines)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in self.lines)

    __repr__ = __str__


@public
def describe(family: Any, link: Any = None) -> Description:
    """The specification of a family with a link (None: its default): h, T, Psi and Z of
    p(y) = h(y) exp{T(y) theta} / Z(theta), the link and its inverse, support and ranges, and why the two fit.

    family, link: names or objects, as in `daskglm.glm`. DesignError where the pair makes no sense.

    >>> import daskglm as dg
    >>> print(dg.describe("bernoulli", "logit"))
    Model                 logistic regression
    Distribution          binomial: p(y) = h(y) exp{T(y) theta} / Z(theta)
    Response              0 or 1, or a proportion between them
    Base measure          h = 1
    Sufficient statistic  T = y
    Canonical parameter   theta = Psi(mu) = log(mu / (1 - mu))
    Partition function    Z = 1 + exp(theta)
    Variance              V(mu) = mu (1 - mu), Var[y] = V(mu) / w
    Dispersion            1
    Range of means        (0, 1)
    Link                  logit: eta = g(mu) = log(mu / (1 - mu))
    Inverse               mu = 1 / (1 + exp(-eta))
    Why it fits           every eta gives a mean in (0, 1), and it is canonical: eta = theta
    """
    chosen, bridge = resolve(family, link)
    formulas, low_high = chosen.formulas, chosen.mean_range
    lines = []
    name = CALLED.get((chosen.name, bridge.name))
    if chosen.name == "tweedie" and bridge.name == "log":
        premiums = chosen.power is None or 1 < chosen.power < 2
        name = "Tweedie regression, of pure premiums" if premiums else "Tweedie regression"
    if name:
        lines.append(("Model", name))
    if formulas.base_measure:
        lines.append(("Distribution", f"{chosen.text}: p(y) = h(y) exp{{T(y) theta}} / Z(theta){_conditions(chosen)}"))
    else:
        lines.append(("Distribution", f"{chosen.text}: a mean and a variance, no density"))
    lines.append(("Response", chosen.support))
    if formulas.base_measure:
        lines += [
            ("Base measure", f"h = {formulas.base_measure}"),
            ("Sufficient statistic", f"T = {formulas.sufficient_statistic}"),
            ("Canonical parameter", f"theta = Psi(mu) = {formulas.natural_parameter}"),
            ("Partition function", f"Z = {formulas.partition}"),
        ]
    if chosen.response == "number":
        phi = "" if chosen.dispersion_known and chosen.dispersion == 1.0 else "phi "
        lines.append(("Variance", f"V(mu) = {formulas.variance}, Var[y] = {phi}V(mu) / w"))
        lines.append(("Dispersion", f"{chosen.dispersion:g}" if chosen.dispersion_known else "phi, estimated"))
    else:
        lines.append(("Covariance", f"{formulas.variance}, of the indicators of the classes"))
    lines.append(
        (
            "Range of means",
            f"({low_high[0]:g}, {low_high[1]:g}){'' if chosen.response == 'number' else ', summing to 1'}",
        )
    )
    lines += _link_lines(chosen, bridge)
    return Description(tuple(lines))


def _conditions(family: Any) -> str:
    if family.response != "number" or (family.dispersion_known and family.dispersion == 1.0):
        return ""
    return ", at phi = 1"


def _link_lines(family: Any, link: Any) -> list[tuple[str, str]]:
    base = link.name.partition("(")[0]
    inverse = INVERSES.get(base, "g^-1(eta), as given")
    if family.response == "classes":
        return [
            ("Link", "logit against the first class: eta_k = log(mu_k / mu_1)"),
            ("Inverse", "mu_k = exp(eta_k) / (1 + sum_j exp(eta_j))"),
            ("Why it fits", "every eta gives probabilities that sum to 1, and it is canonical: eta = theta"),
        ]
    if family.response == "ordered":
        return [
            (
                "Link",
                f"{link.name} of cumulative probabilities: g(P(Y <= k)) = threshold_k - eta, g(mu) = {link.formula}",
            ),
            ("Inverse", f"P(Y <= k) = F(threshold_k - eta), F(eta) = {inverse}"),
            ("Why it fits", "F rises from 0 to 1, so that increasing thresholds give probabilities that sum to 1"),
        ]
    return [
        ("Link", f"{link.name}: eta = g(mu) = {link.formula}"),
        ("Inverse", f"mu = {inverse}"),
        ("Why it fits", _reason(family, link, base)),
    ]


def _reason(family: Any, link: Any, base: str) -> str:
    low, high = family.mean_range
    halved = "steps are halved until every mean is possible"
    care = family.links.get(base, halved if base == "canonical" else "")
    canonical = ""
    if base == family.canonical_link and family.formulas.base_measure:
        scale = family.canonical_scale
        times = {1.0: "", -1.0: "-"}.get(scale, f"{scale:g} ")
        canonical = (
            f", and it is canonical: theta = {times}eta" if scale != 1.0 else ", and it is canonical: eta = theta"
        )
    if care:
        return f"not every eta gives a mean in ({low:g}, {high:g}): {care}{canonical}"
    if np.isfinite(link.mean_range).any() and link.mean_range != family.mean_range:
        return f"every eta gives a mean in ({link.mean_range[0]:g}, {link.mean_range[1]:g}), a part of ({low:g}, {high:g}){canonical}"
    return f"every eta gives a mean in ({low:g}, {high:g}){canonical}"
