"""A fit that is interrupted goes on where it was: what is written down, when it is believed, and the same bits after all."""

from __future__ import annotations

import ast
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_array

import daskglm as dg
from daskglm.checkpoint import RECORDS, Log, digest, from_plain, to_plain
from daskglm.cluster.dask import DistributedPartitions
from daskglm.cluster.engine import Engine
from daskglm.cluster.local import LocalPartitions
from daskglm.cluster.sources import open_source
from daskglm.design.columns import Ledger
from daskglm.design.profile import Profile
from daskglm.design.transforms import Spread
from daskglm.errors import ChangedInputError, DesignError
from daskglm.fit import run_all
from daskglm.kernels.products import Gram, Layout
from daskglm.kernels.sparse import SparseTables
from daskglm.plan import make_plan
from daskglm.together import Several
from daskglm.totals.bias import Adjusted
from daskglm.totals.boundary import Guarded, Reach, Slack
from daskglm.totals.clusters import ClusterProducts
from daskglm.totals.likelihood import Number
from daskglm.totals.moments import FitStats, Moments, Request, moments
from daskglm.totals.occurrences import Occurrences
from daskglm.totals.refinement import TwofoldScore
from daskglm.totals.residuals import ResidualProducts
from daskglm.totals.scores import Meat
from daskglm.totals.separation import Movements, Separated, Split
from daskglm.totals.shape import JointSums, MixedSums, ShapeSums
from daskglm.totals.vector import PairTables, ParallelTables
from tests.cluster.problem import FORMULA, SEPARATED, bits, fitted, frame, write_lake
from tests.cluster.test_arrays import parts
from tests.matrices import scattered
from tests.test_rooms import PACKAGE, imports
from tests.totals.problems import problem

NAN, INF = float("nan"), float("inf")


# -- records as arrays and JSON ----------------------------------------------------------------------------------------


def sparse_moments() -> Moments:
    one = problem("poisson", "log", 200, sparse=6, weight="real")
    return moments(one.block, one.model, Request(one.coef, 2, null=0.1, statistics=True, meat=True))


def examples() -> dict[str, list[Any]]:
    """Records of every kind, as they come and as they hardly ever come."""
    layout = Layout(2, (3, 4), 5)
    tables = SparseTables(np.zeros((0, 2)), csr_array((3, 0)))
    several = SparseTables(
        np.asfortranarray(np.arange(6.0).reshape(2, 3)), scattered((7, 9), 0.2, np.random.default_rng(3))
    )
    gram = Gram(layout, True, np.full((4, 8), NAN), np.zeros(0), np.array([INF, -INF, -0.0]), np.arange(5.0), tables)
    stats = FitStats(3, 1e308, NAN, -INF, 0.1 + 0.2, 0, -0.0)
    ledger = Ledger(10, 1, 2, 3, 4, {"log(x)": 2, "ü": 1})
    levels: dict[str, dict[Any, float]] = {
        "text": {"b": 2.0, "a": 1.0, "": 0.0, "ü\n": 5e-324},
        "whole": {-(2**62): 1.0, 0: 2.0},
        "real": {0.1: 1.0, -INF: 2.0, 1e300: 3.0},
        "flag": {True: 1.0, False: 0.0},
        "none": {},
    }
    profile = Profile(
        7,
        levels,
        {("x", "z"): (3, 0.1, NAN), ("x",): (0, 0.0, INF)},
        {"no": 3.0, "yes": 4.0},
        ledger,
        np.array([0.1, 0.0]),
        8,
        learnt={"scale(x)": Spread(3.0, 0.1, NAN)},
    )
    return {
        "Profile": [profile, Profile(0, {}, {})],
        "Ledger": [ledger, Ledger()],
        "Moments": [
            sparse_moments(),
            Moments(0, 0.0, 0.0, INF, np.zeros(0), None, NAN, np.zeros(3), None, None),
            Moments(1, 1.0, -0.0, 1e-320, np.arange(4.0)[::2], gram, 0.1, np.full(3, NAN), stats, gram, 2.0),
        ],
        "FitStats": [stats],
        "Gram": [gram],
        "Layout": [layout, Layout(0, ())],
        "SparseTables": [tables, several],
        "Meat": [Meat(gram, 0), Meat(PairTables((gram, gram)), 2**40)],
        "ClusterProducts": [ClusterProducts(np.array([[NAN, -0.0], [INF, 0.1]]), np.array([NAN, -0.0]), 2_000_000)],
        "ResidualProducts": [ResidualProducts(np.zeros((3, 0)), np.full((2, 2), INF))],
        "TwofoldScore": [
            TwofoldScore(np.array([0.1, -INF]), np.array([1e-320, NAN]), NAN, 0.1, np.array([2**40, 0])),
            TwofoldScore(np.zeros(0), np.zeros(0), 0.0, -0.0, np.zeros(0, np.int64)),
        ],
        "Number": [Number(NAN), Number(0.1)],
        "Movements": [
            Movements(
                np.array([2**40, 0]),
                np.zeros(2, np.int64),
                np.array([INF, 0.1]),
                np.zeros(2),
                np.eye(2, 160, dtype=int),
            )
        ],
        "Split": [Split(gram, gram, 7)],
        "Separated": [Separated(3, 0, stats)],
        "Adjusted": [Adjusted(sparse_moments(), gram)],
        "ShapeSums": [
            ShapeSums(np.array([0.1, -INF, NAN]), np.zeros((3, 0)), np.zeros((3, 0, 0))),
            ShapeSums(np.array([1e-320]), np.array([[0.1, -0.0]]), np.full((1, 2, 2), 0.3)),
        ],
        "Occurrences": [
            Occurrences(np.array([[2**40, 0], [1, 2]]), np.array([3, 0]), np.zeros(2, np.int64), ((1, 2), (3, 4))),
            Occurrences(np.zeros((2, 0), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), ()),
        ],
        "JointSums": [
            JointSums(
                sparse_moments(),
                ShapeSums(np.array([0.1]), np.array([[0.2]]), np.array([[[NAN]]])),
                MixedSums(np.array([[0.1, INF]])),
            )
        ],
        "Several": [Several((Number(0.1), gram)), Several((sparse_moments(),))],
        "Spread": [Spread(0.0, 0.0, 0.0), Spread(2.0**60, -0.1, INF)],
        "Slack": [Slack(3, -0.0, INF), Slack(2**40, 0.1, 0.3)],
        "Reach": [Reach(INF), Reach(0.1)],
        "Guarded": [Guarded(sparse_moments(), NAN, gram, Slack(3, 0.1, 0.2), np.array([2, 0]))],
        "MixedSums": [MixedSums(np.array([[0.1, INF, -0.0]]))],
        "PairTables": [PairTables((gram, gram, gram)), PairTables((gram,))],
        "ParallelTables": [ParallelTables(gram, np.arange(6.0).reshape(2, 3), np.eye(2), np.array([0.1, NAN]))],
    }


def through_a_file(record: Any, folder: Path) -> Any:
    """Written down and read back as another process would."""
    Log(folder, "plan", "data").note("what", record)
    known, found = Log(folder, "plan", "data").recall("what")
    assert known
    return found


def exactly(value: Any) -> Any:
    """A record as plain words and bytes; keys with their kind, for True is 1."""
    if isinstance(value, dict):
        return [(type(key), exactly(key), exactly(entry)) for key, entry in value.items()]
    if isinstance(value, (tuple, list)):
        return type(value), [exactly(entry) for entry in value]
    return parts(value)


def test_there_is_an_example_of_every_record() -> None:
    assert examples().keys() == RECORDS.keys()


def test_every_record_that_a_fit_can_receive_can_be_written_down() -> None:
    """A record adds: every class that does, in any module that a fit is made with."""
    modules, waiting = set[str](), ["daskglm.fit"]
    while waiting:
        name = waiting.pop()
        path = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
        if name not in modules and path.exists():
            modules.add(name)
            waiting += [found for found in imports(path) if found.startswith("daskglm.")]
    assert "daskglm.totals.boundary" in modules
    trees = [ast.parse(PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py").read_text()) for name in modules]
    adding = {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(part, ast.FunctionDef) and part.name == "__add__" for part in node.body)
    }
    # the types of a Dask frame are summed as it is opened, and checkpoints are for files
    assert adding - {"Record", "Seen"} <= set(RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_survives_to_the_last_bit(name: str, tmp_path: Path) -> None:
    for number, record in enumerate(examples()[name]):
        arrays: list[Any] = []
        plain = json.loads(json.dumps(to_plain(record, arrays)))
        again = from_plain(plain, arrays)
        assert type(again) is RECORDS[name]
        assert exactly(vars(again)) == exactly(vars(record))
        found = through_a_file(record, tmp_path / str(number))
        assert exactly(vars(found)) == exactly(vars(record))
        assert digest(found) == digest(record)


@pytest.mark.parametrize(
    "name",
    [
        "Moments",
        "SparseTables",
        "ResidualProducts",
        "TwofoldScore",
        "Ledger",
        "Number",
        "ShapeSums",
        "JointSums",
        "PairTables",
        "ParallelTables",
    ],
)
def test_what_was_read_back_adds_to_the_same_bits(name: str, tmp_path: Path) -> None:
    record = examples()[name][0]
    found = through_a_file(record, tmp_path / "log")
    with np.errstate(invalid="ignore"):
        assert parts(record + record) == parts(found + record) == parts(found + found)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "i8", "?", ">f8"])
def test_arrays_keep_their_kind_and_order(dtype: str, tmp_path: Path) -> None:
    for array in (np.zeros((0, 3)), np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(3)), np.array(2.0)):
        given = array.astype(dtype, order="K")
        found = through_a_file([given], tmp_path / f"{array.ndim}{array.size}")[0]
        assert (found.dtype, found.shape, found.flags.f_contiguous) == (
            given.dtype,
            given.shape,
            given.flags.f_contiguous,
        )
        assert found.tobytes() == given.tobytes()


def test_what_is_no_record_is_not_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", "plan", "data")
    for value in (object(), {"a": {1, 2}}, b"bytes", frame):
        with pytest.raises(TypeError, match="cannot be written down"):
            log.note("what", value)
    with pytest.raises(TypeError, match="DataclassOfAnotherRoom is no record"):
        log.note("what", _foreign())
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["checkpoint.json"]


def _foreign() -> Any:
    from dataclasses import make_dataclass

    return make_dataclass("DataclassOfAnotherRoom", ["x"])(1)


# -- names of arguments ------------------------------------------------------------------------------------------------


def test_names_differ_where_arguments_do() -> None:
    x = np.arange(200.0)
    bent = x.copy()
    bent[100] += 1e-13 * 100
    series = {name: pd.Series(values, [f"c{i}" for i in range(200)]) for name, values in (("one", x), ("other", bent))}
    different = [
        x, bent, x[:-1], x.astype("f4"), x.reshape(2, 100), 0.0, -0.0, 0, False, None, "0", NAN, INF, (1, 2), (2, 1), ((1,), 2),
        {"a": 1}, {"b": 1}, Number(0.0), Number(0.1), Ledger(1), len, max, csr_array(np.eye(3)), csr_array(np.ones((3, 3))),
        series["one"], series["other"], frozenset("ab"), frozenset("abc"), dg.Frequency("w"), dg.Variance("w"),
        make_plan("y ~ x", {}), make_plan("y ~ x", {"tol": 1e-9}), make_plan("y ~ x + 1", {}),
    ]  # fmt: skip
    assert len({digest(value) for value in different}) == len(different)
    assert digest([x, {"a": Number(0.1)}]) == digest([x.copy(), {"a": Number(0.1)}])
    assert digest(np.asfortranarray(np.eye(3))) == digest(np.eye(3))


def test_names_are_the_same_in_every_process() -> None:
    code = (
        "from daskglm.checkpoint import digest; from daskglm.plan import make_plan; import daskglm as dg\n"
        "options = {'family': 'gamma', 'link': 'log', 'weights': dg.Probability('w'), 'start': {'x': 0.1}}\n"
        "print(digest((make_plan('y ~ x', options), frozenset('abcdef'), max)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    options = {"family": "gamma", "link": "log", "weights": dg.Probability("w"), "start": {"x": 0.1}}
    assert found.stdout.strip() == digest((make_plan("y ~ x", options), frozenset("abcdef"), max))


# -- the log -----------------------------------------------------------------------------------------------------------


def written(folder: Path, count: int = 3) -> list[Path]:
    log = Log(folder, "plan", "data")
    for number in range(count):
        log.note(f"total {number}", Number(number + 0.5))
    return sorted(folder.glob("total-*.npz"))


def recalled(folder: Path) -> list[float]:
    log, found = Log(folder, "plan", "data"), []
    for number in range(9):
        known, record = log.recall(f"total {number}")
        if not known:
            assert log.recall(f"total {number + 1}") == (False, None)
            break
        found.append(record.value)
    assert log.replayed == len(found)
    return found


def test_totals_come_back_in_their_order_until_one_is_another(tmp_path: Path) -> None:
    written(tmp_path / "log")
    assert recalled(tmp_path / "log") == [0.5, 1.5, 2.5]
    log = Log(tmp_path / "log", "plan", "data")
    assert log.recall("total 0")[0]
    assert not log.recall("total 2")[0]
    assert not log.recall("total 1")[0]
    # what follows takes the place of what was there
    log.note("another", Number(9.0))
    assert recalled(tmp_path / "log") == [0.5]


@pytest.mark.parametrize("length", [0, 1, 10, 100, 300, -1, -20, -100])
def test_a_file_that_was_cut_short_is_ignored(tmp_path: Path, length: int) -> None:
    last = written(tmp_path / "log")[-1]
    content = last.read_bytes()
    last.write_bytes(content[:length])
    assert recalled(tmp_path / "log") == [0.5, 1.5]


def test_a_flipped_byte_is_ignored_or_changes_nothing(tmp_path: Path) -> None:
    record = Moments(3, 1.0, 2.0, 0.1, np.arange(30.0), None, NAN, np.zeros(3), None, None)
    Log(tmp_path, "plan", "data").note("what", record)
    (path,) = tmp_path.glob("total-*.npz")
    content, generator = path.read_bytes(), random.Random(5)
    believed = 0
    for place in generator.sample(range(len(content)), 200):
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        known, found = Log(tmp_path, "plan", "data").recall("what")
        believed += known
        assert not known or parts(found) == parts(record)
    # dates and attributes of an archive's entries tell nothing of what is in them
    assert believed < 100


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def saved(path: Path, document: Any, **arrays: Any) -> None:
    np.savez(path, document=np.frombuffer(json.dumps(document).encode(), np.uint8), **arrays)


def test_nothing_is_executed_that_lies_in_the_folder(tmp_path: Path) -> None:
    *_, last = written(tmp_path / "log")
    mark = tmp_path / "mark"
    trap = np.array([Trap(mark)], object)
    documents: list[tuple[Any, dict[str, Any]]] = [
        ({"what": "total 2", "record": {"array": 0}, "arrays": 1}, {"a0": trap}),
        ({"what": "total 2", "record": {"record": "Path", "fields": {}}, "arrays": 0}, {}),
        ({"what": "total 2", "record": {"record": "Number", "fields": {"worth": 1}}, "arrays": 0}, {}),
        ({"what": "total 2", "record": {"function": "exit"}, "arrays": 0}, {}),
        ({"what": "total 2", "record": {"array": 7}, "arrays": 0}, {}),
        ([], {}),
    ]
    for document, arrays in documents:
        saved(last, document, **arrays)
        assert recalled(tmp_path / "log") == [0.5, 1.5]
    last.write_bytes(pickle.dumps(Trap(mark)))
    assert recalled(tmp_path / "log") == [0.5, 1.5]
    assert not mark.exists()


def test_the_log_of_another_model_is_refused_and_untouched(tmp_path: Path) -> None:
    files = {path: path.read_bytes() for path in written(tmp_path / "log")}
    with pytest.raises(DesignError, match="holds the state of another model: name another path, or remove it"):
        Log(tmp_path / "log", "another", "data")
    assert files == {path: path.read_bytes() for path in (tmp_path / "log").glob("total-*.npz")}


def test_other_data_or_another_version_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "log")
    assert Log(tmp_path / "log", "plan", "changed").recall("total 0") == (False, None)
    assert list((tmp_path / "log").glob("total-*")) == []
    written(tmp_path / "log")
    from daskglm import checkpoint

    monkeypatch.setattr(checkpoint, "__version__", "9.9")
    assert Log(tmp_path / "log", "plan", "data").recall("total 0") == (False, None)


@pytest.mark.parametrize("name", ["notes.txt", "total-00000.npz", "checkpoint.json"])
def test_a_folder_of_somebody_else_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"epoch": 3}')
    (tmp_path / "weights").mkdir()
    with pytest.raises(DesignError, match=r"name a new (one|folder)"):
        Log(tmp_path, "plan", "data")
    assert (tmp_path / name).read_text() == '{"epoch": 3}'
    assert len(list(tmp_path.iterdir())) == 2


def test_a_place_where_nothing_can_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DesignError, match="cannot be written: "):
            Log(place, "plan", "data")


def test_a_disk_that_is_full_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path / "log", "plan", "data")
    log.note("total 0", Number(0.5))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    kept = r"; the total before it is kept in \S+log: the same call resumes after them$"
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", full)
        with pytest.raises(DesignError, match="cannot be written: No space left on device.*" + kept):
            log.note("total 1", Number(1.5))
        with pytest.raises(DesignError) as caught:
            Log(tmp_path / "other", "plan", "data").note("total 0", Number(0.5))
        assert "kept" not in str(caught.value)
    assert recalled(tmp_path / "log") == [0.5]
    log.note("total 1", Number(1.5))
    assert recalled(tmp_path / "log") == [0.5, 1.5]


def test_drafts_of_a_process_that_died_are_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / ".draft-1").write_text('{"form')
    written(folder)
    (folder / ".draft-2.npz").write_text("PK")
    assert recalled(folder) == [0.5, 1.5, 2.5]
    Log(folder, "plan", "data").remove()
    assert not folder.exists()


def test_what_somebody_put_beside_the_log_outlives_it(tmp_path: Path) -> None:
    written(tmp_path / "log")
    (tmp_path / "log" / "thesis.txt").write_text("two years")
    Log(tmp_path / "log", "plan", "data").remove()
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["thesis.txt"]


# -- fits --------------------------------------------------------------------------------------------------------------


def all_bits(records: Any) -> list[Any]:
    """Of every record."""
    return [bits(record) for record in records]


class Stopped(Exception):  # noqa: N818
    """The fit ends here."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of a few leaves."""
    return write_lake(tmp_path_factory.mktemp("checkpoint") / "lake", 2_000)


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Count the totals that engines compute while a fit runs, and end it before a given one."""
    count, last = [0], [0]
    for kind in (LocalPartitions, DistributedPartitions):

        def counted(self: Any, *args: Any, inner: Any = kind.total) -> Any:
            if count[0] == last[0]:
                raise Stopped
            count[0] += 1
            return inner(self, *args)

        monkeypatch.setattr(kind, "total", counted)

    def run(fit: Callable[[], Any], before: int | None = None, of: Callable[[Any], Any] = bits) -> tuple[Any, int]:
        """The bits, or None where it was ended; and the totals it took."""
        count[0], last[0] = 0, -1 if before is None else before
        try:
            return of(fit()), count[0]
        except Stopped:
            return None, count[0]

    return run


MODELS: dict[str, dict[str, Any]] = {
    "poisson": {},
    "HC1": {"weights": "w", "covariance": "HC1"},
    "gamma": {"family": "gamma", "link": "log", "weights": "w", "formula": "z ~ x + s", "covariance": "observed"},
    "binomial": {"family": "binomial", "formula": "I(y > 2) ~ x + log(z) + s", "where": "year < 2023"},
    "gaussian": {"family": "gaussian", "exposure": None, "formula": "y ~ x*s + year + I(year + 0.0)"},
    "separated": SEPARATED,
    "firth": {**SEPARATED, "separation": "firth"},
    "negative binomial": {"family": "negative_binomial"},
    "tweedie": {"family": "tweedie", "formula": "I(y * z) ~ x + s", "weights": "w"},
    "shape": {"family": "gamma", "dispersion": "ml", "weights": "w", "formula": "z ~ x + s"},
    "multinomial": {"family": "multinomial", "formula": "s ~ x + log(z)", "covariance": "HC1"},
    "ordinal": {"family": "ordinal", "link": "probit", "formula": "s ~ x + log(z)", "weights": "w"},
    "boundary": {"link": "identity", "formula": "I(y * (x > 0)) ~ x"},
    "boundary of a shape": {"family": "negative_binomial", "link": "identity", "formula": "I(y * (x > 0)) ~ x"},
    "HC3": {"covariance": "HC3"},
    "collinear": {"family": "gaussian", "exposure": None, "formula": "y ~ x + I(x + 1e-7 * z)"},
    "offset": {"exposure": "z"},
    "dropped": {**SEPARATED, "separation": "drop"},
}


def modelled(rows: Path, model: str, engine: Engine, **options: Any) -> Any:
    given = {"family": "poisson", "formula": FORMULA, **MODELS[model], **options}
    return fitted(rows, engine, **given)


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore::daskglm.errors.AliasWarning", "ignore::daskglm.errors.SeparationWarning")
@pytest.mark.filterwarnings("ignore:the optimum lies on the boundary")
@pytest.mark.parametrize("model", MODELS)
def test_a_fit_interrupted_before_every_total_ends_with_the_same_bits(
    rows: Path, tmp_path: Path, totals: Callable[..., Any], model: str
) -> None:
    expected, needed = totals(lambda: modelled(rows, model, Engine(1)))
    log = tmp_path / "log"

    def resumed() -> Any:
        return modelled(rows, model, Engine(1), checkpoint=log)

    assert needed > 2
    for done in range(needed):
        # every run computes one total more, and ends; the last finds that all are there
        assert totals(resumed, 1) == (None if done < needed - 1 else expected, 1)
        assert len(list(log.glob("total-*.npz"))) == (done + 2 if done < needed - 1 else 0)
    assert not log.exists()


def several(rows: Path, engine: Engine, **options: Any) -> Any:
    plan = make_plan("responses(y, z, w) ~ x + s", {"family": "gamma", "where": "y > 0", **options})
    return run_all(plan, open_source(rows), engine)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("covariance", ["model", "HC2", dg.Cluster("year")])
def test_several_responses_are_resumed(rows: Path, tmp_path: Path, totals: Callable[..., Any], covariance: Any) -> None:
    log = tmp_path / "log"

    def resumed() -> Any:
        return several(rows, Engine(1), covariance=covariance, checkpoint=log)

    expected, needed = totals(lambda: several(rows, Engine(2), covariance=covariance), of=all_bits)
    assert needed > 2
    for done in range(needed):
        last = done == needed - 1
        assert totals(resumed, 1, of=all_bits) == (expected if last else None, 1)
    assert not log.exists()


@pytest.mark.usefixtures("small")
def test_a_fit_interrupted_at_any_total_computes_only_the_rest(
    rows: Path, tmp_path: Path, totals: Callable[..., Any]
) -> None:
    expected, needed = totals(lambda: modelled(rows, "poisson", Engine(1)))
    for before in range(needed):
        log = tmp_path / str(before)
        assert totals(lambda: modelled(rows, "poisson", Engine(1), checkpoint=log), before) == (None, before)  # noqa: B023
        assert totals(lambda: modelled(rows, "poisson", Engine(2), checkpoint=log)) == (expected, needed - before)  # noqa: B023
        assert not log.exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("first", ["here", "there"])
def test_it_goes_on_elsewhere(client: Any, rows: Path, tmp_path: Path, totals: Callable[..., Any], first: str) -> None:
    engines = [Engine(2), Engine(client=client)]
    expected, needed = totals(lambda: modelled(rows, "poisson", engines[0]))
    log = tmp_path / "log"
    done = 0
    for keep in ("disk", "memory", "reread"):
        engine = engines[(done + (first == "there")) % 2]
        assert totals(lambda: modelled(rows, "poisson", engine, keep=keep, checkpoint=log), 3) == (None, 3)  # noqa: B023
        done += 3
    engine = engines[(done + (first == "there")) % 2]
    assert totals(lambda: modelled(rows, "poisson", engine, checkpoint=log)) == (expected, needed - done)


@pytest.mark.usefixtures("small")
def test_a_damaged_last_total_is_computed_again(rows: Path, tmp_path: Path, totals: Callable[..., Any]) -> None:
    expected, needed = totals(lambda: modelled(rows, "poisson", Engine(1)))
    log = tmp_path / "log"
    totals(lambda: modelled(rows, "poisson", Engine(1), checkpoint=log), 4)
    last = sorted(log.glob("total-*.npz"))[-1]
    last.write_bytes(last.read_bytes()[:-50])
    assert totals(lambda: modelled(rows, "poisson", Engine(1), checkpoint=log)) == (expected, needed - 3)


@pytest.mark.usefixtures("small")
def test_nothing_written_needs_more_than_plain_arrays(rows: Path, tmp_path: Path, totals: Callable[..., Any]) -> None:
    log = tmp_path / "log"
    totals(lambda: modelled(rows, "HC1", Engine(1), checkpoint=log), 5)
    files = sorted(log.glob("total-*.npz"))
    assert len(files) == 6
    for file in files:
        with np.load(file, allow_pickle=False) as found:
            assert {found[name].dtype.kind for name in found.files} <= set("fiub")
            json.loads(found["document"].tobytes())
    assert set(json.loads((log / "checkpoint.json").read_text())) == {"format", "version", "plan", "data", "functions"}


@pytest.mark.usefixtures("small")
def test_changed_data_are_begun_anew(rows: Path, tmp_path: Path, totals: Callable[..., Any]) -> None:
    lake, log = tmp_path / "lake", tmp_path / "log"
    shutil.copytree(rows, lake)
    _, needed = totals(lambda: modelled(lake, "poisson", Engine(1), checkpoint=log), 5)
    more = pa.Table.from_pandas(frame(500, 9), preserve_index=False)
    pq.write_table(more, lake / "2.parquet")
    expected, needed = totals(lambda: modelled(lake, "poisson", Engine(1)))
    assert totals(lambda: modelled(lake, "poisson", Engine(1), checkpoint=log)) == (expected, needed)


@pytest.mark.usefixtures("small")
def test_rows_that_changed_behind_the_files_are_noticed(rows: Path, tmp_path: Path, totals: Callable[..., Any]) -> None:
    log, other = tmp_path / "log", write_lake(tmp_path / "lake", 1_996)
    totals(lambda: modelled(rows, "poisson", Engine(1), checkpoint=log), 2)
    totals(lambda: modelled(other, "poisson", Engine(1), checkpoint=tmp_path / "other"), 2)
    shutil.copy(tmp_path / "other" / "total-00000.npz", log)
    with pytest.raises(ChangedInputError, match="not those that the checkpoint was made of"):
        modelled(rows, "poisson", Engine(1), checkpoint=log)


@pytest.mark.usefixtures("small")
def test_another_model_at_the_same_path_is_refused(rows: Path, tmp_path: Path, totals: Callable[..., Any]) -> None:
    log = tmp_path / "log"
    totals(lambda: modelled(rows, "poisson", Engine(1), checkpoint=log), 2)
    for options in ({"formula": "y ~ x"}, {"tol": 1e-9}, {"covariance": "HC0"}, {"where": "x > 0"}):
        with pytest.raises(DesignError, match="another model"):
            modelled(rows, "poisson", Engine(1), checkpoint=log, **options)
    assert len(list(log.glob("total-*.npz"))) == 3


def scaled_variance(power: float, constant: float = 1.0) -> Any:
    """A variance function with values that it closes over."""

    def variance(mu: Any) -> Any:
        return constant * np.abs(mu) ** power

    return dg.families.Quasi(variance, mean_range=(0.0, np.inf))


def rounded_link(digits: int) -> Any:
    """A log link that is another beyond the grid alone."""

    def far(eta: Any) -> Any:
        return np.where(eta > 30.0, np.round(eta, digits), eta)

    return dg.links.Custom(np.log, lambda eta: np.exp(far(eta)), mean_range=(0.0, np.inf), name="far")


OTHER_FUNCTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another value that is closed over": (
        {"family": scaled_variance(1.0), "link": "log"}, {"family": scaled_variance(2.0), "link": "log"},
        r"function variance of the family quasi: at 0\.\d+ it gave 0\.\d+ and now gives 0\.\d+",
    ),
    "another factor": (
        {"family": scaled_variance(1.0), "link": "log"}, {"family": scaled_variance(1.0, 3.0), "link": "log"},
        r"function variance of the family quasi: at .* it gave .* and now gives .*; restore the function",
    ),
    "another link": (
        {"link": dg.links.Custom(np.log, np.exp, mean_range=(0.0, np.inf), name="own")},
        {"link": dg.links.Custom(np.log2, np.exp2, mean_range=(0.0, np.inf), name="own")},
        "function link of the link own: at 0.015625 it gave -4.15",
    ),
    "another function that is called": (
        {"link": rounded_link(8)}, {"link": rounded_link(2)},
        "function inverse of the link far: its code, or a value or function that it uses, has changed",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", OTHER_FUNCTIONS)
def test_other_functions_of_the_same_name_are_refused(
    rows: Path, tmp_path: Path, totals: Callable[..., Any], name: str
) -> None:
    first, then, message = OTHER_FUNCTIONS[name]
    log = tmp_path / "log"
    formula = "y ~ x"
    _, needed = totals(lambda: modelled(rows, "poisson", Engine(1), formula=formula, **first))
    totals(lambda: modelled(rows, "poisson", Engine(1), formula=formula, checkpoint=log, **first), 3)
    kept = sorted(path.name for path in log.iterdir())
    with pytest.raises(DesignError, match=message):
        modelled(rows, "poisson", Engine(1), formula=formula, checkpoint=log, **then)
    assert sorted(path.name for path in log.iterdir()) == kept
    again = totals(lambda: modelled(rows, "poisson", Engine(1), formula=formula, checkpoint=log, **first))
    assert again[1] == needed - 3


def test_rows_in_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DesignError, match="checkpoint= is for files, which can be known again: rows in memory are gone"
    ):
        dg.glm("y ~ x", frame(100), checkpoint=tmp_path / "log", keep="disk")
    assert not (tmp_path / "log").exists()


def test_a_fit_that_cannot_be_made_leaves_its_log(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(dg.errors.DataError):
        fitted(rows, Engine(1), formula="I(y - 1) ~ x", checkpoint=tmp_path / "log")
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["checkpoint.json"]


def test_a_process_that_is_killed_goes_on(tmp_path: Path) -> None:
    lake, log, out = write_lake(tmp_path / "lake", 300_000), tmp_path / "log", tmp_path / "model"
    command = ["fit", FORMULA, str(lake), "--family", "poisson", "--checkpoint", str(log), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "daskglm", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (log / "total-00001.npz").exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    found = dg.glm(FORMULA, lake, family="poisson", checkpoint=log)
    assert bits(found.record) == bits(dg.glm(FORMULA, lake, family="poisson").record)
    assert not log.exists()
