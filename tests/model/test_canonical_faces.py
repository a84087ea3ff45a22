"""The faces of families by name: vector forms, and the table of pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import daskglm as dg
from daskglm.errors import DesignError
from daskglm.model.pairs import FAMILIES, resolve

# A handful of roundings of terms of a few units.
DENSITY = 1e-13


def test_vector_forms_have_the_density_of_their_family() -> None:
    y = np.array([0.3, 1.7, 4.0])
    normal = dg.families.vector_form("gaussian")
    theta = normal.natural_parameter(np.array([[0.5, 2.0]] * 3))
    assert np.allclose(normal.log_density(y, theta), stats.norm(0.5, np.sqrt(2.0)).logpdf(y), rtol=DENSITY)
    gamma = dg.families.vector_form("gamma(shape=3)")
    theta = gamma.natural_parameter(np.array([[1.5, 3.0]] * 3))
    assert np.allclose(gamma.log_density(y, theta), stats.gamma(3.0, scale=0.5).logpdf(y), rtol=DENSITY)
    three = dg.families.vector_form("multinomial(levels=['a', 'b', 'c'])")
    chance = np.array([[0.2, 0.5, 0.3]] * 3)
    found = three.log_density(np.array([0, 1, 2]), three.natural_parameter(chance))
    assert np.allclose(found, np.log([0.2, 0.5, 0.3]), rtol=DENSITY)


def test_vector_forms_that_do_not_exist() -> None:
    with pytest.raises(DesignError, match="one number"):
        dg.families.vector_form("poisson")
    with pytest.raises(DesignError, match="classes="):
        dg.families.vector_form("multinomial")


def test_the_table_of_pairs_says_what_resolve_does() -> None:
    table = dg.families.pairs()
    assert {family for family, _ in table} == set(FAMILIES)
    assert len({link for _, link in table}) == 12
    for (family, link), said in table.items():
        if said.startswith("refused: "):
            with pytest.raises(DesignError) as refused:
                resolve(family, link)
            assert str(refused.value) == said.removeprefix("refused: ")
        else:
            assert resolve(family, link)[1].name == link
    assert table["binomial", "logit"] == "allowed"
    assert table["poisson", "identity"].startswith("with care: steps are halved")
