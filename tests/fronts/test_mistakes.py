"""Mistakes of a user: one sentence, at the line that made them, with the remedy."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.errors import DataError, DesignError, public
from daskglm.result import ELSEWHERE

PACKAGE = str(Path(dg.__file__).parent) + os.sep


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    frame = pd.DataFrame({"x": x, "g": rng.choice(list("abc"), 200), "w": rng.uniform(0.5, 2.0, 200)})
    return frame.assign(y=rng.poisson(np.exp(0.3 * x)), z=rng.poisson(2.0, 200))


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> dg.Fit:
    found = dg.glm("y ~ x + g", data, family="poisson")
    assert isinstance(found, dg.Fit)
    return found


Call = Callable[[dg.Fit, pd.DataFrame], Any]
ALPHA = r"no option 'alpha'; here it is level= \(0\.95 for alpha=0\.05\)$"
PAIR = 'names a link, too: write family="binomial", link="logit"$'
MISTAKES: dict[str, tuple[Call, str]] = {
    "check": (lambda fit, data: fit.check(), r"check\(\) needs data \(the rows it reads"),
    "predict": (lambda fit, data: fit.predict(), r"predict\(\) needs data"),
    "anova": (lambda fit, data: fit.anova(), r"anova\(\) needs data"),
    "calibration": (lambda fit, data: fit.calibration(data), r"calibration\(\) needs by"),
    "lr_test": (lambda fit, data: fit.lr_test(), r"lr_test\(\) needs other \(another fit\)"),
    "option": (lambda fit, data: fit.anova(data, tpye=2), r"anova\(\) has no option 'tpye' \(did you mean .type.\?\)"),
    "positions": (lambda fit, data: fit.vif(data, 3), r"vif\(\) takes 1 argument\(s\) without a name, and was given 2"),
    "twice": (lambda fit, data: fit.predict(data, data=data), r"predict\(\) was given data twice"),
    "glm": (lambda fit, data: dg.glm("y ~ x", data, "poisson"), r"glm\(\) takes 2 argument\(s\) without a name"),
    "column": (lambda fit, data: dg.glm("y ~ xx", data), 'no column "xx"'),
    "alpha": (lambda fit, data: dg.glm("y ~ x", data, alpha=0.1), r"level=, as in fit\.conf_int\(level=0\.95\)"),
    "plan": (lambda fit, data: dg.plan("y ~ x", data), r"plan reads no data in this version.*dg\.glm\(formula, data"),
    "fit": (lambda fit, data: dg.fit("y ~ x", data), r"did you mean dg\.glm\?"),
    "module": (lambda fit, data: dg.summary(fit), r"daskglm\.summary is a module and cannot be called"),
    "load": (lambda fit, data: dg.load(), r"load\(\) needs path"),
    "compare": (lambda fit, data: dg.compare(fit, 3), "compare takes fits, not int"),
    "describe": (lambda fit, data: dg.describe("poison"), 'did you mean "poisson"'),
    "strata": (lambda fit, data: dg.Probability("w", strata="g"), r"strata= is not available.*dg\.Cluster"),
    "units": (lambda fit, data: dg.Probability("w", psu="g"), r"no option 'psu': sampling units are covariance="),
    "weights": (lambda fit, data: dg.Frequency("w", by="g"), r"Frequency takes a column and no option 'by'"),
    "add1": (lambda fit, data: fit.add1(["w"], data), r"^the data come first: add1\(data, terms\)$"),
    "score_test": (lambda fit, data: fit.score_test(data, ["w"]), r"^the terms come first: score_test\(terms, data\)$"),
    "covariance": (lambda fit, data: fit.cov_params(data, "HC1"), r"^the kind comes first: cov_params\(kind, data\)$"),
    "emmeans": (lambda fit, data: fit.emmeans(data, "g"), r"^the columns come first: emmeans\(specs, data\)$"),
    "filter": (
        lambda fit, data: fit.relativities("x > 0"),
        'x > 0 does not exist; a filter of the rows is where="x > 0"',
    ),
    "kind": (
        lambda fit, data: fit.residuals("pearson"),
        "pearson does not exist; data are a table in memory, or the path",
    ),
    "level": (lambda fit, data: fit.conf_int(0.9), r"was given 1: write conf_int\(level=0\.9\); options"),
    "method": (lambda fit, data: fit.conf_int("profile"), r'was given 1: write conf_int\(method="profile"\)'),
    "family": (
        lambda fit, data: dg.glm("y ~ x", data, "poisson"),
        r'was given 3: write glm\(\.\.\., family="poisson"\)',
    ),
    "no name": (lambda fit, data: fit.conf_int(None), "was given 1; options"),
    "alpha of conf_int": (lambda fit, data: fit.conf_int(alpha=0.05), ALPHA),
    "alpha of summary": (lambda fit, data: fit.summary(alpha=0.05), ALPHA),
    "alpha of to_frame": (lambda fit, data: fit.to_frame(alpha=0.05), ALPHA),
    "alpha of predict": (lambda fit, data: fit.predict(data, alpha=0.05), ALPHA),
    "response": (lambda fit, data: fit.predict(data, type="response"), r'\(did you mean "mean"\?\)'),
    "eta": (lambda fit, data: fit.predict(data, type="eta"), r'\(did you mean "link"\?\)'),
    "type": (lambda fit, data: fit.predict(data, kind="mean"), "no option 'kind'; here it is type="),
    "type of residuals": (lambda fit, data: fit.residuals(data, type="pearson"), "no option 'type'; here it is kind="),
    "ln": (lambda fit, data: dg.glm("y ~ x", data, link="ln"), r'no link "ln" \(did you mean "log"\?\)'),
    "pair": (lambda fit, data: dg.glm("y ~ x", data, family="binomial(logit)"), PAIR),
    "pair with =": (lambda fit, data: dg.glm("y ~ x", data, family="Binomial(link='logit')"), PAIR),
    "start": (lambda fit, data: dg.glm("z ~ 0 + w", data, start=fit), "shares no parameter with this model.*: w|are w"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_at_the_line_that_made_it(fit: dg.Fit, data: pd.DataFrame, name: str) -> None:
    call, message = MISTAKES[name]
    with pytest.raises(DesignError, match=message) as caught:
        call(fit, data)
    assert "\n" not in str(caught.value)
    frames = traceback.extract_tb(caught.value.__traceback__)
    inside = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    if name not in ("fit", "module", "strata", "units", "weights"):
        # the test, the line of the mistake, and the one frame from which the error leaves the package
        assert len(frames) == 3
        assert len(inside) == 1
        printed = "".join(traceback.format_exception(caught.value))
        assert printed.count("Traceback") == 1


def test_nothing_is_hidden_for_debugging(data: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKGLM_DEBUG", "1")
    with pytest.raises(DesignError) as caught:
        dg.glm("y ~ xx", data)
    assert len(traceback.extract_tb(caught.value.__traceback__)) > 4


def test_causes_are_kept_without_their_frames() -> None:
    @public
    def read() -> None:
        try:
            raise OSError("disk")
        except OSError as error:
            raise DataError("the file cannot be read") from error

    with pytest.raises(DataError) as caught:
        read()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.__traceback__ is None


def test_errors_that_are_not_mistakes_keep_their_frames() -> None:
    @public
    def wrong(value: int) -> int:
        return value + "text"  # type: ignore[operator,no-any-return]

    with pytest.raises(TypeError, match="unsupported operand"):
        wrong(1)
    with pytest.raises(DesignError, match=r"wrong\(\) needs value"):
        wrong()  # type: ignore[call-arg]


def test_the_package_shows_its_public_names_only() -> None:
    assert dir(dg) == dg.__all__
    assert not [name for name in dir(dg) if name.startswith("_") and name != "__version__"]
    for name in dg.__all__:
        assert getattr(dg, name) is not None
    with pytest.raises(AttributeError, match='did you mean "glm"'):
        dg.GLM  # noqa: B018
    with pytest.raises(AttributeError, match="there are: Cluster, Fit"):
        dg.logistic_model  # noqa: B018


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resid", 'residuals(data, kind="response")'),
        ("coef_", "params"),
        ("coef", "params"),
        ("rsquared", "r2()"),
        ("fittedvalues", "predict(data)"),
        ("vcov", "cov_params()"),
    ],
)
def test_names_of_other_libraries_lead_to_those_of_a_fit(fit: dg.Fit, name: str, message: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(fit, name)
    assert str(caught.value) == f"a Fit has no {name!r}: here it is {message}"


def test_names_of_other_libraries_exist_here() -> None:
    for theirs, ours in ELSEWHERE.items():
        assert not hasattr(dg.Fit, theirs)
        assert hasattr(dg.Fit, re.split(r"\W", ours)[0])


@pytest.mark.parametrize(
    ("name", "family"),
    [("Poisson", "poisson"), ("logit", "binomial"), ("Logit", "binomial"), ("ols", "gaussian"), ("OLS", "gaussian"),
     ("NegativeBinomial", "negative_binomial"), ("InverseGaussian", "inverse_gaussian")],
)  # fmt: skip
def test_families_are_not_names_of_the_package(name: str, family: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(dg, name)
    assert str(caught.value).endswith(f': families are in dg.families; dg.glm(..., family="{family}")')
    with pytest.raises(AttributeError, match=r"links are in dg\.links; dg\.glm\(\.\.\., link=dg\.links\.Sqrt\(\)\)"):
        dg.Sqrt  # noqa: B018


def test_residuals_with_probability_weights_name_the_kinds_there_are(data: pd.DataFrame) -> None:
    fit = dg.glm("y ~ x", data, family="poisson", weights=dg.Probability("w"))
    with pytest.raises(DesignError, match="studentized residuals of rows with probability weights") as caught:
        fit.residuals(data, "studentized")
    kinds = re.findall(r'"(\w+)"', str(caught.value))
    assert kinds == ["response", "pearson", "deviance", "working", "anscombe", "quantile"]
    for kind in kinds:
        assert np.isfinite(fit.residuals(data, kind)).all()
    quasi = dg.glm("y ~ x", data, family="quasipoisson", weights=dg.Probability("w"))
    with pytest.raises(DesignError, match=r'"working" and "anscombe" are$'):
        quasi.residuals(data, "studentized")


@pytest.mark.parametrize(
    ("option", "message"),
    [("weights", "weights were an array, add them"), ("offset", "offset was an array, add it")],
)
def test_an_array_of_the_fit_is_missing_in_later_data(data: pd.DataFrame, option: str, message: str) -> None:
    options: dict[str, Any] = {option: data.w.to_numpy()}
    fit = dg.glm("y ~ x", data, family="poisson", **options)
    expected = f'^there is no column "{option}": if the fit\'s {message} to the data as the column "{option}"$'
    for call in (
        lambda: fit.cov_params("HC1", data), lambda: fit.residuals(data), lambda: fit.check(data),
        lambda: fit.margins(data), lambda: fit.drop1(data), lambda: fit.add1(data, "w"), lambda: fit.influence(data),
        lambda: fit.relativities(data),
    ):  # fmt: skip
        with pytest.raises(DesignError, match=expected):
            call()
    again = fit.cov_params("model", data.assign(**{option: data.w}))
    np.testing.assert_allclose(again, fit.cov_params(), rtol=1e-9)
    with pytest.raises(DesignError, match=rf'no column "{option}" \(in {option}\)'):
        dg.glm("y ~ x", data, **{option: option})  # type: ignore[call-overload]


def test_other_arrays_of_the_fit_are_missing_in_later_data(data: pd.DataFrame) -> None:
    clustered = dg.glm("y ~ x", data, covariance=dg.Cluster(np.arange(200) % 20))
    with pytest.raises(
        DesignError, match='fit\'s clusters were an array, add them to the data as the column "cluster"'
    ):
        clustered.cov_params(None, data)
    with pytest.raises(DesignError, match=r'no column "policy" \(in Cluster\)'):
        clustered.cov_params(dg.Cluster("policy"), data)
    weighted = dg.glm("y ~ x", data, weights=data.w.to_numpy())
    with pytest.raises(DesignError, match='fit\'s weights were an array, add them to the data as the column "weights"'):
        weighted.predict(data, interval="prediction")


def test_names_of_families_and_links_in_lower_case() -> None:
    with pytest.raises(AttributeError, match=r'^daskglm\.families has no \'poisson\' \(did you mean "Poisson"\?\)$'):
        dg.families.poisson  # noqa: B018
    with pytest.raises(AttributeError, match=r'^daskglm\.links has no \'log\' \(did you mean "Log"\?\)$'):
        dg.links.log  # noqa: B018


@pytest.mark.parametrize("module", ["result", "fit", "predict", "summary", "api"])
def test_modules_can_be_imported_first(module: str) -> None:
    code = f"import daskglm.{module}, daskglm; daskglm.glm, daskglm.Fit"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_results_are_annotated() -> None:
    import typing

    overloads = typing.get_overloads(dg.glm.__wrapped__)  # type: ignore[attr-defined]
    assert [typing.get_type_hints(one)["return"] for one in overloads] == [dg.Fit | dg.Fits, dg.Fit]
    assert typing.get_type_hints(dg.load)["return"] == dg.Fit | dg.Fits
    options = set(typing.get_type_hints(dg.glm)) - {"return", "options", "formula", "data", "X", "y"}
    from daskglm.api import Options
    from daskglm.plan import DEFAULTS

    assert set(Options.__annotations__) == set(DEFAULTS) | {"progress", "client"}
    assert options <= set(Options.__annotations__)


def test_a_fit_is_a_start(data: pd.DataFrame, fit: dg.Fit) -> None:
    again = dg.glm("y ~ x + g", data, family="poisson", start=fit)
    assert again.n_iter <= 1 < fit.n_iter
    np.testing.assert_allclose(again.params, fit.params, rtol=1e-12)
    wider = dg.glm("y ~ x * g + w", data, family="poisson", start=fit)
    np.testing.assert_allclose(wider.params, dg.glm("y ~ x * g + w", data, family="poisson").params, rtol=1e-9)
    narrower = dg.glm("y ~ x", data, family="poisson", start=wider)
    np.testing.assert_allclose(narrower.params, dg.glm("y ~ x", data, family="poisson").params, rtol=1e-9)


def test_a_vector_statistic_is_refused_in_a_sentence() -> None:
    def log_partition(theta: Any) -> Any:
        return -0.25 * theta[:, 0] ** 2 / theta[:, 1] - 0.5 * np.log(-2.0 * theta[:, 1])

    family = dg.families.ExponentialFamily(log_partition, lambda y: np.stack([y, y * y], axis=1))
    with pytest.raises(DesignError, match=r"log_partition fails.*one natural parameter and one statistic"):
        dg.plan("y ~ x", family=family)
    family = dg.families.ExponentialFamily(np.exp, lambda y: np.stack([y, y * y], axis=1), support="counts")
    with pytest.raises(DesignError, match=r"sufficient_statistic returns shape \(\d+, 2\).*one statistic"):
        dg.plan("y ~ x", family=family)


@pytest.mark.parametrize("command", [[str(Path(sys.executable).parent / "daskglm")], [sys.executable, "-m", "daskglm"]])
@pytest.mark.parametrize("after", [0.1, 0.5])
@pytest.mark.parametrize(
    "number, code, words",
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
)
def test_a_signal_while_a_command_begins(
    command: list[str], after: float, number: signal.Signals, code: int, words: str, tmp_path: Path
) -> None:
    process = beginning([*command, "fit", "y ~ x", str(tmp_path), "--json"])
    time.sleep(after)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert b"Traceback" not in errors
    # the command may have ended before: there are no files
    assert process.returncode in (code, 3)
    if process.returncode == code:
        assert errors.endswith(f"{words}\n".encode())
        assert json.loads(output) == {"error": words, "kind": "Interrupted", "exit_code": code}


def test_an_ignored_hangup_stays_ignored_while_a_command_begins(tmp_path: Path) -> None:
    script = "trap '' HUP; exec \"$@\""
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "daskglm", "fit", "y ~ x", str(tmp_path)]
    process = beginning(command)
    time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3, errors


def beginning(command: list[str]) -> subprocess.Popen[bytes]:
    """A command that has just installed its first handlers of signals."""
    environment = {**os.environ, "PYTHONPATH": str(Path(PACKAGE).parent), "PYTHONPROFILEIMPORTTIME": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    while b"daskglm.interrupts" not in process.stderr.readline():
        assert process.poll() is None
    return process


NAMES = pd.DataFrame(
    {
        "y": np.arange(60) % 7 + 0.5, "x": np.sin(np.arange(60)), "my-col": np.cos(np.arange(60)),
        "my col": np.arange(60) % 5, "k": np.arange(60) % 3, "area": np.array(list("abc"))[np.arange(60) % 3],
        "year": 2019 + np.arange(60) % 3, "flag": np.arange(60) % 2 == 0,
    }
)  # fmt: skip
FORMULAS = {
    "y ~ my-col": "the column 'my-col' is written in backticks: `my-col`",
    "y ~ x + my-col": "the column 'my-col' is written in backticks: `my-col`",
    "y ~ my col": "the column 'my col' is written in backticks: `my col`",
    "C(k%3) ~ x": "C() is for the right side: the levels of a response are its values; write I(k % 3) ~ x",
    "C(area) ~ x": "C() is for the right side: the levels of a response are its values; write area ~ x",
    "y ~ factor(area)": "write C(area)",
    "y ~ factor(`my col`)": "write C(`my col`)",
}
FILTERS = {
    "year == '2020'": "year is a number and '2020' is text: write year = 2020",
    "year < '2020'": "year is a number and '2020' is text: write year < 2020",
    "'2020' < year": "year is a number and '2020' is text: write year > 2020",
    "year = 'then'": "year is a number and 'then' is text: compare it with a number",
    "year in (2019, '2020')": "year is a number and '2020' is text: write 2020 in the list",
    "area = 1": "area is text and 1 is a number: write area = '1'",
    "`my col` = 'a'": "`my col` is a number and 'a' is text: compare it with a number",
    "flag = 'yes'": "flag is a truth value and 'yes' is text: compare it with True or False",
    "x between 1 and 2": "cannot read where='x between 1 and 2': there is no between: write x >= 1 and x <= 2",
    "area like 'a%'": "there is no like: list the values, as in x in ('a', 'b')",
    "area <> 'a' and x = 1": "cannot read where=\"area <> 'a' and x = 1\": there is no <>: write !=",
    "x = 1 and": "cannot read where='x = 1 and': a filter compares columns and values by =, !=, <, <=, >, >=, in",
    "isnan(x)": "isnan() in 'isnan(x)' is not a function of row filters: write x is null",
    "notnull(`my col`)": "write `my col` is not null",
    "fold(k)=1": "in 'fold(k)=1', fold takes a column and a number of folds, as in fold(policy, 5)",
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_that_cannot_be_read_is_answered_with_one_that_can(formula: str) -> None:
    with pytest.raises(DesignError, match=re.escape(FORMULAS[formula])):
        dg.glm(formula, NAMES, family="multinomial" if formula.startswith("C") else "gaussian", progress=False)


@pytest.mark.parametrize("where", FILTERS)
def test_a_filter_that_cannot_be_computed_is_answered_with_one_that_can(where: str) -> None:
    with pytest.raises(DesignError, match=re.escape(FILTERS[where])):
        dg.glm("y ~ x", NAMES, where=where, progress=False)


@pytest.mark.parametrize(
    ("where", "n"), [("area in ('a')", 20), ("area not in ('a')", 40), ("k in (-1)", 0), ("k in(2)", 20)]
)
def test_a_list_of_one_may_stand_in_round_brackets(where: str, n: int) -> None:
    if n:
        assert dg.glm("y ~ 1", NAMES, where=where, progress=False).nobs == n
    else:
        with pytest.raises(DataError, match="no row is left"):
            dg.glm("y ~ 1", NAMES, where=where, progress=False)
    with pytest.raises(DesignError, match="needs a list"):
        dg.glm("y ~ 1", NAMES, where="area in 'a'", progress=False)


@pytest.mark.filterwarnings("error")
def test_a_lazy_frame_is_to_be_collected() -> None:
    import polars as pl

    with pytest.raises(DesignError, match=r"LazyFrame cannot be read: collect\(\) it first"):
        dg.glm("y ~ x", pl.from_pandas(NAMES[["y", "x"]]).lazy(), progress=False)


@pytest.mark.parametrize("name", ["y", "`my-col`"])
def test_a_response_on_the_right_side_is_dropped(name: str) -> None:
    with pytest.warns(UserWarning, match="is on the right side of .* and is dropped there"):
        fit = dg.glm(f"{name} ~ {name} + x + area", NAMES, progress=False)
    expected = dg.glm(f"{name} ~ x + area", NAMES, progress=False)
    assert fit.params.to_dict() == expected.params.to_dict()
    assert fit.predict(NAMES).tolist() == expected.predict(NAMES).tolist()
    assert fit.drop1(NAMES).index.tolist() == expected.drop1(NAMES).index.tolist()
