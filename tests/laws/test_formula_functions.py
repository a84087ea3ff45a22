"""A formula law: whatever an expression of a formula does, computing the column first gives the same fit.

Every function of the closed list, and every operator, is applied to numbers, whole numbers, truth values, text and times:
as a term, under `C()` and `I()`, and as the response. What has no value there is refused in one sentence.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import daskglm as dg
from daskglm.design.expressions import FUNCTIONS
from daskglm.errors import DaskglmError

ROWS = 72
START = pd.Timestamp("2024-02-27")


def _frame() -> pd.DataFrame:
    generator = np.random.default_rng(11)
    days = generator.integers(0, 4, ROWS)
    frame = pd.DataFrame(
        {
            "response": generator.normal(size=ROWS), "other": generator.normal(size=ROWS),
            "number": generator.choice([-1.75, -0.25, 0.5, 2.25], ROWS),
            "positive": generator.choice([0.25, 0.5, 1.5, 3.0], ROWS),
            "whole": generator.integers(1, 5, ROWS).astype(np.int8), "truth": generator.integers(0, 2, ROWS) == 1,
            "text": generator.choice(["a", "b", "c"], ROWS), "word": generator.choice(["b", "c"], ROWS),
            "moment": START + pd.to_timedelta(days * 36.0, unit="h"),
        }
    )  # fmt: skip
    frame["zoned"] = frame["moment"].dt.tz_localize("America/New_York")
    frame["day"] = (START + pd.to_timedelta(days, unit="D")).date
    return frame


FRAME = _frame()
COLUMNS = ("number", "whole", "truth", "text", "moment", "day")
TIMES = ("moment", "zoned", "day")


def _refused() -> Any:
    raise TypeError("text and numbers")


def numbers(name: str) -> Any:
    """A column as the numbers that arithmetic takes it as: times in seconds, dates in days since 1970."""
    column = FRAME[name]
    if name == "text":
        return _refused()
    if name == "day":
        return (pd.to_datetime(column) - pd.Timestamp(0)) / pd.Timedelta(days=1)
    if name in TIMES:
        return (column - pd.Timestamp(0, tz=column.dt.tz)) / pd.Timedelta(seconds=1)
    return column.astype(float)


def kept(name: str) -> Any:
    """A column as what only selects values takes it: text and truth values as they are."""
    return FRAME[name] if name in ("text", "truth", "whole") else numbers(name)


Columnwise = Callable[[str], Any]
CASES: dict[str, Columnwise] = {
    **{
        f"{function}({{}})": lambda name, function=function: getattr(np, function)(numbers(name))
        for function in sorted(set(FUNCTIONS) - {"minimum", "maximum", "clip", "where", "I", "round"})
    },
    "round({})": lambda name: np.round(numbers(name)),
    "round({} / 3, 1)": lambda name: np.round(numbers(name) / 3, 1),
    "minimum({}, 1.5)": lambda name: np.minimum(numbers(name), 1.5),
    "maximum({}, whole)": lambda name: np.maximum(kept(name), FRAME["whole"]),
    "clip({}, 0, 2)": lambda name: kept(name).clip(0, 2) if name != "truth" else numbers(name),
    "where(other > 0, {}, 1)": lambda name: _mixed(name, 1),
    "where({} == {}, 1, 0)": lambda name: np.where(kept(name) == kept(name), 1, 0),
    "where(text == 'a', {}, positive)": lambda name: _mixed_with(name, "positive", FRAME["text"] == "a"),
    "where({} > whole, 2, whole)": lambda name: np.where(kept(name) > FRAME["whole"], 2, FRAME["whole"]),
    "where(word in ['b'], {}, word)": lambda name: _mixed_with(name, "word", FRAME["word"].isin(["b"])),
    "I({})": lambda name: FRAME[name],
    "I({} + whole)": lambda name: numbers(name) + FRAME["whole"],
    "I({} - 1)": lambda name: numbers(name) - 1,
    "I({} * 2)": lambda name: numbers(name) * 2,
    "I({} / 4)": lambda name: numbers(name) / 4,
    "I({} // 2)": lambda name: numbers(name) // 2,
    "I({} % 3)": lambda name: numbers(name) % 3,
    "I({} ** 2)": lambda name: numbers(name) ** 2,
    "I(-{})": lambda name: -numbers(name),
    **{
        f"I({{}} {sign} whole)": lambda name, compare=compare: compare(kept(name), FRAME["whole"])
        for sign, compare in {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}.items()
    },
    "I({} == 'b')": lambda name: FRAME["text"].eq("b") if name == "text" else _refused(),
    "I({} != 2)": lambda name: kept(name).ne(2) if name != "text" else _refused(),
    "I({} == word)": lambda name: FRAME["text"].eq(FRAME["word"]) if name == "text" else _refused(),
    "I({} in ['a', 'c'])": lambda name: FRAME["text"].isin(["a", "c"]) if name == "text" else _refused(),
    "I({} not in [1, 2])": lambda name: ~kept(name).isin([1, 2]) if name != "text" else _refused(),
    "I({} > '2024-02-28')": lambda name: _after(name, "2024-02-28"),
    "I({} in ['2024-02-27', '2024-03-01'])": lambda name: _one_of(name, ["2024-02-27", "2024-03-01"]),
    "I(({} > 1) & (word == 'b'))": lambda name: (kept(name) > 1) & FRAME["word"].eq("b"),
    "I(({} > 1) | truth)": lambda name: (kept(name) > 1) | FRAME["truth"],
    "I(not ({} > 1))": lambda name: ~(kept(name) > 1),
    "I((text == 'a') * {})": lambda name: FRAME["text"].eq("a") * numbers(name),
}


def _mixed(name: str, other: Any) -> Any:
    return _refused() if name == "text" else np.where(FRAME["other"] > 0, kept(name), other)


def _mixed_with(name: str, other: str, condition: Any) -> Any:
    if (name == "text") != (other == "word"):
        return _refused()
    return np.where(condition, kept(name), FRAME[other])


def _moments(name: str, literals: list[str]) -> list[Any]:
    if name == "text":
        return literals
    if name not in TIMES:
        return [_refused()]
    zone = FRAME["zoned"].dt.tz if name == "zoned" else None
    return [pd.Timestamp(text, tz=zone) for text in literals]


def _after(name: str, literal: str) -> Any:
    column = pd.to_datetime(FRAME[name]) if name == "day" else FRAME[name]
    return column > _moments(name, [literal])[0]


def _one_of(name: str, literals: list[str]) -> Any:
    column = pd.to_datetime(FRAME[name]) if name == "day" else FRAME[name]
    return column.isin(_moments(name, literals))


FORMS = {
    "term": ("response ~ other + {}", "gaussian"),
    "levels": ("response ~ other + C({})", "gaussian"),
    "response": ("{} ~ other", "gaussian"),
    "classes": ("{} ~ other", "multinomial"),
}


def _fitted(formula: str, frame: pd.DataFrame, family: str) -> tuple[Any, Any] | None:
    """Coefficients and predictions, or None where it is refused in a sentence."""
    refusal = ""
    try:
        fit = dg.glm(formula, frame, family=family, missing="raise")
    except DaskglmError as error:
        refusal = str(error)
    if refusal:
        assert not {"ufunc", "numpy", "dtype"} & set(refusal.split()), f"{formula}: {refusal}"
        return None
    return fit.params.to_numpy(), fit.predict(frame).to_numpy()


@cache
def _computed(case: str, name: str) -> Any:
    """The column that pandas computes first, None where it has none."""
    with np.errstate(all="ignore"):
        try:
            return pd.Series(np.asarray(CASES[case](name)), FRAME.index)
        except (TypeError, ValueError, AttributeError):
            return None


@pytest.mark.filterwarnings("ignore::daskglm.errors.AliasWarning", "ignore::daskglm.errors.SeparationWarning")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_an_expression_is_the_column_computed_first(case: str, form: str) -> None:
    pattern, family = FORMS[form]
    accepted = 0
    for name in (*COLUMNS, "zoned") if "2024" in case or case == "I({})" else COLUMNS:
        text = pattern.format(case.replace("{}", name))
        column = _computed(case, name)
        expected = None
        if column is not None:
            expected = _fitted(pattern.format("computed"), FRAME.assign(computed=column), family)
        found = _fitted(text, FRAME, family)
        assert (found is None) == (expected is None), f"{text}: {'refused' if found is None else 'not refused'}"
        if found is not None and expected is not None:
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=text)
            accepted += 1
    assert accepted or form != "term", f"{case} was refused of every column"


def test_every_function_has_a_case() -> None:
    assert {name for case in CASES for name in FUNCTIONS if f"{name}(" in case} == set(FUNCTIONS)
