"""What must hold of every covariance: however the rows lie, however they are counted, and written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.linalg import fractional_matrix_power
from scipy.sparse import csr_array

import daskglm as dg

Matrix = npt.NDArray[np.float64]

ROWS = 480
KINDS: list[Any] = [
    "model", "observed", "HC0", "HC1", "HC2", "HC3", dg.Cluster("g"), dg.Cluster("g", "t", correction="full"),
]  # fmt: skip
# Two optima, each within 1e-10 standard errors, of sums in different orders.
SAME = 1e-9
# The information of ordered classes by differences of exact scores.
DIFFERENCES = 1e-6
MODELS: list[tuple[str, str, dict[str, Any]]] = [
    ("count", "poisson", {"exposure": "e"}),
    ("count", "negative_binomial", {"family": dg.families.NegativeBinomial(theta=2.0), "offset": "o"}),
    ("count", "quasipoisson", {}),
    ("amount", "gamma", {}),
    ("amount", "gaussian", {}),
    ("amount", "inverse_gaussian", {}),
    ("amount", "tweedie", {"family": dg.families.Tweedie(power=1.5)}),
    ("event", "binomial", {"link": "cloglog"}),
    ("choice", "multinomial", {}),
    ("grade", "ordinal", {"link": "probit"}),
]
IDS = [name for _, name, _ in MODELS]


def rows(seed: int = 4, n: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 40, n)
    common = rng.normal(scale=0.5, size=40)[group]
    data = pd.DataFrame({
        "x": rng.normal(size=n), "a": rng.choice(["p", "q", "r"], n), "g": [f"policy {k}" for k in group],
        "t": rng.integers(2015, 2022, n), "e": rng.uniform(0.5, 2.0, n), "o": rng.normal(scale=0.1, size=n),
        "f": rng.integers(1, 4, n), "w": rng.uniform(0.5, 3.0, n), "m": rng.integers(1, 9, n), "row": rng.permutation(n),
    })  # fmt: skip
    eta = 0.4 * data.x + 0.3 * (data.a == "q") + common
    data["count"] = rng.poisson(np.exp(eta))
    data["amount"] = rng.gamma(3.0, np.exp(eta) / 3.0)
    data["event"] = (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    data["share"] = rng.binomial(data.m, 1.0 / (1.0 + np.exp(-eta))) / data.m
    latent = eta + rng.logistic(size=n)
    data["grade"] = pd.Categorical.from_codes(np.digitize(latent, [-0.8, 0.4, 1.5]), ["1", "2", "3", "4"], ordered=True)
    data["choice"] = rng.choice(["u", "v", "z"], n, p=[0.3, 0.3, 0.4])
    data.loc[rng.uniform(size=n) < 0.3 * (data.x > 0), "choice"] = "v"
    return data


DATA = rows()


def fit(response: str, family: str, extra: dict[str, Any], data: Any = None, **options: Any) -> dg.Fit:
    chosen = {"family": family, **extra, **options}
    if family in ("gamma", "inverse_gaussian", "tweedie"):
        chosen["link"] = "log"
    found = dg.glm(f"{response} ~ x + a", DATA if data is None else data, **chosen)
    assert isinstance(found, dg.Fit)
    return found


def same(found: Any, expected: Any, near: float = SAME) -> None:
    one, two = np.asarray(found), np.asarray(expected)
    errors = np.sqrt(np.abs(np.diag(two)))
    assert np.max(np.abs(one - two) / np.outer(errors, errors)) < near


@pytest.mark.parametrize(("response", "family", "extra"), MODELS, ids=IDS)
def test_partitions_and_order(response: str, family: str, extra: dict[str, Any], tmp_path: Path) -> None:
    """Rows shuffled and in files of unequal size, one of them empty; again from the fit and the rows."""
    shuffled = DATA.sample(frac=1.0, random_state=7)
    table = pa.Table.from_pandas(shuffled, preserve_index=False)
    for number, (start, stop) in enumerate([(0, 3), (3, 3), (3, 200), (200, ROWS)]):
        pq.write_table(table.slice(start, stop - start), tmp_path / f"{number}.parquet", row_group_size=90)
    if response == "grade":
        # a lake keeps an order of levels where the schema says so, which pandas' own metadata does
        table = table.to_pandas()
    plain = fit(response, family, extra)
    for kind in KINDS:
        expected = fit(response, family, extra, covariance=kind)
        lake = table if response == "grade" else tmp_path
        same(fit(response, family, extra, lake, covariance=kind).cov_params(), expected.cov_params())
        same(plain.cov_params(kind, lake), expected.cov_params())
        np.testing.assert_array_equal(expected.params, plain.params)


@pytest.mark.parametrize(("response", "family", "extra"), MODELS, ids=IDS)
def test_frequencies_are_copies(response: str, family: str, extra: dict[str, Any]) -> None:
    copies = DATA.loc[DATA.index.repeat(DATA.f)]
    counted = fit(response, family, extra, weights=dg.Frequency("f"))
    written = fit(response, family, extra, copies)
    for kind in KINDS:
        same(counted.cov_params(kind, DATA), written.cov_params(kind, copies))
    kind = KINDS[-1]
    one, two = (
        fit(response, family, extra, data, covariance=kind, **more)
        for data, more in ((DATA, {"weights": dg.Frequency("f")}), (copies, {}))
    )
    same(one.cov_params(), two.cov_params())
    np.testing.assert_allclose(one.pvalues, two.pvalues, rtol=1e-6)


@pytest.mark.parametrize("weights", [None, dg.Variance("w"), dg.Trials("m")], ids=["none", "variance", "trials"])
@pytest.mark.parametrize(("response", "family", "extra"), [*MODELS, ("share", "binomial", {})], ids=[*IDS, "share"])
def test_a_cluster_per_row(response: str, family: str, extra: dict[str, Any], weights: Any) -> None:
    if isinstance(weights, dg.Trials) != (response == "share"):
        pytest.skip("proportions have trials, and nothing else has")
    found = fit(response, family, extra, weights=weights)
    plain = found.cov_params("HC0", DATA).to_numpy()
    same(found.cov_params(dg.Cluster("row", correction="none"), DATA), plain)
    same(found.cov_params(dg.Cluster("row"), DATA), plain * ROWS / (ROWS - 1))
    same(found.cov_params(dg.Cluster("row", correction="full"), DATA), found.cov_params("HC1", DATA))


def test_sampled_rows_are_units() -> None:
    weights = dg.Probability("w")
    plain = fit("count", "poisson", {}, weights=weights)
    same(plain.cov_params(dg.Cluster("row"), DATA), plain.cov_params())
    same(plain.cov_params("model", DATA), plain.cov_params())
    by_group = fit("count", "poisson", {}, weights=weights, covariance=dg.Cluster("g"))
    rescaled = fit("count", "poisson", {}, DATA.assign(w=7.0 * DATA.w), weights=weights, covariance=dg.Cluster("g"))
    same(rescaled.cov_params(), by_group.cov_params())


def test_ways_that_are_the_same() -> None:
    data = DATA.assign(again=DATA.g.str.upper(), number=pd.factorize(DATA.g)[0])
    found = fit("count", "poisson", {}, data)
    for correction in ("none", "groups", "full"):
        expected = found.cov_params(dg.Cluster("g", correction=correction), data)
        for ways in (("g", "again"), ("number", "g", "again")):
            same(found.cov_params(dg.Cluster(*ways, correction=correction), data), expected)


@pytest.mark.parametrize("name", ["float", "timestamp", "date", "category", "boolean", "int32", "uint64"])
def test_keys_of_every_type(name: str) -> None:
    number = pd.Series(pd.factorize(DATA.g)[0], index=DATA.index)
    if name == "boolean":
        number = number % 2
    columns: dict[str, Callable[[], Any]] = {
        "float": lambda: number + 0.5,
        "timestamp": lambda: pd.Timestamp("2020-01-01") + pd.to_timedelta(number, "us"),
        "date": lambda: [(pd.Timestamp("2020-01-01") + pd.Timedelta(days=int(k))).date() for k in number],
        "category": lambda: pd.Categorical(number),
        "boolean": lambda: number == 1,
        "int32": lambda: number.astype("int32"),
        "uint64": lambda: number.astype("uint64") + np.uint64(2**63),
    }
    found = fit("count", "poisson", {})
    data = DATA.assign(g=columns[name](), h=number)
    same(found.cov_params(dg.Cluster("g"), data), found.cov_params(dg.Cluster("h"), data))


# -- written out -----------------------------------------------------------------------------------------------------------


def sandwiches(parts: list[tuple[Matrix, Matrix, Matrix]], groups: list[Any]) -> dict[str, Matrix]:
    """Of rows (X_i (q, r), s_i (q,), W_i (q, q)): the information's inverse, HC0, HC2, HC3 and the clustered one."""
    bread = np.linalg.inv(sum(x.T @ w @ x for x, _, w in parts))
    meats = {"HC0": 0.0, "HC2": 0.5, "HC3": 1.0}
    found = {"model": bread}
    for kind, power in meats.items():
        total = np.zeros(bread.shape)
        for x, s, w in parts:
            left = np.eye(s.size) - w @ x @ bread @ x.T
            score = x.T @ (np.real(fractional_matrix_power(left, -power)) @ s if power else s)
            total += np.outer(score, score)
        found[kind] = bread @ total @ bread
    sums: dict[Any, Any] = {}
    for (x, s, _), group in zip(parts, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + x.T @ s
    total = sum(np.outer(u, u) for u in sums.values())
    found["cluster"] = bread @ total @ bread * len(sums) / (len(sums) - 1)
    return found


def design(data: pd.DataFrame) -> Matrix:
    return np.column_stack([np.ones(len(data)), data.x, data.a == "q", data.a == "r"]).astype(float)


def compare(found: dg.Fit, parts: list[tuple[Matrix, Matrix, Matrix]], near: float) -> None:
    for kind, expected in sandwiches(parts, list(DATA.g)).items():
        same(found.cov_params(dg.Cluster("g") if kind == "cluster" else kind, DATA), expected, near)


def test_multinomial_written_out() -> None:
    found = fit("choice", "multinomial", {})
    b = found.params.to_numpy()
    parts = []
    for x, y in zip(design(DATA), DATA.choice, strict=True):
        up = np.exp(np.concatenate([[0.0], x @ b]))
        mu = (up / up.sum())[1:]
        seen = np.array([y == level for level in ("v", "z")], float)
        parts.append((np.kron(np.eye(2), x), seen - mu, np.diag(mu) - np.outer(mu, mu)))
    compare(found, parts, SAME)


def test_ordinal_written_out() -> None:
    found = dg.glm("grade ~ x + a", DATA, family="ordinal")
    assert isinstance(found, dg.Fit)
    values = found.params.to_numpy()
    slopes, thresholds = values[:3], values[3:]

    def cdf(t: Any) -> Any:
        return 1.0 / (1.0 + np.exp(-t))

    def score(eta: Any, y: int) -> Matrix:
        """Of log(F(eta_y) - F(eta_(y - 1))), by complex steps."""
        result = np.zeros(3)
        for k in range(3):
            moved = eta.astype(complex)
            moved[k] += 1e-30j
            above = cdf(moved[y]) if y < 3 else 1.0
            result[k] = np.imag(np.log(above - (cdf(moved[y - 1]) if y > 0 else 0.0))) / 1e-30
        return result

    parts, step = [], 1e-5
    for x, y in zip(design(DATA)[:, 1:], DATA.grade.cat.codes, strict=True):
        eta = thresholds - x @ slopes
        moves = np.eye(3) * step
        w = np.array([-(score(eta + move, y) - score(eta - move, y)) / (2.0 * step) for move in moves])
        parts.append((np.column_stack([np.tile(-x, (3, 1)), np.eye(3)]), score(eta, y), 0.5 * (w + w.T)))
    compare(found, parts, DIFFERENCES)


def test_gamma_written_out() -> None:
    found = fit("amount", "gamma", {})
    mu = found.predict(DATA).to_numpy()
    parts = [
        (x[None], np.array([y / m - 1.0]), np.ones((1, 1)))
        for x, y, m in zip(design(DATA), DATA.amount, mu, strict=True)
    ]
    expected = sandwiches(parts, list(DATA.g))
    expected["model"] = expected["model"] * found.scale
    for kind, matrix in expected.items():
        same(found.cov_params(dg.Cluster("g") if kind == "cluster" else kind, DATA), matrix)


# -- other designs ---------------------------------------------------------------------------------------------------------


def test_sparse_columns() -> None:
    x = np.column_stack([design(DATA)[:, 1:], (DATA.t == 2016).astype(float)])
    y = DATA["count"].to_numpy()
    for kind in ["HC3", dg.Cluster(DATA.g.to_numpy()), dg.Cluster(DATA.t.to_numpy(), DATA.g.to_numpy())]:
        dense = dg.glm(X=x, y=y, family="poisson", covariance=kind)
        sparse = dg.glm(X=csr_array(x), y=y, family="poisson", covariance=kind)
        assert isinstance(dense, dg.Fit)
        assert isinstance(sparse, dg.Fit)
        same(sparse.cov_params(), dense.cov_params())
    named = fit("count", "poisson", {}, covariance=dg.Cluster("g"))
    arrays = dg.glm(X=x[:, :3], y=y, family="poisson")
    assert isinstance(arrays, dg.Fit)
    again = arrays.cov_params(dg.Cluster("g"), {"X": x[:, :3], "y": y, "g": pd.factorize(DATA.g)[0]})
    same(again, named.cov_params())


def test_aliased_and_separated() -> None:
    data = DATA.assign(twice=2.0 * DATA.x, year=DATA.t.astype(str))
    data.loc[data.year.isin(["2016", "2019"]), "count"] = 0
    left = data[~data.year.isin(["2016", "2019"])]
    with pytest.warns((dg.errors.AliasWarning, dg.errors.SeparationWarning)):
        plain = dg.glm("count ~ x + twice + year", data, family="poisson")
    assert isinstance(plain, dg.Fit)
    for kind in [*KINDS, dg.Cluster("row")]:
        with pytest.warns((dg.errors.AliasWarning, dg.errors.SeparationWarning)):
            found = dg.glm("count ~ x + twice + year", data, family="poisson", covariance=kind)
        rest = dg.glm("count ~ x + year", left, family="poisson", covariance=kind)
        assert isinstance(found, dg.Fit)
        assert isinstance(rest, dg.Fit)
        names = list(rest.params.index)
        same(found.cov_params().loc[names, names], rest.cov_params())
        again = plain.cov_params(kind, data)
        same(again.loc[names, names], rest.cov_params())
        gone = ["twice", "year[T.2016]", "year[T.2019]"]
        assert again.loc[gone].isna().all(axis=None)
        assert found.cov_params().loc[gone].isna().all(axis=None)


def test_classes_that_become_impossible() -> None:
    data = DATA.copy()
    data.loc[(data.a == "r") & (data.choice == "u"), "choice"] = "v"
    kinds = ["HC0", "HC3", dg.Cluster("g")]
    with pytest.warns(dg.errors.SeparationWarning):
        plain = fit("choice", "multinomial", {}, data)
    for kind in kinds:
        with pytest.warns(dg.errors.SeparationWarning):
            found = fit("choice", "multinomial", {}, data, covariance=kind)
        known = found.cov_params().notna()
        assert known.any(axis=None)
        np.testing.assert_allclose(plain.cov_params(kind, data)[known], found.cov_params()[known], rtol=SAME)


def test_several_responses() -> None:
    data = DATA.assign(other=np.roll(DATA["count"], 3))
    for kind in ["HC3", dg.Cluster("g", "t")]:
        both = dg.glm("responses(count, other) ~ x + a", data, family="poisson", covariance=kind)
        for name in ("count", "other"):
            alone = fit(name, "poisson", {}, data, covariance=kind)
            assert both[name].cov_params().equals(alone.cov_params())
            assert both[name].record.statistics.clusters == alone.record.statistics.clusters
            same(both[name].cov_params("HC2", data), alone.cov_params("HC2", data))


def test_tests_are_of_the_smallest_number_of_clusters() -> None:
    from scipy import stats

    found = fit("count", "poisson", {}, covariance=dg.Cluster("g", "t"))
    assert found.record.statistics.clusters == (DATA.g.nunique(), 7)
    t = found.params / found.bse
    np.testing.assert_allclose(found.pvalues, 2.0 * stats.t.sf(np.abs(t), 6), rtol=1e-12)
    upper = found.params + stats.t.ppf(0.975, 6) * found.bse
    np.testing.assert_allclose(found.conf_int()["upper"], upper, rtol=1e-12)
    test = found.wald_test("x = 0")
    assert (test.distribution, test.df_denom) == ("F", 6.0)
    assert test.pvalue == pytest.approx(found.pvalues["x"], rel=1e-10)
    assert "cluster(g, t), 40 and 7 clusters" in str(found.summary())
    assert "t value" in str(found.summary())


def test_far_from_zero() -> None:
    """An intercept's error that is a difference of large numbers: the information is summed anew, not taken from there."""
    far = DATA.assign(x=DATA.x + 1e6)
    near, moved = fit("count", "poisson", {}), fit("count", "poisson", {}, far)
    names = ["x", "a[T.q]", "a[T.r]"]
    for kind in ["HC3", dg.Cluster("g")]:
        found = moved.cov_params(kind, far)
        # a sum to 1e6 leaves ten digits of x
        same(found.loc[names, names], near.cov_params(kind, DATA).loc[names, names], 1e-7)
        same(found, fit("count", "poisson", {}, far, covariance=kind).cov_params())
