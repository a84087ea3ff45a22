"""Profile likelihood limits against root finding on refits in R."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskglm as dg
from daskglm.inference import profile

from .cases import HERE, frame, lake, options

CASES: list[dict[str, Any]] = json.loads((HERE / "profile.json").read_text())["cases"]
# uniroot's tolerance and the ends of its refits: 1e-9 standard errors and less. Where gradients alone lead to a limit, the
# last step is taken unseen from 1e-5 off.
NEWTON = 1e-8
GRADIENTS = 1e-6


@pytest.mark.parametrize("cheap", [profile.CHEAP, 0.0], ids=["hessians", "gradients"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_limits_are_those_of_refits(
    case: dict[str, Any], cheap: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "CHEAP", cheap)
    data = lake(case, tmp_path, 3)
    fit = dg.glm(case["formula"], data, **options(case))
    found = fit.conf_int(method="profile", level=case["level"], data=data)
    errors = np.array(case["errors"])
    np.testing.assert_allclose(fit.bse, errors, rtol=1e-6)
    for side in ("lower", "upper"):
        assert np.max(np.abs(found[side] - case[side]) / errors) < (NEWTON if cheap else GRADIENTS)
    assert found.attrs["notes"] == ()
    assert found.attrs["passes"] <= 12


def test_a_frame_and_a_lake_give_the_same_limits(tmp_path: Path) -> None:
    case = CASES[0]
    data = lake(case, tmp_path, 5)
    fit = dg.glm(case["formula"], data, **options(case))
    one = fit.conf_int(method="profile", data=data)
    other = fit.conf_int(method="profile", data=frame(case))
    assert np.max(np.abs(one - other).to_numpy() / fit.bse.to_numpy()[:, None]) < NEWTON
