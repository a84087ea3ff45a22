"""The adjustment of the score against X, leverages and derivatives written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from daskglm.totals.bias import adjusted
from daskglm.totals.moments import CHUNK_ROWS, Request, moments
from tests.laws.exact import FAMILIES, PAIRS
from tests.totals.problems import Problem, problem

# Sums of some thousand terms in two orders.
SUMS = 1e-11
# A difference of the curvature over 2e-5: half of the digits are left.
SLOPES = 1e-5

KNOWN = [(family, link) for family, link in PAIRS if FAMILIES[family]().dispersion_known]


def leverages(one: Problem, coef: np.ndarray) -> np.ndarray:
    """The diagonal of W^(1/2) X (X'WX)^-1 X' W^(1/2) at coef, W the expected weights."""
    at = replace(one, coef=coef)
    weight = one.model.likelihood.rows(one.block.y, at.eta, 2, "expected").weight * one.weight
    root = np.sqrt(weight)[:, None] * one.x
    q, _ = np.linalg.qr(root)
    return np.sum(q * q, axis=1)


def bend(one: Problem, eta: np.ndarray) -> np.ndarray:
    """mu'' / mu'."""
    link = one.model.likelihood.link
    with np.errstate(all="ignore"):
        return link.curvature(eta) / link.inverse(eta)[1]


@pytest.mark.parametrize("family, link", KNOWN)
@pytest.mark.parametrize("extras", [{}, {"weight": "real", "offset": True, "valued": True}, {"sparse": 4}])
def test_adjustment(family: str, link: str, extras: dict[str, object]) -> None:
    one = problem(family, link, 250, **extras)  # type: ignore[arg-type]
    before = one.coef + 0.01
    h = leverages(one, before)
    assert np.isclose(h.sum(), one.coef.size)
    at = replace(one, coef=before)
    weight = one.model.likelihood.rows(one.block.y, at.eta, 2, "expected").weight * one.weight
    inverse = np.linalg.inv(one.x.T @ (weight[:, None] * one.x))
    request = Request(one.coef, 2, "expected", statistics=True)
    found = adjusted(one.block, one.model, request, before, inverse)
    expected = one.x.T @ (h * bend(one, one.eta) / 2.0)
    size = np.abs(one.x).T @ np.abs(h * bend(one, one.eta) / 2.0)
    assert np.all(np.abs(found.tables.gradient()[one.model.select] - expected) <= SUMS * size + SUMS)
    step = 1e-4
    slope = (bend(one, one.eta + step) - bend(one, one.eta - step)) / (2.0 * step)
    added = one.x.T @ ((h * np.maximum(-0.5 * slope, 0.0))[:, None] * one.x)
    assert np.allclose(one.model.gram(found.tables), added, rtol=SLOPES, atol=SLOPES * np.abs(added).max())
    plain = moments(one.block, one.model, request)
    assert found.moments.loss == plain.loss
    assert repr(found.moments.statistics) == repr(plain.statistics)


def test_chunks_and_parts_add() -> None:
    one = problem("binomial", "logit", CHUNK_ROWS + 100)
    inverse = np.eye(one.coef.size) / 1000.0
    request = Request(one.coef, 2, "expected")
    whole = adjusted(one.block, one.model, request, one.coef, inverse)
    cuts = ((0, 5_000), (5_000, 5_000), (5_000, one.block.n))
    parts = [adjusted(one.block.rows(*cut), one.model, request, one.coef, inverse) for cut in cuts]
    total = parts[0] + parts[1] + parts[2]
    assert np.allclose(whole.tables.gradient(), total.tables.gradient(), rtol=SUMS, atol=SUMS)
    assert np.allclose(whole.tables.matrix(), total.tables.matrix(), rtol=SUMS, atol=SUMS)
    assert total.moments.n == one.block.n
