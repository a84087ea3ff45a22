"""Warnings point at the line of whoever called, whatever room they come from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.cluster.preflight import Worker, check_blocks
from daskglm.errors import AliasWarning, ClusterWarning, ConvergenceWarning, SeparationWarning, warn

ROWS = pd.DataFrame({"x": np.arange(8.0), "late": np.repeat([0, 1], 4), "y": [0, 2, 1, 3, 1, 4, 2, 30]})


def separated() -> Any:
    return dg.glm("late ~ x", ROWS, family="binomial")


def aliased() -> Any:
    return dg.glm("y ~ x + I(2 * x)", ROWS)


def stopped() -> Any:
    return dg.glm("y ~ x", ROWS, family="poisson", max_iter=1)


def spilled() -> Any:
    return check_blocks(2 << 30, [Worker("tcp://a:1", 1, 1 << 30, "running")], "memory")


def direct() -> Any:
    return warn("the cluster will do", ClusterWarning)


@pytest.mark.parametrize(
    "call, category",
    [
        (separated, SeparationWarning),
        (aliased, AliasWarning),
        (stopped, ConvergenceWarning),
        (spilled, ClusterWarning),
        (direct, ClusterWarning),
    ],
)
def test_a_warning_points_at_the_line_outside(call: Callable[[], Any], category: type[Warning]) -> None:
    with pytest.warns(category) as caught:
        call()
    first = inspect.getsourcelines(call)[1]
    assert {(found.filename, found.lineno) for found in caught} == {(__file__, first + 1)}
