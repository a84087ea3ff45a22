"""Several responses in the same passes: each is the fit of that response alone, to the last bit."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.errors import DataError, DesignError, SeparationWarning
from daskglm.partitions import tree_sum
from daskglm.together import Together

N = 600
STATISTICS = ("deviance", "null_deviance", "llf", "aic", "bic", "scale", "df_resid", "nobs")


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    x, area = rng.normal(size=N), rng.choice(list("abcd"), N)
    mu = np.exp(0.3 + 0.4 * x + 0.2 * (area == "b"))
    return pd.DataFrame(
        {
            "x": x, "area": area, "claims": rng.poisson(mu), "visits": rng.negative_binomial(2.0, 2.0 / (2.0 + mu)),
            "cost": rng.gamma(2.0, mu / 2.0), "e": rng.uniform(0.5, 2.0, N), "f": rng.integers(1, 4, N),
        }
    )  # fmt: skip


def same(one: dg.Fit, other: dg.Fit) -> None:
    assert one.params.equals(other.params)
    assert one.cov_params().equals(other.cov_params())
    for name in STATISTICS:
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name
    assert one.shape_params == other.shape_params
    assert str(one.shape_bse) == str(other.shape_bse)


@pytest.mark.parametrize(
    "family, options",
    [
        ("poisson", {"exposure": "e"}),
        ("negative_binomial", {}),
        ("quasipoisson", {"weights": dg.Frequency("f")}),
        ("poisson", {"covariance": "HC0", "weights": "e"}),
    ],
)
def test_each_is_the_fit_of_that_response_alone(family: str, options: dict[str, Any]) -> None:
    data = frame()
    fits = dg.glm("responses(claims, visits) ~ x + area", data, family=family, **options)
    assert fits.responses == ("claims", "visits")
    for name in fits:
        same(fits[name], dg.glm(f"{name} ~ x + area", data, family=family, **options))
    assert fits.params.columns.tolist() == ["claims", "visits"]
    assert np.array_equal(fits.bse["visits"], fits["visits"].bse)
    for name in STATISTICS[:2]:
        assert getattr(fits, name)["claims"] == getattr(fits["claims"], name)
    assert fits.conf_int(level=0.9)["visits"].equals(fits["visits"].conf_int(level=0.9))
    assert str(fits.shape_params["visits"]) == str(fits["visits"].shape_params)
    assert str(fits.shape_bse["visits"]) == str(fits["visits"].shape_bse)
    assert fits.separated == {name: fits[name].separated for name in fits}
    assert fits.aliased == {name: fits[name].aliased for name in fits}


def test_rows_in_which_any_response_is_missing_are_left_out_of_all() -> None:
    data = frame()
    data.loc[[3, 17], "cost"] = np.nan
    data.loc[[5], "e"] = np.nan
    fits = dg.glm("responses(cost, e) ~ x", data, family="gamma", dispersion="ml")
    whole = data.dropna()
    for name in fits:
        same(fits[name], dg.glm(f"{name} ~ x", whole, family="gamma", dispersion="ml"))
    assert fits["e"].ledger.missing == {"cost": 2, "e": 1}


def test_expressions_as_responses() -> None:
    data = frame()
    fits = dg.glm("responses(log(cost), I(claims + visits)) ~ area", data)
    same(fits["log(cost)"], dg.glm("log(cost) ~ area", data))


def test_an_infinite_optimum_of_one_leaves_the_other_alone() -> None:
    data = frame()
    data.loc[data["area"] == "c", "claims"] = 0
    with pytest.warns(SeparationWarning, match=r"area\[T\.c\]"):
        fits = dg.glm("responses(claims, visits) ~ x + area", data, family="poisson")
    assert fits["claims"].params["area[T.c]"] == -np.inf
    same(fits["visits"], dg.glm("visits ~ x + area", data, family="poisson"))
    with pytest.warns(SeparationWarning):
        same(fits["claims"], dg.glm("claims ~ x + area", data, family="poisson"))


def lake(folder: Path, files: int) -> Path:
    folder.mkdir()
    for i, part in enumerate(np.array_split(np.arange(N), files)):
        pq.write_table(pa.Table.from_pandas(frame().iloc[part], preserve_index=False), folder / f"{i}.parquet")
    return folder


@pytest.mark.parametrize("keep", ["memory", "disk", "reread"])
def test_where_rows_are_kept_changes_no_bit(tmp_path: Path, keep: str) -> None:
    there = lake(tmp_path / "lake", 3)
    fits = dg.glm("responses(claims, visits) ~ x + area", there, family="negative_binomial", keep=keep)
    for name in fits:
        same(fits[name], dg.glm(f"{name} ~ x + area", there, family="negative_binomial"))


@pytest.mark.usefixtures("small")
def test_on_a_cluster_and_with_pilots(client: Any, tmp_path: Path) -> None:
    there = lake(tmp_path / "lake", 4)
    fits = dg.glm("responses(claims, visits) ~ x + area", there, family="poisson", client=client)
    for name in fits:
        same(fits[name], dg.glm(f"{name} ~ x + area", there, family="poisson"))


def test_predictions_and_files(tmp_path: Path) -> None:
    data = frame()
    fits = dg.glm("responses(claims, visits) ~ x + area", data, family="poisson")
    fits.save(tmp_path / "models")
    again = dg.load(tmp_path / "models")
    assert isinstance(again, dg.Fits)
    assert again.params.equals(fits.params)
    found = again.predict(data.head(5), se=True)
    for name in fits:
        assert found[name].equals(fits[name].predict(data.head(5), se=True))
    assert again.predict(data.head(5)).columns.tolist() == ["claims", "visits"]
    few = pl.DataFrame(data.head(5))
    assert again.predict(few).columns == ["claims", "visits"]
    with_errors = again.predict(few.to_arrow(), se=True)
    assert with_errors.column_names == ["mean[claims]", "se[claims]", "mean[visits]", "se[visits]"]
    np.testing.assert_array_equal(with_errors.to_pandas(), found)
    assert "Response visits" in str(again.summary())
    one = dg.load(tmp_path / "models" / "1")
    same(one, fits["visits"])


@pytest.mark.parametrize(
    "formula, options, error, message",
    [
        ("responses(claims) ~ x", {}, DesignError, "two or more different"),
        ("responses(claims, claims) ~ x", {}, DesignError, "two or more different"),
        ("responses(claims, nothing) ~ x", {}, DesignError, "nothing"),
        ("responses(claims, area) ~ x", {}, DesignError, "area"),
        ("responses(claims, visits) ~ x", {"family": "multinomial"}, DesignError, "not classes"),
        ("responses(claims, visits) ~ x", {"family": "binomial"}, DataError, '"claims" is'),
        ("responses(e, cost) ~ x", {"family": "binomial"}, DataError, '"e" is'),
        ("responses(claims, visits) ~ x", {"start": [0.0, 0.0]}, DesignError, "start="),
    ],
)
def test_what_is_refused(formula: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dg.glm(formula, frame(), **{"family": "poisson", **options})


def test_a_response_that_is_not_there_is_named() -> None:
    fits = dg.glm("responses(claims, visits) ~ x", frame(), family="poisson")
    with pytest.raises(DesignError, match="did you mean"):
        fits["claim"]


# -- the meeting of the searches ---------------------------------------------------------------------------------------


class Numbers:
    """Partitions of one item per leaf, which count their totals."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.asked = items, 0

    def total(self, function: Any, *args: Any) -> Any:
        self.asked += 1
        assert threading.current_thread() is threading.main_thread()
        return tree_sum(function(item, *args) for item in self.items)


class Pair:
    """An item of two numbers."""

    def __init__(self, *values: int) -> None:
        self.values = values

    def of_response(self, k: int) -> int:
        return self.values[k]


def times(value: int, factor: int) -> int:
    return value * factor


def test_what_is_asked_at_the_same_time_is_one_total() -> None:
    numbers: Any = Numbers([Pair(1, 10), Pair(2, 20), Pair(3, 30)])
    batch = Together()
    views = [batch.of(numbers, k) for k in range(2)]

    def search(k: int, often: int) -> list[int]:
        return [views[k].total(times, factor) for factor in range(often)]

    assert batch.run([lambda: search(0, 3), lambda: search(1, 5)]) == [[0, 6, 12], [0, 60, 120, 180, 240]]
    assert numbers.asked == 5


def test_items_go_through_functions_of_one_search_alone() -> None:
    numbers: Any = Numbers([Pair(1, 10), Pair(2, 20)])
    batch = Together()
    changed = batch.of(numbers, 0).consumed(lambda value: value + 100)
    plain = batch.of(numbers, 1)
    assert batch.run([lambda: changed.total(times, 1), lambda: plain.total(times, 1)]) == [203, 30]


def test_the_failure_of_one_ends_all() -> None:
    numbers: Any = Numbers([Pair(1, 10)])
    batch = Together()
    view = batch.of(numbers, 1)

    def fails() -> int:
        raise ZeroDivisionError("no")

    def goes_on() -> int:
        while True:
            view.total(times, 1)

    with pytest.raises(ZeroDivisionError, match="no"):
        batch.run([fails, goes_on])


def test_a_failing_total_and_an_interrupt_end_all() -> None:
    for error in (DataError("bad"), KeyboardInterrupt()):

        class Broken:
            def total(self, function: Any, *args: Any, error: BaseException = error) -> Any:
                raise error

        batch = Together()
        views = [batch.of(Broken(), k) for k in range(2)]  # type: ignore[arg-type]
        with pytest.raises(type(error)):
            batch.run([lambda view=view: view.total(times, 1) for view in views])  # type: ignore[misc]
    with warnings.catch_warnings():
        assert threading.active_count() < 50
