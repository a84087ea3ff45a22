"""Contrasts and scaled columns from every source, saved and loaded, and by every engine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import daskglm as dg
from daskglm.cli import main
from daskglm.cluster import lakes
from daskglm.cluster.engine import Engine
from daskglm.design import expressions, formula, transforms
from daskglm.design.transforms import Entry, Scale, Spread
from tests.cluster.problem import KEEPS, bits, fitted, write_lake

FORMULA = "y ~ scale(x)*C(s, Sum) + center(log(z)) + C(k, Poly) + C(s, Helmert):scale(z)"
# The same numbers added in another order.
SAME = 1e-9


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    generator = np.random.default_rng(6)
    n = 3_000
    data = pd.DataFrame(
        {
            "x": generator.normal(3.0, 2.0, n),
            "z": generator.uniform(1.0, 3.0, n),
            "k": generator.integers(1, 5, n),
            "s": generator.choice(["a", "b", "c"], n),
        }
    )
    data["y"] = generator.poisson(np.exp(0.1 * data.x + 0.1 * data.k - 0.2 * (data.s == "b")))
    return data


@pytest.fixture(scope="module")
def expected(table: pd.DataFrame) -> dg.Fit:
    return dg.glm(FORMULA, table, family="poisson")


def test_partitions(table: pd.DataFrame, expected: dg.Fit, tmp_path: Path) -> None:
    for i in range(5):
        table.iloc[i::5].to_parquet(tmp_path / f"{i}.parquet")
    for keep in KEEPS:
        fit = dg.glm(FORMULA, tmp_path, family="poisson", keep=keep)
        np.testing.assert_allclose(fit.params, expected.params, rtol=SAME)
        np.testing.assert_allclose(fit.bse, expected.bse, rtol=SAME)
        means = expected.predict(table)
        for i in range(5):
            np.testing.assert_allclose(fit.predict(table.iloc[i::5]), means.iloc[i::5], rtol=SAME)


@pytest.mark.parametrize("keep", KEEPS)
def test_grouping_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str) -> None:
    monkeypatch.setattr(lakes, "LEAF_BYTES", 1)
    lake = write_lake(tmp_path / "lake", 1_000)
    text = "y ~ scale(x)*C(s, Diff) + C(s, Sum):center(z)"
    same = bits(fitted(lake, Engine(1, None, 1), formula=text))
    for threads, leaves in ((1, 64), (2, 2)):
        assert bits(fitted(lake, Engine(threads, None, leaves), keep, formula=text)) == same


def test_a_cluster_and_its_collections(table: pd.DataFrame, expected: dg.Fit, client: Any) -> None:
    import dask.dataframe as dd

    collection = dd.from_pandas(table, npartitions=4)
    fit = dg.glm(FORMULA, collection, family="poisson", client=client)
    np.testing.assert_allclose(fit.params, expected.params, rtol=SAME)
    lazy = fit.predict(collection)
    found = client.compute(lazy).result()
    np.testing.assert_allclose(found, expected.predict(table), rtol=SAME)
    residuals = client.compute(fit.residuals(collection, kind="pearson")).result()
    np.testing.assert_allclose(residuals, expected.residuals(table, kind="pearson"), atol=SAME)


def test_a_saved_model(table: pd.DataFrame, expected: dg.Fit, tmp_path: Path) -> None:
    expected.save(tmp_path / "model")
    loaded = dg.load(tmp_path / "model")
    pd.testing.assert_series_equal(loaded.params, expected.params)
    for some in (table, table.head(7), table[table.s == "a"]):
        means = expected.predict(some, se=True)
        pd.testing.assert_frame_equal(loaded.predict(some, se=True), means)
    pd.testing.assert_frame_equal(loaded.margins(table), expected.margins(table))
    means = expected.emmeans("s", table).table
    pd.testing.assert_frame_equal(loaded.emmeans("s", table).table, means)


def test_predictions_use_what_was_learnt(table: pd.DataFrame, expected: dg.Fit) -> None:
    """A row alone has the mean that it has among others."""
    means = expected.predict(table)
    for i in (0, 17, 2_999):
        np.testing.assert_allclose(expected.predict(table.iloc[[i]]), means.iloc[[i]], rtol=1e-14)


@pytest.mark.parametrize("contrast", ["Sum", "Helmert", "Poly", "Diff"])
def test_unseen_levels(table: pd.DataFrame, contrast: str) -> None:
    fit = dg.glm(f"y ~ C(s, {contrast})*x", table, family="poisson")
    plain = dg.glm("y ~ s*x", table, family="poisson")
    new = table.head(6).assign(s=["a", "b", "zz", "c", "zz", "a"])
    with pytest.raises(dg.errors.DataError, match="zz"):
        fit.predict(new)
    for unseen in ("baseline", "missing"):
        means = plain.predict(new, unseen=unseen)
        np.testing.assert_allclose(fit.predict(new, unseen=unseen), means, rtol=SAME)


def test_declared_orders_are_those_of_polynomials(table: pd.DataFrame) -> None:
    names = {1: "low", 2: "middle", 3: "high", 4: "top"}
    ordered = table.assign(k=pd.Categorical(table.k.map(names), list(names.values()), ordered=True))
    fit = dg.glm("y ~ C(k, Poly) + x", ordered, family="poisson")
    same = dg.glm("y ~ C(k, Poly) + x", table, family="poisson")
    np.testing.assert_allclose(fit.params, same.params, rtol=SAME)
    # a level without rows is none
    sparse = ordered[ordered.k != "middle"]
    assert list(dg.glm("y ~ C(k, Poly)", sparse, family="poisson").params.index[1:]) == [
        "C(k, Poly)[.L]", "C(k, Poly)[.Q]"
    ]  # fmt: skip


def test_an_interrupted_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskglm import estimation

    lake, log = write_lake(tmp_path / "lake", 1_000), str(tmp_path / "log")
    text = "y ~ scale(x)*C(s, Diff)"
    expected = bits(fitted(lake, Engine(1), formula=text))

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(estimation, "solve", fail)
        with pytest.raises(KeyboardInterrupt):
            fitted(lake, Engine(1), formula=text, checkpoint=log)
    assert Path(log).exists()
    assert bits(fitted(lake, Engine(1), formula=text, checkpoint=log)) == expected


def test_the_command_line(table: pd.DataFrame, expected: dg.Fit, tmp_path: Path) -> None:
    lake, model = tmp_path / "lake.parquet", tmp_path / "model"
    table.to_parquet(lake)
    arguments = ["fit", FORMULA, str(lake), "--family", "poisson", "--out", str(model)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(dg.load(model).params, expected.params, rtol=SAME)


def test_start_names_parameters_of_contrasts(table: pd.DataFrame) -> None:
    fit = dg.glm("y ~ C(s, Sum) + scale(x)", table, family="poisson")
    again = dg.glm("y ~ C(s, Sum) + scale(x)", table, family="poisson", start=fit)
    np.testing.assert_allclose(again.params, fit.params, rtol=SAME)
    assert again.n_iter <= fit.n_iter


def test_tests_and_comparisons_know_what_is_learnt(table: pd.DataFrame) -> None:
    small = dg.glm("y ~ scale(x)", table, family="poisson")
    large = dg.glm("y ~ scale(x) + C(s, Sum)", table, family="poisson")
    test = small.lr_test(large)
    plain = dg.glm("y ~ x + s", table, family="poisson")
    other = dg.glm("y ~ x", table, family="poisson").lr_test(plain)
    assert test.statistic == pytest.approx(other.statistic, rel=1e-7)
    terms = large.wald_test("C(s, Sum)[S.a] = 0, C(s, Sum)[S.b] = 0")
    same = plain.wald_test("s[T.b] = 0, s[T.c] = 0")
    assert terms.statistic == pytest.approx(same.statistic, rel=SAME)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert large.conf_int(data=table, method="profile").loc["C(s, Sum)[S.a]"].notna().all()


# -- a transform of several columns ----------------------------------------------------------------


@dataclass(frozen=True)
class Powers:
    """x / size to the powers 1 ... 3; size is learnt."""

    kind: ClassVar[str] = "powers"
    name: str
    size: float

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.name}[{power}]" for power in (1, 2, 3))

    def column(self, j: int, values: Any) -> Any:
        return (np.asarray(values, float) / self.size) ** (j + 1)

    def slope(self, j: int, values: Any) -> Any:
        return (j + 1) * (np.asarray(values, float) / self.size) ** j / self.size

    def moments(self, j: int) -> tuple[float, float, float]:
        return 0.0, 1.0, 1.0

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size}

    @staticmethod
    def of_document(document: Any) -> Powers:
        return Powers(document["name"], document["size"])


@dataclass(frozen=True)
class AskPowers:
    """What powers(x) asks for; the record of its data is that of scale."""

    takes: ClassVar[Literal["levels", "numbers"]] = "numbers"

    def observe(self, values: Any, counts: Any) -> Spread:
        return Scale().observe(values, counts)

    def learn(self, name: str, record: Spread) -> Powers:
        return Powers(name, 2.0 * record.mean)


@pytest.fixture
def powers(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(lambda *_: AskPowers(), Powers)
    for module in (transforms, formula, expressions):
        monkeypatch.setattr(module, "TRANSFORMS", {**transforms.TRANSFORMS, "powers": entry})


@pytest.mark.usefixtures("powers")
def test_a_transform_of_several_columns(table: pd.DataFrame, tmp_path: Path) -> None:
    size = float(2.0 * table.z.mean())
    plain = " + ".join(f"I((z/{size!r})**{power})" for power in (1, 2, 3))
    same = dg.glm(f"y ~ ({plain})*C(s, Sum) + x", table, family="poisson")
    fit = dg.glm("y ~ powers(z)*C(s, Sum) + x", table, family="poisson")
    assert list(fit.params.index[:4]) == [
        "Intercept", "powers(z)[1]", "powers(z)[2]", "powers(z)[3]"
    ]  # fmt: skip
    assert fit.params.index[-6:].tolist() == [
        f"powers(z)[{power}]:C(s, Sum)[S.{level}]" for level in "ab" for power in (1, 2, 3)
    ]
    assert fit.deviance == pytest.approx(same.deviance, rel=1e-12)
    np.testing.assert_allclose(np.sort(fit.params), np.sort(same.params), rtol=1e-6)
    fit.save(tmp_path / "model")
    for one in (fit, dg.load(tmp_path / "model")):
        means = same.predict(table, se=True)
        np.testing.assert_allclose(one.predict(table, se=True), means, rtol=1e-8)
        for at in ("overall", "mean"):
            effects = [m.margins(table, at=at).loc["z"].to_numpy(float)[:2] for m in (one, same)]
            np.testing.assert_allclose(effects[0], effects[1], rtol=1e-6)
        found, expected = (m.emmeans("s", table).table.to_numpy(float) for m in (one, same))
        np.testing.assert_allclose(found, expected, rtol=1e-7)
    dropped = fit.drop1(table)
    assert dropped.loc["powers(z):C(s, Sum)", "df"] == 6
