"""Which family goes with which link, decided before any data is read; and how both are written as text."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from daskglm.errors import DesignError, closest
from daskglm.model.classes import Multinomial, Ordinal
from daskglm.model.counts import CanonicalCount, Geometric, NegativeBinomial
from daskglm.model.custom import Custom, verify_link
from daskglm.model.exponential import Canonical, ExponentialFamily
from daskglm.model.exponential import verify as verify_density
from daskglm.model.families import Binomial, Exponential, Gamma, Gaussian, InverseGaussian, Poisson
from daskglm.model.likelihoods import GLM
from daskglm.model.links import LINKS, MAKERS, Link
from daskglm.model.power import Tweedie
from daskglm.model.quasi import Quasi, Quasibinomial, Quasipoisson
from daskglm.model.quasi import verify as verify_variance
from daskglm.model.vector import BaselineLogit, Cumulative

# How each family is made where its name is given, with arguments or without.
FAMILIES: dict[str, Any] = {
    "gaussian": Gaussian,
    "binomial": Binomial,
    "poisson": Poisson,
    "gamma": Gamma,
    "exponential": Exponential,
    "inverse_gaussian": InverseGaussian,
    "negative_binomial": NegativeBinomial,
    "geometric": Geometric,
    "tweedie": Tweedie,
    "quasi": Quasi,
    "quasipoisson": Quasipoisson,
    "quasibinomial": Quasibinomial,
    "multinomial": Multinomial,
    "ordinal": Ordinal,
}
ALIASES = {
    "bernoulli": "binomial",
    "normal": "gaussian",
    "inversegaussian": "inverse_gaussian",
    "negativebinomial": "negative_binomial",
    "nbinom": "negative_binomial",
}
# What families are called elsewhere, for messages: "logistic" is a model and not a distribution.
ELSEWHERE = {
    **dict.fromkeys(("logistic", "logit", "logistic_regression", "probit", "binary"), "binomial"),
    **dict.fromkeys(("nb", "nb2", "negbin", "negativebinomial2"), "negative_binomial"),
    **dict.fromkeys(("linear", "ols", "lm", "identity"), "gaussian"),
    **dict.fromkeys(("count", "counts", "loglinear"), "poisson"),
    **dict.fromkeys(("invgauss", "ig"), "inverse_gaussian"),
    **dict.fromkeys(("softmax", "multiclass", "categorical"), "multinomial"),
    **dict.fromkeys(("ordered", "polr", "proportional_odds", "cumulative"), "ordinal"),
}

LINKS_ELSEWHERE = {
    **dict.fromkeys(("ln", "logarithm", "log_link"), "log"),
    **dict.fromkeys(("logistic", "logit_link"), "logit"),
    **dict.fromkeys(("normit", "norm", "normal"), "probit"),
    **dict.fromkeys(("complementary_log_log", "c_log_log", "cloglog_link"), "cloglog"),
    **dict.fromkeys(("reciprocal", "1/mu", "inverse_power"), "inverse"),
    **dict.fromkeys(("inverse_squared", "1/mu^2"), "inverse_square"),
    "cauchy": "cauchit",
    "square_root": "sqrt",
    "id": "identity",
}

_PAIR = re.compile(r"""\s*(\w+)\s*\(\s*(?:link\s*=\s*)?(["']?)(\w+)\2\s*\)\s*""")
_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\((.*)\))?\s*", re.DOTALL)


def written(text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Name and arguments of an object written as text, "negative_binomial(theta=2)": numbers, text and lists alone."""
    call = _CALL.fullmatch(text)
    if call is None:
        return text, (), {}
    if not (call.group(2) or "").strip():
        return call.group(1), (), {}
    try:
        tree = ast.parse(f"f({call.group(2)})", mode="eval").body
        assert isinstance(tree, ast.Call)
        given = tuple(_literal(argument) for argument in tree.args)
        named = {keyword.arg: _literal(keyword.value) for keyword in tree.keywords if keyword.arg}
        if len(named) < len(tree.keywords):
            raise ValueError
    except (SyntaxError, ValueError):
        raise DesignError(
            f"{text!r} cannot be read: arguments are written as in negative_binomial(theta=2) or quasi(variance='mu^2')"
        ) from None
    return call.group(1), given, named


def _literal(node: ast.expr) -> Any:
    """A value that is written out; theta=inf is one, for a negative binomial that turned out Poisson."""
    return math.inf if isinstance(node, ast.Name) and node.id == "inf" else ast.literal_eval(node)


def _parameters(make: Callable[..., Any]) -> inspect.Signature:
    """What a user may set: what comes before `name`; from there on, fields say what the family or link is."""
    fields = inspect.signature(make).parameters.values()
    return inspect.Signature(list(itertools.takewhile(lambda field: field.name != "name", fields)))


def named(kind: str, table: Mapping[str, Callable[..., Any]], value: object, aliases: Mapping[str, str]) -> Any:
    """The object a user means by a name, by a name with arguments, or by a class."""
    if isinstance(value, str):
        if kind == "family":
            _refuse_pair(value, table, aliases)
        word, given, arguments = written(value)
        name = aliases.get(word, word)
        if name not in table:
            known = ", ".join(table)
            raise DesignError(f'there is no {kind} "{word}"{_meant(kind, table, aliases, word)}; there are: {known}')
        parameters = _parameters(table[name])
        try:
            chosen = parameters.bind(*given, **arguments)
        except TypeError as error:
            known = ", ".join(parameters.parameters) or "none"
            raise DesignError(f"{kind} {value!r}: {error}; arguments of {name}: {known}") from None
        return table[name](*chosen.args, **chosen.kwargs)
    return value() if isinstance(value, type) or any(value is make for make in table.values()) else value  # type: ignore[operator]


def _refuse_pair(text: str, table: Mapping[str, Any], aliases: Mapping[str, str]) -> None:
    """A DesignError for a family with its link in parentheses, as R writes it."""
    pair = _PAIR.fullmatch(text)
    if pair is None:
        return
    family, link = pair[1].lower(), pair[3].lower()
    family, link = aliases.get(family, family), LINKS_ELSEWHERE.get(link, link)
    if family in table and link in LINKS:
        raise DesignError(f'family={text!r} names a link, too: write family="{family}", link="{link}"')


def family_called(word: str) -> str | None:
    """The family that a name of another library means, whatever its case; None where it means none."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower()
    for name in (plain, word.lower()):
        found = ELSEWHERE.get(name, ALIASES.get(name, name))
        if found in FAMILIES:
            return found
    return None


def _meant(kind: str, table: Mapping[str, Any], aliases: Mapping[str, str], word: str) -> str:
    """' (did you mean "x"?)': what a name is called here, or the nearest one."""
    plain = re.sub(r"[\s_-]+", "_", word.strip().lower())
    known = (ELSEWHERE if kind == "family" else LINKS_ELSEWHERE).get(plain, plain)
    return f' (did you mean "{known}"?)' if known in table else closest(word, [*table, *aliases])


def resolve(family: object, link: object = None) -> tuple[Any, Link]:
    """The family and link meant by names or objects, or a DesignError that says why the pair makes no sense."""
    chosen = named("family", FAMILIES, family, ALIASES)
    if not hasattr(chosen, "default_link"):
        raise DesignError(f"family={chosen!r} is neither a name nor a family; there are: {', '.join(FAMILIES)}")
    _verify(chosen)
    wanted = chosen.default_link if link is None else link
    if wanted == "canonical":
        wanted = _canonical(chosen)
    bridge = named("link", LINKS | MAKERS, wanted, {})
    if not hasattr(bridge, "inverse"):
        raise DesignError(f"link={bridge!r} is neither a name nor a link; there are: {', '.join(LINKS)}")
    _verify(bridge)
    refused = refusal(chosen, bridge)
    if refused:
        raise DesignError(refused)
    return chosen, bridge


@lru_cache(maxsize=32)
def _verify(given: Any) -> None:
    """Whether the functions of one's own family or link belong together."""
    if isinstance(given, ExponentialFamily):
        verify_density(given)
    elif isinstance(given, Quasi):
        verify_variance(given)
    elif isinstance(given, Custom):
        verify_link(given)


def _canonical(family: Any) -> Any:
    """The link for which eta is the natural parameter."""
    if isinstance(family, ExponentialFamily):
        return Canonical(family)
    if isinstance(family, NegativeBinomial):
        if family.theta is None or not math.isfinite(family.theta):
            raise DesignError(
                f"the canonical link of the negative binomial is log(mu / (mu + theta)), which needs a finite theta, not "
                f"theta={family.theta}: give negative_binomial(theta=2), or use the log link"
            )
        return CanonicalCount(float(family.theta))
    if not family.canonical_link:
        raise DesignError(f"the canonical link of the {family.text} family has no name here: name another link")
    return family.canonical_link


def likelihood_of(family: object, link: object, classes: int) -> GLM | BaselineLogit | Cumulative:
    """The likelihood of a pair; classes: how many the response has, where it has classes."""
    chosen, bridge = resolve(family, link)
    if chosen.response == "classes":
        return BaselineLogit(classes)
    return Cumulative(bridge, classes) if chosen.response == "ordered" else GLM(chosen, bridge)


def pairs() -> dict[tuple[str, str], str]:
    """Every family with every link: "allowed", "with care: ..." or "refused: ..." and why."""
    found = {}
    makers: dict[str, Any] = {**LINKS, "power(0.5)": lambda: MAKERS["power"](0.5)}
    for name, make in FAMILIES.items():
        family = make()
        for link, made in makers.items():
            bridge = made()
            reason, care = refusal(family, bridge), family.links.get(bridge.name.partition("(")[0], "")
            found[name, link] = f"refused: {reason}" if reason else f"with care: {care}" if care else "allowed"
    return found


def refusal(family: Any, link: Link) -> str:
    """Why a pair makes no sense, or "" where it does."""
    if isinstance(link, CanonicalCount) and isinstance(family, NegativeBinomial) and link.theta == family.theta:
        return ""
    if link.name.partition("(")[0] in family.links and not isinstance(link, Custom):
        return ""
    low, high = family.mean_range
    if isinstance(link, Custom) and family.response == "number":
        if link.mean_range[0] < high and low < link.mean_range[1]:
            return ""
        return (
            f"the {link.name} link gives means in ({link.mean_range[0]:g}, {link.mean_range[1]:g}), and none of those is a "
            f"mean of the {family.name} family, which lies in ({low:g}, {high:g})"
        )
    allowed = f"links for {family.name}: {', '.join(family.links)}"
    what = f"the {link.name} link, g(mu) = {link.formula}, does not go with the {family.name} family"
    if family.response != "number":
        return f"{what}, whose means are the probabilities of all classes: {allowed}"
    return f"{what}, whose mean lies in ({low:g}, {high:g}): the means that link can give do not match; {allowed}"
