"""Likelihoods of a response that is one of K classes, with q = K - 1 linear predictors.

Row terms are those of the negative log-likelihood per unit weight: the loss and its derivatives in the predictors.
`possible` (K, n) are the classes that a row can have at the end of an infinite optimum, all of them where it is None: the
others have probability 0, and the rest share the 1. Of ordered classes they are neighbours.
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
Mask = npt.NDArray[np.bool_]


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
    bordered: bool = False
    reported: Information = "expected"

    @property
    def q(self) -> int:
        """Number of linear predictors."""
        return self.classes - 1

    def shares(self, eta: Matrix, possible: Mask | None = None) -> tuple[Matrix, Matrix, Matrix]:
        """mu, 1 - mu and log mu (K, n) at eta (q, n); what is left beside the largest is the sum of the others. possible
        (K, n): the classes that are, None for all.
        """
        if possible is None:
            most = eta.max(axis=0, initial=0.0)
            log_up = np.concatenate([-most[None], eta - most])
        else:
            log_up = np.where(possible, np.concatenate([np.zeros((1, eta.shape[1])), eta]), -np.inf)
            log_up -= log_up.max(axis=0)
        up = np.exp(log_up)
        largest = up == 1.0
        others = np.where(largest, 0.0, up).sum(axis=0) + (largest.sum(axis=0) - 1.0)
        total = 1.0 + others
        mu = up / total
        return mu, np.where(largest, others / total, 1.0 - mu), log_up - np.log1p(others)

    def probabilities(self, eta: Matrix, possible: Mask | None = None) -> Matrix:
        """mu (K, n) at eta (q, n)."""
        return self.shares(eta, possible)[0]

    def rows(
        self,
        y: Codes,
        eta: Matrix,
        order: int = 2,
        information: Information = "observed",
        possible: Mask | None = None,
    ) -> ClassTerms:
        """Terms of each row with class codes y (n,) at eta (q, n)."""
        mu, rest, logarithm = self.shares(eta, possible)
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

    # -- infinite predictors: eta + t z as t grows, with courses (K, n) of all classes, 0 of the reference -------------

    def left(self, possible: Mask, courses: Matrix, noise: Vector | float) -> Mask:
        """Of the possible classes (K, n) those that go fastest, but for noise."""
        fastest = np.where(possible, courses, -np.inf).max(axis=0)
        return np.asarray(possible & (courses >= fastest - noise))

    def alternatives(self, y: Codes, possible: Mask | None, courses: Matrix) -> tuple[Matrix, Mask]:
        """How the class that was seen gains on each other class (K, n), and which of them are possible. The loss never
        rises as t grows iff it loses on none of those, and falls for ever iff it gains on some.
        """
        places, rows = y.astype(np.intp), np.arange(y.size)
        there = np.ones(courses.shape, bool) if possible is None else possible.copy()
        there[places, rows] = False
        return courses[places, rows] - courses, there

    def unit(self, y: Codes, pairs: Matrix) -> Matrix:
        """sum over pairs of (e_seen - e_other)(e_seen - e_other)' (q (q + 1) / 2, n), with how often each counts (K, n)."""
        seen = np.arange(self.classes)[:, None] == y
        diagonal = np.where(seen, pairs.sum(axis=0), pairs)
        beside = (
            diagonal[a + 1] if a == b else -(seen[a + 1] * pairs[b + 1] + seen[b + 1] * pairs[a + 1])
            for a, b in pairs_of(self.q)
        )
        return np.stack(list(beside))

    def pull(self, y: Codes, amount: Matrix) -> Matrix:
        """sum over pairs of amount (e_seen - e_other) in each predictor (q, n); amount (K, n) is 0 for the class seen."""
        seen = np.arange(self.classes)[:, None] == y
        return np.where(seen, amount.sum(axis=0), -amount)[1:]

    def start(self, weights: Vector) -> Vector:
        """eta (q,) of the model without predictors, from the classes' weights (K,)."""
        share = shares(weights)
        return np.log(share[1:] / share[0])


def _if_possible(y: Codes, logarithm: Vector, possible: Mask | None) -> Vector:
    """The logarithms of the classes' probabilities, -infinity where a class is impossible."""
    if possible is None:
        return logarithm
    return np.where(np.take_along_axis(possible, y[None].astype(np.intp), 0)[0], logarithm, -np.inf)


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
    bordered: bool = False
    reported: Information = "observed"

    @property
    def q(self) -> int:
        """Number of thresholds."""
        return self.classes - 1

    def log_difference(self, above: Rates, below: Rates, first: Mask, last: Mask) -> Vector:
        """log(F(a) - F(b)); first: there is no b; last: there is no a."""
        # both probabilities in the lower tail, or both complements in the upper one
        lower = above.log_mu + np.log(-np.expm1(below.log_mu - above.log_mu))
        upper = below.log_rest + np.log(-np.expm1(above.log_rest - below.log_rest))
        inside = np.where(above.log_mu < below.log_rest, lower, upper)
        # so far out that the larger of the two has no logarithm
        inside = np.where(np.minimum(above.log_mu, below.log_rest) == -np.inf, -np.inf, inside)
        one_end = np.where(first, above.log_mu, np.where(last, below.log_rest, inside))
        return np.asarray(np.where(first & last, 0.0, one_end))

    def _ends(
        self, y: Codes, eta: Vector, thresholds: Vector, possible: Mask | None
    ) -> tuple[Rates, Rates, Mask, Mask]:
        first, last = self.edges(y, possible)
        above = self.link.rates(thresholds[np.minimum(y, self.q - 1)] - eta)
        below = self.link.rates(thresholds[np.maximum(y - 1, 0)] - eta)
        return above, below, first, last

    def edges(self, y: Codes, possible: Mask | None) -> tuple[Mask, Mask]:
        """Rows (n,) below whose class there is none, and above whose class there is none."""
        if possible is None:
            return y == 0, y == self.q
        at = y[None].astype(np.intp)
        so_far = np.take_along_axis(np.cumsum(possible, axis=0), at, 0)[0]
        here = np.take_along_axis(possible, at, 0)[0]
        return so_far - here == 0, so_far == possible.sum(axis=0)

    def log_probability(self, y: Codes, eta: Vector, thresholds: Vector, possible: Mask | None = None) -> Vector:
        """log P(Y = y) (n,)."""
        return _if_possible(y, self.log_difference(*self._ends(y, eta, thresholds, possible)), possible)

    def probabilities(self, eta: Vector, thresholds: Vector, possible: Mask | None = None) -> Matrix:
        """P(Y = k) (K, n)."""
        every = (np.full(eta.size, k, np.intp) for k in range(self.classes))
        return np.exp(np.stack([self.log_probability(k, eta, thresholds, possible) for k in every]))

    def slopes(self, eta: Vector, thresholds: Vector, possible: Mask | None = None) -> Matrix:
        """f(t_k - eta) (q, n), 0 where P(Y <= k) is 0 or 1 for good."""
        found = np.stack([self.link.inverse(t - eta)[1] for t in thresholds])
        return found if possible is None else np.where(possible[:-1] & possible[1:], found, 0.0)

    def rows(
        self,
        y: Codes,
        eta: Vector,
        thresholds: Vector,
        order: int = 2,
        information: Information = "observed",
        possible: Mask | None = None,
    ) -> CumulativeTerms:
        """Terms of each row with class codes y (n,) at eta (n,) and thresholds (q,)."""
        n, q = y.size, self.q
        above, below, first, last = self._ends(y, eta, thresholds, possible)
        logarithm = _if_possible(y, self.log_difference(above, below, first, last), possible)
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
            self._expected(terms, eta, thresholds, possible)
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

    def _expected(self, terms: CumulativeTerms, eta: Vector, thresholds: Vector, possible: Mask | None) -> None:
        """sum_j P_j grad log P_j grad log P_j': f_k^2 (1 / P_k + 1 / P_(k+1)), and -f_k f_(k+1) / P_(k+1) beside; in
        logarithms, for f and P vanish together far out.
        """
        every = (np.full(eta.size, k, np.intp) for k in range(self.classes))
        chance = np.stack([self.log_probability(k, eta, thresholds, possible) for k in every])
        slope = np.stack([_log_slope(self.link.rates(t - eta)) for t in thresholds])
        if possible is not None:
            slope = np.where(possible[:-1] & possible[1:], slope, -np.inf)
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

    # -- infinite predictors: t_k - eta + t z_k as t grows, with courses (q, n) of all thresholds ----------------------

    def left(self, possible: Mask, courses: Matrix, noise: Vector | float) -> Mask:
        """The possible classes (K, n) but those above a threshold that goes up, and those below one that goes down."""
        between = possible[:-1] & possible[1:]
        result = possible.copy()
        result[1:] &= ~(between & (courses > noise))
        result[:-1] &= ~(between & (courses < -noise))
        return result

    def alternatives(self, y: Codes, possible: Mask | None, courses: Matrix) -> tuple[Matrix, Mask]:
        """How the class that was seen gains above and below (2, n), and where it has neighbours there. The loss never rises
        as t grows iff it loses on neither side where it has some, and falls for ever iff it gains on one.
        """
        first, last = self.edges(y, possible)
        places, rows = y.astype(np.intp), np.arange(y.size)
        above = courses[np.minimum(places, self.q - 1), rows]
        below = -courses[np.maximum(places - 1, 0), rows]
        return np.stack([above, below]), np.stack([~last, ~first])

    def unit(self, y: Codes, pairs: Matrix) -> Matrix:
        """How often each threshold counts (q, n), with how often the upper and the lower end of the class seen do (2, n)."""
        upper, lower = self._thresholds(y)
        return upper * pairs[0] + lower * pairs[1]

    def pull(self, y: Codes, amount: Matrix) -> Matrix:
        """sum over the ends of amount (2, n), up for the upper and down for the lower one, in each threshold (q, n)."""
        upper, lower = self._thresholds(y)
        return upper * amount[0] - lower * amount[1]

    def _thresholds(self, y: Codes) -> tuple[Mask, Mask]:
        """Which threshold is the upper end of each row's class, and which the lower one (q, n)."""
        places = np.arange(self.q)[:, None]
        return places == y, places + 1 == y

    def start(self, weights: Vector) -> Vector:
        """Thresholds (q,) of the model without predictors, from the classes' weights (K,)."""
        return self.link.link(np.cumsum(shares(weights))[:-1])
