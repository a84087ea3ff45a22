"""Profile likelihood intervals of a finished fit: its rows once more, and what is told of limits that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError, closest
from daskglm.inference import distributions
from daskglm.inference.profile import Limit, profile_limits
from daskglm.model.likelihoods import Information
from daskglm.postestimation.revisit import Visit
from daskglm.record import FitRecord
from daskglm.solvers.newton import curvature
from daskglm.solvers.objective import Curvature, Objective, Point

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Passes a search takes about: the optimum's own, and two to eight of candidates.
PASSES = 6
# A decrement at the reported coefficients that is more than rounding and tolerances explain.
NOT_THE_OPTIMUM = 1e-4


@final
@dataclass(frozen=True)
class Profile:
    """Limits (m, 2) of the named parameters, what is to be said of some, and the passes they took."""

    names: tuple[str, ...]
    limits: Matrix
    notes: tuple[str, ...]
    passes: int


def profile_intervals(
    record: FitRecord, data: Any, level: float, params: Any = None, dist: distributions.Name | None = None
) -> Profile:
    """Limits where 2 (l_max - l_profile(b)) / phi is the squared quantile of a distribution, by default that of
    the test of a coefficient.
    """
    _refuse(record)
    names = chosen(record, params)
    quantile = distributions.quantile(record.statistics, level, dist)
    phi = record.statistics.scale
    if not (np.isfinite(quantile) and np.isfinite(phi) and phi > 0.0):
        raise DesignError("the dispersion cannot be estimated, so there is no likelihood ratio to invert")
    places = [record.names.index(name) for name in names]
    usual = [j for j in places if np.isfinite(record.coefficients[j])]
    found: dict[int, tuple[Limit, Limit]] = {}
    passes = 0
    rows_left_out: tuple[str, ...] = ()
    if usual:
        with Visit(record, data, passes=PASSES) as visit:
            objective = Objective(blocks_of(visit), visit.model, record.design.intercept)
            point, curved = at_optimum(objective, visit.coef, phi)
            rows = functions(record, usual)
            ends = profile_limits(objective, point, curved, rows, quantile, phi, point.sums.n)
            found = dict(zip(usual, ends, strict=True))
            passes, rows_left_out = visit.passes, visit.notes
    limits = np.full((len(names), 2), np.nan)
    notes: list[str] = []
    for k, (name, j) in enumerate(zip(names, places, strict=True)):
        if j in found:
            limits[k] = [end.value for end in found[j]]
            notes += [note for end, side in zip(found[j], SIDES, strict=True) if (note := _note(name, side, end))]
        elif np.isinf(record.coefficients[j]):
            limits[k, int(record.coefficients[j] > 0.0)] = record.coefficients[j]
            notes.append(f"{name} is infinite (separated): its finite limit is not computed")
    if record.shape:
        notes.append(f"{' and '.join(record.shape)} held at the estimate")
    return Profile(names, limits, (*notes, *rows_left_out), passes)


SIDES = ("lower", "upper")


def _note(name: str, side: str, end: Limit) -> str:
    return {
        "found": "",
        "infinite": f"{name} has no {side} limit: the likelihood stays above that of one",
        "boundary": f"the {side} limit of {name} lies at the boundary of the possible means and is not computed",
        "open": f"the search for the {side} limit of {name} did not end",
    }[end.status]


def _refuse(record: FitRecord) -> None:
    weights = record.specification.weights
    if weights is not None and weights[0] == "probability":
        raise DesignError(
            "with probability weights there is no likelihood to profile: use Wald intervals or bootstrap()"
        )
    if record.status == "boundary":
        raise DesignError(
            "the optimum lies on the boundary of the possible means, where likelihood ratios have other distributions: "
            "there are no profile intervals"
        )
    if not record.converged:
        raise DesignError("the fit has not converged: there is no maximum to measure a likelihood ratio from")


def chosen(record: FitRecord, params: Any) -> tuple[str, ...]:
    """The parameters that are meant: all, or those named."""
    if params is None:
        return record.names
    names = (params,) if isinstance(params, str) else tuple(params)
    for name in names:
        if name not in record.names:
            raise DesignError(f"the model has no parameter {name!r}{closest(str(name), record.names)}")
    return names


def functions(record: FitRecord, places: Sequence[int]) -> list[Vector]:
    """Reported parameters as functions of the arithmetic's own coefficients: a (p,) with b_j = a'own."""
    parameters = record.parameters
    matrix = np.empty((parameters.n, parameters.n))
    for k in range(parameters.n):
        one = np.zeros(parameters.n)
        one[k] = 1.0
        matrix[:, k] = parameters.coefficients(one)
    return [matrix[j] for j in places]


def at_optimum(
    objective: Objective, coef: Vector, phi: float, kinds: tuple[Information, ...] = ("observed", "expected")
) -> tuple[Point, Curvature]:
    """The objective at the reported coefficients with its information factored, the first of those kinds that is positive
    definite; DesignError where they are no optimum of these data.
    """
    for information in kinds:
        point = objective.evaluate(coef, 2, information)
        found = curvature(objective, point, None)
        if found.definite:
            break
    require_optimum(point, found, phi)
    return point, found


def require_optimum(point: Point, found: Curvature, phi: float) -> None:
    """DesignError where a point is no optimum of the data."""
    # an aliased column's coefficient is zero, and its gradient no sign of anything
    uphill = np.where(found.kept, point.gradient, 0.0)
    if not float(uphill @ found.solve(uphill)) <= NOT_THE_OPTIMUM * phi:
        raise DesignError(
            "the likelihood of these data is not at its maximum at the reported coefficients: the data are not those of the "
            'fit, its bias was reduced (separation="firth"), or a mean is at the boundary of the possible ones'
        )


def blocks_of(visit: Visit) -> Any:
    """The rows of a visit as the partitions that an objective sums over."""
    return _Blocks(visit)


@final
class _Blocks:
    def __init__(self, visit: Visit) -> None:
        self.visit = visit

    @property
    def passes(self) -> int:
        """Passes over the rows."""
        return self.visit.passes

    def total(self, function: Any, *args: Any) -> Any:
        """The sum over leaves of function(block, *args)."""
        return self.visit.total(function, *args)
