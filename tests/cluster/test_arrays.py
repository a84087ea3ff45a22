"""Arrays that come from another process: wherever their message put them, they end up where kernels read the same bits."""

from __future__ import annotations

import pickle
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from daskglm.cluster.arrays import array_bytes, landed
from daskglm.cluster.cells import Kept
from daskglm.cluster.worker import Answer, Shelf
from daskglm.design.columns import Coded, Columns, Ledger
from daskglm.kernels.blocks import Block, Sparse
from daskglm.totals.moments import Moments, Request, moments
from tests.totals.problems import Problem, problem


def arrived(value: Any, shift: int) -> Any:
    """What another process makes of it when its buffers begin so many bytes beside where they should."""
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    received = []
    for buffer in buffers:
        raw = buffer.raw()
        room = np.zeros(raw.nbytes + 128, np.uint8)
        first = -room.ctypes.data % 64 + shift
        room[first : first + raw.nbytes] = np.frombuffer(raw, np.uint8)
        received.append(room[first : first + raw.nbytes].data)
    return pickle.loads(message, buffers=received)


def columns(n: int) -> Columns:
    """Columns with every kind of array that they can have."""
    generator = np.random.default_rng(1)
    matrix = Sparse.of(csr_array(generator.poisson(0.3, (n, 5)).astype(float)))
    return Columns(
        n,
        {"x": generator.normal(size=n), "small": generator.integers(0, 9, n).astype("i2")},
        {"s": Coded(generator.integers(0, 3, n).astype("i1"), ("a", "b", "c"))},
        {},
        generator.poisson(2.0, n).astype("i4"),
        generator.uniform(size=n),
        np.full(n, 3, "i1"),
        generator.normal(size=n),
        Ledger(read=n, used=n),
        np.arange(n),
        generator.uniform(size=n),
        matrix,
        matrix.square_sums(),
    )


def problems() -> list[Problem]:
    return [
        problem("poisson", "log", 301),
        problem("gamma", "log", 1_003, weight="real", offset=True, valued=True),
        problem("binomial", "logit", 77, trials=True),
        problem("poisson", "log", 301, sparse=4),
    ]


def sums(one: Problem, block: Block) -> Moments:
    return moments(block, one.model, Request(one.coef, 2, null=0.1, statistics=True, meat=True, means=True))


def parts(value: Any) -> Any:
    """A record as plain words, of arrays their kind and bytes."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if is_dataclass(value):
        return [(field.name, parts(getattr(value, field.name))) for field in fields(value)]
    if isinstance(value, dict):
        return [(key, parts(entry)) for key, entry in value.items()]
    if isinstance(value, (tuple, list)):
        return [parts(entry) for entry in value]
    if isinstance(value, csr_array):
        return value.shape, parts([value.data, value.indices, value.indptr])
    return repr(value)


def same(one: Any, other: Any) -> bool:
    """Whether two records are alike to the last bit."""
    return bool(parts(one) == parts(other))


def well(value: Any) -> bool:
    """Whether no array inside would have to move."""
    return landed(value) is value


@pytest.mark.parametrize("shift", [1, 2, 4, 7, 8, 24])
@pytest.mark.parametrize("number", range(4))
def test_blocks_that_arrive_anywhere_give_the_same_bits(number: int, shift: int) -> None:
    one = problems()[number]
    expected = sums(one, one.block)
    if shift % 8:
        assert not well(arrived(one.block, shift))
    kept = arrived(Kept(one.block, one.block.n), shift)
    assert well(kept.item)
    assert same(expected, sums(one, kept.item))
    shelf = arrived(Shelf((Kept(one.block, one.block.n),), 0, aside=(Kept(one.block, one.block.n),)), shift)
    assert same(expected, sums(one, shelf.cells[0].item))
    assert same(expected, sums(one, shelf.aside[0].item))


@pytest.mark.parametrize("shift", [0, 1, 2, 4])
def test_columns_that_arrive_anywhere_are_the_same(shift: int) -> None:
    one = columns(101)
    other = arrived(Kept(one, 101), shift).item
    assert well(other)
    assert same(one, other)
    assert same(one.sample(0.3), other.sample(0.3))


@pytest.mark.parametrize("shift", [1, 4, 12])
@pytest.mark.parametrize("number", range(4))
def test_sums_that_arrive_anywhere_add_to_the_same_bits(number: int, shift: int) -> None:
    one = problems()[number]
    record = sums(one, one.block)
    answer = arrived(Answer(record, 1, {"there": "x"}), shift)
    assert well(answer.record)
    assert same(record, answer.record)
    assert (answer.loads, answer.makers) == (1, {"there": "x"})
    expected, found = one.model.gram((record + record).tables), one.model.gram((answer.record + record).tables)
    assert expected is not None
    assert found is not None
    assert expected.tobytes() == found.tobytes()


def test_what_lies_well_is_not_copied() -> None:
    one = columns(50)
    assert landed(one) is one
    assert landed((1, [one], {"a": one}))[1][0] is one
    block = replace(problem("poisson", "log", 30, sparse=3).block, trials=None)
    assert landed(block) is block


def test_every_byte_is_counted_once() -> None:
    x = np.zeros((10, 3))
    matrix = csr_array(np.eye(4))
    compressed = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    assert array_bytes([x, x, (x, {"a": x})]) == 240
    assert array_bytes({"matrix": matrix, "words": ("a",) * 9, "none": None}) == compressed
    assert array_bytes(3.0) == array_bytes("abc") == 0
    record = sums(problems()[0], problems()[0].block)
    assert record.tables is not None
    assert array_bytes(record) > 2 * array_bytes(record.tables)


@pytest.mark.parametrize("number", range(4))
def test_blocks_say_how_large_they_are(number: int) -> None:
    block = problems()[number].block
    assert block.nbytes == array_bytes(block)


def test_columns_say_how_large_they_are() -> None:
    assert columns(101).nbytes == array_bytes(columns(101))
