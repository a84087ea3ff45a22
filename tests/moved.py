"""A finished fit with other coefficients: for derivatives by differences, and for tests that must notice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from daskglm.record import FitRecord


def with_coefficients(record: FitRecord, coefficients: npt.NDArray[np.float64]) -> FitRecord:
    """The record with those reported coefficients (r,), on its working scale too."""
    finite = np.nan_to_num(coefficients, posinf=0.0, neginf=0.0)
    own = record.scale.working((finite, np.zeros_like(finite)))
    return replace(record, coefficients=coefficients, working=replace(record.working, coefficients=own))
