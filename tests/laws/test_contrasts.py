"""A contrast is another name for the same model: means, deviances and tests do not move, and
coefficients are mapped by the contrast matrix.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg

CONTRASTS = ["Sum", "Helmert", "Poly", "Diff"]
FAMILIES = ["gaussian", "poisson", "binomial", "gamma"]
# Both fits are at their optimum to the last digits.
SAME = 1e-10
# Differences of means, and their errors, through the inverses of two Grams.
ERRORS = 1e-9
N = 1_500
LEVELS = {"a": list("pqrs"), "b": list("uvw")}


def frame(n: int = N) -> pd.DataFrame:
    generator = np.random.default_rng(12)
    data = pd.DataFrame(
        {
            "a": generator.choice(LEVELS["a"], n, p=[0.4, 0.3, 0.2, 0.1]),
            "b": generator.choice(LEVELS["b"], n),
            "x": generator.normal(50.0, 2.0, n),
            "z": generator.uniform(1.0, 2.0, n),
            "w": generator.integers(1, 4, n),
            "key": generator.integers(0, 60, n),
        }
    )
    eta = 0.2 * (data.x - 50.0) + 0.4 * (data.a == "q") * data.z - 0.3 * (data.b == "w")
    data["poisson"] = generator.poisson(np.exp(eta))
    data["gaussian"] = eta + generator.normal(size=n)
    data["gamma"] = generator.gamma(2.0, np.exp(eta) / 2.0) + 1e-6
    data["binomial"] = (generator.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    data["class"] = generator.choice(["i", "j", "k"], n)
    return data


DATA = frame()
TEMPLATES = [
    "{a} + x",
    "{a}*{b} + z",
    "{a}*{b}*x",
    "{a} - 1",
    "{b}:{a}",
    "x + {a}:z",
    "z + {a}:{b}:x",
    "{a}*x + b",
    "b*{a}",
]


def fitted(formula: str, data: pd.DataFrame = DATA, **options: Any) -> dg.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = dg.glm(formula, data, **options)
    assert isinstance(fit, dg.Fit)
    return fit


def coded(template: str, first: str, second: str | None = None) -> str:
    return template.format(a=f"C(a, {first})", b=f"C(b, {second or first})")


def size(values: Any) -> float:
    return float(np.nanmax(np.abs(np.asarray(values, float))))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_model_is_that_of_treatment_coding(template: str, family: str) -> None:
    plain = fitted(f"{family} ~ {template.format(a='a', b='b')}", family=family)
    means = plain.predict(DATA, se=True)
    for first, second in [*zip(CONTRASTS, CONTRASTS, strict=True), ("Sum", "Poly")]:
        fit = fitted(f"{family} ~ {coded(template, first, second)}", family=family)
        assert fit.deviance == pytest.approx(plain.deviance, rel=SAME)
        assert fit.llf == pytest.approx(plain.llf, rel=SAME)
        assert fit.df_resid == plain.df_resid
        found = fit.predict(DATA, se=True)
        assert size((found - means) / means.abs().max()) < SAME
        for kind in ("deviance", "pearson"):
            residuals = [one.residuals(DATA, kind=kind) for one in (fit, plain)]
            assert size(residuals[0] - residuals[1]) < SAME * 1e2


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("covariance", ["model", "HC3", "cluster"])
def test_coefficients_are_mapped_by_the_contrast_matrix(contrast: str, covariance: str) -> None:
    """Of a saturated model: the cells' predictors, times the inverse of [1 | C] of each factor."""
    chosen = dg.Cluster("key") if covariance == "cluster" else covariance
    options: dict[str, Any] = {"covariance": chosen}
    plain = fitted("poisson ~ a*b - 1", family="poisson", **options)
    fit = fitted(f"poisson ~ {coded('{a}*{b}', contrast)}", family="poisson", **options)
    states: Any = fit.record.design.states
    matrices = [states[f"C({name}, {contrast})"].matrix for name in "ab"]
    a, b = (np.column_stack([np.ones(len(matrix)), matrix]) for matrix in matrices)
    cells = pd.DataFrame(list(itertools.product(LEVELS["b"], LEVELS["a"])), columns=["b", "a"])
    # the predictors of cells of treatment coefficients, the levels of a fastest
    names = plain.params.index
    to_cells = np.array([[cell_of(name, row) for name in names] for row in cells.to_numpy()])
    back = np.linalg.inv(np.kron(b, a)) @ to_cells
    # kron's order: the columns of a fastest, 1 first
    order = [f"{i},{j}" for j in range(3) for i in range(4)]
    ours = ["0,0", *(f"{i},0" for i in (1, 2, 3)), *(f"0,{j}" for j in (1, 2))]
    ours += [f"{i},{j}" for j in (1, 2) for i in (1, 2, 3)]
    rows = [order.index(place) for place in ours]
    expected = (back @ plain.params.to_numpy())[rows]
    errors = np.sqrt(np.diag(back @ plain.cov_params().to_numpy() @ back.T))[rows]
    assert size((fit.params.to_numpy() - expected) / errors) < ERRORS
    assert size(fit.bse.to_numpy() / errors - 1.0) < ERRORS


def cell_of(name: str, cell: Any) -> float:
    """The value of a treatment column in a cell."""
    levels = [part.split("[")[1].rstrip("]").removeprefix("T.") for part in name.split(":")]
    return float(all(level in cell for level in levels))


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_whatever_is_read_off_a_fit_stays(contrast: str) -> None:
    plain = fitted("poisson ~ a*b + a:x + z", family="poisson")
    fit = fitted(f"poisson ~ {coded('{a}*{b} + {a}:x + z', contrast)}", family="poisson")
    for at in ("overall", "mean"):
        frames = [one.margins(DATA, at=at).select_dtypes("number") for one in (fit, plain)]
        assert frames[0].index.equals(frames[1].index)
        assert size(frames[0] - frames[1]) < ERRORS
    asked: list[dict[str, Any]] = [
        {"data": DATA},
        {"data": DATA, "weights": "proportional"},
        {"at": {"x": [48.0, 51.0], "z": [1.0]}},
    ]
    for options in asked:
        tables = [one.emmeans("a", **options).table for one in (fit, plain)]
        assert tables[0].index.equals(tables[1].index)
        assert size(tables[0].to_numpy(float) - tables[1].to_numpy(float)) < ERRORS
    pairs = [one.emmeans(["a", "b"], DATA).contrasts() for one in (fit, plain)]
    assert size((pairs[0] - pairs[1]).select_dtypes("number")) < ERRORS
    influence = [one.influence(DATA)[["leverage", "cooks_distance"]] for one in (fit, plain)]
    assert size(influence[0] - influence[1]) < ERRORS


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_tables_of_deviance_stay(contrast: str, kind: int) -> None:
    """Type 3 tests main effects in sum contrasts, however the model is coded."""
    plain = fitted("poisson ~ a*b + z", family="poisson")
    fit = fitted(f"poisson ~ {coded('{a}*{b} + z', contrast)}", family="poisson")
    tables = [one.anova(DATA, type=kind).to_numpy(float) for one in (fit, plain)]
    assert size(tables[0] - tables[1]) < 1e-7
    drops = [one.drop1(DATA).to_numpy(float) for one in (fit, plain)]
    assert size(drops[0] - drops[1]) < 1e-7


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_relativities_are_against_the_first_level(contrast: str) -> None:
    plain = fitted("poisson ~ a + b + x", family="poisson").relativities(DATA)
    fit = fitted(f"poisson ~ {coded('{a} + {b} + x', contrast)}", family="poisson")
    found = fit.relativities(DATA)
    assert found.index.equals(plain.index)
    assert size(found.to_numpy(float) - plain.to_numpy(float)) < ERRORS
    crossed = fitted(f"poisson ~ {coded('{a}*{b}', contrast)}", family="poisson")
    cells = crossed.relativities(DATA).loc["a:b"]
    assert size(cells["fitted"] / cells["observed"] - 1.0) < ERRORS
    ratio = cells["observed"] / cells["observed"].iloc[0]
    assert size(cells["relativity"] / ratio - 1.0) < ERRORS
    notes = crossed.relativities(DATA).attrs["notes"]
    assert any("the mean over the levels of C(b" in note for note in notes)


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("family", ["multinomial", "ordinal"])
def test_responses_of_classes(contrast: str, family: str) -> None:
    plain = fitted("class ~ a*x", family=family)
    fit = fitted(f"class ~ {coded('{a}*x', contrast)}", family=family)
    assert fit.deviance == pytest.approx(plain.deviance, rel=SAME)
    assert size(fit.predict(DATA) - plain.predict(DATA)) < SAME


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_scores_of_terms_that_are_not_in_the_model(contrast: str) -> None:
    fit = fitted("poisson ~ x", family="poisson")
    found = fit.add1(DATA, [f"C(a, {contrast})", f"C(b, {contrast}):x", "scale(z)"]).to_numpy(float)
    assert size(found - fit.add1(DATA, ["a", "b:x", "z"]).to_numpy(float)) < ERRORS


# -- infinite optima, cells without rows -----------------------------------------------------------


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("empty", LEVELS["a"])
@pytest.mark.parametrize("separation", ["limit", "firth"])
def test_a_level_without_events(contrast: str, empty: str, separation: str) -> None:
    """Its mean goes to zero; coefficients that compare other levels with it are infinite."""
    data = DATA.assign(y=np.where(DATA.a == empty, 0, DATA.poisson))
    plain = fitted("y ~ a + x", data, family="poisson", separation=separation)
    fit = fitted(f"y ~ C(a, {contrast}) + x", data, family="poisson", separation=separation)
    assert fit.deviance == pytest.approx(plain.deviance, rel=SAME)
    assert size(fit.predict(data, se=True) - plain.predict(data, se=True)) < SAME
    if separation == "limit":
        assert (fit.predict(data)[data.a == empty] == 0.0).all()
        assert fit.params["x"] == pytest.approx(plain.params["x"], rel=SAME)
        assert fit.bse["x"] == pytest.approx(plain.bse["x"], rel=SAME)
        level = LEVELS["a"].index(empty)
        states: Any = fit.record.design.states
        matrix = states[f"C(a, {contrast})"].matrix
        # the level's own direction, as coefficients
        direction = np.linalg.inv(np.column_stack([np.ones(4), matrix]))[:, level]
        signs = np.where(np.abs(direction) < 1e-12, 0.0, -np.sign(direction))
        infinite = fit.params.to_numpy()[:4]
        np.testing.assert_array_equal(np.where(np.isinf(infinite), np.sign(infinite), 0.0), signs)


def test_rows_cannot_be_dropped_under_a_contrast_of_their_levels() -> None:
    data = DATA.assign(y=np.where(DATA.a == "q", 0, DATA.poisson))
    with pytest.raises(dg.errors.SolverError, match=r"takes levels away.*Treatment"):
        dg.glm("y ~ C(a, Sum) + x", data, family="poisson", separation="drop")


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_a_cell_without_rows(contrast: str) -> None:
    data = DATA[~((DATA.a == "r") & (DATA.b == "v"))]
    plain = fitted("poisson ~ a*b", data, family="poisson")
    fit = fitted(f"poisson ~ {coded('{a}*{b}', contrast)}", data, family="poisson")
    assert len(fit.aliased) == len(plain.aliased) == 1
    assert fit.deviance == pytest.approx(plain.deviance, rel=SAME)
    assert size(fit.predict(data, se=True) - plain.predict(data, se=True)) < SAME


# -- scaled columns --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_scaling_moves_no_mean(family: str) -> None:
    plain = fitted(f"{family} ~ x*a + z", family=family)
    fit = fitted(f"{family} ~ scale(x)*a + center(z)", family=family)
    assert fit.deviance == pytest.approx(plain.deviance, rel=SAME)
    means = plain.predict(DATA, se=True)
    assert size((fit.predict(DATA, se=True) - means) / means.abs().max()) < SAME
    deviation = DATA.x.std()
    assert fit.params["scale(x)"] == pytest.approx(plain.params["x"] * deviation, rel=1e-8)
    assert fit.bse["scale(x)"] == pytest.approx(plain.bse["x"] * deviation, rel=1e-8)
    assert fit.params["center(z)"] == pytest.approx(plain.params["z"], rel=1e-8)
    for at in ("overall", "mean"):
        frames = [one.margins(DATA, at=at).select_dtypes("number") for one in (fit, plain)]
        assert size(frames[0] - frames[1]) < 1e-8
    means_of = [one.emmeans("a", DATA).table for one in (fit, plain)]
    assert size(means_of[0].to_numpy(float) - means_of[1].to_numpy(float)) < 1e-8


def test_frequencies_are_rows_written_out() -> None:
    many = DATA.loc[DATA.index.repeat(DATA.w)]
    formula = "poisson ~ scale(x)*C(a, Poly) + standardize(z)"
    counted = fitted(formula, family="poisson", weights=dg.Frequency("w"))
    written = fitted(formula, many, family="poisson")
    assert size(counted.params / written.params - 1.0) < 1e-9
    assert size(counted.bse / written.bse - 1.0) < 1e-9
    # other weights say how exact a row is, and not how many there are
    other = fitted(formula, family="poisson", weights=dg.Variance("w")).record.design
    plain = fitted(formula, family="poisson").record.design
    assert other.states["scale(x)"] == plain.states["scale(x)"]


def test_what_is_scaled_is_the_rows_in_use() -> None:
    data = DATA.assign(z=np.where(DATA.z > 1.9, np.nan, DATA.z))
    kept = data[data.z.notna() & (data.b != "u")]
    fit = fitted("poisson ~ scale(x) + z", data, family="poisson", where="b != 'u'")
    expected = (kept.x - kept.x.mean()) / kept.x.std()
    same = fitted("poisson ~ s + z", kept.assign(s=expected), family="poisson")
    assert size(fit.params.to_numpy() - same.params.to_numpy()) < 1e-9
