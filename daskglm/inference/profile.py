"""Profile likelihood limits of linear functions of the coefficients, all candidates side by side through each pass.

The limits of a'b are its extremes over the region where the loss L (minus the log-likelihood at phi = 1) is at most
L* = L_min + phi q^2 / 2. At one, L = L* and the gradient is along a (Venzon and Moolgavkar 1988). A step solves that with
the quadratic model of L at the present point: with g = -grad L, B the inverse of the Hessian and s = +-1 the side,

    step = B (g + s lambda a),   lambda^2 = (2 (L* - L) + g'Bg) / a'Ba.

B is that of the Hessian at the optimum, corrected by the differences of the candidate's own gradients (BFGS: Nocedal and
Wright, Numerical Optimization, 2006, section 6.1), so that a candidate costs a gradient each pass; or that of the
Hessian at the candidate itself, where rows are so few that it costs nothing, or where gradients have not been enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from daskglm.kernels.bordered import AnyGram, dense
from daskglm.solvers.objective import Curvature, Objective, Point
from daskglm.totals.moments import Moments, Request
from daskglm.totals.several import several

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
# "infinite": the likelihood stays above the limit's however far one goes; "boundary": of the possible means; "open": the
# search has not ended.
Status = Literal["found", "infinite", "boundary", "open"]

# Distance to a limit, in standard errors, from which the last step is taken unseen: it is right to a part of that.
ENOUGH = 1e-5
MAX_PASSES = 60
# A candidate whose loss is so many times further up than it should be has gone too far.
TOO_HIGH = 4.0
# A step is at most so many times as long as the way so far, in the norm of the information.
GROWTH = 4.0
MAX_HALVINGS = 30
# So many trials at means that are not possible are those of a limit on the boundary of those that are.
MAX_OUTSIDE = 20
# So many standard errors out, and at that slope as many times further from where the limit would be: there is none.
FAR = 50.0
AHEAD = 1e3
# Passes after which a candidate asks for its own Hessian.
PATIENCE = 6
# Rows x coefficients^2 x candidates of Grams that cost about as little as the pass itself.
CHEAP = 3e8


@final
@dataclass(frozen=True)
class Limit:
    """One end of a profile likelihood interval."""

    value: float
    status: Status


@final
class Optimum:
    """What all candidates start from: the optimum, its loss, gram and factored Hessian, and how far the loss may rise."""

    def __init__(self, point: Point, found: Curvature, rise: float, phi: float, bordered: bool) -> None:
        assert point.gram is not None
        self.coef, self.loss, self.gram = point.coef, point.loss, point.gram
        self.found, self.rise, self.phi = found, rise, phi
        self.kept, self.bordered = found.kept, bordered

    def norm(self, step: Vector) -> float:
        """Length of a step in standard errors, times sqrt(phi)."""
        return float(np.sqrt(max(float(step @ (self.gram @ step)), 0.0)))


@final
class Candidate:
    """The search for one limit of a'b."""

    def __init__(self, optimum: Optimum, a: Vector, side: float, own_hessian: bool) -> None:
        self.optimum, self.side, self.own_hessian = optimum, side, own_hessian
        self.a = np.where(optimum.kept, a, 0.0)
        self.error = float(np.sqrt(optimum.phi * (self.a @ optimum.found.solve(self.a))))
        self.coef, self.loss, self.gradient = optimum.coef, optimum.loss, np.zeros_like(optimum.coef)
        self.pairs: list[tuple[Vector, Vector, float]] = []
        self.factor: tuple[Matrix, bool] | None = None
        self.limit: Limit | None = None
        self.passes = self.halvings = self.outside = 0
        self.step = np.zeros_like(self.coef)
        self._plan()

    @property
    def trial(self) -> Vector:
        """Where to evaluate next."""
        return self.coef + self.step

    @property
    def order(self) -> int:
        """What to evaluate there."""
        return 2 if self.own_hessian or self.passes >= PATIENCE else 1

    def learn(self, loss: float, gradient: Vector, gram: AnyGram | None) -> None:
        """What was found at the trial."""
        self.passes += 1
        gradient = np.where(self.optimum.kept, gradient, 0.0)
        top = self.optimum.loss + (1.0 + TOO_HIGH) * self.optimum.rise
        possible = bool(np.isfinite(loss) and np.isfinite(gradient).all())
        if not possible or loss > top:
            self.halvings += 1
            self.outside += not possible
            self.step = 0.5 * self.step
            if self.outside > MAX_OUTSIDE or self.halvings > MAX_HALVINGS:
                self._end("boundary" if self.outside > 1 and self.optimum.bordered else "open")
            return
        self.halvings = 0
        moved, bent = self.step, self.gradient - gradient
        product = float(moved @ bent)
        if product > 1e-10 * self.optimum.norm(moved) ** 2:
            self.pairs.append((moved, bent, 1.0 / product))
        self.coef, self.loss, self.gradient = self.trial, loss, gradient
        self.factor = None if gram is None else self._factored(gram)
        self._plan()

    def _factored(self, gram: AnyGram) -> tuple[Matrix, bool] | None:
        kept = self.optimum.kept
        try:
            found: tuple[Matrix, bool] = cho_factor(dense(gram)[np.ix_(kept, kept)])
        except (LinAlgError, ValueError):
            return None
        return found

    def _solve(self, right: Vector) -> Vector:
        """B right."""
        if self.factor is not None:
            result = np.zeros_like(right)
            result[self.optimum.kept] = cho_solve(self.factor, right[self.optimum.kept])
            return result
        left = right.copy()
        parts = []
        for moved, bent, inverse in self.pairs[::-1]:
            parts.append(inverse * float(moved @ left))
            left -= parts[-1] * bent
        result = self.optimum.found.solve(left)
        for (moved, bent, inverse), part in zip(self.pairs, parts[::-1], strict=True):
            result = result + (part - inverse * float(bent @ result)) * moved
        return result

    def _plan(self) -> None:
        """The next step, or the end."""
        target = self.optimum.loss + self.optimum.rise
        along, uphill = self._solve(self.a), self._solve(self.gradient)
        aa, ag, gg = float(self.a @ along), float(self.a @ uphill), float(self.gradient @ uphill)
        room = 2.0 * (target - self.loss) + gg
        if not aa > 0.0 or not np.isfinite(room):
            self._end("open")
            return
        if room <= 0.0:
            # the model has its minimum above the level: back on the way to the optimum
            part = np.sqrt(self.optimum.rise / (self.loss - self.optimum.loss))
            self.step = (part - 1.0) * (self.coef - self.optimum.coef)
            return
        slope = np.sqrt(room / aa)
        step = uphill + self.side * slope * along
        nuisance = max(gg - ag * ag / aa, 0.0)
        distance = (abs(target - self.loss) + 0.5 * nuisance) / (slope * self.error)
        if self.passes and distance <= ENOUGH:
            self.limit = Limit(float(self.a @ (self.coef + step)), "found")
            return
        if self.passes >= MAX_PASSES:
            self._end("open")
            return
        way = abs(float(self.a @ (self.coef - self.optimum.coef)))
        actual = -self.side * ag / aa
        if way > FAR * self.error and self.loss < target and actual * AHEAD * way < target - self.loss:
            self.limit = Limit(self.side * np.inf, "infinite")
            return
        longest = GROWTH * max(self.optimum.norm(self.coef - self.optimum.coef), np.sqrt(2.0 * self.optimum.rise))
        length = self.optimum.norm(step)
        self.step = step * min(1.0, longest / length) if length > 0.0 else step

    def _end(self, status: Status) -> None:
        self.limit = Limit(float("nan"), status)


def profile_limits(
    objective: Objective,
    point: Point,
    found: Curvature,
    functions: Sequence[Vector],
    quantile: float,
    phi: float,
    rows: int,
    told: Callable[[int], None] | None = None,
) -> list[tuple[Limit, Limit]]:
    """(lower, upper) of each function a (p,) of the coefficients.

    point, found: the optimum with its Gram and that factored; quantile: of the signed root of the likelihood ratio over phi;
    rows: of the data, which say whether Hessians are cheap; told: is told the number of candidates before each pass.
    """
    bordered = bool(objective.model.likelihood.bordered)
    optimum = Optimum(point, found, 0.5 * phi * quantile * quantile, phi, bordered)
    p = point.coef.size
    cheap = 2.0 * len(functions) * rows * p * p <= CHEAP
    candidates = [Candidate(optimum, a, side, cheap) for a in functions for side in (-1.0, 1.0)]
    while True:
        active = [c for c in candidates if c.limit is None]
        if not active:
            break
        if told is not None:
            told(len(active))
        requests = tuple(Request(c.trial, c.order) for c in active)
        sums: tuple[Moments, ...] = objective.blocks.total(several, objective.model, requests).moments
        for candidate, one in zip(active, sums, strict=True):
            here = objective.point(candidate.trial, one, "observed")
            candidate.learn(here.loss, here.gradient, here.gram)
    ends = [c.limit for c in candidates if c.limit is not None]
    return list(zip(ends[::2], ends[1::2], strict=True))
