"""Which names and objects are understood, and which pairs are refused before any data are read."""

from __future__ import annotations

import pytest

from daskglm.errors import DesignError
from daskglm.model.links import LINKS
from daskglm.model.pairs import ALIASES, FAMILIES, resolve

# The default link of each family as users of R know them; gamma with log, as actuaries do.
DEFAULTS = {"gaussian": "identity", "binomial": "logit", "poisson": "log", "gamma": "log"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("link", LINKS)
def test_every_pair_resolves_or_is_refused(family: str, link: str) -> None:
    if link in FAMILIES[family]().links:
        expected = FAMILIES[family](), LINKS[link]()
        assert resolve(family, link) == expected
        assert resolve(FAMILIES[family], LINKS[link]) == expected
        assert resolve(*expected) == expected
        return
    with pytest.raises(DesignError) as refused:
        resolve(family, link)
    message = str(refused.value)
    assert f"the {link} link" in message
    assert LINKS[link]().formula in message
    assert message.endswith(f"links for {family}: {', '.join(FAMILIES[family]().links)}")


@pytest.mark.parametrize("family", FAMILIES)
def test_default_link(family: str) -> None:
    assert resolve(family)[1].name == DEFAULTS[family]


@pytest.mark.parametrize("alias, family", [("bernoulli", "binomial"), ("normal", "gaussian")])
def test_aliases(alias: str, family: str) -> None:
    assert resolve(alias) == resolve(family)
    assert ALIASES[alias] == family


@pytest.mark.parametrize("wrong, meant", [("possion", "poisson"), ("gausian", "gaussian"), ("bernouli", "bernoulli")])
def test_a_mistyped_family_is_named_with_what_was_meant(wrong: str, meant: str) -> None:
    with pytest.raises(DesignError) as refused:
        resolve(wrong)
    assert f'there is no family "{wrong}" (did you mean "{meant}"?)' in str(refused.value)
    assert all(name in str(refused.value) for name in FAMILIES)


def test_a_mistyped_link() -> None:
    with pytest.raises(DesignError, match=r'there is no link "lgoit" \(did you mean "logit"\?\)'):
        resolve("binomial", "lgoit")


@pytest.mark.parametrize("value", [3, None, object(), ["poisson"]])
def test_neither_a_name_nor_a_family(value: object) -> None:
    with pytest.raises(DesignError, match="neither a name nor a family"):
        resolve(value)


def test_neither_a_name_nor_a_link() -> None:
    with pytest.raises(DesignError, match="neither a name nor a link"):
        resolve("poisson", 2)
