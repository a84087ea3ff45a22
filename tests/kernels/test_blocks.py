"""Blocks: columns in a form the kernels can read, and rows cut from them."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.kernels.blocks import CODE_KINDS, NUMERIC_KINDS, Block, Levels, Scaling, as_column, code_dtype
from daskglm.kernels.reference import matrix

EVERY_DTYPE = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "<f8", ">f8", ">i4", ">u2"]
# What the kernels take without a copy, and the narrowest kind that holds the others.
KEPT = {
    "?": "i1", "u1": "i2", "u2": "i4", "u4": "i8", "u8": "f8", "f2": "f8", "g": "f8", ">f8": "f8", ">i4": "i4",
    "<f8": "f8", ">u2": "i4",
}  # fmt: skip


@pytest.mark.parametrize("n_levels, dtype", [(1, "i1"), (128, "i1"), (129, "i2"), (32768, "i2"), (32769, "i4")])
def test_code_dtype_is_the_narrowest_that_holds_the_last_code(n_levels: int, dtype: str) -> None:
    assert code_dtype(n_levels) == np.dtype(dtype)
    assert np.array(n_levels - 1).astype(code_dtype(n_levels)) == n_levels - 1


def test_too_many_levels() -> None:
    assert code_dtype(2**31) == np.dtype("i4")
    with pytest.raises(OverflowError, match="2147483649 levels"):
        code_dtype(2**31 + 1)


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_as_column_keeps_the_values_in_a_kind_the_kernels_read(dtype: str) -> None:
    values = np.array([0, 1, 1, 0, 1]).astype(dtype)
    if values.dtype.kind in "iu":
        values[-1] = np.iinfo(values.dtype).max
    column = as_column(values)
    assert column.dtype == np.dtype(KEPT.get(dtype, dtype))
    assert column.dtype.str[1:] in NUMERIC_KINDS
    assert column.dtype.isnative
    assert column.flags.c_contiguous
    assert column.flags.aligned
    # 2^64 - 1 rounds to 2^64; everything else is exact
    truth = [float(int(v)) if values.dtype.kind in "iu?" else float(v) for v in values]
    assert [float(v) for v in column] == truth


@pytest.mark.parametrize("dtype", NUMERIC_KINDS)
def test_as_column_does_not_copy_what_is_fine(dtype: str) -> None:
    values = np.arange(9).astype(dtype)
    assert np.shares_memory(as_column(values), values)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "i4", "i8"])
def test_as_column_repairs_misaligned_and_strided_columns(dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    buffer = np.zeros(8 * size + 1, np.uint8)
    misaligned = buffer[1:].view(dtype)
    misaligned[:] = np.arange(8)
    strided = np.arange(16).astype(dtype)[::2]
    assert not misaligned.flags.aligned
    assert not strided.flags.c_contiguous
    for values, truth in ((misaligned, np.arange(8)), (strided, np.arange(0, 16, 2)), (strided[::-1], strided[::-1])):
        column = as_column(values)
        assert column.flags.aligned
        assert column.flags.c_contiguous
        assert np.array_equal(column, truth)


def test_as_column_of_a_list() -> None:
    assert as_column([1.5, 2]).tolist() == [1.5, 2.0]


def block(n: int = 11) -> Block:
    rng = np.random.default_rng(3)
    return Block(
        n=n,
        dense=(rng.normal(size=n), rng.integers(-9, 9, n).astype("i1")),
        levels=(
            Levels(rng.integers(0, 3, n).astype("i1"), 3),
            Levels(rng.integers(0, 4, n).astype("i2"), 4, rng.random(n)),
        ),
        y=rng.random(n),
        weight=rng.random(n),
        offset=rng.random(n),
        trials=rng.integers(1, 5, n).astype("i4"),
    )


@pytest.mark.parametrize("start, stop", [(0, 11), (3, 9), (4, 4), (10, 11)])
def test_rows_are_those_of_the_matrix(start: int, stop: int) -> None:
    whole = block()
    part = whole.rows(start, stop)
    identity = Scaling.none(2, 2)
    assert part.n == stop - start
    assert part.width == whole.width == matrix(whole, identity).shape[1] == 1 + 2 + 3 + 4
    assert np.array_equal(matrix(part, identity), matrix(whole, identity)[start:stop])
    for name in ("y", "weight", "offset", "trials"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[start:stop])
        assert start == stop or np.shares_memory(getattr(part, name), getattr(whole, name))


@pytest.mark.parametrize("index", [[], [3], [10, 0, 4], list(range(11))])
def test_rows_of_an_index_are_those_of_the_matrix(index: list[int]) -> None:
    whole, at = block(), np.array(index, np.intp)
    part = whole.take(at)
    identity = Scaling.none(2, 2)
    assert (part.n, part.width) == (len(index), whole.width)
    assert np.array_equal(matrix(part, identity), matrix(whole, identity)[at])
    for name in ("y", "weight", "offset", "trials"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[at])
    bare = Block(5, (), (), np.arange(5.0)).take(np.array([4, 1]))
    assert (bare.y.tolist(), bare.weight, bare.offset, bare.trials) == ([4.0, 1.0], None, None, None)


def test_rows_of_a_block_without_extras() -> None:
    part = Block(5, (), (), np.arange(5.0)).rows(1, 4)
    assert part.y.tolist() == [1.0, 2.0, 3.0]
    assert (part.weight, part.offset, part.trials) == (None, None, None)


def test_every_array_is_counted_once() -> None:
    x = np.zeros(10)
    codes = np.zeros(10, "i1")
    shared = Block(10, (x, x), (Levels(codes, 1, x), Levels(codes, 1)), y=x, weight=x, trials=np.zeros(10, "i4"))
    assert len(shared.arrays()) == 3
    assert shared.nbytes == 10 * 8 + 10 + 10 * 4
    # y, dense f8 and i1, codes i1 and i2, value, weight, offset, trials
    assert block().nbytes == 11 * (8 + 8 + 1 + 1 + 2 + 8 + 8 + 8 + 4)


def test_code_kinds_are_numeric_kinds() -> None:
    assert {name: NUMERIC_KINDS[name] for name in CODE_KINDS} == CODE_KINDS
