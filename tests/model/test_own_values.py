"""What is recorded of functions of one's own: values on a grid, and a digest of their code."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskglm as dg
from daskglm.errors import DesignError
from daskglm.model.own import Probe, code_of, grid, verify_values
from tests.model import home_made

FACTOR = 2.0


def doubled(mu: Any) -> Any:
    """Twice."""
    return FACTOR * mu


def made(power: float, default: float = 1.0) -> Any:
    def function(mu: Any, shift: float = default) -> Any:
        return np.sum([m**power for m in (mu, shift)])

    return function


class Power:
    """A function with a state."""

    def __init__(self, power: float) -> None:
        self.power = power

    def __call__(self, mu: Any) -> Any:
        return mu**self.power


def test_the_digest_of_code_differs_where_what_it_does_can() -> None:
    table = np.arange(3.0)
    different = [
        doubled, made(1.0), made(2.0), made(1.0, 2.0), np.exp, np.log, len, Power(1.0), Power(2.0), Power(1.0).__call__,
        functools.partial(pow, 2), functools.partial(pow, 3), lambda mu: mu + 1, lambda mu: mu + 2, lambda mu: mu - 1,
        lambda mu: np.interp(mu, table, table), lambda mu: home_made.squared(mu), home_made.squared,
    ]  # fmt: skip
    assert len({code_of(function) for function in different}) == len(different)
    assert code_of(made(1.0)) == code_of(made(1.0))
    assert code_of(Power(2.0)) == code_of(Power(2.0))


def test_the_digest_of_code_sees_values_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_of(doubled)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert code_of(doubled) != before


def test_the_digest_of_code_is_the_same_in_every_process() -> None:
    code = (
        "from daskglm.model.own import code_of; from tests.model import home_made, test_own_values\n"
        "print(code_of(home_made.truncated_base), code_of(test_own_values.doubled), code_of(test_own_values.made(2.0)))"
    )
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [code_of(home_made.truncated_base), code_of(doubled), code_of(made(2.0))]


def test_values_tell_functions_apart_and_rounding_does_not() -> None:
    probe = Probe(np.exp, grid(-np.inf, np.inf))
    assert probe.difference(probe.values()) is None
    assert probe.difference([value * (1.0 + 1e-12) for value in probe.values()]) is None
    found = probe.difference([value * (1.0 + 1e-6) for value in probe.values()])
    assert found is not None
    assert found.startswith("at -3 it gave 0.0497871")
    nothing = Probe(lambda mu: mu + "text", grid(0.0, 1.0))
    assert np.isnan(nothing.values()).all()
    assert nothing.difference(nothing.values()) is None


def squared_or_cubed(mu: Any) -> Any:
    return mu**FACTOR


def logarithm(mu: Any) -> Any:
    return np.log(mu) / FACTOR


def exponential(eta: Any) -> Any:
    return np.exp(FACTOR * eta)


def chances(theta: Any) -> Any:
    return np.exp(theta) + (FACTOR - 2.0) * theta


OBJECTS: dict[str, Any] = {
    "quasi": lambda: dg.families.Quasi(squared_or_cubed, mean_range=(0.0, np.inf)),
    "link": lambda: dg.links.Custom(logarithm, exponential, mean_range=(0.0, np.inf)),
    "family": lambda: dg.families.ExponentialFamily(
        chances, log_base_measure=home_made.one_over_factorial, support="counts"
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_document_is_not_read_with_another_function_of_the_same_path(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = OBJECTS[name]()
    document = one.document()
    type(one).from_document(document)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    with pytest.raises(
        DesignError, match=r"is not the function that the model was made with: at .* it gave .* and now"
    ):
        type(one).from_document(document)
    # a document of an earlier version holds no values
    del document["values"]
    type(one).from_document(document)


def test_what_was_not_recorded_is_not_compared() -> None:
    verify_values({"g": Probe(np.exp, grid(0.0, 1.0))}, None)
    verify_values({"g": Probe(np.exp, grid(0.0, 1.0))}, {})
