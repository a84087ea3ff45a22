"""What directions do to pairs of a row and a class that it has not, and what counts prove, against X written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from daskglm.kernels import reference
from daskglm.kernels.blocks import Block, Levels, Scaling
from daskglm.kernels.products import Pieces, Workspace
from daskglm.model.links import LINKS
from daskglm.model.vector import BaselineLogit, Cumulative
from daskglm.totals.alternatives import emptied, leftover, movements, split
from daskglm.totals.moments import CHUNK_ROWS, Request, moments
from daskglm.totals.occurrences import Occurrences, occurrences
from daskglm.totals.separation import Move
from daskglm.totals.vector import Limit, Rows, SeparateModel, choices, class_model
from tests.totals.test_vector import CLASSES, Classes, classes

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Sums of at most 20 000 terms in two orders.
SUMS = 1e-11
KINDS = ["multinomial", "logit"]
FORMS: list[dict[str, Any]] = [{}, {"weight": "real", "valued": True}, {"offset": True, "sparse": 5}]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """As callers of likelihoods do."""
    with np.errstate(all="ignore"):
        yield


def pairs(one: Classes, possible: Mask | None = None) -> tuple[Matrix, npt.NDArray[np.intp]]:
    """How each pair moves with the coefficients (m, r), and its row and which pair of it (m, 2)."""
    y = one.block.y.astype(int)
    z, whose = [], []
    for i, c in enumerate(y):
        there = [k for k in range(CLASSES) if possible is None or possible[k, i]]
        if one.kind == "multinomial":
            predictors = np.vstack([np.zeros(one.coef.size), one.moves[i]])
            z += [predictors[c] - predictors[a] for a in there if a != c]
            whose += [(i, a) for a in there if a != c]
        else:
            thresholds, slopes = one.moves[i, :-1], one.moves[i, -1]
            if c < there[-1]:
                z.append(thresholds[c] - slopes)
                whose.append((i, 0))
            if c > there[0]:
                z.append(slopes - thresholds[c - 1])
                whose.append((i, 1))
    return np.array(z).reshape(-1, one.coef.size), np.array(whose, int).reshape(-1, 2)


def direction(one: Classes, seed: int = 0) -> Vector:
    """One that leaves some pairs where they are."""
    found = np.random.default_rng(seed).normal(size=one.coef.size)
    found[np.random.default_rng(seed + 1).random(one.coef.size) < 0.5] = 0.0
    found[-1] = 1.0
    return found


def possible_of(one: Classes, limits: tuple[Limit, ...]) -> Mask | None:
    pieces = Pieces.of(one.block, one.model.scaling)
    rows = Rows(pieces, Workspace(pieces), one.model.scaling, 0, one.block.n)
    return choices(rows, one.model, limits)


def limited(one: Classes) -> tuple[Classes, Mask]:
    """The same at the limit along a direction that moves one column alone, and the classes that seen ones leave there."""
    along = np.zeros(one.coef.size)
    along[-1] = -1.0
    limits = (Limit(along),)
    possible = possible_of(one, limits)
    assert possible is not None
    # rows whose class the direction takes away have another: so that the limit is one of these data
    first = np.argmax(possible, axis=0)
    y = np.where(possible[one.block.y, np.arange(one.block.n)], one.block.y, first)
    block = replace(one.block, y=y.astype(one.block.y.dtype))
    return replace(one, block=block, model=replace(one.model, limits=limits)), possible


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_limit", [False, True])
def test_movements_of_pairs(kind: str, form: dict[str, Any], at_limit: bool) -> None:
    one, possible = classes(kind, **form), None
    if at_limit:
        one, possible = limited(one)
    z, _ = pairs(one, possible)
    directions = np.array([direction(one, seed) for seed in range(3)])
    found = movements(one.block, one.model, directions)
    gains = z @ directions.T
    size = np.abs(gains)
    assert found.allowed.tolist() == (gains > 1e-8).sum(axis=0).tolist()
    assert found.forbidden.tolist() == (gains < -1e-8).sum(axis=0).tolist()
    assert np.allclose(found.largest, size.max(axis=0), rtol=SUMS)
    assert np.allclose(found.obstacle, np.maximum(-gains, 0.0).max(axis=0), rtol=SUMS)
    assert found.histogram.sum(axis=1).tolist() == found.allowed.tolist()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_limit", [False, True])
def test_unit_information_of_pairs_that_move_and_of_the_rest(kind: str, form: dict[str, Any], at_limit: bool) -> None:
    one, possible = classes(kind, CHUNK_ROWS + 50 if not form else 300, **form), None
    if at_limit:
        one, possible = limited(one)
    model: Any = one.model
    z, _ = pairs(one, possible)
    moves = (Move(direction(one), 0.3), Move(direction(one, 5)))
    inside = (z @ moves[0].direction > 0.3) & (z @ moves[1].direction > 1e-8)
    found = split(one.block, model, moves)
    assert found.rows == inside.sum() > 0
    for tables, which in ((found.rest, ~inside), (found.moving, inside)):
        truth = z[which].T @ z[which]
        assert np.allclose(model.gram(tables), truth, rtol=SUMS, atol=SUMS * np.abs(truth).max())
    pull = z[inside].sum(axis=0)
    assert np.allclose(model.scores(found.moving), pull, rtol=SUMS, atol=SUMS * np.abs(z[inside]).sum())
    assert split(one.block, model, moves, "rest").moving is None
    assert split(one.block, model, moves, "moving").rest is None
    step = direction(one, 9)
    left = model.of_raw(leftover(one.block, model, moves, step))
    truth = z[~inside].T @ (z[~inside] @ step)
    assert np.allclose(left, truth, rtol=SUMS, atol=SUMS * np.abs(truth).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_moments_at_the_limit_are_those_of_the_classes_that_are_left(kind: str, form: dict[str, Any]) -> None:
    """Row by row: the likelihood's own terms, which have their tests, put together with X written out."""
    one, possible = limited(classes(kind, **form))
    model, likelihood = one.model, one.model.likelihood
    found = moments(one.block, model, Request(one.coef, 2, statistics=True))
    offset = np.zeros(one.block.n) if one.block.offset is None else one.block.offset
    predictors = np.einsum("nkr,r->kn", one.moves, one.coef)
    y = one.block.y.astype(int)
    if isinstance(likelihood, BaselineLogit):
        terms: Any = likelihood.rows(y, predictors + offset, possible=possible)
        score = terms.score.T
    else:
        terms = likelihood.rows(y, predictors[-1] + offset, one.coef[: CLASSES - 1], possible=possible)
        score = np.vstack([terms.threshold_score, terms.score]).T
    assert np.isfinite(terms.loss).all()
    assert np.isclose(found.loss, one.weight @ terms.loss, rtol=SUMS)
    gradient = np.einsum("n,nk,nkr->r", one.weight, score, one.moves)
    assert np.allclose(model.gradient(found), gradient, rtol=SUMS, atol=SUMS * np.abs(score).sum())
    unit = moments(one.block, model, Request(one.coef, 2, "unit"))
    z, _ = pairs(one, possible)
    assert np.allclose(model.gram(unit.tables), z.T @ z, rtol=SUMS, atol=SUMS * one.block.n)
    assert found.statistics is not None
    assert found.statistics.limited == (~possible.all(axis=0)).sum() > 0
    # a pair at its limit leaves no information, exactly
    weights = np.abs(model.gram(found.tables)).sum(axis=0)
    assert np.array_equal(weights == 0.0, np.abs(z).sum(axis=0) == 0.0)


# -- counts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_occurrences_are_those_of_x_written_out(form: dict[str, Any]) -> None:
    one = classes("multinomial", **form)
    scaling = one.model.scaling
    x = reference.matrix(
        one.block, Scaling.none(scaling.shift.size, scaling.level_scale.size, scaling.sparse_scale.size)
    )
    found = occurrences(one.block, CLASSES)
    for k in range(CLASSES):
        assert found.rows[k].tolist() == (x[one.block.y == k] != 0.0).sum(axis=0).tolist()
    assert found.up.tolist() == (x > 0.0).sum(axis=0).tolist()
    assert found.down.tolist() == (x < 0.0).sum(axis=0).tolist()
    sign = np.where(found.down == 0, 1.0, np.where(found.up == 0, -1.0, 0.0)) * (np.abs(x).max(axis=0) > 0)
    assert found.sign.tolist() == sign.tolist()
    place = 1 + len(one.block.dense)
    for piece in one.block.levels:
        assert ((place, piece.n_levels) in found.factors) == (piece.value is None)
        place += piece.n_levels
    halves = occurrences(one.block.rows(0, 100), CLASSES) + occurrences(one.block.rows(100, one.block.n), CLASSES)
    assert all(np.array_equal(getattr(halves, name), getattr(found, name)) for name in ("rows", "up", "down"))


def planted(rng: np.random.Generator, ordered: bool) -> tuple[Block, Scaling]:
    """Levels and columns that are zero for classes, here and there."""
    n = 400
    a, b = rng.integers(0, 5, n), rng.integers(0, 3, n)
    u = np.where(rng.random(n) < 0.5, 0.0, rng.exponential(size=n)) * rng.choice([-1.0, 1.0])
    x, v = rng.normal(size=n), np.where(b == 1, rng.exponential(size=n), rng.normal(size=n))
    y = rng.integers(0, CLASSES, n)
    for level in rng.choice(5, 2, replace=False):
        if ordered:
            y[a == level] = rng.choice([0, CLASSES - 1])
        else:
            y[(a == level) & (y == rng.integers(CLASSES))] = rng.integers(CLASSES)
            y[(a == level) & (y == 0)] = 1
    if rng.random() < 0.5:
        y[u != 0.0] = 0 if ordered else rng.integers(1, 3)
    block = Block(
        n, (x, u), (Levels(a.astype(np.int8), 5), Levels(b.astype(np.int8), 3), Levels(b.astype(np.int8), 3, v)),
        y.astype(np.int8),
    )  # fmt: skip
    return block, Scaling(np.array([0.1, u.mean()]), np.array([1.3, 0.7]), np.array([1.0, 1.0, 0.5]))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("baseline", [0, 3])
def test_what_counts_prove_is_a_direction_of_recession(ordered: bool, baseline: int) -> None:
    """It moves no pair the wrong way; every class that is impossible at a level is so at its end, and what is called silent
    tells nothing there.
    """
    seen = 0
    for seed in range(12):
        block, scaling = planted(np.random.default_rng([seed, ordered, baseline]), ordered)
        select = np.array([0, 1, 2, *(3 + k for k in range(5) if k != baseline), 9, 10, 11, 12, 13])
        likelihood = Cumulative(LINKS["logit"](), CLASSES) if ordered else BaselineLogit(CLASSES)
        model: Any = class_model(likelihood, select, 14, scaling)
        found = emptied(occurrences(block, CLASSES), model)
        if found is None:
            continue
        seen += 1
        x = reference.matrix(block, scaling)[:, select]
        q = CLASSES - 1
        moves = np.einsum("ab,np->nabp", np.eye(q), x).reshape(block.n, q, q * x.shape[1])
        if ordered:
            moves = np.zeros((block.n, q + 1, q + x.shape[1] - 1))
            moves[:, :q, :q], moves[:, q, q:] = np.eye(q), x[:, 1:]
        one = Classes("logit" if ordered else "multinomial", block, model, np.zeros(moves.shape[2]), moves)
        z, _ = pairs(one)
        for limit in found.limits:
            gains = z @ limit.direction
            assert gains.min() >= -SUMS
            assert gains.max() > 0.1 or not limit.exact
            if limit.exact:
                assert np.array_equal(8.0 * limit.direction, np.round(8.0 * limit.direction))
                assert not limit.direction[~np.isin(np.arange(z.shape[1]), exact_places(model))].any()
        possible = possible_of(one, found.limits)
        assert possible is not None
        assert possible[block.y, np.arange(block.n)].all()
        levels = block.levels[0].codes
        for level in range(5):
            classes_there = np.unique(block.y[levels == level])
            if not ordered:
                assert not possible[np.setdiff1d(np.arange(CLASSES), classes_there)][:, levels == level].any()
            elif classes_there.tolist() in ([0], [CLASSES - 1]):
                assert (possible[:, levels == level].sum(axis=0) == 1).all()
        left, _ = pairs(one, possible)
        rank = np.linalg.matrix_rank(left[:, ~found.silent])
        assert rank == np.linalg.matrix_rank(left)
        for column, k in found.baselines:
            at = levels == column - 3
            assert column == 3 + baseline or column in (8,)
            assert k in (0, q) if ordered else not (block.y[at] == k).any() or column == 8
    assert seen > 6


def exact_places(model: Any) -> npt.NDArray[np.intp]:
    """Coefficients of the constant and of the levels of factors without values."""
    inside = (model.select == 0) | ((model.select >= 3) & (model.select < 11))
    if isinstance(model, SeparateModel):
        return np.flatnonzero(np.tile(inside, CLASSES - 1))
    q = CLASSES - 1
    return np.concatenate([np.arange(q), q + np.flatnonzero(inside)])


def test_without_empty_cells_counts_prove_nothing() -> None:
    one = classes("multinomial", 3_000)
    assert emptied(occurrences(one.block, CLASSES), one.model) is None
    ordered = classes("logit", 3_000)
    assert emptied(occurrences(ordered.block, CLASSES), ordered.model) is None


def test_coefficients_of_whole_levels_never_cancel() -> None:
    """Whichever of a level, the reference and the baseline are empty together: what goes to infinity shows."""
    for bits in range(1, 16):
        rows = np.full((2, 3), 7)
        for bit, (k, level) in enumerate([(1, 1), (0, 1), (1, 0), (0, 0)]):
            if bits >> bit & 1:
                rows[k, level] = 0
        if (rows.sum(axis=0) == 0).any():
            continue
        counts = Occurrences(
            np.hstack([[[14], [14]], rows]), np.array([28, *rows.sum(axis=0)]), np.zeros(4, int), ((1, 3),)
        )
        model: Any = class_model(BaselineLogit(2), np.array([0, 2, 3]), 4, Scaling.none(0, 1))
        found = emptied(counts, model)
        assert found is not None
        (limit,) = found.limits
        own, base = rows[:, 1], rows[:, 0]
        # the level's own coefficient is infinite as soon as it or the baseline is at a limit
        assert (limit.direction[1] != 0.0) == bool((own == 0).any() or (base == 0).any())
        # its rows go where their class is, and those of the baseline, too
        assert np.sign(limit.direction[0]) == (base[0] == 0) * 1.0 - (base[1] == 0) * 1.0
        assert np.sign(limit.direction[0] + limit.direction[1]) == (own[0] == 0) * 1.0 - (own[1] == 0) * 1.0
