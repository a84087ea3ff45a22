"""Units of times are part of a model: dates, timestamps and time zones that predictions are given later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.errors import DaskglmError, DataError, DesignError

ROWS = 90
DAYS = np.random.default_rng(2).integers(0, 6, ROWS)
Y = np.random.default_rng(3).normal(size=ROWS)
START = pd.Timestamp("2024-02-27")


def _column(kind: str) -> pa.Array:
    moments = pa.array(START + pd.to_timedelta(DAYS, unit="D")).cast(pa.timestamp("ms"))
    if kind == "days":
        return pa.array(DAYS)
    if kind == "durations":
        return pa.array(DAYS.astype("timedelta64[D]").astype("timedelta64[s]"))
    types = {
        "dates": pa.date32(), "fine dates": pa.date64(), "timestamps": pa.timestamp("ns"),
        "coarse timestamps": pa.timestamp("s"), "utc": pa.timestamp("us", "UTC"),
        "new york": pa.timestamp("us", "America/New_York"), "offset": pa.timestamp("us", "-05:00"),
    }  # fmt: skip
    return moments.cast(types[kind])


def table(kind: str) -> pa.Table:
    return pa.table({"y": Y, "t": _column(kind)})


ALIKE = [
    ("dates", "timestamps"), ("dates", "fine dates"), ("timestamps", "dates"), ("timestamps", "coarse timestamps"),
    ("coarse timestamps", "dates"), ("utc", "new york"), ("new york", "utc"), ("new york", "offset"),
]  # fmt: skip
UNLIKE = [
    ("dates", "utc"), ("timestamps", "utc"), ("utc", "timestamps"), ("dates", "days"), ("days", "dates"),
    ("timestamps", "durations"), ("durations", "dates"), ("days", "durations"),
]  # fmt: skip


@pytest.mark.parametrize("formula", ["y ~ t", "y ~ C(t)", "y ~ I(t - 19000)", "offset"])
@pytest.mark.parametrize(("fitted", "given"), ALIKE)
def test_times_are_read_in_the_units_of_the_fit(fitted: str, given: str, formula: str, tmp_path: Path) -> None:
    options = {"offset": "I(t * 1e-9)"} if formula == "offset" else {}
    fit = dg.glm("y ~ 1" if options else formula, table(fitted), **options)
    expected, residuals = fit.predict(table(fitted)), fit.residuals(table(fitted))
    new = table(given)
    pq.write_table(new, tmp_path / "new.parquet")
    frame = new.to_pandas()
    fit.save(tmp_path / "model")
    for data in (new, frame, str(tmp_path / "new.parquet")):
        np.testing.assert_array_equal(dg.load(tmp_path / "model").predict(data), expected)
        np.testing.assert_array_equal(fit.residuals(data), residuals)
    lazy = dd.from_pandas(new.to_pandas(types_mapper=pd.ArrowDtype), npartitions=2)
    np.testing.assert_array_equal(fit.predict(lazy).compute(), expected)


def test_effects_of_a_time_do_not_depend_on_how_it_is_given() -> None:
    fit = dg.glm("y ~ t", table("timestamps"))
    first, second = fit.margins(table("timestamps")), fit.margins(table("dates"))
    np.testing.assert_allclose(first["effect"], second["effect"], rtol=1e-12)
    first, second = fit.drop1(table("timestamps")), fit.drop1(table("dates"))
    np.testing.assert_allclose(first["deviance"], second["deviance"], rtol=1e-12)


@pytest.mark.parametrize(("fitted", "given"), UNLIKE)
def test_other_kinds_of_times_are_refused(fitted: str, given: str) -> None:
    fit = dg.glm("y ~ t", table(fitted))
    for method in (fit.predict, fit.residuals, fit.margins, fit.drop1):
        with pytest.raises(DesignError, match=r'the column "t" was .* when the model was fitted and is .* now'):
            method(table(given))


def test_times_of_day_are_no_dates() -> None:
    fit = dg.glm("y ~ t", table("dates"))
    later = table("timestamps").set_column(1, "t", pa.array(START + pd.to_timedelta(DAYS * 25, unit="h")))
    with pytest.raises(DataError, match=r'"t" has times of day, and dates are needed: .*dt\.normalize'):
        fit.predict(later)


LABELS = {
    "dates": "2024-02-28",
    "timestamps": "2024-02-28 00:00:00",
    "utc": "2024-02-28 00:00:00+00:00",
    "new york": "2024-02-27 19:00:00-05:00",
    "offset": "2024-02-27 19:00:00-05:00",
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_times_are_in_their_zone(kind: str) -> None:
    fit = dg.glm("y ~ C(t)", table(kind))
    assert fit.params.index[1] == f"C(t)[T.{LABELS[kind]}]"
    other = dg.glm(f"y ~ C(t, Treatment('{LABELS[kind]}'))", table(kind))
    assert not any(LABELS[kind] + "]" in name for name in other.params.index)
    np.testing.assert_allclose(other.predict(table(kind)), fit.predict(table(kind)), rtol=1e-12)


@pytest.mark.filterwarnings("ignore::daskglm.errors.AliasWarning")
@pytest.mark.parametrize("kind", LABELS)
def test_filters_read_literals_as_formulas_do(kind: str) -> None:
    for condition in ("t > '2024-02-28'", "t in ['2024-02-28', '2024-03-01']", "t <= '2024-02-29'"):
        expected = dg.glm(f"y ~ I({condition})", table(kind))
        (mean, _, _), *_ = expected.record.design.moments.values()
        if mean > 0:
            assert dg.glm("y ~ 1", table(kind), where=condition).nobs == round(mean * ROWS)
        else:
            assert kind in ("new york", "offset")
    assert (
        kind not in ("utc", "new york", "offset")
        or dg.glm("y ~ 1", table(kind), where=f"t == '{LABELS[kind]}'").nobs == (DAYS == 1).sum()
    )


LITERALS = {"dates": "2024-02-29", "timestamps": "2024-02-29 00:00", "utc": "2024-02-29T00:00:00+00:00"}


@pytest.mark.parametrize("kind", LITERALS)
def test_literals_are_read_as_the_column_is(kind: str) -> None:
    fit = dg.glm(f"y ~ I(t >= '{LITERALS[kind]}')", table(kind))
    expected = dg.glm("y ~ late", pa.table({"y": Y, "late": DAYS >= 2}))
    np.testing.assert_array_equal(fit.params, expected.params)


def refused(formula: str, data: Any) -> str:
    with pytest.raises(DaskglmError) as caught:
        dg.glm(formula, data)
    return str(caught.value)


def test_literals_that_are_no_such_time_are_refused() -> None:
    assert "'soon' in \"I(t > 'soon')\" is not a date" in refused("y ~ I(t > 'soon')", table("dates"))
    zoned = "2024-02-29T00:00:00+01:00"
    assert "is not a timestamp" in refused(f"y ~ I(t > '{zoned}')", table("timestamps"))


@pytest.mark.parametrize(
    ("fitted", "given", "remedy"),
    [
        ("timestamps", "text", r"is factor now, which is text: convert it, as pd\.to_datetime\(t\) does"),
        ("dates", "text", r"is factor now, which is text: convert it, as pd\.to_datetime\(t\) does"),
        ("dates", "utc", r"take the zone away, as t\.dt\.tz_localize\(None\) does in pandas"),
        ("utc", "timestamps", r"give it its zone, as t\.dt\.tz_localize\('UTC'\) does in pandas"),
    ],
)
def test_the_refusal_of_another_kind_of_time_states_the_conversion(fitted: str, given: str, remedy: str) -> None:
    fit = dg.glm("y ~ t", table(fitted))
    later = table("dates") if given == "text" else table(given)
    if given == "text":
        later = later.set_column(later.column_names.index("t"), "t", later["t"].cast(pa.string()))
    with pytest.raises(DesignError, match=remedy):
        fit.predict(later)
