"""The sums taken once the dispersion or the null coefficient is known, against scipy.stats."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.totals.likelihood import Number, null_deviance, saturated
from tests.laws.exact import DISTRIBUTIONS, FAMILIES, PAIRS
from tests.totals.problems import problem

# Log densities of scipy and ours differ by roundings of log-gamma.
DENSITIES = 1e-11

ESTIMATED = [name for name in FAMILIES if not FAMILIES[name]().dispersion_known]


@pytest.mark.parametrize("family", ESTIMATED)
@pytest.mark.parametrize("phi", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("weight", [None, "real"])
def test_saturated(family: str, phi: float, weight: str | None) -> None:
    one = problem(family, "log", weight=weight)
    y = one.block.y
    distribution, _ = DISTRIBUTIONS[family](y, phi, one.weight)
    truth = distribution.logpdf(y)
    found = saturated(one.block, FAMILIES[family](), phi)
    assert abs(found.value - truth.sum()) <= DENSITIES * (np.abs(truth).sum() + y.size)


@pytest.mark.parametrize("family, link", PAIRS)
@pytest.mark.parametrize("weight", [None, "real"])
@pytest.mark.parametrize("offset", [False, True])
def test_null_deviance(family: str, link: str, weight: str | None, offset: bool) -> None:
    one = problem(family, link, weight=weight, offset=offset)
    value = -0.5 if link == "log" else 0.5
    eta = np.full(300, value) if one.block.offset is None else value + one.block.offset
    y, mu = one.block.y, one.model.likelihood.mean_of(eta)
    logs = []
    for mean in (y, mu):
        distribution, _ = DISTRIBUTIONS[family](mean, 1.0, 1.0)
        logs.append(distribution.logpmf(y) if hasattr(distribution.dist, "_pmf") else distribution.logpdf(y))
    truth = 2 * one.weight * (logs[0] - logs[1])
    found = null_deviance(one.block, one.model, value)
    size = np.sum(one.weight * (np.abs(logs[0]) + np.abs(logs[1])))
    assert abs(found.value - truth.sum()) <= DENSITIES * size


def test_numbers_add() -> None:
    assert Number(1.5) + Number(2.25) == Number(3.75)
