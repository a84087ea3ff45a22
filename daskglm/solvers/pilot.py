"""A start from growing samples, so that few passes see all rows.

A sample of n_s rows leaves a Newton decrement of about p n / n_s on all n. Rare levels may have no events in it: a small
ridge, a few pseudo-observations per column, keeps their coefficients from running away.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.errors import SolverError
from daskglm.kernels.bordered import diagonal_of, factor_any, plus_diagonal
from daskglm.partitions import Partitions
from daskglm.solvers.driver import Held, descend
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Objective
from daskglm.totals.moments import AnyModel, Request, moments

Vector = npt.NDArray[np.float64]

# (fraction of the sample, ridge): the first stage finds the neighbourhood cheaply, the second the place.
STAGES = ((0.1, 3.0), (1.0, 1.0))
# A stage need not be solved better than its own sampling error, which is about p in its own decrement.
ENOUGH = 0.5
MAX_STEPS = 15


def first_guess(objective: Objective, null: Null | None) -> Vector:
    """Coefficients at which every mean is possible: one weighted least squares step from the response itself, as
    R's glm.fit; where that leaves the domain, the mean of y for every row. Of classes (null None): their shares.
    """
    if null is None:
        sums = objective.sums(Request(None, order=0, means=True, fraction=objective.fraction))
        return objective.model.flat(objective.model.likelihood.start(sums.null), objective.intercept)
    request = Request(None, start=True, fraction=objective.fraction)
    sums = objective.sums(request)
    gram = objective.model.information(sums.tables)
    assert gram is not None
    p = objective.n_coefficients
    ridge = max(objective.ridge, 1e-12 * float(np.mean(diagonal_of(gram))) if p else 0.0)
    gram = plus_diagonal(gram, np.full(p, ridge))
    guess = factor_any(gram).solve(objective.model.gradient(sums))
    # where means end at a boundary, a guess right at it is as bad as one beyond: towards the middle, then
    bordered = bool(objective.model.likelihood.bordered)
    if not bordered and np.isfinite(objective.evaluate(guess, order=0).loss):
        return guess
    center = null.at_mean(objective.sums(Request(None, order=0, means=True, fraction=objective.fraction)))
    flat = np.zeros(objective.n_coefficients)
    if objective.intercept:
        flat[0] = center
    else:
        # without an intercept, the combination of columns nearest to a constant
        request = Request(None, start=True, center=center, fraction=objective.fraction)
        flat = factor_any(gram).solve(objective.model.gradient(objective.sums(request)))
    for toward in (*((0.9,) if bordered else ()), 0.5, 0.1, 0.0) if np.isfinite(flat).all() else ():
        trial = flat + toward * (guess - flat)
        if np.isfinite(objective.evaluate(trial, order=0).loss):
            return trial
    if bordered and np.isfinite(objective.evaluate(guess, order=0).loss):
        return guess
    raise SolverError(
        "no start was found at which every mean is possible: give start=, or a link whose inverse covers the range of "
        f"the {objective.model.likelihood.family.name} family"
    )


@final
class Pilot:
    """Where the sample's optimum is, and its Gram scaled to all rows."""

    def __init__(self, coef: Vector, held: Held | None) -> None:
        self.coef, self.held = coef, held


def pilot(
    sample: Partitions[Any], model: AnyModel, intercept: bool, null: Null | None, n: int, near: Vector | None = None
) -> Pilot | None:
    """Solve on the sample in stages; None where the sample is of no help. n: rows of all the data; near: coefficients of a
    model close by, from which the last stage is enough.
    """
    coef = near
    result = None
    for fraction, ridge in STAGES if near is None else STAGES[-1:]:
        objective = Objective(sample, model, intercept, ridge, fraction)
        try:
            start = first_guess(objective, null) if coef is None else coef
        except SolverError:
            return None
        found = descend(objective, start, ENOUGH, MAX_STEPS)
        if found is None:
            return None
        point, result = found
        coef = point.coef
        rows = point.sums.n
    if null is not None and null.iterates:
        null.start(sample.total(moments, model, Request(None, order=0, means=True)))
        # its steps on all rows finish what a part of the sample begins
        null.fit(sample, model, STAGES[0][0])
    if coef is None or result is None or rows == 0:
        return None
    held = Held(result, n / rows) if rows >= 20 * coef.size else None
    if null is not None:
        null.begin_again()
    return Pilot(coef, held)
