"""The three products against X written out in NumPy: exactly where the numbers are small integers, closely elsewhere."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from daskglm.kernels import reference
from daskglm.kernels.blocks import CODE_KINDS, NUMERIC_KINDS, Block, Levels, Scaling, Sparse
from daskglm.kernels.native.lanes import LANES
from daskglm.kernels.products import (
    Gram,
    Layout,
    Pieces,
    Workspace,
    add_gradient,
    gather,
    quadratic_form,
    tile_rows,
)

# Sums of n products in another order than NumPy's: n roundings of the sum of absolute values, at the very most.
ROUNDINGS = 4.0
EPS = float(np.finfo(np.float64).eps)

DENSE = list(NUMERIC_KINDS)
CODES = list(CODE_KINDS)
# Around whole lanes and whole tiles; three columns of 64-bit floats have tiles of 1024 rows.
SIZES = [0, 1, 7, 8, 9, 63, 64, 65, 1023, 1024, 1025, 2500]


def integer_block(n: int, dense: list[str], codes: list[tuple[str, int, bool]], seed: int = 0) -> tuple[Block, Scaling]:
    """Whole numbers, with shifts that are whole and scales that are powers of two: every sum of theirs is exact."""
    rng = np.random.default_rng(seed)
    block = Block(
        n=n,
        dense=tuple(rng.integers(-20, 20, n).astype(kind) for kind in dense),
        levels=tuple(
            Levels(rng.integers(0, m, n).astype(kind), m, rng.integers(-5, 6, n).astype(float) if valued else None)
            for kind, m, valued in codes
        ),
        y=np.zeros(n),
    )
    shift = rng.integers(-3, 4, len(dense)).astype(float)
    scale = 2.0 ** rng.integers(-2, 3, len(dense))
    level_scale = np.array([2.0 ** int(rng.integers(-2, 3)) if valued else 1.0 for _, _, valued in codes])
    return block, Scaling(shift, scale, level_scale)


def products(block: Block, scaling: Scaling, takes: list[int] | None = None) -> tuple[np.ndarray, ...]:
    """eta at 1, 2, ..., gradient by either kernel, Gram, with weights and scores that differ from row to row."""
    pieces = Pieces.of(block, scaling)
    workspace = Workspace(pieces)
    weight, score = weights(block.n)
    eta, gradient, gram = np.full(block.n, 0.5), np.zeros(block.width), Gram.zeros(pieces)
    cuts = [0, *(takes or []), block.n]
    coef = np.arange(1.0, block.width + 1)
    for start, stop in itertools.pairwise(cuts):
        here = slice(start, stop)
        part = np.ascontiguousarray(eta[here])
        gather(pieces, workspace, coef, start, stop, part)
        eta[here] = part
        gram.take(pieces, workspace, weight[here].copy(), score[here].copy(), start, stop)
        add_gradient(pieces, workspace, score[here].copy(), start, stop, gradient)
    return eta, gradient, gram.gradient(), gram.matrix()


def weights(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(99)
    return rng.integers(0, 8, n).astype(float), rng.integers(-8, 8, n).astype(float)


def truth(block: Block, scaling: Scaling) -> tuple[np.ndarray, ...]:
    weight, score = weights(block.n)
    eta = 0.5 + reference.gather(block, scaling, np.arange(1.0, block.width + 1))
    gradient, gram = reference.scatter(block, scaling, weight, score)
    return eta, gradient, gradient, gram


def assert_exact(block: Block, scaling: Scaling, takes: list[int] | None = None) -> None:
    for found, expected in zip(products(block, scaling, takes), truth(block, scaling), strict=True):
        assert np.array_equal(found, expected)


def assert_exact_form(block: Block, scaling: Scaling) -> None:
    """A whole symmetric matrix: every product and every sum is exact."""
    half = np.random.default_rng(3).integers(-3, 4, (block.width, block.width))
    matrix = (half + half.T).astype(float)
    found = quadratic_form(block, scaling, matrix)
    assert np.array_equal(found, reference.quadratic_form(block, scaling, matrix))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("valued", [False, True])
def test_quadratic_forms_of_all_widths_at_once(n: int, valued: bool) -> None:
    block, scaling = integer_block(n, DENSE, [(CODES[0], 3, False), (CODES[1], 5, valued), (CODES[2], 2, False)])
    assert_exact_form(block, scaling)
    assert_exact_form(block.rows(n // 3, n - n // 4), scaling)


@pytest.mark.parametrize("n_dense", [0, 1, 4])
@pytest.mark.parametrize("factors", [[], [False], [True], [True, True, False], [False] * 5])
@pytest.mark.parametrize("sparse", [0, 6])
def test_quadratic_forms_of_every_shape(n_dense: int, factors: list[bool], sparse: int) -> None:
    codes = [(CODES[k % 3], 2 + k, valued) for k, valued in enumerate(factors)]
    block, scaling = integer_block(203, [DENSE[j % 6] for j in range(n_dense)], codes)
    if sparse:
        written = np.random.default_rng(4).integers(-3, 4, (203, sparse)).astype(float)
        block = replace(block, sparse=Sparse.of(csr_array(written)))
        scaling = replace(scaling, sparse_scale=2.0 ** np.arange(sparse))
    assert_exact_form(block, scaling)


def test_a_quadratic_form_of_a_covariance_is_a_square() -> None:
    """x' C x = |L'x|^2 with C = L L': never below zero beyond rounding, to the rounding of its terms."""
    rng = np.random.default_rng(5)
    block, scaling = integer_block(500, ["f8", "f4"], [("i2", 40, True)])
    root = rng.normal(size=(block.width, block.width))
    x = reference.matrix(block, scaling)
    size = np.einsum("ij,ij->i", np.abs(x) @ np.abs(root @ root.T), np.abs(x))
    found = quadratic_form(block, scaling, root @ root.T)
    assert np.all(np.abs(found - np.sum((x @ root) ** 2, axis=1)) <= ROUNDINGS * block.width * EPS * size)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("valued", [False, True])
def test_all_widths_at_once(n: int, valued: bool) -> None:
    """Every dense width and every code width; factors with and without a value side by side."""
    assert_exact(*integer_block(n, DENSE, [(CODES[0], 3, False), (CODES[1], 5, valued), (CODES[2], 2, False)]))


@pytest.mark.parametrize("kind", DENSE)
def test_each_dense_width(kind: str) -> None:
    assert_exact(*integer_block(130, [kind], []))


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("valued", [False, True])
def test_each_code_width(kind: str, valued: bool) -> None:
    assert_exact(*integer_block(130, [], [(kind, 7, valued)]))


@pytest.mark.parametrize("n_dense", range(12))
@pytest.mark.parametrize("factors", [[], [False], [True], [False, True], [True, True, False], [False] * 5, [True] * 9])
def test_every_shape(n_dense: int, factors: list[bool]) -> None:
    """No dense columns, no factors, more factors than dense columns, and every remainder of the blocks of four."""
    codes = [(CODES[k % 3], 2 + k, valued) for k, valued in enumerate(factors)]
    assert_exact(*integer_block(203, [DENSE[j % 6] for j in range(n_dense)], codes))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 400),
    st.lists(st.sampled_from(DENSE), max_size=9),
    st.lists(st.tuples(st.sampled_from(CODES), st.integers(1, 40), st.booleans()), max_size=5),
    st.integers(0, 2**31),
)
def test_any_block(n: int, dense: list[str], codes: list[tuple[str, int, bool]], seed: int) -> None:
    assert_exact(*integer_block(n, dense, codes, seed))


def test_levels_up_to_the_last_code_of_each_width() -> None:
    for kind, n_levels in (("i1", 128), ("i2", 3000), ("i4", 3000)):
        block, scaling = integer_block(300, ["f8"], [(kind, n_levels, False)])
        last = np.full(300, n_levels - 1).astype(kind)
        assert_exact(replace(block, levels=(Levels(last, n_levels),)), scaling)


@pytest.mark.parametrize("takes", [[1], [8], [64, 128], [1000, 1001, 2000], [1024, 2048]])
def test_several_takes_add_up(takes: list[int]) -> None:
    assert_exact(*integer_block(2500, ["f8", "i1"], [("i1", 3, False), ("i2", 4, True)]), takes=takes)


def float_block(n: int, valued: bool, n_dense: int = 3) -> tuple[Block, Scaling]:
    rng = np.random.default_rng(5)
    block = Block(
        n=n,
        dense=tuple(rng.normal(10.0, 3.0, n) for _ in range(n_dense)),
        levels=(
            Levels(rng.integers(0, 6, n).astype("i1"), 6),
            Levels(rng.integers(0, 9, n).astype("i2"), 9, rng.normal(size=n) if valued else None),
        ),
        y=np.zeros(n),
    )
    scale = 1.0 / (3.0 + np.arange(n_dense))
    return block, Scaling(np.full(n_dense, 9.7), scale, np.array([1.0, 1.0 / 0.9]))


@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize("n", [5, 1000, 30_011])
def test_floats_to_rounding(n: int, valued: bool) -> None:
    block, scaling = float_block(n, valued)
    weight, score = weights(n)
    x = np.abs(reference.matrix(block, scaling))
    sizes = (
        0.5 + x @ np.arange(1.0, block.width + 1), x.T @ np.abs(score), x.T @ np.abs(score), x.T @ (weight[:, None] * x)
    )  # fmt: skip
    # a tile adds up at most 1024 products before they go to the table
    depth = min(n, 1024) / LANES + n / 1024 + block.width + 8
    for found, expected, size in zip(products(block, scaling), truth(block, scaling), sizes, strict=True):
        assert np.all(np.abs(found - expected) <= ROUNDINGS * EPS * (depth + np.log2(n + 2)) * size + EPS)


@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize("n_dense", [0, 3, 60])
def test_takes_of_whole_tiles_have_the_bits_of_one_take(valued: bool, n_dense: int) -> None:
    """Tiles, not calls, decide the order of the sums."""
    block, scaling = float_block(5000, valued, n_dense)
    rows = tile_rows(n_dense, 2)
    for found, whole in zip(products(block, scaling, [rows, 3 * rows]), products(block, scaling), strict=True):
        assert np.array_equal(found, whole)


def test_a_workspace_carries_nothing_over() -> None:
    """Not even the infinities of an earlier chunk."""
    block, scaling = float_block(777, True, 2)
    pieces = Pieces.of(block, scaling)
    workspace = Workspace(pieces)
    weight, score = weights(777)
    poison = np.full(1024, np.nan)
    tables = Gram.zeros(pieces)
    tables.take(pieces, workspace, poison[:777], poison[:777], 0, 777)
    workspace.z[:] = workspace.by_row[:] = np.nan
    again = Gram.zeros(pieces)
    again.take(pieces, workspace, weight, score, 0, 777)
    gradient = np.zeros(block.width)
    workspace.z[:] = np.nan
    add_gradient(pieces, workspace, score, 0, 777, gradient)
    _, expected, expected_gram_gradient, expected_gram = products(block, scaling)
    assert np.array_equal(again.matrix(), expected_gram)
    assert np.array_equal(again.gradient(), expected_gram_gradient)
    assert np.array_equal(gradient, expected)


@pytest.mark.parametrize("valued", [False, True])
def test_tables_of_parts_add_to_those_of_the_whole(valued: bool) -> None:
    codes = [("i1", 3, False), ("i2", 4, valued)]
    block, scaling = integer_block(300, ["f8", "i1"], codes)
    weight, score = weights(300)
    parts = []
    for start, stop in ((0, 120), (120, 300)):
        piece = block.rows(start, stop)
        pieces = Pieces.of(piece, scaling)
        tables = Gram.zeros(pieces)
        tables.take(pieces, Workspace(pieces), weight[start:stop], score[start:stop], 0, piece.n)
        parts.append(tables)
    gradient, gram = reference.scatter(block, scaling, weight, score)
    assert np.array_equal((parts[0] + parts[1]).matrix(), gram)
    assert np.array_equal((parts[0] + parts[1]).gradient(), gradient)


def test_the_gram_is_symmetric_to_the_last_bit() -> None:
    gram = products(*float_block(3001, True))[3]
    assert np.array_equal(gram, gram.T)


def test_infinite_weights_show() -> None:
    block, scaling = integer_block(40, ["f8"], [("i1", 3, False)])
    pieces = Pieces.of(block, scaling)
    weight = np.ones(40)
    weight[17] = np.inf
    tables = Gram.zeros(pieces)
    tables.take(pieces, Workspace(pieces), weight, np.zeros(40), 0, 40)
    assert np.isposinf(tables.matrix()[0, 0])


def test_layout_of_the_tables() -> None:
    layout = Layout(7, (3, 5, 2))
    assert layout.width == 1 + 7 + 3 + 5 + 2
    assert layout.stride == 16
    # tables 3 x 5, 3 x 2 and 5 x 2, one after the other
    starts = layout.pair_starts()
    assert [starts[1], starts[2], starts[5], starts[-1]] == [0, 15, 21, 31]


@pytest.mark.parametrize("n_dense, n_factors", [(0, 0), (1, 0), (30, 0), (200, 3), (5000, 40)])
def test_tiles_are_whole_lanes_and_fit_the_cache(n_dense: int, n_factors: int) -> None:
    rows = tile_rows(n_dense, n_factors)
    assert rows % LANES == 0
    assert 64 <= rows <= 1024
    assert rows == 64 or rows * n_dense * 16 <= 96 * 1024


def misaligned(values: np.ndarray) -> np.ndarray:
    buffer = np.zeros(values.nbytes + 1, np.uint8)
    result = buffer[1:].view(values.dtype)
    result[:] = values
    return result


@pytest.mark.parametrize("spoil", [misaligned, lambda v: np.repeat(v, 2)[::2], lambda v: v[:-1], lambda v: v[:, None]])
def test_columns_the_kernels_cannot_read_are_refused(spoil: object) -> None:
    assert callable(spoil)
    block, scaling = integer_block(16, ["f8"], [("i2", 3, True)])
    piece = block.levels[0]
    assert piece.value is not None
    for bad in (
        replace(block, dense=(spoil(block.dense[0]),)),
        replace(block, levels=(Levels(spoil(piece.codes), 3, piece.value),)),
        replace(block, levels=(Levels(piece.codes, 3, spoil(piece.value)),)),
    ):
        with pytest.raises(ValueError, match="contiguous, aligned and of length 16"):
            Pieces.of(bad, scaling)


@pytest.mark.parametrize("dtype", ["f4", "i8", ">f8"])
def test_a_value_of_another_kind_is_refused(dtype: str) -> None:
    """A converted copy would be gone by the time its address is read."""
    block, scaling = integer_block(16, [], [("i2", 3, True)])
    piece = block.levels[0]
    assert piece.value is not None
    with pytest.raises(ValueError, match="float64"):
        Pieces.of(replace(block, levels=(Levels(piece.codes, 3, piece.value.astype(dtype)),)), scaling)


@pytest.mark.parametrize("dtype", [">f8", ">i4"])
def test_foreign_byte_order_is_refused(dtype: str) -> None:
    block, scaling = integer_block(16, ["f8"], [])
    with pytest.raises(ValueError, match="byte order"):
        Pieces.of(replace(block, dense=(block.dense[0].astype(dtype),)), scaling)
