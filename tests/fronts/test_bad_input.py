"""Bad input gets one clear sentence that names the file, the column and the value, the right exit code, no traceback,
and leaves nothing half-written."""

from __future__ import annotations

import warnings
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
    with pytest.warns(dg.errors.AliasWarning, match='a is not estimated: a has the level "u" only in the rows used'):
        fit = dg.glm("y ~ x + a", data, family="poisson")
    assert list(fit.params.index) == ["Intercept", "x"]
    with pytest.warns(dg.errors.AliasWarning, match='a:x is not estimated: a has the level "u" only'):
        dg.glm("y ~ x + a:x", data, family="poisson")
    assert list(dg.glm("y ~ 0 + a", data, family="poisson").params.index) == ["a[u]"]


@pytest.mark.parametrize("family", ["poisson", "binomial", "tweedie(power=1.5)"])
def test_a_response_of_zeros_is_no_column_of_zeros(family: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dg.glm("y ~ x + a", frame().assign(y=0), family=family)
    assert [warning.category for warning in caught] == [dg.errors.SeparationWarning]


NAMES = frame().assign(**{"lambda": 1.5, "my-col": 2.0, "my": 1.0, "a b": 2.0, "z": frame().x ** 2})
FORMULAS = {
    "y ~ x + my-col": "no column \"col\" .*; the column 'my-col' is written in backticks: `my-col`",
    "y ~ x - zz": 'no column "zz"',
    "y ~ log(my-col)": "; the column 'my-col' is written in backticks: `my-col`",
    "my-col ~ x": "left side .* must be one response: .*; the column 'my-col' is written in backticks: `my-col`",
    "y ~ a b": "cannot read .*; the column 'a b' is written in backticks: `a b`",
    "y ~ log(lambda)": "cannot read .*; the column 'lambda' is written in backticks: `lambda`",
    "y ~": "has nothing on its right side: write y ~ 1",
    "y/e ~ x": r"left side .* one response: for arithmetic write I\(y/e\) ~ \.\.\., for counts out of trials cbind",
    "y - e ~ x": r"write I\(y - e\) ~",
    "y*2 ~ x": r"write I\(y\*2\) ~",
    "y - 1 ~ x": r"write I\(y - 1\) ~",
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_what_a_formula_cannot_be_is_refused_with_the_remedy(formula: str) -> None:
    with pytest.raises(dg.errors.DesignError, match=FORMULAS[formula]):
        dg.glm(formula, NAMES)


KEYWORDS = {
    "y ~ log(`lambda`)": "y ~ log(rate)",
    "y ~ x + C(`lambda` > 1.4)": "y ~ x + C(rate > 1.4)",
    "y ~ I(`a b` + `lambda`):x": "y ~ I(ab + rate):x",
    "log(`lambda`) ~ x": "log(rate) ~ x",
    "y ~ x + offset(log(`lambda`))": "y ~ x + offset(log(rate))",
    "y ~ `lambda` + (`lambda` + x):e": "y ~ rate + (rate + x):e",
    "y ~ . - `lambda`": "y ~ . - rate",
}


@pytest.mark.parametrize("formula", KEYWORDS)
def test_columns_called_as_keywords_are_written_in_backticks(formula: str) -> None:
    data = frame().assign(rate=np.linspace(1.0, 2.0, 60), ab=np.linspace(1.0, 2.0, 60) ** 3)
    expected = dg.glm(KEYWORDS[formula], data)
    named = data.rename(columns={"rate": "lambda", "ab": "a b"})
    fit = dg.glm(formula, named)
    np.testing.assert_array_equal(fit.params, expected.params)
    np.testing.assert_array_equal(fit.predict(named), expected.predict(data))
    assert "\ue000" not in "".join([*fit.params.index, fit.formula])


@pytest.mark.parametrize("first", [frame(), "lake/claims"])
def test_the_formula_comes_first(first: Any) -> None:
    with pytest.raises(dg.errors.DesignError, match="the formula comes first, then the data: glm"):
        dg.glm(first, "y ~ x")


FAMILIES = {
    "logistic": "binomial", "nb": "negative_binomial", "NegBin": "negative_binomial", "Gamma": "gamma", "ols": "gaussian",
    "quasi-poisson": "quasipoisson", "inverse gaussian": "inverse_gaussian",
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_other_names_of_families_are_answered_with_ours(name: str) -> None:
    with pytest.raises(dg.errors.DesignError, match=rf'no family "{name}" \(did you mean "{FAMILIES[name]}"\?\)'):
        dg.glm("y ~ x", frame(), family=name)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + a"])
def test_separation_is_not_silent(formula: str) -> None:
    data = pd.DataFrame({"x": np.arange(-20.0, 20.0), "a": ["u", "v"] * 20})
    data["y"] = (data["x"] >= 0).astype(int)
    with pytest.warns((dg.errors.SeparationWarning, dg.errors.ConvergenceWarning)):
        fit = dg.glm(formula, data, family="binomial")
    assert fit.separated or not fit.converged
