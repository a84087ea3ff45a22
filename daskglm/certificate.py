"""How exact the numbers of a fit are: estimated from the sums at hand, and refined where that leaves too few digits.

At the reported coefficients b the next Newton step says how far the optimum is. What rounding adds follows from the Gram
G = X'WX of the shifted and scaled columns, by three kinds of error, u the unit of rounding:

- of linear predictors and means, u (|eta| + 1) a row: it moves coefficient i by at most u s_i ||W^1/2 (|eta| + 1)||, with
  s_i^2 = (G^-1)_ii (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 20.1);
- of the products and sums of the score, u sum |x_j s| <= u (G_jj chi^2)^1/2 by Cauchy and Schwarz, chi^2 Pearson's: it goes
  through |G^-1|;
- of the way back to the columns as the user has them, and of columns that are computed, as I(x ** 2) is.

Where that leaves too few digits, the coefficients are refined in twofold arithmetic (`daskglm.solvers.refinement`), which
leaves the noise of the family's formulas and the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.design import Design, Rescaling
from daskglm.design.working import WorkingScale
from daskglm.inference.covariance import Covariance, basis_of, lengths_of
from daskglm.kernels.basis import Basis
from daskglm.kernels.bordered import Bordered, BorderedFactor, dense, diagonal_of
from daskglm.plan import Plan
from daskglm.record import Certificate
from daskglm.separation import Solution
from daskglm.solvers.newton import is_cheap, sharpened
from daskglm.solvers.refinement import Refined, refine
from daskglm.totals.moments import Model

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

UNIT = float(np.finfo(np.float64).eps) / 2.0
# Roundings that pile up in one sum: its terms', and those of partial sums, of which most cancel.
OF_SUMS = 16.0
# Roundings of a mean and its score by the family's formulas.
OF_FORMULAS = 8.0
# No more digits are claimed than a float64 has, and fewer than these are refined.
MOST_DIGITS = 15.0
ENOUGH, ENOUGH_OF_ERRORS = 11.0, 10.0
# A relative error of the dispersion beyond this is looked into, too.
LOST = 1e-9
# Double-double arithmetic is for small data, and for larger ones where the condition of the Gram asks for it and few digits
# are left.
ILL = 1e6
FEW = 9.0


@final
@dataclass(frozen=True)
class Certified:
    """coefficients (r,) as they are reported, refined where that was called for, low (r,) what rounding left out of them;
    certificate: what is known of them, and nothing yet of standard errors; solution: with the sum of squares that belongs to
    them; working: the scale that the closing information was factored on.
    """

    solution: Solution
    coefficients: Vector
    low: Vector | None
    certificate: Certificate
    working: WorkingScale
    _rounding: _Rounding
    _doubt: _Doubt

    def on(self, basis: Basis | None) -> Vector:
        """The coefficients (r,) on the working scale of a basis, 0 where there is no estimate."""
        point = self.solution.optimum.point.coef
        if self.low is None:
            return point if basis is None else basis.coefficients((point, np.zeros_like(point)))
        return WorkingScale(self.working.parameters, basis).working((self.coefficients, self.low))

    @np.errstate(all="ignore")
    def of_errors(self, errors: Covariance) -> Certificate:
        """The certificate with the correct digits of the standard errors of a covariance."""
        return replace(
            self.certificate, error_digits=self._rounding.error_digits(errors, self.on(errors.basis), self._doubt)
        )


@final
@dataclass(frozen=True)
class _Doubt:
    """beside: decrement of parameters beside the coefficients; estimated: whether the dispersion is; finite (r,): parameters
    with a finite estimate; broken (p,): columns with numbers that are not whole, None where that is not known; moved: how
    far the coefficients are from the optimum at most, in units of s of each.
    """

    beside: float
    estimated: bool
    finite: npt.NDArray[np.bool_]
    broken: npt.NDArray[np.bool_] | None
    moved: float


@np.errstate(all="ignore")
def certified(plan: Plan, solution: Solution, apart: float | None = None) -> Certified:
    """The coefficients of an optimum and their certificate; passes of its own where they are refined.

    apart: decrement of parameters beside the coefficients, where there are some that the means depend on.
    """
    parameters, objective = solution.parameters, solution.objective
    cheap = is_cheap(float(solution.optimum.point.sums.n), parameters.n)
    finite = parameters.reported(solution.optimum.curvature.kept) & (solution.infinite() == 0.0)
    rounding = _Rounding(plan, solution)
    if (
        cheap
        and _may_refine(plan, solution)
        and _digits(rounding.of_gram, np.ones(parameters.n), finite)[0] < ENOUGH_OF_ERRORS
    ):
        solution = _sharper(solution)
        rounding = _Rounding(plan, solution)
    optimum = solution.optimum
    coefficients, low = parameters.coefficients(optimum.point.coef), None
    estimated = isinstance(plan.dispersion, str) or (plan.dispersion is None and not plan.family.dispersion_known)
    beside = 0.0 if apart is None else max(apart, 0.0)
    errors = rounding.coefficients + rounding.distance(beside)
    condition = rounding.condition
    refined: Refined | None = None
    broken: npt.NDArray[np.bool_] | None = None
    if apart is None and _may_refine(plan, solution):
        # a quadratic is solved in one step, and what is left of it is rounding; otherwise a tolerance may ask for no more
        lost = errors if objective.model.likelihood.quadratic else rounding.coefficients
        few = _digits(lost, coefficients, finite)[0] < (ENOUGH if cheap else FEW)
        if (few or (estimated and rounding.dispersion > LOST)) and (cheap or condition >= ILL):
            refined = refine(objective, optimum.curvature, rounding.scale, coefficients)
    if refined is not None:
        # a column of NaN would say so: what is kept is finite
        kept = parameters.reported(optimum.curvature.kept)
        coefficients, low = np.where(kept, refined.coef, coefficients), np.where(kept, refined.low, 0.0)
        errors = rounding.refined(refined)
        if refined.squares is not None:
            solution = _with_squares(solution, refined.squares)
            rounding.exact_residuals(solution)
        broken = refined.broken
    digits, worst = _digits(errors, coefficients, finite)
    certificate = Certificate(
        decrement=float(optimum.decrement),
        tolerance=plan.tol,
        goal=optimum.aim,
        limited_by="rounding" if optimum.status == "floor" else "tolerance",
        gradient=rounding.gradient,
        condition=condition,
        halvings=sum(step.halvings for step in optimum.steps),
        residual_columns=tuple(parameters.names[j] for j in optimum.curvature.doubtful),
        # of infinite coefficients alone there are no digits to speak of
        digits=digits if finite.any() and optimum.status != "boundary" else float("nan"),
        worst="" if worst is None else parameters.names[worst],
        residual_passes=objective.residual_passes,
        twofold_passes=0 if refined is None else refined.passes,
    )
    moved = float(np.max(np.where(finite & (rounding.spread > 0.0), errors / rounding.spread, 0.0), initial=0.0))
    doubt = _Doubt(beside, estimated, finite, broken, moved / np.sqrt(optimum.dispersion))
    return Certified(solution, coefficients, low, certificate, rounding.scale, rounding, doubt)


def _sharper(solution: Solution) -> Solution:
    """With a Gram that has kept more digits."""
    optimum = solution.optimum
    found = sharpened(solution.objective, optimum.point, optimum.curvature)
    return replace(solution, optimum=replace(optimum, curvature=found))


def _with_squares(solution: Solution, squares: float) -> Solution:
    """With another sum of squares: Pearson's, and the deviance."""
    sums = solution.optimum.point.sums
    assert sums.statistics is not None
    sums = replace(sums, pearson=squares, statistics=replace(sums.statistics, deviance=squares))
    return replace(solution, optimum=replace(solution.optimum, point=replace(solution.optimum.point, sums=sums)))


def _may_refine(plan: Plan, solution: Solution) -> bool:
    """Whether the score vanishes at the optimum, of all rows and nothing else."""
    return (
        isinstance(solution.objective.model, Model)
        and solution.optimum.converged
        and plan.separation != "firth"
        and not solution.directions
        and bool(solution.optimum.curvature.kept.any())
    )


def _digits(errors: Vector, values: Vector, which: npt.NDArray[np.bool_]) -> tuple[float, int | None]:
    """Correct digits of the worst value, and which that is; a value of 0 is measured by its error alone."""
    if not which.any():
        return MOST_DIGITS, None
    size = np.where(values == 0.0, 1.0, np.abs(values))
    with np.errstate(all="ignore"):
        digits = -np.log10(np.where(which, errors, 0.0) / size)
    digits = np.where(which, np.nan_to_num(digits, nan=0.0, posinf=np.inf, neginf=0.0), np.inf)
    worst = int(np.argmin(digits))
    return float(np.clip(np.floor(digits[worst] * 10.0) / 10.0, 0.0, MOST_DIGITS)), worst


@final
class _Rounding:
    """What rounding can have done to the numbers of one optimum."""

    def __init__(self, plan: Plan, solution: Solution) -> None:
        self.plan, self.solution, self.residuals_are_exact = plan, solution, False
        self.parameters, self.optimum = solution.parameters, solution.optimum
        self.curvature, self.point = solution.optimum.curvature, solution.optimum.point
        assert self.point.gram is not None
        self.lengths = np.sqrt(np.maximum(diagonal_of(self.point.gram), 0.0))

    def exact_residuals(self, solution: Solution) -> None:
        """Go on with the solution whose sum of squares was taken in twofold arithmetic."""
        self.solution, self.optimum, self.point = solution, solution.optimum, solution.optimum.point
        self.residuals_are_exact = True

    @property
    def bordered(self) -> BorderedFactor | None:
        """The factor, where it is one by a diagonal block: then nothing of size (p, p) is formed."""
        found = self.curvature
        return found.factor if isinstance(found.factor, BorderedFactor) and found.basis is None else None

    @cached_property
    def scales(self) -> Rescaling:
        """A, of one response."""
        return self.solution.design.unscaling()

    @property
    def _first_row(self) -> Vector:
        """The first row of A (p,)."""
        result = self.scales.shift.copy()
        result[0] += self.scales.factor[0]
        return result

    def _by_size(self, factor: BorderedFactor, lengths: Vector) -> Vector:
        """|A G^-1| lengths (p,)."""
        result = np.abs(self.scales.factor) * factor.by_size(lengths)
        result[0] = np.abs(factor.solve(self._first_row)) @ lengths
        return np.asarray(result)

    @cached_property
    def scale(self) -> WorkingScale:
        """The scale that the Gram was factored on."""
        return WorkingScale(self.parameters, basis_of(self.curvature))

    @cached_property
    def inverse(self) -> Matrix:
        """(X'WX)^-1 of the user's columns (r, r), at phi = 1."""
        return self.scale.covariance(self.curvature.factor.inverse())

    @cached_property
    def spread(self) -> Vector:
        """s (r,): its roots."""
        factor = self.bordered
        if factor is not None:
            variances = self.scales.factor**2 * factor.variances()
            shift = self._first_row
            variances[0] = shift @ factor.solve(shift)
            return np.sqrt(variances)
        return np.sqrt(np.maximum(np.diag(self.inverse), 0.0))

    @cached_property
    def amplified(self) -> Vector:
        """sum_j |W G^-1|_ij d_j (r,), d_j the length of column j of those that the Gram was factored in."""
        lengths = np.where(self.curvature.kept, lengths_of(self.curvature.gram), 0.0)
        if self.bordered is not None:
            return self._by_size(self.bordered, lengths)
        return np.asarray(np.abs(self.scale.left(self.curvature.factor.inverse())) @ lengths)

    @cached_property
    def way_back(self) -> Vector:
        """What the variances s^2 are sums of, added by size (r,)."""
        if self.bordered is not None:
            result = self.scales.factor**2 * self.bordered.variances()
            first = np.abs(self._first_row)
            result[0] = first @ self.bordered.by_size(first)
            return result
        return _by_size(self.scale, self.curvature.factor.inverse())

    @cached_property
    def of_gram(self) -> Vector:
        """Relative errors of the variances s^2 (r,)."""
        with np.errstate(all="ignore"):
            return (OF_SUMS * self.amplified**2 + 4.0 * self.way_back) * UNIT / self.spread**2

    @property
    def predictors(self) -> float:
        """||W^1/2 (|eta| + 1)||, at most."""
        return float(np.abs(self.point.coef) @ self.lengths + self.lengths.max(initial=0.0))

    @property
    def chi(self) -> float:
        """Root of Pearson's chi-square."""
        return float(np.sqrt(max(self.point.sums.pearson, 0.0)))

    @property
    def dispersion(self) -> float:
        """Relative error of Pearson's chi-square: of a fit that is perfect to rounding, all of it."""
        with np.errstate(all="ignore"):
            lost = 2.0 * OF_FORMULAS * UNIT * np.float64(self.predictors) / self.chi
        return OF_SUMS * UNIT + (0.0 if self.residuals_are_exact else float(lost))

    @property
    def gradient(self) -> float:
        """Largest entry of the scaled score."""
        kept = self.curvature.kept
        with np.errstate(all="ignore"):
            scaled = np.abs(self.point.gradient[kept]) / (self.lengths[kept] * np.sqrt(self.optimum.dispersion))
        return float(np.max(scaled, initial=0.0))

    @cached_property
    def condition(self) -> float:
        """In the 1-norm, of the Gram scaled to a unit diagonal, whose inverse is that of its factor."""
        gram, kept = self.point.gram, self.curvature.kept
        assert gram is not None
        root = np.maximum(self.lengths[kept], 1e-150)
        if self.bordered is not None and isinstance(gram, Bordered):
            whole = np.zeros(kept.size)
            whole[kept] = 1.0 / root
            sums = (whole * (gram.by_size() @ whole))[kept]
            whole[kept] = root
            return float(np.max(sums) * np.max(whole * self.bordered.by_size(whole)))
        gram = dense(gram)
        scaled = gram[np.ix_(kept, kept)] / root[:, None] / root
        inverse = self.curvature.inverse()[np.ix_(kept, kept)] * root[:, None] * root
        return float(np.linalg.norm(scaled, 1) * np.linalg.norm(inverse, 1)) if scaled.size else 1.0

    @cached_property
    def coefficients(self) -> Vector:
        """How far rounding may have moved each (r,)."""
        of_rows = OF_FORMULAS * UNIT * self.predictors * self.spread
        of_sums = OF_SUMS * UNIT * self.chi * self.amplified
        back = 2.0 * UNIT * self.parameters.terms(self.point.coef)
        return of_rows + of_sums + back + self.computed(None)

    def distance(self, apart: float) -> Vector:
        """How far the optimum is from each (r,), as the next step has it; apart: decrement of parameters beside them."""
        phi = self.optimum.dispersion
        if self.optimum.converged and self.plan.separation != "firth":
            step = 2.0 * np.abs(self.parameters.coefficients(self.curvature.solve(self.point.gradient)))
        else:
            step = np.sqrt(max(self.optimum.decrement, 0.0) * phi) * self.spread
        return np.asarray(step + np.sqrt(apart * phi) * self.spread)

    def moved(self, broken: npt.NDArray[np.bool_] | None) -> Vector:
        """How far the rounding of columns that are computed moves each, in units of u (p,); broken (p,): which of them have
        numbers that are not whole, where that is known.
        """
        sizes = _computed(self.solution.design)
        if broken is not None and isinstance(self.solution.objective.model, Model):
            sizes = np.where(broken, sizes, 0.0)
        # on the scale of the columns as they are multiplied, whose lengths are `lengths`
        classes = self.parameters.kind == "classes"
        return (np.resize(sizes, self.lengths.size) if classes else _tail(sizes, self.lengths)) * self.lengths

    def turned(self, moved: Vector) -> Vector:
        """|A G^-1| moved (r,)."""
        if not moved.any():
            return np.zeros(self.parameters.n)
        if self.bordered is not None:
            return self._by_size(self.bordered, moved)
        return np.asarray(np.abs(WorkingScale(self.parameters).left(self.curvature.inverse())) @ moved)

    def computed(self, broken: npt.NDArray[np.bool_] | None) -> Vector:
        """What the rounding of computed columns may have done to coefficients (r,)."""
        moved = self.moved(broken)
        of_rows = UNIT * float(np.abs(self.point.coef) @ moved) * self.spread
        return of_rows + UNIT * self.chi * self.turned(moved)

    def refined(self, found: Refined) -> Vector:
        """How far each coefficient (r,) may be from the optimum after refinement."""
        of_formulas = OF_FORMULAS * UNIT * found.noise
        return (found.left + of_formulas) * self.spread + UNIT * np.abs(found.coef) + self.computed(found.broken)

    def error_digits(self, errors: Covariance, coef: Vector, doubt: _Doubt) -> float:
        """Correct digits of the worst standard error of a covariance; coef (r,): on its working scale."""
        if not doubt.finite.any():
            return float("nan")
        stats = self.point.sums.statistics
        sandwich = errors.middle is not None
        assert stats is not None
        if doubt.estimated and not sandwich and stats.observations <= self.curvature.factor.rank:
            # as many coefficients as rows have no dispersion to measure errors by
            return float("nan")
        if not errors.is_finite:
            return float("nan")
        moved = self.moved(doubt.broken)
        of_columns = 2.0 * UNIT * self.turned(moved) / self.spread
        of_scores = self.dispersion if doubt.estimated else 0.0
        if sandwich:
            size = np.abs(coef) @ errors.lengths + errors.lengths.max(initial=0.0)
            of_scores = 2.0 * OF_FORMULAS * UNIT * float(np.float64(size) / self.chi)
        if (sandwich or doubt.estimated) and moved.any():
            of_scores += float(2.0 * UNIT * np.float64(np.abs(self.point.coef) @ moved) / self.chi)
        # weights and scores move with the coefficients, weights of a quadratic do not
        quadratic = self.solution.objective.model.likelihood.quadratic
        far = np.sqrt(doubt.beside)
        if not quadratic:
            far += np.sqrt(max(self.optimum.decrement, 0.0)) + OF_FORMULAS * UNIT
        if sandwich or not quadratic:
            far += doubt.moved
        # a sandwich has the information twice, and scores
        far *= 1.0 + sandwich
        relative = 0.5 * (self.of_covariance(errors) + of_columns * (1.0 + sandwich) + of_scores)
        # what several ways of clustering leave of each other has the errors of all
        left = 1.0 if errors.added is None else self.cancelled(errors, errors.added)
        with_error = doubt.finite & (errors.variances() > 0.0)[self.parameters.reported(np.arange(self.parameters.n))]
        return _digits((relative + far) * left + UNIT, np.ones_like(relative), with_error)[0]

    def cancelled(self, errors: Covariance, added: Matrix) -> Vector:
        """How many times larger than each variance (r,) what it was added up from is."""
        scale = WorkingScale(self.parameters, errors.basis)
        return np.asarray(np.diag(scale.covariance(added)) / np.diag(scale.covariance(errors.matrix)))

    def of_covariance(self, errors: Covariance) -> Vector:
        """Relative errors of variances (r,), from the roundings of the sums that they are made of.

        Of V = phi H^-1 they are those of H. V = H^-1 M H^-1 moves by H^-1 dH V, twice, and by H^-1 dM H^-1, where an entry of
        dH is at most OF_SUMS u d_j d_k, and one of dM as much of m_j m_k, d and m the roots of the diagonals; a sum over a
        cluster can cancel, and has the rounding of its terms, at most chi d_j together.
        """
        if errors.middle is None and not errors.observed:
            return self.of_gram
        scale = WorkingScale(self.parameters, errors.basis)
        turned = np.abs(scale.left(errors.inverse))
        amplified = turned @ errors.lengths
        back = 4.0 * _by_size(scale, errors.matrix)
        variance = np.diag(scale.covariance(errors.matrix))
        if errors.middle is None:
            inverse = np.diag(scale.covariance(errors.inverse))
            return np.asarray(UNIT * (OF_SUMS * amplified**2 / inverse + back / variance))
        of_gram = 2.0 * OF_SUMS * amplified * (np.abs(scale.left(errors.matrix)) @ errors.lengths)
        through = turned @ errors.middle
        if errors.root is not None:
            through = np.abs(scale.left(np.ascontiguousarray(errors.root.T))) @ (np.abs(errors.root) @ errors.middle)
        terms = 2.0 * self.chi * amplified if errors.clustered else through
        return np.asarray(UNIT * (of_gram + OF_SUMS * terms * through + back) / variance + self.of_leverages(errors))

    def of_leverages(self, errors: Covariance) -> float:
        """Relative error of variances from leverages that were taken out of scores, to a power.

        The leverage h = x'H^-1 x moves by at most h OF_SUMS u |L^-1 d|^2 with H = L L', and 1 - h loses what it cancels.
        """
        if not errors.power:
            return 0.0
        spread = float(np.abs(errors.inverse).T @ errors.lengths @ errors.lengths)
        return 2.0 * errors.power * OF_SUMS * UNIT * max(spread, 1.0) / max(errors.least, UNIT)


def _by_size(scale: WorkingScale, matrix: Matrix) -> Vector:
    """Diagonal of |W| |M| |W|' (r,)."""
    half = scale.left_by_size(np.abs(matrix))
    return np.asarray(np.diag(scale.left_by_size(np.ascontiguousarray(half.T))))


def _tail(sizes: Vector, lengths: Vector) -> Vector:
    """Of ordered classes, whose slopes come after their thresholds."""
    if sizes.size == lengths.size:
        return sizes
    slopes = sizes[1:] if sizes.size > 1 else sizes[:0]
    return np.concatenate([np.zeros(lengths.size - slopes.size), slopes])


def _computed(design: Design) -> Vector:
    """Root mean square over root mean square about the mean (p,), of columns that are computed; 0 of those that are read."""
    raw = np.zeros(design.width)
    scaling = design.scaling
    for j, piece in enumerate(design.dense):
        computed: Any = len(piece.numeric) > 1 or any(not name.isidentifier() for name in piece.numeric)
        if computed:
            raw[1 + j] = design.moments[piece.numeric][2] * scaling.scale[j]
    at = 1 + len(design.dense)
    for piece in design.factors:
        if len(piece.numeric) > 1 or any(not name.isidentifier() for name in piece.numeric):
            raw[at : at + design.n_levels(piece)] = 1.0
        at += design.n_levels(piece)
    return raw[design.select]
