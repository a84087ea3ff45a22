"""Dask collections as data: fits and lazy predictions against those of the same rows in pandas and NumPy."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import coo_matrix, csc_array, csr_array, csr_matrix, lil_array

import daskglm as dg
from daskglm.cluster import collections
from daskglm.errors import DataError, DesignError
from tests.cluster import heavy
from tests.cluster.problem import left_on

N = 480
FORMULA = "y ~ x + a + log(z)"
# Another grouping of the rows adds the same numbers in another order.
SAME = 1e-12


class Place:
    """Where fits and predictions are computed: in this process, or on the workers of a client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def fit(self, formula: str | None = None, data: Any = None, **options: Any) -> Any:
        """A Poisson model unless another is asked for."""
        return dg.glm(formula, data, client=self.client, **{"family": "poisson", **options})

    def computed(self, collection: Any) -> Any:
        """What a collection stands for."""
        if self.client is None:
            return collection.compute(scheduler="synchronous")
        return self.client.compute(collection, sync=True)

    def persisted(self, collection: Any) -> Any:
        """The collection, computed and held."""
        return collection.persist(scheduler="synchronous") if self.client is None else self.client.persist(collection)


@pytest.fixture(scope="module")
def connected(cluster: Any) -> Iterator[Any]:
    """One client for all of these tests, which nobody finds unless it is named."""
    from distributed import Client

    with Client(cluster, set_as_default=False) as found:
        found.wait_for_workers(2, timeout=30)
        yield found


@pytest.fixture(params=["embedded", "cluster"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Either engine; afterwards the scheduler has no key left."""
    if request.param == "embedded":
        yield Place(None)
        return
    client = request.getfixturevalue("connected")
    yield Place(client)
    assert left_on(client) == []


def rows(n: int = N) -> pd.DataFrame:
    """A count, numbers, text, categories in an order of their own, weights; some values are missing."""
    g = np.random.default_rng(7)
    data = pd.DataFrame(
        {
            "x": g.normal(size=n),
            "z": g.uniform(0.5, 2.0, n),
            "a": g.choice(["low", "mid", "high"], n),
            "w": g.integers(1, 4, n),
            "t": g.uniform(0.5, 3.0, n),
            "k": g.integers(0, 3, n),
            "b": g.random(n) < 0.4,
        }
    )
    data["c"] = pd.Categorical(g.choice(["s", "m", "l"], n), categories=["s", "m", "none", "l"])
    eta = 0.4 + 0.3 * data.x + 0.2 * (data.a == "mid") - 0.3 * (data.c == "m") + np.log(data.t)
    data["y"] = g.poisson(np.exp(eta))
    data["Int"] = data.k.astype("Int64").where(data.x < 2.0)
    data["Bool"] = data.b.astype("boolean").where(data.x > -2.0)
    data.loc[[5, 6, 200], "x"] = np.nan
    data.loc[[6, 77], "a"] = None
    return data


DATA = rows()
WHOLE = DATA.dropna().reset_index(drop=True)
X = WHOLE[["x", "z", "t"]].to_numpy()
Y = WHOLE["y"].to_numpy()


def split(data: pd.DataFrame, *at: int) -> Any:
    """Partitions that begin at these rows, divisions unknown."""
    bounds = [0, *at, len(data)]
    parts = [data.iloc[i:j] for i, j in pairwise(bounds)]
    return of_parts(parts, data)


def of_parts(parts: list[Any], data: Any) -> Any:
    """The partitions as they are, whatever the meta says."""
    return dd.from_map(_Given(parts), list(range(len(parts))), meta=data.iloc[:0], enforce_metadata=False)


class _Given:
    """The i-th of some things."""

    def __init__(self, things: list[Any]) -> None:
        self._things = things

    def __call__(self, number: int) -> Any:
        return self._things[number]


def rechunked(array: Any, *sizes: int) -> Any:
    """Chunks of known sizes along the rows."""
    return da.from_array(np.asarray(array), chunks=(tuple(sizes), *np.asarray(array).shape[1:]))


def unknown(array: Any, *sizes: int) -> Any:
    """Chunks whose sizes Dask does not know."""
    known = rechunked(array, *sizes)
    chunks = ((np.nan,) * len(sizes), *known.chunks[1:])
    return da.Array(known.dask, known.name, chunks, dtype=known.dtype, meta=known._meta)


def same(fit: Any, truth: Any) -> None:
    """Every number of a fit to the last bits, and the rows it tells of."""
    assert list(fit.params.index) == list(truth.params.index)
    np.testing.assert_allclose(fit.params, truth.params, rtol=SAME, atol=1e-14)
    np.testing.assert_allclose(fit.bse, truth.bse, rtol=SAME)
    for name in ("deviance", "null_deviance", "llf", "pearson_chi2", "scale", "nobs", "df_resid"):
        np.testing.assert_allclose(getattr(fit, name), getattr(truth, name), rtol=SAME, err_msg=name)
    for name in ("read", "filtered", "missing_rows", "zero_weight", "used", "missing"):
        assert getattr(fit.ledger, name) == getattr(truth.ledger, name), name


def alike(found: Any, truth: Any) -> None:
    """Predictions to the last bits, missing ones where they are missing."""
    np.testing.assert_allclose(np.asarray(found), np.asarray(truth), rtol=1e-14, atol=1e-15)


# -- DataFrames --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [(), (0, 0, 50, 50, 51, 52, 400, N, N), tuple(range(20, N, 20))])
def test_partitions_of_any_size_are_the_same_rows(place: Place, at: tuple[int, ...]) -> None:
    data = split(DATA, *at)
    assert data.npartitions == len(at) + 1
    assert not data.known_divisions
    same(place.fit(FORMULA + " + c", data), dg.glm(FORMULA + " + c", DATA, family="poisson"))


def test_partitions_as_dask_cuts_them_and_of_one_row(place: Place) -> None:
    same(place.fit(FORMULA, dd.from_pandas(DATA, npartitions=7)), dg.glm(FORMULA, DATA, family="poisson"))
    few = WHOLE.iloc[:12]
    same(place.fit("y ~ x", split(few, *range(1, 12))), dg.glm("y ~ x", few, family="poisson"))


def test_nothing_but_empty_partitions(place: Place) -> None:
    empty = DATA.iloc[:0]
    with pytest.raises(DataError, match=r"^the data have no rows$"):
        place.fit(FORMULA, of_parts([empty, empty, empty], DATA))


@pytest.mark.parametrize(
    "options",
    [
        {"where": "z > 1 and a != 'mid'"},
        {"where": "c = 'm' or w = 3", "weights": dg.Frequency("w")},
        {"exposure": "t", "covariance": "HC1"},
        {"offset": "z", "weights": dg.Variance("t"), "dispersion": "pearson"},
        {"weights": dg.Probability("t")},
    ],
    ids=["where", "frequency", "exposure", "offset", "probability"],
)
def test_options_name_columns(place: Place, options: dict[str, Any]) -> None:
    same_or_without_likelihood(
        place.fit("y ~ x + a", split(DATA, 0, 130, 131, 300), **options),
        dg.glm("y ~ x + a", DATA, family="poisson", **options),
    )


def same_or_without_likelihood(fit: Any, truth: Any) -> None:
    """As `same`; with probability weights there is no likelihood to compare."""
    weights = truth.record.specification.weights
    if weights is None or weights[0] != "probability":
        same(fit, truth)
        return
    np.testing.assert_allclose(fit.params, truth.params, rtol=SAME)
    np.testing.assert_allclose(fit.bse, truth.bse, rtol=SAME)


def test_successes_out_of_trials(place: Place) -> None:
    data = DATA.assign(n=DATA.w + 2, s=np.minimum(DATA.k, DATA.w))
    options: dict[str, Any] = {"family": "binomial", "trials": "n"}
    same(place.fit("s ~ x + b", split(data, 44, 44, 210), **options), dg.glm("s ~ x + b", data, **options))


def test_categories_come_in_their_order(place: Place) -> None:
    truth = dg.glm("y ~ c", DATA, family="poisson")
    fit = place.fit("y ~ c", split(DATA, 9, 250))
    same(fit, truth)
    # the first that was declared is the baseline, and one without rows is no level
    assert [name for name in fit.params.index if name != "Intercept"] == ["c[T.m]", "c[T.l]"]
    numbers = DATA.assign(k=pd.Categorical(DATA.k, categories=[2, 0, 1]))
    fit = place.fit("y ~ k", split(numbers, 100))
    same(fit, dg.glm("y ~ k", numbers, family="poisson"))
    assert list(fit.params.index) == ["Intercept", "k[T.0]", "k[T.1]"]


def test_a_level_that_the_meta_lacks_comes_last(place: Place) -> None:
    parts = [
        WHOLE.iloc[i::3].assign(a=lambda part, order=order: pd.Categorical(part.a, categories=order))
        for i, order in enumerate([["mid", "low", "high"], ["mid", "low", "high"], ["high", "mid", "low"]])
    ]
    collection = of_parts(parts, parts[0].assign(a=parts[0].a.cat.set_categories(["mid", "low"])))
    assert collection.a.cat.known
    shuffled = pd.concat([WHOLE.iloc[i::3] for i in range(3)])
    truth = shuffled.assign(a=pd.Categorical(shuffled.a, categories=["mid", "low", "high"]))
    found = place.fit("y ~ a", collection)
    assert list(found.params.index) == ["Intercept", "a[T.low]", "a[T.high]"]
    same(found, dg.glm("y ~ a", truth, family="poisson"))


@pytest.mark.parametrize("option", ["weights", "offset", "exposure"])
@pytest.mark.parametrize("values", [WHOLE.z, WHOLE.z.to_numpy(), rechunked(WHOLE.z, len(WHOLE)), list(WHOLE.z)])
def test_values_beside_a_collection_are_to_be_a_column(option: str, values: Any) -> None:
    with pytest.raises(DesignError, match=f'{option}= takes the name .* not .*: add it to data= as a column.*"$'):
        dg.glm("y ~ x", split(WHOLE, 9), family="poisson", **{option: values})


@pytest.mark.parametrize("option", ["weights", "offset", "exposure"])
def test_a_collection_beside_a_table_is_to_be_a_column(option: str) -> None:
    with pytest.raises(DesignError, match=f'{option}= takes the name .* not .*: add it to data= as a column.*"$'):
        dg.glm("y ~ x", WHOLE, family="poisson", **{option: rechunked(WHOLE.z, len(WHOLE))})


def test_unknown_categories_are_sorted(place: Place) -> None:
    data = split(WHOLE, 100, 101, 200)
    unknown_ones = data.assign(a=data.a.astype("category"))
    assert not unknown_ones.a.cat.known
    truth = dg.glm("y ~ x + a", WHOLE, family="poisson")
    same(place.fit("y ~ x + a", unknown_ones), truth)
    # each partition with an order of its own
    orders = [["mid", "high", "low"], ["low", "high", "mid", "absent"], ["high", "mid", "low"]]
    parts = [
        WHOLE.iloc[i::3].assign(a=lambda part, order=order: pd.Categorical(part.a, categories=order))
        for i, order in enumerate(orders)
    ]
    meta = unknown_ones._meta
    shuffled = pd.concat([WHOLE.iloc[i::3] for i in range(3)])
    collection = of_parts(parts, meta)
    assert not collection.a.cat.known
    same(place.fit("y ~ x + a", collection), dg.glm("y ~ x + a", shuffled, family="poisson"))
    # numbers as levels are sorted as text
    numbers = data.assign(k=data.k.astype("category"))
    text = WHOLE.assign(k=WHOLE.k.astype(str))
    truth = dg.glm("y ~ k", text, family="poisson")
    fit = place.fit("y ~ k", numbers)
    same(fit, truth)
    np.testing.assert_allclose(place.computed(fit.predict(numbers)), truth.predict(text), rtol=SAME)


# Dask's own reading warns of pandas 4
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_dictionaries_in_parquet_have_categories_that_dask_does_not_know(place: Place, tmp_path: Path) -> None:
    for i, order in enumerate((["mid", "low", "high"], ["high", "low", "mid"])):
        part = WHOLE.iloc[i * 200 : (i + 1) * 200]
        table = pa.Table.from_pandas(part[["x", "y"]], preserve_index=False)
        codes = pa.array([order.index(value) for value in part.a], pa.int32())
        table = table.append_column("a", pa.DictionaryArray.from_arrays(codes, order))
        pq.write_table(table, tmp_path / f"{i}.parquet")
    data = dd.read_parquet(tmp_path)
    assert isinstance(data.dtypes["a"], pd.CategoricalDtype)
    truth = dg.glm("y ~ x + a", WHOLE.iloc[:400], family="poisson")
    same(place.fit("y ~ x + a", data), truth)
    alike(place.computed(truth.predict(data)), truth.predict(WHOLE.iloc[:400]))


def test_kinds_of_text_and_numbers(place: Place) -> None:
    formula = "y ~ Int + Bool + w + a"
    truth = dg.glm(formula, DATA, family="poisson")
    same(place.fit(formula, split(DATA, 3, 200)), truth)
    with dask.config.set({"dataframe.convert-string": False}):
        as_objects = split(DATA.assign(a=DATA.a.astype(object)), 150)
        assert as_objects.dtypes["a"] == np.dtype(object)
        same(place.fit(formula, as_objects), truth)
    same(place.fit(formula, split(DATA.astype({"a": "string[python]", "x": "float32"}), 150)), truth)


def _objects() -> pd.DataFrame:
    """Every kind of values as objects, the first partition without one."""
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(WHOLE.k, unit="D")
    found = WHOLE[["y", "x"]].assign(
        k=WHOLE.k.astype(object), b=WHOLE.b.astype(object), a=WHOLE.a.astype(str).astype(object), w=WHOLE.w.astype(object),
        day=days.dt.date.astype(object), large=WHOLE.k.map(lambda k: 2**70 * int(k)).astype(object),
        cut=pd.cut(WHOLE.x, 3).astype(object), both=WHOLE.z.astype(object),
    )  # fmt: skip
    found.loc[: found.index[20], ["k", "b", "a", "w", "day"]] = None
    found.loc[found.index[300] :, "both"] = "text"
    return found


OBJECTS = _objects()


@pytest.mark.parametrize("term", ["k", "C(k)", "b", "a", "w", "log(w + 1)", "day", "C(day)", "large", "cut", "where"])
def test_objects_are_what_their_values_are(place: Place, term: str) -> None:
    """The same for pandas, a dictionary and partitions, in a fit and in everything that reads rows again."""
    formula, where = ("y ~ x", "k > 1 and a != 'e'") if term == "where" else (f"y ~ x + {term}", None)
    truth = dg.glm(formula, OBJECTS, family="poisson", where=where)
    same(dg.glm(formula, {name: OBJECTS[name].to_numpy() for name in OBJECTS}, family="poisson", where=where), truth)
    with dask.config.set({"dataframe.convert-string": False}):
        collection = split(OBJECTS, 21, 150)
        assert collection.dtypes["k"] == np.dtype(object)
        same(place.fit(formula, collection, where=where), truth)
        alike(place.computed(truth.predict(collection)), truth.predict(OBJECTS))
        alike(place.computed(truth.residuals(collection)), truth.residuals(OBJECTS))
        np.testing.assert_allclose(truth.cov_params("HC0", collection), truth.cov_params("HC0", OBJECTS), rtol=1e-9)
    if where is None and term in ("k", "C(k)", "a", "w", "day"):
        there = OBJECTS.iloc[21:]
        base = dg.glm("y ~ x", there, family="poisson")
        found = base.score_test([term], collection.partitions[1:])
        np.testing.assert_allclose(found, base.score_test([term], there), rtol=1e-9)


def test_mixtures_are_refused_with_the_first_two_kinds(place: Place) -> None:
    near = r'the column "both" .* a mixture of numbers and text: \d.\d+ in row 0, \'text\' in row 300'
    for data in (OBJECTS, {name: OBJECTS[name].to_numpy() for name in OBJECTS}):
        with pytest.raises(DesignError, match=near):
            dg.glm("y ~ both", data, family="poisson")
    truth = dg.glm("y ~ w", OBJECTS.assign(w=WHOLE.z), family="poisson")
    with dask.config.set({"dataframe.convert-string": False}):
        collection = split(OBJECTS, 21, 150, 300)
        apart = (
            r'"both" .* a mixture of numbers \(partition 0 of the DataFrame\) and text \(partition 3 of the DataFrame\)'
        )
        with pytest.raises(DesignError, match=apart):
            place.fit("y ~ both", collection)
        with pytest.raises(DesignError, match=r"mixture of numbers and text: .* in row 150 of partition 1"):
            place.fit("y ~ both", split(OBJECTS, 150))
        # what is not used does not matter
        same(place.fit("y ~ x", collection), dg.glm("y ~ x", OBJECTS, family="poisson"))
        later = split(OBJECTS.assign(w=OBJECTS.both), 21, 300)
        with pytest.raises(DesignError, match='the column "w" was numeric when the model was fitted and is factor now'):
            truth.predict(later).compute(scheduler="synchronous")
        with pytest.raises(DataError, match=r'partition .*: the column "w" holds text, and numbers elsewhere'):
            truth.residuals(later).compute(scheduler="synchronous")


def test_a_partition_without_a_value_has_the_type_of_the_whole(place: Place) -> None:
    data = DATA.assign(a=DATA.a.astype(object))
    data.loc[:99, "a"] = None
    with dask.config.set({"dataframe.convert-string": False}):
        collection = split(data, 50, 100)
        truth = dg.glm(FORMULA, data, family="poisson")
        same(place.fit(FORMULA, collection), truth)
        alike(place.computed(truth.predict(collection)), truth.predict(data))


def test_names_that_are_no_text(place: Place) -> None:
    data = WHOLE[["y", "x", "z"]].set_axis(["y", 0, 1], axis=1)
    same(place.fit("y ~ `0` + `1`", split(data, 7)), dg.glm("y ~ `0` + `1`", data, family="poisson"))


def test_columns_that_are_still_to_be_computed(place: Place) -> None:
    data = dd.from_pandas(DATA, npartitions=5)
    data = data.assign(u=data.x * 2 + data.z, late=data.z.cumsum())[data.z > 0.7]
    wanted = DATA.assign(u=DATA.x * 2 + DATA.z, late=DATA.z.cumsum())[DATA.z > 0.7]
    same(place.fit("y ~ u + a + late", data), dg.glm("y ~ u + a + late", wanted, family="poisson"))
    shuffled = data.shuffle("w", npartitions=3)
    fit = place.fit("y ~ u + a", shuffled)
    np.testing.assert_allclose(fit.params, dg.glm("y ~ u + a", wanted, family="poisson").params, rtol=1e-11)


def test_more_partitions_than_a_pass_has_tasks(place: Place) -> None:
    # two workers of one thread: at most eight tasks a pass
    data = place.persisted(dd.from_pandas(DATA, npartitions=27))
    same(place.fit(FORMULA, data), dg.glm(FORMULA, DATA, family="poisson"))
    # what was held before is held still
    assert len(place.computed(data)) == N
    # what is persisted is the user's, and Dask may hold it in a cycle
    del data
    gc.collect()


def test_a_partition_that_is_not_as_the_meta_says(place: Place) -> None:
    parts = [DATA.iloc[:200], DATA.iloc[200:].drop(columns="x")]
    with pytest.raises(DataError, match=r'partition 1 of the DataFrame has no column "x", which .* meta has'):
        place.fit(FORMULA, of_parts(parts, DATA))
    parts = [DATA.iloc[:200], DATA.iloc[200:].assign(x="much")]
    with pytest.raises(DataError, match='partition 1 of the DataFrame: the column "x" cannot be read as double'):
        place.fit(FORMULA, of_parts(parts, DATA))
    parts = [DATA.iloc[:200], DATA.iloc[200:].assign(x=pd.Timestamp("2026-01-01"))]
    with pytest.raises(DataError, match='partition 1 of the DataFrame: the column "x" cannot be read as double'):
        place.fit(FORMULA, of_parts(parts, DATA))
    # other numbers, or more columns, are no harm
    parts = [DATA.iloc[:200].assign(w=DATA.w.astype(float)), DATA.iloc[200:].assign(more=1.0)]
    same(place.fit("y ~ x + w", of_parts(parts, DATA)), dg.glm("y ~ x + w", DATA, family="poisson"))


def _broken(part: Any) -> Any:
    """Only the rows from 100 on can be computed."""
    if len(part) and part.index[0] < 100:
        return part
    # the first that fails is not the first that is said to
    time.sleep(0.5 if len(part) and part.index[0] == 100 else 0.0)
    raise ZeroDivisionError("nothing to divide by")


def _without_zeros(chunk: Any) -> Any:
    if (chunk == 0).any():
        raise ZeroDivisionError("nothing to divide by")
    return chunk


def test_an_error_of_a_partition_names_it(place: Place) -> None:
    said = "partition 2 of the DataFrame could not be computed: ZeroDivisionError: nothing to divide by"
    data = split(DATA, 50, 100, 300).map_partitions(_broken, meta=DATA.iloc[:0])
    with pytest.raises(DataError, match=said) as caught:
        place.fit(FORMULA, data)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    x = X.copy()
    x[350] = 0.0
    said = r"chunk 3 of X, or of what goes with it, could not be computed: ZeroDivisionError: nothing to divide by"
    sizes = (100, 100, 100, len(X) - 300)
    with pytest.raises(DataError, match=said) as caught:
        place.fit(X=rechunked(x, *sizes).map_blocks(_without_zeros, meta=np.zeros((0, 0))), y=rechunked(Y, *sizes))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    # a mistake in ours is not laid at the data's door
    bad = DATA.assign(y=DATA.y.where(DATA.index != 300, -1))
    with pytest.raises(DataError, match=r"partition 1 of the DataFrame.*-1"):
        place.fit(FORMULA, split(bad, 200))


@pytest.mark.parametrize(
    "formula, data, error",
    [
        ("y ~ x + q", lambda d: d, 'no column "q".*columns: x, z, a, w, t, k, b, c, y, Int, Bool'),
        ("y ~ x", lambda d: d.rename(columns={"z": "x"}), "the same name: 'x'"),
        ("y ~ x", lambda d: d.x, "a Dask Series is no table"),
        ("y ~ x", lambda d: d.index, "a Dask Index is no table"),
        ("y ~ x", lambda d: d[["x", "z"]].to_dask_array(), "a Dask Array is no table"),
        ("y ~ x", lambda d: db.from_sequence([1, 2]), "a Dask Bag is no table"),
        ("y ~ x", lambda d: dask.delayed(DATA), "is no table"),
    ],
    ids=["column", "twice", "Series", "Index", "Array", "Bag", "Delayed"],
)
def test_what_is_no_table_is_refused(place: Place, formula: str, data: Any, error: str) -> None:
    with pytest.raises(DesignError, match=error):
        place.fit(formula, data(split(DATA, 10)))


def test_options_that_a_collection_does_not_take(place: Place, tmp_path: Path) -> None:
    data = split(DATA, 10)
    with pytest.raises(DesignError, match="checkpoint= is for files"):
        place.fit("y ~ x", data, checkpoint=tmp_path / "state")
    for keep in ("disk", "reread"):
        if place.client is None:
            same(place.fit("y ~ x", data, keep=keep), dg.glm("y ~ x", DATA, family="poisson"))
            continue
        with pytest.raises(DesignError, match=f'keep="{keep}" is for files: what a Dask collection holds'):
            place.fit("y ~ x", data, keep=keep)


# -- arrays ------------------------------------------------------------------------------------------------------------


def truth_of(x: Any = X, y: Any = Y, **options: Any) -> Any:
    """The fit of NumPy arrays in this process."""
    return dg.glm(X=x, y=y, family="poisson", **options)


HALF = (200, len(X) - 200)
CHUNKS = (100, 0, 1, 99, len(X) - 200)


def test_chunks_of_rows_known_or_not(place: Place) -> None:
    truth = truth_of()
    same(place.fit(X=rechunked(X, *HALF), y=rechunked(Y, *HALF)), truth)
    same(place.fit(X=rechunked(X, *CHUNKS), y=rechunked(Y, *CHUNKS)), truth)
    same(place.fit(X=unknown(X, *CHUNKS), y=unknown(Y, *CHUNKS)), truth)
    same(place.fit(X=unknown(X, *CHUNKS), y=rechunked(Y, *CHUNKS)), truth)
    data = split(WHOLE, 20, 21, 300)
    fit = place.fit(X=data[["x", "z", "t"]].to_dask_array(), y=data.y.to_dask_array())
    same(fit, truth)


def test_chunks_that_differ_are_rechunked_where_that_is_known(place: Place) -> None:
    truth = truth_of(weights=WHOLE.t.to_numpy(), offset=WHOLE.z.to_numpy())
    found = place.fit(
        X=da.from_array(X, chunks=(111, 2)), y=da.from_array(Y[:, None], chunks=(70, 1)), weights=WHOLE.t.to_numpy(),
        offset=rechunked(WHOLE.z, *HALF),
    )  # fmt: skip
    same(found, truth)
    exposed = truth_of(exposure=WHOLE.t.to_numpy(), weights=dg.Frequency(WHOLE.w.to_numpy()))
    found = place.fit(
        X=rechunked(X, *HALF), y=Y, exposure=rechunked(WHOLE.t, *CHUNKS),
        weights=dg.Frequency(rechunked(WHOLE.w, *CHUNKS)),
    )  # fmt: skip
    same(found, exposed)
    with pytest.raises(DesignError, match="X has 2 chunks of rows and y 5, of unknown sizes: call compute_chunk_sizes"):
        place.fit(X=unknown(X, *HALF), y=rechunked(Y, *CHUNKS))
    sizes = (*reversed(HALF),)
    with pytest.raises(DataError, match=r"chunk 0: X has \d+ rows and y \d+: chunk them alike"):
        place.fit(X=unknown(X, *HALF), y=rechunked(Y, *sizes))
    with pytest.raises(DesignError, match=f"y has {len(Y) - 1} rows, X has {len(X)}"):
        place.fit(X=rechunked(X, *HALF), y=rechunked(Y[1:], HALF[0], HALF[1] - 1))


def test_one_column_and_trials(place: Place) -> None:
    truth = truth_of(X[:, 0])
    same(place.fit(X=rechunked(X[:, 0], *CHUNKS), y=rechunked(Y, *CHUNKS)), truth)
    same(place.fit(X=unknown(X[:, 0], *CHUNKS), y=unknown(Y, *CHUNKS)), truth)
    successes, trials = np.minimum(WHOLE.k, 2).to_numpy(), (WHOLE.w + 2).to_numpy()
    options: dict[str, Any] = {"family": "binomial"}
    found = place.fit(X=rechunked(X, *HALF), y=rechunked(successes, *HALF), trials=rechunked(trials, *HALF), **options)
    same(found, dg.glm(X=X, y=successes, trials=trials, **options))


def test_frames_keep_the_names_of_their_columns(place: Place) -> None:
    data = split(WHOLE, 50, 50, 300)
    truth = dg.glm("y ~ x + z + b + k", WHOLE, family="poisson", weights="t")
    fit = place.fit(X=data[["x", "z", "b", "k"]], y=data.y, weights=data.t)
    same(fit, truth)
    same(place.fit(X=data.x, y=data.y), dg.glm("y ~ x", WHOLE, family="poisson"))
    # pandas' own numbers, some of them missing
    missing = split(DATA, 11, 300)
    found = place.fit(X=missing[["x", "Int", "Bool"]], y=missing.y)
    same(found, dg.glm("y ~ x + Int + Bool", DATA, family="poisson"))
    renamed = DATA.drop(columns="y").rename(columns={"Int": "y"})
    same(place.fit(X=missing[["z"]], y=missing.Int), dg.glm("y ~ z", renamed, family="poisson"))


@pytest.mark.parametrize("kind", [csr_matrix, csc_array, lil_array])
def test_sparse_chunks(place: Place, kind: Any) -> None:
    rare = np.where(np.abs(X) > 0.9, X, 0.0)
    truth = truth_of(csr_array(rare))
    x = rechunked(rare, *CHUNKS).map_blocks(kind)
    same(place.fit(X=x, y=rechunked(Y, *CHUNKS)), truth)
    alike(place.computed(truth.predict(x, se=True)), truth.predict(csr_array(rare), se=True))
    beside = da.from_array(rare, chunks=(HALF, (2, 1))).map_blocks(kind)
    same(place.fit(X=beside, y=rechunked(Y, *HALF)), truth)


def test_sparse_chunks_that_the_meta_does_not_tell_of(place: Place) -> None:
    dense = rechunked(X, *HALF)
    y = rechunked(Y, *HALF)
    with pytest.raises(DataError, match=r"chunk 0 of X is a csr_matrix, .* meta does not say: .*csr_array"):
        place.fit(X=dense.map_blocks(csr_matrix, meta=np.zeros((0, 0))), y=y)
    with pytest.raises(DataError, match=r"chunk 0 of X is dense, .* meta does not say"):
        place.fit(X=dense.map_blocks(np.array, meta=csr_matrix((0, 0))), y=y)
    # of a format that cannot be sliced Dask forgets the meta it is given
    other = dense.map_blocks(coo_matrix, meta=coo_matrix((0, 3)))
    with pytest.raises(DataError, match=r"chunk 0 of X is a coo_matrix, .*map_blocks\(scipy.sparse.csr_array\)"):
        place.fit(X=other, y=y)
    same(place.fit(X=other.map_blocks(csr_array), y=y), truth_of(csr_array(X)))
    with pytest.raises(DesignError, match="where= is for tables"):
        place.fit(X=dense.map_blocks(csr_matrix), y=y, where="y > 0")


@pytest.mark.parametrize("kind", ["int8", "float32", "bool"])
def test_kinds_of_numbers(place: Place, kind: str) -> None:
    x = np.rint(X - 1.0).astype(kind)
    same(place.fit(X=rechunked(x, *HALF), y=rechunked(Y.astype("int32"), *HALF)), truth_of(x))


def test_rows_of_arrays_that_a_filter_leaves(place: Place) -> None:
    found = place.fit(X=unknown(X, *CHUNKS), y=unknown(Y, *CHUNKS), where="x1 > 1 and y < 6")
    same(found, truth_of(where="x1 > 1 and y < 6"))


@pytest.mark.parametrize(
    "options, error",
    [
        ({"X": X, "y": rechunked(Y, *HALF)}, "y is a Dask collection and X is not: make X one, or compute y"),
        ({"weights": rechunked(Y, *HALF), "X": X, "y": Y}, "weights is a Dask collection and X is not"),
        ({"X": unknown(X, *HALF), "y": Y}, r"y is in memory .* or call X.compute_chunk_sizes\(\)"),
        ({"X": split(WHOLE, 9)[["x"]], "y": Y}, "y is in memory .* make it a Dask collection chunked as X$"),
        ({"y": Y[:-1]}, "y has .* rows, X has"),
        ({"X": rechunked(X.astype(object), *HALF)}, "X must be numbers, not object"),
        ({"X": split(WHOLE, 9)[["x", "a"]], "y": split(WHOLE, 9).y}, '"a" must be numbers, not str'),
        ({"X": split(WHOLE, 9)[["x", "y"]], "y": split(WHOLE, 9).y}, 'X has a column named "y"'),
        ({"y": rechunked(Y, *HALF).astype(object)}, "y must be numbers, not object"),
        ({"y": rechunked(X, *HALF)}, "y must have one dimension, not 2"),
        ({"y": X}, "y must have one dimension, not 2"),
        ({"y": db.from_sequence([1, 2])}, "y= takes a Dask array or Series, not Bag"),
        ({"y": split(WHOLE, 9)[["y"]]}, "y= takes a Dask array or Series, not DataFrame"),
        ({"y": dask.delayed(Y)}, "y= takes a Dask array or Series, not Delayed"),
        ({"X": db.from_sequence([1, 2])}, "X= takes a Dask array or DataFrame, not Bag"),
        ({"X": da.zeros((4, 2, 2))}, "X must have two dimensions, not 3"),
        ({"weights": "w"}, "weights must be an array of numbers of one dimension"),
        ({"offset": 1.0}, "offset must be an array of numbers of one dimension"),
        ({"X": split(WHOLE, 9)[["x", "z"]].rename(columns={"z": "x"})}, "two columns of X have the same name: 'x'"),
        ({"X": WHOLE[["x", "z"]].set_axis(["x", "x"], axis=1), "y": Y}, "two columns of X have the same name: 'x'"),
    ],
)
def test_arrays_that_do_not_go_together(place: Place, options: dict[str, Any], error: str) -> None:
    with pytest.raises(DesignError, match=error):
        place.fit(**{"X": rechunked(X, *HALF), "y": rechunked(Y, *HALF), **options})


def test_a_chunk_that_is_not_as_the_meta_says(place: Place) -> None:
    x, y = rechunked(X, *HALF), rechunked(Y, *HALF)
    with pytest.raises(DataError, match=r"chunk \d of X has 1 columns, X 3"):
        place.fit(X=x.map_blocks(_first, dtype=float, meta=np.zeros((0, 0))), y=y)
    with pytest.raises(DataError, match=r"chunk \d of y is of .*, not of numbers as the collection's meta says"):
        place.fit(X=x, y=y.map_blocks(_text, dtype=float, meta=np.zeros(0)))
    parts = [WHOLE[["x"]].iloc[:200], WHOLE[["x"]].iloc[200:].assign(x="much")]
    with pytest.raises(DataError, match="chunk 1 of X is no chunk of numbers"):
        place.fit(X=of_parts(parts, WHOLE[["x"]]), y=split(WHOLE, 200).y)


def _first(chunk: Any) -> Any:
    return chunk[:, :1]


def _text(chunk: Any) -> Any:
    return np.full(chunk.shape, "much")


# -- predictions -------------------------------------------------------------------------------------------------------

QUESTIONS: list[dict[str, Any]] = [
    {},
    {"type": "link"},
    {"se": True},
    {"type": "link", "se": True, "interval": "confidence", "level": 0.8},
    {"type": "terms"},
    {"without": "a"},
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: ",".join(map(str, q)) or "mean")
def test_predictions_of_a_frame_are_lazy_and_the_same(place: Place, question: dict[str, Any], tmp_path: Path) -> None:
    truth = dg.glm(FORMULA + " + c", DATA, family="poisson").predict
    indexed = DATA.set_index(DATA.index * 3 + 1)
    calls = tmp_path / "calls"

    def counted(part: Any) -> Any:
        with calls.open("a") as file:
            file.write("called\n")
        return part

    data = split(indexed, 0, 50, 51, 300, N).map_partitions(counted, meta=indexed.iloc[:0])
    lazy = truth(data, **question)
    wanted = truth(indexed, **question)
    assert not calls.exists()
    assert lazy.npartitions == data.npartitions
    found = place.computed(lazy)
    assert calls.read_text().count("called") == data.npartitions
    alike(found, wanted)
    assert found.index.equals(indexed.index)
    # missing values are missing predictions, save of terms left out
    assert np.isnan(np.asarray(found)[5]).all()
    if isinstance(wanted, pd.Series):
        assert isinstance(lazy, dd.Series)
        assert lazy.name == found.name == wanted.name == question.get("type", "mean")
    else:
        assert list(lazy.columns) == list(found.columns) == list(wanted.columns)


def test_predictions_keep_what_is_known_of_a_frame(place: Place) -> None:
    fit = dg.glm(FORMULA, DATA, family="poisson", exposure="t")
    data = dd.from_pandas(DATA, npartitions=4)
    assert fit.predict(data).divisions == data.divisions
    alike(place.computed(fit.predict(data)), fit.predict(DATA))
    alike(place.computed(fit.predict(data, exposure=1)), fit.predict(DATA, exposure=1))
    alike(place.computed(fit.predict(data, exposure="z")), fit.predict(DATA, exposure="z"))
    alike(place.computed(fit.predict(data, offset="w")), fit.predict(DATA, offset="w"))
    # a column beside those of the model, and a sum of it
    scored = data.assign(mean=fit.predict(data))
    np.testing.assert_allclose(place.computed(scored["mean"].sum()), fit.predict(DATA).sum(), rtol=1e-13)
    only = dg.glm("y ~ 1", DATA, family="poisson")
    assert place.computed(only.predict(data, type="terms")).shape == (N, 0)
    assert len(place.computed(only.predict(data))) == N


@pytest.mark.parametrize("question", [QUESTIONS[1], QUESTIONS[3], QUESTIONS[4]], ids=lambda q: ",".join(map(str, q)))
def test_predictions_of_arrays(place: Place, question: dict[str, Any]) -> None:
    fit = truth_of(X)
    x = X.copy()
    x[3, 1] = np.nan
    wanted = np.asarray(fit.predict(x, **question))
    known = fit.predict(rechunked(x, *CHUNKS), **question)
    assert known.chunks[0] == CHUNKS
    assert known.shape == wanted.shape
    assert known.dtype == np.float64
    found = place.computed(known)
    alike(found, wanted)
    assert np.isnan(found[3]).all()
    without = fit.predict(unknown(x, *CHUNKS), **question)
    assert all(np.isnan(size) for size in without.chunks[0])
    assert without.ndim == wanted.ndim
    alike(place.computed(without), wanted)
    alike(place.computed(fit.predict(da.from_array(x, chunks=(90, 2)), **question)), wanted)


def test_predictions_of_one_column(place: Place) -> None:
    fit = truth_of(X[:, 0])
    for question in QUESTIONS[:3]:
        wanted = fit.predict(X[:, 0], **question)
        alike(place.computed(fit.predict(rechunked(X[:, 0], *CHUNKS), **question)), wanted)
        alike(place.computed(fit.predict(rechunked(X[:, :1], *CHUNKS), **question)), wanted)


@pytest.mark.parametrize("name", ["offset", "exposure"])
@pytest.mark.parametrize("question", [{}, QUESTIONS[3], QUESTIONS[4]], ids=lambda q: ",".join(map(str, q)))
def test_predictions_with_an_array_beside_arrays(place: Place, name: str, question: dict[str, Any]) -> None:
    beside = WHOLE.t.to_numpy()
    fit = truth_of(X[:, :2], **{name: beside})
    wanted = fit.predict(X[:, :2], **{name: beside}, **question)
    for x, array in (
        (rechunked(X[:, :2], *CHUNKS), rechunked(beside, *CHUNKS)),
        (rechunked(X[:, :2], *CHUNKS), rechunked(beside[:, None], *HALF)),
        (unknown(X[:, :2], *CHUNKS), unknown(beside, *CHUNKS)),
        (da.from_array(X[:, :2], chunks=(90, 1)), da.from_array(beside, chunks=90)),
        (unknown(X[:, :2], 100, len(X) - 100), split(WHOLE, 100).t),
    ):
        lazy = fit.predict(x, **{name: array}, **question)
        assert isinstance(lazy, da.Array)
        assert lazy.chunks[0] == x.chunks[0] or np.isnan(x.shape[0])
        alike(place.computed(lazy), wanted)
    # without it, and one column alone
    left_out = {name: 0 if name == "offset" else 1}
    lazy = fit.predict(rechunked(X[:, :2], *HALF), **left_out, **question)
    alike(place.computed(lazy), fit.predict(X[:, :2], **left_out, **question))
    one = truth_of(X[:, 0], **{name: beside})
    lazy = one.predict(rechunked(X[:, 0], *HALF), **{name: rechunked(beside, *HALF)}, **question)
    alike(place.computed(lazy), one.predict(X[:, 0], **{name: beside}, **question))


def test_predictions_with_an_array_beside_sparse_chunks(place: Place) -> None:
    rare = csr_array(np.where(np.abs(X) > 0.9, X, 0.0))
    fit = truth_of(rare, offset=WHOLE.z.to_numpy())
    wanted = fit.predict(rare, offset=WHOLE.z.to_numpy(), se=True)
    x = rechunked(rare.toarray(), *CHUNKS).map_blocks(csr_array)
    alike(place.computed(fit.predict(x, offset=rechunked(WHOLE.z, *CHUNKS), se=True)), wanted)


@pytest.mark.parametrize(
    "ask, error",
    [
        (lambda f, x: f.predict(x), r"fitted with offset=: give offset= .* offset=0 leaves it out"),
        (lambda f, x: f.predict(X), r"fitted with offset=: give offset= .* offset=0 leaves it out"),
        (lambda f, x: truth_of(exposure=WHOLE.t).predict(x), "fitted with exposure=: .* exposure=1 leaves it out"),
        (lambda f, x: f.predict(x, offset=WHOLE.z.to_numpy()), "offset= is a number, or a Dask array .* not ndarray"),
        (lambda f, x: f.predict(x, offset=rechunked(WHOLE.z[:9], 9)), "offset has 9 rows, X has"),
        (
            lambda f, x: f.predict(unknown(X, *HALF), offset=rechunked(WHOLE.z, *CHUNKS)),
            "2 chunks of rows and offset 5",
        ),
        (lambda f, x: f.predict(x, offset=x), "offset must have one dimension"),
        (lambda f, x: f.predict(x, offset=rechunked(WHOLE.z, *HALF).astype(object)), "offset must be numbers"),
        (lambda f, x: f.predict(split(WHOLE, 9), offset=split(WHOLE, 9).z), r"frame.assign\(offset=...\) adds one"),
    ],
)
def test_what_goes_beside_arrays_is_checked_first(ask: Callable[[Any, Any], Any], error: str) -> None:
    with pytest.raises(DesignError, match=error):
        ask(truth_of(offset=WHOLE.z.to_numpy()), rechunked(X, *HALF))


def test_predictions_of_arrays_compute_nothing() -> None:
    fit = truth_of(X)
    calls: list[int] = []

    def made(size: int) -> Any:
        calls.append(size)
        return np.ones((size, 3))

    chunks = [da.from_delayed(dask.delayed(made)(size), (np.nan, 3), dtype=float) for size in HALF]
    x = da.concatenate(chunks, allow_unknown_chunksizes=True)
    lazy = [fit.predict(x), fit.predict(x, se=True), fit.predict(x.map_blocks(csr_matrix).map_blocks(_dense))]
    assert calls == []
    alike(lazy[0].compute(scheduler="synchronous"), fit.predict(np.ones((len(X), 3))))
    assert sorted(calls) == sorted(HALF)


def _dense(chunk: Any) -> Any:
    return chunk.toarray() if hasattr(chunk, "toarray") else np.asarray(chunk)


@pytest.mark.parametrize(
    "ask, error",
    [
        (lambda f: f.predict(split(DATA, 9)[["x", "a"]]), 'there is no column "z"'),
        (lambda f: f.predict(split(DATA, 9).assign(x="much")), 'column "x" was numeric .* and is factor now'),
        (lambda f: f.predict(split(DATA, 9), type="response"), "type='response' is not one of"),
        (lambda f: f.predict(split(DATA, 9), without="q"), "the model has no term 'q'"),
        (lambda f: f.predict(split(DATA, 9), offset="q"), 'there is no column "q"'),
        (lambda f: f.predict(split(DATA, 9), exposure=1), "fitted without an exposure"),
        (lambda f: f.predict(split(DATA, 9), offset=np.ones(N)), "offset= is a number, or a column of it"),
        (lambda f: f.predict(split(DATA, 9), interval="tolerance"), "interval must be"),
        (lambda f: f.predict(split(DATA, 9).x), "a Dask Series is no table"),
        (lambda f: f.predict(db.from_sequence([1])), "a Dask Bag is no table"),
        (lambda f: f.predict(rechunked(X, *HALF)), "fitted with a formula: predict needs a table"),
        (lambda f: truth_of().predict(rechunked(X[:, :2], *HALF)), "the model needs 3 columns, X has 2"),
        (lambda f: truth_of().predict(da.zeros((4, 3, 2))), "X must have two dimensions, not 3"),
        (lambda f: truth_of().predict(rechunked(X, *HALF).map_blocks(csr_matrix)), "not fitted to a sparse X"),
    ],
)
def test_what_cannot_be_predicted_is_refused_before_anything_is_computed(ask: Callable[[Any], Any], error: str) -> None:
    with pytest.raises((DesignError, DataError), match=error):
        ask(dg.glm(FORMULA, DATA, family="poisson"))


def test_known_categories_come_in_the_order_of_the_meta() -> None:
    """Whatever the order of the partitions' own, and with what the meta lacks after them."""
    generator = np.random.default_rng(5)
    data = pd.DataFrame({"y": generator.normal(size=90), "g": generator.choice(["a", "b", "c"], 90)})
    orders = [["c", "a", "b"], ["a", "c", "b"], ["b", "a", "c", "d"]]
    parts = [
        data.iloc[at * 30 : at * 30 + 30].assign(g=lambda part, k=at: pd.Categorical(part.g, orders[k]))
        for at in range(3)
    ]
    parts[2].loc[parts[2].index[:5], "g"] = "d"
    meta = data.iloc[:0].assign(g=pd.Categorical([], ["b", "c", "a"]))
    frame = dd.from_delayed([dask.delayed(part) for part in parts], meta=meta, verify_meta=False)
    fit = dg.glm("y ~ g", frame)
    assert list(fit.params.index) == ["Intercept", "g[T.c]", "g[T.a]", "g[T.d]"]
    alike = pd.concat([part.assign(g=part.g.astype(str)) for part in parts])
    alike["g"] = pd.Categorical(alike.g, ["b", "c", "a", "d"])
    np.testing.assert_allclose(fit.params, dg.glm("y ~ g", alike).params, rtol=1e-12)


def test_a_model_travels_once_to_each_worker_and_not_with_every_partition(client: Any) -> None:
    frame = dd.from_pandas(pd.DataFrame({"x": np.arange(300.0)}), npartitions=30)
    array = da.ones((300, 2), chunks=(10, 2))
    for data in (frame, array):
        for name in ("a", None):
            heavy.pickled.clear()
            lazy = collections.mapped(data, heavy.Heavy(), ["a"], name)
            assert len(client.compute(lazy).result(timeout=60)) == 300
            # to the scheduler, and with the one task that makes it
            assert len(heavy.pickled) <= 4
