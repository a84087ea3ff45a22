"""Rao's score tests of many candidate terms in one pass: what the score and the information at the fitted coefficients say
of terms that are not in the model.

With U the score of base and candidate columns at the model's coefficients and I their information at phi = 1, the statistic
is (U' I^-1 U - U_b' I_bb^-1 U_b) / phi, which for the score U_b = 0 of an optimum is U_c' (I_cc - I_cb I_bb^-1 I_bc)^-1 U_c
/ phi: chi-square with as many degrees of freedom as columns of the candidate that are no combination of others (Rao 1948,
Proceedings of the Cambridge Philosophical Society 44, 50-57). As R's add1(test = "Rao"), which divides by the model's
dispersion and takes the chi-square distribution where it was estimated, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt
from scipy import special

from daskglm.cluster import sources
from daskglm.cluster.engine import Engine, settle
from daskglm.design import formula
from daskglm.design.design import Design
from daskglm.design.parameters import Parameters
from daskglm.errors import DesignError
from daskglm.estimation import model_of
from daskglm.kernels.basis import Basis
from daskglm.kernels.cholesky import factor
from daskglm.model.likelihoods import Information
from daskglm.postestimation.revisit import plan_of
from daskglm.postestimation.widened import (
    Narrow,
    Shared,
    Widened,
    narrowed,
    own_names,
    refuse_other_deviance,
    refuse_without_likelihood,
    source_of,
)
from daskglm.record import FitRecord
from daskglm.totals.moments import AnyModel, Moments, Request, moments
from daskglm.totals.residualised import working_block, working_model

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Candidates share a Gram until its columns are so many times those of the model: products of candidates with each other are
# of no use, and a Gram per candidate would repeat those of the model. 200 columns beside 16 took, in groups of 8, 16, 32, 64
# and 200, 0.80, 0.76, 0.62, 0.84 and 1.17 seconds.
WIDER = 2
LEAST_COLUMNS = 32


@final
@dataclass(frozen=True)
class Group:
    """Candidates that share a Gram: what makes their blocks, the model of all of their columns, its coefficients on the
    working scale of a basis.
    """

    narrow: Narrow
    model: AnyModel
    coef: Vector
    basis: Basis | None = None


@final
@dataclass(frozen=True)
class Grouped:
    """The moments of every group."""

    moments: tuple[Moments, ...]

    def __add__(self, other: Grouped) -> Grouped:
        return Grouped(tuple(one + two for one, two in zip(self.moments, other.moments, strict=True)))


def grouped_moments(shared: Shared, groups: tuple[Group, ...], information: Information) -> Grouped:
    """Score and information of each group's columns in one block; of the first also the deviance."""
    found = []
    for number, group in enumerate(groups):
        request = Request(group.coef, 2, information, statistics=number == 0)
        block = working_block(group.narrow(shared.block), group.model, group.basis)
        found.append(moments(block, working_model(group.model, group.basis), request))
    return Grouped(tuple(found))


def score_tests(record: FitRecord, candidates: Any, data: Any, client: Any = None) -> pd.DataFrame:
    """A row per candidate term: df, stat, pvalue. One decode, in which levels and scales are learnt, and one pass."""
    import pandas as pd

    refuse_without_likelihood(record, "score test")
    if record.separated or record.separation is not None:
        raise DesignError(
            "the fit has infinite coefficients, where the information of the rows at their limit is 0: score tests need a "
            'model without them (leave the term out, or separation="firth" and wald_test)'
        )
    source = source_of(record, data)
    settle(source, [candidates] if isinstance(candidates, str) else candidates, Engine(client=client))
    terms = candidate_terms(record, candidates, sources.kinds(source))
    with Widened(record, data, terms, client=client) as wide:
        groups, places = _groups(wide, [term.name for term in terms])
        information = groups[0].model.likelihood.reported
        found: Grouped = wide.blocks.total(grouped_moments, groups, information)
        passes, notes = wide.passes, wide.notes
    statistics = found.moments[0].statistics
    assert statistics is not None
    rows, checked = {}, False
    for name, (number, own, columns) in places.items():
        group, sums = groups[number], found.moments[number]
        model = working_model(group.model, group.basis)
        gram, score = model.gram(sums.tables), model.gradient(sums)
        assert gram is not None
        base = np.concatenate([own, columns])
        gram, score, p = gram[np.ix_(base, base)], score[base], own.size
        within = factor(gram[:p, :p])
        least = float(score[:p] @ within.solve(score[:p]))
        if not checked:
            phi = record.statistics.scale
            refuse_other_deviance(record, statistics.deviance, least / phi if phi > 0 else 0.0)
            checked = True
        whole = factor(gram)
        df = whole.rank - within.rank
        amount = (float(score @ whole.solve(score)) - least) / record.statistics.scale
        amount = max(amount, 0.0) if df else np.nan
        rows[name] = (float(df), amount, float(special.chdtrc(df, amount)) if df else np.nan)
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["df", "stat", "pvalue"])
    frame.attrs |= {"test": "Rao", "distribution": "chi2", "passes": passes, "notes": notes}
    return frame


def candidate_terms(record: FitRecord, candidates: Any, kinds: Mapping[str, Any]) -> tuple[formula.Term, ...]:
    """Terms of "z", "a:b + z", "~ . + z", or several of them; not those that the model has."""
    texts = [candidates] if isinstance(candidates, str) else list(_texts(candidates))
    if not texts:
        raise DesignError("there is no candidate: name terms, as in ['z', 'a:b'] or '~ . + z'")
    own = {frozenset(v.expression.text for v in t.variables) for t in formula.terms_of(base_of(record, kinds))}
    found: dict[frozenset[str], formula.Term] = {}
    quoted = {name: f"`{name}`" if not name.isidentifier() and name in kinds else name for name in texts}
    for text in texts:
        dotted = text.lstrip(" ~").startswith(".")
        right = text.lstrip(" ~").removeprefix(".").lstrip(" +") if dotted else quoted[text].lstrip(" ~")
        if not right.strip():
            continue
        parsed = formula.parse(f"~ {right}", kinds, require_response=False)
        if parsed.offsets:
            raise DesignError(f"an offset is no candidate, as in {text!r}")
        named = list(formula.terms_of(parsed))
        for term in named:
            key = frozenset(v.expression.text for v in term.variables)
            if any(v.kind == "matrix" for v in term.variables):
                raise DesignError(f'a matrix is no candidate: name columns of a table, not "{term.name}"')
            if key in own:
                if dotted or len(named) > 1:
                    continue
                raise DesignError(f'"{term.name}" is in the model already: a candidate is a term that is not')
            found.setdefault(key, term)
    if not found:
        raise DesignError(f"no term of {texts[0]!r} is a candidate: the model has them all")
    return tuple(found.values())


def _texts(candidates: Any) -> Iterable[str]:
    if not isinstance(candidates, (list, tuple)) or not all(isinstance(text, str) for text in candidates):
        raise DesignError(f"candidates are terms as text, one or a list of them, not {type(candidates).__name__}")
    return candidates


def base_of(record: FitRecord, kinds: Mapping[str, Any]) -> formula.Terms:
    """The model's own terms."""
    return formula.parse(str(plan_of(record.specification, record).formula), kinds)


Places = dict[str, tuple[int, npt.NDArray[np.intp], npt.NDArray[np.intp]]]


def _groups(wide: Widened, candidates: Sequence[str]) -> tuple[tuple[Group, ...], Places]:
    """Candidates in groups; of each its group, and the places of the model's and of its own coefficients in that."""
    record, design = wide.record, wide.design
    base = tuple(name for name in record.design.terms if name != "Intercept")
    for name in candidates:
        if not any(piece.term == name for piece in design.pieces):
            raise DesignError(f'"{name}" adds nothing to the terms of the model')
    columns = {name: sum(1 for term in design.term_of if term == name) for name in candidates}
    most = max(LEAST_COLUMNS, (WIDER - 1) * len(record.design.names))
    batches: list[list[str]] = []
    room = 0
    # candidates of one width together, so that a wide one does not share its products with many
    for name in sorted(candidates, key=lambda each: columns[each]):
        if not batches or columns[name] > room:
            batches.append([])
            room = most
        batches[-1].append(name)
        room -= columns[name]
    groups: list[Group] = []
    places: Places = {}
    known = dict(zip(own_names(record.parameters), record.working.coefficients, strict=True))
    for number, batch in enumerate(batches):
        inner, narrow = narrowed(design, {*base, *batch})
        group, own, at = _group(wide, inner, narrow, known, batch)
        groups.append(group)
        places |= {name: (number, own, at[name]) for name in batch}
    return tuple(groups), {name: places[name] for name in candidates}


def _group(
    wide: Widened, inner: Design, narrow: Narrow, known: Mapping[str, float], batch: Sequence[str]
) -> tuple[Group, npt.NDArray[np.intp], dict[str, npt.NDArray[np.intp]]]:
    """A group, the places of the model's own coefficients in it, and those of each candidate."""
    model = model_of(wide.plan, inner)
    parameters = Parameters(inner, wide.plan.family.response)
    terms: list[Any] = [None] * parameters.n
    for at, term in zip(parameters.reported(np.arange(parameters.n)), parameters.term_of, strict=True):
        terms[int(at)] = term
    places = {name: np.array([i for i, term in enumerate(terms) if term == name], np.intp) for name in batch}
    own = np.array([i for i, term in enumerate(terms) if term not in places], np.intp)
    coef, names = np.zeros(parameters.n), own_names(parameters)
    for i in own:
        coef[i] = known[names[i]]
    return Group(narrow, model, coef, _embedded(wide.record, names)), own, places


def _embedded(record: FitRecord, names: Sequence[str]) -> Basis | None:
    """The basis of a fit among the columns of a larger model, by the names of its own coefficients."""
    basis = record.working.basis
    if basis is None:
        return None
    place = {name: i for i, name in enumerate(names)}
    at = np.array([place[name] for name in own_names(record.parameters)], np.int64)
    directions = np.zeros((len(names), basis.columns.size))
    directions[at] = basis.directions
    return Basis(at[basis.columns], directions)
