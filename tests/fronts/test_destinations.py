"""Where models, predictions and checkpoints are written: folders and objects, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import daskglm as dg
from daskglm.checkpoint import Log
from daskglm.cli import main
from daskglm.cluster import folders, objects
from daskglm.cluster.folders import Folder, open_folder
from daskglm.errors import ChangedInputError, DesignError, UnavailableError
from daskglm.totals.likelihood import Number
from tests.cluster import weed

BUCKET = "destinations"


def frame(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"x": rng.normal(size=n), "area": rng.choice(["a", "b"], n)})
    data["y"] = rng.poisson(np.exp(0.3 * data.x))
    return data


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Three files."""
    (tmp_path / "lake").mkdir()
    for number, part in enumerate(np.array_split(np.arange(300), 3)):
        frame().iloc[part].to_parquet(tmp_path / "lake" / f"{number}.parquet", index=False)
    return tmp_path / "lake"


class Store:
    """A real store behind a proxy, and what is in it."""

    def __init__(self, proxy: weed.Proxy, endpoint: str) -> None:
        import fsspec

        self.proxy = proxy
        self.files = fsspec.filesystem(
            "s3", key=weed.KEY, secret=weed.SECRET, endpoint_url=endpoint, use_listings_cache=False
        )
        self.files.mkdir(BUCKET)

    def names(self, prefix: str) -> list[str]:
        """Names of objects below a prefix."""
        whole = f"{BUCKET}/{prefix}"
        # this store keeps the names of folders that are empty for a while
        found = (name for name in self.files.find(whole, refresh=True) if name.rstrip("/") != whole)
        return sorted(name.removeprefix(f"{whole}/") for name in found)

    def unfinished(self) -> list[Any]:
        """Uploads that were begun and neither completed nor given up."""
        return list(self.files.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads", []))

    def fail(self, words: str, answer: Any = 403, method: str = "") -> None:
        """Let every request fail whose path has these words in it."""
        self.proxy.fault = lambda asked: answer if words in asked.path and method in ("", asked.method) else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    pytest.importorskip("s3fs")
    running = weed.seaweed(tmp_path_factory.mktemp("weed") / "store")
    try:
        found = running.__enter__()
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        with weed.proxy(found.port) as proxy, pytest.MonkeyPatch.context() as patch:
            for name in weed.FOREIGN:
                patch.delenv(name, raising=False)
            for name, value in weed.environment(proxy.endpoint).items():
                patch.setenv(name, value)
            yield Store(proxy, found.endpoint)
    finally:
        running.__exit__(None, None, None)


@pytest.fixture
def store(server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store without faults, and a check that no URL was taken for a folder."""
    monkeypatch.setattr(objects, "FIRST_WAIT", 0.002)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    server.proxy.clear()
    yield server
    server.proxy.clear()
    assert list((tmp_path / "here").iterdir()) == []
    assert server.unfinished() == []


def url(name: str) -> str:
    return f"s3://{BUCKET}/{name}"


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return open_folder(tmp_path / "a" / "folder", "{place} cannot be written")
    request.getfixturevalue("store")
    return open_folder(url(f"folders/{request.node.name[:20]}{os.urandom(4).hex()}"), "{place} cannot be written")


def test_files_are_written_and_read(folder: Folder) -> None:
    assert folder.kind() is None
    assert folder.names() == []
    with pytest.raises(FileNotFoundError):
        folder.read("one")
    folder.write("one", b"1")
    folder.child("inner").write("two", lambda handle: handle.write(b"2") and None)
    assert folder.kind() == "folder"
    assert folder.names() == ["inner", "one"]
    assert folder.read("one") == b"1"
    assert folder.child("inner").read("two") == b"2"
    folder.remove("one")
    folder.remove("one")
    assert folder.names() == ["inner"]


def test_a_draft_shows_when_it_is_complete(folder: Folder) -> None:
    with folder.draft() as draft:
        draft.write("a", b"1")
        draft.write("year=2024/b", b"")
        assert folder.kind() is None
    assert folder.read("a") == b"1"
    assert folder.child("year=2024").read("b") == b""


def test_a_draft_that_fails_leaves_nothing(folder: Folder) -> None:
    def written() -> None:
        with folder.draft() as draft:
            draft.write("a", b"1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        written()
    assert folder.kind() is None


def test_an_error_of_what_is_written_is_its_own(folder: Folder) -> None:
    def written() -> None:
        with folder.draft() as draft:
            draft.write("a", b"1")
            raise OSError("of the data")

    with pytest.raises(OSError, match="of the data"):
        written()
    assert folder.kind() is None


@pytest.mark.parametrize("there", ["folder", "file"])
def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path, there: str) -> None:
    folder = open_folder(tmp_path / "folder", "{place} cannot be written")

    def written() -> None:
        with folder.draft() as draft:
            draft.write("a", b"1")
            if there == "folder":
                folder.write("theirs", b"2")
            else:
                (tmp_path / "folder").write_bytes(b"2")

    with pytest.raises(DesignError, match=r"folder cannot be written: (Directory not empty|Not a directory)"):
        written()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert folder.names() == (["theirs"] if there == "folder" else [])


def test_looking_whether_it_can_be_written_leaves_nothing(folder: Folder) -> None:
    folder.probe()
    assert folder.kind() is None


def test_an_object_is_replaced_only_where_it_is_the_one_that_was_read(store: Store) -> None:
    folder = open_folder(url("swap"), "{place}")
    assert folder.swap("current", b"1", None)
    tag = folder.read_with_tag("current")[1]
    assert folder.swap("current", b"2", tag)
    assert not folder.swap("current", b"3", tag)
    assert not folder.swap("current", b"4", None)
    assert folder.read("current") == b"2"
    # what is there already was written by an attempt whose answer was lost
    assert folder.swap("current", b"2", None)


@pytest.mark.parametrize("place", ["gs://bucket/x", "abfs://c/x", "hdfs://host/x", "memory://x", "https://host/x"])
@pytest.mark.parametrize("option", ["--out", "--checkpoint"])
def test_stores_without_atomic_writes_are_refused_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("fit", "y ~ x", tmp_path / "no-lake", option, place)
    assert result.exit_code == 2
    assert f"{place}" in result.stderr
    assert "s3:// URLs" in result.stderr
    with pytest.raises(DesignError, match="s3:// URLs"):
        dg.glm("y ~ x", frame()).save(place)
    assert run("predict", tmp_path, tmp_path, "--out", place).exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place", ["s3://bucket/model", "s3a://bucket/model", Path("s3://bucket/model"), "S3://bucket/model"]
)
def test_without_s3fs_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DesignError, match=r"bucket/model: that needs s3fs, pip install 'daskglm\[s3\]'"):
        dg.glm("y ~ x", frame()).save(place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", " ", "s3:model", "S3:b/model", "gs:model"])
def test_what_is_neither_a_path_nor_a_url_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for option in ("--out", "--checkpoint"):
        result = run("fit", "y ~ x", "no-lake", option, place)
        assert result.exit_code == 2
        assert "name a folder" in result.stderr or "such as s3://BUCKET/NAME" in result.stderr
        assert "no-lake" not in result.stderr
    with pytest.raises(DesignError, match=r"name a folder|such as s3://BUCKET/NAME"):
        dg.glm("y ~ x", frame()).save(place)
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    dg.glm("y ~ x", frame()).save(f"file://{tmp_path}/model")
    assert dg.load(tmp_path / "model").formula == "y ~ x"


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_model_in_a_store_is_the_model(store: Store, lake: Path, tmp_path: Path) -> None:
    call = ["fit", "y ~ x + area", lake, "--family", "poisson", "--json"]
    assert run(*call, "--out", tmp_path / "model").exit_code == 0
    result = run(*call, "--out", url("models/one"))
    assert result.exit_code == 0, result.stderr
    here, there = dg.load(tmp_path / "model"), dg.load(url("models/one"))
    pd.testing.assert_series_equal(here.params, there.params)
    pd.testing.assert_frame_equal(here.cov_params(), there.cov_params())
    document = json.loads(result.stdout.splitlines()[-1])
    assert document["model"] == url("models/one")
    pd.testing.assert_series_equal(dg.load(*document["runs"]).params, there.params)
    assert str(there.summary()) in run("summary", url("models/one")).stdout
    last = [asked for asked in store.proxy.requests if asked.method in ("PUT", "POST")][-1]
    assert last.path.endswith("models/one/current.json")
    assert last.headers["if-none-match"] == "*"

    again = run(*call, "--out", url("models/one"), "--max-iter", 1)
    assert again.exit_code == 4
    assert dg.load(url("models/one")).converged
    assert len({name.partition("/")[0] for name in store.names("models/one/runs")}) == 2


def test_every_spelling_of_a_url_is_the_store(store: Store) -> None:
    fit = dg.glm("y ~ x", frame())
    for number, scheme in enumerate(("s3a://", "S3://", "s3:/")):
        given = f"{scheme}{BUCKET}/models/spelt-{number}"
        fit.save(Path(given) if scheme == "s3:/" else given)
        assert dg.load(url(f"models/spelt-{number}/")).formula == "y ~ x"


def test_several_models_in_a_store(store: Store) -> None:
    fits = dg.glm("responses(y, x) ~ area", frame())
    fits.save(url("models/several"))
    pd.testing.assert_frame_equal(dg.load(url("models/several")).params, fits.params)
    pd.testing.assert_series_equal(dg.load(url("models/several/1")).params, fits["x"].params)


def test_models_of_several_responses_are_published_in_one_step(store: Store) -> None:
    one, other = dg.glm("responses(y, x) ~ area", frame()), dg.glm("responses(y, x) ~ 1", frame())
    one.save(url("models/step"))
    store.fail("responses.json", method="PUT")
    with pytest.raises(DesignError, match="the store refuses"):
        other.save(url("models/step"))
    store.proxy.clear()
    pd.testing.assert_frame_equal(dg.load(url("models/step")).params, one.params)
    # one by one they are what was written last
    assert dg.load(url("models/step/0")).formula == other["y"].formula


@pytest.mark.parametrize("words", ["model.json", "covariance.parquet", "current.json"])
def test_a_model_that_cannot_be_written_leaves_the_one_before(store: Store, words: str) -> None:
    place = f"models/{words[:5]}"
    one, other = dg.glm("y ~ x", frame()), dg.glm("y ~ area", frame())
    one.save(url(place))
    before = store.names(place)
    store.fail(words, method="PUT")
    with pytest.raises(DesignError, match="the store refuses"):
        other.save(url(place))
    store.proxy.clear()
    assert dg.load(url(place)).formula == "y ~ x"
    assert store.names(place) == before


def test_a_store_without_conditional_writes_is_written_to(store: Store) -> None:
    store.proxy.fault = lambda asked: 501 if {"if-match", "if-none-match"} & set(asked.headers) else None
    one, other = dg.glm("y ~ x", frame()), dg.glm("y ~ area", frame())
    one.save(url("models/plain"))
    other.save(url("models/plain"))
    assert dg.load(url("models/plain")).formula == "y ~ area"


def test_two_writers_do_not_replace_each_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskglm import persist

    one, other, third = (dg.glm(f"y ~ {term}", frame()) for term in ("x", "area", "x:area"))
    one.save(url("models/two"))
    written = persist.write_run

    def slowly(record: Any, folder: Folder) -> str:
        monkeypatch.setattr(persist, "write_run", written)
        third.save(url("models/two"))
        return written(record, folder)

    monkeypatch.setattr(persist, "write_run", slowly)
    with pytest.raises(ChangedInputError, match=r"another run was published .* this one is kept in s3://.*/runs/"):
        other.save(url("models/two"))
    assert dg.load(url("models/two")).formula == "y ~ x:area"


@pytest.mark.parametrize("wrong", ["keys", "bucket", "no prefix", "silence"])
def test_a_store_that_cannot_be_written_to_is_found_before_the_fit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    place = {"bucket": "s3://no-such-bucket/model", "no prefix": f"s3://{BUCKET}"}.get(wrong, url("models/no"))
    if wrong == "keys":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    if wrong == "silence":
        store.fail("models/no", 503)
    result = run("fit", "y ~ x", tmp_path / "no-lake", "--out", place)
    assert result.exit_code == (7 if wrong == "silence" else 2)
    assert place in result.stderr
    assert "no-lake" not in result.stderr


def test_keys_in_a_url_are_not_repeated(store: Store, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    host = store.proxy.endpoint.removeprefix("http://")

    def place(name: str) -> str:
        query = f"region=us-east-1&scheme=http&endpoint_override={host}"
        return f"s3://{weed.KEY}:{weed.SECRET}@{BUCKET}/{name}?{query}"

    fitted = run("fit", "y ~ x", lake, "--out", place("keys/model"), "--json")
    scored = run("predict", place("keys/model"), lake, "--out", place("keys/scored"), "--json")
    shown = run("summary", place("keys/model"), "--json")
    again = run("predict", place("keys/model"), lake, "--out", place("keys/scored"), "--json")
    assert [each.exit_code for each in (fitted, scored, shown, again)] == [0, 0, 0, 2]
    for each in (fitted, scored, shown, again):
        assert weed.SECRET not in each.output


# -- predictions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    dg.glm("y ~ x + area", frame(), family="poisson").save(tmp_path / "model")
    return tmp_path / "model"


def test_predictions_in_a_store(store: Store, model: Path, lake: Path, tmp_path: Path) -> None:
    assert run("predict", model, lake, "--out", tmp_path / "scored").exit_code == 0
    store.proxy.clear()
    result = run("predict", model, lake, "--out", url("scored/one"), "--json")
    assert result.exit_code == 0, result.stderr
    assert store.names("scored/one") == ["_SUCCESS", *sorted(path.name for path in (tmp_path / "scored").iterdir())]
    for path in (tmp_path / "scored").iterdir():
        assert store.files.cat_file(f"{BUCKET}/scored/one/{path.name}") == path.read_bytes()
    writes = [asked.path for asked in store.proxy.requests if asked.method in ("PUT", "POST")]
    assert writes[-1].endswith("_SUCCESS")
    completed = [at for at, path in enumerate(writes) if "uploadId" in path and "partNumber" not in path]
    sent = [at for at, path in enumerate(writes) if "partNumber" in path]
    assert min(completed) > max(sent)
    refused = run("predict", model, lake, "--out", url("scored/one"))
    assert refused.exit_code == 2
    assert "exists and is not an empty folder" in refused.stderr
    replaced = run("predict", model, lake, "--out", url("scored/one"), "--overwrite")
    assert replaced.exit_code == 2
    assert "cannot be replaced in one step" in replaced.stderr
    # what was written can be read, and scored again
    assert dg.load(model).predict(url("scored/one")).size == 300


@pytest.mark.parametrize("words", ["partNumber", "part-00002", "_SUCCESS"])
def test_predictions_that_fail_leave_nothing(store: Store, model: Path, lake: Path, words: str) -> None:
    begun = 0

    def fault(asked: weed.Request) -> int | None:
        nonlocal begun
        begun += words in asked.path and asked.method in ("PUT", "POST")
        return (
            403 if words in asked.path and asked.method in ("PUT", "POST") and begun > (words == "partNumber") else None
        )

    store.proxy.fault = fault
    result = run("predict", model, lake, "--out", url("scored/none"))
    assert result.exit_code == 2
    assert "the store refuses" in result.stderr
    store.proxy.clear()
    assert store.names("scored/none") == []


def test_predictions_of_two_writers_are_not_mixed(store: Store, model: Path, lake: Path) -> None:
    theirs = f"{BUCKET}/scored/both/part-00001.parquet"

    def meanwhile(asked: weed.Request) -> None:
        if asked.method == "PUT" and "part-00002" in asked.path:
            store.files.pipe_file(theirs, b"theirs")

    store.proxy.fault = meanwhile
    result = run("predict", model, lake, "--out", url("scored/both"))
    store.proxy.clear()
    assert result.exit_code == 7
    assert "part-00001.parquet was written by somebody else meanwhile" in result.stderr
    assert store.names("scored/both") == ["part-00001.parquet"]
    assert store.files.cat_file(theirs) == b"theirs"


def test_folders_of_partitions_in_a_store(store: Store, model: Path, tmp_path: Path) -> None:
    for area, part in frame().groupby("area"):
        (tmp_path / "hive" / f"area={area}").mkdir(parents=True)
        part.drop(columns="area").to_parquet(tmp_path / "hive" / f"area={area}" / "0.parquet", index=False)
    assert run("predict", model, tmp_path / "hive", "--out", url("scored/hive")).exit_code == 0
    assert (
        run("predict", model, url("scored/hive/area=b/"), "--out", url("scored/again"), "--columns", "x").exit_code == 0
    )
    assert store.names("scored/again") == ["_SUCCESS", "part-00000.parquet"]
    assert store.names("scored/hive") == ["_SUCCESS", "area=a/part-00000.parquet", "area=b/part-00001.parquet"]


def test_residuals_in_a_store(store: Store, lake: Path) -> None:
    fit = dg.glm("y ~ x + area", lake, family="poisson")
    assert fit.residuals(lake, out=url("residuals")) == 300
    with store.files.open(f"{BUCKET}/residuals/part-00000.parquet") as handle:
        found = pq.read_table(handle).to_pandas()
    np.testing.assert_array_equal(found["deviance"], fit.residuals(lake)[:100])


def test_a_report_in_a_store(store: Store, model: Path, tmp_path: Path) -> None:
    assert run("summary", model, "--html", url("report.html")).exit_code == 0
    assert run("summary", model, "--html", tmp_path / "report.html").exit_code == 0
    assert store.files.cat_file(f"{BUCKET}/report.html") == (tmp_path / "report.html").read_bytes()


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_in_a_store_goes_on(store: Store) -> None:
    log = Log(url("state/log"), "plan", "data")
    for number in range(3):
        log.note(f"total {number}", Number(number + 0.5))
    assert store.names("state/log") == ["checkpoint.json", *(f"total-{number:05d}.npz" for number in range(3))]
    again = Log(url("state/log"), "plan", "data")
    assert [again.recall(f"total {number}")[1].value for number in range(3)] == [0.5, 1.5, 2.5]
    assert again.recall("total 3") == (False, None)
    with pytest.raises(DesignError, match="holds the state of another model"):
        Log(url("state/log"), "another", "data")
    again.remove()
    assert store.names("state/log") == []


def test_a_fit_that_was_interrupted_goes_on_from_a_store(store: Store, lake: Path) -> None:
    expected = dg.glm("y ~ x + area", lake, family="poisson")
    store.fail("total-00002", 503)
    with pytest.raises(UnavailableError, match=r"total-00002.* could not be written in"):
        dg.glm("y ~ x + area", lake, family="poisson", checkpoint=url("state/fit"))
    store.proxy.clear()
    assert store.names("state/fit") == ["checkpoint.json", "total-00000.npz", "total-00001.npz"]
    found = dg.glm("y ~ x + area", lake, family="poisson", checkpoint=url("state/fit"))
    assert found.params.to_numpy().tobytes() == expected.params.to_numpy().tobytes()
    assert store.names("state/fit") == []
    assert sum("total-00001" in asked.path and asked.method == "PUT" for asked in store.proxy.requests) == 0


# -- disks that are full -----------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with a file that leaves 16 kB free."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root mounts disks")
    try:
        (place / "other").write_bytes(bytes((512 - 16) << 10))
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def wide(n: int = 20_000) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n)})


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def a_sentence_of_a_full_disk(said: str, path: Path) -> None:
    assert "\n" not in said.strip()
    assert str(path) in said
    assert re.search(r"No space left on device \(.*[\d,]+ bytes are free\)", said), said
    assert re.search(r"[\d,]+ bytes (were written|cannot)", said), said


def test_a_full_disk_in_predictions(full: Path, tmp_path: Path) -> None:
    wide().to_parquet(tmp_path / "lake.parquet")
    dg.glm("y ~ x", wide()).save(tmp_path / "model")
    result = run("predict", tmp_path / "model", tmp_path / "lake.parquet", "--out", full / "new" / "scored")
    assert result.exit_code == 2
    a_sentence_of_a_full_disk(result.stderr, full / "new" / "scored")
    assert left(full) == ["other"]


def test_a_full_disk_in_residuals(full: Path) -> None:
    fit = dg.glm("y ~ x", wide())
    with pytest.raises(DesignError) as caught:
        fit.residuals(wide(), out=full / "residuals")
    a_sentence_of_a_full_disk(str(caught.value), full / "residuals")
    assert left(full) == ["other"]


def test_a_full_disk_at_the_end_of_a_fit_costs_nothing_but_the_model(full: Path, tmp_path: Path) -> None:
    names = [f"c{number:02d}" for number in range(80)]
    data = pd.DataFrame(np.random.default_rng(1).normal(size=(400, 80)), columns=names)
    data["y"] = data.sum(axis=1) + 1.0
    data.to_parquet(tmp_path / "lake.parquet")
    call = ["fit", f"y ~ {' + '.join(names)}", tmp_path / "lake.parquet", "--checkpoint", tmp_path / "state"]
    result = run(*call, "--out", full / "model", "--json")
    assert result.exit_code == 2
    assert "Residual deviance" in result.stdout
    a_sentence_of_a_full_disk(result.stderr, full / "model")
    assert json.loads(result.stdout.splitlines()[-1])["exit_code"] == 2
    assert left(full) == ["other"]
    assert (tmp_path / "state" / "checkpoint.json").exists()
    assert run(*call, "--out", tmp_path / "model").exit_code == 0
    assert not (tmp_path / "state").exists()
    assert dg.load(tmp_path / "model").converged


def test_a_full_disk_keeps_the_totals_of_a_checkpoint(full: Path, tmp_path: Path, lake: Path) -> None:
    call = ["fit", "y ~ x", lake, "--family", "poisson", "--tol", "1e-12", "--checkpoint", full / "state"]
    result = run(*call)
    assert result.exit_code == 2
    a_sentence_of_a_full_disk(result.stderr, full / "state")
    totals = len(list((full / "state").glob("total-*.npz")))
    assert totals > 1
    assert f"the {totals} totals before it are kept in {full / 'state'}: the same call resumes" in result.stderr
    (full / "other").unlink()
    assert run(*call, "--out", tmp_path / "model").exit_code == 0
    assert dg.load(tmp_path / "model").converged


@pytest.mark.parametrize(("output", "code", "said"), [("| true", 0, ""), ("> /dev/full", 2, "No space left")])
def test_a_summary_that_cannot_be_printed_does_not_cost_the_model(
    tmp_path: Path, lake: Path, output: str, code: int, said: str
) -> None:
    command = (
        f"{sys.executable} -m daskglm fit 'y ~ x' {lake} --checkpoint {tmp_path}/state --json --out {tmp_path}/model"
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {output}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert dg.load(tmp_path / "model").converged
    assert not (tmp_path / "state").exists()


def test_a_checkpoint_may_lie_in_the_folder_of_its_model(tmp_path: Path, lake: Path) -> None:
    call = ["fit", "y ~ x", lake, "--out", tmp_path / "model", "--checkpoint"]
    for _ in range(2):
        assert run(*call, tmp_path / "model" / "state").exit_code == 0
    assert left(tmp_path / "model") == ["current.json", "runs"]
    refused = run(*call, f"{tmp_path}/model/")
    assert refused.exit_code == 2
    assert "--out and --checkpoint are both" in refused.stderr


def test_a_full_disk_at_the_second_of_several_models(full: Path) -> None:
    names = [f"c{number:02d}" for number in range(22)]
    data = pd.DataFrame(np.random.default_rng(1).normal(size=(400, 22)), columns=names).assign(y=1.0, z=2.0)
    fits = dg.glm(f"responses(y, z) ~ {' + '.join(names)}", data.assign(y=data.sum(axis=1)))
    (full / "other").write_bytes(bytes(450 << 10))
    with pytest.raises(DesignError) as caught:
        fits.save(full / "models")
    a_sentence_of_a_full_disk(str(caught.value), full / "models" / "1")
    assert left(full) == ["other"]


def test_a_full_disk_under_a_checkpoint(full: Path, tmp_path: Path) -> None:
    names = [f"c{number:02d}" for number in range(80)]
    data = pd.DataFrame(np.random.default_rng(1).normal(size=(400, 80)), columns=names).assign(y=1.0)
    data.to_parquet(tmp_path / "lake.parquet")
    with pytest.raises(DesignError) as caught:
        dg.glm(f"y ~ {' + '.join(names)}", tmp_path / "lake.parquet", checkpoint=full / "state")
    a_sentence_of_a_full_disk(str(caught.value), full / "state")
    assert not [name for name in left(full / "state") if name.startswith(".")]


def test_a_full_disk_under_a_report(full: Path, tmp_path: Path) -> None:
    (full / "more").write_bytes(bytes(16 << 10))
    dg.glm("y ~ x", wide()).save(tmp_path / "model")
    result = run("summary", tmp_path / "model", "--html", full / "new" / "report.html")
    assert result.exit_code == 2
    a_sentence_of_a_full_disk(result.stderr, full / "new" / "report.html")
    assert left(full) == ["more", "other"]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_full_disk_under_blocks(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    from daskglm.cluster import lakes, machine

    (tmp_path / "lake").mkdir()
    for number in range(3):
        wide().to_parquet(tmp_path / "lake" / f"{number}.parquet")
    monkeypatch.setenv("DASKGLM_SPILL_DIR", str(full))
    monkeypatch.setattr(machine, "on_memory", lambda path: False)
    # what is known of the rows beforehand is an estimate
    monkeypatch.setattr(lakes.ParquetLake, "row_bytes", lambda *_: 0)
    result = run("fit", "y ~ x", tmp_path / "lake", "--keep", "disk", "--threads", threads)
    assert result.exit_code == 2
    a_sentence_of_a_full_disk(result.stderr, full)
    assert "--keep reread" in result.stderr
    assert left(full) == ["other"]


def test_a_folder_for_rows_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lake: Path) -> None:
    for place in (tmp_path / "nowhere", "s3://bucket/rows"):
        monkeypatch.setenv("DASKGLM_SPILL_DIR", str(place))
        with pytest.raises(DesignError, match=f"DASKGLM_SPILL_DIR is {place}, which is not a folder"):
            dg.glm("y ~ x", lake, keep="disk")


@pytest.mark.parametrize("option", ["--out", "--checkpoint"])
def test_an_impossible_destination_is_found_before_the_first_pass(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        result = run("fit", "y ~ x", tmp_path / "no-lake", option, place)
        assert result.exit_code == 2
        assert str(place) in result.stderr
        assert "no-lake" not in result.stderr
