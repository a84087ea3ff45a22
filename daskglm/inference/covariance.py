"""Covariance, dispersion and the statistics of a fit, from the sums of its closing pass. Definitions are R's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from daskglm.errors import DataError
from daskglm.kernels.basis import Basis
from daskglm.kernels.bordered import AnyGram, BorderedFactor, LowRank, diagonal_of
from daskglm.kernels.cholesky import Factor
from daskglm.model.families import Family
from daskglm.model.weights import Cluster, Probability, Weights
from daskglm.solvers.newton import curvature, sharpened
from daskglm.solvers.objective import Curvature, Objective, Point
from daskglm.totals.clusters import ClusterProducts, ClustersOfBucket, ScoresByCluster, buckets_for
from daskglm.totals.moments import FitStats
from daskglm.totals.residualised import in_basis, working_model
from daskglm.totals.scores import Meat, meat

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
COVARIANCES = ("model", "observed", "HC0", "HC1", "HC2", "HC3")
# The power of I - H_i that scores are divided by.
POWERS = {"HC2": 0.5, "HC3": 1.0}


def dispersion(
    rule: str | float | None, family: Family, stats: FitStats, pearson: float, rank: int
) -> tuple[float, bool]:
    """(phi, whether it was estimated).

    None: the family's rule (1, or Pearson chi-square / residual degrees of freedom); "pearson"; "deviance":
    deviance / residual degrees of freedom; or a number.
    """
    freedom = stats.observations - rank
    if isinstance(rule, (int, float)) and not isinstance(rule, bool):
        return float(rule), False
    if rule is None:
        rule = "known" if family.dispersion_known else "pearson"
    if rule == "known":
        return family.dispersion, False
    amount = pearson if rule == "pearson" else stats.deviance
    return (amount / freedom if freedom > 0 else np.nan), True


@final
@dataclass(frozen=True)
class Bread:
    """Where a covariance is taken, on the working scale, whose columns are X T with T of `basis`.

    coef (p,); inverse (p, p) of the reported information there at phi = 1, zeros where aliased (p,); lengths (p,): roots of
    that information's diagonal; rank k; observations n, with frequencies, and rows; factor: triangular, of the information,
    where it is at hand.
    """

    coef: Vector
    inverse: Matrix
    lengths: Vector
    aliased: npt.NDArray[np.bool_]
    rank: int
    observations: float
    rows: int
    basis: Basis | None = None
    factor: Factor | None = None

    @staticmethod
    def of(point: Point, found: Curvature, coef: Vector | None = None) -> Bread:
        """From a point whose sums hold statistics, and its factored Gram; coef: if not those of the point."""
        stats = point.sums.statistics
        assert stats is not None
        basis = basis_of(found)
        if coef is None:
            coef = point.coef if basis is None else basis.coefficients((point.coef, np.zeros_like(point.coef)))
        return Bread(
            coef, found.factor.inverse(), lengths_of(found.gram), found.aliased, found.factor.rank,
            float(stats.observations), point.sums.n, basis,
            found.factor if isinstance(found.factor, Factor) else None,
        )  # fmt: skip

    def between(self, middle: Matrix) -> Matrix:
        """H^-1 M H^-1 (p, p), by the triangular factor where it is at hand: its products keep what those of H^-1 lose."""
        if self.factor is None:
            return np.asarray(self.inverse @ middle @ self.inverse)
        kept, lower = self.factor.kept, self.factor.lower
        result = np.zeros_like(middle)
        if self.factor.rank:
            inner = middle[np.ix_(kept, kept)]
            for transposed in (False, True):
                for _ in range(2):
                    inner = solve_triangular(lower, inner, lower=True, trans=int(transposed), check_finite=False).T
            result[np.ix_(kept, kept)] = inner
        return result

    def root(self) -> Matrix | None:
        """L^-1 (p, p) of H = L L', zeros where aliased; None where the factor is not at hand."""
        if self.factor is None or not self.factor.rank:
            return None
        kept = self.factor.kept
        result = np.zeros_like(self.inverse)
        unit = np.eye(self.factor.rank)
        result[np.ix_(kept, kept)] = solve_triangular(self.factor.lower, unit, lower=True, check_finite=False)
        return result


def basis_of(found: Curvature) -> Basis | None:
    """The columns that a Gram was factored in, None where these are the scaled ones."""
    return None if found.basis is None else Basis.of(found.basis, found.doubtful)


def lengths_of(gram: AnyGram) -> Vector:
    """Roots of a Gram's diagonal (p,)."""
    return np.asarray(np.sqrt(np.maximum(diagonal_of(gram), 0.0)))


@final
@dataclass(frozen=True)
class Covariance:
    """matrix (p, p) on the working scale of `basis`, zeros where aliased; low_rank: it as diagonal
    plus low rank, where a factor of many levels makes it that, and `matrix` and `inverse` are left
    empty.

    inverse (p, p), lengths (p,): of the information that it is made of, its inverse and the roots of its diagonal; middle
    (p,): roots of the diagonal of M in inverse M inverse, None where the covariance is a multiple of the inverse; added
    (p, p): of several ways of clustering the matrix with all of them added, None otherwise; observed: whether the
    information is the observed one; root (p, p): the inverse of the information's triangular factor, where M was taken
    between that;
    clustered: whether M sums products of sums over clusters; least: the smallest 1 - h of leverages h that were taken out,
    to the power `power`; clusters: how many there are, each way; note: a sentence for the user, or empty; gradient (p,): of
    the rows, where a pass was taken that knows it.
    """

    matrix: Matrix
    inverse: Matrix
    lengths: Vector
    basis: Basis | None = None
    middle: Vector | None = None
    added: Matrix | None = None
    observed: bool = False
    root: Matrix | None = None
    clustered: bool = False
    power: float = 0.0
    least: float = 1.0
    clusters: tuple[int, ...] = ()
    note: str = ""
    gradient: Vector | None = None
    low_rank: LowRank | None = None

    def variances(self) -> Vector:
        """The diagonal (p,) of the matrix."""
        return np.diag(self.matrix) if self.low_rank is None else self.low_rank.variances()

    @property
    def is_finite(self) -> bool:
        """Whether every number is finite."""
        return bool(np.isfinite(self.matrix if self.low_rank is None else self.low_rank.variances()).all())

    @property
    def held(self) -> Matrix | LowRank:
        """The matrix, symmetric, as a record holds it."""
        return 0.5 * (self.matrix + self.matrix.T) if self.low_rank is None else self.low_rank


def of_model(found: Curvature, phi: float) -> Covariance | None:
    """phi H^-1 as diagonal plus low rank, None where the information was not factored by a diagonal
    block.
    """
    if not isinstance(found.factor, BorderedFactor) or found.basis is not None:
        return None
    empty = np.zeros((0, 0))
    return Covariance(empty, empty, lengths_of(found.gram), low_rank=found.factor.low_rank.times(phi))


def kind_of(asked: str | Cluster, weights: Weights | None) -> str | Cluster:
    """With probability weights, the errors of the model are linearised."""
    return "probability" if isinstance(weights, Probability) and asked == "model" else asked


def covariance(kind: str | Cluster, objective: Objective, bread: Bread, phi: float, tables: Any = None) -> Covariance:
    """Covariance of the parameters on the working scale, with H the reported information.

    "model": phi H^-1; "observed": with the observed information; "HC0": H^-1 (sum s s') H^-1 with s the rows' scores;
    "HC1": HC0 n / (n - k); "HC2", "HC3": HC0 of the scores (I - H_i)^(-1/2) s and (I - H_i)^-1 s, with H_i the leverage of a
    row; "probability": HC0 n / (n - 1) (Binder 1983); a Cluster: see there. tables: `Moments.meat`, which HC0, HC1 and
    "probability" are made of where no column had to be replaced by its residual. Passes: one for "observed", HC2 and HC3,
    2^w - 1 for w ways of clustering; for the others one where a column had to be replaced, and none otherwise.
    """
    if isinstance(kind, Cluster):
        return _clustered(kind, objective, bread)
    if kind == "model":
        return Covariance(phi * bread.inverse, bread.inverse, bread.lengths, bread.basis)
    if kind == "observed":
        return _observed(objective, bread, phi)
    if kind in POWERS:
        return _of_scores(kind, objective, bread, POWERS[kind])
    n, k = bread.observations, bread.rank
    factor = {"HC0": 1.0, "HC1": n / (n - k) if n > k else np.nan, "probability": n / (n - 1.0)}[kind]
    if bread.basis is None and tables is not None:
        products = objective.model.gram(tables)
        assert products is not None
        return _sandwich(bread, products, factor)
    return _of_scores(kind, objective, bread, 0.0, factor)


def _sandwich(bread: Bread, products: Matrix, factor: float = 1.0, **known: Any) -> Covariance:
    """factor H^-1 M H^-1."""
    matrix = np.asarray(factor * bread.between(products))
    return Covariance(
        matrix, bread.inverse, bread.lengths, bread.basis, lengths_of(products), root=bread.root(), **known
    )


def _observed(objective: Objective, bread: Bread, phi: float) -> Covariance:
    coef = bread.coef if bread.basis is None else bread.basis.scaled(bread.coef)[0]
    point = objective.evaluate(coef, 2, "observed")
    found = curvature(objective, point, bread.aliased)
    if bread.basis is not None:
        found = sharpened(objective, point, found)
    inverse = found.factor.inverse()
    return Covariance(phi * inverse, inverse, lengths_of(found.gram), basis_of(found), observed=True)


def _of_scores(kind: str, objective: Objective, bread: Bread, power: float, factor: float = 1.0) -> Covariance:
    """From the products of the rows' scores, with leverages taken out to a power; one pass."""
    model = working_model(objective.model, bread.basis)
    function = in_basis(meat, objective.model, bread.basis)
    found: Meat = objective.blocks.total(function, model, bread.coef, bread.inverse, power)
    gradient = model.scores(found.tables)
    if power and found.alone:
        note = (
            f"{found.alone:,} row(s) are fitted by themselves (leverage 1), as by a level that occurs once: {kind} divides 0 by "
            '0 there and has no value; use covariance="HC1", or join levels'
        )
        nothing = np.full(bread.inverse.shape, np.nan)
        return Covariance(nothing, bread.inverse, bread.lengths, bread.basis, note=note, gradient=gradient)
    products = model.gram(found.tables)
    assert products is not None
    return _sandwich(bread, products, factor, power=power, least=found.least, gradient=gradient)


def _clustered(kind: Cluster, objective: Objective, bread: Bread) -> Covariance:
    ways, model = range(len(kind.columns)), working_model(objective.model, bread.basis)
    # what a bucket is folded into is a whole matrix of the raw columns, however sparse X is
    objective.blocks.expect(8 * (model.likelihood.q * model.width) ** 2)
    total, added = np.zeros(bread.inverse.shape), np.zeros(bread.inverse.shape)
    clusters, gradient = [], None
    buckets = buckets_for(bread.rows)
    for subset in (s for size in range(1, len(ways) + 1) for s in combinations(ways, size)):
        scatter = in_basis(ScoresByCluster(model, bread.coef, subset, buckets), objective.model, bread.basis)
        found: ClusterProducts = objective.blocks.grouped(scatter, buckets, ClustersOfBucket(model))
        gradient = found.gradient
        if len(subset) == 1:
            clusters.append(found.clusters)
            if found.clusters < 2 and bread.rows:
                raise DataError(
                    f'"{kind.columns[subset[0]]}" has one value in all rows: errors by cluster need two clusters or more'
                )
        sign = 1.0 if len(subset) % 2 else -1.0
        correction = _correction(kind.correction, float(found.clusters), bread)
        total += sign * correction * found.products
        added += correction * found.products
    errors = _sandwich(bread, total)
    negative = int((np.diag(errors.matrix) < 0.0).sum())
    note = ""
    if negative:
        note = (
            f"the covariance clustered in {len(ways)} ways is not positive definite: {negative} variance(s) are negative, and "
            "their standard errors NaN"
        )
    every = bread.between(added) if len(ways) > 1 else None
    return replace(
        errors, middle=lengths_of(added), added=every, clustered=True, clusters=tuple(clusters), note=note,
        gradient=gradient,
    )  # fmt: skip


def _correction(correction: str, groups: float, bread: Bread) -> float:
    if correction == "none":
        return 1.0
    factor = groups / (groups - 1.0) if groups > 1.0 else np.nan
    if correction == "full":
        n, k = bread.observations, bread.rank
        factor *= (n - 1.0) / (n - k) if n > k else np.nan
    return factor


def log_likelihood(family: Family, stats: FitStats, phi: float, saturated: float | None, weighted: bool) -> float:
    """log L with every constant, at the dispersion phi of `likelihood_dispersion`.

    saturated: sum log p(y; mean y, phi / w), where that had to be summed at phi; None where it follows from the sums.
    NaN for a discrete family whose w y are not counts, and where there is no likelihood.
    """
    if family.likelihood_at == "never" or (family.discrete and stats.fractional):
        return np.nan
    if not phi > 0:
        return np.inf
    if saturated is None and family.likelihood_at == "known":
        saturated = stats.saturated
    if saturated is None:
        shift = family.saturated_shift(stats.observations, phi, weighted)
        if shift is None:
            return np.nan
        saturated = stats.saturated + shift
    return saturated - 0.5 * stats.deviance / phi


def likelihood_dispersion(family: Family, stats: FitStats, reported: float) -> float:
    """The dispersion at which the log-likelihood is taken: the known one, deviance / n, or the reported one."""
    if family.likelihood_at == "known":
        return family.dispersion
    return stats.deviance / stats.observations if family.likelihood_at == "deviance" else reported
