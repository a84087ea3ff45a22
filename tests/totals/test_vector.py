"""Sums over a block of classes, against the same sums with X, and the derivatives of every predictor, written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from daskglm.kernels.blocks import Block
from daskglm.model.links import LINKS
from daskglm.model.vector import BaselineLogit, Cumulative, pairs_of
from daskglm.totals.moments import CHUNK_ROWS, Moments, Request, moments
from daskglm.totals.vector import ParallelModel, SeparateModel
from tests.model.test_vector import CUMULATIVE, full, matrix_of
from tests.totals.problems import problem

Vector = npt.NDArray[np.float64]

# Sums of at most 20 000 terms in two orders: roundings of the sum of absolute values.
SUMS = 1e-12
# Central differences of second order with steps 2^-14: step^2 times a third derivative.
STEP = 2.0**-14
DIFFERENCES = 1e-6
CLASSES = 4

FORMS: list[dict[str, Any]] = [
    {},
    {"weight": "real"},
    {"weight": "counts", "frequency": True, "offset": True},
    {"offset": True, "valued": True},
    {"weight": "real", "valued": True, "sparse": 6},
]
KINDS = ["multinomial", *CUMULATIVE]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """As callers of likelihoods do."""
    with np.errstate(all="ignore"):
        yield


@dataclass(frozen=True)
class Classes:
    """A block whose response is one of four classes, a model of it, coefficients, and J (n, predictors, r): how the
    predictors, and the thresholds beside them, move with the coefficients.
    """

    kind: str
    block: Block
    model: SeparateModel | ParallelModel
    coef: Vector
    moves: Vector

    @property
    def weight(self) -> Vector:
        return np.ones(self.block.n) if self.block.weight is None else self.block.weight

    @property
    def copies(self) -> Vector:
        """What products of scores are weighted by."""
        return self.weight if self.model.frequency else self.weight**2

    def rows(self, information: Any = "observed") -> tuple[Any, Vector, Vector]:
        """Terms, scores (n, predictors) and second derivatives (n, predictors, predictors) of each row."""
        offset = np.zeros(self.block.n) if self.block.offset is None else self.block.offset
        predictors = np.einsum("nkr,r->kn", self.moves, self.coef)
        y = self.block.y.astype(int)
        likelihood = self.model.likelihood
        if isinstance(likelihood, BaselineLogit):
            terms: Any = likelihood.rows(y, predictors + offset, 2, information)
            return terms, terms.score.T, full(terms.weight, CLASSES - 1)
        terms = likelihood.rows(y, predictors[-1] + offset, self.coef[: CLASSES - 1], 2, information)
        return terms, np.vstack([terms.threshold_score, terms.score]).T, matrix_of(terms, CLASSES - 1)


def classes(kind: str, n: int = 300, dtype: str = "i8", seed: int = 0, **form: Any) -> Classes:
    """The columns of `problem`, and classes at random."""
    rng = np.random.default_rng(seed + 100)
    one = problem("gaussian", "identity", n, seed=seed, **form)
    block = replace(one.block, y=rng.integers(0, CLASSES, n).astype(dtype))
    q, width, scaling, frequency = CLASSES - 1, one.model.width, one.model.scaling, one.model.frequency
    if kind == "multinomial":
        model: Any = SeparateModel(BaselineLogit(CLASSES), one.model.select, width, scaling, frequency)
        moves = np.einsum("ab,np->nabp", np.eye(q), one.x).reshape(n, q, q * one.x.shape[1])
        return Classes(kind, block, model, rng.normal(0.0, 0.4, moves.shape[2]), moves)
    model = ParallelModel(Cumulative(LINKS[kind](), CLASSES), one.model.select[1:], width, scaling, frequency)
    slopes = one.x[:, 1:]
    moves = np.zeros((n, q + 1, q + slopes.shape[1]))
    moves[:, :q, :q] = np.eye(q)
    moves[:, q, q:] = slopes
    return Classes(kind, block, model, np.concatenate([[-0.9, 0.2, 1.1], rng.normal(0.0, 0.4, slopes.shape[1])]), moves)


def close(found: Any, truth: Any, size: Any) -> bool:
    return bool(np.all(np.abs(np.asarray(found) - truth) <= SUMS * np.asarray(size) + 1e-300))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("information", ["observed", "expected"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_gradient_and_gram(kind: str, information: Any, form: dict[str, Any]) -> None:
    one = classes(kind, **form)
    terms, score, weight = one.rows(information)
    w = one.weight
    assert one.model.n_coefficients == one.coef.size
    full_sums = moments(one.block, one.model, Request(one.coef, 2, information))
    first = moments(one.block, one.model, Request(one.coef, 1))
    zeroth = moments(one.block, one.model, Request(one.coef, 0))
    for sums in (full_sums, first, zeroth):
        assert sums.n == one.block.n
        assert close(sums.loss, w @ terms.loss, w @ np.abs(terms.loss))
    gradient = np.einsum("n,nk,nkr->r", w, score, one.moves)
    size = np.einsum("n,nk,nkr->r", w, np.abs(score), np.abs(one.moves))
    assert close(one.model.gradient(full_sums), gradient, size)
    assert close(one.model.gradient(first), gradient, size)
    gram = np.einsum("n,nkl,nkr,nls->rs", w, weight, one.moves, one.moves)
    size = np.einsum("n,nkl,nkr,nls->rs", w, np.abs(weight), np.abs(one.moves), np.abs(one.moves))
    assert close(one.model.gram(full_sums.tables), gram, size)
    assert first.tables is None
    assert one.model.gram(None) is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["multinomial", "probit"])
def test_meat_is_the_sum_of_products_of_scores(kind: str, form: dict[str, Any]) -> None:
    one = classes(kind, **form)
    _, score, _ = one.rows()
    each = np.einsum("nk,nkr->nr", score, one.moves)
    truth = each.T @ (one.copies[:, None] * each)
    size = np.einsum("nk,nkr->nr", np.abs(score), np.abs(one.moves))
    found = one.model.gram(moments(one.block, one.model, Request(one.coef, meat=True)).meat)
    assert close(found, truth, size.T @ (one.copies[:, None] * size))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_statistics(kind: str, form: dict[str, Any]) -> None:
    """Deviance, the sums behind the null model, and Pearson's sum over every class of every row."""
    one = classes(kind, **form)
    terms, *_ = one.rows()
    w, y = one.weight, one.block.y
    sums = moments(one.block, one.model, Request(one.coef, 2, "expected", statistics=True))
    found = sums.statistics
    assert found is not None
    assert found.n == one.block.n
    assert close(found.observations, w.sum() if one.model.frequency else one.block.n, 1.0)
    assert close(found.weight, w.sum(), w.sum())
    assert close(found.deviance, 2 * w @ terms.loss, w @ np.abs(terms.loss))
    # log p(y; mean y) is 0: one class has all the chance
    assert found.saturated == 0.0
    whole = np.abs(w - np.round(w)) < 1e-9
    assert found.fractional == (0 if one.model.frequency else int((~whole).sum()))
    assert close(sums.null, np.bincount(y, w, CLASSES), w.sum())
    offset = np.zeros(one.block.n) if one.block.offset is None else one.block.offset
    predictors = np.einsum("nkr,r->kn", one.moves, one.coef)
    likelihood: Any = one.model.likelihood
    if kind == "multinomial":
        chance = likelihood.probabilities(predictors + offset)
    else:
        chance = likelihood.probabilities(predictors[-1] + offset, one.coef[: CLASSES - 1])
    seen = y == np.arange(CLASSES)[:, None]
    pearson = w @ ((seen - chance) ** 2 / chance).sum(axis=0)
    assert close(sums.pearson, pearson, 10 * pearson)


@pytest.mark.parametrize("kind", KINDS)
def test_finite_differences_of_the_loss(kind: str) -> None:
    """With the products of the kernels in between: loss, gradient and Gram belong together."""
    one = classes(kind, weight="real", offset=True, valued=True)
    here = moments(one.block, one.model, Request(one.coef))
    gradient, gram = one.model.gradient(here), one.model.gram(here.tables)
    assert gram is not None
    for j in range(one.coef.size):
        step = STEP * np.eye(one.coef.size)[j]
        sides = [moments(one.block, one.model, Request(one.coef + k * step, 1)) for k in (-1, 1)]
        slope = (sides[1].loss - sides[0].loss) / (2 * STEP)
        bend = (one.model.gradient(sides[1]) - one.model.gradient(sides[0])) / (2 * STEP)
        assert abs(slope + gradient[j]) <= DIFFERENCES * (np.abs(gram).max() + abs(here.loss))
        assert np.all(np.abs(bend + gram[j]) <= DIFFERENCES * np.abs(gram).max())


@pytest.mark.parametrize("kind", ["multinomial", "logit"])
def test_the_unit_information_is_that_of_the_columns(kind: str) -> None:
    """Which columns are combinations of others is a matter of the columns alone: weights do not enter."""
    one = classes(kind, weight="real", valued=True)
    x = one.moves[:, -1, -one.model.select.size :]
    found = one.model.gram(moments(one.block, one.model, Request(one.coef, 2, "unit")).tables)
    q, p = CLASSES - 1, x.shape[1]
    if kind == "multinomial":
        truth = np.kron(np.eye(q), x.T @ x)
    else:
        # each threshold is an intercept of its own: rows (e_k, -x)
        each = np.concatenate(
            [np.repeat(np.eye(q)[:, None], x.shape[0], axis=1), np.repeat(-x[None], q, axis=0)], axis=2
        )
        truth = np.einsum("knr,kns->rs", each, each)
        assert truth.shape == (q + p, q + p)
    assert close(found, truth, np.abs(truth).max())


@pytest.mark.parametrize("kind", ["multinomial", "cloglog"])
@pytest.mark.parametrize("n", [0, 1, CHUNK_ROWS, CHUNK_ROWS + 1])
def test_any_number_of_rows(kind: str, n: int) -> None:
    one = classes(kind, n, weight="real", offset=True)
    sums = moments(one.block, one.model, Request(one.coef, statistics=True))
    terms, score, weight = one.rows()
    assert sums.n == n
    assert close(sums.loss, one.weight @ terms.loss, one.weight @ np.abs(terms.loss))
    gradient = np.einsum("n,nk,nkr->r", one.weight, score, one.moves, optimize=True)
    assert close(one.model.gradient(sums), gradient, n)
    weighted = np.einsum("n,nkl,nkr->nlr", one.weight, weight, one.moves, optimize=True)
    gram = np.einsum("nlr,nls->rs", weighted, one.moves, optimize=True)
    assert close(one.model.gram(sums.tables), gram, 100 * n)
    assert sums.null.sum() == pytest.approx(one.weight.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_stand_for_rows_written_out(kind: str) -> None:
    one = classes(kind, weight="counts", frequency=True, offset=True)
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
    request = Request(one.coef, 2, "expected", statistics=True, meat=True, means=True)
    same(one.model, moments(block, one.model, request), moments(written, one.model, request), rows=False)


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_add_to_the_whole(kind: str) -> None:
    one = classes(kind, weight="real", offset=True)
    request = Request(one.coef, 2, "expected", statistics=True, meat=True, means=True)
    parts = [moments(one.block.rows(*ends), one.model, request) for ends in ((0, 130), (130, 130), (130, 300))]
    same(one.model, parts[0] + parts[1] + parts[2], moments(one.block, one.model, request))


def same(model: Any, found: Moments, truth: Moments, rows: bool = True) -> None:
    """All sums but, where rows are written out, how many of them there were."""
    assert found.n == truth.n or not rows
    assert close(found.loss, truth.loss, truth.loss + truth.n)
    assert close(found.weight, truth.weight, truth.weight)
    assert close(found.pearson, truth.pearson, truth.pearson)
    assert close(found.null, truth.null, truth.null.sum())
    assert close(model.gradient(found), model.gradient(truth), 10 * truth.n)
    assert found.statistics is not None
    assert truth.statistics is not None
    for name in ("observations", "deviance", "weight", "fractional"):
        expected = getattr(truth.statistics, name)
        assert close(getattr(found.statistics, name), expected, abs(expected) + truth.n), name
    for one, other in ((found.tables, truth.tables), (found.meat, truth.meat)):
        gram = model.gram(other)
        assert close(model.gram(one), gram, np.abs(gram).max())


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.999])
def test_a_fraction_is_the_leading_rows(fraction: float) -> None:
    one = classes("multinomial", 77, weight="real")
    rows = int(np.ceil(77 * fraction))
    request = Request(one.coef, 2, "expected", statistics=True, meat=True, means=True)
    found = moments(one.block, one.model, replace(request, fraction=fraction))
    same(one.model, found, moments(one.block.rows(0, rows), one.model, request))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4"])
@pytest.mark.parametrize("kind", ["multinomial", "loglog"])
def test_narrow_codes_are_the_same_classes(kind: str, dtype: str) -> None:
    one = classes(kind, weight="real")
    narrow = replace(one.block, y=one.block.y.astype(dtype))
    request = Request(one.coef, 2, "observed", statistics=True, meat=True, means=True)
    found, truth = moments(narrow, one.model, request), moments(one.block, one.model, request)
    assert found.loss == truth.loss
    assert np.array_equal(one.model.gradient(found), one.model.gradient(truth))
    assert found.statistics == truth.statistics


def test_a_predictor_that_is_not_finite_makes_the_loss_infinite() -> None:
    for kind in KINDS:
        one = classes(kind)
        for bad in (np.nan, np.inf):
            coef = one.coef.copy()
            coef[-1] = bad
            assert moments(one.block, one.model, Request(coef, 1)).loss == np.inf


@pytest.mark.parametrize("kind", CUMULATIVE)
def test_thresholds_out_of_order_make_the_loss_infinite(kind: str) -> None:
    one = classes(kind)
    coef = one.coef.copy()
    coef[:3] = [0.2, -0.9, 1.1]
    assert moments(one.block, one.model, Request(coef, 1)).loss == np.inf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("intercept", [True, False])
def test_flat_coefficients_give_every_row_the_same_chances(kind: str, intercept: bool) -> None:
    """As far as there are intercepts; thresholds always are."""
    one = classes(kind)
    eta = np.array([-0.5, 0.1, 0.7])
    coef = one.model.flat(eta, intercept)
    assert coef.shape == one.coef.shape
    places = one.model.intercepts(intercept)
    assert np.array_equal(coef[places], eta[: places.size])
    assert not np.delete(coef, places).any()
    loss = moments(one.block, one.model, Request(coef, 0)).loss
    counts = np.bincount(one.block.y, minlength=CLASSES)
    if kind == "multinomial":
        up = np.exp(np.concatenate([[0.0], eta if intercept else np.zeros(3)]))
        chance = up / up.sum()
    else:
        lower = LINKS[kind]().inverse(eta)[0]
        chance = np.diff(np.concatenate([[0.0], lower, [1.0]]))
    assert close(loss, -counts @ np.log(chance), 300)


def test_pairs_are_in_the_order_of_the_weights() -> None:
    assert pairs_of(3) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
