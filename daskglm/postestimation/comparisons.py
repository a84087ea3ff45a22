"""Nested models against each other: analysis of deviance, single-term deletions, likelihood ratios. Definitions are R's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from daskglm.design import formula
from daskglm.errors import DesignError, closest
from daskglm.inference.hypotheses import TestResult
from daskglm.postestimation.revisit import plan_of
from daskglm.postestimation.submodels import Submodel, Submodels, Terms, estimates, refuse_separated, sum_contrasts
from daskglm.postestimation.widened import Widened, described, refuse_without_likelihood
from daskglm.record import FitRecord

if TYPE_CHECKING:
    import pandas as pd

TESTS = ("F", "chi2")
# Sums over the same rows agree to this.
SAME = 1e-8


def distribution(record: FitRecord, test: str | None, default: str) -> str:
    """ "F" or "chi2": what was asked for, or the usual one; chi-square where the dispersion is known."""
    if test is not None and test not in TESTS:
        raise DesignError(f'test={test!r} is not one of "F", "chi2"{closest(test, TESTS)}')
    if not record.statistics.scale_estimated:
        if test == "F":
            raise DesignError(
                'the dispersion is known, for which the test is test="chi2": an F test is of an estimated one'
            )
        return "chi2"
    return default if test is None else test


def p_value(kind: str, stat: float, df: float, df_resid: float) -> float:
    """The upper tail of F(df, df_resid) at stat, or of chi-square."""
    if not df > 0 or not np.isfinite(stat):
        return float("nan")
    if kind == "chi2":
        return float(special.chdtrc(df, stat))
    return float(special.fdtrc(df, df_resid, stat)) if df_resid > 0 else float("nan")


def anova(record: FitRecord, data: Any, kind: int = 1, test: str | None = None, client: Any = None) -> pd.DataFrame:
    """A row per term: df and deviance that it accounts for, what the larger of the two models leaves, stat and p-value.

    Type 1: each term after those before it, F with the Pearson dispersion where that is estimated (anova.glm). Type 2:
    each after all others but those that contain it; type 3: after all others, in sum contrasts; both with chi-square of the
    deviance over the dispersion unless test="F" (car's Anova.glm).
    """
    import pandas as pd

    if kind not in (1, 2, 3) or isinstance(kind, bool):
        raise DesignError(f"type={kind!r} is not one of 1, 2, 3")
    chosen = distribution(record, test, "F" if kind == 1 else "chi2")
    refuse_without_likelihood(record, "analysis of deviance")
    refuse_separated(record, "analysis of deviance")
    if kind == 3 and record.separated:
        raise DesignError(
            "type=3 is not available where coefficients are infinite, for their sum contrasts are: use type=2, or 1"
        )
    s = record.statistics
    with Widened(record, data, client=client) as wide:
        searching = Submodels(wide)
        terms = described(wide.base)
        full = Submodel(s.deviance, estimates(record), s.df_resid)
        pairs = _pairs(searching, terms, full, kind)
        passes, notes = wide.passes, wide.notes
    rows = {}
    for name, (smaller, larger) in pairs.items():
        df = float(larger.estimates - smaller.estimates)
        deviance = max(smaller.deviance - larger.deviance, 0.0) if df else 0.0
        stat = deviance / s.scale / (df if chosen == "F" else 1.0) if df else np.nan
        rows[name] = (df, deviance, larger.df_resid, larger.deviance, stat, p_value(chosen, stat, df, s.df_resid))
    columns = ["df", "deviance", "resid_df", "resid_dev", "stat", "pvalue"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    frame.attrs |= {"type": kind, "distribution": chosen, "passes": passes, "notes": notes}
    return frame


def _pairs(
    searching: Submodels, terms: Mapping[str, frozenset[str]], full: Submodel, kind: int
) -> dict[str, tuple[Submodel, Submodel]]:
    """The smaller and the larger model whose difference each term is."""
    everything = frozenset(terms)
    wanted: dict[str, tuple[Terms, Terms]] = {}
    sums: list[str] = []
    before: Terms = frozenset()
    for name in terms:
        larger = frozenset(other for other in terms if terms[name] < terms[other])
        if kind == 1:
            wanted[name] = (before, before | {name})
            before = before | {name}
        elif kind == 2:
            wanted[name] = (everything - larger - {name}, everything - larger)
        elif larger:
            sums.append(name)
        else:
            wanted[name] = (everything - {name}, everything)
    needed = [each for pair in wanted.values() for each in pair if each != everything]
    bases = [sum_contrasts(searching.wide, name) for name in sums]
    found, combined = searching.of(list(dict.fromkeys(needed)), bases=bases)
    found = found | {everything: full}
    result = {name: (found[one], found[two]) for name, (one, two) in wanted.items()}
    result |= {name: (model, full) for name, model in zip(sums, combined, strict=True)}
    return {name: result[name] for name in terms}


def droppable(terms: Mapping[str, frozenset[str]], present: Terms | None = None) -> list[str]:
    """Terms that no other contains, in order."""
    inside = list(terms) if present is None else [name for name in terms if name in present]
    return [name for name in inside if not any(terms[name] < terms[other] for other in inside)]


def drop1(record: FitRecord, data: Any, test: str | None = None, client: Any = None) -> pd.DataFrame:
    """A row per term that no other contains: df, the reduced model's deviance and AIC, stat and p-value, as R's drop1.

    F with deviance / df_resid where the dispersion is estimated, chi-square of the likelihood ratio where it is known
    (drop1.glm with test = "F" and "Chisq"). The AIC is the full model's and the change of -2 log L at its dispersion; of a
    gaussian model n log(deviance / n).
    """
    import pandas as pd

    chosen = distribution(record, test, "F")
    refuse_without_likelihood(record, "single-term deletion")
    refuse_separated(record, "single-term deletion")
    s = record.statistics
    with Widened(record, data, client=client) as wide:
        terms = described(wide.base)
        names = droppable(terms)
        searching = Submodels(wide)
        everything = frozenset(terms)
        found, _ = searching.of([everything - {name} for name in names])
        passes, notes = wide.passes, wide.notes
    rows = {}
    for name in names:
        smaller = found[everything - {name}]
        df = float(estimates(record) - smaller.estimates)
        change = _twice_log(record, smaller.deviance) - _twice_log(record, s.deviance)
        aic = s.aic + change - 2.0 * df
        difference = max(smaller.deviance - s.deviance, 0.0)
        if chosen == "F":
            stat = difference / df / (s.deviance / s.df_resid) if df and s.df_resid > 0 else np.nan
        else:
            stat = max(change, 0.0) if df else np.nan
        rows[name] = (df, smaller.deviance, aic, stat, p_value(chosen, stat, df, s.df_resid))
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["df", "deviance", "aic", "stat", "pvalue"])
    frame.attrs |= {"distribution": chosen, "passes": passes, "notes": notes}
    return frame


def _twice_log(record: FitRecord, deviance: float) -> float:
    """-2 log L as drop1.glm takes it, but for a constant."""
    s = record.statistics
    if record.specification.family == "gaussian" and s.scale_estimated:
        return float(s.nobs * np.log(deviance / s.nobs)) if deviance > 0 else -np.inf
    return deviance / s.scale


# -- two fits ------------------------------------------------------------------------------------------------------------


def lr_test(one: FitRecord, other: FitRecord) -> TestResult:
    """The likelihood ratio of two nested fits, chi-square; where the dispersion is estimated, the change of deviance per
    degree of freedom over the larger model's dispersion, F. Where theta or a power is estimated in each, 2 log L1 / L0.
    """
    _refuse_other_models(one, other)
    smaller, larger = (one, other) if estimates(one) <= estimates(other) else (other, one)
    _refuse_other_rows(smaller, larger)
    if not _is_nested(smaller, larger):
        raise DesignError(
            f"it cannot be established that {smaller.specification.formula!r} is nested in {larger.specification.formula!r}: "
            "each term of the smaller model must be, or be contained in, a term of the larger one"
        )
    df = float(estimates(larger) - estimates(smaller))
    if not df:
        raise DesignError("both models have as many parameters: there is nothing to test between them")
    s = larger.statistics
    if _estimated_shapes(larger):
        amount = 2.0 * (s.llf - smaller.statistics.llf)
        return TestResult(max(amount, 0.0), p_value("chi2", max(amount, 0.0), df, np.inf), df, "chi2")
    amount = max(smaller.statistics.deviance - s.deviance, 0.0) / s.scale
    if not s.scale_estimated:
        return TestResult(amount, p_value("chi2", amount, df, np.inf), df, "chi2")
    return TestResult(amount / df, p_value("F", amount / df, df, s.df_resid), df, "F", s.df_resid)


def _estimated_shapes(record: FitRecord) -> tuple[str, ...]:
    """Parameters of the family beside its dispersion that were estimated."""
    return tuple(name for name in record.shape if name in ("theta", "power"))


def _refuse_other_models(one: FitRecord, other: FitRecord) -> None:
    a, b = one.specification, other.specification
    for record in (one, other):
        refuse_without_likelihood(record, "likelihood ratio test")
        refuse_separated(record, "a likelihood ratio test")
        if record.family.likelihood_at == "never":
            raise DesignError(
                f"the {record.family.name} family has no likelihood, and so no likelihood ratio: use wald_test or anova"
            )
        if not record.converged and record.status != "boundary":
            raise DesignError(f"{record.specification.formula!r} did not converge, and its likelihood is no maximum")
    if a.response != b.response:
        raise DesignError(f"the responses differ: {a.response!r} and {b.response!r}")
    shapes = _estimated_shapes(one), _estimated_shapes(other)
    if one.family.name != other.family.name or shapes[0] != shapes[1] or (not shapes[0] and a.family != b.family):
        raise DesignError(
            f"the families differ: {a.family}{' (estimated)' if shapes[0] else ''} and "
            f"{b.family}{' (estimated)' if shapes[1] else ''}"
        )
    if a.link != b.link:
        raise DesignError(f"the links differ: {a.link} and {b.link}")
    if a.dispersion != b.dispersion:
        raise DesignError(f"the rules for the dispersion differ: {a.dispersion!r} and {b.dispersion!r}")
    for word, left, right in (("weights", a.weights, b.weights), ("trials", a.trials, b.trials)):
        if left != right:
            raise DesignError(f"the {word} differ: {_said(left)} and {_said(right)}")
    if _offsets(one) != _offsets(other):
        raise DesignError(
            f"the offsets differ: {' + '.join(_offsets(one)) or 'none'} and {' + '.join(_offsets(other)) or 'none'}"
        )


def _said(value: Any) -> str:
    return "none" if value is None else str(value) if isinstance(value, str) else f"{value[0]} {value[1]!r}"


def terms_of(record: FitRecord) -> formula.Terms:
    """The terms of a fit, from its formula."""
    return formula.parse(str(plan_of(record.specification, record).formula), record.specification.kinds)  # type: ignore[arg-type]


def _offsets(record: FitRecord) -> list[str]:
    s = record.specification
    found = [e.text for e in terms_of(record).offsets]
    found += [] if s.offset is None else [s.offset]
    found += [] if s.exposure is None else [f"log({s.exposure})"]
    return sorted("".join(text.split()) for text in found)


def different_rows(one: FitRecord, other: FitRecord) -> str | None:
    """How the rows of two fits of the same response differ, None where nothing says so."""
    a, b = one.statistics, other.statistics
    if one.specification.where != other.specification.where:
        return f"where= differs: {one.specification.where!r} and {other.specification.where!r}"
    if one.ledger.used != other.ledger.used:
        return f"the rows used differ: {one.ledger.used:,} and {other.ledger.used:,}"
    # of an infinite optimum these are of the rows that are not at their limit
    finite = one.separation is None and other.separation is None
    if finite and a.nobs != b.nobs:
        return f"the numbers of observations differ: {a.nobs:.15g} and {b.nobs:.15g}"
    if tuple(one.design.y_levels) != tuple(other.design.y_levels):
        return "the levels of the response differ"
    for name, levels in one.design.levels.items():
        if name in other.design.levels and set(levels) != set(other.design.levels[name]):
            return f"the levels of {name} differ"
    for key, moments in one.design.moments.items():
        if key in other.design.moments and not np.allclose(moments, other.design.moments[key], rtol=SAME, atol=0.0):
            return f"the values of {':'.join(key)} differ"
    alike = [
        (r.design.intercept, r.family.text, r.specification.weights, r.specification.trials, _offsets(r))
        for r in (one, other)
    ]
    if finite and alike[0] == alike[1] and not np.isclose(a.null_deviance, b.null_deviance, rtol=SAME, atol=0.0):
        return f"the null deviances differ: {a.null_deviance:.10g} and {b.null_deviance:.10g}"
    if finite and alike[0][1:4] == alike[1][1:4] and one.family.likelihood_at == "known":
        # what the likelihood of the saturated model was made of is the response and its weights alone
        most = [s.llf + 0.5 * s.deviance / one.family.dispersion for s in (a, b)]
        size = max(abs(a.llf), abs(a.deviance), 1.0)
        if abs(most[0] - most[1]) > SAME * size:
            return f"the likelihoods of the saturated models differ: {most[0]:.10g} and {most[1]:.10g}"
    return None


def _refuse_other_rows(smaller: FitRecord, larger: FitRecord) -> None:
    found = different_rows(smaller, larger)
    if found is not None:
        raise DesignError(f"the models are not of the same rows: {found}")


def _is_nested(smaller: FitRecord, larger: FitRecord) -> bool:
    """Whether the columns of one span those of the other, by structure: the term a:b spans 1, a, b and their products, and
    that of a number x only x itself.
    """
    if larger.design.matrix is not None or smaller.design.matrix is not None:
        return _is_nested_by_columns(smaller, larger)
    spaces = _spaces(larger)
    return all(any(numbers == n and factors <= f for n, f in spaces) for numbers, factors in _spaces(smaller))


def _is_nested_by_columns(smaller: FitRecord, larger: FitRecord) -> bool:
    plain = all(not piece.factors for record in (smaller, larger) for piece in record.design.pieces)
    return plain and set(smaller.design.names) <= set(larger.design.names)


Space = tuple[tuple[str, ...], frozenset[str]]


def _spaces(record: FitRecord) -> list[Space]:
    """Per term, what its numbers and its factors evaluate; equal levels are the same space whatever their baseline."""
    terms = terms_of(record)
    found: list[Space] = [((), frozenset())] if terms.intercept else []
    for term in formula.terms_of(terms):
        numbers = tuple(sorted(v.text for v in term.variables if v.kind != "factor"))
        found.append((numbers, frozenset(v.text for v in term.variables if v.kind == "factor")))
    return found
