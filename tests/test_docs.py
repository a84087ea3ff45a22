"""What the documentation shows is what happens."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import daskglm as dg
from daskglm.model import describe

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_examples_of_a_page(page: Path) -> None:
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted > 0
    assert found.failed == 0


def test_examples_of_describe() -> None:
    found = doctest.testmod(describe)
    assert found.attempted > 0
    assert found.failed == 0


def test_examples_of_methods() -> None:
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for kind in (dg.Fit, dg.Fits):
        for name in sorted(set(dir(kind)) - set(dir(object))):
            for example in finder.find(getattr(kind, name), name, globs={}):
                runner.run(example)
    assert runner.summarize(verbose=False).attempted >= 4
    assert runner.summarize(verbose=False).failed == 0


def test_docstrings_are_wrapped() -> None:
    """No line of help() is much longer than a line of code, and no option begins within a line of another."""
    public = [getattr(dg, name) for name in dg.__all__ if callable(getattr(dg, name))]
    public += [value for kind in (dg.Fit, dg.Fits) for name, value in vars(kind).items() if not name.startswith("_")]
    for value in public:
        lines = (inspect.getdoc(value) or "").splitlines()
        assert max(map(len, lines), default=0) <= 125, value
        assert not [line for line in lines if ">>> " in line.lstrip().removeprefix(">>> ")], value
    lines = (inspect.getdoc(dg.glm) or "").splitlines()[2:]
    options = {name.strip() for line in lines if not line.startswith(" ") for name in line.partition(":")[0].split(",")}
    asked = set(inspect.signature(dg.glm).parameters) - {"X", "y", "penalty", "constraints", "solver", "options"}
    assert asked - options == {"exposure"}
