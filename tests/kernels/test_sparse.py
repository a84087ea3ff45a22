"""Sparse pieces and their products against X written out: exactly where the numbers are small integers."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse as sp

from daskglm.kernels import reference
from daskglm.kernels import sparse as kernels
from daskglm.kernels.blocks import Block, Levels, Scaling, Sparse
from daskglm.kernels.products import Layout, Pieces, Scatter, Workspace, add_gradient, gather
from tests.matrices import scattered

# Sums of some thousand products in another order.
SUMS = 1e-12


def integer_sparse(n: int, p: int, density: float, rng: np.random.Generator) -> Sparse:
    """Whole numbers, some of them explicit zeros."""
    entries = int(n * p * density)
    rows, columns = rng.integers(0, max(n, 1), entries), rng.integers(0, max(p, 1), entries)
    values = rng.integers(-4, 5, entries).astype(float)
    return Sparse.of(sp.csr_array((values, (rows, columns)), shape=(n, p)))


def integer_block(
    n: int, p: int, density: float = 0.2, dense: int = 0, valued: tuple[bool, ...] = (), seed: int = 0
) -> tuple[Block, Scaling]:
    """Shifts are whole and scales powers of two: every sum is exact."""
    rng = np.random.default_rng(seed)
    block = Block(
        n=n,
        dense=tuple(rng.integers(-20, 20, n).astype(("f8", "i1", "f4")[j % 3]) for j in range(dense)),
        levels=tuple(
            Levels(rng.integers(0, 3 + k, n).astype("i1"), 3 + k, rng.integers(-5, 6, n).astype(float) if v else None)
            for k, v in enumerate(valued)
        ),
        y=np.zeros(n),
        sparse=integer_sparse(n, p, density, rng),
    )
    scales = [2.0 ** rng.integers(-2, 3, size) for size in (dense, len(valued), p)]
    level_scale = np.where(valued, scales[1], 1.0) if valued else np.ones(0)
    return block, Scaling(rng.integers(-3, 4, dense).astype(float), scales[0], level_scale, scales[2])


def products(block: Block, scaling: Scaling, takes: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
    """eta at 1, 2, ..., gradient by either kernel, Gram, with weights and scores that differ from row to row."""
    pieces = Pieces.of(block, scaling)
    workspace = Workspace(pieces)
    weight, score = weights(block.n)
    eta, gradient, scatter = np.full(block.n, 0.5), np.zeros(block.width), Scatter(pieces, workspace)
    coef = np.arange(1.0, block.width + 1)
    for start, stop in itertools.pairwise([0, *takes, block.n]):
        part = np.ascontiguousarray(eta[start:stop])
        gather(pieces, workspace, coef, start, stop, part)
        eta[start:stop] = part
        scatter.take(weight[start:stop].copy(), score[start:stop].copy(), start, stop)
        add_gradient(pieces, workspace, score[start:stop].copy(), start, stop, gradient)
    gram = scatter.result()
    return eta, gradient, gram.gradient(), gram.matrix()


def weights(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(99)
    return rng.integers(0, 8, n).astype(float), rng.integers(-8, 8, n).astype(float)


def truth(block: Block, scaling: Scaling) -> tuple[np.ndarray, ...]:
    weight, score = weights(block.n)
    eta = 0.5 + reference.gather(block, scaling, np.arange(1.0, block.width + 1))
    gradient, gram = reference.scatter(block, scaling, weight, score)
    return eta, gradient, gradient, gram


def assert_exact(block: Block, scaling: Scaling, takes: tuple[int, ...] = ()) -> None:
    for found, expected in zip(products(block, scaling, takes), truth(block, scaling), strict=True):
        assert np.array_equal(found, expected)


# -- the record --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sp.csr_array, sp.csr_matrix])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "i8", "?"])
def test_a_matrix_of_any_numbers_becomes_one_of_floats(make: type, kind: str) -> None:
    written = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 1]]).astype(kind)
    found = Sparse.of(make(written))
    assert (found.n, found.n_columns, found.indices.size) == (3, 3, 3)
    assert (found.indptr.dtype, found.indices.dtype, found.data.dtype) == (np.int64, np.int32, np.float64)
    np.testing.assert_array_equal(reference.matrix(*alone(found))[:, 1:], written)


def alone(sparse: Sparse) -> tuple[Block, Scaling]:
    return Block(sparse.n, (), (), np.zeros(sparse.n), sparse=sparse), Scaling.none(0, 0, sparse.n_columns)


def test_duplicates_are_added_and_columns_sorted_and_the_users_matrix_left_alone() -> None:
    data, indices, indptr = np.array([1.0, 2.0, 4.0, 8.0]), np.array([2, 0, 2, 1]), np.array([0, 3, 3, 4])
    given_matrix = sp.csr_array((data.copy(), indices.copy(), indptr.copy()), shape=(3, 3))
    found = Sparse.of(given_matrix)
    assert found.indices.tolist() == [0, 2, 1]
    assert found.data.tolist() == [2.0, 5.0, 8.0]
    np.testing.assert_array_equal(given_matrix.indices, indices)
    np.testing.assert_array_equal(given_matrix.data, data)


def test_what_fits_is_not_copied_and_room_behind_the_last_entry_is_cut_off() -> None:
    matrix = sp.csr_array((np.arange(5.0), np.array([0, 1, 0, 9, 9], "i4"), np.array([0, 2, 3])), shape=(2, 2))
    matrix.has_canonical_format = True
    found = Sparse.of(matrix)
    assert found.data.size == found.indices.size == 3
    assert np.shares_memory(found.data, matrix.data)


def test_rows_and_index_and_sums_of_squares() -> None:
    rng = np.random.default_rng(1)
    found = integer_sparse(40, 7, 0.3, rng)
    written = reference.matrix(*alone(found))[:, 1:]
    np.testing.assert_array_equal(reference.matrix(*alone(found.rows(11, 30)))[:, 1:], written[11:30])
    np.testing.assert_array_equal(reference.matrix(*alone(found.rows(40, 40)))[:, 1:], written[:0])
    for index in ([], [5], [39, 0, 0, 17], np.flatnonzero(rng.random(40) < 0.5)):
        rows = found.take(np.array(index, np.intp))
        np.testing.assert_array_equal(reference.matrix(*alone(rows))[:, 1:], written[np.array(index, np.intp)])
    np.testing.assert_array_equal(found.square_sums(), (written**2).sum(axis=0))
    expected = np.repeat(np.arange(40), np.diff(found.indptr))
    np.testing.assert_array_equal(found.row_of(np.arange(found.data.size)), expected)
    lengths = np.diff(found.indptr)
    assert found.pairs == sum(int(k) * (int(k) + 1) // 2 for k in lengths)


def test_a_block_counts_the_bytes_and_columns_of_its_sparse_piece() -> None:
    block, _ = integer_block(30, 5, dense=1, valued=(True,))
    assert block.sparse is not None
    assert block.width == 1 + 1 + 3 + 5
    assert block.nbytes == replace(block, sparse=None).nbytes + block.sparse.nbytes
    assert block.rows(3, 9).sparse is not None
    assert block.rows(3, 9).nbytes < block.nbytes


# -- products ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 9, 300, 1025])
@pytest.mark.parametrize("p", [1, 2, 63, 64, 65, 200])
def test_sparse_columns_alone(n: int, p: int) -> None:
    assert_exact(*integer_block(n, p))


@pytest.mark.parametrize("dense", [0, 1, 4])
@pytest.mark.parametrize("valued", [(), (False,), (True,), (False, True, False)])
@pytest.mark.parametrize("takes", [(), (1,), (64, 200)])
def test_beside_dense_columns_and_levels(dense: int, valued: tuple[bool, ...], takes: tuple[int, ...]) -> None:
    assert_exact(*integer_block(305, 20, dense=dense, valued=valued), takes)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 300),
    st.integers(1, 150),
    st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    st.integers(0, 3),
    st.lists(st.booleans(), max_size=3),
    st.integers(0, 2**31),
)
def test_any_block(n: int, p: int, density: float, dense: int, valued: list[bool], seed: int) -> None:
    assert_exact(*integer_block(n, p, density, dense, tuple(valued), seed))


def float_block(n: int, p: int, seed: int = 0) -> tuple[Block, Scaling]:
    rng = np.random.default_rng(seed)
    matrix = scattered((n, p), 0.2, rng)
    levels = (Levels(rng.integers(0, 4, n).astype("i1"), 4, rng.normal(size=n)),)
    block = Block(n, (rng.normal(3.0, 2.0, n),), levels, np.zeros(n), sparse=Sparse.of(matrix))
    return block, Scaling(np.array([2.9]), np.array([0.5]), np.array([1.1]), rng.uniform(0.5, 2.0, p))


def bits(block: Block, scaling: Scaling, takes: tuple[int, ...] = ()) -> bytes:
    return b"".join(array.tobytes() for array in products(block, scaling, takes))


@pytest.mark.parametrize("panel", [(1, 1), (1, 7), (8 * 100 * 30, 1), (1 << 30, 1)])
def test_the_panel_changes_no_bit(monkeypatch: pytest.MonkeyPatch, panel: tuple[int, int]) -> None:
    block, scaling = float_block(700, 100)
    before = bits(block, scaling)
    monkeypatch.setattr(kernels, "PANEL_BYTES", panel[0])
    monkeypatch.setattr(kernels, "PANEL_ROWS", panel[1])
    assert bits(block, scaling) == before


def test_real_numbers_to_rounding() -> None:
    block, scaling = float_block(2_000, 50)
    for found, expected in zip(products(block, scaling), truth(block, scaling), strict=True):
        np.testing.assert_allclose(found, expected, rtol=SUMS, atol=SUMS * np.abs(expected).max())


def test_only_pairs_that_some_row_has_are_held() -> None:
    """Two groups of columns that no row has both of."""
    rng = np.random.default_rng(0)
    one, other = (scattered((50, 30), 0.3, rng) for _ in range(2))
    found = Sparse.of(sp.block_diag([one, other], format="csr"))
    table = kernels.products(found, np.ones(60), (), np.ones(0), np.ones(100))
    written = table.toarray()
    assert table.nnz == np.count_nonzero(written) <= 2 * 30 * 31 // 2
    assert not written[:30, 30:].any()
    np.testing.assert_array_equal(written, np.triu(written))


def test_grams_of_leaves_add() -> None:
    block, scaling = integer_block(400, 30, 0.05, dense=2, valued=(True, False))
    parts = []
    weight, score = weights(400)
    for part in (slice(0, 150), slice(150, 400)):
        rows = block.rows(part.start, part.stop)
        pieces = Pieces.of(rows, scaling)
        scatter = Scatter(pieces, Workspace(pieces))
        scatter.take(weight[part].copy(), score[part].copy(), 0, rows.n)
        parts.append(scatter.result())
    whole = parts[0] + parts[1]
    gradient, gram = reference.scatter(block, scaling, weight, score)
    np.testing.assert_array_equal(whole.gradient(), gradient)
    np.testing.assert_array_equal(whole.matrix(), gram)
    again = pickle.loads(pickle.dumps(parts[0])) + parts[1]
    np.testing.assert_array_equal(again.matrix(), gram)


@pytest.mark.parametrize("density", [0.002, 0.05, 0.9])
def test_a_gram_takes_no_more_than_was_foreseen(density: float) -> None:
    block, scaling = integer_block(300, 150, density, dense=2, valued=(False, False))
    pieces = Pieces.of(block, scaling)
    scatter = Scatter(pieces, Workspace(pieces))
    scatter.take(np.ones(300), np.ones(300), 0, 300)
    gram = scatter.result()
    assert gram.sparse is not None
    assert block.sparse is not None
    table = gram.sparse.products
    held = gram.sparse.cross.nbytes + table.data.nbytes + table.indices.nbytes
    held += sum(array.nbytes for array in (gram.cross, gram.square, gram.pairs))
    layout = Layout.of(pieces)
    assert held <= layout.nbytes(block.sparse.pairs) <= layout.nbytes()
    if density < 0.01:
        assert layout.nbytes(block.sparse.pairs) < layout.nbytes() / 5


@pytest.mark.parametrize("dense, valued", [(0, ()), (2, (True,))])
def test_quadratic_forms(dense: int, valued: tuple[bool, ...]) -> None:
    block, scaling = integer_block(120, 40, dense=dense, valued=valued)
    assert block.sparse is not None
    rng = np.random.default_rng(3)
    root = rng.integers(-3, 4, (block.width, block.width)).astype(float)
    matrix = root + root.T
    x = reference.matrix(block, scaling)
    base = reference.matrix(replace(block, sparse=None), scaling)
    found = kernels.quadratic(block.sparse, scaling.sparse_scale, base, matrix)
    np.testing.assert_array_equal(found, np.einsum("ij,jk,ik->i", x, matrix, x))


def test_arrays_that_cannot_be_written_to_will_do() -> None:
    block, scaling = integer_block(80, 10)
    assert block.sparse is not None
    for array in (block.sparse.indptr, block.sparse.indices, block.sparse.data):
        array.flags.writeable = False
    assert_exact(block, scaling)


def test_a_piece_of_another_shape_or_kind_is_refused() -> None:
    block, scaling = integer_block(20, 5)
    assert block.sparse is not None
    for wrong in (
        replace(block, sparse=block.sparse.rows(0, 19)),
        replace(block, sparse=replace(block.sparse, n_columns=6)),
        replace(block, sparse=replace(block.sparse, data=block.sparse.data.astype("f4"))),
        replace(block, sparse=replace(block.sparse, indices=block.sparse.indices[::2])),
        replace(block, sparse=replace(block.sparse, data=block.sparse.data[1:].copy())),
    ):
        with pytest.raises(ValueError, match="sparse piece"):
            Pieces.of(wrong, scaling)
