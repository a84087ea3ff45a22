"""Models saved and read back bit for bit, from files that anybody can read, and damage named."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm import persist
from daskglm.errors import DataError, DesignError


def frame(n: int = 400) -> pd.DataFrame:
    generator = np.random.default_rng(12)
    return pd.DataFrame(
        {
            "y": generator.poisson(2.0, n).astype(float),
            "won": generator.choice(["no", "yes"], n),
            "x": generator.normal(size=n),
            "z": generator.uniform(1.0, 2.0, n),
            "s": generator.choice(["ä", "b b", 'c"', "d\n"], n),
            "k": generator.integers(0, 3, n),
            "h": generator.choice([0.5, 1.0, 0.1 + 0.2], n),
            "flag": generator.random(n) < 0.5,
            "w": generator.uniform(1.0, 2.0, n),
        }
    )


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("y ~ x", {}),
    "text levels": ("y ~ s*x", {"family": "poisson"}),
    "number levels": ("y ~ C(k) + C(h) + C(flag)", {"family": "poisson", "unseen": "missing"}),
    "baseline": ("y ~ C(s, Treatment('b b')):z", {"family": "poisson"}),
    "no intercept": ("y ~ s + x - 1", {"covariance": "HC1"}),
    "text response": ("won ~ x + s", {"family": "binomial", "link": "probit"}),
    "weights": ("y ~ x", {"family": "gaussian", "weights": dg.Frequency("k")}),
    "probability": ("y ~ x", {"family": "poisson", "weights": dg.Probability("w")}),
    "exposure": ("y ~ x + offset(z)", {"family": "poisson", "exposure": "w"}),
    "filter": ("y ~ log(z)", {"where": "x > 0", "dispersion": "deviance"}),
    "aliased": ("y ~ x + I(2 * x)", {}),
    "theta": ("y ~ x", {"family": "negative_binomial"}),
    "no overdispersion": ("k ~ x", {"family": "negative_binomial"}),
    "theta given": ("y ~ x", {"family": "negative_binomial(theta=2.5)", "link": "sqrt"}),
    "power": ("I(y * z) ~ x", {"family": "tweedie"}),
    "power given": ("I(y * z) ~ x", {"family": dg.families.Tweedie(1.25), "link": "power(0.5)"}),
    "shape": ("z ~ x", {"family": "gamma", "dispersion": "ml"}),
    "shape given": ("z ~ x", {"family": "gamma(shape=3)"}),
    "inverse gaussian": ("z ~ x", {"family": "inverse_gaussian", "link": "inverse_square"}),
    "quasi": ("z ~ x", {"family": "quasi(variance='mu^2')", "link": "log"}),
    "classes": ("s ~ x + k", {"family": "multinomial"}),
    "classes in order": ("s ~ x", {"family": dg.families.Multinomial(levels=["b b", "d\n", 'c"', "ä"])}),
    "ordered": ("k ~ x + s", {"family": "ordinal", "link": "cloglog", "weights": "w"}),
    "ordered by hand": ("k ~ x", {"family": "ordinal(levels=[2, 0, 1])"}),
}


def fitted(name: str) -> dg.Fit:
    formula, options = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.errors.AliasWarning)
        return dg.glm(formula, frame(), **options)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_read_back_is_the_model(tmp_path: Path, name: str) -> None:
    fit = fitted(name)
    fit.save(tmp_path / "model")
    back = dg.load(tmp_path / "model")
    one, other = fit.record, back.record
    assert one.coefficients.tobytes() == other.coefficients.tobytes()
    assert one.covariance.tobytes() == other.covariance.tobytes()
    for part in (
        "specification",
        "ledger",
        "notes",
        "aliased",
        "separated",
        "status",
        "reason",
        "n_iter",
        "n_passes",
        "shape",
    ):
        assert repr(getattr(other, part)) == repr(getattr(one, part)), part
    assert (other.family, other.link) == (one.family, one.link)
    assert repr(other.statistics) == repr(one.statistics)
    assert repr(other.certificate) == repr(one.certificate)
    for part in ("terms", "intercept", "pieces", "baselines", "names", "term_of", "moments", "y_levels", "notes"):
        assert getattr(other.design, part) == getattr(one.design, part), part
    assert {k: tuple(map(type, v)) for k, v in other.design.levels.items()} == {
        k: tuple(map(type, v)) for k, v in one.design.levels.items()
    }
    assert other.design.levels == one.design.levels
    np.testing.assert_array_equal(other.design.select, one.design.select)
    assert str(back.summary()) == str(fit.summary())
    options = {} if name == "probability" else {"se": True, "interval": "confidence"}
    new = frame(50)
    pd.testing.assert_frame_equal(
        pd.DataFrame(back.predict(new, **options)), pd.DataFrame(fit.predict(new, **options)), check_exact=True
    )


def test_the_files_say_what_the_model_says(tmp_path: Path) -> None:
    fit = fitted("text levels")
    fit.save(tmp_path / "model")
    current = json.loads((tmp_path / "model" / "current.json").read_text())
    assert current["format"] == persist.FORMAT
    run = tmp_path / "model" / "runs" / current["run"]
    table = pq.read_table(run / "parameters.parquet").to_pandas()
    assert table.name.tolist() == list(fit.params.index)
    np.testing.assert_array_equal(table.estimate, fit.params)
    np.testing.assert_array_equal(table.standard_error, fit.bse)
    assert set(table.term) == {"Intercept", "s", "x", "s:x"}
    covariance = pq.read_table(run / "covariance.parquet").to_pandas()
    np.testing.assert_array_equal(covariance.to_numpy(), fit.cov_params().to_numpy())
    model = json.loads((run / "model.json").read_text(encoding="utf-8"))
    assert model["specification"]["formula"] == "y ~ s*x"
    assert model["statistics"]["deviance"] == fit.deviance
    assert not list(run.parent.glob(".*"))


def test_saving_again_shows_the_new_model_and_keeps_the_old_run(tmp_path: Path) -> None:
    one, other = fitted("plain"), fitted("no intercept")
    one.save(tmp_path / "model")
    other.save(tmp_path / "model")
    assert dg.load(tmp_path / "model").formula == other.formula
    assert len(list((tmp_path / "model" / "runs").iterdir())) == 2


def test_a_save_that_fails_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = fitted("plain"), fitted("no intercept")
    one.save(tmp_path / "model")

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DesignError, match="no space"):
        other.save(tmp_path / "model")
    assert dg.load(tmp_path / "model").formula == one.formula
    assert len(list((tmp_path / "model" / "runs").iterdir())) == 1


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("letters", "file"):
        with pytest.raises(DesignError, match=name):
            fitted("plain").save(tmp_path / name)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "dear"
    assert [entry.name for entry in (tmp_path / "letters").iterdir()] == ["dear.txt"]
    (tmp_path / "empty").mkdir()
    fitted("plain").save(tmp_path / "empty")
    assert dg.load(tmp_path / "empty").formula == "y ~ x"


def test_folders_without_a_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(DesignError, match="nowhere does not exist"):
        dg.load(tmp_path / "nowhere")
    with pytest.raises(DesignError, match="is not a saved model"):
        dg.load(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted("text levels").save(folder)
    return folder


def run_of(model: Path) -> Path:
    return model / "runs" / json.loads((model / "current.json").read_text())["run"]


def without_working_estimate(run: Path) -> None:
    """A run as models were written before they held their estimate on its working scale."""
    (run / "working.parquet").unlink()
    document = json.loads((run / "model.json").read_text())
    del document["basis"]
    (run / "model.json").write_text(json.dumps(document))


def test_a_model_without_a_working_estimate_is_read_from_its_covariance(tmp_path: Path, saved: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    without_working_estimate(run_of(model))
    new, old = dg.load(saved), dg.load(model)
    np.testing.assert_array_equal(old.params, new.params)
    np.testing.assert_allclose(old.cov_params(), new.cov_params(), rtol=1e-12)
    np.testing.assert_allclose(old.record.working.covariance, new.record.working.covariance, rtol=1e-11)


@pytest.mark.parametrize("file", ["model.json", "parameters.parquet", "working.parquet", "covariance.parquet"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "noise"])
def test_a_damaged_file_is_a_data_error_that_names_it(tmp_path: Path, saved: Path, file: str, damage: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    path = run_of(model) / file
    if file == "covariance.parquet":
        without_working_estimate(path.parent)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\x00\xff" * 40}[damage])
    with pytest.raises(DataError, match=path.parent.name) as caught:
        dg.load(model)
    assert caught.type is DataError


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 2, "run": "x"}',
        '{"format": 1, "run": "../../x"}',
        '{"format": 1}',
        "[",
        '{"format": 1, "run": ".."}',
    ],
)
def test_a_current_file_that_names_no_run_is_refused(tmp_path: Path, saved: Path, text: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    (model / "current.json").write_text(text)
    with pytest.raises(DataError):
        dg.load(model)


@pytest.mark.parametrize("key", ["design", "specification", "statistics", "certificate", "ledger", "aliased"])
def test_a_document_without_a_part_is_damaged(tmp_path: Path, saved: Path, key: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    path = run_of(model) / "model.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    del document[key]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=f"damaged.*{key}"):
        dg.load(model)


def test_tables_that_do_not_fit_the_design_are_damage(tmp_path: Path, saved: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    path = run_of(model) / "parameters.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DataError, match="do not fit"):
        dg.load(model)


def test_what_a_later_version_adds_is_left_alone(tmp_path: Path, saved: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    path = run_of(model) / "model.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["novelty"] = 1
    document["statistics"]["novelty"] = 2
    document["specification"]["novelty"] = "x"
    path.write_text(json.dumps(document))
    expected = pq.read_table(run_of(saved) / "parameters.parquet").column("estimate").to_pylist()
    assert dg.load(model).params.tolist() == expected


def test_numbers_that_json_has_not_survive(tmp_path: Path) -> None:
    fit = fitted("probability")
    assert np.isnan(fit.record.statistics.llf)
    fit.save(tmp_path / "model")
    text = (run_of(tmp_path / "model") / "model.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert np.isnan(dg.load(tmp_path / "model").record.statistics.llf)


def test_levels_at_the_edges_of_their_types(tmp_path: Path) -> None:
    whole = [-(2**53) - 1, 0, 2**53 + 1]
    real = [-0.1, 1e-300, 1.0]
    table = pa.table({"y": np.arange(30.0), "i": pa.array(whole * 10), "r": pa.array(np.repeat(real, 10))})
    fit = dg.glm("y ~ C(i) + C(r)", table)
    fit.save(tmp_path / "model")
    back = dg.load(tmp_path / "model")
    assert back.record.design.levels["C(r)"] == tuple(real)
    np.testing.assert_array_equal(back.predict(table), fit.predict(table))
    # the mean of each of the nine cells is on a plane, so the least squares fit is found cell by cell
    design = np.column_stack(
        [
            np.ones(30),
            *(np.tile(np.array(whole) == v, 10) for v in whole[1:]),
            *(np.repeat(real, 10) == v for v in real[1:]),
        ]
    ).astype(float)
    expected = design @ np.linalg.lstsq(design, np.arange(30.0), rcond=None)[0]
    np.testing.assert_allclose(back.predict(table), expected, rtol=1e-10, atol=1e-10)
