"""What a fit takes in this process is known, said and refused before the first pass over rows."""

from __future__ import annotations

import logging
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm import sizing
from daskglm.cluster.engine import Engine
from daskglm.cluster.sources import open_source
from daskglm.design.design import Design
from daskglm.errors import DesignError
from daskglm.fit import run, run_all
from daskglm.plan import make_plan
from daskglm.totals import moments
from tests.cluster.problem import Told

LEVELS = 1_200


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n = 12_000
    policy = rng.permutation(np.arange(n) % LEVELS)
    x = rng.normal(size=n)
    y = rng.poisson(np.exp(1.5 + 0.2 * x))
    return pd.DataFrame({"policy": pd.Categorical(policy), "x": x, "y": y, "kind": y % 3, "group": policy % 40})


def reported(data: pd.DataFrame, limit: int | None = None, **options: Any) -> Told:
    told = Told()
    plan = make_plan(options.pop("formula", "y ~ x + policy"), {"family": "poisson", **options})
    try:
        run_all(plan, open_source(data), Engine(memory_limit=limit), told)
    except dg.errors.DesignError:
        assert told.phases == ["reading"]
        raise
    return told


@pytest.mark.parametrize("bordered", [True, False])
@pytest.mark.parametrize("covariance", ["model", "HC1", dg.Cluster("group")])
def test_the_bytes_are_those_that_are_held(
    data: pd.DataFrame, bordered: bool, covariance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "MIN_DIAGONAL_LEVELS", 512 if bordered else 10**9)
    monkeypatch.setattr(sizing, "MANY_BYTES", 0)
    reported(data, formula="y ~ x")
    tracemalloc.start()
    try:
        size = reported(data, covariance=covariance).sizes[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size.coefficients == LEVELS + 1
    assert (size.term, size.bordered) == ("policy", bordered)
    assert size.matrix == 8 * (LEVELS + 1) ** 2
    # columns of rows and the tables of their blocks come on top
    assert 0.4 * size.bytes < peak < size.bytes + 40 * data.memory_usage().sum()


def test_what_cannot_fit_is_refused_before_the_first_pass(data: pd.DataFrame) -> None:
    expected = (
        r"the model has 1,201 coefficients, 1,199 of them of policy: their covariance takes 0\.0115 GB and the fit "
        r"0\.114 GB, more than the 0\.04 GB there are; join rare levels of policy, leave it out, or give the process "
        r"more memory"
    )
    with pytest.raises(dg.errors.DesignError, match=expected):
        reported(data, limit=40_000_000, covariance="HC0")
    # the errors of the model need no matrix of this size
    reported(data, limit=40_000_000)


def test_classes_multiply_the_columns(data: pd.DataFrame) -> None:
    with pytest.raises(dg.errors.DesignError, match="2,402 coefficients, 2,398 of them of policy"):
        reported(data, limit=40_000_000, formula="kind ~ x + policy", family="multinomial")


def test_numeric_columns_are_refused_without_a_factor() -> None:
    design = Design(
        (), True, (), {}, {}, tuple(f"x{i}" for i in range(50_000)), ("x",) * 50_000, np.arange(50_000), {}, ()
    )
    model: Any = moments.Model(None, design.select, 50_000, None)  # type: ignore[arg-type]
    with pytest.raises(
        dg.errors.DesignError, match=r"50,000 coefficients: their covariance takes 20 GB.*fewer columns"
    ):
        sizing.size_of(model, design).require(10**10)


def test_a_large_fit_is_announced(
    data: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "daskglm"):
        assert not reported(data).sizes
        assert not caplog.records
        monkeypatch.setattr(sizing, "MANY_OPERATIONS", 1e3)
        told = reported(data)
    text = "1,201 coefficients, policy eliminated by its diagonal block: up to 0.00999 GB in this process (0.0115 GB for a covariance"
    assert text in str(told.sizes[0])
    assert text in caplog.text
    assert told.phases[0] == "reading"


def test_a_factor_of_many_levels_is_fitted_in_its_diagonal_block() -> None:
    rng = np.random.default_rng(3)
    levels, n = 6_000, 24_000
    policy = rng.permutation(np.arange(n) % levels)
    x = rng.normal(size=n)
    data = pd.DataFrame({"policy": pd.Categorical(policy), "x": x, "y": x + rng.normal(size=n)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = dg.glm("y ~ policy + x", data)
    means = data.groupby("policy", observed=True)[["x", "y"]].transform("mean")
    within_x, within_y = data.x - means.x, data.y - means.y
    slope = (within_x @ within_y) / (within_x @ within_x)
    assert fit.params["x"] == pytest.approx(slope, rel=1e-12)
    scale = ((within_y - slope * within_x) ** 2).sum() / (n - levels - 1)
    assert fit.bse["x"] == pytest.approx(np.sqrt(scale / (within_x @ within_x)), rel=1e-11)


def test_contrasts_that_would_fill_the_memory_are_refused_before_their_columns_are_made() -> None:
    rows, levels = 100_000, 60
    data = pd.DataFrame({"a": np.arange(rows) % levels, "y": np.arange(rows) % 7})
    engine = Engine(1, 30_000_000)
    for contrast, keep in (("Sum", "memory"), ("Diff", "reread")):
        run(make_plan(f"y ~ C(a, {contrast})", {"keep": keep}), open_source(data), engine)
    with pytest.raises(DesignError, match=r"columns of C\(a, Diff\) take 0.0472 GB.*keep="):
        run(make_plan("y ~ C(a, Diff)", {"keep": "memory"}), open_source(data), engine)
