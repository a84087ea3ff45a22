"""The sums taken once the dispersion or the null coefficient is known, against scipy.stats."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.totals.likelihood import Number, null_deviance, saturated
from tests.laws.exact import FAMILIES, PAIRS, WITH_DENSITY, exact_log_density
from tests.totals.problems import NULLS, problem

# Log densities of scipy and ours differ by roundings of log-gamma.
DENSITIES = 1e-11

ESTIMATED = [name for name in WITH_DENSITY if not FAMILIES[name]().discrete]


@pytest.mark.parametrize("family", ESTIMATED)
@pytest.mark.parametrize("phi", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("weight, counts", [(None, False), ("real", False), ("counts", True)])
def test_saturated(family: str, phi: float, weight: str | None, counts: bool) -> None:
    """Weights are how precise a row is, or how many rows it stands for."""
    one = problem(family, "log", weight=weight)
    y = one.block.y
    each = exact_log_density(family, y, y, phi, 1.0 if counts else one.weight)
    truth = each * one.weight if counts else each
    found = saturated(one.block, FAMILIES[family](), phi, counts)
    assert abs(found.value - truth.sum()) <= DENSITIES * (np.abs(truth).sum() + y.size)


@pytest.mark.parametrize("family, link", [pair for pair in PAIRS if pair[0] in WITH_DENSITY])
@pytest.mark.parametrize("weight", [None, "real"])
@pytest.mark.parametrize("offset", [False, True])
def test_null_deviance(family: str, link: str, weight: str | None, offset: bool) -> None:
    one = problem(family, link, weight=weight, offset=offset)
    value = NULLS[link]
    eta = np.full(300, value) if one.block.offset is None else value + one.block.offset
    y, mu = one.block.y, one.model.likelihood.mean_of(eta)
    best, here = (exact_log_density(family, y, mean) for mean in (y, mu))
    truth = 2 * one.weight * (best - here)
    found = null_deviance(one.block, one.model, value)
    size = np.sum(one.weight * (np.abs(best) + np.abs(here)))
    assert abs(found.value - truth.sum()) <= DENSITIES * size


def test_numbers_add() -> None:
    assert Number(1.5) + Number(2.25) == Number(3.75)
