"""Lakes in a real object store: the same numbers as from disk, few requests, and a sentence for whatever goes wrong there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import daskglm as dg
from daskglm.cli import main
from daskglm.cluster import objects, stores
from daskglm.cluster.lakes import ParquetLake, open_lake
from daskglm.cluster.local import choose_keep
from daskglm.cluster.stores import Entry, Pieces
from daskglm.design import expressions
from daskglm.errors import ChangedInputError, DataError, DesignError, UnavailableError
from tests.cluster import weed

pytest.importorskip("s3fs")

BUCKET = "test-lakes"
FORMULA = "y ~ x + area"
FILES, ROWS = 6, 400


def part(number: int, rows: int = ROWS) -> pa.Table:
    """Rows of one file."""
    generator = np.random.default_rng(number)
    return pa.table(
        {
            "y": generator.poisson(1.3, rows),
            "x": generator.normal(size=rows),
            "unused": generator.normal(size=rows),
            "area": generator.choice(["a", "b", "c"], rows),
        }
    )


class Bucket:
    """What tests do to the store behind a lake's back: directly, so that the proxy does not count it."""

    def __init__(self, endpoint: str) -> None:
        import fsspec

        self.files = fsspec.filesystem(
            "s3", key=weed.KEY, secret=weed.SECRET, endpoint_url=endpoint, use_listings_cache=False
        )

    def put(self, key: str, table: pa.Table, **options: Any) -> None:
        """Write an object."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        self.files.pipe_file(f"{BUCKET}/{key}", sink.getvalue().to_pybytes())

    def remove(self, key: str) -> None:
        """Delete an object."""
        self.files.rm_file(f"{BUCKET}/{key}")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lakes of these tests as files: one flat, one by Hive's convention."""
    folder = tmp_path_factory.mktemp("lakes")
    for number in range(FILES):
        for path in (
            folder / "flat" / f"part-{number}.parquet",
            folder / "hive" / f"year={2020 + number}" / "0.parquet",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(part(number), path, row_group_size=150)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, disk: Path) -> Iterator[tuple[weed.Proxy, Bucket]]:
    """A store with these lakes in it, a proxy before it, and the environment that leads to the proxy."""
    running = weed.seaweed(tmp_path_factory.mktemp("weed") / "store")
    try:
        store = running.__enter__()
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        bucket = Bucket(store.endpoint)
        bucket.files.mkdir(BUCKET)
        for path in sorted(disk.rglob("*.parquet")):
            bucket.files.pipe_file(f"{BUCKET}/{path.relative_to(disk)}", path.read_bytes())
        with weed.proxy(store.port) as proxy, pytest.MonkeyPatch.context() as patch:
            for name in weed.FOREIGN:
                patch.delenv(name, raising=False)
            for name, value in weed.environment(proxy.endpoint).items():
                patch.setenv(name, value)
            yield proxy, bucket
    finally:
        running.__exit__(None, None, None)


@pytest.fixture
def proxy(server: tuple[weed.Proxy, Bucket], monkeypatch: pytest.MonkeyPatch) -> Iterator[weed.Proxy]:
    """The proxy with nothing counted and no faults, and waits between tries that no test feels."""
    monkeypatch.setattr(objects, "FIRST_WAIT", 0.002)
    server[0].clear()
    yield server[0]
    server[0].clear()


@pytest.fixture
def bucket(server: tuple[weed.Proxy, Bucket], proxy: weed.Proxy) -> Bucket:
    """The store behind the lake's back."""
    return server[1]


def url(key: str) -> str:
    return f"s3://{BUCKET}/{key}"


def fitted(source: Any, **options: Any) -> dg.Fit:
    return dg.glm(FORMULA, source, family="poisson", progress=False, **options)


def bits(fit: dg.Fit) -> tuple[Any, ...]:
    return (fit.params.to_numpy().tobytes(), fit.bse.to_numpy().tobytes(), fit.deviance, fit.nobs)


def selected(source: Any, columns: tuple[str, ...] = ("x", "area")) -> ParquetLake:
    lake = open_lake(source)
    lake.select(columns)
    return lake


# -- the same numbers ---------------------------------------------------------------------------------------------------


SPELLINGS: dict[str, Callable[[Callable[[str], str]], Any]] = {
    "glob": lambda at: at("flat/*.parquet"),
    "glob with a stem": lambda at: at("flat/part-[0-5].parquet"),
    "glob over folders": lambda at: at("hive/*/*.parquet"),
    "glob that ends in folders": lambda at: at("hive/year=*"),
    "glob in the middle that ends in folders": lambda at: at("h*/year=202?"),
    "any depth": lambda at: at("hive/**/*.parquet"),
    "folder": lambda at: at("flat"),
    "folder with a slash": lambda at: at("flat/"),
    "hive": lambda at: at("hive/"),
    "list": lambda at: [at(f"flat/part-{number}.parquet") for number in range(FILES)],
    "list of folders": lambda at: [at("flat"), at("hive/")],
    "one object": lambda at: at("flat/part-3.parquet"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_same_bits_as_from_disk(disk: Path, proxy: weed.Proxy, spelling: str) -> None:
    there = SPELLINGS[spelling](url)
    here = SPELLINGS[spelling](lambda key: str(disk / key))
    assert bits(fitted(there)) == bits(fitted(here))


def test_folders_are_columns_and_filters_leave_objects_alone(disk: Path, proxy: weed.Proxy) -> None:
    there = dg.glm("y ~ x + C(year)", url("hive/"), family="poisson", where="year >= 2023", progress=False)
    here = dg.glm("y ~ x + C(year)", disk / "hive", family="poisson", where="year >= 2023", progress=False)
    assert bits(there) == bits(here)
    assert there.ledger == here.ledger
    # every footer is read, in planning; the data of three years, and no footer again to find out which
    assert proxy.counts() == Counter(
        {f"{BUCKET}/hive/year={2020 + n}/0.parquet": 1 if n < 3 else 2 for n in range(FILES)}
    )


def test_the_rest_comes_from_the_url(disk: Path, proxy: weed.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    place = proxy.endpoint.removeprefix("http://")
    whole = (
        f"s3://{weed.KEY}:{weed.SECRET}@{BUCKET}/flat/*.parquet?region=us-east-1&scheme=http&endpoint_override={place}"
    )
    assert bits(fitted(whole)) == bits(fitted(disk / "flat"))
    with pytest.raises(DesignError, match=f"no file matches s3://{BUCKET}/flat/no") as caught:
        open_lake(whole.replace("flat/*", "flat/no*"))
    assert weed.SECRET not in str(caught.value)


@pytest.mark.parametrize("keep", ["memory", "disk", "reread"])
def test_any_place_to_keep_rows(disk: Path, proxy: weed.Proxy, keep: str) -> None:
    there = fitted(url("flat/"), keep=keep)
    assert bits(there) == bits(fitted(disk / "flat"))
    each = set(proxy.counts().values())
    assert each == ({2} if keep != "reread" else {1 + there.record.decodes})


def test_what_is_far_is_kept_on_disk_where_memory_is_short(proxy: weed.Proxy) -> None:
    assert choose_keep(selected(url("flat/")), ("x", "area"), 1) == "disk"


def test_threads_share_a_connection(proxy: weed.Proxy) -> None:
    lakes = [selected(url("flat/")) for _ in range(4)]
    work = [(lake, leaf) for lake in lakes for leaf in lake.leaves] * 3
    with ThreadPoolExecutor(16) as pool:
        tables = list(pool.map(lambda each: each[0].load(each[1]).table, work))
    expected = [part(number).select(["x", "area"]) for number in range(FILES)]
    for (_, leaf), table in zip(work, tables, strict=True):
        assert table.column("x").equals(expected[leaf.file].column("x"))
        assert table.column("area").to_pylist() == expected[leaf.file].column("area").to_pylist()
    assert len({id(lake.store._connection) for lake in lakes}) == 1


ELSEWHERE = """
import pickle, sys
reader, leaf = pickle.load(sys.stdin.buffer)
table = reader.load(leaf).table
print(table.column("x").to_numpy().sum().hex(), table.num_rows)
"""


def test_a_reader_travels_to_another_process(proxy: weed.Proxy) -> None:
    import pickle

    lake = selected(url("flat/"))
    lake.load(lake.leaves[0])
    lake.reader.announce(lake.leaves[3])
    lake.load(lake.leaves[3])
    parcel = pickle.dumps((lake.reader.part([lake.leaves[2]]), lake.leaves[2]))
    assert weed.SECRET.encode() not in parcel
    proxy.clear()
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], input=parcel, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.split() == [part(2).column("x").to_numpy().sum().hex().encode(), str(ROWS).encode()]
    assert proxy.counts() == Counter({f"{BUCKET}/flat/part-2.parquet": 1})


@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_workers_of_a_cluster_read_it_themselves(disk: Path, proxy: weed.Proxy, client: Any, keep: str) -> None:
    names = list(weed.environment(""))
    before = client.run(_variables, names)
    try:
        client.run(_restored, names, {name: os.environ[name] for name in names})
        proxy.clear()
        with client.as_current():
            there = fitted(url("flat/"), keep=keep)
        assert bits(there) == bits(fitted(disk / "flat"))
        assert set(proxy.counts().values()) == {2}
    finally:
        client.run(_restored, names, next(iter(before.values())))


def _variables(names: list[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _restored(names: list[str], values: dict[str, str]) -> None:
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(values)


# -- few requests ------------------------------------------------------------------------------------------------------


def test_one_listing_one_request_for_each_footer_and_none_again(proxy: weed.Proxy) -> None:
    lake = selected(url("flat/*.parquet"))
    assert [request.method for request in proxy.requests] == ["GET"] * (1 + FILES)
    assert set(proxy.counts().values()) == {1}
    proxy.clear()
    for leaf in lake.leaves:
        lake.load(leaf)
    assert len(proxy.requests) == FILES
    assert set(proxy.counts().values()) == {1}
    footers = {f"{BUCKET}/flat/part-{n}.parquet": lake.files[n].metadata.serialized_size for n in range(FILES)}
    for request in proxy.requests:
        file = lake.files[int(str(request.object)[-9])]
        assert request.headers["if-match"] == file.tag
        start, end = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        assert 0 < start < end < file.size - footers[str(request.object)] - 8


def test_every_read_of_planning_is_conditional_too(proxy: weed.Proxy) -> None:
    selected(url("flat/*.parquet"))
    assert all(request.headers.get("if-match") and request.headers.get("range") for request in proxy.gets())


def test_a_list_of_objects_needs_no_listing(proxy: weed.Proxy) -> None:
    lake = selected([url(f"flat/part-{number}.parquet") for number in range(FILES)])
    assert len(proxy.requests) == FILES
    assert all(file.tag and file.size for file in lake.files)
    lake.load(lake.leaves[0])
    assert proxy.requests[-1].headers["if-match"] == lake.files[0].tag


def test_a_long_footer_takes_a_second_request(bucket: Bucket, proxy: weed.Proxy) -> None:
    wide = pa.table({f"column_{k:04d}": np.arange(3.0) + k for k in range(900)})
    bucket.put("wide/0.parquet", wide)
    lake = selected(url("wide/"), ("column_0001", "column_0899"))
    assert lake.files[0].metadata.serialized_size > stores.TAIL_BYTES
    assert proxy.counts() == Counter({f"{BUCKET}/wide/0.parquet": 2})
    assert lake.load(lake.leaves[0]).table.column("column_0899").to_pylist() == [899.0, 900.0, 901.0]


def test_near_ranges_are_one_request_and_long_ones_several(
    disk: Path, proxy: weed.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = selected(disk / "flat").reader
    for hole, most in ((0, 1 << 20), (0, 700), (1 << 20, 1000)):
        monkeypatch.setattr(stores, "HOLE_BYTES", hole)
        monkeypatch.setattr(stores, "REQUEST_BYTES", most)
        lake = selected(url("flat/"), ("x", "area"))
        proxy.clear()
        for number, leaf in enumerate(lake.leaves):
            assert lake.load(leaf).table.equals(expected.load(selected(disk / "flat").leaves[number]).table)
        assert all(count > 1 for count in proxy.counts().values())


def test_what_was_announced_is_not_fetched_again_and_its_room_given_back(proxy: weed.Proxy) -> None:
    lake = selected(url("flat/"))
    connection = lake.store._connection  # type: ignore[attr-defined]
    held = connection._held
    proxy.clear()
    for leaf in lake.leaves:
        lake.reader.announce(leaf)
        lake.reader.announce(leaf)
    assert connection._held > held
    for leaf in lake.leaves:
        lake.load(leaf)
    assert set(proxy.counts().values()) == {1}
    assert connection._held == held
    lake.reader.announce(lake.leaves[0])
    assert connection._held > held
    del lake, leaf
    assert connection._held == held


def test_announcements_stop_where_there_is_no_room(proxy: weed.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = selected(url("flat/"))
    monkeypatch.setattr(lake.store._connection, "_room", 10)  # type: ignore[attr-defined]
    proxy.clear()
    lake.reader.announce(lake.leaves[0])
    time.sleep(0.05)
    assert not proxy.requests
    assert lake.load(lake.leaves[0]).table.num_rows == ROWS


def test_what_nobody_came_for_is_forgotten(proxy: weed.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stores.CONCURRENCY_VARIABLE, "1")
    lake = selected(url("flat/"))
    connection = lake.store._connection  # type: ignore[attr-defined]
    lake.reader.announce(lake.leaves[0])
    for _ in range(20):
        for leaf in lake.leaves[1:]:
            lake.reader.announce(leaf)
            lake.load(leaf)
    assert connection._held == 0


def test_no_more_requests_at_once_than_allowed(proxy: weed.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stores.CONCURRENCY_VARIABLE, "2")
    fitted(url("flat/"))
    assert 1 <= proxy.most <= 2
    monkeypatch.setenv(stores.CONCURRENCY_VARIABLE, "many")
    with pytest.raises(DesignError, match="DASKGLM_OBJECT_CONCURRENCY must be a number"):
        open_lake(url("flat/"))


# -- objects that change -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize("change", ["other rows", "the same size", "gone"])
def test_an_object_that_changed_since_it_was_planned_is_named(bucket: Bucket, change: str, announced: bool) -> None:
    bucket.put("changing/0.parquet", part(0))
    bucket.put("changing/1.parquet", part(1))
    lake = selected(url("changing/"))
    if change == "gone":
        bucket.remove("changing/1.parquet")
    elif change == "other rows":
        bucket.put("changing/1.parquet", part(2, 90))
    else:
        before = part(1)
        other = before.set_column(1, "x", pa.array(before.column("x").to_numpy()[::-1].copy()))
        bucket.put("changing/1.parquet", other)
        assert bucket.files.info(f"{BUCKET}/changing/1.parquet")["size"] == lake.files[1].size
    if announced:
        lake.reader.announce(lake.leaves[1])
    assert lake.load(lake.leaves[0]).table.num_rows == ROWS
    with pytest.raises(ChangedInputError, match=r"s3://test-lakes/changing/1\.parquet") as caught:
        lake.load(lake.leaves[1])
    assert caught.value.exit_code == 7


def test_a_store_that_ignores_conditions_is_seen_through(bucket: Bucket, proxy: weed.Proxy) -> None:
    lake = selected(url("flat/"))

    def another(request: weed.Request) -> bytes:
        start, end = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        length = end - start + 1
        return b'HTTP/1.1 206 x\r\nETag: "another"\r\nContent-Length: %d\r\n\r\n%s' % (length, b"x" * length)

    proxy.fault = another
    with pytest.raises(ChangedInputError, match=r"flat/part-0\.parquet changed"):
        lake.load(lake.leaves[0])


def test_the_tag_is_part_of_what_identifies_a_file(bucket: Bucket) -> None:
    bucket.put("tags/0.parquet", part(0))
    before = open_lake(url("tags/")).files[0]
    bucket.put("tags/0.parquet", part(1))
    after = open_lake(url("tags/")).files[0]
    assert before.tag != after.tag
    assert before.digest != after.digest


# -- a store that is busy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_requests_that_are_put_off_are_made_again(disk: Path, proxy: weed.Proxy, share: float) -> None:
    proxy.share(share)
    assert bits(fitted(url("flat/*.parquet"))) == bits(fitted(disk / "flat"))
    assert proxy.faults
    assert all(request.method == "GET" for request in proxy.requests)


@pytest.mark.parametrize(
    "fault", [500, "reset", b"HTTP/1.1 206 x\r\nContent-Length: 99999\r\nConnection: close\r\n\r\nshort"]
)
def test_connections_that_break_are_made_again(disk: Path, proxy: weed.Proxy, fault: int | str | bytes) -> None:
    seen: Counter[str] = Counter()

    def once(request: weed.Request) -> int | str | bytes | None:
        # every listing and every object's first request
        seen[request.path] += 1
        return fault if seen[request.path] == 1 else None

    proxy.fault = once
    assert bits(fitted(url("flat/*.parquet"))) == bits(fitted(disk / "flat"))
    assert proxy.faults >= FILES


@pytest.mark.parametrize("when", ["listing", "planning", "reading"])
def test_a_store_that_stays_busy_is_one_sentence_in_bounded_time(proxy: weed.Proxy, when: str) -> None:
    lake = selected(url("flat/"))
    proxy.clear()
    proxy.fault = lambda request: 503 if (request.object is None) == (when == "listing") else None
    began = time.monotonic()
    attempt = (lambda: lake.load(lake.leaves[0])) if when == "reading" else (lambda: open_lake(url("flat/")))
    with pytest.raises(
        UnavailableError, match=r"s3://test-lakes/flat.*8 attempts.*SlowDown: run again later"
    ) as caught:
        attempt()
    assert caught.value.exit_code == 7
    assert time.monotonic() - began < 10
    assert all(count <= objects.ATTEMPTS for count in proxy.counts().values())


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store that takes connections and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for name, value in weed.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        yield endpoint


SILENT = r"s3://test-lakes/flat\S* could not be read: the store takes connections and has not answered for [23] s"


def test_a_silent_store_is_one_sentence_when_patience_ends(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_PATIENCE", "2")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=SILENT) as caught:
        open_lake(url("flat/"))
    assert caught.value.exit_code == 7
    assert time.monotonic() - began < 2.0 + 3.0


def test_a_silent_store_behind_arrow_is_one_sentence_when_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_PATIENCE", "1")
    over = threading.Event()

    class Mute:
        """A file system whose calls do not return."""

        def get_file_info(self, path: Any) -> Any:
            over.wait(30)

        open_input_file = get_file_info

    store: Any = stores.ArrowStore(Mute())  # type: ignore[arg-type]
    try:
        for call in (
            lambda: store.entry("bucket/x"),
            lambda: list(store.footers([Entry("bucket/x", 100, "1")], lambda entry, tail: tail)),
        ):
            began = time.monotonic()
            with pytest.raises(
                UnavailableError, match="bucket/x could not be read: the store has not answered for 1 s"
            ):
                call()
            assert time.monotonic() - began < 4.0
    finally:
        over.set()


@pytest.mark.parametrize("when", ["planning", "reading"])
def test_a_store_that_falls_silent_is_one_sentence_when_patience_ends(
    proxy: weed.Proxy, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setenv("DASKGLM_PATIENCE", "2")
    lake = selected(url("flat/"))
    proxy.clear()
    proxy.fault = lambda request: b"" if request.object is not None else None
    began = time.monotonic()
    attempt = (lambda: lake.load(lake.leaves[0])) if when == "reading" else (lambda: open_lake(url("flat/")))
    with pytest.raises(UnavailableError, match=SILENT):
        attempt()
    assert time.monotonic() - began < 2.0 + 3.0


def test_patience_has_an_end() -> None:
    waits = [min(objects.FIRST_WAIT * 2**k, objects.LONGEST_WAIT) for k in range(objects.ATTEMPTS - 1)]
    assert 5 < sum(waits) / 2 < sum(waits) < 15


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch, proxy: weed.Proxy) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        open_lake(url("flat/"))


# -- requests that are wrong -------------------------------------------------------------------------------------------


def wrong() -> list[tuple[Any, str]]:
    return [
        (url("flat/absent.parquet"), "s3://test-lakes/flat/absent.parquet does not exist"),
        (
            [url("flat/part-0.parquet"), url("flat/absent.parquet")],
            "s3://test-lakes/flat/absent.parquet does not exist",
        ),
        (url("absent"), "s3://test-lakes/absent does not exist"),
        (url("flat/absent-*.parquet"), "no file matches s3://test-lakes/flat/absent-"),
        ("s3://no-such-bucket/lake/*.parquet", "there is no bucket no-such-bucket"),
        (["s3://no-such-bucket/lake/0.parquet"], "there is no bucket no-such-bucket"),
        (f"s3://{weed.KEY}:wrong@{BUCKET}/flat/", "the store refuses s3://test-lakes/flat"),
        (f"s3://nobody:wrong@{BUCKET}/flat/part-0.parquet", "the store refuses s3://test-lakes/flat/part-0.parquet"),
        ("s3://*/lake", "has no bucket"),
        ("s3:///lake", "has no bucket"),
        ([url("flat/"), "memory://elsewhere"], "another file system"),
    ]


@pytest.mark.parametrize("case", range(11))
def test_what_is_not_there_or_not_allowed_is_one_sentence(proxy: weed.Proxy, case: int) -> None:
    source, message = wrong()[case]
    with pytest.raises(DesignError, match=message) as caught:
        open_lake(source)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, proxy: weed.Proxy, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(DesignError, match="check the credentials"):
        open_lake(url("flat/"))
    with pytest.raises(DesignError, match="the store refuses"):
        open_lake(f"s3://anonymous@{BUCKET}/flat/")


def test_credentials_in_a_file_are_read_again_when_they_were_refused(
    disk: Path, proxy: weed.Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    profile = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    profile.write_text(f"[default]\naws_access_key_id = {weed.KEY}\naws_secret_access_key = old\n")
    with pytest.raises(DesignError, match="SignatureDoesNotMatch"):
        open_lake(url("flat/"))
    profile.write_text(f"[default]\naws_access_key_id = {weed.KEY}\naws_secret_access_key = {weed.SECRET}\n")
    assert bits(fitted(url("flat/"))) == bits(fitted(disk / "flat"))


def test_without_s3fs_arrow_reads_the_same(disk: Path, proxy: weed.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskglm.cluster.lakes.importlib.util.find_spec", lambda name: None)
    lake = open_lake(url("flat/*.parquet"))
    assert isinstance(lake.store, stores.ArrowStore)
    assert bits(fitted(url("flat/"))) == bits(fitted(disk / "flat"))
    with pytest.raises(DesignError, match="absent does not exist"):
        open_lake(url("absent"))
    with pytest.raises(DesignError, match=r"flat.* cannot be read"):
        open_lake(f"s3://nobody:wrong@{BUCKET}/flat/")


def test_an_empty_folder_and_an_empty_object(bucket: Bucket) -> None:
    with pytest.raises(DataError, match="no Parquet files in s3://test-lakes/nothing/"):
        open_lake(url("nothing/"))
    bucket.files.pipe_file(f"{BUCKET}/empty/0.parquet", b"")
    for source in (url("empty/"), [url("empty/0.parquet")]):
        with pytest.raises(DataError, match=r"empty/0\.parquet is empty"):
            open_lake(source)
    bucket.files.pipe_file(f"{BUCKET}/garbage/0.parquet", b"no Parquet at all" * 9)
    with pytest.raises(DataError, match=r"garbage/0\.parquet is not a readable Parquet file"):
        open_lake(url("garbage/"))


def test_who_may_read_but_not_list_names_the_object(disk: Path, proxy: weed.Proxy) -> None:
    proxy.fault = lambda request: 403 if request.object is None else None
    here = disk / "flat" / "part-1.parquet"
    assert bits(fitted(url("flat/part-1.parquet"))) == bits(fitted(here))


@pytest.mark.parametrize("case", ["refused", "busy"])
def test_the_command_line_ends_with_a_sentence(proxy: weed.Proxy, tmp_path: Path, case: str) -> None:
    source = f"s3://nobody:wrong@{BUCKET}/flat/" if case == "refused" else url("flat/")
    if case == "busy":
        proxy.fault = lambda request: 503
    words = ["fit", FORMULA, source, "--family", "poisson", "--out", str(tmp_path / "model")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == {"refused": 2, "busy": 7}[case]
    assert "Traceback" not in result.output
    assert not (tmp_path / "model").exists()


# -- parts -------------------------------------------------------------------------------------------------------------


def test_ranges_are_joined_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "HOLE_BYTES", 10)
    monkeypatch.setattr(stores, "REQUEST_BYTES", 100)
    assert stores.coalesced([]) == []
    assert stores.coalesced([(40, 50), (4, 30), (61, 70)]) == [(4, 50), (61, 70)]
    assert stores.coalesced([(0, 250), (20, 30)]) == [(0, 100), (100, 200), (200, 250)]


def test_pieces_read_like_the_file() -> None:
    content = bytes(range(256)) * 4
    asked = []

    def fetch(start: int, end: int) -> bytes:
        asked.append((start, end))
        return content[start:end]

    pieces = Pieces(len(content), [(10, content[10:50]), (50, content[50:90]), (200, content[200:1024])], fetch)
    generator = np.random.default_rng(0)
    for start, length in generator.integers(0, 1100, (200, 2)).tolist():
        pieces.seek(start)
        assert bytes(pieces.read(length)) == content[start : start + length]
        assert pieces.tell() == max(start, min(start + length, 1024))
    asked.clear()
    for start, end in ((10, 50), (30, 70), (200, 1024)):
        pieces.seek(start)
        assert bytes(pieces.read(end - start)) == content[start:end]
    assert not asked
    pieces.seek(-24, os.SEEK_END)
    assert bytes(pieces.read()) == content[-24:]


@pytest.mark.parametrize(
    "given, bare, options",
    [
        ("s3://b/k.parquet", "s3://b/k.parquet", {}),
        ("s3a://b/k", "s3://b/k", {}),
        ("s3://b", "s3://b", {}),
        ("s3://b/part-?.parquet", "s3://b/part-?.parquet", {}),
        ("s3://b/part-?.parquet?region=r", "s3://b/part-?.parquet", {"client_kwargs": {"region_name": "r"}}),
        ("s3://b/k?endpoint_override=h:1", "s3://b/k", {"endpoint_url": "https://h:1"}),
        ("s3://b/k?scheme=http&endpoint_override=h:1", "s3://b/k", {"endpoint_url": "http://h:1"}),
        ("s3://b/k?endpoint_override=http%3A%2F%2Fh", "s3://b/k", {"endpoint_url": "http://h"}),
        ("s3://u:p%2Fq@b/k", "s3://b/k", {"key": "u", "secret": "p/q"}),
        ("s3://anonymous@b/k", "s3://b/k", {"anon": True}),
    ],
)
def test_urls(given: str, bare: str, options: dict[str, Any]) -> None:
    store, path = objects.from_url(given)
    assert (path, store.options) == (bare, options)


def test_filters_need_no_files(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = open_lake(disk / "flat")
    condition = expressions.parse_filter("x > 100")
    monkeypatch.setattr(stores.ArrowStore, "reading", None)
    lake.select(["y"], expressions.to_arrow(condition, lake.types), condition.columns)
    assert lake.leaves == []
    assert lake.pruned_rows == FILES * ROWS


def test_entries_that_are_not_known_are_looked_up_on_disk(disk: Path) -> None:
    store, path = open_lake(disk / "flat").store, disk / "flat" / "part-0.parquet"
    assert store.entry(str(path)) == Entry(str(path), path.stat().st_size, str(path.stat().st_mtime_ns))
    assert list(store.footers([Entry(str(path))], lambda entry, tail: entry)) == [store.entry(str(path))]
