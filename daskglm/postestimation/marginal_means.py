"""Estimated marginal means: predictions for the levels of some factors, averaged over those of the others, and contrasts.

Searle, Speed and Milliken (1980), Population marginal means in the linear model; as the R package emmeans: linear
combinations L b on the scale of the linear predictor, var = L C L', other numbers at their means, the offset at its mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design import formula
from daskglm.design.changes import Recipe, Role, roles_of
from daskglm.design.grid import Grid, WeightsOf, outer
from daskglm.design.times import is_number
from daskglm.errors import DesignError, closest, public_methods
from daskglm.inference import distributions
from daskglm.model.likelihoods import GLM
from daskglm.model.pairs import likelihood_of
from daskglm.postestimation.effects import LeafReader, centers_of, check_level, inferred, left_out, require_rows
from daskglm.postestimation.revisit import Visit
from daskglm.record import FitRecord

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Rows of the grid that are written out: levels of the factors asked for, and of all values given for others.
MOST_ROWS = 100_000
# A combination of coefficients is what the data tell, or of an infinite one, but for rounding.
NOISE = 1e-9
ADJUSTMENTS = ("none", "bonferroni", "tukey")
# Links under which a difference is the logarithm of a ratio.
RATIOS = {"log": "ratio", "logit": "odds ratio"}


@public_methods
@final
@dataclass(frozen=True)
class MarginalMeans:
    """Marginal means and what contrasts between them need; prints as a table.

    table: estimate, se, lower, upper by level, on the scale asked for; eta (m,), covariance (m, m): on that of the linear
    predictor; labels: of each mean; groups: which means are compared with each other, by the levels of `by`; notes: what was
    averaged over, and where numbers were held.
    """

    table: pd.DataFrame
    eta: Vector
    covariance: Matrix
    labels: tuple[str, ...]
    groups: tuple[tuple[Any, ...], ...]
    by: tuple[str, ...]
    type: str
    level: float
    notes: tuple[str, ...]
    record: FitRecord = field(repr=False)

    def __repr__(self) -> str:
        return "\n".join([self.table.to_string(), *self.notes])

    def _repr_html_(self) -> str:
        return self.table.to_html() + "".join(f"<p>{note}</p>" for note in self.notes)

    def contrasts(self, method: Any = "pairwise", adjust: str = "none", level: float | None = None) -> pd.DataFrame:
        """Contrasts of the means, c' eta, within each level of `by`. No pass over data.

        method: "pairwise" (each with each that follows), "reference" (each with the first), or a matrix (k, m), also as a dict
        from names to its rows. adjust: "none"; "bonferroni", by the number of contrasts; "tukey", of pairwise ones, by the
        studentised range. With type="response" contrasts under the log link are ratios, under the logit odds ratios; under
        other links they stay on the scale of the linear predictor. Tests are made on that scale. Columns estimate, se, stat,
        pvalue, lower, upper.
        """
        import pandas as pd

        if adjust not in ADJUSTMENTS:
            raise DesignError(f"adjust={adjust!r} is not one of {', '.join(ADJUSTMENTS)}{closest(adjust, ADJUSTMENTS)}")
        if adjust == "tukey" and not (isinstance(method, str) and method == "pairwise"):
            raise DesignError('adjust="tukey" is for all pairwise contrasts: use "bonferroni"')
        level = self.level if level is None else level
        check_level(level)
        ratio = self.type == "response" and self.record.specification.link in RATIOS
        frames = []
        for group in dict.fromkeys(self.groups):
            index = np.array([i for i, one in enumerate(self.groups) if one == group])
            frames.append(self._of_group(index, method, adjust, level, ratio))
            if self.by:
                keys = [(*group, name) for name in frames[-1].index]
                frames[-1].index = pd.MultiIndex.from_tuples(keys, names=[*self.by, "contrast"])
        return pd.concat(frames)

    def _of_group(self, index: npt.NDArray[Any], method: Any, adjust: str, level: float, ratio: bool) -> pd.DataFrame:
        import pandas as pd

        eta, covariance = self.eta[index], self.covariance[np.ix_(index, index)]
        labels = [self.labels[i] for i in index]
        sign = "/" if ratio else "-"
        if isinstance(method, str):
            first, second = _pairs(method, len(index))
            with np.errstate(invalid="ignore"):
                value = eta[first] - eta[second]
            spread = np.diag(covariance)
            variance = spread[first] + spread[second] - 2.0 * covariance[first, second]
            names = [f"{labels[i]} {sign} {labels[j]}" for i, j in zip(first, second, strict=True)]
        else:
            matrix, names = _matrix(method, len(index))
            used = matrix != 0.0
            value = np.array([row[u] @ eta[u] for row, u in zip(matrix, used, strict=True)])
            variance = np.array(
                [row[u] @ covariance[np.ix_(u, u)] @ row[u] for row, u in zip(matrix, used, strict=True)]
            )
        # what is left of two equal variances is rounding
        error = np.sqrt(np.maximum(variance, 0.0))
        columns = inferred(self.record, value, error, level)
        self._adjust(columns, value, error, adjust, level, len(index))
        if ratio:
            with np.errstate(over="ignore"):
                value = np.exp(value)
                columns |= {"se": error * value, "lower": np.exp(columns["lower"]), "upper": np.exp(columns["upper"])}
        return pd.DataFrame({"estimate": value, **columns}, index=pd.Index(names, name="contrast"))

    def _adjust(
        self, columns: dict[str, Vector], value: Vector, error: Vector, adjust: str, level: float, means: int
    ) -> None:
        """p-values and limits for all contrasts of a group at once."""
        statistics = self.record.statistics
        if adjust == "none" or not value.size:
            return
        if adjust == "bonferroni":
            columns["pvalue"] = np.minimum(columns["pvalue"] * value.size, 1.0)
            quantile = distributions.quantile(statistics, 1.0 - (1.0 - level) / value.size)
        else:
            from scipy.stats import studentized_range

            freedom = np.inf if statistics.df_test is None else statistics.df_test
            size = np.sqrt(2.0) * np.abs(columns["stat"])
            there = np.isfinite(size)
            columns["pvalue"] = np.full(size.shape, np.nan)
            columns["pvalue"][there] = studentized_range.sf(size[there], means, freedom)
            quantile = float(studentized_range.ppf(level, means, freedom)) / np.sqrt(2.0)
        columns["lower"], columns["upper"] = value - quantile * error, value + quantile * error


def _pairs(method: str, k: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if method == "pairwise":
        first, second = np.triu_indices(k, 1)
        return first, second
    if method == "reference":
        return np.arange(1, k), np.zeros(max(k - 1, 0), int)
    known = ("pairwise", "reference")
    raise DesignError(f'contrasts are "pairwise", "reference" or a matrix, not {method!r}{closest(method, known)}')


def _matrix(method: Any, k: int) -> tuple[Matrix, list[str]]:
    names: list[str] = []
    if isinstance(method, Mapping):
        names, method = [str(name) for name in method], list(method.values())
    try:
        matrix = np.atleast_2d(np.asarray(method, np.float64))
    except (TypeError, ValueError):
        raise DesignError('contrasts are "pairwise", "reference" or a matrix of numbers') from None
    if matrix.ndim != 2 or matrix.shape[1] != k:
        raise DesignError(f"a matrix of contrasts has a column per mean, which are {k} here")
    return matrix, names or [f"c{i + 1}" for i in range(len(matrix))]


@final
@dataclass(frozen=True)
class Asked:
    """specs, by: columns; at: values of columns; weights, type, level, offset: as in `Fit.emmeans`."""

    specs: tuple[str, ...]
    by: tuple[str, ...]
    at: Mapping[str, tuple[Any, ...]]
    weights: str
    type: str
    level: float
    offset: float | None


def asked(
    specs: Any, at: Mapping[str, Any] | None, by: Any, weights: str, type: str, level: float, offset: Any
) -> Asked:
    """The request, checked as far as it can be without the model."""
    names, groups = ((x,) if isinstance(x, str) else tuple(x or ()) for x in (specs, by))
    if not names:
        raise DesignError('emmeans needs the factor whose means are asked for, such as emmeans("area")')
    twice = [name for name in names if name in groups]
    if twice:
        raise DesignError(f'"{twice[0]}" cannot be both asked for and in by=')
    for name, value, options in (
        ("weights", weights, ("equal", "proportional")),
        ("type", type, ("link", "response")),
    ):
        if value not in options:
            listed = ", ".join(f'"{option}"' for option in options)
            raise DesignError(f"{name}={value!r} is not one of {listed}{closest(str(value), options)}")
    check_level(level)
    if offset is not None and not isinstance(offset, (int, float)):
        raise DesignError(f"offset= is a number on the scale of the linear predictor, not {offset!r}")
    values = {name: (value,) if np.ndim(value) == 0 else tuple(value) for name, value in (at or {}).items()}
    empty = [name for name, value in values.items() if not value]
    if empty:
        raise DesignError(f"at= has no value for {empty[0]}")
    return Asked(names, groups, values, weights, type, level, None if offset is None else float(offset))


def emmeans(record: FitRecord, request: Asked, data: Any) -> MarginalMeans:
    """See `Fit.emmeans`."""
    if record.parameters.kind != "number":
        raise DesignError(
            "marginal means are there for a response of one linear predictor: margins() tells effects on classes"
        )
    if record.design.matrix is not None:
        raise DesignError("a sparse matrix has no means to hold it at: marginal means need a formula of columns")
    recipe, roles = recipe_of(record)
    _check(record, request, recipe, roles)
    chosen, averaged = _grid(request, roles, recipe)
    held, weights, offset, notes = _centers(record, request, recipe, roles, chosen, data)
    listed = {**chosen, **{name: (value,) for name, value in held.items()}}
    total = int(np.prod([len(values) for values in listed.values()], dtype=np.float64)) if listed else 1
    if total > MOST_ROWS:
        raise DesignError(f"the grid would have {total} rows: ask for fewer factors, or give fewer values in at=")
    # the first is the fastest, as in R
    every = [one[::-1] for one in itertools.product(*list(listed.values())[::-1])]
    columns = {name: _array([one[j] for one in every]) for j, name in enumerate(listed)}
    rows = Grid(recipe, columns, weights, len(every)).rows()[:, record.design.select]
    keys = [one[: len(request.specs) + len(request.by)] for one in every]
    kept = list(dict.fromkeys(keys))
    linear = np.zeros((len(kept), rows.shape[1]))
    place = {key: i for i, key in enumerate(kept)}
    np.add.at(linear, [place[key] for key in keys], rows)
    linear *= len(kept) / len(every)
    eta, covariance = combined(record, linear)
    if averaged:
        notes = (f"averaged over the levels of: {', '.join(averaged)}", *notes)
    return _means(record, request, kept, eta + offset, covariance, notes)


def recipe_of(record: FitRecord) -> tuple[Recipe, dict[str, Role]]:
    """How columns become linear predictors, and what each is, without any data."""
    specification, design = record.specification, record.design
    kinds: dict[str, Any] = dict(specification.kinds)
    terms = formula.parse("~" + formula.right_side(specification.formula), kinds, require_response=False)
    offsets = list(terms.offsets)
    if specification.offset is not None:
        offsets.append(formula.numeric(specification.offset, kinds))
    exposure = None if specification.exposure is None else formula.numeric(specification.exposure, kinds)
    return Recipe(design, terms.variables, tuple(offsets), exposure), roles_of(terms.variables, design, kinds, ())


def _columns(recipe: Recipe) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c for v in recipe.variables for c in v.expression.columns))


def _check(record: FitRecord, request: Asked, recipe: Recipe, roles: Mapping[str, Role]) -> None:
    """Every name is a column of the model; what is asked for has levels, or values in at=."""
    known = _columns(recipe)
    for name in (*request.specs, *request.by, *request.at):
        if name not in known:
            raise DesignError(
                f'the model has no column "{name}"{closest(name, known)}; columns: {", ".join(known) or "none"}'
            )
    for name in (*request.specs, *request.by):
        if (name not in roles or roles[name].levels is None) and name not in request.at:
            raise DesignError(f'"{name}" is a number to the model: say at which values, at={{"{name}": [...]}}')
    if request.offset is not None and not recipe.offsets and recipe.exposure is None:
        raise DesignError("the model has no offset: leave offset= out")


def _grid(
    request: Asked, roles: Mapping[str, Role], recipe: Recipe
) -> tuple[dict[str, tuple[Any, ...]], tuple[str, ...]]:
    """Values of the columns that are written out, those asked for first, and the factors that are averaged over."""
    chosen: dict[str, tuple[Any, ...]] = {}
    for name in (*request.specs, *request.by, *request.at):
        role = roles.get(name)
        levels = None if role is None else role.levels
        if levels is None:
            chosen[name] = request.at[name]
        elif name in request.at:
            chosen[name] = tuple(levels[role.place(value)] for value in request.at[name])  # type: ignore[union-attr]
        else:
            chosen[name] = levels
        free = name not in (*request.specs, *request.by)
        if request.weights == "proportional" and levels and free and len(chosen[name]) > 1:
            raise DesignError(
                f'weights="proportional" averages over all levels of "{name}": give one of them in at=, or none'
            )
    averaged = [name for name, role in roles.items() if role.levels is not None and name not in chosen]
    averaged += [name for name in request.at if name not in (*request.specs, *request.by) and len(chosen[name]) > 1]
    return chosen, tuple(averaged)


def _centers(
    record: FitRecord,
    request: Asked,
    recipe: Recipe,
    roles: Mapping[str, Role],
    chosen: Mapping[str, Any],
    data: Any,
) -> tuple[dict[str, float], WeightsOf, float, tuple[str, ...]]:
    """Means of the numbers that are not chosen, weights of the levels that are averaged over, the offset."""
    design = record.design
    needed = [
        name
        for name in _columns(recipe)
        if name not in chosen
        and is_number(record.specification.kinds[name])
        and (name not in roles or roles[name].numeric)
    ]
    equal = outer({name: np.full(len(levels), 1.0 / len(levels)) for name, levels in design.levels.items()})
    has_offset = bool(recipe.offsets) or recipe.exposure is not None
    offset = request.offset if request.offset is not None else None if has_offset else 0.0
    if data is None:
        if request.weights == "proportional":
            raise DesignError('weights="proportional" counts the rows of each level: give data=')
        if offset is None:
            raise DesignError(
                "the offset is held at its mean, which the fit does not know: give data=, or offset= (0 for a rate)"
            )
        held = {name: _mean_of(record, name) for name in needed}
        return held, equal, offset, _notes(held)
    free = {v.name for v in recipe.variables if v.kind == "factor" and not set(v.expression.columns) <= set(chosen)}
    groups = [tuple(name for name in (*p.factors, *p.coded) if name in free) for p in design.pieces]
    joint = (
        tuple(dict.fromkeys(names for names in groups if len(names) > 1)) if request.weights == "proportional" else ()
    )
    reader = LeafReader()
    with Visit(record, data, reader=reader) as v:
        sums = v.total_of_items(centers_of, reader.recipe, tuple(needed), joint, left_out(record))
        require_rows(sums.weight)
    held = dict(sums.numbers)

    def proportional(names: tuple[str, ...]) -> Vector:
        counts = sums.levels[names[0]] if len(names) == 1 else sums.joint[names]
        return np.asarray(counts / counts.sum())

    weights: WeightsOf = equal if request.weights == "equal" else proportional
    return held, weights, sums.offset if offset is None else offset, (*_notes(held), *v.notes)


def _notes(held: Mapping[str, float]) -> tuple[str, ...]:
    return (f"at {', '.join(f'{name} = {value:.6g}' for name, value in held.items())}",) if held else ()


def _mean_of(record: FitRecord, name: str) -> float:
    """What the fit knows of a column: its mean over the rows, where it is among the columns of X as it is."""
    if record.specification.weights is not None:
        raise DesignError(
            f'the mean of "{name}" is weighted as the fit is, which takes a pass: give data=, or at={{"{name}": ...}}'
        )
    if (name,) not in record.design.moments:
        raise DesignError(f'the fit does not know the mean of "{name}" itself: give data=, or at={{"{name}": ...}}')
    return float(record.design.moments[(name,)][0])


def _array(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Values of one column: numbers, or text and whatever else levels are."""
    if all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in values):
        return np.array(values, np.float64)
    return np.array(values, object)


def combined(record: FitRecord, linear: Matrix) -> tuple[Vector, Matrix]:
    """L b (m,) and L C L' (m, m) for combinations L (m, p) of the reported coefficients: NaN where the data do not tell (a
    combination of aliased ones that is none of the others'), infinite where an infinite one moves it, without error then.
    """
    eta, result = record.forms(linear)
    names = {name: j for j, name in enumerate(record.names)}
    lost = np.zeros(len(linear), bool)
    for name, parts in record.aliased.items():
        expected = sum((linear[:, names[other]] * share for other, share in parts.items()), np.zeros(len(linear)))
        size = np.abs(linear).max(axis=1, initial=1.0)
        lost |= np.abs(linear[:, names[name]] - expected) > NOISE * size * (1.0 + sum(map(abs, parts.values())))
    separation = record.separation
    for direction in () if separation is None else separation.directions[::-1]:
        moved, size = linear @ direction, np.abs(linear) @ np.abs(direction)
        there = np.abs(moved) > NOISE * size
        eta[there] = np.nan if left_out(record) else np.sign(moved[there]) * np.inf
        result[there, :] = np.nan
        result[:, there] = np.nan
    eta[lost] = np.nan
    result[lost, :] = np.nan
    result[:, lost] = np.nan
    return eta, result


def _means(
    record: FitRecord, request: Asked, keys: Sequence[Any], eta: Vector, covariance: Matrix, notes: tuple[str, ...]
) -> MarginalMeans:
    import pandas as pd

    likelihood = likelihood_of(record.family, record.link, len(record.design.y_levels))
    assert isinstance(likelihood, GLM)
    names = (*request.specs, *request.by)
    with np.errstate(invalid="ignore"):
        error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    half = distributions.quantile(record.statistics, request.level) * error
    low, high, value = eta - half, eta + half, eta
    if request.type == "response":
        with np.errstate(all="ignore"):
            value, slope, _ = likelihood.link.inverse(eta, False)
            first, second = likelihood.mean_range_of(low, high)
            error = error * np.abs(slope)
        low, high = np.minimum(first, second), np.maximum(first, second)
    n = len(request.specs)
    index = (
        pd.Index([key[0] for key in keys], name=names[0])
        if len(names) == 1
        else pd.MultiIndex.from_tuples([(*key[n:], *key[:n]) for key in keys], names=[*request.by, *request.specs])
    )
    table = pd.DataFrame({"estimate": value, "se": error, "lower": low, "upper": high}, index=index)
    if request.type == "link" and record.specification.link != "identity":
        notes = (*notes, f"on the scale of the linear predictor ({record.specification.link})")
    labels = tuple(" ".join(str(part) for part in key[:n]) for key in keys)
    groups = tuple(tuple(key[n:]) for key in keys)
    return MarginalMeans(table, eta, covariance, labels, groups, request.by, request.type, request.level, notes, record)
