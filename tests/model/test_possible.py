"""Likelihoods of classes some of which are impossible: those of the others alone, and what finite predictors tend to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from daskglm.model.links import LINKS
from daskglm.model.vector import BaselineLogit, Cumulative, pairs_of
from tests.model.test_vector import CUMULATIVE, full, matrix_of

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Sums of a few exponentials, in two orders.
SUMS = 1e-13
# Central differences with steps 2^-12 of smooth functions of a moderate predictor.
STEP = 2.0**-12
DIFFERENCES = 1e-6
# So far that every probability that is to vanish has, under all links but cauchit, whose tails are as long as this.
FAR = 1e12
TAIL = 1e-9
CLASSES = 4


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """As callers of likelihoods do."""
    with np.errstate(all="ignore"):
        yield


def sets(runs: bool) -> list[tuple[int, ...]]:
    """The sets of classes that can remain: any, or runs of neighbours."""
    found = [s for size in range(1, CLASSES + 1) for s in itertools.combinations(range(CLASSES), size)]
    return [s for s in found if not runs or s == tuple(range(s[0], s[-1] + 1))]


def mask(kept: tuple[int, ...], n: int) -> Mask:
    return np.repeat(np.isin(np.arange(CLASSES), kept)[:, None], n, axis=1)


RNG = np.random.default_rng(3)
ETAS = RNG.normal(0.0, 2.0, (CLASSES - 1, 30))
ETA, THRESHOLDS = RNG.normal(0.0, 1.5, 30), np.array([-1.2, 0.1, 1.4])


# -- multinomial ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", sets(False))
def test_multinomial_of_the_classes_that_are_left(kept: tuple[int, ...]) -> None:
    """The same as a model of those alone, whose reference is the first of them."""
    n = ETAS.shape[1]
    eta = np.concatenate([np.zeros((1, n)), ETAS])[list(kept)]
    fewer, possible = BaselineLogit(len(kept)), mask(kept, n)
    chance = BaselineLogit(CLASSES).probabilities(ETAS, possible)
    alone = fewer.probabilities(eta[1:] - eta[0]) if len(kept) > 1 else np.ones((1, n))
    assert np.array_equal(chance == 0.0, ~possible)
    assert np.allclose(chance[list(kept)], alone, rtol=SUMS, atol=0)
    for place, y in enumerate(kept):
        terms = BaselineLogit(CLASSES).rows(np.full(n, y), ETAS, possible=possible)
        assert np.allclose(terms.loss, -np.log(alone[place]), rtol=0, atol=SUMS)
        assert np.allclose(terms.chance, alone[place], rtol=SUMS, atol=0)
        seen = np.eye(CLASSES)[y][:, None]
        assert np.allclose(terms.score, (seen - chance)[1:], rtol=0, atol=SUMS)
        weight = full(terms.weight, CLASSES - 1)
        spread = np.einsum("an,ab->nab", chance[1:], np.eye(CLASSES - 1)) - np.einsum(
            "an,bn->nab", chance[1:], chance[1:]
        )
        assert np.allclose(weight, spread, rtol=0, atol=SUMS)
        # of what is impossible nothing is known, exactly
        gone = [k - 1 for k in range(1, CLASSES) if k not in kept]
        assert not terms.score[gone].any()
        assert not weight[:, gone].any()
    for y in set(range(CLASSES)) - set(kept):
        assert np.isinf(BaselineLogit(CLASSES).rows(np.full(n, y), ETAS, possible=possible).loss).all()


def test_all_classes_possible_is_no_restriction() -> None:
    every, y = np.ones((CLASSES, 30), bool), np.arange(30) % CLASSES
    one, other = BaselineLogit(CLASSES).rows(y, ETAS), BaselineLogit(CLASSES).rows(y, ETAS, possible=every)
    for name in ("loss", "score", "weight", "chance"):
        assert np.allclose(getattr(one, name), getattr(other, name), rtol=SUMS, atol=1e-300), name
    for link in CUMULATIVE:
        ordered = Cumulative(LINKS[link](), CLASSES)
        plain, limited = ordered.rows(y, ETA, THRESHOLDS), ordered.rows(y, ETA, THRESHOLDS, possible=every)
        for name in ("loss", "score", "weight", "threshold_score", "threshold_weight", "beside", "cross", "chance"):
            assert np.array_equal(getattr(plain, name), getattr(limited, name)), name


def test_huge_predictors_are_limits() -> None:
    """Probabilities of 0 and 1 to the last bit, and losses without a bound, but no NaN."""
    for scale in (1e3, 1e12, 1e150, 1e300):
        eta = scale * np.array([[-1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, -2.0], [-1.0, -2.0, -1.0, 1.0]])
        chance = BaselineLogit(CLASSES).probabilities(eta)
        expected = np.array([[1, 0, 0, 0], [0, 1, 0.5, 0], [0, 0, 0.5, 0], [0, 0, 0, 1]])
        assert np.array_equal(chance, expected)
        terms = BaselineLogit(CLASSES).rows(np.array([0, 1, 2, 3]), eta)
        assert np.allclose(terms.loss, [0.0, 0.0, np.log(2.0), 0.0], rtol=SUMS, atol=0)
        assert np.isfinite(terms.score).all()
        assert np.isfinite(terms.weight).all()
        for link in CUMULATIVE:
            ordered = Cumulative(LINKS[link](), CLASSES)
            chance = ordered.probabilities(scale * np.array([-1.0, 1.0]), THRESHOLDS)
            near = TAIL if link == "cauchit" and scale > 1e9 else 1e-3 if link == "cauchit" else 0.0
            assert np.allclose(chance, [[1, 0], [0, 0], [0, 0], [0, 1]], rtol=0, atol=near), (link, scale)


# -- ordered -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", sets(True))
@pytest.mark.parametrize("link", CUMULATIVE)
def test_ordered_classes_that_are_left(link: str, kept: tuple[int, ...]) -> None:
    """The same as with all lower and higher thresholds far away, as far as numbers tell, and exact where they do not."""
    n, likelihood, possible = ETA.size, Cumulative(LINKS[link](), CLASSES), mask(kept, ETA.size)
    away = THRESHOLDS.copy()
    away[: kept[0]] = -FAR * np.arange(kept[0], 0, -1)
    away[kept[-1] :] = FAR * np.arange(1, CLASSES - kept[-1])
    chance = likelihood.probabilities(ETA, THRESHOLDS, possible)
    assert np.array_equal(chance == 0.0, ~possible)
    assert np.allclose(chance.sum(axis=0), 1.0, rtol=0, atol=SUMS)
    assert np.allclose(chance, likelihood.probabilities(ETA, away), rtol=0, atol=TAIL)
    inner = [k for k in range(CLASSES - 1) if kept[0] <= k < kept[-1]]
    outer = [k for k in range(CLASSES - 1) if k not in inner]
    for y in kept:
        codes = np.full(n, y)
        for information in ("observed", "expected"):
            found = likelihood.rows(codes, ETA, THRESHOLDS, 2, information, possible)  # type: ignore[arg-type]
            other = likelihood.rows(codes, ETA, away, 2, information)  # type: ignore[arg-type]
            assert np.allclose(found.loss, other.loss, rtol=0, atol=TAIL)
            assert np.allclose(found.score, other.score, rtol=0, atol=TAIL)
            assert np.allclose(matrix_of(found, 3), matrix_of(other, 3), rtol=TAIL, atol=TAIL)
            assert not found.threshold_score[outer].any()
            assert not found.threshold_weight[outer].any()
            assert not found.cross[outer].any()
        if len(kept) == 1:
            assert not found.loss.any()
            assert not found.weight.any()
    for y in set(range(CLASSES)) - set(kept):
        assert np.isinf(likelihood.rows(np.full(n, y), ETA, THRESHOLDS, possible=possible).loss).all()


@pytest.mark.parametrize("kept", [(0, 1), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("link", CUMULATIVE)
def test_ordered_finite_differences_at_the_limit(link: str, kept: tuple[int, ...]) -> None:
    likelihood, possible = Cumulative(LINKS[link](), CLASSES), mask(kept, ETA.size)
    for y in kept:
        codes = np.full(ETA.size, y)

        def terms(shift: float, threshold: int | None = None, codes: Any = codes) -> Any:
            moved = THRESHOLDS + shift * (np.arange(3) == threshold)
            eta = ETA + shift * (threshold is None)
            return likelihood.rows(codes, eta, moved, 2, "observed", possible)

        here = terms(0.0)
        matrix = matrix_of(here, 3)
        scores = lambda t: np.vstack([t.threshold_score, t.score])  # noqa: E731
        for k in [0, 1, 2, None]:
            up, down = terms(STEP, k), terms(-STEP, k)
            at = 3 if k is None else k
            assert np.allclose(
                (up.loss - down.loss) / (2 * STEP), -scores(here)[at], rtol=DIFFERENCES, atol=DIFFERENCES
            )
            slope = (scores(up) - scores(down)) / (2 * STEP)
            assert np.allclose(slope.T, -matrix[:, at], rtol=DIFFERENCES, atol=DIFFERENCES)


# -- directions ----------------------------------------------------------------------------------------------------------


def test_multinomial_directions_leave_what_goes_fastest() -> None:
    likelihood = BaselineLogit(CLASSES)
    courses = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 2.0], [1.0, 0.0, 1e-12, 1.0], [0.5, -2.0, -1.0, 3.0]])
    every = np.ones((4, 4), bool)
    found = likelihood.left(every, courses, 1e-9)
    assert found.T.tolist() == [
        [False, True, True, False], [True, False, True, False], [True, True, True, False], [False, False, False, True],
    ]  # fmt: skip
    # a second direction decides among what the first has left
    again = likelihood.left(found, np.array([[9.0] * 4, [1.0] * 4, [2.0] * 4, [3.0] * 4]), 1e-9)
    assert again.T.tolist() == [
        [False, False, True, False], [True, False, False, False], [True, False, False, False], [False, False, False, True],
    ]  # fmt: skip


def test_ordered_directions_leave_what_lies_between() -> None:
    likelihood = Cumulative(LINKS["logit"](), CLASSES)
    courses = np.array([[-1.0, 0.0, 1.0, -1.0, 1e-12], [0.0, 0.0, 1.0, -1.0, 0.0], [0.0, 2.0, 1.0, -1.0, 1.0]])
    found = likelihood.left(np.ones((4, 5), bool), courses, 1e-9)
    assert [tuple(np.flatnonzero(column)) for column in found.T] == [(1, 2, 3), (0, 1, 2), (0,), (3,), (0, 1, 2)]
    # a second direction moves what is still between: not the threshold that the first has decided on
    again = likelihood.left(found, np.array([[-1.0] * 5, [0.0] * 5, [7.0] * 5]), 1e-9)
    assert [tuple(np.flatnonzero(column)) for column in again.T] == [(1, 2), (1, 2), (0,), (3,), (1, 2)]


@pytest.mark.parametrize("kind", ["multinomial", "logit"])
def test_a_direction_of_recession_never_raises_the_loss(kind: str) -> None:
    """And where the class that was seen gains on some other, the loss falls to that of the classes that are left."""
    rng = np.random.default_rng(11)
    n = 400
    y = rng.integers(0, CLASSES, n)
    likelihood: Any = BaselineLogit(CLASSES) if kind == "multinomial" else Cumulative(LINKS[kind](), CLASSES)
    ordered = kind != "multinomial"
    if ordered:
        courses = np.sort(rng.integers(-1, 2, (CLASSES - 1, n)), axis=0).astype(float)
    else:
        courses = np.concatenate([np.zeros((1, n)), rng.integers(-1, 2, (CLASSES - 1, n))]).astype(float)

    def loss(t: float, possible: Any = None) -> Vector:
        if not ordered:
            return np.asarray(likelihood.rows(y, base + t * courses[1:], 0, possible=possible).loss)
        each = [
            likelihood.rows(y[i : i + 1], eta[i : i + 1], THRESHOLDS + t * courses[:, i], 0, possible=row)
            for i, row in enumerate([None] * n if possible is None else possible.T[:, :, None])
        ]
        return np.concatenate([one.loss for one in each])

    base, eta = rng.normal(0.0, 1.0, (CLASSES - 1, n)), rng.normal(0.0, 1.0, n)
    gains, there = likelihood.alternatives(y, None, courses)
    recession = ~(there & (gains < 0.0)).any(axis=0)
    moved = (there & (gains > 0.0)).any(axis=0)
    way = np.array([loss(t) for t in (0.0, 0.5, 1.0, 4.0, 40.0)])
    falls = np.all(np.diff(way, axis=0) <= SUMS, axis=0)
    assert np.array_equal(recession, falls)
    assert np.allclose(way[0][recession & ~moved], way[-1][recession & ~moved], rtol=0, atol=SUMS)
    possible = likelihood.left(np.ones((CLASSES, n), bool), courses, 1e-9)
    assert possible[y[recession], np.flatnonzero(recession)].all()
    end = loss(0.0, possible)
    assert np.allclose(end[recession], way[-1][recession], rtol=0, atol=TAIL)
    assert recession.sum() > 50
    assert moved[recession].sum() > 20


@pytest.mark.parametrize("limited", [False, True])
def test_pairs_of_multinomial_rows(limited: bool) -> None:
    """Their unit information and pull, pair by pair."""
    rng = np.random.default_rng(2)
    n, likelihood = 50, BaselineLogit(CLASSES)
    y = rng.integers(0, CLASSES, n)
    possible = rng.random((CLASSES, n)) < 0.6 if limited else None
    if possible is not None:
        possible[y, np.arange(n)] = True
    courses, amount = rng.normal(size=(CLASSES, n)), rng.random((CLASSES, n))
    gains, there = likelihood.alternatives(y, possible, courses)
    amount = np.where(there, amount, 0.0)
    unit, pull = likelihood.unit(y, 1.0 * there), likelihood.pull(y, amount)
    e = np.eye(CLASSES)[:, 1:]
    for i in range(n):
        others = [a for a in range(CLASSES) if a != y[i] and (possible is None or possible[a, i])]
        assert np.flatnonzero(there[:, i]).tolist() == others
        assert np.allclose(gains[others, i], courses[y[i], i] - courses[others, i])
        matrix = sum((np.outer(e[y[i]] - e[a], e[y[i]] - e[a]) for a in others), np.zeros((3, 3)))
        assert np.array_equal(full(unit[:, i : i + 1], 3)[0], matrix)
        assert np.allclose(pull[:, i], sum((amount[a, i] * (e[y[i]] - e[a]) for a in others), np.zeros(3)))
    assert len(unit) == len(pairs_of(3))


@pytest.mark.parametrize("limited", [False, True])
def test_pairs_of_ordered_rows(limited: bool) -> None:
    rng = np.random.default_rng(2)
    n, likelihood = 50, Cumulative(LINKS["logit"](), CLASSES)
    y = rng.integers(0, CLASSES, n)
    low, high = np.zeros(n, int), np.full(n, CLASSES - 1)
    if limited:
        low, high = rng.integers(0, y + 1), rng.integers(y, CLASSES)
    k = np.arange(CLASSES)[:, None]
    possible = (k >= low) & (k <= high)
    courses, amount = rng.normal(size=(CLASSES - 1, n)), rng.random((2, n))
    gains, there = likelihood.alternatives(y, possible if limited else None, courses)
    amount = np.where(there, amount, 0.0)
    unit, pull = likelihood.unit(y, 1.0 * there), likelihood.pull(y, amount)
    for i in range(n):
        above, below = y[i] < high[i], y[i] > low[i]
        assert there[:, i].tolist() == [above, below]
        expected, pulled = np.zeros(3), np.zeros(3)
        if above:
            assert gains[0, i] == courses[y[i], i]
            expected[y[i]] += 1.0
            pulled[y[i]] += amount[0, i]
        if below:
            assert gains[1, i] == -courses[y[i] - 1, i]
            expected[y[i] - 1] += 1.0
            pulled[y[i] - 1] -= amount[1, i]
        assert np.array_equal(unit[:, i], expected)
        assert np.array_equal(pull[:, i], pulled)
