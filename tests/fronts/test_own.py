"""Families and links of one's own through whole fits: in this process, on a cluster, in files and on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.errors import DesignError
from tests.model import home_made

# The same optimum to rounding, by formulas that are derived numerically: means to 1e-13, variances to 1e-10.
COEFFICIENTS = 1e-9
ERRORS = 1e-8


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    x = rng.normal(size=400)
    return pd.DataFrame({"x": x, "y": rng.poisson(np.exp(0.4 + 0.5 * x)), "b": (x + rng.normal(size=400) > 0) * 1.0})


def poisson() -> dg.families.ExponentialFamily:
    return dg.families.ExponentialFamily(
        home_made.poisson_log_partition, log_base_measure=home_made.one_over_factorial, support="counts"
    )


def logit() -> Any:
    return dg.links.Custom(home_made.log_odds, home_made.of_log_odds, mean_range=(0.0, 1.0))


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "family": ("y ~ x", {"family": poisson(), "link": "log"}, {"family": "poisson"}),
    "canonical": ("y ~ x", {"family": poisson()}, {"family": "poisson"}),
    "link": ("b ~ x", {"family": "binomial", "link": logit()}, {"family": "binomial"}),
    "quasi": (
        "I(y + 1) ~ x",
        {"family": dg.families.Quasi(home_made.squared, mean_range=(0.0, np.inf)), "link": "log"},
        {"family": "gamma"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_fit_is_that_of_the_built_in(name: str) -> None:
    formula, own, built_in = CASES[name]
    one, other = (dg.glm(formula, frame(), **options) for options in (own, built_in))
    assert np.allclose(one.params, other.params, rtol=COEFFICIENTS, atol=COEFFICIENTS)
    assert np.allclose(one.bse, other.bse, rtol=ERRORS)
    assert one.deviance == pytest.approx(other.deviance, rel=ERRORS)
    assert one.pearson_chi2 == pytest.approx(other.pearson_chi2, rel=ERRORS)
    assert one.null_deviance == pytest.approx(other.null_deviance, rel=ERRORS)
    if name != "quasi":
        assert one.llf == pytest.approx(other.llf, rel=ERRORS)


@pytest.mark.parametrize("name", CASES)
def test_saved_and_read_back_and_on_a_cluster(name: str, tmp_path: Path, client: Any) -> None:
    formula, own, _ = CASES[name]
    fit = dg.glm(formula, frame(), **own)
    fit.save(tmp_path / "model")
    again = dg.load(tmp_path / "model")
    assert again.predict(frame()).equals(fit.predict(frame()))
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    pq.write_table(table, tmp_path / "lake.parquet", row_group_size=100)
    there = dg.glm(formula, tmp_path / "lake.parquet", client=client, **own)
    here = dg.glm(formula, tmp_path / "lake.parquet", **own)
    assert there.params.equals(here.params)
    assert there.cov_params().equals(here.cov_params())


def test_a_function_without_a_path_works_here_and_is_refused_elsewhere(tmp_path: Path, client: Any) -> None:
    family = dg.families.ExponentialFamily(lambda theta: np.exp(theta), support="counts")
    with pytest.raises(DesignError, match="sums to"):
        dg.glm("y ~ x", frame(), family=family)
    family = dg.families.ExponentialFamily(
        lambda theta: np.exp(theta), log_base_measure=home_made.one_over_factorial, support="counts"
    )
    fit = dg.glm("y ~ x", frame(), family=family)
    assert np.allclose(fit.params, dg.glm("y ~ x", frame(), family="poisson").params, atol=COEFFICIENTS)
    with pytest.raises(DesignError, match="module that can be imported"):
        fit.save(tmp_path / "model")
    pq.write_table(pa.Table.from_pandas(frame(), preserve_index=False), tmp_path / "lake.parquet")
    with pytest.raises(DesignError, match="module that can be imported"):
        dg.glm("y ~ x", tmp_path / "lake.parquet", family=family, client=client)


def test_reading_a_model_imports_nothing(tmp_path: Path) -> None:
    """A module that was not imported is named, and is not run; on the command line --import names it."""
    (tmp_path / "my_links.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            print("imported")
            def g(mu):
                return np.log(mu)
            def g_inverse(eta):
                return np.exp(eta)
            """
        )
    )
    pq.write_table(pa.Table.from_pandas(frame(), preserve_index=False), tmp_path / "lake.parquet")

    def python(code: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *(["-c", code] if code else more)], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(dg.__file__).parent.parent}"},
        )  # fmt: skip

    made = python(
        "import my_links, daskglm as dg\n"
        "link = dg.links.Custom(my_links.g, my_links.g_inverse, mean_range=(0, float('inf')))\n"
        "dg.glm('y ~ x', 'lake.parquet', family='poisson', link=link).save('model')"
    )
    assert made.returncode == 0, made.stderr
    read = python("import daskglm as dg\ndg.load('model')")
    assert read.returncode != 0
    assert "import my_links before loading it" in read.stderr
    assert "imported" not in read.stdout
    scored = python("", "-m", "daskglm", "predict", "model", "lake.parquet", "--out", "scored")
    assert scored.returncode in (2, 3)
    assert "my_links" in scored.stderr
    scored = python("", "-m", "daskglm", "predict", "model", "lake.parquet", "--out", "scored", "--import", "my_links")
    assert scored.returncode == 0, scored.stderr
