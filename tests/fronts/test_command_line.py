"""What the command line prints, writes and returns: JSON, publication of runs, job files, predictions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import daskglm as dg
import daskglm.jobs
from daskglm.cli import main
from daskglm.cluster.objects import _RefusedError
from daskglm.errors import ConvergenceWarning, DataError, DesignError


def frame(n: int = 300, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {"x": rng.normal(size=n), "area": rng.choice(["a", "b", "c"], n), "year": rng.choice([2023, 2024], n)}
    )
    data["y"] = rng.poisson(np.exp(0.3 * data.x + 0.2 * (data.area == "b")))
    return data


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


def document(result: Result) -> dict[str, Any]:
    """The last line of standard output."""
    found: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1], parse_constant=pytest.fail)
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    path = tmp_path / "lake.parquet"
    frame().to_parquet(path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    dg.glm("y ~ x + area", frame(), family="poisson").save(tmp_path / "model")
    return tmp_path / "model"


# -- JSON --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def separated(tmp_path: Path) -> tuple[Result, Path]:
    data = pd.DataFrame({"x": np.arange(8.0), "y": [0, 0, 0, 0, 1, 1, 1, 1]})
    data.to_parquet(tmp_path / "toy.parquet")
    out = tmp_path / "toy"
    return run("fit", "y ~ x", tmp_path / "toy.parquet", "--family", "binomial", "--out", out, "--json"), out


def test_infinite_coefficients_are_text_in_json(separated: tuple[Result, Path]) -> None:
    coefficients = document(run("summary", separated[1], "--json"))["coefficients"]
    assert coefficients["x"]["estimate"] == "inf"
    assert coefficients["Intercept"]["estimate"] == "-inf"
    assert coefficients["x"]["standard_error"] is None


def test_rows_at_their_limit_are_counted(separated: tuple[Result, Path]) -> None:
    result, out = separated
    found = document(result)
    assert (found["rows_read"], found["rows_used"], found["nobs"], found["nobs_at_limit"]) == (8, 8, 8.0, 8.0)
    assert "Observations     8, 8 of them fitted at their limit" in result.stdout
    assert found["certificate"]["digits"] is None
    assert found["certificate"]["error_digits"] is None
    assert "correct digits" not in result.stdout
    again = document(run("summary", out, "--json"))
    assert (again["nobs"], again["rows_used"]) == (8.0, 8)


def test_observations_at_their_limit_count_frequencies(tmp_path: Path) -> None:
    data = pd.DataFrame({"a": list("aabbccdd"), "y": [0, 1, 0, 1, 1, 1, 0, 1], "n": np.arange(1, 9)})
    with pytest.warns(dg.errors.SeparationWarning):
        fit = dg.glm("y ~ a", data, family="binomial", weights=dg.Frequency("n"))
    assert (fit.nobs, fit.record.statistics.at_limit, fit.record.statistics.n_used) == (25.0, 11.0, 36.0)
    assert "36 observations" in repr(fit)
    assert "36 in 8 rows, 11 of them fitted at their limit" in str(fit.summary())
    fit.save(tmp_path / "model")
    assert dg.load(tmp_path / "model").record.statistics == fit.record.statistics


def test_a_fit_without_a_likelihood_is_json(tmp_path: Path) -> None:
    frame().assign(w=2.0).to_parquet(tmp_path / "lake.parquet")
    result = run("fit", "y ~ x", tmp_path / "lake.parquet", "--weights", "probability(w)", "--json")
    assert result.exit_code == 0, result.stderr
    assert (document(result)["llf"], document(result)["aic"]) == (None, None)


def test_errors_are_json_too(tmp_path: Path, lake: Path) -> None:
    cases: list[tuple[list[Any], int, str]] = [
        (["fit", "y ~ xx", lake], 2, "DesignError"),
        (["fit", "y ~ x", lake, "--no-such-flag"], 2, "UsageError"),
        (["fit", "I(y - 9) ~ x", lake, "--family", "poisson"], 3, "DataError"),
        (["predict", tmp_path / "nowhere", lake, "--out", tmp_path / "out"], 2, "DesignError"),
        (["summary", tmp_path / "nowhere"], 2, "DesignError"),
    ]
    for arguments, code, kind in cases:
        result = run(*arguments, "--json")
        assert result.exit_code == code
        found = document(result)
        assert (found["exit_code"], found["kind"]) == (code, kind)
        assert result.stderr.strip() == f"error: {found['error']}"
        assert run(*arguments).stdout == ""


def test_the_kind_of_an_error_is_public(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise _RefusedError("the store refuses it")

    monkeypatch.setattr("daskglm.cli._run", refused)
    assert document(run("fit", "y ~ x", lake, "--json"))["kind"] == "DesignError"


def test_a_formula_after_the_data_is_named(lake: Path) -> None:
    result = run("fit", lake, "y ~ x")
    assert result.exit_code == 2
    assert result.stderr == f'error: the formula comes first: daskglm fit "y ~ x" {lake}\n'
    assert f'fit "y~x" {lake} {lake}.gz\n' in run("fit", lake, f"{lake}.gz", "y~x").stderr


def test_keywords_in_messages_are_options_of_the_command(tmp_path: Path, model: Path) -> None:
    frame().assign(area="new").to_parquet(tmp_path / "new.parquet")
    result = run("predict", model, tmp_path / "new.parquet", "--out", tmp_path / "out", "--json")
    assert "--unseen baseline scores them as the baseline, --unseen missing as NaN" in document(result)["error"]
    assert 'unseen="' not in result.stderr
    with pytest.raises(DataError, match='unseen="baseline" scores them'):
        dg.load(model).predict(tmp_path / "new.parquet")


# -- publication -------------------------------------------------------------------------------------------------------


def test_a_run_that_did_not_converge_is_kept_and_not_published(tmp_path: Path, lake: Path) -> None:
    out = tmp_path / "model"
    short = ["fit", "y ~ x + area", lake, "--family", "poisson", "--out", out, "--max-iter", 1, "--json"]
    first = run(*short)
    assert first.exit_code == 4
    assert "it has no published model" in first.stderr
    assert not (out / "current.json").exists()
    found = document(first)
    assert (found["published"], found["converged"], found["exit_code"]) == (False, False, 4)
    assert not dg.load(found["runs"][0]).converged
    with pytest.raises(DesignError, match=r"has no published model: none of its 1 run\(s\) passed.*load\(\".*runs"):
        dg.load(out)
    for call in (["predict", out, lake, "--out", tmp_path / "scored"], ["summary", out]):
        refused = run(*call)
        assert refused.exit_code == 2
        assert f"daskglm predict {found['runs'][0]} ... or daskglm summary {found['runs'][0]}, or" in refused.stderr
        assert "load(" not in refused.stderr
    assert run("summary", found["runs"][0]).exit_code == 0

    assert document(run("fit", "y ~ x + area", lake, "--family", "poisson", "--out", out, "--json"))["published"]
    published = (out / "current.json").read_bytes()
    again = run(*short)
    assert again.exit_code == 4
    assert "the model published before stays" in again.stderr
    assert (out / "current.json").read_bytes() == published
    assert dg.load(out).converged
    assert len(list((out / "runs").iterdir())) == 3

    assert run(*short, "--publish", "always").exit_code == 4
    assert not dg.load(out).converged


def test_several_responses_are_published_together(tmp_path: Path, lake: Path) -> None:
    out = tmp_path / "models"
    call = ["fit", "responses(y, year) ~ x", lake, "--family", "poisson", "--out", out, "--json"]
    first = run(*call, "--max-iter", 1)
    assert first.exit_code == 4
    assert len(document(first)["runs"]) == 2
    with pytest.raises(DesignError, match="several responses that were not published"):
        dg.load(out)
    assert run(*call).exit_code == 0
    assert dg.load(out).converged
    before = dg.load(out).params
    assert run(*call, "--max-iter", 1).exit_code == 4
    pd.testing.assert_frame_equal(dg.load(out).params, before)
    assert len(list((out / "0" / "runs").iterdir())) == 3


@pytest.mark.parametrize("value", ["sometimes", "allways"])
def test_publish_is_checked_before_the_fit(tmp_path: Path, lake: Path, value: str) -> None:
    result = run("fit", "y ~ x", lake, "--out", tmp_path / "model", "--publish", value)
    assert result.exit_code == 2
    assert f"publish='{value}' is not" in result.stderr
    assert not (tmp_path / "model").exists()
    with pytest.raises(DesignError, match="is not"):
        dg.glm("y ~ x", frame()).save(tmp_path / "model", publish=value)


def test_a_model_that_did_not_converge_warns_when_it_scores(tmp_path: Path, lake: Path) -> None:
    with pytest.warns(ConvergenceWarning):
        fit = dg.glm("y ~ x + area", frame(), family="poisson", max_iter=1)
    with pytest.warns(ConvergenceWarning, match="the model did not converge"):
        fit.predict(frame())
    fit.save(tmp_path / "model")
    result = run("predict", tmp_path / "model", lake, "--out", tmp_path / "scored", "--json")
    assert result.exit_code == 0
    assert "ConvergenceWarning: the model did not converge" in result.stderr
    assert document(result)["converged"] is False


def test_python_keeps_a_run_that_did_not_converge_beside_a_published_model(tmp_path: Path) -> None:
    good = dg.glm("y ~ x", frame(), family="poisson")
    with pytest.warns(ConvergenceWarning):
        poor = dg.glm("y ~ x + area", frame(), family="poisson", max_iter=1)
    poor.save(tmp_path / "first")
    assert not dg.load(tmp_path / "first").converged
    poor.save(tmp_path / "kept", publish="converged")
    assert not (tmp_path / "kept" / "current.json").exists()
    good.save(tmp_path / "model")
    with pytest.warns(ConvergenceWarning, match="the model published in .* stays; the run is kept in .*runs"):
        poor.save(tmp_path / "model")
    assert dg.load(tmp_path / "model").formula == good.formula
    assert len(list((tmp_path / "model" / "runs").iterdir())) == 2
    poor.save(tmp_path / "model", publish="always")
    assert dg.load(tmp_path / "model").formula == poor.formula


def test_several_responses_in_python_are_kept_alike(tmp_path: Path) -> None:
    good = dg.glm("responses(y, year) ~ x", frame(), family="poisson")
    with pytest.warns(ConvergenceWarning):
        poor = dg.glm("responses(y, year) ~ area", frame(), family="poisson", max_iter=1)
    good.save(tmp_path / "models")
    with pytest.warns(ConvergenceWarning, match=r"runs.*, .*runs"):
        poor.save(tmp_path / "models")
    pd.testing.assert_frame_equal(dg.load(tmp_path / "models").params, good.params)


# -- job files ---------------------------------------------------------------------------------------------------------


def test_paths_in_a_job_file_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    frame().to_parquet(tmp_path / "jobs" / "lake.parquet")
    job = tmp_path / "jobs" / "job.toml"
    monkeypatch.chdir(tmp_path / "elsewhere")
    for data in ('"lake.parquet"', '["lake.parquet"]', f'"{tmp_path}/jobs/lake.parquet"'):
        job.write_text(f'formula = "y ~ x"\ndata = {data}\nout = "model"\ncheckpoint = "state"\n')
        result = run("fit", "../jobs/job.toml")
        assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "jobs" / "model" / "runs").iterdir())) == 3
    # a flag is relative to where the command runs
    assert run("fit", "../jobs/job.toml", "--out", "model").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["model"]


def test_urls_in_a_job_file_stay_urls(tmp_path: Path, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    job = tmp_path / "jobs" / "job.toml"
    for out in ("gs://bucket/model", "s3:model"):
        job.write_text(f'formula = "y ~ x"\ndata = "../lake.parquet"\nout = "{out}"\n')
        result = run("fit", "jobs/job.toml")
        assert result.exit_code == 2
        assert f"written to {out}: " in result.stderr
    job.write_text('formula = "y ~ x"\ndata = "gs:/no/lake"\n')
    assert "gs:/no/lake" in run("fit", "jobs/job.toml").stderr
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["job.toml"]


WRONG = {
    "formula": "3", "data": "3", "out": "[1]", "family": "true", "max_iter": '"ten"', "tol": '"small"',
    "threads": "1.5", "progress": '"yes"', "memory_limit": "[2]", "where": "2024", "checkpoint": "1",
    "dispersion": "[1]", "start": '"zero"', "publish": "true", "scheduler": "8786", "weights": "7",
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_value_of_the_wrong_kind_is_named_by_its_key(tmp_path: Path, lake: Path, key: str) -> None:
    values = {"formula": '"y ~ x"', "data": f'"{lake}"'} | {key: WRONG[key]}
    job = tmp_path / "job.toml"
    job.write_text("\n".join(f"{name} = {value}" for name, value in values.items()))
    result = run("fit", job, "--json")
    assert result.exit_code == 2
    assert f"job.toml: the key '{key}' takes " in document(result)["error"]


@pytest.mark.parametrize("key", ["formula", "data"])
def test_a_job_file_without_a_key_that_it_needs(tmp_path: Path, lake: Path, key: str) -> None:
    values = {"formula": "y ~ x", "data": str(lake)}
    job = tmp_path / "job.toml"
    for state, lines in (("missing", {}), ("empty", {key: ""})):
        written = {name: value for name, value in values.items() if name != key} | lines
        job.write_text("\n".join(f'{name} = "{value}"' for name, value in written.items()))
        result = run("fit", job)
        assert result.exit_code == 2
        assert f"{job}: the key '{key}' is {state}" in result.stderr


def test_a_job_file_that_is_no_text_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes('formula = "größe ~ x"'.encode("latin-1"))
    (tmp_path / "folder.toml").mkdir()
    for name, said in (("latin", "is not UTF-8 text"), ("folder", "cannot be read"), ("none", "does not exist")):
        result = run("fit", tmp_path / f"{name}.toml")
        assert result.exit_code == 2
        assert said in result.stderr


# -- predictions -------------------------------------------------------------------------------------------------------


def test_rows_without_a_prediction_are_counted_apart(tmp_path: Path, model: Path) -> None:
    data = frame(40, seed=8)
    data.loc[:2, "x"] = np.nan
    data.loc[2:3, "area"] = None
    data.loc[10:13, "area"] = "new"
    data.to_parquet(tmp_path / "new.parquet")
    call = ["predict", model, tmp_path / "new.parquet", "--unseen", "missing", "--json"]
    result = run(*call, "--out", tmp_path / "scored")
    found = document(result)
    assert (found["rows"], found["scored"], found["missing"]) == (40, 32, 8)
    assert found["reasons"] == {"x": 3, "area": 2, "area (unseen level)": 4}
    assert "32 rows scored" in result.stdout
    assert "; 8 without a prediction (x missing in 3, area missing in 2, area (unseen level) in 4)" in result.stdout
    assert int(pq.read_table(tmp_path / "scored").column("mean").null_count) == 8
    assert "without a prediction" not in run(*call[:2], tmp_path / "lake.parquet", "--out", tmp_path / "x").stdout


def test_expressions_that_have_no_value_are_reasons(tmp_path: Path) -> None:
    data = frame().assign(z=1.0)
    data.loc[3:, "z"] += np.arange(297)
    dg.glm("y ~ log(z) + x", data, family="poisson").save(tmp_path / "model")
    data.loc[:1, "z"] = 0.0
    data.loc[2:4, "x"] = np.inf
    data.to_parquet(tmp_path / "lake.parquet")
    found = document(run("predict", tmp_path / "model", tmp_path / "lake.parquet", "--out", tmp_path / "o", "--json"))
    assert found["missing"] == 5
    assert found["reasons"] == {"x": 3, "log(z)": 2}


@pytest.mark.parametrize("unseen", ["raise", "baseline", "missing"])
@pytest.mark.parametrize("fitted", ["raise", "baseline", "missing"])
def test_the_policy_for_unseen_levels_can_be_another(tmp_path: Path, fitted: str, unseen: str) -> None:
    fit = dg.glm("y ~ x + area", frame(), family="poisson", unseen=fitted)
    data = frame(20, seed=9)
    data.loc[4, "area"] = "new"
    as_baseline = fit.predict(data.assign(area=data.area.replace("new", "a")))
    data.to_parquet(tmp_path / "new.parquet")
    fit.save(tmp_path / "model")
    result = run("predict", tmp_path / "model", tmp_path / "new.parquet", "--out", tmp_path / "out", "--unseen", unseen)
    if unseen == "raise":
        assert result.exit_code == 3
        assert "area has levels that the model has not seen: new" in result.stderr
        with pytest.raises(DataError, match="new"):
            fit.predict(data, unseen=unseen)
        return
    expected = as_baseline.copy()
    if unseen == "missing":
        expected[4] = np.nan
    pd.testing.assert_series_equal(fit.predict(data, unseen=unseen), expected)
    written = pq.read_table(tmp_path / "out").column("mean").to_pandas()
    np.testing.assert_array_equal(written, expected)


def test_an_unknown_policy_is_refused(model: Path) -> None:
    with pytest.raises(DesignError, match=r"unseen='basline' is not one of .*did you mean .baseline"):
        dg.load(model).predict(frame(), unseen="basline")


def test_which_rows_are_scored(tmp_path: Path, model: Path, lake: Path) -> None:
    result = run("predict", model, lake, "--out", tmp_path / "out", "--where", "year = 2024 and x > 0", "--json")
    data = frame()
    kept = data[(data.year == 2024) & (data.x > 0)]
    found = document(result)
    assert (found["rows"], found["filtered"]) == (len(kept), len(data) - len(kept))
    written = pq.read_table(tmp_path / "out").to_pandas()
    np.testing.assert_array_equal(written["mean"], dg.load(model).predict(kept))
    nothing = run("predict", model, lake, "--out", tmp_path / "none", "--where", "year = 1999", "--json")
    assert document(nothing)["rows"] == 0
    assert nothing.stdout.startswith(f"0 rows scored into {tmp_path / 'none'}; {len(data)} filtered out\n")
    assert pq.read_table(tmp_path / "none").schema.names == [*data.columns, "mean"]
    assert run("predict", model, lake, "--out", tmp_path / "no", "--where", "yaer = 1").exit_code == 2


def hive(folder: Path, data: pd.DataFrame) -> Path:
    for (year, area), part in data.groupby(["year", "area"]):
        place = folder / f"year={year}" / f"zone={area}"
        place.mkdir(parents=True)
        part.drop(columns=["year", "area"]).to_parquet(place / "data.parquet", index=False)
    return folder


def test_folders_of_the_data_are_folders_of_the_predictions(tmp_path: Path) -> None:
    data = frame()
    lake, out = hive(tmp_path / "hive", data), tmp_path / "scored"
    fit = dg.glm("y ~ x + zone + C(year)", lake, family="poisson")
    fit.save(tmp_path / "model")
    assert run("predict", tmp_path / "model", lake, "--out", out).exit_code == 0
    inside = {str(path.parent.relative_to(out)) for path in out.rglob("*.parquet")}
    assert inside == {f"year={year}/zone={area}" for year in (2023, 2024) for area in "abc"}
    back = pq.read_table(out).to_pandas()
    assert set(back.columns) == {"x", "y", "mean", "year", "zone"}
    expected = fit.predict(back.assign(zone=back.zone.astype(str), year=back.year.astype(int)))
    np.testing.assert_allclose(back["mean"], expected, rtol=1e-14)
    assert len(back) == len(data)


@pytest.mark.parametrize("spelling", ["folder", "file", "inner folder"])
def test_the_folder_of_one_partition_can_be_scored(tmp_path: Path, spelling: str) -> None:
    data = frame()
    lake = hive(tmp_path / "hive", data)
    fit = dg.glm("y ~ x + zone + C(year)", lake, family="poisson")
    fit.save(tmp_path / "model")
    inner = lake / "year=2024" / "zone=b"
    given = {"folder": lake / "year=2024", "file": inner / "data.parquet", "inner folder": inner}[spelling]
    out = tmp_path / "year=2024"
    result = run("predict", tmp_path / "model", given, "--out", out)
    assert result.exit_code == 0, result.stderr
    part = data[data.year == 2024].rename(columns={"area": "zone"})
    part = part if spelling == "folder" else part[part.zone == "b"]
    written = pd.concat([pq.read_table(path, partitioning=None).to_pandas() for path in out.rglob("*.parquet")])
    np.testing.assert_allclose(written["mean"].sort_values(), fit.predict(part).sort_values(), rtol=1e-14)
    assert "year" not in written


def test_one_folder_does_not_tell_the_kind_of_the_column(tmp_path: Path) -> None:
    data = frame()
    data["code"] = np.where(data.year == 2023, "7", "x")
    for code, part in data.groupby("code"):
        (tmp_path / "lake" / f"code={code}").mkdir(parents=True)
        part.drop(columns="code").to_parquet(tmp_path / "lake" / f"code={code}" / "0.parquet")
    fit = dg.glm("y ~ x + code", tmp_path / "lake", family="poisson")
    found = fit.predict(tmp_path / "lake" / "code=7")
    np.testing.assert_allclose(found, fit.predict(data[data.code == "7"]), rtol=1e-14)
    residuals = fit.residuals(tmp_path / "lake" / "code=7")
    np.testing.assert_allclose(residuals, fit.residuals(data[data.code == "7"]), rtol=1e-9)


def test_a_column_of_the_files_is_not_the_name_of_the_lake(tmp_path: Path) -> None:
    folder = tmp_path / "year=1900"
    folder.mkdir()
    frame().to_parquet(folder / "data.parquet")
    fit = dg.glm("y ~ year", folder, family="poisson")
    np.testing.assert_array_equal(fit.params, dg.glm("y ~ year", frame(), family="poisson").params)


def test_predictions_are_replaced_when_asked(tmp_path: Path, model: Path, lake: Path) -> None:
    out = tmp_path / "scored"
    call = ["predict", model, lake, "--out", out]
    assert run(*call).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = run(*call)
    assert refused.exit_code == 2
    assert "--overwrite replaces it" in refused.stderr
    # an error leaves what was there
    assert run(*call, "--overwrite", "--columns", "nothing").exit_code == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run(*call, "--overwrite", "--columns", "x").exit_code == 0
    assert pq.read_table(out).schema.names == ["x", "mean"]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "lake.parquet", "scored"}


def test_only_predictions_are_replaced(tmp_path: Path, model: Path) -> None:
    (tmp_path / "lake").mkdir()
    frame().to_parquet(tmp_path / "lake" / "data.parquet")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("dear")
    for out, said in (("lake", "holds the data that are to be scored"), ("letters", "holds dear.txt")):
        result = run("predict", model, tmp_path / "lake", "--out", tmp_path / out, "--overwrite")
        assert result.exit_code == 2
        assert said in result.stderr
    assert len(list((tmp_path / "lake").iterdir())) == 1


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parquet_files_that_are_not_predictions_are_not_replaced(tmp_path: Path, model: Path, lake: Path) -> None:
    call = ["predict", model, lake, "--overwrite", "--out"]
    hive(tmp_path / "hive", frame())
    assert run(*call, tmp_path / "beside").exit_code == 0
    frame().to_parquet(tmp_path / "beside" / "mine.parquet")
    assert run(*call, tmp_path / "copied").exit_code == 0
    # metadata of pyarrow tables are copied with them
    pq.write_table(pq.read_table(tmp_path / "copied" / "part-00000.parquet"), tmp_path / "copied" / "joined.parquet")
    assert run(*call, tmp_path / "unmarked").exit_code == 0
    pq.write_table(
        pq.read_table(tmp_path / "unmarked").replace_schema_metadata(None),
        tmp_path / "unmarked" / "part-00000.parquet",
    )
    assert run(*call, tmp_path / "broken").exit_code == 0
    (tmp_path / "broken" / "part-00007.parquet").write_bytes(b"PAR1")
    dg.load(model).residuals(lake, out=tmp_path / "residuals")
    for out, other in {
        "hive": "year=2023/zone=a/data.parquet", "beside": "mine.parquet", "copied": "joined.parquet",
        "unmarked": "part-00000.parquet", "broken": "part-00007.parquet", "residuals": "part-00000.parquet",
    }.items():  # fmt: skip
        before = files_in(tmp_path / out)
        refused = run(*call, tmp_path / out)
        assert refused.exit_code == 2
        assert re.search(rf"{out} holds {other}, which is not marked as predictions", refused.stderr), refused.stderr
        assert "name a new folder, or remove this one by hand" in refused.stderr
        assert files_in(tmp_path / out) == before


def test_files_that_arrive_while_rows_are_scored_are_not_removed(
    tmp_path: Path, model: Path, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["predict", model, lake, "--out", tmp_path / "scored", "--overwrite"]
    assert run(*call).exit_code == 0
    scored = daskglm.jobs._scored

    def meanwhile(*arguments: Any) -> Any:
        (tmp_path / "scored" / "note.txt").write_text("theirs")
        return scored(*arguments)

    monkeypatch.setattr(daskglm.jobs, "_scored", meanwhile)
    before = files_in(tmp_path / "scored")
    assert "holds note.txt" in run(*call).stderr
    assert files_in(tmp_path / "scored") == {**before, "note.txt": b"theirs"}


@pytest.mark.parametrize("method, mark", [("residuals", b"residuals"), ("influence", b"measures of influence")])
def test_files_that_are_written_have_a_mark(tmp_path: Path, model: Path, lake: Path, method: str, mark: bytes) -> None:
    getattr(dg.load(model), method)(lake, out=tmp_path / "out")
    assert pq.read_schema(tmp_path / "out" / "part-00000.parquet").metadata[b"daskglm"] == mark


def test_a_cluster_scores_as_this_process_does(tmp_path: Path, client: Any, quiet: None) -> None:
    hive(tmp_path / "hive", frame().assign(zone="z"))
    fit = dg.glm("y ~ x + zone", tmp_path / "hive", family="poisson")
    fit.save(tmp_path / "zones")
    for out, flags in (("here", []), ("there", ["--scheduler", client.scheduler.address])):
        result = run("predict", tmp_path / "zones", tmp_path / "hive", "--out", tmp_path / out, *flags, "--json")
        assert result.exit_code == 0, result.stderr
        assert document(result)["scored"] == 300
    here = {path.relative_to(tmp_path / "here"): path.read_bytes() for path in (tmp_path / "here").rglob("*.parquet")}
    there = {
        path.relative_to(tmp_path / "there"): path.read_bytes() for path in (tmp_path / "there").rglob("*.parquet")
    }
    assert here == there
    assert len(here) == 6
