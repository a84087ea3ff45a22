"""Against sandwich, clubSandwich and survey on published data sets, when fitted and from the saved fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

import daskglm as dg

from .cases import EXACT

HERE = Path(__file__).parent
CASES: list[dict[str, Any]] = json.loads((HERE / "covariance.json").read_text())["cases"]
# The score at R's solution is below 1e-8 standard deviations; eight digits of the least.
SANDWICH = 1e-7
# bread.polr takes its Hessian from finite differences of the gradient.
POLR = 1e-4


def frame(case: dict[str, Any]) -> pd.DataFrame:
    table = pd.read_csv(HERE / "data" / f"{case['data']}.csv", **EXACT)
    if case["kind"] == "polr":
        response = case["formula"].split(" ~")[0]
        table[response] = pd.Categorical(table[response], case["levels"], ordered=True)
    return table


def options(case: dict[str, Any]) -> dict[str, Any]:
    weights = case.get("weights")
    if weights is not None:
        weights = dg.Probability(weights) if case["kind"] == "survey" else dg.Variance(weights)
    return {"family": case["family"], "link": case["link"], "weights": weights, "offset": case.get("offset")}


def expected(case: dict[str, Any]) -> list[tuple[str | dg.Cluster, npt.NDArray[np.float64]]]:
    found: list[tuple[Any, Any]] = list(case.get("kinds", {}).items())
    for ways, corrections in case["clusters"].items():
        found += [(dg.Cluster(*ways.split(), correction=name), v) for name, v in corrections.items()]
    return [(kind, np.array(values)) for kind, values in found]


def far(found: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> float:
    """Of each covariance by the errors it belongs to."""
    errors = np.sqrt(np.abs(np.diag(right)))
    return float(np.max(np.abs(found - right) / np.outer(errors, errors)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_is_that_of_r(case: dict[str, Any], tmp_path: Path) -> None:
    data = frame(case)
    names = [name.replace("(Intercept)", "Intercept") for name in case["names"]]
    fit = dg.glm(case["formula"], data, **options(case))
    fit.save(tmp_path / "model")
    again = dg.load(tmp_path / "model")
    assert isinstance(again, dg.Fit)
    assert len(names) == len(fit.params)
    near = POLR if case["kind"] == "polr" else SANDWICH
    for kind, values in expected(case):
        assert far(again.cov_params(kind, data).to_numpy(), values) < near, kind
    kind, values = expected(case)[-1]
    robust = dg.glm(case["formula"], data, covariance=kind, **options(case))
    assert far(robust.cov_params().to_numpy(), values) < near


def test_everything_is_covered() -> None:
    ways = {len(ways.split()) for case in CASES for ways in case["clusters"]}
    assert ways == {1, 2, 3}
    assert {"poisson", "binomial", "gamma", "inverse_gaussian", "gaussian", "ordinal"} <= {c["family"] for c in CASES}
    assert {case["kind"] for case in CASES} == {"glm", "survey", "polr"}


@pytest.mark.parametrize("unit", [1.0, 1000.0])
@pytest.mark.parametrize("case", [case for case in CASES if case["kind"] == "survey"], ids=lambda case: case["name"])
def test_deviances_of_sampled_rows_are_those_of_svyglm(case: dict[str, Any], unit: float) -> None:
    data = frame(case)
    data[case["weights"]] *= unit
    fit = dg.glm(case["formula"], data, **options(case))
    for name, expected in (("deviance", "deviance"), ("null_deviance", "null_deviance"), ("pearson_chi2", "pearson")):
        assert getattr(fit, name) == pytest.approx(case[expected], rel=1e-12), name
    if case["family"] == "gaussian":
        assert fit.scale == pytest.approx(case["pearson"] / fit.df_resid, rel=1e-12)
