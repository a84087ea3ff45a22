"""Derivatives of expressions against differences, for every function that a formula may use."""

from __future__ import annotations

import numpy as np
import pytest

from daskglm.design.expressions import FUNCTIONS, parse
from daskglm.design.slopes import slope

VALUES = {
    "x": np.array([0.3, 0.7, 1.4, 2.6, 5.2]),
    "z": np.array([1.1, -0.4, 2.0, 3.3, -1.9]),
    "a": np.array(["p", "q", "p", "q", "q"], object),
}
ONE = [f"{name}(x)" for name in FUNCTIONS if name not in ("minimum", "maximum", "clip", "where", "round")]
TEXTS = [
    *ONE, "round(x, 0)", "minimum(x, 1)", "maximum(z * x, x**2)", "clip(x, 0.5, 3)", "clip(z, x - 1, x + 1)",
    "where(x > 1, x**2, 3 * x)", 'where(a == "q", x, 0)', '(a == "q") * x', "(x > 1) * z", "x", "-x", "+x", "x * z", "x / z",
    "z / x", "x**3", "x**z", "2**x", "x**0", "x - z * x", "x // 2", "x % 2", "5 % x", "log(x) * sqrt(x + 1) / exp(-x)",
    "I(x**2)", "np.log(x)", "(x > 1) & (z < 2)", "x > 1", "z", "3", "sin(cos(x)) + tan(x / 3)",
]  # fmt: skip
# The fourth difference of a smooth function at a step of 1e-3 of values of about one.
DIFFERENCES = 1e-8


@pytest.mark.parametrize("text", TEXTS)
def test_slope(text: str) -> None:
    expression = parse(text)

    def moved(h: float) -> np.ndarray:
        found = expression.evaluate({**VALUES, "x": VALUES["x"] + h})
        return np.broadcast_to(np.asarray(found, float), (5,))

    h = 1e-3
    expected = (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * h)
    np.testing.assert_allclose(slope(expression, VALUES, "x"), expected, rtol=DIFFERENCES, atol=DIFFERENCES)


def test_every_function_has_a_slope() -> None:
    assert all(any(f"{name}(" in text for text in TEXTS) for name in FUNCTIONS)


def test_powers_at_zero() -> None:
    at = {"x": np.array([0.0])}
    assert slope(parse("x**2"), at, "x") == 0.0
    assert slope(parse("x**1"), at, "x") == 1.0
    assert slope(parse("x**0"), at, "x") == 0.0


def test_integers_are_numbers() -> None:
    np.testing.assert_array_equal(slope(parse("x**2"), {"x": np.array([1, 2, 3], np.int8)}, "x"), [2.0, 4.0, 6.0])
