"""What is done about an infinite optimum of a response of classes: some classes become impossible in some rows.

The supremum of the likelihood is reached along b + t d as t grows. In a row in which d takes the linear predictor of one
class further than that of another, the other becomes impossible; among the classes that stay possible, probabilities are
those of b for every t, so that b is the optimum of a likelihood in which each row chooses among those alone. Rows stay: a
row that cannot be of one class still tells the others apart. The same again at the limit, until an optimum is finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from daskglm.design.parameters import Parameters
from daskglm.errors import SolverError
from daskglm.separation import MOST_NAMES, NOBODY, TIDY, Search, Solution
from daskglm.solvers import separation as certificates
from daskglm.solvers.driver import Step
from daskglm.solvers.objective import Objective
from daskglm.totals.vector import Limit

Vector = npt.NDArray[np.float64]

REMEDY = 'leave the term out, join levels or classes, or use separation="limit"'
AT_LIMIT = "these are fitted at the limit, and all else from the classes that stay possible"


def solve(objective: Objective, parameters: Parameters, start: Vector, search: Search, treatment: str) -> Solution:
    """The optimum; where it is infinite, as `treatment` says: "limit" or "raise"."""
    steps: tuple[Step, ...] = ()
    directions: tuple[Vector, ...] = ()
    notes: tuple[str, ...] = ()

    def tidy(direction: Vector, squares: Vector) -> Vector:
        return tidied(parameters, direction, squares)

    patience = certificates.SUSPICIOUS
    while True:
        watch = certificates.Watch(objective, tidy, patience)
        optimum = search(objective, start, watch, bool(directions))
        steps += optimum.steps
        found = optimum.separation
        if found is None:
            statistics = optimum.point.sums.statistics
            assert statistics is not None
            design = replace(parameters.design, notes=(*parameters.design.notes, *notes))
            at_limit = replace(NOBODY, n=statistics.limited)
            return Solution(
                objective, design, replace(optimum, steps=steps), directions, at_limit, kind=parameters.kind
            )
        if isinstance(found, certificates.Counted):
            limits = found.limits
            notes += tuple(_baseline_note(parameters, *one) for one in found.baselines)
        else:
            limits, patience = (Limit(found.direction),), certificates.AGAIN
        directions += tuple(limit.direction for limit in limits)
        model: Any = objective.model
        objective = replace(
            objective, model=replace(model, limits=(*model.limits, *limits)), silent=found.silent, reference=None
        )
        if treatment == "raise":
            moving = Solution(objective, parameters.design, optimum, directions, kind=parameters.kind).infinite()
            names = [name for name, sign in zip(parameters.names, moving, strict=True) if sign]
            raise SolverError(f"{sentence(names, certificates.limited(objective, found.start))}; {REMEDY}")
        start = found.start


def sentence(names: Sequence[str], rows: int) -> str:
    """Which parameters are infinite, and why."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (
        f"no finite estimate exists for {', '.join(names[:MOST_NAMES])}{more}: the likelihood rises for ever as classes "
        f"become impossible in {rows:,} row(s), none of which is of such a class"
    )


def tidied(parameters: Parameters, direction: Vector, squares: Vector) -> Vector:
    """Without coefficients on the user's scale that are rounding; squares (r,): of the scaled columns, summed."""
    size = np.abs(direction) * np.sqrt(np.maximum(squares, 0.0))
    least = TIDY * size.max(initial=0.0)
    user, terms = parameters.coefficients(direction), parameters.terms(direction)
    # on the user's scale the intercepts gather what shifted columns leave, and what is left of that may be rounding
    own = np.abs(user) * parameters.reported(np.sqrt(np.maximum(squares, 0.0)))
    gathers = terms > np.abs(user)
    tiny = np.where(gathers, (np.abs(user) <= TIDY * terms) | (own <= least), parameters.reported(size) <= least)
    return parameters.own(np.where(tiny, 0.0, user))


def _baseline_note(parameters: Parameters, column: int, k: int) -> str:
    """Of a level that has no column of its own, for which all others go to infinity."""
    level, label = parameters.design.level_name(column), parameters.classes[k]
    if parameters.kind == "ordered":
        return (
            f"every row of the baseline {level} is of class {label}, so that the thresholds and the coefficients of the "
            "other levels are infinite together, and only their differences are not"
        )
    return (
        f"class {label} does not occur at the baseline {level}, so that the intercept and the coefficients of the other "
        "levels are infinite in opposite directions, and only their sums are not"
    )
