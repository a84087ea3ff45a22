"""Marginal means and contrasts against R's emmeans, average effects against differences of mean predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg

from .cases import HERE, lake, options, vector

CASES: list[dict[str, Any]] = json.loads((HERE / "effects.json").read_text())["cases"]
# R's own steps end at a scaled score of 1e-9, and its errors are those of the step before the last.
MEANS = 1e-6
# R's ptukey and qtukey are accurate to about 1e-8 and 1e-4 (their eps of 1e-3 in qtukey is on the statistic).
TUKEY_LIMITS = 1e-4
TUKEY_P = 1e-7
# Differences of differences.
EFFECTS = 1e-6


def fitted(case: dict[str, Any], folder: Path) -> tuple[dg.Fit, Path]:
    data = lake(case, folder, 3)
    return dg.glm(case["formula"], data, **options(case)), data


def close(found: Any, expected: list[float | None], size: Any, tolerance: float) -> None:
    """Estimates are measured by their errors, so that those that are zero but for rounding are."""
    values = vector(expected)
    scale = np.maximum(np.abs(values), np.asarray(size, float))
    assert np.max(np.abs(np.asarray(found, float) - values) / scale) < tolerance


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_means_and_contrasts_are_those_of_emmeans(case: dict[str, Any], tmp_path: Path) -> None:
    fit, data = fitted(case, tmp_path)
    for asked in case["requests"].values():
        means = fit.emmeans(
            asked["specs"], data, at=asked["at"], by=asked["by"], weights=asked["weights"], type=asked["type"],
            level=asked["level"], offset=asked["offset"],
        )  # fmt: skip
        check(means.table, asked["means"], MEANS)
        if "method" in asked:
            tukey = asked["adjust"] == "tukey"
            found = means.contrasts(asked["method"], asked["adjust"])
            check(found, asked["contrasts"], TUKEY_LIMITS if tukey else MEANS, TUKEY_P if tukey else MEANS)


def check(found: pd.DataFrame, expected: dict[str, Any], limits: float, chance: float = MEANS) -> None:
    se = expected["se"]
    close(found["estimate"], expected["estimate"], se, MEANS)
    close(found["se"], se, 0.0, MEANS)
    for name in ("lower", "upper"):
        close(found[name], expected[name], se, limits)
    if "stat" in expected:
        close(found["stat"], expected["stat"], 1.0, MEANS)
        np.testing.assert_allclose(found["pvalue"], vector(expected["pvalue"]), rtol=1e-4, atol=chance)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_average_effects_are_differences_of_mean_predictions(case: dict[str, Any], tmp_path: Path) -> None:
    fit, data = fitted(case, tmp_path)
    found = fit.margins(data)
    for effect in case["effects"].values():
        # R writes the level 1.0 as 1
        names = {name.replace(".0", ""): name for name in found.loc[[effect["variable"]]].index.get_level_values(1)}
        row = found.loc[(effect["variable"], names[effect["contrast"]])]
        assert row["effect"] == pytest.approx(effect["effect"], rel=EFFECTS, abs=EFFECTS * effect["se"])
        assert row["se"] == pytest.approx(effect["se"], rel=EFFECTS)
