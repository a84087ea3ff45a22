"""Whose rows a method of a fit reads: those of the fit, or whatever it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import daskglm as dg
from daskglm.errors import DataError, DesignError

WHERE = "year < 2023 and x < 1.5"
CLOSE = 1e-9


def frame(n: int = 600, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"x": rng.normal(size=n), "z": rng.uniform(0.5, 2.0, n), "s": rng.choice(["a", "b", "c"], n)})
    data["year"] = 2021 + np.arange(n) % 4
    data["y"] = rng.poisson(np.exp(0.4 + 0.3 * data.x - 0.2 * (data.s == "b")))
    return data


def passing(data: pd.DataFrame) -> pd.DataFrame:
    return data[(data.year < 2023) & (data.x < 1.5)]


@pytest.fixture(scope="module")
def fit() -> Any:
    return dg.glm("y ~ x + s", frame(), family="poisson", where=WHERE)


@pytest.fixture(scope="module")
def plain() -> Any:
    """The same model, of the rows that pass."""
    return dg.glm("y ~ x + s", passing(frame()), family="poisson")


# -- methods that repeat the fit ---------------------------------------------------------------------

REPEAT: dict[str, Callable[[Any, Any], Any]] = {
    "HC0": lambda fit, data: fit.cov_params("HC0", data),
    "HC3": lambda fit, data: fit.cov_params("HC3", data),
    "clusters": lambda fit, data: fit.cov_params(dg.Cluster("z"), data),
    "observed": lambda fit, data: fit.cov_params("observed", data),
    "profile": lambda fit, data: fit.conf_int(method="profile", data=data),
    "anova": lambda fit, data: fit.anova(data),
    "drop1": lambda fit, data: fit.drop1(data),
    "score_test": lambda fit, data: fit.score_test("z", data),
    "add1": lambda fit, data: fit.add1(data, "z"),
    "step": lambda fit, data: fit.step(data, "backward").path,
    "emmeans": lambda fit, data: fit.emmeans("s", data),
    "bootstrap": lambda fit, data: fit.bootstrap(data, replicates=4, key="z"),
}


def notes_of(found: Any) -> tuple[str, ...]:
    return tuple(found.notes if hasattr(found, "notes") else found.attrs["notes"])


def numbers_of(found: Any) -> Any:
    table = found if isinstance(found, pd.DataFrame) else found.table if hasattr(found, "table") else found.params
    return table.select_dtypes("number")


@pytest.mark.parametrize("method", REPEAT)
def test_what_repeats_the_fit_is_of_its_rows_and_states_how_many_others_there_were(
    fit: Any, plain: Any, method: str
) -> None:
    data = frame()
    found, expected = REPEAT[method](fit, data), REPEAT[method](plain, passing(data))
    np.testing.assert_allclose(numbers_of(found), numbers_of(expected), rtol=1e-6, atol=CLOSE)
    left = len(data) - len(passing(data))
    assert f"the fit's where='{WHERE}' left out {left} of 600 rows" in notes_of(found)
    assert not any("where" in note for note in notes_of(expected))


@pytest.mark.parametrize("method", REPEAT)
def test_what_repeats_the_fit_names_the_column_that_its_filter_needs(fit: Any, method: str) -> None:
    with pytest.raises((DesignError, DataError), match=r'no column "year" \(in where='):
        REPEAT[method](fit, frame().drop(columns="year"))


@pytest.mark.parametrize("method", [name for name in REPEAT if name != "step"])
def test_what_repeats_the_fit_has_a_sentence_where_no_row_passes(fit: Any, method: str) -> None:
    with pytest.raises(DataError, match=r"no row is left of 600: 600 do not match where=|it takes the same rows"):
        REPEAT[method](fit, frame().assign(year=2030))


# -- methods that evaluate ---------------------------------------------------------------------------

EVALUATE: dict[str, Callable[..., Any]] = {
    "predict": lambda fit, data, **o: fit.predict(data, **o).to_frame(),
    "intervals": lambda fit, data, **o: fit.predict(data, interval="confidence", **o),
    "residuals": lambda fit, data, **o: fit.residuals(data, "pearson", **o).to_frame(),
    "influence": lambda fit, data, **o: fit.influence(data, **o),
    "influential": lambda fit, data, **o: fit.influential(data, 5, **o).quantiles,
    "check": lambda fit, data, **o: fit.check(data, "s", **o).calibration,
    "calibration": lambda fit, data, **o: fit.calibration(data, "s", **o),
    "lift": lambda fit, data, **o: fit.lift(data, **o),
    "double_lift": lambda fit, data, **o: fit.double_lift(data, dg.glm("y ~ z", frame(), family="poisson"), **o),
    "lorenz": lambda fit, data, **o: fit.lorenz(data, **o),
    "gini": lambda fit, data, **o: fit.gini(data, **o).to_frame(),
    "reliability": lambda fit, data, **o: fit.reliability(data, **o),
    "rootogram": lambda fit, data, **o: fit.rootogram(data, **o),
    "overdispersion": lambda fit, data, **o: fit.overdispersion(data, **o),
    "relativities": lambda fit, data, **o: fit.relativities(data, **o),
    "margins": lambda fit, data, **o: fit.margins(data, **o),
}
ALIGNED = ("predict", "intervals", "residuals", "influence")


def table_of(found: Any) -> Any:
    return np.asarray(found.select_dtypes("number"), float)


@pytest.mark.parametrize("method", EVALUATE)
def test_what_evaluates_is_of_every_row_that_it_is_given(fit: Any, plain: Any, method: str) -> None:
    """Of a holdout that the filter of the fit would leave out as a whole, and without its columns."""
    holdout = frame(300, 5).drop(columns="year")
    found, expected = EVALUATE[method](fit, holdout), EVALUATE[method](plain, holdout)
    np.testing.assert_allclose(table_of(found), table_of(expected), rtol=1e-6, atol=CLOSE)
    assert not np.isnan(table_of(found)[:, 0]).any()


@pytest.mark.parametrize("method", EVALUATE)
def test_what_evaluates_takes_a_filter_of_its_own(fit: Any, plain: Any, method: str) -> None:
    data = frame()
    some = (data.year == 2024) & (data.z > 1.0)
    found = EVALUATE[method](fit, data, where="year = 2024 and z > 1")
    expected = EVALUATE[method](plain, data[some])
    if method in ALIGNED:
        assert found.index.equals(data.index)
        assert found[~some].isna().all(axis=None)
        found = found[some]
    np.testing.assert_allclose(table_of(found), table_of(expected), rtol=1e-6, atol=CLOSE)


@pytest.mark.parametrize("method", EVALUATE)
def test_a_filter_that_cannot_be_applied_is_a_sentence(fit: Any, method: str) -> None:
    with pytest.raises((DesignError, DataError), match=r'no column "month" \(in where='):
        EVALUATE[method](fit, frame(), where="month = 3")
    with pytest.raises(DesignError, match="where= is a filter written as text"):
        EVALUATE[method](fit, frame(), where=3)
    if method not in ALIGNED:
        with pytest.raises(DataError, match="no row is left of 600: 600 do not match where='year = 1900'"):
            EVALUATE[method](fit, frame(), where="year = 1900")


def test_results_state_what_was_used(fit: Any) -> None:
    data, where = frame(), "year = 2024"
    note = "where='year = 2024' left out 450 of 600 rows"
    checks = fit.check(data, where=where)
    assert note in checks.notes
    assert (checks.ledger.read, checks.ledger.filtered, checks.ledger.used) == (600, 450, 150)
    for frame_of in (
        fit.margins(data, where=where),
        fit.relativities(data, where=where),
        fit.influence(data, where=where),
    ):
        assert note in frame_of.attrs["notes"]
        assert frame_of.attrs["ledger"].used == 150
    assert fit.residuals(data, where=where).attrs["ledger"].filtered == 450
    assert note in fit.influential(data, where=where).notes
    assert fit.predict(data, where=where).attrs["notes"] == (
        "450 of 600 rows have no prediction (where='year = 2024': 450)",
    )
    assert fit.predict(data).attrs["notes"] == ()
    assert fit.margins(data).attrs["notes"] == ()
    assert fit.check(data).ledger.filtered == 0


def test_a_filter_of_a_lake_skips_what_it_can(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = frame()
    for year, part in data.groupby("year"):
        place = tmp_path / f"year={year}"
        place.mkdir()
        pq.write_table(pa.Table.from_pandas(part.drop(columns="year"), preserve_index=False), place / "0.parquet")
    here = fit.calibration(tmp_path, "s", where="year = 2024")
    np.testing.assert_allclose(here, fit.calibration(data, "s", where="year = 2024"), rtol=CLOSE)
    found = fit.predict(tmp_path, where="year = 2024")
    assert found.notna().sum() == 150
    assert len(found) == 600
    assert fit.check(tmp_path, where="year = 2024").ledger.read == 600


def test_lazy_predictions_and_residuals_take_a_filter(fit: Any) -> None:
    import dask.dataframe as dd

    data = frame()
    lazy = dd.from_pandas(data, npartitions=3)
    for ask in (
        lambda rows: fit.predict(rows, where="year = 2024"),
        lambda rows: fit.residuals(rows, where="year = 2024"),
    ):
        np.testing.assert_allclose(ask(lazy).compute(), ask(data), rtol=CLOSE)
        assert ask(data).isna().sum() == 450


def test_arrays_have_filters_too() -> None:
    data = frame()
    X = pd.DataFrame({"a": data.x, "b": data.z})
    fit = dg.glm(X=X, y=data.y, family="poisson")
    found = fit.predict(X, where="b > 1")
    assert found.isna().equals(data.z <= 1.0)
    residuals = fit.residuals({"X": X, "y": data.y}, where="b > 1")
    assert np.isnan(residuals).equals(data.z <= 1.0)
