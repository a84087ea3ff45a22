"""The two orders and scales of a model's parameters: reported by name, and as the arithmetic holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.design.parameters import Parameters

# x'b through shifted and scaled columns.
ROUNDING = 1e-12


def frame(n: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"x": rng.normal(7.0, 2.0, n), "a": rng.choice(["p", "q"], n), "z": rng.uniform(1.0, 2.0, n)})
    return data.assign(y=rng.normal(size=n), k=rng.choice(["no", "perhaps", "yes"], n))


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "number": ("y ~ x + a + x:z", {}),
    "number without intercept": ("y ~ x + a - 1", {}),
    "classes": ("k ~ x + a + x:z", {"family": "multinomial"}),
    "classes without intercept": ("k ~ x + a - 1", {"family": "multinomial"}),
    "ordered": ("k ~ x + a + x:z", {"family": "ordinal"}),
}


@pytest.fixture(scope="module")
def fits() -> dict[str, dg.Fit]:
    return {kind: dg.glm(formula, frame(), **options) for kind, (formula, options) in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_names(fits: dict[str, dg.Fit], kind: str) -> None:
    parameters = fits[kind].record.parameters
    columns = list(parameters.design.names)
    classes = ["no", "perhaps", "yes"]
    expected = {
        "number": columns,
        "classes": [f"{label}:{name}" for label in classes[1:] for name in columns],
        "ordered": [*columns[1:], "no|perhaps", "perhaps|yes"],
    }[parameters.kind]
    assert list(parameters.names) == expected
    assert parameters.n == len(expected) == len(parameters.term_of)
    terms = dict(zip(parameters.design.names, parameters.design.term_of, strict=True))
    for name, term in zip(parameters.names, parameters.term_of, strict=True):
        assert term == (
            "Intercept" if "|" in name else terms[name.split(":", 1)[-1] if parameters.kind == "classes" else name]
        )
    assert parameters.classes == (() if parameters.kind == "number" else tuple(classes))


@pytest.mark.parametrize("kind", KINDS)
def test_both_scales_have_the_same_predictors(fits: dict[str, dg.Fit], kind: str) -> None:
    """X b with the user's columns and coefficients; the scaled columns with the arithmetic's own."""
    parameters = fits[kind].record.parameters
    design = parameters.design
    rng = np.random.default_rng(1)
    reported = rng.normal(size=parameters.n)
    own = parameters.own(reported)
    data = frame()
    x = np.column_stack([column(name, data) for name in design.names])
    scaled = scaled_columns(design, x)
    q = len(parameters.thresholds)
    if parameters.kind == "ordered":
        # t_k - eta, the thresholds first in the arithmetic's own order
        found = own[:q, None] - scaled[:, 1:] @ own[q:]
        truth = reported[-q:, None] - x[:, 1:] @ reported[:-q]
    else:
        found = own.reshape(-1, x.shape[1]) @ scaled.T
        truth = reported.reshape(-1, x.shape[1]) @ x.T
    assert np.allclose(found, truth, rtol=ROUNDING, atol=ROUNDING * 100)
    assert np.allclose(parameters.coefficients(own), reported, rtol=ROUNDING, atol=ROUNDING * 10)


def column(name: str, data: pd.DataFrame) -> np.ndarray:
    """A column of X by the name of its parameter."""
    parts = {
        "Intercept": 1.0,
        "x": data.x,
        "z": data.z,
        "a[T.q]": data.a == "q",
        "a[q]": data.a == "q",
        "a[p]": data.a == "p",
    }
    value = np.ones(len(data))
    for part in name.split(":"):
        value = value * np.asarray(parts[part], float)
    return value


def scaled_columns(design: Any, x: np.ndarray) -> np.ndarray:
    """The columns with which the arithmetic works: X = Z A, with A the matrix of the rescaling."""
    return x @ design.unscaling().matrix()


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_go_with_the_coefficients(fits: dict[str, dg.Fit], kind: str) -> None:
    """A C A', A column by column from the coefficients."""
    parameters = fits[kind].record.parameters
    rng = np.random.default_rng(2)
    root = rng.normal(size=(parameters.n, parameters.n))
    own = root @ root.T
    matrix = np.column_stack([parameters.coefficients(row) for row in np.eye(parameters.n)])
    truth = matrix @ own @ matrix.T
    assert np.allclose(parameters.covariance(own), truth, rtol=ROUNDING, atol=ROUNDING * np.abs(truth).max())
    assert np.allclose(parameters.own_covariance(truth), own, rtol=1e-9, atol=1e-9 * np.abs(own).max())


@pytest.mark.parametrize("kind", KINDS)
def test_what_belongs_to_a_parameter_moves_with_it(fits: dict[str, dg.Fit], kind: str) -> None:
    """A scaled coefficient alone changes its own parameter, and the intercepts or thresholds."""
    parameters = fits[kind].record.parameters
    places = parameters.reported(np.arange(parameters.n))
    assert sorted(places) == list(range(parameters.n))
    constants = {j for j, term in enumerate(parameters.term_of) if term == "Intercept"}
    for j in range(parameters.n):
        changed = set(np.flatnonzero(parameters.coefficients(np.eye(parameters.n)[j])))
        at = int(np.flatnonzero(places == j)[0])
        assert at in changed
        assert changed - {at} <= constants


def test_a_design_without_classes_has_none() -> None:
    fit = dg.glm("y ~ x", frame())
    assert Parameters(fit.record.design).thresholds == ()
    assert Parameters(fit.record.design).names == ("Intercept", "x")
