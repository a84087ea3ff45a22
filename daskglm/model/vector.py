"""Likelihoods of a response that is one of K classes, with q = K - 1 linear predictors.

Row terms are those of the negative log-likelihood per unit weight: the loss and its derivatives in the predictors.
Sources: Agresti, Categorical Data Analysis (2013), sections 8.1 and 8.2; McCullagh (1980), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.model.classes import shares
from daskglm.model.likelihoods import Information
from daskglm.model.links import Link, Rates

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]


def pairs_of(q: int) -> list[tuple[int, int]]:
    """The pairs a <= b of q predictors, in the order in which weights are kept."""
    return [(a, b) for a in range(q) for b in range(a, q)]


@final
@dataclass(slots=True)
class ClassTerms:
    """loss (n,); score (q, n) = -dloss/deta; weight (q (q + 1) / 2, n): d2loss/deta_a deta_b for a <= b; chance (n,): the
    probability of the class that was seen."""

    loss: Vector
    score: Matrix
    weight: Matrix
    chance: Vector


@final
@dataclass(frozen=True)
class BaselineLogit:
    """log(mu_k / mu_1) = eta_k: loss = log(1 + sum_k exp(eta_k)) - eta_y, with eta_1 = 0.

    score_k = 1[y = k] - mu_k; weight_kl = mu_k (1[k = l] - mu_l), expected and observed alike.
    """

    classes: int
    parallel: bool = False
    canonical: bool = True
    quadratic: bool = False
    reported: Information = "expected"

    @property
    def q(self) -> int:
        """Number of linear predictors."""
        return self.classes - 1

    def shares(self, eta: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """mu, 1 - mu and log mu (K, n) at eta (q, n); what is left beside the largest is the sum of the others."""
        most = eta.max(axis=0, initial=0.0)
        log_up = np.concatenate([-most[None], eta - most])
        up = np.exp(log_up)
        largest = up == 1.0
        others = np.where(largest, 0.0, up).sum(axis=0) + (largest.sum(axis=0) - 1.0)
        total = 1.0 + others
        mu = up / total
        return mu, np.where(largest, others / total, 1.0 - mu), log_up - np.log1p(others)

    def probabilities(self, eta: Matrix) -> Matrix:
        """mu (K, n) at eta (q, n)."""
        return self.shares(eta)[0]

    def rows(self, y: Codes, eta: Matrix, order: int = 2, information: Information = "observed") -> ClassTerms:
        """Terms of each row with class codes y (n,) at eta (q, n)."""
        mu, rest, logarithm = self.shares(eta)
        rows = np.arange(y.size)
        chance, loss = mu[y, rows], -logarithm[y, rows]
        score = -mu[1:]
        at = np.flatnonzero(y > 0)
        score[y[at] - 1, at] = rest[y[at], at]
        weight = np.empty((0, y.size))
        if order > 1:
            mu, rest = mu[1:], rest[1:]
            weight = np.stack([-mu[a] * mu[b] if a != b else mu[a] * rest[a] for a, b in pairs_of(self.q)])
        return ClassTerms(loss, score, weight, chance)

    def start(self, weights: Vector) -> Vector:
        """eta (q,) of the model without predictors, from the classes' weights (K,)."""
        share = shares(weights)
        return np.log(share[1:] / share[0])


@final
@dataclass(slots=True)
class CumulativeTerms:
    """loss (n,); score (n,) and weight (n,) in eta; threshold_score (q, n), threshold_weight (q, n) on the diagonal and
    beside (q - 1, n) next to it; cross (q, n): d2loss/dthreshold deta; chance (n,): the probability of the class seen.
    """

    loss: Vector
    score: Vector
    weight: Vector
    threshold_score: Matrix
    threshold_weight: Matrix
    beside: Matrix
    cross: Matrix
    chance: Vector


def _log_slope(rates: Rates) -> Vector:
    """log mu' = log(up mu) = log(down (1 - mu)), by the smaller probability, whose rate does not underflow."""
    lower = rates.log_mu < rates.log_rest
    return np.where(lower, np.log(rates.up) + rates.log_mu, np.log(rates.down) + rates.log_rest)


@final
@dataclass(frozen=True)
class Cumulative:
    """P(Y <= k) = F(t_k - eta), thresholds t_1 < ... < t_q: loss = -log(F(t_y - eta) - F(t_(y-1) - eta)).

    With a = t_y - eta, b = t_(y-1) - eta and P their difference: dloss/da = -f(a) / P, dloss/db = f(b) / P;
    observed: d2loss/da2 = (f(a) / P)^2 - f'(a) / P, d2loss/dadb = -f(a) f(b) / P^2, d2loss/db2 = (f(b) / P)^2 + f'(b) / P.
    P is the difference in whichever tail is smaller, so that nothing cancels.
    """

    link: Link
    classes: int
    parallel: bool = True
    canonical: bool = False
    quadratic: bool = False
    reported: Information = "observed"

    @property
    def q(self) -> int:
        """Number of thresholds."""
        return self.classes - 1

    def log_difference(
        self, above: Rates, below: Rates, first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_]
    ) -> Vector:
        """log(F(a) - F(b)); first: there is no b; last: there is no a."""
        # both probabilities in the lower tail, or both complements in the upper one
        lower = above.log_mu + np.log(-np.expm1(below.log_mu - above.log_mu))
        upper = below.log_rest + np.log(-np.expm1(above.log_rest - below.log_rest))
        inside = np.where(above.log_mu < below.log_rest, lower, upper)
        return np.asarray(np.where(first, above.log_mu, np.where(last, below.log_rest, inside)))

    def _ends(
        self, y: Codes, eta: Vector, thresholds: Vector
    ) -> tuple[Rates, Rates, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        first, last = y == 0, y == self.q
        above = self.link.rates(thresholds[np.minimum(y, self.q - 1)] - eta)
        below = self.link.rates(thresholds[np.maximum(y - 1, 0)] - eta)
        return above, below, first, last

    def log_probability(self, y: Codes, eta: Vector, thresholds: Vector) -> Vector:
        """log P(Y = y) (n,)."""
        return self.log_difference(*self._ends(y, eta, thresholds))

    def probabilities(self, eta: Vector, thresholds: Vector) -> Matrix:
        """P(Y = k) (K, n)."""
        return np.exp(
            np.stack(
                [self.log_probability(np.full(eta.size, k, np.intp), eta, thresholds) for k in range(self.classes)]
            )
        )

    def rows(
        self, y: Codes, eta: Vector, thresholds: Vector, order: int = 2, information: Information = "observed"
    ) -> CumulativeTerms:
        """Terms of each row with class codes y (n,) at eta (n,) and thresholds (q,)."""
        n, q = y.size, self.q
        above, below, first, last = self._ends(y, eta, thresholds)
        logarithm = self.log_difference(above, below, first, last)
        # f / P from f = mu up, in logarithms
        fa = np.where(last, 0.0, above.up * np.exp(above.log_mu - logarithm))
        fb = np.where(first, 0.0, below.up * np.exp(below.log_mu - logarithm))
        # mu' = up mu = down (1 - mu): each is exact where the other underflows
        fa = np.where(np.isfinite(fa), fa, above.down * np.exp(above.log_rest - logarithm))
        fb = np.where(np.isfinite(fb), fb, below.down * np.exp(below.log_rest - logarithm))
        columns = np.arange(n)
        at_a, at_b = np.flatnonzero(~last), np.flatnonzero(~first)
        score = np.zeros((q, n))
        score[y[at_a], columns[at_a]] = fa[at_a]
        score[y[at_b] - 1, columns[at_b]] = -fb[at_b]
        empty = np.empty((0, n))
        terms = CumulativeTerms(-logarithm, fb - fa, np.zeros(n), score, empty, empty, empty, np.exp(logarithm))
        if order < 2:
            return terms
        if information == "expected":
            self._expected(terms, eta, thresholds)
            return terms
        aa = np.where(last, 0.0, fa * (fa - above.bend))
        bb = np.where(first, 0.0, fb * (fb + below.bend))
        ab = -fa * fb
        terms.threshold_weight = np.zeros((q, n))
        terms.threshold_weight[y[at_a], columns[at_a]] = aa[at_a]
        terms.threshold_weight[y[at_b] - 1, columns[at_b]] = bb[at_b]
        terms.beside = np.zeros((max(q - 1, 0), n))
        middle = np.flatnonzero(~first & ~last)
        terms.beside[y[middle] - 1, columns[middle]] = ab[middle]
        self._in_eta(terms)
        return terms

    def _expected(self, terms: CumulativeTerms, eta: Vector, thresholds: Vector) -> None:
        """sum_j P_j grad log P_j grad log P_j': f_k^2 (1 / P_k + 1 / P_(k+1)), and -f_k f_(k+1) / P_(k+1) beside; in
        logarithms, for f and P vanish together far out.
        """
        chance = np.stack(
            [self.log_probability(np.full(eta.size, k, np.intp), eta, thresholds) for k in range(self.classes)]
        )
        slope = np.stack([_log_slope(self.link.rates(t - eta)) for t in thresholds])
        vanished = np.isneginf(slope)
        terms.threshold_weight = np.where(
            vanished, 0.0, np.exp(2.0 * slope - chance[:-1]) + np.exp(2.0 * slope - chance[1:])
        )
        beside = -np.exp(slope[:-1] + slope[1:] - chance[1:-1])
        terms.beside = np.where(vanished[:-1] | vanished[1:], 0.0, beside)
        self._in_eta(terms)

    def _in_eta(self, terms: CumulativeTerms) -> None:
        """Every threshold moves against eta: d/deta = -sum_k d/dt_k."""
        cross = -terms.threshold_weight.copy()
        cross[:-1] -= terms.beside
        cross[1:] -= terms.beside
        terms.cross = cross
        terms.weight = -cross.sum(axis=0)

    def start(self, weights: Vector) -> Vector:
        """Thresholds (q,) of the model without predictors, from the classes' weights (K,)."""
        return self.link.link(np.cumsum(shares(weights))[:-1])
