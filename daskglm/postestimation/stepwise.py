"""Stepwise choice of terms: from model to model by the term whose leaving or entering is best, as R's step does.

All models a step away are fitted side by side over the same rows, which are read once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from daskglm.cluster import sources
from daskglm.cluster.engine import Engine, settle
from daskglm.design import formula
from daskglm.design.formula import Terms
from daskglm.errors import DataError, DesignError, closest
from daskglm.fit import run
from daskglm.model.weights import cluster_of
from daskglm.plan import Plan
from daskglm.postestimation.comparisons import droppable, p_value
from daskglm.postestimation.revisit import plan_of
from daskglm.postestimation.submodels import Submodel, Submodels, refuse_separated
from daskglm.postestimation.widened import Widened, described, refuse_without_likelihood, source_of
from daskglm.record import FitRecord

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = ("both", "forward", "backward")
CRITERIA = ("aic", "bic", "test")
# A criterion that is smaller by less is the same.
SMALLER = 1e-7


@final
@dataclass(frozen=True)
class Stepwise:
    """path: a row per model on the way, with the term that left ("- x") or entered ("+ x"), df, deviance, resid_df,
    resid_dev, and the criterion: "aic", "bic", or the p-value of that term; fit: the last model.
    """

    path: pd.DataFrame
    fit: Any

    def __repr__(self) -> str:
        return f"{self.path.to_string()}\n{self.fit!r}"


@final
@dataclass(frozen=True)
class Rule:
    """What is better. criterion: of CRITERIA; k: what a parameter costs; enter, leave: p-values below which a term enters
    and above which it leaves; direction: of DIRECTIONS.
    """

    direction: str
    criterion: str
    k: float
    enter: float
    leave: float

    @property
    def drops(self) -> bool:
        """Whether terms may leave."""
        return self.direction != "forward"

    @property
    def adds(self) -> bool:
        """Whether terms may enter."""
        return self.direction != "backward"


def rule_of(record: FitRecord, direction: str, criterion: str, enter: float | None, leave: float | None) -> Rule:
    """The options, checked."""
    refuse_without_likelihood(record, "stepwise choice")
    for word, value, known in (("direction", direction, DIRECTIONS), ("criterion", criterion, CRITERIA)):
        if value not in known:
            raise DesignError(f"{word}={value!r} is not one of {', '.join(known)}{closest(value, known)}")
    if criterion != "test" and (enter is not None or leave is not None):
        raise DesignError('enter= and leave= are p-values, for criterion="test"')
    enter, leave = 0.05 if enter is None else enter, 0.10 if leave is None else leave
    if not 0.0 < enter < 1.0 or not 0.0 < leave < 1.0:
        raise DesignError(f"enter= and leave= are p-values between 0 and 1, not {enter!r} and {leave!r}")
    if criterion == "test" and direction == "both" and enter > leave:
        raise DesignError(f"enter={enter} above leave={leave} would let a term enter and leave for ever")
    if criterion != "test" and np.isnan(record.statistics.aic):
        raise DesignError(f'the fit has no likelihood, and so no {criterion}: use criterion="test"')
    k = float(np.log(record.statistics.nobs)) if criterion == "bic" else 2.0
    return Rule(direction, criterion, k, enter, leave)


def step(record: FitRecord, data: Any, rule: Rule, scope: Any, client: Any = None) -> tuple[pd.DataFrame, FitRecord]:
    """The path, and the record of its end: a fit of its own, equal to that of its formula.

    scope: what may be in the model, None for the terms it has; a formula, or {"lower": ..., "upper": ...}.
    """
    refuse_separated(record, "stepwise choice")
    source = source_of(record, data)
    settle(source, scope.values() if isinstance(scope, Mapping) else [scope], Engine(client=client))
    lower, upper = _scope(record, scope, sources.kinds(source))
    with Widened(record, data, upper, jointly=True, client=client) as wide:
        if {"power", "dispersion"} <= set(record.shape):
            # where both were estimated, so is the dispersion of each model on the way
            wide.plan = replace(wide.plan, dispersion="ml")
        walk = _Walk(wide, rule, lower)
        path = walk.run()
        formula_text = walk.formula()
    if frozenset(walk.present) == frozenset(walk.begun):
        return path, record
    plan = replace(_own_plan(record), formula=formula_text)
    return path, run(plan, source_of(record, data), Engine(client=client))


def _own_plan(record: FitRecord) -> Plan:
    """The request as it was: what was estimated beside the coefficients is estimated again."""
    free = {field.name: None for field in fields(record.family) if field.name in record.shape}
    s = record.specification
    kind: Any = cluster_of(s.covariance) if s.covariance.startswith("cluster(") else s.covariance
    plan = plan_of(s, record, covariance=kind, separation=s.separation)
    return replace(plan, family=replace(record.family, **free)) if free else plan


def _scope(record: FitRecord, scope: Any, kinds: Mapping[str, Any]) -> tuple[set[str], tuple[formula.Term, ...]]:
    """Names of terms that stay, and terms beside the model's own."""
    given = {"upper": scope} if isinstance(scope, str) or scope is None else scope
    if not isinstance(given, Mapping) or set(given) - {"lower", "upper"}:
        raise DesignError('scope= is a formula such as "~ a + b", or a dict of "lower" and "upper" ones')
    own = {
        frozenset(v.expression.text for v in t.variables): t.name
        for t in formula.terms_of(formula.parse(str(plan_of(record.specification, record).formula), kinds))
    }
    lower: set[str] = set()
    for term in _right(given.get("lower"), kinds):
        key = frozenset(v.expression.text for v in term.variables)
        if key not in own:
            raise DesignError(f'scope: "{term.name}" is to stay and is not in the model')
        lower.add(own[key])
    found: dict[frozenset[str], formula.Term] = {}
    for term in _right(given.get("upper"), kinds):
        key = frozenset(v.expression.text for v in term.variables)
        if key not in own:
            found.setdefault(key, term)
    return lower, tuple(found.values())


def _right(text: Any, kinds: Mapping[str, Any]) -> tuple[formula.Term, ...]:
    if text is None:
        return ()
    if not isinstance(text, str):
        raise DesignError(f"scope= takes formulas as text, not {type(text).__name__}")
    right = formula.right_side(text).strip().removeprefix(".").lstrip(" +")
    if not right:
        return ()
    return formula.terms_of(formula.parse(f"~ {right}", kinds, require_response=False))


class _Walk:
    """A stepwise search under way: `present` terms, in the order of the widened model."""

    def __init__(self, wide: Widened, rule: Rule, lower: set[str]) -> None:
        self.wide, self.rule, self.lower = wide, rule, lower
        self.terms = described(wide.terms)
        self.begun = self.present = frozenset(described(wide.base))
        self.searching = Submodels(wide)
        # what was estimated beside the coefficients and is held on the way counts in every model alike
        self.held = sum(1 for name in wide.record.shape if name in ("theta", "power"))
        self._refuse_missing()

    def run(self) -> pd.DataFrame:
        """Steps until none is better."""
        import pandas as pd

        here = self._fit([self.present], None)[self.present]
        rows = [self._row("", None, here)]
        while True:
            move = self._move(here)
            if move is None:
                break
            text, self.present, found, p = move
            rows.append(self._row(text, here, found, p))
            here = found
        frame = pd.DataFrame(rows)
        frame.attrs |= {"passes": self.wide.passes, "criterion": self.rule.criterion, "notes": self.wide.notes}
        return frame

    def formula(self) -> str:
        """The formula of the present terms."""
        text = str(self.wide.plan.formula)
        left = text[: len(text) - len(formula.right_side(text))]
        return f"{left} {_right_of(self.wide.terms, self.present)}"

    def _fit(self, wanted: Sequence[frozenset[str]], start: FitRecord | None) -> dict[frozenset[str], Submodel]:
        for terms in wanted:
            self._refuse_other_coding(terms)
        # the model that the walk began with is near enough to those within it
        inside = all(terms <= self.begun for terms in wanted)
        return self.searching.of(wanted, None if inside else start)[0]

    def _move(self, here: Submodel) -> tuple[str, frozenset[str], Submodel, float] | None:
        drops = [n for n in droppable(self.terms, self.present) if n not in self.lower] if self.rule.drops else []
        adds = self._addable() if self.rule.adds else []
        models = {f"- {name}": self.present - {name} for name in drops}
        models |= {f"+ {name}": self.present | {name} for name in adds}
        if not models:
            return None
        found = self._fit(list(models.values()), here.record)
        moves = {text: found[terms] for text, terms in models.items()}
        chosen = self._by_test(moves, here) if self.rule.criterion == "test" else self._by_criterion(moves, here)
        if chosen is None:
            return None
        text, p = chosen
        return text, models[text], moves[text], p

    def _by_criterion(self, moves: Mapping[str, Submodel], here: Submodel) -> tuple[str, float] | None:
        values = {text: self._value(model) for text, model in moves.items()}
        best = min(values, key=lambda text: values[text])
        return (best, np.nan) if values[best] < self._value(here) - SMALLER else None

    def _by_test(self, moves: Mapping[str, Submodel], here: Submodel) -> tuple[str, float] | None:
        """The least significant term leaves; if none does, the most significant one enters."""
        values = {text: self._p(here, model) for text, model in moves.items()}
        leaving = {t: p for t, p in values.items() if t.startswith("-") and (np.isnan(p) or p > self.rule.leave)}
        if leaving:
            # a term without a degree of freedom of its own goes first
            worst = max(leaving, key=lambda text: np.inf if np.isnan(leaving[text]) else leaving[text])
            return worst, leaving[worst]
        entering = {t: p for t, p in values.items() if t.startswith("+") and p < self.rule.enter}
        if not entering:
            return None
        best = min(entering, key=lambda text: (entering[text], -abs(moves[text].deviance - here.deviance)))
        return best, entering[best]

    def _p(self, one: Submodel, other: Submodel) -> float:
        """Of the term between two models: chi-square, or F with the larger one's deviance / df_resid."""
        smaller, larger = (one, other) if one.estimates <= other.estimates else (other, one)
        df = float(larger.estimates - smaller.estimates)
        difference = max(smaller.deviance - larger.deviance, 0.0)
        s = self.wide.record.statistics
        if not df:
            return float("nan")
        if not s.scale_estimated:
            return p_value("chi2", difference / s.scale, df, np.inf)
        left = larger.df_resid
        return p_value("F", difference / df / (larger.deviance / left), df, left) if left > 0 else float("nan")

    def _value(self, model: Submodel) -> float:
        """The criterion of a model."""
        if model.record is None:
            raise DesignError(
                "a model without any coefficient has no criterion: keep the intercept, or a term by scope="
            )
        s = model.record.statistics
        counted = 0.5 * (s.aic + 2.0 * s.llf) + self.held + model.estimates - s.rank
        return float(-2.0 * s.llf + self.rule.k * counted)

    def _addable(self) -> list[str]:
        """Terms whose margins among all terms are present."""
        terms = self.terms
        return [
            name
            for name in terms
            if name not in self.present and all(other in self.present for other in terms if terms[other] < terms[name])
        ]

    def _row(self, text: str, before: Submodel | None, model: Submodel, p: float = np.nan) -> dict[str, Any]:
        criterion = self.rule.criterion
        return {
            "step": text,
            "df": np.nan if before is None else float(abs(model.estimates - before.estimates)),
            "deviance": np.nan if before is None else abs(model.deviance - before.deviance),
            "resid_df": model.df_resid,
            "resid_dev": model.deviance,
            **({"pvalue": p} if criterion == "test" else {criterion: self._value(model)}),
        }

    def _refuse_missing(self) -> None:
        """A model without a column would be of more rows, where only that column is missing."""
        missing = {name for name, n in self.wide.ledger.missing.items() if n}
        for term in formula.terms_of(self.wide.terms):
            if term.name in self.lower:
                continue
            gone = [c for v in term.variables for c in v.expression.columns if c in missing]
            if gone:
                raise DataError(
                    f'"{gone[0]}" has missing values, so that models with and without "{term.name}" are not of the same '
                    "rows: fit where it is not missing"
                )

    def _refuse_other_coding(self, terms: frozenset[str]) -> None:
        """Pieces are coded for the widened model; a model of some of them has to be coded alike."""
        wide = self.wide
        alone = formula.parse(f"~ {_right_of(wide.terms, terms)}", wide.kinds, require_response=False)

        def coding(of: Terms) -> set[tuple[str, tuple[str, ...], tuple[bool, ...]]]:
            return {
                (name, tuple(v.name for v in part.variables), tuple(part.full.values()))
                for name, part in of.parts
                if name in terms
            }

        if coding(alone) != coding(wide.terms):
            raise DesignError(
                f"in the model of {', '.join(sorted(terms)) or 'no terms'} factors are coded otherwise than in "
                f"{wide.terms.text!r}: stepwise choice needs the intercept, and the margins of interactions"
            )


def _right_of(terms: Terms, names: frozenset[str]) -> str:
    """A right side of some terms, with the intercept or without, and the offsets."""
    inside = [name for name in terms.names if name in names]
    offsets = [f"offset({offset.text})" for offset in terms.offsets]
    quoted = [_quoted(term) for term in formula.terms_of(terms) if term.name in inside]
    first = ["0"] if not terms.intercept else [] if quoted else ["1"]
    return " + ".join([*first, *quoted, *offsets])


def _quoted(term: formula.Term) -> str:
    """A term as a formula writes it, names that are no words in quotes."""
    return ":".join(
        f"`{v.name}`" if (v.name,) == v.expression.columns and not v.name.isidentifier() else v.name
        for v in term.variables
    )
