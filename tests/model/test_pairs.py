"""Which names and objects are understood, and which pairs are refused before any data are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from daskglm.errors import DesignError
from daskglm.model.classes import Multinomial, Ordinal
from daskglm.model.counts import NegativeBinomial
from daskglm.model.families import Exponential, Gamma
from daskglm.model.likelihoods import GLM
from daskglm.model.links import LINKS, MAKERS, Log, power
from daskglm.model.pairs import ALIASES, FAMILIES, likelihood_of, resolve, written
from daskglm.model.power import Tweedie
from daskglm.model.quasi import Quasi
from daskglm.model.vector import BaselineLogit, Cumulative

# The default link of each family as users of R know them; gamma and its kin with log, as actuaries do.
DEFAULTS = {
    "gaussian": "identity",
    "binomial": "logit",
    "poisson": "log",
    "gamma": "log",
    "exponential": "log",
    "inverse_gaussian": "log",
    "negative_binomial": "log",
    "geometric": "log",
    "tweedie": "log",
    "quasi": "identity",
    "quasipoisson": "log",
    "quasibinomial": "logit",
    "multinomial": "logit",
    "ordinal": "logit",
}

# Links with which a family goes whatever the coefficients, and those with which some have no mean: a table of its own, so
# that a pair that comes or goes is seen.
PROBABILITY = {
    **dict.fromkeys(("logit", "probit", "cloglog", "loglog", "cauchit"), True),
    **dict.fromkeys(("log", "log_complement", "identity"), False),
}
POSITIVE = {"log": True, "inverse": False, "identity": False, "inverse_square": False, "sqrt": False, "power": False}
PAIRS: dict[str, dict[str, bool]] = {
    "gaussian": {"identity": True, "log": True, "inverse": False, "sqrt": False, "power": False},
    "binomial": PROBABILITY,
    "quasibinomial": PROBABILITY,
    "poisson": {"log": True, "identity": False, "sqrt": False, "power": False},
    "negative_binomial": {"log": True, "identity": False, "sqrt": False, "power": False},
    "geometric": {"log": True, "identity": False, "sqrt": False, "power": False},
    "gamma": POSITIVE,
    "exponential": POSITIVE,
    "inverse_gaussian": POSITIVE,
    "tweedie": POSITIVE,
    # V is constant where none is named, and the mean is any number
    "quasi": {"identity": True, "log": True, "inverse": False, "inverse_square": False, "sqrt": False},
    "quasipoisson": {"log": True, "identity": False, "sqrt": False, "power": False},
    "multinomial": {"logit": True},
    "ordinal": dict.fromkeys(("logit", "probit", "cloglog", "loglog", "cauchit"), True),
}


def built(link: str) -> Any:
    return power(0.25) if link == "power" else LINKS[link]()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("link", [*LINKS, "power"])
def test_every_pair_resolves_or_is_refused(family: str, link: str) -> None:
    text = "power(0.25)" if link == "power" else link
    links = FAMILIES[family]().links
    assert (link in links) == (link in PAIRS[family])
    if link in links:
        # allowed whatever the coefficients, or with a word on what happens where they give no mean
        assert (links[link] == "") == PAIRS[family][link]
        assert links[link] == "" or links[link].startswith("steps are halved until every mean is ")
        expected = FAMILIES[family](), built(link)
        assert resolve(family, text) == expected
        assert resolve(FAMILIES[family], built(link)) == expected
        assert resolve(*expected) == expected
        return
    with pytest.raises(DesignError) as refused:
        resolve(family, text)
    message = str(refused.value)
    assert message.startswith(
        f"the {built(link).name} link, g(mu) = {built(link).formula}, does not go with the {family}"
    )
    assert "mean" in message
    assert message.endswith(f"links for {family}: {', '.join(links)}")


def test_a_normal_family_by_its_power_has_any_mean() -> None:
    assert resolve("tweedie(power=0)", "identity")[0].links["identity"] == ""
    assert resolve("tweedie(power=2)", "identity")[0].links["identity"] != ""


@pytest.mark.parametrize("family", FAMILIES)
def test_default_link(family: str) -> None:
    assert resolve(family)[1].name == DEFAULTS[family]


@pytest.mark.parametrize(
    "alias, family",
    [
        ("bernoulli", "binomial"),
        ("normal", "gaussian"),
    ],
)
def test_aliases(alias: str, family: str) -> None:
    assert resolve(alias) == resolve(family)
    assert ALIASES[written(alias)[0]] == written(family)[0]


# -- objects as text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, family",
    [
        ("negative_binomial(theta=2)", NegativeBinomial(2)),
        ("negative_binomial(2.5)", NegativeBinomial(2.5)),
        ("negative_binomial", NegativeBinomial()),
        ("negative_binomial()", NegativeBinomial(None)),
        (" tweedie ( power = 1.5 ) ", Tweedie(1.5)),
        ("tweedie(-0.5)", Tweedie(-0.5)),
        ("tweedie(power=None)", Tweedie()),
        ("gamma(shape=2)", Gamma(2)),
        ("exponential", Exponential()),
        ("quasi(variance='mu^2')", Quasi("mu^2")),
        ("quasi('mu')", Quasi("mu")),
        ("multinomial(levels=['b', 'a'])", Multinomial(("b", "a"))),
        ("multinomial(['x, y', 'z)', \"it's\"])", Multinomial(("x, y", "z)", "it's"))),
        ("ordinal(levels=(3, 1, 2))", Ordinal((3, 1, 2))),
        ("ordinal", Ordinal()),
    ],
)
def test_families_with_arguments(text: str, family: Any) -> None:
    found = resolve(text)[0]
    assert found == family
    # how it is saved leads back to it
    assert resolve(found.text)[0] == found


@pytest.mark.parametrize("text", ["negative_binomial(theta=1e-300)", "tweedie(power=1.1)", "tweedie(power=-2)"])
def test_text_is_what_was_typed(text: str) -> None:
    assert resolve(text)[0].text == text


def test_a_theta_of_infinity_leads_back_to_itself() -> None:
    """Where data are not overdispersed it is the estimate, and models are saved by their text."""
    family = NegativeBinomial(np.inf)
    assert resolve(family.text)[0] == family


@pytest.mark.parametrize("exponent", [0.25, -1.5, 3])
def test_links_with_arguments(exponent: float) -> None:
    link = resolve("gamma", f"power({exponent})")[1]
    assert link == power(exponent)
    assert resolve("gamma", link.name)[1] == link
    assert resolve("gamma", f"power(exponent={exponent})")[1] == link


@pytest.mark.parametrize("make, family", [(FAMILIES[name], name) for name in FAMILIES])
def test_what_makes_a_family_stands_for_it(make: Any, family: str) -> None:
    assert resolve(make) == resolve(family)


def test_power_0_is_the_log_link() -> None:
    assert resolve("poisson", "power(0)")[1] == Log()


@pytest.mark.parametrize(
    "family, link, sentence",
    [
        ("negative_binomial(theta=0)", None, "theta of a negative binomial family is a positive number, not 0"),
        (
            "negative_binomial(thta=2)",
            None,
            "got an unexpected keyword argument 'thta'; arguments of negative_binomial: theta",
        ),
        (
            "negative_binomial(theta=2, theta=3)",
            None,
            "cannot be read: arguments are written as in negative_binomial(theta=2)",
        ),
        ("negative_binomial(theta=x)", None, "cannot be read"),
        ("negative_binomial(theta=__import__('os'))", None, "cannot be read"),
        ("negative_binomial(**{'theta': 2})", None, "cannot be read"),
        ("negative_binomial(theta=2", None, 'there is no family "negative_binomial(theta=2"'),
        ("negative_binomal(theta=2)", None, 'did you mean "negative_binomial"?'),
        ("poisson(theta=2)", None, "got an unexpected keyword argument 'theta'; arguments of poisson: none"),
        ("exponential(shape=2)", None, "unexpected keyword argument 'shape'"),
        ("exponential(2)", None, "too many positional arguments; arguments of exponential: none"),
        ("tweedie(power='1.5')", None, "the power of a Tweedie family is a number, not '1.5'"),
        ("tweedie(power=0.5)", None, "no distribution has a variance"),
        ("quasi(variance='mu^4')", None, 'there is no variance "mu^4"'),
        (
            "quasi(varance='mu')",
            None,
            "got an unexpected keyword argument 'varance'; arguments of quasi: variance, mean_range",
        ),
        ("tweedie(power=1)", None, 'use "poisson"'),
        ("multinomial(levels='ab')", None, "levels= is the list of all levels in order, not 'ab'"),
        ("multinomial(levels=['a'])", None, "levels= names two or more different levels, not ['a']"),
        ("ordinal(levels=['a', 'b', 'a'])", None, "levels= names two or more different levels"),
        ("ordinal(levels=3)", None, "levels= is the list of all levels in order, not 3"),
        ("gamma", "power()", "missing a required argument: 'exponent'; arguments of power: exponent"),
        ("gamma", "power", "missing a required argument: 'exponent'; arguments of power: exponent"),
        ("gamma", "power('2')", "the exponent of a power link is a number"),
        ("gamma", "power(2, 3)", "too many positional arguments"),
        ("gamma", "log(2)", "link 'log(2)': too many positional arguments; arguments of log: none"),
        ("gamma", "pwer(2)", 'there is no link "pwer" (did you mean "power"?)'),
    ],
)
def test_wrong_arguments_are_one_sentence(family: str, link: str | None, sentence: str) -> None:
    with pytest.raises(DesignError) as refused:
        resolve(family, link)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text, known",
    [
        ("gaussian(name='gamma')", "none"),
        ("gamma(shape=2, name='mine')", "shape"),
        ("gaussian('other')", "none"),
        ("poisson(bounded=True)", "none"),
        ("negative_binomial(theta=2, dispersion=3)", "theta"),
        ("tweedie(1.5, 'mine')", "power"),
        ("multinomial(['a', 'b'], default_link='probit')", "levels"),
    ],
)
def test_what_says_what_a_family_is_cannot_be_set(text: str, known: str) -> None:
    with pytest.raises(DesignError) as refused:
        resolve(text)
    assert str(refused.value).startswith(f"family {text!r}: ")
    assert str(refused.value).endswith(f"; arguments of {written(text)[0]}: {known}")


@pytest.mark.parametrize("wrong, meant", [("possion", "poisson"), ("gausian", "gaussian"), ("bernouli", "bernoulli")])
def test_a_mistyped_family_is_named_with_what_was_meant(wrong: str, meant: str) -> None:
    with pytest.raises(DesignError) as refused:
        resolve(wrong)
    assert f'there is no family "{wrong}" (did you mean "{meant}"?)' in str(refused.value)
    assert all(name in str(refused.value) for name in FAMILIES)


def test_a_mistyped_link() -> None:
    with pytest.raises(DesignError, match=r'there is no link "lgoit" \(did you mean "logit"\?\)') as refused:
        resolve("binomial", "lgoit")
    assert all(name in str(refused.value) for name in (*LINKS, *MAKERS))


@pytest.mark.parametrize("value", [3, None, object(), ["poisson"]])
def test_neither_a_name_nor_a_family(value: object) -> None:
    with pytest.raises(DesignError, match="neither a name nor a family"):
        resolve(value)


def test_neither_a_name_nor_a_link() -> None:
    with pytest.raises(DesignError, match="neither a name nor a link"):
        resolve("poisson", 2)


# -- likelihoods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family, link, classes, expected",
    [
        ("poisson", None, 0, GLM(FAMILIES["poisson"](), Log())),
        ("multinomial", None, 4, BaselineLogit(4)),
        ("ordinal", "cloglog", 3, Cumulative(LINKS["cloglog"](), 3)),
    ],
)
def test_the_likelihood_of_a_pair(family: str, link: str | None, classes: int, expected: Any) -> None:
    assert likelihood_of(family, link, classes) == expected
