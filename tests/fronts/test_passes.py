"""The passes that a fit reports are those that its engine took, whatever the model asked for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import daskglm as dg
from daskglm.cluster.engine import Engine
from daskglm.cluster.local import LocalPartitions
from daskglm.cluster.sources import open_source
from daskglm.fit import run_all
from daskglm.plan import make_plan
from daskglm.record import FitRecord
from tests.cluster.problem import FORMULA, SEPARATED, write_lake

MODELS: dict[str, dict[str, Any]] = {
    "poisson": {},
    "offset": {"exposure": "z"},
    "HC1": {"covariance": "HC1"},
    "HC3": {"covariance": "HC3"},
    "clusters": {"covariance": dg.Cluster("year", "s")},
    "observed": {"family": "gamma", "link": "log", "formula": "z ~ x + s", "covariance": "observed"},
    "gaussian": {"family": "gaussian", "formula": "y ~ x*s + year"},
    "gaussian log": {"family": "gaussian", "link": "log", "formula": "z ~ x"},
    "weighted gamma": {"family": "gamma", "weights": "w", "formula": "z ~ x", "exposure": "w"},
    "inverse": {"family": "gamma", "link": "inverse", "formula": "z ~ I(w - 0.5) + s"},
    "inverse Gaussian": {"family": "inverse_gaussian", "weights": "w", "formula": "z ~ x"},
    "separated": SEPARATED,
    "separated and dropped": {**SEPARATED, "separation": "drop"},
    "firth": {**SEPARATED, "separation": "firth"},
    "boundary": {"link": "identity", "formula": "I(y * (x > 0)) ~ x"},
    "negative binomial": {"family": "negative_binomial"},
    "tweedie": {"family": "tweedie", "formula": "I(y * z) ~ x + s", "weights": "w"},
    "dispersion": {"family": "gamma", "dispersion": "ml", "weights": "w", "formula": "z ~ x + s"},
    "multinomial": {"family": "multinomial", "formula": "s ~ x + log(z)", "covariance": "HC1"},
    "ordinal": {"family": "ordinal", "formula": "s ~ x + log(z)", "offset": "z"},
    "collinear": {"family": "gaussian", "formula": "y ~ x + I(x + 1e-7 * z)"},
    "several": {"formula": "responses(y, z) ~ x + s"},
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lake(tmp_path_factory.mktemp("passes") / "lake", 2_000)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the local engine summed over all rows, by the name of the function."""
    names: list[str] = []
    for method in ("total", "grouped"):
        original = getattr(LocalPartitions, method)

        def noted(self: Any, *args: Any, inner: Any = original) -> Any:
            if not self._sample:
                names.append(getattr(args[0], "__name__", type(args[0]).__name__))
            return inner(self, *args)

        monkeypatch.setattr(LocalPartitions, method, noted)
    return names


def records(lake: Path, model: str, engine: Engine, **options: Any) -> list[FitRecord]:
    given = {"family": "poisson", "formula": FORMULA, **MODELS[model], **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_all(make_plan(given.pop("formula"), given), open_source(lake), engine)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", MODELS)
def test_are_those_that_the_engine_took(lake: Path, taken: list[str], model: str) -> None:
    found = records(lake, model, Engine(1))
    if model == "several":
        # a pass serves all searches that ask for one at that moment
        assert max(r.n_passes for r in found) <= len(taken) < sum(r.n_passes for r in found)
        return
    assert found[0].n_passes == len(taken)
    if model == "boundary":
        assert found[0].status == "boundary"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", [model for model in MODELS if model != "several"])
def test_every_pass_of_a_fit_that_keeps_nothing_decodes_every_row(lake: Path, model: str) -> None:
    (found,) = records(lake, model, Engine(2), keep="reread")
    assert found.decodes == 1 + found.n_passes


@pytest.mark.usefixtures("small")
def test_each_of_several_responses_has_those_of_its_own_fit(lake: Path) -> None:
    together = records(lake, "several", Engine(1))
    for record, response in zip(together, ("y", "z"), strict=True):
        (alone,) = records(lake, "poisson", Engine(1), formula=f"{response} ~ x + s")
        assert record.n_passes == alone.n_passes


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", ["poisson", "HC3", "clusters", "negative binomial", "several"])
def test_are_the_same_on_a_cluster(client: Any, lake: Path, model: str) -> None:
    here, there = (records(lake, model, engine) for engine in (Engine(1), Engine(client=client)))
    assert [record.n_passes for record in here] == [record.n_passes for record in there]
