"""Products with residual columns, against X T written out, and in exact arithmetic where a Gram has lost its digits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from daskglm.kernels.blocks import Block, Scaling
from daskglm.totals.moments import CHUNK_ROWS, Model
from daskglm.totals.residuals import residual_products
from tests.laws.exact import PAIRS
from tests.totals.problems import likelihood, problem

# Sums of some thousand terms in two orders.
SUMS = 1e-12
# What is left of a column is a difference of two numbers of order one that was rounded once per row: its square is
# known to the rounding of each entry over its size.
EPS = float(np.finfo(np.float64).eps)


@pytest.mark.parametrize("information", ["observed", "expected"])
@pytest.mark.parametrize("family, link", PAIRS)
@pytest.mark.parametrize("n", [300, CHUNK_ROWS + 3])
def test_products(family: str, link: str, information: str, n: int) -> None:
    if n > 300 and link != "log":
        n = 77
    one = problem(family, link, n, weight="real", offset=True, valued=True)
    basis = np.random.default_rng(1).normal(size=(5, 2))
    weight = one.model.likelihood.rows(one.block.y, one.eta, 2, information).weight * one.weight  # type: ignore[arg-type]
    residual = one.x @ basis
    found = residual_products(one.block, one.model, one.coef, basis, information)  # type: ignore[arg-type]
    size = np.abs(weight)[:, None] * np.abs(residual)
    cross, inner = one.x.T @ (weight[:, None] * residual), residual.T @ (weight[:, None] * residual)
    assert found.cross.shape == (5, 2)
    assert np.all(np.abs(found.cross - cross) <= SUMS * (np.abs(one.x).T @ size))
    assert np.all(np.abs(found.inner - inner) <= SUMS * (np.abs(residual).T @ size))


@pytest.mark.parametrize("information", ["observed", "unit"])
def test_products_of_sparse_columns(information: str) -> None:
    one = problem("poisson", "log", 400, weight="real", valued=True, sparse=7)
    basis = np.random.default_rng(1).normal(size=(one.coef.size, 3))
    weight = np.ones(400)
    if information == "observed":
        weight = one.model.likelihood.rows(one.block.y, one.eta, 2, "observed").weight * one.weight
    residual = one.x @ basis
    found = residual_products(one.block, one.model, one.coef, basis, information)  # type: ignore[arg-type]
    weighted = weight[:, None] * residual
    assert np.allclose(found.cross, one.x.T @ weighted, rtol=0, atol=SUMS * np.abs(one.x.T).sum() * 10)
    assert np.allclose(found.inner, residual.T @ weighted, rtol=SUMS)


@pytest.mark.parametrize("left", [2.0**-20, 2.0**-30, 2.0**-40])
def test_digits_that_a_gram_has_lost(left: float) -> None:
    """x2 = x1 + left * e: the square of the residual, left^2 sum e^2, is below the rounding of a Gram's entries."""
    rng = np.random.default_rng(2)
    n = 200
    first = rng.integers(-50, 50, n).astype(float)
    extra = rng.integers(-3, 4, n).astype(float)
    block = Block(n, (first, first + left * extra), (), np.zeros(n))
    model = Model(likelihood("gaussian", "identity"), np.arange(3), 3, Scaling.none(2, 0))
    basis = np.array([[0.0], [-1.0], [1.0]])
    found = residual_products(block, model, np.zeros(3), basis, "expected")
    exact = Fraction(left) ** 2 * int(extra @ extra)
    assert abs(Fraction(float(found.inner[0, 0])) - exact) <= 4 * EPS * exact
    truth = [Fraction(left) * int(extra @ column) for column in (np.ones(n), first)]
    for value, expected in zip(found.cross[:2, 0], truth, strict=True):
        assert abs(Fraction(float(value)) - expected) <= n * EPS * left * 150 * 3


def test_leaves_add_to_the_whole() -> None:
    one = problem("binomial", "logit", weight="real")
    basis = np.random.default_rng(3).normal(size=(5, 3))
    whole = residual_products(one.block, one.model, one.coef, basis, "observed")
    parts = residual_products(one.block.rows(0, 111), one.model, one.coef, basis, "observed") + residual_products(
        one.block.rows(111, 300), one.model, one.coef, basis, "observed"
    )
    assert np.allclose(parts.cross, whole.cross, rtol=0, atol=SUMS * 300 * np.abs(whole.cross).max())
    assert np.allclose(parts.inner, whole.inner, rtol=0, atol=SUMS * 300 * np.abs(whole.inner).max())


def test_no_rows() -> None:
    one = problem("poisson", "log")
    empty = replace(one.block.rows(0, 0), y=np.zeros(0))
    found = residual_products(empty, one.model, one.coef, np.eye(5)[:, :2], "observed")
    assert not found.cross.any()
    assert not found.inner.any()
