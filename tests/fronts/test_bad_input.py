"""Bad input gets one clear sentence that names the file, the column and the value, the right exit code, no traceback,
and leaves nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import daskglm as dg
from daskglm.cli import main


def frame(n: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "e": rng.uniform(0.5, 1.0, size=n),
            "a": rng.choice(["u", "v"], size=n),
            "y": rng.poisson(2.0, size=n),
        }
    )


def lake(folder: Path, **changes: Any) -> Path:
    """Three files; the middle one with column=(row, value) replaced."""
    for i in range(3):
        part = frame(seed=i)
        if i == 1:
            for name, (row, value) in changes.items():
                part[name] = part[name].astype(object if isinstance(value, str) else float)
                part.loc[row, name] = value
        part.to_parquet(folder / f"part-{i}.parquet")
    return folder


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.stderr.strip()


CASES: list[tuple[str, dict[str, Any], list[str], int, list[str]]] = [
    ("response out of range", {"y": (3, -2.0)}, [], 3, ["part-1.parquet", '"y"', "-2", "zero or positive"]),
    ("infinite value", {"x": (3, np.inf)}, [], 3, ["part-1.parquet", '"x"', "inf"]),
    ("missing value", {"x": (3, np.nan)}, ["--missing", "raise"], 3, ["part-1.parquet", '"x"', "missing"]),
    ("exposure of zero", {"e": (3, 0.0)}, ["--exposure", "e"], 3, ["part-1.parquet", '"e"', "positive"]),
    ("unknown family", {}, ["--family", "poison"], 2, ['did you mean "poisson"']),
    ("wrong pair", {}, ["--link", "logit"], 2, ["logit", "poisson", "log, identity, sqrt"]),
    ("unknown option value", {}, ["--missing", "ignore"], 2, ["missing", "drop", "raise"]),
]


@pytest.mark.parametrize(("changes", "flags", "code", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_sentence_and_a_code(
    changes: dict[str, Any], flags: list[str], code: int, words: list[str], tmp_path: Path
) -> None:
    data, out = tmp_path / "lake", tmp_path / "model"
    data.mkdir()
    lake(data, **changes)
    family = [] if "--family" in flags else ["--family", "poisson"]
    found, said = run("fit", "y ~ x + a", data, *family, *flags, "--out", out)
    assert found == code
    assert said.startswith("error: ")
    assert "\n" not in said
    for word in words:
        assert word in said
    assert not out.exists()


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    code, said = run("fit", "y ~ xx", lake(tmp_path))
    assert code == 2
    assert 'no column "xx"' in said
    assert 'did you mean "x"' in said


def test_a_corrupt_file_in_the_middle(tmp_path: Path) -> None:
    lake(tmp_path)
    path = tmp_path / "part-1.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))
    code, said = run("fit", "y ~ x + a", tmp_path, "--family", "poisson")
    assert code == 3
    assert "part-1.parquet" in said
    assert "\n" not in said


def test_a_truncated_file(tmp_path: Path) -> None:
    lake(tmp_path)
    path = tmp_path / "part-1.parquet"
    path.write_bytes(path.read_bytes()[:100])
    code, said = run("fit", "y ~ x", tmp_path, "--family", "poisson")
    assert code == 3
    assert "part-1.parquet" in said


def test_a_file_changed_between_plan_and_load(tmp_path: Path) -> None:
    from daskglm.cluster.engine import Engine
    from daskglm.cluster.sources import open_source
    from daskglm.fit import run as fit
    from daskglm.plan import make_plan

    source = open_source(str(lake(tmp_path)))
    frame(61, seed=9).to_parquet(tmp_path / "part-1.parquet")
    with pytest.raises(dg.errors.ChangedInputError, match=r"part-1\.parquet changed") as caught:
        fit(make_plan("y ~ x", {"family": "poisson"}), source, Engine())
    assert caught.value.exit_code == 7


def test_an_empty_lake(tmp_path: Path) -> None:
    assert run("fit", "y ~ x", tmp_path)[0] == 3
    frame().head(0).to_parquet(tmp_path / "empty.parquet")
    code, said = run("fit", "y ~ x", tmp_path)
    assert code == 3
    assert "no rows" in said


def test_all_rows_missing(tmp_path: Path) -> None:
    part = frame()
    part["x"] = np.nan
    part.to_parquet(tmp_path / "part.parquet")
    code, said = run("fit", "y ~ x", tmp_path)
    assert code == 3
    assert "no row is left of 60" in said
    assert '"x" in 60' in said


def test_a_missing_path() -> None:
    code, said = run("fit", "y ~ x", "no/such/lake")
    assert code == 2
    assert "no/such/lake does not exist" in said


def test_a_formula_cannot_run_code(tmp_path: Path) -> None:
    target = tmp_path / "written"
    for attack in (
        f"y ~ __import__('os').system('touch {target}')",
        f"y ~ I(open('{target}', 'w'))",
        "y ~ x.__class__",
        "y ~ I((lambda: 1)())",
        "y ~ I([z for z in (1, 2)])",
        "y ~ I(x.__class__.__mro__)",
    ):
        code, said = run("fit", attack, lake(tmp_path))
        assert code == 2, attack
        assert said.startswith("error: ")
    assert not target.exists()


def test_not_converged_is_exit_code_4_and_the_model_says_so(tmp_path: Path) -> None:
    data, out = tmp_path / "lake", tmp_path / "model"
    data.mkdir()
    lake(data)
    code, said = run("fit", "y ~ x + a", data, "--family", "poisson", "--max-iter", "1", "--out", out)
    assert code == 4
    assert "ConvergenceWarning" in said
    (run_folder,) = (out / "runs").iterdir()
    assert not dg.load(run_folder).converged


def test_a_constant_column_is_not_an_error() -> None:
    data = frame().assign(one=1.0)
    with pytest.warns(dg.errors.AliasWarning, match=r"one is not estimated: its column is 1 Intercept"):
        fit = dg.glm("y ~ x + one", data, family="poisson")
    assert fit.aliased == ("one",)
    np.testing.assert_allclose(
        fit.params[["Intercept", "x"]], dg.glm("y ~ x", data, family="poisson").params, rtol=1e-10
    )


def test_fewer_rows_than_columns_is_not_an_error() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame(rng.normal(size=(4, 6)), columns=list("ybcdef"))
    with pytest.warns(dg.errors.AliasWarning):
        fit = dg.glm("y ~ b + c + d + e + f", data)
    assert fit.aliased == ("e", "f")
    design = np.column_stack([np.ones(4), data[["b", "c", "d"]]])
    np.testing.assert_allclose(fit.params.to_numpy()[:4], np.linalg.solve(design, data["y"]), rtol=1e-8)


def test_a_factor_with_one_level_is_not_an_error() -> None:
    data = frame().assign(a="u")
    fit = dg.glm("y ~ x + a", data, family="poisson")
    assert list(fit.params.index) == ["Intercept", "x"]


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + a"])
def test_separation_is_not_silent(formula: str) -> None:
    data = pd.DataFrame({"x": np.arange(-20.0, 20.0), "a": ["u", "v"] * 20})
    data["y"] = (data["x"] >= 0).astype(int)
    with pytest.warns((dg.errors.SeparationWarning, dg.errors.ConvergenceWarning)):
        fit = dg.glm(formula, data, family="binomial")
    assert fit.separated or not fit.converged
