"""The coefficients of one response, and what is estimated beside them: pilots, rounds, and the search itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm import choices
from daskglm.conclude import Beside
from daskglm.design import formula
from daskglm.design.design import Design
from daskglm.design.parameters import Parameters
from daskglm.errors import DesignError, SolverError
from daskglm.inference.shape import Approach, Estimate, approach, estimate, with_coefficients
from daskglm.model.likelihoods import GLM
from daskglm.model.pairs import likelihood_of
from daskglm.model.shapes import Shape, shape_of
from daskglm.model.weights import Frequency, Probability
from daskglm.partitions import Partitions
from daskglm.plan import DEFAULT_TOL, Plan, Start
from daskglm.separation import Solution, solve
from daskglm.solvers.driver import FLOOR, Held, Optimum, Stopping, minimise
from daskglm.solvers.firth import minimise_bias
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Objective
from daskglm.solvers.pilot import STAGES, first_guess, pilot
from daskglm.solvers.separation import Watch
from daskglm.totals.moments import AnyModel, Model, Request
from daskglm.totals.vector import class_model

Vector = npt.NDArray[np.float64]

# Below this a pass costs less than the pilot's book-keeping.
PILOT_ROWS = 200_000
# With fewer rows of the sample per column its optimum is far from that of all rows, and its factors cost as much.
ROWS_PER_COLUMN = 20
SMALL_DATA_GOAL = 1e-20
# Coefficients and the parameters beside them are solved in turn at most so often.
MAX_ROUNDS = 30
# From an optimum on the boundary of the possible means, the next search begins this part of the way back inside.
OFF_THE_BOUNDARY = 0.01
# Decrements of the parameters beside: the squared distance to their maximum in standard errors.
# It is asked for where passes cost nothing, and this where they do; below UNSEEN a step is right to the square of that.
SHAPE_ENOUGH = 1e-16
SHAPE_TOLERANCE = 1e-12
SHAPE_UNSEEN = 1e-3
PILOT_ENOUGH = 1e-2
# Of a move of theirs where the coefficients are only known to the end of a path along the boundary.
BOUNDARY_ENOUGH = 1e-8
# A deviance that is this part of the null deviance is what rounding, or a mean at the boundary, leaves of a perfect fit.
PERFECT = 1e-10
SAMPLE_FRACTION = 0.1


def model_of(plan: Plan, design: Design) -> AnyModel:
    """What the totals need to know: the likelihood that the family, the link and the classes of the response make."""
    frequency = isinstance(plan.weights, Frequency)
    likelihood = likelihood_of(plan.family, plan.link, len(design.y_levels))
    select, width, scaling = design.select, design.width, design.scaling
    if isinstance(likelihood, GLM):
        sampling = isinstance(plan.weights, Probability)
        return Model(likelihood, select, width, scaling, frequency, sampling=sampling)
    return class_model(likelihood, select, width, scaling, frequency)


@final
@dataclass(frozen=True)
class Begin:
    """Where a search begins: coefficients, a Gram that may serve for the first step, how fast steps near by converge,
    whether it is on the boundary of the possible means, and which columns are known to be aliased.
    """

    coef: Any = None
    held: Held | None = None
    rate: float | None = None
    at_boundary: bool = False
    aliased: Any = None


@final
@dataclass(frozen=True)
class Estimated:
    """What came of it: the plan with the family as it was estimated, the solution, the null model, what is beside."""

    plan: Plan
    solution: Solution
    null: Null | None
    beside: Beside | None


@final
@dataclass(frozen=True)
class _Nearer:
    """Parameters beside the coefficients, and where their search goes on."""

    psi: Vector
    begin: Begin

    @staticmethod
    def of(found: Approach, aliased: Any = None) -> _Nearer | None:
        """Where steps in both sets have led, if there were any."""
        if found.curvature is None:
            return None
        return _Nearer(found.psi, Begin(found.coef, Held(found.curvature, 1.0, found.decrement), aliased=aliased))


@final
class Estimation:
    """One response's estimation under way.

    blocks: all rows; pilots: a sample of them or None; n rows; offset, weighted: whether there are offsets and weights;
    say: is told the name of each phase; told: the deviance after each pass; keep: partitions to be released at the end;
    mean_weight: mean of probability weights, 1 for other kinds.
    """

    def __init__(
        self,
        plan: Plan,
        design: Design,
        blocks: Partitions[Any],
        pilots: Partitions[Any] | None,
        n: int,
        *,
        offset: bool,
        weighted: bool,
        say: Callable[[str], None],
        told: Callable[[float], None] | None,
        keep: Callable[[Any], None],
        mean_weight: float = 1.0,
    ) -> None:
        self.mean_weight = mean_weight
        self.plan, self.design, self.blocks, self.pilots, self.n = plan, design, blocks, pilots, n
        self.offset, self.weighted, self.say, self.told, self.keep = offset, weighted, say, told, keep
        self.inner: Vector | None = None

    def run(self) -> Estimated:
        """The coefficients, and what is estimated beside them."""
        shape = shape_of(self.plan.family, self.plan.dispersion)
        if shape is not None and shape.moves_means:
            self.plan = replace(self.plan, family=shape.family(shape.start(1.0)))
        model, design = model_of(self.plan, self.design), self.design
        null = Null(model.likelihood, design.intercept, self.offset) if isinstance(model, Model) else None
        counting = not isinstance(model, Model)
        objective = Objective(self.blocks, model, design.intercept, on_pass=self.told, counting=counting)
        if shape is not None and shape.moves_means:
            solution, beside = self._in_turn(objective, null, shape)
            return Estimated(self.plan, solution, null, beside)
        solution = self._optimise(objective, design, null, self._begin(objective, null))
        return Estimated(self.plan, solution, null, None if shape is None else self._dispersion(solution, shape))

    def _begin(self, objective: Objective, null: Null | None) -> Begin:
        """Where the sample's optimum is, as far as the sample is of help."""
        if self.pilots is None or self._is_small(objective):
            return Begin()
        self.say("pilot")
        found = pilot(self.pilots, objective.model, self.design.intercept, null, self.n)
        return Begin() if found is None else Begin(found.coef, found.held)

    def _is_small(self, objective: Objective) -> bool:
        """Whether a pass over all rows costs less than a pilot is worth."""
        return self.n < PILOT_ROWS or SAMPLE_FRACTION * self.n < ROWS_PER_COLUMN * objective.n_coefficients

    def _optimise(self, objective: Objective, design: Design, null: Null | None, begin: Begin) -> Solution:
        """The optimum of one family; where it is infinite, as the plan says."""
        plan, start = self.plan, begin.coef
        if start is None:
            self.say("start")
            self.inner = start = self._start(objective, design, null)
        if null is not None and null.iterates and null.waiting:
            null.start(objective.sums(Request(None, order=0, means=True)))
            null.fit(objective.blocks, objective.model)
        self.say("pass")
        stopping = self._stopping()
        # scores and Grams carry the unit of probability weights, and so does the dispersion they are measured by
        known = plan.family.dispersion * self.mean_weight if plan.family.dispersion_known else None
        quadratic = objective.model.likelihood.quadratic

        def search(target: Objective, where: Vector, watch: Watch | None, again: bool) -> Optimum:
            if plan.separation == "firth":
                return minimise_bias(target, where, stopping, null)
            other = (lambda: first_guess(target, null)) if self.pilots is not None or again else None
            return minimise(
                target, where, stopping, null=null, dispersion=known, quadratic=quadratic, meat=plan.meat,
                held=None if again else begin.held, rate=begin.rate, at_boundary=begin.at_boundary,
                fallback=other, watch=watch, aliased=None if again else begin.aliased,
            )  # fmt: skip

        if not isinstance(objective.model, Model):
            return choices.solve(objective, Parameters(design, plan.family.response), start, search, plan.separation)
        assert null is not None
        return solve(objective, design, null, start, search, plan.separation, self.keep)

    def _in_turn(self, objective: Objective, null: Null | None, shape: Shape) -> tuple[Solution, Beside]:
        """Coefficients and the parameters beside them, in turn until neither moves.

        The two are orthogonal in expectation, so that each round leaves the square of what the one before left. A sample,
        or all rows where there are few, finds the neighbourhood.
        """
        psi, begin, design = shape.start(1.0), Begin(), self.design
        if self.pilots is not None and not self._is_small(objective):
            self.say("pilot")
            psi, begin = self._shape_pilot(self.pilots, null, shape, psi)
            if begin.coef is not None and not shape.costly and self.plan.separation != "firth":
                self.say("pass")
                near = _Nearer.of(approach(objective, begin.coef, psi, shape, SHAPE_TOLERANCE))
                psi, begin = (psi, begin) if near is None else (near.psi, near.begin)
        solution: Solution | None = None
        before = np.inf
        for _ in range(MAX_ROUNDS):
            self.plan = replace(self.plan, family=shape.family(psi))
            objective = replace(objective, model=self._with_family(objective.model, null), reference=None)
            found = self._optimise(objective, design, null, begin)
            solution = found if solution is None else solution.followed(found)
            objective, design, optimum = solution.objective, solution.design, solution.optimum
            held = Held(optimum.curvature, 1.0, optimum.decrement)
            begin = Begin(optimum.point.coef, held, optimum.rate, aliased=optimum.aliased)
            if optimum.status == "boundary":
                begin = Begin(self._off_the_boundary(optimum.point.coef), at_boundary=True)
            if optimum.point.sums.statistics is not None and not optimum.point.sums.statistics.n:
                nothing, unknown = np.full(psi.size, np.nan), np.full((psi.size, psi.size), np.nan)
                here = Estimate(psi, np.nan, nothing, unknown, np.zeros(psi.size, bool))
                break
            if "dispersion" in shape.names and _is_perfect(optimum):
                raise SolverError(
                    f"the fit is perfect, and {' and '.join(shape.names)} have no estimate: give power=, or leave terms out"
                )
            here, nearer = self._beside(objective, optimum, shape, psi)
            if here.held.all() and bool(shape.held(psi, here.gradient).all()):
                break
            still = bool((here.psi == psi).all()) and nearer is None
            enough = SHAPE_ENOUGH if self._is_small(objective) else SHAPE_TOLERANCE
            if still and (here.decrement <= enough or (0.5 * before <= here.decrement <= FLOOR)):
                break
            moved = here.psi - psi
            if optimum.status == "boundary" and -float(moved @ here.hessian @ moved) <= BOUNDARY_ENOUGH:
                break
            if nearer is not None:
                before, psi, begin = here.decrement, nearer.psi, nearer.begin
                continue
            before = here.decrement
            psi = here.psi
        else:
            reason = (
                f"coefficients and {' and '.join(shape.names)} were estimated in turn {MAX_ROUNDS} times and still move "
                f"(decrement {here.decrement:.3g}): the data hardly tell {shape.names[0]}; give it, or leave terms out"
            )
            assert solution is not None
            solution = replace(solution, optimum=replace(solution.optimum, status="max_iter", reason=reason))
        assert solution is not None
        if shape.joint and here.lost is None and np.isfinite(here.value):
            here = with_coefficients(here, solution.objective, solution.optimum, shape)
        return solution, Beside(shape, here)

    def _beside(
        self, objective: Objective, optimum: Optimum, shape: Shape, psi: Vector
    ) -> tuple[Estimate, _Nearer | None]:
        """What psi is at the coefficients of an optimum; where both sets of parameters can be brought nearer together, also
        to where.
        """
        coef, model = optimum.point.coef, objective.model
        enough, unseen = (SHAPE_ENOUGH, 0.0) if self._is_small(objective) else (SHAPE_TOLERANCE, SHAPE_UNSEEN)
        if optimum.status != "boundary" and self.plan.separation != "firth" and not optimum.curvature.doubtful:
            near = approach(objective, coef, psi, shape, enough, optimum.aliased)
            if near.begun is not None and (near.curvature is not None or near.begun.decrement <= enough):
                return near.begun, _Nearer.of(near, optimum.aliased)
        found = estimate(objective.blocks, model, coef, shape, psi, enough, unseen)
        return found, None

    def _off_the_boundary(self, coef: Vector) -> Vector:
        """A little way back to where the first search began: possible means lie between two that are."""
        if self.inner is None or self.inner.shape != coef.shape:
            return coef
        return coef + OFF_THE_BOUNDARY * (self.inner - coef)

    def _with_family(self, model: AnyModel, null: Null | None) -> AnyModel:
        """The model with the family that the plan has now."""
        assert isinstance(model, Model)
        changed = replace(model, likelihood=GLM(self.plan.family, self.plan.link))
        if null is not None:
            null.change(changed.likelihood)
        return changed

    def _shape_pilot(
        self, pilots: Partitions[Any], null: Null | None, shape: Shape, psi: Vector
    ) -> tuple[Vector, Begin]:
        """psi and coefficients near the optimum, from the sample."""
        model = model_of(replace(self.plan, family=shape.family(psi)), self.design)
        if null is not None:
            null.change(model.likelihood)
        found = pilot(pilots, model, self.design.intercept, null, self.n)
        if found is None:
            return shape.start(1.0), Begin()
        # a part of the sample finds the neighbourhood, all of it the place
        psi = estimate(pilots, model, found.coef, shape, psi, PILOT_ENOUGH, fraction=STAGES[0][0]).psi
        fraction, ridge = STAGES[-1]
        near = Objective(pilots, model, self.design.intercept, ridge, fraction)
        place = approach(near, found.coef, psi, shape, PILOT_ENOUGH)
        return place.psi, Begin(place.coef, found.held)

    def _dispersion(self, solution: Solution, shape: Shape) -> Beside:
        """The dispersion of greatest likelihood at the coefficients, which do not depend on it."""
        objective, optimum = solution.objective, solution.optimum
        stats = optimum.point.sums.statistics
        assert stats is not None
        mean = stats.deviance / (self.mean_weight * stats.observations)
        closed = self.plan.family.ml_dispersion(mean, self.weighted)
        phi = mean if closed is None else closed
        if not phi > 0:
            raise SolverError('the fit is perfect: dispersion="ml" has no finite estimate')
        begin = shape.start(phi)
        found = estimate(objective.blocks, objective.model, optimum.point.coef, shape, begin, SHAPE_ENOUGH)
        return Beside(shape, found)

    def _stopping(self) -> Stopping:
        # Where a pass costs nothing, the search goes on to the last digit unless a looser tolerance is given.
        goal = SMALL_DATA_GOAL if self.plan.tol <= DEFAULT_TOL and self.n < PILOT_ROWS else None
        return Stopping(self.plan.tol, self.plan.max_iter, goal)

    def _start(self, objective: Objective, design: Design, null: Null | None) -> Vector:
        if self.plan.start is not None:
            return _given_start(self.plan.start, Parameters(design, self.plan.family.response))
        quadratic = objective.model.likelihood.quadratic
        return np.zeros(objective.n_coefficients) if quadratic else first_guess(objective, null)


def _is_perfect(optimum: Optimum) -> bool:
    """Whether the model leaves nothing for a dispersion."""
    stats = optimum.point.sums.statistics
    return stats is not None and stats.deviance <= PERFECT * abs(stats.null_deviance)


def _given_start(start: Any, parameters: Parameters) -> npt.NDArray[np.float64]:
    """start= on the user's scale to the scaled columns."""
    names = parameters.names
    if isinstance(start, Start):
        known = {name: value for name, value in zip(start.names, start.values, strict=True) if name in names}
        if not known:
            more = ", ..." if len(names) > 10 else ""
            raise DesignError(
                "start= is a fit that shares no parameter with this model, whose parameters are "
                f"{', '.join(names[:10])}{more}"
            )
        vector = np.array([known.get(name, 0.0) for name in names])
    elif hasattr(start, "keys"):
        values = dict(start)
        formula.require_columns(values, dict.fromkeys(names), "start=")
        vector = np.array([float(values.get(name, 0.0)) for name in names])
    else:
        vector = np.asarray(start, np.float64)
    if vector.shape != (len(names),):
        raise DesignError(f"start= has {vector.size} values for {len(names)} parameters")
    return parameters.own(np.nan_to_num(vector))
