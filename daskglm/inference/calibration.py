"""Tables and tests of fit from sums by bins: actual against expected, order, scores, counts, residuals.

Sources: Hosmer and Lemeshow (1980); Murphy (1973) and Dimitriadis, Gneiting and Jordan (2021) for scores; Kleiber and Zeileis
(2016) for rootograms; Dunn and Smyth (1996); Dean (1992); Cameron and Trivedi (1990).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from daskglm.errors import DesignError
from daskglm.totals.checks import ACTUAL, EXPECTED, EXPOSURE, OBSERVATIONS, SCORES, VARIANCE
from daskglm.totals.sketches import FAR, FINE, Sketch

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Columns = dict[str, Any]

# Where quantile residuals are looked at.
PROBABILITIES = np.array([0.001, 0.005, 0.01, 0.025, *np.arange(0.05, 0.96, 0.05), 0.975, 0.99, 0.995, 0.999])


def against(sums: Matrix, phi: float, level: float) -> Columns:
    """Actual and expected of bins (m, k): sums, means per exposure and their ratio.

    The limits of the ratio are 1 -+ z sqrt(phi sum w V) / expected about it, from the variance of a sum of responses under
    the model, means taken as known; chi2 = (actual - expected)^2 / (phi sum w V), on 1 degree of freedom each.
    """
    actual, expected, exposure = sums[:, ACTUAL], sums[:, EXPECTED], sums[:, EXPOSURE]
    error = np.sqrt(phi * sums[:, VARIANCE])
    half = special.ndtri(0.5 + 0.5 * level) * error / expected
    gap = actual - expected
    ratio = actual / expected
    return {
        "observations": sums[:, OBSERVATIONS],
        "exposure": exposure,
        "actual": actual,
        "expected": expected,
        "mean_actual": actual / exposure,
        "mean_expected": expected / exposure,
        "ratio": ratio,
        "lower": ratio - np.abs(half),
        "upper": ratio + np.abs(half),
        "chi2": np.where(gap == 0.0, 0.0, (gap / error) ** 2),
    }


def even(weight: Vector, bins: int) -> npt.NDArray[np.intp]:
    """Which of so many bins of equal weight each fine bin (m,), in order, belongs to: the one its middle falls in."""
    total = weight.sum()
    middle = (np.cumsum(weight) - 0.5 * weight) / (total if total > 0.0 else 1.0)
    place = np.minimum(np.floor(middle * bins), bins - 1).astype(np.intp)
    return np.unique(place, return_inverse=True)[1]


def grouped(sums: Matrix, place: npt.NDArray[np.intp]) -> Matrix:
    """Sums of neighbouring fine bins, by ascending places."""
    if not place.size:
        return sums
    return np.asarray(np.add.reduceat(sums, np.flatnonzero(np.diff(place, prepend=-1)), axis=0))


def spans(sketch: Sketch, place: npt.NDArray[np.intp]) -> tuple[Vector, Vector]:
    """The least and the largest number of each group."""
    low, high = sketch.ends
    first = np.flatnonzero(np.diff(place, prepend=-1))
    last = np.append(first[1:] - 1, place.size - 1) if place.size else first
    return low[first], high[last]


# -- order ---------------------------------------------------------------------------------------------------------------


def lorenz(sums: Matrix) -> tuple[Vector, Vector]:
    """Shares (m + 1,) of exposure and of the actual, of fine bins in order, from 0 to 1."""
    shares = [np.concatenate([[0.0], np.cumsum(column)]) for column in sums.T]
    return shares[0] / shares[0][-1], shares[1] / shares[1][-1]


def concentration(x: Vector, share: Vector, exact: bool) -> tuple[float, float]:
    """1 - 2 int L of a Lorenz curve through these points, and how far at most it is from that of the rows themselves.

    Within a bin the curve lies in a rectangle of which its chord halves the area, so what is unknown is at most half of it.
    """
    width, rise = np.diff(x), np.diff(share)
    area = float((width * (share[1:] + share[:-1])).sum())
    return 1.0 - area, 0.0 if exact else float((width * rise).sum())


def gini(order: Sketch, perfect: Sketch) -> Columns:
    """Of the actual by predictions, by itself, and their ratio, each with a bound on what binning hides."""
    found, error = concentration(*lorenz(order.sums[:, [EXPOSURE, ACTUAL]]), order.exact)
    best, blur = concentration(*lorenz(perfect.sums), perfect.exact)
    result = {"gini": found, "gini_error": error, "perfect": best, "perfect_error": blur}
    if best > blur:
        result["normalised"] = found / best
        result["normalised_error"] = (error + abs(found / best) * blur) / (best - blur)
    return result


# -- scores --------------------------------------------------------------------------------------------------------------


def decomposed(
    score: float, weight: Vector, mean: Vector, divergence: Callable[[Vector, Vector], Vector], loss: Any
) -> Columns:
    """score = miscalibration - discrimination + uncertainty, all per unit of weight.

    Bins (m,) with their weight and mean response; divergence(mean, c) the proper score's; loss: the score of each bin
    foretold its own mean (m,), or of a fixed mean c as (total, c).
    """
    total, middle = float(weight.sum()), float((weight * mean).sum() / weight.sum())
    center = np.full_like(mean, middle)
    discrimination = float((weight * divergence(mean, center)).sum()) / total
    if isinstance(loss, tuple):
        spent, fixed = loss
        uncertainty = (spent - total * float(divergence(center[:1], np.full(1, fixed))[0])) / total
    else:
        uncertainty = float((weight * loss).sum()) / total + discrimination
    return {
        "score": score / total,
        "miscalibration": score / total - uncertainty + discrimination,
        "discrimination": discrimination,
        "uncertainty": uncertainty,
    }


def recalibrated(sums: Matrix) -> Matrix:
    """Fine bins (m, k) pooled as the isotonic regression of the actual on the prediction pools them: what a forecast that keeps
    the order of the predictions could have said at best (Dimitriadis, Gneiting and Jordan 2021), whatever the proper score.
    """
    from scipy.optimize import isotonic_regression

    there = sums[sums[:, EXPOSURE] > 0.0]
    blocks = isotonic_regression(there[:, ACTUAL] / there[:, EXPOSURE], weights=there[:, EXPOSURE]).blocks
    return np.asarray(np.add.reduceat(there, blocks[:-1], axis=0))


def squares(mean: Vector, c: Vector) -> Vector:
    """(mean - c)^2."""
    return (mean - c) ** 2


def relative_entropy(mean: Vector, c: Vector) -> Vector:
    """The divergence of the logarithmic score."""
    return np.asarray(special.rel_entr(mean, c) + special.rel_entr(1.0 - mean, 1.0 - c))


def chance_scores(bins: Matrix) -> dict[str, Columns]:
    """Brier and logarithmic scores of probabilities (m, k)."""
    weight = bins[:, EXPOSURE]
    mean = bins[:, ACTUAL] / weight
    brier, logarithmic = bins[:, SCORES : SCORES + 2].sum(axis=0)
    entropy = special.entr(mean) + special.entr(1.0 - mean)
    return {
        "brier": decomposed(float(brier), weight, mean, squares, mean * (1.0 - mean)),
        "logarithmic": decomposed(float(logarithmic), weight, mean, relative_entropy, entropy),
    }


def mean_scores(family: Any, bins: Matrix, center: float) -> dict[str, Columns]:
    """Squared error, and the deviance where it was summed up, of means per exposure (m, k)."""
    weight = bins[:, EXPOSURE]
    mean = bins[:, ACTUAL] / weight
    totals = bins[:, SCORES:].sum(axis=0)
    result = {"squared_error": decomposed(float(totals[0]), weight, mean, squares, (float(totals[1]), center))}
    if totals.size > 2:

        def divergence(one: Vector, c: Vector) -> Vector:
            with np.errstate(all="ignore"):
                return np.where(one == c, 0.0, family.unit_deviance(one, c, 1.0 - c))

        result["deviance"] = decomposed(float(totals[2]), weight, mean, divergence, (float(totals[3]), center))
    return result


# -- tests ---------------------------------------------------------------------------------------------------------------


def hosmer_lemeshow(order: Sketch, groups: int) -> tuple[Columns, tuple[float, float, float]]:
    """Groups between quantiles of the predicted probability (type 7; ties together), and (chi2, df, p), df = groups - 2.

    Whole bins of predictions go to a group: where those are single values the groups are the exact ones.
    """
    count = order.sums[:, EXPOSURE]
    upto = np.cumsum(count)
    n = float(np.round(upto[-1])) if upto.size else 0.0
    # the bin of the last observation at or below each quantile
    last = np.floor((n - 1.0) * np.arange(1, groups) / groups + 1e-9) + 0.5
    ends = np.searchsorted(upto, last)
    # a quantile at the least prediction ends no group of its own, for the first group begins there
    place = np.searchsorted(np.unique(ends[ends > 0]), np.arange(count.size))
    place = np.unique(place, return_inverse=True)[1]
    sums = grouped(order.sums, place)
    formed = len(sums)
    if formed < 3:
        raise DesignError(f"a Hosmer-Lemeshow test needs 3 groups of predictions, and these form {formed}")
    size, ones, expected = sums[:, EXPOSURE], sums[:, ACTUAL], sums[:, EXPECTED]
    zeros, unexpected = size - ones, size - expected
    with np.errstate(all="ignore"):
        parts = (ones - expected) ** 2 / expected + (zeros - unexpected) ** 2 / unexpected
    chi2 = float(np.where(ones == expected, 0.0, parts).sum())
    low, high = spans(order, place)
    table = {
        "from": low, "to": high, "observations": size, "actual": ones, "expected": expected, "failures": zeros,
        "expected_failures": unexpected,
    }  # fmt: skip
    return table, (chi2, formed - 2.0, float(special.chdtrc(formed - 2, chi2)))


def rootogram(counts: Matrix) -> Columns:
    """Seen and expected of each count, and where a bar hung from sqrt(expected) ends: sqrt(expected) - sqrt(observed)."""
    seen, expected = counts
    with np.errstate(all="ignore"):
        pearson = (seen - expected) / np.sqrt(expected)
    return {
        "observed": seen,
        "expected": expected,
        "hanging": np.sqrt(expected) - np.sqrt(seen),
        "pearson": np.where(seen == expected, 0.0, pearson),
    }


def quantiles(counts: Vector) -> tuple[Columns, float]:
    """Quantiles of residuals beside those of a standard normal, each to 1 part in FINE of a unit, and the largest distance of
    the two distribution functions at the ends of bins.
    """
    upto = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    edges = np.arange(counts.size + 1) / FINE - FAR
    # residuals beyond the last bins are in them
    distance = float(np.abs(upto - special.ndtr(edges))[1:-1].max())
    observed = []
    for p in PROBABILITIES:
        i = max(int(np.searchsorted(upto, p)), 1)
        part = (p - upto[i - 1]) / (upto[i] - upto[i - 1])
        observed.append(edges[i - 1] + part / FINE)
    theoretical = special.ndtri(PROBABILITIES)
    found = np.array(observed)
    table = {
        "probability": PROBABILITIES,
        "theoretical": theoretical,
        "observed": found,
        "deviation": found - theoretical,
    }
    return table, distance


def overdispersion(sums: Vector) -> dict[str, tuple[float, float, float]]:
    """(statistic, estimate, one-sided p) of tests of a Poisson variance against a larger one, normal under the model.

    Dean's P_B = sum ((y - mu)^2 - y) / sqrt(2 sum mu^2), against mu + a mu^2, and P_C = sum ((y - mu)^2 - y) / mu / sqrt(2 n),
    against a mu; Cameron and Trivedi's t of the regression without constant of ((y - mu)^2 - y) / mu on 1 (variance
    (1 + a) mu) and on mu (variance mu + a mu^2), a the estimate.
    """
    n, t, tt, tm, mm, excess = sums

    def regression(cross: float, square: float) -> tuple[float, float]:
        slope = np.float64(cross) / square
        left = max(tt - slope * cross, 0.0) / np.float64(n - 1.0)
        return float(slope / np.sqrt(left / square)), float(slope)

    one, two = regression(t, n), regression(tm, mm)
    found = {
        "Dean P_B": (excess / np.sqrt(2.0 * mm), excess / mm),
        "Dean P_C": (t / np.sqrt(2.0 * n), t / n),
        "Cameron-Trivedi, variance (1 + a) mu": one,
        "Cameron-Trivedi, variance mu + a mu^2": two,
    }
    return {name: (float(s), float(a), float(special.ndtr(-s))) for name, (s, a) in found.items()}
