"""The one order in which records are added, against its definition by recursion."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskglm.partitions import TreeSum, tree_sum


class Term:
    """A record that remembers how it came about."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __add__(self, other: Term) -> Term:
        return Term(f"({self.text}+{other.text})")


def by_definition(texts: list[str]) -> str:
    """Halves of a full tree; otherwise the largest full tree that fits, plus the rest."""
    if len(texts) == 1:
        return texts[0]
    full = 1
    while 2 * full < len(texts):
        full *= 2
    return f"({by_definition(texts[:full])}+{by_definition(texts[full:])})"


def leaves(n: int) -> list[str]:
    return [str(i) for i in range(n)]


@pytest.mark.parametrize("n", range(1, 70))
def test_association(n: int) -> None:
    assert tree_sum(Term(text) for text in leaves(n)).text == by_definition(leaves(n))


def test_association_written_out() -> None:
    assert tree_sum(Term(text) for text in leaves(7)).text == "(((0+1)+(2+3))+((4+5)+6))"


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 200), st.randoms(use_true_random=False))
def test_aligned_subtrees_give_the_same_tree(n: int, choice: random.Random) -> None:
    """Whatever aligned runs of 2^k leaves are handed over as one."""
    tree: TreeSum[Term] = TreeSum()
    at = 0
    while at < n:
        possible = [k for k in range(9) if at % 2**k == 0 and at + 2**k <= n]
        height = choice.choice(possible)
        tree.push(Term(by_definition(leaves(n)[at : at + 2**height])), height)
        at += 2**height
    assert tree.result().text == by_definition(leaves(n))


@given(st.lists(st.floats(-1e16, 1e16), min_size=1, max_size=300))
def test_floats_have_the_bits_of_the_definition(values: list[float]) -> None:
    def halves(part: list[float]) -> float:
        if len(part) == 1:
            return part[0]
        full = 1
        while 2 * full < len(part):
            full *= 2
        return halves(part[:full]) + halves(part[full:])

    assert tree_sum(values) == halves(values)


@pytest.mark.parametrize("n", [1, 4, 5, 12, 31])
def test_one_more_leaf_moves_no_other(n: int) -> None:
    """Full subtrees of the first n leaves are found again in the sum of n + 1."""
    longer = tree_sum(Term(text) for text in leaves(n + 1)).text
    at = 0
    for k in reversed(range(n.bit_length())):
        if n >> k & 1:
            assert by_definition(leaves(n)[at : at + 2**k]) in longer
            at += 2**k


def test_the_result_may_be_looked_at_on_the_way() -> None:
    tree: TreeSum[Term] = TreeSum()
    for n, text in enumerate(leaves(20), 1):
        tree.push(Term(text))
        assert tree.result().text == by_definition(leaves(n))


def test_no_leaves_have_no_sum() -> None:
    with pytest.raises(ValueError, match="no leaves"):
        tree_sum([])
