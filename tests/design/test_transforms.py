"""What transforms learn and make, by their definitions; that they come and go as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from daskglm.design.contrasts import Contrast, orthogonal_polynomials
from daskglm.design.transforms import TRANSFORMS, Affine, Scale, Spread, document_of, state_of
from daskglm.errors import DataError, DesignError
from daskglm.kernels.blocks import NUMERIC_KINDS

KINDS = ["sum", "helmert", "poly", "diff"]
COUNTS = [2, 3, 5, 12, 60]
# Rounding of matrices whose entries are of size one, times their number of levels.
ROUNDING = 1e-13


def state(kind: str, count: int, **options: Any) -> Any:
    return Contrast(kind, tuple(options.items())).learn("a", tuple(range(count)))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_contrasts_span_the_levels_and_sum_to_zero(kind: str, count: int) -> None:
    matrix = state(kind, count).matrix
    assert matrix.shape == (count, count - 1)
    np.testing.assert_allclose(matrix.sum(axis=0), 0.0, atol=ROUNDING * count)
    assert np.linalg.matrix_rank(np.column_stack([np.ones(count), matrix])) == count


@pytest.mark.parametrize("count", COUNTS)
def test_coefficients_are_what_their_names_say(count: int) -> None:
    """Coefficients of the levels' means m: deviations from their mean, and differences."""
    means = np.sin(3.0 * np.arange(count))

    def coefficients(kind: str, **options: Any) -> Any:
        full = np.column_stack([np.ones(count), state(kind, count, **options).matrix])
        return np.linalg.solve(full, means)[1:]

    before = np.cumsum(means)[:-1] / np.arange(1, count)
    after = np.cumsum(means[::-1])[-2::-1] / np.arange(count - 1, 0, -1)
    pairs = [
        (coefficients("sum"), (means - means.mean())[:-1]),
        (coefficients("diff"), np.diff(means)),
        (coefficients("diff", backward=False), -np.diff(means)),
        (coefficients("helmert", scale=True), means[1:] - before),
        (coefficients("helmert", scale=True, reverse=False), means[:-1] - after),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=ROUNDING * count)


@pytest.mark.parametrize("scores", [range(1, 51), [1, 2, 5, 1e6, 2e6]], ids=["many", "uneven"])
def test_polynomials_are_orthonormal_and_rise_with_their_degree(scores: Any) -> None:
    points = np.array(scores, float)
    basis = orthogonal_polynomials(points, points.size - 1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(points.size - 1), atol=ROUNDING)
    assert (basis[-1] > 0).all()
    # column j is a polynomial of degree j: it is orthogonal to all powers below
    square = ((points - points.mean()) / points.max()) ** 2
    np.testing.assert_allclose(basis[:, 2:].T @ square, 0.0, atol=1e-11)


def test_columns_of_whole_numbers_take_a_byte() -> None:
    codes = np.arange(5).repeat(2)
    for kind in KINDS:
        found = state(kind, 5)
        for j in range(4):
            column = found.column(j, codes)
            assert column.dtype.str[1:] in NUMERIC_KINDS
            np.testing.assert_array_equal(column, found.matrix[codes, j])
        assert (found.column(0, codes).dtype == np.int8) == (kind in ("sum", "helmert"))
    # -1 ... 199 do not fit
    assert state("helmert", 200).column(198, codes).dtype == np.float64


def test_a_contrast_of_very_many_levels_is_refused() -> None:
    with pytest.raises(DesignError, match="1,001 levels, each of which would be a dense column"):
        state("sum", 1_001)
    assert state("sum", 1) is None


AFFINE = Affine("scale(x)", 0.1, 3.0, 0.1, 2.9)


@pytest.mark.parametrize("made", [*(state(kind, 7) for kind in KINDS), AFFINE])
def test_states_come_back_from_json_to_the_bit(made: Any) -> None:
    back = state_of(json.loads(json.dumps(document_of(made))))
    assert type(back) is type(made)
    assert back.labels == made.labels
    values = np.arange(7)
    for j in range(len(made.labels)):
        np.testing.assert_array_equal(back.column(j, values), made.column(j, values))
        assert back.moments(j) == made.moments(j)


def test_every_transform_says_what_it_takes() -> None:
    takes = {name: entry.parse(f"{name}(x)", [], []).takes for name, entry in TRANSFORMS.items()}
    assert takes == {
        "C": "levels", "scale": "numbers", "center": "numbers", "standardize": "numbers"
    }  # fmt: skip


# -- scale -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 3, 50])
@pytest.mark.parametrize("counted", [False, True])
def test_spreads_add(pieces: int, counted: bool) -> None:
    x = 1e6 + np.random.default_rng(0).normal(size=500)
    counts = np.arange(500) % 4 + 1 if counted else None
    rows = x if counts is None else np.repeat(x, counts)
    total = Spread(0.0, 0.0, 0.0)
    for part in np.array_split(np.arange(500), pieces):
        total = total + Scale().observe(x[part], None if counts is None else counts[part])
    found = Scale().learn("scale(x)", total + Spread(0.0, 0.0, 0.0))
    assert found.center == pytest.approx(rows.mean(), rel=1e-15)
    assert found.divisor == pytest.approx(rows.std(ddof=1), rel=1e-9)
    column = (rows - rows.mean()) / rows.std(ddof=1)
    expected = [column.mean(), column.std(), np.sqrt(np.mean(column**2))]
    np.testing.assert_allclose(found.moments(0), expected, atol=1e-9)


def test_slopes_are_differences() -> None:
    found = Scale(ddof=0).learn("scale(x)", Spread(10.0, 4.0, 90.0))
    x, step = np.linspace(-3.0, 9.0, 7), 2.0**-8
    difference = (found.column(0, x + step) - found.column(0, x - step)) / (2.0 * step)
    np.testing.assert_allclose(found.slope(0, x), difference, rtol=1e-12)
    assert not state("sum", 3).slope(0, np.arange(3)).any()


def test_what_has_no_finite_square_is_refused() -> None:
    record = Scale().observe(np.array([1e200, -1e200]), None)
    for asked in (Scale(), Scale(scale=False)):
        with pytest.raises(DataError, match="so large that its square is not a number"):
            asked.learn("scale(x)", record)


CONSTANT = [Spread(5.0, 3.0, 0.0), Spread(1.0, 3.0, 0.0), Spread(5.0, 1e8, 1e-20)]


@pytest.mark.parametrize("record", CONSTANT)
def test_what_does_not_vary_has_no_scale(record: Spread) -> None:
    with pytest.raises(DataError, match=r"scale\(x\).* no standard deviation"):
        Scale().learn("scale(x)", record)
    assert Scale(scale=False).learn("center(x)", record).divisor == 1.0
