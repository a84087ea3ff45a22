"""Sums over a block, against the same sums with X written out and densities from scipy.stats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from daskglm.kernels.blocks import Block
from daskglm.kernels.products import Gram, Layout
from daskglm.totals.moments import CHUNK_ROWS, Moments, Request, moments, record_bytes
from tests.laws.exact import PAIRS, WITH_DENSITY, exact_log_density
from tests.totals.problems import NULLS, problem

# Sums of at most 40 000 terms in two orders: roundings of the sum of absolute values.
SUMS = 1e-12
# Log densities of scipy and ours differ by roundings of log-gamma.
DENSITIES = 1e-11

FORMS = [
    {},
    {"weight": "real"},
    {"weight": "counts", "frequency": True, "offset": True},
    {"offset": True, "valued": True},
    {"weight": "real", "valued": True, "sparse": 6},
]
WITH_TRIALS = [{"trials": True}, {"trials": True, "weight": "counts", "frequency": True}]


def close(found: np.ndarray | float, truth: np.ndarray | float, size: np.ndarray | float, rtol: float = SUMS) -> bool:
    return bool(np.all(np.abs(np.asarray(found) - truth) <= rtol * np.asarray(size) + 1e-300))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("information", ["observed", "expected"])
@pytest.mark.parametrize("family, link", PAIRS)
def test_loss_gradient_and_gram(family: str, link: str, information: str, form: dict) -> None:
    one = problem(family, link, **form)
    terms = one.model.likelihood.rows(one.block.y, one.eta, 2, information)  # type: ignore[arg-type]
    x, w = one.x, one.weight
    full = moments(one.block, one.model, Request(one.coef, 2, information))  # type: ignore[arg-type]
    first = moments(one.block, one.model, Request(one.coef, 1))
    zeroth = moments(one.block, one.model, Request(one.coef, 0, means=True))
    for sums in (full, first, zeroth):
        assert sums.n == one.block.n
        assert close(sums.loss, np.sum(w * terms.loss), np.sum(w * np.abs(terms.loss)))
    gradient, size = x.T @ (w * terms.score), np.abs(x).T @ np.abs(w * terms.score)
    assert close(one.model.gradient(full), gradient, size)
    assert close(one.model.gradient(first), gradient, size)
    gram = one.model.gram(full.tables)
    assert gram is not None
    weighted = (w * terms.weight)[:, None]
    assert close(gram, x.T @ (weighted * x), np.abs(x).T @ (np.abs(weighted) * np.abs(x)))
    assert first.tables is None
    assert zeroth.tables is None
    assert close(zeroth.weight, w.sum(), w.sum())
    assert close(zeroth.weighted_y, np.sum(w * one.block.y), np.sum(w * np.abs(one.block.y)))
    if not one.model.likelihood.family.dispersion_known:
        pearson = np.sum(w * (one.block.y - terms.mu) ** 2 / terms.variance)
        assert close(full.pearson, pearson, pearson)


@pytest.mark.parametrize("family, link", PAIRS)
def test_finite_differences_of_the_loss(family: str, link: str) -> None:
    """With the products of the kernels in between: loss, gradient and Gram belong together."""
    one = problem(family, link, weight="real", offset=True, valued=True)
    here = moments(one.block, one.model, Request(one.coef))
    gradient, gram = one.model.gradient(here), one.model.gram(here.tables)
    assert gram is not None
    step = 2.0**-14
    for j in range(one.coef.size):
        sides = [moments(one.block, one.model, Request(one.coef + k * step * np.eye(5)[j], 1)) for k in (-1, 1)]
        slope = (sides[1].loss - sides[0].loss) / (2 * step)
        bend = (one.model.gradient(sides[1]) - one.model.gradient(sides[0])) / (2 * step)
        # errors of a central difference: step^2 times a third derivative of the order of the Gram, about 4e-9 of it
        assert abs(slope + gradient[j]) <= 1e-7 * (np.abs(gram).max() + abs(here.loss))
        assert np.all(np.abs(bend + gram[j]) <= 1e-6 * np.abs(gram).max())


@pytest.mark.parametrize("n", [0, 1, CHUNK_ROWS, CHUNK_ROWS + 1, 40_000])
def test_any_number_of_rows(n: int) -> None:
    one = problem("poisson", "log", n, weight="real", offset=True)
    sums = moments(one.block, one.model, Request(one.coef))
    terms = one.model.likelihood.rows(one.block.y, one.eta)
    gram = one.model.gram(sums.tables)
    assert sums.n == n
    assert close(sums.loss, np.sum(one.weight * terms.loss), np.sum(one.weight * np.abs(terms.loss)))
    weighted = (one.weight * terms.weight)[:, None]
    assert gram is not None
    assert close(gram, one.x.T @ (weighted * one.x), np.abs(one.x).T @ (weighted * np.abs(one.x)))


@pytest.mark.parametrize(
    "family, link, form",
    [(family, link, form) for family, link in PAIRS for form in FORMS + (WITH_TRIALS if family == "binomial" else [])],
)
def test_statistics(family: str, link: str, form: dict) -> None:
    """Deviances at phi = 1 and the log-likelihood at the dispersion of the family, as exact densities say."""
    one = problem(family, link, **form)
    block, w = one.block, one.weight
    trials = np.ones(block.n) if block.trials is None else block.trials.astype(float)
    copies = w / trials if one.model.frequency else np.ones(block.n)
    size = trials if one.model.frequency else w
    whole = np.abs(size * block.y - np.round(size * block.y)) < 1e-9
    null, glm = NULLS[link], one.model.likelihood
    sums = moments(block, one.model, Request(one.coef, 2, "expected", null, statistics=True))
    found = sums.statistics
    assert found is not None
    assert found.n == block.n
    assert close(found.observations, copies.sum(), copies.sum())
    assert close(found.weight, w.sum(), w.sum())
    discrete = glm.family.discrete
    assert found.fractional == (int((~whole).sum()) if discrete else 0)
    center = null if block.offset is None else null + block.offset
    y = block.y
    mu, at_null = one.model.likelihood.mean_of(one.eta), one.model.likelihood.mean_of(np.zeros(block.n) + center)
    if discrete and found.fractional:
        # totals that are no counts have no density; w unit deviances do not ask
        best, here, there = (w * exact_log_density(family, np.round(y), m) for m in (np.round(y), mu, at_null))
        assert family != "binomial" or set(np.round(y)) <= {0.0, 1.0}
    elif family in WITH_DENSITY:
        best, here, there = (copies * exact_log_density(family, y, m, 1.0, size) for m in (y, mu, at_null))
        if glm.family.likelihood_at in ("known", "deviance"):
            saturated = copies * exact_log_density(family, y, y, glm.family.dispersion, size)
            assert close(found.saturated, saturated.sum(), np.abs(saturated).sum() + block.n, DENSITIES)
        else:
            assert found.saturated == 0.0
    else:
        best = np.zeros(block.n)
        here, there = (-0.5 * w * glm.family.unit_deviance(y, m, 1.0 - m) for m in (mu, at_null))
    scale = np.abs(best).sum() + np.abs(there).sum() + np.abs(here).sum()
    assert close(found.deviance, 2 * np.sum(best - here), scale, DENSITIES)
    assert close(found.null_deviance, 2 * np.sum(best - there), scale, DENSITIES)
    variance = one.model.likelihood.rows(y, one.eta).variance
    pearson = np.sum(w * (y - mu) ** 2 / variance)
    assert close(sums.pearson, pearson, pearson)


@pytest.mark.parametrize("family, link", PAIRS)
def test_frequencies_stand_for_rows_written_out(family: str, link: str) -> None:
    one = problem(family, link, weight="counts", frequency=True, offset=True)
    times = one.weight.astype(int)
    block = one.block

    def out(column: np.ndarray) -> np.ndarray:
        return np.repeat(column, times)

    assert block.offset is not None
    written = Block(
        n=int(times.sum()),
        dense=tuple(out(column) for column in block.dense),
        levels=tuple(replace(piece, codes=out(piece.codes)) for piece in block.levels),
        y=out(block.y),
        offset=out(block.offset),
    )
    request = Request(one.coef, 2, "expected", NULLS[link], statistics=True, meat=True)
    short, long = moments(block, one.model, request), moments(written, one.model, request)
    assert short.statistics is not None
    assert long.statistics is not None
    assert close(short.loss, long.loss, abs(long.loss) + long.n)
    for name in ("observations", "deviance", "saturated", "weight", "null_deviance", "fractional"):
        truth = getattr(long.statistics, name)
        assert close(getattr(short.statistics, name), truth, abs(truth) + long.n)
    for a, b in ((short.tables, long.tables), (short.meat, long.meat)):
        gram = one.model.gram(b)
        assert gram is not None
        assert close(one.model.gram(a), gram, np.abs(gram).max())  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [*FORMS, *WITH_TRIALS])
def test_meat_is_the_sum_of_squared_scores(form: dict) -> None:
    one = problem("binomial", "probit", **form)
    score = one.model.likelihood.rows(one.block.y, one.eta).score
    trials = np.ones(one.block.n) if one.block.trials is None else one.block.trials.astype(float)
    copies = one.weight / trials if one.model.frequency else np.ones(one.block.n)
    # the score of one observation, which stands in the data `copies` times
    each = one.x * (score * one.weight / copies)[:, None]
    truth = each.T @ (copies[:, None] * each)
    found = one.model.gram(moments(one.block, one.model, Request(one.coef, meat=True)).meat)
    assert found is not None
    assert close(found, truth, np.abs(each).T @ (copies[:, None] * np.abs(each)))


@pytest.mark.parametrize("family, link", PAIRS)
@pytest.mark.parametrize("offset", [False, True])
def test_the_null_candidate_rides_along(family: str, link: str, offset: bool) -> None:
    one = problem(family, link, weight="real", offset=offset)
    null, glm = NULLS[link], one.model.likelihood
    eta = np.full(one.block.n, null) if one.block.offset is None else null + one.block.offset
    terms = glm.rows(one.block.y, eta, 2, "expected")
    truth = [np.sum(one.weight * part) for part in (terms.loss, terms.score, terms.weight)]
    sizes = [np.sum(one.weight * np.abs(part)) for part in (terms.loss, terms.score, terms.weight)]
    beside = moments(one.block, one.model, Request(one.coef, 1, null=null)).null
    alone = moments(one.block, one.model, Request(None, null=null)).null
    assert close(beside, np.array(truth), np.array(sizes))
    assert np.array_equal(alone, beside)


@pytest.mark.parametrize("family, link", PAIRS)
@pytest.mark.parametrize("center", [None, 0.4])
def test_start_is_the_least_squares_problem_of_the_first_step(family: str, link: str, center: float | None) -> None:
    """W = 1 / (V g'^2), z = g(m) + (y - m) g' at a mean m near y, less the offset; rows where that is not finite
    count for nothing."""
    one = problem(family, link, weight="real", offset=True)
    glm, y = one.model.likelihood, one.block.y
    with np.errstate(all="ignore"):
        eta = glm.link.link(glm.family.start_mean(y, 1.0))
        mu, slope, rest = glm.link.inverse(eta)
        variance = glm.family.variance(mu, rest)
        weight = one.weight * slope**2 / variance
        target = (eta + (y - mu) / slope if center is None else np.full(y.size, center)) - one.block.offset
        usable = np.isfinite(weight) & np.isfinite(weight * target)
        usable &= np.isfinite(eta)
    weight, target = np.where(usable, weight, 0.0), np.where(usable, target, 0.0)
    sums = moments(one.block, one.model, Request(None, start=True, center=center))
    gram = one.model.gram(sums.tables)
    assert gram is not None
    # the working response y - m cancels where m is y
    rtol = 1e-9
    assert close(gram, one.x.T @ (weight[:, None] * one.x), np.abs(one.x).T @ (weight[:, None] * np.abs(one.x)), rtol)
    size = np.abs(one.x).T @ np.abs(weight * target)
    assert close(one.model.gradient(sums), one.x.T @ (weight * target), size, rtol)
    assert usable.any()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.999, 1.0])
def test_a_fraction_is_the_leading_rows(fraction: float) -> None:
    one = problem("gamma", "log", 77, weight="real")
    rows = int(np.ceil(77 * fraction))
    sums = moments(one.block, one.model, Request(one.coef, fraction=fraction))
    terms = one.model.likelihood.rows(one.block.y[:rows], one.eta[:rows])
    w = one.weight[:rows]
    assert sums.n == rows
    assert close(sums.loss, np.sum(w * terms.loss), np.sum(w * np.abs(terms.loss)))
    gradient = one.x[:rows].T @ (w * terms.score)
    assert close(one.model.gradient(sums), gradient, np.abs(one.x[:rows]).T @ np.abs(w * terms.score))


@pytest.mark.parametrize(
    "family, link, bad",
    [
        ("poisson", "identity", -1.0),
        ("poisson", "sqrt", -1.0),
        ("binomial", "log", 0.1),
        ("gamma", "inverse", -1.0),
        ("gamma", "identity", -1e-3),
        ("gaussian", "log", 800.0),
        ("poisson", "log", 800.0),
        ("gaussian", "identity", np.inf),
        ("binomial", "logit", np.nan),
    ],
)
@pytest.mark.parametrize("place", [0, CHUNK_ROWS + 5])
def test_one_impossible_mean_makes_the_loss_infinite(family: str, link: str, bad: float, place: int) -> None:
    one = problem(family, link, CHUNK_ROWS + 9)
    offset = np.zeros(one.block.n)
    offset[place] = bad - one.eta[place]
    for order in (0, 1, 2):
        sums = moments(replace(one.block, offset=offset), one.model, Request(one.coef, order))
        assert sums.loss == np.inf


@pytest.mark.parametrize("family, link", PAIRS)
def test_leaves_add_to_the_whole(family: str, link: str) -> None:
    one = problem(family, link, weight="real", offset=True)
    request = Request(one.coef, 2, "expected", NULLS[link], statistics=True, meat=True)
    whole = moments(one.block, one.model, request)
    parts = moments(one.block.rows(0, 130), one.model, request) + moments(one.block.rows(130, 300), one.model, request)
    assert parts.n == whole.n
    assert close(parts.loss, whole.loss, abs(whole.loss) + whole.n)
    assert close(parts.pearson, whole.pearson, whole.pearson)
    assert close(parts.null, whole.null, np.abs(whole.null).max())
    assert parts.statistics is not None
    assert whole.statistics is not None
    for name in ("n", "observations", "deviance", "saturated", "weight", "fractional", "null_deviance"):
        truth = getattr(whole.statistics, name)
        assert close(getattr(parts.statistics, name), truth, abs(truth) + whole.n)
    for a, b in ((parts.tables, whole.tables), (parts.meat, whole.meat)):
        gram = one.model.gram(b)
        assert gram is not None
        assert close(one.model.gram(a), gram, np.abs(gram).max())  # type: ignore[arg-type]


def test_what_one_leaf_lacks_the_sum_lacks() -> None:
    one = problem("poisson", "log")
    full = moments(one.block, one.model, Request(one.coef, 2, statistics=True, meat=True))
    bare = moments(one.block, one.model, Request(one.coef, 1))
    both: Moments = full + bare
    assert (both.tables, both.meat, both.statistics) == (None, None, None)
    assert close(both.loss, 2 * full.loss, 2 * abs(full.loss))


@pytest.mark.parametrize("dtype", ["i1", "i4", "f4"])
def test_narrow_responses_weights_and_offsets(dtype: str) -> None:
    one = problem("poisson", "log", weight="counts")
    y = one.block.y.astype(dtype)
    narrow = replace(one.block, y=y, weight=one.weight.astype(dtype), offset=np.zeros(300, np.float32))
    request = Request(one.coef, statistics=True)
    found, truth = moments(narrow, one.model, request), moments(one.block, one.model, request)
    assert found.loss == truth.loss
    assert np.array_equal(one.model.gradient(found), one.model.gradient(truth))
    assert found.statistics == truth.statistics


@pytest.mark.parametrize("family, link", [pair for pair in PAIRS if pair[0] in WITH_DENSITY])
def test_deviance_is_twice_the_loss_beyond_the_reference(family: str, link: str) -> None:
    one = problem(family, link, weight="real", offset=True)
    sums = moments(one.block, one.model, Request(one.coef, 1, reference=True))
    y, mu = one.block.y, one.model.likelihood.mean_of(one.eta)
    best, here = (exact_log_density(family, y, mean) for mean in (y, mu))
    scale = np.sum(one.weight * (np.abs(best) + np.abs(here))) + abs(sums.loss)
    assert close(2 * (sums.loss - sums.reference), 2 * np.sum(one.weight * (best - here)), scale, DENSITIES)


def held(tables: Gram) -> int:
    """Bytes of a Gram's arrays."""
    arrays = [tables.dense, tables.cross, tables.square, tables.pairs]
    if tables.sparse is not None:
        products = tables.sparse.products
        arrays += [tables.sparse.cross, products.data, products.indices, products.indptr]
    return sum(array.nbytes for array in arrays)


@pytest.mark.parametrize("sparse", [0, 60])
def test_the_bytes_of_a_leaf_are_foreseen(sparse: int) -> None:
    one = problem("poisson", "log", 500, sparse=sparse)
    sums = moments(one.block, one.model, Request(one.coef, 2, meat=True))
    assert sums.tables is not None
    assert sums.meat is not None
    layout = Layout(2, (3,), sparse)
    pairs = None if one.block.sparse is None else one.block.sparse.pairs
    # a few hundred bytes of padding and of pointers to rows
    small = 8 * (layout.width + 64)
    assert held(sums.tables) <= record_bytes(layout, pairs) + small
    assert held(sums.tables) + held(sums.meat) <= record_bytes(layout, pairs, meat=True) + 2 * small
    assert record_bytes(layout, pairs) <= held(sums.tables) * 2 + small


def test_rows_without_a_pair_leave_a_small_record() -> None:
    wide = Layout(0, (), 50_000)
    assert record_bytes(wide, 10_000) < 4_000_000 < record_bytes(wide) / 1_000
