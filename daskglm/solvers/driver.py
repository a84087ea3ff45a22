"""The one loop: evaluate, factor, step, halve where needed, stop, close.

The objective is the negative log-likelihood at phi = 1. At a point b with gradient g (uphill) and information H the
Newton decrement is g' H^-1 g, the squared distance to the optimum in standard errors times phi, and twice the decrease
that a full step promises (Boyd and Vandenberghe, Convex Optimization, 2004, section 9.5). Near the optimum it falls
quadratically, d' = c d^2, from which the next one is foreseen: when it will be below the tolerance, the next evaluation is
made the closing one, at which errors and statistics are reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, eigh

from daskglm.errors import SolverError
from daskglm.kernels.bordered import AnyGram, Bordered, dense, diagonal_of, factor_any, is_finite
from daskglm.model.likelihoods import Information
from daskglm.solvers.boundary import Inside, along_path, is_at_boundary
from daskglm.solvers.newton import curvature
from daskglm.solvers.null import Null
from daskglm.solvers.objective import Curvature, Objective, Point
from daskglm.solvers.separation import Counted, Separation, Watch, farthest

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Sums of rows carry about this relative rounding error; a change of the loss below it says nothing.
LOSS_NOISE = 1e-12
# Where the decrement no longer falls although it is this small, rounding has the last word.
FLOOR = 1e-6
# "No longer falls": a coefficient on its way to infinity takes its decrement down by a factor of e each step.
STUCK = 0.7
SLOWEST = 0.97
# A step that moves the linear predictor by less than this part of its own size is rounding, whatever the dispersion says:
# where the fit is perfect, that is rounding, too.
ROUNDING = 32.0 * float(np.finfo(np.float64).eps)
MAX_HALVINGS = 40
# Within this of the optimum the observed information is given another chance, and again each time that this part of the
# decrement is left: where it is positive definite its steps converge quadratically, those of the expected one only linearly.
NEAR = 1.0
ANOTHER_CHANCE = 0.03
# At an optimum no step moves a linear predictor by this much: the decrement bounds it, unless nothing holds it.
FAR = 0.1
# Eigenvalues of the observed information in units of the expected one below this are those of a saddle; from there, steps of
# so many standard errors are tried, so often.
BENT = 1e-6
AWAY = (1.0, 0.1, 0.01)
MAX_SADDLES = 3
# Steps by the size of those eigenvalues are no longer than so many of Fisher's.
LONG = 100.0
# So many steps are not those of an optimum inside the possible means.
MANY = 15
# So many steps to means that are not possible make it likely that the optimum lies on the boundary of those that are.
IMPOSSIBLE = 8


@final
@dataclass(frozen=True)
class Stopping:
    """tol: bound on the Newton decrement per unit dispersion at the reported coefficients; max_iter: steps; goal: what is
    aimed at where passes are cheap, and not insisted on.
    """

    tol: float = 1e-12
    max_iter: int = 100
    goal: float | None = None

    @property
    def aim(self) -> float:
        """The goal, or the tolerance itself."""
        return self.tol if self.goal is None else min(self.goal, self.tol)


@final
@dataclass(frozen=True)
class Step:
    """One line of the trace: loss and decrement per unit dispersion where the step began, halvings it took, and whether
    its direction came from the Gram of that very point (a Newton step) or from an earlier one.
    """

    loss: float
    decrement: float
    halvings: int
    newton: bool


@final
@dataclass(frozen=True)
class Optimum:
    """Where the loop ended: the closing point, its factored expected information, and how it went.

    status: "converged", "floor" (rounding stopped it, as close as float64 allows), "boundary" (it lies on that of the
    possible means), "max_iter", "stalled", "separated" (it is infinite, and the point is one on the way, without
    statistics: `separation` is the certificate);
    reason: a sentence with a remedy where it did not converge; aim: the decrement that the search aimed at, its tolerance or
    less.
    """

    point: Point
    curvature: Curvature
    aliased: npt.NDArray[np.bool_]
    decrement: float
    dispersion: float
    status: str
    reason: str
    steps: tuple[Step, ...]
    separation: Separation | Counted | None = None
    rate: float = np.inf
    aim: float = np.nan

    @property
    def converged(self) -> bool:
        """Whether the tolerance, or the floor of rounding, was reached."""
        return self.status in ("converged", "floor")


@final
@dataclass(frozen=True)
class Held:
    """A factored Gram from elsewhere that may serve for the first step: of a pilot, scaled to all rows; or of a model close
    by, with the decrement where it was taken.
    """

    curvature: Curvature
    scale: float
    decrement: float = np.inf


class _Loop:
    """State of one minimisation."""

    def __init__(
        self,
        objective: Objective,
        stopping: Stopping,
        null: Null | None,
        known: float | None,
        quadratic: bool,
        meat: bool,
        watch: Watch | None = None,
    ) -> None:
        self.objective, self.stopping, self.null, self.watch = objective, stopping, null, watch
        self.known, self.quadratic, self.meat = known, quadratic, meat
        self.information: Information = "observed"
        self.aliased: npt.NDArray[np.bool_] | None = None
        self.steps: list[Step] = []
        self.rate = 0.0 if quadratic else np.inf
        self.decrements: list[float] = []
        self.held_decrement = np.inf
        self.chance = NEAR
        self.refused = False
        self.impossible = 0
        self.inside: Inside | None = None
        self.start = np.zeros(0)
        self.saddles = 0

    # -- evaluation ------------------------------------------------------------------------------------------------

    def evaluate(self, coef: Vector, order: int = 2, closing: bool = False) -> Point:
        """One pass; a closing one takes the information that errors come from and all statistics."""
        null = self.null.candidate(closing) if self.null is not None else None
        information = self.objective.model.likelihood.reported if closing else self.information
        waiting = self.null is not None and self.null.waiting
        point = self.objective.evaluate(coef, order, information, null, closing, closing and self.meat, waiting)
        if self.null is not None and waiting:
            self.null.start(point.sums)
        elif self.null is not None and null is not None:
            self.null.learn(point.sums)
        return point

    def dispersion(self, point: Point) -> float:
        """The known dispersion, or the Pearson estimate, by which decrements are measured."""
        if self.known is not None:
            return self.known
        p = int(self.aliased.size - self.aliased.sum()) if self.aliased is not None else point.coef.size
        freedom = max(point.sums.n - p, 1)
        value = point.sums.pearson / freedom
        return value if np.isfinite(value) and value > 0 else np.finfo(float).tiny

    def factored(self, point: Point) -> tuple[Point, Curvature]:
        """The factor at a point; the expected information where the observed one will not do.

        Which columns are aliased is decided once.
        """
        found = curvature(self.objective, point, self.aliased)
        if self.aliased is None:
            self.aliased = found.aliased
            point = without_aliased(point, found)
        usable = found.definite and bool(found.kept[~self.aliased].all())
        if point.information == "observed" and not self.objective.model.likelihood.canonical:
            self.refused = not usable
        if point.information == "observed" and self.refused:
            self.information = "expected"
            bent = point.gram
            point = self.evaluate(point.coef)
            if len(self.steps) >= MANY:
                point = replace(point, gram=_by_size(bent, point.gram, self.aliased))
            found = curvature(self.objective, point, self.aliased)
        return point, found

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self, point: Point, held: Held | None) -> Optimum:
        """Step until the closing pass confirms the tolerance."""
        stopping = self.stopping
        self.start = point.coef
        closing = point.sums.statistics is not None
        found: Curvature | None = None
        scale = 1.0
        if held is not None and point.gram is None:
            found, scale, self.held_decrement = held.curvature, held.scale, held.decrement
        reason = ""
        while True:
            if point.gram is not None:
                point, found = self.factored(point)
                closing, scale = closing and point.sums.statistics is not None, 1.0
            assert found is not None
            direction = found.solve(point.gradient) / scale
            phi = self.dispersion(point)
            decrement = float(point.gradient @ direction) / phi
            self._learn_rate(decrement, point)
            still = self._is_rounding(point, decrement * phi)
            done = closing and (still or self._done(decrement))
            separation = self._separation(point, found, direction, decrement, done)
            if separation is not None:
                return self._optimum(point, found, decrement, phi, "separated", "", separation)
            if done and self._endless(found, direction):
                reason = self._without_end()
                break
            if done and self._is_held(point):
                if self.inside is None:
                    point, closing = self._from_inside(phi), True
                    continue
                reason = self._at_boundary(self.inside)
                break
            lower = self._from_saddle(point, phi) if done else None
            if lower is not None:
                point, closing = lower, False
                self.decrements.clear()
                continue
            if done:
                status = "converged" if decrement <= stopping.tol else "floor"
                return self._optimum(point, found, decrement, phi, status, "")
            if not np.isfinite(decrement) or len(self.steps) >= stopping.max_iter:
                reason = (
                    f"the optimum was not reached in {len(self.steps)} steps (decrement {decrement:.3g}, tolerance "
                    f"{stopping.tol:.3g}): raise max_iter, or look for separated or badly scaled columns"
                )
                break
            if decrement < self.chance:
                self.information, self.chance = "observed", min(self.chance, ANOTHER_CHANCE * decrement)
            order, closing = self._plan(decrement, point)
            closing = closing or still
            trial, halvings = self._search(point, direction, decrement * phi, order, closing)
            self.steps.append(Step(point.loss, decrement, halvings, point.gram is not None))
            if self._crossed():
                if self.inside is not None and self.inside.ended:
                    reason = self._at_boundary(self.inside)
                    break
                point, closing = self._from_inside(phi), True
                continue
            if trial is None:
                reason = (
                    f"no step lowers the loss (decrement {decrement:.3g}): the data may hold no finite optimum; "
                    "try another link, or start= closer to a possible mean"
                )
                break
            if halvings:
                self.decrements.clear()
            closing = trial.sums.statistics is not None
            point = trial
        return self._give_up(point, reason)

    def _from_saddle(self, point: Point, phi: float) -> Point | None:
        """Where the score vanishes and the loss still falls along some direction, a lower place along that."""
        if not self.refused or self.aliased is None or point.gram is None or self.saddles == MAX_SADDLES:
            return None
        self.information = "observed"
        observed = self.evaluate(point.coef)
        if isinstance(observed.gram, Bordered) and factor_any(observed.gram, self.aliased).definite:
            return None
        found = _relative(observed.gram, point.gram, self.aliased)
        if found is None or found[0][0] >= -BENT:
            return None
        self.saddles += 1
        along, noise = np.zeros_like(point.coef), LOSS_NOISE * (abs(point.loss) + 1.0)
        along[~self.aliased] = np.sqrt(phi) * found[1][:, 0]
        for size in AWAY:
            trials = [self.evaluate(point.coef + sign * size * along) for sign in (1.0, -1.0)]
            best = min(trials, key=lambda trial: trial.loss)
            if best.loss < point.loss - noise:
                return best
        return None

    def _is_rounding(self, point: Point, promised: float) -> bool:
        """Whether the next step is too small to be told from the rounding of eta, both in the norm of the information."""
        if point.gram is None:
            return False
        size = float(point.coef @ (point.gram @ point.coef))
        return 0.0 <= promised <= ROUNDING * ROUNDING * size

    def _done(self, decrement: float) -> bool:
        """At a closing point: below the tolerance, or small and no longer falling."""
        if decrement <= self.stopping.aim:
            return True
        recent = self.decrements[-3:]
        # steps by the expected information are slower, and may go on like that
        stuck = SLOWEST if self.refused else STUCK
        return len(recent) == 3 and max(recent) <= FLOOR and recent[-1] >= stuck * min(recent[:-1])

    def _learn_rate(self, decrement: float, point: Point) -> None:
        """Estimate c of d' = c d^2 from the last two Newton points."""
        self.decrements.append(decrement)
        if point.gram is not None:
            self.held_decrement = decrement
        if self.quadratic or len(self.decrements) < 2:
            return
        before = self.decrements[-2]
        # below that, decrements are rounding's
        if 1e-6 < before < 100.0 * point.coef.size and decrement > 0 and self.steps and self.steps[-1].newton:
            self.rate = decrement / before**2

    def _plan(self, decrement: float, point: Point) -> tuple[int, bool]:
        """Order of the next evaluation, and whether it should close.

        After a Newton step the decrement is c d^2; after a step with a Gram of decrement h it is about 4 c h d, for the
        Gram is off by the distance it is old. The factors of ten are for safety: closing a pass early costs a pass that
        is a step all the same, and so does a gradient that turns out to need its Gram.
        """
        tol = self.stopping.aim
        if decrement <= tol or self.quadratic:
            return 2, True
        contraction = 4.0 * self.rate * self.held_decrement
        after = self.rate * decrement**2 if point.gram is not None else contraction * decrement
        if 10.0 * after <= tol:
            return 2, True
        stuck = len(self.decrements) >= 2 and decrement <= FLOOR and decrement >= STUCK * self.decrements[-2]
        gradient_will_do = point.gram is not None and 100.0 * contraction * after <= tol
        return (1 if gradient_will_do and not stuck else 2), stuck

    def _search(
        self, point: Point, direction: Vector, promised: float, order: int, closing: bool
    ) -> tuple[Point | None, int]:
        """Full steps, halved until every mean is possible and the loss does not rise beyond its noise."""
        size = 1.0
        noise = LOSS_NOISE * (abs(point.loss) + 1.0) + self._blur(point)
        for halvings in range(MAX_HALVINGS):
            trial = self.evaluate(point.coef + size * direction, order, closing and not halvings)
            if np.isfinite(trial.loss) and (trial.loss <= point.loss + noise or promised < noise):
                return trial, halvings
            self.impossible += not np.isfinite(trial.loss)
            size *= 0.5
            if self._crossed():
                return None, halvings + 1
        return None, MAX_HALVINGS

    def _blur(self, point: Point) -> float:
        """What the rounding of linear predictors does to the loss: a part of the sizes that they are sums of, which is more than
        that of the loss where large coefficients cancel, times scores of the size of the dispersion.
        """
        if point.gram is None:
            return 0.0
        size = float(np.abs(point.coef) @ np.sqrt(np.maximum(diagonal_of(point.gram), 0.0)))
        return float(np.finfo(np.float64).eps) * size * float(np.sqrt(point.sums.n * self.dispersion(point)))

    def _crossed(self) -> bool:
        """Whether steps have gone to impossible means so often, or come nearer to them so slowly, that the optimum may be on
        their boundary; once it has been sought there, whether one has gone across.
        """
        if self.inside is not None:
            return self.impossible > 0
        likely = self.impossible >= IMPOSSIBLE or (self.refused and len(self.steps) >= MANY)
        return likely and bool(self.objective.model.likelihood.bordered)

    def _from_inside(self, phi: float) -> Point:
        """To where the likelihood is greatest among possible means, and from there on as everywhere. It is sought from the
        start, for steps that were halved until they were possible may have come too close to the boundary.
        """
        if self.aliased is None:
            self.factored(self.evaluate(self.start))
        assert self.aliased is not None
        begin, again = (self.start, False) if self.inside is None else (self.inside.coef, True)
        self.inside = along_path(self.objective, begin, self.aliased, phi, again)
        self.impossible = 0
        self.information = "observed"
        self.decrements.clear()
        return self.evaluate(self.inside.coef, closing=True)

    def _at_boundary(self, inside: Inside) -> str:
        """Why the score does not vanish at the optimum."""
        likelihood = self.objective.model.likelihood
        means = likelihood.mean_of(np.array(likelihood.domain))
        held = " and ".join(
            f"{rows:,} row(s) the mean {mean:g}" for rows, mean in zip(inside.at_ends, means, strict=True) if rows
        )
        return (
            f"the optimum lies on the boundary of the means that the {likelihood.link.name} link allows"
            + (f", giving {held}" if held else "")
            + (
                ": no possible mean is likelier"
                if inside.arrived
                else ", where rounding stopped the search: others may be likelier"
            )
            + ", and standard errors are those of the other rows alone; the "
            f"{likelihood.family.default_link} link has no such boundary"
        )

    def _endless(self, found: Curvature, direction: Vector) -> bool:
        """Whether a step that the decrement calls short moves some mean far, or the weights leave nothing of a column: the
        way to infinity without a certificate.
        """
        if self.watch is None or self.aliased is None:
            return False
        if bool((~found.kept & ~self.aliased).any()):
            return True
        return bool(np.abs(direction).max(initial=0.0) > FAR) and farthest(self.objective, direction) > FAR

    def _is_held(self, point: Point) -> bool:
        """Whether the loss presses some row against the boundary of the possible means."""
        met = self.impossible > 0 or self.inside is not None or len(self.steps) >= MANY
        return met and bool(self.objective.model.likelihood.bordered) and is_at_boundary(self.objective, point.coef)

    def _without_end(self) -> str:
        """Why there is no optimum, where no row alone shows it."""
        return (
            "no finite optimum was found: the loss falls ever more slowly as the means of some rows go to the end of their "
            "range, where not all of their responses are; leave the term out, join levels, or try another link"
        )

    def _separation(
        self, point: Point, found: Curvature, direction: Vector, decrement: float, ending: bool
    ) -> Separation | Counted | None:
        """A certificate that the optimum is infinite, where a Newton step makes that likely."""
        if self.watch is None or self.aliased is None or point.gram is None:
            return None
        return self.watch.look(point, found, self.aliased, direction, decrement, ending)

    def _optimum(
        self,
        point: Point,
        found: Curvature,
        decrement: float,
        phi: float,
        status: str,
        reason: str,
        separation: Separation | Counted | None = None,
    ) -> Optimum:
        assert self.aliased is not None
        steps = tuple(self.steps)
        return Optimum(
            point, found, self.aliased, decrement, phi, status, reason, steps, separation, self.rate, self.stopping.aim
        )

    def _give_up(self, point: Point, reason: str) -> Optimum:
        """Close where we are, so that what is reported belongs together."""
        point = self.evaluate(point.coef, closing=True)
        if not np.isfinite(point.loss):
            raise SolverError(reason or "no possible mean was found: give start=")
        found = curvature(self.objective, point, self.aliased)
        if self.aliased is None:
            self.aliased = found.aliased
            point = without_aliased(point, found)
        phi = self.dispersion(point)
        direction = found.solve(point.gradient)
        decrement = float(point.gradient @ direction) / phi
        way = direction if self.inside is None else self.inside.step
        separation = self._separation(point, found, way, decrement, True)
        if separation is not None:
            return self._optimum(point, found, decrement, phi, "separated", "", separation)
        converged = decrement <= self.stopping.tol or self._is_rounding(point, decrement * phi)
        converged = converged and not self._endless(found, direction) and not self._is_held(point)
        status = "converged" if converged else "max_iter" if len(self.steps) >= self.stopping.max_iter else "stalled"
        status = "boundary" if status == "stalled" and self.inside is not None else status
        return self._optimum(point, found, decrement, phi, status, "" if status == "converged" else reason)


def _relative(observed: AnyGram | None, expected: AnyGram | None, aliased: npt.NDArray[np.bool_]) -> Any:
    """Eigenvalues and vectors of the observed information in units of the expected one, of the columns that are not aliased;
    None where that has none.
    """
    inner = np.ix_(~aliased, ~aliased)
    if observed is None or expected is None or not is_finite(observed):
        return None
    try:
        return eigh(dense(observed)[inner], dense(expected)[inner])
    except LinAlgError:
        return None


def _by_size(observed: AnyGram | None, expected: AnyGram | None, aliased: npt.NDArray[np.bool_]) -> AnyGram | None:
    """The observed information with each eigenvalue, in units of the expected one, by its size: a step goes down along
    directions in which the loss bends away, too (Dauphin et al. 2014), and no further than LONG of the expected one's.
    """
    found = _relative(observed, expected, aliased)
    if found is None or expected is None:
        return expected
    values, vectors = found
    inner = np.ix_(~aliased, ~aliased)
    result = dense(expected).copy()
    half = result[inner] @ vectors
    result[inner] = (half * np.maximum(np.abs(values), 1.0 / LONG)) @ half.T
    return result


def without_aliased(point: Point, found: Curvature) -> Point:
    """The same linear predictor with zero coefficients for aliased columns, whose part the others take over."""
    aliased = found.aliased
    if not (aliased & (point.coef != 0.0)).any():
        return point
    assert point.gram is not None
    of_aliased = point.gram @ np.where(aliased, point.coef, 0.0)
    taken_over = found.solve(np.where(found.kept, of_aliased, 0.0))
    return replace(point, coef=np.where(aliased, 0.0, point.coef + taken_over))


def minimise(
    objective: Objective,
    start: Vector,
    stopping: Stopping,
    *,
    null: Null | None = None,
    dispersion: float | None = 1.0,
    quadratic: bool = False,
    meat: bool = False,
    held: Held | None = None,
    rate: float | None = None,
    at_boundary: bool = False,
    aliased: npt.NDArray[np.bool_] | None = None,
    fallback: Callable[[], Vector] | None = None,
    watch: Watch | None = None,
) -> Optimum:
    """The optimum from a start at which every mean is possible.

    dispersion: where it is known. quadratic: the loss is a quadratic, one step is exact. rate: c of d' = c d^2 where it was
    learnt of a model close by. held: a Gram that is good enough for the first step, whose evaluation is then spared the
    Gram. at_boundary: the optimum of a model close by was on the boundary. aliased (p,): columns that are known to be
    combinations of others. fallback: another start, for when the first gives a mean that is not possible (a sample does not
    hold every row). watch: whom to ask whether the optimum is infinite.
    """
    loop = _Loop(objective, stopping, null, dispersion, quadratic, meat, watch)
    loop.rate = loop.rate if rate is None or quadratic else rate
    loop.impossible = IMPOSSIBLE if at_boundary else 0
    loop.aliased = aliased
    point = loop.evaluate(start, order=1 if held is not None else 2)
    if not np.isfinite(point.loss) and fallback is not None:
        held = None
        point = loop.evaluate(fallback())
    if not np.isfinite(point.loss):
        raise SolverError("the start gives means that the family does not allow: give start=")
    return loop.run(point, held)


def descend(objective: Objective, start: Vector, enough: float, max_iter: int) -> tuple[Point, Curvature] | None:
    """A rough optimum, for pilots: until the decrement is below `enough`; None where none is found."""
    loop = _Loop(objective, Stopping(enough, max_iter), None, 1.0, False, False)
    point = loop.evaluate(start)
    if not np.isfinite(point.loss):
        return None
    for _ in range(max_iter):
        point, found = loop.factored(point)
        direction = found.solve(point.gradient)
        decrement = float(point.gradient @ direction)
        if not np.isfinite(decrement):
            return None
        if decrement <= enough:
            return point, found
        trial, _ = loop._search(point, direction, decrement, 2, False)
        if trial is None:
            return point, found
        point = trial
    return point, loop.factored(point)[1]
