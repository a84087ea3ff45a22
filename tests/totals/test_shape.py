"""Sums of the log-likelihood in the parameters beside the coefficients, against the rows' own terms added up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from daskglm.kernels.blocks import Block
from daskglm.model.counts import NegativeBinomial
from daskglm.model.families import Gamma
from daskglm.model.likelihoods import GLM
from daskglm.model.power import Tweedie
from daskglm.model.shapes import Dispersion, PowerAndDispersion, Shape, Theta
from daskglm.totals.moments import CHUNK_ROWS
from daskglm.totals.shape import MixedSums, ShapeSums, mixed_sums, shape_sums
from tests.totals.problems import Problem, problem

# Sums of at most 20 000 terms in two orders.
SUMS = 1e-11
# A difference of second order of a sum of gradients, with steps of 2^-9.
STEP, DIFFERENCES = 2.0**-9, 1e-5

CASES: dict[str, tuple[str, Shape, list[list[float]]]] = {
    "theta": ("negative_binomial(theta=1.75)", Theta(NegativeBinomial()), [[0.1], [1.0], [-2.0]]),
    "power": ("tweedie(power=1.5)", PowerAndDispersion(Tweedie()), [[0.1, -1.0], [0.4, -0.5]]),
    "shape": ("gamma", Dispersion(Gamma()), [[-1.0], [0.2]]),
}
FORMS: list[dict[str, Any]] = [
    {},
    {"weight": "real", "offset": True},
    {"weight": "counts", "frequency": True, "valued": True},
    {"sparse": 6},
]


def case(name: str, n: int = 300, **form: Any) -> tuple[Problem, Shape, np.ndarray]:
    family, shape, candidates = CASES[name]
    return problem(family, "log", n, **form), shape, np.array(candidates)


def close(found: Any, truth: Any, size: Any) -> bool:
    return bool(np.all(np.abs(np.asarray(found) - truth) <= SUMS * (np.asarray(size) + 1.0)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_every_candidate_has_its_sums(name: str, form: dict[str, Any]) -> None:
    one, shape, candidates = case(name, **form)
    found = shape_sums(one.block, one.model, one.coef, shape, candidates)
    counts = one.weight if one.model.frequency else np.ones(one.block.n)
    w: Any = 1.0 if one.model.frequency or one.block.weight is None else one.weight
    mu = np.exp(one.eta)
    for i, psi in enumerate(candidates):
        terms = shape.terms(one.block.y.copy(), mu, w, psi)
        assert close(found.value[i], counts @ terms.value, counts @ np.abs(terms.value))
        assert close(found.gradient[i], terms.gradient @ counts, np.abs(terms.gradient) @ counts)
        assert close(found.hessian[i], terms.hessian @ counts, np.abs(terms.hessian) @ counts)


@pytest.mark.parametrize("n", [0, 1, CHUNK_ROWS + 1])
def test_any_number_of_rows_in_any_leaves(n: int) -> None:
    one, shape, candidates = case("theta", n, weight="real", offset=True)
    whole = shape_sums(one.block, one.model, one.coef, shape, candidates)
    leaves = [one.block.rows(*ends) for ends in ((0, n // 3), (n // 3, n // 3), (n // 3, n))]
    first, second, third = (shape_sums(leaf, one.model, one.coef, shape, candidates) for leaf in leaves)
    parts: ShapeSums = first + second + third
    assert close(parts.value, whole.value, n)
    assert close(parts.gradient, whole.gradient, n)
    assert close(parts.hessian, whole.hessian, n)


def test_frequencies_stand_for_rows_written_out() -> None:
    one, shape, candidates = case("power", weight="counts", frequency=True, offset=True)
    times = one.weight.astype(int)
    block = one.block
    assert block.offset is not None
    written = Block(
        n=int(times.sum()),
        dense=tuple(np.repeat(column, times) for column in block.dense),
        levels=tuple(replace(piece, codes=np.repeat(piece.codes, times)) for piece in block.levels),
        y=np.repeat(block.y, times),
        offset=np.repeat(block.offset, times),
    )
    short, long = (shape_sums(rows, one.model, one.coef, shape, candidates) for rows in (block, written))
    for name in ("value", "gradient", "hessian"):
        truth = getattr(long, name)
        assert close(getattr(short, name), truth, np.abs(truth).max() + written.n)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_mixed_derivatives(name: str, form: dict[str, Any]) -> None:
    """How the gradient in the coefficients moves with psi, at the phi of psi: by differences."""
    one, shape, candidates = case(name, **form)
    psi = candidates[0]

    def gradient(at: np.ndarray) -> np.ndarray:
        terms = GLM(shape.family(at), one.model.likelihood.link).rows(one.block.y, one.eta, 1)
        return one.x.T @ (one.weight * terms.score) / shape.phi(at)

    model = replace(one.model, likelihood=GLM(shape.family(psi), one.model.likelihood.link))
    found = mixed_sums(one.block, model, one.coef, shape, psi)
    for j in range(psi.size):
        step = STEP * np.eye(psi.size)[j]
        slope = (gradient(psi + step) - gradient(psi - step)) / (2 * STEP)
        size = np.abs(one.x).T @ np.abs(one.weight * (one.block.y + 1.0)) / shape.phi(psi)
        # sums are at phi = 1
        assert np.all(np.abs(found.values[j][one.model.select] / shape.phi(psi) - slope) <= DIFFERENCES * size)
    half = one.block.n // 2
    parts: MixedSums = mixed_sums(one.block.rows(0, half), model, one.coef, shape, psi) + mixed_sums(
        one.block.rows(half, one.block.n), model, one.coef, shape, psi
    )
    assert close(parts.values, found.values, np.abs(found.values).max() + one.block.n)
