"""The parameters of a model as its user names them, and as the arithmetic holds them: one vector, in two orders and scales.

A response that is a number has a coefficient per column; classes have one per column and class but the first; ordered
classes have slopes that all thresholds share, the thresholds in place of the intercept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daskglm.design.design import Design, Rescaling

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Parameters:
    """kind: "number", "classes" or "ordered", of the response. r parameters in all.

    The arithmetic's own order is predictor by predictor for classes, and thresholds before slopes for ordered ones; its
    columns are shifted and scaled. `coefficients` and `covariance` lead from there to what is reported.
    """

    design: Design
    kind: str = "number"

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels of the classes, the reference or lowest first."""
        return tuple(str(level) for level in self.design.y_levels)

    def labelled(self, names: Sequence[str]) -> tuple[Any, ...]:
        """Names of columns with those that are classes as the response has them: whole numbers, truth values or text."""
        if self.kind == "number":
            return tuple(names)
        levels = dict(zip(self.classes, self.design.y_levels, strict=True))
        return tuple(levels.get(name, name) for name in names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of X that carry coefficients."""
        skipped = 1 if self.kind == "ordered" and self.design.intercept else 0
        return self.design.names[skipped:]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Reported names (r,): "x"; "class:x"; or slopes, then thresholds "low|high"."""
        if self.kind == "classes":
            return tuple(f"{label}:{name}" for label in self.classes[1:] for name in self.columns)
        if self.kind == "ordered":
            return self.columns + self.thresholds
        return self.columns

    @property
    def thresholds(self) -> tuple[str, ...]:
        """Names of thresholds."""
        return tuple(f"{a}|{b}" for a, b in zip(self.classes[:-1], self.classes[1:], strict=True))

    @cached_property
    def term_of(self) -> tuple[str, ...]:
        """The term each parameter belongs to (r,); thresholds to "Intercept"."""
        if self.kind == "classes":
            return self.design.term_of * (len(self.classes) - 1)
        if self.kind == "ordered":
            return self.design.term_of[len(self.design.names) - len(self.columns) :] + ("Intercept",) * len(
                self.thresholds
            )
        return self.design.term_of

    @property
    def n(self) -> int:
        """r."""
        return len(self.names)

    @cached_property
    def _matrix(self) -> Matrix:
        """A (r, r) with reported = A own, for a response of classes; small enough to be written out."""
        unscaling = self.design.unscaling()
        if self.kind == "classes":
            return np.asarray(np.kron(np.eye(len(self.classes) - 1), unscaling.matrix()), np.float64)
        q, p = len(self.thresholds), len(self.columns)
        skipped = len(self.design.names) - p
        result = np.zeros((p + q, p + q))
        result[:p, q:] = np.diag(unscaling.factor[skipped:])
        result[p:, :q] = np.eye(q)
        # thresholds stand on the other side of the slopes: what an intercept would gain, they lose
        result[p:, q:] = -unscaling.shift[skipped:]
        return result

    def coefficients(self, own: Vector) -> Vector:
        """Reported coefficients (r,)."""
        if self.kind == "number":
            return self.design.unscaling().coefficients(own)
        return np.asarray(self._matrix @ own)

    def terms(self, own: Vector) -> Vector:
        """The sizes of what each reported coefficient is a sum of, added (r,)."""
        size = np.abs(own)
        if self.kind == "number":
            unscaling = self.design.unscaling()
            return Rescaling(unscaling.factor, np.abs(unscaling.shift)).coefficients(size)
        return np.asarray(np.abs(self._matrix) @ size)

    def covariance(self, own: Matrix) -> Matrix:
        """Reported covariance (r, r)."""
        if self.kind == "number":
            return self.design.unscaling().covariance(own)
        return np.asarray(self._matrix @ own @ self._matrix.T)

    def own(self, reported: Vector) -> Vector:
        """The arithmetic's own coefficients (r,)."""
        if self.kind == "number":
            return self.design.unscaling().inverse().coefficients(reported)
        return np.asarray(np.linalg.solve(self._matrix, reported))

    def raw_scaling(self) -> tuple[Vector, Vector]:
        """(shift, factor), each (p,), of the columns of X: they enter the arithmetic as (x - shift) factor."""
        shift, factor = self.design.raw_scaling()
        return shift[self.design.select], factor[self.design.select]

    def own_rows(self, linear: Matrix) -> Matrix:
        """Combinations (m, r) of the reported parameters as combinations of the arithmetic's own.

        Of a row of X each entry is (x - shift) factor: the difference is taken first, since the two can be far from zero.
        """
        shift, factor = self.raw_scaling()
        if not self.design.unscaling().shift.any():
            shift = np.zeros_like(shift)
        if self.kind == "number":
            return np.asarray((linear - shift * linear[:, :1]) * factor)
        if self.kind == "classes":
            blocks = linear.reshape(len(linear), len(self.classes) - 1, len(self.columns))
            return np.asarray(((blocks - shift * blocks[:, :, :1]) * factor).reshape(linear.shape))
        p, skipped = len(self.columns), len(self.design.names) - len(self.columns)
        slopes, thresholds = linear[:, :p], linear[:, p:]
        # a threshold stands on the other side of the slopes
        moved = slopes + shift[skipped:] * thresholds.sum(axis=1)[:, None]
        return np.asarray(np.hstack([thresholds, moved * factor[skipped:]]))

    def own_covariance(self, reported: Matrix) -> Matrix:
        """The arithmetic's own covariance (r, r)."""
        if self.kind == "number":
            return self.design.unscaling().inverse().covariance(reported)
        half = np.linalg.solve(self._matrix, reported)
        return np.asarray(np.linalg.solve(self._matrix, half.T))

    def reported(self, own: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Something per parameter (r,), from the arithmetic's order to the reported one."""
        if self.kind != "ordered":
            return own
        q = len(self.thresholds)
        return np.concatenate([own[q:], own[:q]])
