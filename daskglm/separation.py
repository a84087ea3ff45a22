"""What is done about an infinite optimum: the rows that go to their limit are set aside, and the others fitted alone.

The supremum of the likelihood is reached along b + t d as t grows. Rows that the direction d moves go to the end of their
range, where they cost nothing more; all other rows have the linear predictor x'b for every t, so that b is their own
optimum (Geyer 2009, Electronic Journal of Statistics 3, 259-289, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from daskglm.design.design import Design
from daskglm.design.parameters import Parameters
from daskglm.errors import SolverError
from daskglm.kernels.bordered import factor_any
from daskglm.kernels.products import Gram
from daskglm.record import Separation
from daskglm.solvers import separation as certificates
from daskglm.solvers.driver import Optimum, Step
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Objective
from daskglm.totals.moments import FitStats
from daskglm.totals.separation import Move, Remaining, Separated

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# What is left of a coefficient of a direction that cancels to this part of its terms is rounding; whether the direction
# does the same without it is looked at.
TIDY = 1e-7
# Terms that cancel, in the last digits of a double.
CANCELLED = 1e-13
MOST_NAMES = 10
NOBODY = FitStats(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0)

REMEDY = 'leave the term out, join levels, or use separation="limit", or what else there is for the family'
AT_LIMIT = "these are fitted at the limit, and all else is that of the other rows"


class Search(Protocol):
    """An ordinary minimiser: the optimum of an objective from a start; again: of the rows that are left."""

    def __call__(
        self, objective: Objective, start: Vector, watch: certificates.Watch | None, again: bool, /
    ) -> Optimum: ...


@final
@dataclass(frozen=True)
class Solution:
    """An optimum with the objective and the design it belongs to; where it is infinite, both are those of the rows left.

    directions: of the scaled coefficients, each (p,), in the order in which they decide; at_limit: sums over the rows
    that they move. kind: "number", "classes" or "ordered", of the response; dropped: whether those rows are as if they had
    not been there.
    """

    objective: Objective
    design: Design
    optimum: Optimum
    directions: tuple[Vector, ...] = ()
    at_limit: FitStats = NOBODY
    kind: str = "number"
    dropped: bool = False

    @property
    def parameters(self) -> Parameters:
        """How the coefficients are reported."""
        return Parameters(self.design, self.kind)

    def infinite(self) -> Vector:
        """The sign of every infinite coefficient, 0 for the others (r,), as they are reported."""
        if not self.directions or self.dropped:
            return np.zeros(self.objective.n_coefficients)
        return _signs(self.parameters, self.directions)

    def followed(self, later: Solution) -> Solution:
        """This, and what was found of the rows that it left."""
        return replace(later, directions=self.directions + later.directions, at_limit=self.at_limit + later.at_limit)

    def record(self) -> Separation | None:
        """What predictions need."""
        if not self.directions:
            return None
        parameters = self.parameters
        return Separation(
            self.at_limit.n,
            np.array([_reported(parameters, direction) for direction in self.directions]),
            parameters.coefficients(self.optimum.point.coef),
            self.dropped,
        )


def solve(
    objective: Objective,
    design: Design,
    null: Null,
    start: Vector,
    search: Search,
    treatment: str,
    keep: Callable[[Any], None],
) -> Solution:
    """The optimum; where it is infinite, as `treatment` says: "limit", "drop" (without the separated rows, as if they had
    not been there) or "raise"; "firth" is for the search to do. keep: told of the partitions of what is left.
    """
    steps: tuple[Step, ...] = ()
    directions: tuple[Vector, ...] = ()
    at_limit = NOBODY
    watched = objective.model.likelihood.separable
    whole: Gram | None = None
    while True:
        watch = certificates.Watch(objective) if watched and treatment != "firth" else None
        optimum = search(objective, start, watch, bool(steps))
        steps += optimum.steps
        found = optimum.separation
        if found is None:
            done = replace(optimum, steps=steps)
            return Solution(objective, design, done, directions, at_limit, dropped=treatment == "drop")
        assert isinstance(found, certificates.Separation)
        rest: Gram = found.rest
        whole = rest + found.moving if whole is None else whole
        before = design
        objective, design, direction, gone = _settled(objective, design, found, rest, whole, treatment != "drop")
        if design is not before:
            directions = tuple(_moved_over(objective, whole, before.select, design.select, d) for d in directions)
        if treatment == "raise":
            signs = _signs(Parameters(design), (direction,))
            names = [name for name, sign in zip(design.names, signs, strict=True) if sign]
            raise SolverError(f"{sentence(names, gone.allowed)}; {REMEDY}")
        coded = dict.fromkeys(name for piece in design.pieces for name in piece.coded)
        if treatment == "drop" and coded:
            raise SolverError(
                f'{sentence(design.names, gone.allowed)}; separation="drop" takes levels away, and '
                f"the contrasts of {', '.join(coded)} are of all levels: use Treatment, or "
                'separation="limit"'
            )
        if treatment == "drop" and not rest.squares().any():
            raise SolverError(f'{sentence(design.names, gone.allowed)}; separation="drop" leaves no row')
        start = _moved_over(objective, rest, before.select, design.select, optimum.point.coef)
        model: Any = objective.model
        blocks = objective.blocks.consumed(Remaining(model, Move(direction)))
        keep(blocks)
        objective = replace(objective, blocks=blocks, reference=None)
        null.begin_again()
        at_limit = at_limit + gone.statistics
        directions = (*directions, direction)


def sentence(names: Sequence[str], rows: int) -> str:
    """Which parameters are infinite, and why."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (
        f"no finite estimate exists for {', '.join(names[:MOST_NAMES])}{more}: the likelihood rises for ever as the "
        f"means of {rows:,} row(s) go to the end of their range, where their responses are"
    )


def _signs(parameters: Parameters, directions: tuple[Vector, ...]) -> Vector:
    result = np.zeros(parameters.n)
    for direction in directions:
        result = np.where(result == 0.0, np.sign(_reported(parameters, direction)), result)
    return result


def _reported(parameters: Parameters, direction: Vector) -> Vector:
    """A direction on the user's scale (r,), 0 where an intercept keeps nothing but rounding of what columns are shifted by."""
    found = parameters.coefficients(direction)
    return np.where(np.abs(found) <= CANCELLED * parameters.terms(direction), 0.0, found)


def _settled(
    objective: Objective,
    design: Design,
    found: certificates.Separation,
    rest: Gram,
    whole: Gram,
    rebase: bool,
) -> tuple[Objective, Design, Vector, Separated]:
    """A certificate in the plainest terms that do the same: with baselines among the rows that are left, and without
    coefficients that are rounding. Each attempt is confirmed by a pass.
    """
    other = _rebased(design, rest.squares()) if rebase else design
    attempts = [(other, True)] + ([(design, True)] if other is not design else []) + [(design, False)]
    for chosen, tidy in attempts:
        model: Any = objective.model
        target = replace(objective, model=replace(model, select=chosen.select))
        direction = found.direction
        if chosen is not design:
            direction = _moved_over(objective, whole, design.select, chosen.select, direction)
        if tidy:
            direction = _tidied(chosen, direction, whole.squares()[chosen.select])
        gone = certificates.confirmed(target, direction)
        if not gone.forbidden and gone.allowed >= found.rows:
            break
    return target, chosen, direction, gone


def _rebased(design: Design, rest: Vector) -> Design:
    """The design with the first level that has rows left as baseline, for every factor whose baseline has none.

    rest (width,): squares of the raw columns summed over the rows that are left.
    """
    baselines, notes = {}, []
    for name, rows in design.by_level(rest).items():
        old = design.baselines[name]
        if rows[old] > 0.0 or not rows.any():
            continue
        baselines[name] = new = int(np.flatnonzero(rows)[0])
        levels = design.levels[name]
        notes.append(
            f"{name}: the baseline is {levels[new]}, for {levels[old]} has no row that a finite estimate could come from"
        )
    return design.rebased(baselines, notes) if baselines else design


def _moved_over(objective: Objective, tables: Gram, before: Any, after: Any, vector: Vector) -> Vector:
    """The same linear predictor by other columns: least squares by the unit Gram of the raw
    columns.
    """
    model: Any = objective.model
    inner = factor_any(replace(model, select=after).information(tables))
    if np.array_equal(before, after) and inner.kept.all():
        return vector
    whole = replace(model, select=np.arange(model.width))
    raw = np.zeros(model.width)
    raw[before] = vector
    return inner.solve(np.where(inner.kept, (whole.information(tables) @ raw)[after], 0.0))


def _tidied(design: Design, direction: Vector, squares: Vector) -> Vector:
    """Without coefficients on the user's scale that are rounding; squares (p,): of the scaled columns, summed."""
    unscaling = design.unscaling()
    user = unscaling.coefficients(direction)
    size = np.abs(direction) * np.sqrt(squares)
    tiny = size <= TIDY * size.max(initial=0.0)
    if design.intercept:
        terms = np.abs(direction[0]) + np.abs(unscaling.shift) @ np.abs(direction)
        tiny[0] = np.abs(user[0]) <= TIDY * terms or np.abs(user[0]) * np.sqrt(squares[0]) <= TIDY * size.max()
    return unscaling.inverse().coefficients(np.where(tiny, 0.0, user))
